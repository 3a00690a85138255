"""Fixtures of the tests of the core, for all tests.

What needs no fixture is in ``core_cases``: a plugin that was imported before pytest loads it brings a warning.
"""

import re
import sys
from pathlib import Path

import pytest
from core_cases import write_tiny

from npcrepro.cli import commands
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import prepare


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors on one thread: on a busy machine a second one costs more than it brings."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory) -> Path:
    """Folder of a cohort of four patients with a bright disc each. Nobody writes to it."""
    root = tmp_path_factory.mktemp("cohort") / "tiny"
    write_tiny(root)
    return root


@pytest.fixture(scope="session")
def tiny_prepared(tiny_root, tmp_path_factory):
    """The same cohort, prepared."""
    return prepare(read_cohort(tiny_root), tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def fabric():
    """fp32 on the CPU, whatever the machine is good at."""
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the entry point as a shell would; returns exit status, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["npcrepro", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            commands.main()
        # Usage errors are in colour where the environment asks for it.
        return ended.value.code or 0, *(re.sub(r"\x1b\[[0-9;]*m", "", text) for text in capsys.readouterr())

    return call

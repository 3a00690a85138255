"""The papers, one Python module (protocol) and one YAML file (what is printed) each."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from npcrepro.errors import InputError
from npcrepro.protocol import Method, Paper, pick

KEYS = ("li2018", "luo2020", "guo2021", "chen2020", "xue2020")


def load(key: str, modalities: Sequence[str] = ()) -> Paper:
    """The protocol of a paper, on channels of other names where ``modalities`` gives them, in the paper's order.

    A paper whose methods differ in their channels brings a function ``with_modalities`` for that.

    Raises:
        InputError: unknown key, with the near miss; another number of modalities than the paper's.
    """
    pick(dict.fromkeys(KEYS), key, "paper")
    module = importlib.import_module(f"npcrepro.papers.{key}")
    paper: Paper = module.PAPER
    if not modalities:
        return paper
    if hasattr(module, "with_modalities"):
        return module.with_modalities(tuple(modalities))
    channels = paper.methods[0].channels
    if len(modalities) != len(channels):
        raise InputError(f"{key} takes {' and '.join(channels)}, so modalities={list(modalities)} has to be one name")
    return replace(paper, methods=tuple(replace(method, channels=tuple(modalities)) for method in paper.methods))


def find_method(full_name: str) -> tuple[Paper, Method]:
    """Paper and method of a name like ``li2018/stepwise``; ``li2018`` alone means the proposed method."""
    key, _, name = full_name.partition("/")
    paper = load(key)
    return paper, paper.method(name) if name else paper.methods[0]


@cache
def reported(key: str) -> dict:
    """What the paper prints, claims and leaves open: the content of its YAML file."""
    import yaml

    pick(dict.fromkeys(KEYS), key, "paper")
    return yaml.safe_load((Path(__file__).parent / f"{key}.yaml").read_text())

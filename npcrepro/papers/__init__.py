"""The papers, one Python module (protocol) and one YAML file (what is printed) each."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from npcrepro.protocol import Method, Paper, pick

KEYS = ("li2018", "luo2020", "xue2020")


def load(key: str) -> Paper:
    """The protocol of a paper.

    Raises:
        InputError: unknown key, with the near miss.
    """
    pick(dict.fromkeys(KEYS), key, "paper")
    return importlib.import_module(f"npcrepro.papers.{key}").PAPER


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

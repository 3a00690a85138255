"""The papers, one Python module (protocol) and one YAML file (what is printed) each."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from npcrepro.errors import InputError
from npcrepro.protocol import Method, Paper, pick


@dataclass(frozen=True)
class Entry:
    """How pages name a paper.

    Attributes:
        title: ``"Li et al. 2018"``.
        letter: with which the keys of its checks begin (:mod:`npcrepro.audit`); empty if there are none.
    """

    title: str
    letter: str = ""

    @property
    def short(self) -> str:
        """``"Li 2018"``."""
        return self.title.replace(" et al.", "")


# In the order of the book.
PAPERS = {
    "li2018": Entry("Li et al. 2018", "L"),
    "luo2020": Entry("Luo et al. 2020", "U"),
    "guo2021": Entry("Guo et al. 2021", "G"),
    "chen2020": Entry("Chen et al. 2020", "C"),
    "xue2020": Entry("Xue et al. 2020", "X"),
}
KEYS = tuple(PAPERS)


def load(key: str, modalities: Sequence[str] = ()) -> Paper:
    """The protocol of a paper, on channels of other names where ``modalities`` gives them, in the paper's order.

    A paper whose methods differ in their channels brings a function ``with_modalities`` for that.

    Raises:
        InputError: unknown key, with the near miss; another number of modalities than the paper's.

    Example:
        >>> load("chen2020").methods[0].full_name, load("chen2020").methods[0].channels
        ('chen2020/mmfnet', ('T1', 'T2', 'CET1'))
        >>> load("li2018", ["T2"]).methods[0].channels
        ('T2',)
    """
    pick(PAPERS, key, "paper")
    module = importlib.import_module(f"npcrepro.papers.{key}")
    paper: Paper = module.PAPER
    if not modalities:
        return paper
    if hasattr(module, "with_modalities"):
        return module.with_modalities(tuple(modalities))
    channels = paper.methods[0].channels
    if len(modalities) != len(channels):
        names = "one name" if len(channels) == 1 else f"{len(channels)} names"
        raise InputError(f"{key} takes {' and '.join(channels)}, so modalities={list(modalities)} has to be {names}")
    return replace(paper, methods=tuple(replace(method, channels=tuple(modalities)) for method in paper.methods))


def find_method(full_name: str) -> tuple[Paper, Method]:
    """Paper and method of a name like ``li2018/stepwise``; ``li2018`` alone means the proposed method.

    Example:
        >>> paper, method = find_method("guo2021/cscn")
        >>> paper.key, method.title
        ('guo2021', 'CSCN')
    """
    key, _, name = full_name.partition("/")
    paper = load(key)
    return paper, paper.method(name) if name else paper.methods[0]


@cache
def reported(key: str) -> dict:
    """What the paper prints, claims and leaves open: the content of its YAML file.

    Example:
        >>> reported("li2018")["paper"]["journal"]
        'BioMed Research International'
    """
    import yaml

    pick(PAPERS, key, "paper")
    return yaml.safe_load((Path(__file__).parent / f"{key}.yaml").read_text())

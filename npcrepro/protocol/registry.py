"""The papers that there are: each folder of ``npcrepro/papers`` is one."""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from npcrepro.base.errors import InputError, pick
from npcrepro.protocol.method import Entry, Method, Paper

PACKAGE = "npcrepro.papers"
FOLDERS = Path(__file__).parents[1] / "papers"


_FOUND = (path.parent.name for path in FOLDERS.glob("*/__init__.py"))
_ENTRIES: dict[str, Entry] = {key: importlib.import_module(f"{PACKAGE}.{key}").ENTRY for key in _FOUND}
PAPERS = dict(sorted(_ENTRIES.items(), key=lambda item: item[1].place))  # in the order of the book
KEYS = tuple(PAPERS)


def load(key: str, modalities: Sequence[str] = ()) -> Paper:
    """The protocol of a paper; ``modalities``, in the paper's order, replace the names of its channels.

    A paper whose methods differ in their channels has a function ``with_modalities`` for that in its protocol.

    Raises:
        InputError: unknown key, or another number of modalities than the paper's.

    Example:
        >>> load("chen2020").methods[0].full_name, load("chen2020").methods[0].channels
        ('chen2020/mmfnet', ('T1', 'T2', 'CET1'))
        >>> load("li2018", ["T2"]).methods[0].channels
        ('T2',)
    """
    pick(PAPERS, key, "paper")
    module = importlib.import_module(f"{PACKAGE}.{key}.protocol")
    paper: Paper = module.PAPER
    if not modalities:
        return paper
    if hasattr(module, "with_modalities"):
        paper = module.with_modalities(tuple(modalities))
        return paper
    channels = paper.methods[0].channels
    if len(modalities) != len(channels):
        names = "one name" if len(channels) == 1 else f"{len(channels)} names"
        raise InputError(f"{key} takes {' and '.join(channels)}, so modalities={list(modalities)} has to be {names}")
    methods = tuple(replace(method, channels=tuple(modalities)) for method in paper.methods)
    shortened = {name: replace(method, channels=tuple(modalities)) for name, method in paper.shortened.items()}
    return replace(paper, methods=methods, shortened=shortened)


def find_method(full_name: str) -> tuple[Paper, Method]:
    """Paper and method by a name such as ``li2018/stepwise``; ``li2018`` means the proposed method.

    Example:
        >>> paper, method = find_method("guo2021/cscn")
        >>> paper.key, method.title
        ('guo2021', 'CSCN')
    """
    key, _, name = full_name.partition("/")
    paper = load(key)
    return paper, paper.method(name) if name else paper.methods[0]


@cache
def reported(key: str) -> dict[str, Any]:
    """What the paper prints, claims and leaves open: the content of its ``paper.yaml``.

    Raises:
        InputError: unknown key, or a folder without this file.

    Example:
        >>> reported("li2018")["paper"]["patients"]
        29
    """
    import yaml

    pick(PAPERS, key, "paper")
    path = FOLDERS / key / "paper.yaml"
    if not path.exists():
        raise InputError(f"{path} is missing: a paper's folder needs this file with what the paper prints and claims")
    content: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return content

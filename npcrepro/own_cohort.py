"""The book on a cohort of the user: which chapters can be told on it, and what stands in the place of the others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from npcrepro import papers
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.layout import Cohort, read_cohort
from npcrepro.errors import InputError

ANY_PAPER = "explore"  # the notebook that needs the runs of some paper, whichever


def untold(names: Iterable[str], cohort: Path | str, profile: str) -> dict[str, str]:
    """Chapters that cannot be told on a cohort, each with the sentence that says why.

    A chapter wants the channels and structures of every method that its profile runs, under the rules of
    :func:`npcrepro.preprocess.match_names`, and patients enough for the paper's split. The explorer wants some chapter.

    Args:
        names: of notebooks; those that are no chapter of a paper run on any cohort.
        cohort: folder in the nnU-Net raw layout.
        profile: of the book.

    Raises:
        InputError: the folder is no cohort, or the profile is unknown.
    """
    source = read_cohort(Path(cohort))
    names = list(names)
    reasons = {name: _reason(name, source, profile) for name in names if name in papers.PAPERS}
    if ANY_PAPER in names:
        every = [reasons.get(key) or _reason(key, source, profile) for key in papers.KEYS]
        reasons[ANY_PAPER] = every[0] if all(every) else ""
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(key: str, cohort: Cohort, profile: str) -> str:
    from npcrepro.preprocess import match_names

    paper = papers.load(key)
    size = paper.profile(profile)
    try:
        for name in size.methods or (paper.methods[0].name,):
            method = paper.method(name).on(cohort.structures)
            match_names(method.channels, tuple(cohort.channels), cohort.name, "channel")
            match_names(method.structures, tuple(cohort.structures), cohort.name, "structure")
        split_patients(cohort, **paper.split)
    except InputError as problem:
        return str(problem)
    return ""


def page(notebook: Path, reason: str) -> str:
    """A notebook of two cells in the place of one that cannot be told: its title, and the reason."""
    source = json.loads(notebook.read_text("utf-8"))
    title = "".join(source["cells"][0]["source"]).splitlines()[0]
    said = (
        f"This chapter is not told on this cohort: {reason}.\n\n"
        "Where another channel may take the place of the paper's, name it: the parameter `modalities` does that for "
        "one chapter (see [the parameters](../book/papermill.md))."
    )
    cells = [
        {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}
        for name, text in (("title", title), ("reason", said))
    ]
    return json.dumps({**source, "cells": cells})

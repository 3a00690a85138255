"""Which papers can run on a cohort of the user, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.layout import read_cohort
from npcrepro.protocol import registry

ANY_PAPER = "explore"  # the notebook that needs the runs of some paper, whichever


def untold(names: Iterable[str], cohort: Path | str, profile: str) -> dict[str, str]:
    """Chapters that cannot be told on a cohort, each with the sentence that says why.

    A chapter wants the channels and structures of every method that its profile runs, under the rules of
    :func:`npcrepro.sampling.samples.match_names`, and patients enough for the paper's split. The explorer wants some
    chapter.

    Args:
        names: of notebooks; those that are no chapter of a paper run on any cohort.
        cohort: folder in the nnU-Net raw layout.
        profile: of the book.

    Raises:
        InputError: the folder is no cohort, or the profile is unknown.
    """
    source = read_cohort(Path(cohort))
    names = list(names)
    reasons = {name: _reason(name, source, profile) for name in names if name in registry.PAPERS}
    if ANY_PAPER in names:
        every = [reasons.get(key) or _reason(key, source, profile) for key in registry.KEYS]
        reasons[ANY_PAPER] = every[0] if all(every) else ""
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(key: str, cohort: Cohort, profile: str) -> str:
    from npcrepro.sampling.samples import match_names

    paper = registry.load(key)
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

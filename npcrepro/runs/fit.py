"""Which papers can run on a cohort of the user, and why the others cannot."""

from collections.abc import Collection, Iterable
from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.base.wording import in_words
from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.layout import read_cohort
from npcrepro.protocol import registry

ANY_PAPER = "explore"  # the notebook that needs the runs of some paper, whichever
APPENDIX = "-appendix"  # behind the key of a paper: the notebook with everything measured


def paper_of(notebook: str) -> str:
    """Key of the paper whose lesson or appendix a notebook is; empty for any other notebook.

    Example:
        >>> paper_of("li2018"), paper_of("li2018-appendix"), paper_of("claims")
        ('li2018', 'li2018', '')
    """
    key = notebook.removesuffix(APPENDIX)
    return key if key in registry.PAPERS else ""


def untold(
    names: Iterable[str], cohort: Cohort | Path | str, profile: str, papers: Collection[str] = ()
) -> dict[str, str]:
    """Chapters that cannot be told on a cohort, each with the sentence that says why.

    A chapter wants the channels and structures of every method that its profile runs, under the rules of
    :func:`npcrepro.sampling.samples.match_names`, and patients enough for the paper's split. The explorer wants some
    chapter.

    Args:
        names: of notebooks; those that are no chapter of a paper run on any cohort.
        cohort: read already, or a folder in the nnU-Net raw layout.
        profile: of the book.
        papers: whose runs are there; none stands for all of them.

    Raises:
        InputError: the folder is no cohort, or the profile is unknown.
    """
    source = cohort if isinstance(cohort, Cohort) else read_cohort(cohort)

    def reason(key: str) -> str:
        if papers and key not in papers:
            return f"the runs of this book are those of {in_words(papers)}"
        return _reason(key, source, profile)

    reasons = {}
    for name in names:
        if key := paper_of(name):
            reasons[name] = reason(key)
        elif name == ANY_PAPER:
            every = [reason(key) for key in registry.KEYS]
            reasons[name] = every[0] if all(every) else ""
    return {name: said for name, said in reasons.items() if said}


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

"""What every chapter on a paper ends with, and what each paper gives to somebody who wants to check it.

Facts about a paper come from its YAML file, verdicts from the audit and the ledger, everything else from records.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd
from IPython.display import HTML
from markupsafe import Markup

from npcrepro.base.errors import InputError, pick
from npcrepro.base.wording import plural
from npcrepro.book.chapter import Chapter
from npcrepro.book.departures import KINDS, departures
from npcrepro.book.parts import frame
from npcrepro.book.tables import spread_of_means
from npcrepro.book.topics.leaderboard import LEAST_PATIENTS
from npcrepro.findings import audit
from npcrepro.findings.claims import ledger
from npcrepro.findings.claims.ledger import Line
from npcrepro.protocol import registry
from npcrepro.runs.per_patient import by_patient
from npcrepro.runs.published import Published, published_folders, read_published

# What a paper has to give so that somebody else can check it, in the order of the table.
CRITERIA = {
    "data": "the images can be had",
    "code": "the code can be had",
    "splits": "training, validation and test are divided by patient, and the division can be repeated",
    "seeds": "each network is trained more than once on the same patients",
    "statistics": "the spread over patients, and tests on the same patients",
}
MET = {"full": "yes", "partly": "in part", "none": "no"}
# A sign and a colour for each: dark text on light ground, told apart by both (Okabe and Ito's palette, lightened).
OVERALL_VERDICTS = {
    # Some claims are confirmed or seen here, and none is refuted, not seen or mixed.
    "holds so far": ("✓", "#bfe6d8"),
    # Some claims are borne out in full or in part, others are not.
    "mixed": ("±", "#fbe3b5"),
    # Claims are borne out, but none in the reported size.
    "weaker than reported": ("↓", "#fbe3b5"),
    # Claims are refuted or not seen here, none is borne out.
    "does not hold so far": ("✗", "#f6c9ad"),
    # Fewer than half of the claims have been decided.
    "open": ("?", "#d9e3ea"),
}


def overall_verdict(verdicts: Sequence[str]) -> str:
    """One of `OVERALL_VERDICTS` for the verdicts of a paper's claims, by the tests that were listed first.

    A few claims say little of a paper, and the one that it is about may not be among them: where fewer than half are
    decided, it is open.

    Example:
        >>> overall_verdict(["confirmed", "undecided"]), overall_verdict(["undecided"])
        ('holds so far', 'open')
    """
    found = Counter(verdicts)
    decided = sum(found[verdict] for verdict in ledger.DECIDED)
    if not decided or 2 * decided < len(verdicts):
        return "open"
    shown = found["confirmed"] + found[ledger.SEEN]
    if found["refuted"] + found[ledger.NOT_SEEN] + found["mixed"]:
        return "mixed" if shown + found["weakened"] + found["mixed"] else "does not hold so far"
    return "holds so far" if shown else "weaker than reported"


def chapter_end(key: str, chapter: Chapter | None = None) -> HTML:
    """The end of a chapter: verdict, scope, what was easy and difficult, departures, chance and computing time.

    Args:
        key: of the paper.
        chapter: whose runs were made for the page; without it only published runs count.

    Returns:
        A table with two columns, and the claims to be unfolded.
    """
    lines = ledger.ledger(keys=[key])
    found = [each for each in map(read_published, published_folders()) if each.runs[0]["paper"] == key]
    verdicts, own = [line.verdict for line in lines if line.claim.by == "paper"], ledger.own(lines)
    decided = f"{plural(len(verdicts), 'claim')}: {_counted(verdicts, ledger.VERDICTS)}"
    if own:
        decided += f"; {len(own)} of this book: {_counted([line.verdict for line in own], ledger.VERDICTS)}"
    rows = {
        "Verdict": Markup("{} {}").format(badge(overall_verdict(verdicts)), decided),
        "Scope": _scope(lines),
        "What was easy": _entry(key, "experience", "easy"),
        "What was difficult": _entry(key, "experience", "difficult"),
        "Departures": _departures(key),
        "Arithmetic": Markup('{} (<a href="audit.html">what each asks</a>).').format(_checked(key)),
        "Seed noise": _chance(key, found),
        "Compute": f"{_entry(key, 'compute')} (the paper). {_compute(found, chapter)}",
    }
    return HTML(frame(list(rows.items())))


def given() -> pd.DataFrame:
    """What each paper gives to somebody who wants to check it: a row of text for each paper, a column for each of
    `CRITERIA` (yes, in part or no), ``checks`` of its arithmetic, ``gaps`` in its text, and why behind each answer."""
    rows = []
    for key, entry in registry.PAPERS.items():
        row, why = {"paper": entry.short}, {}
        for name, asked in CRITERIA.items():
            answer = _entry(key, "scorecard", name, "met")
            row[name] = pick(MET, answer, f"answer to scorecard: {name} in papers/{key}/paper.yaml")
            why[f"{name}: {asked}?"] = _entry(key, "scorecard", name, "says")
        rows.append(row | {"checks": _checked(key), "gaps": str(len(_entry(key, "gaps")))} | why)
    return pd.DataFrame(rows)


def badge(word: str) -> Markup:
    """A word of `OVERALL_VERDICTS` with its sign on its colour, as HTML."""
    sign, colour = OVERALL_VERDICTS[word]
    style = f"background: {colour}; color: #1b2530; padding: 0.1em 0.5em; border-radius: 0.6em; white-space: nowrap"
    return Markup('<span class="npc-badge" style="{}">{} {}</span>').format(style, sign, word)


def _entry(key: str, *path: str):
    """An entry of a paper's YAML file; one that a page shows and the file lacks is an `InputError`."""
    found = registry.reported(key)
    for name in path:
        # A word in place of a mapping has no entries either.
        if not isinstance(found, dict) or name not in found:
            place = f"npcrepro/papers/{key}/paper.yaml"
            raise InputError(f"{place} has no {': '.join(path)}, which a page of the book shows")
        found = found[name]
    return found


def _counted(verdicts: Iterable[str], order: Iterable[str]) -> str:
    """``"1 refuted, 3 undecided"``."""
    found = Counter(verdicts)
    return ", ".join(f"{found[verdict]} {verdict}" for verdict in order if found[verdict])


def _scope(lines: Sequence[Line]) -> Markup:
    """The claims, to be unfolded."""
    rows = [
        (
            line.claim.text,
            f"{line.claim.printed} ({line.claim.where})",
            line.verdict,
            line.controlled if line.control else "no control",
        )
        for line in lines
    ]
    table = frame(rows, ("claim", "reported", "as first listed", "after a stronger control"), classes="dataframe")
    return Markup(
        "<details><summary>{} that this chapter is about</summary>{}</details>"
        'Tests, effects and commands are in the <a href="claims.html">ledger of claims</a>.'
    ).format(plural(len(lines), "claim"), table)


def _departures(key: str) -> Markup:
    kinds = [entry.kind for entry in departures() if entry.paper == key]
    anchor = registry.PAPERS[key].title.lower().replace(" ", "-").replace(".", "")
    return Markup(
        '{} lines of code are tagged: {} (<a href="../book/departures.html#{}">listed with their places</a>).'
    ).format(len(kinds), ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS), anchor)


def _checked(key: str) -> str:
    """``"12 checks: 4 consistent, 8 unusual"``."""
    mine = [name for name, check in audit.CHECKS.items() if check.paper == key]
    if not mine:
        return "not checked"
    verdicts = [each.finding.verdict for each in audit.audit(mine)]
    return f"{plural(len(verdicts), 'check')}: {_counted(verdicts, audit.VERDICTS)}"


def _chance(key: str, found: Sequence[Published]) -> str:
    """How far means move from seed to seed, or the command that would show it."""
    if known := " ".join(filter(None, map(_spread, found))):
        return known
    why = "All published runs have one seed" if found else "No run is published"
    command = f"npcrepro run {key} --cohort COHORT --seeds 0 --seeds 1 --seeds 2"
    told = "{}, so the seed noise is not known yet. <code>{}</code> would measure it."
    return Markup(told).format(why, command)


def _spread(published: Published) -> str:
    """How far the means of a record move from seed to seed, and of how many methods that is known; or nothing."""
    rows = by_patient(published.cases)
    rows = rows[(rows.region == "all_slices") & ~rows.suspect]
    spread, seeds = spread_of_means(rows, "dsc"), rows.groupby("method").seed.nunique()
    known = spread.dropna()
    if known.empty or rows.patient.nunique() < LEAST_PATIENTS:
        return ""
    ends = dict.fromkeys(f"{end:.3f}" for end in (known.min(), known.max()))
    times = dict.fromkeys(map(str, sorted(seeds[known.index])))
    once = len(spread) - len(known)
    rest = f"; the other {plural(once, 'method')} {'has' if once == 1 else 'have'} one seed" if once else ""
    return (
        f"On {published.runs[0]['cohort']}, for the {plural(len(known), 'method')} with {' or '.join(times)} "
        f"seeds, another seed moves the mean DSC by a standard deviation of {' to '.join(ends)}{rest}."
    )


def _compute(found: Sequence[Published], chapter: Chapter | None) -> str:
    """Machine and hours of the published runs, and seconds of those of the page."""
    parts = []
    for runs in (published.runs for published in found):
        seconds = sum(run["seconds"]["all"] for run in runs)
        took = f"{seconds / 3600:.1f} h" if seconds >= 360 else f"{seconds:.0f} s"
        processors = " and ".join(dict.fromkeys(run["processor"] for run in runs))
        where = f"{runs[0]['device']}, {processors}, {plural(runs[0]['threads'], 'thread')}"
        parts.append(f"{plural(len(runs), 'published run')} on {runs[0]['cohort']}: {took} ({where}).")
    if chapter:
        number = plural(len(chapter.every_run), "run")
        parts.append(f"{number} of this page: {chapter.seconds:.0f} s ({chapter.made}).")
    return " ".join(parts) or "No run is published."

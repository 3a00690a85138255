"""Every claim of the papers with what the records published with the book say about it.

The ledger is made anew at every build. A claim without evidence stays in it, with the command that would make some.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from npcrepro.findings import leakage
from npcrepro.findings.claims import sensitivity
from npcrepro.findings.claims.claim import Claim
from npcrepro.findings.claims.decision import ENOUGH_PATIENTS
from npcrepro.findings.claims.family import (
    DECIDED,
    FIRM,
    FULL,
    NEW_RUNS,
    NO_EVIDENCE,
    NOT_HERE,
    NOT_SEEN,
    SEEN,
    TOO_FEW,
    USUAL_SD,
    VERDICTS,
    Family,
    Line,
    absolute,
    claims,
    patients_wanted,
)
from npcrepro.findings.claims.source import PHANTOM, Source, best, rows_of, sources
from npcrepro.findings.tally import tally, text_table
from npcrepro.protocol import registry

__all__ = ["DECIDED", "FIRM", "NEW_RUNS", "NOT_HERE", "NOT_SEEN", "NO_EVIDENCE", "SEEN", "TOO_FEW"]
__all__ += ["USUAL_SD", "VERDICTS", "Line", "claims", "sources"]
__all__ += ["command", "counts", "ledger", "needed", "own", "table"]
RUN = "npcrepro run {paper} --cohort {cohort} {options} --publish book/results/{name}"
SLICE = "npcrepro data slices COHORT {cohort} --by {unit} --patients N"


def ledger(found: Sequence[Source] | None = None, keys: Iterable[str] = ()) -> list[Line]:
    """Decide every claim of the papers (all if ``keys`` is empty), by default on the sources of the book.

    Each claim is decided on its :func:`~npcrepro.findings.claims.source.best` source, by the test that was listed
    first, and once more by its stronger control, if it has one. Claims of one paper are corrected together by Holm's
    method: the tests that were listed first among each other, and those with controls in their places.
    """
    found = sources() if found is None else found
    lines: list[Line] = []
    for paper in keys or registry.KEYS:
        first = Family(claims(paper), found)
        families = first, first.controlled()
        listed, then = ([_beside_patients(each, _steady(each, line)) for line in each.lines()] for each in families)
        pairs = zip(listed, then, strict=True)
        lines += [replace(one, control=other) if one.claim.control else one for one, other in pairs]
    return lines


def _steady(family: Family, line: Line) -> Line:
    """The line; what one patient or one convention of distance turns is no verdict on the paper."""
    if line.verdict not in FIRM:
        return line
    turning = next((one for one in sensitivity.of_claim(family, line) if one.turns and one.shakes), None)
    if turning is None:
        return line
    reason = f"{line.reason} It hangs on one choice, {turning.choice}: {turning.after.verdict} then."
    return replace(line, verdict=NOT_SEEN if line.verdict == "refuted" else SEEN, reason=reason)


def _beside_patients(family: Family, line: Line) -> Line:
    """The line; where a phantom gives its verdict, with what records of enough patients say beside it."""
    if line.verdict not in DECIDED or not line.on_phantom:
        return line
    other = best([each for each in family.found if not each.cohort.startswith(PHANTOM)], line.claim)
    then = family.again(line.claim, other, rows_of(line.claim, other)) if other else line
    if not other or min((part.numbers.get("patients", 0) for part in then.parts), default=0) < ENOUGH_PATIENTS:
        return replace(line, reason=f"{line.reason} No record of {ENOUGH_PATIENTS} patients has these networks.")
    told = f"On {then.patients.split(' / ')[0]} patients of {then.cohort} it is {then.verdict}: {then.effect}."
    return replace(line, reason=f"{line.reason} {told}")


def own(lines: Iterable[Line]) -> list[Line]:
    """The lines of what this book and its audit say themselves; the others are of the papers."""
    return [line for line in lines if line.claim.by == "book"]


def table(lines: Sequence[Line]) -> pd.DataFrame:
    """One row for each claim, as a data frame of text."""
    columns = {
        "claim": lambda line: line.claim.key.split("-")[-1],
        "paper": lambda line: line.claim.paper,
        "by": lambda line: {"paper": "the paper", "book": "this book"}[line.claim.by],
        "as first listed": lambda line: line.verdict,
        "after a stronger control": lambda line: line.controlled,
        "what is claimed": lambda line: line.claim.text,
        "effect (95 % over patients)": lambda line: line.effect,
        "patients / seeds": lambda line: line.patients,
        "cohort": lambda line: line.cohort,
        "printed": lambda line: f"{line.claim.printed} ({line.claim.where})",
        "test": lambda line: line.claim.test,
        "reason": lambda line: line.reason,
        "control": lambda line: line.control.claim.test if line.control else "",
        "effect with the control": lambda line: line.control.effect if line.control else "",
        "reason with the control": lambda line: line.control.reason if line.control else "",
        "patients needed": lambda line: needed(line.claim),
        "command": lambda line: command(line.claim),
    }
    return text_table(lines, columns)


def counts(lines: Sequence[Line], column: str = "as first listed", by: str = "paper") -> pd.DataFrame:
    """How many claims of each paper have each verdict, with sums, as a data frame.

    Args:
        column: of :func:`table`, ``"as first listed"`` or ``"after a stronger control"``.
        by: ``"paper"`` for what the papers claim; what this book says itself (``"book"``) is counted apart.
    """
    return tally(table([line for line in lines if line.claim.by == by]), by="paper", of=column, order=VERDICTS)


def needed(claim: Claim) -> str:
    """How many patients show the effect of a DSC claim in 80 of 100 cohorts, if differences vary as usual."""
    told = [patients_wanted(part, {}) for part in claim.tested if part.metric in ("dsc", "jsc")]
    return "; ".join(f"{n:,}{why}" for n, why, _ in told if why)


def command(claim: Claim) -> str:
    """What makes evidence for a claim, its control included; empty where records cannot."""
    tested = [part for each in (claim, claim.control) if each for part in each.tested]
    arms = [arm for part in tested for arm in part.arms]
    commands = []
    for end in dict.fromkeys(arm.cohort for arm in arms):
        values: dict[str, Iterable[Any]] = {"methods": dict.fromkeys(arm.method for arm in arms if arm.cohort == end)}
        values["seeds"] = range(max(part.seeds for part in tested))
        cohort, name = f"COHORT{end}", "NAME"
        if end:
            # Every slice has to be tested in both splits. A paper whose folds are as many as the patients of the cohort
            # has no "folds" here: the profile chooses.
            values["folds"] = range(registry.load(claim.paper).split.get("folds", 0))
            name = f"{claim.paper}-leakage-NAME{end}"
            commands.append(SLICE.format(cohort=cohort, unit=leakage.SPLITS[end]))
        if any(map(absolute, tested)):
            values["profile"] = [FULL]  # at another one it would decide nothing
        options = " ".join(f"--{option} {value}" for option, each in values.items() for value in each)
        commands.append(RUN.format(paper=claim.paper, cohort=cohort, options=options, name=name))
    return " && ".join(commands)

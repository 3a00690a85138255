"""Every claim of the papers with what the records published with the book say about it.

The ledger is made anew at every build. A claim without evidence stays in it, with the command that would make some.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp, isnan, nan
from typing import Any

import pandas as pd

from npcrepro import statistics
from npcrepro.base.errors import one_of, pick
from npcrepro.findings import leakage
from npcrepro.findings.claims.claim import Claim
from npcrepro.findings.claims.decision import Decision, all_of, decide_together
from npcrepro.findings.claims.source import DECIDING, Source, best, rows_of, sources
from npcrepro.findings.tally import tally, text_table
from npcrepro.protocol import registry

NO_EVIDENCE, NOT_HERE = "no evidence yet", "not testable here"
VERDICTS = {
    "confirmed": "the records show it, and the interval reaches the printed effect or lies beyond it",
    "weakened": "the records show it, short of the printed effect",
    "refuted": "the records show the opposite, or no difference that matters",
    "undecided": "there are records, but they cannot decide it",
    NO_EVIDENCE: "nothing that is published with the book speaks to it",
    NOT_HERE: "records cannot decide it; the reason says what would",
}
DECIDED = ("confirmed", "weakened", "refuted")
FULL = "paper"  # the profile at which networks and trainings have the size of the paper's
USUAL_SD = 0.08  # of paired differences of the DSC, for the number of patients; no paper prints one
RUN = "npcrepro run {paper} --cohort {cohort} {options} --publish book/results/{name}"
SLICE = "npcrepro data slices COHORT {cohort} --by {unit} --patients N"


@dataclass(frozen=True)
class Line:
    """A claim with what is known of it.

    Attributes:
        claim: see :class:`~npcrepro.findings.claims.Claim`.
        verdict: one of :data:`VERDICTS`.
        reason: the numbers that decide, or why none do.
        parts: decisions on what was tested: one, or one for each part.
        source: published runs that decided, by name.
        cohort: that they were made on.
        command: that makes evidence, or more of it; empty where records cannot.
    """

    claim: Claim
    verdict: str
    reason: str
    parts: tuple[Decision, ...] = ()
    source: str = ""
    cohort: str = ""
    command: str = ""

    @property
    def effect(self) -> str:
        """Estimates of the parts, with their 95 % intervals."""
        tested = {part.key: part for part in self.claim.tested}
        told = {part.claim.partition(" ")[2]: _effect(part, tested[part.claim]) for part in self.parts}
        return "; ".join(f"{name}: {effect}".removeprefix(": ") for name, effect in told.items() if effect)

    @property
    def patients(self) -> str:
        """How many patients and seeds."""
        numbers = [part.numbers for part in self.parts if part.numbers]
        return f"{numbers[0]['patients']:.0f} / {numbers[0]['seeds']:.0f}" if numbers else ""


def claims(paper: str) -> list[Claim]:
    """The claims of a paper, from its YAML file.

    Raises:
        InputError: a claim that cannot be read, or one on a method or a metric that there is not, with the near miss.

    Example:
        >>> claims("xue2020")[0].key
        'xue2020-56'
    """
    read = [Claim.from_data({"paper": paper, **entry}) for entry in registry.reported(paper).get("claims", [])]
    # A misspelt method would never find its runs, and a misspelt metric would be noticed only once there are runs.
    methods = {method.name: method for method in registry.load(paper).methods} if read else {}
    asked = chain(read, (claim.first for claim in read if claim.first))
    for part in chain.from_iterable(claim.tested for claim in asked):
        for arm, metric in zip(part.arms, part.metrics, strict=True):
            pick(methods, arm.method, f"method of claim {part.key}")
            one_of(DECIDING, metric, f"metric of claim {part.key}")
    return read


def ledger(found: Sequence[Source] | None = None, keys: Iterable[str] = ()) -> list[Line]:
    """Decide every claim of the papers (all if ``keys`` is empty), by default on the sources of the book.

    Each claim is decided on its :func:`~npcrepro.findings.claims.source.best` source. Claims of one paper are corrected
    together by Holm's method.
    """
    found = sources() if found is None else found
    lines = []
    for paper in keys or registry.KEYS:
        entries = [(claim, best(found, claim)) for claim in claims(paper)]
        family = list(chain.from_iterable(rows_of(claim, source) for claim, source in entries))
        decisions = {decision.claim: decision for decision in decide_together(family)}
        lines += [line_of(claim, source, decisions) for claim, source in entries]
    return lines


def table(lines: Sequence[Line]) -> pd.DataFrame:
    """One row for each claim, as a data frame of text."""
    columns = {
        "claim": lambda line: line.claim.key.split("-")[-1],
        "paper": lambda line: line.claim.paper,
        "verdict": lambda line: line.verdict,
        "what is claimed": lambda line: line.claim.text,
        "effect (95 % interval)": lambda line: line.effect,
        "patients / seeds": lambda line: line.patients,
        "cohort": lambda line: line.cohort,
        "printed": lambda line: f"{line.claim.printed} ({line.claim.where})",
        "test": lambda line: line.claim.test,
        "reason": lambda line: line.reason,
        "patients needed": lambda line: needed(line.claim),
        "command": lambda line: line.command,
    }
    return text_table(lines, columns)


def counts(lines: Sequence[Line]) -> pd.DataFrame:
    """How many claims of each paper have each verdict, with sums, as a data frame."""
    return tally(table(lines), by="paper", of="verdict", order=VERDICTS)


def needed(claim: Claim) -> str:
    """How many patients show the effect of a DSC claim in 80 of 100 cohorts, if differences vary as usual."""
    told = []
    for part in claim.tested:
        effect = part.margin if part.form == "equivalence" else part.reported
        if part.metric in ("dsc", "jsc") and part.form in ("difference", "equivalence") and effect:
            # Four independent arms vary as two pairs do.
            sd = USUAL_SD * (len(part.arms) / 2) ** 0.5
            n = statistics.patients_needed(effect, sd, equivalence=part.form == "equivalence")
            told.append(f"{n:,} for {abs(effect):g} (sd {sd:.2f}, assumed)")
    return "; ".join(told)


def command(claim: Claim) -> str:
    """What makes evidence for a claim; empty where records cannot."""
    arms = [arm for part in claim.tested for arm in part.arms]
    commands = []
    for end in dict.fromkeys(arm.cohort for arm in arms):
        values: dict[str, Iterable[Any]] = {"methods": dict.fromkeys(arm.method for arm in arms if arm.cohort == end)}
        values["seeds"] = range(max(part.seeds for part in claim.tested))
        cohort, name = f"COHORT{end}", "NAME"
        if end:
            # Every slice has to be tested in both splits. A paper whose folds are as many as the patients of the cohort
            # has no "folds" here: the profile chooses.
            values["folds"] = range(registry.load(claim.paper).split.get("folds", 0))
            name = f"{claim.paper}-leakage-NAME{end}"
            commands.append(SLICE.format(cohort=cohort, unit=leakage.SPLITS[end]))
        if any(_absolute(part) for part in claim.tested):
            values["profile"] = [FULL]  # at another one it would decide nothing
        options = " ".join(f"--{option} {value}" for option, each in values.items() for value in each)
        commands.append(RUN.format(paper=claim.paper, cohort=cohort, options=options, name=name))
    return " && ".join(commands)


def line_of(claim: Claim, source: Source | None, decisions: Mapping[str, Decision]) -> Line:
    """A claim with the decisions on what was tested of it, by key."""
    if claim.form == "elsewhere":
        return Line(claim, NOT_HERE, f"It takes {claim.needs}.")
    if not source:
        names = " and ".join(dict.fromkeys(arm.method for part in claim.tested for arm in part.arms))
        return Line(claim, NO_EVIDENCE, f"No published runs of {names} on one cohort.", command=command(claim))
    parts = tuple(decisions[part.key] for part in claim.tested if part.key in decisions)
    missing = [part.text for part in claim.tested if part.key not in decisions]
    decision = parts[0] if claim.form != "all" else all_of(claim.key, parts, claim.needed, len(missing))
    named = {part.key: f"{part.text}: " if claim.form == "all" else "" for part in claim.tested}
    verdict, reason = decision.verdict, " ".join(f"{named[part.claim]}{part.reason}" for part in parts)
    if missing:
        reason += f" No runs yet for: {', '.join(missing)}."
    if verdict in DECIDED and source.profile != FULL and any(_absolute(part) for part in claim.tested):
        verdict = "undecided"
        reason += f" A number by itself is judged at the size of the paper only, and this is profile {source.profile}."
    if claim.limits:
        reason += f" {claim.limits}"
    if source.substituted:
        reason += f" Here {', '.join(f'{new} stands for {old}' for old, new in source.substituted.items())}."
    return Line(claim, verdict, reason, parts, source.name, f"{source.cohort} ({source.profile})", command(claim))


def _absolute(claim: Claim) -> bool:
    """Whether a claim is about a number of one method, which grows with its size and training."""
    return claim.form in ("value", "share") and len(claim.arms) == 1


def _effect(decision: Decision, claim: Claim) -> str:
    """The estimate with its interval: a difference has a sign, a ratio a factor sign, a mean its name."""
    numbers = decision.numbers
    scale = "log" if claim.scale == "log" else "mean" if _absolute(claim) else claim.form
    if "count" in numbers:
        return f"{numbers['count']:.0f} of {numbers['units']:.0f}"
    found = [numbers.get(name, nan) for name in ("ratio" if scale == "spread" else "mean", "low", "high")]
    if isnan(found[0]):
        return ""
    if scale == "log":
        found = [exp(number) for number in found]
    names = {"log": "x ", "spread": "sd x ", "mean": "mean "}
    value, low, high = (f"{number:.3f}" if scale in names else f"{number:+z.3f}" for number in found)
    name = names.get(scale, "")
    return f"{name}{value}" + ("" if isnan(found[1]) else f" ({low} to {high})")

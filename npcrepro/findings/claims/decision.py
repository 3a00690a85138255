"""From numbers to a verdict and the sentence that gives its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil, exp, inf, isnan, log, log10, nan
from typing import Literal, get_args

from npcrepro import statistics
from npcrepro.base.errors import InputError
from npcrepro.findings.claims.claim import TESTED, Claim
from npcrepro.findings.claims.evidence import Evidence, weigh

Verdict = Literal["confirmed", "weakened", "refuted", "undecided"]
Judged = tuple[Verdict, str, tuple[float, ...]]  # with the numbers that the estimate must not cross for it to stand
ALPHA = 0.05
ENOUGH_PATIENTS = 20  # of fewer, intervals and p values exist, but rest on very few people


@dataclass(frozen=True)
class Decision:
    """What the records say about a claim.

    Attributes:
        claim: key of the claim.
        verdict: confirmed, weakened, refuted or undecided.
        reason: the numbers that decide, in words; then what limits the verdict.
        numbers: every number behind it, by name; ``nan`` where it cannot be computed.
    """

    claim: str
    verdict: Verdict
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def decide_together(family: Sequence[tuple[Claim, object]], seed: int = 0) -> list[Decision]:
    """Decide the claims of one paper, each with its rows, with Holm's correction for their number.

    Args:
        family: claims, each with a data frame of :func:`npcrepro.runs.per_patient.select`: one structure and one
            region, columns ``paper``, ``method``, ``patient``, ``seed``, ``status`` and the metrics.
        seed: of resampling.

    Raises:
        InputError: the metric of a claim is no column, the rows hold several structures or regions, or a claim is not
            tested by itself (decide its parts, then :func:`all_of`).
    """
    return judge_together([claim for claim, _ in family], weigh_all(family, seed))


def judge_together(claims: Sequence[Claim], weighed: Mapping[str, Evidence | str]) -> list[Decision]:
    """The same, from evidence that is there: of :func:`weigh_all`, by key of the claim."""
    found = [weighed[claim.key] for claim in claims]
    # Two families: tests that could show a claim or its opposite, and tests of likeness that could refute a difference.
    sides, alike = (
        _adjusted(claims, [nan if isinstance(evidence, str) else getattr(evidence, name) for evidence in found])
        for name in ("p", "p_alike")
    )
    return [
        Decision(claim.key, "undecided", evidence) if isinstance(evidence, str) else _judge(claim, evidence, *p)
        for claim, evidence, *p in zip(claims, found, sides, alike, strict=True)
    ]


def weigh_all(family: Sequence[tuple[Claim, object]], seed: int = 0) -> dict[str, Evidence | str]:
    """Evidence on each claim, by its key, or why there is none.

    Raises:
        InputError: as there.
    """
    for claim, _ in family:
        if claim.form not in TESTED:
            raise InputError(f"claim {claim.key} of the form {claim.form!r} is not tested by itself; decide its parts")
    return {claim.key: weigh(claim, patients, seed) for claim, patients in family}


def _adjusted(claims: Sequence[Claim], p_values: Sequence[float]) -> list[float]:
    """p of each claim after Holm's correction; one that repeats another stands in its place there."""
    counted = {claim.key: p for claim, p in zip(claims, p_values, strict=True) if not claim.repeats}
    adjusted = []
    for claim, p in zip(claims, p_values, strict=True):
        place = claim.repeats or claim.key
        together = counted | {place: p}
        adjusted.append(dict(zip(together, statistics.holm(list(together.values())), strict=True))[place])
    return adjusted


def all_of(claim: str, parts: Sequence[Decision], needed: int = 0, missing: int = 0) -> Decision:
    """A claim with several parts (better than both baselines; a whole order) from the decisions on them.

    It is refuted if so many parts are that too few can hold, undecided if too few do hold, weakened if too few of
    these are confirmed, else confirmed.

    Args:
        needed: how many parts have to hold; 0 for all of them.
        missing: parts that nothing was decided on.

    Raises:
        ValueError: no part.
    """
    if not parts:
        raise ValueError(f"claim {claim} has no part to decide it by")
    total = len(parts) + missing
    needed = needed or total
    having = {verdict: sum(part.verdict == verdict for part in parts) for verdict in get_args(Verdict)}
    if having["refuted"] > total - needed:
        verdict = "refuted"
    elif having["confirmed"] + having["weakened"] < needed:
        verdict = "undecided"
    else:
        verdict = "confirmed" if having["confirmed"] >= needed else "weakened"
    listed = "; ".join(f"{part.claim} is {part.verdict}" for part in parts)
    return Decision(claim, verdict, f"{needed} of {total} parts have to hold: {listed}.")


def _judge(claim: Claim, evidence: Evidence, p: float, p_alike: float) -> Decision:
    judge = {"equivalence": _judge_equivalence, "value": _judge_value, "share": _judge_share}
    alike = evidence.equivalent and p_alike <= ALPHA
    differs = partial(_judge_difference, alike=alike)
    verdict, reason, lines = judge.get(claim.form, differs)(claim, evidence, p)
    few, swayed = _too_few(claim, evidence), _swayed_by_seeds(claim, evidence, lines)
    if verdict == "undecided":
        reason += f" And {few}." if few else ""
    elif few or swayed:
        verdict, reason = "undecided", f"{reason} But {few or swayed}."
    if evidence.rule:
        counted, left_out = evidence.numbers["undefined counted"], evidence.numbers["left out"]
        reason += f" Here {evidence.rule} (counted: {counted}, patients left out: {left_out})."
    reason += _said_by_ranks(evidence)
    adjusted = {"p after Holm": p, "p of equivalence after Holm": p_alike}
    return Decision(claim.key, verdict, reason, {**evidence.numbers, **adjusted})


def _too_few(claim: Claim, evidence: Evidence) -> str:
    """What the protocol asks for and is not there, in words; empty if nothing is."""
    there = {"seeds": (evidence.seeds, claim.seeds)}
    if claim.unit == "patient":
        there["patients"] = (evidence.patients, ENOUGH_PATIENTS)
    few = [f"{n} of the {asked} {name}" for name, (n, asked) in there.items() if n < asked]
    said = [f"it rests on {' and '.join(few)} that the protocol asks for"] if few else []
    if evidence.failed:
        said.append(f"{evidence.failed} patients are left out for a failure, which has no value of this kind")
    return ", and ".join(said)


def _swayed_by_seeds(claim: Claim, evidence: Evidence, lines: Sequence[float]) -> str:
    """Why other seeds might end in another verdict; empty if they would not.

    Args:
        lines: numbers that the estimate must not cross for the verdict to stand: 0, or the ends of a margin.
    """
    room = min((abs(evidence.estimate - line) for line in lines), default=inf)
    if evidence.seed_sd > room / 2:
        what = "effect" if list(lines) == [0.0] and claim.form != "value" else "distance to the number that decides"
        return (
            f"the standard deviation between seeds ({_size(claim, evidence.seed_sd)}) exceeds half of the {what} "
            f"({_size(claim, room)})"
        )
    low, high = evidence.with_seeds
    # A likeness goes by an interval of 90 %, which is not this one.
    if len(lines) == 1 and low <= lines[0] <= high:
        return f"the interval that allows for other seeds, too, includes {lines[0]:g}"
    return ""


def _said_by_ranks(evidence: Evidence) -> str:
    """A sentence where Wilcoxon's test and the one that decides are on two sides of 5 %; else empty."""
    p, by_ranks = evidence.numbers.get("p", nan), evidence.numbers.get("p of Wilcoxon", nan)
    if isnan(p) or isnan(by_ranks) or (p <= ALPHA) == (by_ranks <= ALPHA):
        return ""
    above, below = evidence.numbers["above"], evidence.numbers["below"]
    return (
        f" Signs and ranks tell another story: {above} of {evidence.patients} are above 0 and {below} "
        f"below, and by ranks (Wilcoxon) p is {_short_p(by_ranks)} in place of {_short_p(p)}, both before Holm."
    )


def _judge_difference(claim: Claim, evidence: Evidence, p: float, alike: bool) -> Judged:
    low, high = sorted(claim.towards(end) for end in evidence.interval)
    found = f"{_found(claim, evidence)}, {_p(p)}"
    a_side = (low > 0 or high < 0) and p <= ALPHA
    # Without a printed effect, one that is too small to matter is none, however sure it is.
    if alike and (claim.reported is None or not a_side):
        margin = claim.refuting_margin
        return (
            "refuted",
            f"{_alike(claim, evidence)}: alike within a margin of {_size(claim, margin)}.",
            (-margin, margin),
        )
    if a_side and high < 0:
        return "refuted", f"{found}: on the other side of the claim.", (0.0,)
    if a_side:
        reported = "" if claim.reported is None else f" the reported {_number(claim, claim.effect)}"
        if reported and high < claim.towards(claim.effect):
            return "weakened", f"{found}: on the claimed side, but short of{reported}.", (0.0,)
        reach = "lies beyond" if reported and low > claim.towards(claim.effect) else "reaches"
        reaches = f", and the interval {reach}{reported}" if reported else "; no effect is printed"
        return "confirmed", f"{found}: on the claimed side{reaches}.", (0.0,)
    if low > 0 or high < 0:
        return "undecided", f"{found}: the interval excludes {_null(claim)}, but p does not support it.", ()
    return "undecided", f"{found}: {_not_shown(claim, evidence)}.", ()


def _judge_equivalence(claim: Claim, evidence: Evidence, p: float) -> Judged:
    margin, wider = claim.margin, claim.wider_margin
    found = f"{_alike(claim, evidence)}, {_p(p)}"
    if evidence.equivalent and p <= ALPHA:
        return "confirmed", f"{found}: inside the margin of {_size(claim, margin)}.", (-margin, margin)
    if evidence.interval.low > margin or evidence.interval.high < -margin:
        return "refuted", f"{found}: beyond the margin of {_size(claim, margin)}.", (-margin, margin)
    if evidence.equivalent_wider:
        return "weakened", f"{found}: inside {_size(claim, wider)} only.", (-wider, wider)
    not_shown = f"the margin of {_size(claim, margin)} is not shown"
    able = _able(claim, evidence) + _between_seeds(claim, evidence)
    return "undecided", f"{found}: {not_shown}; {able}.", ()


def _judge_value(claim: Claim, evidence: Evidence, _p_value: float) -> Judged:
    digits, margin = _digits(claim), claim.margin or 0.0
    mean = "Mean" if len(claim.arms) == 1 else "Mean difference"
    missed = claim.value - claim.towards(margin)
    low, high = sorted(claim.towards(end - claim.value) for end in evidence.interval)
    ends = f"{evidence.interval.low:.{digits}f} to {evidence.interval.high:.{digits}f}"
    found = f"{mean} {evidence.estimate:.{digits}f}, 95 % interval {ends}"
    if isnan(low):
        return "undecided", f"{mean} {evidence.estimate:.{digits}f}: too few patients for an interval.", ()
    if high < 0:
        if high < -margin:
            return "refuted", f"{found}: short of {claim.value:g} by more than {margin:g}.", (missed,)
        return "weakened", f"{found}: short of {claim.value:g}, perhaps by less than {margin:g}.", (claim.value,)
    if low >= -margin:
        return "confirmed", f"{found}: {claim.value:g} is reached within {margin:g}.", (missed,)
    return "undecided", f"{found}: too wide to tell whether {claim.value:g} is reached within {margin:g}.", ()


def _judge_share(claim: Claim, evidence: Evidence, _p_value: float) -> Judged:
    numbers = evidence.numbers
    found = (
        f"{numbers['count']} of {numbers['units']} {claim.unit}s are {claim.beyond} {claim.threshold:g} "
        f"(at least {evidence.interval.low:.3f}, at most {evidence.interval.high:.3f} of all)"
    )
    sides = {"more": evidence.interval.low > claim.value, "less": evidence.interval.high < claim.value}
    if sides[claim.direction]:
        return "confirmed", f"{found}: {claim.direction} than {claim.value:g}.", ()
    if any(sides.values()):
        return "refuted", f"{found}: not {claim.direction} than {claim.value:g}.", ()
    return "undecided", f"{found}: the share {claim.value:g} lies between.", ()


def _found(claim: Claim, evidence: Evidence) -> str:
    if isnan(evidence.interval.low):
        return _estimate(claim, evidence)
    seeds = "" if isnan(evidence.with_seeds.low) else f" ({_range(claim, *evidence.with_seeds)} with other seeds, too)"
    return f"{_estimate(claim, evidence)}, 95 % interval {_range(claim, *evidence.interval)}{seeds}"


def _alike(claim: Claim, evidence: Evidence) -> str:
    """The same for a test of equivalence, which goes by the 90 % interval."""
    low, high = evidence.numbers["low 90 %"], evidence.numbers["high 90 %"]
    if claim.form == "spread":
        low, high = log(low), log(high)
    return f"{_estimate(claim, evidence)}, 90 % interval {_range(claim, low, high)}"


def _estimate(claim: Claim, evidence: Evidence) -> str:
    what = "Ratio of the standard deviations" if claim.form == "spread" else "Mean difference"
    return f"{what} {_number(claim, evidence.estimate)}"


def _not_shown(claim: Claim, evidence: Evidence) -> str:
    if isnan(evidence.interval.low):
        return "there is no interval, for too few patients or because nothing varies"
    return f"the interval includes {_null(claim)}; {_able(claim, evidence)}{_between_seeds(claim, evidence)}"


def _between_seeds(claim: Claim, evidence: Evidence) -> str:
    if isnan(evidence.seed_sd):
        return ""
    return f"; the standard deviation between seeds is {_size(claim, evidence.seed_sd)}"


def _able(claim: Claim, evidence: Evidence) -> str:
    what = "a margin of" if claim.form == "equivalence" else "an effect of"
    if claim.form == "spread":
        shown = f"{evidence.detectable:.2f}"
    else:
        shown = _size(claim, evidence.detectable)
    reported = "" if claim.reported is None else f" (reported: {_number(claim, claim.effect)})"
    return f"{evidence.patients} patients show {what} {shown} in 80 % of cohorts{reported}"


def _null(claim: Claim) -> str:
    return "1" if claim.form == "spread" else "0"


def _number(claim: Claim, value: float) -> str:
    return f"{exp(value):.2f}" if claim.form == "spread" else f"{value:+.{_digits(claim)}f}"


def _size(claim: Claim, value: float) -> str:
    return f"a factor {exp(value):.2f}" if claim.form == "spread" else f"{value:.{_digits(claim)}f}"


def _range(claim: Claim, low: float, high: float) -> str:
    return f"{_number(claim, low)} to {_number(claim, high)}"


def _digits(claim: Claim) -> int:
    """Decimals that show the smallest number of the claim with two digits, at least three."""
    sizes = [abs(x) for x in (claim.reported, claim.margin) if x]
    return max(3, ceil(-log10(min(sizes))) + 1) if sizes else 3


def _p(p: float) -> str:
    if isnan(p):
        return "no p"
    return f"p {'' if p < 0.001 else '= '}{_short_p(p)} after Holm"


def _short_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"

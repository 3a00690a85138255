"""From evidence to a verdict, and the sentence that gives its reason."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, exp, isnan, log10, nan
from typing import Literal

import pandas as pd

from npcrepro import statistics
from npcrepro.base.wording import plural
from npcrepro.findings.claims.claim import Claim
from npcrepro.findings.claims.evidence import BESIDE, OVERLAPS, Evidence, besides, compared, is_distance, weigh

Verdict = Literal["confirmed", "weakened", "refuted", "mixed", "undecided"]
# Verdict, reason, and the numbers that the estimate must not cross for the verdict to stand.
Judged = tuple[Verdict, str, tuple[float, ...]]
ALPHA = 0.05
ENOUGH_PATIENTS = 20  # of fewer, intervals and p values exist, but rest on very few people


@dataclass(frozen=True)
class Decision:
    """What the records say about a claim.

    Attributes:
        claim: key of the claim.
        verdict: confirmed, weakened, refuted, mixed or undecided.
        reason: the numbers that decide, in words; then what limits the verdict.
        numbers: every number behind it, by name; ``nan`` where it cannot be computed.
    """

    claim: str
    verdict: Verdict
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def weigh_all(family: Iterable[tuple[Claim, pd.DataFrame]]) -> dict[str, Evidence | str]:
    """Evidence on each claim, by its key, or why there is none.

    Args:
        family: claims, each with a data frame of :func:`npcrepro.runs.per_patient.select`: one structure and one
            region, columns ``paper``, ``method``, ``patient``, ``seed``, ``status`` and the metrics.

    Raises:
        InputError: the metric of a claim is no column, or the rows hold several structures or regions.
    """
    return {claim.key: weigh(claim, patients) for claim, patients in family}


def decide_together(claims: Sequence[Claim], weighed: Mapping[str, Evidence | str], without: int = 0) -> list[Decision]:
    """Decide the claims of one paper from the evidence of :func:`weigh_all`, with Holm's correction for their number.

    Args:
        claims: that are tested by themselves; of others the parts, see :func:`all_of`.
        without: patients that were left out on purpose, and count as there where twenty are asked for.
    """
    found = [weighed[claim.key] for claim in claims]
    # Two families: tests that could show a claim, and tests that could show that no effect that matters is on its side.
    # In the second one a claim that repeats another has an effect, and so a test, of its own.
    sides, small = (
        _adjusted(each, [nan if isinstance(evidence, str) else getattr(evidence, name) for evidence in found])
        for each, name in ((claims, "p"), ([replace(claim, repeats="") for claim in claims], "p_small"))
    )
    return [
        Decision(claim.key, "undecided", one) if isinstance(one, str) else _decide(claim, one, side, none, without)
        for claim, one, side, none in zip(claims, found, sides, small, strict=True)
    ]


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

    If so many parts are refuted that too few can hold, it is refuted, or mixed if some parts are borne out. It is also
    mixed if a part is; undecided if too few hold; weakened if too few of these are confirmed; else confirmed.

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
    verdicts = [part.verdict for part in parts]
    confirmed = verdicts.count("confirmed")
    shown = confirmed + verdicts.count("weakened")
    verdict: Verdict = "confirmed" if confirmed >= needed else "weakened"
    if shown < needed:
        against = verdicts.count("refuted") > total - needed
        verdict = "refuted" if against else "undecided"
        if "mixed" in verdicts or (against and shown):
            verdict = "mixed"
    listed = "; ".join(f"{part.claim} is {part.verdict}" for part in parts)
    return Decision(claim, verdict, f"{needed} of {total} parts have to hold: {listed}.")


def _decide(claim: Claim, evidence: Evidence, p: float, p_small: float, without: int) -> Decision:
    if claim.form == "equivalence":
        verdict, reason, lines = _judge_equivalence(claim, evidence, p)
    elif claim.form == "value":
        verdict, reason, lines = _judge_value(claim, evidence)
    elif claim.form == "share":
        verdict, reason, lines = _judge_share(claim, evidence)
    else:
        verdict, reason, lines = _judge_difference(claim, evidence, p, p_small)
    few, swayed = _too_few(claim, evidence, without), _swayed_by_seeds(claim, evidence, verdict, lines)
    if verdict in ("confirmed", "weakened") and evidence.silent:
        swayed = f"{evidence.silent}, and a network that did not learn is no rival"
    reached = verdict
    if verdict == "undecided":
        reason += f" And {few}." if few else ""
    elif few or swayed:
        verdict, reason = "undecided", f"{reason} But {few or swayed}."
    elif compared(claim):
        verdict, said = _beside(claim, evidence, verdict)
        reason += f" {said}"
    # More patients would not help where a verdict is taken back by seeds, by failures or for want of an AP.
    few_patients = claim.unit == "patient" and evidence.patients < ENOUGH_PATIENTS - without
    seeds_alone = evidence.numbers.get("p", nan) <= ALPHA < evidence.p
    by_seeds = float(verdict == "undecided" and (reached != verdict or seeds_alone) and not few_patients)
    if evidence.rule:
        counted, left_out = evidence.numbers["undefined counted"], evidence.numbers["left out"]
        reason += f" Here {evidence.rule} (counted: {counted}, patients left out: {left_out})."
    reason += _said_by_ranks(evidence)
    adjusted = {"p after Holm": p, "p of a small effect after Holm": p_small, "open by seeds alone": by_seeds}
    return Decision(claim.key, verdict, reason, {**evidence.numbers, **adjusted})


# --- What limits a verdict ----------------------------------------------------------------------------------------


def _too_few(claim: Claim, evidence: Evidence, without: int) -> str:
    """What the protocol asks for and is not there, in words; empty if nothing is."""
    there = {"seeds": (evidence.seeds, claim.seeds)}
    if claim.unit == "patient":
        there["patients"] = (evidence.patients, ENOUGH_PATIENTS - without)
    few = [f"{n} of the {asked} {name}" for name, (n, asked) in there.items() if n < asked]
    said = [f"it rests on {' and '.join(few)} that the protocol asks for"] if few else []
    if evidence.failed:
        left_out = f"{plural(evidence.failed, 'patient')} {'is' if evidence.failed == 1 else 'are'} left out"
        said.append(f"{left_out} for a failure, which has no value of this kind")
    return ", and ".join(said)


def _by_90(claim: Claim, verdict: Verdict) -> bool:
    """Whether a verdict rests on one-sided tests, and so on an interval of 90 %: an equivalence that is shown, and a
    difference that is smaller than the effect that matters."""
    if claim.form == "equivalence":
        return verdict != "refuted"
    return claim.form in ("difference", "spread") and verdict == "refuted" and claim.refuting_margin is not None


def _swayed_by_seeds(claim: Claim, evidence: Evidence, verdict: Verdict, lines: Sequence[float]) -> str:
    """Why other trainings might end in another verdict; empty if they would not.

    Args:
        lines: numbers that the estimate must not cross for the verdict to stand: 0, or ends of a margin.
    """
    interval = evidence.with_seeds_90 if _by_90(claim, verdict) else evidence.with_seeds
    everywhere = evidence.of_all_seeds
    if not isnan(everywhere) and not evidence.with_seeds.low <= everywhere <= evidence.with_seeds.high:
        where = f"outside the interval that allows for other seeds ({_range(claim, evidence.with_seeds)})"
        return f"over all seeds of each arm, some of which others lack, it is {_number(claim, everywhere)}, {where}"
    if not any(interval.low <= line <= interval.high for line in lines):
        return ""
    ends = " or ".join(_number(claim, line) for line in lines)
    return f"the interval that allows for other seeds, too, {_range(claim, interval)}, includes {ends}"


def _beside(claim: Claim, evidence: Evidence, verdict: Verdict) -> tuple[Verdict, str]:
    """The verdict at one threshold held against a number that is not of one threshold, and what that number says."""
    if evidence.beside is None:
        names = " nor ".join(BESIDE[name] for name in besides(claim))
        return "undecided", f"But that is at one fixed threshold, and the records hold neither {names}."
    name, other = evidence.beside
    told = _found(claim, other, 90 if _by_90(claim, verdict) and claim.metric in OVERLAPS else 95)
    found = f"{BESIDE[name]} ({told[0].lower()}{told[1:]})"
    if not _agrees(claim, other.interval, other.interval_90, verdict):
        # An interval that holds both answers does not contradict.
        opposite: Verdict = "confirmed" if verdict == "refuted" else "refuted"
        if _agrees(claim, other.interval, other.interval_90, opposite):
            return "mixed", f"But by {found} it is not."
        return "undecided", f"But by {found} it is not shown."
    if isnan(other.with_seeds.low) or _agrees(claim, other.with_seeds, other.with_seeds_90, verdict):
        no_gain = verdict == "refuted" and claim.metric not in OVERLAPS
        alike = claim.form == "equivalence" and claim.metric not in OVERLAPS
        same = "no difference is shown" if alike else "no gain is shown" if no_gain else "it is the same"
        return verdict, f"By {found} {same}."
    return "undecided", f"But by {found} it need not be the same with other seeds."


def _agrees(claim: Claim, interval: statistics.Interval, of_90: statistics.Interval, verdict: Verdict) -> bool:
    """Whether the interval of a number of which more is better says what a verdict says; the one of 90 % where
    :func:`_by_90` asks for it, and both are of the metric's own unit."""
    wider = claim.wider_margin if claim.form == "equivalence" and verdict == "weakened" else None
    overlap, margin = claim.metric in OVERLAPS, wider or claim.refuting_margin or 0.0
    # Of a distance less is better.
    better = -claim.towards(1) if is_distance(claim.metric) and claim.form != "spread" else claim.towards(1)
    asked = of_90 if _by_90(claim, verdict) and overlap and not isnan(of_90.low) else interval
    low, high = sorted(better * end for end in asked)
    refuted = verdict == "refuted"
    if claim.form == "equivalence":
        if overlap:
            return low > margin or high < -margin if refuted else -margin < low and high < margin
        return (low > 0 or high < 0) == refuted
    if claim.form == "value":
        margin = margin if overlap else 0.0
        return high < -margin if refuted else (low if verdict == "confirmed" else high) >= -margin
    if not refuted:
        return low > 0
    return high < margin if overlap else not low > 0


def _said_by_ranks(evidence: Evidence) -> str:
    """A sentence where Wilcoxon's test is on the other side of 5 % than the p over patients, and than the p that allows
    for seeds; else empty."""
    p, by_ranks = evidence.numbers.get("p", nan), evidence.numbers.get("p of Wilcoxon", nan)
    if isnan(p) or isnan(by_ranks) or (by_ranks <= ALPHA) in (p <= ALPHA, evidence.p <= ALPHA):
        return ""
    above, below = evidence.numbers["above"], evidence.numbers["below"]
    return (
        f" Signs and ranks say otherwise: {above} of {evidence.patients} are above 0 and {below} "
        f"below, and by ranks (Wilcoxon) p is {_short_p(by_ranks)} in place of {_short_p(p)}, both before Holm."
    )


# --- Verdicts by the form of a claim ------------------------------------------------------------------------------


def _judge_difference(claim: Claim, evidence: Evidence, p: float, p_small: float) -> Judged:
    low, high = sorted(claim.towards(end) for end in evidence.interval)
    found = f"{_found(claim, evidence)}, {_p(p)}"
    null, excludes = "1" if claim.form == "spread" else "0", low > 0 or high < 0
    shown, margin = low > 0 and p <= ALPHA, claim.refuting_margin
    side = "below" if claim.direction == "more" else "above"
    # Without a printed effect, one that is too small to matter is none, however sure it is.
    if margin is not None and evidence.small and p_small <= ALPHA and (claim.reported is None or not shown):
        line = claim.towards(margin)
        told = f"{_found(claim, evidence, 90)}, {_p(p_small)}: {side} {_number(claim, line)}, the least that matters"
        return "refuted", f"{told}{', and on the other side of the claim' * (high < 0 and p <= ALPHA)}.", (line,)
    if margin is None and high < 0 and p <= ALPHA:
        return "refuted", f"{found}: on the other side of the claim.", (0.0,)
    if shown:
        known = not isnan(evidence.with_seeds.low)
        both = (*evidence.interval, *evidence.with_seeds) if known else evidence.interval
        low, high = (end(map(claim.towards, both)) for end in (min, max))
        reported = "" if claim.reported is None else f" the reported {_number(claim, claim.effect)}"
        if reported and high < claim.towards(claim.effect):
            return "weakened", f"{found}: on the claimed side, but short of{reported}.", (0.0,)
        reach = "lies beyond" if reported and low > claim.towards(claim.effect) else "reaches"
        reaches = f", and the interval {reach}{reported}" if reported else "; no effect is reported"
        return "confirmed", f"{found}: on the claimed side{reaches}.", (0.0,)
    if isnan(low):
        return "undecided", f"{found}: there is no interval, for too few patients or because nothing varies.", ()
    told = f"{found}: the interval {'excludes' if excludes else 'includes'} {null}"
    if margin is not None and evidence.small and p_small > ALPHA:
        within = f"at 90 % it is {side} {_number(claim, claim.towards(margin))}, the least that matters"
        return "undecided", f"{told}; {within}, but p of that, {_short_p(p_small)} after Holm, does not support it.", ()
    if excludes:
        seeds = "" if isnan(evidence.with_seeds.low) else ", which allows for other seeds, too,"
        return "undecided", f"{told}, but p{seeds} is above {ALPHA:g}.", ()
    return "undecided", f"{told}; {_able(claim, evidence)}.", ()


def _judge_equivalence(claim: Claim, evidence: Evidence, p: float) -> Judged:
    margin, wider = claim.margin or 0.0, claim.wider_margin or 0.0
    found = _found(claim, evidence, 90)
    if evidence.alike and p <= ALPHA:
        return "confirmed", f"{found}, {_p(p)}: inside the margin of {_size(claim, margin)}.", (-margin, margin)
    if evidence.interval.low > margin or evidence.interval.high < -margin:
        differs = f"{_found(claim, evidence)}: beyond the margin of {_size(claim, margin)}."
        return "refuted", differs, (-margin, margin)
    if evidence.alike_wider:
        return "weakened", f"{found}: inside {_size(claim, wider)} only.", (-wider, wider)
    not_shown = f"the margin of {_size(claim, margin)} is not shown"
    return "undecided", f"{found}, {_p(p)}: {not_shown}; {_able(claim, evidence)}.", ()


def _judge_value(claim: Claim, evidence: Evidence) -> Judged:
    digits, margin = _digits(claim), claim.margin or 0.0
    mean = f"Mean{'' if len(claim.arms) == 1 else ' difference'} {evidence.estimate:.{digits}f}"
    missed = claim.value - claim.towards(margin)
    low, high = sorted(claim.towards(end - claim.value) for end in evidence.interval)
    if isnan(low):
        return "undecided", f"{mean}: too few patients for an interval.", ()
    found = f"{mean}, 95 % interval {evidence.interval.low:.{digits}f} to {evidence.interval.high:.{digits}f}"
    if high < -margin:
        return "refuted", f"{found}: short of {claim.value:g} by more than {margin:g}.", (missed,)
    if high < 0:
        return "weakened", f"{found}: short of {claim.value:g}, perhaps by less than {margin:g}.", (claim.value,)
    if low >= -margin:
        return "confirmed", f"{found}: {claim.value:g} is reached within {margin:g}.", (missed,)
    return "undecided", f"{found}: too wide to tell whether {claim.value:g} is reached within {margin:g}.", ()


def _judge_share(claim: Claim, evidence: Evidence) -> Judged:
    low, high = evidence.interval
    found = (
        f"{evidence.numbers['count']} of {evidence.numbers['units']} {claim.unit}s are {claim.beyond} "
        f"{claim.threshold:g} (95 % bounds of the share: {low:.3f} and {high:.3f})"
    )
    sides = {"more": low > claim.value, "less": high < claim.value}
    if sides[claim.direction]:
        return "confirmed", f"{found}: {claim.direction} than {claim.value:g}.", ()
    if any(sides.values()):
        return "refuted", f"{found}: not {claim.direction} than {claim.value:g}.", ()
    return "undecided", f"{found}. Between these bounds lies {claim.value:g}, the share that decides.", ()


# --- Numbers in words ---------------------------------------------------------------------------------------------


def _found(claim: Claim, evidence: Evidence, level: int = 95) -> str:
    """The estimate with its intervals of 95 %, or of 90 % for one-sided tests."""
    what = "Ratio of the standard deviations" if claim.form == "spread" else "Mean difference"
    what += f" from {claim.value:g}" if claim.value else ""
    estimate = f"{what} {_number(claim, evidence.estimate)}"
    of_95 = evidence.interval, evidence.with_seeds
    over_patients, with_seeds = (evidence.interval_90, evidence.with_seeds_90) if level == 90 else of_95
    if isnan(over_patients.low):
        return estimate
    seeds = "" if isnan(with_seeds.low) else f" ({_range(claim, with_seeds)} with other seeds, too)"
    return f"{estimate}, {level} % interval {_range(claim, over_patients)}{seeds}"


def _able(claim: Claim, evidence: Evidence) -> str:
    """What these patients could have shown, and how much seeds vary."""
    what = "a margin of" if claim.form == "equivalence" else "an effect of"
    able = evidence.detectable
    shown = f"{able:.2f}" if claim.form == "spread" else _size(claim, able)
    reported = "" if claim.reported is None else f" (reported: {_number(claim, claim.effect)})"
    seeds = f"; the standard deviation between seeds is {_size(claim, evidence.seed_sd)}"
    told = f"{evidence.patients} patients show {what} {shown} in 80 % of cohorts{reported}"
    return told + ("" if isnan(evidence.seed_sd) else seeds)


def _number(claim: Claim, value: float) -> str:
    if value == 0:
        return "1" if claim.form == "spread" else "0"
    return f"{exp(value):.2f}" if claim.form == "spread" else f"{value:+.{_digits(claim)}f}"


def _size(claim: Claim, value: float) -> str:
    return f"a factor {exp(value):.2f}" if claim.form == "spread" else f"{value:.{_digits(claim)}f}"


def _range(claim: Claim, interval: statistics.Interval) -> str:
    return f"{_number(claim, interval.low)} to {_number(claim, interval.high)}"


def _digits(claim: Claim) -> int:
    """Decimals that show the smallest number of the claim with two digits, at least three."""
    sizes = [abs(x) for x in (claim.reported, claim.margin) if x]
    return max(3, ceil(-log10(min(sizes))) + 1) if sizes else 3


def _p(p: float) -> str:
    return "no p" if isnan(p) else f"p {'' if p < 0.001 else '= '}{_short_p(p)} after Holm"


def _short_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"

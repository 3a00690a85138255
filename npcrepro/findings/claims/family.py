"""The claims of a paper, what published records say about each, and what limits the verdict."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil, exp, isnan, log, nan
from operator import itemgetter

from npcrepro import statistics
from npcrepro.base.errors import InputError, one_of, pick
from npcrepro.base.wording import signed, span
from npcrepro.findings.claims.claim import Claim
from npcrepro.findings.claims.decision import ENOUGH_PATIENTS, Decision, all_of, decide_together, weigh_all
from npcrepro.findings.claims.evidence import BESIDE, OVERLAPS, Evidence
from npcrepro.findings.claims.source import DECIDING, PHANTOM, Pairs, Source, best, rows_of
from npcrepro.protocol import registry

SEEN, NOT_SEEN = "seen here", "not seen here"
TOO_FEW, NEW_RUNS = "not decidable here", "needs new runs"
NO_EVIDENCE, NOT_HERE = "no evidence yet", "not testable here"
VERDICTS = {
    "confirmed": "on the paper's kind of images, by a network of its size, the interval reaches the reported effect",
    "weakened": "on such images and by such a network it is shown, short of the reported effect",
    "refuted": "on such images and by such a network it is shown that no difference that matters (half of the reported "
    "one, where nothing else is said) lies on the claimed side",
    SEEN: "it is shown, but on a stand-in: other images, a smaller network, a shorter training, or by one choice only",
    NOT_SEEN: "the same as refuted, but on a stand-in",
    "mixed": "one part of it is shown and another is refuted, or it depends on the threshold at which masks are cut",
    "undecided": "there are records, but they cannot decide it",
    TOO_FEW: "it takes more patients than the cohorts with records have; the reason says how many",
    NEW_RUNS: "its records are of methods that are defined otherwise by now, or chose weights by an older rule",
    NO_EVIDENCE: "nothing that is published with the book speaks to it",
    NOT_HERE: "records cannot decide it; the reason says what would",
}
FIRM = ("confirmed", "weakened", "refuted")
DECIDED = (*FIRM, SEEN, NOT_SEEN, "mixed")
FULL = "paper"  # the profile at which networks and trainings have the size of the paper's
LEAST_UPDATES = 0.1  # of the paper's, times the samples of each; with fewer a verdict is on a stand-in
MOST_PATIENTS = 10**6  # with which nobody will count
USUAL_SD = 0.08  # of paired differences of the DSC, for the number of patients; no paper prints one


@dataclass(frozen=True)
class Line:
    """A claim with what is known of it.

    Attributes:
        claim: see :class:`~npcrepro.findings.claims.Claim`.
        verdict: one of :data:`VERDICTS`, by the test that was listed before its runs.
        reason: the numbers that decide, or why none do.
        parts: decisions on what was tested: one, or one for each part.
        source: published runs that decided, by name.
        cohort: that they were made on.
        control: the line of the stronger test that was added later, if there is one.
    """

    claim: Claim
    verdict: str
    reason: str
    parts: tuple[Decision, ...] = ()
    source: str = ""
    cohort: str = ""
    control: Line | None = None

    @property
    def controlled(self) -> str:
        """The verdict after a stronger control; the same where there is none."""
        return self.control.verdict if self.control else self.verdict

    @property
    def effect(self) -> str:
        """Estimates of the parts, with their 95 % intervals."""
        tested = {part.key: part for part in self.claim.tested}
        told = {part.claim.partition(" ")[2]: _effect(part, tested[part.claim]) for part in self.parts}
        return "; ".join(f"{name}: {effect}".removeprefix(": ") for name, effect in told.items() if effect)

    @property
    def patients(self) -> str:
        """How many patients and seeds; from the part with the fewest to that with the most."""
        numbers = [part.numbers for part in self.parts if part.numbers]
        counted = [[int(each[name]) for each in numbers] for name in ("patients", "seeds")]
        return " / ".join(map(span, counted)) if numbers else ""

    @property
    def on_phantom(self) -> bool:
        """Whether the records that decide are of a phantom."""
        return self.cohort.startswith(PHANTOM)


def claims(paper: str) -> list[Claim]:
    """The claims of a paper, from its YAML file.

    Raises:
        InputError: a claim that cannot be read, one on a method or a metric that there is not, with the near miss, or
            one whose test is not the one that was frozen before its runs.

    Example:
        >>> claims("xue2020")[0].key
        'xue2020-56'
    """
    read = [Claim.from_data({"paper": paper, **entry}) for entry in registry.reported(paper).get("claims", [])]
    # A misspelt method would never find its runs, and a misspelt metric would be noticed only once there are runs.
    methods = {method.name: method for method in registry.load(paper).methods} if read else {}
    asked = chain(read, (claim.control for claim in read if claim.control))
    for part in chain.from_iterable(claim.tested for claim in asked):
        for arm, metric in zip(part.arms, part.metrics, strict=True):
            pick(methods, arm.method, f"method of claim {part.key}")
            one_of(DECIDING, metric, f"metric of claim {part.key}")
    for claim in read:
        if claim.frozen == "new":
            raise InputError(f"{paper}/paper.yaml: freeze the test of {claim.key}: frozen: '{claim.fingerprint}'")
        if claim.frozen and claim.frozen != claim.fingerprint:
            raise InputError(
                f"{paper}/paper.yaml: the test of claim {claim.key} is not the one that was frozen (its fingerprint is "
                f"{claim.fingerprint}, not {claim.frozen}); where runs of it exist, put the old test back and add the "
                "new one as its control, else freeze the new fingerprint"
            )
    return read


class Family:
    """The claims of one paper, which Holm's correction counts together, each on its best source.

    Args:
        asked: claims.
        found: from :func:`npcrepro.findings.claims.source.sources`.
        like: a family whose evidence is taken over for the claims that are the same.
    """

    def __init__(self, asked: Sequence[Claim], found: Sequence[Source], like: Family | None = None) -> None:
        self.asked = {claim.key: claim for claim in asked}
        self.found = [source for source in found if asked and source.paper == asked[0].paper]
        self.sources = {claim.key: best(found, claim) for claim in asked}
        self.rows = {claim.key: rows_of(claim, self.sources[claim.key]) for claim in asked}
        old = {key for key, claim in like.asked.items() if self.asked.get(key) == claim} if like else set()
        self.weighed: dict[str, Evidence | str] = dict(like.weighed) if like else {}
        self.weighed |= weigh_all(_all(rows for key, rows in self.rows.items() if key not in old))

    def controlled(self) -> Family:
        """The same claims, each by its stronger control where it has one."""
        return Family([claim.control or claim for claim in self.asked.values()], self.found, self)

    def lines(self) -> list[Line]:
        """What is known of each claim."""
        decided = decide_together([part for part, _ in _all(self.rows.values())], self.weighed)
        decisions = {one.claim: one for one in decided}
        return [self.line(claim, self.sources[key], decisions) for key, claim in self.asked.items()]

    def again(self, claim: Claim, source: Source, pairs: Pairs, without: int = 0) -> Line:
        """The line of a claim with other rows or another test, beside the other claims as they are.

        Args:
            without: patients of the rows that were left out on purpose.
        """
        parts = [part for part, _ in _all((self.rows | {claim.key: pairs}).values())]
        decided = decide_together(parts, self.weighed | weigh_all(pairs), without)
        return self.line(claim, source, {one.claim: one for one in decided})

    def line(self, claim: Claim, source: Source | None, decisions: Mapping[str, Decision]) -> Line:
        """A claim with the decisions on what was tested of it, by key."""
        if claim.form == "elsewhere":
            return Line(claim, NOT_HERE, f"It takes {claim.needs}.")
        if not source:
            names = " and ".join(dict.fromkeys(arm.method for part in claim.tested for arm in part.arms))
            what = {metric for part in claim.tested for metric in part.metrics}
            scored = "" if what <= {"dsc"} else f", scored by {' and '.join(sorted(what))},"
            line = Line(claim, NO_EVIDENCE, f"No published runs of {names} on one cohort{scored} can decide it.")
            return self._limited(line, None)
        parts = tuple(decisions[part.key] for part in claim.tested if part.key in decisions)
        missing = [part.text for part in claim.tested if part.key not in decisions]
        decision = parts[0] if claim.form != "all" else all_of(claim.key, parts, claim.needed, len(missing))
        named = {part.key: f"{part.text}: " if claim.form == "all" else "" for part in claim.tested}
        verdict, reason = str(decision.verdict), " ".join(f"{named[part.claim]}{part.reason}" for part in parts)
        refuted = [
            part.text for part in claim.tested if part.key in decisions and decisions[part.key].verdict == "refuted"
        ]
        if decision.verdict in ("refuted", "mixed") and 0 < len(refuted) < len(claim.tested):
            reason += f" {claim.needed or 'All'} parts have to hold. Refuted: {'; '.join(refuted)}."
        if missing:
            reason += f" No runs yet for: {', '.join(missing)}."
        if verdict in DECIDED and source.profile != FULL and any(map(absolute, claim.tested)):
            verdict = "undecided"
            reason += (
                f" A number by itself is judged at the size of the paper only, and this is profile {source.profile}."
            )
        if claim.limits:
            reason += f" {claim.limits}"
        line = Line(claim, verdict, reason, parts, source.name, f"{source.cohort} ({source.profile})")
        return self._limited(line, source)

    def _limited(self, line: Line, source: Source | None) -> Line:
        """The line with a verdict that its patients, its methods and the size of its runs allow."""
        old = [why for part in line.claim.tested for why in source.outdated_of(part)] if source else []
        if line.verdict in ("undecided", NO_EVIDENCE) and (too_few := self._too_few(line)):
            line = replace(line, verdict=TOO_FEW, reason=f"{line.reason} {too_few}")
        elif old:
            line = replace(line, verdict=NEW_RUNS)
        if old:
            line = replace(line, reason=f"{line.reason} {' '.join(dict.fromkeys(old))}")
        if source and any(map(source.made_unlike, line.claim.tested)):
            line = replace(line, reason=f"{line.reason} The arms differ in device or precision.")
        if source and (stand_in := _stand_in(source)):
            words = dict(zip(FIRM, (SEEN, SEEN, NOT_SEEN), strict=True))
            reason = f"{line.reason} A stand-in: {'; '.join(stand_in)}."
            line = replace(line, verdict=words.get(line.verdict, line.verdict), reason=reason)
        return line

    def _too_few(self, line: Line) -> str:
        """Why no record on the cohorts that there are could decide a claim; empty if one could."""
        # A phantom has as many patients as anybody wants. Where no records say how much differences vary, nobody knows
        # how many patients it takes.
        if line.on_phantom:
            return ""
        mine = [each for each in self.found if not each.cohort.startswith(PHANTOM)]
        there = max((each.available for each in mine), default=0)
        parts = {part.claim: part for part in line.parts}
        wanted = []
        for part in line.claim.tested:
            decision = parts.get(part.key)
            known = decision.numbers if decision else {}
            by_seeds = known.get("open by seeds alone") or _mostly_seeds(known)
            if decision is None or (decision.verdict == "undecided" and not by_seeds):
                wanted.append(patients_wanted(part, known))
        # Of parts of which a few have to hold, those that take the fewest patients.
        shown = sum(part.verdict in ("confirmed", "weakened") for part in line.parts)
        open_parts = max(line.claim.needed - shown, 0) if line.claim.needed else len(wanted)
        number, why, assumed = max(sorted(wanted)[:open_parts], key=itemgetter(0), default=(0, "", False))
        if assumed or not there or number <= there:
            return ""
        return f"It takes {number:,} patients{why}, and the largest cohort with records has {there}."


def _mostly_seeds(numbers: Mapping[str, float]) -> bool:
    """Whether the mean is uncertain by seeds more than by patients, so that more patients would help little."""
    by_seeds, by_patients = numbers.get("sd between seeds", nan), numbers.get("sd", nan)
    return by_seeds**2 / numbers.get("seeds", nan) > by_patients**2 / numbers.get("patients", nan)


def patients_wanted(claim: Claim, numbers: Mapping[str, float]) -> tuple[int, str, bool]:
    """How many patients a test takes in 80 of 100 cohorts, never fewer than the protocol asks for; what for; and
    whether the spread behind it is assumed.

    Args:
        numbers: of a decision on it; the spread of the differences between patients is taken from there, if they are
            enough. Else that of a DSC of two methods is assumed; of other metrics nothing is known.
    """
    if claim.unit != "patient":
        return 0, "", False
    sd, assumed = numbers.get("sd", nan), False
    # One training scatters more than the mean of several.
    if numbers.get("patients", 0) < ENOUGH_PATIENTS or numbers.get("seeds", 0) < claim.seeds:
        sd = nan
    two = len({arm.method for arm in claim.arms}) > 1
    if not sd > 0 and two and claim.scale == "plain" and set(claim.metrics) <= {*OVERLAPS, *BESIDE}:
        # Four independent arms vary as two pairs do.
        sd, assumed = USUAL_SD * (len(claim.arms) / 2) ** 0.5, True
    likely = claim.form == "equivalence"
    effect = claim.margin if likely or claim.form == "value" else claim.reported or claim.margin
    if claim.form == "share":
        most = claim.value if claim.direction == "less" else 1 - claim.value
        return max(ENOUGH_PATIENTS, ceil(log(0.05) / log(1 - most))), " to bound such a share", False
    if claim.form == "spread":
        ratio, alike = exp(abs(claim.effect or nan)) if claim.reported else nan, numbers.get("correlation", nan)
        if isnan(ratio) or isnan(alike):
            return ENOUGH_PATIENTS, "", False
        sizes = range(ENOUGH_PATIENTS, MOST_PATIENTS)
        place = bisect_left(sizes, True, key=lambda n: statistics.detectable_spread(n, alike) <= ratio)
        return ENOUGH_PATIENTS + place, f" for a ratio of {claim.reported:g}", False
    if not effect or not sd > 0:
        return ENOUGH_PATIENTS, "", False
    n = statistics.patients_needed(effect, sd, equivalence=likely)
    what = "assumed" if assumed else "as in these records"
    return max(ENOUGH_PATIENTS, n), f" for {abs(effect):g} (sd {sd:.3f}, {what})", assumed


def absolute(claim: Claim) -> bool:
    """Whether a claim is about a number of one method, which grows with its size and training."""
    return claim.form in ("value", "share", "equivalence") and len(claim.arms) == 1


def _stand_in(source: Source) -> list[str]:
    """What keeps records from speaking for the paper: other images, a smaller network, a shorter training."""
    whole = registry.load(source.paper)
    paper, structures = whole.profile(FULL), whole.methods[0].structures
    found = ["a phantom in place of patients"] if source.cohort.startswith(PHANTOM) else []
    found += [f"{new} stands for {old}" for old, new in source.substituted.items()]
    if source.missing:
        found.append(f"{source.missing} of the {len(structures)} structures have no scores")
    if source.width < paper.width:
        found.append(f"networks of {source.width / paper.width:g} of the full width")
    if source.updates * source.batch_size < LEAST_UPDATES * paper.updates * paper.batch_size:
        updates = f"{source.updates:,} of the {paper.updates:,} updates of profile {FULL}"
        found.append(f"{updates}, each on {source.batch_size} samples in place of {paper.batch_size}")
    return found


def _all(rows: Iterable[Pairs]) -> Pairs:
    return list(chain.from_iterable(rows))


def _effect(decision: Decision, claim: Claim) -> str:
    """The estimate with its interval: a difference has a sign, a ratio a factor sign, a mean its name."""
    numbers = decision.numbers
    scale = "log" if claim.scale == "log" else "mean" if absolute(claim) else claim.form
    if "count" in numbers:
        return f"{numbers['count']:.0f} of {numbers['units']:.0f}"
    found = [numbers.get(name, nan) for name in ("ratio" if scale == "spread" else "mean", "low", "high")]
    if claim.form == "equivalence":
        found = [number + claim.value for number in found]
    if isnan(found[0]):
        return ""
    if scale == "log":
        found = [exp(number) for number in found]
    names = {"log": "x ", "spread": "sd x ", "mean": "mean "}
    value, low, high = (f"{number:.3f}" if scale in names else signed(number) for number in found)
    name = names.get(scale, "")
    return f"{name}{value}" + ("" if isnan(found[1]) else f" ({low} to {high})")

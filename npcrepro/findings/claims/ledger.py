"""Every claim of the papers, held against everything that is published with the book.

A ledger is made anew at every build. A claim without evidence stays in it, with the command that would make some.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import exp, inf, isnan, nan
from pathlib import Path

from npcrepro import statistics
from npcrepro.base.errors import pick
from npcrepro.findings import leakage
from npcrepro.findings.claims.claim import Claim
from npcrepro.findings.claims.decision import Decision, all_of, decide_together
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import METRICS, VOLUMES
from npcrepro.runs.per_patient import by_patient, over_structures, select
from npcrepro.runs.published import RESULTS, Published, published_folders, read_published

NO_EVIDENCE, NOT_HERE = "no evidence yet", "not testable here"
VERDICTS = {
    "confirmed": "the records show it, and the interval reaches the printed effect or lies beyond it",
    "weakened": "the records show it, short of the printed effect",
    "refuted": "the records show the opposite, or no difference that matters",
    "undecided": "there are records, but they cannot decide it",
    NO_EVIDENCE: "nothing that is published with the book speaks to it",
    NOT_HERE: "records cannot decide it; the reason says what would",
}
# Columns that are made of others here: volume of false positives, and how far the training loss fell.
DERIVED = ("false_positive_ml", "loss_fall")
DECIDING = (*METRICS, *VOLUMES, *DERIVED)
DECIDED = ("confirmed", "weakened", "refuted")
FULL = "paper"  # the profile at which networks and trainings have the size of the paper's
PHANTOM = "phantom"  # how names of synthetic cohorts begin
USUAL_SD = 0.08  # of paired differences of the DSC, for the number of patients; no paper prints one
RUN = "npcrepro run {paper} --cohort {cohort} {options} --publish book/results/{name}"
SLICE = "npcrepro data slices COHORT {cohort} --by {unit} --patients N"


@dataclass(frozen=True)
class Source:
    """Published runs of one paper on one cohort, or on its slices in two splits.

    Attributes:
        name: of the folder, or of both joined by "and".
        paper, cohort, profile: what they were made on.
        patients: from :func:`npcrepro.runs.per_patient.by_patient`, with `DERIVED` columns; of slices in two splits,
            the mean DSC over the slices of each patient, as :mod:`npcrepro.findings.leakage` has it.
        training: a row for each run with ``loss_fall``, in the form of ``patients``.
        substituted: channels and structures that others stood in for, in the cohort or in the methods (``modalities``).
        updates: of the profile; 0 in records of before there were any.
    """

    name: str
    paper: str
    cohort: str
    profile: str
    patients: object
    training: object
    substituted: dict[str, str] = field(default_factory=dict)
    updates: int = 0

    def rows(self, claim: Claim):
        """What decides a claim: a row for each patient, method and seed."""
        if claim.metric == "loss_fall":
            return self.training
        mine = self.patients[self.patients.region == claim.region]
        names = mine.structure.unique()
        if claim.structure or len(names) == 1:
            rows = select(self.patients, claim.structure or names[0], claim.region)
        else:
            rows = over_structures(mine[~mine.suspect], (*METRICS, "false_positive_ml"))
        return rows

    def has(self, claim: Claim) -> bool:
        """Whether every arm of a claim was run."""
        rows = self.training if claim.metric == "loss_fall" else self.patients
        found = set(zip(rows.method, rows.cohort, strict=True))
        return all(any(m == arm.method and _on(c, arm.cohort) for m, c in found) for arm in claim.arms)


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
    # Misspelt, a method would wait for its runs for ever, and a metric would be missed only when there are runs.
    methods = {method.name: method for method in registry.load(paper).methods} if read else {}
    asked = chain(read, (claim.first for claim in read if claim.first))
    for part in chain.from_iterable(claim.tested for claim in asked):
        for arm, metric in zip(part.arms, part.metrics, strict=True):
            pick(methods, arm.method, f"method of claim {part.key}")
            pick(dict.fromkeys(DECIDING), metric, f"metric of claim {part.key}")
    return read


def sources(results: Path | str = RESULTS) -> list[Source]:
    """Everything published under a folder that belongs to a paper of this book.

    Folders on the slices of one cohort, split by slice and by patient (:func:`npcrepro.findings.leakage.pairs`),
    become one source.
    """
    pairs = [pair for key in registry.KEYS for pair in leakage.pairs(Path(results), key)]
    paired = {published.folder for pair in pairs for published in pair}
    read = [_source(read_published(folder)) for folder in published_folders(results) if folder not in paired]
    return [*(source for source in read if source.paper in registry.KEYS), *(_split_twice(*pair) for pair in pairs)]


def ledger(found: Sequence[Source] | None = None, keys: Iterable[str] = ()) -> list[Line]:
    """Decide every claim of the papers.

    Each claim is decided on one source: a cohort of patients rather than a phantom, enough seeds rather than too few,
    then the one with most patients. Claims of one paper are corrected together.

    Args:
        found: from :func:`sources`; by default those of the book.
        keys: of papers; all if empty.
    """
    found = sources() if found is None else found
    lines = []
    for paper in keys or registry.KEYS:
        entries = [(claim, best(found, claim)) for claim in claims(paper)]
        family = list(chain.from_iterable(rows_of(claim, source) for claim, source in entries))
        decisions = {decision.claim: decision for decision in decide_together(family)}
        lines += [line_of(claim, source, decisions) for claim, source in entries]
    return lines


def rows_of(claim: Claim, source: Source | None) -> list[tuple[Claim, object]]:
    """What is tested of a claim, as far as its arms were run, each with its rows."""
    return [(part, source.rows(part)) for part in claim.tested if source.has(part)] if source else []


def table(lines: Sequence[Line]):
    """One row for each claim, as a data frame of text."""
    import pandas as pd

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
    return pd.DataFrame([{name: of(line) for name, of in columns.items()} for line in lines], columns=list(columns))


def counts(lines: Sequence[Line]):
    """How many claims of each paper have each verdict, with sums, as a data frame."""
    from npcrepro.findings.tally import tally

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
        values = {"methods": dict.fromkeys(arm.method for arm in arms if arm.cohort == end)}
        values["seeds"] = range(max(part.seeds for part in claim.tested))
        cohort, name = f"COHORT{end}", "NAME"
        if end:
            # Every slice has to be tested in both splits. Where the folds are as many as the cohort has patients, they
            # are not named, and the profile chooses.
            values["folds"] = range(registry.load(claim.paper).split.get("folds", 0))
            name = f"{claim.paper}-leakage-NAME{end}"
            commands.append(SLICE.format(cohort=cohort, unit=leakage.SPLITS[end]))
        if any(_absolute(part) for part in claim.tested):
            values["profile"] = [FULL]  # at another one it would decide nothing
        options = " ".join(f"--{option} {value}" for option, each in values.items() for value in each)
        commands.append(RUN.format(paper=claim.paper, cohort=cohort, options=options, name=name))
    return " && ".join(commands)


def best(found: Iterable[Source], claim: Claim) -> Source | None:
    """The source of its paper that decides a claim; of a claim with parts, one that has at least one of them."""

    def worth(source: Source):
        tested = [part for part in claim.tested if source.has(part)]
        rows = source.rows(tested[0])
        arms = [rows[rows.method == arm.method] for arm in tested[0].arms]
        patients, seeds = (min(arm[column].nunique() for arm in arms) for column in ("patient", "seed"))
        enough = seeds >= max(part.seeds for part in tested)
        size = patients, seeds, source.updates
        return not source.cohort.startswith(PHANTOM), len(tested), enough, *size, source.name

    mine = [source for source in found if source.paper == claim.paper]
    fitting = [source for source in mine if any(source.has(part) for part in claim.tested)]
    return max(fitting, key=worth) if fitting else None


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
        reason += " Here " + ", ".join(f"{new} stands for {old}" for old, new in source.substituted.items()) + "."
    return Line(claim, verdict, reason, parts, source.name, f"{source.cohort} ({source.profile})", command(claim))


# --- Parts -------------------------------------------------------------------------------------------------------


def _on(cohort: str, end: str) -> bool:
    """Whether a cohort is the one that an arm asks for; one of single slices has to be asked for."""
    return cohort.endswith(end) if end else not cohort.endswith(tuple(leakage.SPLITS))


def _absolute(claim: Claim) -> bool:
    """About a number of one method, which its size and training decide; what is compared has had the same of both."""
    return claim.form in ("value", "share") and len(claim.arms) == 1


def _source(published: Published) -> Source:
    first = published.runs[0]
    patients = by_patient(published.cases)
    patients["false_positive_ml"] = patients.predicted_ml * (1 - patients.precision)
    patients.loc[patients.predicted_ml == 0, "false_positive_ml"] = 0.0
    return Source(
        published.folder.name,
        first["paper"],
        first["cohort"],
        first["profile"]["name"],
        patients,
        _training(published.history),
        _other_series(published) | first.get("substituted", {}),
        first["profile"].get("updates", 0),
    )


def _other_series(published: Published) -> dict[str, str]:
    """Series of the paper's methods in whose place the published ones had others."""
    paper = published.runs[0]["paper"]
    printed = (
        {method.name: method.channels for method in registry.load(paper).methods} if paper in registry.KEYS else {}
    )
    return {
        old: new
        for name, method in published.methods.items()
        for old, new in zip(printed.get(name, ()), method.get("channels", ()), strict=False)
        if old != new
    }


def _split_twice(by_slice: Published, by_patient: Published) -> Source:
    """The same slices split by slice and by patient: the patients and numbers that the chapter shows."""
    import pandas as pd

    source = _source(by_slice)
    table = leakage.differences(by_slice.cases, by_patient.cases)
    whole = table[table.structure == leakage.ALL].groupby(["method", "patient", "seed"])
    means = whole[["by_slice", "by_patient"]].mean()
    cohort = source.cohort.removesuffix(next(iter(leakage.SPLITS)))
    splits = [
        means[column].rename("dsc").reset_index().assign(cohort=f"{cohort}{end}")
        for column, end in zip(means, leakage.SPLITS, strict=True)
    ]
    about = {"paper": source.paper, "profile": source.profile, "suspect": False, "status": "ok"}
    patients = pd.concat(splits, ignore_index=True).assign(**about, structure=leakage.ALL, region="reference_slices")
    name = f"{by_slice.folder.name} and {by_patient.folder.name}"
    return replace(source, name=name, cohort=cohort, patients=patients)


def _training(history):
    """By how much of its first value the training loss of each run fell, in the form of patients; one that ended as no
    number did not fall.
    """
    keys = ["paper", "method", "cohort", "profile", "fold", "seed"]
    first = history[history.stage == history.groupby(keys).stage.transform("first")]
    losses = first.groupby(keys, sort=True).loss
    ends = losses.agg(first=lambda loss: loss.iloc[0], last=lambda loss: loss.iloc[-1]).reset_index()
    ends["loss_fall"] = (1 - ends["last"] / ends["first"]).where(ends["last"].abs() < inf, 0.0)
    ends["patient"] = "fold " + ends.fold.astype(str)
    return ends.assign(status="ok")[[*keys, "patient", "status", "loss_fall"]]


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

"""What is published with the book, as the evidence that claims are decided on."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from pathlib import Path

import pandas as pd

from npcrepro.findings import leakage
from npcrepro.findings.claims.claim import Claim
from npcrepro.findings.claims.decision import ENOUGH_PATIENTS
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import ADDED, METRICS, REGIONS
from npcrepro.runs.per_patient import by_patient, over_structures, select
from npcrepro.runs.published import RESULTS, Published, published_folders, read_published

# Columns that are made of others here: volume of false positives, how far surface area over volume to the power 2/3 is
# from that of the reference, how far the DSC exceeds 1 minus the soft loss, the Jaccard index at the validated
# threshold, and how far the training loss fell.
DERIVED = ("false_positive_ml", "shape_error", "hard_minus_soft", "jsc_validated", "loss_fall")
DECIDING = (*METRICS, *ADDED, *DERIVED)
PARTS = ("train", "validation", "test")  # of a fold
PHANTOM = "phantom"  # how names of synthetic cohorts begin

Pairs = list[tuple[Claim, pd.DataFrame]]  # what is tested of a claim, each with its rows


@dataclass(frozen=True)
class Source:
    """Published runs of one paper on one cohort, or on its slices in two splits.

    Attributes:
        name: of the folder, or of both joined by "and".
        paper, cohort, profile: of the runs.
        patients: from :func:`npcrepro.runs.per_patient.by_patient`, with the columns `DERIVED`; for slices in two
            splits, the mean DSC over the slices of each patient, as in :mod:`npcrepro.findings.leakage`.
        training: a row for each run with ``loss_fall``, in the form of ``patients``.
        substituted: channels and structures of the paper to those that were used in their place.
        own_series: none of them is a channel.
        missing: how many structures of the paper have no scores and nothing in their place.
        updates, batch_size, width: of the profile.
        folds: the fold in which a patient was tested, where that is one.
        available: patients of the whole cohort, without those of doubtful labels.
        outdated: why runs of a method are outdated (:meth:`npcrepro.runs.published.Published.outdated`).
        made_by: device (of a CPU its processor) and precision of the runs of each method.
    """

    name: str
    paper: str
    cohort: str
    profile: str
    patients: pd.DataFrame
    training: pd.DataFrame
    substituted: dict[str, str] = field(default_factory=dict)
    own_series: bool = True
    missing: int = 0
    updates: int = 0
    batch_size: int = 1
    width: float = 1.0
    folds: dict[str, int] = field(default_factory=dict)
    available: int = 0
    outdated: dict[str, str] = field(default_factory=dict)
    made_by: dict[str, set[tuple]] = field(default_factory=dict)

    def rows(self, claim: Claim) -> pd.DataFrame:
        """What decides a claim: a row for each patient, method and seed."""
        if claim.metric == "loss_fall":
            return self.training
        if claim.region not in self._by_region:
            self._by_region[claim.region] = self._rows_of(claim.region)
        return self._by_region[claim.region]

    @cached_property
    def _by_region(self) -> dict[str, pd.DataFrame]:
        """What `_rows_of` gave, as every claim asks for it. No field, which `replace` would carry to other patients."""
        return {}

    def _rows_of(self, region: str) -> pd.DataFrame:
        mine = self.patients[self.patients.region == region]
        names = mine.structure.unique()
        if len(names) == 1:
            rows = select(self.patients, names[0], region)
        else:
            averaged = [name for name in DECIDING if name in mine and name not in ADDED]
            rows = over_structures(mine[~mine.suspect], averaged)
        silent = [self._silent.get(run, ()) for run in zip(rows.method, rows.seed, strict=True)]
        return rows.assign(fold=rows.patient.map(self.folds), silent=silent)

    @cached_property
    def _silent(self) -> dict[tuple, tuple[str, ...]]:
        """Structures of which a method found nothing in any patient with a seed."""
        whole = self.patients[self.patients.region == REGIONS[0]]
        most = whole.groupby(["method", "seed", "structure"]).dsc.max()
        missed = most[most == 0].reset_index("structure").structure
        return missed.groupby(["method", "seed"]).agg(tuple).to_dict()

    def has(self, claim: Claim) -> bool:
        """Whether every arm of a claim was run and scored by its metric, on series that may decide it."""
        if claim.own_series and not self.own_series:
            return False
        rows = self.training if claim.metric == "loss_fall" else self.patients[self.patients.region == claim.region]
        return all(
            metric in rows and rows[metric][(rows.method == arm.method) & _on(rows.cohort, arm.cohort)].notna().any()
            for arm, metric in zip(claim.arms, claim.metrics, strict=True)
        )

    def outdated_of(self, claim: Claim) -> list[str]:
        """Why the runs of its arms are outdated; empty if they are not."""
        arms = dict.fromkeys(arm.method for arm in claim.arms)
        return [self.outdated[name] for name in arms if name in self.outdated]

    def made_unlike(self, claim: Claim) -> bool:
        """Whether its arms were trained on other devices, or in another precision, than each other."""
        made = [self.made_by[arm.method] for arm in claim.arms if arm.method in self.made_by]
        return any(each != made[0] for each in made)


def sources(results: Path | str = RESULTS) -> list[Source]:
    """Everything published under a folder that belongs to a paper of this book.

    Two folders on the slices of one cohort (:func:`npcrepro.findings.leakage.pairs`) are one source.
    """
    pairs = [pair for key in registry.KEYS for pair in leakage.pairs(Path(results), key)]
    paired = {published.folder for pair in pairs for published in pair}
    read = [read_published(folder) for folder in published_folders(results) if folder not in paired]
    alone = [_source(published) for published in read if published.runs[0]["paper"] in registry.KEYS]
    return [*alone, *(_split_twice(*pair) for pair in pairs)]


def rows_of(claim: Claim, source: Source | None) -> Pairs:
    """What is tested of a claim, each part with its rows, as far as its arms were run."""
    return [(part, source.rows(part)) for part in claim.tested if source.has(part)] if source else []


def best(found: Iterable[Source], claim: Claim) -> Source | None:
    """The source that decides a claim, or one part of it at least.

    Enough patients to decide anything go first, unless seeds are counted. Then come the MRI sequences of the paper
    before others in their place, patients before a phantom, methods as they are now, more parts, enough seeds, more
    patients, more seeds and longer training.
    """

    def worth(source: Source) -> tuple[bool, bool, bool, bool, int, bool, int, int, int, str]:
        tested = [part for part in claim.tested if source.has(part)]
        as_now = not any(source.outdated_of(part) for part in tested)
        rows = source.rows(tested[0])
        arms = [rows[rows.method == arm.method] for arm in tested[0].arms]
        patients, seeds = (min(arm[column].nunique() for arm in arms) for column in ("patient", "seed"))
        enough = seeds >= max(part.seeds for part in tested)
        large = patients >= ENOUGH_PATIENTS or tested[0].unit == "seed"
        of_patients = not source.cohort.startswith(PHANTOM)
        first = (large, source.own_series, of_patients, as_now)
        return *first, len(tested), enough, patients, seeds, source.updates, source.name

    mine = [source for source in found if source.paper == claim.paper]
    fitting = [source for source in mine if any(source.has(part) for part in claim.tested)]
    return max(fitting, key=worth) if fitting else None


def _on(cohorts: pd.Series, end: str) -> pd.Series:
    """Which rows are on the cohort that an arm asks for; one of single slices has to be asked for."""
    return cohorts.str.endswith(end) if end else ~cohorts.str.endswith(tuple(leakage.SPLITS))


def _source(published: Published) -> Source:
    first = published.runs[0]
    patients = by_patient(published.cases)
    patients["false_positive_ml"] = patients.predicted_ml * (1 - patients.precision)
    patients.loc[patients.predicted_ml == 0, "false_positive_ml"] = 0.0
    if "predicted_area_mm2" in patients:
        shape = [
            patients[f"{mask}_area_mm2"] / (1000 * patients[f"{mask}_ml"]) ** (2 / 3)
            for mask in ("predicted", "reference")
        ]
        patients["shape_error"] = (shape[0] - shape[1]).abs()
    if "soft_dice_loss" in patients:
        patients["hard_minus_soft"] = patients.dsc + patients.soft_dice_loss - 1
    if "dsc_validated" in patients:
        patients["jsc_validated"] = patients.dsc_validated / (2 - patients.dsc_validated)
    # Areas under curves are of the whole case; they stand beside what is scored in a part of its slices, too.
    keys = ["method", "seed", "patient", "suspect", "structure"]
    whole = patients[patients.region == REGIONS[0]].set_index(keys).average_precision
    patients["average_precision"] = whole.reindex(pd.MultiIndex.from_frame(patients[keys])).to_numpy()
    tested = published.cases.groupby("patient").fold.agg(["first", "nunique"])
    everybody = {name for fold in published.folds.values() for part in PARTS for name in fold.get(part, ())}
    clear = (everybody or {*patients.patient}) - {*patients[patients.suspect].patient}
    made_by: dict[str, set[tuple]] = {}
    for run in published.runs:
        device = run.get("device", "cpu")
        made = run.get("processor") if device == "cpu" else device
        made_by.setdefault(run["method"], set()).add((made, run.get("precision")))
    # What differs from the paper as this project has it: series and structures, and methods of before.
    paper, profile = registry.load(first["paper"]), first["profile"]
    names = {channel for method in paper.methods for channel in method.channels}
    series: tuple[str, ...] = max((tuple(each["channels"]) for each in published.methods.values()), key=len, default=())
    of_paper = {method.name: method.channels for method in paper.methods}
    others = {
        old: new
        for name, method in published.methods.items()
        for old, new in zip(of_paper.get(name, ()), method.get("channels", ()), strict=False)
        if old != new
    }
    others |= first.get("substituted", {})
    return Source(
        name=published.folder.name,
        paper=paper.key,
        cohort=first["cohort"],
        profile=profile["name"],
        patients=patients,
        training=_training(published.history),
        substituted=others,
        own_series=names.isdisjoint(others),
        missing=len({*paper.methods[0].structures} - {*patients.structure} - {*others}),
        updates=profile["updates"],
        batch_size=profile["batch_size"],
        width=profile["width"],
        folds=tested["first"][tested["nunique"] == 1].to_dict(),
        available=len(clear),
        outdated=published.outdated(registry.load(paper.key, series if not names.issuperset(series) else ())),
        made_by=made_by,
    )


def _split_twice(by_slice: Published, by_patient: Published) -> Source:
    """The same slices split by slice and by patient: the patients and numbers that the chapter shows."""
    source = _source(by_slice)
    rows = leakage.differences(by_slice.cases, by_patient.cases)
    rows = rows[rows.structure == leakage.ALL]
    means = rows.groupby(["method", "patient", "seed"])[["by_slice", "by_patient"]].mean()
    cohort = source.cohort.removesuffix("-slices")
    means.columns = pd.Index([f"{cohort}{end}" for end in leakage.SPLITS], name="cohort")
    about = {"paper": source.paper, "profile": source.profile, "suspect": False, "status": "ok"}
    patients = means.stack().rename("dsc").reset_index()
    patients = patients.assign(**about, structure=leakage.ALL, region="reference_slices")
    name = f"{by_slice.folder.name} and {by_patient.folder.name}"
    other = _source(by_patient)
    return replace(
        source,
        name=name,
        cohort=cohort,
        patients=patients,
        folds={},
        available=other.available,
        outdated=other.outdated | source.outdated,
    )


def _training(history: pd.DataFrame) -> pd.DataFrame:
    """By how much of its first value the training loss of each run fell; by 0 if it ended as no number."""
    keys = ["paper", "method", "cohort", "profile", "fold", "seed"]
    first = history[history.stage == history.groupby(keys).stage.transform("first")]
    losses = first.groupby(keys, sort=True).loss
    ends = losses.agg(first=lambda loss: loss.iloc[0], last=lambda loss: loss.iloc[-1]).reset_index()
    ends["loss_fall"] = (1 - ends["last"] / ends["first"]).where(ends["last"].abs() < inf, 0.0)
    ends["patient"] = "fold " + ends.fold.astype(str)
    return ends.assign(status="ok")[[*keys, "patient", "status", "loss_fall"]]

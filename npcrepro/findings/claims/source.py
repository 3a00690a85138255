"""What is published with the book, as the evidence that claims are decided on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

import pandas as pd

from npcrepro.findings import leakage
from npcrepro.findings.claims.claim import Claim
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import ADDED, METRICS
from npcrepro.runs.per_patient import by_patient, over_structures, select
from npcrepro.runs.published import RESULTS, Published, published_folders, read_published

# Columns that are made of others here: volume of false positives, and how far the training loss fell.
DERIVED = ("false_positive_ml", "loss_fall")
DECIDING = (*METRICS, *ADDED, *DERIVED)
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
        updates: of the profile; 0 in old records, which do not name them.
    """

    name: str
    paper: str
    cohort: str
    profile: str
    patients: pd.DataFrame
    training: pd.DataFrame
    substituted: dict[str, str] = field(default_factory=dict)
    updates: int = 0

    def rows(self, claim: Claim) -> pd.DataFrame:
        """What decides a claim: a row for each patient, method and seed."""
        if claim.metric == "loss_fall":
            return self.training
        mine = self.patients[self.patients.region == claim.region]
        names = mine.structure.unique()
        if claim.structure or len(names) == 1:
            return select(self.patients, claim.structure or names[0], claim.region)
        return over_structures(mine[~mine.suspect], (*METRICS, "false_positive_ml"))

    def has(self, claim: Claim) -> bool:
        """Whether every arm of a claim was run."""
        rows = self.training if claim.metric == "loss_fall" else self.patients[self.patients.region == claim.region]
        found = set(zip(rows.method, rows.cohort, strict=True))
        return all(any(m == arm.method and _on(c, arm.cohort) for m, c in found) for arm in claim.arms)


def sources(results: Path | str = RESULTS) -> list[Source]:
    """Everything published under a folder that belongs to a paper of this book.

    Two folders on the slices of one cohort (:func:`npcrepro.findings.leakage.pairs`) are one source.
    """
    pairs = [pair for key in registry.KEYS for pair in leakage.pairs(Path(results), key)]
    paired = {published.folder for pair in pairs for published in pair}
    read = [_source(read_published(folder)) for folder in published_folders(results) if folder not in paired]
    return [*(source for source in read if source.paper in registry.KEYS), *(_split_twice(*pair) for pair in pairs)]


def rows_of(claim: Claim, source: Source | None) -> Pairs:
    """What is tested of a claim, each part with its rows, as far as its arms were run."""
    return [(part, source.rows(part)) for part in claim.tested if source.has(part)] if source else []


def best(found: Iterable[Source], claim: Claim) -> Source | None:
    """The source that decides a claim, or one part of it at least.

    Patients go before a phantom, then more parts, enough seeds, more patients, more seeds and longer training.
    """

    def worth(source: Source) -> tuple[bool, int, bool, int, int, int, str]:
        tested = [part for part in claim.tested if source.has(part)]
        rows = source.rows(tested[0])
        arms = [rows[rows.method == arm.method] for arm in tested[0].arms]
        patients, seeds = (min(arm[column].nunique() for arm in arms) for column in ("patient", "seed"))
        enough = seeds >= max(part.seeds for part in tested)
        of_patients = not source.cohort.startswith(PHANTOM)
        return of_patients, len(tested), enough, patients, seeds, source.updates, source.name

    mine = [source for source in found if source.paper == claim.paper]
    fitting = [source for source in mine if any(source.has(part) for part in claim.tested)]
    return max(fitting, key=worth) if fitting else None


def _on(cohort: str, end: str) -> bool:
    """Whether a cohort is the one that an arm asks for; one of single slices has to be asked for."""
    return cohort.endswith(end) if end else not cohort.endswith(tuple(leakage.SPLITS))


def _source(published: Published) -> Source:
    first = published.runs[0]
    patients = by_patient(published.cases)
    patients["false_positive_ml"] = patients.predicted_ml * (1 - patients.precision)
    patients.loc[patients.predicted_ml == 0, "false_positive_ml"] = 0.0
    paper, profile = first["paper"], first["profile"]
    of_paper = {each.name: each.channels for each in registry.load(paper).methods} if paper in registry.KEYS else {}
    other_channels = {
        old: new
        for name, method in published.methods.items()
        for old, new in zip(of_paper.get(name, ()), method.get("channels", ()), strict=False)
        if old != new
    }
    return Source(
        name=published.folder.name,
        paper=paper,
        cohort=first["cohort"],
        profile=profile["name"],
        patients=patients,
        training=_training(published.history),
        substituted=other_channels | first.get("substituted", {}),
        updates=profile.get("updates", 0),
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
    return replace(source, name=name, cohort=cohort, patients=patients)


def _training(history: pd.DataFrame) -> pd.DataFrame:
    """By how much of its first value the training loss of each run fell; by 0 if it ended as no number."""
    keys = ["paper", "method", "cohort", "profile", "fold", "seed"]
    first = history[history.stage == history.groupby(keys).stage.transform("first")]
    losses = first.groupby(keys, sort=True).loss
    ends = losses.agg(first=lambda loss: loss.iloc[0], last=lambda loss: loss.iloc[-1]).reset_index()
    ends["loss_fall"] = (1 - ends["last"] / ends["first"]).where(ends["last"].abs() < inf, 0.0)
    ends["patient"] = "fold " + ends.fold.astype(str)
    return ends.assign(status="ok")[[*keys, "patient", "status", "loss_fall"]]

"""What splitting by slice does to the numbers: the same slices are tested by networks that were trained on other slices
of the same patients, and by networks that were not.

The slices of a cohort are cases (:func:`npcrepro.cohorts.slices.write_slices`). In one cohort each is a patient of its
own, so that slices of one patient lie on both sides of a split; in the other they stay together. Slices count that were
tested in both, and published pairs hold these only, with the structures that they show.
"""

from pathlib import Path

import pandas as pd

from npcrepro import statistics
from npcrepro.base.errors import InputError
from npcrepro.runs.published import Published, read_published

ALL = "all structures"
# How names end, of cohorts of slices and of folders with runs on them, and what `npcrepro data slices --by` takes.
SPLITS = {"-slices": "slice", "-patients": "patient"}


def pairs(results: Path, paper: str) -> list[tuple[Published, Published]]:
    """Published runs on slices, split by slice and by patient: ``PAPER-leakage...-slices`` and ``...-patients``.

    Raises:
        InputError: one of a pair without the other.
    """
    names = [path.name for path in sorted(results.glob(f"{paper}-leakage*")) if path.name.endswith(tuple(SPLITS))]
    stems = dict.fromkeys(name.rpartition("-")[0] for name in names)
    by_slice, by_patient = SPLITS
    return [
        (read_published(results / (stem + by_slice)), read_published(results / (stem + by_patient))) for stem in stems
    ]


def inflation(by_slice: pd.DataFrame, by_patient: pd.DataFrame) -> pd.DataFrame:
    """How much higher the DSC of slices is where other slices of their patient trained the network.

    Only structures that the reference of a slice shows count. The unit is the patient, because slices of one patient
    are not independent: the mean over the slices of each patient (and over seeds), then over patients.

    Args:
        by_slice: rows of ``cases.csv`` where each slice was a patient of its own; any number of methods and seeds.
        by_patient: the same slices, split by patient.

    Returns:
        Data frame with one row for each method and structure, and for `ALL`, the mean over a slice's structures:
        ``patients``, ``slices``, mean DSC ``by_slice`` and ``by_patient``, ``inflation`` (their difference) with the
        ends ``low`` and ``high`` of its 95 % bootstrap interval.

    Raises:
        InputError: a method and seed of which no slice was tested in both splits.
    """
    rows, values = [], ["by_slice", "by_patient", "difference"]
    for (method, structure), group in differences(by_slice, by_patient).groupby(["method", "structure"], sort=False):
        seeds = group.groupby(["patient", "seed"])[values].mean()
        patients = seeds.groupby("patient").mean()
        summary = statistics.summarise(patients.difference)
        counts = len(patients), group.case.nunique()
        rows.append((method, structure, *counts, *patients.mean(), summary.low, summary.high))
    columns = ["method", "structure", "patients", "slices", "by_slice", "by_patient", "inflation", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def differences(by_slice: pd.DataFrame, by_patient: pd.DataFrame) -> pd.DataFrame:
    """One row for each method, seed, slice and structure that it shows, and for `ALL`: DSC in either split, difference.

    Arguments and errors are those of :func:`inflation`. ``patient`` is the one whose slice it is.
    """
    both = pd.concat({"by_slice": _dsc(by_slice), "by_patient": _dsc(by_patient)}, axis=1)
    shared = both.notna().all(axis=1)
    for (method, seed), tested in shared.groupby(["method", "seed"]):
        if not tested.any():
            raise InputError(
                f"no slice of {method} with seed {seed} was tested in both splits: run the same folds and seeds of "
                "both, on the slices of one cohort"
            )
    both = both[shared]
    whole = both.groupby(["method", "seed", "case"], sort=False).mean().reset_index().assign(structure=ALL)
    table = pd.concat([whole, both.reset_index()], ignore_index=True)
    patients = by_patient.drop_duplicates("case").set_index("case").patient
    return table.assign(patient=table.case.map(patients), difference=table.by_slice - table.by_patient)


def _dsc(cases: pd.DataFrame) -> pd.Series:
    """DSC by method, seed, case and structure; slices that do not show the structure are left out."""
    shown = cases[(cases.region == "reference_slices") & ~cases.suspect & (cases.tp + cases.fn > 0)]
    return shown.set_index(["method", "seed", "case", "structure"]).dsc

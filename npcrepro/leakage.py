"""What splitting by slice does to the numbers: the same slices tested twice, by networks that saw their neighbours and
by networks that did not.

The slices of a cohort are cases (:func:`npcrepro.cohorts.slices.write_slices`). In one cohort each is a patient of its
own, so that slices of one patient lie on both sides of a split; in the other they stay together. With all folds of both
every slice is tested once in each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npcrepro import statistics
from npcrepro.errors import InputError
from npcrepro.records import Published, read_published

ALL = "all structures"


def pairs(results: Path, paper: str) -> list[tuple[Published, Published]]:
    """Published runs on slices, split by slice and by patient: ``PAPER-leakage...-slices`` and ``...-patients``.

    Raises:
        InputError: one of a pair without the other.
    """
    folders = [path for path in sorted(results.glob(f"{paper}-leakage*")) if path.name.endswith("-slices")]
    return [(read_published(f), read_published(f.with_name(f"{f.name[:-6]}patients"))) for f in folders]


def inflation(by_slice, by_patient, seed: int = 0):
    """How much higher the DSC of a slice is where other slices of its patient trained the network.

    Each slice is its own pair; only structures that its reference shows count. The interval is a bootstrap over
    patients, all of whose slices are drawn together: slices of a patient are no independent witnesses.

    Args:
        by_slice: rows of ``cases.csv`` where each slice was a patient of its own; any number of methods and seeds.
        by_patient: the same slices, split by patient.
        seed: of the bootstrap.

    Returns:
        Data frame with one row for each method and structure, and for `ALL`, the mean over a slice's structures:
        ``patients``, ``slices``, mean DSC ``by_slice`` and ``by_patient``, ``inflation`` (their difference) with the
        ends ``low`` and ``high`` of its 95 % interval.

    Raises:
        InputError: a slice or method that was tested in one split and not in the other.
    """
    import pandas as pd

    rows, table = [], differences(by_slice, by_patient)
    table["method"] = pd.Categorical(table.method, table.method.unique())
    for (method, structure), group in table.groupby(["method", "structure"], sort=False, observed=True):
        clusters = group.groupby("patient").difference.agg(["sum", "count"]).to_numpy(float)
        low, high = statistics.bootstrap(tuple(clusters.T), _mean_over_slices, seed)
        means = group[["by_slice", "by_patient", "difference"]].mean()
        rows.append((method, structure, len(clusters), len(group), *means, low, high))
    columns = ["method", "structure", "patients", "slices", "by_slice", "by_patient", "inflation", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def differences(by_slice, by_patient):
    """One row for each method, slice and structure that it shows, and for `ALL`: DSC in either split and difference.

    Arguments and errors are those of :func:`inflation`.
    """
    import pandas as pd

    both = pd.concat({"by_slice": _dsc(by_slice), "by_patient": _dsc(by_patient)}, axis=1)
    alone = both[both.isna().any(axis=1)]
    if len(alone):
        method, case, _ = alone.index[0]
        raise InputError(
            f"slice {case} of {method} was tested in one split and not in the other: run all folds of both, on the "
            "slices of one cohort"
        )
    whole = both.groupby(["method", "case"], sort=False).mean().reset_index().assign(structure=ALL)
    table = pd.concat([whole, both.reset_index()], ignore_index=True)
    patients = by_patient.drop_duplicates("case").set_index("case").patient
    return table.assign(patient=table.case.map(patients), difference=table.by_slice - table.by_patient)


def _dsc(cases):
    """DSC by method, case and structure, averaged over seeds; slices that do not show the structure are left out."""
    shown = cases[(cases.region == "reference_slices") & ~cases.suspect & (cases.tp + cases.fn > 0)]
    return shown.groupby(["method", "case", "structure"], sort=False).dsc.mean()


def _mean_over_slices(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / counts.sum(axis=axis)

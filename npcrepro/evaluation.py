"""From label maps to rows of ``cases.csv``, and from rows to one value for each patient."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, prod

import numpy as np

from npcrepro.cohorts.prepared import PreparedCase, PreparedCohort
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.overlap import METRICS, Counts, count

# ``reference_slices`` counts only slices that contain the structure in the reference, as Li 2018 does; false positives
# elsewhere are invisible there, so ``all_slices`` is always reported too.
REGIONS = ("all_slices", "reference_slices")
COUNTS = ["tp", "fp", "fn", "tn"]
CASE_COLUMNS = [
    "case", "patient", "suspect", "structure", "region", "status", *COUNTS,
    "spacing_z_mm", "spacing_y_mm", "spacing_x_mm", "reference_ml", "predicted_ml", *METRICS,
]  # fmt: skip


def score_case(
    label: np.ndarray, case: PreparedCase, cohort: PreparedCohort, structures: Sequence[str]
) -> list[dict]:  # fmt: skip
    """Rows of one case: every structure of the method in every region.

    Args:
        label: predicted, ``(z, y, x)`` on the grid of the case; 1 for the first of ``structures``, and so on.
        case: with its reference.
        cohort: for the codes of the reference, and whether the spacing is known; where it is not, volumes are ``nan``.
        structures: names of the structures that the method segments; one that was not contoured in this case has no
            rows.
    """
    reference = np.asarray(case.label)
    rows = []
    for number, structure in enumerate(structures, 1):
        if structure in case.not_contoured:
            continue
        wanted, found = mask_of(reference, cohort.structures, structure), label == number
        with_structure = wanted.any(axis=(1, 2))
        for region in REGIONS:
            slices = with_structure if region == "reference_slices" else slice(None)
            counts = count(found[slices], wanted[slices])
            voxel_ml = prod(case.spacing_mm) / 1000 if cohort.spacing_known else nan
            spacing = case.spacing_mm if cohort.spacing_known else (nan, nan, nan)
            rows.append(
                {
                    "case": case.name,
                    "patient": case.patient,
                    "suspect": case.suspect,
                    "structure": structure,
                    "region": region,
                    "spacing_z_mm": spacing[0],
                    "spacing_y_mm": spacing[1],
                    "spacing_x_mm": spacing[2],
                    "reference_ml": (counts.tp + counts.fn) * voxel_ml,
                    "predicted_ml": (counts.tp + counts.fp) * voxel_ml,
                    **_values(counts),
                }
            )
    return rows


def by_patient(cases):
    """Pool the rows of each patient by adding counts, and compute the metrics from the sums.

    Args:
        cases: data frame of ``cases.csv`` rows of any number of runs.

    Returns:
        Data frame with one row for each (paper, method, cohort, profile, seed, patient, suspect, structure, region).
    """
    import pandas as pd

    keys = ["paper", "method", "cohort", "profile", "seed", "patient", "suspect", "structure", "region"]
    # SILENT: how the slices of a patient are joined; their pixels are pooled (the paper's values are for each patient).
    totals = cases.groupby(keys, sort=True)[[*COUNTS, "reference_ml", "predicted_ml"]].sum(min_count=1).reset_index()
    metrics = [_values(Counts(*(int(n) for n in row))) for row in totals[COUNTS].itertuples(index=False)]
    return totals.drop(columns=COUNTS).join(pd.DataFrame(metrics, index=totals.index))


def select(patients, structure: str, region: str):
    """Rows of one structure in one region, doubtful labels left out: what tables, tests and figures are made of."""
    return patients[(patients.structure == structure) & (patients.region == region) & ~patients.suspect]


def over_seeds(patients):
    """Average each patient's metrics over seeds, so that a patient counts once in every mean and test."""
    keys = ["paper", "method", "cohort", "profile", "patient", "suspect", "structure", "region"]
    return patients.groupby(keys, sort=True)[[*METRICS, "reference_ml", "predicted_ml"]].mean().reset_index()


def _values(counts: Counts) -> dict:
    return {
        "status": counts.status,
        **{name: getattr(counts, name) for name in COUNTS},
        **{name: getattr(counts, name) for name in METRICS},
    }

"""From label maps to rows of ``cases.csv``, and from rows to one value for each patient."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan

import numpy as np

from npcrepro.cohorts.prepared import PreparedCase, PreparedCohort
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.curves import count_scores
from npcrepro.metrics.overlap import METRICS as OVERLAP
from npcrepro.metrics.overlap import Counts, count
from npcrepro.metrics.surface import METRICS as DISTANCES
from npcrepro.metrics.surface import measure

# ``reference_slices`` counts only slices that contain the structure in the reference, as Li 2018 does; false positives
# elsewhere are invisible there, so ``all_slices`` is always reported too. Distances and areas under curves are those of
# the whole case.
REGIONS = ("all_slices", "reference_slices")
COUNTS = ["tp", "fp", "fn", "tn"]
VOLUMES = ["reference_ml", "predicted_ml"]
AREAS = ("average_precision", "auc")
WHOLE = (*DISTANCES, *AREAS)
METRICS = (*OVERLAP, *WHOLE)
CASE_COLUMNS = [
    "case", "patient", "suspect", "structure", "region", "status", *COUNTS,
    "spacing_z_mm", "spacing_y_mm", "spacing_x_mm", *VOLUMES, *METRICS,
]  # fmt: skip
RUN = ["paper", "method", "cohort", "profile"]
UNKNOWN_SPACING = (nan, nan, nan)
OVER_STRUCTURES = "mean"  # in place of a structure's name
# The status of a mean: first what says why a distance in it has no value, last that there is nothing to average.
EXPLAINING = ("pred_empty", "ref_empty", "ok", "both_empty")


def score_masks(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float] = UNKNOWN_SPACING,
    probability: np.ndarray | None = None,
) -> dict:
    """Every number of one structure in one case.

    Args:
        prediction, reference: masks ``(z, y, x)``. A single slice is scored by its outline.
        spacing_mm: ``(z, y, x)``; where it is not known, volumes and distances are ``nan``.
        probability: of the structure, in [0, 1], or in steps of 1/255 as uint8; without it, areas are ``nan``.

    Returns:
        status, raw counts, volumes in ml and `METRICS`.

    Example:
        >>> mask = np.zeros((4, 8, 8), bool)
        >>> mask[1:3, 2:6, 2:6] = True
        >>> row = score_masks(np.roll(mask, 1, axis=2), mask, (3.0, 1.0, 1.0))
        >>> row["dsc"], row["reference_ml"], row["surfel_hd95_mm"]
        (0.75, 0.096, 1.0)
    """
    counts = count(prediction, reference)
    row = _values(counts) | {name: getattr(counts, name)(spacing_mm) for name in VOLUMES} | dict.fromkeys(WHOLE, nan)
    if not any(isnan(spacing) for spacing in spacing_mm):
        flat = len(prediction) == 1
        masks = (prediction[0], reference[0]) if flat else (prediction, reference)
        row |= measure(*masks, spacing_mm[1:] if flat else spacing_mm)
    if probability is not None:
        scores = count_scores(probability, reference)
        row |= {name: getattr(scores, name) for name in AREAS}
    return row


def score_case(
    label: np.ndarray,
    case: PreparedCase,
    cohort: PreparedCohort,
    structures: Sequence[str],
    probability: np.ndarray | None = None,
) -> list[dict]:
    """Rows of one case: every structure of the method in every region.

    Args:
        label: predicted, ``(z, y, x)`` on the grid of the case; 1 for the first of ``structures``, and so on.
        case: with its reference.
        cohort: for the codes of the reference, and whether the spacing is known; where it is not, volumes and distances
            are ``nan``.
        structures: names of the structures that the method segments; one that was not contoured in this case has no
            rows.
        probability: ``(S, z, y, x)``, see :func:`score_masks`.
    """
    reference = np.asarray(case.label)
    spacing_mm = case.spacing_mm if cohort.spacing_known else UNKNOWN_SPACING
    rows = []
    for number, structure in enumerate(structures):
        if structure in case.not_contoured:
            continue
        wanted, found = mask_of(reference, cohort.structures, structure), label == number + 1
        whole = score_masks(found, wanted, spacing_mm, None if probability is None else probability[number])
        with_structure = wanted.any(axis=(1, 2))
        counts = count(found[with_structure], wanted[with_structure])
        part = dict.fromkeys(WHOLE, nan) | _values(counts)
        part |= {name: getattr(counts, name)(spacing_mm) for name in VOLUMES}
        for region, values in zip(REGIONS, (whole, part), strict=True):
            about = {"case": case.name, "patient": case.patient, "suspect": case.suspect}
            about |= {"structure": structure, "region": region}
            about |= {f"spacing_{axis}_mm": spacing for axis, spacing in zip("zyx", spacing_mm, strict=True)}
            rows.append(about | values)
    return rows


def by_patient(cases):
    """One row for each patient: counts and volumes are added over its cases and the overlap is computed from the sums;
    distances and areas under curves, which cannot be added, are averaged, ``nan`` if any of them is.

    Args:
        cases: data frame of ``cases.csv`` rows of any number of runs.

    Returns:
        Data frame with one row for each (paper, method, cohort, profile, seed, patient, suspect, structure, region).
    """
    import pandas as pd

    keys = [*RUN, "seed", "patient", "suspect", "structure", "region"]
    # Records that were published before a metric was added do not have its column.
    cases = cases.reindex(columns=[*dict.fromkeys([*cases.columns, *WHOLE])])
    # SILENT: how the slices of a patient are joined; their pixels are pooled (the paper's values are for each patient).
    groups = cases.groupby(keys, sort=True)
    totals = groups[[*COUNTS, *VOLUMES]].sum(min_count=1)
    totals = totals.join(_mean(groups, WHOLE)).reset_index()
    metrics = [_values(Counts(*(int(n) for n in row))) for row in totals[COUNTS].itertuples(index=False)]
    return totals.drop(columns=COUNTS).join(pd.DataFrame(metrics, index=totals.index))


def select(patients, structure: str, region: str):
    """Rows of one structure in one region, doubtful labels left out: what tables, tests and figures are made of."""
    return patients[(patients.structure == structure) & (patients.region == region) & ~patients.suspect]


def over_seeds(patients):
    """Average each patient's metrics over seeds, so that a patient counts once in every mean and test.

    A metric that is undefined with one seed is undefined: leaving that seed out would hide it.
    """
    keys = [*RUN, "patient", "suspect", "structure", "region"]
    columns = [name for name in (*METRICS, *VOLUMES) if name in patients]
    return _mean(patients.groupby(keys, sort=True), columns).reset_index()


def side_by_side(patients, methods: Sequence[str], metric: str):
    """A metric with one column for each method and one row for each patient, for paired differences.

    Averaged over the seeds that all of these methods have, so that chance of another start is not taken for theirs;
    ``nan`` where they have none in common.
    """
    mine = patients[patients.method.isin(methods)]
    common = set.intersection(*(set(mine.seed[mine.method == name]) for name in methods))
    means = over_seeds(mine[mine.seed.isin(common)])
    return means.pivot(index="patient", columns="method", values=metric).reindex(columns=list(dict.fromkeys(methods)))


def over_structures(patients, columns: Sequence[str] = METRICS):
    """One row for each patient, method and seed: the mean over the structures that either mask shows.

    A structure that neither mask shows does not count; a patient with no other has ``nan`` and ``"both_empty"``. One
    whose metric is undefined for another reason (a distance to a structure that was missed) leaves the mean undefined:
    leaving it out would hide it.

    Args:
        patients: from :func:`by_patient`.
        columns: that are averaged; volumes are added.

    Returns:
        Rows like those of :func:`by_patient`, with `OVER_STRUCTURES` as the structure; the status is the first of
        `EXPLAINING` that a structure has.
    """
    keys = [*RUN, "seed", "patient", "suspect", "region"]
    rows = patients.groupby(keys)[VOLUMES].sum(min_count=1)
    means = _mean(patients[patients.status != "both_empty"].groupby(keys), columns)
    status = patients.assign(rank=patients.status.map(EXPLAINING.index)).groupby(keys)["rank"].min()
    rows = rows.join(means).assign(structure=OVER_STRUCTURES, status=status.map(EXPLAINING.__getitem__))
    return rows.reset_index()


def _mean(groups, columns: Sequence[str]):
    """Means of the columns, ``nan`` where any value is."""
    return groups[list(columns)].mean(skipna=False)


def _values(counts: Counts) -> dict:
    return {
        "status": counts.status,
        **{name: getattr(counts, name) for name in COUNTS},
        **{name: getattr(counts, name) for name in OVERLAP},
    }

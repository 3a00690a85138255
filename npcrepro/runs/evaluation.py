"""From label maps to rows of ``cases.csv``, and from rows to one value for each patient."""

from collections.abc import Sequence
from math import nan

import numpy as np

from npcrepro.cohorts.images import axes_of
from npcrepro.cohorts.prepared import PreparedCase, PreparedCohort
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.curves import count_scores
from npcrepro.metrics.overlap import METRICS as OVERLAP
from npcrepro.metrics.overlap import Counts, count
from npcrepro.metrics.panel import AREAS_MM2, DISTANCES, LPS, PIECES, PLANE_DSC, measure
from npcrepro.runs.validated import Choices, at_threshold

# ``labelled_slices`` counts only slices that show any structure of the method in the reference, as Luo 2020 does;
# ``reference_slices`` only those that show this structure, as Li 2018 does. False positives elsewhere are invisible
# there, so ``all_slices`` is always reported too. What counts do not give is measured in the whole case alone.
REGIONS = ("all_slices", "reference_slices", "labelled_slices")
COUNTS = ["tp", "fp", "fn", "tn"]
VOLUMES = ["reference_ml", "predicted_ml"]
ADDED = [*VOLUMES, *AREAS_MM2, *PIECES]  # what the cases of a patient have together is their sum
OF_PROBABILITY = ("average_precision", "auc", "soft_dice_loss")
WHOLE = (*DISTANCES, *PLANE_DSC, *OF_PROBABILITY, *AREAS_MM2, *PIECES)  # what is measured in the whole case alone
# What cannot be added: of the whole case, or of the run.
VALIDATED = ("dsc_validated", "validated_threshold")
AVERAGED = (*DISTANCES, *PLANE_DSC, *OF_PROBABILITY, "validated_threshold")
VALIDATED_COUNTS = ["tp_validated", "fp_validated"]
METRICS = (*OVERLAP, "dsc_validated", *AVERAGED)
CASE_COLUMNS = [
    "case", "patient", "suspect", "structure", "region", "status", *COUNTS,
    "spacing_z_mm", "spacing_y_mm", "spacing_x_mm", *ADDED, *METRICS, *VALIDATED_COUNTS,
]  # fmt: skip
UNKNOWN_SPACING = (nan, nan, nan)


def score_masks(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float] = UNKNOWN_SPACING,
    probability: np.ndarray | None = None,
    axes: str = LPS,
) -> dict:
    """Every number of one structure in one case.

    Args:
        prediction, reference: masks ``(z, y, x)``. A single slice is scored by its outline.
        spacing_mm: ``(z, y, x)``; where it is not known, volumes, areas and distances are ``nan``.
        probability: of the structure, in [0, 1], or in steps of 1/255 as uint8; without it, `OF_PROBABILITY` is
            ``nan``. ``soft_dice_loss`` is 1 - 2 sum(p r) / (sum p + sum r) over the voxels of the case, ``nan`` where
            both sums are 0.
        axes: where the x, y and z axes point to, see :mod:`npcrepro.metrics.panel`.

    Returns:
        status, raw counts, `ADDED` and `METRICS`.

    Example:
        >>> mask = np.zeros((4, 8, 8), bool)
        >>> mask[1:3, 2:6, 2:6] = True
        >>> row = score_masks(np.roll(mask, 1, axis=2), mask, (3.0, 1.0, 1.0))
        >>> row["dsc"], row["reference_ml"], row["surfel_hd95_mm"]
        (0.75, 0.096, 1.0)
    """
    row = _score_counts(count(prediction, reference), spacing_mm) | measure(prediction, reference, spacing_mm, axes)
    if probability is not None:
        scores = count_scores(probability, reference)
        row |= {"average_precision": scores.average_precision, "auc": scores.auc}
        row["soft_dice_loss"] = 1 - scores.soft_dice
    return row


def score_case(
    label: np.ndarray,
    case: PreparedCase,
    cohort: PreparedCohort,
    structures: Sequence[str],
    probability: np.ndarray | None = None,
    validated: Choices | None = None,
) -> list[dict]:
    """Rows of one case: every structure of the method in every region.

    Args:
        label: predicted, ``(z, y, x)`` on the grid of the case; 1 for the first of ``structures``, and so on.
        cohort: for the codes of the reference, and whether the spacing is known.
        structures: that the method segments; one that was not contoured in this case has no rows.
        probability: ``(S, z, y, x)``, see :func:`score_masks`.
        validated: what the patients for validation chose; ``dsc_validated`` is the DSC at their threshold, in each
            region, ``nan`` without one.
    """
    reference = np.asarray(case.label)
    spacing_mm = case.spacing_mm if cohort.spacing_known else UNKNOWN_SPACING
    about = {"case": case.name, "patient": case.patient, "suspect": case.suspect}
    about |= {f"spacing_{axis}_mm": spacing for axis, spacing in zip("zyx", spacing_mm, strict=True)}
    drawn = {name: mask_of(reference, cohort.structures, name) for name in structures if name not in case.not_contoured}
    shown = {name: wanted.any(axis=(1, 2)) for name, wanted in drawn.items()}
    any_shown = np.any(list(shown.values()), axis=0)
    axes = axes_of(case.geometry)
    rows = []
    for number, structure in enumerate(structures):
        if structure not in drawn:
            continue
        wanted, found = drawn[structure], label == number + 1
        whole = score_masks(found, wanted, spacing_mm, None if probability is None else probability[number], axes)
        parts = [_score_counts(count(found[z], wanted[z]), spacing_mm) for z in (shown[structure], any_shown)]
        choice = (validated or {}).get(structure)
        chosen = None if probability is None or choice is None else at_threshold(probability[number], choice)
        slices = (slice(None), shown[structure], any_shown)
        for region, values, z in zip(REGIONS, (whole, *parts), slices, strict=True):
            row = {**about, "structure": structure, "region": region, **values}
            if choice is not None and chosen is not None:
                counts = count(chosen[z], wanted[z])
                row |= {"dsc_validated": counts.dsc, "validated_threshold": choice.threshold}
                row |= dict(zip(VALIDATED_COUNTS, (counts.tp, counts.fp), strict=True))
            rows.append(row)
    return rows


def score_counts(counts: Counts) -> dict:
    """Status, raw counts, and the metrics of :mod:`npcrepro.metrics.overlap`."""
    return {"status": counts.status, **{name: getattr(counts, name) for name in (*COUNTS, *OVERLAP)}}


def _score_counts(counts: Counts, spacing_mm: Sequence[float]) -> dict:
    """Every number, as far as counts give it."""
    volumes = {name: getattr(counts, name)(spacing_mm) for name in VOLUMES}
    unknown = dict.fromkeys((*WHOLE, *VALIDATED, *VALIDATED_COUNTS), nan)
    return score_counts(counts) | unknown | volumes

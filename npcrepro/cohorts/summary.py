"""What a cohort holds, in numbers: how large its structures are, and how well an intensity alone tells them apart."""

from __future__ import annotations

from math import nan, prod

import numpy as np
import pandas as pd

from npcrepro.cohorts.prepared import PreparedCase, PreparedCohort
from npcrepro.cohorts.structures import mask_of

COLUMNS = (
    "case",
    "patient",
    "suspect",
    "structure",
    "volume_ml",
    "slices",
    "channel",
    "mean_inside",
    "mean_around",
    "separability",
)


def summarise_cohort(cohort: PreparedCohort) -> pd.DataFrame:
    """One row for each case, structure and channel, with the columns `COLUMNS`.

    * ``volume_ml``: nan where the spacing is not known; ``slices``: how many show the structure.
    * ``mean_inside``, ``mean_around``: intensity in the structure and in the shell around it that holds as many voxels
      (those nearest to it), in the units of the image.
    * ``separability``: probability that a voxel inside is brighter than one around, ties counted half (the area under
      the ROC curve). 0.5: intensity tells nothing; below: the structure is darker. It needs no common scale, so it can
      be compared across scanners.

    A structure that a case does not show has volume 0 and nan for the rest.
    """
    rows = []
    for name in cohort.cases:
        case = cohort.case(name)
        for structure in cohort.structures:
            rows += _rows(case, structure, mask_of(np.asarray(case.label), cohort.structures, structure), cohort)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(case: PreparedCase, structure: str, mask: np.ndarray, cohort: PreparedCohort) -> list[tuple]:
    volume = float(mask.sum()) * prod(case.spacing_mm) / 1000 if cohort.spacing_known else nan
    slices = int(mask.any(axis=(1, 2)).sum())
    about = (case.name, case.patient, case.suspect, structure, volume, slices)
    shell = _shell(mask, case.spacing_mm) if mask.any() else mask
    rows = []
    for channel, image in zip(cohort.channels, case.image, strict=True):
        inside, around = (np.asarray(image[part], dtype=np.float64) for part in (mask, shell))
        means = [float(values.mean()) if len(values) else nan for values in (inside, around)]
        rows.append((*about, channel, *means, _separability(inside, around)))
    return rows


def _shell(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The voxels outside that lie nearest to the mask, as many as it has itself; fewer where the image ends."""
    from scipy import ndimage

    count = int(mask.sum())
    shell = np.zeros_like(mask)
    # A margin that surely holds enough voxels: a shell of the mask's own volume is thinner than its box is wide.
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(slice(max(0, s.start - (s.stop - s.start) - 3), s.stop + (s.stop - s.start) + 3) for s in found)
    distance = ndimage.distance_transform_edt(~mask[box], sampling=spacing_mm)
    outside = np.flatnonzero(distance)
    nearest = outside[np.argsort(distance.ravel()[outside], kind="stable")[:count]]
    part = np.zeros(distance.shape, bool)
    part.ravel()[nearest] = True
    shell[box] = part
    return shell


def _separability(inside: np.ndarray, around: np.ndarray) -> float:
    from scipy.stats import rankdata

    if not len(inside) or not len(around):
        return nan
    ranks = rankdata(np.concatenate([inside, around]))[: len(inside)]
    return float((ranks.sum() - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(around)))

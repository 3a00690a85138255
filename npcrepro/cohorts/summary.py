"""What a cohort holds, in numbers: how large its structures are, and how well an intensity alone tells them apart."""

from collections.abc import Mapping, Sequence
from math import nan, prod

import numpy as np
import pandas as pd

from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.curves import count_scores

COLUMNS = (
    *("case", "patient", "suspect", "structure", "volume_ml", "slices", "channel"),
    *("mean_inside", "mean_around", "separability"),
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
    tables = []
    for name in cohort.case_names:
        case = cohort.case(name)
        label = np.asarray(case.label)
        masks = {s: mask_of(label, cohort.structures, s) for s in cohort.structures if s not in case.not_contoured}
        spacing_mm = case.spacing_mm if cohort.spacing_known else (nan, nan, nan)
        table = summarise_masks(name, case.image, masks, cohort.channels, spacing_mm)
        tables.append(table.assign(patient=case.patient, suspect=case.suspect))
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def summarise_masks(
    case: str,
    image: np.ndarray,
    masks: Mapping[str, np.ndarray],
    channels: Sequence[str],
    spacing_mm: tuple[float, float, float],
) -> pd.DataFrame:
    """The rows of one case that is in memory: image (C, z, y, x), masks (z, y, x); see `summarise_cohort`.

    With a ``spacing_mm`` of nan the volume is nan, and voxels count as cubes when the nearest are looked for.
    """
    rows = []
    for structure, mask in masks.items():
        about = (case, case, False, structure, float(mask.sum()) * prod(spacing_mm) / 1000)
        shell = _shell(mask, (1.0, 1.0, 1.0) if np.isnan(spacing_mm).any() else spacing_mm) if mask.any() else mask
        for channel, one in zip(channels, image, strict=True):
            inside, around = (np.asarray(one[part], dtype=np.float64) for part in (mask, shell))
            means = [float(values.mean()) if len(values) else nan for values in (inside, around)]
            slices = int(mask.any(axis=(1, 2)).sum())
            counts = count_scores(np.append(inside, around), np.arange(len(inside) + len(around)) < len(inside))
            rows.append((*about, slices, channel, *means, counts.auc))
    return pd.DataFrame(rows, columns=list(COLUMNS))


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

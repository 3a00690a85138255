"""Every number of two masks beside their overlap: distances, areas, sides, planes and pieces.

Columns that begin with ``voxel_`` or ``surfel_`` follow the conventions of :mod:`npcrepro.metrics.surface`. The others:

| column | what it is |
|---|---|
| ``components``, ``reference_components`` | pieces of the masks: 26-connected; 8-connected in one slice |
| ``predicted_area_mm2``, ``reference_area_mm2`` | surface area, under the convention ``surfel``; ``nan`` in one slice |
| ``axial_dsc``, ``coronal_dsc``, ``sagittal_dsc`` | mean DSC over the slices of a plane that either mask shows |
| ``slice_hd_mm``, ``slice_hd95_mm`` | Hausdorff distance of outlines in the axial plane, see `slice_distances` |
| ``front_mm`` to ``bottom_mm`` | mean distance of both surfaces on one side of the reference, see `side_distances` |

Sides and planes are the patient's: ``axes`` says where the x, y and z axes point to, as
:func:`npcrepro.cohorts.images.axes_of` does; the nearest axis counts where the image is oblique.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isnan, nan

import numpy as np

from npcrepro.metrics.surface import CONVENTIONS, SurfaceDistances, box_of, surface_distances

LPS = "LPS"  # to the left, back and head: DICOM's axes
SIDES = {"A": "front", "P": "back", "L": "left", "R": "right", "S": "top", "I": "bottom"}
PLANES = {"axial": "SI", "coronal": "AP", "sagittal": "LR"}  # and the axis across each
OPPOSITE = dict(zip("APLRSI", "PARLIS", strict=True))
TIE_MM = 1e-6

# For each convention: ``voxel_hd95_mm`` and so on.
NUMBERS: dict[str, Callable[[SurfaceDistances], float]] = {
    "hd_mm": lambda distances: distances.hausdorff,
    "hd95_mm": lambda distances: distances.hausdorff_95,
    "masd_mm": lambda distances: distances.masd,
    "assd_mm": lambda distances: distances.assd,
    "nsd_1mm": lambda distances: distances.nsd(1),
    "nsd_2mm": lambda distances: distances.nsd(2),
}
DISTANCES = (
    *(f"{convention}_{name}" for convention in CONVENTIONS for name in NUMBERS),
    *("slice_hd_mm", "slice_hd95_mm"),
    *(f"{side}_mm" for side in SIDES.values()),
)
PLANE_DSC = tuple(f"{plane}_dsc" for plane in PLANES)
AREAS_MM2 = ("predicted_area_mm2", "reference_area_mm2")
PIECES = ("components", "reference_components")
METRICS = (*DISTANCES, *PLANE_DSC, *AREAS_MM2, *PIECES)


def measure(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], axes: str = LPS
) -> dict[str, float]:
    """Every number of `METRICS`.

    Args:
        prediction, reference: masks ``(z, y, x)`` of one shape. One slice, ``(1, y, x)``, is measured by its outline:
            distances run in the slice, it has no area and no sides across it, and one plane alone.
        spacing_mm: ``(z, y, x)``; where one is ``nan``, so are distances and areas.
        axes: where the x, y and z axes point to.

    Raises:
        ValueError: shapes differ, the masks are not 3-D, or a spacing is not positive. That there are three spacings
            and three letters of ``axes`` is taken for granted.

    Example:
        >>> mask = np.zeros((4, 8, 8), bool)
        >>> mask[1:3, 2:6, 2:6] = True
        >>> found = measure(np.roll(mask, 1, axis=1), mask, (3.0, 1.0, 1.0))
        >>> found["components"], found["axial_dsc"], found["slice_hd_mm"], found["surfel_hd_mm"]
        (1, 0.75, 1.0, 1.0)
    """
    prediction, reference = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise ValueError(f"masks (z, y, x) of one shape, not {prediction.shape} and {reference.shape}")
    planes = planes_of(prediction.shape, axes)
    flat = len(prediction) == 1
    joint = box_of(prediction | reference)
    prediction, reference = prediction[joint], reference[joint]
    numbers = dict.fromkeys(METRICS, nan) | plane_dsc(prediction, reference, planes)
    numbers |= dict(zip(PIECES, (components(prediction), components(reference)), strict=True))
    spacing_mm = tuple(float(length) for length in spacing_mm)
    if any(isnan(length) for length in spacing_mm):
        return numbers
    if "axial" in planes:
        numbers |= slice_distances(prediction, reference, spacing_mm, planes["axial"])
    if flat:
        prediction, reference, spacing_mm = prediction[0], reference[0], spacing_mm[1:]
    found = {each: surface_distances(prediction, reference, spacing_mm, each) for each in CONVENTIONS}
    if not flat:
        measured = found["surfel"].status == "ok"
        sizes = [each.size for each in (found["surfel"].to_reference, found["surfel"].to_prediction)]
        areas = sizes if measured else [area_mm2(mask, spacing_mm) for mask in (prediction, reference)]
        numbers |= dict(zip(AREAS_MM2, areas, strict=True))
    numbers |= {f"{each}_{name}": number(found[each]) for each in CONVENTIONS for name, number in NUMBERS.items()}
    return numbers | side_distances(prediction, reference, spacing_mm, found["voxel"], axes)


def planes_of(shape: Sequence[int], axes: str = LPS) -> dict[str, int]:
    """The planes that an image ``(z, y, x)`` has, each with the axis of the array across it; one slice has one plane.

    Example:
        >>> planes_of((20, 64, 64)), planes_of((1, 64, 64), "RIP")
        ({'axial': 0, 'coronal': 1, 'sagittal': 2}, {'coronal': 0})
    """
    across = {plane: next(2 - n for n, end in enumerate(axes) if end in ends) for plane, ends in PLANES.items()}
    return {plane: axis for plane, axis in across.items() if all(n > 1 for n in (*shape[:axis], *shape[axis + 1 :]))}


def plane_dsc(prediction: np.ndarray, reference: np.ndarray, planes: Mapping[str, int]) -> dict[str, float]:
    """Mean DSC over the slices of each plane that either mask shows; ``nan`` if there is none.

    Args:
        planes: from `planes_of`.
    """
    both, found = prediction & reference, {}
    for plane, axis in planes.items():
        rest = tuple({0, 1, 2} - {axis})
        shared, sizes = np.count_nonzero(both, rest), np.count_nonzero(prediction, rest)
        sizes = sizes + np.count_nonzero(reference, rest)
        shown = sizes > 0
        found[f"{plane}_dsc"] = float(np.mean(2 * shared[shown] / sizes[shown])) if shown.any() else nan
    return found


def slice_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], across: int = 0
) -> dict[str, float]:
    """``slice_hd_mm`` and ``slice_hd95_mm``: Hausdorff distance of outlines, and its 95th percentile, in mm.

    The outlines are the border pixels of a slice (convention ``voxel``); percentiles are ``max_directed``. Means over
    the slices that both masks show; ``nan`` if there is none.

    Args:
        spacing_mm: ``(z, y, x)``.
        across: axis of the array across the slices.
    """
    from scipy.spatial.distance import cdist

    masks = [np.moveaxis(mask, across, 0) for mask in (prediction, reference)]
    both = np.flatnonzero(masks[0].any(axis=(1, 2)) & masks[1].any(axis=(1, 2)))
    if not both.size:
        return {"slice_hd_mm": nan, "slice_hd95_mm": nan}
    spacing = tuple(np.delete(spacing_mm, across).tolist())
    largest, percentile = [], []
    for predicted, wanted in zip(*(_outlines(mask[both], spacing) for mask in masks), strict=True):
        distances = cdist(predicted, wanted)
        directed = [np.sort(distances.min(axis=axis)) for axis in (0, 1)]
        largest.append(max(each[-1] for each in directed))
        percentile.append(max(_percentile_95(each) for each in directed))
    return {"slice_hd_mm": float(np.mean(largest)), "slice_hd95_mm": float(np.mean(percentile))}


def _outlines(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> list[np.ndarray]:
    """Places of the border pixels of each slice ``(n, y, x)`` in mm; every slice shows something."""
    # In one column, with an empty row between two slices, so that each has a border of its own.
    column = np.pad(mask, ((0, 0), (0, 1), (0, 0)))
    rows, columns = np.nonzero(_border(column.reshape(-1, mask.shape[2]), spacing_mm))
    number, rows = np.divmod(rows, column.shape[1])
    places = np.stack([rows, columns], axis=1) * np.array(spacing_mm)
    return np.split(places, np.searchsorted(number, np.arange(1, len(mask))))


def _percentile_95(ascending: np.ndarray) -> float:
    """Linear between neighbours; NumPy's own takes longer to begin than a slice takes."""
    place = 0.95 * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return float(ascending[below] + (place - below) * (ascending[above] - ascending[below]))


def side_distances(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    distances: SurfaceDistances,
    axes: str = LPS,
) -> dict[str, float]:
    """Mean distance of the two surfaces in mm on each side of the reference: ``front_mm`` (anterior) to ``bottom_mm``.

    A point of a surface is on the side towards which its vector from the reference's centre of mass has its largest
    component, in mm; on several where they are equal. As for MASD, the mean over the points of the reference and that
    over the points of the prediction are averaged; where one surface has no point on a side, the other counts alone.
    ``nan`` if a mask is empty, on a side on which neither surface has a point, and on the two sides that one slice does
    not have.

    Args:
        prediction, reference: ``(z, y, x)``, or ``(y, x)`` for one slice.
        spacing_mm: of each axis.
        distances: of these masks, by :func:`npcrepro.metrics.surface.surface_distances` (convention ``voxel``).
        axes: where the x, y and z axes point to.
    """
    means: dict[str, list[float]] = {side: [] for side in SIDES.values()}
    if distances.status == "ok":
        spacing = np.array(spacing_mm)
        centre = np.argwhere(reference).mean(axis=0) * spacing
        ends = axes[::-1][-reference.ndim :]
        for mask, directed in ((prediction, distances.to_reference), (reference, distances.to_prediction)):
            towards = np.argwhere(_border(mask, tuple(spacing_mm))) * spacing - centre
            largest = np.abs(towards).max(axis=1) - TIE_MM
            for axis, end in enumerate(ends):
                for letter, lengths in ((end, towards[:, axis]), (OPPOSITE[end], -towards[:, axis])):
                    there = directed.distances_mm[lengths >= largest]
                    means[SIDES[letter]] += [float(there.mean())] if there.size else []
    return {f"{side}_mm": sum(values) / len(values) if values else nan for side, values in means.items()}


def area_mm2(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Area of the surface of a mask ``(z, y, x)`` in mm², by marching cubes (convention ``surfel``); 0 if empty."""
    _, areas = CONVENTIONS["surfel"](np.pad(np.ascontiguousarray(mask), 1), tuple(spacing_mm))
    assert areas is not None, "surfels have areas"
    return float(areas.sum())


def components(mask: np.ndarray) -> int:
    """Number of pieces of a mask of any dimension; voxels that share a corner are connected."""
    return int(_pieces(mask)[1])


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask; of several as large, the first in the order of the array. Empty if the mask is.

    Example:
        >>> largest_component(np.array([[True, False, True, True]])).tolist()
        [[False, False, True, True]]
    """
    kept = np.zeros_like(mask)
    box = box_of(mask)
    if box:
        pieces, _ = _pieces(mask[box])
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        kept[box] = pieces == sizes.argmax()
    return kept


def _pieces(mask: np.ndarray) -> tuple[np.ndarray, int]:
    from scipy.ndimage import label

    pieces, number = label(mask, structure=np.ones((3,) * mask.ndim))
    return pieces, number


def _border(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Border voxels of a mask."""
    return CONVENTIONS["voxel"](np.pad(np.ascontiguousarray(mask), 1), spacing_mm)[0]

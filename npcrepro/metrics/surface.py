"""Distances between the surfaces of two masks in mm.

Packages give different numbers for the same two masks, because they do not agree on what a surface is made of, how its
parts are weighted, and how the two directions are joined. Every choice has a name here:

``voxel``
    The surface is the border voxels, which have a background voxel across one of their faces (edges in 2-D). Each
    counts once; distances run between voxel centres. Guo 2021, Xue 2020 and MONAI do this.
``surfel``
    The surface is the cells between 2 x 2 x 2 (2 x 2) voxel centres that are partly inside. Each counts with the area
    (length) of the surface through it, from marching cubes (squares); distances run between cell centres. DeepMind's
    surface-distance (Nikolov et al. 2018, arXiv:1809.04430) and MONAI with ``use_subvoxels`` do this.
``max_directed``
    A percentile of each direction, then the larger of the two (MONAI, surface-distance, Metrics Reloaded).
``pooled``
    One percentile over the distances of both directions together (MedPy); usually the smaller.

Outside the array is background: a mask that touches the border of the image has a surface there.

| `SurfaceDistances` | elsewhere |
|---|---|
| ``hausdorff`` | HD of Xue 2020, and of every package |
| ``percentile``, ``hausdorff_95`` | HD95; see the two rules above |
| ``masd``: mean of the two directed means | ASD of Xue 2020, ASSD of Guo 2021 (eq. 9), MASD of Metrics Reloaded |
| ``assd``: mean over both surfaces together | ASSD of Metrics Reloaded, and of MONAI (``symmetric=True``) |
| ``to_reference.mean`` | average surface distance of MONAI (``symmetric=False``) |
| ``nsd`` | NSD or surface Dice: ``surfel`` as Nikolov et al. define it, ``voxel`` as MONAI's default |

Distances are wanted at the other surface only, so a search tree of its elements gives the exact nearest one. A distance
transform would compute them in the whole box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import isfinite, nan

import numpy as np

# Spacings come from headers in single precision: 10 x 0.30000001 mm is within 3 mm.
TOLERANCE_SLACK = 1e-6
SHARE_SLACK = 1e-6


@dataclass(frozen=True, eq=False)
class DirectedDistances:
    """From every element of one surface to the nearest element of the other.

    Attributes:
        distances_mm: ``(n,)``, in the order of the elements in the array.
        weights: ``(n,)``, area in mm² (length in mm in 2-D) of each element; None where each counts once.
    """

    distances_mm: np.ndarray
    weights: np.ndarray | None = None

    @property
    def maximum(self) -> float:
        """Largest distance in mm; ``nan`` without elements."""
        return float(self.distances_mm.max()) if self.distances_mm.size else nan

    @property
    def mean(self) -> float:
        """Weighted mean of the distances in mm; ``nan`` without elements."""
        return float(np.average(self.distances_mm, weights=self.weights)) if self.distances_mm.size else nan

    @property
    def size(self) -> float:
        """Sum of the weights: area in mm² (length in mm), or the number of elements."""
        return float(len(self.distances_mm) if self.weights is None else self.weights.sum())

    def percentile(self, q: float) -> float:
        """Percentile of the distances in mm; ``nan`` without elements.

        Without weights it is linear between neighbouring distances (NumPy, MONAI). With weights it is the smallest
        distance within which at least ``q`` per cent of the surface lies (surface-distance).
        """
        if not self.distances_mm.size:
            return nan
        if q == 100:
            return self.maximum
        if self.weights is None:
            return float(np.percentile(self.distances_mm, q))
        order = np.argsort(self.distances_mm, kind="stable")
        within = np.cumsum(self.weights[order], dtype=np.float64)
        place = np.searchsorted(within, (q / 100 - SHARE_SLACK) * within[-1])
        return float(self.distances_mm[order[place]])

    def within(self, tolerance_mm: float) -> float:
        """How much of the surface, in the unit of `size`, lies within a tolerance; the tolerance itself counts."""
        near = self.distances_mm <= tolerance_mm * (1 + TOLERANCE_SLACK)
        return float(np.count_nonzero(near) if self.weights is None else self.weights[near].sum())

    def __add__(self, other: DirectedDistances) -> DirectedDistances:
        weights = None if self.weights is None else np.concatenate([self.weights, other.weights])
        return DirectedDistances(np.concatenate([self.distances_mm, other.distances_mm]), weights)


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances between two surfaces in both directions. Where a mask is empty, they are ``nan``, never infinite.

    Attributes:
        convention: ``voxel`` or ``surfel``.
        status: ``ok``, ``both_empty``, ``ref_empty`` (reference empty) or ``pred_empty`` (prediction empty).
        to_reference: from the surface of the prediction to that of the reference.
        to_prediction: from the surface of the reference to that of the prediction.
    """

    convention: str
    status: str
    to_reference: DirectedDistances
    to_prediction: DirectedDistances

    @property
    def hausdorff(self) -> float:
        """Hausdorff distance in mm: the largest distance of either direction (Xue 2020)."""
        # Xue 2020, HD: max(h(A, B), h(B, A)), with h(A, B) = max over a of min over b of |a - b|
        return max(self.to_reference.maximum, self.to_prediction.maximum)

    @property
    def hausdorff_95(self) -> float:
        """95th percentile in mm, the larger of both directions."""
        return self.percentile(95)

    def percentile(self, q: float, rule: str = "max_directed") -> float:
        """Percentile of the distances in mm.

        Args:
            q: 0 to 100; 100 is the Hausdorff distance under both rules.
            rule: ``max_directed`` or ``pooled``.

        Raises:
            ValueError: ``q`` out of range, or unknown rule.
        """
        if not 0 <= q <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not at {q}")
        if rule == "max_directed":
            return max(self.to_reference.percentile(q), self.to_prediction.percentile(q))
        if rule == "pooled":
            return (self.to_reference + self.to_prediction).percentile(q)
        raise ValueError(f"percentile rule {rule!r} is unknown: max_directed or pooled")

    @property
    def masd(self) -> float:
        """Mean of the two directed means in mm: ASD of Xue 2020, ASSD of Guo 2021 (eq. 9)."""
        # Guo 2021, eq. 9: ASSD = (mean distance to the reference + mean distance to the prediction) / 2
        return (self.to_reference.mean + self.to_prediction.mean) / 2

    @property
    def assd(self) -> float:
        """Mean distance over both surfaces together in mm; the larger surface counts more than in `masd`."""
        return (self.to_reference + self.to_prediction).mean

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: share of both surfaces within a tolerance of the other, in [0, 1].

        It is ``nan`` if both masks are empty and 0 if one is, as the Dice coefficient.

        Raises:
            ValueError: negative tolerance.
        """
        if not tolerance_mm >= 0:
            raise ValueError(f"a tolerance is 0 mm or more, not {tolerance_mm}")
        if self.status != "ok":
            return nan if self.status == "both_empty" else 0.0
        met = self.to_reference.within(tolerance_mm) + self.to_prediction.within(tolerance_mm)
        return met / (self.to_reference.size + self.to_prediction.size)


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], convention: str = "voxel"
) -> SurfaceDistances:
    """Distances between the surfaces of two masks.

    Args:
        prediction: ``(z, y, x)``, or ``(y, x)`` for one slice; what is not zero is inside. A slice given as
            ``(1, y, x)`` is a flat body whose every voxel is surface: give ``(y, x)`` for distances of outlines.
        reference: of the same shape.
        spacing_mm: of each axis in mm, in the order of the axes.
        convention: ``voxel`` or ``surfel``, see the top of this module. The areas of ``surfel`` are MONAI's, in single
            precision.

    Raises:
        ValueError: shapes differ, the array is not 2-D or 3-D, the spacing does not fit, or the convention is unknown.

    Example:
        >>> prediction, reference = np.zeros((2, 5, 9), dtype=bool)
        >>> prediction[1:4, 1:4], reference[1:4, 5:8] = True, True
        >>> distances = surface_distances(prediction, reference, spacing_mm=(1, 0.5))
        >>> distances.hausdorff, distances.nsd(1.5)
        (2.0, 0.625)
    """
    prediction, reference = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
    spacing_mm = tuple(float(s) for s in spacing_mm)
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has the shape {prediction.shape}, reference {reference.shape}")
    if prediction.ndim not in (2, 3) or len(spacing_mm) != prediction.ndim:
        raise ValueError(f"masks have the shape {prediction.shape}, spacing_mm {spacing_mm}: 2 or 3 axes, and the same")
    if not all(isfinite(s) and s > 0 for s in spacing_mm):
        raise ValueError(f"spacing_mm is {spacing_mm}: every spacing is a positive number of mm")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention {convention!r} is unknown: {' or '.join(CONVENTIONS)}")
    box, other = box_of(prediction), box_of(reference)
    if not (box and other):
        status = "pred_empty" if other else "ref_empty" if box else "both_empty"
        nothing = DirectedDistances(np.empty(0))
        return SurfaceDistances(convention, status, nothing, nothing)
    joint = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(box, other))
    surface_of = CONVENTIONS[convention]
    # Flat indices count on the order of C; `np.pad` would keep that of a transposed mask.
    crops = (np.pad(np.ascontiguousarray(mask[joint]), 1) for mask in (prediction, reference))
    (predicted, its_weights), (wanted, weights) = (surface_of(crop, spacing_mm) for crop in crops)
    to_reference = DirectedDistances(_distances(predicted, wanted, spacing_mm), its_weights)
    to_prediction = DirectedDistances(_distances(wanted, predicted, spacing_mm), weights)
    return SurfaceDistances(convention, "ok", to_reference, to_prediction)


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """Smallest box that holds a mask; empty if the mask is."""
    rows: Sequence[int] = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1)).tolist() if mask.size else ()
    if not rows:
        return ()
    first = slice(rows[0], rows[-1] + 1)
    return (first, *box_of(np.any(mask[first], axis=0))) if mask.ndim > 1 else (first,)


def _border_voxels(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[np.ndarray, None]:
    """Border voxels of a mask with a rim of background, and no weights."""
    inner = (slice(1, -1),) * mask.ndim
    core = mask[inner].copy()
    for axis, start in product(range(mask.ndim), (0, 2)):
        neighbours = list(inner)
        neighbours[axis] = slice(start, start + core.shape[axis])
        core &= mask[tuple(neighbours)]
    return mask[inner] & ~core, None


def _surfels(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mixed cells of a mask with a rim of background, and the area (length) of the surface in each of them."""
    some = every = mask
    for axis in range(mask.ndim):
        lower, upper = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        some, every = some[lower] | some[upper], every[lower] & every[upper]
    cells = some & ~every
    corner = np.ravel_multi_index(np.nonzero(cells), mask.shape)
    steps = np.array(mask.strides)  # of one byte a voxel, hence of voxels
    code = np.zeros(len(corner), dtype=np.uint8)
    for offset in product((0, 1), repeat=mask.ndim):
        code = (code << 1) | mask.ravel()[corner + steps @ offset]
    return cells, _surfel_sizes(spacing_mm)[code]


@lru_cache(maxsize=256)
def _surfel_sizes(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Area in mm² (length in mm) of the surface in a cell, for every pattern of its corners, first corner highest."""
    from monai.metrics.utils import get_code_to_measure_table

    sizes: np.ndarray = get_code_to_measure_table(spacing_mm)[0].double().numpy()
    sizes.flags.writeable = False
    return sizes


Surface = Callable[[np.ndarray, tuple[float, ...]], tuple[np.ndarray, np.ndarray | None]]
CONVENTIONS: dict[str, Surface] = {"voxel": _border_voxels, "surfel": _surfels}


def _distances(start: np.ndarray, target: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Distance in mm from every true element of ``start``, in the order of the array, to the nearest of ``target``."""
    from scipy.spatial import KDTree

    # Not balanced, the tree is built faster, and answers as fast where points fill a surface evenly.
    tree = KDTree(np.argwhere(target) * np.array(spacing_mm), leafsize=32, balanced_tree=False)
    distances: np.ndarray = tree.query(np.argwhere(start) * np.array(spacing_mm))[0]
    return distances

"""A second observer, who draws the same structure a little differently."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from npcrepro.base.errors import InputError
from npcrepro.cohorts.phantom.shapes import RandomField

# Distance over which the second observer's border wanders from outside to inside of the first one's.
CORRELATION_MM = 10.0
# No observer is farther off than this (standard deviation of the border); the search for agreement ends here.
LARGEST_DISAGREEMENT_MM = 12.0


def second_observer(
    mask: np.ndarray, spacing_mm: Sequence[float], rng: np.random.Generator, agreement: float = 0.64
) -> np.ndarray:
    """A mask as another observer draws it: the border moved by a smooth random distance.

    The distance is scaled until the two agree as asked for, as closely as the voxels of a small mask allow. Guo et al.
    report a DSC of 0.64 between two observers; 0.85 is good agreement.

    Args:
        mask: ``(z, y, x)``. An empty mask stays empty.
        spacing_mm: ``(z, y, x)``.
        agreement: DSC between the two, above 0 and below 1.

    Returns:
        bool ``(z, y, x)``.

    Raises:
        InputError: an agreement that is not above 0 and below 1.

    Example:
        >>> first = sum((axis - 10) ** 2 for axis in np.ogrid[:20, :20, :20]) < 36
        >>> other = second_observer(first, (1.0, 1.0, 1.0), np.random.default_rng(0), agreement=0.8)
        >>> round(float(2 * (first & other).sum() / (first.sum() + other.sum())), 2)
        0.8
    """
    check_agreement(agreement)
    mask = np.asarray(mask, bool)
    if not mask.any():
        return mask.copy()
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    reach = [int(np.ceil(2.5 * LARGEST_DISAGREEMENT_MM / s)) for s in spacing_mm]
    box = tuple(slice(max(0, b.start - n), b.stop + n) for b, n in zip(box, reach))
    first = mask[box]
    inside = np.pad(first, 1, mode="edge")  # a structure cut by the edge of the image goes on outside
    full = np.full(inside.shape, 1e3)
    depth = full if inside.all() else ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    depth = (depth - ndimage.distance_transform_edt(~inside, sampling=spacing_mm))[1:-1, 1:-1, 1:-1]
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(first.shape, spacing_mm)]
    wander = RandomField(rng, CORRELATION_MM)(*axes)
    low, high = 0.0, LARGEST_DISAGREEMENT_MM
    for _ in range(12):
        middle = (low + high) / 2
        if _agreement(first, _drawn(first, depth, wander, middle)) > agreement:
            low = middle
        else:
            high = middle
    drawn = [_drawn(first, depth, wander, size) for size in (low, high)]
    out = np.zeros_like(mask)
    out[box] = min(drawn, key=lambda other: abs(_agreement(first, other) - agreement))
    return out


def check_agreement(agreement: float) -> None:
    """Check that an agreement of two observers can be a DSC.

    Raises:
        InputError: it is not above 0 and below 1.
    """
    if not 0 < agreement < 1:
        raise InputError(f"agreement {agreement} of two observers is a DSC: it lies above 0 and below 1")


def _drawn(first: np.ndarray, depth: np.ndarray, wander: np.ndarray, size_mm: float) -> np.ndarray:
    """The border moved by `size_mm` times `wander`; pieces apart from the first observer's structure are left out."""
    moved = depth + size_mm * wander > 0
    pieces, count = ndimage.label(moved)
    kept = np.zeros(count + 1, bool)
    kept[pieces[first & moved]] = True
    return kept[pieces]


def _agreement(first: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & other) / (np.count_nonzero(first) + np.count_nonzero(other))

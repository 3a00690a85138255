"""Surfaces of masks in relief."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import ndimage

from npcrepro.book.figures.slices import box_around, cubes
from npcrepro.book.figures.style import REFERENCE, grid, key, name_lines
from npcrepro.protocol.method import Paper

SURFACE_VOXELS = 96  # along the longest side of a drawn surface
TURN_DEGREES = 25.0  # of a surface about the long axis of the patient, so that its side comes into view
LIGHT = (0.45, 0.75, -0.48)  # where the light shines to: down, away from the eye, to the left


def surfaces(
    case: str,
    reference: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    spacing_mm: Sequence[float],
    paper: Paper,
) -> Figure:
    """Surfaces of the reference and of the methods side by side, from the front and a little from the left.

    Args:
        case: title of the row.
        reference: mask (z, y, x).
        predictions: name of a method to its mask. An empty one leaves its place empty.
        spacing_mm: (z, y, x); ``nan`` where it is not known, for voxels drawn as cubes.
    """
    masks, heads = [reference, *predictions.values()], {"Reference": REFERENCE} | key(paper, list(predictions))
    figure, axes = grid(1, len(heads))
    box = box_around(masks)
    for axis, mask, colour in zip(axes[0], masks, heads.values(), strict=True):
        shade = relief(mask[box], spacing_mm)
        seen = ~np.isnan(shade)
        axis.imshow(np.dstack([shade[..., None] * np.array(to_rgb(colour)), seen]))
        if not seen.any():
            axis.text(0.5, 0.5, "empty", transform=axis.transAxes, ha="center", fontsize=8, color="0.4")
        axis.spines[:].set_visible(False)
    name_lines(axes, [case], heads)
    return figure


def relief(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """A mask as somebody in front of the patient sees it, turned by `TURN_DEGREES` and lit from the upper right.

    Args:
        mask: ``(z, y, x)``, z upwards, y from front to back.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known.

    Returns:
        brightness ``(up and down, across)`` in [0, 1], ``nan`` beside the surface.

    Example:
        >>> ball = sum((axis - 8) ** 2 for axis in np.ogrid[:17, :17, :17]) < 36
        >>> seen = relief(ball, (1, 1, 1))
        >>> bool(np.isnan(seen[0, 0])), bool(seen[seen.shape[0] // 2, seen.shape[1] // 2] > 0.5)
        (True, True)
    """
    spacing = cubes(spacing_mm)
    factors = spacing / (max(np.array(mask.shape) * spacing) / SURFACE_VOXELS)
    # A free margin closes the surface where the mask ends with the volume.
    field = ndimage.zoom(np.pad(mask, 1).astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
    field = ndimage.gaussian_filter(field, 1.2)
    field = ndimage.rotate(field, TURN_DEGREES, axes=(1, 2), order=1)[::-1]
    inside = field >= 0.5
    first = inside.argmax(axis=1)
    down, across = np.ogrid[: field.shape[0], : field.shape[2]]
    slopes = [slope[down, first, across] for slope in np.gradient(field)]
    # The gradient points into the structure, like the light where it falls straight onto the surface.
    along = sum(part * slope for part, slope in zip(LIGHT, slopes, strict=True))
    length = np.sqrt(sum(slope**2 for slope in slopes))
    shade = 0.3 + 0.7 * (along / np.maximum(length, 1e-6)).clip(0)
    return np.where(inside.any(axis=1), shade.clip(max=1), np.nan)

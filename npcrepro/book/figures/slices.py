"""Figures of slices: contours, maps and errors on images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import ndimage

from npcrepro.book.figures import style
from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.metrics.overlap import count
from npcrepro.protocol.method import Paper
from npcrepro.protocol.settings import Settings


def show_images(
    cohort: Cohort | PreparedCohort, settings: Settings, draw: Callable[..., object], *arguments, **options
) -> None:
    """Show a figure of a cohort's images, or where its licence forbids that, a line that says so.

    Args:
        cohort: whose images the figure shows.
        settings: with ``private``, the figure is shown in any case.
        draw: one of the functions below, and what it is called with.
    """
    from IPython.display import Markdown, display

    if cohort.publishable or settings.private:
        draw(*arguments, **options)
        plt.show()
        return
    licence = f"its licence is: {cohort.licence}" if cohort.licence else "its dataset.json names no licence"
    line = f"Images of cohort {cohort.name} may not be published ({licence}), so this figure is left out. "
    display(Markdown(f"*{line}For a book that stays with you, set the parameter `private: true`.*"))


def sheet(
    rows: Mapping[str, Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray]]]],
    limits: tuple[float, float] | None = None,
    structures: Sequence[str] = (),
) -> Figure:
    """A contact sheet: patients down, series or levels across, with the contours of structures.

    Args:
        rows: title of the row to {title of the column: (image (y, x), {structure: mask (y, x)})}.
        limits: intensities shown as black and white; by default the tails of each image.
        structures: all that have a colour, shown here or not; by default those that are shown.
    """
    columns = list(next(iter(rows.values())))
    shown = list(dict.fromkeys(name for row in rows.values() for _, masks in row.values() for name in masks))
    structures = structures or shown
    colour = dict(zip(structures, style.structure_colours(structures), strict=True))
    figure, axes = style.grid(len(rows), len(columns))
    for line, row in zip(axes, rows.values(), strict=True):
        for axis, column in zip(line, columns, strict=True):
            image, masks = row[column]
            show_slice(axis, image, {colour[name]: mask for name, mask in masks.items()}, limits)
    style.name_lines(axes, rows, columns)
    if shown:
        style.legend(figure, {name: colour[name] for name in structures if name in shown})
    return figure


def contours(
    rows: Mapping[str, tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]], paper: Paper
) -> Figure:  # fmt: skip
    """Patients down, methods across, each with the reference contour and the method's.

    Args:
        rows: title of the row to ``(image (y, x), reference (y, x), {method: prediction (y, x)})``.
    """
    names = list(next(iter(rows.values()))[2])
    heads = style.key(paper, names)
    figure, axes = style.grid(len(rows), len(heads))
    for line, (image, reference, predictions) in zip(axes, rows.values(), strict=True):
        middle = np.zeros(reference.shape, bool)
        middle[tuple(slice(size // 4, size - size // 4) for size in reference.shape)] = True
        box = box_around([reference, middle])
        for axis, name, colour in zip(line, names, heads.values(), strict=True):
            show_slice(axis, image[box], {style.REFERENCE: reference[box], colour: predictions[name][box]})
    style.name_lines(axes, rows, heads)
    style.legend(figure, {"Reference": style.REFERENCE} | heads)
    return figure


def maps(
    images: Mapping[str, np.ndarray],
    reference: np.ndarray,
    probability: Sequence[str] = (),
    limits: tuple[float, float] = (0, 1),
    label: str = "probability",
) -> Figure:
    """Maps side by side with the reference contour: grey for the image, viridis with a colour bar for the others.

    Args:
        images: title to ``(y, x)``; maps may be coarser than the reference.
        reference: ``(y, x)``.
        probability: titles of the maps in viridis.
        limits: values at the ends of its colours.
        label: of the colour bar.
    """
    figure, axes = style.grid(1, len(images))
    extent = (-0.5, reference.shape[1] - 0.5, reference.shape[0] - 0.5, -0.5)
    viridis = {"cmap": "viridis", "vmin": limits[0], "vmax": limits[1], "interpolation": "nearest"}
    shown = None
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        if title in probability:
            shown = axis.imshow(image, extent=extent, **viridis)
        else:
            low, high = np.percentile(image, (0.5, 99.5))
            axis.imshow(image, extent=extent, cmap="gray", vmin=low, vmax=high)
        if reference.any():
            axis.contour(reference, [0.5], colors=style.REFERENCE, linewidths=1)
        axis.set_title(style.wrapped(title, 16), fontsize=8)
    if shown:
        figure.colorbar(shown, ax=axes, shrink=0.6, label=label, format="%.3g")
    style.legend(figure, {"Reference": style.REFERENCE})
    return figure


def show_slice(
    axis: Axes, image: np.ndarray, masks: Mapping[str, np.ndarray], limits: tuple[float, float] | None = None
) -> None:
    """Draw a slice in grey, and contours of masks on it; of an empty mask none.

    Args:
        image: ``(y, x)``.
        masks: colour to mask ``(y, x)``.
        limits: intensities shown as black and white; by default the tails of the image.
    """
    low, high = limits or np.percentile(image, (0.5, 99.5))
    axis.imshow(image, cmap="gray", vmin=low, vmax=high)
    for colour, mask in masks.items():
        if mask.any():
            axis.contour(mask, [0.5], colors=colour, linewidths=1.2)


# Of Okabe and Ito, like the colours of methods: apart under the common forms of colour blindness.
ERRORS = {"found (TP)": "#009E73", "wrongly marked (FP)": "#D55E00", "missed (FN)": "#56B4E9"}
PLANES = ("axial", "coronal", "sagittal")
MARGIN = 0.08  # around masks, as a share of the side of the image


def planes(
    image: np.ndarray,
    outlines: Mapping[str, tuple[np.ndarray, str]],
    spacing_mm: Sequence[float],
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Axial, coronal and sagittal slice through the first of several masks, with the contours of all.

    Args:
        image: ``(z, y, x)``, z upwards.
        outlines: title to mask and colour, the reference first. Where that is empty, slices go through the middle.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known, for voxels drawn as cubes.
        limits: intensities shown as black and white; by default the tails of the image.
    """
    place = largest_slices(next(iter(outlines.values()))[0])
    spacing = np.nan_to_num(np.asarray(spacing_mm, float), nan=1.0)
    size = np.array(image.shape) * spacing
    widths = [size[2], size[2], size[1]]
    height = style.WIDTH_IN / sum(widths) * max(size[1], size[0])
    height += 0.45 + 0.2 * -(-len(outlines) // style.legend_columns(outlines))  # titles and legend
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH_IN, height), width_ratios=widths, layout="constrained")
    limits = limits or tuple(np.percentile(image, (0.5, 99.5)))
    for number, (axis, title) in enumerate(zip(axes, PLANES, strict=True)):
        slices = {colour: plane_through(mask, number, place) for mask, colour in outlines.values()}
        show_slice(axis, plane_through(image, number, place), slices, limits)
        down, across = (side for side in range(3) if side != number)
        axis.set(xticks=[], yticks=[], aspect=spacing[down] / spacing[across])
        axis.set_title(title, fontsize=9)
    style.legend(figure, {title: colour for title, (_, colour) in outlines.items()})
    return figure


def errors(image: np.ndarray, reference: np.ndarray, predictions: Mapping[str, np.ndarray], paper: Paper) -> Figure:
    """One slice for each method, with what it found, marked wrongly and missed, and the DSC of the slice.

    Args:
        image, reference: ``(y, x)``.
        predictions: method to mask ``(y, x)``.
    """
    columns = min(4, len(predictions))
    figure, axes = style.grid(-(-len(predictions) // columns), columns, text_in=0.5)
    for axis in axes.flat[len(predictions) :]:
        axis.remove()
    box = box_around([reference, *predictions.values()])
    limits = tuple(np.percentile(image, (0.5, 99.5)))
    for axis, (name, mask) in zip(axes.flat, predictions.items(), strict=False):
        show_slice(axis, image[box], {style.REFERENCE: reference[box]}, limits)
        axis.imshow(_coloured(mask[box], reference[box]))
        axis.set_title(style.wrapped(style.titles(paper)[name], 24), fontsize=8)
        axis.set_xlabel(f"DSC {count(mask, reference).dsc:.2f}", fontsize=8)
    style.legend(figure, ERRORS, linewidth=6)
    return figure


def errors_of_patients(
    patients: Mapping[str, tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray], Sequence[float]]],
    planes: Sequence[str],
    paper: Paper,
) -> Figure:
    """Patients and planes down, methods across: what each found, marked wrongly and missed, and the DSC of the slice.

    Slices go through the largest areas of the reference, and are cut to what the masks show.

    Args:
        patients: title to ``(image, reference, {method: mask}, spacing_mm)``, arrays ``(z, y, x)`` with z upwards;
            ``nan`` where the spacing is not known, for voxels drawn as cubes.
        planes: of `PLANES`.
    """
    rows = {
        f"{title}\n{plane}": _flat(*found, PLANES.index(plane)) for title, found in patients.items() for plane in planes
    }
    names = list(next(iter(patients.values()))[2])
    heights = [aspect * image.shape[0] / image.shape[1] for image, _, _, aspect in rows.values()]
    side = min(style.WIDTH_IN / len(names), 1.6)
    size = (side * len(names), side * sum(heights) + 0.25 * len(rows) + 0.8)
    shape = {"height_ratios": heights, "squeeze": False}
    figure, axes = plt.subplots(len(rows), len(names), figsize=size, layout="constrained", **shape)
    for line, (image, reference, masks, aspect) in zip(axes, rows.values(), strict=True):
        for axis, name in zip(line, names, strict=True):
            show_slice(axis, image, {})
            axis.imshow(_coloured(masks[name], reference))
            axis.set(xticks=[], yticks=[], aspect=aspect)
            axis.set_xlabel(f"{count(masks[name], reference).dsc:.2f}", fontsize=8, labelpad=2)
    style.name_lines(axes, rows, [style.wrapped(style.titles(paper)[name], 12) for name in names])
    style.legend(figure, ERRORS, linewidth=6)
    return figure


def _flat(
    image: np.ndarray, reference: np.ndarray, masks: Mapping[str, np.ndarray], spacing_mm: Sequence[float], number: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], float]:
    """Image, reference and masks of one plane, cut to what the masks show, and how much higher than wide a pixel is."""
    place = largest_slices(reference)
    image, truth, *drawn = (plane_through(one, number, place) for one in (image, reference, *masks.values()))
    box = box_around([truth, *drawn])
    spacing = np.nan_to_num(np.asarray(spacing_mm, float), nan=1.0)
    down, across = (side for side in range(3) if side != number)
    cut = {name: mask[box] for name, mask in zip(masks, drawn, strict=True)}
    return image[box], truth[box], cut, spacing[down] / spacing[across]


def largest_slices(mask: np.ndarray) -> tuple[int, ...]:
    """The slice of a mask ``(z, y, x)`` with the largest area along each axis; of an empty mask the middle one.

    Example:
        >>> mask = np.zeros((5, 4, 4), bool)
        >>> mask[1:3, 0, 2] = mask[2, 0, 3] = True
        >>> largest_slices(mask), largest_slices(np.zeros((5, 4, 4), bool))
        ((2, 0, 2), (2, 2, 2))
    """
    if not mask.any():
        return tuple(size // 2 for size in mask.shape)
    areas = (mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3))
    return tuple(int(area.argmax()) for area in areas)


def plane_through(volume: np.ndarray, number: int, place: Sequence[int]) -> np.ndarray:
    """A slice as it is looked at: one with z, coronal or sagittal, stands upright.

    Args:
        volume: ``(z, y, x)``.
        number: of the plane in `PLANES`, which is the axis that it leaves out.
        place: the slice of each plane, as from `largest_slices`.

    Returns:
        ``(y, x)`` of an axial slice; ``(z, x)`` or ``(z, y)`` of the others, the highest z first.

    Example:
        >>> volume = np.arange(8).reshape(2, 2, 2)
        >>> plane_through(volume, 0, (1, 0, 0)).tolist(), plane_through(volume, 1, (1, 0, 0)).tolist()
        ([[4, 5], [6, 7]], [[4, 5], [0, 1]])
    """
    plane = np.take(volume, place[number], axis=number)
    return plane if number == 0 else plane[::-1]


def _coloured(mask: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """RGBA of what was found, marked wrongly and missed; clear elsewhere."""
    layer = np.zeros((*mask.shape, 4))
    for where, colour in zip((mask & reference, mask & ~reference, ~mask & reference), ERRORS.values(), strict=True):
        layer[where] = (*to_rgb(colour), 0.55)
    return layer


def box_around(masks: Sequence[np.ndarray], margins: Sequence[int] | None = None) -> tuple[slice, ...]:
    """Around all masks, with a margin; the whole image where they are empty.

    Args:
        masks: on one grid.
        margins: voxels along each axis; by default `MARGIN` of the side.

    Example:
        >>> mask = np.zeros((9, 9), bool)
        >>> mask[4, 1] = True
        >>> box_around([mask], (2, 2))
        (slice(2, 7, None), slice(0, 4, None))
    """
    shape = masks[0].shape
    if margins is None:
        margins = [max(1, round(MARGIN * size)) for size in shape]
    found = ndimage.find_objects(np.any(masks, axis=0).astype(np.uint8))
    sides = found[0] if found else [slice(0, size) for size in shape]
    return tuple(
        slice(max(0, side.start - more), min(size, side.stop + more))
        for side, more, size in zip(sides, margins, shape, strict=True)
    )

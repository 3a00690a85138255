"""Figures of volumes, for the papers with 3-D networks. Colours of reference and methods as in `figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from npcrepro.figures import (
    REFERENCE,
    WIDTH_IN,
    colours,
    edged,
    grid,
    legend,
    show_slice,
    structure_colours,
    titles,
    wrapped,
)
from npcrepro.metrics.overlap import count
from npcrepro.protocol import Paper
from npcrepro.statistics import Summary

# Of Okabe and Ito, like the colours of methods: apart under the common forms of colour blindness.
ERRORS = {"found (TP)": "#009E73", "wrongly marked (FP)": "#D55E00", "missed (FN)": "#56B4E9"}
PLANES = ("axial", "coronal", "sagittal")
FEW_OUTLINES = 4  # stand in two columns
LONG_NAME = 20  # letters; outlines with a longer one stand in two columns, too, as four would be wider than the figure
SURFACE_VOXELS = 96  # along the longest side of a drawn surface
TURN_DEGREES = 25.0  # of a surface about the long axis of the patient, so that its side comes into view
MARGIN = 0.08  # around masks, as a share of the side of the image
LIGHT = (0.45, 0.75, -0.48)  # where the light shines to: down, away from the eye, to the left


def planes(
    image: np.ndarray, outlines: Mapping[str, tuple[np.ndarray, str]], spacing_mm: Sequence[float]
) -> Figure:  # fmt: skip
    """Axial, coronal and sagittal slice through the first of several masks, with the contours of all.

    Args:
        image: ``(z, y, x)``, z upwards.
        outlines: title to mask and colour, the reference first. Where that is empty, slices go through the middle.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known, for voxels drawn as cubes.
    """
    place = largest_slices(next(iter(outlines.values()))[0])
    spacing = np.nan_to_num(np.asarray(spacing_mm, float), nan=1.0)
    size = np.array(image.shape) * spacing
    widths = [size[2], size[2], size[1]]
    height = WIDTH_IN / sum(widths) * max(size[1], size[0])
    columns = 2 if len(outlines) <= FEW_OUTLINES or max(map(len, outlines)) > LONG_NAME else 4
    height += 0.45 + 0.2 * -(-len(outlines) // columns)  # titles and legend
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH_IN, height), width_ratios=widths, layout="constrained")
    limits = tuple(np.percentile(image, (0.5, 99.5)))
    for number, (axis, title) in enumerate(zip(axes, PLANES, strict=True)):
        slices = {colour: plane_through(mask, number, place) for mask, colour in outlines.values()}
        show_slice(axis, plane_through(image, number, place), slices, limits)
        down, across = (side for side in range(3) if side != number)
        axis.set(xticks=[], yticks=[], aspect=spacing[down] / spacing[across])
        axis.set_title(title, fontsize=9)
    legend(figure, {title: colour for title, (_, colour) in outlines.items()}, columns)
    return figure


def errors(image: np.ndarray, reference: np.ndarray, predictions: Mapping[str, np.ndarray], paper: Paper) -> Figure:
    """One slice for each method, with what it found, marked wrongly and missed, and the DSC of the slice.

    Args:
        image, reference: ``(y, x)``.
        predictions: method to mask ``(y, x)``.
    """
    columns = min(4, len(predictions))
    rows = -(-len(predictions) // columns)
    side = min(WIDTH_IN / columns, 3.0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, (side + 0.5) * rows + 0.3), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(predictions) :]:
        axis.set_axis_off()
    box = _box([reference, *predictions.values()], image.shape)
    for axis, (name, mask) in zip(axes.flat, predictions.items(), strict=False):
        show_slice(axis, image[box], {REFERENCE: reference[box]}, tuple(np.percentile(image, (0.5, 99.5))))
        axis.imshow(_coloured(mask[box], reference[box]))
        axis.set(xticks=[], yticks=[])
        axis.set_title(wrapped(titles(paper)[name], 24), fontsize=8)
        axis.set_xlabel(f"DSC {count(mask, reference).dsc:.2f}", fontsize=8)
    handles = [Patch(color=colour, alpha=0.6) for colour in ERRORS.values()]
    figure.legend(handles, list(ERRORS), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
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
        f"{title}\n{plane}": _flat(*volumes, PLANES.index(plane))
        for title, volumes in patients.items()
        for plane in planes
    }
    names = list(next(iter(patients.values()))[2])
    heights = [aspect * image.shape[0] / image.shape[1] for image, _, _, aspect in rows.values()]
    side = min(WIDTH_IN / len(names), 1.6)
    figure, axes = plt.subplots(
        len(rows),
        len(names),
        figsize=(side * len(names), side * sum(heights) + 0.25 * len(rows) + 0.8),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for line, (title, (image, reference, masks, aspect)) in zip(axes, rows.items(), strict=True):
        for axis, name in zip(line, names, strict=True):
            show_slice(axis, image, {})
            axis.imshow(_coloured(masks[name], reference))
            axis.set(xticks=[], yticks=[], aspect=aspect)
            axis.set_xlabel(f"{count(masks[name], reference).dsc:.2f}", fontsize=8, labelpad=2)
        line[0].set_ylabel(title, fontsize=7)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(wrapped(titles(paper)[name], 12), fontsize=8)
    handles = [Patch(color=colour, alpha=0.6) for colour in ERRORS.values()]
    figure.legend(handles, list(ERRORS), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _flat(
    image: np.ndarray, reference: np.ndarray, masks: Mapping[str, np.ndarray], spacing_mm: Sequence[float], number: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], float]:
    """Image, reference and masks of one plane, cut to what the masks show, and how much higher than wide a pixel is."""
    place = largest_slices(reference)
    drawn = {name: plane_through(mask, number, place) for name, mask in masks.items()}
    truth = plane_through(reference, number, place)
    box = _box([truth, *drawn.values()], truth.shape)
    spacing = np.nan_to_num(np.asarray(spacing_mm, float), nan=1.0)
    down, across = (side for side in range(3) if side != number)
    cut = {name: mask[box] for name, mask in drawn.items()}
    return plane_through(image, number, place)[box], truth[box], cut, spacing[down] / spacing[across]


def surfaces(
    rows: Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray]]],
    spacings_mm: Mapping[str, Sequence[float]],
    paper: Paper,
) -> Figure:  # fmt: skip
    """Surfaces of the reference and of the methods side by side, from the front and a little from the left.

    Args:
        rows: title of the row to ``(reference (z, y, x), {method: mask})``. An empty mask leaves its place empty.
        spacings_mm: title of the row to ``(z, y, x)``; ``nan`` where it is not known, for voxels drawn as cubes.
    """
    names = list(next(iter(rows.values()))[1])
    heads = {"Reference": REFERENCE} | {titles(paper)[name]: colours(paper, names)[name] for name in names}
    columns = len(heads)
    side = min(WIDTH_IN / columns, 2.4)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(side * columns, side * len(rows) + 0.5), squeeze=False, layout="constrained"
    )
    for line, (title, (reference, predictions)) in zip(axes, rows.items(), strict=True):
        masks = [reference, *(predictions[name] for name in names)]
        box = _box(masks, reference.shape)
        for axis, mask, colour in zip(line, masks, heads.values(), strict=True):
            shade = relief(mask[box], spacings_mm[title])
            seen = ~np.isnan(shade)
            axis.imshow(np.dstack([shade[..., None] * np.array(to_rgb(colour)), seen]))
            if not seen.any():
                axis.text(0.5, 0.5, "empty", transform=axis.transAxes, ha="center", fontsize=8, color="0.4")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(title, fontsize=9)
    for axis, title in zip(axes[0], heads, strict=True):
        axis.set_title(wrapped(title, 24), fontsize=8)
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
    spacing = np.nan_to_num(np.asarray(spacing_mm, float), nan=1.0)
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


def forest(
    differences: Mapping[str, Summary], xlabel: str, printed: Mapping[str, float] | None = None
) -> Figure:  # fmt: skip
    """Mean differences with their 95 % intervals, one row for each comparison, and where printed as a cross.

    Args:
        differences: name to the summary of paired differences over patients.
        xlabel: of what, first minus second.
        printed: name to the difference of the paper's means.
    """
    names = [
        wrapped(f"{name} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{summary.n})", 42)
        for name, summary in differences.items()
    ]
    row = 0.14 * max([2, *(name.count("\n") + 1 for name in names)]) + 0.14
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 1.1 + row * len(names)), layout="constrained")
    axis.axvline(0, color="0.6", linewidth=0.8)
    for y, summary in enumerate(differences.values()):
        axis.hlines(y, summary.low, summary.high, color="0.25", linewidth=1.6)
        axis.plot(
            summary.mean, y, "s", color="0.25", markersize=5, label="ours, with 95 % interval" if y == 0 else None
        )
    shown = {name: value for name, value in (printed or {}).items() if name in differences}
    if shown:
        places = [list(differences).index(name) for name in shown]
        axis.plot(list(shown.values()), places, "x", color=REFERENCE, markersize=7, mew=2, label="printed")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlabel=xlabel, ylim=(len(differences) - 0.5, -0.5))
    axis.locator_params(axis="x", nbins=5)
    if differences:
        axis.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def channel_weights(levels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Attention weights of the channels of each series at each level: dots, and their mean as a bar.

    Args:
        levels: name of the level to {series: weights of its channels, in [0, 1]}.
    """
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 2.8), layout="constrained")
    series = list(next(iter(levels.values())))
    rng = np.random.default_rng(0)
    width = 0.8 / len(series)
    for i, (name, colour) in enumerate(zip(series, structure_colours(["", *series])[1:], strict=True)):
        for x, weights in enumerate(levels.values()):
            at = x + (i - (len(series) - 1) / 2) * width
            dots = at + rng.uniform(-0.3, 0.3, len(weights[name])) * width
            axis.scatter(dots, weights[name], s=9, color=colour, linewidths=0, alpha=0.7)
            axis.hlines(weights[name].mean(), at - 0.4 * width, at + 0.4 * width, color=colour, linewidth=3)
        axis.scatter([], [], color=colour, label=name)
    axis.set_xticks(range(len(levels)), list(levels), fontsize=8)
    axis.set(ylabel="weight of a channel", ylim=(0, 1))
    axis.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
    axis.legend(fontsize=8, frameon=False, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def voxel_weights(image: np.ndarray, reference: np.ndarray, levels: Mapping[str, np.ndarray]) -> Figure:
    """Attention weights of voxels on a slice, beside the image; one scale of colours for all levels.

    Args:
        image, reference: ``(y, x)``.
        levels: name of the level to weights ``(y, x)``, which may be coarser.
    """
    figure, axes = grid(1, 1 + len(levels))
    low, high = (extreme([extreme(weights) for weights in levels.values()]) for extreme in (np.min, np.max))
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    show_slice(axes[0][0], image, {})
    for axis, weights in zip(axes[0][1:], levels.values(), strict=True):
        shown = axis.imshow(weights, cmap="viridis", vmin=low, vmax=high, extent=extent, interpolation="nearest")
    for axis, title in zip(axes[0], ["image", *levels], strict=True):
        axis.set_title(wrapped(title, 16), fontsize=8)
        if reference.any():
            axis.contour(reference, [0.5], colors=REFERENCE, linewidths=1)
    figure.colorbar(shown, ax=axes, shrink=0.6, label="weight of a voxel", format="%.3g")
    return figure


def validation_curves(history: pd.DataFrame, paper: Paper, metric: str = "validation_loss") -> Figure:
    """Validation loss of several methods on one axis, over the updates of all stages; a dot ends each stage.

    Args:
        history: rows of ``history.csv`` of any number of runs.
        metric: the column that is drawn.
    """
    names = [method.name for method in paper.methods if method.name in set(history.method)]
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 3.0), layout="constrained")
    for name in names:
        colour, mine = colours(paper, names)[name], history[history.method == name]
        runs = [_over_stages(one) for _, one in mine.groupby(["fold", "seed"])]
        for run in runs:
            axis.plot(run.total, run[metric], color=colour, alpha=0.3, linewidth=0.7)
            axis.scatter(run.total[run.last], run[metric][run.last], color=colour, s=10)
        mean = pd.concat(runs).groupby("total")[metric].mean()
        axis.plot(mean.index, mean, color=colour, linewidth=1.8)
    axis.set(xlabel="updates", ylabel=metric.replace("_", " ").replace("dsc", "DSC"))
    entries = {titles(paper)[name]: colours(paper, names)[name] for name in names}
    legend(figure, entries, 2 if max(map(len, entries)) > LONG_NAME else 4)
    return edged(figure)


def _over_stages(run: pd.DataFrame) -> pd.DataFrame:
    """Rows of one run with the ``total`` of updates since its first stage, and which is the ``last`` of its stage."""
    lengths = run.groupby("stage", sort=False)["update"].max()
    before = lengths.cumsum() - lengths
    return run.assign(total=run["update"] + run.stage.map(before), last=run["update"] == run.stage.map(lengths))


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


def _box(masks: Sequence[np.ndarray], shape: Sequence[int]) -> tuple[slice, ...]:
    """Around all masks, with a margin; the whole image where they are empty."""
    found = ndimage.find_objects(np.any(masks, axis=0).astype(np.uint8))
    margins = [max(1, round(MARGIN * size)) for size in shape]
    if not found:
        return tuple(slice(0, size) for size in shape)
    return tuple(
        slice(max(0, side.start - more), min(size, side.stop + more))
        for side, more, size in zip(found[0], margins, shape, strict=True)
    )

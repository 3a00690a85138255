"""Figures of slices: contours, maps and errors on images."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from scipy import ndimage

from npcrepro.book.figures import style
from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.metrics.overlap import count
from npcrepro.protocol.method import Paper
from npcrepro.protocol.settings import Settings

# Of Okabe and Ito, like the colours of methods: apart under the common forms of colour blindness.
ERRORS = {"found (TP)": "#009E73", "wrongly marked (FP)": "#D55E00", "missed (FN)": "#56B4E9"}
PLANES = ("axial", "coronal", "sagittal")
MARGIN = 0.08  # around masks, as a share of the side of the image


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
    display(Markdown(withheld(f"{cohort.name} may not be published ({licence})")))


def withheld(cohort: str) -> str:
    """What stands in the place of a figure whose images may not be shown."""
    return (
        f"*Images of cohort {cohort}, so this figure is left out. For a book that stays with you, set the parameter "
        "`private: true`.*"
    )


def sheet(
    rows: Mapping[str, Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray]]]],
    limits: tuple[float, float] | None = None,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """A contact sheet: patients down, series, levels or methods across, with contours.

    Args:
        rows: title of the row to {title of the column: (image (y, x), {name: mask (y, x)})}.
        limits: intensities shown as black and white; by default the tails of each image.
        colours: of all names, shown here or not; by default those of structures.
    """
    columns = list(next(iter(rows.values())))
    shown = list(dict.fromkeys(name for row in rows.values() for _, masks in row.values() for name in masks))
    colours = colours or dict(zip(shown, style.structure_colours(shown), strict=True))
    figure, axes = style.grid(len(rows), len(columns))
    for line, row in zip(axes, rows.values(), strict=True):
        for axis, column in zip(line, columns, strict=True):
            image, masks = row[column]
            show_slice(axis, image, [(colours[name], mask) for name, mask in masks.items()], limits)
    style.name_lines(axes, rows, columns)
    if shown:
        style.legend(figure, {name: colour for name, colour in colours.items() if name in shown})
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
    shown = None
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        if title in probability:
            shown = axis.imshow(
                image, "viridis", extent=extent, vmin=limits[0], vmax=limits[1], interpolation="nearest"
            )
        else:
            axis.imshow(grey(image), "gray", extent=extent, vmin=0, vmax=255)
        if reference.any():
            axis.contour(reference, [0.5], colors=style.REFERENCE, linewidths=1)
        axis.set_title(style.wrapped(title, 16), fontsize=8)
    if shown:
        figure.colorbar(shown, ax=axes, shrink=0.6, label=label, format="%.3g")
    style.legend(figure, {"Reference": style.REFERENCE})
    return figure


def voxel_weights(image: np.ndarray, reference: np.ndarray, levels: Mapping[str, np.ndarray]) -> Figure:
    """Weights of voxels on a slice as `maps` beside the image, with one scale of colours for all.

    Args:
        image, reference: ``(y, x)``.
        levels: title to weights ``(y, x)``, which may be coarser.
    """
    limits = min(map(np.min, levels.values())), max(map(np.max, levels.values()))
    return maps({"image": image} | dict(levels), reference, list(levels), limits, "weight of a voxel")


def show_slice(
    axis: Axes, image: np.ndarray, masks: Iterable[tuple[str, np.ndarray]], limits: tuple[float, float] | None = None
) -> None:
    """Draw a slice in grey, and contours of masks on it; of an empty mask none.

    Args:
        image: ``(y, x)``.
        masks: colour and mask ``(y, x)`` of each.
        limits: intensities shown as black and white; by default the tails of the image.
    """
    low, high = limits or np.percentile(image, (0.5, 99.5))
    axis.imshow(image, cmap="gray", vmin=low, vmax=high)
    for colour, mask in masks:
        if mask.any():
            axis.contour(mask, [0.5], colors=colour, linewidths=1.2)


def grey(image: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """An image as uint8 in 256 steps between its tails, or between limits.

    Example:
        >>> grey(np.array([-5.0, 0.0, 1.0, 9.0]), (0, 2)).tolist()
        [0, 0, 128, 255]
    """
    image = np.asarray(image, np.float32)
    low, high = limits or np.percentile(image, (0.5, 99.5))
    return ((image - low) / max(high - low, np.finfo(np.float32).tiny) * 255).clip(0, 255).round().astype(np.uint8)


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
    size = np.array(image.shape) * cubes(spacing_mm)
    widths = [size[2], size[2], size[1]]
    height = style.WIDTH_IN / sum(widths) * max(size[1], size[0])
    height += 0.45 + 0.2 * -(-len(outlines) // style.legend_columns(outlines))  # titles and legend
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH_IN, height), width_ratios=widths, layout="constrained")
    limits = limits or tuple(np.percentile(image, (0.5, 99.5)))
    for number, (axis, title) in enumerate(zip(axes, PLANES, strict=True)):
        slices = [(colour, plane_through(mask, number, place)) for mask, colour in outlines.values()]
        show_slice(axis, plane_through(image, number, place), slices, limits)
        axis.set(xticks=[], yticks=[], aspect=_aspect(spacing_mm, number))
        axis.set_title(title, fontsize=9)
    style.legend(figure, {title: colour for title, (_, colour) in outlines.items()})
    return figure


def errors(
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
    rows = {}
    for title, (image, reference, masks, spacing_mm) in patients.items():
        place = largest_slices(reference)
        for plane in planes:
            number = PLANES.index(plane)
            flat = [plane_through(one, number, place) for one in (image, reference, *masks.values())]
            box = box_around(flat[1:])
            rows[f"{title}\n{plane}"] = [one[box] for one in flat], _aspect(spacing_mm, number)
    names = list(next(iter(patients.values()))[2])
    heights = [aspect * image.shape[0] / image.shape[1] for (image, *_), aspect in rows.values()]
    side = min(style.WIDTH_IN / len(names), 1.6)
    size = (side * len(names), side * sum(heights) + 0.25 * len(rows) + 0.8)
    shape = {"height_ratios": heights, "squeeze": False}
    figure, axes = plt.subplots(len(rows), len(names), figsize=size, layout="constrained", **shape)
    for line, ((image, reference, *found), aspect) in zip(axes, rows.values(), strict=True):
        for axis, mask in zip(line, found, strict=True):
            show_slice(axis, image, ())
            layer = np.zeros((*mask.shape, 4))
            for colour, where in kinds_of_error(mask, reference).items():
                layer[where] = to_rgba(colour, 0.55)
            axis.imshow(layer)
            axis.set(xticks=[], yticks=[], aspect=aspect)
            axis.set_xlabel(f"{count(mask, reference).dsc:.2f}", fontsize=8, labelpad=2)
    style.name_lines(axes, rows, [style.wrapped(style.titles(paper)[name], 12) for name in names])
    style.legend(figure, ERRORS, linewidth=6)
    return figure


def kinds_of_error(mask: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    """Colour of each of `ERRORS` to where it is: what was found, marked wrongly and missed."""
    return dict(zip(ERRORS.values(), (mask & reference, mask & ~reference, ~mask & reference), strict=True))


def cubes(spacing_mm: Sequence[float]) -> np.ndarray:
    """A spacing, in which voxels of unknown size are cubes."""
    return np.nan_to_num(np.asarray(spacing_mm, float), nan=1.0)


def _aspect(spacing_mm: Sequence[float], number: int) -> float:
    """How much higher than wide a pixel of a plane is."""
    down, across = np.delete(cubes(spacing_mm), number)
    return float(down / across)


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
    """A slice as it is looked at: one with z, coronal or sagittal, stands upright, the highest z first.

    Args:
        volume: ``(z, y, x)``.
        number: of the plane in `PLANES`, which is the axis that it leaves out.
        place: the slice of each plane, as from `largest_slices`.

    Example:
        >>> volume = np.arange(8).reshape(2, 2, 2)
        >>> plane_through(volume, 0, (1, 0, 0)).tolist(), plane_through(volume, 1, (1, 0, 0)).tolist()
        ([[4, 5], [6, 7]], [[4, 5], [0, 1]])
    """
    plane = np.take(volume, place[number], axis=number)
    return plane if number == 0 else plane[::-1]


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


def middle_half(shape: Sequence[int]) -> np.ndarray:
    """A mask of the middle of a slice, which is shown in any case."""
    middle = np.zeros(shape, bool)
    middle[tuple(slice(size // 4, size - size // 4) for size in shape)] = True
    return middle

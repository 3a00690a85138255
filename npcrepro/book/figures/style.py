"""Colours, names, layout and boxes that all figures share."""

import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import MatplotlibDeprecationWarning
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogFormatter

from npcrepro.base.colours import GREY, METHODS, MORE, NNUNET, REFERENCE, YELLOW
from npcrepro.book.parts import data_uri
from npcrepro.metrics.panel import PLANES, SIDES
from npcrepro.protocol.method import Paper

NARROW_IN = 4.7  # at which a phone shows the letters of a chart
LABEL_LETTERS = 40  # below an axis of that width
TURNED_LETTERS = 22  # of a name that is turned
WIDTH_IN = 6.9  # of the text on a page of the book, at 100 dots per inch: wider figures would be shrunk and blurred
BLUE, GREEN, VERMILION = METHODS[0], METHODS[1], METHODS[3]
FORBIDDEN = {"facecolor": "0.9", "hatch": "///", "edgecolor": "0.72", "linewidth": 0}  # what cannot be
LINE_LETTERS, KEY_LETTERS = 110, 7  # of 8 points on that width; room of the line beside an entry of a legend
REGION_TITLES = {
    "all_slices": "all slices",
    "reference_slices": "slices that show the structure",
    "labelled_slices": "slices that show any structure",
}
METRIC_TITLES = {
    "dsc": "DSC",
    "jsc": "JSC",
    "sensitivity": "Sensitivity (PM)",
    "precision": "Precision",
    "corresponding_ratio": "CR",
    "relative_volume_difference": "Relative volume difference",
    "average_precision": "AP",
    "auc": "AUC",
    "dsc_validated": "DSC at the validated threshold",
    "validated_threshold": "Validated threshold",
    "soft_dice_loss": "Soft Dice loss",
    "components": "Pieces",
    "reference_components": "Pieces of the reference",
    "predicted_area_mm2": "Surface (mm²)",
    "reference_area_mm2": "Surface of the reference (mm²)",
    "slice_hd_mm": "HD in the axial plane (mm)",
    "slice_hd95_mm": "HD95 in the axial plane (mm)",
    **{f"{plane}_dsc": f"DSC of {plane} slices" for plane in PLANES},
    **{f"{side}_mm": f"Distance, {side} (mm)" for side in SIDES.values()},
    **{
        f"{convention}_{name}_mm": f"{name.upper()} (mm)"
        for convention in ("voxel", "surfel")
        for name in ("hd", "hd95", "masd", "assd")
    },
    **{f"{convention}_nsd_{mm}mm": f"NSD at {mm} mm" for convention in ("voxel", "surfel") for mm in (1, 2)},
}


def colours(paper: Paper, shown: Sequence[str] = ()) -> dict[str, str]:
    """Colour of each method of a paper: its own through the whole book, as far as colours go; the others share grey.

    Methods of the profiles quick and bench come first, then the paper's list. The U-Net of nnU-Net has the same colour
    in all papers.

    Args:
        shown: methods of the figure; those that would be grey take the colours that no other of these has.
    """
    listed = [name for profile in paper.profiles if profile.name in ("quick", "bench") for name in profile.methods]
    names = dict.fromkeys([*listed, *(method.name for method in paper.methods)])
    nnunet = {name: NNUNET for name in names if name.startswith("nnunet")}
    kept = dict.fromkeys(names, GREY) | dict(
        zip((n for n in names if n not in nnunet), (*METHODS, *MORE), strict=False)
    )
    kept |= nnunet
    free = [colour for colour in (*METHODS, *MORE) if colour not in {kept[name] for name in shown}]
    grey = [name for name in shown if kept[name] == GREY]
    return kept | dict(zip(grey, free, strict=False))


def edged(figure: Figure) -> Figure:
    """The figure with a grey edge around lines and dots that are yellow, which is bright on images and faint on paper.

    Example:
        >>> axis = Figure().subplots()
        >>> lines = axis.plot([0, 1], color=YELLOW) + axis.plot([1, 0], color=REFERENCE)
        >>> _ = edged(axis.figure)
        >>> [bool(line.get_path_effects()) for line in lines]
        [True, False]
    """
    for artist in (*figure.findobj(Line2D), *figure.findobj(Collection)):
        line = isinstance(artist, Line2D)
        colours = [artist.get_color()] if line else [*artist.get_facecolor(), *artist.get_edgecolor()]
        # A faint line stays one: its edge would be darker than the line of a mean, and wider than itself.
        if colours and to_hex(colours[0]) == YELLOW.lower() and (artist.get_alpha() or 1) > 0.5:
            width = float(np.max(artist.get_linewidth(), initial=0))
            artist.set_path_effects([withStroke(linewidth=width + 1, foreground="0.45")])
    return figure


@dataclass(frozen=True)
class Picture:
    """A figure with its text alternative; shown by a notebook as an image of a page.

    Attributes:
        figure: not known to pyplot, so that a notebook shows it once.
        alt: what it shows, with the numbers that matter.
    """

    figure: Figure
    alt: str

    def _repr_html_(self) -> str:
        data = data_uri(self.figure.savefig, "png", dpi=120, facecolor="white")
        return f'<img alt="{escape(self.alt, quote=True)}" src="{data}">'


def narrow(figure: Figure, alt: str) -> Picture:
    """A chart of a width at which a phone shows its letters, with its alternative text."""
    plt.close(figure)  # pyplot would show it once more
    width, height = figure.get_size_inches()
    if width > NARROW_IN:
        figure.set_size_inches(NARROW_IN, height)
    for axis in figure.axes:
        names = [label.get_text() for label in axis.get_xticklabels()]
        if len("".join(names)) > LABEL_LETTERS and any(name[:1].isalpha() for name in names):
            turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}
            lines = [wrapped(name.replace("+\n", "+").replace("\n", " "), TURNED_LETTERS) for name in names]
            axis.set_xticks(axis.get_xticks(), lines, **turned)
    return Picture(figure, alt)


def axes(height_in: float, columns: int = 1, **options):
    """A figure as wide as the page that pyplot does not know, and its axes."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots(1, columns, **options)


def titles(paper: Paper) -> dict[str, str]:
    """Legend text of each method."""
    return {method.name: method.title for method in paper.methods}


def methods_of(rows, paper: Paper) -> list[str]:
    """Methods of the paper that a data frame with a column ``method`` has rows of, in the paper's order."""
    there = set(rows.method)
    return [method.name for method in paper.methods if method.name in there]


def key(paper: Paper, names: Sequence[str]) -> dict[str, str]:
    """Entries of a legend for these methods of a paper: title to colour."""
    drawn = colours(paper, names)
    return {titles(paper)[name]: drawn[name] for name in names}


def structure_colours(structures: Sequence[str]) -> list[str]:
    """The reference's colour for the first structure, others from the colour-blind safe list, again from its start."""
    others = (*METHODS, NNUNET, *MORE)
    return [REFERENCE, *(others[i % len(others)] for i in range(len(structures) - 1))][: len(structures)]


class PlainLog(LogFormatter):
    """Labels of a logarithmic axis as plain numbers, where it has room for them."""

    def __call__(self, x, pos=None):
        return f"{x:g}" if super().__call__(x, pos) else ""


def wrapped(title: str, width: int) -> str:
    """A title in lines of about so many letters, broken at spaces and behind plus signs.

    Example:
        >>> wrapped("MMFNet+multi-MLP+stdPool", 12)
        'MMFNet+\\nmulti-MLP+\\nstdPool'
    """
    lines = textwrap.wrap(title.replace("+", "+ "), width, break_on_hyphens=False)
    return "\n".join(line.replace("+ ", "+") for line in lines)


def grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A figure of square places for images, without ticks, and its axes ``(rows, columns)``."""
    side = min(WIDTH_IN / columns, 3.0)
    size = (side * columns, side * rows + 0.5)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def name_lines(axes: np.ndarray, rows: Iterable[str], columns: Iterable[str]) -> None:
    """Titles on the left of the rows and above the columns of axes ``(rows, columns)``."""
    for axis, title in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(title, fontsize=8)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(wrapped(title, 24), fontsize=8)


def panels(count: int, columns: int, height_in: float, **options) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the page with so many axes, ``columns`` in a row, each ``height_in`` inches high."""
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (WIDTH_IN, height_in * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def boxes(axis: Axes, data, **options) -> None:
    """Boxes of :func:`seaborn.boxplot`: quartiles with the median, whiskers the 10th and 90th percentile, not filled.

    Args:
        data: a data frame, with ``options`` as seaborn has them; without these, a box for each column.
    """
    shown = data[options["y"]] if "y" in options else data
    if not shown.notna().to_numpy().any():
        return  # seaborn needs a value
    with warnings.catch_warnings():
        # seaborn 0.13 tells matplotlib 3.11 the orientation in the old way.
        warnings.filterwarnings("ignore", "vert", MatplotlibDeprecationWarning)
        sns.boxplot(data, ax=axis, whis=(10, 90), fill=False, legend=False, **options)
    axis.set(xlabel="", ylabel="")


def jitter(count: int, width: float) -> np.ndarray:
    """Steps sideways that keep dots apart, ``(count,)`` within ``width`` of zero; the same in every build."""
    return np.random.default_rng(0).uniform(-width, width, count)


def legend(figure: Figure, entries: Mapping[str, str], linewidth: float = 2) -> None:
    """A legend below a figure: title to the colour of its line."""
    lines = [Line2D([], [], color=colour, linewidth=linewidth) for colour in entries.values()]
    place = {"loc": "outside lower center", "ncols": legend_columns(entries)}
    figure.legend(lines, list(entries), **place, fontsize=8, frameon=False)


def legend_columns(entries: Iterable[str]) -> int:
    """How many entries of a legend fit beside each other, at most four.

    Example:
        >>> legend_columns(["Reference", "U-Net"]), legend_columns(["Single-encoder multi-modality network"] * 3)
        (2, 2)
    """
    letters = [len(entry) for entry in entries]
    return max(1, min(4, len(letters), LINE_LETTERS // (max(letters) + KEY_LETTERS)))

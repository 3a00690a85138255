"""A slice of a case as an image and its numbers. Nothing here needs a notebook, or is drawn while a slider waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import nan

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from scipy.ndimage import binary_dilation

from npcrepro.base.errors import pick
from npcrepro.book.explorer.studies import CaseData, Found, Study, marked
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import ERRORS, PLANES, plane_through
from npcrepro.book.html.parts import data_uri, number_text, swatch
from npcrepro.metrics.overlap import count

MODES = ("contours", "errors", "side by side")
PANEL_PX = 480  # longer side of a slice
GAP_PX = 8  # of white, between two slices
LINE_PX = 2
WAITING = "…"
STYLE = """<style>
.npc-numbers :is(th, td) { text-align: right; padding: 0 0.5rem; line-height: 1.5; }
.npc-numbers tr > :first-child { text-align: left; }
.npc-numbers tbody th { font-weight: normal; }
</style>"""


@dataclass(frozen=True)
class View:
    """What the controls are set to.

    Attributes:
        plane: axial, coronal or sagittal.
        slice: number of the slice in that plane, from 0.
        series: name of the channel.
        level, width: the window: intensities from ``level - width / 2`` (black) to ``level + width / 2`` (white).
        mode: one of `MODES`: contours of ``methods``, errors of ``first``, or ``first`` and ``second`` side by side.
        methods: whose contours are shown.
        first, second: methods.
        opacity: of what fills the contours or marks the errors, 0 to 1.
        threshold: on the probability, above 0, at most 1.
    """

    plane: str
    slice: int
    series: str
    level: float
    width: float
    mode: str
    methods: tuple[str, ...]
    first: str
    second: str
    opacity: float = 0.35
    threshold: float = 0.5

    def drawn(self, case: CaseData) -> dict[str, Found]:
        """Methods in the picture that were tested on a case, each once, with what they found."""
        names = {"contours": self.methods, "errors": (self.first,), "side by side": (self.first, self.second)}
        shown = dict.fromkeys(pick(names, self.mode, "way to show it"))
        return {name: case.found[name] for name in shown if name in case.found}

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """The slice of a volume ``(z, y, x)``; coronal and sagittal ones stand upright."""
        return plane_through(volume, PLANES.index(self.plane), (self.slice,) * 3)


def picture(case: CaseData, view: View, colours: Mapping[str, str]) -> np.ndarray:
    """The slice as an image, with pixels as high and wide as they are in the patient.

    The line of the reference runs along the outside of its edge and those of methods along the inside, so that a method
    that agrees hides nothing. Coronal and sagittal slices stand upright; left and right are those of the file.

    Args:
        colours: method to its colour, ``"#56B4E9"``.

    Returns:
        ``(rows, columns, 3)`` uint8; the longer side of a slice has `PANEL_PX` pixels.
    """
    image = view.cut(case.series[view.series])
    grey = np.rint(((image - view.level) / view.width + 0.5).clip(0, 1) * 255).astype(np.uint8)
    spacing = np.delete(np.nan_to_num(np.asarray(case.spacing_mm, float), nan=1.0), PLANES.index(view.plane))
    size_mm = np.array(grey.shape) * spacing
    shape = np.maximum(np.rint(size_mm * PANEL_PX / size_mm.max()).astype(int), 1)
    ground = np.repeat(_enlarged(grey, shape, Image.Resampling.BILINEAR)[..., None], 3, axis=2).astype(np.float32)
    truth = _enlarged(view.cut(case.reference), shape)
    line = binary_dilation(truth, iterations=LINE_PX) & ~truth
    masks = {
        name: _enlarged(marked(view.cut(found.probability), view.threshold), shape)
        for name, found in view.drawn(case).items()
    }

    def panel(*names: str) -> np.ndarray:
        image = ground.copy()
        shown = {colours[name]: masks[name] for name in names if name in masks}
        for colour, mask in shown.items():
            _fill(image, mask, colour, view.opacity)
        _fill(image, line, style.REFERENCE)
        for colour, mask in shown.items():
            _fill(image, mask & binary_dilation(~mask, iterations=LINE_PX), colour)
        return image

    if view.mode == "contours":
        image = panel(*masks)
    elif view.mode == "side by side":
        gap = np.full((shape[0], GAP_PX, 3), 255, np.float32)
        image = np.concatenate([panel(view.first), gap, panel(view.second)], axis=1)
    else:
        image, mask = ground, masks.get(view.first, np.zeros_like(truth))
        for where, colour in zip((mask & truth, mask & ~truth, truth & ~mask), ERRORS.values(), strict=True):
            _fill(image, where, colour, view.opacity)
        _fill(image, line, style.REFERENCE)
    return np.rint(image).astype(np.uint8)


def _enlarged(pixels: np.ndarray, shape: np.ndarray, how: Image.Resampling = Image.Resampling.NEAREST) -> np.ndarray:
    """A slice on the grid of the screen; the pixels of a mask keep their corners."""
    return np.asarray(Image.fromarray(pixels).resize(shape[::-1].tolist(), how))


def _fill(image: np.ndarray, where: np.ndarray, colour: str, opacity: float = 1) -> None:
    image[where] = (1 - opacity) * image[where] + opacity * 255 * np.array(to_rgb(colour), np.float32)


def image_html(case: CaseData, view: View, study: Study) -> str:
    """The picture of a view as HTML, with words for those who do not see it."""
    titles = study.titles()
    contours = ", ".join(titles[name] for name in view.methods if name in case.found) or "no method"
    shown = {
        "contours": f"contours of {contours}",
        "errors": f"errors of {titles[view.first]}",
        "side by side": f"{titles[view.first]} on the left, {titles[view.second]} on the right",
    }[view.mode]
    words = f"{case.name}, {view.series}, {view.plane} slice {view.slice + 1}: reference and {shown}"
    # Packed quickly rather than small.
    data = data_uri(Image.fromarray(picture(case, view, study.colours())).save, "png", compress_level=1)
    return f'<img alt="{escape(words)}" src="{data}" style="max-width: 100%">'


def numbers(case: CaseData, view: View, distances: bool = True) -> pd.DataFrame:
    """How the methods of the picture do at the threshold.

    Args:
        distances: without, HD95 is ``nan`` unless it was measured before.

    Returns:
        One row for each method: ``method``; ``dsc``, ``hd95_mm`` and ``volume_ml`` of the whole case; ``dsc_of_slice``.
    """
    truth, at = view.cut(case.reference), view.threshold
    rows = []
    for name, found in view.drawn(case).items():
        here = count(marked(view.cut(found.probability), at), truth)
        hd95_mm = found.hd95_mm(at) if distances or found.knows_hd95(at) else nan
        rows.append((name, found.counts(at).dsc, hd95_mm, found.volume_ml(at), here.dsc))
    return pd.DataFrame(rows, columns=["method", "dsc", "hd95_mm", "volume_ml", "dsc_of_slice"])


def over_thresholds(case: CaseData, view: View, thresholds: Sequence[float]) -> pd.DataFrame:
    """`numbers` at several thresholds, one below the other, with a column ``threshold``."""
    parts = [numbers(case, replace(view, threshold=value)).assign(threshold=value) for value in thresholds]
    return pd.concat(parts, ignore_index=True)


def numbers_html(case: CaseData, view: View, study: Study, distances: bool = True) -> str:
    """The table above the picture: a row for each method with its colour, and the volume of the reference.

    Args:
        distances: without, an ellipsis stands for an HD95 that was not measured before.
    """
    titles, colours, sides = study.titles(), study.colours(), {}
    if view.mode == "side by side":
        sides = {view.second: "right: "} | {view.first: "left: "}
    lines = []
    for row in numbers(case, view, distances).itertuples():
        known = distances or case.found[row.method].knows_hd95(view.threshold)
        hd95 = number_text(row.hd95_mm, 1) if known else WAITING
        # Colours of errors are not those of methods.
        mark = "" if view.mode == "errors" else f"{swatch(colours[row.method])} "
        title = mark + escape(sides.get(row.method, "") + titles[row.method])
        cells = number_text(row.volume_ml, 2), number_text(row.dsc_of_slice, 3)
        lines.append((title, number_text(row.dsc, 3), hd95, *cells))
    lines.append((f"{swatch(style.REFERENCE)} Reference", "", "", number_text(case.reference_ml, 2), ""))
    heads = [f"threshold {view.threshold:.2f}", "DSC", "HD95 (mm)", "volume (ml)", "DSC, slice"]
    table = pd.DataFrame(lines, columns=heads).set_index(heads[0]).rename_axis(columns=heads[0], index=None)
    notes = []
    if view.mode == "errors":
        notes.append("&ensp;".join(f"{swatch(colour)} {escape(kind)}" for kind, colour in ERRORS.items()))
    if study.prepared.case(case.name).suspect:
        notes.append("The label of this case is doubtful.")
    return (
        STYLE
        + table.to_html(escape=False, border=0, classes="npc-numbers")
        + "".join(f"<p>{note}</p>" for note in notes)
    )


def worst_slice(case: CaseData, view: View) -> int:
    """The slice of the plane with the lowest DSC of the first method; of equal ones that with the most wrong voxels.

    Slices that show neither mask do not count; where all are like that, the slice stays.
    """
    if view.first not in case.found:
        return view.slice
    axes = tuple(axis for axis in range(3) if axis != PLANES.index(view.plane))
    mask = case.found[view.first].mask(view.threshold)
    both, either = (np.count_nonzero(part, axis=axes) for part in (mask & case.reference, mask ^ case.reference))
    shown = np.flatnonzero(2 * both + either)
    if not len(shown):
        return view.slice
    dsc = 2 * both[shown] / (2 * both + either)[shown]
    return int(shown[np.lexsort((-either[shown], dsc))[0]])


def still(case: CaseData, view: View, study: Study) -> Figure:
    """The three ways to look at a slice: contours, errors of the first method, and two methods side by side."""
    titles, colours = study.titles(), study.colours()
    views = [replace(view, mode=mode) for mode in MODES]
    images = [picture(case, one, colours) for one in views]
    heads = ["contours", f"errors of {titles[view.first]}", f"{titles[view.first]}   |   {titles[view.second]}"]
    ratio = images[0].shape[0] / images[0].shape[1]
    figure = plt.figure(figsize=(style.WIDTH_IN, style.WIDTH_IN * ratio + 1.1), layout="constrained")
    axes = figure.subplot_mosaic([["left", "right"], ["both", "both"]])
    for axis, image, head in zip(axes.values(), images, heads, strict=True):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
        axis.set_title(head, fontsize=9)
    drawn = {"Reference": style.REFERENCE} | {titles[name]: colours[name] for name in views[0].drawn(case)}
    for side, what, entries in (("left", "contours", drawn), ("right", "errors", ERRORS)):
        handles = [Patch(facecolor=colour, edgecolor="0.5") for colour in entries.values()]
        look = {"fontsize": 8, "title_fontsize": 8, "frameon": False}
        figure.legend(handles, list(entries), title=what, loc=f"outside lower {side}", **look)
    return figure

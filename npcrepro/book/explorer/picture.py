"""A slice of a case as an image and its numbers, at any threshold. Nothing here needs a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from scipy.ndimage import binary_dilation

from npcrepro.base.errors import pick
from npcrepro.book.chapter import Chapter
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import ERRORS, PLANES, cubes, grey, kinds_of_error, plane_through
from npcrepro.book.html.volume_files import STEPS, marked
from npcrepro.book.parts import data_uri, number_text, swatch
from npcrepro.metrics.overlap import count
from npcrepro.metrics.surface import surface_distances

MODES = ("contours", "errors", "side by side")
PANEL_PX = 480  # longer side of a slice
GAP_PX = 8  # of white, between two slices
LINE_PX = 2
STYLE = """<style>
.npc-numbers :is(th, td) { text-align: right; padding: 0 0.5rem; line-height: 1.5; }
.npc-numbers tr > :first-child { text-align: left; }
.npc-numbers tbody th { font-weight: normal; }
</style>"""


@dataclass(frozen=True, eq=False)
class CaseData:
    """A case with what the methods found of one structure. All arrays are ``(z, y, x)``.

    Attributes:
        name: of the case.
        series: name of a channel to its image.
        reference: mask of the structure.
        found: method to its probability, uint8 in steps of 1/255, 0 where another structure is more probable; methods
            that were not tested on this case are not there.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known, for voxels drawn as cubes.
        suspect: whether its label is doubtful.
        titles, colours: of each method of the paper.
    """

    name: str
    series: Mapping[str, np.ndarray]
    reference: np.ndarray
    found: Mapping[str, np.ndarray]
    spacing_mm: Sequence[float]
    suspect: bool
    titles: Mapping[str, str]
    colours: Mapping[str, str]
    _measured: dict[tuple[str, float], float] = field(init=False, default_factory=dict)  # distances take long

    @property
    def reference_ml(self) -> float:
        """Volume of the reference in ml; ``nan`` without a spacing."""
        return count(self.reference, self.reference).reference_ml(self.spacing_mm)

    def hd95_mm(self, method: str, threshold: float) -> float:
        """HD95 of a method in mm, on surface elements; ``nan`` where a mask is empty or there is no spacing."""
        if np.isnan(self.spacing_mm).any():
            return float("nan")
        if (method, threshold) not in self._measured:
            # A single slice is measured by its outline.
            flat = 0 if len(self.reference) == 1 else slice(None)
            masks = marked(self.found[method], threshold)[flat], self.reference[flat]
            distances = surface_distances(*masks, self.spacing_mm[-masks[0].ndim :], "surfel")
            self._measured[method, threshold] = distances.hausdorff_95
        return self._measured[method, threshold]


def read_case(chapter: Chapter, case: str, structure: str) -> CaseData:
    """A case of a chapter's cohort and what the runs of its first seed found, those that others build on as well.

    Raises:
        InputError: an unknown case or structure.
    """
    number = pick({name: i for i, name in enumerate(chapter.structures)}, structure, "structure")
    about = chapter.prepared.case(case)
    found = {}
    for record in chapter.every_run:
        fold = record.config["fold"]
        # Not networks that only make maps for others: those were trained on a part of a fold.
        if chapter.first(record) and about.patient in fold["test"] and "inner" not in fold:
            found[record.config["method"]["name"]] = of_structure(record.prediction(case)[1], number)
    methods = [method.name for method in chapter.paper.methods if method.name in found]
    series = zip(chapter.prepared.channels, about.image, strict=True)
    return CaseData(
        case,
        {name: np.asarray(image, np.float32) for name, image in series},
        chapter.masks(case)[structure],
        {name: found[name] for name in methods},
        chapter.spacing_mm(case),
        about.suspect,
        style.titles(chapter.paper),
        style.colours(chapter.paper, methods),
    )


def of_structure(probability: np.ndarray, number: int) -> np.ndarray:
    """Probability of one structure ``(z, y, x)`` in steps of 1/255, 0 where another one is more probable.

    Args:
        probability: ``(S, z, y, x)`` in [0, 1].
        number: of the structure, from 0.

    Example:
        >>> of_structure(np.array([[0.6, 0.3, 0.2], [0.4, 0.5, 0.2]]), 0).tolist()
        [153, 0, 51]
    """
    steps = np.rint(probability * STEPS).astype(np.uint8)
    return np.where(probability.argmax(axis=0) == number, steps[number], np.uint8(0))


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

    def masks(self, case: CaseData) -> dict[str, np.ndarray]:
        """Masks ``(z, y, x)`` of the methods in the picture that were tested on a case, each once."""
        names = {"contours": self.methods, "errors": (self.first,), "side by side": (self.first, self.second)}
        shown = dict.fromkeys(pick(names, self.mode, "way to show it"))
        return {name: marked(case.found[name], self.threshold) for name in shown if name in case.found}

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """The slice of a volume ``(z, y, x)``; coronal and sagittal ones stand upright."""
        return plane_through(volume, PLANES.index(self.plane), (self.slice,) * 3)


def picture(case: CaseData, view: View) -> np.ndarray:
    """The slice as an image, with pixels as high and wide as they are in the patient.

    The line of the reference runs along the outside of its edge and those of methods along the inside, so that a method
    that agrees hides nothing. Coronal and sagittal slices stand upright; left and right are those of the file.

    Returns:
        ``(rows, columns, 3)`` uint8; the longer side of a slice has `PANEL_PX` pixels.
    """
    pixels = grey(view.cut(case.series[view.series]), (view.level - view.width / 2, view.level + view.width / 2))
    spacing = np.delete(cubes(case.spacing_mm), PLANES.index(view.plane))
    size_mm = np.array(pixels.shape) * spacing
    shape = np.maximum(np.rint(size_mm * PANEL_PX / size_mm.max()).astype(int), 1)

    def enlarged(pixels: np.ndarray, how: Image.Resampling = Image.Resampling.NEAREST) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize(shape[::-1].tolist(), how))

    ground = np.repeat(enlarged(pixels, Image.Resampling.BILINEAR)[..., None], 3, axis=2).astype(np.float32)
    truth = enlarged(view.cut(case.reference))
    line = binary_dilation(truth, iterations=LINE_PX) & ~truth
    masks = {name: enlarged(view.cut(mask)) for name, mask in view.masks(case).items()}

    def panel(*layers: tuple[str, np.ndarray], edges: bool = True) -> np.ndarray:
        image = ground.copy()
        for colour, mask in layers:
            _fill(image, mask, colour, view.opacity)
        _fill(image, line, style.REFERENCE)
        for colour, mask in layers if edges else ():
            _fill(image, mask & binary_dilation(~mask, iterations=LINE_PX), colour)
        return image

    layers = {name: (case.colours[name], mask) for name, mask in masks.items()}
    if view.mode == "errors":
        mask = masks.get(view.first, np.zeros_like(truth))
        image = panel(*kinds_of_error(mask, truth).items(), edges=False)
    elif view.mode == "contours":
        image = panel(*layers.values())
    else:
        gap = np.full((shape[0], GAP_PX, 3), 255, np.float32)
        left, right = (panel(*[layers[name]] * (name in layers)) for name in (view.first, view.second))
        image = np.concatenate([left, gap, right], axis=1)
    return np.rint(image).astype(np.uint8)


def _fill(image: np.ndarray, where: np.ndarray, colour: str, opacity: float = 1) -> None:
    image[where] = (1 - opacity) * image[where] + opacity * 255 * np.array(to_rgb(colour), np.float32)


def image_html(case: CaseData, view: View) -> str:
    """The picture of a view as HTML, with words for those who do not see it."""
    first, second = case.titles[view.first], case.titles[view.second]
    shown = {
        "contours": f"contours of {', '.join(case.titles[name] for name in view.masks(case)) or 'no method'}",
        "errors": f"errors of {first}",
        "side by side": f"{first} on the left, {second} on the right",
    }[view.mode]
    words = f"{case.name}, {view.series}, {view.plane} slice {view.slice + 1}: reference and {shown}"
    # Packed quickly rather than small.
    data = data_uri(Image.fromarray(picture(case, view)).save, "png", compress_level=1)
    return f'<img alt="{escape(words)}" src="{data}" style="max-width: 100%">'


def numbers(case: CaseData, view: View) -> pd.DataFrame:
    """How the methods of the picture do at the threshold.

    Returns:
        One row for each method: ``method``; ``dsc``, ``hd95_mm`` and ``volume_ml`` of the whole case; ``dsc_of_slice``.
    """
    rows = []
    for name, mask in view.masks(case).items():
        whole, here = count(mask, case.reference), count(view.cut(mask), view.cut(case.reference))
        volume_ml = whole.predicted_ml(case.spacing_mm)
        rows.append((name, whole.dsc, case.hd95_mm(name, view.threshold), volume_ml, here.dsc))
    return pd.DataFrame(rows, columns=["method", "dsc", "hd95_mm", "volume_ml", "dsc_of_slice"])


def over_thresholds(case: CaseData, view: View, thresholds: Sequence[float]) -> pd.DataFrame:
    """`numbers` at several thresholds, one below the other, with a column ``threshold``."""
    parts = [numbers(case, replace(view, threshold=value)).assign(threshold=value) for value in thresholds]
    return pd.concat(parts, ignore_index=True)


def numbers_html(case: CaseData, view: View) -> str:
    """The table above the picture: a row for each method with its colour, and the volume of the reference."""
    sides = {view.second: "right: "} | {view.first: "left: "} if view.mode == "side by side" else {}
    lines = []
    for row in numbers(case, view).itertuples():
        # Colours of errors are not those of methods.
        mark = "" if view.mode == "errors" else f"{swatch(case.colours[row.method])} "
        title = mark + escape(sides.get(row.method, "") + case.titles[row.method])
        values = (row.dsc, 3), (row.hd95_mm, 1), (row.volume_ml, 2), (row.dsc_of_slice, 3)
        lines.append((title, *(number_text(*value) for value in values)))
    lines.append((f"{swatch(style.REFERENCE)} Reference", "", "", number_text(case.reference_ml, 2), ""))
    heads = [f"threshold {view.threshold:.2f}", "DSC", "HD95 (mm)", "volume (ml)", "DSC, slice"]
    table = pd.DataFrame(lines, columns=heads).set_index(heads[0]).rename_axis(columns=heads[0], index=None)
    notes = []
    if view.mode == "errors":
        notes.append("&ensp;".join(f"{swatch(colour)} {escape(kind)}" for kind, colour in ERRORS.items()))
    if case.suspect:
        notes.append("The label of this case is doubtful.")
    shown = table.to_html(escape=False, border=0, classes="npc-numbers")
    return STYLE + shown + "".join(f"<p>{note}</p>" for note in notes)


def worst_slice(case: CaseData, view: View) -> int:
    """The slice of the plane with the lowest DSC of the first method; of equal ones that with the most wrong voxels.

    Slices that show neither mask do not count; where all are like that, the slice stays.
    """
    axes = tuple(axis for axis in range(3) if axis != PLANES.index(view.plane))
    mask = marked(case.found[view.first], view.threshold)
    both, either = (np.count_nonzero(part, axis=axes) for part in (mask & case.reference, mask ^ case.reference))
    shown = np.flatnonzero(2 * both + either)
    if not len(shown):
        return view.slice
    dsc = 2 * both[shown] / (2 * both + either)[shown]
    return int(shown[np.lexsort((-either[shown], dsc))[0]])


def still(case: CaseData, view: View) -> Figure:
    """The three ways to look at a slice: contours, errors of the first method, and two methods side by side."""
    images = [picture(case, replace(view, mode=mode)) for mode in MODES]
    first, second = case.titles[view.first], case.titles[view.second]
    heads = ["contours", f"errors of {first}", f"{first}   |   {second}"]
    ratio = images[0].shape[0] / images[0].shape[1]
    figure = plt.figure(figsize=(style.WIDTH_IN, style.WIDTH_IN * ratio + 1.1), layout="constrained")
    axes = figure.subplot_mosaic([["left", "right"], ["both", "both"]])
    for axis, image, head in zip(axes.values(), images, heads, strict=True):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
        axis.set_title(head, fontsize=9)
    drawn = {case.titles[name]: case.colours[name] for name in replace(view, mode="contours").masks(case)}
    for side, what, entries in (
        ("left", "contours (all panels but the upper right)", {"Reference": style.REFERENCE} | drawn),
        ("right", "errors (upper right panel only)", ERRORS),
    ):
        handles = [Patch(facecolor=colour, edgecolor="0.5") for colour in entries.values()]
        look = {"fontsize": 8, "title_fontsize": 8, "frameon": False}
        figure.legend(handles, list(entries), title=what, loc=f"outside lower {side}", **look)
    return figure

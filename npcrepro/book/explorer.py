"""A live explorer of finished runs, for a notebook: slices, contours, errors, and numbers that follow a threshold.

The model comes first and needs no notebook: `studies` finds runs, `load_case` reads a case once, `picture` makes an
image of a `View`, and `numbers` the table above it. `Explorer` puts controls in front of that; every move of a control
makes a new `View`. Nothing is drawn with matplotlib while a slider moves, and voxels are counted for all thresholds
when the case is read, so that a step takes a few hundredths of a second.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from io import BytesIO
from math import ceil, isnan, nan
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from npcrepro.base.errors import InputError, pick
from npcrepro.base.wording import DASH
from npcrepro.book.figures import slices, style
from npcrepro.book.figures.slices import ERRORS, PLANES, largest_slices, plane_through
from npcrepro.cohorts.prepared import PreparedCohort, prepared_folder, read_prepared
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.overlap import Counts, count
from npcrepro.metrics.surface import surface_distances
from npcrepro.protocol import registry
from npcrepro.protocol.method import Paper
from npcrepro.protocol.settings import Settings
from npcrepro.runs import fit, records
from npcrepro.runs.evaluation import UNKNOWN_SPACING
from npcrepro.runs.records import Record
from npcrepro.sampling.samples import match_names

MODES = ("contours", "errors", "side by side")
STEPS = 255  # probabilities are kept in steps of 1/255
PANEL_PX = 480  # longer side of a slice
GAP_PX = 8  # of white, between two slices
LINE_PX = 2
CASES_KEPT = 4  # in memory
REST_S = 0.2  # without a move of a control, before distances are measured
WAITING = "…"


# Runs


@dataclass(frozen=True, eq=False)
class Study:
    """Finished runs of a paper on one cohort, at one profile and with one seed.

    Attributes:
        paper: whose methods these are.
        prepared: the cohort.
        structures: as the cohort calls them, in the order of the networks' outputs.
        runs: name of a method, in the paper's order, to its runs, one for each fold.
    """

    paper: Paper
    prepared: PreparedCohort
    structures: tuple[str, ...]
    runs: Mapping[str, Sequence[Record]]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods."""
        return tuple(self.runs)

    @property
    def cases(self) -> list[str]:
        """Cases that some method was tested on, sorted."""
        tested = {name for found in self.runs.values() for run in found for name in run.config["fold"]["test"]}
        return self.prepared.cases_of(sorted(tested))

    def colours(self) -> dict[str, str]:
        """Colour of each method, as in the chapter of the paper; black, which no image shows, becomes white."""
        drawn = style.colours(self.paper, self.methods)
        return {name: "white" if drawn[name] == "black" else drawn[name] for name in self.methods}

    def titles(self) -> dict[str, str]:
        """Legend text of each method."""
        return {name: style.titles(self.paper)[name] for name in self.methods}


def paper_for(first: str, settings: Settings) -> str:
    """The paper to explore: the first choice, or where its chapter cannot be told on the user's cohort, another one.

    Args:
        first: key of a paper, ``"chen2020"``.

    Raises:
        InputError: no chapter can be told on this cohort; the reason is that of the first choice.
    """
    if settings.cohort == "phantom" or settings.modalities:
        return first
    keys = sorted(registry.KEYS, key=lambda key: key != first)
    reasons = fit.untold(keys, settings.cohort, settings.profile)
    for key in keys:
        if key not in reasons:
            return key
    raise InputError(f"none of the papers can be told on {settings.cohort}: {reasons[first]}")


def studies(key: str, settings: Settings) -> dict[str, Study]:
    """What is there to explore: name of a cohort to its study; the cohort of the settings comes first.

    Of the settings, ``profile``, ``runs``, ``methods``, ``folds`` and the first of ``seeds`` choose among the runs.
    Where the data or the code have changed between runs, the newest ones are taken.

    Args:
        key: of the paper, ``"chen2020"``.

    Raises:
        InputError: no finished runs, with the command that makes them; an unknown paper or profile.
    """
    paper = registry.load(key, settings.modalities)
    paper.profile(settings.profile)
    found: dict[str, list[Record]] = {}
    for run in records.find(settings.runs, paper=key, profile=settings.profile, seed=settings.seeds[0]):
        config = run.config
        chosen = not settings.methods or config["method"]["name"] in settings.methods
        if chosen and (not settings.folds or config["fold"]["number"] in settings.folds):
            found.setdefault(config["cohort"], []).append(run)
    made = {}
    for cohort, runs in found.items():
        study = _study(paper, runs, Path(settings.runs))
        if study:
            made[cohort] = study
    if not made:
        raise InputError(
            f"{settings.runs} holds no finished runs of {key} at profile {settings.profile} with seed "
            f"{settings.seeds[0]}; this makes them: {_command(key, settings)}"
        )
    wanted = _name_of(settings.cohort)
    return dict(sorted(made.items(), key=lambda item: (not item[0].startswith(wanted), item[0])))


def _study(paper: Paper, runs: Sequence[Record], folder: Path) -> Study | None:
    """The newest runs on one state of the data; None where its images are no longer there."""
    newest = sorted(runs, key=lambda run: run.provenance["finished"])
    name, data = newest[-1].config["cohort"], newest[-1].config["data_sha256"]
    # Later ones replace earlier ones of the same method and fold.
    kept = {
        (run.config["method"]["name"], run.config["fold"]["number"]): run
        for run in newest
        if run.config["data_sha256"] == data
    }
    try:
        prepared = read_prepared(prepared_folder(folder / "prepared", name, data))
    except InputError:
        return None
    methods = {m.name: [run for (of, _), run in sorted(kept.items()) if of == m.name] for m in paper.methods}
    methods = {name: found for name, found in methods.items() if found}
    wanted = tuple(newest[-1].config["method"]["structures"])
    structures = match_names(wanted, tuple(prepared.structures), prepared.name, "structure")
    return Study(paper, prepared, structures, methods) if methods else None


def _command(key: str, settings: Settings) -> str:
    cohort = "" if settings.cohort == "phantom" else f" --cohort {settings.cohort}"
    seed = f" --seeds {settings.seeds[0]}" if settings.seeds[0] else ""
    return f"npcrepro run {key}{cohort} --profile {settings.profile}{seed} --runs {settings.runs}"


def _name_of(cohort: str) -> str:
    from npcrepro.cohorts.layout import read_cohort

    # Phantoms differ between papers, "phantom" and "phantom-thrive"; their names begin alike.
    return "phantom" if cohort == "phantom" else read_cohort(Path(cohort)).name


# A case


class Found:
    """What a method found of a structure in a case, ready for any threshold.

    Args:
        probability: ``(z, y, x)`` uint8 in steps of 1/255; 0 where another structure is more probable.
        reference: mask ``(z, y, x)``.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known.

    Example:
        >>> found = Found(np.array([[[0, 128, 255]]], np.uint8), np.array([[[False, True, True]]]), (1, 1, 1))
        >>> found.counts(0.5).dsc, found.counts(0.9).dsc
        (1.0, 0.6666666666666666)
    """

    def __init__(self, probability: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]):
        self.probability, self.reference, self.spacing_mm = probability, reference, tuple(spacing_mm)
        self._all, self._inside = (
            np.bincount(voxels.ravel(), minlength=STEPS + 1)[::-1].cumsum()[::-1]
            for voxels in (probability, probability[reference])
        )
        self._hd95: dict[int, float] = {}

    def mask(self, threshold: float) -> np.ndarray:
        """Voxels ``(z, y, x)`` whose probability reaches the threshold, which lies above 0 and is at most 1."""
        return self.probability >= _level(threshold)

    def counts(self, threshold: float) -> Counts:
        """Voxels in which this mask and the reference agree or differ."""
        marked, hit = (int(sums[_level(threshold)]) for sums in (self._all, self._inside))
        missed = int(self._inside[0]) - hit
        return Counts(hit, marked - hit, missed, self.probability.size - marked - missed)

    def volume_ml(self, threshold: float) -> float:
        """Volume of this mask in ml; ``nan`` without a spacing."""
        return self.counts(threshold).predicted_ml(self.spacing_mm)

    def hd95_mm(self, threshold: float) -> float:
        """HD95 of this mask in mm, on surface elements, the larger of both directions (see `metrics.surface`).

        ``nan`` where a mask is empty or there is no spacing. A single slice is measured by its outline.
        """
        level = _level(threshold)
        if level not in self._hd95:
            self._hd95[level] = self._measured(self.mask(threshold))
        return self._hd95[level]

    def knows_hd95(self, threshold: float) -> bool:
        """Whether that number is there already; a ragged mask takes a tenth of a second."""
        return _level(threshold) in self._hd95

    def _measured(self, mask: np.ndarray) -> float:
        if any(isnan(spacing) for spacing in self.spacing_mm):
            return nan
        flat = len(mask) == 1
        masks = (mask[0], self.reference[0]) if flat else (mask, self.reference)
        return surface_distances(*masks, self.spacing_mm[1:] if flat else self.spacing_mm, "surfel").hausdorff_95


def _level(threshold: float) -> int:
    """The lowest of the steps of 1/255 that reaches a threshold.

    Example:
        >>> _level(0.5), _level(1 / 255), _level(1.0)
        (128, 1, 255)
    """
    if not 0 < threshold <= 1:
        raise InputError(f"a threshold lies above 0 and is at most 1, not {threshold}")
    return ceil(threshold * STEPS - 1e-9)


@dataclass(frozen=True, eq=False)
class CaseData:
    """A case with what the methods found of one structure. All arrays are ``(z, y, x)``.

    Attributes:
        name: of the case.
        series: name of a channel to its image.
        reference: mask of the structure.
        found: method to what it found; methods that were not tested on this case are not there.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known, for voxels drawn as cubes.
    """

    name: str
    series: Mapping[str, np.ndarray]
    reference: np.ndarray
    found: Mapping[str, Found]
    spacing_mm: Sequence[float]

    def limits(self, series: str) -> tuple[float, float]:
        """Level and width of a window between the tails of an image."""
        low, high = np.percentile(self.series[series], (0.5, 99.5))
        return (float(low) + float(high)) / 2, max(float(high) - float(low), 1e-6)

    def slices(self, plane: str) -> int:
        """How many slices there are in a plane."""
        return self.reference.shape[PLANES.index(plane)]

    def largest(self, plane: str) -> int:
        """The slice with the largest area of the reference; the middle one where it is empty."""
        return largest_slices(self.reference)[PLANES.index(plane)]


def load_case(study: Study, case: str, structure: str) -> CaseData:
    """Read a case and its predictions.

    Raises:
        InputError: an unknown case or structure.
    """
    number = pick({name: i for i, name in enumerate(study.structures)}, structure, "structure")
    about = study.prepared.case(case)
    reference = mask_of(np.asarray(about.label), study.prepared.structures, structure)
    spacing_mm = about.spacing_mm if study.prepared.spacing_known else UNKNOWN_SPACING
    found = {}
    for name, runs in study.runs.items():
        run = next((run for run in runs if about.patient in run.config["fold"]["test"]), None)
        if run:
            found[name] = Found(_of_structure(run.prediction(case)[1], number), reference, spacing_mm)
    series = {name: np.asarray(image, np.float32) for name, image in zip(study.prepared.channels, about.image)}
    return CaseData(case, series, reference, found, spacing_mm)


def _of_structure(probability: np.ndarray, number: int) -> np.ndarray:
    """Probability ``(S, z, y, x)`` of one structure in steps of 1/255, 0 where another one is more probable."""
    steps = np.rint(probability * STEPS).astype(np.uint8)
    if len(steps) == 1:
        return steps[0]
    return np.where(probability.argmax(axis=0) == number, steps[number], np.uint8(0))


# What is looked at


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

    @property
    def drawn(self) -> tuple[str, ...]:
        """Methods in the picture, each once."""
        names = {"contours": self.methods, "errors": (self.first,), "side by side": (self.first, self.second)}
        return tuple(dict.fromkeys(pick(names, self.mode, "way to show it")))


def picture(case: CaseData, view: View, colours: Mapping[str, str]) -> np.ndarray:
    """The slice as an image, with pixels as high and wide as they are in the patient.

    The line of the reference runs along the outside of its edge and those of methods along the inside, so that a method
    that agrees hides nothing. Coronal and sagittal slices stand upright; left and right are those of the file.

    Args:
        colours: method to its colour, ``"#56B4E9"``.

    Returns:
        ``(rows, columns, 3)`` uint8; the longer side of a slice has `PANEL_PX` pixels.
    """
    grey = _window(_slice(case.series[view.series], view), view.level, view.width)
    shape = _size(grey.shape, view.plane, case.spacing_mm)
    ground = np.asarray(Image.fromarray(grey).resize(shape[::-1], Image.Resampling.BILINEAR), np.float32)
    truth = _enlarged(_slice(case.reference, view), shape)
    masks = {
        name: _enlarged(_slice(found.probability, view) >= _level(view.threshold), shape)
        for name, found in _drawn(case, view).items()
    }

    def panel(*names: str) -> np.ndarray:
        image = np.repeat(ground[..., None], 3, axis=2)
        shown = {colours[name]: masks[name] for name in names if name in masks}
        for colour, mask in shown.items():
            _fill(image, mask, colour, view.opacity)
        _fill(image, _grown(truth) & ~truth, style.REFERENCE, 1)
        for colour, mask in shown.items():
            _fill(image, mask & _grown(~mask), colour, 1)
        return image

    if view.mode == "errors":
        image = np.repeat(ground[..., None], 3, axis=2)
        mask = masks.get(view.first, np.zeros_like(truth))
        kinds = (mask & truth, mask & ~truth, truth & ~mask)
        for where, colour in zip(kinds, ERRORS.values(), strict=True):
            _fill(image, where, colour, view.opacity)
        _fill(image, _grown(truth) & ~truth, style.REFERENCE, 1)
    elif view.mode == "side by side":
        gap = np.full((shape[0], GAP_PX, 3), 255, np.float32)
        image = np.concatenate([panel(view.first), gap, panel(view.second)], axis=1)
    else:
        image = panel(*view.drawn)
    return np.rint(image).astype(np.uint8)


def _drawn(case: CaseData, view: View) -> dict[str, Found]:
    return {name: case.found[name] for name in view.drawn if name in case.found}


def _slice(volume: np.ndarray, view: View) -> np.ndarray:
    return plane_through(volume, PLANES.index(view.plane), (view.slice,) * 3)


def _window(image: np.ndarray, level: float, width: float) -> np.ndarray:
    share = (image - (level - width / 2)) / width
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


def _size(shape: Sequence[int], plane: str, spacing_mm: Sequence[float]) -> tuple[int, int]:
    """Rows and columns of a slice on the screen."""
    spacing = np.nan_to_num(np.asarray(spacing_mm, float), nan=1.0)
    across = [axis for axis in range(3) if axis != PLANES.index(plane)]
    size_mm = np.array(shape) * spacing[across]
    rows, columns = np.maximum(np.rint(size_mm * PANEL_PX / size_mm.max()).astype(int), 1)
    return int(rows), int(columns)


def _enlarged(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask on the grid of the screen; voxels keep their corners."""
    rows, columns = ((np.arange(new) * old) // new for new, old in zip(shape, mask.shape, strict=True))
    return mask[rows][:, columns]


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask and what lies within the width of a line of it, along rows and columns."""
    grown = mask.copy()
    for step in range(1, LINE_PX + 1):
        grown[step:] |= mask[:-step]
        grown[:-step] |= mask[step:]
        grown[:, step:] |= mask[:, :-step]
        grown[:, :-step] |= mask[:, step:]
    return grown


def _fill(image: np.ndarray, where: np.ndarray, colour: str, opacity: float) -> None:
    rgb = np.array(to_rgb(colour), np.float32) * 255
    pixels, flat = image.reshape(-1, 3), np.flatnonzero(where)
    pixels[flat] = (1 - opacity) * pixels[flat] + opacity * rgb


def png(image: np.ndarray) -> bytes:
    """An image ``(rows, columns, 3)`` as a PNG file, packed quickly rather than small."""
    stream = BytesIO()
    Image.fromarray(image).save(stream, "png", compress_level=1)
    return stream.getvalue()


def image_html(case: CaseData, view: View, study: Study) -> str:
    """The picture of a view as HTML, with words for those who do not see it."""
    titles = study.titles()
    shown = {
        "errors": f"errors of {titles[view.first]}",
        "side by side": f"{titles[view.first]} on the left, {titles[view.second]} on the right",
    }
    drawn = ", ".join(titles[name] for name in view.methods if name in case.found) or "no method"
    words = f"{case.name}, {view.series}, {view.plane} slice {view.slice + 1}: reference and "
    words += shown.get(view.mode, f"contours of {drawn}")
    data = b64encode(png(picture(case, view, study.colours()))).decode("ascii")
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{data}" style="max-width: 100%">'


def numbers(case: CaseData, view: View, distances: bool = True) -> pd.DataFrame:
    """How the methods of the picture do at the threshold.

    Args:
        distances: without, HD95 is ``nan`` unless it was measured before.

    Returns:
        One row for each method: ``method``; ``dsc``, ``hd95_mm`` and ``volume_ml`` of the whole case; ``dsc_of_slice``.
    """
    truth = _slice(case.reference, view)
    rows = []
    for name, found in _drawn(case, view).items():
        here = count(_slice(found.probability, view) >= _level(view.threshold), truth)
        hd95_mm = found.hd95_mm(view.threshold) if distances or found.knows_hd95(view.threshold) else nan
        rows.append((name, found.counts(view.threshold).dsc, hd95_mm, found.volume_ml(view.threshold), here.dsc))
    return pd.DataFrame(rows, columns=["method", "dsc", "hd95_mm", "volume_ml", "dsc_of_slice"])


def reference_ml(case: CaseData) -> float:
    """Volume of the reference in ml; ``nan`` without a spacing."""
    return count(case.reference, case.reference).reference_ml(case.spacing_mm)


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


def over_thresholds(case: CaseData, view: View, thresholds: Sequence[float]) -> pd.DataFrame:
    """`numbers` at several thresholds, one below the other, with a column ``threshold``."""
    parts = [numbers(case, replace(view, threshold=value)).assign(threshold=value) for value in thresholds]
    return pd.concat(parts, ignore_index=True)


def still(case: CaseData, view: View, study: Study) -> Figure:
    """The three ways to look at a slice: contours, errors of the first method, and two methods side by side."""
    titles, colours = study.titles(), study.colours()
    views = [replace(view, mode=mode) for mode in MODES]
    images = [picture(case, one, colours) for one in views]
    heads = ["contours", f"errors of {titles[view.first]}", f"{titles[view.first]}   |   {titles[view.second]}"]
    ratio = images[0].shape[0] / images[0].shape[1]
    figure = plt.figure(figsize=(style.WIDTH_IN, style.WIDTH_IN * ratio + 1.1), layout="constrained")
    grid = figure.add_gridspec(2, 2)
    for place, image, head in zip((grid[0, 0], grid[0, 1], grid[1, :]), images, heads, strict=True):
        axis = figure.add_subplot(place)
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
        axis.set_title(head, fontsize=9)
    drawn = {"Reference": style.REFERENCE} | {titles[name]: colours[name] for name in views[0].drawn}
    for side, what, entries in (("left", "contours", drawn), ("right", "errors", ERRORS)):
        handles = [Patch(facecolor=colour, edgecolor="0.5") for colour in entries.values()]
        figure.legend(
            handles, list(entries), title=what, loc=f"outside lower {side}", fontsize=8, title_fontsize=8, frameon=False
        )
    return figure


# Controls


class Explorer:
    """Controls around a picture and its numbers, shown where it is the last line of a cell.

    Images that may not be published are shown with the setting ``private`` only, as everywhere in the book.

    Args:
        key: of the paper, ``"chen2020"``.
        settings: of the notebook; see `studies` for what they choose.

    Attributes:
        study, case: what is open.
        view: what the controls are set to.
        widget: everything, to be put anywhere in a notebook.

    Raises:
        InputError: no finished runs, with the command that makes them.
    """

    def __init__(self, key: str, settings: Settings):
        found = studies(key, settings)
        self._settings, first = settings, next(iter(found))
        self._studies = {
            name: study for name, study in found.items()
            if name == first or study.prepared.publishable or settings.private
        }  # fmt: skip
        self._read = lru_cache(CASES_KEPT)(load_case)
        self._quiet, self._later = False, None
        self.study, self.case = found[first], None
        self._make_controls()
        self._open_study()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        slices.show_images(self.study.prepared, self._settings, display, self.widget)

    @property
    def view(self) -> View:
        """What the controls are set to."""
        return View(
            plane=self.plane.value,
            slice=self.slice.value - 1,
            series=self.series.value,
            level=self.level.value,
            width=self.width.value,
            mode=self.mode.value,
            methods=tuple(name for name, box in self.methods.items() if box.value),
            first=self.first.value,
            second=self.second.value,
            opacity=self.opacity.value,
            threshold=self.threshold.value,
        )

    def _make_controls(self) -> None:
        import ipywidgets as widgets

        style, wide = {"description_width": "5.5rem"}, widgets.Layout(width="24rem")

        def choice(description: str, help: str, options: Sequence = (), width: str = "18rem") -> widgets.Dropdown:
            layout = widgets.Layout(width=width)
            return widgets.Dropdown(options=options, description=description, tooltip=help, style=style, layout=layout)

        def buttons(description: str, options: Sequence[str], helps: Sequence[str]) -> widgets.ToggleButtons:
            more = {
                "style": style | {"button_width": "auto"},
                "layout": widgets.Layout(width="auto", margin="2px 2rem 2px 2px"),
            }
            return widgets.ToggleButtons(options=options, description=description, tooltips=helps, **more)

        def slider(description: str, help: str, **options) -> widgets.FloatSlider:
            return widgets.FloatSlider(description=description, tooltip=help, style=style, layout=wide, **options)

        self.cohort = choice("Cohort", "Cohorts with finished runs of this paper", list(self._studies))
        self.case_name = choice("Case", "Cases that the methods were tested on")
        self.structure = choice("Structure", "What the methods look for")
        self.series = choice("Series", "Channel of the image")
        self.first = choice("Method", "Errors, the left picture, and the worst slice are those of this method",
                            width="28rem")  # fmt: skip
        self.second = choice("Beside it", "The right picture, side by side", width="28rem")
        self.mode = buttons("Show", MODES, ("Contours of the ticked methods", "What the method found, marked wrongly "
                            "and missed", "Two methods, each with the reference"))  # fmt: skip
        self.plane = buttons("Plane", PLANES, ("From below", "From the front", "From the side"))
        self.slice = widgets.IntSlider(
            description="Slice", tooltip="Number of the slice, from 1", style=style, layout=wide
        )
        self.worst = widgets.Button(
            description="Worst slice", tooltip="The slice with the lowest DSC of the method",
            layout=widgets.Layout(width="8rem", margin="2px 2px 2px 6rem"),
        )  # fmt: skip
        self.threshold = slider(
            "Threshold", "Probability from which on a voxel is marked", value=0.5, min=0.01, max=0.99, step=0.01
        )
        self.opacity = slider("Opacity", "Of what fills contours and errors", value=0.35, min=0, max=1, step=0.05)
        self.level = slider("Level", "Intensity in the middle of the window", readout_format=".0f")
        self.width = slider("Width", "Width of the window", readout_format=".0f")
        self.methods: dict[str, widgets.Checkbox] = {}
        self._ticks = widgets.VBox()
        # Not widgets.Image, which cannot say in words what it shows.
        self._image = widgets.HTML(layout=widgets.Layout(max_width="100%"))
        self._table = widgets.HTML()
        sliders = [self.threshold, self.slice, self.worst, self.opacity, self.level, self.width]
        column = widgets.VBox([*sliders, self._ticks])
        row = widgets.Layout(flex_flow="row wrap", align_items="flex-start")
        # The picture takes the room beside the sliders, or goes below them where there is little.
        beside = widgets.Layout(flex="1 1 24rem", min_width="0", align_items="flex-start")
        self.widget = widgets.VBox([
            widgets.HBox([self.cohort, self.case_name, self.structure, self.series], layout=row),
            widgets.HBox([self.mode, self.plane], layout=row),
            widgets.HBox([self.first, self.second], layout=row),
            widgets.HBox([column, widgets.VBox([self._table, self._image], layout=beside)], layout=row),
        ])  # fmt: skip
        self._listen()

    def _listen(self) -> None:
        reactions = {
            self._open_study: [self.cohort],
            self._open_case: [self.case_name, self.structure],
            self._open_series: [self.series],
            self._open_plane: [self.plane],
            self._draw: [self.slice, self.level, self.width, self.mode, self.first, self.second, self.opacity,
                         self.threshold],
        }  # fmt: skip
        for react, controls in reactions.items():
            for control in controls:
                control.observe(lambda change, react=react: self._quiet or react(), "value")
        self.worst.on_click(lambda button: self.to_worst_slice())

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Several controls change, and the picture once."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before
        if not self._quiet:
            self._draw()

    def _open_study(self) -> None:
        import ipywidgets as widgets

        self.study = self._studies[self.cohort.value]
        with self._together():
            for control, options in (
                (self.case_name, self.study.cases),
                (self.structure, self.study.structures),
                (self.series, self.study.prepared.channels),
            ):
                control.options = options
                control.index = 0
            self.methods = {
                name: widgets.Checkbox(value=number < 2, description=title, indent=False)
                for number, (name, title) in enumerate(self.study.titles().items())
            }
            for box in self.methods.values():
                box.observe(lambda change: self._quiet or self._draw(), "value")
            self._ticks.children = list(self.methods.values())
            self._open_case()

    def _open_case(self) -> None:
        self.case = self._read(self.study, self.case_name.value, self.structure.value)
        titles, names = self.study.titles(), list(self.case.found)
        with self._together():
            for control, start in ((self.first, names[0]), (self.second, names[1 % len(names)])):
                kept = control.value if control.value in names else start
                control.options = [(titles[name], name) for name in names]
                control.value = kept
            for name, box in self.methods.items():
                box.disabled = name not in names
            self._open_series()
            self._open_plane()

    def _open_series(self) -> None:
        image = self.case.series[self.series.value]
        low, high = float(image.min()), max(float(image.max()), float(image.min()) + 1e-6)
        level, width = self.case.limits(self.series.value)
        with self._together():
            for slider, ends, value in (
                (self.level, (low, high), level),
                (self.width, ((high - low) / 200, high - low), min(width, high - low)),
            ):
                _set_range(slider, *ends)
                slider.step = (high - low) / 200
                slider.readout_format = ".0f" if high - low > 20 else ".2f"
                slider.value = value

    def _open_plane(self) -> None:
        with self._together():
            _set_range(self.slice, 1, self.case.slices(self.plane.value))
            self.slice.value = self.case.largest(self.plane.value) + 1

    def to_worst_slice(self) -> None:
        """Jump to the slice with the lowest DSC of the first method, see `worst_slice`."""
        self.slice.value = worst_slice(self.case, self.view) + 1

    def _draw(self) -> None:
        """The picture and the numbers at once; distances that take longer when the controls rest for a moment."""
        view = self.view
        if self._later:
            self._later.cancel()
        self._image.value = image_html(self.case, view, self.study)
        self._table.value = numbers_html(self.case, view, self.study, distances=False)
        if all(found.knows_hd95(view.threshold) for found in _drawn(self.case, view).values()):
            return
        try:
            self._later = asyncio.get_running_loop().call_later(REST_S, self._measure)
        except RuntimeError:  # not in a notebook: nobody waits for a picture
            self._measure()

    def _measure(self) -> None:
        self._table.value = numbers_html(self.case, self.view, self.study)


def _set_range(slider, low: float, high: float) -> None:
    """Ends of a slider, which must never cross on the way."""
    slider.min = min(low, slider.min)
    slider.max = high
    slider.min = low


def numbers_html(case: CaseData, view: View, study: Study, distances: bool = True) -> str:
    """The table above the picture: a row for each method with its colour, and the volume of the reference.

    Args:
        distances: without, an ellipsis stands for an HD95 that was not measured before.
    """
    titles, colours = study.titles(), study.colours()
    sides = {"side by side": ["left: ", "right: "]}.get(view.mode, [])
    lines = []
    for number, row in enumerate(numbers(case, view, distances).itertuples()):
        title = (sides[number] if number < len(sides) else "") + titles[row.method]
        known = distances or case.found[row.method].knows_hd95(view.threshold)
        hd95 = _said(row.hd95_mm, 1) if known else WAITING
        cells = (_said(row.dsc, 3), hd95, _said(row.volume_ml, 2), _said(row.dsc_of_slice, 3))
        # Colours of errors are not those of methods.
        lines.append(_line(title, None if view.mode == "errors" else colours[row.method], cells))
    lines.append(_line("Reference", style.REFERENCE, ("", "", _said(reference_ml(case), 2), "")))
    heads = ("DSC", "HD95 (mm)", "volume (ml)", "DSC, slice")
    head = f'<th scope="col" style="text-align: left">threshold {view.threshold:.2f}</th>'
    head += "".join(f'<th scope="col" style="{_CELL}">{escape(text)}</th>' for text in heads)
    kinds = "&ensp;".join(f"{_swatch(colour)} {escape(kind)}" for kind, colour in ERRORS.items())
    notes = [kinds] * (view.mode == "errors")
    notes += ["The label of this case is doubtful."] * study.prepared.case(case.name).suspect
    below = "".join(f"<p>{note}</p>" for note in notes)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{below}"


_CELL = "text-align: right; padding: 0 0.5rem; line-height: 1.5"


def _line(title: str, colour: str | None, cells: Sequence[str]) -> str:
    swatch = f"{_swatch(colour)} " if colour else ""
    head = f'<th scope="row" style="text-align: left; font-weight: normal">{swatch}{escape(title)}</th>'
    texts = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    return f"<tr>{head}{texts}</tr>"


def _swatch(colour: str) -> str:
    # With a border, as white is among the colours.
    box = "display: inline-block; width: 0.7em; height: 0.7em; border: 1px solid #888"
    return f'<span aria-hidden="true" style="{box}; background: {colour}"></span>'


def _said(value: float, digits: int) -> str:
    return DASH if isnan(value) else f"{value:.{digits}f}"

"""Controls around a picture and its numbers, for a notebook; every move of a control makes a new `View`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from html import escape

import ipywidgets as widgets
from ipywidgets import Layout

from npcrepro.book.explorer.picture import MODES, View, image_html, numbers_html, worst_slice
from npcrepro.book.explorer.studies import CaseData, load_case, studies
from npcrepro.book.figures.slices import PLANES, show_images
from npcrepro.protocol.settings import Settings

CASES_KEPT = 4  # in memory
REST_S = 0.2  # without a move of a control, before distances are measured
STYLE = {"description_width": "5.5rem"}
ROW = Layout(flex_flow="row wrap", align_items="flex-start")


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

    case: CaseData

    def __init__(self, key: str, settings: Settings):
        found = studies(key, settings)
        first = next(iter(found))
        self._settings = settings
        self._studies = {
            name: study for name, study in found.items()
            if name == first or study.prepared.publishable or settings.private
        }  # fmt: skip
        self._read = lru_cache(CASES_KEPT)(load_case)
        self._quiet = False
        self._later: asyncio.TimerHandle | None = None
        self.study = found[first]
        self._make_controls()
        self._lay_out()
        self._listen()
        self._open_study()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        # The book keeps the second part alone, where no Python answers.
        shown = {**self.widget._repr_mimebundle_(), "text/html": self.still()}
        show_images(self.study.prepared, self._settings, display, shown, raw=True)

    def still(self) -> str:
        """A picture of the explorer as HTML: the names of its controls with their values, its numbers and its image."""
        chosen = (self.cohort, self.case_name, self.structure, self.series, self.mode, self.plane, self.first)
        moved = (self.slice, self.threshold, self.opacity, self.level, self.width)
        values = {control.description: control.label for control in chosen}
        values |= {control.description: format(control.value, control.readout_format) for control in moved}
        controls = "".join(f"<span>{escape(name)} <b>{escape(value)}</b></span> " for name, value in values.items())
        return (
            f'<figure class="npc-explorer"><div class="npc-row">{controls}</div>'
            f"{numbers_html(self.case, self.view, self.study)}{image_html(self.case, self.view, self.study)}"
            "<figcaption>A picture of the explorer. Its controls move where Python runs.</figcaption></figure>"
        )

    @property
    def view(self) -> View:
        """What the controls are set to."""
        alike = ("plane", "series", "level", "width", "mode", "first", "second", "opacity", "threshold")
        ticked = tuple(name for name, box in self.methods.items() if box.value)
        values = {name: getattr(self, name).value for name in alike}
        return View(slice=self.slice.value - 1, methods=ticked, **values)

    def _make_controls(self) -> None:
        def choice(description: str, tooltip: str, options: Sequence = (), width: str = "18rem") -> widgets.Dropdown:
            look = {"style": STYLE, "layout": Layout(width=width)}
            return widgets.Dropdown(options=options, description=description, tooltip=tooltip, **look)

        def buttons(description: str, options: Sequence[str], *tooltips: str) -> widgets.ToggleButtons:
            place = Layout(width="auto", margin="2px 2rem 2px 2px")
            look = {"style": STYLE | {"button_width": "auto"}, "layout": place}
            return widgets.ToggleButtons(options=options, description=description, tooltips=tooltips, **look)

        def slider(kind: type, description: str, tooltip: str, **options) -> widgets.Widget:
            look = {"style": STYLE, "layout": Layout(width="24rem")}
            return kind(description=description, tooltip=tooltip, **look, **options)

        number = widgets.FloatSlider
        self.cohort = choice("Cohort", "Cohorts with finished runs of this paper", list(self._studies))
        self.case_name = choice("Case", "Cases that the methods were tested on")
        self.structure = choice("Structure", "What the methods look for")
        self.series = choice("Series", "Channel of the image")
        first = "Errors, the left picture, and the worst slice are those of this method"
        self.first = choice("Method", first, width="28rem")
        self.second = choice("Beside it", "The right picture, side by side", width="28rem")
        errors = "What the method found, marked wrongly and missed"
        sides = "Two methods, each with the reference"
        self.mode = buttons("Show", MODES, "Contours of the ticked methods", errors, sides)
        self.plane = buttons("Plane", PLANES, "From below", "From the front", "From the side")
        self.slice = slider(widgets.IntSlider, "Slice", "Number of the slice, from 1")
        worst, place = "The slice with the lowest DSC of the method", Layout(width="8rem", margin="2px 2px 2px 6rem")
        self.worst = widgets.Button(description="Worst slice", tooltip=worst, layout=place)
        marked, ends = "Probability from which on a voxel is marked", {"min": 0.01, "max": 0.99}
        self.threshold = slider(number, "Threshold", marked, value=0.5, step=0.01, **ends)
        filled = "Of what fills contours and errors"
        self.opacity = slider(number, "Opacity", filled, value=0.35, min=0, max=1, step=0.05)
        self.level = slider(number, "Level", "Intensity in the middle of the window", readout_format=".0f")
        self.width = slider(number, "Width", "Width of the window", readout_format=".0f")
        self.methods: dict[str, widgets.Checkbox] = {}

    def _lay_out(self) -> None:
        self._ticks, self._table = widgets.VBox(), widgets.HTML()
        # Not widgets.Image, which cannot say in words what it shows.
        self._image = widgets.HTML(layout=Layout(max_width="100%"))
        sliders = [self.threshold, self.slice, self.worst, self.opacity, self.level, self.width, self._ticks]
        # The picture takes the room beside the sliders, or goes below them where there is little.
        beside = Layout(flex="1 1 24rem", min_width="0", align_items="flex-start")
        seen = widgets.VBox([self._table, self._image], layout=beside)
        rows = [
            [self.cohort, self.case_name, self.structure, self.series],
            [self.mode, self.plane],
            [self.first, self.second],
            [widgets.VBox(sliders), seen],
        ]
        self.widget = widgets.VBox([widgets.HBox(row, layout=ROW) for row in rows])

    def _listen(self) -> None:
        drawn = [self.slice, self.level, self.width, self.mode, self.first, self.second, self.opacity, self.threshold]
        reactions = {
            self._open_study: [self.cohort],
            self._open_case: [self.case_name, self.structure],
            self._open_series: [self.series],
            self._open_plane: [self.plane],
            self._draw: drawn,
        }
        for react, controls in reactions.items():
            for control in controls:
                self._when_moved(control, react)
        self.worst.on_click(lambda button: self.to_worst_slice())

    def _when_moved(self, control: widgets.Widget, react: Callable[[], None]) -> None:
        control.observe(lambda change: None if self._quiet else react(), "value")

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
                name: widgets.Checkbox(value=number < 2, description=self.study.titles()[name], indent=False)
                for number, name in enumerate(self.study.methods)
            }
            for box in self.methods.values():
                self._when_moved(box, self._draw)
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
        if all(found.knows_hd95(view.threshold) for found in view.drawn(self.case).values()):
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

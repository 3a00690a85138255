"""Controls around a picture and its numbers, for a notebook; every move of a control makes a new `View`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
from ipywidgets import Layout

from npcrepro.book.chapter import Chapter
from npcrepro.book.explorer.picture import MODES, CaseData, View, image_html, numbers_html, read_case, worst_slice
from npcrepro.book.figures.slices import PLANES, largest_slices, show_images
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs import fit

CASES_KEPT = 4  # in memory
STYLE = {"description_width": "5.5rem"}
ROW = Layout(flex_flow="row wrap", align_items="flex-start")


def paper_for(first: str, settings: Settings) -> str:
    """The paper to explore: the first choice, or another one where its chapter cannot be told on the user's cohort."""
    if settings.cohort == "phantom" or settings.modalities:
        return first
    keys = sorted(registry.KEYS, key=lambda key: key != first)
    untold = fit.untold(keys, settings.cohort, settings.profile)
    return next((key for key in keys if key not in untold), first)


class Explorer:
    """Controls around a picture and its numbers, shown where it is the last line of a cell.

    Images that may not be published are shown with the setting ``private`` only, as everywhere in the book.

    Args:
        chapter: whose runs are explored.

    Attributes:
        case: what is open.
        view: what the controls are set to.
        widget: everything, to be put anywhere in a notebook.
    """

    def __init__(self, chapter: Chapter):
        self.chapter = chapter
        self._read = lru_cache(CASES_KEPT)(lambda case, structure: read_case(chapter, case, structure))
        self._quiet = False
        self._make_controls()
        self._lay_out()
        with self._together():
            self._open_case()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        # The book keeps the second part alone, where no Python answers.
        shown = {**self.widget._repr_mimebundle_(), "text/html": self.still()}
        show_images(self.chapter.source, self.chapter.settings, display, shown, raw=True)

    def still(self) -> str:
        """A picture of the explorer as HTML: the names of its controls with their values, its numbers and its image."""
        chosen = (self.case_name, self.structure, self.series, self.mode, self.plane, self.first)
        moved = (self.slice, self.threshold, self.opacity, self.level, self.width)
        values = {"Cohort": self.chapter.prepared.name} | {control.description: control.label for control in chosen}
        values |= {control.description: format(control.value, control.readout_format) for control in moved}
        controls = "".join(f"<span>{escape(name)} <b>{escape(value)}</b></span> " for name, value in values.items())
        return (
            f'<figure class="npc-explorer"><div class="npc-row">{controls}</div>'
            f"{numbers_html(self.case, self.view)}{image_html(self.case, self.view)}"
            "<figcaption>A picture of the explorer. Its controls move where Python runs.</figcaption></figure>"
        )

    @property
    def view(self) -> View:
        """What the controls are set to."""
        alike = ("plane", "series", "level", "width", "mode", "first", "second", "opacity", "threshold")
        ticked = tuple(name for name, box in self.methods.items() if box.value)
        return View(slice=self.slice.value - 1, methods=ticked, **{name: getattr(self, name).value for name in alike})

    @property
    def case(self) -> CaseData:
        """The case that is open."""
        return self._read(self.case_name.value, self.structure.value)

    def _make_controls(self) -> None:
        def control(kind: type, name: str, tooltip: str, react=self._draw, width: str = "24rem", **options):
            made = kind(description=name, tooltip=tooltip, style=STYLE, layout=Layout(width=width), **options)
            made.observe(lambda change: None if self._quiet else react(), "value")
            return made

        def choice(name: str, tooltip: str, options: Sequence = (), react=self._draw, width: str = "18rem"):
            return control(widgets.Dropdown, name, tooltip, react, width, options=options)

        def buttons(name: str, options: Sequence[str], tooltips: Sequence[str], react=self._draw):
            made = control(widgets.ToggleButtons, name, "", react, "auto", options=options, tooltips=tooltips)
            made.style.button_width = "auto"
            return made

        page, number = self.chapter, widgets.FloatSlider
        tested = {name for record in page.found for name in record.config["fold"]["test"]}
        cases = page.prepared.cases_of(sorted(tested))
        self.case_name = choice("Case", "Cases that the methods were tested on", cases, self._open_case)
        self.structure = choice("Structure", "What the methods look for", page.structures, self._open_case)
        self.series = choice("Series", "Channel of the image", page.prepared.channels, self._open_series)
        of_first = "Errors, the left picture, and the worst slice are those of this method"
        self.first = choice("Method", of_first, width="28rem")
        self.second = choice("Beside it", "The right picture, side by side", width="28rem")
        modes = "Contours of the ticked methods", "What the method found, marked wrongly and missed", "Two methods"
        self.mode = buttons("Show", MODES, modes)
        self.plane = buttons("Plane", PLANES, ("From below", "From the front", "From the side"), self._open_plane)
        self.slice = control(widgets.IntSlider, "Slice", "Number of the slice, from 1", min=1)
        self.worst = widgets.Button(description="Worst slice", tooltip="The slice with the lowest DSC of the method")
        self.worst.on_click(lambda button: self.to_worst_slice())
        # A ragged mask has a distance that takes a tenth of a second: measured where the slider rests.
        ends: dict[str, Any] = {"min": 0.01, "max": 0.99, "step": 0.01, "continuous_update": False}
        self.threshold = control(number, "Threshold", "Probability from which on a voxel is marked", value=0.5, **ends)
        self.opacity = control(number, "Opacity", "Of what fills contours and errors", value=0.35, max=1, step=0.05)
        self.level = control(number, "Level", "Intensity in the middle of the window", readout_format=".0f")
        self.width = control(number, "Width", "Width of the window", readout_format=".0f")
        first = read_case(page, cases[0], page.structures[0])
        self.methods = {
            name: control(widgets.Checkbox, first.titles[name], "", width="auto", value=place < 2, indent=False)
            for place, name in enumerate(first.found)
        }

    def _lay_out(self) -> None:
        # Not widgets.Image, which cannot say in words what it shows.
        self._table, self._image = widgets.HTML(), widgets.HTML(layout=Layout(max_width="100%"))
        sliders = [self.threshold, self.slice, self.worst, self.opacity, self.level, self.width, *self.methods.values()]
        # The picture takes the room beside the sliders, or goes below them where there is little.
        beside = Layout(flex="1 1 24rem", min_width="0", align_items="flex-start")
        rows = [
            [self.case_name, self.structure, self.series],
            [self.mode, self.plane],
            [self.first, self.second],
            [widgets.VBox(sliders), widgets.VBox([self._table, self._image], layout=beside)],
        ]
        self.widget = widgets.VBox([widgets.HBox(row, layout=ROW) for row in rows])

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

    def _open_case(self) -> None:
        names = list(self.case.found)
        with self._together():
            for control, start in ((self.first, names[0]), (self.second, names[1 % len(names)])):
                kept = control.value if control.value in names else start
                control.options = [(self.case.titles[name], name) for name in names]
                control.value = kept
            for name, box in self.methods.items():
                box.disabled = name not in names
            self._open_series()
            self._open_plane()

    def _open_series(self) -> None:
        image = self.case.series[self.series.value]
        low, high = float(image.min()), max(float(image.max()), float(image.min()) + 1e-6)
        black, white = (float(end) for end in np.percentile(image, (0.5, 99.5)))
        step = (high - low) / 200
        windows = {
            self.level: (low, high, (black + white) / 2),
            self.width: (step, high - low, min(max(white - black, 1e-6), high - low)),
        }
        with self._together():
            for slider, (least, most, value) in windows.items():
                _set_range(slider, least, most)
                slider.step, slider.readout_format = step, ".0f" if high - low > 20 else ".2f"
                slider.value = value

    def _open_plane(self) -> None:
        number = PLANES.index(self.plane.value)
        with self._together():
            _set_range(self.slice, 1, self.case.reference.shape[number])
            self.slice.value = largest_slices(self.case.reference)[number] + 1

    def to_worst_slice(self) -> None:
        """Jump to the slice with the lowest DSC of the first method, see `worst_slice`."""
        self.slice.value = worst_slice(self.case, self.view) + 1

    def _draw(self) -> None:
        self._image.value = image_html(self.case, self.view)
        self._table.value = numbers_html(self.case, self.view)


def _set_range(slider, low: float, high: float) -> None:
    """Ends of a slider, which must never cross on the way."""
    slider.min = min(low, slider.min)
    slider.max = high
    slider.min = low

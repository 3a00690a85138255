"""Patients to look around in on a page of the book: three planes, a 3-D view, outlines, and thresholds to move.

The output of `show` carries still images and small volumes. When the book is built, `volume_files.unpack` makes the
volumes files of the book, which ``book/_static/viewer.js`` loads when a reader comes to them. Slices, outlines, the DSC
and the error map are computed in the browser, on a plain canvas; the 3-D view is NiiVue's, loaded when it is asked for.
Where no script runs, in a notebook and on paper, the still images stay.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from npcrepro.base.errors import InputError
from npcrepro.base.wording import DASH
from npcrepro.book.explorer.studies import marked
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import ERRORS, planes, show_slice
from npcrepro.book.html.parts import data_uri, number_text, swatch, unique_name
from npcrepro.book.html.volume_files import HIGHEST, LOWEST, REFERENCE, VOLUMES_TYPE, Patient, pack, stored
from npcrepro.metrics import overlap

PLANES = ("Axial", "Coronal", "Sagittal")
VIEWS = ("All", *PLANES, "3-D")
START = 0.5  # threshold of a method that has none
# The page says where its root is; a notebook that is open in an editor does not, and keeps the still image.
SCRIPT = """
const root = document.documentElement.dataset.content_root;
if (root !== undefined) {
  import(new URL(`${root}_static/viewer.js`, document.baseURI)).then(viewer => viewer.start("ID"));
}
"""


def show(
    patients: Sequence[Patient], colours: Mapping[str, str], thresholds: Mapping[str, float | None] | None = None
) -> None:
    """Display patients in a notebook, to look around in once the notebook is a page of the book.

    Images of a cohort that may not be published do not belong here: ``slices.show_images(cohort, settings, show,
    patients, colours)`` leaves them out.

    Args:
        patients: the first is shown first; the first of its methods, too.
        colours: title of each outline to its colour, ``"#E69F00"``: structures, or with methods ``"Reference"`` and
            these.
        thresholds: title of a method to the threshold that its slider starts at; 0.5 where there is none.

    Raises:
        InputError: no patients, or patients that do not fit together; see `volume_files.pack`.
    """
    from IPython.display import display

    display(bundle(patients, colours, thresholds), raw=True)


def bundle(
    patients: Sequence[Patient], colours: Mapping[str, str], thresholds: Mapping[str, float | None] | None = None
) -> dict:
    """The output of `show`: content by its type, ``text/html`` and the volumes (file name to base64) among them."""
    if not patients:
        raise InputError("viewer: no patients to show: the fold may test none")
    volumes: dict[str, bytes] = {}
    described = []
    for patient in patients:
        about, files = pack(patient)
        described.append(about)
        volumes |= files
    methods = list(dict.fromkeys(method for patient in patients for method in patient.probabilities))
    given = thresholds or {}
    start = {method: float(np.clip(given.get(method) or START, LOWEST, HIGHEST)) for method in methods}
    return {
        "text/plain": f"Volumes of {', '.join(patient.name for patient in patients)}, to be seen in the book.",
        "text/html": _html(patients, colours, start, described),
        VOLUMES_TYPE: {name: base64.b64encode(content).decode() for name, content in volumes.items()},
    }


def _html(
    patients: Sequence[Patient], colours: Mapping[str, str], thresholds: Mapping[str, float], described: Sequence[dict]
) -> str:
    titles = list(dict.fromkeys(t for one in described for names in one["structures"].values() for t in names))
    content = {
        "patients": described,
        "colours": {title: colours[title] for title in titles},
        "thresholds": thresholds,
        "errors": ERRORS,
        "millilitres": not np.isnan([patient.spacing_mm for patient in patients]).any(),
    }
    # "</" would end the element early.
    data = json.dumps(content, ensure_ascii=False).replace("</", "<\\/")
    name = unique_name("viewer", data)
    table = pd.DataFrame([_row(patient, thresholds) for patient in patients])
    rows = table.to_html(index=False, border=0, justify="left", na_rep=DASH)
    stills = "".join(_still(patient, colours, thresholds, shown=number == 0) for number, patient in enumerate(patients))
    return (
        f'<div class="npc-viewer" id="{name}"><div class="npc-cases">{rows}</div>'
        f'<div class="npc-still">{stills}</div>{_controls(content, name)}'
        f'<p class="npc-note" role="status"></p><script type="application/json">{data}</script></div>'
        f'<script type="module">{SCRIPT.replace("ID", name)}</script>'
    )


def _row(patient: Patient, thresholds: Mapping[str, float]) -> dict[str, str]:
    """Cells of the table: the patient, what is told of it, and the DSC of the first method at its start."""
    row = {"patient": patient.name} | dict(patient.about)
    if patient.probabilities:
        method, maps = next(iter(patient.probabilities.items()))
        structure, truth = next(iter(patient.masks.items()))
        found = overlap.count(marked(stored(maps[structure]), thresholds[method]), truth > 0)
        of = f" of {structure}" if len(patient.masks) > 1 else ""
        row[f"DSC{of}, {method}"] = number_text(found.dsc, 2)
    return row


def _controls(content: Mapping, name: str) -> str:
    views = _buttons("view", {view: view for view in VIEWS}, "All")
    lists = (
        f'<label>{title} <select class="npc-{kind}"></select></label>'
        for kind, title in (("series", "Image"), ("structure", "Structure"))
    )
    slices = "".join(_slider(plane, f'min="0" step="1" data-plane="{n}"') for n, plane in enumerate(PLANES))
    steps = {one["step"] for one in content["patients"]} - {1}
    thinned = f" Of large images one pixel of {max(steps)} along each side is shown and counted." if steps else ""
    zoom = _slider("Zoom", 'min="1" max="5" step="0.5" value="1" data-zoom')
    turned = _slider("Head", 'min="0" max="100" value="40" data-head', "data-3d")
    turned += _slider("Turn", 'min="0" max="359" value="200" data-turn', "data-3d")
    panel, scores = "", _outlines(content["colours"])
    if content["thresholds"]:
        panel, scores = _threshold(content), _scores(content)
    rule = (
        f"<p>Each structure is thresholded by itself: a voxel is marked where its probability reaches the threshold. "
        f"DSC counts all voxels of the volume shown.{thinned}</p>"
        if content["thresholds"]
        else ""
    )
    return (
        '<div class="npc-live" hidden><div class="npc-row">'
        f'<div class="npc-views" role="group" aria-label="View">{views}</div>{"".join(lists)}</div>'
        '<div class="npc-desk"><div class="npc-stage"><div class="npc-picture">'
        '<canvas class="npc-head" aria-hidden="true"></canvas>'
        f'<canvas class="npc-slices" tabindex="0" role="application" aria-describedby="{name}-keys"></canvas>'
        f'</div></div><div class="npc-panel">{panel}<div class="npc-slides">{slices}{zoom}{turned}</div></div>'
        f'<div class="npc-scores">{scores}</div></div>'
        f'<div class="npc-keys" id="{name}-keys"><p>Click or drag in a slice to move the cross, in 3-D to turn the '
        "head. With the picture in focus, up and down (or the wheel) move the slice that was touched last. R is the "
        f"patient's right, A the front, H the head.</p>{rule}"
        '<p class="npc-no-3d" hidden>This browser has no WebGL2, which the 3-D view needs.</p></div></div>'
    )


def _threshold(content: Mapping) -> str:
    """The method, its threshold, and outlines or error map."""
    methods = list(content["thresholds"])
    options = "".join(f"<option>{escape(title)}</option>" for title in methods)
    shows = _buttons("show", {"outlines": "Outlines", "errors": "Error map"}, "outlines")
    errors = "".join(f"<span>{swatch(colour)} {escape(kind)}</span> " for kind, colour in content["errors"].items())
    return (
        f'<label{" hidden" if len(methods) < 2 else ""}>Method <select class="npc-method">{options}</select></label>'
        + _slider("Threshold", f'min="{LOWEST}" max="{HIGHEST}" step="0.01" data-threshold')
        + f'<div class="npc-views" role="group" aria-label="Show">{shows}</div>'
        f'<p class="npc-errors" hidden>{errors}</p>'
    )


def _scores(content: Mapping) -> str:
    """A row for each outline: whether it is shown, and the numbers of the method at its threshold."""
    millilitres = content["millilitres"]
    heads = ["outline", "threshold", "DSC", 'DSC, <span class="npc-slice">slice</span>', *["ml"] * millilitres]
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    cells = "<td><output></output></td>" * (len(heads) - 1)
    rows = "".join(
        f'<tr class="npc-one" data-title="{escape(title)}">'
        f'<th scope="row">{_tick(title, content["colours"][title])}</th>{cells}</tr>'
        for title in (REFERENCE, *content["thresholds"])
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _outlines(colours: Mapping[str, str]) -> str:
    ticks = "".join(f'<span class="npc-one">{_tick(title, colour)}</span>' for title, colour in colours.items())
    return f'<div class="npc-row" role="group" aria-label="Outlines">{ticks}</div>'


def _tick(title: str, colour: str) -> str:
    return f'<label><input type="checkbox" checked value="{escape(title)}">{swatch(colour)} {escape(title)}</label>'


def _buttons(kind: str, titles: Mapping[str, str], pressed: str) -> str:
    return "".join(
        f'<button type="button" data-{kind}="{value}" aria-pressed="{str(value == pressed).lower()}">{title}</button>'
        for value, title in titles.items()
    )


def _slider(title: str, attributes: str, of: str = "") -> str:
    return f'<label class="npc-slide" {of}>{title}<input type="range" {attributes}><output></output></label>'


def _still(patient: Patient, colours: Mapping[str, str], thresholds: Mapping[str, float], shown: bool) -> str:
    """The first series through the middle of the first structure, with methods at their thresholds, as an image."""
    title, image = next(iter(patient.series.items()))
    layers = next(iter(patient.structures().values()))
    masks = {
        name: marked(layer, thresholds[name]) if name in thresholds else layer > 0 for name, layer in layers.items()
    }
    figure = _axial(image, masks, colours) if len(image) == 1 else _planes(patient, image, masks, colours)
    data = data_uri(figure.savefig, "webp", dpi=100, pil_kwargs={"quality": 80})
    plt.close(figure)
    cut = "an axial slice" if len(image) == 1 else "an axial, a coronal and a sagittal slice"
    through = next(iter(patient.masks))
    alt = f"{patient.name}, {title}: {cut} through {through}, with the outlines of {', '.join(masks)}"
    return f'<img alt="{escape(alt)}" src="{data}"{"" if shown else " hidden"}>'


def _planes(patient: Patient, image: np.ndarray, masks: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> Figure:
    outlines = {name: (mask, colours[name]) for name, mask in masks.items()}
    return planes(image, outlines, patient.spacing_mm, patient.limits)


def _axial(image: np.ndarray, masks: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> Figure:
    figure, axes = style.grid(1, 1)
    show_slice(axes[0, 0], image[0], {colours[name]: mask[0] for name, mask in masks.items()})
    style.legend(figure, {name: colours[name] for name in masks})
    return figure

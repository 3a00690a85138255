"""Volumes to look around in on a page of the book: three planes, a 3-D view, series, and outlines of masks.

The output of `show` carries still images and small volumes. When the book is built, `unpack` makes the volumes files of
the book, which ``book/_static/viewer.js`` loads when a reader comes to them and hands to NiiVue. Where that cannot be,
in a notebook, on paper or without WebGL2, the still images stay.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import SimpleITK as sitk

from npcrepro.base.errors import InputError
from npcrepro.base.wording import DASH
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import box_around, largest_slices, planes, show_images
from npcrepro.book.html.parts import data_uri, number_text, unique_name
from npcrepro.cohorts.images import to_itk
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics import overlap

if TYPE_CHECKING:
    from npcrepro.book.volume_chapter import VolumeChapter
    from npcrepro.cohorts.prepared import PreparedCohort

VOLUMES_TYPE = "application/vnd.npcrepro.volumes+json"
SET_VOXELS = 6_000_000  # of all series of a patient, at a byte each before compression
MARGIN_MM = 50.0  # kept around the masks where a patient is too large
MOST_OUTLINES = 8  # as many as there are colours
PLANES = ("Axial", "Coronal", "Sagittal")
VIEWS = ("All", *PLANES, "3-D")
# The page says where its root is; a notebook that is open in an editor does not, and keeps the still image.
SCRIPT = """
const root = document.documentElement.dataset.content_root;
if (root !== undefined) {
  import(new URL(`${root}_static/viewer.js`, document.baseURI)).then(viewer => viewer.start("ID"));
}
"""


@dataclass(frozen=True)
class Patient:
    """What a reader sees of one patient. All arrays are ``(z, y, x)`` on one grid.

    Attributes:
        name: of the patient or case.
        series: title to image.
        outlines: title to mask; the first is the one that slices go through at the start.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known, for voxels drawn as cubes.
        about: further cells of the patient's row in the table, title to text.
        geometry: as in :func:`npcrepro.cohorts.images.read_image`; without it, x to the patient's left, y to the back,
            z upwards.
    """

    name: str
    series: Mapping[str, np.ndarray]
    outlines: Mapping[str, np.ndarray]
    spacing_mm: Sequence[float]
    about: Mapping[str, str] = field(default_factory=dict)
    geometry: Mapping[str, Sequence[float]] | None = None


def show(patients: Sequence[Patient], colours: Mapping[str, str]) -> None:
    """Display patients in a notebook, to look around in once the notebook is a page of the book.

    Images of a cohort that may not be published do not belong here: ``slices.show_images(cohort, settings, show,
    patients, colours)`` leaves them out.

    Args:
        patients: the first is shown first.
        colours: title of each outline to its colour, ``"#E69F00"``.

    Raises:
        InputError: no patients, or arrays of a patient that lie on different grids.
    """
    from IPython.display import display

    display(bundle(patients, colours), raw=True)


def patient_of(prepared: PreparedCohort, case: str) -> Patient:
    """A case of a cohort in all its channels, with the first structures that it shows, and their volumes."""
    about = prepared.case(case)
    masks = {name: mask_of(np.asarray(about.label), prepared.structures, name) for name in prepared.structures}
    # Without any, the first, which is empty: slices then go through the middle.
    seen = [name for name, mask in masks.items() if mask.any()][:MOST_OUTLINES] or list(masks)[:1]
    spacing_mm = about.spacing_mm if prepared.spacing_known else (np.nan,) * 3
    voxel_ml = np.prod(spacing_mm) / 1000
    volumes = {f"{name} (ml)": f"{masks[name].sum() * voxel_ml:.1f}" for name in seen} if prepared.spacing_known else {}
    series = {name: np.asarray(image) for name, image in zip(prepared.channels, about.image, strict=True)}
    return Patient(case, series, {name: masks[name] for name in seen}, spacing_mm, volumes, about.geometry)


def show_chapter(chapter: VolumeChapter, *methods: str, count: int = 3) -> None:
    """Tested patients of a chapter from best to worst by the leading method, in every series, with the reference, that
    method and these.

    Args:
        methods: names; those that were not run are left out.
        count: of patients, see `VolumeChapter.patients_shown`.
    """
    prepared, patients, titles = chapter.prepared, [], {}
    methods = tuple(dict.fromkeys((chapter.ranked()[0], *methods)))
    for one in chapter.patients_shown(count):
        case = prepared.case(one.case)
        titles = {name: style.titles(chapter.paper)[name] for name in methods if name in one.predictions}
        masks = {title: one.predictions[name] for name, title in titles.items()}
        series = {name: np.asarray(case.image[prepared.channels.index(name)]) for name in chapter.data.channels}
        about = {
            f"DSC, {title}": number_text(overlap.count(mask, one.reference).dsc, 2) for title, mask in masks.items()
        }
        outlines = {"Reference": one.reference} | masks
        patients.append(Patient(one.case, series, outlines, one.spacing_mm, about, case.geometry))
    colours = {"Reference": style.REFERENCE} | style.key(chapter.paper, list(titles))
    show_images(chapter.source, chapter.settings, show, patients, colours)


def bundle(patients: Sequence[Patient], colours: Mapping[str, str]) -> dict:
    """The output of `show`: content by its type, ``text/html`` and the volumes (file name to base64) among them."""
    if not patients:
        raise InputError("viewer: no patients to show: the fold may test none")
    volumes: dict[str, bytes] = {}
    described = []
    for patient in patients:
        about, files = _packed(patient)
        described.append(about)
        volumes |= files
    return {
        "text/plain": f"Volumes of {', '.join(patient.name for patient in patients)}, to be seen in the book.",
        "text/html": _html(patients, colours, described),
        VOLUMES_TYPE: {name: base64.b64encode(content).decode() for name, content in volumes.items()},
    }


def unpack(notebook: bytes) -> tuple[bytes, dict[str, bytes]]:
    """A notebook without the volumes in its outputs, and the volumes, file name to content.

    Args:
        notebook: content of an executed ``.ipynb``.
    """
    # Most notebooks have none, and are then passed on byte for byte.
    if VOLUMES_TYPE.encode() not in notebook:
        return notebook, {}
    content = json.loads(notebook)
    volumes: dict[str, bytes] = {}
    for cell in content["cells"]:
        for output in cell.get("outputs", ()):
            kept = output.get("data", {}).pop(VOLUMES_TYPE, {})
            volumes |= {name: base64.b64decode(text) for name, text in kept.items()}
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n", volumes


def _packed(patient: Patient) -> tuple[dict, dict[str, bytes]]:
    """What the script is told of a patient, and the files that it names.

    That is its name, title to file of series and outlines, and where slices go through at the start, as parts of the
    (x, y, z) extent. Volumes are within `SET_VOXELS`: cut to the masks with a margin, then every n-th pixel.
    """
    kinds = {"series": patient.series, "outlines": patient.outlines}
    shapes = {title: array.shape for arrays in kinds.values() for title, array in arrays.items()}
    if len(set(shapes.values())) != 1 or not all(kinds.values()):
        raise InputError(
            f"viewer: patient {patient.name} needs series and outlines on one grid (z, y, x), got {shapes or 'nothing'}"
        )
    spacing_mm = np.nan_to_num(np.asarray(patient.spacing_mm, float), nan=1.0)
    masks, most = list(patient.outlines.values()), SET_VOXELS // len(patient.series)
    box: tuple[slice, ...] = (slice(None),) * 3
    step = 1
    if masks[0].size > most:
        box = box_around(masks, np.ceil(MARGIN_MM / spacing_mm).astype(int))
    while masks[0][box][:, ::step, ::step].size > most:
        step += 1
    spacing_mm = spacing_mm * (1, step, step)

    def upright(pixels: np.ndarray) -> sitk.Image:
        image = sitk.DICOMOrient(to_itk(pixels, tuple(spacing_mm), patient.geometry), "RAS")
        # Planes are those of the scanner: a tilt of a few degrees would only blur them.
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        image.SetOrigin((0, 0, 0))
        return image

    about: dict = {"name": patient.name, "series": {}, "outlines": {}}
    files = {}
    for kind, arrays in kinds.items():
        for title, array in arrays.items():
            array = array[box][:, ::step, ::step]
            image = upright(_as_bytes(array) if kind == "series" else np.asarray(array, np.uint8))
            name, content = _file(image)
            about[kind][title], files[name] = name, content
            if kind == "outlines" and "start" not in about:
                mask = sitk.GetArrayFromImage(image)
                middle = zip(largest_slices(mask), mask.shape, strict=True)
                about["start"] = [(place + 0.5) / size for place, size in middle][::-1]
    return about, files


def _file(image: sitk.Image) -> tuple[str, bytes]:
    """Name and content of a gzipped NIfTI file; the same image gives the same bytes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii"
        sitk.WriteImage(image, str(path))
        content = gzip.compress(path.read_bytes(), mtime=0)
    return f"{sha256(content).hexdigest()[:16]}.nii.gz", content


def _as_bytes(image: np.ndarray) -> np.ndarray:
    """An image in 256 steps between its tails."""
    image = np.asarray(image, np.float32)
    low, high = np.percentile(image, (0.5, 99.5))
    return ((image - low) / max(high - low, np.finfo(np.float32).tiny) * 255).clip(0, 255).round().astype(np.uint8)


# The page


def _html(patients: Sequence[Patient], colours: Mapping[str, str], described: Sequence[dict]) -> str:
    titles = list(dict.fromkeys(title for patient in patients for title in patient.outlines))
    content = {"patients": described, "colours": {title: colours[title] for title in titles}}
    # "</" would end the element early.
    data = json.dumps(content, ensure_ascii=False).replace("</", "<\\/")
    name = unique_name("viewer", data)
    rows = pd.DataFrame([{"patient": patient.name} | dict(patient.about) for patient in patients])
    table = rows.to_html(index=False, border=0, justify="left", na_rep=DASH)
    stills = "".join(_still(patient, colours, shown=number == 0) for number, patient in enumerate(patients))
    return (
        f'<div class="npc-viewer" id="{name}"><div class="npc-cases">{table}</div>'
        f'<div class="npc-still">{stills}</div>{_controls(patients, {title: colours[title] for title in titles}, name)}'
        f'<p class="npc-note" role="status"></p><script type="application/json">{data}</script></div>'
        f'<script type="module">{SCRIPT.replace("ID", name)}</script>'
    )


def _controls(patients: Sequence[Patient], colours: Mapping[str, str], name: str) -> str:
    views = "".join(
        f'<button type="button" data-view="{view}" aria-pressed="{str(view == "All").lower()}">{view}</button>'
        for view in VIEWS
    )
    series = "".join(f"<option>{escape(title)}</option>" for title in patients[0].series)
    outlines = "".join(
        f'<label><input type="checkbox" checked value="{escape(title)}">'
        f'<span class="npc-swatch" style="background:{colour}"></span>{escape(title)}</label>'
        for title, colour in colours.items()
    )
    slices = "".join(
        f'<label>{plane}<input type="range" min="0" data-plane="{number}"><output></output></label>'
        for number, plane in enumerate(PLANES)
    )
    return (
        '<div class="npc-live" hidden>'
        f'<div class="npc-row"><div class="npc-views" role="group" aria-label="View">{views}</div>'
        f'<label>Series <select class="npc-series">{series}</select></label></div>'
        '<div class="npc-picture"><canvas class="npc-volume" aria-hidden="true"></canvas>'
        f'<canvas class="npc-lines" tabindex="0" role="application" aria-describedby="{name}-keys"></canvas></div>'
        f'<div class="npc-row" role="group" aria-label="Outlines">{outlines}</div>'
        f'<div class="npc-slides">{slices}'
        '<label>Outlines<input type="range" min="0" max="100" value="100" data-opacity><output></output></label>'
        '<label>Head, 3-D<input type="range" min="0" max="100" value="40" data-head><output></output></label>'
        '<label>Turn, 3-D<input type="range" min="0" max="359" value="200" data-turn><output></output></label></div>'
        f'<p class="npc-keys" id="{name}-keys">Click or drag in a slice to move the cross, in 3-D to turn the head. '
        "With the picture in focus, up and down (or the wheel) move the slice that was touched last, left and right "
        "turn the head. R is the patient's right.</p></div>"
    )


def _still(patient: Patient, colours: Mapping[str, str], shown: bool) -> str:
    """Three planes of the first series through the middle of the first outline, as an image inside the page."""
    title, image = next(iter(patient.series.items()))
    outlines = {name: (mask, colours[name]) for name, mask in patient.outlines.items()}
    figure = planes(image, outlines, patient.spacing_mm)
    data = data_uri(figure.savefig, "webp", dpi=100, pil_kwargs={"quality": 80})
    plt.close(figure)
    alt = (
        f"{patient.name}, {title}: an axial, a coronal and a sagittal slice through {next(iter(patient.outlines))}, "
        f"with the outlines of {', '.join(patient.outlines)}"
    )
    return f'<img alt="{escape(alt)}" src="{data}"{"" if shown else " hidden"}>'

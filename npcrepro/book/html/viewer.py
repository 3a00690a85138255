"""Volumes to look around in on a page of the book: three planes, a 3-D view, series, and outlines of masks.

`show` is called in a notebook. Its output carries a table of patients, a still image for each of them, and the volumes,
small ones, in a part of the output that is no page. `unpack` takes that part out when the book is built; the volumes
become files of the book, ``_static/volumes/``, which ``book/_static/viewer.js`` loads when a reader comes to them and
hands to NiiVue. Where that cannot be, in a notebook, on paper or without WebGL2, the still images stay.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.base.wording import DASH

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

    Images of a cohort that may not be published do not belong here: ``figures.show_images(cohort, settings, show,
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
    from npcrepro.cohorts.structures import mask_of

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
    from npcrepro.book.figures import slices, style
    from npcrepro.metrics import overlap

    patients, titles = [], {}
    methods = tuple(dict.fromkeys((chapter.ranked()[0], *methods)))
    for one in chapter.patients_shown(count):
        case = chapter.prepared.case(one.case)
        titles = {name: style.titles(chapter.paper)[name] for name in methods if name in one.predictions}
        masks = {title: one.predictions[name] for name, title in titles.items()}
        patients.append(
            Patient(
                one.case,
                {name: np.asarray(case.image[chapter.prepared.channels.index(name)]) for name in chapter.data.channels},
                {"Reference": one.reference} | masks,
                one.spacing_mm,
                {f"DSC, {title}": _score(overlap.count(mask, one.reference).dsc) for title, mask in masks.items()},
                case.geometry,
            )
        )
    drawn = style.colours(chapter.paper, list(titles))
    colours = {"Reference": style.REFERENCE} | {title: drawn[name] for name, title in titles.items()}
    slices.show_images(chapter.source, chapter.settings, show, patients, colours)


def _score(value: float) -> str:
    return DASH if np.isnan(value) else f"{value:.2f}"


def bundle(patients: Sequence[Patient], colours: Mapping[str, str]) -> dict:
    """The output of `show`: content by its type, ``text/html`` and the volumes (file name to base64) among them."""
    if not patients:
        raise InputError("viewer: no patients to show: the fold may test none")
    volumes: dict[str, bytes] = {}
    described = []
    for patient in patients:
        _require_one_grid(patient)
        series, outlines, spacing_mm = _cut(patient)
        start, files = _packed(series, outlines, spacing_mm, patient.geometry)
        volumes |= {file: content for titles in files.values() for file, content in titles.values()}
        names = {kind: {title: file for title, (file, _) in titles.items()} for kind, titles in files.items()}
        described.append({"name": patient.name, "start": start, **names})
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
    content, volumes = json.loads(notebook), {}
    for cell in content["cells"]:
        for output in cell.get("outputs", ()):
            kept = output.get("data", {}).pop(VOLUMES_TYPE, {})
            volumes |= {name: base64.b64decode(text) for name, text in kept.items()}
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n", volumes


# Volumes


def _require_one_grid(patient: Patient) -> None:
    shapes = {title: array.shape for title, array in (*patient.series.items(), *patient.outlines.items())}
    if len(set(shapes.values())) != 1 or not patient.series or not patient.outlines:
        raise InputError(
            f"viewer: patient {patient.name} needs series and outlines on one grid (z, y, x), got {shapes or 'nothing'}"
        )


def _cut(patient: Patient) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Series, outlines and spacing within `SET_VOXELS`: cut to the masks with a margin, then every n-th pixel."""
    spacing_mm = np.nan_to_num(np.asarray(patient.spacing_mm, float), nan=1.0)
    arrays = {"series": dict(patient.series), "outlines": dict(patient.outlines)}
    masks = np.any(list(patient.outlines.values()), axis=0)
    count, step = len(patient.series), 1
    if count * masks.size > SET_VOXELS and masks.any():
        box = []
        for axis, margin in enumerate(np.ceil(MARGIN_MM / spacing_mm).astype(int)):
            there = np.flatnonzero(masks.any(axis=tuple(other for other in range(3) if other != axis)))
            box.append(slice(max(0, there[0] - margin), there[-1] + 1 + margin))
        masks = masks[tuple(box)]
        arrays = {kind: {t: a[tuple(box)] for t, a in titles.items()} for kind, titles in arrays.items()}
    while count * masks[:, ::step, ::step].size > SET_VOXELS:
        step += 1
    thinned = {kind: {t: a[:, ::step, ::step] for t, a in titles.items()} for kind, titles in arrays.items()}
    return thinned["series"], thinned["outlines"], spacing_mm * (1, step, step)


def _packed(
    series: Mapping[str, np.ndarray],
    outlines: Mapping[str, np.ndarray],
    spacing_mm: np.ndarray,
    geometry: Mapping[str, Sequence[float]] | None,
) -> tuple[list[float], dict[str, dict[str, tuple[str, bytes]]]]:
    """Where slices go through at the start, as parts of the (x, y, z) extent, and the files by kind and title."""
    import SimpleITK as sitk

    from npcrepro.book.figures.slices import largest_slices
    from npcrepro.cohorts.images import to_itk

    def as_file(array: np.ndarray) -> tuple[np.ndarray, tuple[str, bytes]]:
        image = sitk.DICOMOrient(to_itk(array, tuple(spacing_mm), geometry), "RAS")
        # Planes are those of the scanner: a tilt of a few degrees would only blur them.
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        image.SetOrigin((0, 0, 0))
        content = _nifti(image)
        return sitk.GetArrayFromImage(image), (f"{sha256(content).hexdigest()[:16]}.nii.gz", content)

    images = {title: as_file(_as_bytes(image))[1] for title, image in series.items()}
    masks = {title: as_file(np.asarray(mask, bool).astype(np.uint8)) for title, mask in outlines.items()}
    first = next(iter(masks.values()))[0]
    start = [(int(place) + 0.5) / size for place, size in zip(largest_slices(first), first.shape, strict=True)]
    return start[::-1], {"series": images, "outlines": {title: file for title, (_, file) in masks.items()}}


def _nifti(image) -> bytes:
    """A gzipped NIfTI file; the same image gives the same bytes."""
    import SimpleITK as sitk

    with TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii"
        sitk.WriteImage(image, str(path))
        return gzip.compress(path.read_bytes(), mtime=0)


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
    name = "viewer-" + sha256(data.encode()).hexdigest()[:8]
    stills = "".join(_still(patient, colours, shown=number == 0) for number, patient in enumerate(patients))
    return (
        f'<div class="npc-viewer" id="{name}">{_table(patients)}'
        f'<div class="npc-still">{stills}</div>{_controls(patients, {title: colours[title] for title in titles}, name)}'
        f'<p class="npc-note" role="status"></p><script type="application/json">{data}</script></div>'
        f'<script type="module">{SCRIPT.replace("ID", name)}</script>'
    )


def _table(patients: Sequence[Patient]) -> str:
    heads = ["patient", *dict.fromkeys(title for patient in patients for title in patient.about)]
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in heads)
    rows = "".join(
        f"<tr><td>{escape(patient.name)}</td>"
        + "".join(f"<td>{escape(patient.about.get(title, DASH))}</td>" for title in heads[1:])
        + "</tr>"
        for patient in patients
    )
    table = f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="npc-cases">{table}</div>'


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
    import matplotlib.pyplot as plt

    from npcrepro.book.figures.slices import planes

    title, image = next(iter(patient.series.items()))
    outlines = {name: (mask, colours[name]) for name, mask in patient.outlines.items()}
    figure = planes(image, outlines, patient.spacing_mm)
    stream = BytesIO()
    figure.savefig(stream, format="webp", dpi=100, pil_kwargs={"quality": 80})
    plt.close(figure)
    alt = (
        f"{patient.name}, {title}: an axial, a coronal and a sagittal slice through {next(iter(patient.outlines))}, "
        f"with the outlines of {', '.join(patient.outlines)}"
    )
    data = base64.b64encode(stream.getvalue()).decode()
    hidden = "" if shown else " hidden"
    return f'<img alt="{escape(alt)}" src="data:image/webp;base64,{data}"{hidden}>'

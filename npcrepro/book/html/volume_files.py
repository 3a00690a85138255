"""Patients as small files that a page loads: images and probabilities in 8 bits, and masks, all on one upright grid."""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk

from npcrepro.base.errors import InputError
from npcrepro.book.figures.slices import box_around, cubes, grey, largest_slices
from npcrepro.cohorts.images import to_itk
from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.cohorts.structures import mask_of

VOLUMES_TYPE = "application/vnd.npcrepro.volumes+json"
STEPS = 255  # probabilities are kept in steps of 1/255
SET_VOXELS = 6_000_000  # of all series of a patient, at a byte each before compression
MARGIN_MM = 50.0  # kept around the masks where a patient is too large
MOST_OUTLINES = 8  # as many as there are colours
LOWEST, HIGHEST = 0.05, 0.95  # thresholds that a reader can choose; lower probabilities are stored as 0
REFERENCE = "Reference"


@dataclass(frozen=True)
class Patient:
    """What a reader sees of one patient. All arrays are ``(z, y, x)`` on one grid.

    Attributes:
        name: of the patient or case.
        series: title to image.
        masks: structure to reference; slices go through the first at the start.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known, for voxels drawn as cubes.
        about: further cells of the patient's row in the table, title to text.
        geometry: as in :func:`npcrepro.cohorts.images.read_image`; without it, x to the patient's left, y to the back,
            z upwards.
        probabilities: title of a method to the probability of each structure of ``masks``, in [0, 1]. Without any, the
            masks are shown together, as on a page about the images.
        limits: intensities shown as black and white; by default the tails of each image.
    """

    name: str
    series: Mapping[str, np.ndarray]
    masks: Mapping[str, np.ndarray]
    spacing_mm: Sequence[float]
    about: Mapping[str, str] = field(default_factory=dict)
    geometry: Mapping[str, Sequence[float]] | None = None
    probabilities: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    limits: tuple[float, float] | None = None

    def structures(self) -> dict[str, dict[str, np.ndarray]]:
        """What is shown at a time: structure to the reference and to the probability of each method, as `stored`;
        without methods all masks at once, and ``""`` for the structure.

        Raises:
            InputError: a method without a map for one of the structures.
        """
        if not self.probabilities:
            return {"": dict(self.masks)}
        found: dict[str, dict[str, np.ndarray]] = {name: {REFERENCE: mask} for name, mask in self.masks.items()}
        for method, maps in self.probabilities.items():
            if set(maps) != set(self.masks):
                there, wanted = (", ".join(names) or "nothing" for names in (maps, self.masks))
                raise InputError(f"viewer: patient {self.name} has masks of {wanted}, but {method} maps of {there}")
            for name, probability in maps.items():
                found[name][method] = stored(probability)
        return found


def marked(steps: np.ndarray, threshold: float) -> np.ndarray:
    """Where a probability in steps of 1/255 reaches a threshold.

    Example:
        >>> marked(np.array([127, 128]), 0.5).tolist()
        [False, True]
    """
    return steps >= ceil(threshold * STEPS - 1e-9)


def stored(probability: np.ndarray) -> np.ndarray:
    """A probability as uint8 in steps of 1/255; what no threshold reaches, and ``nan``, is 0.

    Example:
        >>> stored(np.array([0.04, 0.5, 1.0, np.nan])).tolist()
        [0, 128, 255, 0]
    """
    steps = np.rint(np.nan_to_num(probability) * STEPS).astype(np.uint8)
    return np.where(marked(steps, LOWEST), steps, np.uint8(0))


def patient_of(
    prepared: PreparedCohort,
    case: str,
    probabilities: Mapping[str, np.ndarray] | None = None,
    structures: Sequence[str] = (),
    channels: Sequence[str] = (),
    limits: tuple[float, float] | None = None,
) -> Patient:
    """A case of a cohort, with the first structures that it shows and their volumes, or with what methods found.

    Args:
        prepared: the cohort.
        case: its name.
        probabilities: title of a method to its probability ``(S, z, y, x)``, as in ``record.prediction(case)[1]``.
        structures: of the maps, in their order, named as the cohort does; needed with ``probabilities`` alone.
        channels: that are shown; by default all.
        limits: see `Patient`.
    """
    about = prepared.case(case)
    names = structures if probabilities else tuple(prepared.structures)
    masks = {name: mask_of(np.asarray(about.label), prepared.structures, name) for name in names}
    spacing_mm = about.spacing_mm if prepared.spacing_known else (np.nan,) * 3
    cells, maps = {}, {}
    if probabilities:
        maps = {method: dict(zip(names, found, strict=True)) for method, found in probabilities.items()}
    else:
        # Without any, the first, which is empty: slices then go through the middle.
        seen = [name for name, mask in masks.items() if mask.any()][:MOST_OUTLINES] or list(masks)[:1]
        masks = {name: masks[name] for name in seen}
        if prepared.spacing_known:
            millilitres = np.prod(spacing_mm) / 1000
            cells = {f"{name} (ml)": f"{mask.sum() * millilitres:.1f}" for name, mask in masks.items()}
    numbers = {name: prepared.channels.index(name) for name in channels or prepared.channels}
    series = {name: np.asarray(about.image[number]) for name, number in numbers.items()}
    return Patient(case, series, masks, spacing_mm, cells, about.geometry, maps, limits)


def pack(patient: Patient) -> tuple[dict, dict[str, bytes]]:
    """What the script is told of a patient, and the files that it names.

    That is its name, title to file of its series and of the outlines of each structure, and where slices go through at
    the start, as parts of the (x, y, z) extent. Volumes are within `SET_VOXELS`: cut to the masks and to what methods
    mark, with a margin, then every n-th pixel, of which ``step`` tells.

    Raises:
        InputError: no series or no masks, arrays that lie on different grids, a method without a map of a structure.
    """
    outlines = patient.structures()
    layers = {f"{of} {title}".strip(): layer for of, found in outlines.items() for title, layer in found.items()}
    shapes = {title: array.shape for title, array in (dict(patient.series) | layers).items()}
    if len(set(shapes.values())) != 1 or not (patient.series and patient.masks):
        raise InputError(
            f"viewer: patient {patient.name} needs series and masks on one grid (z, y, x), got {shapes or 'nothing'}"
        )
    spacing_mm = cubes(patient.spacing_mm)
    most, first = SET_VOXELS // len(patient.series), next(iter(patient.masks.values()))
    box: tuple[slice, ...] = (slice(None),) * 3
    if first.size > most:
        box = box_around([layer > 0 for layer in layers.values()], np.ceil(MARGIN_MM / spacing_mm).astype(int).tolist())
    step = 1
    while first[box][:, ::step, ::step].size > most:
        step += 1
    files: dict[str, bytes] = {}

    def keep(pixels: np.ndarray) -> tuple[str, np.ndarray]:
        image = sitk.DICOMOrient(
            to_itk(pixels[box][:, ::step, ::step], tuple(spacing_mm * (1, step, step)), patient.geometry), "RAS"
        )
        # Planes are those of the scanner: a tilt of a few degrees would only blur them.
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        image.SetOrigin((0, 0, 0))
        content = _nifti(image)
        name = f"{sha256(content).hexdigest()[:16]}.nii.gz"
        files[name] = content
        return name, sitk.GetArrayFromImage(image)

    structures: dict[str, dict[str, str]] = {}
    start: dict[str, list[float]] = {}
    for structure, found in outlines.items():
        kept = {title: keep(np.asarray(layer, np.uint8)) for title, layer in found.items()}
        structures[structure] = {title: name for title, (name, _) in kept.items()}
        upright = next(iter(kept.values()))[1]
        places = zip(largest_slices(upright), upright.shape, strict=True)
        start[structure] = [(place + 0.5) / size for place, size in places][::-1]
    series = {title: keep(grey(image, patient.limits))[0] for title, image in patient.series.items()}
    return {"name": patient.name, "series": series, "structures": structures, "start": start, "step": step}, files


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


def _nifti(image: sitk.Image) -> bytes:
    """A gzipped NIfTI file; the same image gives the same bytes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii"
        sitk.WriteImage(image, str(path))
        return gzip.compress(path.read_bytes(), mtime=0)

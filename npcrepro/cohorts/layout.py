"""Cohorts on disk: the nnU-Net raw layout (v2), its check, its splits, and a memory-mapped copy for training.

A cohort is a folder with ``dataset.json``, ``imagesTr/CASE_0000.nii.gz`` (one file a channel) and
``labelsTr/CASE.nii.gz``. ``dataset.json`` holds ``channel_names``, ``labels``, ``numTraining``, ``file_ending`` and
optionally ``dataset`` (v2: the files of each case, in place of the folder scan). Our own optional fields:

* ``name``, ``reference``, ``licence``, ``publishable`` (false by default);
* ``spacing_known`` (true by default): whether the spacing in the headers is that of the scanner;
* ``groups``: case to patient, where a patient has more than one case (by default a case is a patient);
* ``wrong_labels``: cases that are never used;
* ``suspect_labels``: cases that are scored and reported apart, and left out of training.

Arrays are ``(z, y, x)``, images ``(C, z, y, x)``, spacing is ``spacing_mm: (z, y, x)``. A 2-D image is a volume of one
slice. ``geometry`` keeps origin and direction as SimpleITK gives them: in (x, y, z) order, LPS, millimetres.
"""

import difflib
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import struct
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from npcrepro.errors import InputError

# Half a voxel at the edge of a 512 matrix: what rounding a spacing to three decimals does, and no more.
SPACING_TOLERANCE = 1e-3
ORIGIN_TOLERANCE_VOXELS = 0.1
DIRECTION_TOLERANCE = 1e-3
LABEL_TOLERANCE = 1e-3
OBLIQUE_TOLERANCE_DEG = 10.0
SPACING_OUTLIER = 2.0
IN_PLANE_TOLERANCE = 0.05

OUR_FIELDS = (
    "name",
    "reference",
    "licence",
    "publishable",
    "spacing_known",
    "groups",
    "wrong_labels",
    "suspect_labels",
)
NNUNET_FIELDS = ("channel_names", "labels", "numTraining", "file_ending", "dataset")
IMAGE_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".png", ".tif", ".tiff")
KEPT_DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "float32")
KINDS = ("leave-one-out", "k-fold", "fixed")


@dataclass(frozen=True)
class Defect:
    """One thing wrong with a cohort. ``file`` is relative to the cohort where it can be."""

    severity: Literal["error", "warning"]
    file: str
    problem: str
    value: str
    cause: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem} ({self.value}); likely cause: {self.cause}"


class _Defects(list[Defect]):
    def error(self, file: str, problem: str, value: object, cause: str) -> None:
        self.append(Defect("error", file, problem, str(value), cause))

    def warning(self, file: str, problem: str, value: object, cause: str) -> None:
        self.append(Defect("warning", file, problem, str(value), cause))


class _Refused(InputError):
    """An InputError that still carries the defect, so that `check` can collect it."""

    def __init__(self, defect: Defect, case: str | None = None):
        super().__init__(f"case {case}: {defect}" if case else str(defect))
        self.defect = defect


@dataclass(frozen=True)
class Case:
    """One case: its images in channel order and its label. ``suspect``: scored, but not trained on."""

    name: str
    patient: str
    images: tuple[Path, ...]
    label: Path
    suspect: bool = False


@dataclass(frozen=True)
class Cohort:
    """A cohort as its ``dataset.json`` describes it. ``structures`` leaves the background out; ``excluded`` names the
    cases with wrong labels, which are not in ``cases``."""

    root: Path
    name: str
    channels: tuple[str, ...]
    structures: dict[str, int]
    cases: tuple[Case, ...]
    excluded: tuple[str, ...]
    spacing_known: bool
    licence: str
    reference: str
    publishable: bool

    @property
    def patients(self) -> tuple[str, ...]:
        """Patients, sorted, each once."""
        return tuple(sorted({case.patient for case in self.cases}))

    def cases_of(self, patients: Iterable[str], include_suspect: bool = True) -> list[str]:
        """Names of the cases of these patients, sorted. An unknown patient is an InputError."""
        rows = [(case.name, case.patient, case.suspect) for case in self.cases]
        return _cases_of(self.name, rows, patients, include_suspect)


@dataclass(frozen=True)
class CaseArrays:
    """One case in memory: ``image`` (C, z, y, x), ``label`` (z, y, x) of integers, ``spacing_mm`` (z, y, x).

    Without ``geometry`` (see `read_image`) the origin is zero and the axes are those of the patient.
    """

    name: str
    patient: str
    image: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, float, float]
    suspect: bool = False
    geometry: dict[str, list[float]] | None = None


# ---------------------------------------------------------------------------------------------------------------------
# dataset.json and the list of files


@dataclass
class _Scan:
    header: dict[str, Any]
    channels: tuple[str, ...]
    structures: dict[str, int] | None
    cases: list[Case]
    excluded: tuple[str, ...]
    defects: _Defects


def _near(word: str, options: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return near[0] if near else ""


def _slip(word: str, options: Iterable[str], otherwise: str) -> str:
    near = _near(word, options)
    return f"a typing slip for {near!r}" if near else otherwise


def _scan(root: Path) -> _Scan:
    """Read dataset.json and list the files, collecting what is wrong and going on with what is left."""
    defects = _Defects()
    if not root.is_dir():
        defects.error(".", "no such folder", root, "a mistyped path, or data that are not mounted here")
        return _Scan({}, (), None, [], (), defects)
    header = _read_header(root, defects)
    if header is not None:
        for key in sorted(set(header) - {*OUR_FIELDS, *NNUNET_FIELDS}):
            near = difflib.get_close_matches(key, [*OUR_FIELDS, *NNUNET_FIELDS], n=1, cutoff=0.8)
            if near:
                defects.warning(
                    "dataset.json", "unknown field, which is ignored", key, f"a typing slip for {near[0]!r}"
                )
    channels = _channels(header, defects)
    structures = _structures(header, defects)
    header = header or {}
    ending = header.get("file_ending", ".nii.gz")
    wrong = _names(header, "wrong_labels", defects)
    suspect = _names(header, "suspect_labels", defects)
    groups = header.get("groups", {})
    if not _is_mapping(groups, str):
        defects.error(
            "dataset.json", "'groups' does not map cases to patients", groups, 'it looks like {"CASE": "PATIENT"}'
        )
        groups = {}

    if "dataset" in header:
        listed = _mapped_files(root, header["dataset"], len(channels) if channels else None, wrong, defects)
    else:
        listed = _scanned_files(root, ending, channels, wrong, defects)
    cases = [
        Case(name, groups.get(name, name), tuple(images), label, name in suspect)
        for name, (images, label) in sorted(listed.items())
        if name not in wrong
    ]
    excluded = tuple(sorted(set(wrong) & set(listed)))
    for key, names in (("groups", groups), ("wrong_labels", wrong), ("suspect_labels", suspect)):
        for name in names:
            if name not in listed:
                cause = _slip(name, listed, "a mistyped case name, or a case that was removed")
                defects.warning("dataset.json", f"'{key}' names a case that is not there", name, cause)
    if "numTraining" in header and header["numTraining"] != len(listed):
        cause = "cases were added or removed after dataset.json was written"
        defects.warning(
            "dataset.json", f"'numTraining' is not the number of cases, {len(listed)}", header["numTraining"], cause
        )
    if not cases:
        where = "dataset.json" if "dataset" in header else "labelsTr"
        if listed:
            defects.error(where, "no cases left", f"{len(excluded)} excluded", "'wrong_labels' names every case")
        else:
            others = _other_endings(root, ending)
            cause = f"'file_ending' is {ending} but the files end with {others}" if others else "the folder is empty"
            defects.error(where, "no cases", f"file_ending {ending}", cause)
    return _Scan(header, channels or (), structures, cases, excluded, defects)


def _read_header(root: Path, defects: _Defects) -> dict[str, Any] | None:
    """The fields of dataset.json whose type is right; None where the file cannot be read."""
    path = root / "dataset.json"
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(key for key, n in Counter(key for key, _ in items).items() if n > 1)
        return dict(items)

    try:
        header = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs)
    except FileNotFoundError:
        cause = "not the folder of a cohort; it holds dataset.json, imagesTr and labelsTr"
        defects.error("dataset.json", "missing", path, cause)
        return None
    except (OSError, ValueError) as problem:
        defects.error(
            "dataset.json", "not valid JSON", problem, "a comma or quote lost while editing, or a cut-off download"
        )
        return None
    if not isinstance(header, dict):
        defects.error(
            "dataset.json", "not a JSON object", type(header).__name__, "another file was saved under this name"
        )
        return None
    for name in twice:
        defects.error(
            "dataset.json", "the same name twice", name, "an entry was copied and not renamed; only the last one counts"
        )
    types = {"name": str, "reference": str, "licence": str, "publishable": bool, "spacing_known": bool}
    types |= {"file_ending": str, "dataset": dict, "numTraining": int}
    for key, kind in types.items():
        if key in header and type(header[key]) is not kind:
            defects.error(
                "dataset.json", f"{key!r} is not a {kind.__name__}", repr(header[key]), "a typing slip in dataset.json"
            )
            del header[key]
        elif key == "file_ending" and key not in header:
            defects.error("dataset.json", "missing field", key, 'dataset.json needs "file_ending": ".nii.gz"')
    if not header.get("file_ending", ".").startswith("."):
        defects.error(
            "dataset.json", "'file_ending' has no dot", repr(header.pop("file_ending")), 'it looks like ".nii.gz"'
        )
    if not _is_file_name(header.get("name", "cohort")):
        defects.error(
            "dataset.json", "'name' cannot be part of a file name", repr(header.pop("name")), "a path was given as name"
        )
    return header


def _is_mapping(value: object, kind: type) -> bool:
    return isinstance(value, dict) and all(type(item) is kind for item in value.values())


def _is_file_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\:\0")


def _names(header: dict[str, Any], key: str, defects: _Defects) -> list[str]:
    names = header.get(key, [])
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    defects.error("dataset.json", f"{key!r} is not a list of case names", repr(names), 'it looks like ["CASE", "CASE"]')
    return []


def _channels(header: dict[str, Any] | None, defects: _Defects) -> tuple[str, ...] | None:
    if header is None:
        return None
    if "channel_names" not in header:
        cause = "nnU-Net v1 wrote 'modality'; v2 reads 'channel_names'" if "modality" in header else "it is required"
        defects.error("dataset.json", "missing field", "channel_names", cause)
        return None
    names = header["channel_names"]
    if not _is_mapping(names, str) or not names or set(names) != {str(i) for i in range(len(names))}:
        cause = 'channels are numbered from "0", as in {"0": "T1", "1": "CT"}'
        defects.error("dataset.json", "'channel_names' does not number the channels", names, cause)
        return None
    return tuple(names[str(i)] for i in range(len(names)))


def _structures(header: dict[str, Any] | None, defects: _Defects) -> dict[str, int] | None:
    if header is None:
        return None
    if "labels" not in header:
        defects.error(
            "dataset.json", "missing field", "labels", 'dataset.json needs "labels": {"background": 0, "GTVp": 1}'
        )
        return None
    labels = header["labels"]
    problem = ""
    if not _is_mapping(labels, int):
        problem = "'labels' does not map names to integers"
    elif labels.get("background") != 0:
        problem = "'labels' has no background 0"
    elif "ignore" in labels:
        problem = "'labels' has an ignore label, which is not supported"
    elif len(labels) < 2:
        problem = "'labels' has no structure"
    elif len(set(labels.values())) < len(labels) or not all(0 <= value <= 255 for value in labels.values()):
        problem = "'labels' are not different integers from 0 to 255"
    if problem:
        cause = 'nnU-Net v1 or region labels; here it looks like {"background": 0, "GTVp": 1}'
        defects.error("dataset.json", problem, labels, cause)
        return None
    return {name: value for name, value in labels.items() if name != "background"}


_Listed = dict[str, tuple[list[Path], Path]]


def _mapped_files(
    root: Path, entries: dict[str, Any], n_channels: int | None, wrong: list[str], defects: _Defects
) -> _Listed:
    listed: _Listed = {}
    for name, entry in entries.items():
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        paths = isinstance(images, list) and all(isinstance(image, str) for image in images) and isinstance(label, str)
        if not _is_file_name(name):
            defects.error(
                "dataset.json", "case name cannot be part of a file name", repr(name), "a path was given as case name"
            )
            continue
        if not paths:
            cause = 'an entry of \'dataset\' looks like {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}'
            defects.error("dataset.json", "case without 'images' and 'label'", name, cause)
            continue
        listed[name] = ([root / image for image in images], root / label)
        if name in wrong:
            continue
        if n_channels is not None and len(images) != n_channels:
            problem = "missing channel" if len(images) < n_channels else "more images than channels"
            value = f"case {name} has {len(images)} of {n_channels}"
            defects.error("dataset.json", problem, value, "'dataset' and 'channel_names' disagree")
        for path in [*images, label]:
            if not (root / path).is_file():
                defects.error(
                    path, "no such file", f"case {name}", "moved, or relative to another folder than the cohort's"
                )
    return listed


def _scanned_files(
    root: Path, ending: str, channels: tuple[str, ...] | None, wrong: list[str], defects: _Defects
) -> _Listed:
    images: dict[str, dict[int, Path]] = {}
    labels: dict[str, Path] = {}
    for path in _files(root / "imagesTr"):
        if path.name.endswith(ending):
            match = re.fullmatch(r"(.+)_(\d{4})", path.name.removesuffix(ending))
            if match:
                images.setdefault(match[1], {})[int(match[2])] = path
            else:
                cause = "an image is named CASE_0000 for channel 0, CASE_0001 for channel 1"
                defects.error(f"imagesTr/{path.name}", "image without a channel number", path.name, cause)
    labels = {p.name.removesuffix(ending): p for p in _files(root / "labelsTr") if p.name.endswith(ending)}
    for folder in ("imagesTr", "labelsTr"):
        _report_other_endings(root / folder, ending, defects)

    if channels is None:
        numbers = sorted({number for found in images.values() for number in found})
    else:
        numbers = list(range(len(channels)))
    for name in sorted(set(images) | set(labels)):
        if name in wrong:
            continue
        found = images.get(name, {})
        if name not in labels:
            cause = "the label was not exported, or carries another name"
            if any(f"{name}_{number:04d}" in labels for number in found):
                cause = "the label is named like an image: a label has no _0000"
            defects.error(f"labelsTr/{name}{ending}", "image without label", name, cause)
        if not found:
            cause = "the image was not exported, or carries another name"
            if re.fullmatch(r".+_\d{4}", name):
                cause = "the label is named like an image: a label has no _0000"
            elif f"{name}{ending}" in {path.name for path in _files(root / "imagesTr")}:
                cause = "the image has no channel number: it is named CASE_0000"
            defects.error(f"labelsTr/{name}{ending}", "label without image", name, cause)
            continue
        for number in numbers:
            if number not in found:
                value = f"channel {number}" + (f", {channels[number]}" if channels else "")
                cause = "the sequence was not exported for this case, or channel_names has one too many"
                defects.error(f"imagesTr/{name}_{number:04d}{ending}", "missing channel", value, cause)
        for number in sorted(set(found) - set(numbers)):
            cause = "channel_names does not list this channel; it is ignored"
            defects.warning(f"imagesTr/{found[number].name}", "image of an unknown channel", f"channel {number}", cause)
    return {
        name: (
            [images[name][n] for n in numbers if n in images.get(name, {})],
            labels.get(name, root / "labelsTr" / f"{name}{ending}"),
        )
        for name in sorted(set(images) | set(labels))
    }


def _files(folder: Path) -> list[Path]:
    # Hidden files are left behind by macOS ("._CASE.nii.gz") and are no images.
    # A link that leads nowhere is a missing file.
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != ".") if folder.is_dir() else []


def _ending(path: Path) -> str:
    return next((ending for ending in IMAGE_ENDINGS if path.name.endswith(ending)), "")


def _other_endings(root: Path, ending: str) -> str:
    files = [*_files(root / "imagesTr"), *_files(root / "labelsTr")]
    return ", ".join(sorted({_ending(path) for path in files} - {ending, ""}))


def _report_other_endings(folder: Path, ending: str, defects: _Defects) -> None:
    files = _files(folder)
    kept = {path.name.removesuffix(ending) for path in files if path.name.endswith(ending)}
    for path in files:
        other = _ending(path)
        if not other or path.name.endswith(ending):
            continue
        stem = path.name.removesuffix(other)
        if stem in kept:
            cause = f"converted and not removed; only {stem}{ending} is read"
            defects.error(f"{folder.name}/{path.name}", "the same case name twice", stem, cause)
        else:
            cause = f"'file_ending' is {ending}; the file is ignored"
            defects.warning(f"{folder.name}/{path.name}", "another file ending", other, cause)


def read_cohort(root: str | Path) -> Cohort:
    """Read ``dataset.json`` and list the files of a cohort; images are not opened (see `check` and `prepare`).

    Raises InputError for a missing folder or ``dataset.json``, bad JSON, a missing field, a missing label or channel,
    a case that is there twice, and for a cohort without cases. Cases with wrong labels may lack files.
    """
    root = Path(root)
    scan = _scan(root)
    for defect in scan.defects:
        if defect.severity == "error":
            # The cohort's folder is what a user typed; without it "dataset.json: missing" says little.
            raise _Refused(replace(defect, file=str(root / defect.file)))
    header = scan.header
    return Cohort(
        root=root,
        name=header.get("name") or root.resolve().name,
        channels=scan.channels,
        structures=scan.structures or {},
        cases=tuple(scan.cases),
        excluded=scan.excluded,
        spacing_known=header.get("spacing_known", True),
        licence=header.get("licence", ""),
        reference=header.get("reference", ""),
        publishable=header.get("publishable", False),
    )


# ---------------------------------------------------------------------------------------------------------------------
# images


def read_image(path: str | Path) -> tuple[np.ndarray, tuple[float, float, float], dict[str, list[float]]]:
    """Read one scalar image: ``(array (z, y, x), spacing_mm (z, y, x), geometry)``.

    ``geometry`` is ``{"origin": [x, y, z], "direction": [nine numbers, row by row]}`` in LPS millimetres. A 2-D image
    becomes one slice with a z spacing of 1 mm. NaN and infinite values are kept. Raises InputError for a file that is
    missing, unreadable or truncated, or has more than one value a voxel or a time axis.
    """
    import SimpleITK as sitk

    path = Path(path)
    index, values = _lost_values(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as problem:
        reason = str(problem).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        cause = "not an image, a broken header, or axes that are not orthogonal"
        raise _unreadable(path, reason, cause) from None
    if image.GetNumberOfComponentsPerPixel() > 1 or image.GetDimension() not in (2, 3):
        value = f"size {image.GetSize()} with {image.GetNumberOfComponentsPerPixel()} values a voxel"
        raise _unreadable(path, value, "several channels or time points in one file: save one file a channel")
    array = sitk.GetArrayFromImage(image)
    array.ravel()[index] = values
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
        array = array[None]
    x, y, z = image.GetSpacing()
    geometry = {"origin": list(image.GetOrigin()), "direction": list(image.GetDirection())}
    return array, (z, y, x), geometry


def _unreadable(path: Path, value: object, cause: str) -> _Refused:
    return _Refused(Defect("error", str(path), "cannot be read", str(value), cause))


def _lost_values(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Raise InputError for a truncated file; return index (in file order) and value of the voxels that are not finite.

    ITK fills a truncated NIfTI with zeros, makes NaN and infinite values zero, and says nothing of either.
    """
    if not path.is_file():
        raise _unreadable(path, "no such file", "moved, removed or mistyped")
    lost = np.empty(0, np.int64), np.empty(0)
    if not path.name.endswith((".nii", ".nii.gz")):
        return lost
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            data = file.read()
    except (EOFError, OSError, zlib.error) as problem:
        cause = "truncated or damaged: an interrupted copy or download"
        raise _unreadable(path, f"{path.stat().st_size} bytes, {problem}", cause) from None
    layout = _nifti_layout(data)
    if layout is None:
        cause = "not a NIfTI file: another format under this ending, or an error page"
        raise _unreadable(path, f"{len(data)} bytes", cause)
    offset, voxels, bits, number_type = layout
    needed = offset + voxels * bits // 8
    if len(data) < needed:
        cause = "truncated: an interrupted copy or download, or a full disk"
        raise _unreadable(path, f"{len(data)} bytes of {needed}", cause)
    if number_type is not None:
        values = np.frombuffer(data, number_type, voxels, offset)
        index = np.flatnonzero(~np.isfinite(values))
        lost = index, values[index]
    return lost


def _nifti_layout(data: bytes) -> tuple[int, int, int, str | None] | None:
    """Offset, voxels, bits a voxel and (for floats) number type of a single-file NIfTI-1 or -2; None for others."""
    for order in "<>":
        if len(data) >= 348 and struct.unpack_from(f"{order}i", data)[0] == 348:
            dim = struct.unpack_from(f"{order}8h", data, 40)
            code, bits = struct.unpack_from(f"{order}2h", data, 70)
            offset = struct.unpack_from(f"{order}f", data, 108)[0]
        elif len(data) >= 540 and struct.unpack_from(f"{order}i", data)[0] == 540:
            code, bits = struct.unpack_from(f"{order}2h", data, 12)
            dim = struct.unpack_from(f"{order}8q", data, 16)
            offset = struct.unpack_from(f"{order}q", data, 168)[0]
        else:
            continue
        if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1 or not 0 <= offset < 2**31:
            return None
        return int(offset), math.prod(dim[1 : dim[0] + 1]), bits, {16: f"{order}f4", 64: f"{order}f8"}.get(code)
    return None


def write_cohort(
    root: str | Path,
    cases: Iterable[CaseArrays],
    *,
    name: str,
    channels: Sequence[str],
    structures: dict[str, int],
    reference: str = "",
    licence: str = "",
    publishable: bool = False,
    spacing_known: bool = True,
) -> Cohort:
    """Write a cohort in the nnU-Net raw layout and return it as read back.

    ``cases`` may be a generator: one case is in memory at a time. ``structures`` leaves the background out. Everything
    is written to a folder beside ``root`` and moved into place at the end. Raises InputError where ``root`` holds
    something already, for arrays that do not fit together, a case name given twice, an unknown label value, and no
    cases.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not empty: give a new folder, or remove it first")
    names: list[str] = []
    groups: dict[str, str] = {}
    suspects: list[str] = []
    with _folder_in_place(root) as folder:
        (folder / "imagesTr").mkdir()
        (folder / "labelsTr").mkdir()
        for case in cases:
            if case.name in names:
                raise InputError(f"case {case.name} is given twice: two sources carry the same case name")
            _write_case(folder, case, tuple(channels), structures)
            names.append(case.name)
            if case.patient != case.name:
                groups[case.name] = case.patient
            if case.suspect:
                suspects.append(case.name)
        header: dict[str, Any] = {"name": name, "reference": reference, "licence": licence, "publishable": publishable}
        header |= {"file_ending": ".nii.gz", "numTraining": len(names), "spacing_known": spacing_known}
        header["channel_names"] = {str(i): channel for i, channel in enumerate(channels)}
        header["labels"] = {"background": 0} | {key: int(value) for key, value in structures.items()}
        header |= {"groups": groups} if groups else {}
        header |= {"suspect_labels": suspects} if suspects else {}
        (folder / "dataset.json").write_text(json.dumps(header, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        try:
            read_cohort(folder)
        except _Refused as problem:
            raise InputError(str(problem).replace(str(folder), str(root))) from None
    return read_cohort(root)


def _write_case(folder: Path, case: CaseArrays, channels: tuple[str, ...], structures: dict[str, int]) -> None:
    import SimpleITK as sitk

    image, label = np.asarray(case.image), np.asarray(case.label)
    if not _is_file_name(case.name):
        raise InputError(f"case name {case.name!r} cannot be part of a file name: a path was given as case name")
    if image.ndim != 4 or len(image) != len(channels):
        cause = "images are stacked as (C, z, y, x)"
        raise InputError(f"case {case.name}: image of shape {image.shape} for {len(channels)} channels: {cause}")
    if label.shape != image.shape[1:]:
        cause = "the label was drawn on another grid"
        raise InputError(f"case {case.name}: label of shape {label.shape} for an image of {image.shape[1:]}: {cause}")
    if len(case.spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in case.spacing_mm):
        raise InputError(f"case {case.name}: spacing_mm {case.spacing_mm} is not three positive numbers (z, y, x)")
    mask, defects = _mask(label, structures, case.name)
    if mask is None:
        raise _Refused(defects[0], case.name)
    geometry = case.geometry or {"origin": [0.0] * 3, "direction": np.eye(3).ravel().tolist()}

    def write(array: np.ndarray, path: Path) -> None:
        # NIfTI has no booleans and no half precision.
        array = array.astype({"bool": "uint8", "float16": "float32"}.get(array.dtype.name, array.dtype.name))
        volume = sitk.GetImageFromArray(array)
        volume.SetSpacing([float(s) for s in reversed(case.spacing_mm)])
        volume.SetOrigin(geometry["origin"])
        volume.SetDirection(geometry["direction"])
        sitk.WriteImage(volume, str(path))

    for number, channel in enumerate(image):
        write(channel, folder / "imagesTr" / f"{case.name}_{number:04d}.nii.gz")
    write(mask, folder / "labelsTr" / f"{case.name}.nii.gz")


@contextmanager
def _folder_in_place(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that becomes ``target`` at the end, or goes where something fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent / f".{target.name}-{uuid.uuid4().hex[:8]}.tmp"
    folder.mkdir()
    try:
        yield folder
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}-{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# fingerprint


def fingerprint(cohort: Cohort, cache: Path | None = None) -> str:
    """SHA-256 (hex) of what a cohort means and holds, wherever its folder lies.

    Covers channels, structures, patients, excluded and suspect cases, whether the spacing is known, and the content of
    every file in use. ``cache`` is a JSON file of content hashes by path, size and modification time: with it a second
    call reads no image. Raises InputError where a file cannot be read.
    """
    known: dict[str, list] = {}
    if cache is not None and cache.is_file():
        try:
            known = json.loads(cache.read_text(encoding="utf-8"))
        except ValueError:
            known = {}  # a damaged cache costs time and nothing else
    fresh: dict[str, list] = {}

    def content(path: Path) -> str:
        try:
            stat = path.stat()
            key = str(path.resolve())
            entry = known.get(key)
            if entry is None or entry[:2] != [stat.st_size, stat.st_mtime_ns]:
                with open(path, "rb") as file:
                    entry = [stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
                fresh[key] = entry
        except OSError as problem:
            raise _unreadable(path, problem, "moved or removed since the cohort was read") from None
        return entry[2]

    meaning = {
        "channels": cohort.channels,
        "structures": cohort.structures,
        "spacing_known": cohort.spacing_known,
        "excluded": cohort.excluded,
        "cases": [
            [case.name, case.patient, case.suspect, [content(image) for image in case.images], content(case.label)]
            for case in cohort.cases
        ],
    }
    if cache is not None and fresh:
        _write_json(cache, known | fresh)
    return _sha256(meaning)


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# splits


@dataclass(frozen=True)
class Fold:
    """Patients of one fold, each tuple sorted. A patient is in one of them at most."""

    number: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """The folds of an experiment, as patients. ``sha256`` names them in a record."""

    kind: str
    seed: int
    folds: tuple[Fold, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of kind, seed and folds."""
        return _sha256(asdict(self))

    def write(self, path: str | Path) -> None:
        """Write the split as JSON, to be read by `read_split`."""
        _write_json(Path(path), asdict(self))


def read_split(path: str | Path) -> Split:
    """Read a split from JSON. Raises InputError for another file, or where a fold has a patient in two roles."""
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        folds = tuple(
            Fold(int(f["number"]), tuple(f["train"]), tuple(f["validation"]), tuple(f["test"])) for f in values["folds"]
        )
        split = Split(str(values["kind"]), int(values["seed"]), folds)
    except FileNotFoundError:
        raise InputError(f"{path}: no such split: a mistyped path") from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(f"{path}: not a split ({problem!r}): another file, or damaged while editing") from None
    for fold in folds:
        for patient, n in Counter((*fold.train, *fold.validation, *fold.test)).items():
            if n > 1:
                cause = "edited by hand; a patient has one role in a fold"
                raise InputError(f"{path}: fold {fold.number} names patient {patient!r} {n} times: {cause}")
    return split


def split_patients(
    cohort: "Cohort | PreparedCohort",
    kind: str,
    *,
    folds: int = 5,
    seed: int = 12345,
    validation: int = 1,
    test: Iterable[str] = (),
) -> Split:
    """Split the patients of a cohort; the same arguments give the same split on every machine.

    ``kind``: ``leave-one-out`` (a fold for each patient, in sorted order), ``k-fold`` (``folds`` folds, shuffled by
    ``seed``), ``fixed`` (one fold that tests the patients of ``test``). ``validation`` patients of each fold's training
    patients are set apart, chosen by ``seed``. A patient all of whose cases are suspect is tested like every other, but
    is in no train or validation. Raises InputError for an unknown kind or patient, and where too few patients are left.
    """
    patients = list(cohort.patients)
    usable = [p for p in patients if cohort.cases_of([p], include_suspect=False)]
    test = sorted(set(test))
    if kind not in KINDS:
        near = _near(kind, KINDS)
        cause = f"did you mean {near!r}?" if near else f"it is one of {', '.join(KINDS)}"
        raise InputError(f"unknown kind of split {kind!r}: {cause}")
    if bool(test) != (kind == "fixed"):
        raise InputError(f"{kind} split with test patients {test}: only a fixed split names them, and it needs some")
    if validation < 0:
        raise InputError(f"validation is {validation}: it is a number of patients, 0 or more")

    def shuffled(names: Iterable[str], *salt: object) -> list[str]:
        # By hash, not by a generator: the order then depends on no version of a library and on no other patient.
        return sorted(names, key=lambda p: hashlib.sha256(json.dumps([seed, *salt, p]).encode()).digest())

    if kind == "leave-one-out":
        tests = [[p] for p in patients]
    elif kind == "k-fold":
        if folds < 2 or folds > len(patients):
            cause = f"k-fold needs from 2 to {len(patients)} folds" if len(patients) > 1 else "k-fold needs at least 2"
            raise InputError(f"cohort {cohort.name} has {_count(len(patients))}, folds is {folds}: {cause}")
        # Dealt one after the other, so that neither kind of patient crowds into one fold.
        order = [*shuffled(usable, "k-fold"), *shuffled(set(patients) - set(usable), "k-fold")]
        tests = [sorted(order[i::folds]) for i in range(folds)]
    else:
        cohort.cases_of(test)
        tests = [test]

    result = []
    for number, tested in enumerate(tests):
        pool = [p for p in usable if p not in tested]
        if len(pool) < validation + 1:
            raise InputError(_too_few(cohort.name, kind, len(patients), len(usable), validation, number, len(pool)))
        inner = sorted(shuffled(pool, number)[:validation])
        train = tuple(p for p in pool if p not in inner)
        result.append(Fold(number, train, tuple(inner), tuple(tested)))
    return Split(kind, seed, tuple(result))


def _count(n: int) -> str:
    return f"{n} patient" if n == 1 else f"{n} patients"


def _too_few(name: str, kind: str, patients: int, usable: int, validation: int, number: int, left: int) -> str:
    has = f"cohort {name} has {_count(patients)}"
    if usable < patients:
        has += f", of which {usable} can be trained on (the others have suspect labels only)"
    if kind == "leave-one-out":
        parts = f"1 to test, {validation} to validate, 1 to train"
        return f"{has}: leave-one-out needs at least {2 + validation} ({parts})"
    return f"{has}: fold {number} of the {kind} split leaves {left} to train and validate, of {1 + validation} needed"


def _cases_of(
    cohort: str, rows: Iterable[tuple[str, str, bool]], patients: Iterable[str], include_suspect: bool
) -> list[str]:
    rows = list(rows)
    wanted = set(patients)
    known = {patient for _, patient, _ in rows}
    for patient in sorted(wanted - known):
        cause = _slip(patient, known, "a mistyped name, or a split of another cohort")
        raise InputError(f"cohort {cohort} has no patient {patient!r}: {cause}")
    return sorted(name for name, patient, suspect in rows if patient in wanted and (include_suspect or not suspect))


# ---------------------------------------------------------------------------------------------------------------------
# one case, looked at


@dataclass
class _Content:
    images: list[tuple[Path, np.ndarray]]
    mask: np.ndarray | None
    spacing_mm: tuple[float, float, float]
    geometry: dict[str, list[float]]


def _inspect(case: Case, structures: dict[str, int] | None, root: Path) -> tuple[_Content | None, list[Defect]]:
    """Read one case and list its defects. None where no image can be read."""
    defects: list[Defect] = []
    reference = None
    images = []
    for path in case.images:
        found = _try_read(path, root, defects)
        if found is None:
            continue
        array, spacing, geometry = found
        if not np.isfinite(array).all():
            defects.append(_not_finite(_shown(path, root), array))
        if reference is None:
            reference = (_shown(path, root), array.shape, spacing, geometry)
        else:
            cause = "the channels were not resampled to one grid, or belong to different studies"
            defects += _grid_defects(_shown(path, root), (array.shape, spacing, geometry), *reference, cause)
        images.append((path, array))
    mask = None
    found = _try_read(case.label, root, defects)
    if found is not None:
        array, spacing, geometry = found
        if reference is not None:
            cause = "the label was drawn on another series or resampled, or its header was lost on export"
            defects += _grid_defects(_shown(case.label, root), (array.shape, spacing, geometry), *reference, cause)
        mask, more = _mask(array, structures, _shown(case.label, root))
        defects += more
    content = None if reference is None else _Content(images, mask, reference[2], reference[3])
    return content, defects


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _try_read(path: Path, root: Path, defects: list[Defect]) -> tuple | None:
    try:
        return read_image(path)
    except _Refused as problem:
        defects.append(replace(problem.defect, file=_shown(path, root)))
        return None


def _not_finite(file: str, array: np.ndarray) -> Defect:
    value = f"{int((~np.isfinite(array)).sum())} voxels"
    cause = "a division by zero in preprocessing, or a resampling outside the image"
    return Defect("error", file, "NaN or infinite values", value, cause)


def _grid_defects(
    file: str, grid: tuple, other: str, shape: tuple, spacing: tuple, geometry: dict, cause: str
) -> list[Defect]:
    """What differs between the grid of ``file`` and that of ``other``."""

    def differs(what: str, mine: Sequence, theirs: Sequence, why: str) -> Defect:
        value = f"{_numbers(mine)} and {_numbers(theirs)} in {other}"
        return Defect("error", file, f"another grid: {what} differs", value, why)

    if grid[0] != shape:
        if sorted(grid[0]) == sorted(shape):
            cause = "the axes were transposed on export"
        return [differs("shape (z, y, x)", grid[0], shape, cause)]
    defects = []
    if not np.allclose(grid[1], spacing, rtol=SPACING_TOLERANCE, atol=0):
        defects.append(differs("spacing_mm (z, y, x)", grid[1], spacing, cause))
    mine, theirs = np.array(grid[2]["direction"]), np.array(geometry["direction"])
    if np.abs(mine - theirs).max() > DIRECTION_TOLERANCE:
        mirrored = np.allclose(np.abs(mine), np.abs(theirs), atol=DIRECTION_TOLERANCE)
        why = "one of the two was flipped on export" if mirrored else cause
        defects.append(differs("direction", mine, theirs, why))
    shift = np.abs(np.subtract(grid[2]["origin"], geometry["origin"])).max()
    if shift > ORIGIN_TOLERANCE_VOXELS * min(spacing):
        defects.append(differs("origin (x, y, z)", grid[2]["origin"], geometry["origin"], cause))
    return defects


def _numbers(values: Sequence) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _mask(array: np.ndarray, structures: dict[str, int] | None, file: str) -> tuple[np.ndarray | None, list[Defect]]:
    """The label as uint8, or None with the reason. Without ``structures`` any value from 0 to 255 will do."""
    if not np.isfinite(array).all():
        return None, [_not_finite(file, array)]
    values = np.unique(array)
    if array.dtype.kind == "f":
        between = values[np.abs(values - np.rint(values)) > LABEL_TOLERANCE]
        if between.size:
            value = ", ".join(f"{v:.4g}" for v in between[:3]) + (", ..." if between.size > 3 else "")
            cause = "a label resampled with interpolation: use nearest neighbour"
            return None, [Defect("error", file, "label values that are no integers", value, cause)]
        array, values = np.rint(array), np.unique(np.rint(values))
    allowed = range(256) if structures is None else [0, *structures.values()]
    unknown = [v for v in values.tolist() if v not in allowed]
    if unknown:
        value = ", ".join(f"{v:g} in {int((array == v).sum())} voxels" for v in unknown[:3])
        value += ", ..." if len(unknown) > 3 else ""
        cause = "another numbering of structures (255 for 1 is usual), or 'labels' in dataset.json is not complete"
        return None, [Defect("error", file, "unknown label value", value, cause)]
    if values.tolist() == [0]:
        cause = "nothing was drawn, or the export took another structure; a case without tumour is rightly empty"
        return array.astype(np.uint8), [Defect("warning", file, "empty label", "0 voxels", cause)]
    return array.astype(np.uint8), []


# ---------------------------------------------------------------------------------------------------------------------
# prepared cohorts


@dataclass(frozen=True)
class PreparedCase:
    """One case, memory-mapped and read-only.

    ``image`` (C, z, y, x) in the number type that `prepare` keeps, ``label`` (z, y, x) uint8, ``spacing_mm`` (z, y, x)
    as the header gives it (``spacing_known`` of the cohort says whether it can be trusted), ``geometry`` as in
    `read_image`.
    """

    name: str
    patient: str
    suspect: bool
    image: np.memmap
    label: np.memmap
    spacing_mm: tuple[float, float, float]
    geometry: dict[str, list[float]]


@dataclass(frozen=True)
class PreparedCohort:
    """A cohort as NumPy files, checked once; training needs no image library. Make it with `prepare` or
    `read_prepared`."""

    folder: Path
    name: str
    fingerprint: str
    channels: tuple[str, ...]
    structures: dict[str, int]
    spacing_known: bool
    publishable: bool
    licence: str
    reference: str
    entries: dict[str, dict[str, Any]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def cases(self) -> list[str]:
        """Names of the cases, sorted."""
        return list(self.entries)

    @property
    def patients(self) -> tuple[str, ...]:
        """Patients, sorted, each once."""
        return tuple(sorted({entry["patient"] for entry in self.entries.values()}))

    def cases_of(self, patients: Iterable[str], include_suspect: bool = True) -> list[str]:
        """Names of the cases of these patients, sorted. An unknown patient is an InputError."""
        rows = [(name, entry["patient"], entry["suspect"]) for name, entry in self.entries.items()]
        return _cases_of(self.name, rows, patients, include_suspect)

    def case(self, name: str) -> PreparedCase:
        """Open one case; voxels are read when they are used. An unknown name is an InputError."""
        if name not in self.entries:
            cause = _slip(name, self.entries, "a mistyped name, or a case that was excluded")
            raise InputError(f"cohort {self.name} has no case {name!r}: {cause}")
        entry = self.entries[name]
        arrays = []
        for kind in ("image", "label"):
            path = self.folder / f"{name}.{kind}.npy"
            try:
                arrays.append(np.load(path, mmap_mode="r"))
            except (OSError, EOFError, ValueError) as problem:
                raise _unreadable(path, problem, "damaged: remove the folder and prepare the cohort again") from None
        spacing = tuple(entry["spacing_mm"])
        return PreparedCase(name, entry["patient"], entry["suspect"], *arrays, spacing, entry["geometry"])


def prepare(cohort: Cohort, folder: str | Path) -> PreparedCohort:
    """Write ``<folder>/<name>-<fingerprint[:8]>/`` with ``prepared.json``, ``CASE.image.npy`` and ``CASE.label.npy``.

    A cohort that was prepared before is read back. One case is in memory at a time; the folder appears when it is
    complete. Images keep their number type where it is one of ``KEPT_DTYPES`` for all channels together, and become
    float32 otherwise. Raises InputError that names the case for a truncated file, channels or a label on another grid,
    NaN or infinite values, and an unknown label value. An empty label is no error.
    """
    folder = Path(folder)
    digest = fingerprint(cohort, cache=folder / "fingerprints.json")
    target = folder / f"{cohort.name}-{digest[:8]}"
    words = {"licence": cohort.licence, "reference": cohort.reference, "publishable": cohort.publishable}
    try:
        prepared = read_prepared(target)
    except InputError:
        shutil.rmtree(target, ignore_errors=True)
    else:
        # The fingerprint does not cover these; a corrected licence must not be held up by voxels that are the same.
        if any(getattr(prepared, key) != value for key, value in words.items()):
            stored = json.loads((target / "prepared.json").read_text(encoding="utf-8"))
            _write_json(target / "prepared.json", stored | words)
        return read_prepared(target)

    try:
        with _folder_in_place(target) as temporary:
            entries = {case.name: _prepare_case(case, cohort, temporary) for case in cohort.cases}
            about = {"name": cohort.name, "fingerprint": digest, "channels": cohort.channels}
            about |= {"structures": cohort.structures, "spacing_known": cohort.spacing_known, **words}
            _write_json(temporary / "prepared.json", about | {"cases": entries})
    except OSError:
        # Another process may have put the same folder into place in the meantime.
        if not target.is_dir():
            raise
    return read_prepared(target)


def _prepare_case(case: Case, cohort: Cohort, folder: Path) -> dict[str, Any]:
    content, defects = _inspect(case, cohort.structures, cohort.root)
    for defect in defects:
        if defect.severity == "error":
            raise _Refused(defect, case.name)
    dtype = np.result_type(*(image.dtype for _, image in content.images))
    dtype = dtype if dtype.name in KEPT_DTYPES else np.dtype(np.float32)
    shape = (len(content.images), *content.images[0][1].shape)
    stacked = np.empty(shape, dtype)
    for number, (path, image) in enumerate(content.images):
        with np.errstate(over="ignore"):
            stacked[number] = image
        if not np.isfinite(stacked[number]).all():
            defect = _not_finite(_shown(path, cohort.root), stacked[number])
            raise _Refused(replace(defect, cause="values beyond the range of float32"), case.name)
    np.save(folder / f"{case.name}.image.npy", stacked)
    np.save(folder / f"{case.name}.label.npy", np.ascontiguousarray(content.mask))
    return {
        "patient": case.patient,
        "suspect": case.suspect,
        "spacing_mm": content.spacing_mm,
        "geometry": content.geometry,
    }


def read_prepared(folder: str | Path) -> PreparedCohort:
    """Read back what `prepare` wrote; needs no SimpleITK. Raises InputError where it is missing or not complete."""
    folder = Path(folder)
    path = folder / "prepared.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        entries = about.pop("cases")
        channels = tuple(about.pop("channels"))
        prepared = PreparedCohort(folder=folder, channels=channels, entries=entries, **about)
    except FileNotFoundError:
        raise InputError(f"{path}: missing: not the folder of a prepared cohort, or a mistyped path") from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(f"{path}: not a prepared cohort ({problem!r}): remove the folder and prepare again") from None
    for name in entries:
        for kind in ("image", "label"):
            if not (folder / f"{name}.{kind}.npy").is_file():
                raise InputError(f"{folder / f'{name}.{kind}.npy'}: missing: remove the folder and prepare again")
    return prepared


# ---------------------------------------------------------------------------------------------------------------------
# check


def check(root: str | Path) -> list[Defect]:
    """Every defect of a cohort in one pass, structure first, then case by case, then what sets cases apart.

    Nothing in the folder makes it raise. Looks at ``dataset.json``, missing files, unreadable and truncated images,
    grids, NaN and infinite values, label values, empty labels, cases that are there twice, orientation and spacing.
    Cases of ``wrong_labels`` are not looked at. An empty list means that `prepare` will not complain.
    """
    root = Path(root)
    scan = _scan(root)
    defects = list(scan.defects)
    # Files that the scan has reported as missing are not reported once more.
    cases = [replace(case, images=tuple(path for path in case.images if path.is_file())) for case in scan.cases]
    seen: dict[str, Case] = {}
    grids: dict[str, tuple[tuple[float, float, float], dict[str, list[float]]]] = {}
    for case in cases:
        content, found = _inspect(case, scan.structures, root)
        defects += [d for d in found if (d.problem, d.value) != ("cannot be read", "no such file")]
        if content is None:
            continue
        grids[_shown(content.images[0][0], root)] = (content.spacing_mm, content.geometry)
        twins = set()
        for path, array in content.images:
            digest = hashlib.sha256(repr((array.shape, array.dtype.name)).encode())
            digest.update(np.ascontiguousarray(array))
            first = seen.setdefault(digest.hexdigest(), case)
            if first.name != case.name and first.name not in twins:
                twins.add(first.name)
                defects.append(_twin(first, case, _shown(path, root)))
    defects += _orientation_defects({file: geometry["direction"] for file, (_, geometry) in grids.items()})
    if scan.header.get("spacing_known", True):
        defects += _spacing_defects({file: spacing for file, (spacing, _) in grids.items()})
    return defects


def _twin(first: Case, case: Case, file: str) -> Defect:
    problem = "the same image under two case names"
    if first.patient == case.patient:
        value = f"cases {first.name} and {case.name} of patient {case.patient}"
        return Defect("warning", file, problem, value, "one case was copied twice")
    value = f"cases {first.name} and {case.name} of patients {first.patient} and {case.patient}"
    cause = "one patient under two names, who would be in training and test: put both into 'groups'"
    return Defect("error", file, problem, value, cause)


def _axes(direction: Sequence[float]) -> tuple[str, float]:
    """Where the x, y and z axes of the array point to ("LPS" is the identity), and how far off they are, in degrees."""
    matrix = np.array(direction).reshape(3, 3)
    letters, off = "", 0.0
    for column in matrix.T:
        axis = int(np.abs(column).argmax())
        letters += ("LPS" if column[axis] > 0 else "RAI")[axis]
        off = max(off, float(np.degrees(np.arccos(min(1.0, abs(column[axis]))))))
    return letters, off


def _orientation_defects(directions: dict[str, Sequence[float]]) -> list[Defect]:
    axes = {file: _axes(direction) for file, direction in directions.items()}
    counts = Counter(letters for letters, _ in axes.values())
    usual = min(counts, key=lambda letters: (-counts[letters], letters != "LPS", letters), default="LPS")
    defects = []
    for file, (letters, off) in axes.items():
        if letters[2] not in "SI":
            cause = "a coronal or sagittal series, or axes transposed on export"
            defects.append(Defect("warning", file, "slices are not axial", f"axes {letters}", cause))
        elif letters != usual:
            cause = "a flip on export: arrays of this case are mirrored relative to the others"
            value = f"axes {letters}, {usual} in most cases"
            defects.append(Defect("warning", file, "another orientation than the other cases", value, cause))
        if off > OBLIQUE_TOLERANCE_DEG:
            cause = "an oblique acquisition that was not resampled"
            defects.append(Defect("warning", file, "oblique axes", f"{off:.0f} degrees off the patient's axes", cause))
    if usual != "LPS" and usual[2] in "SI":
        cause = "written by a tool with other conventions; arrays and figures are mirrored, labels still match"
        defects.append(Defect("warning", "imagesTr", "axes are not those of the patient (LPS)", f"axes {usual}", cause))
    return defects


def _spacing_defects(spacings: dict[str, tuple[float, float, float]]) -> list[Defect]:
    defects = []
    median = np.median(list(spacings.values()), axis=0) if spacings else np.ones(3)
    for file, spacing in spacings.items():
        ratio = np.array(spacing) / median
        if (ratio > SPACING_OUTLIER).any() or (ratio < 1 / SPACING_OUTLIER).any():
            value = f"spacing_mm (z, y, x) {_numbers(spacing)}, median {_numbers(median)}"
            cause = "a spacing lost or in another unit, or another protocol"
            defects.append(Defect("warning", file, "spacing far from that of the other cases", value, cause))
        if abs(spacing[1] / spacing[2] - 1) > IN_PLANE_TOLERANCE:
            cause = "axes mixed up on export, or resampled to a fixed matrix"
            value = f"y {spacing[1]:.6g} mm, x {spacing[2]:.6g} mm"
            defects.append(Defect("warning", file, "spacing differs in the plane", value, cause))
    return defects

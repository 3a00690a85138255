"""Cohorts on disk: the nnU-Net raw layout (v2), read and written.

A cohort is a folder with ``dataset.json``, ``imagesTr/CASE_0000.nii.gz`` (one file a channel) and
``labelsTr/CASE.nii.gz``. ``dataset.json`` holds ``channel_names``, ``labels``, ``numTraining``, ``file_ending`` and
optionally ``dataset`` (v2: the files of each case, in place of the folder scan). Our own optional fields:

* ``name``, ``reference``, ``licence``, ``publishable`` (false by default);
* ``spacing_known`` (true by default): whether the spacing in the headers is that of the scanner;
* ``groups``: case to patient, where a patient has more than one case (by default a case is a patient);
* ``wrong_labels``: cases that are never used;
* ``suspect_labels``: cases that are scored and reported apart, and left out of training;
* ``not_contoured``: case to the structures that nobody drew in it, which is not the same as their not being there;
* ``missing_series``: what becomes of a case without one of the channels: ``"leave-out"`` (by default), or ``"zero"``,
  an image of zeros in its place. `check` names it in either case. A case without any channel is an error.

Arrays are ``(z, y, x)``, images ``(C, z, y, x)``, spacing is ``spacing_mm: (z, y, x)``. A 2-D image is a volume of one
slice. A structure may have several codes (``"Brain": [1, 2]``), as structures may overlap. ``geometry`` keeps origin
and direction as SimpleITK gives them: in (x, y, z) order, LPS, millimetres.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.base.files import write_json, writing_folder
from npcrepro.cohorts.defects import Defects, Refused, slip
from npcrepro.cohorts.images import to_itk, to_mask
from npcrepro.cohorts.structures import LARGEST_CODE, Coding, Structures

OUR_FIELDS = (
    "name",
    "reference",
    "licence",
    "publishable",
    "spacing_known",
    "groups",
    "wrong_labels",
    "suspect_labels",
    "not_contoured",
    "missing_series",
)
MISSING_SERIES = ("leave-out", "zero")
NO_STRUCTURES = ("background", "ignore")  # names in 'labels' with a meaning of their own
NO_IMAGE = Path(os.devnull)  # the empty file that every system has
NNUNET_FIELDS = ("channel_names", "labels", "regions_class_order", "numTraining", "file_ending", "dataset")
IMAGE_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class Case:
    """One case: its images in channel order, `NO_IMAGE` where one is missing and becomes zeros, and its label.

    ``suspect``: scored, but not trained on. ``not_contoured``: structures that are neither.
    """

    name: str
    patient: str
    images: tuple[Path, ...]
    label: Path
    suspect: bool = False
    not_contoured: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cohort:
    """A cohort as its ``dataset.json`` describes it. ``structures`` leaves the background out; ``excluded`` names the
    cases with wrong labels, which are not in ``cases``."""

    root: Path
    name: str
    channels: tuple[str, ...]
    structures: Structures
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
        return cases_of(self.name, rows, patients, include_suspect)


@dataclass(frozen=True)
class CaseArrays:
    """One case in memory: ``image`` (C, z, y, x), ``label`` (z, y, x) of integers, ``spacing_mm`` (z, y, x).

    Instead of integers ``label`` may hold masks (z, y, x) by the name of their structure, which may overlap.
    Without ``geometry`` (see `read_image`) the origin is zero and the axes are those of the patient.
    """

    name: str
    patient: str
    image: np.ndarray
    label: np.ndarray | Mapping[str, np.ndarray]
    spacing_mm: tuple[float, float, float]
    suspect: bool = False
    not_contoured: tuple[str, ...] = ()
    geometry: dict[str, list[float]] | None = None


def cases_of(
    cohort: str, rows: Iterable[tuple[str, str, bool]], patients: Iterable[str], include_suspect: bool
) -> list[str]:
    """Names of the cases of these patients, sorted, from rows of (case, patient, suspect)."""
    rows = list(rows)
    wanted = set(patients)
    known = {patient for _, patient, _ in rows}
    for patient in sorted(wanted - known):
        cause = slip(patient, known, "a mistyped name, or a split of another cohort")
        raise InputError(f"cohort {cohort} has no patient {patient!r}: {cause}")
    return sorted(name for name, patient, suspect in rows if patient in wanted and (include_suspect or not suspect))


def read_cohort(root: str | Path) -> Cohort:
    """Read ``dataset.json`` and list the files of a cohort; images are not opened (see `check` and `prepare`).

    Raises InputError for a missing folder or ``dataset.json``, bad JSON, a missing field, a missing label, a case that
    is there twice, and for a cohort without cases. Cases with wrong labels may lack files; for a case that lacks a
    channel see ``missing_series`` above.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> case = CaseArrays("A", "A", np.zeros((1, 2, 4, 4)), np.zeros((2, 4, 4), int), (3.0, 1.0, 1.0))
        >>> with TemporaryDirectory() as folder:
        ...     _ = write_cohort(f"{folder}/mine", [case], name="mine", channels=["CT"], structures={"GTVp": 1})
        ...     cohort = read_cohort(f"{folder}/mine")
        >>> cohort.channels, cohort.structures, [case.label.name for case in cohort.cases]
        (('CT',), {'GTVp': (1,)}, ['A.nii.gz'])
    """
    root = Path(root)
    listing = scan(root)
    for defect in listing.defects:
        if defect.severity == "error":
            # The cohort's folder is what a user typed; without it "dataset.json: missing" says little.
            raise Refused(replace(defect, file=str(root / defect.file)))
    header = listing.header
    return Cohort(
        root=root,
        name=header.get("name") or root.resolve().name,
        channels=listing.channels,
        structures=listing.structures or {},
        cases=tuple(listing.cases),
        excluded=listing.excluded,
        spacing_known=header.get("spacing_known", True),
        licence=header.get("licence", ""),
        reference=header.get("reference", ""),
        publishable=header.get("publishable", False),
    )


def write_cohort(
    root: str | Path,
    cases: Iterable[CaseArrays],
    *,
    name: str,
    channels: Sequence[str],
    structures: Mapping[str, int | Sequence[int]] | Sequence[str],
    reference: str = "",
    licence: str = "",
    publishable: bool = False,
    spacing_known: bool = True,
) -> Cohort:
    """Write a cohort in the nnU-Net raw layout and return it as read back.

    ``cases`` may be a generator: one case is in memory at a time. ``structures`` leaves the background out: names with
    the codes of the labels, or names alone where the labels are masks (see `Coding`). Everything
    is written to a folder beside ``root`` and moved into place at the end. Raises InputError where ``root`` holds
    something already, for arrays that do not fit together, a case name given twice, an unknown label value, and no
    cases.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> case = CaseArrays("A", "A", np.zeros((1, 2, 4, 4)), np.zeros((2, 4, 4), int), (3.0, 1.0, 1.0))
        >>> with TemporaryDirectory() as folder:
        ...     write_cohort(f"{folder}/mine", [case], name="mine", channels=["CT"], structures={"GTVp": 1}).patients
        ('A',)
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not empty: give a new folder, or remove it first")
    names: list[str] = []
    groups: dict[str, str] = {}
    suspects: list[str] = []
    missing: dict[str, list[str]] = {}
    coding = None if isinstance(structures, Mapping) else Coding(structures)
    codes = {} if coding else {name: _as_codes(value) for name, value in structures.items()}
    with writing_folder(root) as folder:
        (folder / "imagesTr").mkdir()
        (folder / "labelsTr").mkdir()
        for case in cases:
            if case.name in names:
                raise InputError(f"case {case.name} is given twice: two sources carry the same case name")
            if coding is not None:
                case = replace(case, label=_encoded(coding, case))
                codes = coding.structures
            _write_case(folder, case, tuple(channels), codes)
            names.append(case.name)
            if case.patient != case.name:
                groups[case.name] = case.patient
            if case.suspect:
                suspects.append(case.name)
            if case.not_contoured:
                missing[case.name] = list(case.not_contoured)
        header: dict[str, Any] = {"name": name, "reference": reference, "licence": licence, "publishable": publishable}
        header |= {"file_ending": ".nii.gz", "numTraining": len(names), "spacing_known": spacing_known}
        header["channel_names"] = {str(i): channel for i, channel in enumerate(channels)}
        header["labels"] = {"background": 0} | {key: list(c) if len(c) > 1 else c[0] for key, c in codes.items()}
        if any(len(c) > 1 for c in codes.values()):
            # nnU-Net asks for it with regions: what a voxel becomes when it is put together again.
            header["regions_class_order"] = [c[0] for c in codes.values()]
        header |= {"groups": groups} if groups else {}
        header |= {"suspect_labels": suspects} if suspects else {}
        header |= {"not_contoured": missing} if missing else {}
        write_json(folder / "dataset.json", header)
        try:
            read_cohort(folder)
        except Refused as problem:
            raise InputError(str(problem).replace(str(folder), str(root))) from None
    return read_cohort(root)


def _as_codes(value: int | Sequence[int]) -> tuple[int, ...]:
    return (int(value),) if isinstance(value, int | np.integer) else tuple(int(v) for v in value)


def _encoded(coding: Coding, case: CaseArrays) -> np.ndarray:
    if not isinstance(case.label, Mapping):
        raise InputError(f"case {case.name}: a label image without codes: give masks, or a code for each structure")
    try:
        return coding.encode(case.label)
    except InputError as problem:
        raise InputError(f"case {case.name}: {problem}") from None


def _write_case(folder: Path, case: CaseArrays, channels: tuple[str, ...], structures: Structures) -> None:
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
    mask, defects = to_mask(label, structures, case.name)
    if mask is None:
        raise Refused(defects[0], case.name)

    def write(array: np.ndarray, path: Path) -> None:
        sitk.WriteImage(to_itk(array, case.spacing_mm, case.geometry), str(path))

    for number, channel in enumerate(image):
        write(channel, folder / "imagesTr" / f"{case.name}_{number:04d}.nii.gz")
    write(mask, folder / "labelsTr" / f"{case.name}.nii.gz")


@dataclass
class Listing:
    """What is there, and what is wrong with it."""

    header: dict[str, Any]
    channels: tuple[str, ...]
    structures: Structures | None
    cases: list[Case]
    excluded: tuple[str, ...]
    defects: Defects


def scan(root: Path) -> Listing:
    """Read dataset.json and list the files, collecting what is wrong and going on with what is left."""
    defects = Defects()
    if not root.is_dir():
        defects.error(".", "no such folder", root, "a mistyped path, or data that are not mounted here")
        return Listing({}, (), None, [], (), defects)
    header = _read_header(root, defects)
    if header is not None:
        for key in sorted(set(header) - {*OUR_FIELDS, *NNUNET_FIELDS}):
            cause = slip(key, [*OUR_FIELDS, *NNUNET_FIELDS], "", cutoff=0.8)
            if cause:
                defects.warning("dataset.json", "unknown field, which is ignored", key, cause)
    channels = _channels(header, defects)
    structures = _structures(header, defects)
    header = header or {}
    ending = header.get("file_ending", ".nii.gz")
    wrong = _names(header, "wrong_labels", defects)
    suspect = _names(header, "suspect_labels", defects)
    missing = _not_contoured(header, structures, defects)
    zeros = _missing_series(header, defects) == "zero"
    groups = header.get("groups", {})
    if not _is_mapping(groups, str):
        defects.header("'groups' does not map cases to patients", groups, 'it looks like {"CASE": "PATIENT"}')
        groups = {}

    if "dataset" in header:
        listed = _mapped_files(root, header["dataset"], len(channels) if channels else None, wrong, defects)
    else:
        listed = _scanned_files(root, ending, channels, wrong, zeros, defects)
    cases = []
    for name, (images, label) in sorted(listed.items()):
        if name not in wrong and (zeros or NO_IMAGE not in images):
            about = (name in suspect, missing.get(name, ()))
            cases.append(Case(name, groups.get(name, name), tuple(images), label, *about))
    excluded = tuple(sorted(set(wrong) & set(listed)))
    named = {"groups": groups, "wrong_labels": wrong, "suspect_labels": suspect, "not_contoured": missing}
    for key, names in named.items():
        for name in names:
            if name not in listed:
                cause = slip(name, listed, "a mistyped case name, or a case that was removed")
                defects.warning("dataset.json", f"'{key}' names a case that is not there", name, cause)
    if "numTraining" in header and header["numTraining"] != len(listed):
        cause = "cases were added or removed after dataset.json was written"
        defects.warning(
            "dataset.json", f"'numTraining' is not the number of cases, {len(listed)}", header["numTraining"], cause
        )
    if not cases:
        where = "dataset.json" if "dataset" in header else "labelsTr"
        if listed:
            cause = "'wrong_labels' names every case, or every other one lacks a channel"
            defects.error(where, "no cases left", f"{len(excluded)} excluded", cause)
        else:
            others = _other_endings(root, ending)
            cause = f"'file_ending' is {ending} but the files end with {others}" if others else "the folder is empty"
            defects.error(where, "no cases", f"file_ending {ending}", cause)
    return Listing(header, channels or (), structures, cases, excluded, defects)


def _read_header(root: Path, defects: Defects) -> dict[str, Any] | None:
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
        defects.header("missing", path, cause)
        return None
    except (OSError, ValueError) as problem:
        defects.header("not valid JSON", problem, "a comma or quote lost while editing, or a cut-off download")
        return None
    if not isinstance(header, dict):
        defects.header("not a JSON object", type(header).__name__, "another file was saved under this name")
        return None
    for name in twice:
        defects.header("the same name twice", name, "an entry was copied and not renamed; only the last one counts")
    types = {"name": str, "reference": str, "licence": str, "publishable": bool, "spacing_known": bool}
    types |= {"file_ending": str, "dataset": dict, "numTraining": int}
    for key, kind in types.items():
        if key in header and type(header[key]) is not kind:
            defects.header(f"{key!r} is not a {kind.__name__}", repr(header[key]), "a typing slip in dataset.json")
            del header[key]
        elif key == "file_ending" and key not in header:
            defects.header("missing field", key, 'dataset.json needs "file_ending": ".nii.gz"')
    if not header.get("file_ending", ".").startswith("."):
        defects.header("'file_ending' has no dot", repr(header.pop("file_ending")), 'it looks like ".nii.gz"')
    if not _is_file_name(header.get("name", "cohort")):
        defects.header("'name' cannot be part of a file name", repr(header.pop("name")), "a path was given as name")
    return header


def _is_mapping(value: object, kind: type) -> bool:
    return isinstance(value, dict) and all(type(item) is kind for item in value.values())


def _is_file_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\:\0")


def _names(header: dict[str, Any], key: str, defects: Defects) -> list[str]:
    names = header.get(key, [])
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    defects.header(f"{key!r} is not a list of case names", repr(names), 'it looks like ["CASE", "CASE"]')
    return []


def _not_contoured(
    header: dict[str, Any], structures: Structures | None, defects: Defects
) -> dict[str, tuple[str, ...]]:
    missing = header.get("not_contoured", {})
    if not _is_mapping(missing, list) or not all(isinstance(n, str) for names in missing.values() for n in names):
        cause = 'it looks like {"CASE": ["Parotid_L"]}'
        defects.header("'not_contoured' does not map cases to lists of structures", missing, cause)
        return {}
    for name in sorted({name for names in missing.values() for name in names} - set(structures or {})):
        cause = slip(name, structures or {}, "'labels' has no such structure")
        defects.header("'not_contoured' names an unknown structure", name, cause)
    return {case: tuple(names) for case, names in missing.items()}


def _missing_series(header: dict[str, Any], defects: Defects) -> str:
    value = header.get("missing_series", MISSING_SERIES[0])
    if value in MISSING_SERIES:
        return value
    defects.header('\'missing_series\' is neither "leave-out" nor "zero"', repr(value), "a typing slip in dataset.json")
    return MISSING_SERIES[0]


def _channels(header: dict[str, Any] | None, defects: Defects) -> tuple[str, ...] | None:
    if header is None:
        return None
    if "channel_names" not in header:
        cause = "nnU-Net v1 wrote 'modality'; v2 reads 'channel_names'" if "modality" in header else "it is required"
        defects.header("missing field", "channel_names", cause)
        return None
    names = header["channel_names"]
    if not _is_mapping(names, str) or not names or set(names) != {str(i) for i in range(len(names))}:
        cause = 'channels are numbered from "0", as in {"0": "T1", "1": "CT"}'
        defects.header("'channel_names' does not number the channels", names, cause)
        return None
    return tuple(names[str(i)] for i in range(len(names)))


def _structures(header: dict[str, Any] | None, defects: Defects) -> Structures | None:
    if header is None:
        return None
    if "labels" not in header:
        defects.header("missing field", "labels", 'dataset.json needs "labels": {"background": 0, "GTVp": 1}')
        return None
    labels = header["labels"]
    problem, cause = "", 'it looks like {"background": 0, "GTVp": 1, "CTV2": [1, 2]}'
    if not isinstance(labels, dict) or not all(_is_code(value) or _is_region(value) for value in labels.values()):
        problem = "'labels' does not map names to integers, or to lists of different integers, from 0 to 65,535"
        if isinstance(labels, dict) and all(name.isdecimal() for name in labels):
            cause = f"nnU-Net v1 has numbers as names; here {cause}"
    elif labels.get("background") != 0:
        problem = "'labels' has no background 0"
        cause = f"it was left out, or has another name or number; {cause}"
    elif "ignore" in labels:
        problem = "'labels' has an ignore label, which is not supported"
        cause = "drawn for nnU-Net on a part of the image; leave those cases out, or draw them to the end"
    elif len(labels) < 2:
        problem = "'labels' has no structure"
        cause = f"only the background was entered; {cause}"
    elif len({_as_codes(value) for value in labels.values()}) < len(labels):
        problem = "'labels' has two names for the same integers"
        cause = "an entry was copied and its number was not changed"
    elif any(0 in _as_codes(value) for name, value in labels.items() if name != "background"):
        problem = "'labels' gives 0, which is the background, to a structure"
        cause = "structures were counted from 0; their numbers begin with 1"
    if problem:
        defects.header(problem, labels, cause)
        return None
    return {name: _as_codes(value) for name, value in labels.items() if name != "background"}


def _is_code(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_CODE


def _is_region(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_code, value)) and len(set(value)) == len(value)


_Listed = dict[str, tuple[list[Path], Path]]


def _mapped_files(
    root: Path, entries: dict[str, Any], n_channels: int | None, wrong: list[str], defects: Defects
) -> _Listed:
    listed: _Listed = {}
    for name, entry in entries.items():
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        paths = isinstance(images, list) and all(isinstance(image, str) for image in images) and isinstance(label, str)
        if not _is_file_name(name):
            defects.header("case name cannot be part of a file name", repr(name), "a path was given as case name")
            continue
        if not paths:
            cause = 'an entry of \'dataset\' looks like {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}'
            defects.header("case without 'images' and 'label'", name, cause)
            continue
        listed[name] = ([root / image for image in images], root / label)
        if name in wrong:
            continue
        if n_channels is not None and len(images) != n_channels:
            problem = "missing channel" if len(images) < n_channels else "more images than channels"
            value = f"case {name} has {len(images)} of {n_channels}"
            defects.header(problem, value, "'dataset' and 'channel_names' disagree")
        for path in [*images, label]:
            if not (root / path).is_file():
                defects.error(
                    path, "no such file", f"case {name}", "moved, or relative to another folder than the cohort's"
                )
    return listed


def _scanned_files(
    root: Path, ending: str, channels: tuple[str, ...] | None, wrong: list[str], zeros: bool, defects: Defects
) -> _Listed:
    images: dict[str, dict[int, Path]] = {}
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
                problem = "missing channel, " + ("which becomes zeros" if zeros else "so that the case is left out")
                defects.warning(f"imagesTr/{name}_{number:04d}{ending}", problem, value, cause)
        for number in sorted(set(found) - set(numbers)):
            cause = "channel_names does not list this channel; it is ignored"
            defects.warning(f"imagesTr/{found[number].name}", "image of an unknown channel", f"channel {number}", cause)
    return {
        name: (
            [images.get(name, {}).get(n, NO_IMAGE) for n in numbers],
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


def _report_other_endings(folder: Path, ending: str, defects: Defects) -> None:
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

"""What lies in the folder of a cohort, and everything that is wrong with it (the layout: see `layout`)."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import pick
from npcrepro.cohorts.cohort import NO_IMAGE, Case
from npcrepro.cohorts.defects import Defects, likely_cause
from npcrepro.cohorts.images import IMAGE_ENDINGS
from npcrepro.cohorts.structures import LARGEST_CODE, Structures, as_codes


def is_file_name(name: str) -> bool:
    """Whether a name of a case or cohort can be part of a file name, and is no hidden file and no path."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\:\0")


def _is_names(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


TYPING_SLIP = "a typing slip in dataset.json"
TYPES = {"name": str, "reference": str, "licence": str, "publishable": bool, "spacing_known": bool}
TYPES |= {"file_ending": str, "dataset": dict, "numTraining": int}
# Field: what its value has to be, the problem where it is not, and the likely cause.
RULES: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "file_ending": (lambda value: value.startswith("."), "has no dot", 'it looks like ".nii.gz"'),
    "name": (is_file_name, "cannot be part of a file name", "a path was given as name"),
    "wrong_labels": (_is_names, "is not a list of case names", 'it looks like ["CASE", "CASE"]'),
    "suspect_labels": (_is_names, "is not a list of case names", 'it looks like ["CASE", "CASE"]'),
    "groups": (_is_texts, "does not map cases to patients", 'it looks like {"CASE": "PATIENT"}'),
    "not_contoured": (
        lambda value: isinstance(value, dict) and all(map(_is_names, value.values())),
        *("does not map cases to lists of structures", 'it looks like {"CASE": ["Parotid_L"]}'),
    ),
    "missing_series": (lambda value: value in ("leave-out", "zero"), 'is neither "leave-out" nor "zero"', TYPING_SLIP),
}
# Cohorts that come with the package, and how their names begin.
SAMPLES, SAMPLE = PACKAGE / "cohorts" / "samples", "sample-"
KNOWN = {*TYPES, *RULES, "channel_names", "labels", "regions_class_order"}


@dataclass
class Listing:
    """What is there, and what is wrong with it."""

    header: dict[str, Any]
    channels: tuple[str, ...]
    structures: Structures | None
    cases: list[Case]
    excluded: tuple[str, ...]
    defects: Defects


def cohort_folder(cohort: str | Path) -> Path:
    """The folder of a cohort: the path itself, or that of a sample cohort by its name, such as ``sample-ct``.

    Raises:
        InputError: a name that begins like that of a sample, but is neither a sample nor a folder.

    Example:
        >>> cohort_folder("sample-t2").name, cohort_folder("my/cohort").as_posix()
        ('t2', 'my/cohort')
    """
    path = Path(cohort)
    if path.exists() or not str(cohort).startswith(SAMPLE):
        return path
    samples = {f"{SAMPLE}{folder.parent.name}": folder.parent for folder in SAMPLES.glob("*/dataset.json")}
    return pick(samples, str(cohort), "sample cohort")


def images_to_segment(root: Path) -> bool:
    """Whether a folder holds images to be segmented (``imagesTs``) and none with labels."""
    return (root / "imagesTs").is_dir() and not any((root / part).exists() for part in ("imagesTr", "labelsTr"))


def scan(root: Path) -> Listing:
    """Read dataset.json and list the files, collecting what is wrong and going on with what is left."""
    root, defects = cohort_folder(root), Defects()
    if not root.is_dir():
        cause = "a mistyped path, or data that are not mounted here"
        if root.is_file():
            cause = "a file; give the folder that dataset.json, imagesTr and labelsTr are in"
        defects.error(".", "no such folder", root, cause)
        return Listing({}, (), None, [], (), defects)
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        if (root / part).is_dir() and not os.access(root / part, os.R_OK | os.X_OK):
            defects.error(part, "cannot be read", "permission denied", "a folder of another user")
            return Listing({}, (), None, [], (), defects)
    there = _read_header(root, defects)
    header = there or {}
    channels = None if there is None else _channels(header, defects)
    bare = images_to_segment(root) and "dataset" not in header
    structures = None if there is None or (bare and "labels" not in header) else _structures(header, defects)
    ending = header.get("file_ending", ".nii.gz")
    wrong, suspect = header.get("wrong_labels", []), header.get("suspect_labels", [])
    groups, missing = header.get("groups", {}), header.get("not_contoured", {})
    for name in sorted({name for names in missing.values() for name in names} - set(structures or {})):
        cause = likely_cause(name, structures or {}, "'labels' has no such structure")
        defects.header("'not_contoured' names an unknown structure", name, cause)
    zeros = header.get("missing_series") == "zero"

    if "dataset" in header:
        listed = _mapped_files(root, header["dataset"], channels, wrong, defects)
    else:
        listed = _scanned_files(root, "imagesTs" if bare else "imagesTr", ending, channels, wrong, zeros, defects)
    cases = [
        Case(name, groups.get(name, name), tuple(images), label, name in suspect, tuple(missing.get(name, ())))
        for name, (images, label) in sorted(listed.items())
        if name not in wrong and (zeros or NO_IMAGE not in images)
    ]
    excluded = tuple(sorted(set(wrong) & set(listed)))
    named = {"groups": groups, "wrong_labels": wrong, "suspect_labels": suspect, "not_contoured": missing}
    for key, names in named.items():
        for name in names:
            if name not in listed:
                cause = likely_cause(name, listed, "a mistyped case name, or a case that was removed")
                defects.warning("dataset.json", f"'{key}' names a case that is not there", name, cause)
    if "numTraining" in header and not bare and header["numTraining"] != len(listed):
        cause = "cases were added or removed after dataset.json was written"
        problem = f"'numTraining' is not the number of cases, {len(listed)}"
        defects.warning("dataset.json", problem, header["numTraining"], cause)
    if not cases:
        where = "dataset.json" if "dataset" in header else "imagesTs" if bare else "labelsTr"
        if listed:
            cause = "'wrong_labels' names every case, or every other one lacks a channel"
            defects.error(where, "no cases left", f"{len(excluded)} excluded", cause)
        else:
            files = [path for part in ("imagesTr", "labelsTr", "imagesTs") for path in _files(root / part)]
            others = ", ".join(sorted({_ending(path) for path in files} - {ending, ""}))
            cause = f"'file_ending' is {ending} but the files end with {others}" if others else "the folder is empty"
            defects.error(where, "no cases", f"file_ending {ending}", cause)
    return Listing(header, channels or (), structures, cases, excluded, defects)


def _read_header(root: Path, defects: Defects) -> dict[str, Any] | None:
    """The fields of dataset.json that can be used; None where the file cannot be read."""
    path = root / "dataset.json"
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(key for key, n in Counter(key for key, _ in items).items() if n > 1)
        return dict(items)

    try:
        header = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=pairs)
    except FileNotFoundError:
        if images_to_segment(root):
            cause = "nobody wrote one; a network of one channel needs none"
            defects.warning("dataset.json", "missing", path, cause)
        else:
            defects.header("missing", path, "not the folder of a cohort; it holds dataset.json, imagesTr and labelsTr")
        return None
    except (OSError, ValueError, RecursionError) as error:
        cause = "a comma or quote lost while editing, text that is not UTF-8, or a cut-off download"
        defects.header("not valid JSON", error, cause)
        return None
    if not isinstance(header, dict):
        defects.header("not a JSON object", type(header).__name__, "another file was saved under this name")
        return None
    for name in twice:
        defects.header("the same name twice", name, "an entry was copied and not renamed; only the last one counts")
    for key in sorted(set(header) - KNOWN):
        cause = likely_cause(key, sorted(KNOWN), "", cutoff=0.8)
        if cause:
            defects.warning("dataset.json", "unknown field, which is ignored", key, cause)
    if "file_ending" not in header:
        defects.header("missing field", "file_ending", 'dataset.json needs "file_ending": ".nii.gz"')
    for key, kind in TYPES.items():
        if key in header and type(header[key]) is not kind:
            defects.header(f"{key!r} is not a {kind.__name__}", repr(header.pop(key)), TYPING_SLIP)
    for key, (fits, problem, cause) in RULES.items():
        if key in header and not fits(header[key]):
            defects.header(f"{key!r} {problem}", repr(header.pop(key)), cause)
    return header


def _channels(header: dict[str, Any], defects: Defects) -> tuple[str, ...] | None:
    if "channel_names" not in header:
        cause = "nnU-Net v1 wrote 'modality'; v2 reads 'channel_names'" if "modality" in header else "it is required"
        defects.header("missing field", "channel_names", cause)
        return None
    names = header["channel_names"]
    if not _is_texts(names) or not names or set(names) != {str(i) for i in range(len(names))}:
        cause = 'channels are numbered from "0", as in {"0": "T1", "1": "CT"}'
        defects.header("'channel_names' does not number the channels", names, cause)
        return None
    if len(set(names.values())) < len(names):
        problem = "'channel_names' gives two channels the same name"
        defects.header(problem, names, "an entry was copied and not renamed")
        return None
    return tuple(names[str(i)] for i in range(len(names)))


def _structures(header: dict[str, Any], defects: Defects) -> Structures | None:
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
    elif "" in labels:
        problem = "'labels' has a structure without a name"
        cause = "an entry was begun and not finished"
    elif len(labels) < 2:
        problem = "'labels' has no structure"
        cause = f"only the background was entered; {cause}"
    elif len({as_codes(value) for value in labels.values()}) < len(labels):
        problem = "'labels' has two names for the same integers"
        cause = "an entry was copied and its number was not changed"
    elif any(0 in as_codes(value) for name, value in labels.items() if name != "background"):
        problem = "'labels' gives 0, which is the background, to a structure"
        cause = "structures were counted from 0; their numbers begin with 1"
    if problem:
        defects.header(problem, labels, cause)
        return None
    return {name: as_codes(value) for name, value in labels.items() if name != "background"}


def _is_code(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_CODE


def _is_region(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_code, value)) and len(set(value)) == len(value)


_Listed = dict[str, tuple[list[Path], Path]]  # case to images and label


def _mapped_files(
    root: Path, entries: dict[str, Any], channels: tuple[str, ...] | None, wrong: list[str], defects: Defects
) -> _Listed:
    listed: _Listed = {}
    for name, entry in entries.items():
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if not is_file_name(name):
            defects.header("case name cannot be part of a file name", repr(name), "a path was given as case name")
            continue
        if not _is_names(images) or not isinstance(label, str):
            cause = 'an entry of \'dataset\' looks like {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}'
            defects.header("case without 'images' and 'label'", name, cause)
            continue
        listed[name] = ([root / image for image in images], root / label)
        if name in wrong:
            continue
        if channels and len(images) != len(channels):
            problem = "missing channel" if len(images) < len(channels) else "more images than channels"
            value = f"case {name} has {len(images)} of {len(channels)}"
            defects.header(problem, value, "'dataset' and 'channel_names' disagree")
        for path in [*images, label]:
            if not (root / path).is_file():
                cause = "moved, or relative to another folder than the cohort's"
                defects.error(path, "no such file", f"case {name}", cause)
    return listed


def _scanned_files(
    root: Path,
    part: str,
    ending: str,
    channels: tuple[str, ...] | None,
    wrong: list[str],
    zeros: bool,
    defects: Defects,
) -> _Listed:
    images: dict[str, dict[int, Path]] = {}
    for path in _files_with(ending, root / part, defects):
        match = re.fullmatch(r"(.+)_(\d{4})", path.name.removesuffix(ending))
        if match:
            images.setdefault(match[1], {})[int(match[2])] = path
        else:
            cause = "an image is named CASE_0000 for channel 0, CASE_0001 for channel 1"
            defects.error(f"{part}/{path.name}", "image without a channel number", path.name, cause)
    labels = {path.name.removesuffix(ending): path for path in _files_with(ending, root / "labelsTr", defects)}
    numbers = sorted(range(len(channels)) if channels else {number for found in images.values() for number in found})
    for name in sorted({*images, *labels} - set(wrong)):
        found = images.get(name, {})
        if name not in labels and part == "imagesTr":
            cause = "the label was not exported, or carries another name"
            if any(f"{name}_{number:04d}" in labels for number in found):
                cause = "the label is named like an image: a label has no _0000"
            defects.error(f"labelsTr/{name}{ending}", "image without label", name, cause)
        if not found:
            cause = "the image was not exported, or carries another name"
            if re.fullmatch(r".+_\d{4}", name):
                cause = "the label is named like an image: a label has no _0000"
            elif (root / "imagesTr" / f"{name}{ending}").is_file():
                cause = "the image has no channel number: it is named CASE_0000"
            defects.error(f"labelsTr/{name}{ending}", "label without image", name, cause)
            continue
        for number in numbers:
            if number not in found:
                value = f"channel {number}" + (f", {channels[number]}" if channels else "")
                cause = "the sequence was not exported for this case, or channel_names has one too many"
                problem = "missing channel, " + ("which becomes zeros" if zeros else "so that the case is left out")
                cause += "" if zeros else "; 'missing_series': 'zero' in dataset.json would keep the case"
                defects.warning(f"{part}/{name}_{number:04d}{ending}", problem, value, cause)
        for number in sorted(set(found) - set(numbers)):
            cause = "channel_names does not list this channel; it is ignored"
            defects.warning(f"{part}/{found[number].name}", "image of an unknown channel", f"channel {number}", cause)
    return {
        name: ([images.get(name, {}).get(number, NO_IMAGE) for number in numbers], labels.get(name, NO_IMAGE))
        for name in {*images, *labels}
    }


def _files(folder: Path) -> list[Path]:
    # macOS leaves hidden files behind ("._CASE.nii.gz"). A link that leads nowhere is a missing file.
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != ".") if folder.is_dir() else []


def _ending(path: Path) -> str:
    return next((ending for ending in IMAGE_ENDINGS if path.name.endswith(ending)), "")


def _files_with(ending: str, folder: Path, defects: Defects) -> list[Path]:
    """The files of a folder with an ending; images with another one are reported."""
    files = _files(folder)
    kept = [path for path in files if path.name.endswith(ending)]
    for path in files:
        if path in kept or not _ending(path):
            continue
        stem, name = path.name.removesuffix(_ending(path)), f"{folder.name}/{path.name}"
        if folder / f"{stem}{ending}" in kept:
            cause = f"converted and not removed; only {stem}{ending} is read"
            defects.error(name, "the same case name twice", stem, cause)
        else:
            cause = f"'file_ending' is {ending}; the file is ignored"
            defects.warning(name, "another file ending", _ending(path), cause)
    return kept

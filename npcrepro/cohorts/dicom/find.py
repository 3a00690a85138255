"""The DICOM series of a folder tree and whose they are, found without reading pixels; headers as text and numbers."""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

from npcrepro.base.errors import InputError

HEADER = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "FrameOfReferenceUID"),
    *("Modality", "SeriesDescription", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "SliceThickness"),
    *("ImageOrientationPatient", "NumberOfFrames", "SamplesPerPixel", "ImageType"),
]
NO_IMAGES = ("RTSTRUCT", "RTPLAN", "RTRECORD", "RTDOSE", "SEG", "SR", "PR", "REG")


@dataclass(frozen=True)
class Series:
    """One series of a folder tree, not yet read. ``patient`` is the patient ID, or the study where there is none.

    RTSTRUCTs are series of the modality ``RTSTRUCT``; ``scout`` marks the projections that a scan is planned on.
    """

    uid: str
    modality: str
    description: str
    study: str
    patient: str
    frame_of_reference: str
    files: tuple[Path, ...]
    scout: bool = False

    @property
    def is_image(self) -> bool:
        """Whether these are images that can become a volume."""
        return self.modality not in NO_IMAGES and not self.scout


def find_series(root: str | Path) -> list[Series]:
    """The series of a folder tree, sorted by patient, study and path; pixels are not read.

    Files that are not DICOM are passed over, unless they are named ``.dcm``. Raises InputError for a folder that is
    missing, and a DICOM file that cannot be read or names no series.
    """
    root = Path(root)
    if not root.is_dir():
        cause = "a mistyped path, or data that are not mounted here"
        if root.is_file():
            cause = "give the folder that the file is in; a table is saved as CSV, an archive unpacked"
        raise InputError(f"{root} is not a folder: {cause}")
    headers: dict[str, pydicom.Dataset] = {}
    files: dict[str, list[Path]] = {}
    for path in _files_below(root):
        if not is_dicom(path):
            continue
        with reading(path):
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER)
            uid, kind = text(header, "SeriesInstanceUID"), text(header.file_meta, "MediaStorageSOPClassUID")
        if kind == MediaStorageDirectoryStorage:
            continue
        if not uid:
            raise InputError(f"{path}: no SeriesInstanceUID: truncated or damaged; copy it anew or remove it")
        headers.setdefault(uid, header)
        files.setdefault(uid, []).append(path)
    series = [_series(uid, header, files[uid]) for uid, header in headers.items()]
    return sorted(series, key=lambda one: (one.patient, one.study, one.files[0]))


def _files_below(root: Path) -> list[Path]:
    """All files, through links too. Raises InputError for a folder that cannot be read."""

    def refuse(problem: OSError) -> None:
        raise InputError(f"{problem.filename} cannot be read: {problem.strerror}")

    seen, found = set(), []
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        found += [Path(folder, name) for name in names]
    return sorted(path for path in found if path.is_file())


def _series(uid: str, header: pydicom.Dataset, files: list[Path]) -> Series:
    """A series by the header of its first file."""
    with reading(files[0]):
        study = text(header, "StudyInstanceUID")
        return Series(
            uid=uid,
            modality=text(header, "Modality"),
            description=text(header, "SeriesDescription"),
            study=study,
            patient=text(header, "PatientID") or study,
            frame_of_reference=text(header, "FrameOfReferenceUID"),
            files=tuple(files),
            scout="LOCALIZER" in text(header, "ImageType"),
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every error of pydicom about a broken file into an InputError, and hide its warnings about the standard.

    The errors of its parsers have no common base; ``struct.error`` is one of them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}: moved, mistyped, or not yours to read") from None
    except InvalidDicomError:
        raise InputError(f"{path} is not a DICOM file: another format under this name, or an empty file") from None
    except Exception as problem:
        reason = reason_of(problem)
        cause = "truncated or damaged: an interrupted copy or download"
        raise InputError(f"{path}: broken DICOM file ({reason}); likely cause: {cause}") from None


def is_dicom(path: Path) -> bool:
    """Whether a file carries the mark of DICOM, or is named ``.dcm``."""
    if path.suffix.lower() == ".dcm":
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}") from None


def text(dataset: pydicom.Dataset, keyword: str) -> str:
    """A value as one line of text without blanks at its ends; empty where there is none."""
    value = dataset.get(keyword)
    return "" if value is None else _line(str(value))


def numbers(dataset: pydicom.Dataset, keyword: str, count: int, path: Path) -> np.ndarray:
    """``count`` finite numbers of a header, or an InputError."""
    value = dataset.get(keyword)
    if value is None or value == "":
        raise InputError(f"{path}: no {keyword}: not a slice of a volume (a scout or a report), or a damaged header")
    values = np.atleast_1d(np.asarray(value, float))
    if values.shape != (count,) or not np.isfinite(values).all():
        raise InputError(f"{path}: {keyword} is {short(value)}, not {count} numbers: a damaged header")
    return values


def _line(words: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in words).strip()


def reason_of(problem: Exception) -> str:
    return _line(str(problem))[:200] or type(problem).__name__


def short(values: Any) -> str:
    items = values if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    listed = [f"{v:g}" if isinstance(v, int | float) else str(v) for v in items]
    return ", ".join(listed[:6]) + (", ..." if len(listed) > 6 else "")

"""Headers of DICOM files as text and numbers, with errors that name the file."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from npcrepro.base.errors import InputError

HEADER = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "FrameOfReferenceUID"),
    *("Modality", "SeriesDescription", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "SliceThickness"),
    *("ImageOrientationPatient", "NumberOfFrames", "SamplesPerPixel", "ImageType"),
]


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

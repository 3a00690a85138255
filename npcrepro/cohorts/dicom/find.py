"""The DICOM series of a folder tree, found without reading pixels."""

from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from npcrepro.base.errors import InputError
from npcrepro.cohorts.dicom.headers import HEADER, is_dicom, reading, text

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
        raise InputError(f"{root} is not a folder: a mistyped path, or data that are not mounted here")
    headers: dict[str, pydicom.Dataset] = {}
    files: dict[str, list[Path]] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
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

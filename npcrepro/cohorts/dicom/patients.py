"""The patients of a folder tree: their series of images, and the names in their RTSTRUCTs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.base.progress import Report
from npcrepro.cohorts.dicom.find import Series, find_series
from npcrepro.cohorts.dicom.structures import read_structures


@dataclass(frozen=True)
class Drawing:
    """An RTSTRUCT without its contours: ``names`` of the structures that have some."""

    path: Path
    names: tuple[str, ...]
    series: frozenset[str]
    frames_of_reference: frozenset[str]


@dataclass(frozen=True)
class Patient:
    """All series of images of a patient, and the RTSTRUCTs."""

    folder: Path
    series: tuple[Series, ...]
    drawings: tuple[Drawing, ...]

    @property
    def names(self) -> set[str]:
        """Names of all structures that were drawn."""
        return {name for drawing in self.drawings for name in drawing.names}


def find_patients(source: str | Path, report: Report) -> list[Patient]:
    """Patients with images and an RTSTRUCT, sorted by folder; all with images, if the folder holds no RTSTRUCT at all.

    ``report`` is told who is skipped, which RTSTRUCTs cannot be read, and that a folder holds none.

    Raises InputError for a folder without such a patient, and as `find_series` does.
    """
    grouped: dict[str, list[Series]] = {}
    for one in find_series(source):
        grouped.setdefault(one.patient, []).append(one)
    drawn = any(one.modality == "RTSTRUCT" for group in grouped.values() for one in group)
    patients = []
    for group in grouped.values():
        folder = Path(os.path.commonpath([path.parent for one in group for path in one.files]))
        drawings = tuple(_drawings(group, report))
        images = tuple(one for one in group if one.is_image)
        if drawn and not drawings:
            report(f"{folder}: skipped: no RTSTRUCT that can be read, but other files of {source} are RTSTRUCTs")
        elif not images:
            report(f"{folder}: skipped: no series of images")
        else:
            patients.append(Patient(folder, images, drawings))
    if not patients:
        wanted = "images and an RTSTRUCT" if drawn else "images"
        cause = "images and contours of different patients" if drawn else "files that are not DICOM"
        raise InputError(f"{source}: no patient with {wanted}: {cause}, or an incomplete export")
    if not drawn:
        report(f"{source} holds no RTSTRUCT: the images are imported without contours, to be segmented")
    return sorted(patients, key=lambda patient: patient.folder)


def _drawings(series: list[Series], report: Report) -> Iterator[Drawing]:
    for one in series:
        for path in one.files if one.modality == "RTSTRUCT" else ():
            try:
                found = read_structures(path)
            except InputError as problem:
                report(f"left out: {problem}")
                continue
            names = tuple(structure.name for structure in found.structures if structure.contours)
            yield Drawing(path, names, found.series, found.frames_of_reference)

"""Structures of radiotherapy: read from an RTSTRUCT, filled on the grid of a series; and the patients who have them."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import floor
from pathlib import Path

import numpy as np
import pydicom

from npcrepro.base.errors import InputError
from npcrepro.base.progress import Report
from npcrepro.cohorts.dicom.find import Series, find_series, reading, text
from npcrepro.cohorts.dicom.series import FARTHEST_MM, Grid

# In slices: farther out of the plane of the images, and a contour was drawn on another plane.
OUT_OF_PLANE = 0.5
# In slices: contours of one plane differ by less, by rounding in the file.
SAME_PLANE = 0.01
# Share of the pixels of a contour in which one that was drawn again may differ; a hole leaves more, unless its
# ring is thinner than 1/200 of its radius.
SAME_CONTOUR = 0.01


@dataclass(frozen=True)
class Structure:
    """A structure as it was drawn: closed ``contours``, each (N, 3: x, y, z) in millimetres (LPS). ``open`` counts the
    points and open lines that enclose nothing and are left out."""

    name: str
    contours: tuple[np.ndarray, ...]
    open: int


@dataclass(frozen=True)
class StructureSet:
    """An RTSTRUCT: its structures, and the series and frames of reference (UIDs) that it was drawn on."""

    path: Path
    structures: tuple[Structure, ...]
    series: frozenset[str]
    frames_of_reference: frozenset[str]


def read_structures(path: str | Path) -> StructureSet:
    """Read an RTSTRUCT. A structure without contours has none.

    Raises InputError for a file that cannot be read or is no RTSTRUCT, and for contours that are not points.
    """
    path = Path(path)
    with reading(path):
        dataset = pydicom.dcmread(path)
        if text(dataset, "Modality") != "RTSTRUCT":
            raise InputError(f"{path} is not an RTSTRUCT but {text(dataset, 'Modality') or 'of unknown modality'}")
        items: dict[int, list[pydicom.Dataset]] = {}
        for item in dataset.get("ROIContourSequence") or []:
            items.setdefault(int(item.ReferencedROINumber), []).extend(item.get("ContourSequence") or [])
        rois = list(dataset.get("StructureSetROISequence") or [])
        frames = {text(roi, "ReferencedFrameOfReferenceUID") for roi in rois}
        return StructureSet(
            path=path,
            structures=tuple(_structure(roi, items.get(int(roi.ROINumber), []), path) for roi in rois),
            series=frozenset(
                text(series, "SeriesInstanceUID")
                for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []
                for study in frame.get("RTReferencedStudySequence") or []
                for series in study.get("RTReferencedSeriesSequence") or []
            ),
            frames_of_reference=frozenset(frames - {""}),
        )


def rasterise(
    contours: Iterable[np.ndarray], grid: Grid, report: Callable[[str], None] = lambda message: None
) -> np.ndarray:
    """Mask (z, y, x) of closed contours, each (N, 3: x, y, z) in millimetres: bool, on ``grid``.

    A voxel is inside where its centre is. A contour within another is a hole, and so is a loop entered by a keyhole;
    contours that overlap in part are joined. A contour between two slices goes to the nearer one, in the middle to the
    upper one; where several planes fall on one slice, the nearest counts. ``report`` is told what is left out
    (contours beyond the slices or across them, and contours that are there twice), how many were joined, and how many
    slices between drawn ones have no contour and stay empty. No contours give an empty mask.
    """
    mask = np.zeros(grid.shape, bool)
    left_out: Counter[str] = Counter()
    # Polygons (x, y in pixels) by slice and, within it, by the height of their plane.
    planes: dict[int, dict[float, list[np.ndarray]]] = {}
    for contour in contours:
        index = grid.to_index(contour)
        height = float(index[:, 2].mean())
        if np.ptp(index[:, 2]) > OUT_OF_PLANE:
            left_out["across the slices"] += 1
        elif not 0 <= floor(height + 0.5) < grid.shape[0]:
            left_out["beyond the slices"] += 1
        else:
            found = planes.setdefault(floor(height + 0.5), {})
            height = next((z for z in found if abs(z - height) < SAME_PLANE), height)
            found.setdefault(height, []).append(np.ascontiguousarray(index[:, :2]))
    joined = seams = 0
    for number, found in planes.items():
        nearest = min(found, key=lambda z: abs(z - number))
        left_out["in a second plane of one slice"] += sum(len(found[z]) for z in found if z != nearest)
        mask[number], twice, overlapping, over = _united([fill([one], grid.shape[1:]) for one in found[nearest]])
        left_out["there twice"] += twice
        joined += overlapping
        seams += over
    for what, count in left_out.items():
        if count:
            report(f"contours left out, {what}: {count}")
    if joined:
        report(f"contours that overlap another, joined with it: {joined}")
    if seams:
        report(f"contours within several that were joined, taken as holes; look at them: {seams}")
    if planes and (empty := max(planes) - min(planes) + 1 - len(planes)):
        report(f"slices without a contour between drawn ones, left empty: {empty}")
    return mask


def _united(parts: list[np.ndarray]) -> tuple[np.ndarray, int, int, int]:
    """One mask of those of the contours of a slice; how many were there twice, how many overlap another in part, and
    how many are holes in several that were joined."""
    parts = sorted(filter(np.any, parts), key=np.count_nonzero, reverse=True) or parts[:1]
    united, twice, overlapping, seams = np.zeros_like(parts[0]), 0, 0, 0
    for number, part in enumerate(parts):
        if any((part ^ other).sum() <= SAME_CONTOUR * other.sum() for other in parts[:number]):
            twice += 1
            continue
        if (part & ~united).any():
            overlapping += bool((part & united).any())
            united |= part
        else:
            seams += all((part & ~other).any() for other in parts[:number])
            united &= ~part  # a hole
    return united, twice, overlapping, seams


def fill(polygons: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Mask (y, x) of closed polygons, each (N, 2: x, y) in pixels, by the even-odd rule at the centres of pixels.

    The first centre is at (0, 0). Of a pixel whose centre lies on an edge, the left and lower side are inside.
    """
    rows, columns = shape
    # Edges of all polygons, counted in every row by the first pixel to the right of each. Odd or even is all that
    # counts, which the overflow of small integers keeps.
    crossings = np.zeros((rows, columns + 1), np.uint8)
    polygons = list(polygons) or [np.empty((0, 2))]
    start, end = np.concatenate(polygons), np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    # An edge meets the rows from its lower end up to, but without, its upper end.
    lower, upper = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.ceil(np.clip(lower, 0, rows)).astype(int)
    count = np.ceil(np.clip(upper, 0, rows)).astype(int) - first
    edge = np.repeat(np.arange(len(start)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    column = start[edge, 0] + (row - start[edge, 1]) * slope
    np.add.at(crossings, (row, np.ceil(np.clip(column, 0, columns)).astype(int)), 1)
    return np.cumsum(crossings, axis=1, dtype=np.uint8)[:, :-1] % 2 == 1


def _structure(roi: pydicom.Dataset, items: list[pydicom.Dataset], path: Path) -> Structure:
    name = text(roi, "ROIName")
    closed = [item for item in items if text(item, "ContourGeometricType").startswith("CLOSED")]
    contours = [_points(item, name, path) for item in closed]
    kept = tuple(points for points in contours if len(points) > 2)
    return Structure(name=name, contours=kept, open=len(items) - len(kept))


def _points(item: pydicom.Dataset, name: str, path: Path) -> np.ndarray:
    # The bytes as they are in the file: pydicom's own numbers take a hundred times as long.
    raw = item.get_item("ContourData")
    value = None if raw is None else raw.value
    values = value.rstrip(b" \0").split(b"\\") if isinstance(value, bytes) else list(value or [])
    points = np.array(values or [], float)
    if points.size % 3 or not np.isfinite(points).all() or (points.size and np.abs(points).max() > FARTHEST_MM):
        cause = "a damaged file, or a faulty export"
        raise InputError(f"{path}: a contour of {name!r} is not made of points in millimetres: {cause}")
    return points.reshape(-1, 3)


@dataclass(frozen=True)
class Drawing:
    """An RTSTRUCT without its contours: ``names`` of the structures that have some, and ``open`` of those with points
    and open lines alone."""

    path: Path
    names: tuple[str, ...]
    series: frozenset[str]
    frames_of_reference: frozenset[str]
    open: tuple[str, ...] = ()


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
        drawings = []
        for path in (path for one in group if one.modality == "RTSTRUCT" for path in one.files):
            try:
                found = read_structures(path)
            except InputError as problem:
                report(f"left out: {problem}")
                continue
            names = tuple(structure.name for structure in found.structures if structure.contours)
            lines = tuple(structure.name for structure in found.structures if structure.open and not structure.contours)
            drawings.append(Drawing(path, names, found.series, found.frames_of_reference, lines))
        images = tuple(one for one in group if one.is_image)
        if drawn and not drawings:
            report(f"{folder}: skipped: no RTSTRUCT that can be read, but other files of {source} are RTSTRUCTs")
        elif not images:
            report(f"{folder}: skipped: no series of images")
        else:
            patients.append(Patient(folder, images, tuple(drawings)))
    if not patients:
        wanted = "images and an RTSTRUCT" if drawn else "images"
        cause = "images and contours of different patients" if drawn else "files that are not DICOM"
        raise InputError(f"{source}: no patient with {wanted}: {cause}, or an incomplete export")
    if not drawn:
        report(f"{source} holds no RTSTRUCT: the images are imported without contours, to be segmented")
    return sorted(patients, key=lambda patient: patient.folder)

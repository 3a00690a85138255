"""A DICOM series of single-frame images becomes one volume: its slices are sorted by position, checked and read.

Whatever would give a wrong volume without notice is an InputError, for instance a missing slice, a slice that is there
twice, a tilted gantry, or two series in one folder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from npcrepro.base.errors import InputError
from npcrepro.cohorts.dicom.find import HEADER, find_series, numbers, reading, reason_of, short, text
from npcrepro.cohorts.images import SPACING_RANGE_MM

# In millimetres; smaller steps are rounding in the header.
SAME_POSITION_MM = 0.01
# A share of the distance of slices; scanners round positions.
UNEVEN = 0.1
# Of pixels: how far slices may slide over each other.
SHIFTED = 0.5
# Farther from the origin of the scanner, and the header is broken.
FARTHEST_MM = 1e5


@dataclass(frozen=True)
class Slice:
    """Header of one image. ``position`` (x, y, z) and ``spacing_mm`` (y, x) in millimetres, ``axes`` the directions of
    x and y as rows."""

    path: Path
    series: str
    sop_class: str
    sop_instance: str
    frame_of_reference: str
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    position: np.ndarray
    axes: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """Direction of the stack."""
        return np.cross(*self.axes)

    @property
    def height_mm(self) -> float:
        """Position along the stack."""
        return float(self.position @ self.normal)


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a series lie: shape and spacing (z, y, x), geometry as of `images.read_image`, headers of the
    slices from the first to the last z."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    geometry: dict[str, list[float]]
    slices: tuple[Slice, ...]

    def to_index(self, points: np.ndarray) -> np.ndarray:
        """Continuous indices (N, 3: x, y, z) of points in millimetres (N, 3: x, y, z)."""
        direction = np.reshape(self.geometry["direction"], (3, 3))
        # The columns of a direction are orthonormal: its transpose is its inverse.
        return (points - self.geometry["origin"]) @ direction / self.spacing_mm[::-1]


def read_series(
    files: str | Path | Sequence[str | Path],
) -> tuple[np.ndarray, tuple[float, float, float], dict[str, list[float]]]:
    """Read one series: ``(array (z, y, x), spacing_mm (z, y, x), geometry)``, as `images.read_image` does.

    ``files`` are the files of the series or the folder they are in. Slices are sorted by their position along the
    normal of the slices, whatever the files are called. Rescale slope and intercept are applied (CT is in HU); the
    array is int16 where that holds the values, else float32. One slice alone is as thick as its header says, or 1 mm.

    Raises InputError for files that cannot be read or decoded, several series, several frames or colours in one file,
    missing or duplicate slices, slices of different size, spacing or orientation, a tilted gantry, and a spacing that
    no scanner has.
    """
    grid = read_grid(files)
    return _pixels(grid), grid.spacing_mm, grid.geometry


def read_grid(files: str | Path | Sequence[str | Path]) -> Grid:
    """The grid of a series without its pixels. Arguments and errors as of `read_series`."""
    slices = [_read_slice(path) for path in _image_files(files)]
    first = slices[0]
    for other in slices[1:]:
        _check_same(first, other)
    slices.sort(key=lambda s: s.height_mm)
    step = _distance_of_slices(slices)
    direction = np.column_stack([*first.axes, first.normal])
    return Grid(
        shape=(len(slices), *first.shape),
        spacing_mm=(step, *first.spacing_mm),
        geometry={"origin": slices[0].position.tolist(), "direction": direction.ravel().tolist()},
        slices=tuple(slices),
    )


def _image_files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """Files of one series, at least one; from a folder those that are images."""
    if not isinstance(files, str | Path):
        if not files:
            raise InputError("a series without files: nothing matched, or an empty folder")
        return [Path(path) for path in files]
    series = [one for one in find_series(files) if one.is_image]
    if len(series) != 1:
        cause = "give the folder of one series" if series else "an empty folder, or files that are not DICOM"
        raise InputError(f"{files} holds {len(series)} series of images: {cause}")
    return list(series[0].files)


def _read_slice(path: Path) -> Slice:
    with reading(path):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER)
        if int(header.get("NumberOfFrames") or 1) != 1:
            frames = f"{header.NumberOfFrames} frames in one file"
            raise InputError(f"{path}: {frames}: multi-frame DICOM is not supported; export one file a slice")
        if int(header.get("SamplesPerPixel") or 1) != 1:
            raise InputError(f"{path}: a colour image: a screenshot or a fused display, not a series of a scanner")
        shape = tuple(int(n) for n in (*numbers(header, "Rows", 1, path), *numbers(header, "Columns", 1, path)))
        if min(shape) < 1:
            raise InputError(f"{path}: {shape[0]} rows of {shape[1]} pixels: a damaged header")
        spacing = numbers(header, "PixelSpacing", 2, path)
        _check_spacing(path, "PixelSpacing", *spacing)
        position = numbers(header, "ImagePositionPatient", 3, path)
        if np.abs(position).max() > FARTHEST_MM:
            raise InputError(f"{path}: ImagePositionPatient is {short(position)} mm: a damaged header")
        thickness = header.get("SliceThickness")
        return Slice(
            path=path,
            series=text(header, "SeriesInstanceUID"),
            sop_class=text(header, "SOPClassUID"),
            sop_instance=text(header, "SOPInstanceUID"),
            frame_of_reference=text(header, "FrameOfReferenceUID"),
            shape=shape,
            spacing_mm=(float(spacing[0]), float(spacing[1])),
            thickness_mm=float(thickness) if thickness else None,
            position=position,
            axes=_axes(header, path),
        )


def _axes(header: pydicom.Dataset, path: Path) -> np.ndarray:
    axes = numbers(header, "ImageOrientationPatient", 6, path).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
        raise InputError(f"{path}: ImageOrientationPatient is {short(axes.ravel())}, not two perpendicular directions")
    # Headers are rounded, NIfTI wants exact right angles.
    x = axes[0] / np.linalg.norm(axes[0])
    y = axes[1] - (axes[1] @ x) * x
    return np.stack([x, y / np.linalg.norm(y)])


def _check_spacing(path: Path, keyword: str, *values: float) -> None:
    low, high = SPACING_RANGE_MM
    if not all(low <= value <= high for value in values):
        raise InputError(f"{path}: {keyword} is {short(values)} mm: no scanner has it; a damaged header")


def _check_same(first: Slice, other: Slice) -> None:
    both = f"{first.path} and {other.path}"
    if first.series != other.series:
        raise InputError(f"{both} are of different series: give the files of one series")
    if first.shape != other.shape:
        raise InputError(
            f"{both} have {first.shape} and {other.shape} pixels: one series with two matrices, or a scout"
        )
    if not np.allclose(first.spacing_mm, other.spacing_mm, rtol=1e-3):
        raise InputError(f"{both} have pixels of {first.spacing_mm} and {other.spacing_mm} mm: mixed series")
    if not np.allclose(first.axes, other.axes, atol=1e-3):
        raise InputError(f"{both} are not parallel: a scout or several planes in one series; keep one plane")


def _distance_of_slices(slices: list[Slice]) -> float:
    """Distance of sorted slices in millimetres; InputError where they are not a regular stack."""
    first = slices[0]
    if len(slices) == 1:
        step = first.thickness_mm or 1.0
        _check_spacing(first.path, "SliceThickness", step)
        return step
    steps = np.diff([s.height_mm for s in slices])
    for step, one, other in zip(steps, slices, slices[1:]):
        if step < SAME_POSITION_MM:
            cause = "a slice exported twice, or several echoes, phases or time points in one series"
            raise InputError(f"{one.path} and {other.path} lie at the same position: {cause}")
    usual = float(np.median(steps))
    for step, one, other in zip(steps, slices, slices[1:]):
        if abs(step - usual) > UNEVEN * usual:
            missing = round(step / usual) - 1
            cause = f"slices missing between them: {missing}" if missing > 0 else "slices are not evenly spaced"
            where = f"{one.path} and {other.path} are {step:.2f} mm apart where others are {usual:.2f} mm"
            raise InputError(f"{where}: {cause}")
    # The mean, so that rounding of single positions does not add up along the stack.
    step = float(np.mean(steps))
    _check_spacing(first.path, "distance of slices", step)
    for number, other in enumerate(slices):
        way = other.position - first.position
        if abs(way @ first.normal - number * step) > UNEVEN * step:
            where = f"{other.path} lies off a regular stack of {step:.2f} mm"
            raise InputError(f"{where}: slices are not evenly spaced; resample them or take another series")
        shift = float(np.linalg.norm(way - (way @ first.normal) * first.normal))
        if shift > SHIFTED * min(first.spacing_mm):
            angle = math.degrees(math.atan2(shift, float(way @ first.normal)))
            cause = f"a gantry tilted by {angle:.1f} degrees, or shifted slices; resample the series to upright slices"
            raise InputError(f"{first.path} and {other.path} are shifted by {shift:.2f} mm in their plane: {cause}")
    return step


def _pixels(grid: Grid) -> np.ndarray:
    # The first slice shows whether the matrix of the header is true before memory is taken for all.
    first = _read_pixels(grid.slices[0])
    array = np.empty(grid.shape, np.float32)
    array[0] = first
    for target, one in zip(array[1:], grid.slices[1:]):
        target[...] = _read_pixels(one)
    limits = np.iinfo(np.int16)
    if array.min() >= limits.min and array.max() <= limits.max and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int16)
    return array


def _read_pixels(one: Slice) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut

    with reading(one.path):
        dataset = pydicom.dcmread(one.path)
        if "PixelData" not in dataset:
            raise InputError(f"{one.path}: no pixel data: a damaged file, or an export of headers alone")
        syntax = dataset.file_meta.TransferSyntaxUID
        try:
            raw = dataset.pixel_array
        except Exception as problem:
            if not syntax.is_compressed:
                raise
            cause = "export without compression, or install pylibjpeg"
            raise InputError(f"{one.path}: cannot decode {syntax.name} ({reason_of(problem)}): {cause}") from None
        if raw.shape != one.shape:
            raise InputError(f"{one.path}: pixels of shape {raw.shape} where the header says {one.shape}: damaged")
        values = np.asarray(apply_modality_lut(raw, dataset), np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{one.path}: values that are not finite after rescaling: a damaged rescale slope")
        return values

"""Images and masks of public sets, brought onto one grid for each case."""

import re
from collections import UserDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from npcrepro.base.errors import InputError
from npcrepro.base.wording import plural
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.defects import Refused
from npcrepro.cohorts.images import from_itk, read_image, to_itk, to_mask
from npcrepro.cohorts.public.sets import Conversion
from npcrepro.cohorts.resample import ELSEWHERE, inside, register_rigid, resample, resample_mask, same_grid
from npcrepro.cohorts.structures import as_codes

DEEPEST = 3


@dataclass(frozen=True)
class Volume:
    """``array`` (z, y, x) with its grid, as `read_image` gives them."""

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    geometry: dict[str, list[float]]

    def itk(self) -> sitk.Image:
        """The same as SimpleITK has it."""
        return to_itk(self.array, self.spacing_mm, self.geometry)


class PackedMasks(UserDict[str, np.ndarray]):
    """Masks of one shape by name, one bit a voxel: 45 organs of a fine CT do not fit into memory otherwise."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def __setitem__(self, name: str, mask: np.ndarray) -> None:
        self.data[name] = np.packbits(mask)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.unpackbits(self.data[name], count=prod(self.shape)).reshape(self.shape).astype(bool)


def read(path: Path) -> Volume:
    """One image file; a file that git-lfs has not fetched is named as such."""
    if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of git-lfs and no image: run 'git lfs pull' in the cloned repository")
    return Volume(*read_image(path))


def find(log: Conversion, pattern: str) -> list[Path]:
    """What ``pattern`` finds in the source, or in the first folders below it that have any, in natural order.

    Archives are unpacked with and without a folder around them, so that the depth is not fixed. Raises InputError that
    names the layout and what is there instead.
    """
    source = log.source
    for depth in range(DEEPEST + 1):
        found = [path for path in source.glob("*/" * depth + pattern) if not _hidden(path.relative_to(source))]
        if found:
            return sorted(found, key=natural)
    inside = sorted(path.name for path in source.iterdir() if path.name[0] != ".")
    shown = ", ".join([*inside[:4], "..."] if len(inside) > 4 else inside) or "nothing"
    archives = [name for name in inside if name.endswith((".zip", ".tar", ".gz", ".7z"))]
    hint = f"; unpack {archives[0]} first" if archives and not any(".nii" in name for name in archives) else ""
    raise InputError(f"{source} does not hold {log.chosen.layout}: it holds {shown}{hint}")


def case_folders(log: Conversion, pattern: str, level: int = 1) -> list[Path]:
    """Folders of cases: those that ``pattern`` finds a file in, ``level`` steps above it, and the ones beside them.

    A case whose image is missing is among them, so that it is reported and not passed over.
    """
    places = dict.fromkeys(path.parents[level] for path in find(log, pattern))
    folders = (path for place in places for path in place.iterdir() if path.is_dir())
    return sorted((path for path in folders if not _hidden(Path(path.name))), key=natural)


def _hidden(path: Path) -> bool:
    # macOS leaves both behind in archives.
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key with numbers by value: case 2 before case 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path)) if part]


def stack(channels: Sequence[np.ndarray]) -> np.ndarray:
    """Image (C, z, y, x) of channels (z, y, x): integers keep their number type, the rest becomes float32."""
    image = np.stack(channels)
    return image if image.dtype.kind in "iu" and image.dtype.itemsize < 8 else image.astype(np.float32)


def case_of(
    name: str,
    image: Volume,
    label: np.ndarray | Mapping[str, np.ndarray],
    *more: np.ndarray,
    patient: str = "",
    not_contoured: tuple[str, ...] = (),
) -> CaseArrays:
    """A case of one image and ``more`` channels on its grid."""
    arrays = (stack([image.array, *more]), label, image.spacing_mm)
    return CaseArrays(name, patient or name, *arrays, not_contoured=not_contoured, geometry=image.geometry)


def contrast_ct(case: str, path: Path, image: Volume, log: Conversion) -> np.ndarray:
    """A contrast CT on the grid of the plain one. Raises InputError for one that covers no voxel of it."""
    contrast = read(path)
    moving, fixed = contrast.itk(), image.itk()
    if same_grid(moving, fixed):
        return contrast.array
    if not inside(moving, fixed).any():
        raise InputError(f"{path} covers no voxel of the first channel: {ELSEWHERE}")
    log.note(case, "contrast CT: resampled, as it was on another grid")
    return from_itk(resample(moving, fixed))[0]


def registered(moving: Volume, fixed: Volume) -> tuple[np.ndarray, sitk.Transform]:
    """A series on the grid of another one of the patient, and the rigid transform from ``fixed`` to it."""
    transform, _ = register_rigid(fixed.itk(), moving.itk())
    return from_itk(resample(moving.itk(), fixed.itk(), transform))[0], transform


def mask_on(path: Path, image: Volume) -> tuple[np.ndarray, str]:
    """A label image on the grid of the image it was drawn on, and a note where that is not certain.

    The grids have to have the same shape, or cover the same box with axes that are swapped or run the other way. With
    the same shape and a header that contradicts, voxels are taken in their order, with a note. Anything else is an
    InputError: the mask belongs to another series.
    """
    mask = read(path)
    drawn, fixed = mask.itk(), image.itk()
    if same_grid(drawn, fixed):
        return mask.array, ""
    # Both cover the same box of space, within half a voxel.
    corners = [_corners(each) for each in (drawn, fixed)]
    distance = np.linalg.norm(corners[0][:, None] - corners[1][None], axis=-1)
    if (distance.min(axis=1) < min(fixed.GetSpacing()) / 2).all():
        turned = sitk.Resample(drawn, fixed, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        return sitk.GetArrayFromImage(turned), "axes of the mask run another way; placed by position"
    if mask.array.shape == image.array.shape:
        return mask.array, "header of the mask does not fit the image; voxels taken in order, look at an overlay"
    cause = "drawn on another series, or slices are missing"
    raise InputError(f"{path} has {mask.array.shape} voxels (z, y, x) for an image of {image.array.shape}: {cause}")


def cropped_mask_on(path: Path, image: Volume) -> np.ndarray:
    """A binary mask, which may cover a part of the image only, on the grid of the image: bool (z, y, x).

    Raises InputError where something is marked and none of it is left, which would pass for a structure that is absent.
    """
    mask = read(path)
    marked = binary(mask.array)
    drawn, fixed = to_itk(marked, mask.spacing_mm, mask.geometry), image.itk()
    if same_grid(drawn, fixed):
        return marked
    found = from_itk(resample_mask(drawn, fixed))[0].astype(bool)
    if marked.any() and not found.any():
        number = plural(int(marked.sum()), "voxel")
        raise InputError(f"{path} marks {number}, of which none is left on the grid of the image: {ELSEWHERE}")
    return found


def binary(array: np.ndarray) -> np.ndarray:
    """A mask from values that rounding has moved off 0 and 1: where they are above one half, bool."""
    return array > 0.5


def read_codes(case: str, path: Path, image: Volume, log: Conversion) -> np.ndarray:
    """A label image on the grid of its image, as `to_mask` gives it. Raises InputError for other values."""
    codes, note = mask_on(path, image)
    log.note(case, note)
    label, defects = to_mask(codes, {name: as_codes(value) for name, value in log.wanted.structures.items()}, str(path))
    if label is None:
        raise Refused(defects[0])
    return label


def _corners(image: sitk.Image) -> np.ndarray:
    ends = [(-0.5, size - 0.5) for size in image.GetSize()]
    index = np.stack(np.meshgrid(*ends), -1).reshape(-1, 3)
    return np.array([image.TransformContinuousIndexToPhysicalPoint(corner) for corner in index.tolist()])

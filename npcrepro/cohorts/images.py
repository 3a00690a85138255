"""Image files: one at a time, with what ITK would pass over in silence."""

import gzip
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.defects import Defect, Refused
from npcrepro.cohorts.structures import LARGEST_CODE, Structures, smallest_type

if TYPE_CHECKING:
    import SimpleITK as sitk

IMAGE_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".png", ".tif", ".tiff")
NIFTI_HEADER = 352  # bytes before the voxels, as ITK writes them
LABEL_TOLERANCE = 1e-3
HIGHEST_COMPRESSION = 1100  # deflate cannot do better, and a voxel has a byte at least
SPACING_RANGE_MM = (1e-3, 100.0)  # a voxel of a medical image has micrometres at least and a few centimetres at most
NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}


def read_image(path: str | Path) -> tuple[np.ndarray, tuple[float, float, float], dict[str, list[float]]]:
    """Read one scalar image: ``(array (z, y, x), spacing_mm (z, y, x), geometry)``.

    ``geometry`` is ``{"origin": [x, y, z], "direction": [nine numbers, row by row]}`` in LPS millimetres. A 2-D image
    becomes one slice with a z spacing of 1 mm. NaN and infinite values are kept. Raises InputError for a file that is
    missing, unreadable or truncated, or has more than one value a voxel, complex numbers or a time axis.
    """
    import SimpleITK as sitk

    path = Path(path)
    index, values = _lost_values(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        _check_size(path)
        image = sitk.ReadImage(str(path))
    except RuntimeError as problem:
        reason = str(problem).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        cause = "not an image, truncated, a broken header, or axes that are not orthogonal"
        raise unreadable(path, reason, cause) from None
    if image.GetNumberOfComponentsPerPixel() > 1 or image.GetDimension() not in (2, 3):
        value = f"size {image.GetSize()} with {image.GetNumberOfComponentsPerPixel()} values a voxel"
        raise unreadable(path, value, "several channels or time points in one file: save one file a channel")
    if "complex" in image.GetPixelIDTypeAsString():
        cause = "the signal of a scanner and not the image made of it: save the magnitude"
        raise unreadable(path, "complex numbers", cause)
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    array, spacing_mm, geometry = from_itk(image)
    if not all(SPACING_RANGE_MM[0] <= spacing <= SPACING_RANGE_MM[1] for spacing in spacing_mm):
        raise unreadable(path, f"spacing_mm (z, y, x) {spacing_mm}", "a damaged header, or a spacing in another unit")
    if not np.isfinite([*geometry["origin"], *geometry["direction"]]).all():
        raise unreadable(path, f"origin {geometry['origin']}, direction {geometry['direction']}", "a damaged header")
    array.ravel()[index] = values
    return array, spacing_mm, geometry


def from_itk(image: "sitk.Image") -> tuple[np.ndarray, tuple[float, float, float], dict[str, list[float]]]:
    """Array (z, y, x), spacing_mm (z, y, x) and geometry of a volume of SimpleITK (see `read_image`)."""
    import SimpleITK as sitk

    x, y, z = image.GetSpacing()
    geometry = {"origin": list(image.GetOrigin()), "direction": list(image.GetDirection())}
    return sitk.GetArrayFromImage(image), (z, y, x), geometry


def to_itk(
    array: np.ndarray, spacing_mm: tuple[float, float, float], geometry: Mapping[str, Sequence[float]] | None = None
) -> "sitk.Image":
    """A volume of SimpleITK from array (z, y, x), spacing_mm (z, y, x) and geometry (see `read_image`)."""
    import SimpleITK as sitk

    # ITK and NIfTI have no booleans and no half precision.
    array = array.astype({"bool": "uint8", "float16": "float32"}.get(array.dtype.name, array.dtype.name))
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in reversed(spacing_mm)])
    if geometry is not None:
        image.SetOrigin(geometry["origin"])
        image.SetDirection(geometry["direction"])
    return image


def write_image(image: "sitk.Image", path: Path) -> None:
    """Write a ``.nii.gz`` file. Raises InputError where the disk is full, of which ITK only prints a line."""
    import SimpleITK as sitk

    sitk.WriteImage(image, str(path))
    size = NIFTI_HEADER + image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        if int.from_bytes(file.read(), "little") != size % 2**32:  # how a gzip file ends
            raise InputError(f"cannot write {path.name}: the file is cut off: the disk is full")


def axes_of(geometry: dict[str, list[float]]) -> str:
    """Where the x, y and z axes of an array (see `read_image`) point to, nearly: "LPS" is to the left, back and head.

    Example:
        >>> axes_of({"origin": [0.0, 0.0, 0.0], "direction": [-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0]})
        'RAS'
    """
    import SimpleITK as sitk

    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(geometry["direction"])


def _check_size(path: Path) -> None:
    """Raise InputError where the header promises more than the file can hold, before memory is asked for it."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = reader.GetSize()
    detached = path.name.endswith((".mhd", ".nhdr"))
    if not detached and math.prod(size) > HIGHEST_COMPRESSION * path.stat().st_size:
        cause = "a damaged header, or a truncated file"
        raise unreadable(path, f"{path.stat().st_size} bytes for {' x '.join(map(str, size))} voxels", cause)


def unreadable(path: Path, value: object, cause: str) -> Refused:
    """The error of a file that cannot be read."""
    return Refused(Defect("error", str(path), "cannot be read", str(value), cause))


def _lost_values(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Raise InputError for a truncated file; return index (in file order) and value of the voxels that are not finite.

    ITK fills a truncated NIfTI with zeros, makes NaN and infinite values zero, and says nothing of either.
    """
    if not path.is_file():
        raise unreadable(path, "no such file", "moved, removed or mistyped")
    lost = np.empty(0, np.int64), np.empty(0)
    if not path.name.endswith((".nii", ".nii.gz")):
        return lost
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            data = file.read()
    except (EOFError, OSError, zlib.error) as problem:
        cause = "truncated or damaged: an interrupted copy or download"
        raise unreadable(path, f"{path.stat().st_size} bytes, {problem}", cause) from None
    layout = _nifti_layout(data)
    if layout is None:
        cause = "not a NIfTI file: another format under this ending, or an error page"
        raise unreadable(path, f"{len(data)} bytes", cause)
    offset, voxels, bits, number_type = layout
    needed = offset + voxels * bits // 8
    if len(data) < needed:
        cause = "truncated: an interrupted copy or download, or a full disk"
        raise unreadable(path, f"{len(data)} bytes of {needed}", cause)
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
        if bits != NIFTI_BITS.get(code, bits):
            return None
        return int(offset), math.prod(dim[1 : dim[0] + 1]), bits, {16: f"{order}f4", 64: f"{order}f8"}.get(code)
    return None


def not_finite(file: str, array: np.ndarray) -> Defect:
    """The defect of an image that is not all numbers."""
    value = f"{int((~np.isfinite(array)).sum())} voxels"
    cause = "a division by zero in preprocessing, or a resampling outside the image"
    return Defect("error", file, "NaN or infinite values", value, cause)


def value_defects(file: str, array: np.ndarray) -> list[Defect]:
    """What is wrong with the values of an image, which is trained on as float32 at the widest.

    Example:
        >>> for defect in value_defects("a.nii.gz", np.full((2, 4, 4), 7)):
        ...     print(defect)
        a.nii.gz: image has one value (7); likely cause: an export without the voxels, or a resampling outside the image
    """
    low, high = array.min(), array.max()
    if not np.isfinite([low, high]).all():
        return [not_finite(file, array)]
    with np.errstate(over="ignore"):
        beyond = np.isinf(np.asarray([low, high], np.float32)).any()
    if beyond:
        largest = np.finfo(np.float32).max
        value = f"{int((np.abs(array) > largest).sum())} voxels, from {low:.3g} to {high:.3g}"
        cause = "a wrong data type, or a wrong scaling in the header"
        return [Defect("error", file, "values beyond the range of float32", value, cause)]
    if low == high:
        cause = "an export without the voxels, or a resampling outside the image"
        return [Defect("warning", file, "image has one value", f"{low:g}", cause)]
    return []


def to_mask(array: np.ndarray, structures: Structures | None, file: str) -> tuple[np.ndarray | None, list[Defect]]:
    """A label image as uint8 (uint16 with codes above 255), or None with the reason.

    Without ``structures`` any code will do.
    """
    if not np.isfinite(array).all():
        return None, [not_finite(file, array)]
    values = np.unique(array)
    if array.dtype.kind == "f":
        between = values[np.abs(values - np.rint(values)) > LABEL_TOLERANCE]
        if between.size:
            value = ", ".join(f"{v:.4g}" for v in between[:3]) + (", ..." if between.size > 3 else "")
            cause = "a label resampled with interpolation: use nearest neighbour"
            return None, [Defect("error", file, "label values that are no integers", value, cause)]
        array, values = np.rint(array), np.unique(np.rint(values))
    allowed = range(LARGEST_CODE + 1) if structures is None else {0, *chain.from_iterable(structures.values())}
    unknown = [v for v in values.tolist() if v not in allowed]
    if unknown:
        value = ", ".join(f"{v:g} in {int((array == v).sum())} voxels" for v in unknown[:3])
        value += ", ..." if len(unknown) > 3 else ""
        cause = "another numbering of structures (255 for 1 is usual), or 'labels' in dataset.json is not complete"
        return None, [Defect("error", file, "unknown label value", value, cause)]
    kind = smallest_type(int(values.max()))
    if values.tolist() == [0]:
        cause = "nothing was drawn, or the export took another structure; a case without tumour is rightly empty"
        return array.astype(kind), [Defect("warning", file, "empty label", "0 voxels", cause)]
    return array.astype(kind), []

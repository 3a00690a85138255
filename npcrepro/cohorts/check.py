"""The check of a cohort: every defect in one pass, each with file, value and likely cause."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from npcrepro.cohorts.cohort import NO_IMAGE, Case
from npcrepro.cohorts.defects import Defect, Refused
from npcrepro.cohorts.images import axes_of, read_image, to_mask, value_defects
from npcrepro.cohorts.listing import Listing, cohort_folder, scan
from npcrepro.cohorts.structures import Structures

# Half a voxel at the edge of a 512 matrix: what rounding a spacing to three decimals does, and no more.
SPACING_TOLERANCE = 1e-3
ORIGIN_TOLERANCE_VOXELS = 0.1
DIRECTION_TOLERANCE = 1e-3
OBLIQUE_TOLERANCE_DEG = 10.0
SPACING_OUTLIER = 2.0
IN_PLANE_TOLERANCE = 0.05
AIR_HU, BONE_HU = -200, 1500  # fat is at -100, air at -1000; few voxels of bone are above
IN_PLANE_MM = 0.2, 10.0  # of a voxel of a scanner


def check(root: str | Path) -> list[Defect]:
    """Every defect of a cohort in one pass, structure first, then case by case, then what sets cases apart.

    Nothing in the folder makes it raise. Looks at ``dataset.json``, missing files, unreadable and truncated images,
    grids, NaN, infinite values and those beyond float32, images of one value, label values, empty labels, cases that
    are there twice, orientation and spacing.
    Cases of ``wrong_labels`` are not looked at. An empty list means that `prepare` will not complain.

    Example:
        >>> for defect in check("no-such-folder"):
        ...     print(defect)
        .: no such folder (no-such-folder); likely cause: a mistyped path, or data that are not mounted here
    """
    root = cohort_folder(root)
    listing = scan(root)
    defects = list(listing.defects)
    # Files that the scan has reported as missing are not reported once more.
    cases = [replace(case, images=tuple(path for path in case.images if path.is_file())) for case in listing.cases]
    seen: dict[str, Case] = {}
    grids: dict[str, tuple[tuple[float, float, float], dict[str, list[float]]]] = {}
    for case in cases:
        content, found = inspect_case(case, listing.structures, root)
        defects += [d for d in found if (d.problem, d.value) != ("cannot be read", "no such file")]
        if content is None:
            continue
        grids[shown(content.images[0][0], root)] = (content.spacing_mm, content.geometry)
        defects += _ct_defects(content, listing, root)
        twins = set()
        for path, array in content.images:
            digest = hashlib.sha256(repr((array.shape, array.dtype.name)).encode())
            digest.update(np.ascontiguousarray(array).data)
            first = seen.setdefault(digest.hexdigest(), case)
            if first.name != case.name and first.name not in twins:
                twins.add(first.name)
                defects.append(_twin(first, case, shown(path, root)))
    defects += _orientation_defects({file: geometry for file, (_, geometry) in grids.items()})
    if listing.header.get("spacing_known", True):
        defects += _spacing_defects({file: spacing for file, (spacing, _) in grids.items()})
    return defects


def _twin(first: Case, case: Case, file: str) -> Defect:
    problem = "the same image under two case names"
    if first.patient == case.patient:
        value = f"cases {first.name} and {case.name} of patient {case.patient}"
        return Defect("warning", file, problem, value, "one case was copied twice")
    value = f"cases {first.name} and {case.name} of patients {first.patient} and {case.patient}"
    cause = "one patient under two names, who would be in training and test: put both into 'groups'"
    return Defect("error", file, problem, value, cause)


@dataclass
class Content:
    """One case as read: ``images`` (file and array (z, y, x)), and the grid of the first of them."""

    images: list[tuple[Path, np.ndarray]]
    mask: np.ndarray | None
    spacing_mm: tuple[float, float, float]
    geometry: dict[str, list[float]]


def inspect_case(case: Case, structures: Structures | None, root: Path) -> tuple[Content | None, list[Defect]]:
    """Read one case and list its defects. None where no image can be read."""
    defects: list[Defect] = []
    reference = None
    images = []
    for path in (path for path in case.images if path != NO_IMAGE):
        found = _try_read(path, root, defects)
        if found is None:
            continue
        array, spacing, geometry = found
        defects += value_defects(shown(path, root), array)
        if reference is None:
            reference = (shown(path, root), array.shape, spacing, geometry)
        else:
            cause = "the channels were not resampled to one grid, or belong to different studies"
            defects += grid_defects(shown(path, root), (array.shape, spacing, geometry), *reference, cause)
        images.append((path, array))
    mask = None
    found = _try_read(case.label, root, defects)
    if found is not None:
        array, spacing, geometry = found
        if reference is not None:
            cause = "the label was drawn on another series or resampled, or its header was lost on export"
            defects += grid_defects(shown(case.label, root), (array.shape, spacing, geometry), *reference, cause)
        mask, more = to_mask(array, structures, shown(case.label, root))
        defects += more
    content = None if reference is None else Content(images, mask, reference[2], reference[3])
    return content, defects


def _ct_defects(content: Content, listing: Listing, root: Path) -> list[Defect]:
    """A CT whose numbers cannot be Hounsfield units."""
    defects = []
    names = listing.channels if len(listing.channels) == len(content.images) else ()
    for name, (path, array) in zip(names, content.images, strict=False):
        if name == "CT" and array.min() > AIR_HU and array.max() > BONE_HU:
            cause = "stored without the rescale intercept of DICOM, so that water is at 1,024"
            value = f"from {array.min():g} to {array.max():g}"
            defects.append(Defect("warning", shown(path, root), "a CT that is not in HU", value, cause))
    return defects


def shown(path: Path, root: Path) -> str:
    """The name of a file as a message gives it: relative to the cohort where it can be."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _try_read(path: Path, root: Path, defects: list[Defect]) -> tuple | None:
    try:
        return read_image(path)
    except Refused as problem:
        defects.append(replace(problem.defect, file=shown(path, root)))
        return None


def grid_defects(
    file: str, grid: tuple, other: str, shape: tuple, spacing: tuple, geometry: dict, cause: str
) -> list[Defect]:
    """What differs between the grid of ``file`` and that of ``other``."""

    def differs(what: str, mine: Iterable[float], theirs: Iterable[float], why: str) -> Defect:
        value = f"{_numbers(mine)} and {_numbers(theirs)} in {other}"
        return Defect("error", file, f"another grid: {what} differs", value, why)

    if grid[0] != shape:
        if sorted(grid[0]) == sorted(shape):
            cause = "the axes were transposed on export"
        return [differs("shape (z, y, x)", grid[0], shape, cause)]
    defects = []
    if not np.allclose(grid[1], spacing, rtol=SPACING_TOLERANCE, atol=0):
        defects.append(differs("spacing_mm (z, y, x)", grid[1], spacing, cause))
    mine, theirs = np.array(grid[2]["direction"]), np.array(geometry["direction"])
    if np.abs(mine - theirs).max() > DIRECTION_TOLERANCE:
        mirrored = np.allclose(np.abs(mine), np.abs(theirs), atol=DIRECTION_TOLERANCE)
        why = "one of the two was flipped on export" if mirrored else cause
        defects.append(differs("direction", mine, theirs, why))
    shift = np.abs(np.subtract(grid[2]["origin"], geometry["origin"])).max()
    if shift > ORIGIN_TOLERANCE_VOXELS * min(spacing):
        defects.append(differs("origin (x, y, z)", grid[2]["origin"], geometry["origin"], cause))
    return defects


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _orientation_defects(geometries: dict[str, dict[str, list[float]]]) -> list[Defect]:
    axes = {file: axes_of(geometry) for file, geometry in geometries.items()}
    counts = Counter(axes.values())
    usual = min(counts, key=lambda letters: (-counts[letters], letters != "LPS", letters), default="LPS")
    defects = []
    for file, letters in axes.items():
        if letters[2] not in "SI":
            cause = "a coronal or sagittal series, or axes transposed on export"
            defects.append(Defect("warning", file, "slices are not axial", f"axes {letters}", cause))
        elif letters != usual:
            cause = "a flip on export: arrays of this case are mirrored relative to the others"
            value = f"axes {letters}, {usual} in most cases"
            defects.append(Defect("warning", file, "another orientation than the other cases", value, cause))
        # How far each axis of the array is off the nearest axis of the patient.
        cosines = np.abs(geometries[file]["direction"]).reshape(3, 3).max(axis=0)
        off = float(np.degrees(np.arccos(cosines.min().clip(max=1))))
        if off > OBLIQUE_TOLERANCE_DEG:
            cause = "an oblique acquisition that was not resampled"
            defects.append(Defect("warning", file, "oblique axes", f"{off:.0f} degrees off the patient's axes", cause))
    if usual != "LPS" and usual[2] in "SI":
        cause = "written by a tool with other conventions; arrays and figures are mirrored, labels still match"
        folder = next(iter(geometries)).split("/")[0] or "images"
        defects.append(Defect("warning", folder, "axes are not those of the patient (LPS)", f"axes {usual}", cause))
    return defects


def _spacing_defects(spacings: dict[str, tuple[float, float, float]]) -> list[Defect]:
    defects = []
    median = np.median(list(spacings.values()), axis=0) if spacings else np.ones(3)
    for file, spacing in spacings.items():
        ratio = np.array(spacing) / median
        if (ratio > SPACING_OUTLIER).any() or (ratio < 1 / SPACING_OUTLIER).any():
            value = f"spacing_mm (z, y, x) {_numbers(spacing)}, median {_numbers(median)}"
            cause = "a spacing lost or in another unit, or another protocol"
            defects.append(Defect("warning", file, "spacing far from that of the other cases", value, cause))
        if not IN_PLANE_MM[0] <= min(spacing[1:]) <= max(spacing[1:]) <= IN_PLANE_MM[1]:
            cause = 'a spacing in cm or m, or one that was lost; if it is unknown, say "spacing_known": false'
            defects.append(Defect("warning", file, "an unlikely spacing", f"(z, y, x) {_numbers(spacing)} mm", cause))
        if abs(spacing[1] / spacing[2] - 1) > IN_PLANE_TOLERANCE:
            cause = "axes mixed up on export, or resampled to a fixed matrix"
            value = f"y {spacing[1]:.6g} mm, x {spacing[2]:.6g} mm"
            defects.append(Defect("warning", file, "spacing differs in the plane", value, cause))
    return defects

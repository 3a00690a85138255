"""Head-and-neck CT with one file for each structure: HaN-Seg and DeepMind TCIA (NRRD), OpenKBP (tables of voxels)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.public.sets import Conversion
from npcrepro.cohorts.public.volumes import (
    PackedMasks,
    Volume,
    case_folders,
    case_of,
    cropped_mask_on,
    read,
    registered,
    stack,
)


def hanseg(log: Conversion) -> Iterator[CaseArrays]:
    folders = case_folders(log, "case_*/case_*_IMG_CT.nrrd")

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / f"{name}_IMG_CT.nrrd")
        files = {
            path.name.removeprefix(f"{name}_OAR_").removesuffix(".seg.nrrd"): path
            for path in sorted(folder.glob(f"{name}_OAR_*.seg.nrrd"))
        }
        masks, missing = _organs(name, files, image, log)
        more = [registered(read(folder / f"{name}_IMG_MR_T1.nrrd"), image)[0]] if "T1" in log.wanted.channels else []
        return case_of(name, image, masks, *more, not_contoured=missing)

    cases = {folder.name: folder for folder in folders}
    return log.convert(cases, case)


def deepmind(log: Conversion) -> Iterator[CaseArrays]:
    folders = case_folders(log, f"*/{log.variant}/*/CT_IMAGE.nrrd")
    cases = {folder.name: folder for folder in folders}
    if len(cases) < len(folders):
        raise InputError(
            f"{log.source} holds a case twice: {len(folders)} folders of {len(cases)} cases of the {log.variant}"
        )

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / "CT_IMAGE.nrrd")
        # Some cases write an underscore for the hyphen.
        found = {
            path.name.removesuffix(".nrrd").replace("_", "-"): path
            for path in sorted((folder / "segmentations").glob("*.nrrd"))
        }
        masks, missing = _organs(name, found, image, log)
        return case_of(name, image, masks, not_contoured=missing)

    return log.convert(cases, case)


def _organs(case: str, files: dict[str, Path], image: Volume, log: Conversion) -> tuple[PackedMasks, tuple[str, ...]]:
    """Masks of the organs that are there, and which are missing; these and what is unknown go to the log."""
    masks = PackedMasks(image.array.shape)
    for organ, name in log.wanted.structures.items():
        if name in files:
            masks[organ] = cropped_mask_on(files[name], image)
    if not masks:
        raise InputError(f"{case} has no mask of a known organ: the archive is not unpacked in full")
    missing = log.missing(case, masks)
    unknown = sorted(set(files) - set(log.wanted.structures.values()))
    if unknown:
        log.note(case, f"left out, as the set does not list them: {', '.join(unknown)}")
    return masks, missing


OPENKBP_SHAPE = (128, 128, 128)
# The published numbers are HU + 1000.
ZERO_HU = 1000


def openkbp(log: Conversion) -> Iterator[CaseArrays]:
    folders = case_folders(log, "*-pats/pt_*/ct.csv")
    cases = {f"KBP_{int(folder.name.removeprefix('pt_')):03d}": folder for folder in folders}

    def case(name: str, folder: Path) -> CaseArrays:
        image = _voxels(folder / "ct.csv").astype(np.int16) - ZERO_HU
        files = {structure: folder / f"{roi}.csv" for structure, roi in log.wanted.structures.items()}
        masks = {structure: _voxels(path).astype(bool) for structure, path in files.items() if path.is_file()}
        if not masks:
            raise InputError(f"{folder}: none of {', '.join(files)} was contoured")
        missing = log.missing(name, masks)
        # A dose level that was not prescribed has no target volume, which is an empty mask.
        unknown = missing if log.variant == "oars" else ()
        spacing_mm = _spacing_mm(folder / "voxel_dimensions.csv")
        return CaseArrays(name, name, stack([image]), masks, spacing_mm, not_contoured=unknown)

    return log.convert(cases, case)


def _voxels(path: Path) -> np.ndarray:
    """A table of voxels as (z, y, x), feet first: values, or 1 where a mask lists indices only."""
    import pandas as pd

    try:
        table = pd.read_csv(path, index_col=0)
        index = table.index.to_numpy(np.int64)
        values = np.zeros(OPENKBP_SHAPE, np.float32)
        listed = table.iloc[:, 0].to_numpy(np.float32)
        values.ravel()[index] = 1 if np.isnan(listed).all() else listed
    except (OSError, ValueError, IndexError) as problem:
        raise InputError(f"{path} is not a table of voxel and value: {problem}") from None
    # From (front to back, right to left, head to feet) to (feet to head, front to back, right to left).
    return values.transpose(2, 0, 1)[::-1]


def _spacing_mm(path: Path) -> tuple[float, float, float]:
    try:
        y, x, z = np.loadtxt(path, ndmin=1).ravel().tolist()
    except (OSError, ValueError) as problem:
        raise InputError(f"{path} does not hold three voxel sizes: {problem}") from None
    return z, y, x

"""Sets with label images (SegRap2023, StructSeg 2019, LNCTVSeg, HNTS-MRG 2024), with one file for each structure
(HaN-Seg, DeepMind TCIA), and as tables of voxels (OpenKBP)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.public import volumes
from npcrepro.cohorts.public.sets import Conversion
from npcrepro.cohorts.public.volumes import PackedMasks, Volume, case_folders, case_of, read

# Files with one organ each carry the names of the challenge.
OTHER_NAMES = {"OpticChiasm": "Chiasm"}
SCANS = {"0000": "CT", "0001": "CECT"}


def segrap(log: Conversion) -> Iterator[CaseArrays]:
    folders = case_folders(log, "segrap_*/image.nii.gz")
    task = {"oars": "Task001", "targets": "Task002"}[log.variant]
    coded = {path.name.removesuffix(".nii.gz"): path for path in sorted(log.source.glob(f"**/{task}/segrap_*.nii.gz"))}
    # The corrected labels came in a folder of their own, with the same names of cases.
    places = sorted({path.parent.parent for path in log.source.glob("**/segrap_*/*.nii.gz")}, key=volumes.natural)
    cases = {folder.name: folder for folder in folders}
    for name in sorted(set(coded) - set(cases)):
        log.skip(name, f"a label in {task} and no folder of images")

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / "image.nii.gz")
        contrast = volumes.contrast_ct(name, folder / "image_contrast.nii.gz", image, log)
        label: np.ndarray | PackedMasks
        missing: tuple[str, ...] = ()
        if coded:
            if name not in coded:
                raise InputError(f"{name} has an image and no label in {task}; the labels of another release")
            label = volumes.read_codes(name, coded[name], image, log)
        else:
            label, missing = _segrap_organs(name, [folder, *(place / name for place in places)], image, log)
        # Without nodal disease there is no GTVnd, which is an empty mask.
        unknown = missing if log.variant == "oars" else ()
        return case_of(name, image, label, contrast, not_contoured=unknown)

    return log.convert(cases, case)


def _segrap_organs(
    name: str, folders: list[Path], image: Volume, log: Conversion
) -> tuple[PackedMasks, tuple[str, ...]]:
    """Masks from one file an organ, and which are missing; where two folders have it, the later one counts."""
    masks = PackedMasks(image.array.shape)
    for organ in log.wanted.structures:
        file = f"{OTHER_NAMES.get(organ, organ)}.nii.gz"
        path = next((place / file for place in reversed(folders) if (place / file).is_file()), None)
        if path is None:
            continue
        mask, note = volumes.mask_on(path, image)
        masks[organ] = volumes.binary(mask)
        log.note(name, note and f"{organ}: {note}")
    if not masks:
        names = ", ".join(list(log.wanted.structures)[:3])
        raise InputError(f"{folders[0]} holds no file of {names}: labels are not unpacked here")
    return masks, log.missing(name, masks)


def structseg(log: Conversion) -> Iterator[CaseArrays]:
    task = {"oars": "HaN_OAR", "targets": "Naso_GTV"}[log.variant]
    here = "" if log.source.resolve().name.endswith(task) else f"*{task}*/"
    folders = case_folders(log, f"{here}*/data.nii.gz")
    numbered = ((f"{int(folder.name):02d}" if folder.name.isdigit() else folder.name, folder) for folder in folders)
    cases = {f"structseg_{number}": folder for number, folder in numbered}

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / "data.nii.gz")
        return case_of(name, image, volumes.read_codes(name, folder / "label.nii.gz", image, log))

    return log.convert(cases, case)


def lnctv(log: Conversion) -> Iterator[CaseArrays]:
    files = volumes.find(log, "*_Cohort*/images*/*_000[01].nii.gz")
    scans: dict[str, dict[str, Path]] = {}
    for path in files:
        stem, number = path.name.removesuffix(".nii.gz").rsplit("_", 1)
        centre = path.parent.parent.name.replace("_Cohort", "")
        scans.setdefault(f"{centre}_{stem}", {})[SCANS[number]] = path

    def label_of(path: Path) -> Path:
        stem = path.name.removesuffix(".nii.gz").rsplit("_", 1)[0]
        return path.parent.parent / path.parent.name.replace("images", "labels") / f"{stem}.nii.gz"

    def single(name: str, path: Path) -> CaseArrays:
        image = read(path)
        label = volumes.read_codes(name, label_of(path), image, log)
        return case_of(name, image, label, patient=name.rsplit("_", 1)[0])

    def pair(name: str, plain: Path) -> CaseArrays:
        if len(scans[name]) < len(SCANS):
            raise InputError(f"one CT only ({next(iter(scans[name]))}); the variant 'single' takes it")
        image = read(plain)
        contrast = volumes.contrast_ct(name, scans[name]["CECT"], image, log)
        return case_of(name, image, volumes.read_codes(name, label_of(plain), image, log), contrast)

    if log.variant == "single":
        cases = {f"{name}_{scan}": path for name, found in scans.items() for scan, path in sorted(found.items())}
        return log.convert(cases, single)
    cases = {name: next(iter(found.values())) for name, found in scans.items()}
    return log.convert(cases, pair)


def hnts(log: Conversion) -> Iterator[CaseArrays]:
    when = f"{log.variant}RT"
    folders = case_folders(log, f"*/{when}/*_{when}_T2.nii.gz", level=2)
    cases = {f"HNTS_{folder.name}": folder / when for folder in folders}

    def case(name: str, folder: Path) -> CaseArrays:
        stem = f"{folder.parent.name}_{when}"
        image = read(folder / f"{stem}_T2.nii.gz")
        label = volumes.read_codes(name, folder / f"{stem}_mask.nii.gz", image, log)
        if not label.any():
            log.note(name, "empty mask: nothing of the tumour is left")
        return case_of(name, image, label)

    return log.convert(cases, case)


def hanseg(log: Conversion) -> Iterator[CaseArrays]:
    folders = case_folders(log, "case_*/case_*_IMG_CT.nrrd")

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / f"{name}_IMG_CT.nrrd")
        files = {
            path.name.removeprefix(f"{name}_OAR_").removesuffix(".seg.nrrd"): path
            for path in sorted(folder.glob(f"{name}_OAR_*.seg.nrrd"))
        }
        masks, missing = _organs(name, files, image, log)
        more = []
        if "T1" in log.wanted.channels:
            more.append(volumes.registered(read(folder / f"{name}_IMG_MR_T1.nrrd"), image)[0])
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
            masks[organ] = volumes.cropped_mask_on(files[name], image)
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
        return CaseArrays(name, name, volumes.stack([image]), masks, spacing_mm, not_contoured=unknown)

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

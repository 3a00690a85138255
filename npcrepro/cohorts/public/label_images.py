"""Sets with label images: SegRap2023 and StructSeg 2019 (NPC CT), LNCTVSeg (lymph node levels), HNTS-MRG 2024 (MRI)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.public.sets import Conversion
from npcrepro.cohorts.public.volumes import (
    PackedMasks,
    Volume,
    binary,
    case_folders,
    case_of,
    contrast_ct,
    find,
    mask_on,
    natural,
    read,
    read_codes,
)

# Files with one organ each carry the names of the challenge.
OTHER_NAMES = {"OpticChiasm": "Chiasm"}
SCANS = {"0000": "CT", "0001": "CECT"}


def segrap(log: Conversion) -> Iterator[CaseArrays]:
    folders = case_folders(log, "segrap_*/image.nii.gz")
    task = {"oars": "Task001", "targets": "Task002"}[log.variant]
    coded = {path.name.removesuffix(".nii.gz"): path for path in sorted(log.source.glob(f"**/{task}/segrap_*.nii.gz"))}
    # The corrected labels came in a folder of their own, with the same names of cases.
    places = sorted({path.parent.parent for path in log.source.glob("**/segrap_*/*.nii.gz")}, key=natural)
    cases = {folder.name: folder for folder in folders}
    for name in sorted(set(coded) - set(cases)):
        log.skip(name, f"a label in {task} and no folder of images")

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / "image.nii.gz")
        contrast = contrast_ct(name, folder / "image_contrast.nii.gz", image, log)
        label: np.ndarray | PackedMasks
        missing: tuple[str, ...] = ()
        if coded:
            if name not in coded:
                raise InputError(f"{name} has an image and no label in {task}; the labels of another release")
            label = read_codes(name, coded[name], image, log)
        else:
            label, missing = _organ_files(name, [folder, *(place / name for place in places)], image, log)
        # Without nodal disease there is no GTVnd, which is an empty mask.
        unknown = missing if log.variant == "oars" else ()
        return case_of(name, image, label, contrast, not_contoured=unknown)

    return log.convert(cases, case)


def _organ_files(name: str, folders: list[Path], image: Volume, log: Conversion) -> tuple[PackedMasks, tuple[str, ...]]:
    """Masks from one file an organ, and which are missing; where two folders have it, the later one counts."""
    masks = PackedMasks(image.array.shape)
    for organ in log.wanted.structures:
        file = f"{OTHER_NAMES.get(organ, organ)}.nii.gz"
        path = next((place / file for place in reversed(folders) if (place / file).is_file()), None)
        if path is None:
            continue
        mask, note = mask_on(path, image)
        masks[organ] = binary(mask)
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
        return case_of(name, image, read_codes(name, folder / "label.nii.gz", image, log))

    return log.convert(cases, case)


def lnctv(log: Conversion) -> Iterator[CaseArrays]:
    files = find(log, "*_Cohort*/images*/*_000[01].nii.gz")
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
        label = read_codes(name, label_of(path), image, log)
        return case_of(name, image, label, patient=name.rsplit("_", 1)[0])

    def pair(name: str, plain: Path) -> CaseArrays:
        if len(scans[name]) < len(SCANS):
            raise InputError(f"one CT only ({next(iter(scans[name]))}); the variant 'single' takes it")
        image = read(plain)
        contrast = contrast_ct(name, scans[name]["CECT"], image, log)
        return case_of(name, image, read_codes(name, label_of(plain), image, log), contrast)

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
        label = read_codes(name, folder / f"{stem}_mask.nii.gz", image, log)
        if not label.any():
            log.note(name, "empty mask: nothing of the tumour is left")
        return case_of(name, image, label)

    return log.convert(cases, case)

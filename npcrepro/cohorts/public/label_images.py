"""Sets with label images: SegRap2023 and StructSeg 2019 (NPC CT), LNCTVSeg (lymph node levels), HNTS-MRG 2024 (MRI)."""

from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.public.sets import Conversion, ConversionLog, Outlook
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
from npcrepro.cohorts.structures import Structures


def _sides(**codes: tuple[int, ...]) -> Structures:
    """Left and right organs: the codes of the right one follow those of the left one."""
    return {
        f"{organ}_{side}": tuple(code + offset for code in left)
        for organ, left in codes.items()
        for offset, side in enumerate("LR")
    }


# The published label image is cut into 54 parts that do not overlap; an organ is the union of its parts.
SEGRAP_ORGANS: Structures = (
    {"Brain": (1, 2, 3, 4, 5, 6, 7, 8, 9), "BrainStem": (2,), "OpticChiasm": (3,)}
    | _sides(TemporalLobe=(4, 6), Hippocampus=(6, 8), Eye=(10, 12), Lens=(12,), OpticNerve=(14,))
    | _sides(MiddleEar=(16, 18, 20, 24, 28, 30), IAC=(18,), TympanicCavity=(20, 22), VestibulSemi=(24, 26))
    | _sides(Cochlea=(28,), ETbone=(30, 32))
    | {"Pituitary": (34,), "OralCavity": (35,)}
    | _sides(Mandible=(36,), Submandibular=(38,), Parotid=(40,), Mastoid=(42,), TMjoint=(44,))
    | {"SpinalCord": (46,), "Esophagus": (47,), "Larynx": (48, 49, 50, 51), "Larynx_Glottic": (49,)}
    | {"Larynx_Supraglot": (50,), "PharynxConst": (51, 52), "Thyroid": (53,), "Trachea": (54,)}
)
SEGRAP_TARGETS: Structures = {"GTVp": (1,), "GTVnd": (2,)}
# Files with one organ each carry the names of the challenge.
OTHER_NAMES = {"OpticChiasm": "Chiasm"}

STRUCTSEG_ORGANS: Structures = (
    {"BrainStem": (1,)}
    | _sides(Eye=(2,), Lens=(4,), OpticNerve=(6,))
    | {"OpticChiasm": (8,)}
    | _sides(TemporalLobe=(9,))
    | {"Pituitary": (11,)}
    | _sides(Parotid=(12,), InnerEar=(14,), MiddleEar=(16,), TMjoint=(18,))
    | {"SpinalCord": (20,)}
    | _sides(Mandible=(21,))
)
STRUCTSEG_TASKS: dict[str, tuple[str, Structures]] = {
    "oars": ("HaN_OAR", STRUCTSEG_ORGANS),
    "targets": ("Naso_GTV", {"GTVp": (1,)}),
}


def segrap(variant: str, log: ConversionLog) -> Conversion:
    folders = case_folders(log, "segrap_*/image.nii.gz")
    structures, task = {"oars": (SEGRAP_ORGANS, "Task001"), "targets": (SEGRAP_TARGETS, "Task002")}[variant]
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
            label = read_codes(name, coded[name], image, structures, log)
        else:
            label, missing = _organ_files(name, [folder, *(place / name for place in places)], image, structures, log)
        # Without nodal disease there is no GTVnd, which is an empty mask.
        unknown = missing if variant == "oars" else ()
        return case_of(name, image, label, contrast, not_contoured=unknown)

    named = structures if coded else tuple(structures)
    outlook = OUTLOOKS[variant]
    return Conversion(outlook.name, outlook.channels, named, log.convert(cases, case))


def _organ_files(
    name: str, folders: list[Path], image: Volume, structures: Structures, log: ConversionLog
) -> tuple[PackedMasks, tuple[str, ...]]:
    """Masks from one file an organ, and which are missing; where two folders have it, the later one counts."""
    masks = PackedMasks(image.array.shape)
    for organ in structures:
        file = f"{OTHER_NAMES.get(organ, organ)}.nii.gz"
        path = next((place / file for place in reversed(folders) if (place / file).is_file()), None)
        if path is None:
            continue
        mask, note = mask_on(path, image)
        masks[organ] = binary(mask)
        log.note(name, note and f"{organ}: {note}")
    if not masks:
        raise InputError(
            f"{folders[0]} holds no file of {', '.join(list(structures)[:3])}: labels are not unpacked here"
        )
    return masks, log.missing(name, structures, masks)


def structseg(variant: str, log: ConversionLog) -> Conversion:
    task, structures = STRUCTSEG_TASKS[variant]
    here = "" if log.source.resolve().name.endswith(task) else f"*{task}*/"
    folders = case_folders(log, f"{here}*/data.nii.gz")
    numbered = ((f"{int(folder.name):02d}" if folder.name.isdigit() else folder.name, folder) for folder in folders)
    cases = {f"structseg_{number}": folder for number, folder in numbered}

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / "data.nii.gz")
        return case_of(name, image, read_codes(name, folder / "label.nii.gz", image, structures, log))

    return Conversion(f"StructSeg2019_{variant}", ("CT",), structures, log.convert(cases, case))


# The publisher does not say how many slices a scan has: 120 of 3 mm, from the vertex to below the clavicles, stand for
# all of them.
OUTLOOKS = {
    variant: Outlook(f"SegRap2023_{variant}", 120, ("CT", "CECT"), tuple(structures), series=2, shape=(120, 512, 512))
    for variant, structures in (("oars", SEGRAP_ORGANS), ("targets", SEGRAP_TARGETS))
}


LEVELS: Structures = {
    **{"CTVn_II_III_Va_R": (1,), "CTVn_II_III_Va_L": (2,), "CTVn_IV_Vb_R": (3,), "CTVn_IV_Vb_L": (4,)},
    **{"CTVn_Ib_R": (5,), "CTVn_Ib_L": (6,)},
}
SCANS = {"0000": "CT", "0001": "CECT"}

# Published as GTVn; one name for nodal disease in all cohorts.
TUMOUR: Structures = {"GTVp": (1,), "GTVnd": (2,)}


def lnctv(variant: str, log: ConversionLog) -> Conversion:
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
        label = read_codes(name, label_of(path), image, LEVELS, log)
        return case_of(name, image, label, patient=name.rsplit("_", 1)[0])

    def pair(name: str, plain: Path) -> CaseArrays:
        if len(scans[name]) < len(SCANS):
            raise InputError(f"one CT only ({next(iter(scans[name]))}); the variant 'single' takes it")
        image = read(plain)
        contrast = contrast_ct(name, scans[name]["CECT"], image, log)
        return case_of(name, image, read_codes(name, label_of(plain), image, LEVELS, log), contrast)

    if variant == "single":
        cases = {f"{name}_{scan}": path for name, found in scans.items() for scan, path in sorted(found.items())}
        return Conversion("LNCTVSeg_single", ("CT",), LEVELS, log.convert(cases, single))
    cases = {name: next(iter(found.values())) for name, found in scans.items()}
    return Conversion("LNCTVSeg_pairs", ("CT", "CECT"), LEVELS, log.convert(cases, pair))


def hnts(variant: str, log: ConversionLog) -> Conversion:
    when = f"{variant}RT"
    folders = case_folders(log, f"*/{when}/*_{when}_T2.nii.gz", level=2)
    cases = {f"HNTS_{folder.name}": folder / when for folder in folders}

    def case(name: str, folder: Path) -> CaseArrays:
        stem = f"{folder.parent.name}_{when}"
        image = read(folder / f"{stem}_T2.nii.gz")
        label = read_codes(name, folder / f"{stem}_mask.nii.gz", image, TUMOUR, log)
        if not label.any():
            log.note(name, "empty mask: nothing of the tumour is left")
        return case_of(name, image, label)

    return Conversion(f"HNTS-MRG2024_{when}", ("T2",), TUMOUR, log.convert(cases, case))

"""SegRap2023 and StructSeg 2019: NPC radiotherapy CT from challenges, organs at risk and targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.public.sets import Conversion, ConversionLog, Outlook, PublicSet
from npcrepro.cohorts.public.volumes import (
    PackedMasks,
    Volume,
    binary,
    case_folders,
    case_of,
    contrast_ct,
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
SEGRAP_LAYOUT = (
    "SegRap2023_Training_Set_120cases/segrap_XXXX/{image,image_contrast}.nii.gz with labels beside it, in "
    "..._OneHot_Labels/Task00{1,2}/segrap_XXXX.nii.gz or as one file an organ"
)

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
STRUCTSEG_LAYOUT = "{HaN_OAR,Naso_GTV}/<1..50>/{data,label}.nii.gz"


def _convert_segrap(source: Path, variant: str, log: ConversionLog) -> Conversion:
    folders = case_folders(source, "segrap_*/image.nii.gz", SEGRAP_LAYOUT)
    structures, task = {"oars": (SEGRAP_ORGANS, "Task001"), "targets": (SEGRAP_TARGETS, "Task002")}[variant]
    coded = {path.name.removesuffix(".nii.gz"): path for path in sorted(source.glob(f"**/{task}/segrap_*.nii.gz"))}
    # The corrected labels came in a folder of their own, with the same names of cases.
    places = sorted({path.parent.parent for path in source.glob("**/segrap_*/*.nii.gz")}, key=natural)
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


def _convert_structseg(source: Path, variant: str, log: ConversionLog) -> Conversion:
    task, structures = STRUCTSEG_TASKS[variant]
    here = "" if source.resolve().name.endswith(task) else f"*{task}*/"
    folders = case_folders(source, f"{here}*/data.nii.gz", STRUCTSEG_LAYOUT)
    numbered = ((f"{int(folder.name):02d}" if folder.name.isdigit() else folder.name, folder) for folder in folders)
    cases = {f"structseg_{number}": folder for number, folder in numbered}

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / "data.nii.gz")
        return case_of(name, image, read_codes(name, folder / "label.nii.gz", image, structures, log))

    return Conversion(f"StructSeg2019_{variant}", ("CT",), structures, log.convert(cases, case))


VARIANTS = {"oars": "organs at risk", "targets": "gross tumour volumes"}
# The publisher does not say how many slices a scan has: 120 of 3 mm, from the vertex to below the clavicles, stand for
# all of them.
OUTLOOKS = {
    variant: Outlook(f"SegRap2023_{variant}", 120, ("CT", "CECT"), tuple(structures), series=2, shape=(120, 512, 512))
    for variant, structures in (("oars", SEGRAP_ORGANS), ("targets", SEGRAP_TARGETS))
}
SEGRAP2023 = PublicSet(
    key="segrap2023",
    title="SegRap2023",
    content="120 NPC with labels: planning CT and contrast CT, 45 organs at risk, GTVp and GTVnd",
    licence="data use agreement of the challenge; redistribution forbidden",
    publishable=False,
    reference="Luo et al., Medical Image Analysis 101:103447 (2025), doi:10.1016/j.media.2024.103447",
    access="signed agreement: ask on segrap2023.grand-challenge.org",
    layout=SEGRAP_LAYOUT,
    variants=VARIANTS,
    outlooks=OUTLOOKS,
    convert=_convert_segrap,
)
STRUCTSEG2019 = PublicSet(
    key="structseg2019",
    title="StructSeg 2019",
    content="50 NPC: planning CT, 22 organs at risk (HaN_OAR), gross tumour volume (Naso_GTV)",
    licence="none granted; the terms of participation forbid sharing",
    publishable=False,
    reference="StructSeg 2019, challenge of MICCAI 2019, structseg2019.grand-challenge.org",
    access="registration: ask on structseg2019.grand-challenge.org",
    layout=STRUCTSEG_LAYOUT,
    variants=VARIANTS,
    convert=_convert_structseg,
)

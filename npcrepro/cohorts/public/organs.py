"""HaN-Seg and DeepMind TCIA: head-and-neck CT with one NRRD file for each organ."""

from __future__ import annotations

from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.public.sets import Conversion, ConversionLog, Download, PublicSet
from npcrepro.cohorts.public.volumes import (
    PackedMasks,
    Volume,
    case_folders,
    case_of,
    cropped_mask_on,
    read,
    registered,
)

# Organ as in the file name: its name here. Codes are never taken from the order of files, which shifts where one is
# missing.
HANSEG_ORGANS = {
    **{name: name for name in ("A_Carotid_L", "A_Carotid_R", "Arytenoid")},
    **{"Bone_Mandible": "Mandible", "Brainstem": "BrainStem", "BuccalMucosa": "BuccalMucosa"},
    **{"Cavity_Oral": "OralCavity", "Cochlea_L": "Cochlea_L", "Cochlea_R": "Cochlea_R"},
    **{"Cricopharyngeus": "Cricopharyngeus", "Esophagus_S": "Esophagus_S"},
    **{name: name for name in ("Eye_AL", "Eye_AR", "Eye_PL", "Eye_PR")},
    **{"Glnd_Lacrimal_L": "Lacrimal_L", "Glnd_Lacrimal_R": "Lacrimal_R"},
    **{"Glnd_Submand_L": "Submandibular_L", "Glnd_Submand_R": "Submandibular_R", "Glnd_Thyroid": "Thyroid"},
    **{"Glottis": "Larynx_Glottic", "Larynx_SG": "Larynx_Supraglot", "Lips": "Lips"},
    **{"OpticChiasm": "OpticChiasm", "OpticNrv_L": "OpticNerve_L", "OpticNrv_R": "OpticNerve_R"},
    **{name: name for name in ("Parotid_L", "Parotid_R", "Pituitary", "SpinalCord")},
}
HANSEG_LAYOUT = "set_1/case_NN/case_NN_IMG_CT.nrrd with case_NN_IMG_MR_T1.nrrd and case_NN_OAR_<organ>.seg.nrrd"

DEEPMIND_ORGANS = {
    **{"Brain": "Brain", "Brainstem": "BrainStem", "Mandible": "Mandible"},
    **{"Spinal-Canal": "SpinalCanal", "Spinal-Cord": "SpinalCord"},
    **{
        f"{organ}-{'Lt' if side == 'L' else 'Rt'}": f"{organ.replace('-', '')}_{side}"
        for organ in ("Cochlea", "Lacrimal", "Lens", "Lung", "Optic-Nerve", "Orbit", "Parotid", "Submandibular")
        for side in "LR"
    },
}
DEEPMIND_LAYOUT = "{test,validation}/{oncologist,radiographer}/<case>/CT_IMAGE.nrrd with segmentations/<Organ>.nrrd"


def _convert_hanseg(source: Path, variant: str, log: ConversionLog) -> Conversion:
    folders = case_folders(source, "case_*/case_*_IMG_CT.nrrd", HANSEG_LAYOUT)
    channels = {"ct": ("CT",), "ct-mr": ("CT", "T1")}[variant]

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / f"{name}_IMG_CT.nrrd")
        files = {
            path.name.removeprefix(f"{name}_OAR_").removesuffix(".seg.nrrd"): path
            for path in sorted(folder.glob(f"{name}_OAR_*.seg.nrrd"))
        }
        masks, missing = _organs(name, files, HANSEG_ORGANS, image, log)
        more = [registered(read(folder / f"{name}_IMG_MR_T1.nrrd"), image)[0]] if "T1" in channels else []
        return case_of(name, image, masks, *more, not_contoured=missing)

    cases = {folder.name: folder for folder in folders}
    structures = tuple(HANSEG_ORGANS.values())
    return Conversion(f"HaN-Seg_{variant}", channels, structures, log.convert(cases, case))


def _convert_deepmind(source: Path, variant: str, log: ConversionLog) -> Conversion:
    folders = case_folders(source, f"*/{variant}/*/CT_IMAGE.nrrd", DEEPMIND_LAYOUT)
    cases = {folder.name: folder for folder in folders}
    if len(cases) < len(folders):
        raise InputError(f"{source} holds a case twice: {len(folders)} folders of {len(cases)} cases of the {variant}")

    def case(name: str, folder: Path) -> CaseArrays:
        image = read(folder / "CT_IMAGE.nrrd")
        # Some cases write an underscore for the hyphen.
        found = {
            path.name.removesuffix(".nrrd").replace("_", "-"): path
            for path in sorted((folder / "segmentations").glob("*.nrrd"))
        }
        masks, missing = _organs(name, found, DEEPMIND_ORGANS, image, log)
        return case_of(name, image, masks, not_contoured=missing)

    structures = tuple(DEEPMIND_ORGANS.values())
    return Conversion(f"DeepMind_TCIA_{variant}", ("CT",), structures, log.convert(cases, case))


def _organs(
    case: str, files: dict[str, Path], organs: dict[str, str], image: Volume, log: ConversionLog
) -> tuple[PackedMasks, tuple[str, ...]]:
    """Masks of the organs that are there, and which are missing; these and what is unknown go to the log."""
    masks = PackedMasks(image.array.shape)
    for name, organ in organs.items():
        if name in files:
            masks[organ] = cropped_mask_on(files[name], image)
    if not masks:
        raise InputError(f"{case} has no mask of a known organ: the archive is not unpacked in full")
    missing = log.missing(case, organs.values(), masks)
    unknown = sorted(set(files) - set(organs))
    if unknown:
        log.note(case, f"left out, as the set does not list them: {', '.join(unknown)}")
    return masks, missing


HAN_SEG = PublicSet(
    key="han-seg",
    title="HaN-Seg",
    content="42 head-and-neck CT with T1 MR (not registered), 30 organs at risk",
    licence="CC BY-NC-ND 4.0",
    publishable=False,
    reference="Podobnik et al., Medical Physics 50:1917 (2023), doi:10.1002/mp.16197",
    access="open, from Zenodo (record 7442914); no adaptations may be shared",
    layout=HANSEG_LAYOUT,
    variants={"ct": "CT alone", "ct-mr": "CT and T1 MR, registered rigidly to the CT"},
    convert=_convert_hanseg,
    downloads=(
        Download(
            "https://zenodo.org/records/7442914/files/HaN-Seg.zip",
            "HaN-Seg.zip",
            "20226dd717f334dc1b1afe961b3375f946fa56b64a80bf5349128f90c0bbfa5f",
        ),
    ),
)
DEEPMIND = PublicSet(
    key="deepmind-tcia",
    title="DeepMind TCIA",
    content="31 head-and-neck CT, 21 organs at risk drawn by an oncologist and by a radiographer",
    licence="CC BY 4.0 for the masks; the CT images have terms of their own (The Cancer Imaging Archive)",
    publishable=False,
    reference="Nikolov et al., Journal of Medical Internet Research 23:e26151 (2021), arXiv:1809.04430",
    access="open: clone github.com/deepmind/tcia-ct-scan-dataset with git-lfs",
    layout=DEEPMIND_LAYOUT,
    variants={"oncologist": "masks of the oncologist", "radiographer": "masks of the radiographer"},
    convert=_convert_deepmind,
)

"""Head-and-neck CT with one file for each structure: HaN-Seg and DeepMind TCIA (NRRD), OpenKBP (tables of voxels)."""

from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.public.sets import Conversion, ConversionLog
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

DEEPMIND_ORGANS = {
    **{"Brain": "Brain", "Brainstem": "BrainStem", "Mandible": "Mandible"},
    **{"Spinal-Canal": "SpinalCanal", "Spinal-Cord": "SpinalCord"},
    **{
        f"{organ}-{'Lt' if side == 'L' else 'Rt'}": f"{organ.replace('-', '')}_{side}"
        for organ in ("Cochlea", "Lacrimal", "Lens", "Lung", "Optic-Nerve", "Orbit", "Parotid", "Submandibular")
        for side in "LR"
    },
}


def hanseg(variant: str, log: ConversionLog) -> Conversion:
    folders = case_folders(log, "case_*/case_*_IMG_CT.nrrd")
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


def deepmind(variant: str, log: ConversionLog) -> Conversion:
    folders = case_folders(log, f"*/{variant}/*/CT_IMAGE.nrrd")
    cases = {folder.name: folder for folder in folders}
    if len(cases) < len(folders):
        raise InputError(
            f"{log.source} holds a case twice: {len(folders)} folders of {len(cases)} cases of the {variant}"
        )

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


OPENKBP_SHAPE = (128, 128, 128)
OPENKBP_ROIS = {
    "oars": {
        **{"Brainstem": "BrainStem", "SpinalCord": "SpinalCord", "RightParotid": "Parotid_R"},
        **{"LeftParotid": "Parotid_L", "Esophagus": "Esophagus", "Larynx": "Larynx", "Mandible": "Mandible"},
    },
    "targets": {"PTV70": "PTV70", "PTV63": "PTV63", "PTV56": "PTV56"},
}
# The published numbers are HU + 1000.
ZERO_HU = 1000


def openkbp(variant: str, log: ConversionLog) -> Conversion:
    folders = case_folders(log, "*-pats/pt_*/ct.csv")
    cases = {f"KBP_{int(folder.name.removeprefix('pt_')):03d}": folder for folder in folders}

    def case(name: str, folder: Path) -> CaseArrays:
        image = _voxels(folder / "ct.csv").astype(np.int16) - ZERO_HU
        files = {structure: folder / f"{roi}.csv" for roi, structure in OPENKBP_ROIS[variant].items()}
        masks = {structure: _voxels(path).astype(bool) for structure, path in files.items() if path.is_file()}
        if not masks:
            raise InputError(f"{folder}: none of {', '.join(files)} was contoured")
        missing = log.missing(name, files, masks)
        # A dose level that was not prescribed has no target volume, which is an empty mask.
        unknown = missing if variant == "oars" else ()
        spacing_mm = _spacing_mm(folder / "voxel_dimensions.csv")
        return CaseArrays(name, name, stack([image]), masks, spacing_mm, not_contoured=unknown)

    structures = tuple(OPENKBP_ROIS[variant].values())
    return Conversion(f"OpenKBP_{variant}", ("CT",), structures, log.convert(cases, case))


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

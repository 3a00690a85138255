"""OpenKBP: head-and-neck planning CT as tables of voxels (Babier et al., Medical Physics 2021)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.public.sets import Conversion, ConversionLog, Download, PublicSet
from npcrepro.cohorts.public.volumes import case_folders, stack

SHAPE = (128, 128, 128)
ROIS = {
    "oars": {
        **{"Brainstem": "BrainStem", "SpinalCord": "SpinalCord", "RightParotid": "Parotid_R"},
        **{"LeftParotid": "Parotid_L", "Esophagus": "Esophagus", "Larynx": "Larynx", "Mandible": "Mandible"},
    },
    "targets": {"PTV70": "PTV70", "PTV63": "PTV63", "PTV56": "PTV56"},
}
# The published numbers are HU + 1000.
ZERO_HU = 1000
LAYOUT = "{train,validation,test}-pats/pt_<n>/{ct,voxel_dimensions,<ROI>}.csv"


def _convert(source: Path, variant: str, log: ConversionLog) -> Conversion:
    folders = case_folders(source, "*-pats/pt_*/ct.csv", LAYOUT)
    cases = {f"KBP_{int(folder.name.removeprefix('pt_')):03d}": folder for folder in folders}

    def case(name: str, folder: Path) -> CaseArrays:
        image = _voxels(folder / "ct.csv").astype(np.int16) - ZERO_HU
        files = {structure: folder / f"{roi}.csv" for roi, structure in ROIS[variant].items()}
        masks = {structure: _voxels(path).astype(bool) for structure, path in files.items() if path.is_file()}
        if not masks:
            raise InputError(f"{folder}: none of {', '.join(files)} was contoured")
        missing = log.missing(name, files, masks)
        # A dose level that was not prescribed has no target volume, which is an empty mask.
        unknown = missing if variant == "oars" else ()
        spacing_mm = _spacing_mm(folder / "voxel_dimensions.csv")
        return CaseArrays(name, name, stack([image]), masks, spacing_mm, not_contoured=unknown)

    structures = tuple(ROIS[variant].values())
    return Conversion(f"OpenKBP_{variant}", ("CT",), structures, log.convert(cases, case))


def _voxels(path: Path) -> np.ndarray:
    """A table of voxels as (z, y, x), feet first: values, or 1 where a mask lists indices only."""
    import pandas as pd

    try:
        table = pd.read_csv(path, index_col=0)
        index = table.index.to_numpy(np.int64)
        values = np.zeros(SHAPE, np.float32)
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


OPENKBP = PublicSet(
    key="openkbp",
    title="OpenKBP",
    content="340 head-and-neck planning CT, resampled to 128 x 128 x 128: 7 organs at risk, planning target volumes",
    licence="MIT",
    publishable=True,
    reference="Babier et al., Medical Physics 48:5549 (2021), doi:10.1002/mp.14845; images from The Cancer Imaging "
    "Archive",
    access="open, from GitHub (ababier/open-kbp)",
    layout=LAYOUT,
    variants={"oars": "organs at risk", "targets": "planning target volumes PTV70, PTV63 and PTV56"},
    convert=_convert,
    downloads=(Download("https://github.com/ababier/open-kbp/archive/HEAD.zip", "open-kbp.zip"),),
)

"""Tissues and structures of the phantom, and what decides the signal of each tissue in CT and MRI."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np


class Tissue(IntEnum):
    """Tissues of the phantom: what decides the signal in MRI and CT.

    ``METAL`` is a dental filling, ``LUMEN`` the part of the pharyngeal airway that the tumour leaves open, ``NODE`` a
    lymph node without disease, ``FLUID`` that of a sinus, ``CARTILAGE`` also a disc, ``NECROSIS`` that of a tumour.
    """

    OUTSIDE, SKIN, FAT, MUSCLE, CORTICAL_BONE, MARROW, TOOTH, METAL, AIR, LUMEN = range(10)
    MUCOSA, ADENOID, PAROTID, SUBMANDIBULAR, TONGUE, ARTERY, VEIN, NODE, CSF = range(10, 19)
    GREY_MATTER, WHITE_MATTER, SPINAL_CORD, OPTIC_NERVE, VITREOUS, LENS, FLUID = range(19, 26)
    CARTILAGE, TUMOUR, NECROSIS, METASTATIC_NODE = range(26, 30)


class Properties(NamedTuple):
    """What decides the values of one tissue in CT and its signal in MRI at 3 T.

    Attributes:
        hu, hu_texture: mean and texture (standard deviation) in HU after contrast agent.
        density: proton density, 0-1.
        t1_ms, t2_ms: relaxation times of its water.
        fat: fraction of fat, 0-1.
        transfer: Ktrans per minute.
        extracellular, plasma: volume fractions of the extended Tofts model.
        texture: relative standard deviation of water content and relaxation inside the tissue.
        uptake_texture: relative standard deviation of the uptake inside the tissue.
    """

    hu: float
    hu_texture: float
    density: float
    t1_ms: float
    t2_ms: float
    fat: float = 0.0
    transfer: float = 0.0
    extracellular: float = 0.1
    plasma: float = 0.0
    texture: float = 0.0
    uptake_texture: float = 0.0


# Values in the range that the literature reports; in MRI, bone, teeth and metal decay before any echo.
PROPERTIES = {
    Tissue.OUTSIDE: Properties(-1000, 0, 0.0, 1000, 50),
    Tissue.SKIN: Properties(20, 15, 0.70, 1000, 38, 0.15, 0.08, 0.20, 0.008, 0.10, 0.1),
    Tissue.FAT: Properties(-98, 10, 0.70, 1000, 45, 0.90, 0.03, 0.10, 0.003, 0.11, 0.3),
    Tissue.MUSCLE: Properties(62, 7, 0.85, 1350, 38, 0.04, 0.035, 0.11, 0.004, 0.15, 0.3),
    Tissue.CORTICAL_BONE: Properties(950, 120, 0.08, 400, 8, 0.0, texture=0.3),
    Tissue.MARROW: Properties(260, 90, 0.60, 1100, 55, 0.50, 0.08, 0.20, 0.008, 0.20, 0.4),
    Tissue.TOOTH: Properties(1900, 200, 0.03, 600, 5),
    Tissue.METAL: Properties(3071, 0, 0.0, 1000, 50),
    Tissue.AIR: Properties(-1000, 0, 0.0, 1000, 50),
    Tissue.LUMEN: Properties(-1000, 0, 0.0, 1000, 50),
    Tissue.MUCOSA: Properties(82, 7, 0.90, 1350, 110, 0.0, 0.40, 0.46, 0.03, 0.14, 0.3),
    Tissue.ADENOID: Properties(78, 6, 0.88, 1280, 100, 0.0, 0.30, 0.40, 0.02, 0.10, 0.25),
    Tissue.PAROTID: Properties(22, 14, 0.82, 1150, 70, 0.35, 0.25, 0.28, 0.015, 0.18, 0.25),
    Tissue.SUBMANDIBULAR: Properties(70, 8, 0.84, 1200, 72, 0.15, 0.28, 0.30, 0.015, 0.09, 0.15),
    Tissue.TONGUE: Properties(60, 14, 0.84, 1300, 44, 0.18, 0.10, 0.16, 0.006, 0.22, 0.3),
    Tissue.ARTERY: Properties(170, 4, 0.90, 1850, 150, 0.0, plasma=0.58),
    Tissue.VEIN: Properties(150, 8, 0.90, 1700, 90, 0.0, plasma=0.58, texture=0.05, uptake_texture=0.1),
    Tissue.NODE: Properties(76, 6, 0.86, 1250, 85, 0.04, 0.20, 0.32, 0.012, 0.06, 0.15),
    Tissue.CSF: Properties(9, 2, 1.00, 4000, 1400, texture=0.04),
    Tissue.GREY_MATTER: Properties(42, 2, 0.82, 1450, 92, 0.0, 0.0, 0.1, 0.010, 0.05, 0.2),
    Tissue.WHITE_MATTER: Properties(33, 2, 0.70, 840, 70, 0.0, 0.0, 0.1, 0.006, 0.03, 0.2),
    Tissue.SPINAL_CORD: Properties(38, 2, 0.74, 950, 76, 0.0, 0.0, 0.1, 0.006, 0.03, 0.2),
    Tissue.OPTIC_NERVE: Properties(36, 2, 0.74, 1050, 78, 0.0, 0.01, 0.1, 0.006, 0.03, 0.2),
    Tissue.VITREOUS: Properties(8, 2, 1.00, 4000, 900, texture=0.03),
    Tissue.LENS: Properties(85, 3, 0.70, 1150, 32),
    Tissue.FLUID: Properties(20, 3, 0.98, 2600, 320, texture=0.05),
    Tissue.CARTILAGE: Properties(95, 15, 0.70, 1150, 42, 0.0, 0.03, 0.10, 0.003, 0.08),
    Tissue.TUMOUR: Properties(76, 7, 0.86, 1300, 78, 0.0, 0.19, 0.37, 0.010, 0.12, 0.28),
    Tissue.NECROSIS: Properties(35, 6, 0.95, 1900, 180, 0.0, 0.02, 0.10, 0.0, 0.10),
    Tissue.METASTATIC_NODE: Properties(80, 7, 0.86, 1300, 82, 0.0, 0.20, 0.37, 0.010, 0.11, 0.25),
}


def columns() -> dict[str, np.ndarray]:
    """`PROPERTIES` by the name of the property: an array over `Tissue` for each."""
    table = np.array([PROPERTIES[tissue] for tissue in Tissue], float)
    return dict(zip(Properties._fields, table.T.copy()))


class Structure(IntEnum):
    """What is contoured: a partition, so that a voxel belongs to one of them at most.

    Eye and lens, tumour and necrosis are put together where a cohort is written.
    """

    NONE, GTVp, GTVnd, Mandible_L, Mandible_R, Parotid_L, Parotid_R, BrainStem, SpinalCord, Eye_L, Eye_R = range(11)
    Lens_L, Lens_R, OpticNerve_L, OpticNerve_R, OpticChiasm, TemporalLobe_L, TemporalLobe_R = range(11, 18)
    Submandibular_L, Submandibular_R, Pituitary = range(18, 21)


# The painter keeps both in one number, tissue + STRUCTURE_STEP * structure.
STRUCTURE_STEP = 32


def code_of(tissue: Tissue, structure: Structure = Structure.NONE) -> int:
    """The number that stands for a tissue and the structure it belongs to."""
    return int(tissue) + STRUCTURE_STEP * int(structure)

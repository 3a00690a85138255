"""Tissues and structures of the phantom."""

from enum import IntEnum


class Tissue(IntEnum):
    """Tissues of the phantom: what decides the signal in MRI and CT."""

    OUTSIDE = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    CORTICAL_BONE = 4
    MARROW = 5
    TOOTH = 6
    METAL = 7  # dental filling
    AIR = 8
    LUMEN = 9  # the part of the pharyngeal airway that the tumour leaves open
    MUCOSA = 10
    ADENOID = 11
    PAROTID = 12
    SUBMANDIBULAR = 13
    TONGUE = 14
    ARTERY = 15
    VEIN = 16
    NODE = 17  # lymph node without disease
    CSF = 18
    GREY_MATTER = 19
    WHITE_MATTER = 20
    SPINAL_CORD = 21
    OPTIC_NERVE = 22
    VITREOUS = 23
    LENS = 24
    FLUID = 25  # secretion in a sinus, retention cyst
    CARTILAGE = 26  # intervertebral disc, larynx
    TUMOUR = 27
    NECROSIS = 28  # inside tumour or metastatic node
    METASTATIC_NODE = 29


class Structure(IntEnum):
    """What is contoured: a partition, so that a voxel belongs to one of them at most.

    Eye and lens, tumour and necrosis are put together where a cohort is written.
    """

    NONE = 0
    GTVp = 1
    GTVnd = 2
    Mandible_L = 3
    Mandible_R = 4
    Parotid_L = 5
    Parotid_R = 6
    BrainStem = 7
    SpinalCord = 8
    Eye_L = 9
    Eye_R = 10
    Lens_L = 11
    Lens_R = 12
    OpticNerve_L = 13
    OpticNerve_R = 14
    OpticChiasm = 15
    TemporalLobe_L = 16
    TemporalLobe_R = 17
    Submandibular_L = 18
    Submandibular_R = 19
    Pituitary = 20


# The painter keeps both in one number, tissue + STRUCTURE_STEP * structure.
STRUCTURE_STEP = 32


def code_of(tissue: Tissue, structure: Structure = Structure.NONE) -> int:
    """The number that stands for a tissue and the structure it belongs to."""
    return int(tissue) + STRUCTURE_STEP * int(structure)

"""A digital phantom of the head with nasopharyngeal carcinoma (NPC), as a contrast-enhanced T1-weighted series.

It is made in three steps that do not know each other:

1. *anatomy*: `Anatomy.tissue` maps world coordinates in mm to tissue. Organs are smooth unions of ellipsoids and tubes,
   painted from the outside inwards; each patient has its own sizes, pose and free-form deformation. The tumour is the
   region that a growing front reaches first, up to the volume that was drawn for this patient.
2. *signal*: `CET1` gives the mean intensity and the texture of each tissue.
3. *acquisition*: fractions of tissue in each voxel (partial volume), bias field, Rician noise.

Every field is a function of world coordinates, hence a patient is the same anatomy at any matrix.

Anatomical coordinates: x from the patient's right to left, y from front to back, z from feet to head (LPS), in mm. The
origin lies in the nasopharynx. Arrays are (z, y, x). The sizes are those of an average adult, to the nearest mm or so,
from atlas knowledge; they are not fitted to a data set. What the phantom shows is not evidence about patients.
"""

from __future__ import annotations

from npcrepro.cohorts.phantom.anatomy import Anatomy
from npcrepro.cohorts.phantom.series import (
    CET1,
    CHANNELS,
    LICENCE,
    REFERENCE,
    STRUCTURES,
    PhantomPatient,
    make_patient,
    tissue_fractions,
    write_phantom,
)
from npcrepro.cohorts.phantom.tissues import Tissue

__all__ = [
    "CET1",
    "CHANNELS",
    "LICENCE",
    "REFERENCE",
    "STRUCTURES",
    "Anatomy",
    "PhantomPatient",
    "Tissue",
    "make_patient",
    "tissue_fractions",
    "write_phantom",
]

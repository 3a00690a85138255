"""A digital phantom of the head with nasopharyngeal carcinoma (NPC): MRI, CT and dynamic series.

It is made in three steps that do not know each other:

1. *anatomy*: `Anatomy.regions` maps world coordinates in mm to tissue and structure. Organs are smooth unions of
   ellipsoids and tubes, painted from the outside inwards; each patient has its own sizes, pose and free-form
   deformation. The tumour is the region that a growing front reaches first, up to the volume drawn for this patient.
2. *signal*: relaxation times, proton density and uptake of contrast agent give the signal of each tissue in each
   series by the signal equations (`signal`); Hounsfield units those of CT (`ct`).
3. *acquisition*: fractions of tissue in each voxel (partial volume), texture, soft borders, bias field, noise.

`observers` adds a second observer, `cohort` puts patients together and writes them.

Every field is a function of world coordinates, hence a patient is the same anatomy at any matrix.

Anatomical coordinates: x from the patient's right to left, y from front to back, z from feet to head (LPS), in mm. The
origin lies in the nasopharynx. Arrays are (z, y, x). The sizes are those of an average adult, to the nearest mm or so,
from atlas knowledge; they are not fitted to a data set. What the phantom shows is not evidence about patients.
"""

from npcrepro.cohorts.phantom.anatomy import Anatomy
from npcrepro.cohorts.phantom.cohort import LICENCE, REFERENCE, PhantomPatient, make_patient, write_phantom
from npcrepro.cohorts.phantom.observers import second_observer
from npcrepro.cohorts.phantom.scan import KINDS
from npcrepro.cohorts.phantom.tissues import Structure, Tissue

__all__ = ["KINDS", "LICENCE", "REFERENCE", "Anatomy", "PhantomPatient", "Structure", "Tissue"]
__all__ += ["make_patient", "second_observer", "write_phantom"]

"""How the sample cohorts beside this file were made: ``python make.py DATA``, with the four public sets below ``DATA``.

The choice of patients is fixed: those of the CT and of the sarcomas are test patients of fold 0 in every split of this
book, so that networks of that fold have not seen them; the T2 slices are left out of the training of the weights that
are shown on them.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from npcrepro.cohorts.cohort import CaseArrays, Cohort
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.layout import read_cohort, write_cohort
from npcrepro.cohorts.structures import mask_of

ORGANS, TARGET = "Dataset501_OpenKBP_OAR", "Dataset502_OpenKBP_PTV70"
SARCOMAS, SLICES = "Dataset503_IBSI_STS", "Dataset504_NPC_T2Slices"
CT = ("KBP_017", "KBP_060", "KBP_236")
SARCOMA = ("STS_014", "STS_026")
T2 = ("NPC_10014", "NPC_10309", "NPC_10997", "NPC_11665")
AIR_HU = -1000
SKIN_MM = 8.0  # that is taken off the front of the head, above the chin
SMOOTH_MM = 25.0  # of the skin before that
MARGIN_MM = 30.0  # around a sarcoma


def without_face(image: np.ndarray, mandible: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """A CT ``(z, y, x)`` whose y axis points to the back, with air in place of the front of the head.

    From the chin upwards, the skin seen from the front is smoothed, so that nose, lips and orbits leave no relief, and
    everything in front of that surface, and a layer behind it, becomes air.
    """
    chin = np.where(mandible.any(axis=(1, 2)))[0].min()
    body = ndimage.binary_opening(image > -300, iterations=1)[chin:]
    depth = image.shape[1]
    skin = np.where(body.any(axis=1), body.argmax(axis=1), depth).astype(float)
    # The sides of the head are as deep as its middle, or smoothing would pull the surface back there.
    skin = np.minimum(skin, np.where(mandible.any(axis=(0, 2)))[0].max())
    sigma = [SMOOTH_MM / spacing_mm[0], SMOOTH_MM / spacing_mm[2]]
    surface = ndimage.gaussian_filter(skin, sigma, mode="nearest") + SKIN_MM / spacing_mm[1]
    removed = np.zeros(image.shape, bool)
    removed[chin:] = np.arange(depth)[None, :, None] < surface[:, None, :]
    return np.where(removed & ~mandible, AIR_HU, image)


def arrays_of(cohort: Cohort, name: str) -> tuple[CaseArrays, dict[str, np.ndarray]]:
    """A case in memory, and its structures as masks."""
    case = next(each for each in cohort.cases if each.name == name)
    images = [read_image(path) for path in case.images]
    label, spacing_mm, geometry = read_image(case.label)
    masks = {structure: mask_of(label, cohort.structures, structure) for structure in cohort.structures}
    stacked = np.stack([image for image, *_ in images])
    return CaseArrays(name, name, stacked, masks, spacing_mm, geometry=geometry), masks


def around(case: CaseArrays, masks: dict[str, np.ndarray], structure: str) -> CaseArrays:
    """The box around a structure, with a margin."""
    found = ndimage.find_objects(masks[structure].astype(int))[0]
    sides = zip(found, case.spacing_mm, strict=True)
    box = tuple(slice(max(0, s.start - round(MARGIN_MM / mm)), s.stop + round(MARGIN_MM / mm)) for s, mm in sides)
    offset = [s.start * mm for s, mm in zip(box, case.spacing_mm, strict=True)][::-1]
    assert case.geometry is not None, "an image that was read has a geometry"
    origin = np.array(case.geometry["origin"]) + np.reshape(case.geometry["direction"], (3, 3)) @ offset
    geometry = {**case.geometry, "origin": origin.tolist()}
    cut = {name: mask[box] for name, mask in masks.items()}
    return replace(case, image=case.image[:, *box], label=cut, geometry=geometry)


def main(data: Path, out: Path = Path(__file__).parent) -> None:
    """Write the three sample cohorts."""
    organs, target, sarcomas, slices = (read_cohort(data / name) for name in (ORGANS, TARGET, SARCOMAS, SLICES))
    cases = []
    for name in CT:
        (case, masks), (_, more) = arrays_of(organs, name), arrays_of(target, name)
        image = without_face(case.image[0], masks["Mandible"], case.spacing_mm).astype(np.int16)
        cases.append(replace(case, image=image[None], label=masks | more))
    write_cohort(
        out / "ct", cases, name="sample-ct", channels=organs.channels, structures=[*organs.structures, "PTV70"],
        reference=organs.reference, licence=organs.licence, publishable=True,
    )  # fmt: skip
    write_cohort(
        out / "sarcoma", [around(*arrays_of(sarcomas, name), "GTV") for name in SARCOMA], name="sample-sarcoma",
        channels=sarcomas.channels, structures=["GTV"], reference=sarcomas.reference, licence=sarcomas.licence,
        publishable=True,
    )  # fmt: skip
    write_cohort(
        out / "t2", [arrays_of(slices, name)[0] for name in T2], name="sample-t2", channels=slices.channels,
        structures=["GTVp"], reference=slices.reference, licence=slices.licence, spacing_known=False,
        publishable=True,
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))

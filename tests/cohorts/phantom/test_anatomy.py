"""The anatomy of the phantom: organs of clinical size, tumours of their stage, the same patient on any grid."""

import numpy as np
import pytest
from scipy import ndimage

from npcrepro.base.errors import InputError
from npcrepro.cohorts.phantom.anatomy import Anatomy
from npcrepro.cohorts.phantom.tissues import STRUCTURE_STEP, Structure, Tissue
from npcrepro.cohorts.phantom.tumour import VOLUME_ML

BONE = (Tissue.CORTICAL_BONE, Tissue.MARROW)
INTRACRANIAL = (Tissue.CSF, Tissue.VEIN, Tissue.GREY_MATTER, Tissue.WHITE_MATTER)

# The whole head and neck, and the part that a tumour can reach, every 2 mm.
WHOLE = (np.arange(-130.0, 112, 2), np.arange(-110.0, 112, 2), np.arange(-100.0, 102, 2))
MIDDLE = (np.arange(-45.0, 47, 2.5), np.arange(-45.0, 47, 2.5), np.arange(-45.0, 47, 2.5))
VOXEL_ML = 0.008
MIDDLE_ML = 2.5**3 / 1000

# Smallest and largest volume in ml that clinical contours have, with a margin for small and large heads.
CLINICAL_ML = {
    **{"Mandible": (22, 45), "Parotid": (19, 36), "Submandibular": (5, 12), "Pituitary": (0.2, 0.8)},
    **{"BrainStem": (18, 35), "SpinalCord": (8, 20), "TemporalLobe": (45, 100)},
    **{"Eye": (5.5, 10.5), "Lens": (0.08, 0.35), "OpticNerve": (0.4, 1.0), "OpticChiasm": (0.3, 0.8)},
}
PAIRS = [(s, Structure[s.name[:-1] + "R"]) for s in Structure if s.name.endswith("_L")]


def patient(seed: int, stage: int | None = None) -> Anatomy:
    return Anatomy(np.random.default_rng(seed), stage=stage)


@pytest.fixture(scope="module")
def wholes() -> list[tuple[Anatomy, np.ndarray, np.ndarray]]:
    return [(made, *made.regions(*WHOLE)) for made in (patient(seed, 1 + seed % 3) for seed in range(4))]


@pytest.fixture(scope="module")
def tumours() -> list[tuple[Anatomy, np.ndarray, np.ndarray, np.ndarray]]:
    """Four patients of each stage: anatomy, mask of the tumour, tissue with and without it."""
    out = []
    for number in range(16):
        made = patient(100 + number, 1 + number % 4)
        tissue, structure = made.regions(*MIDDLE)
        out.append((made, structure == Structure.GTVp, tissue, made._codes(MIDDLE) % STRUCTURE_STEP))
    return out


def fraction(tissue: np.ndarray, mask: np.ndarray, kinds: tuple[Tissue, ...]) -> float:
    return float(np.isin(tissue[mask], kinds).mean())


def test_organs_have_clinical_volumes(wholes) -> None:
    for _, _, regions in wholes:
        volumes = np.bincount(regions.ravel(), minlength=len(Structure)) * VOXEL_ML
        for name, (low, high) in CLINICAL_ML.items():
            found = [s for s in Structure if s.name.removesuffix("_L").removesuffix("_R") == name]
            assert all(low < volumes[s] < high for s in found), name


def test_left_organs_lie_left_and_in_one_piece(wholes) -> None:
    for _, _, regions in wholes:
        for left, right in PAIRS:
            assert np.nonzero(regions == left)[2].mean() > np.nonzero(regions == right)[2].mean() + 15
        for structure in (Structure.BrainStem, Structure.SpinalCord, *(s for pair in PAIRS for s in pair)):
            pieces, _ = ndimage.label(regions == structure, np.ones((3, 3, 3)))
            assert np.bincount(pieces.ravel())[1:].max() > 0.9 * (pieces > 0).sum(), structure.name


def test_structures_hold_the_tissues_they_should(wholes) -> None:
    expected = {
        Structure.GTVp: {Tissue.TUMOUR, Tissue.NECROSIS},
        Structure.GTVnd: {Tissue.METASTATIC_NODE, Tissue.NECROSIS},
        Structure.Mandible_L: set(BONE),
        Structure.Parotid_R: {Tissue.PAROTID},
        Structure.SpinalCord: {Tissue.SPINAL_CORD},
        Structure.Lens_L: {Tissue.LENS},
        Structure.OpticNerve_R: {Tissue.OPTIC_NERVE},
        Structure.TemporalLobe_L: {Tissue.GREY_MATTER, Tissue.WHITE_MATTER},
    }
    for _, tissue, regions in wholes:
        for structure, tissues in expected.items():
            assert set(np.unique(tissue[regions == structure])) <= tissues, structure.name
        for kind, structure in (
            (Tissue.TUMOUR, Structure.GTVp),
            (Tissue.METASTATIC_NODE, Structure.GTVnd),
            (Tissue.NODE, Structure.NONE),
            (Tissue.MUSCLE, Structure.NONE),
        ):
            assert set(np.unique(regions[tissue == kind])) <= {structure}


def test_tumour_volume_is_the_one_promised(tumours) -> None:
    for made, mask, _, _ in tumours:
        _, low, high = VOLUME_ML[made.stage]
        assert 2 <= made.volume_ml <= 60
        assert low * 0.7 <= made.volume_ml <= high * 1.1
        assert mask.sum() * MIDDLE_ML == pytest.approx(made.volume_ml, rel=0.1, abs=0.3)


def test_tumours_invade_what_makes_their_stage(tumours) -> None:
    for made, mask, _, healthy in tumours:
        bone, intracranial = fraction(healthy, mask, BONE), fraction(healthy, mask, INTRACRANIAL)
        soft = fraction(healthy, mask, (Tissue.FAT, Tissue.MUSCLE))
        assert (soft > 0.05) == (made.stage > 1)
        assert (bone > 0.01) == (made.stage > 2)
        assert (intracranial > 0.005) == (made.stage > 3)
        assert fraction(healthy, mask, (Tissue.ARTERY, Tissue.SPINAL_CORD, Tissue.LUMEN, Tissue.OUTSIDE)) == 0


def test_a_stage_or_an_axis_that_cannot_be_is_named() -> None:
    with pytest.raises(InputError, match=r"T stage .* not 5"):
        patient(0, 5)
    for axis in ([1.0, 0.0], [0.0, np.nan], [[0.0, 1.0]]):
        with pytest.raises(InputError, match="y axis"):
            patient(2).regions(np.zeros(1), np.array(axis), np.zeros(1))


def test_the_same_patient_on_any_grid() -> None:
    made = patient(3)
    whole = made.regions(*MIDDLE)[0]
    part, _ = made.regions(MIDDLE[0][10:17], MIDDLE[1][5:30], MIDDLE[2][8:35])
    assert (whole[10:17, 5:30, 8:35] != part).mean() < 1e-3
    finer = [np.linspace(axis[0], axis[-1], 2 * len(axis) - 1) for axis in MIDDLE]
    slab, _ = made.regions(finer[0][20:25], finer[1], finer[2])
    assert (slab[::2, ::2, ::2] != whole[10:13]).mean() < 1e-3

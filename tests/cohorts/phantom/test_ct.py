"""CT of the phantom: Hounsfield units, noise, streaks, marker and target volumes."""

import numpy as np
import pytest

from npcrepro.cohorts.phantom import PhantomPatient, Tissue, make_patient
from npcrepro.cohorts.phantom.acquisition import Grid
from npcrepro.cohorts.phantom.ct import BARRIERS, ComputedTomography, ct_slice, draw_ct, with_margin
from npcrepro.cohorts.phantom.tissues import PROPERTIES

GRID = Grid((4, 64, 64), (3.0, 1.0, 1.0))
SERIES = ComputedTomography()


@pytest.fixture(scope="module")
def scan() -> PhantomPatient:
    return make_patient(1, kind="ct", matrix=(36, 96, 96))


def fractions_of(tissue: Tissue) -> np.ndarray:
    out = np.zeros((64, 64, len(Tissue)), np.float32)
    out[..., tissue] = 1
    return out


def image_of(fractions: np.ndarray) -> np.ndarray:
    empty = np.zeros((64, 64), np.float32)
    patient = draw_ct(SERIES, np.random.default_rng(0))
    return ct_slice(SERIES, patient, GRID, fractions, empty, empty, np.random.default_rng(1))


def test_hounsfield_units_and_noise() -> None:
    for tissue in (Tissue.MUSCLE, Tissue.FAT, Tissue.TUMOUR):
        image = image_of(fractions_of(tissue))
        assert image.mean() == pytest.approx(PROPERTIES[tissue].hu, abs=12)
        assert 9 <= image.std() <= 15
    neighbours = image_of(fractions_of(Tissue.MUSCLE))
    assert np.corrcoef(neighbours[:, 1:].ravel(), neighbours[:, :-1].ravel())[0, 1] > 0.3


def test_tumour_is_close_to_muscle() -> None:
    drawn = [draw_ct(SERIES, np.random.default_rng(number)).table[:, 0] for number in range(40)]
    contrast = np.array([table[Tissue.TUMOUR] - table[Tissue.MUSCLE] for table in drawn])
    assert 5 < contrast.mean() < 20
    assert 3 < contrast.std() < 10


def test_streaks_fan_out_of_metal_and_only_of_metal() -> None:
    fractions = fractions_of(Tissue.MUSCLE)
    plain = image_of(fractions)
    fractions[30:34, 30:34] = 0
    fractions[30:34, 30:34, Tissue.METAL] = 1
    streaked = image_of(fractions)
    assert streaked[31:33, 31:33].min() > 2500
    near, far = streaked[20:45, 20:30] - plain[20:45, 20:30], streaked[:, :6] - plain[:, :6]
    assert near.std() > 30
    assert 3 < far.std() < near.std()
    assert np.abs(near.mean()) < 2 * near.std()


def test_organs_are_there_on_their_sides(scan) -> None:
    for name, mask in scan.masks.items():
        assert mask.shape == scan.tissue.shape
        assert mask.any() or name in ("GTVnd", "CTVnd")
    for name in ("Mandible", "Parotid", "Eye", "OpticNerve"):
        left, right = (np.argwhere(scan.masks[f"{name}_{side}"])[:, 2].mean() for side in "LR")
        assert right < 47.5 < left  # the patient's left is where x is large
    eye = scan.masks["Eye_L"]
    assert np.isin(scan.tissue[eye], (Tissue.VITREOUS, Tissue.LENS)).mean() > 0.5
    assert 4 < eye.sum() * np.prod(scan.spacing_mm) / 1000 < 13  # ml


def test_target_volumes_hold_their_tumour_and_stop_at_bone_and_air(scan) -> None:
    for target, gross in (("CTV2", "GTVp"), ("CTVnd", "GTVnd")):
        assert not (scan.masks[gross] & ~scan.masks[target]).any()
        margin = scan.masks[target] & ~scan.masks[gross]
        assert margin.any() == scan.masks[gross].any()
        assert not np.isin(scan.tissue[margin], BARRIERS).any()


def test_marker_lies_on_the_skin(scan) -> None:
    marker = scan.masks["LocRef"]
    z, y, x = np.argwhere(marker).mean(0).round().astype(int)
    row = scan.tissue[z, y]
    assert marker.sum() * np.prod(scan.spacing_mm) == pytest.approx(180, rel=0.5)  # mm3
    assert row[x + 1 :].max() == Tissue.OUTSIDE
    assert row[x - 2 : x + 1].max() > Tissue.OUTSIDE
    assert scan.image[0][marker].mean() > 0


def test_margin_is_cut_and_does_not_pass_a_barrier() -> None:
    mask = np.zeros((3, 40, 40), bool)
    mask[1, 18:22, 8:12] = True
    tissue = np.full(mask.shape, Tissue.FAT, np.uint8)
    grid = Grid(mask.shape, (20.0, 1.0, 1.0))
    open_field = with_margin(mask, tissue, grid, 6.0)
    assert np.flatnonzero(open_field[1, 20]).tolist() == list(range(2, 18))
    assert not open_field[[0, 2]].any()
    tissue[..., 14:16] = Tissue.CORTICAL_BONE
    cut = with_margin(mask, tissue, grid, 6.0)
    assert np.flatnonzero(cut[1, 20]).tolist() == list(range(2, 14))
    assert not cut[..., 14:].any()
    # What the tumour has invaded stays in, whatever it is.
    tissue[:] = Tissue.CORTICAL_BONE
    np.testing.assert_array_equal(with_margin(mask, tissue, grid, 6.0), mask)

"""CT of the phantom: Hounsfield units, noise, streaks, marker and target volumes."""

import numpy as np
import pytest

from npcrepro.cohorts.phantom import Tissue
from npcrepro.cohorts.phantom.acquisition import Draw, Grid
from npcrepro.cohorts.phantom.ct import CtScan, with_margin
from npcrepro.cohorts.phantom.tissues import PROPERTIES

GRID = Grid((4, 64, 64), (3.0, 1.0, 1.0))


def fractions_of(tissue: Tissue) -> np.ndarray:
    out = np.zeros((64, 64, len(Tissue)), np.float32)
    out[..., tissue] = 1
    return out


def image_of(fractions: np.ndarray) -> np.ndarray:
    empty = np.zeros((64, 64), np.float32)
    return CtScan(GRID, Draw(0, 0), (0.0, 0.0, 0.0)).slice(fractions, empty, empty)


def test_hounsfield_units_and_noise() -> None:
    for tissue in (Tissue.MUSCLE, Tissue.FAT, Tissue.TUMOUR):
        image = image_of(fractions_of(tissue))
        assert image.mean() == pytest.approx(PROPERTIES[tissue].hu, abs=12)
        assert 9 <= image.std() <= 15
    neighbours = image_of(fractions_of(Tissue.MUSCLE))
    assert np.corrcoef(neighbours[:, 1:].ravel(), neighbours[:, :-1].ravel())[0, 1] > 0.3


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

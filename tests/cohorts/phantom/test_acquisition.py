"""Sampling, partial volume, soft borders and noise."""

import numpy as np
import pytest

from npcrepro.cohorts.phantom import Anatomy, Structure, Tissue
from npcrepro.cohorts.phantom import acquisition as acquisition_module
from npcrepro.cohorts.phantom.acquisition import Fields, Grid, partition, rician, sample, soften, texture

GRID = Grid((8, 48, 48), (6.0, 4.0, 4.0))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return Anatomy(np.random.default_rng(4), stage=3)


class Halves:
    """Tumour where x < 0.9 mm, air elsewhere; everything is GTVp where it is tumour."""

    def regions(self, z, y, x):
        tumour = np.broadcast_to(x < 0.9, (len(z), len(y), len(x)))
        tissue = np.where(tumour, Tissue.TUMOUR, self.other).astype(np.uint8)
        return tissue, np.where(tumour, Structure.GTVp, 0).astype(np.uint8)

    def __init__(self, other: Tissue = Tissue.AIR) -> None:
        self.other = other


@pytest.mark.parametrize(
    ("spacing_mm", "samples"), [((3, 1.4, 1.4), (2, 2)), ((4, 0.6, 0.6), (2, 1)), ((6, 3, 3), (3, 2))]
)
def test_thick_slices_have_more_samples_and_small_voxels_fewer(spacing_mm, samples) -> None:
    assert Grid((4, 4, 4), spacing_mm).samples() == samples


def test_slabs_cover_every_slice_once(monkeypatch) -> None:
    monkeypatch.setattr(acquisition_module, "SLAB_NUMBERS", 48 * 48 * len(Tissue) * 3)
    assert [(s.start, s.stop) for s in GRID.slabs()] == [(0, 3), (3, 6), (6, 8)]
    monkeypatch.setattr(acquisition_module, "SLAB_NUMBERS", 1)
    assert len(list(GRID.slabs())) == 8


def test_fractions_add_up_to_one(anatomy) -> None:
    sampled = sample(anatomy, GRID, slice(2, 5), (Structure.GTVp,))
    assert sampled.fractions.shape == (3, 48, 48, len(Tissue))
    np.testing.assert_allclose(sampled.fractions.sum(-1), 1, rtol=1e-5)
    whole = sample(anatomy, GRID, slice(None), (Structure.GTVp,))
    # Fields are sums of floats, so that a sample on a border may change sides.
    assert (whole.fractions[2:5] != sampled.fractions).mean() < 1e-3


def test_fraction_and_structure_of_a_plane_through_a_voxel() -> None:
    sampled = sample(Halves(), Grid((4, 4, 4), (3.0, 2.0, 2.0)), slice(None), (Structure.GTVp,))
    # Voxels are centred at x = -3, -1, 1, 3, with samples half a millimetre to each side.
    np.testing.assert_allclose(sampled.fractions[0, 0, :, Tissue.TUMOUR], [1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(sampled.fractions[0, 0, :, Tissue.AIR], [0, 0, 0.5, 1], atol=1e-6)
    drawn = partition(sampled, Grid((4, 4, 4), (3.0, 2.0, 2.0)))
    assert drawn[0, 0].tolist() == [Structure.GTVp, Structure.GTVp, Structure.GTVp, 0]


def test_a_shift_moves_the_head(anatomy) -> None:
    still = sample(anatomy, GRID, slice(None), ()).fractions
    moved = sample(anatomy, GRID, slice(None), (), shift_mm=(6.0, 4.0, 0.0)).fractions
    assert (moved[1:, 1:] != still[:-1, :-1]).mean() < 1e-3


def test_a_soft_border_mixes_what_is_there() -> None:
    grid = Grid((4, 24, 24), (3.0, 1.0, 1.0))
    sampled = sample(Halves(Tissue.MUSCLE), grid, slice(None), ())
    before = sampled.fractions.copy()
    soften(sampled.fractions, grid, grid.axes(), Fields.draw(np.random.default_rng(0)).infiltration)
    np.testing.assert_allclose(sampled.fractions.sum(-1), 1, atol=1e-5)
    change = np.abs(sampled.fractions - before)[..., Tissue.TUMOUR].max((0, 1))
    border = int(before[0, 0, :, Tissue.TUMOUR].sum())
    assert change[border - 2 : border + 3].max() > 0.1
    assert not change[[0, 1, -2, -1]].any()


def test_a_border_to_air_stays_crisp() -> None:
    grid = Grid((4, 24, 24), (3.0, 1.0, 1.0))
    sampled = sample(Halves(Tissue.AIR), grid, slice(None), ())
    before = sampled.fractions.copy()
    soften(sampled.fractions, grid, grid.axes(), Fields.draw(np.random.default_rng(0)).infiltration)
    assert np.abs(sampled.fractions - before).max() < 0.1


def test_texture_has_unit_variance() -> None:
    values = texture(Fields.draw(np.random.default_rng(0)).water, [np.arange(-50.0, 50.0, 2.0)] * 3)
    assert values.mean() == pytest.approx(0, abs=0.15)
    assert values.std() == pytest.approx(1, abs=0.15)


def test_rician_noise() -> None:
    rng = np.random.default_rng(0)
    background = rician(np.zeros((200, 200), np.float32), 10.0, rng)
    assert background.min() >= 0
    assert background.mean() == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.02)
    bright = rician(np.full((200, 200), 500, np.float32), 10.0, rng)
    assert bright.std() == pytest.approx(10, rel=0.03)
    assert bright.mean() == pytest.approx(500.1, abs=0.3)

"""Sampling, partial volume, soft borders and noise."""

import numpy as np
import pytest

from npcrepro.cohorts.phantom import Structure, Tissue
from npcrepro.cohorts.phantom.acquisition import Grid, partition, rician, sample


class Halves:
    """Tumour where x < 0.9 mm, air elsewhere; everything is GTVp where it is tumour."""

    def regions(self, z, y, x):
        tumour = np.broadcast_to(x < 0.9, (len(z), len(y), len(x)))
        tissue = np.where(tumour, Tissue.TUMOUR, Tissue.AIR).astype(np.uint8)
        return tissue, np.where(tumour, Structure.GTVp, 0).astype(np.uint8)


def test_fraction_and_structure_of_a_plane_through_a_voxel() -> None:
    sampled = sample(Halves(), Grid((4, 4, 4), (3.0, 2.0, 2.0)), slice(None), (Structure.GTVp,))
    # Voxels are centred at x = -3, -1, 1, 3, with samples half a millimetre to each side.
    np.testing.assert_allclose(sampled.fractions[0, 0, :, Tissue.TUMOUR], [1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(sampled.fractions[0, 0, :, Tissue.AIR], [0, 0, 0.5, 1], atol=1e-6)
    drawn = partition(sampled, Grid((4, 4, 4), (3.0, 2.0, 2.0)))
    assert drawn[0, 0].tolist() == [Structure.GTVp, Structure.GTVp, Structure.GTVp, 0]


def test_rician_noise() -> None:
    rng = np.random.default_rng(0)
    background = rician(np.zeros((200, 200), np.float32), 10.0, rng)
    assert background.min() >= 0
    assert background.mean() == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.02)
    bright = rician(np.full((200, 200), 500, np.float32), 10.0, rng)
    assert bright.std() == pytest.approx(10, rel=0.03)
    assert bright.mean() == pytest.approx(500.1, abs=0.3)

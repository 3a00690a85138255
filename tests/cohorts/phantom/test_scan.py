"""From anatomy to voxels: signal equations, sampling, noise, Hounsfield units, streaks, target volumes."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate

from npcrepro.cohorts.phantom import KINDS, Structure, Tissue
from npcrepro.cohorts.phantom.acquisition import Draw, Grid, partition, rician, sample
from npcrepro.cohorts.phantom.ct import CtScan, with_margin
from npcrepro.cohorts.phantom.signal import Series, concentration, plasma_concentration, series_signal
from npcrepro.cohorts.phantom.tissues import PROPERTIES, columns

(DCE,) = KINDS["dce"].series


def test_spin_echo_of_known_tissue() -> None:
    series = Series("T1", repetition_ms=1000, echo_ms=100)
    expected = 0.8 * (1 - np.exp(-1)) * np.exp(-2)
    assert series.magnitude(0.8, r1=1.0, r2=20.0) == pytest.approx(expected)


def test_spoiled_gradient_echo_is_largest_at_the_ernst_angle() -> None:
    r1, repetition_ms = 1.0, 100.0
    angles = np.arange(1.0, 90.0)
    signal = [Series("X", repetition_ms, 0, angle).magnitude(1.0, r1, 10.0) for angle in angles]
    assert angles[np.argmax(signal)] == pytest.approx(np.degrees(np.arccos(np.exp(-0.1))), abs=0.5)
    # At 90 degrees it is the saturation recovery of a spin echo.
    assert signal[-1] == pytest.approx(1 - np.exp(-0.1), rel=0.02)


def test_dynamic_series_arrives_at_frame_8_and_peaks_in_order() -> None:
    curves = series_signal(DCE, columns())[..., 0]
    assert curves.shape == (65, len(Tissue))
    np.testing.assert_array_equal(curves[:7], np.broadcast_to(curves[0], (7, len(Tissue))))
    assert curves[7, Tissue.ARTERY] > 1.2 * curves[6, Tissue.ARTERY]
    peak = curves.argmax(0) + 1
    order = [Tissue.ARTERY, Tissue.VEIN, Tissue.MUCOSA, Tissue.TUMOUR, Tissue.MUSCLE]
    assert all(peak[a] < peak[b] for a, b in pairwise(order))
    assert peak[Tissue.ARTERY] <= 11
    assert 31 <= peak[Tissue.TUMOUR] <= 39
    # Slow wash-out of the tumour; muscle takes up little.
    assert 0.8 < curves[-1, Tissue.TUMOUR] / curves[:, Tissue.TUMOUR].max() < 0.99
    rise = curves.max(0) / np.maximum(curves[0], 1e-6)
    assert rise[Tissue.MUSCLE] < 2 < rise[Tissue.TUMOUR]


def test_extended_tofts_model_is_the_convolution() -> None:
    at, transfer, volume, plasma = 100.0, *PROPERTIES[Tissue.TUMOUR][6:9]

    def integrand(s: float) -> float:
        return float(plasma_concentration(np.array([s]))[0]) * np.exp(-transfer / volume * (at - s) / 60)

    leaked = transfer / 60 * integrate.quad(integrand, 0, at, limit=200)[0]
    before, after = concentration(np.array([-5.0, at]), columns())[Tissue.TUMOUR]
    assert before == 0
    assert after == pytest.approx(leaked + plasma * plasma_concentration(np.array([at]))[0], rel=0.02)


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

"""Signal equations, what they say of the tissues, and the uptake of contrast agent."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate

from npcrepro.cohorts.phantom import KINDS, Tissue
from npcrepro.cohorts.phantom.dce import HAEMATOCRIT, plasma_concentration, tissue_concentration
from npcrepro.cohorts.phantom.signal import (
    PatientTissues,
    SpinEcho,
    SpoiledGradientEcho,
    draw_tissues,
    series_signal,
)
from npcrepro.cohorts.phantom.tissues import PROPERTIES

T1, T2, CET1 = KINDS["mri"].series
(DCE,) = KINDS["dce"].series
(THRIVE,) = KINDS["thrive"].series


@pytest.fixture(scope="module")
def nominal() -> PatientTissues:
    names = PatientTissues.__dataclass_fields__
    return PatientTissues(**{name: np.array([getattr(PROPERTIES[t], name) for t in Tissue], float) for name in names})


def levels(series, tissues: PatientTissues) -> np.ndarray:
    return series_signal(series, tissues)[0, :, 0]


def test_every_tissue_has_properties() -> None:
    assert set(PROPERTIES) == set(Tissue)


def test_spin_echo_of_known_tissue() -> None:
    series = SpinEcho("T1", repetition_ms=1000, echo_ms=100)
    expected = 0.8 * (1 - np.exp(-1)) * np.exp(-2)
    assert series.magnitude(0.8, r1=1.0, r2=20.0) == pytest.approx(expected)


def test_spoiled_gradient_echo_is_largest_at_the_ernst_angle() -> None:
    r1, repetition_ms = 1.0, 100.0
    angles = np.arange(1.0, 90.0)
    signal = [SpoiledGradientEcho("X", repetition_ms, 0, angle).magnitude(1.0, r1, 10.0) for angle in angles]
    assert angles[np.argmax(signal)] == pytest.approx(np.degrees(np.arccos(np.exp(-0.1))), abs=0.5)
    # At 90 degrees it is the saturation recovery of a spin echo.
    assert signal[-1] == pytest.approx(1 - np.exp(-0.1), rel=0.02)


def test_t1_shows_fat_and_marrow_but_not_muscle_apart_from_tumour(nominal) -> None:
    level = levels(T1, nominal)
    assert level[Tissue.MUSCLE] == pytest.approx(level[Tissue.TUMOUR], rel=0.15)
    assert level[Tissue.MUCOSA] == pytest.approx(level[Tissue.TUMOUR], rel=0.15)
    assert min(level[Tissue.FAT], level[Tissue.MARROW]) > 1.3 * level[Tissue.TUMOUR]


def test_t2_shows_muscle_and_fluid_but_not_marrow_apart_from_tumour(nominal) -> None:
    level = levels(T2, nominal)
    assert level[Tissue.MUSCLE] < 0.5 * level[Tissue.TUMOUR]
    assert level[Tissue.MARROW] == pytest.approx(level[Tissue.TUMOUR], rel=0.15)
    assert level[Tissue.TUMOUR] < level[Tissue.MUCOSA] < level[Tissue.FLUID]


def test_contrast_agent_shows_muscle_but_not_mucosa_and_fat_apart_from_tumour(nominal) -> None:
    level = levels(CET1, nominal)
    assert level[Tissue.MUSCLE] < 0.7 * level[Tissue.TUMOUR]
    for tissue in (Tissue.MUCOSA, Tissue.ADENOID, Tissue.FAT):
        assert level[tissue] == pytest.approx(level[Tissue.TUMOUR], rel=0.2)
    assert level[Tissue.NECROSIS] < 0.7 * level[Tissue.TUMOUR]


def test_what_holds_no_water_gives_no_signal(nominal) -> None:
    for series in (T1, T2, CET1, THRIVE, DCE):
        signal = series_signal(series, nominal)
        assert np.isfinite(signal).all()
        assert not signal[:, [Tissue.OUTSIDE, Tissue.AIR, Tissue.LUMEN, Tissue.METAL]].any()


def test_dynamic_series_arrives_at_frame_8_and_peaks_in_order(nominal) -> None:
    curves = series_signal(DCE, nominal)[..., 0]
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


def test_plasma_is_empty_before_arrival_and_first_passes_within_a_minute() -> None:
    time = np.arange(-20.0, 300.0)
    plasma = plasma_concentration(time)
    assert not plasma[time <= 0].any()
    assert 5 < time[plasma.argmax()] < 20
    assert 4 < plasma.max() * (1 - HAEMATOCRIT) < 8  # mM in blood


def test_extended_tofts_model_is_the_convolution() -> None:
    transfer, volume, plasma, at = 0.25, 0.4, 0.05, 100.0

    def integrand(s: float) -> float:
        return float(plasma_concentration(np.array([s]))[0]) * np.exp(-transfer / volume * (at - s) / 60)

    leaked = transfer / 60 * integrate.quad(integrand, 0, at, limit=200)[0]
    curve = tissue_concentration(
        np.array([-5.0, at]), *(np.array([v]) for v in (transfer, volume, plasma)), np.array([False])
    )
    assert curve[0, 0] == 0
    expected = leaked + plasma * plasma_concentration(np.array([at]))[0]
    assert curve[0, 1] == pytest.approx(expected, rel=0.02)


def test_patients_differ_and_the_tumour_most() -> None:
    drawn = [draw_tissues(np.random.default_rng(number)) for number in range(40)]
    spread = np.std([np.log(tissues.t2_ms) for tissues in drawn], axis=0)
    assert 1.5 * spread[Tissue.MUSCLE] < spread[Tissue.TUMOUR] < 0.2
    # Node and tumour are one disease.
    ratio = [tissues.t2_ms[Tissue.METASTATIC_NODE] / tissues.t2_ms[Tissue.TUMOUR] for tissues in drawn]
    assert np.ptp(ratio) < 1e-9

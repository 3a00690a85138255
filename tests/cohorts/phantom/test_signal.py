"""Signal equations, what they say of the tissues, and the uptake of contrast agent."""

from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate

from npcrepro.cohorts.phantom import KINDS, Tissue
from npcrepro.cohorts.phantom.signal import PatientTissues, Series, concentration, plasma_concentration, series_signal
from npcrepro.cohorts.phantom.tissues import PROPERTIES

(DCE,) = KINDS["dce"].series


@pytest.fixture(scope="module")
def nominal() -> PatientTissues:
    names = PatientTissues.__dataclass_fields__
    return PatientTissues(**{name: np.array([getattr(PROPERTIES[t], name) for t in Tissue], float) for name in names})


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


def test_extended_tofts_model_is_the_convolution(nominal) -> None:
    at, transfer, volume, plasma = 100.0, *(float(column[Tissue.TUMOUR]) for column in astuple(nominal)[4:7])

    def integrand(s: float) -> float:
        return float(plasma_concentration(np.array([s]))[0]) * np.exp(-transfer / volume * (at - s) / 60)

    leaked = transfer / 60 * integrate.quad(integrand, 0, at, limit=200)[0]
    before, after = concentration(np.array([-5.0, at]), nominal)[Tissue.TUMOUR]
    assert before == 0
    assert after == pytest.approx(leaked + plasma * plasma_concentration(np.array([at]))[0], rel=0.02)

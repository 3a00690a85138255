"""A second observer agrees as well as was asked."""

import numpy as np
import pytest
from scipy import ndimage

from npcrepro.base.errors import InputError
from npcrepro.cohorts.phantom import second_observer

SPACING = (3.0, 1.5, 1.5)


def ball(radius_mm: float, shape=(20, 48, 48), centre=(10, 24, 24)) -> np.ndarray:
    z, y, x = (s * (np.arange(n) - c) for n, s, c in zip(shape, SPACING, centre))
    return z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < radius_mm**2


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("agreement", [0.64, 0.85])
@pytest.mark.parametrize("radius_mm", [8, 18])
def test_agreement_is_reached(agreement, radius_mm) -> None:
    first = ball(radius_mm)
    for number in range(5):
        second = second_observer(first, SPACING, np.random.default_rng(number), agreement)
        assert second.dtype == bool
        assert dsc(first, second) == pytest.approx(agreement, abs=0.03)
        # Every piece is part of what the first one drew: no islands.
        pieces, count = ndimage.label(second)
        assert all((first & (pieces == piece)).any() for piece in range(1, count + 1))


def test_both_directions_of_disagreement() -> None:
    first = ball(14)
    sizes = [second_observer(first, SPACING, np.random.default_rng(n)).sum() / first.sum() for n in range(12)]
    assert min(sizes) < 0.9
    assert max(sizes) > 1.1


@pytest.mark.parametrize("agreement", [0.0, 64, float("nan")])
def test_an_agreement_is_a_dsc(agreement) -> None:
    with pytest.raises(InputError, match="agreement"):
        second_observer(ball(8), SPACING, np.random.default_rng(0), agreement)

"""Surfaces of masks in relief: solids from a known side."""

import numpy as np
import pytest

from npcrepro.book.figures import surfaces
from npcrepro.book.figures.surfaces import relief

NAN = float("nan")


def ball():
    return sum((axis - 11.5) ** 2 for axis in np.ogrid[:24, :24, :24]) <= 7**2


@pytest.fixture
def from_the_front(monkeypatch):
    monkeypatch.setattr(surfaces, "TURN_DEGREES", 0.0)


def silhouette(mask, spacing_mm=(1, 1, 1)):
    seen = ~np.isnan(relief(mask, spacing_mm))
    return np.count_nonzero(seen.any(axis=1)), np.count_nonzero(seen.any(axis=0))


def test_a_ball_is_round_and_brightest_at_the_upper_right(from_the_front):
    seen = relief(ball(), (1, 1, 1))
    height, width = silhouette(ball())
    assert height == pytest.approx(width, abs=1)
    assert height / seen.shape[0] == pytest.approx(15 / 26, abs=0.05)
    y, x = np.unravel_index(np.nanargmax(seen), seen.shape)
    assert y < seen.shape[0] / 2 < x
    assert (np.nanmin(seen), np.nanmax(seen)) == pytest.approx((0.3, 1.0), abs=0.05)


def test_thick_slices_make_no_flat_structure(from_the_front):
    flat = np.zeros((10, 24, 24), bool)
    flat[3:7, 6:18, 6:18] = True  # 12 mm in every direction
    height, width = silhouette(flat, (3.0, 1.0, 1.0))
    assert height == pytest.approx(width, rel=0.1)
    height, width = silhouette(flat, (NAN,) * 3)
    assert height == pytest.approx(width / 3, rel=0.2)


def test_the_head_end_is_up_and_the_front_hides_the_back(from_the_front):
    mask = np.zeros((24, 24, 24), bool)
    mask[14:20, 4:8, 4:10] = True  # upper part, on the left of the picture, in front
    front = relief(mask, (1, 1, 1))
    y, x = (places.mean() for places in np.nonzero(~np.isnan(front)))
    assert y < front.shape[0] / 2
    assert x < front.shape[1] / 2
    mask[10:22, 14:20, 5:9] = True
    both = relief(mask, (1, 1, 1))
    core = slice(int(y) - 3, int(y) + 3), slice(int(x) - 3, int(x) + 3)
    np.testing.assert_allclose(both[core], front[core], atol=0.02)
    assert np.isnan(both).sum() < np.isnan(front).sum()

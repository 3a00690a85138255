import numpy as np
import pytest

from npcrepro.losses.distance_weight import FORMS, distance_weight


def test_the_printed_weight_of_a_literal_solid():
    """A bar of five voxels of 2 mm: depth 0, 2, 4, 2, 0."""
    mask = np.zeros((9, 9, 9), bool)
    mask[2:7, 2:7, 2:7] = True
    found = distance_weight(mask, (2.0, 2.0, 2.0), "core")
    assert found[4, 4].tolist() == [1, 1, 1, 3, 5, 3, 1, 1, 1]
    assert found.dtype == np.float32
    assert (found[~mask] == 1).all()


def test_the_other_weights_of_a_literal_solid():
    mask = np.zeros((1, 1, 9), bool)
    mask[..., 1:6] = True
    spacing = (50.0, 50.0, 1.0)
    assert distance_weight(mask, spacing, "boundary").tolist() == [[[3, 3, 2, 1, 2, 3, 3, 2, 1]]]
    fall = 1 + 10 * np.exp(-np.array([0, 0, 1, 2, 1, 0, 0, 1, 2]) / 5)
    np.testing.assert_allclose(distance_weight(mask, spacing, "exponential")[0, 0], fall, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_at_least_one_and_an_empty_mask_has_no_boundary(form):
    mask = np.zeros((4, 5, 6), bool)
    assert (distance_weight(mask, (1.0, 1.0, 1.0), form) == 1).all()
    mask[:2] = True
    assert distance_weight(mask, (1.0, 1.0, 1.0), form).min() >= 1

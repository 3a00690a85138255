"""One grid for several series."""

import numpy as np
import pytest
from public_sources import T2_MOTION_MM, T2_TURN_DEG, moved, npc_series

from npcrepro.base.errors import InputError
from npcrepro.cohorts.images import from_itk, to_itk
from npcrepro.cohorts.resample import register_rigid, resample, resample_mask, rigid_motion

# A quarter of a slice.
ACCURATE_MM = 1.5
PLACES = np.random.default_rng(0).uniform(-50, 50, (50, 3))


def ball(shape, spacing_mm, centre_mm, radius_mm):
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing_mm)), indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(axes, centre_mm)) < radius_mm**2


def test_a_coarse_mask_keeps_volume_and_place_on_a_fine_grid():
    coarse = to_itk(ball((10, 20, 20), (3.0, 2.0, 2.0), (14, 19, 20), 8), (3.0, 2.0, 2.0))
    fine = to_itk(np.zeros((30, 40, 40), np.int16), (1.0, 1.0, 1.0))
    array, spacing_mm, _ = from_itk(resample_mask(coarse, fine))
    assert (array.shape, spacing_mm, array.dtype, array.max()) == ((30, 40, 40), (1.0, 1.0, 1.0), np.uint8, 1)
    assert array.sum() == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.06)
    np.testing.assert_allclose(np.argwhere(array).mean(0), (14, 19, 20), atol=0.3)


def test_an_image_keeps_its_number_type_and_is_dark_outside():
    image = to_itk(np.full((4, 4, 4), 500, np.int16), (1.0, 1.0, 1.0))
    image[0, 0, 0] = -1000
    larger = to_itk(np.zeros((8, 4, 4), np.float32), (1.0, 1.0, 1.0))
    array = from_itk(resample(image, larger))[0]
    assert array.dtype == np.int16
    assert (array[2], array[7]) == (pytest.approx(np.full((4, 4), 500)), pytest.approx(np.full((4, 4), -1000)))


def true_places(places):
    """Where points of T1 lie in the T2 series of `npc_series`."""
    turn = np.radians(T2_TURN_DEG)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return places @ matrix.T + np.array(T2_MOTION_MM)


def test_a_known_motion_is_found_across_contrasts_and_always_the_same():
    np.testing.assert_allclose(moved(true_places(PLACES)), PLACES, atol=1e-9)
    fixed, moving = (npc_series(sequence)[0].itk() for sequence in ("T1", "T2"))
    transform, information = register_rigid(fixed, moving)
    found = [transform.TransformPoint(place.tolist()) for place in PLACES]
    assert np.linalg.norm(np.array(found) - true_places(PLACES), axis=1).max() < ACCURATE_MM
    assert information > 0.3
    assert register_rigid(fixed, moving)[0].GetParameters() == transform.GetParameters()
    shift_mm, turn_deg = rigid_motion(transform, fixed)
    assert shift_mm == pytest.approx(np.linalg.norm(T2_MOTION_MM), abs=0.7)
    assert turn_deg == pytest.approx(T2_TURN_DEG, abs=0.5)


def test_a_flat_series_is_refused():
    flat = to_itk(np.zeros((12, 20, 20)), (5.0, 4.0, 4.0))
    other = to_itk(np.random.default_rng(0).normal(size=(12, 20, 20)), (5.0, 4.0, 4.0))
    for moving in (flat, other):
        with pytest.raises(InputError, match="cannot be registered: one of them is flat"):
            register_rigid(flat, moving)

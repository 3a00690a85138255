"""A known motion is found again."""

import numpy as np
import pytest
import SimpleITK as sitk
from public_sources import T2_MOTION_MM, T2_TURN_DEG, filled, grid, moved, npc_series

from npcrepro.base.errors import InputError
from npcrepro.cohorts.images import to_itk
from npcrepro.cohorts.resample import register_rigid

# A quarter of a slice.
ACCURATE_MM = 1.5
PLACES = np.random.default_rng(0).uniform(-50, 50, (50, 3))


def true_places(places):
    turn = np.radians(T2_TURN_DEG)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return places @ matrix.T + np.array(T2_MOTION_MM)


def errors_mm(transform, expected):
    found = [transform.TransformPoint(place.tolist()) for place in PLACES]
    return np.linalg.norm(np.array(found) - expected, axis=1)


def test_the_test_moves_as_it_says():
    np.testing.assert_allclose(moved(true_places(PLACES)), PLACES, atol=1e-9)


def test_a_known_motion_is_found_across_contrasts_and_always_the_same():
    fixed, moving = (npc_series(sequence)[0].itk() for sequence in ("T1", "T2"))
    transform, information = register_rigid(fixed, moving)
    assert errors_mm(transform, true_places(PLACES)).max() < ACCURATE_MM
    assert information > 0.3
    assert register_rigid(fixed, moving)[0].GetParameters() == transform.GetParameters()


def test_series_of_another_scanner_start_from_their_middles():
    fixed, moving = (npc_series(sequence)[0].itk() for sequence in ("T1", "T2"))
    away = np.array([400.0, -300.0, 900.0])
    moving.SetOrigin((np.array(moving.GetOrigin()) + away).tolist())
    transform, _ = register_rigid(fixed, moving)
    assert errors_mm(transform, true_places(PLACES) + away).max() < ACCURATE_MM


def test_a_fine_matrix_gives_the_same_motion():
    fixed, moving = (npc_series(sequence)[0].itk() for sequence in ("T1", "T2"))
    fine = sitk.Expand(fixed, (4, 4, 1))
    transform, _ = register_rigid(fine, moving)
    assert errors_mm(transform, true_places(PLACES)).max() < ACCURATE_MM


def test_a_flat_series_is_refused():
    volume = grid((12, 20, 20), (5.0, 4.0, 4.0))
    flat = to_itk(volume.array, volume.spacing_mm, volume.geometry)
    with pytest.raises(InputError, match="cannot be registered: one of them is flat"):
        register_rigid(flat, flat)
    other = filled(volume, np.random.default_rng(0).normal(size=volume.array.shape)).itk()
    with pytest.raises(InputError, match="cannot be registered"):
        register_rigid(flat, other)

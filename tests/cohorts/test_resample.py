"""One grid for several series."""

import numpy as np
import pytest
import SimpleITK as sitk

from npcrepro.base.errors import InputError
from npcrepro.cohorts import resample as resample_module
from npcrepro.cohorts.images import from_itk, to_itk
from npcrepro.cohorts.resample import register_rigid, resample, resample_mask, same_grid


def ball(shape, spacing_mm, centre_mm, radius_mm):
    return ellipsoid(shape, spacing_mm, centre_mm, (radius_mm,) * 3)


def ellipsoid(shape, spacing_mm, centre_mm, radii_mm):
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing_mm)), indexing="ij")
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre_mm, radii_mm)) < 1


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


def test_grids_differ_in_any_part():
    image = to_itk(np.zeros((4, 5, 6), np.int16), (3.0, 1.0, 1.0))
    assert same_grid(image, to_itk(np.ones((4, 5, 6), np.uint8), (3.0, 1.0, 1.0)))
    assert not same_grid(image, to_itk(np.zeros((5, 4, 6), np.int16), (3.0, 1.0, 1.0)))
    assert not same_grid(image, to_itk(np.zeros((4, 5, 6), np.int16), (3.0, 1.0, 1.1)))
    moved = {"origin": [0.0, 0.0, 2.0], "direction": np.eye(3).ravel().tolist()}
    assert not same_grid(image, to_itk(np.zeros((4, 5, 6), np.int16), (3.0, 1.0, 1.0), moved))


def test_registration_finds_a_known_pose():
    """Another contrast of the same solids, turned by 5 degrees and shifted by several millimetres."""
    shape, spacing_mm = (24, 48, 48), (3.0, 2.0, 2.0)
    # The outermost is shaped like a head: a ball looks the same however it is turned.
    solids = [((36, 46, 46), (30, 42, 34), 300), ((30, 30, 50), (12, 12, 12), 500)]
    solids += [((44, 62, 38), (10, 10, 10), -200), ((36, 46, 66), (8, 8, 8), 250)]
    rng = np.random.default_rng(0)
    first, second = (rng.normal(0, 10, shape).astype(np.float32) for _ in range(2))
    for centre, radii, value in solids:
        inside = ellipsoid(shape, spacing_mm, centre, radii)
        first[inside] += value
        second[inside] += 400 - 0.7 * value
    fixed, other = (sitk.SmoothingRecursiveGaussian(to_itk(a, spacing_mm), 1.5) for a in (first, second))
    pose = sitk.Euler3DTransform((46, 46, 36), 0.0, 0.0, np.radians(5), (5.0, -4.0, 3.0))
    moving = sitk.Resample(other, fixed, pose, sitk.sitkLinear, 0.0)
    found, _ = register_rigid(fixed, moving)
    for point in ((30.0, 40.0, 20.0), (60.0, 50.0, 50.0), (46.0, 20.0, 36.0)):
        assert np.linalg.norm(np.subtract(pose.TransformPoint(found.TransformPoint(point)), point)) < 1.0


def test_an_impossible_turn_is_refused(monkeypatch):
    """Here a turn of 8 degrees counts as impossible already."""
    monkeypatch.setattr(resample_module, "LARGEST_TURN_DEG", 2.0)
    axes = np.meshgrid(*(np.arange(40) * 2.0,) * 3, indexing="ij")
    array = np.zeros((40, 40, 40), np.float32)
    for centre, half, value in (((40, 40, 40), (30, 22, 12), 300), ((40, 52, 36), (20, 6, 4), 200)):
        array[np.all([np.abs(a - c) < h for a, c, h in zip(axes, centre, half)], axis=0)] += value
    fixed = sitk.SmoothingRecursiveGaussian(to_itk(array, (2.0, 2.0, 2.0)), 2.0)
    pose = sitk.Euler3DTransform((40, 40, 40), 0.0, 0.0, np.radians(8), (0.0, 0.0, 0.0))
    moving = sitk.Resample(fixed, fixed, pose, sitk.sitkLinear, 0.0)
    with pytest.raises(InputError, match=r"came out turned by [78] degrees; they show different parts"):
        register_rigid(fixed, moving)

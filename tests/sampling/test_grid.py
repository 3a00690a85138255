import numpy as np
import pytest
import SimpleITK as sitk

from npcrepro.sampling.grid import Grid, resample_to


@pytest.mark.parametrize(
    ("first", "step"), [((0.3, -0.5, 3.0), (0.5, 0.5, 1 / 3)), ((-0.4, -1.2, -0.6), (2.0, 1.7, 1.3))]
)
def test_another_grid_agrees_with_simpleitk(first, step):
    array = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    reference = sitk.Image((9, 11, 8), sitk.sitkFloat32)
    reference.SetOrigin(first[::-1])
    reference.SetSpacing(step[::-1])
    expected = sitk.Resample(sitk.GetImageFromArray(array), reference, sitk.Transform(), sitk.sitkLinear, -9.0)
    found = resample_to(array, first, step, (8, 11, 9), outside=-9.0)
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(expected), atol=1e-5)


def test_a_volume_goes_to_a_grid_and_comes_back():
    volume = np.random.default_rng(0).normal(size=(6, 8, 9)).astype(np.float32)
    grid, spacing = Grid((3.0, 2.0, 4.0), 1.0, (4, 5, 4)), (3.0, 1.0, 2.0)
    taken = grid.take(volume, spacing, outside=-9.0)
    np.testing.assert_allclose(taken[::3, :, ::2], volume[1:3, 2:7, 2:4], atol=1e-5)
    back = grid.give_back(taken, spacing, volume.shape)
    np.testing.assert_allclose(back[1:3, 2:7, 2:4], volume[1:3, 2:7, 2:4], atol=1e-5)
    assert not back[0].any()
    places = [place.tolist()[:3] for place in grid.places(spacing, volume.shape)]
    assert places == [[-3, 0, 3], [-2, -1, 0], [-4, -2, 0]]

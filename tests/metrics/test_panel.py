"""Pieces, planes, sides and areas of two masks."""

from math import isnan

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from npcrepro.metrics.overlap import count
from npcrepro.metrics.panel import METRICS, PLANES, SIDES, components, largest_component, measure, slice_distances
from npcrepro.metrics.surface import surface_distances

SPACING = (3.0, 0.5, 0.8)


def box(z, y, x, shape=(9, 12, 14)):
    mask = np.zeros(shape, bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def blobs(seed, shape=(10, 24, 28), share=0.75):
    """Prediction and reference of several pieces, alike in part."""
    rng = np.random.default_rng(seed)
    common = gaussian_filter(rng.normal(size=shape), 1.5)
    masks = [common + 0.7 * gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(2)]
    return [mask > np.quantile(mask, share) for mask in masks]


def test_a_row_has_every_number_and_empty_masks_have_the_defined_ones():
    full, empty = box((2, 5), (3, 8), (4, 9)), box((0, 0), (0, 0), (0, 0))
    assert tuple(measure(full, full, SPACING)) == METRICS
    for prediction, reference, pieces in ((empty, full, (0, 1)), (full, empty, (1, 0)), (empty, empty, (0, 0))):
        found = measure(prediction, reference, SPACING)
        assert (found["components"], found["reference_components"]) == pieces
        areas = found["predicted_area_mm2"], found["reference_area_mm2"]
        assert [area > 0 for area in areas] == [bool(n) for n in pieces]
        assert max(areas) == pytest.approx(max(pieces) * measure(full, full, SPACING)["reference_area_mm2"])
        assert all(isnan(found[f"{side}_mm"]) for side in SIDES.values())
        assert isnan(found["slice_hd_mm"])
        # A slice that one mask shows is a slice missed; where neither shows one there is nothing to measure.
        assert found["axial_dsc"] == pytest.approx(count(prediction, reference).dsc, nan_ok=True)
    unknown = measure(full, full, (np.nan, 1.0, 1.0))
    assert {name for name, value in unknown.items() if not isnan(value)} == {
        *("components", "reference_components", "axial_dsc", "coronal_dsc", "sagittal_dsc")
    }
    with pytest.raises(ValueError, match="of one shape"):
        measure(full, full[:-1], SPACING)


@pytest.mark.parametrize("seed", range(2))
def test_pieces_are_those_of_simpleitk(seed):
    mask, _ = blobs(seed, share=0.93)
    labelled = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(labelled)
    sizes = {number: shapes.GetNumberOfPixels(number) for number in shapes.GetLabels()}
    assert components(mask) == len(sizes) > 3
    kept = largest_component(mask)
    assert kept.sum() == max(sizes.values())
    assert sizes[int(sitk.GetArrayFromImage(labelled)[kept][0])] == kept.sum()


def test_voxels_that_share_a_corner_are_one_piece_and_of_two_as_large_the_first_stays():
    mask = np.zeros((3, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 3, 2] = mask[2, 3, 3] = True
    assert components(mask) == 2
    assert components(mask[2]) == components(mask[:1]) == 1
    assert components(np.eye(3, dtype=bool)) == 1
    assert np.argwhere(largest_component(mask)).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert not largest_component(mask & False).any()


@pytest.mark.parametrize("across", [0, 1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_slices_are_measured_as_slices_by_themselves(across, seed):
    """One that a single mask shows has no distance in the plane, and a DSC of zero."""
    prediction, reference = blobs(seed, share=0.97)
    prediction[0] = prediction[:, 1] = reference[:, :, 2] = False
    pairs = [(np.take(prediction, n, across), np.take(reference, n, across)) for n in range(prediction.shape[across])]
    alone = [surface_distances(*pair, np.delete(SPACING, across)) for pair in pairs]
    both = [each for each in alone if each.status == "ok"]
    assert 0 < len(both) < len(alone)
    means = [np.mean([getattr(each, name) for each in both]) for name in ("hausdorff", "hausdorff_95")]
    found = slice_distances(prediction, reference, SPACING, across)
    assert found == pytest.approx(dict(zip(("slice_hd_mm", "slice_hd95_mm"), means)))
    dsc = np.nanmean([count(*pair).dsc for pair in pairs])
    assert measure(prediction, reference, SPACING)[f"{list(PLANES)[across]}_dsc"] == pytest.approx(dsc)


def test_a_cube_that_moved_backwards_by_two_voxels():
    """Front: both surfaces are 2 mm apart. Back: so are the faces, but near the edges the sides are nearer."""
    reference = box((5, 26), (5, 26), (5, 26), (32, 32, 32))
    found = measure(np.roll(reference, 2, axis=1), reference, (1.0, 1.0, 1.0))
    assert found["front_mm"] == pytest.approx(2)
    of_reference = (17**2 * 2 + (19**2 - 17**2) * 1) / 21**2
    of_prediction = (21**2 * 2 + 80 * 1) / (21**2 + 2 * 80)
    assert found["back_mm"] == pytest.approx((of_reference + of_prediction) / 2)
    beside = [found[f"{side}_mm"] for side in ("left", "right", "top", "bottom")]
    assert max(beside) == pytest.approx(min(beside))
    assert 0 < max(beside) < 0.5
    assert found["coronal_dsc"] == pytest.approx(19 / 23)  # 23 slices, 4 of which one mask alone shows


@pytest.mark.parametrize(("axes", "grown"), [("LPS", "top"), ("RAI", "bottom"), ("PSL", "left"), ("IRA", "front")])
def test_sides_and_planes_are_the_patients_whatever_the_axes_of_the_array(axes, grown):
    """The prediction is longer by 3 voxels of 3 mm at the end of the z axis."""
    reference, prediction = box((2, 5), (3, 8), (4, 9)), box((2, 8), (3, 8), (4, 9))
    found = measure(prediction, reference, SPACING, axes)
    sides = {side: found[f"{side}_mm"] for side in SIDES.values()}
    assert max(sides, key=sides.get) == grown
    across = {"top": "axial", "bottom": "axial", "left": "sagittal", "front": "coronal"}[grown]
    assert found[f"{across}_dsc"] == pytest.approx(0.5)
    assert sum(found[f"{plane}_dsc"] == pytest.approx(2 / 3) for plane in PLANES) == 2
    assert found["slice_hd_mm"] == pytest.approx(0 if across == "axial" else 9)


@pytest.mark.parametrize("seed", range(2))
def test_sides_agree_with_maps_of_distances(seed):
    masks = [mask & box((1, 9), (4, 20), (5, 22), (10, 24, 28)) for mask in blobs(seed)]
    borders = [mask & ~binary_erosion(mask) for mask in masks]
    maps = [distance_transform_edt(~border, SPACING) for border in borders]
    centre = [np.average(axis, weights=masks[1]) for axis in np.indices(masks[1].shape)]
    steps = [(place - middle) * length for place, middle, length in zip(np.indices(masks[1].shape), centre, SPACING)]
    found = measure(*masks, SPACING)
    for axis, ends in enumerate(("top bottom", "back front", "left right")):
        for side, towards in zip(ends.split(), (steps[axis], -steps[axis])):
            there = towards >= np.max(np.abs(steps), axis=0) - 1e-6
            means = [maps[1 - n][borders[n] & there].mean() for n in (0, 1)]
            assert found[f"{side}_mm"] == pytest.approx(np.mean(means)), side


def test_the_area_of_a_box_and_one_slice_that_has_none():
    mask = box((2, 6), (3, 9), (4, 10), (8, 14, 16))
    found = measure(mask, np.roll(mask, 1, axis=2), (2.0, 1.0, 1.0))
    # Marching cubes cut off edges and corners of 8 x 6 x 6 mm.
    assert 0.85 * 264 < found["reference_area_mm2"] < 264
    assert found["predicted_area_mm2"] == pytest.approx(found["reference_area_mm2"])
    flat = measure(mask[3:4], np.roll(mask, 2, axis=2)[3:4], (2.0, 1.0, 1.0))
    assert (flat["slice_hd_mm"], flat["axial_dsc"]) == (pytest.approx(2), pytest.approx(2 / 3))
    assert flat["slice_hd_mm"] == flat["voxel_hd_mm"]
    undefined = {"coronal_dsc", "sagittal_dsc", "predicted_area_mm2", "reference_area_mm2", "top_mm", "bottom_mm"}
    assert {name for name, value in flat.items() if isnan(value)} == undefined
    sagittal = measure(mask[3:4], mask[3:4], (2.0, 1.0, 1.0), "PIL")
    assert isnan(sagittal["slice_hd_mm"])
    assert (sagittal["sagittal_dsc"], sagittal["top_mm"]) == (1, 0)

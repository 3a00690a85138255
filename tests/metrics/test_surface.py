"""Surface distances: solids with known answers, slow references, MONAI, and properties."""

from itertools import combinations
from math import isnan, pi, sqrt

import numpy as np
import pytest
import torch
from monai import metrics
from monai.metrics.utils import get_code_to_measure_table, get_edge_surface_distance
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from npcrepro.metrics.overlap import count
from npcrepro.metrics.panel import measure
from npcrepro.metrics.surface import CONVENTIONS, DirectedDistances, surface_distances

SPACING = (3.0, 0.5, 0.5)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def mask(*rows):
    return np.array(rows, dtype=bool)


def ellipsoid(shape, spacing_mm, centre_mm, radii_mm):
    """True where a point is in an ellipsoid; all lengths in mm from the first voxel."""
    axes = [np.arange(n) * s for n, s in zip(shape, spacing_mm)]
    grid = np.meshgrid(*axes, indexing="ij")
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre_mm, radii_mm)) <= 1


def two_ellipsoids():
    """Prediction and reference of 7 and 8 ml, offset in every axis."""
    shape = (14, 70, 75)
    return (
        ellipsoid(shape, SPACING, (20, 17, 18), (12, 11, 13)),
        ellipsoid(shape, SPACING, (22.5, 18, 19.5), (13, 12.5, 12)),
    )


def blobs(seed, shape=(9, 12, 11), share=0.25):
    """Two ragged masks that partly agree."""
    rng = np.random.default_rng(seed)
    shared = rng.random(shape) < share
    return [shared ^ (rng.random(shape) < 0.05) for _ in range(2)]


# Slow references: every definition written out once more.


def elements(volume, spacing_mm, convention):
    """Coordinates of the elements of a surface, and their sizes."""
    padded = np.pad(volume, 1)
    if convention == "voxel":
        places = np.argwhere(padded & ~ndimage.binary_erosion(padded))
        return places, np.ones(len(places))
    corners = sliding_window_view(padded, (2,) * volume.ndim)
    corners = corners.reshape(*corners.shape[: volume.ndim], -1)
    mixed = corners.any(axis=-1) & ~corners.all(axis=-1)
    codes = corners[mixed] @ (2 ** np.arange(corners.shape[-1])[::-1])
    return np.argwhere(mixed), get_code_to_measure_table(spacing_mm)[0].numpy()[codes]


def slow_distances(start, target, spacing_mm):
    steps = (start[:, None, :] - target[None, :, :]) * np.array(spacing_mm)
    return np.sqrt((steps**2).sum(axis=-1)).min(axis=1)


def slow_percentile(distances, sizes, convention):
    """Of areas, the smallest distance within which 95 % of the surface lies."""
    if convention == "voxel":
        return np.percentile(distances, 95)
    shares = [sizes[distances <= distance].sum() / sizes.sum() for distance in distances]
    return distances[np.array(shares) >= 0.95 - 1e-9].min()


def slow_measure(prediction, reference, spacing_mm, convention):
    (first, one), (second, other) = (elements(m, spacing_mm, convention) for m in (prediction, reference))
    there, back = slow_distances(first, second, spacing_mm), slow_distances(second, first, spacing_mm)
    both, sizes = np.append(there, back), np.append(one, other)
    numbers = {
        "hd_mm": both.max(),
        "hd95_mm": max(slow_percentile(there, one, convention), slow_percentile(back, other, convention)),
        "masd_mm": (np.average(there, weights=one) + np.average(back, weights=other)) / 2,
        "assd_mm": np.average(both, weights=sizes),
        "nsd_1mm": sizes[both <= 1 + 1e-6].sum() / sizes.sum(),
        "nsd_2mm": sizes[both <= 2 + 1e-6].sum() / sizes.sum(),
    }
    return {f"{convention}_{name}": number for name, number in numbers.items()}


# Literal cases.


def test_two_by_two_pixels_in_both_directions():
    voxel, surfel = (surface_distances(mask([1, 1], [0, 0]), mask([1, 0], [0, 0]), (2, 0.5), c) for c in CONVENTIONS)
    assert voxel.to_reference.distances_mm.tolist() == [0, 0.5]
    assert voxel.to_prediction.distances_mm.tolist() == [0]
    assert (voxel.status, voxel.hausdorff, voxel.nsd(0.5)) == ("ok", 0.5, 1)
    assert (voxel.masd, voxel.assd, voxel.nsd(0)) == pytest.approx((0.125, 0.5 / 3, 2 / 3))
    # Outline of one pixel: four corners cut off. Of two: four cut corners, and two straight pieces of 0.5 mm between.
    corner = sqrt(2**2 + 0.5**2) / 2
    assert (surfel.to_prediction.size, surfel.to_reference.size) == pytest.approx((4 * corner, 4 * corner + 2 * 0.5))
    # Both share the corners on the left; the pieces between are the right corners of the small outline.
    assert (surfel.to_prediction.maximum, surfel.to_reference.maximum) == (0, 0.5)
    assert surfel.to_reference.mean == pytest.approx(2 * corner * 0.5 / (4 * corner + 1))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("prediction", "reference", "status"),
    [
        (mask([0, 0], [0, 0]), mask([0, 0], [0, 0]), "both_empty"),
        (mask([1, 0], [0, 0]), mask([0, 0], [0, 0]), "ref_empty"),
        (mask([0, 0], [0, 0]), mask([0, 0], [0, 1]), "pred_empty"),
        (np.zeros((0, 4), dtype=bool), np.zeros((0, 4), dtype=bool), "both_empty"),
    ],
)
def test_nothing_to_measure_is_no_number(convention, prediction, reference, status):
    distances = surface_distances(prediction, reference, (1, 1), convention)
    assert distances.status == status == count(prediction, reference).status
    assert isnan(distances.percentile(95, "pooled"))
    # As the Dice coefficient: a missed structure is a number, and a bad one.
    assert distances.nsd(2) == pytest.approx(count(prediction, reference).dsc, nan_ok=True)
    assert all(isnan(value) for value in (distances.hausdorff, distances.hausdorff_95, distances.masd, distances.assd))


# Solids with known answers.


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("spacing", "bias"), [(SPACING, 0.9), ((0.5, 0.5, 0.5), 0.35), ((0.25, 0.5), 0.2)])
def test_shells_of_known_distance(convention, spacing, bias):
    """Two balls (circles) about one centre. Voxels make stairs of them, whose points come closer by a diagonal."""
    step = np.linalg.norm(spacing)
    shape, centre = tuple(round(46 / s) for s in spacing), (22.5,) * len(spacing)
    small, large = (ellipsoid(shape, spacing, centre, (r,) * len(spacing)) for r in (14, 20))
    distances = surface_distances(small, large, spacing, convention)
    assert distances.masd == pytest.approx(6, abs=bias)
    assert 6 - step <= distances.to_reference.distances_mm.min()
    assert distances.hausdorff <= 6 + step / 2
    assert (distances.nsd(6 - step - 0.1), distances.nsd(6 + step)) == (0, 1)


def test_surfels_measure_the_area_of_a_ball_and_of_a_box():
    ball, box = ellipsoid((42, 42, 42), (1, 1, 1), (20.5,) * 3, (18,) * 3), np.ones((40, 50, 60), dtype=bool)
    sides = np.array(box.shape) * SPACING
    around = 2 * sum(a * b for a, b in combinations(sides, 2))
    for solid, spacing, area, error in ((ball, (1, 1, 1), 4 * pi * 18**2, 0.1), (box, SPACING, around, 0.02)):
        found = surface_distances(solid, solid, spacing, "surfel").to_reference.size
        assert found == pytest.approx(area, rel=error)


# Rules for percentiles and tolerances.


def test_percentile_of_an_area_is_the_first_distance_that_holds_it():
    distances = DirectedDistances(np.array([3.0, 1.0, 2.0, 4.0]), np.array([0.4, 0.4, 0.15, 0.05]))
    assert [distances.percentile(q) for q in (0, 40, 40.1, 55, 56, 95, 95.1, 100)] == [1, 1, 2, 2, 3, 3, 4, 4]
    tiny = DirectedDistances(np.array([1.0, 9.0]), np.array([1.0, 1e-12]))
    assert (tiny.percentile(99.9), tiny.percentile(100)) == (1, 9)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_tolerance_that_is_a_multiple_of_the_spacing_counts(convention):
    """Neither 3 x 0.1 nor a spacing in single precision is exactly the tolerance."""
    reference = np.zeros((4, 20), dtype=bool)
    reference[1:3, 2:9] = True
    for spacing in (0.1, float(np.float32(0.1))):
        distances = surface_distances(np.roll(reference, 3, axis=1), reference, (1, spacing), convention)
        assert distances.nsd(0.3) == 1
        assert distances.nsd(0.29) < 1


# Agreement with slow references and with MONAI.


@pytest.mark.parametrize("seed", [1, 5, 300])
@pytest.mark.parametrize(("shape", "spacing"), [((9, 12, 11), SPACING), ((23, 31), (0.7, 1.3))])
def test_agrees_with_the_slow_reference(seed, shape, spacing):
    prediction, reference = blobs(seed, shape)
    prediction[5:] = False
    prediction[-1, -2] = True  # far away
    expected = slow_measure(prediction, reference, spacing, "voxel")
    expected |= slow_measure(prediction, reference, spacing, "surfel")
    if prediction.ndim == 2:  # one slice is measured by its outline
        prediction, reference, spacing = prediction[None], reference[None], (1.0, *spacing)
    found = measure(prediction, reference, spacing)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def pairs_for_monai():
    yield two_ellipsoids(), SPACING
    yield blobs(7, (10, 20, 30)), SPACING
    yield [m[7] for m in two_ellipsoids()], SPACING[1:]
    far = np.zeros((2, 6, 70, 80), dtype=bool)
    far[0, :2, :3, :4], far[1, 4:, 60:, 70:] = True, True
    yield far, (2.5, 0.7, 0.7)


@pytest.mark.parametrize(("pair", "spacing"), list(pairs_for_monai()))
def test_agrees_with_monai(pair, spacing):
    prediction, reference = (torch.from_numpy(m.copy())[None, None] for m in pair)
    given_to_all = {"include_background": True, "spacing": spacing}

    def nsd(tolerance, **convention):
        return metrics.compute_surface_dice(prediction, reference, [tolerance], **given_to_all, **convention)

    voxel, surfel = (surface_distances(*pair, spacing, convention) for convention in CONVENTIONS)
    hausdorff, mean = metrics.compute_hausdorff_distance, metrics.compute_average_surface_distance
    assert voxel.hausdorff == pytest.approx(hausdorff(prediction, reference, **given_to_all).item(), abs=1e-5)
    # MONAI interpolates ranks in single precision, which alone can move its HD95 by some 1e-5 mm.
    _, both, _ = get_edge_surface_distance(prediction[0, 0], reference[0, 0], spacing=list(spacing), symmetric=True)
    theirs = max(torch.quantile(d.double(), 0.95).item() for d in both)
    assert voxel.hausdorff_95 == pytest.approx(theirs, abs=1e-5)
    theirs = hausdorff(prediction, reference, percentile=95, **given_to_all)
    assert voxel.hausdorff_95 == pytest.approx(theirs.item(), abs=1e-4)
    theirs = mean(prediction, reference, symmetric=True, **given_to_all)
    assert voxel.assd == pytest.approx(theirs.item(), abs=1e-5)
    assert voxel.to_reference.mean == pytest.approx(mean(prediction, reference, **given_to_all).item(), abs=1e-5)
    for tolerance in (0.6, 1.0, 3.0):
        assert voxel.nsd(tolerance) == pytest.approx(nsd(tolerance).item(), abs=1e-6)
        assert surfel.nsd(tolerance) == pytest.approx(nsd(tolerance, use_subvoxels=True).item(), abs=1e-6)


# Input.


@pytest.mark.parametrize(
    ("shapes", "spacing", "convention", "message"),
    [
        (((2, 2), (2, 3)), (1, 1), "voxel", "prediction has the shape"),
        (((2, 2), (2, 2)), (1, 1, 1), "voxel", "2 or 3 axes"),
        (((2, 2), (2, 2)), (1, float("nan")), "voxel", "positive number"),
        (((2, 2), (2, 2)), (1, 1), "pixel", "convention 'pixel' is unknown: voxel or surfel"),
    ],
)
def test_what_cannot_be_measured_is_an_error(shapes, spacing, convention, message):
    with pytest.raises(ValueError, match=message):
        surface_distances(*map(np.ones, shapes), spacing, convention)


def test_wrong_percentiles_rules_and_tolerances_are_errors():
    distances = surface_distances(*np.ones((2, 2, 2)), (1, 1))
    for measure_it, message in (
        (lambda: distances.percentile(101), "between 0 and 100"),
        (lambda: distances.percentile(95, "mean"), "rule 'mean' is unknown"),
        (lambda: distances.nsd(float("nan")), "0 mm or more"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_it()

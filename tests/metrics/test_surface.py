"""Surface distances: solids with known answers, slow references, MONAI, and properties."""

from itertools import combinations, permutations, product
from math import ceil, inf, isnan, pi, sqrt

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npcrepro.metrics import surface
from npcrepro.metrics.overlap import count
from npcrepro.metrics.surface import CONVENTIONS, METRICS, DirectedDistances, measure, surface_distances

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


# Slow references: every definition written out once more, element by element.


def slow_border(volume):
    """Coordinates of border voxels."""
    found = []
    for index in np.argwhere(volume):
        for axis, step in product(range(volume.ndim), (-1, 1)):
            beside = index.copy()
            beside[axis] += step
            outside = beside[axis] < 0 or beside[axis] >= volume.shape[axis]
            if outside or not volume[tuple(beside)]:
                found.append(index)
                break
    return np.array(found), None


def slow_surfels(volume, spacing_mm):
    """Coordinates of mixed cells and the size of the surface in each."""
    from monai.metrics.utils import get_code_to_measure_table

    table = get_code_to_measure_table(spacing_mm)[0].tolist()
    padded = np.pad(volume, 1)
    cells, sizes = [], []
    for index in product(*(range(n - 1) for n in padded.shape)):
        corners = [bool(padded[tuple(np.add(index, offset))]) for offset in product((0, 1), repeat=volume.ndim)]
        if any(corners) and not all(corners):
            cells.append(index)
            sizes.append(table[int("".join(str(int(c)) for c in corners), 2)])
    return np.array(cells), np.array(sizes)


def slow_distances(start, target, spacing_mm):
    steps = (start[:, None, :] - target[None, :, :]) * np.array(spacing_mm)
    return np.sqrt((steps**2).sum(axis=-1)).min(axis=1)


def slow_percentile(distances, sizes, share):
    """Smallest distance within which the share of the surface lies."""
    for distance in sorted(distances):
        if sizes[distances <= distance].sum() >= share * sizes.sum() * (1 - 1e-9):
            return distance
    raise AssertionError


def slow_measure(prediction, reference, spacing_mm, convention):
    surfaces = [
        slow_border(m) if convention == "voxel" else slow_surfels(m, spacing_mm) for m in (prediction, reference)
    ]
    (first, first_sizes), (second, second_sizes) = surfaces
    there, back = slow_distances(first, second, spacing_mm), slow_distances(second, first, spacing_mm)
    first_sizes = np.ones(len(first)) if first_sizes is None else first_sizes
    second_sizes = np.ones(len(second)) if second_sizes is None else second_sizes
    whole = first_sizes.sum() + second_sizes.sum()
    means = [(there * first_sizes).sum() / first_sizes.sum(), (back * second_sizes).sum() / second_sizes.sum()]
    if convention == "voxel":
        high = [np.percentile(d, 95) for d in (there, back)]
    else:
        high = [slow_percentile(there, first_sizes, 0.95), slow_percentile(back, second_sizes, 0.95)]
    numbers = {
        "hd_mm": max(there.max(), back.max()),
        "hd95_mm": max(high),
        "masd_mm": sum(means) / 2,
        "assd_mm": ((there * first_sizes).sum() + (back * second_sizes).sum()) / whole,
    }
    for tolerance in (1, 2):
        near = first_sizes[there <= tolerance + 1e-6].sum() + second_sizes[back <= tolerance + 1e-6].sum()
        numbers[f"nsd_{tolerance}mm"] = near / whole
    return {f"{convention}_{name}": number for name, number in numbers.items()}


# Literal cases.


@pytest.mark.parametrize(
    ("prediction", "reference", "hausdorff"),
    [
        (mask([1, 0], [0, 0]), mask([0, 1], [0, 0]), 0.5),
        (mask([1, 0], [0, 0]), mask([0, 0], [1, 0]), 2),
        (mask([1, 0], [0, 0]), mask([0, 0], [0, 1]), sqrt(4.25)),
        (mask([1, 1], [1, 1]), mask([1, 1], [1, 1]), 0),
        (mask([1, 1], [0, 0]), mask([1, 0], [0, 0]), 0.5),
    ],
)
def test_two_by_two_voxels(prediction, reference, hausdorff):
    distances = surface_distances(prediction, reference, (2, 0.5))
    assert distances.status == "ok"
    assert distances.hausdorff == pytest.approx(hausdorff)


def test_two_by_two_voxels_in_both_directions():
    distances = surface_distances(mask([1, 1], [0, 0]), mask([1, 0], [0, 0]), (2, 0.5))
    assert distances.to_reference.distances_mm.tolist() == [0, 0.5]
    assert distances.to_prediction.distances_mm.tolist() == [0]
    assert distances.masd == pytest.approx(0.125)
    assert distances.assd == pytest.approx(0.5 / 3)
    assert distances.nsd(0) == pytest.approx(2 / 3)
    assert distances.nsd(0.5) == 1


def test_two_by_two_pixels_as_surfels():
    distances = surface_distances(mask([1, 1], [0, 0]), mask([1, 0], [0, 0]), (2, 0.5), "surfel")
    # Outline of one pixel: four corners cut off. Of two: four cut corners, and two straight pieces of 0.5 mm between.
    corner = sqrt(2**2 + 0.5**2) / 2
    assert distances.to_prediction.size == pytest.approx(4 * corner)
    assert distances.to_reference.size == pytest.approx(4 * corner + 2 * 0.5)
    # Both share the corners on the left; the pieces between are the right corners of the small outline.
    assert distances.to_prediction.maximum == 0
    assert distances.to_reference.maximum == 0.5
    assert distances.to_reference.mean == pytest.approx(2 * corner * 0.5 / (4 * corner + 1))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("where", [(0, 0, 0), (2, 3, 4), (1, 2, 2)])
def test_single_voxels_anywhere_also_in_the_corner_of_the_image(convention, where):
    prediction, reference = np.zeros((2, 3, 4, 5), dtype=bool)
    prediction[where], reference[2, 0, 0] = True, True
    expected = np.linalg.norm((np.array(where) - (2, 0, 0)) * np.array(SPACING))
    distances = surface_distances(prediction, reference, SPACING, convention)
    assert distances.hausdorff == pytest.approx(expected)
    if convention == "voxel":
        assert distances.masd == distances.assd == distances.hausdorff_95 == distances.hausdorff


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
    numbers = (distances.hausdorff, distances.hausdorff_95, distances.percentile(95, "pooled"), distances.masd)
    assert all(isnan(n) for n in (*numbers, distances.assd))
    # As the Dice coefficient: a missed structure is a number, and a bad one.
    assert distances.nsd(2) == pytest.approx(count(prediction, reference).dsc, nan_ok=True)


def test_measure_gives_every_column_also_for_nothing():
    prediction, reference = two_ellipsoids()
    assert tuple(measure(prediction, reference, SPACING)) == METRICS
    empty = measure(prediction, np.zeros_like(reference), SPACING)
    assert {name for name, value in empty.items() if not isnan(value)} == {n for n in METRICS if "nsd" in n}
    assert inf not in empty.values()


# Solids with known answers.


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("steps", [(1, 0, 0), (0, 4, 0), (0, 0, -3), (2, 3, 6)])
def test_a_ball_that_moved(convention, steps):
    reference = ellipsoid((18, 60, 60), SPACING, (24, 15, 15), (10, 10, 10))
    prediction = np.roll(reference, steps, axis=(0, 1, 2))
    moved = np.linalg.norm(np.array(steps) * np.array(SPACING))
    distances = surface_distances(prediction, reference, SPACING, convention)
    # The pole of a ball moves by the whole offset. On this grid the pole is flat, so up to half a slice is missing.
    assert moved - 1.5 <= distances.hausdorff <= moved + 1e-9
    assert distances.to_reference.mean == pytest.approx(distances.to_prediction.mean, rel=0.05)
    assert distances.nsd(moved) == 1
    assert distances.masd < moved


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("spacing", "bias"), [(SPACING, 0.9), ((0.5, 0.5, 0.5), 0.35)])
def test_shells_of_known_distance(convention, spacing, bias):
    """Two balls about one centre. Voxels make stairs of them, whose points come closer by a diagonal at most."""
    step = np.linalg.norm(spacing)
    shape, centre = tuple(round(46 / s) for s in spacing), (22.5,) * 3
    small, large = (ellipsoid(shape, spacing, centre, (r,) * 3) for r in (14, 20))
    distances = surface_distances(small, large, spacing, convention)
    assert distances.masd == pytest.approx(6, abs=bias)
    assert 6 - step <= distances.to_reference.distances_mm.min()
    assert distances.hausdorff <= 6 + step / 2
    assert (distances.nsd(6 - step - 0.1), distances.nsd(6 + step)) == (0, 1)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_circles_of_known_distance(convention):
    shape, spacing, centre = (200, 100), (0.25, 0.5), (25, 25)
    small, large = (ellipsoid(shape, spacing, centre, (r,) * 2) for r in (12, 20))
    distances = surface_distances(small, large, spacing, convention)
    assert distances.masd == pytest.approx(8, abs=0.2)
    assert distances.hausdorff == pytest.approx(8, abs=0.6)
    assert (distances.nsd(7), distances.nsd(9)) == (0, 1)


def test_surfels_measure_the_area_of_a_ball_and_of_a_box():
    ball = ellipsoid((42, 42, 42), (1, 1, 1), (20.5,) * 3, (18,) * 3)
    area = surface_distances(ball, ball, (1, 1, 1), "surfel").to_reference.size
    assert area == pytest.approx(4 * pi * 18**2, rel=0.1)
    box = np.ones((40, 50, 60), dtype=bool)
    area = surface_distances(box, box, SPACING, "surfel").to_reference.size
    sides = np.array(box.shape) * SPACING
    assert area == pytest.approx(2 * sum(a * b for a, b in combinations(sides, 2)), rel=0.02)


def test_area_counts_and_not_the_number_of_elements():
    """A slab of 10 x 30 mm that became one slice of 3 mm taller."""
    reference = np.zeros((10, 20, 40), dtype=bool)
    reference[3:7, 5:15, 5:35] = True
    taller = reference.copy()
    taller[7, 5:15, 5:35] = True
    voxel, surfel = (surface_distances(taller, reference, (3, 1, 1), c) for c in CONVENTIONS)
    assert voxel.hausdorff == surfel.hausdorff == 3
    whole = 4 * 10 * 30 + 2 * (12 + 15) * (10 + 30)
    # The new face lies 3 mm off, the old one too but for a rim of 1 mm around it.
    assert 1 - surfel.nsd(1) == pytest.approx((10 * 30 + 8 * 28) / whole, abs=0.025)
    counted = len(voxel.to_reference.distances_mm) + len(voxel.to_prediction.distances_mm)
    assert 1 - voxel.nsd(1) == pytest.approx((10 * 30 + 6 * 26) / counted)


def test_a_mask_that_fills_the_image_has_its_surface_at_the_border():
    full, inner = np.ones((5, 6, 7), dtype=bool), np.zeros((5, 6, 7), dtype=bool)
    inner[1:-1, 1:-1, 1:-1] = True
    distances = surface_distances(full, inner, (1, 1, 1))
    assert len(distances.to_reference.distances_mm) == 5 * 6 * 7 - 3 * 4 * 5
    assert distances.hausdorff == pytest.approx(sqrt(3))
    assert distances.to_prediction.maximum == 1


def test_a_slice_is_measured_by_its_outline():
    reference = ellipsoid((40, 40), (0.5, 0.5), (10, 10), (7, 7))
    prediction = ellipsoid((40, 40), (0.5, 0.5), (10, 10), (4, 4))
    outline = surface_distances(prediction, reference, (0.5, 0.5))
    flat = surface_distances(prediction[None], reference[None], (3, 0.5, 0.5))
    assert outline.masd == pytest.approx(3, abs=0.2)
    assert flat.masd < 1  # every voxel of a flat body is surface


# Rules for percentiles.


def test_percentile_rules_differ_as_named():
    there, back = DirectedDistances(np.arange(100.0)), DirectedDistances(np.zeros(100))
    distances = surface.SurfaceDistances("voxel", "ok", there, back)
    assert distances.percentile(95) == pytest.approx(np.percentile(np.arange(100), 95))
    assert distances.percentile(95, "pooled") == pytest.approx(np.percentile([*range(100), *[0] * 100], 95))
    assert distances.percentile(100) == distances.percentile(100, "pooled") == distances.hausdorff == 99


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


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lines", [1, 5, 300])
def test_agrees_with_the_slow_reference(convention, seed, lines, monkeypatch):
    """Few lines and small chunks send distances to the search tree, which has to give the same."""
    monkeypatch.setattr(surface, "LINES", lines)
    monkeypatch.setattr(surface, "CHUNK", 100)
    surface._lines_around.cache_clear()
    prediction, reference = blobs(seed)
    prediction[5:] = False
    prediction[-1, -2, -2] = True  # alone and far away
    expected = slow_measure(prediction, reference, SPACING, convention)
    found = measure(prediction, reference, SPACING)
    surface._lines_around.cache_clear()
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("lines", [5, 20, 80])
@pytest.mark.parametrize("spacing", [SPACING, (1.0, 1.0, 1.0), (0.4, 2.0, 0.7)])
def test_distances_of_scattered_voxels_are_the_smallest(lines, spacing, monkeypatch):
    """At all ranges, near the last line that is visited too."""
    monkeypatch.setattr(surface, "LINES", lines)
    surface._lines_around.cache_clear()
    prediction, reference = np.random.default_rng(lines).random((2, 12, 30, 32)) < 0.004
    distances = surface_distances(prediction, reference, spacing)
    surface._lines_around.cache_clear()
    first, second = np.argwhere(prediction), np.argwhere(reference)
    assert distances.to_reference.distances_mm == pytest.approx(slow_distances(first, second, spacing), abs=1e-9)
    assert distances.to_prediction.distances_mm == pytest.approx(slow_distances(second, first, spacing), abs=1e-9)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_agrees_with_the_slow_reference_in_two_dimensions(convention):
    for seed in range(5):
        prediction, reference = blobs(seed, shape=(23, 31))
        expected = slow_measure(prediction, reference, (0.7, 1.3), convention)
        found = measure(prediction, reference, (0.7, 1.3))
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
    metrics = pytest.importorskip("monai.metrics")
    from monai.metrics.utils import get_edge_surface_distance

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
    directed = [mean(*masks, **given_to_all).item() for masks in ((prediction, reference), (reference, prediction))]
    assert voxel.masd == pytest.approx(sum(directed) / 2, abs=1e-5)
    for tolerance in (0.6, 1.0, 3.0):
        assert voxel.nsd(tolerance) == pytest.approx(nsd(tolerance).item(), abs=1e-6)
        assert surfel.nsd(tolerance) == pytest.approx(nsd(tolerance, use_subvoxels=True).item(), abs=1e-6)


# Properties.

volumes = st.one_of(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)
)
spacings = st.tuples(*[st.sampled_from([0.1, 0.5, 0.9765625, 1.0, 2.5, 3.0]) for _ in range(3)])


@st.composite
def pairs(draw):
    shape = draw(volumes)
    prediction, reference = (draw(hnp.arrays(bool, shape)) for _ in range(2))
    assume(prediction.any() and reference.any())
    return prediction, reference, draw(spacings)[: len(shape)]


def same(first, second):
    return first == pytest.approx(second, rel=1e-6, abs=1e-9, nan_ok=True)


@settings(max_examples=60)
@given(pairs())
@example((*blobs(3), SPACING))
def test_exchanging_the_masks_changes_nothing(pair):
    prediction, reference, spacing = pair
    assert same(measure(reference, prediction, spacing), measure(prediction, reference, spacing))


@settings(max_examples=30)
@given(pairs())
def test_a_mask_agrees_with_itself(pair):
    numbers = measure(pair[0], pair[0], pair[2])
    assert numbers == {name: float("nsd" in name) for name in METRICS}


@settings(max_examples=60)
@given(pairs(), st.integers(0, 2))
def test_a_flip_changes_nothing(pair, axis):
    prediction, reference, spacing = pair
    flipped = [np.flip(m, axis % m.ndim) for m in (prediction, reference)]
    assert same(measure(*flipped, spacing), measure(prediction, reference, spacing))


@settings(max_examples=60)
@given(pairs(), st.data())
def test_exchanging_axes_with_their_spacing_changes_nothing(pair, data):
    prediction, reference, spacing = pair
    order = data.draw(st.sampled_from(list(permutations(range(prediction.ndim)))))
    turned = [m.transpose(order) for m in (prediction, reference)]
    numbers = measure(*turned, [spacing[axis] for axis in order])
    assert same(numbers, measure(prediction, reference, spacing))


@settings(max_examples=40)
@given(pairs(), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=3))
def test_padding_changes_nothing(pair, rim):
    prediction, reference, spacing = pair
    padded = [np.pad(m, rim[: m.ndim]) for m in (prediction, reference)]
    assert measure(*padded, spacing) == measure(prediction, reference, spacing)


@settings(max_examples=60)
@given(pairs(), st.sampled_from(list(CONVENTIONS)))
def test_order_of_the_numbers(pair, convention):
    distances = surface_distances(*pair, convention)
    for rule in ("max_directed", "pooled"):
        values = [distances.percentile(q, rule) for q in (0, 50, 95, 100)]
        assert values == sorted(values)
        assert values[-1] == distances.hausdorff
    assert distances.masd <= distances.hausdorff * (1 + 1e-9)
    assert distances.assd <= distances.hausdorff * (1 + 1e-9)
    shares = [distances.nsd(t) for t in (0, 0.5, 1, 2, 4, distances.hausdorff)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert distances.nsd(ceil(distances.hausdorff) + 1) == 1


# Input.


@pytest.mark.parametrize(
    ("shapes", "spacing", "convention", "message"),
    [
        (((2, 2), (2, 3)), (1, 1), "voxel", "prediction has the shape"),
        (((4,), (4,)), (1,), "voxel", "2 or 3 axes"),
        (((2, 2), (2, 2)), (1, 1, 1), "voxel", "2 or 3 axes"),
        (((2, 2), (2, 2)), (1, 0), "voxel", "positive number"),
        (((2, 2), (2, 2)), (1, float("nan")), "voxel", "positive number"),
        (((2, 2), (2, 2)), (1, 1), "pixel", "convention 'pixel' is unknown: voxel or surfel"),
    ],
)
def test_what_cannot_be_measured_is_an_error(shapes, spacing, convention, message):
    with pytest.raises(ValueError, match=message):
        surface_distances(*map(np.ones, shapes), spacing, convention)


def test_wrong_percentiles_rules_and_tolerances_are_errors():
    distances = surface_distances(*two_ellipsoids(), SPACING)
    for q in (-1, 101, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 100"):
            distances.percentile(q)
    with pytest.raises(ValueError, match="rule 'mean' is unknown"):
        distances.percentile(95, "mean")
    for tolerance in (-1, float("nan")):
        with pytest.raises(ValueError, match="0 mm or more"):
            distances.nsd(tolerance)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_other_types_count_where_they_are_not_zero(kind):
    prediction, reference = two_ellipsoids()
    expected = measure(prediction, reference, SPACING)
    assert measure(prediction.astype(kind) * 3, reference.astype(kind), SPACING) == expected

import matplotlib
import numpy as np
import pandas as pd
import pytest

from npcrepro import statistics
from npcrepro.papers.luo2020.protocol import PAPER

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb

from npcrepro.book.figures import slices, style, surfaces, volumes
from npcrepro.book.figures.slices import ERRORS
from npcrepro.book.figures.surfaces import relief

NAN = float("nan")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def ball(size=24, radius=7.0, centre=None):
    places = centre or (size / 2 - 0.5,) * 3
    axes = np.ogrid[:size, :size, :size]
    return sum((axis - place) ** 2 for axis, place in zip(axes, places, strict=True)) <= radius**2


def drawn(figure):
    """Axes that show something."""
    return [axis for axis in figure.axes if axis.images]


def test_planes_go_through_the_reference_and_stand_upright():
    image = np.arange(6 * 8 * 10.0).reshape(6, 8, 10)
    reference = np.zeros(image.shape, bool)
    reference[4, 2, 1:9] = reference[4, 2:5, 7] = reference[1:6, 2, 7] = True
    outlines = {"Reference": (reference, style.REFERENCE), "U-Net": (reference, "#56B4E9")}
    figure = slices.planes(image, outlines, (3.0, 1.0, 0.5))
    axial, coronal, sagittal = (np.asarray(axis.images[0].get_array()) for axis in drawn(figure))
    assert np.array_equal(axial, image[4])
    assert np.array_equal(coronal, image[::-1, 2])
    assert np.array_equal(sagittal, image[::-1, :, 7])
    assert [axis.get_aspect() for axis in drawn(figure)] == [2.0, 6.0, 3.0]
    colours = [line.get_edgecolor()[0][:3].tolist() for line in drawn(figure)[0].collections]
    assert colours == [list(to_rgb(colour)) for _, colour in outlines.values()]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["Reference", "U-Net"]


def test_planes_of_an_empty_reference_and_unknown_spacing():
    image = np.arange(4 * 6 * 8.0).reshape(4, 6, 8)
    outlines = {"Reference": (np.zeros(image.shape, bool), style.REFERENCE)}
    figure = slices.planes(image, outlines, (NAN, NAN, NAN))
    assert np.array_equal(np.asarray(drawn(figure)[0].images[0].get_array()), image[2])
    assert [axis.get_aspect() for axis in drawn(figure)] == [1.0, 1.0, 1.0]


def test_errors_have_their_colours_and_the_dsc_of_the_slice():
    reference = np.zeros((20, 20), bool)
    reference[5:15, 5:15] = True
    moved = np.roll(reference, 5, axis=1)
    predictions = {"unet": moved, "fcn8": reference, "two-stage": ~reference & False}
    figure = slices.errors(np.zeros((20, 20)), reference, predictions, PAPER)
    assert [axis.get_title() for axis in drawn(figure)] == ["U-Net", "FCN-8", "Proposed"]
    assert [axis.get_xlabel() for axis in drawn(figure)] == ["DSC 0.50", "DSC 1.00", "DSC 0.00"]
    layer = np.asarray(drawn(figure)[0].images[1].get_array())
    counts = {name: int((layer[..., :3] == to_rgb(colour)).all(axis=2).sum()) for name, colour in ERRORS.items()}
    assert counts == {"found (TP)": 50, "wrongly marked (FP)": 50, "missed (FN)": 50}
    assert (layer[..., 3] > 0).sum() == 150
    first = layer[layer.shape[0] // 2]  # from left to right: missed, found, wrongly marked
    order = [tuple(pixel[:3]) for pixel in first if pixel[3]]
    assert list(dict.fromkeys(order)) == [
        to_rgb(ERRORS[name]) for name in ("missed (FN)", "found (TP)", "wrongly marked (FP)")
    ]


def test_errors_of_patients_have_a_row_for_each_plane():
    reference = np.zeros((10, 40, 40), bool)
    reference[4:8, 10:20, 15:25] = True
    moved = np.roll(reference, 2, axis=0)
    patient = (np.zeros(reference.shape), reference, {"unet": moved, "fcn8": reference}, (3.0, 1.0, 1.0))
    figure = slices.errors_of_patients({"A": patient, "B": patient}, ("axial", "coronal"), PAPER)
    axes = drawn(figure)
    assert [axis.get_ylabel() for axis in axes[::2]] == ["A\naxial", "A\ncoronal", "B\naxial", "B\ncoronal"]
    assert [axis.get_title() for axis in axes[:2]] == ["U-Net", "FCN-8"]
    # The slice with the largest area is the first of the reference, which the moved mask does not reach.
    assert [axis.get_xlabel() for axis in axes[:4]] == ["0.00", "1.00", "0.50", "1.00"]
    assert [axis.get_aspect() for axis in axes[:4]] == [1, 1, 3, 3]
    coronal = np.asarray(axes[2].images[1].get_array())
    found = (coronal[..., 3] > 0).any(axis=1)
    assert (coronal[found][0][..., :3] == to_rgb(ERRORS["wrongly marked (FP)"])).all(axis=1).any()  # above, as z is up
    assert (coronal[found][-1][..., :3] == to_rgb(ERRORS["missed (FN)"])).all(axis=1).any()
    # Cut to what the masks show, with a margin of 8 % of the side.
    assert axes[0].images[0].get_array().shape == (16, 16)


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_errors_of_many_methods_fill_rows(count):
    mask = np.ones((6, 6), bool)
    predictions = {method.name: mask for method in PAPER.methods[:count]}
    figure = slices.errors(np.zeros((6, 6)), mask, predictions, PAPER)
    assert len(drawn(figure)) == count


@pytest.fixture
def from_the_front(monkeypatch):
    monkeypatch.setattr(surfaces, "TURN_DEGREES", 0.0)


def silhouette(mask, spacing_mm=(1, 1, 1)):
    seen = ~np.isnan(relief(mask, spacing_mm))
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return len(rows), len(columns)


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
    seen = ~np.isnan(relief(mask, (1, 1, 1)))
    y, x = (places.mean() for places in np.nonzero(seen))
    assert y < seen.shape[0] / 2
    assert x < seen.shape[1] / 2
    front = relief(mask, (1, 1, 1))
    mask[10:22, 14:20, 5:9] = True
    both = relief(mask, (1, 1, 1))
    core = np.zeros(seen.shape, bool)
    core[int(y) - 3 : int(y) + 3, int(x) - 3 : int(x) + 3] = True
    np.testing.assert_allclose(both[core], front[core], atol=0.02)
    assert (~np.isnan(both)).sum() > seen.sum()


def test_surfaces_have_the_colours_of_their_methods_and_one_scale():
    rows = {"one": (ball(), {"unet": ball(radius=4.0)}), "two": (ball(), {"unet": ball() & False})}
    figure = surfaces.surfaces(rows, {"one": (1, 1, 1), "two": (NAN,) * 3}, PAPER)
    reference, small, _, nothing = (np.asarray(axis.images[0].get_array()) for axis in figure.axes)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["Reference", "U-Net"]
    areas = [(part[..., 3] > 0).sum() for part in (reference, small, nothing)]
    assert areas[1] / areas[0] == pytest.approx((4.5 / 7.5) ** 2, rel=0.15)
    assert areas[2] == 0
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["empty"]
    for part, colour in ((reference, style.REFERENCE), (small, style.colours(PAPER)["unet"])):
        brightest = part[part[..., 3] > 0][:, :3].max(axis=0)
        np.testing.assert_allclose(brightest, to_rgb(colour), atol=0.05)


def test_a_forest_shows_means_intervals_and_what_is_printed():
    values = {"A minus B": [0.1, 0.2, 0.3, 0.2], "C minus B": [-0.1, 0.0, -0.1, -0.2]}
    rows = {name: statistics.summarise(each) for name, each in values.items()}
    figure = volumes.forest(rows, "difference of the DSC", {"C minus B": -0.5, "D minus B": 9.0})
    axis = figure.axes[0]
    names = [label.get_text().replace("\N{NO-BREAK SPACE}", " ") for label in axis.get_yticklabels()]
    assert names == ["A minus B (n = 4)", "C minus B (n = 4)"]
    points = [tuple(map(float, line.get_xydata()[0])) for line in axis.lines if line.get_marker() == "s"]
    assert points == [(pytest.approx(0.2), 0), (pytest.approx(-0.1), 1)]
    ends = [part.get_segments()[0][:, 0].tolist() for part in axis.collections]
    assert ends == [[row.low, row.high] for row in rows.values()]
    crosses = [line.get_xydata().tolist() for line in axis.lines if line.get_marker() == "x"]
    assert crosses == [[[-0.5, 1.0]]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ours, with 95 % interval", "printed"]


def test_weights_of_voxels_share_one_scale():
    levels = {"level 1": np.full((8, 8), 0.4), "level 2": np.array([[0.3, 0.6], [0.5, 0.5]])}
    figure = volumes.voxel_weights(np.eye(8), np.eye(8) > 0, levels)
    image, first, second = (axis.images[0] for axis in drawn(figure)[:3])
    assert np.array_equal(np.asarray(image.get_array()), np.eye(8))
    assert first.get_clim() == second.get_clim() == (0.3, 0.6)
    assert first.get_extent() == second.get_extent() == [-0.5, 7.5, 7.5, -0.5]


def test_validation_curves_join_stages_and_average_runs():
    rows = [
        ("unet", 0, "one", 2, 0.9), ("unet", 0, "one", 4, 0.8), ("unet", 0, "two", 2, 0.6),
        ("unet", 1, "one", 2, 0.7), ("unet", 1, "one", 4, 0.6), ("unet", 1, "two", 2, 0.2),
    ]  # fmt: skip
    history = pd.DataFrame(rows, columns=["method", "fold", "stage", "update", "validation_loss"]).assign(seed=0)
    figure = volumes.validation_curves(history, PAPER)
    *runs, mean = (line.get_xydata().tolist() for line in figure.axes[0].lines)
    assert runs == [[[2, 0.9], [4, 0.8], [6, 0.6]], [[2, 0.7], [4, 0.6], [6, 0.2]]]
    assert mean == [[2, pytest.approx(0.8)], [4, pytest.approx(0.7)], [6, pytest.approx(0.4)]]
    ends = [part.get_offsets().tolist() for part in figure.axes[0].collections]
    assert ends == [[[4, 0.8], [6, 0.6]], [[4, 0.6], [6, 0.2]]]


def test_weights_of_channels_stand_over_their_level():
    levels = {
        "8": {"T1": np.array([0.2, 0.4]), "T2": np.array([0.9, 0.7])},
        "16": {"T1": np.ones(4), "T2": np.zeros(4)},
    }
    figure = volumes.channel_weights(levels)
    bars = [part.get_segments()[0] for part in figure.axes[0].collections if hasattr(part, "get_segments")]
    means = [float(bar[0, 1]) for bar in bars]
    assert means == pytest.approx([0.3, 1.0, 0.8, 0.0])
    middles = [float(bar[:, 0].mean()) for bar in bars]
    assert middles == pytest.approx([-0.2, 0.8, 0.2, 1.2])
    dots = [part.get_offsets()[:, 1].tolist() for part in figure.axes[0].collections if hasattr(part, "get_sizes")]
    assert [0.2, 0.4] in dots

"""Charts of scores, training, differences and weights, by the numbers that are drawn."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from npcrepro import statistics
from npcrepro.book.figures import charts, volumes
from npcrepro.papers.luo2020.protocol import PAPER
from npcrepro.runs.per_patient import by_patient
from npcrepro.runs.published import RESULTS, read_published

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def patients():
    cases = read_published(RESULTS / "luo2020-openkbp").cases
    return by_patient(cases[(cases.region == "all_slices") & cases.method.isin(["unet", "two-stage"])])


def segments(axis):
    """Ends of straight lines, ``(n, 2, 2)``, as they were drawn."""
    return [part for lines in axis.collections if hasattr(lines, "get_segments") for part in lines.get_segments()]


def test_boxes_have_the_quartiles_and_the_10th_and_90th_percentile(patients):
    one = patients[patients.structure == "Mandible"]
    means = one.groupby(["method", "patient"]).dsc.mean()
    (axis,) = charts.boxes(one, PAPER, {"dsc": "DSC"}).axes
    lines = [np.unique(line.get_ydata()) for line in axis.lines]
    for name in ("two-stage", "unet"):
        low, first, median, third, high = np.percentile(means[name], (10, 25, 50, 75, 90))
        values = means[name].to_numpy()
        inner = (values[values >= low].min(), values[values <= high].max())  # whiskers end at a patient
        for wanted in ([inner[0], first], [third, inner[1]], [median]):
            assert any(len(found) == len(wanted) and np.allclose(found, wanted) for found in lines), wanted
    assert [len(dots.get_offsets()) for dots in axis.collections] == [len(means["unet"])] * 2
    assert [label.get_text() for label in axis.get_xticklabels()] == ["Proposed", "U-Net"]


def test_boxes_by_structure_stand_beside_each_other_in_the_colours_of_the_methods(patients):
    figure = charts.boxes_by_structure(patients, PAPER)
    (axis,) = figure.axes
    structures = list(dict.fromkeys(patients.structure))
    assert [label.get_text() for label in axis.get_xticklabels()] == structures
    colours = {
        matplotlib.colors.to_hex(line.get_color(), keep_alpha=False).upper()
        for line in axis.lines
        if line.get_linestyle() == "-"
    }
    wanted = {charts.style.colours(PAPER)[name].upper() for name in ("two-stage", "unet")}
    assert colours == wanted
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Proposed", "U-Net"]


def test_structures_are_sorted_by_the_first_metric_with_n():
    rows = [("A", False, 0.5, 9), ("A", True, 0.9, 1), ("B", False, 0.8, 3), ("B", False, 0.6, 5)]
    table = pd.DataFrame(rows, columns=["structure", "suspect", "dsc", "hd95"])
    first, second = charts.observer_agreement(table, {"dsc": "DSC", "hd95": "HD95 (mm)"}).axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["B (n = 2)", "A (n = 1)"]
    assert [bar[0][0] for bar in segments(second)] == [4, 9]
    faces = second.collections[0].get_facecolors()
    assert (faces[:, 3] == 0).tolist() == [False, True, False, False]  # a ring for the doubtful pair


def test_each_organ_is_a_dot_and_the_named_ones_have_their_name():
    points = pd.DataFrame({"reference_ml": [1.0, 20.0], "dsc": [0.7, 0.9]}, index=["Lens", "Parotid"])
    lines = {"one slice": np.array([0.5, 0.9])}
    (axis,) = charts.dsc_by_volume(lines, np.array([0.5, 50.0]), points, ["Parotid"]).axes
    assert [text.get_text() for text in axis.texts] == ["Parotid"]
    np.testing.assert_allclose(axis.collections[0].get_offsets(), [(1, 0.7), (20, 0.9)])


def test_surfaces_have_a_style_and_numbers_a_colour():
    both = pd.DataFrame({"border voxels": [1.0, 2.0], "surface elements": [1.5, 2.5]}, index=[0.0, 1.0])
    figure = charts.by_surface({"share": {"DSC": both[["border voxels"]], "NSD": both}})
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-"]
    assert lines[1].get_color() == lines[2].get_color() != lines[0].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(both)


def test_a_forest_shows_means_intervals_and_what_is_printed():
    values = {"A minus B": [0.1, 0.2, 0.3, 0.2], "C minus B": [-0.1, 0.0, -0.1, -0.2]}
    rows = {name: statistics.summarise(each) for name, each in values.items()}
    (axis,) = volumes.forest(rows, "difference of the DSC", {"C minus B": -0.5, "D minus B": 9.0}).axes
    names = [label.get_text().replace("\N{NO-BREAK SPACE}", " ") for label in axis.get_yticklabels()]
    assert names == ["A minus B (n = 4)", "C minus B (n = 4)"]
    points = {line.get_marker(): line.get_xydata() for line in axis.lines}
    np.testing.assert_allclose(points["s"], [(0.2, 0), (-0.1, 1)])
    np.testing.assert_allclose(points["x"], [(-0.5, 1)])
    np.testing.assert_allclose([end[:, 0] for end in segments(axis)], [(row.low, row.high) for row in rows.values()])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ours, with 95 % interval", "printed"]


HISTORY = pd.DataFrame(
    [
        ("unet", 0, "one", 2, 0.9), ("unet", 0, "one", 4, 0.8), ("unet", 0, "two", 2, 0.6),
        ("unet", 1, "one", 2, 0.7), ("unet", 1, "one", 4, 0.6), ("unet", 1, "two", 2, 0.2),
    ],
    columns=["method", "fold", "stage", "update", "validation_loss"],
).assign(seed=0, loss=1.0)  # fmt: skip


def test_validation_curves_join_stages_and_average_runs():
    (axis,) = volumes.validation_curves(HISTORY, PAPER).axes
    *runs, mean = (line.get_xydata().tolist() for line in axis.lines)
    assert runs == [[[2, 0.9], [4, 0.8], [6, 0.6]], [[2, 0.7], [4, 0.6], [6, 0.2]]]
    np.testing.assert_allclose(mean, [[2, 0.8], [4, 0.7], [6, 0.4]])
    ends = [part.get_offsets().tolist() for part in axis.collections]
    assert ends == [[[4, 0.8], [6, 0.6]], [[4, 0.6], [6, 0.2]]]


def test_learning_curves_begin_anew_with_each_stage():
    (axis,) = charts.learning_curves(HISTORY, PAPER).axes
    assert [text.get_text() for text in axis.texts] == ["one", "two"]
    assert [text.xy[0] for text in axis.texts] == [0, 4]
    means = [line.get_xydata().tolist() for line in axis.lines if line.get_marker() == "."]
    flat = [point for line in means for point in line]
    np.testing.assert_allclose(flat, [[2, 1], [4, 1], [2, 0.8], [4, 0.7], [6, 1], [6, 0.4]])


def test_weights_of_voxels_share_one_scale():
    levels = {"level 1": np.full((8, 8), 0.4), "level 2": np.array([[0.3, 0.6], [0.5, 0.5]])}
    axes = volumes.voxel_weights(np.eye(8), np.eye(8) > 0, levels).axes
    image, first, second = (axis.images[0] for axis in axes[:3])
    assert np.array_equal(np.asarray(image.get_array()), np.eye(8))
    assert first.get_clim() == second.get_clim() == (0.3, 0.6)
    assert first.get_extent() == second.get_extent() == [-0.5, 7.5, 7.5, -0.5]


def test_weights_of_channels_stand_over_their_level():
    levels = {
        "8": {"T1": np.array([0.2, 0.4]), "T2": np.array([0.9, 0.7])},
        "16": {"T1": np.ones(4), "T2": np.zeros(4)},
    }
    (axis,) = volumes.channel_weights(levels).axes
    bars = np.array(segments(axis))
    np.testing.assert_allclose(bars[:, :, 1].mean(axis=1), [0.3, 1.0, 0.8, 0.0])
    np.testing.assert_allclose(bars[:, :, 0].mean(axis=1), [-0.2, 0.8, 0.2, 1.2])
    dots = [part.get_offsets()[:, 1].tolist() for part in axis.collections if hasattr(part, "get_sizes")]
    assert [0.2, 0.4] in dots


def test_a_metric_without_any_value_leaves_an_empty_figure(patients):
    unknown = patients[patients.structure == "Mandible"].assign(surfel_hd95_mm=np.nan)
    figure = charts.boxes(unknown, PAPER, {"surfel_hd95_mm": "HD95 (mm)", "dsc": "DSC"})
    assert [bool(len(axis.lines)) for axis in figure.axes] == [False, True]
    assert not charts.boxes_by_structure(unknown, PAPER, "surfel_hd95_mm").axes[0].lines

"""Charts of scores, training, differences and weights, by the numbers that are drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from npcrepro import statistics
from npcrepro.book.figures import charts, style
from npcrepro.papers.luo2020.protocol import PAPER
from npcrepro.runs.per_patient import by_patient
from npcrepro.runs.published import RESULTS, read_published


def test_boxes_have_the_quartiles_and_the_10th_and_90th_percentile():
    cases = read_published(RESULTS / "luo2020-openkbp").cases
    cases = cases[(cases.region == "all_slices") & cases.method.isin(["unet", "two-stage"])]
    one = by_patient(cases[cases.structure == "Mandible"])
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


def test_a_forest_shows_means_intervals_and_what_is_printed():
    values = {"A minus B": [0.1, 0.2, 0.3, 0.2], "C minus B": [-0.1, 0.0, -0.1, -0.2]}
    rows = {name: statistics.summarise(each) for name, each in values.items()}
    (axis,) = charts.forest(rows, "difference of the DSC", {"C minus B": -0.5, "D minus B": 9.0}).axes
    names = [label.get_text().replace("\N{NO-BREAK SPACE}", " ") for label in axis.get_yticklabels()]
    assert names == ["A minus B (n = 4)", "C minus B (n = 4)"]
    points = {line.get_marker(): line.get_xydata() for line in axis.lines}
    np.testing.assert_allclose(points["s"], [(0.2, 0), (-0.1, 1)])
    np.testing.assert_allclose(points["x"], [(-0.5, 1)])
    lines = [part for one in axis.collections if hasattr(one, "get_segments") for part in one.get_segments()]
    np.testing.assert_allclose([ends[:, 0] for ends in lines], [(row.low, row.high) for row in rows.values()])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ours, with 95 % interval", "reported"]


HISTORY = pd.DataFrame(
    [
        ("unet", 0, "one", 2, 0.9), ("unet", 0, "one", 4, 0.8), ("unet", 0, "two", 2, 0.6),
        ("unet", 1, "one", 2, 0.7), ("unet", 1, "one", 4, 0.6), ("unet", 1, "two", 2, 0.2),
    ],
    columns=["method", "fold", "stage", "update", "validation_loss"],
).assign(seed=0, loss=1.0)  # fmt: skip


def test_validation_curves_join_stages_and_average_runs():
    (axis,) = charts.validation_curves(HISTORY, PAPER).axes
    *runs, mean = (line.get_xydata().tolist() for line in axis.lines)
    assert runs == [[[2, 0.9], [4, 0.8], [6, 0.6]], [[2, 0.7], [4, 0.6], [6, 0.2]]]
    np.testing.assert_allclose(mean, [[2, 0.8], [4, 0.7], [6, 0.4]])
    ends = [part.get_offsets().tolist() for part in axis.collections]
    assert ends == [[[4, 0.8], [6, 0.6]], [[4, 0.6], [6, 0.2]]]


def test_a_chart_is_as_narrow_as_a_phone_asks_and_turns_long_names():
    figure, axis = plt.subplots(figsize=(6.9, 3))
    axis.set_xticks(range(3), ["a name of\ntwenty letters", "a name+\nanother", "long"])
    picture = style.narrow(figure, "three names")
    assert picture.figure.get_size_inches().tolist() == [4.7, 3]
    assert [label.get_rotation() for label in axis.get_xticklabels()] == [30] * 3
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names == ["a name of twenty\nletters", "a name+another", "long"]
    assert 'alt="three names"' in picture._repr_html_()
    assert not plt.fignum_exists(figure.number)

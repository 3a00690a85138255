from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from core_cases import write_tiny

from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.papers.li2018 import chapter
from npcrepro.protocol import registry
from npcrepro.sampling.slices import SliceData

METRICS = list(chapter.TABLE_2)


def one(name, *boxes, suspect=False):
    label = np.zeros((len(boxes), 16, 16), np.uint8)
    for z, (y, x) in enumerate(boxes):
        label[z, y, x] = 1
    image = np.random.default_rng(0).integers(0, 99, (1, *label.shape)).astype(np.int16)
    return CaseArrays(name, name[0], image, label, (1.0, 1.0, 1.0), suspect)


@pytest.fixture
def data(tmp_path):
    cases = [
        one("A1", (slice(4, 8), slice(4, 8))),  # four whole pixels of the matrix
        one("B1", (slice(5, 6), slice(4, 8))),  # half of a row of the matrix
        one("B2", (slice(4, 8), slice(4, 8))),
        one("C1", (slice(4, 5), slice(4, 5)), suspect=True),
        one("D1", (slice(0), slice(0))),
    ]
    prepared = prepare(write_tiny(tmp_path / "cohort", cases, channels=("T2",)), tmp_path / "prepared")
    return SliceData(prepared, (8, 8), ("T2",), ("GTVp",))


def test_what_a_matrix_leaves_of_the_reference(data):
    rows = chapter.through_matrix(data).set_index("case")
    assert rows.index.tolist() == ["A1", "B1", "B2", "C1"]
    truth = {"A1": 16, "B1": 4, "B2": 16, "C1": 1}
    assert (rows.tp + rows.fn).to_dict() == truth
    # A row that is as wide as half of a pixel comes back two pixels wide or not at all; a block of pixels stays.
    best = chapter.best_dsc(rows)
    assert best.index.tolist() == ["A", "B"]
    assert best["A"] > 0.9 > best["B"]
    pooled = rows.loc[["B1", "B2"], ["tp", "fp", "fn"]].sum()
    assert best["B"] == pytest.approx(2 * pooled.tp / (2 * pooled.tp + pooled.fp + pooled.fn))
    line = chapter.ceiling_line(rows)
    assert "8 x 8 pixels" in line
    assert f"{best.mean():.2f} over 2 patients and one of {best.min():.2f}" in line
    assert "nothing is said" in chapter.ceiling_line(rows[rows.suspect])
    whole = SliceData(data.cohort, (16, 16), ("T2",), ("GTVp",))
    assert (chapter.best_dsc(chapter.through_matrix(whole)) == 1).all()


def test_table_2_is_of_the_proposed_method_and_not_of_the_best():
    paper = registry.load("li2018")
    rows = pd.DataFrame(
        [("A", name, *[dsc] * len(METRICS)) for name, dsc in (("linear-scores", 0.9), ("stepwise", 0.2))],
        columns=["patient", "method", *METRICS],
    ).assign(predicted_ml=np.nan, reference_ml=np.nan)
    table = chapter.published_table_2(SimpleNamespace(averaged=rows, paper=paper), pd.Series({"A": 0.8}))
    assert table.columns.tolist() == ["Patient", "PM", "CR", "DSC", "Recall (= precision)", "JSC", "DSC at best"]
    assert table.to_numpy().tolist() == [["A", 0.2, 0.2, 0.2, 0.2, 0.2, 0.8]]


def test_the_layers_are_drawn_from_the_network():
    paper = registry.load("li2018")
    picture = chapter.architecture(paper.methods[0], paper.profile("paper"))
    (axis,) = picture.figure.axes
    # Table 1: pooling twice halves the map, deconvolution twice doubles it.
    assert [bar.get_height() for bar in axis.patches] == [144, 72, 72, 36, 36, 36, 36, 36, 72, 72, 72, 144, 144, 144]
    drawn = [text.get_text() for text in axis.texts if text.get_text()]
    assert drawn == [str(n) for n in (80, 80, 120, 120, 500, 300, 100, 1, 1, 121, 1, 1, 81, 1)]
    assert "concat1 72 pixels, 121 channels" in picture.alt


def test_the_published_slices_are_measured_at_the_matrix_of_every_profile():
    rows = pd.read_csv(chapter.AT_MATRIX)
    assert set(rows.matrix) == {profile.matrix[0] for profile in registry.load("li2018").profiles}
    best = [chapter.best_dsc(part).mean() for _, part in rows.groupby("matrix")]
    assert best == sorted(best)
    assert (rows.groupby("matrix").case.nunique() == rows.case.nunique()).all()

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from core_cases import write_tiny

from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.papers.li2018 import chapter
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


def test_table_2_leaves_out_what_no_patient_has():
    rows = pd.DataFrame([("A", *[0.2] * len(METRICS))], columns=["patient", *METRICS])
    table = chapter.table_2(rows.assign(predicted_ml=np.nan, reference_ml=np.nan))
    assert table.columns.tolist() == ["Patient", "PM", "CR", "DSC", "Recall (= precision)", "JSC"]
    assert table.to_numpy().tolist() == [["A", 0.2, 0.2, 0.2, 0.2, 0.2]]


def test_each_step_is_taught_the_share_of_tumour_in_its_pixels(data):
    page = chapter.targets(data, "A1", 0).data
    assert [step for step in ("Step 1: 2 × 2", "Step 2: 4 × 4", "Step 3: 8 × 8") if step in page] == [
        "Step 1: 2 × 2",
        "Step 2: 4 × 4",
        "Step 3: 8 × 8",
    ]


def test_what_became_of_the_settings_as_reported():
    """Two seeds with a summed loss, one of which diverged, and none with an averaged one."""
    runs = [{"method": "literal", "seed": seed, "status": status, "profile": {"name": "bench"}}
            for seed, status in enumerate(("diverged", "trained"))]  # fmt: skip
    history = pd.DataFrame({"method": "literal", "seed": [0, 1, 1], "update": [7, 60, 120]})
    cases = pd.DataFrame({"method": "literal", "seed": [0, 1], "region": "all_slices", "dsc": [0.9, 0.25]})
    told = chapter.literally(SimpleNamespace(runs=runs, history=history, cases=cases)).splitlines()
    assert len(told) == 3
    assert told[2] == (
        "* Loss summed over pixels, 2 seeds: 1 diverged (infinite or NaN) after 7 updates. The DSC of the others on "
        "the patient left out is at most 0.25."
    )

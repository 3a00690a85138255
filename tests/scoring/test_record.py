"""Systems that were made elsewhere, beside the published runs on the same patients."""

import json
import re

import numpy as np
import pytest
from board_cases import ORGANS, publish
from cohort_cases import SPACING, save
from core_cases import write_tiny

from npcrepro.book.topics import leaderboard
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.layout import read_cohort
from npcrepro.findings.claims import ledger
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import score_masks
from npcrepro.runs.published import read_published
from npcrepro.runs.records import IDENTITY
from npcrepro.runs.training import HISTORY_COLUMNS


def label(seed):
    """Two organs, shifted by the seed."""
    array = np.zeros((3, 8, 8), np.uint8)
    array[1, 1:4, 1 + seed % 3 : 4 + seed % 3] = 1
    array[1, 5:7, seed % 4 : 3 + seed % 4] = 2
    return array


@pytest.fixture
def cohort(tmp_path):
    """Six cases in the nnU-Net raw layout, the last with a doubtful label, and published runs on them in two folds."""
    image = np.zeros((1, 3, 8, 8), np.int16)
    cases = [CaseArrays(f"C{i}", f"C{i}", image, label(i), SPACING, suspect=i == 5) for i in range(6)]
    root = write_tiny(tmp_path / "cohort", cases, name="mine", structures=dict(zip(ORGANS, (1, 2)))).root
    rows = []
    for i in range(6):
        for number, structure in enumerate(ORGANS, 1):
            scores = score_masks(label(i + 1) == number, label(i) == number, SPACING)
            about = {"method": "unet", "fold": i % 2, "seed": 0, "case": f"C{i}", "patient": f"p{i}", "suspect": i == 5}
            about |= {"structure": structure, "region": "all_slices"}
            rows.append(about | {f"spacing_{axis}_mm": x for axis, x in zip("zyx", SPACING, strict=True)} | scores)
    publish(tmp_path / "results" / "published", rows, cohort="mine")
    return root


@pytest.fixture
def scored(call, cohort, tmp_path):
    """Score a folder of predictions beside the published runs; returns exit status, stdout and stderr."""

    def scored(predictions, *more, record="mine"):
        given = ["--pred", f"mine={predictions}", cohort / "labelsTr", "--labels", cohort / "dataset.json"]
        given += ["--beside", tmp_path / "results" / "published", "--record", tmp_path / "results" / record]
        return call("score", *given, *more)

    return scored


def predict(folder, cases, shift=0):
    for i in cases:
        save(label(i + shift), folder / f"C{i}.nii.gz")
    return folder


def test_predictions_of_a_fold_become_a_record_that_stands_on_the_board(scored, tmp_path):
    """Fold 1 has cases 1, 3 and 5; case 3 is missing, 0 is of the other fold, which was not predicted as a whole."""
    status, out, err = scored(predict(tmp_path / "pred", [1, 5]))
    assert (status, err) == (0, "")
    assert "no prediction, which counts as the worst: case C3" in out
    record = read_published(tmp_path / "results" / "mine")
    cases = record.cases
    assert list(cases.columns)[:6] == ["paper", "method", "cohort", "profile", "fold", "seed"]
    assert sorted(set(cases.case)) == ["C1", "C3", "C5"]
    assert set(cases.fold) == {1}
    assert {*record.history.columns} == {*IDENTITY, *HISTORY_COLUMNS}  # which the page on reproducibility reads
    assert cases[cases.case == "C3"].status.tolist() == ["pred_empty"] * 2
    assert cases[cases.suspect].patient.tolist() == ["p5"] * 2
    boards = leaderboard.boards(tmp_path / "results")
    assert [(board.n, board.titles) for board in boards] == [
        (5, ["U-Net (Luo 2020)"]),
        (2, ["mine (elsewhere)", "U-Net (Luo 2020)"]),
    ]
    assert boards[1].values().loc["p1"].tolist()[0] == 1
    assert boards[1].values().loc["p3"].tolist()[0] == 0
    assert not {"parameters", "time to train one run", "GPU memory"} & set(boards[1].methods[0].about)
    # The ledger reads the same folder, and has no claim for it.
    assert [source.paper for source in ledger.sources(tmp_path / "results")] == ["luo2020"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("voxel", r"Mandible of C1 has 5 voxels in the reference and 6 in .*published: another version of the cohort"),
        ("spacing", r"C1 has voxels of 3 x 2 x 2 mm, but 3 x 1 x 1 in .*published"),
        ("name", "has Mandible, which was not scored beside BrainStem, Jaw"),
    ],
)
def test_another_reference_is_refused_and_nothing_is_written(scored, cohort, tmp_path, change, words):
    predictions, path = predict(tmp_path / "pred", [1, 3, 5]), cohort / "labelsTr" / "C1.nii.gz"
    array = label(1)
    if change == "voxel":
        array[1, 5, 1] = 0
    if change == "name":
        text = (cohort / "dataset.json").read_text()
        (cohort / "dataset.json").write_text(text.replace('"Mandible"', '"Jaw"'))
    else:
        spacing = (3.0, 2.0, 2.0) if change == "spacing" else SPACING
        for file in (path, predictions / "C1.nii.gz"):
            save(array, file, spacing_mm=spacing)
    status, out, err = scored(predictions, "--out", tmp_path / "out.csv")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert re.search(words, err), err
    assert not (tmp_path / "results" / "mine").exists()
    assert not (tmp_path / "out.csv").exists()


def test_a_record_is_not_overwritten_and_needs_runs_beside_it(call, scored, tmp_path):
    status, _, err = scored(predict(tmp_path / "pred", [1]), record="published")
    assert status == 1
    assert "exists and is not empty: give a new folder" in err
    save(label(0), tmp_path / "strangers" / "X.nii.gz")
    status, _, err = scored(tmp_path / "strangers")
    assert status == 1
    assert "was predicted: C0, C1, C2, C3, C4 and 1 more against X" in err
    assert "needs --beside" in call("score", "a", "b", "--record", tmp_path / "new")[2]


def test_folds_for_nnunet_are_those_of_a_run(call, cohort, tmp_path):
    out = tmp_path / "nnunet" / "splits_final.json"
    status, _, err = call("data", "splits", cohort, out, "--paper", "luo2020")
    assert (status, err) == (0, "")
    folds = json.loads(out.read_text())
    split = split_patients(read_cohort(cohort), **registry.load("luo2020").split)
    assert [tuple(fold["val"]) for fold in folds] == [fold.test for fold in split.folds]
    assert sorted(case for fold in folds for case in fold["val"]) == [f"C{i}" for i in range(6)]
    for fold in folds:
        assert not set(fold["train"]) & set(fold["val"])
        assert "C5" not in fold["train"]
        assert len(fold["train"]) + len(set(fold["val"]) - {"C5"}) == 5

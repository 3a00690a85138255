"""Systems that were made elsewhere, beside the published runs on the same patients."""

import json
import re
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from board_cases import ORGANS, publish

from npcrepro.book.topics import leaderboard
from npcrepro.cli import commands
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.layout import read_cohort
from npcrepro.findings.claims import ledger
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import score_masks
from npcrepro.runs.published import read_published

SHAPE, SPACING = (3, 8, 8), (3.0, 1.0, 1.0)


def label(seed):
    """Two organs, shifted by the seed."""
    array = np.zeros(SHAPE, np.uint8)
    array[1, 1:4, 1 + seed % 3 : 4 + seed % 3] = 1
    array[1, 5:7, seed % 4 : 3 + seed % 4] = 2
    return array


def save(path, array, spacing_mm=SPACING):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    sitk.WriteImage(image, str(path))


@pytest.fixture
def cohort(tmp_path):
    """Six cases in the nnU-Net raw layout, the last with a doubtful label, and published runs on them in two folds."""
    root = tmp_path / "cohort"
    for i in range(6):
        save(root / "labelsTr" / f"C{i}.nii.gz", label(i))
        save(root / "imagesTr" / f"C{i}_0000.nii.gz", np.zeros(SHAPE, np.int16))
    header = {"name": "mine", "channel_names": {"0": "CT"}, "labels": {"background": 0, "BrainStem": 1, "Mandible": 2}}
    header |= {"file_ending": ".nii.gz", "numTraining": 6, "suspect_labels": ["C5"]}
    (root / "dataset.json").write_text(json.dumps(header))
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
def call(cohort, tmp_path, monkeypatch, capsys):
    """Score a folder of predictions beside the published runs; returns exit status, stdout and stderr."""

    def call(predictions, *more, record="mine"):
        given = ["--pred", f"mine={predictions}", str(cohort / "labelsTr"), "--labels", str(cohort / "dataset.json")]
        given += ["--beside", str(tmp_path / "results" / "published"), "--record", str(tmp_path / "results" / record)]
        monkeypatch.setattr(sys, "argv", ["npcrepro", "score", *given, *map(str, more)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            commands.main()
        return ended.value.code or 0, *capsys.readouterr()

    return call


def predict(folder, cases, shift=0):
    for i in cases:
        save(folder / f"C{i}.nii.gz", label(i + shift))
    return folder


def test_predictions_of_a_fold_become_a_record_that_stands_on_the_board(call, tmp_path):
    """Fold 1 has cases 1, 3 and 5; case 3 is missing, 0 is of the other fold, which was not predicted as a whole."""
    status, out, err = call(predict(tmp_path / "pred", [1, 5]))
    assert (status, err) == (0, "")
    assert "no prediction, which counts as the worst: case C3" in out
    record = read_published(tmp_path / "results" / "mine")
    cases = record.cases
    assert list(cases.columns)[:6] == ["paper", "method", "cohort", "profile", "fold", "seed"]
    assert sorted(set(cases.case)) == ["C1", "C3", "C5"]
    assert set(cases.fold) == {1}
    assert cases[cases.case == "C3"].status.tolist() == ["pred_empty"] * 2
    assert cases[cases.suspect].patient.tolist() == ["p5"] * 2
    boards = leaderboard.boards(tmp_path / "results")
    assert [(board.n, board.titles) for board in boards] == [
        (5, ["U-Net (Luo 2020)"]),
        (2, ["mine (elsewhere)", "U-Net (Luo 2020)"]),
    ]
    assert boards[1].values().loc["p1"].tolist()[0] == 1
    assert boards[1].values().loc["p3"].tolist()[0] == 0
    assert not {"parameters", "time to train", "GPU memory"} & set(boards[1].methods[0].about)
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
def test_another_reference_is_refused_and_nothing_is_written(call, cohort, tmp_path, change, words):
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
            save(file, array, spacing)
    status, out, err = call(predictions, "--out", tmp_path / "out.csv")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert re.search(words, err), err
    assert not (tmp_path / "results" / "mine").exists()
    assert not (tmp_path / "out.csv").exists()


def test_a_record_is_not_overwritten_and_needs_runs_beside_it(call, cohort, tmp_path, monkeypatch, capsys):
    status, _, err = call(predict(tmp_path / "pred", [1]), record="published")
    assert status == 1
    assert "exists and is not empty: give a new folder" in err
    save(tmp_path / "strangers" / "X.nii.gz", label(0))
    status, _, err = call(tmp_path / "strangers")
    assert status == 1
    assert "was predicted: C0, C1, C2, C3, C4 and 1 more against X" in err
    monkeypatch.setattr(sys, "argv", ["npcrepro", "score", "a", "b", "--record", str(tmp_path / "new")])
    with pytest.raises(SystemExit):
        commands.main()
    assert "needs --beside" in capsys.readouterr().err


def test_folds_for_nnunet_are_those_of_a_run(cohort, tmp_path, monkeypatch, capsys):
    out = tmp_path / "nnunet" / "splits_final.json"
    monkeypatch.setattr(sys, "argv", ["npcrepro", "data", "splits", str(cohort), str(out), "--paper", "luo2020"])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert not ended.value.code, capsys.readouterr().err
    folds = json.loads(out.read_text())
    split = split_patients(read_cohort(cohort), **registry.load("luo2020").split)
    assert [tuple(fold["val"]) for fold in folds] == [fold.test for fold in split.folds]
    assert sorted(case for fold in folds for case in fold["val"]) == [f"C{i}" for i in range(6)]
    for fold in folds:
        assert not set(fold["train"]) & set(fold["val"])
        assert "C5" not in fold["train"]
        assert len(fold["train"]) + len(set(fold["val"]) - {"C5"}) == 5

"""Published methods on the patients that they share, and systems that were made elsewhere."""

import json
import re
import sys
from math import nan

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from npcrepro.base.files import as_data
from npcrepro.book.topics import leaderboard
from npcrepro.cli import commands
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.layout import read_cohort
from npcrepro.findings import observers
from npcrepro.findings.claims import ledger
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import CASE_COLUMNS, score_masks
from npcrepro.runs.published import read_published, write_cases
from npcrepro.runs.records import IDENTITY

PATIENTS = [f"P{i:02d}" for i in range(12)]
ORGANS = ("BrainStem", "Mandible")


def dsc(hits):
    """Of ``hits`` voxels found of 10, and no other."""
    return 2 * hits / (hits + 10)


def rows_of(method, hits, patient, structure="BrainStem", seed=0, fold=0, suspect=False):
    """A row in all slices."""
    about = {"paper": "luo2020", "method": method, "cohort": "c", "profile": "p", "fold": fold, "seed": seed}
    values = dict.fromkeys(CASE_COLUMNS, 0.5) | {"case": f"{patient}_1", "patient": patient, "suspect": suspect}
    values |= {"structure": structure, "region": "all_slices", "status": "ok" if hits else "pred_empty"}
    values |= {"tp": hits, "fp": 0, "fn": 10 - hits, "tn": 90, "dsc": dsc(hits)}
    values |= {"surfel_hd95_mm": 10.0 - hits if hits else nan, "reference_ml": 10.0, "predicted_ml": float(hits)}
    return about | values


def publish(folder, rows, *, paper="luo2020", profile="p", cohort="c", data="abc"):
    """A record with these rows, as `records.publish` would write it; methods have the networks of their paper."""
    folder.mkdir(parents=True)
    cases = pd.DataFrame(rows).assign(paper=paper, profile=profile, cohort=cohort)
    write_cases(folder, cases)
    own = cases[["method", "fold", "seed"]].drop_duplicates().to_dict("records")
    size = {"name": profile, "matrix": [32, 32], "width": 0.25}
    common = {"paper": paper, "cohort": cohort, "data_sha256": data, "split_sha256": "def", "profile": size}
    common |= {"device": "a card", "finished": "2026-01-02T00:00:00", "status": "trained", "used": {}}
    common |= {"seconds": {"train": 120.0, "predict": 24.0, "all": 144.0}, "peak_gpu_memory_mib": 1234}
    known = {method.name: method for method in registry.load("luo2020").methods}
    methods = {name: as_data(known[name]) for name in cases.method.unique()}
    (folder / "runs.json").write_text(json.dumps({"common": common, "methods": methods, "runs": own}))
    curve = cases[IDENTITY].drop_duplicates().assign(stage="all", update=1, loss=1.0)
    curve.to_csv(folder / "history.csv", index=False)
    return folder


def luo_rows(patients=PATIENTS):
    """Three methods, two seeds of the first; the U-Net misses a mandible; one patient more with a doubtful label."""
    rows = []
    for i, patient in enumerate(patients):
        about = {"patient": patient, "fold": i % 2}
        rows += [rows_of("two-stage", 8, seed=seed, **about) for seed in (0, 1)]
        rows += [rows_of("two-stage", 8 - 2 * seed, structure="Mandible", seed=seed, **about) for seed in (0, 1)]
        rows += [rows_of("unet", 6, **about), rows_of("unet", 6 if i else 0, structure="Mandible", **about)]
        rows += [rows_of("fcn8", 3 + i % 2, structure=structure, **about) for structure in ORGANS]
    names = ("two-stage", "unet", "fcn8")
    return rows + [rows_of(m, 0, "bad", structure=s, suspect=True) for m in names for s in ORGANS]


@pytest.fixture
def results(tmp_path):
    publish(tmp_path / "luo2020-c", luo_rows())
    return tmp_path


@pytest.fixture
def board(results):
    (board,) = leaderboard.boards(results)
    return board


def test_a_board_has_the_methods_by_their_mean_without_doubtful_labels(board):
    assert board.titles == ["Proposed (Luo 2020)", "U-Net (Luo 2020)", "FCN-8 (Luo 2020)"]
    assert (board.n, board.structures) == (12, ORGANS)
    assert "bad" not in set(board.patients.patient)
    values = board.values()
    assert values.loc["P01"].tolist() == pytest.approx([(2 * dsc(8) + dsc(8) + dsc(6)) / 4, dsc(6), dsc(4)])
    assert board.values("Mandible").loc["P00"].tolist() == pytest.approx([(dsc(8) + dsc(6)) / 2, 0, dsc(3)])


def test_a_table_has_a_row_for_each_structure_and_method(board):
    table = leaderboard.table([board])
    assert table.structure.tolist() == ["mean"] * 3 + ["BrainStem"] * 4 + ["Mandible"] * 4
    assert "tested on" not in table  # there is one board
    assert leaderboard.notes([board]).startswith("Tested on 12 patients; BrainStem, Mandible.")
    mean = table[table.structure == "mean"].set_index("method")
    assert mean.runs.tolist() == ["2 folds, 2 seeds", "2 folds, 1 seed", "2 folds, 1 seed"]
    assert mean.missed.tolist() == ["0 of 48", "1 of 24", "0 of 24"]
    means = [(dsc(8) + dsc(8)) / 2, (dsc(8) + dsc(6)) / 2]
    assert mean["standard deviation over seeds"].tolist() == [f"{np.std(means, ddof=1):.3f}", "", ""]
    # The patient with a missed organ has no distance, and the table says so.
    assert mean["HD95 (mm)"]["U-Net (Luo 2020)"] == "4.00 (4.00 to 4.00, n = 11)"
    assert mean.DSC["U-Net (Luo 2020)"].startswith(f"{(23 * dsc(6)) / 24:.2f} (")
    assert mean["lowest DSC"]["U-Net (Luo 2020)"] == "0.00 (P00_1, Mandible)"
    assert mean.place.str[0].tolist() == ["1", "2", "3"]
    # All see CT, so that no column says so.
    assert "images" not in table
    stem = table[table.structure == "BrainStem"].set_index("method")
    assert stem.volume["FCN-8 (Luo 2020)"] == "-6.5 ml on average; the reference has 10.0 ml"


def test_two_people_stand_below_the_methods_of_their_organ(board):
    rows = leaderboard.table([board]).query("structure == 'Mandible'")
    assert rows.method.tolist()[-1] == leaderboard.PEOPLE
    people = observers.agreement().loc["Mandible"]
    assert f"{people.dsc:.2f} (n = {people.n:.0f})" == rows.iloc[-1].DSC
    assert (rows.iloc[-1].place, rows.iloc[-1].record) == ("", "")


def test_structures_in_blank_slices_are_counted(board, tmp_path):
    path = tmp_path / "shares.csv"
    rows = [f"c,P{i:02d}_1,BrainStem,{0.5 if i < 3 else 0.01}" for i in range(12)]
    path.write_text("\n".join(["cohort,case,structure,share", *rows]))
    assert "more than 5 % of BrainStem in 3 of 12 cases" in leaderboard.cut_out(board, path)
    path.write_text("\n".join(["cohort,case,structure,share", *rows[3:]]))
    assert leaderboard.cut_out(board, path) == ""


def test_real_cohorts_have_a_table_and_phantoms_have_none(results):
    publish(results / "luo2020-phantom", luo_rows(PATIENTS[:3]), cohort="phantom-ct", data="other")
    assert list(leaderboard.by_cohort(leaderboard.boards(results))) == ["c"]


def test_methods_of_other_patients_folds_or_images_do_not_meet(results):
    """Whoever was tested on more stands on the smaller board as well, with the patients of that board."""
    few = [row for row in luo_rows(PATIENTS[:4]) if row["method"] == "unet" and not row["suspect"]]
    publish(results / "xue2020-c", few, paper="xue2020")
    publish(results / "other", few, data="other images")
    publish(results / "luo2020-leakage-c-slices", few, cohort="c-slices")
    large, small, other = leaderboard.boards(results)
    assert (large.n, large.titles) == (12, ["Proposed (Luo 2020)", "U-Net (Luo 2020)", "FCN-8 (Luo 2020)"])
    assert (small.n, len(small.titles)) == (4, 4)
    assert leaderboard.table([large, small])["tested on"].unique().tolist() == ["12 patients", "4 patients"]
    assert sorted(small.titles)[2:] == ["U-Net (Luo 2020)", "U-Net (Xue 2020)"]
    assert small.values()["U-Net (Luo 2020)"].tolist() == small.values()["U-Net (Xue 2020)"].tolist()
    assert (other.n, other.titles) == (4, ["U-Net (Luo 2020)"])
    assert len(other.rows("mean")) == 1


@pytest.mark.parametrize("key", registry.KEYS)
def test_what_no_table_of_a_paper_has_was_added(key):
    """The other titles are those of the rows of its tables; Li 2018 has one method and a row for each patient."""
    paper, tables = registry.load(key), registry.reported(key)["tables"].values()
    printed = {row["model"] for table in tables if isinstance(table, list) for row in table if "model" in row}
    own = {method.title for method in paper.methods if method.name not in paper.added}
    assert {title.casefold() for title in own} == {title.casefold() for title in printed or [paper.methods[0].title]}
    assert set(paper.added) < {method.name for method in paper.methods}


def test_cost_is_that_of_the_network_and_of_the_runs(board):
    entry = next(entry for entry in board.methods if entry.name == "unet")
    network = registry.load("luo2020").method("unet").build(0.25)
    about = entry.about
    assert about["parameters"] == f"{sum(parameter.numel() for parameter in network.parameters()):,}"
    assert about["input"] == "32 x 32"
    assert about["multiply-accumulates for one input"].endswith(" billion")
    # 24 s for the 7 or 6 cases of a fold, the doubtful one among them.
    assert about["time to train"] == "2.0 min for one run"
    assert about["time to predict"] == f"{24 / 6.5:.2g} s for one case"
    assert about["GPU memory"] == "1,234 MiB"
    # It is not built on others, and the paper reports it.
    assert {"built on", "added"} & set(about) == set()


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

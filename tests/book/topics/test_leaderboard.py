"""Published methods on the patients that they share."""

import numpy as np
import pytest
from board_cases import ORGANS, dsc, publish, rows_of

from npcrepro.book.topics import leaderboard
from npcrepro.findings import observers
from npcrepro.protocol import registry

PATIENTS = [f"P{i:02d}" for i in range(12)]


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
def results(tmp_path, few_resamples):
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
    assert about["time to train one run"] == "2.0 min (a card)"
    assert about["time to predict one case"] == f"{24 / 6.5:.2g} s (a card)"
    assert about["GPU memory"] == "1,234 MiB"
    # It is not built on others, and the paper reports it.
    assert {"built on", "added"} & set(about) == set()

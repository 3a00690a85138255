"""The worst cases by the rule, what was read of them, and doubtful labels."""

from math import isnan, nan

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from npcrepro.base.errors import InputError
from npcrepro.book.topics import cut_out, errors, leaderboard
from npcrepro.book.topics.leaderboard import Board, Entry
from npcrepro.runs.per_patient import by_patient
from npcrepro.runs.records import write_csv


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def row(method, case, hits, structure="GTV", seed=0, suspect=False, size=10):
    """A row of cases.csv with so many of ``size`` voxels found, and no other."""
    about = {"paper": "toy", "method": method, "cohort": "c", "profile": "p", "fold": 0, "seed": seed}
    about |= {"case": case, "patient": case, "suspect": suspect, "structure": structure, "region": "all_slices"}
    about |= {"status": "ok", "tp": hits, "fp": 0, "fn": size - hits, "tn": 90}
    about |= {"reference_ml": nan, "predicted_ml": nan}
    return about | {"dsc": 2 * hits / (hits + size)}


def board(rows):
    """A board of these rows; methods in the order in which they come."""
    cases = pd.DataFrame(rows)
    entries = tuple(
        Entry("folder", "toy", name, "p", name, cases[cases.method == name], (), {"channels": ["CT"]})
        for name in cases.method.unique()
    )
    sure = cases[~cases.suspect]
    return Board("c", tuple(cases.structure.unique()), entries, sure, by_patient(sure))


def reading(case, cause="network", **more):
    return {"cohort": "c", "case": case, "structure": "GTV", "channels": "CT", "cause": cause,
            "note": "Something.", "method_seen": "best", "dsc_seen": 0.5, "beyond": 0.5, "gap": 1.0,
            "bright": 0.0} | more  # fmt: skip


def ten():
    """Ten cases with 0 to 9 hits of the best method, and as many of another that fails where the best does well."""
    best = [row("best", f"P{i}", i, suspect=i == 1, size=10 + i) for i in range(10)]
    return board([*best, *(row("other", f"P{i}", 9 - i, size=10 + i) for i in range(10))])


def test_worst_eight_of_the_best_method_where_there_is_one_structure():
    found = errors.worst([ten()])
    assert found.case.tolist() == [f"P{i}" for i in range(8)]
    assert found.method.unique().tolist() == ["best"]
    assert found.suspect.tolist() == [False, True, *[False] * 6]
    assert found["empty"].tolist() == [True, *[False] * 7]
    assert found.size_rank.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert set(found["of"]) == {10}


def test_three_of_each_structure_with_seeds_averaged():
    rows = [row("best", f"P{i}", 5, structure) for i in range(5) for structure in "ABC"]
    # One bad seed of P4 counts half: 0.5 / 2 is worse than the 2/3 of the others, and better than 0.18.
    rows += [row("best", "P4", 0, "B", seed=1), row("best", "P9", 1, "B")]
    found = errors.worst([board(rows)])
    assert found.groupby("structure").size().tolist() == [3, 3, 3]
    assert found[found.structure == "B"].case.tolist() == ["P9", "P4", "P0"]
    assert found[found.structure == "B"].dsc.round(3).tolist() == [0.182, 0.333, 0.667]
    assert not found[found.structure == "B"]["empty"].any()  # found with one seed


def test_record_is_checked(tmp_path):
    path = tmp_path / "cases.csv"
    with pytest.raises(InputError, match=r"cases\.csv is missing: it comes with a clone"):
        errors.readings(path)
    for rows, columns, words in (
        ([reading("P1", "bad luck")], errors.COLUMNS, "names the cause 'bad luck': one of label fault"),
        ([reading("P1"), reading("P2"), reading("P1", "metal")], errors.COLUMNS, r"tells twice of P1 GTV \(c\)"),
        ([reading("P1")], errors.COLUMNS[:-1], "has no column 'bright'"),
    ):
        write_csv(path, rows, columns)
        with pytest.raises(InputError, match=words):
            errors.readings(path)


def test_reading_is_held_against_the_measure():
    read = pd.DataFrame([reading("P0", errors.EARLY, beyond=0.8), reading("P1", beyond=0.1),
                         reading("P2", errors.METAL, beyond=nan, bright=40.0)])  # fmt: skip
    found = errors.held_against(errors.reviewed(errors.worst([ten()]), read)).set_index("cause")
    early = found.loc[errors.EARLY]
    assert (early.n, early["median"], early["n of others"], early["median of others"]) == (1, 0.8, 1, 0.1)
    assert found.loc[errors.METAL, "median"] == 40
    assert found.loc[errors.SMALL, "n"] == 0
    assert found.loc[errors.SMALL, "median of others"] == pytest.approx(1 / 9)  # P1 is second of ten


def scan():
    """Ten slices of 10 x 10 voxels of a square centimetre, 5 mm apart; the first two and the last are blank."""
    image = np.zeros((10, 10, 10), np.int16)
    image[[0, 1, 9]] = -1000
    reference = np.zeros(image.shape, bool)
    reference[3:6, 4:6, 4:6] = True
    return image, reference, (5.0, 10.0, 10.0)


def test_errors_beyond_the_label_and_the_way_to_the_end_are_counted():
    image, reference, spacing = scan()
    predicted = reference.copy()
    predicted[6:8, 4, 4] = True  # two above
    predicted[2, 4, 4] = True  # one below
    predicted[4, 4, 4] = False
    found = errors.measure(image, reference, predicted, spacing, ct=True)
    assert found["beyond"] == pytest.approx(3 / 4)
    assert found["gap"] == 1  # slice 2 is the first with a body
    assert errors.measure(image, reference, predicted, spacing, ct=False)["gap"] == 3
    assert isnan(errors.measure(image, reference, reference, spacing, ct=True)["beyond"])
    flat = errors.measure(image[4:5], reference[4:5], predicted[4:5], spacing, ct=False)
    assert isnan(flat["beyond"])
    assert isnan(flat["gap"])


def test_metal_counts_within_two_centimetres():
    image, reference, spacing = scan()
    image[4, 4, 2], image[4, 4, 1] = 2000, 3000  # 2 and 3 cm from the reference
    assert errors.measure(image, reference, reference, spacing, ct=True)["bright"] == 1
    assert isnan(errors.measure(image, reference, reference, spacing, ct=False)["bright"])


def test_means_without_doubtful_labels():
    rows = [row("best", "P0", 10), row("best", "P1", 10), row("best", "P2", 0, suspect=True), row("best", "P3", 5)]
    rows += [row("other", case, 5, suspect=case == "P2") for case in ("P0", "P1", "P2", "P3")]
    read = pd.DataFrame([reading("P3", errors.FAULT), reading("P0", "metal")])
    first, second = errors.without_doubtful([board(rows)], read).to_dict("records")
    assert (first["n"], first["n_sure"], first["n_read"]) == (4, 3, 2)
    assert first["all"] == pytest.approx((1 + 1 + 0 + 2 / 3) / 4)
    assert first["sure"] == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert first["read"] == pytest.approx(1)
    assert first["change"] == pytest.approx(8 / 9 - 2 / 3)
    assert second["change"] == pytest.approx(0)
    told = errors.effect_told(pd.DataFrame([first, second]))
    assert "by +0.222 at most (GTV, best, n = 4 and 3)" in told


def test_page_is_made_of_the_committed_records():
    boards, read, shares = leaderboard.boards(), errors.readings(), cut_out.shares()
    scored = {
        (each.cohort, *pair) for each in boards for entry in each.methods
        for pair in entry.cases[["case", "structure"]].itertuples(index=False, name=None)
    }  # fmt: skip
    for table in (read, shares):
        assert set(table[errors.KEY].itertuples(index=False, name=None)) <= scored
    assert read.note.str.endswith(".").all()
    assert len(errors.CAUSES) == len(set(errors.COLOURS)) == len(errors.COLOURS)
    cases = errors.worst(boards)
    rows = errors.reviewed(cases, read)
    assert len(rows) > 20
    assert set(cases.cohort) == {"OpenKBP_OAR", "OpenKBP_PTV70", "IBSI_STS", "NPC_T2Slices"}
    drawn = [text.get_text() for text in errors.bars(rows).axes[0].texts]
    assert sum(int(text) for text in drawn if text) == len(rows)
    assert f"Of {len(rows)} worst cases" in errors.summary_text(rows)
    assert (errors.table(rows)["what was seen"] != "").all()
    effect = errors.without_doubtful(boards, read)
    assert (effect.n > effect.n_sure).any()
    assert not cut_out.dsc_with_and_without(shares, boards).empty


def test_dsc_of_organs_that_are_cut_out():
    shares = pd.DataFrame(
        [{"cohort": "c", "case": f"P{i}", "structure": "GTV", "share": 0.5 if i > 7 else 0.05} for i in range(10)]
    )
    (found,) = cut_out.dsc_with_and_without(shares, [ten()]).to_dict("records")
    assert (found["n_cut"], found["n_whole"]) == (2, 7)  # the doubtful one is on no board
    assert found["cut"] == pytest.approx((2 * 8 / 26 + 2 * 9 / 28) / 2)
    assert "GTV: 0.63 in 2 patients" in cut_out.dsc_text(pd.DataFrame([found]))
    assert "No structure" in cut_out.dsc_text(cut_out.dsc_with_and_without(shares[:8], [ten()]))

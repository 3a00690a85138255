import json
from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from core_cases import TINY

from npcrepro.base.errors import InputError
from npcrepro.base.files import as_data, write_json
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol.method import Component, Method
from npcrepro.runs import environment, published, records
from npcrepro.runs.published import Published, publish, read_published
from npcrepro.runs.records import Configuration, Record, find, write_csv

NETWORK = "npcrepro.papers.li2018.network"


def configuration(**changes):
    fold = {"number": 0, "train": ["B", "C"], "validation": ["D"], "test": ["A"]}
    given = {
        "method": PAPER.method("stepwise"), "profile": TINY, "cohort": "tiny", "data_sha256": "d" * 64,
        "split_sha256": "e" * 64, "fold": fold, "seed": 0,
    }  # fmt: skip
    return Configuration(**given | changes)


def record_at(runs, dsc=0.5, **changes):
    """A run folder with one case, as a finished run leaves it."""
    asked = configuration(**changes)
    folder = asked.folder(runs)
    row = asked.identity | {"case": "007", "patient": "007", "status": "ok", "suspect": False, "dsc": dsc, "jsc": nan}
    write_json(folder / "config.json", asked.data)
    write_csv(folder / "cases.csv", [row], list(row))
    write_csv(
        folder / "history.csv", [asked.identity | {"update": 1, "loss": 0.1}], [*asked.identity, "update", "loss"]
    )
    write_json(folder / "provenance.json", {"status": "trained"})
    return Record(folder)


def test_names_made_of_digits_stay_names(tmp_path):
    record = record_at(tmp_path, cohort="007", profile=replace(TINY, name="1"))
    names = ["cohort", "profile", "case", "patient"]
    assert record.cases[names].values.tolist() == [["007", "1", "007", "007"]]
    assert record.history[names[:2]].values.tolist() == [["007", "1"]]
    named = ["paper", "method", "structure", "region", "status", "stage"]
    row = dict.fromkeys(named, "010") | {"fold": 1, "dsc": 0.5}
    write_csv(tmp_path / "cases-1.csv", [row], list(row))
    assert Published(tmp_path).cases.to_dict("records") == [row]


# Identity


def test_the_same_configuration_is_the_same_run():
    first, again = configuration(), configuration(fold=dict(configuration().fold))
    assert first.sha256 == again.sha256
    assert first.folder(Path("runs")) == again.folder(Path("runs"))
    assert json.loads(json.dumps(first.data)) == first.data


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"data_sha256": "f" * 64},
        {"split_sha256": "f" * 64},
        {"cohort": "other"},
        {"fold": {"number": 0, "train": ["B", "D"], "validation": ["C"], "test": ["A"]}},
        {"profile": replace(TINY, updates=13)},
        {"profile": replace(TINY, matrix=(16, 20))},
        {"method": PAPER.method("unfused")},
        {"method": replace(PAPER.method("stepwise"), threshold=0.4)},
        {"method": replace(PAPER.method("stepwise"), network=Component(f"{NETWORK}:Li2018Network", {"fused": False}))},
        {"method": replace(PAPER.method("stepwise"), augmentation=None)},
        {"method": replace(PAPER.method("stepwise"), stages=PAPER.method("fine-tune").stages)},
    ],
)
def test_whatever_changes_makes_another_run(changes):
    assert configuration(**changes).sha256 != configuration().sha256
    assert configuration(**changes).folder(Path("runs")) != configuration().folder(Path("runs"))


@pytest.mark.parametrize(
    "changes",
    [
        {"method": replace(PAPER.method("stepwise"), title="Other words", summary="Other words.")},
        {"profile": replace(TINY, folds=3)},
        {"profile": replace(TINY, methods=("unfused", "stepwise"))},
        {"profile": replace(TINY, phantom={"patients": 9})},
    ],
)
def test_words_and_what_comes_by_default_make_no_other_run(changes):
    assert configuration(**changes).data != configuration().data
    assert configuration(**changes).folder(Path("runs")) == configuration().folder(Path("runs"))


def test_a_record_made_before_methods_could_use_others(tmp_path):
    record = record_at(tmp_path)
    older = {name: value for name, value in record.config["method"].items() if name != "uses"}
    assert as_data(Method.from_data(older)) == record.config["method"]
    assert record.used == {}


def test_where_a_run_lies():
    asked = configuration(seed=7, fold=configuration().fold | {"number": 3})
    path = asked.folder(Path("runs"))
    assert path == Path(f"runs/li2018/stepwise/tiny/tiny/fold-03_seed-7_{asked.sha256[:8]}")
    assert list(asked.identity.values()) == ["li2018", "stepwise", "tiny", "tiny", 3, 7]


# Tables


def test_tables_keep_all_digits_and_empty_fields(tmp_path):
    values = [0.1 + 0.2, 1 / 3, 1e-300, nan, *np.random.default_rng(0).random(500)]
    rows = [{"case": "001", "patient": "NA", "dsc": value, "status": "ok"} for value in values]
    write_csv(tmp_path / "cases.csv", rows, ["case", "patient", "dsc", "status"])
    lines = (tmp_path / "cases.csv").read_text().splitlines()
    assert lines[:2] == ["case,patient,dsc,status", "001,NA,0.30000000000000004,ok"]
    assert lines[4] == "001,NA,,ok"
    (tmp_path / "provenance.json").write_text("{}")
    table = Record(tmp_path).cases
    assert table.case[0] == "001"
    assert table.patient[0] == "NA"
    assert table.dsc.tolist() == pytest.approx(values, nan_ok=True, rel=0, abs=0)


def test_finished_runs_are_found_by_what_they_are(tmp_path):
    for changes in (
        {},
        {"seed": 1},
        {"method": PAPER.method("unfused")},
        {"fold": configuration().fold | {"number": 2}},
    ):
        record_at(tmp_path, **changes)
    unfinished = configuration(seed=5)
    write_json(unfinished.folder(tmp_path) / "config.json", unfinished.data)

    def names(**wanted):
        return [
            (r.config["method"]["name"], r.config["fold"]["number"], r.config["seed"]) for r in find(tmp_path, **wanted)
        ]

    assert names() == [("stepwise", 0, 0), ("stepwise", 0, 1), ("stepwise", 2, 0), ("unfused", 0, 0)]
    assert names(method="unfused") == [("unfused", 0, 0)]
    assert names(seed=1) == [("stepwise", 0, 1)]
    assert names(fold=2, paper="li2018", cohort="tiny", profile="tiny") == [("stepwise", 2, 0)]
    assert names(cohort="other") == []
    assert find(tmp_path / "nothing") == []


def test_a_run_that_was_copied_without_those_that_it_uses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used = "li2018/stepwise/tiny/tiny/all_seed-0"
    write_json(Path("copy/provenance.json"), {"used": {"stepwise": [used]}})
    with pytest.raises(InputError, match=f"copy uses {used}, but lies in no folder of runs .* copied by itself"):
        _ = Record(Path("copy")).used
    write_json(Path("alone/provenance.json"), {"used": {}})
    assert Record(Path("alone")).used == {}


def test_names_are_no_patterns(tmp_path):
    record_at(tmp_path, cohort="T1 [old]")
    record_at(tmp_path, cohort="T1 o")
    assert [run.config["cohort"] for run in find(tmp_path, cohort="T1 [old]")] == ["T1 [old]"]
    assert find(tmp_path, cohort="T1*") == []


def test_published_runs_are_read_back_to_ten_digits(tmp_path):
    runs = [record_at(tmp_path / "runs", 1 / 3), record_at(tmp_path / "runs", 0.1 + 0.2, seed=1)]
    publish(runs, tmp_path / "results")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "cases-stepwise.csv",
        "history.csv",
        "runs.json",
    ]
    published = read_published(tmp_path / "results")
    half_of_the_last_digit = {"rtol": 5e-10, "atol": 0}
    pd.testing.assert_frame_equal(published.cases, records.case_table(runs), **half_of_the_last_digit)
    pd.testing.assert_frame_equal(published.history, records.history_table(runs), **half_of_the_last_digit)
    assert published.cases.case.tolist() == ["007", "007"]
    assert published.cases.dsc.tolist() == [0.3333333333, 0.3]
    assert published.cases.jsc.map(isnan).all()
    assert [run["seed"] for run in published.runs] == [0, 1]
    for run, record in zip(published.runs, runs):
        told = {"method": "stepwise", "fold": 0}
        assert run == record.config | record.provenance | told
    content = json.loads((tmp_path / "results" / "runs.json").read_text())
    assert content["methods"] == {"stepwise": runs[0].config["method"]}
    assert content["folds"] == {"0": runs[0].config["fold"]}
    assert content["runs"] == [{"seed": 0}, {"seed": 1}]


def test_nothing_to_publish_and_nothing_published_are_errors(tmp_path):
    with pytest.raises(InputError, match="no finished run to publish"):
        publish([], tmp_path / "results")
    assert not (tmp_path / "results").exists()
    with pytest.raises(InputError, match="holds no published runs"):
        read_published(tmp_path)


def test_published_runs_without_their_cases_are_told_by_name(tmp_path):
    publish([record_at(tmp_path / "runs", 1 / 3)], tmp_path / "results")
    (tmp_path / "results" / "cases-stepwise.csv").unlink()
    with pytest.raises(InputError, match="but no table cases-METHOD"):
        _ = read_published(tmp_path / "results").cases


def test_what_is_published_later_comes_beside_what_is_there(tmp_path):
    """As if all had been published at once, though the first runs are gone."""
    first = record_at(tmp_path / "first", 1 / 3)
    later = [record_at(tmp_path / "later", 0.5, seed=1), record_at(tmp_path / "later", method=PAPER.method("unfused"))]
    publish([first], tmp_path / "results")
    publish(later, tmp_path / "results")
    publish([first, *later], tmp_path / "at once")
    for path in (tmp_path / "at once").iterdir():
        assert (tmp_path / "results" / path.name).read_text() == path.read_text()
    publish(later, tmp_path / "results")
    assert len(read_published(tmp_path / "results").runs) == 3


def test_a_run_is_replaced_by_one_of_the_same_method_fold_and_seed(tmp_path):
    publish([record_at(tmp_path / "a", 0.1), record_at(tmp_path / "a", 0.2, seed=1)], tmp_path / "results")
    publish([record_at(tmp_path / "b", 0.3)], tmp_path / "results")
    published = read_published(tmp_path / "results")
    assert published.cases.set_index("seed").dsc.to_dict() == {0: 0.3, 1: 0.2}
    assert sorted(run["seed"] for run in published.runs) == [0, 1]


def test_all_runs_of_a_method_defined_otherwise_are_replaced(tmp_path):
    unfused, stepwise = PAPER.method("unfused"), PAPER.method("stepwise")
    publish([record_at(tmp_path / "a", seed=seed) for seed in (0, 1)], tmp_path / "results")
    publish([record_at(tmp_path / "a", method=unfused)], tmp_path / "results")
    publish(
        [record_at(tmp_path / "b", seed=2, method=replace(stepwise, summary="In other words"))], tmp_path / "results"
    )
    kept = {(run["method"], run["seed"]) for run in read_published(tmp_path / "results").runs}
    assert kept == {("stepwise", 0), ("stepwise", 1), ("stepwise", 2), ("unfused", 0)}
    gone = publish([record_at(tmp_path / "b", seed=3, method=replace(stepwise, budget=2.0))], tmp_path / "results")
    assert [(row["method"], row["seed"]) for row in gone] == [("stepwise", 0), ("stepwise", 1), ("stepwise", 2)]
    published = read_published(tmp_path / "results")
    assert {(run["method"], run["seed"]) for run in published.runs} == {("stepwise", 3), ("unfused", 0)}
    assert published.methods["stepwise"]["budget"] == 2.0
    assert published.history.groupby("method").seed.unique().map(list).to_dict() == {"stepwise": [3], "unfused": [0]}


def test_cases_of_runs_that_are_not_there_go(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cases-of-old.csv").write_text("method\nof-old\n")
    publish([record_at(tmp_path / "runs", 1 / 3)], tmp_path / "results")
    assert [path.name for path in (tmp_path / "results").glob("cases-*.csv")] == ["cases-stepwise.csv"]


def test_no_runs_make_an_empty_table():
    assert records.case_table([]).empty


def test_the_environment_names_versions_and_machine():
    found = environment.environment()
    assert {"npcrepro", "torch", "numpy"} <= set(found["versions"])
    assert found["versions"]["numpy"] == np.__version__
    assert found["threads"] >= 1
    assert found["git_commit"] is None or len(found["git_commit"].removesuffix("-dirty")) == 40
    assert json.loads(json.dumps(found)) == found


def test_a_prediction_is_read_back_in_steps_of_1_255(tmp_path):
    (tmp_path / "predictions").mkdir()
    probability = np.array([[[[0, 128, 255]]]], np.uint8)
    np.savez_compressed(tmp_path / "predictions" / "A.npz", label=np.array([[[0, 1, 1]]]), probability=probability)
    label, found = Record(tmp_path).prediction("A")
    assert label.tolist() == [[[0, 1, 1]]]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.flatten(), [0, 128 / 255, 1])


def test_an_unknown_identity_column_is_an_error(tmp_path):
    with pytest.raises(InputError, match="did you mean 'seed'"):
        find(tmp_path, sed=1)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"cohort": "other"}, "cohort"),
        ({"data_sha256": "f" * 64}, "images"),
        ({"split_sha256": "f" * 64}, "split"),
        ({"profile": replace(TINY, updates=13)}, "profile"),
    ],
)
def test_runs_of_two_kinds_are_not_published_together(tmp_path, changes, part):
    first, other = record_at(tmp_path / "runs"), record_at(tmp_path / "runs", **{"seed": 1} | changes)
    with pytest.raises(InputError, match=f"differ in {part}; publish"):
        publish([first, other], tmp_path / "results")
    assert not (tmp_path / "results").exists()
    publish([first], tmp_path / "results")
    in_its_place = record_at(tmp_path / "runs", **changes)
    for later in (other, in_its_place):
        with pytest.raises(InputError, match=f"differ in {part}; publish"):
            publish([later], tmp_path / "results")
    published = read_published(tmp_path / "results")
    assert published.cases.seed.tolist() == [0]
    assert published.runs[0]["cohort"] == "tiny"


def test_a_method_of_another_paper_with_the_same_name_takes_no_ones_place(tmp_path):
    publish([record_at(tmp_path / "runs")], tmp_path / "results")
    other = replace(PAPER.method("stepwise"), paper="luo2020")
    with pytest.raises(InputError, match="differ in paper; publish"):
        publish([record_at(tmp_path / "runs", method=other)], tmp_path / "results")
    assert read_published(tmp_path / "results").runs[0]["paper"] == "li2018"


def test_publishing_that_was_stopped_loses_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    first, later = record_at(tmp_path / "a", 0.1), record_at(tmp_path / "b", 0.2, method=PAPER.method("unfused"))
    publish([first], tmp_path / "results")
    publish([first, later], tmp_path / "at once")
    with monkeypatch.context() as patch:
        patch.setattr(published, "write_json", lambda *given: pytest.exit("stopped"))
        with pytest.raises(pytest.exit.Exception):
            publish([later], tmp_path / "results")
    assert read_published(tmp_path / "results").cases.dsc.tolist()[0] == 0.1
    publish([later], tmp_path / "results")
    for path in (tmp_path / "at once").iterdir():
        assert (tmp_path / "results" / path.name).read_text() == path.read_text()

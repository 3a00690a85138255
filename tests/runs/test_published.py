"""Runs published with the book."""

import json
from dataclasses import replace
from math import isnan

import pandas as pd
import pytest
from core_cases import TINY, record_at

from npcrepro.base.errors import InputError
from npcrepro.base.files import read_json, write_json
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol import registry
from npcrepro.protocol.method import Use
from npcrepro.runs import published, records
from npcrepro.runs.published import publish, read_published
from npcrepro.runs.records import CHOOSING

BENCH = replace(TINY, name="bench")
STEPWISE, UNFUSED = PAPER.method("stepwise"), PAPER.method("unfused")


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def test_published_runs_are_read_back_to_ten_digits(tmp_path, results):
    runs = [record_at(tmp_path / "runs", 1 / 3), record_at(tmp_path / "runs", 0.1 + 0.2, seed=1)]
    results.mkdir()
    (results / "cases-of-old.csv").write_text("method\nof-old\n")
    publish(runs, results)
    # Cases of runs that are not there are gone.
    assert {path.name for path in results.iterdir()} == {"cases-stepwise.csv", "history-stepwise.csv", "runs.json"}
    found = read_published(results)
    half_of_the_last_digit = {"rtol": 5e-10, "atol": 0}
    pd.testing.assert_frame_equal(
        found.cases, records.concatenate(each.cases for each in runs), **half_of_the_last_digit
    )
    # Columns that are the same in all rows are not in the file, and come last.
    curves = records.concatenate(each.history for each in runs)
    pd.testing.assert_frame_equal(found.history, curves, check_like=True, **half_of_the_last_digit)
    header = (results / "history-stepwise.csv").read_text().splitlines()[0].split(",")
    assert {"paper", "cohort", "profile"} == {*found.history.columns} - {*header}
    assert found.cases.case.tolist() == ["007", "007"]
    assert found.cases.dsc.tolist() == [0.3333333333, 0.3]
    assert found.cases.jsc.map(isnan).all()
    for run, record in zip(found.runs, runs, strict=True):
        assert run == record.config | record.provenance | {"method": "stepwise", "fold": 0}
    content = json.loads((results / "runs.json").read_text())
    assert content["methods"] == {"stepwise": runs[0].config["method"]}
    assert content["folds"] == {"0": runs[0].config["fold"]}
    assert content["runs"] == [{"seed": 0}, {"seed": 1}]


def test_nothing_to_publish_and_nothing_published_are_errors(tmp_path, results):
    with pytest.raises(InputError, match="no finished run to publish"):
        publish([], results)
    assert not results.exists()
    with pytest.raises(InputError, match="holds no published runs"):
        read_published(tmp_path)
    (tmp_path / "runs.json").write_text('{"runs": [')
    with pytest.raises(InputError, match=r"runs\.json is damaged: cut off"):
        read_published(tmp_path)
    publish([record_at(tmp_path / "runs")], results)
    (results / "cases-stepwise.csv").unlink()
    with pytest.raises(InputError, match="but no table cases-METHOD"):
        _ = read_published(results).cases


def test_what_is_published_later_comes_beside_what_is_there(tmp_path, results, monkeypatch):
    """As if all had been published at once, though the first runs are gone, and though the call was once stopped."""
    first = record_at(tmp_path / "first", 1 / 3)
    later = [record_at(tmp_path / "later", 0.5, seed=1), record_at(tmp_path / "later", method=UNFUSED)]
    publish([first], results)
    with monkeypatch.context() as patch:
        patch.setattr(published, "write_json", lambda *given: pytest.exit("stopped"))
        with pytest.raises(pytest.exit.Exception):
            publish(later, results)
    publish(later, results)
    publish([first, *later], tmp_path / "at once")
    one, other = ({path.name: path.read_text() for path in f.iterdir()} for f in (results, tmp_path / "at once"))
    assert one == other
    publish(later, results)
    assert len(read_published(results).runs) == 3


def test_tables_of_other_methods_keep_the_columns_that_they_had(tmp_path, results):
    """Later runs know more of a case; a table that was published before is not written anew."""
    publish([record_at(tmp_path / "a", method=UNFUSED), record_at(tmp_path / "a")], results)
    before = (results / "cases-unfused.csv").read_bytes()
    later = record_at(tmp_path / "b", seed=1)
    rows = later.cases.assign(components=3)
    records.write_csv(later.folder / "cases.csv", rows.to_dict("records"), list(rows))
    publish([records.Record(later.folder)], results)
    assert (results / "cases-unfused.csv").read_bytes() == before
    found = read_published(results).cases
    assert sorted(found.method) == ["stepwise", "stepwise", "unfused"]
    assert found.components.sum() == 3
    assert found.components.isna().sum() == 2


def test_all_runs_of_a_method_defined_otherwise_are_replaced(tmp_path, results):
    publish([record_at(tmp_path / "a", seed=seed) for seed in (0, 1)], results)
    publish([record_at(tmp_path / "a", method=UNFUSED)], results)
    publish([record_at(tmp_path / "b", seed=2, method=replace(STEPWISE, summary="In other words"))], results)
    kept = {(run["method"], run["seed"]) for run in read_published(results).runs}
    assert kept == {("stepwise", 0), ("stepwise", 1), ("stepwise", 2), ("unfused", 0)}
    # Options that came after the first runs have their defaults in these.
    content = read_json(results / "runs.json")
    for stage in content["methods"]["stepwise"]["stages"]:
        del stage["power"], stage["patience"]
    write_json(results / "runs.json", content)
    assert publish([record_at(tmp_path / "c", seed=2)], results) == []
    assert len(read_published(results).runs) == 4
    gone = publish([record_at(tmp_path / "b", seed=3, method=replace(STEPWISE, budget=2.0))], results)
    assert [(row["method"], row["seed"]) for row in gone] == [("stepwise", 0), ("stepwise", 1), ("stepwise", 2)]
    found = read_published(results)
    assert {(run["method"], run["seed"]) for run in found.runs} == {("stepwise", 3), ("unfused", 0)}
    assert found.methods["stepwise"]["budget"] == 2.0
    assert found.history.groupby("method").seed.unique().map(list).to_dict() == {"stepwise": [3], "unfused": [0]}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"cohort": "other"}, "cohort"),
        ({"data_sha256": "f" * 64}, "images"),
        ({"split_sha256": "f" * 64}, "split"),
        ({"profile": replace(TINY, updates=13)}, "profile"),
        ({"method": replace(STEPWISE, paper="luo2020")}, "paper"),
    ],
)
def test_runs_of_two_kinds_are_not_published_together(tmp_path, results, changes, part):
    first, other = record_at(tmp_path / "runs"), record_at(tmp_path / "runs", **{"seed": 1} | changes)
    with pytest.raises(InputError, match=f"differ in {part}; publish"):
        publish([first, other], results)
    assert not results.exists()
    publish([first], results)
    for later in (other, record_at(tmp_path / "runs", **changes)):
        with pytest.raises(InputError, match=f"differ in {part}; publish"):
            publish([later], results)
    assert read_published(results).cases.seed.tolist() == [0]


def test_a_method_that_is_defined_otherwise_by_now_is_outdated(tmp_path, results):
    paper = registry.load("li2018")
    now = {method.name: method for method in paper.at(BENCH.name).methods}
    publish(
        [record_at(tmp_path, method=now[name], profile=BENCH) for name in ("linear-scores", "unaugmented")], results
    )
    found = read_published(results)
    assert found.outdated(paper) == {}
    assert found.outdated(registry.load("li2018", ["T2"])) == {}  # another channel is no other method
    other = replace(now["linear-scores"], budget=2.0, summary="In other words")
    changed = replace(paper, methods=(other,), shortened={})
    why = found.outdated(changed)
    assert why["linear-scores"].endswith(": budget was 1.0 and is 2.0.")
    assert why["unaugmented"] == "The paper has no method unaugmented any more, of which results has runs."


def test_weights_that_an_older_rule_chose_are_outdated(tmp_path, results, monkeypatch):
    """Only where two stages judge the same output does the rule make a difference."""
    paper = registry.load("chen2020")
    now = {method.name: method for method in paper.at(BENCH.name).methods}
    publish(
        [record_at(tmp_path, method=now[name], profile=BENCH) for name in ("multi-encoder", "unet-3d-t1", "mmfnet")],
        results,
    )
    assert read_published(results).outdated(paper) == {}  # a record of today names the rule
    text = (results / "runs.json").read_text()
    (results / "runs.json").write_text(text.replace(CHOOSING, "another rule"))
    why = read_published(results).outdated(paper)
    assert sorted(why) == ["mmfnet", "multi-encoder"]
    assert why["mmfnet"].endswith(
        "were chosen by an older rule, not by the best check of all stages that can be compared."
    )
    builds = replace(now["unet-3d-t1"], uses=(Use("multi-encoder"),))
    methods = tuple(builds if each.name == builds.name else each for each in paper.methods)
    changed = replace(paper, methods=methods, shortened={})
    assert "unet-3d-t1 is defined otherwise" in read_published(results).outdated(changed)["unet-3d-t1"]
    monkeypatch.setattr(published, "_differences", lambda *pair: [])
    assert "builds on multi-encoder, which is outdated" in read_published(results).outdated(changed)["unet-3d-t1"]

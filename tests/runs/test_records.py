"""Records of runs: identity, tables, and what is found on disk."""

import json
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pytest
from core_cases import TINY, configuration, record_at

from npcrepro.base.errors import InputError
from npcrepro.base.files import as_data, write_json
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol.method import Component, Method
from npcrepro.runs import records
from npcrepro.runs.published import Published
from npcrepro.runs.records import Record, find, write_csv

STEPWISE, UNFUSED = PAPER.method("stepwise"), PAPER.method("unfused")
NETWORK = Component("npcrepro.papers.li2018.network:Li2018Network", {"fused": False})


def test_a_misspelt_network_is_named():
    for target in ("npcrepro.papers.li2018.network:Li2018Netwrok", "npcrepro.papers.li2018.netwrok:Li2018Network"):
        with pytest.raises(InputError, match=f"li2018/stepwise: one of {target}, .+ is no module:name"):
            records.code_of(replace(STEPWISE, network=Component(target)))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"data_sha256": "f" * 64},
        {"split_sha256": "f" * 64},
        {"cohort": "other"},
        {"fold": {"number": 0, "train": ["B", "D"], "validation": ["C"], "test": ["A"]}},
        {"profile": replace(TINY, updates=13)},
        {"method": UNFUSED},
        {"method": replace(STEPWISE, threshold=0.4)},
        {"method": replace(STEPWISE, largest_component=True)},
        {"method": replace(STEPWISE, network=NETWORK)},
        {"method": replace(STEPWISE, augmentation=None)},
        {"method": replace(STEPWISE, stages=PAPER.method("fine-tune").stages)},
    ],
)
def test_whatever_changes_makes_another_run(changes):
    assert configuration(**changes).sha256 != configuration().sha256
    assert configuration(**changes).place != configuration().place


@pytest.mark.parametrize(
    "changes",
    [
        {"method": replace(STEPWISE, title="Other words", summary="Other words.")},
        {"profile": replace(TINY, folds=3, methods=("unfused", "stepwise"), phantom={"patients": 9})},
    ],
)
def test_words_and_what_comes_by_default_make_no_other_run(changes):
    assert configuration(**changes).data != configuration().data
    assert configuration(**changes).place == configuration().place


def test_a_field_that_came_later_and_is_off_leaves_old_runs_what_they_were(monkeypatch):
    """The hash is that of the data without the field; the code of a run is another matter."""
    old = {key: value for key, value in configuration().data["method"].items() if key != "largest_component"}
    assert records.defining(configuration().data["method"]) == records.defining(old)
    assert as_data(Method.from_data(old)) == as_data(STEPWISE)
    before = configuration().sha256
    monkeypatch.setattr(records, "LATER", ())
    assert configuration().sha256 != before


def test_where_a_run_lies_and_what_it_is_called():
    asked = configuration(seed=7, fold=configuration().fold | {"number": 3})
    assert asked.place == f"li2018/stepwise/tiny/tiny/fold-03_seed-7_{asked.sha256[:8]}"
    assert list(asked.identity.values()) == ["li2018", "stepwise", "tiny", "tiny", 3, 7]
    assert json.loads(json.dumps(asked.data)) == asked.data
    inner = configuration(fold=configuration().fold | {"inner": "0.1"})
    assert inner.place == f"li2018/stepwise/tiny/tiny/fold-00-inner-0.1_seed-0_{inner.sha256[:8]}"
    assert inner.title == "li2018/stepwise on tiny, tiny, fold 0, part 0.1, seed 0"
    everybody = configuration(fold=configuration().fold | {"test": []})
    assert everybody.place.endswith(f"/all_seed-0_{everybody.sha256[:8]}")
    assert everybody.title == "li2018/stepwise on tiny, tiny, all patients, seed 0"


def test_tables_keep_all_digits_and_empty_fields(tmp_path):
    values = [0.1 + 0.2, 1 / 3, 1e-300, nan, *np.random.default_rng(0).random(500)]
    rows = [{"case": "001", "patient": "NA", "dsc": value, "status": "ok"} for value in values]
    write_csv(tmp_path / "cases.csv", rows, ["case", "patient", "dsc", "status"])
    lines = (tmp_path / "cases.csv").read_text().splitlines()
    assert lines[:2] == ["case,patient,dsc,status", "001,NA,0.30000000000000004,ok"]
    assert lines[4] == "001,NA,,ok"
    table = Record(tmp_path).cases
    assert (table.case[0], table.patient[0]) == ("001", "NA")
    assert table.dsc.tolist() == pytest.approx(values, nan_ok=True, rel=0, abs=0)
    assert records.concatenate([]).empty


def test_names_made_of_digits_stay_names(tmp_path):
    record = record_at(tmp_path, cohort="007", profile=replace(TINY, name="1"))
    names = ["cohort", "profile", "case", "patient"]
    assert record.cases[names].values.tolist() == [["007", "1", "007", "007"]]
    assert record.history[names[:2]].values.tolist() == [["007", "1"]]
    named = ["paper", "method", "structure", "region", "status", "stage"]
    row = dict.fromkeys(named, "010") | {"fold": 1, "dsc": 0.5}
    write_csv(tmp_path / "cases-1.csv", [row], list(row))
    assert Published(tmp_path).cases.to_dict("records") == [row]


def test_finished_runs_are_found_by_what_they_are(tmp_path):
    fold = configuration().fold
    hidden = [{"fold": fold | {"inner": "0"}}, {"fold": fold | {"test": []}}]
    for changes in ({}, {"seed": 1}, {"method": UNFUSED}, {"fold": fold | {"number": 2}}, {"cohort": "T1 [old]"}):
        record_at(tmp_path, **changes)
    for changes in hidden:
        record_at(tmp_path, **changes)
    unfinished = configuration(seed=5)
    write_json(unfinished.folder(tmp_path) / "config.json", unfinished.data)

    def names(**wanted):
        configs = [record.config for record in find(tmp_path, **wanted)]
        return [(each["method"]["name"], each["fold"]["number"], each["seed"]) for each in configs]

    expected = [("stepwise", 0, 0), ("stepwise", 0, 1), ("stepwise", 2, 0), ("unfused", 0, 0)]
    assert names(cohort="tiny") == expected
    assert names(method="unfused") == expected[3:]
    assert names(seed=1) == expected[1:2]
    assert names(fold=2, paper="li2018", cohort="tiny", profile="tiny") == expected[2:3]
    # Names are no patterns.
    assert names(cohort="T1 [old]") == expected[:1]
    assert names(cohort="t*") == []
    assert find(tmp_path / "nothing") == []
    with pytest.raises(InputError, match="did you mean 'seed'"):
        find(tmp_path, sed=1)


def test_a_run_that_was_copied_without_those_that_it_uses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used = "li2018/stepwise/tiny/tiny/all_seed-0"
    write_json(Path("copy/provenance.json"), {"used": {"stepwise": [used]}})
    with pytest.raises(InputError, match=f"copy uses {used}, but lies in no folder of runs .* copied by itself"):
        _ = Record(Path("copy")).used

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from npcrepro import papers
from npcrepro.errors import InputError
from npcrepro.metrics.overlap import METRICS
from npcrepro.protocol import as_data

METHODS = [(key, method.name) for key in papers.KEYS for method in papers.load(key).methods]
TABLE_2 = papers.reported("li2018")["tables"]["table2"]


@pytest.fixture(params=METHODS, ids="/".join)
def method(request):
    key, name = request.param
    return papers.load(key).method(name)


def column(name):
    return np.array([row[TABLE_2["columns"].index(name)] for row in TABLE_2["rows"]])


# Every method of every paper


def test_papers_and_methods_are_found_by_name():
    paper, method = papers.find_method("li2018")
    assert method is paper.methods[0]
    assert papers.find_method("li2018/unfused") == (paper, paper.method("unfused"))
    with pytest.raises(InputError, match="unknown paper 'li2081'; did you mean 'li2018'"):
        papers.load("li2081")
    with pytest.raises(InputError, match="unknown paper 'li2017'"):
        papers.reported("li2017")


@pytest.mark.parametrize("key", papers.KEYS)
def test_every_paper_has_the_profiles_and_its_own_numbers(key):
    paper = papers.load(key)
    assert paper.key == papers.reported(key)["paper"]["key"] == key
    assert [profile.name for profile in paper.profiles] == ["smoke", "quick", "bench", "paper"]
    names = [method.name for method in paper.methods]
    assert len(set(names)) == len(names)
    assert all(paper.method(name) for profile in paper.profiles for name in profile.methods)
    assert paper.profile("paper").width == 1
    assert (Path(papers.__file__).parent / f"{key}.yaml").exists()


def test_every_method_builds_and_takes_its_loss_at_smoke(method):
    profile = papers.load(method.paper).profile("smoke")
    torch.manual_seed(0)
    network = method.network.build(width=profile.width)
    image = torch.randn(2, len(method.channels), *profile.matrix)
    label = (torch.rand(2, len(method.structures), *profile.matrix) > 0.5).to(torch.uint8)
    if method.augmentation:
        image, label = method.augmentation.build()(image, label, torch.Generator().manual_seed(0))
    for stage in method.stages:
        logits = network(image, **stage.forward)
        loss = stage.loss.build()(logits, label)
        assert loss.shape == ()
        assert loss.isfinite()
        moving = [p for n, p in network.named_parameters() if n.startswith(stage.trainable or "")]
        assert stage.optimiser.build(moving).param_groups[0]["lr"] > 0
    assert logits.shape == label.shape


def test_the_shares_of_a_method_add_up(method):
    assert sum(stage.share for stage in method.stages) == pytest.approx(1)
    assert len({stage.name for stage in method.stages}) == len(method.stages)


def test_trainable_layers_exist(method):
    with torch.device("meta"):
        layers = {name.split(".")[0] for name, _ in method.network.build(width=0.1).named_parameters()}
    assert {layer for stage in method.stages for layer in stage.trainable} <= layers


def test_every_layer_is_trained_in_some_stage(method):
    with torch.device("meta"):
        names = [name for name, _ in method.network.build(width=0.1).named_parameters()]
    trained = [n for n in names for s in method.stages if not s.trainable or n.split(".")[0] in s.trainable]
    assert set(trained) == set(names)


def test_a_method_is_plain_data(method):
    data = as_data(method)
    assert json.loads(json.dumps(data)) == data
    assert method.full_name == f"{method.paper}/{method.name}"
    assert 0 <= method.threshold <= 1


def test_no_two_methods_are_the_same():
    seen = [json.dumps(as_data(replace(papers.load(k).method(n), name="", title="", summary=""))) for k, n in METHODS]
    assert len(set(seen)) == len(seen)


# Li 2018


def test_the_methods_of_li_2018():
    paper = papers.load("li2018")
    stepwise = paper.methods[0]
    assert stepwise.name == "stepwise"
    assert [stage.forward for stage in stepwise.stages] == [
        {"output": "score_quarter"}, {"output": "score_half"}, {"output": "score_full"}
    ]  # fmt: skip
    moved = [layer for stage in stepwise.stages for layer in stage.trainable]
    assert sorted(moved) == sorted([*(f"conv{i}" for i in range(1, 9)), "deconv1", "deconv2"])
    assert {stage.optimiser.options["momentum"] for stage in stepwise.stages} == {0.9}
    assert {stage.optimiser.options["weight_decay"] for stage in stepwise.stages} == {5e-4}
    assert {(stage.decay_every, stage.decay) for stage in stepwise.stages} == {(100_000, 0.1)}
    assert [stage.name for stage in paper.method("joint").stages][-1] == "all layers"
    assert all(not stage.trainable for stage in paper.method("fine-tune").stages)
    assert len(paper.method("one-shot").stages) == 1
    assert paper.split == {"kind": "leave-one-out", "validation": 1}


def test_the_literal_method_is_as_printed():
    literal = papers.load("li2018").method("literal")
    assert literal.network.options == {"initialisation": 1.0}
    assert {stage.optimiser.options["lr"] for stage in literal.stages} == {1e-7}
    assert {stage.loss.options["reduction"] for stage in literal.stages} == {"sum"}


def test_the_euclidean_score_is_cut_halfway_between_its_targets():
    euclidean = papers.load("li2018").method("euclidean")
    assert (euclidean.activation, euclidean.threshold) == ("identity", 0.5)


@pytest.mark.parametrize(("name", "combinations"), [("stepwise", 726), ("rotations-only", 11)])
def test_how_many_images_a_slice_stands_for(name, combinations):
    assert papers.load("li2018").method(name).augmentation.build().combinations == combinations


def test_the_updates_show_each_augmented_slice_twice_in_each_step():
    paper = papers.load("li2018")
    profile, stages = paper.profile("paper"), len(paper.methods[0].stages)
    assert profile.updates // stages * profile.batch_size == pytest.approx(2 * 84 * 726, abs=profile.batch_size)
    assert (profile.matrix, profile.phantom["patients"], profile.folds) == ((144, 144), 29, None)


# What Li 2018 prints


def test_table_2_has_29_patients():
    assert [row[0] for row in TABLE_2["rows"]] == list(range(1, 30))
    assert {len(row) for row in TABLE_2["rows"]} == {len(TABLE_2["columns"])} == {8}
    assert papers.reported("li2018")["paper"]["patients"] == 29


def test_volumes_of_table_2_sum_up():
    assert column("volume_auto").sum() == pytest.approx(341.2)
    assert column("volume_readers").sum() == pytest.approx(347.0)
    assert (column("volume_auto") < column("volume_readers")).sum() == 18
    assert (column("volume_auto") != column("volume_readers")).sum() == 28


@pytest.mark.parametrize(
    ("name", "mean", "sd"),
    [
        ("percent_match", 0.905, 0.038),
        ("corresponding_ratio", 0.839, 0.065),
        ("dsc", 0.891, 0.046),
        ("recall", 0.880, 0.068),
        ("jsc", 0.805, 0.073),
    ],
)
def test_printed_means_are_those_of_the_rows_to_rounding(name, mean, sd):
    values = column(name)
    assert (values.mean(), values.std(ddof=1)) == pytest.approx((mean, sd), abs=5.1e-4)
    # The cells are rounded to two digits, and so is their mean: together they move it by less than 0.01.
    assert TABLE_2["printed_mean"][name] == pytest.approx(values.mean(), abs=0.01)
    assert TABLE_2["printed_sd"][name] == pytest.approx(values.std(ddof=1), abs=0.0055)


def test_printed_dsc_and_jsc_agree_in_every_row():
    dsc, jsc = column("dsc"), column("jsc")
    assert np.abs(dsc - 2 * jsc / (1 + jsc)).max() < 0.01


def test_percent_match_over_recall_is_the_inverse_of_the_volume_ratio():
    """Finding L04: the definitions demand V_auto / V_readers."""
    ratio = column("percent_match") / column("recall")
    inverse = column("volume_readers") / column("volume_auto")
    assert np.abs(ratio - inverse).max() < 0.03
    assert np.abs(ratio - 1 / inverse).max() > 0.3


def test_table_3_repeats_the_ranges_of_table_2():
    current = papers.reported("li2018")["tables"]["table3"][0]
    for name in ("dsc", "corresponding_ratio", "percent_match"):
        values = column(name)
        assert (current[name]["range_low"], current[name]["range_high"]) == (values.min(), values.max())
        assert current[name]["mean"] == TABLE_2["printed_mean"][name]
        assert current[name]["sd"] == TABLE_2["printed_sd"][name]


def test_every_gap_has_a_choice():
    gaps = papers.reported("li2018")["gaps"]
    assert [gap["id"] for gap in gaps] == list(range(1, 50))
    assert all(set(gap) >= {"id", "gap", "choice"} and gap["gap"].strip() and gap["choice"].strip() for gap in gaps)


def test_every_claim_has_a_test():
    claims = papers.reported("li2018")["claims"]
    assert [claim["id"] for claim in claims] == list(range(1, 12))
    assert all(claim["claim"].strip() and claim["reported"].strip() and claim["test"].strip() for claim in claims)


def test_columns_are_named_metrics():
    names = papers.reported("li2018")["columns_as"]
    assert set(names) == set(TABLE_2["printed_mean"]) == set(TABLE_2["printed_sd"])
    assert set(names.values()) <= set(METRICS)
    # The paper's "recall" is TP / (TP + FP).
    assert (names["recall"], names["percent_match"]) == ("precision", "sensitivity")

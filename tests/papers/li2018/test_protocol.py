import numpy as np
import pytest

from npcrepro.metrics.overlap import METRICS
from npcrepro.protocol import registry

TABLE_2 = registry.reported("li2018")["tables"]["table2"]


def column(name):
    return np.array([row[TABLE_2["columns"].index(name)] for row in TABLE_2["rows"]])


# Li 2018


def test_the_methods_of_li_2018():
    paper = registry.load("li2018")
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
    literal = registry.load("li2018").method("literal")
    assert literal.network.options == {"initialisation": 1.0}
    assert {stage.optimiser.options["lr"] for stage in literal.stages} == {1e-7}
    assert {stage.loss.options["reduction"] for stage in literal.stages} == {"sum"}


def test_the_euclidean_score_is_cut_halfway_between_its_targets():
    euclidean = registry.load("li2018").method("euclidean")
    assert (euclidean.activation, euclidean.threshold) == ("identity", 0.5)


@pytest.mark.parametrize(("name", "combinations"), [("stepwise", 726), ("rotations-only", 11)])
def test_how_many_images_a_slice_stands_for(name, combinations):
    assert registry.load("li2018").method(name).augmentation.build().combinations == combinations


def test_the_updates_show_each_augmented_slice_twice_in_each_step():
    paper = registry.load("li2018")
    profile, stages = paper.profile("paper"), len(paper.methods[0].stages)
    assert profile.updates // stages * profile.batch_size == pytest.approx(2 * 84 * 726, abs=profile.batch_size)
    assert (profile.matrix, profile.phantom["patients"], profile.folds) == ((144, 144), 29, None)


# What Li 2018 prints


def test_table_2_has_29_patients():
    assert [row[0] for row in TABLE_2["rows"]] == list(range(1, 30))
    assert {len(row) for row in TABLE_2["rows"]} == {len(TABLE_2["columns"])} == {8}
    assert registry.reported("li2018")["paper"]["patients"] == 29


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
    current = registry.reported("li2018")["tables"]["table3"][0]
    for name in ("dsc", "corresponding_ratio", "percent_match"):
        values = column(name)
        assert (current[name]["range_low"], current[name]["range_high"]) == (values.min(), values.max())
        assert current[name]["mean"] == TABLE_2["printed_mean"][name]
        assert current[name]["sd"] == TABLE_2["printed_sd"][name]


def test_every_gap_has_a_choice():
    gaps = registry.reported("li2018")["gaps"]
    assert [gap["id"] for gap in gaps] == list(range(1, 50))
    assert all(set(gap) >= {"id", "gap", "choice"} and gap["gap"].strip() and gap["choice"].strip() for gap in gaps)


def test_every_claim_has_a_test():
    claims = registry.reported("li2018")["claims"]
    assert [claim["key"] for claim in claims] == [f"li2018-{number}" for number in range(1, 12)]
    assert all(claim["text"].strip() and claim["printed"].strip() and claim["test"].strip() for claim in claims)


def test_columns_are_named_metrics():
    names = registry.reported("li2018")["columns_as"]
    assert set(names) == set(TABLE_2["printed_mean"]) == set(TABLE_2["printed_sd"])
    assert set(names.values()) <= set(METRICS)
    # The paper's "recall" is TP / (TP + FP).
    assert (names["recall"], names["percent_match"]) == ("precision", "sensitivity")

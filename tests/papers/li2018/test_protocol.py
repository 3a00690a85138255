import numpy as np
import pytest

from npcrepro.metrics.overlap import METRICS
from npcrepro.protocol import registry

LI = registry.load("li2018")
TABLE_2 = registry.reported("li2018")["tables"]["table2"]


def test_the_methods_of_li_2018():
    stepwise = LI.methods[0]
    assert stepwise.name == "stepwise"
    assert [stage.forward for stage in stepwise.stages] == [
        {"output": "score_quarter"}, {"output": "score_half"}, {"output": "score_full"}
    ]  # fmt: skip
    moved = [layer for stage in stepwise.stages for layer in stage.trainable]
    assert sorted(moved) == sorted([*(f"conv{i}" for i in range(1, 9)), "deconv1", "deconv2"])
    assert {stage.optimiser.options["momentum"] for stage in stepwise.stages} == {0.9}
    assert {stage.optimiser.options["weight_decay"] for stage in stepwise.stages} == {5e-4}
    assert {(stage.decay_every, stage.decay) for stage in stepwise.stages} == {(100_000, 0.1)}
    assert [stage.name for stage in LI.method("joint").stages][-1] == "all layers"
    assert all(not stage.trainable for stage in LI.method("fine-tune").stages)
    assert len(LI.method("one-shot").stages) == 1
    assert LI.split == {"kind": "leave-one-out", "validation": 1}


def test_the_literal_method_is_as_printed_and_profile_paper_trains_it():
    literal = LI.method("literal")
    assert [profile.name for profile in LI.profiles if "literal" in profile.methods] == ["paper"]
    assert literal.network.options == {"initialisation": 1.0}
    assert {stage.optimiser.options["lr"] for stage in literal.stages} == {1e-7}
    assert {stage.loss.options["reduction"] for stage in literal.stages} == {"sum"}


def test_how_many_images_a_slice_stands_for_and_each_is_shown_twice_in_each_step():
    for name, combinations in (("stepwise", 726), ("rotations-only", 11)):
        assert LI.method(name).augmentation.build().combinations == combinations
    profile, stages = LI.profile("paper"), len(LI.methods[0].stages)
    assert profile.updates // stages * profile.batch_size == pytest.approx(2 * 84 * 726, abs=profile.batch_size)
    assert (profile.matrix, profile.phantom["patients"], profile.folds) == ((144, 144), 29, None)


def test_the_rivals_have_the_images_the_augmentation_and_the_updates_of_the_network():
    network, field = LI.method("stepwise"), LI.method("support-vectors-field")
    for rival in (LI.method("support-vectors"), field):
        assert (rival.data, rival.augmentation, rival.budget) == (network.data, network.augmentation, network.budget)
        assert [stage.loss.target.split(":")[1] for stage in rival.stages] == ["HingeLoss"]
        # A distance of 0 from the border is a probability of one half.
        assert (rival.activation, rival.threshold) == ("sigmoid", 0.5)
    assert field.network.options["field"] > 0
    assert LI.comparisons[field.name] == "support-vectors"


def test_printed_means_are_those_of_the_rows_to_rounding_and_columns_are_named_metrics():
    for name in TABLE_2["printed_mean"]:
        # The cells are rounded to two digits, and so is their mean: together they move it by less than 0.01.
        column = np.array([row[TABLE_2["columns"].index(name)] for row in TABLE_2["rows"]])
        assert TABLE_2["printed_mean"][name] == pytest.approx(column.mean(), abs=0.01)
        assert TABLE_2["printed_sd"][name] == pytest.approx(column.std(ddof=1), abs=0.0055)
    names = registry.reported("li2018")["columns_as"]
    assert set(names) == set(TABLE_2["printed_mean"]) == set(TABLE_2["printed_sd"])
    assert set(names.values()) <= set(METRICS)
    # The paper's "recall" is TP / (TP + FP).
    assert (names["recall"], names["percent_match"]) == ("precision", "sensitivity")

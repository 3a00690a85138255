"""Chen 2020: what its protocol says."""

from dataclasses import replace

import pytest
import torch
from network_cases import on_meta

from npcrepro.base.errors import InputError
from npcrepro.protocol import registry

CHEN, PRINTED = registry.load("chen2020"), registry.reported("chen2020")
SHORT = CHEN.at("bench")
TRANSFERRED = [method for method in CHEN.methods if method.uses]
# By name, what a method of the smaller profiles keeps as printed.
KEPT = {"mmfnet-printed-warm-up": "stages", "mmfnet-printed-loss": "stages", "mmfnet-vertical-flip": "augmentation"}


def test_the_rows_of_both_tables_are_methods():
    titles = {method.title for method in CHEN.methods}
    for table, rows in (("table1", 13), ("table2", 12)):
        printed = {row["model"] for row in PRINTED["tables"][table]}
        assert len(printed) == rows
        assert printed <= titles


@pytest.mark.parametrize("paper", [CHEN, SHORT], ids=["paper", "bench"])
def test_most_comparisons_change_one_thing(paper):
    several = {
        "mmfnet-t1-t2": {"channels", "uses"},
        "mmfnet-t1-cet1": {"channels", "uses"},
        "mmfnet-t2-cet1": {"channels", "uses"},
        "mmfnet-no-transfer-long": {"uses", "budget"},
    }
    parts = ("channels", "data", "augmentation", "network", "uses", "budget", "stages")
    for name, other in paper.comparisons.items():
        if name == "nnunet-3d":
            continue  # a recipe as a whole
        first, second = paper.method(name), paper.method(other)
        changed = {part for part in parts if getattr(first, part) != getattr(second, part)}
        if "uses" in changed:
            changed -= {"stages"}  # the same rates for as long, by another freezing
        if name in KEPT:
            assert paper is CHEN or changed == {KEPT[name]}
        elif name.endswith("two-rates"):
            assert changed == {"stages"}
        elif name in several:
            assert changed == several[name]
        else:
            assert len(changed) == 1, name
    without = {method.name for method in paper.methods} - paper.comparisons.keys()
    assert without == {"mmfnet", "patch-cnn", "unet-3d-t1", "unet-3d-t2", "unet-3d-cet1"}


def test_profile_paper_trains_what_is_printed_and_the_others_a_shortened_form():
    for printed in CHEN.methods:
        if printed.name == "nnunet-3d":
            continue  # the reference of today has a recipe of its own
        short = SHORT.method(printed.name)
        assert not short.data.options
        assert ("flip_axis" in short.augmentation.options) == (printed.name == "mmfnet-vertical-flip")
        if printed.name in KEPT:
            assert printed == short
            continue
        assert printed.augmentation.options["flip_axis"] == "y"
        assert printed.data.options == {"resampled_first": True}
        if len(printed.stages) > 1:
            assert [stage.share for stage in printed.stages] == [5 / 100, 95 / 100]
            assert [stage.share for stage in short.stages] == [3 / 4, 1 / 4]
    assert [stage.share for stage in SHORT.method("mmfnet-printed-warm-up").stages] == [5 / 100, 95 / 100]
    # At profile "paper" MMFNet has all that each of these keeps.
    assert not KEPT.keys() & set(CHEN.profile("paper").methods)
    assert KEPT.keys() < set(CHEN.profile("bench").methods)
    other = registry.load("chen2020", ("CT", "PET"))
    assert other.method("mmfnet").stages[0].share == 5 / 100
    assert other.at("quick").method("mmfnet").stages[0].share == 3 / 4


@pytest.mark.parametrize("paper", [CHEN, SHORT], ids=["paper", "bench"])
def test_a_control_of_one_series_has_the_two_rates_of_the_networks_of_several(paper):
    for name in ("t1", "t2", "cet1"):
        one, control = paper.method(f"unet-3d-{name}"), paper.method(f"unet-3d-{name}-two-rates")
        assert control.stages == paper.method("multi-encoder").stages
        assert replace(one, stages=control.stages, name=control.name, title=control.title) == replace(
            control, summary=one.summary
        )
        assert one.stages[-1].optimiser.options["lr"] == 10 * control.stages[-1].optimiser.options["lr"]
    assert "unet-3d-t1-two-rates" in paper.added


@pytest.mark.parametrize("method", TRANSFERRED, ids=lambda method: method.name)
def test_self_transfer_takes_the_encoders_of_its_series_which_the_warm_up_freezes(method):
    assert [CHEN.method(use.method).channels for use in method.uses] == [(name,) for name in method.channels]
    assert [use.weights for use in method.uses] == [{"encoder.": f"encoders.{n}."} for n in range(len(method.uses))]
    assert not any(use.maps for use in method.uses)
    warm_up, rest = method.stages
    names = {name.split(".")[0] for name, _ in on_meta(method.build, 0.25).named_parameters()}
    assert names - set(warm_up.trainable) == {"encoders"}
    assert rest.trainable == ()
    assert [stage.optimiser.options["lr"] for stage in method.stages] == [1e-3, 1e-4]
    assert (warm_up.patience, rest.patience) == (10, 10)


def test_a_control_has_the_updates_of_all_networks_behind_mmfnet():
    long, mmfnet = CHEN.method("mmfnet-no-transfer-long"), CHEN.method("mmfnet")
    assert long.budget == mmfnet.budget + sum(CHEN.method(use.method).budget for use in mmfnet.uses) == 4
    short = CHEN.method("mmfnet-no-transfer")
    assert replace(long, name=short.name, title=short.title, summary=short.summary, budget=1.0) == short
    assert registry.load("chen2020", ("CT", "PET")).method("mmfnet-no-transfer-long").budget == 3


def test_the_loss_is_as_printed_at_profile_paper_and_in_the_form_that_is_meant_elsewhere():
    empty = torch.full((1, 1, 1, 2, 2), -100.0), torch.zeros(1, 1, 1, 2, 2)
    for method in (*CHEN.methods, *SHORT.methods):
        if method.name == "nnunet-3d":
            continue  # a loss of its own
        printed = method.name == "mmfnet-printed-loss" or (method in CHEN.methods and method.name not in KEPT)
        for stage in method.stages:
            assert stage.loss.build()(*empty).item() == pytest.approx(-1.0 if printed else 0.0)
            assert stage.loss.build().pooled == "image"
            assert stage.loss.build().smoothing == 1


def test_two_series_under_other_names():
    paper = registry.load("chen2020", ("CT", "PET (SUV)"))
    names = [method.name for method in paper.methods]
    assert names[0] == "mmfnet"
    assert {"unet-3d-ct", "unet-3d-pet-suv", "unet-2d-pet-suv", "patch-cnn-ct"} < set(names)
    assert not any(method.channels == ("CT", "PET (SUV)") for method in paper.methods if "&" in method.title)
    assert "mmfnet-ct-pet-suv" not in names
    assert paper.method("single-encoder").network.options["encoder_width"] == 2
    assert [use.method for use in paper.method("mmfnet").uses] == ["unet-3d-ct", "unet-3d-pet-suv"]
    assert paper.profile("smoke").methods[1:3] == ("unet-3d-ct", "unet-3d-pet-suv")
    assert all(paper.method(name) and paper.method(other) for name, other in paper.comparisons.items())


@pytest.mark.parametrize(
    ("series", "reason"), [(("CT",), "has to name two or more"), (("T1", "T1 "), "differ in letters or digits")]
)
def test_series_that_cannot_be_used(series, reason):
    with pytest.raises(InputError, match=reason):
        registry.load("chen2020", series)

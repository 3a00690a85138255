"""Chen 2020: what its protocol says."""

from dataclasses import replace

import pytest
import torch

from npcrepro.base.errors import InputError
from npcrepro.protocol import registry

pytest_plugins = ["core_fixtures"]

CHEN, PRINTED = registry.load("chen2020"), registry.reported("chen2020")
TRANSFERRED = [method for method in CHEN.methods if method.uses]


@pytest.mark.parametrize(("table", "rows"), [("table1", 13), ("table2", 12)])
def test_the_rows_of_both_tables_are_methods(table, rows):
    titles = [method.title for method in CHEN.methods]
    assert len(set(titles)) == len(titles)
    printed = [row["model"] for row in PRINTED["tables"][table]]
    assert len(set(printed)) == rows
    assert set(printed) <= set(titles)


def test_most_comparisons_change_one_thing():
    several = {
        "mmfnet-t1-t2": {"channels", "uses"},
        "mmfnet-t1-cet1": {"channels", "uses"},
        "mmfnet-t2-cet1": {"channels", "uses"},
        "mmfnet-no-transfer-long": {"uses", "budget"},
    }
    parts = ("channels", "data", "augmentation", "network", "uses", "budget")
    for name, other in CHEN.comparisons.items():
        if name == "nnunet-3d":
            continue  # a recipe as a whole
        first, second = CHEN.method(name), CHEN.method(other)
        changed = {part for part in parts if getattr(first, part) != getattr(second, part)}
        if name in ("mmfnet-printed-loss", "mmfnet-printed-warm-up"):
            assert changed == set()
            assert first.stages != second.stages
        elif name in several:
            assert changed == several[name]
        else:
            assert len(changed) == 1, name
        assert first.stages == second.stages or "loss" in name or "warm-up" in name or "uses" in changed, name
    without = {method.name for method in CHEN.methods} - CHEN.comparisons.keys()
    assert without == {"mmfnet", "patch-cnn", "unet-3d-t1", "unet-3d-t2", "unet-3d-cet1"}


def test_self_transfer_takes_the_encoders_of_its_series_in_order():
    for method in TRANSFERRED:
        assert [CHEN.method(use.method).channels for use in method.uses] == [(name,) for name in method.channels]
        assert [use.weights for use in method.uses] == [{"encoder.": f"encoders.{n}."} for n in range(len(method.uses))]
        assert not any(use.maps for use in method.uses)


def test_the_encoders_and_nothing_else_are_frozen_in_the_warm_up():
    for method in TRANSFERRED:
        warm_up, rest = method.stages
        with torch.device("meta"):
            names = {name.split(".")[0] for name, _ in method.build(0.25).named_parameters()}
        assert names - set(warm_up.trainable) == {"encoders"}
        assert rest.trainable == ()
        printed = method.name == "mmfnet-printed-warm-up"
        assert (warm_up.share, rest.share) == ((5 / 100, 95 / 100) if printed else (3 / 4, 1 / 4))
        assert [stage.optimiser.options["lr"] for stage in method.stages] == [1e-3, 1e-4]
        assert (warm_up.patience, rest.patience) == (10, 10)


def test_a_control_has_the_updates_of_all_networks_behind_mmfnet():
    long, mmfnet = CHEN.method("mmfnet-no-transfer-long"), CHEN.method("mmfnet")
    assert long.budget == mmfnet.budget + sum(CHEN.method(use.method).budget for use in mmfnet.uses) == 4
    short = CHEN.method("mmfnet-no-transfer")
    assert replace(long, name=short.name, title=short.title, summary=short.summary, budget=1.0) == short
    assert registry.load("chen2020", ("CT", "PET")).method("mmfnet-no-transfer-long").budget == 3


def test_the_loss_is_that_of_the_paper_in_the_form_that_is_meant():
    empty = torch.full((1, 1, 1, 2, 2), -100.0), torch.zeros(1, 1, 1, 2, 2)
    for method in (method for method in CHEN.methods if method.name != "nnunet-3d"):
        expected = -1.0 if method.name == "mmfnet-printed-loss" else 0.0
        for stage in method.stages:
            assert stage.loss.build()(*empty).item() == pytest.approx(expected)
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

"""Chen 2020: what its protocol says."""

from dataclasses import replace

import pytest
import torch
from core_cases import case_arrays, write_tiny

from npcrepro.base.errors import InputError
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs.queue import run_paper
from npcrepro.runs.run import load_network

pytest_plugins = ["core_fixtures"]

CHEN, PRINTED = registry.load("chen2020"), registry.reported("chen2020")
TRANSFERRED = [method for method in CHEN.methods if method.uses]
FROM_SCRATCH = [method for method in CHEN.methods if not method.uses and len(method.channels) > 1]


@pytest.mark.parametrize(("table", "rows"), [("table1", 13), ("table2", 12)])
def test_the_rows_of_both_tables_are_methods(table, rows):
    titles = [method.title for method in CHEN.methods]
    assert len(set(titles)) == len(titles)
    printed = [row["model"] for row in PRINTED["tables"][table]]
    assert len(set(printed)) == rows
    assert set(printed) <= set(titles)


def test_rows_that_both_tables_share_are_one_method():
    first, second = ({row["model"]: row for row in PRINTED["tables"][name]} for name in ("table1", "table2"))
    shared = first.keys() & second.keys()
    assert {method.name for method in CHEN.methods if method.title in shared} == {"mmfnet", "multi-encoder"}
    assert all(first[title] == second[title] for title in shared)


def test_rows_that_the_paper_leaves_out_are_there():
    """Self-transfer for every network of several encoders, of which the tables have three."""
    without = {"multi-encoder", "mmfnet-base", "mmfnet-multi-mlp", "mmfnet-std-channel", "mmfnet-std-spatial"}
    for name in without:
        alone, transferred = CHEN.method(name), CHEN.method(f"{name}-transfer")
        assert replace(transferred, stages=alone.stages, uses=(), title="", summary="", name=name) == replace(
            alone, title="", summary=""
        )
        assert transferred.title == f"{alone.title}+self-transfer"
    assert CHEN.method("mmfnet").network == CHEN.method("mmfnet-no-transfer").network


def test_the_parts_of_the_fusion_block_are_switched_on_one_by_one():
    switches = ("separate_mlps", "std_in_channel_attention", "std_in_spatial_attention")
    expected = {
        "mmfnet-base": (False, False, False),
        "mmfnet-multi-mlp": (True, False, False),
        "mmfnet-std-channel": (True, True, False),
        "mmfnet-std-spatial": (True, False, True),
        "mmfnet-no-transfer": (True, True, True),
    }
    for name, on in expected.items():
        options = CHEN.method(name).network.options
        assert tuple(options.get(switch, True) for switch in switches) == on


def test_a_method_of_one_series_has_one_channel():
    for method in CHEN.methods:
        if method.title.endswith((" (T1)", " (T2)", " (CET1)")):
            assert method.channels == (method.title.split("(")[1][:-1],)
        elif "&" not in method.title:
            assert method.channels == ("T1", "T2", "CET1")
    pairs = {method.channels for method in CHEN.methods if "&" in method.title}
    assert pairs == {("T1", "T2"), ("T1", "CET1"), ("T2", "CET1")}


def test_most_comparisons_change_one_thing():
    several = {
        "mmfnet-t1-t2": {"channels", "uses"},
        "mmfnet-t1-cet1": {"channels", "uses"},
        "mmfnet-t2-cet1": {"channels", "uses"},
        "mmfnet-no-transfer-long": {"uses", "budget"},
    }
    parts = ("channels", "data", "augmentation", "network", "uses", "budget")
    for name, other in CHEN.comparisons.items():
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


def rates(method):
    return [(stage.share, stage.optimiser.options["lr"], stage.patience) for stage in method.stages]


def test_networks_of_several_series_see_the_same_rates_with_and_without_self_transfer():
    for method in (*FROM_SCRATCH, *TRANSFERRED):
        if method.name != "mmfnet-printed-warm-up":
            assert rates(method) == [(0.75, 1e-3, 10), (0.25, 1e-4, 10)]


def test_a_control_has_the_updates_of_all_networks_behind_mmfnet():
    long, mmfnet = CHEN.method("mmfnet-no-transfer-long"), CHEN.method("mmfnet")
    assert long.budget == mmfnet.budget + sum(CHEN.method(use.method).budget for use in mmfnet.uses) == 4
    short = CHEN.method("mmfnet-no-transfer")
    assert replace(long, name=short.name, title=short.title, summary=short.summary, budget=1.0) == short
    assert registry.load("chen2020", ("CT", "PET")).method("mmfnet-no-transfer-long").budget == 3


def test_the_loss_is_that_of_the_paper_in_the_form_that_is_meant():
    empty = torch.full((1, 1, 1, 2, 2), -100.0), torch.zeros(1, 1, 1, 2, 2)
    for method in CHEN.methods:
        expected = -1.0 if method.name == "mmfnet-printed-loss" else 0.0
        for stage in method.stages:
            assert stage.loss.build()(*empty).item() == pytest.approx(expected)
            assert stage.loss.build().pooled == "image"
            assert stage.loss.build().smoothing == 1


def test_encoders_are_taken_over_and_stay_in_the_warm_up(tmp_path):
    paper = registry.load("chen2020", ("T1", "T2"))
    warm_up = paper.method("mmfnet").stages[0]
    paper = replace(
        paper,
        methods=(
            replace(paper.method("mmfnet"), stages=(replace(warm_up, share=1.0),)),
            *paper.methods[1:],
        ),
        profiles=(replace(paper.profile("smoke"), matrix=(16, 16, 16), updates=2, check_every=1),),
    )
    cases = [case_arrays(f"P{number}", number, channels=2, spacing_mm=(3.0, 8.0, 8.0)) for number in range(5)]
    write_tiny(tmp_path / "tiny", cases, channels=("T1", "T2"))
    settings = Settings(
        cohort=str(tmp_path / "tiny"), profile="smoke", methods=("unet-3d-t1", "unet-3d-t2", "mmfnet"), device="cpu",
        runs=str(tmp_path / "runs"),
    )  # fmt: skip
    *single, fused = (load_network(record).state_dict() for record in run_paper(paper, settings, report=lambda _: None))
    for number, weights in enumerate(single):
        for name, value in weights.items():
            if name.startswith("encoder."):
                assert torch.equal(value, fused[name.replace("encoder.", f"encoders.{number}.")]), name
    assert not torch.equal(single[0]["encoder.bottom.0.weight"], single[1]["encoder.bottom.0.weight"])


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


def test_four_series_have_six_pairs():
    paper = registry.load("chen2020", ("A", "B", "C", "D"))
    assert sum(len(method.channels) == 2 for method in paper.methods) == 6
    with torch.device("meta"):
        assert len(paper.method("mmfnet").build(0.25).encoders) == 4
        assert len(paper.method("mmfnet-b-d").build(0.25).encoders) == 2


@pytest.mark.parametrize(
    ("series", "reason"), [(("CT",), "has to name two or more"), (("T1", "T1 "), "differ in letters or digits")]
)
def test_series_that_cannot_be_used(series, reason):
    with pytest.raises(InputError, match=reason):
        registry.load("chen2020", series)


def test_gaps_name_methods():
    named = {word.strip(",;") for gap in PRINTED["gaps"] for word in gap["choice"].split() if "mmfnet-" in word}
    assert named
    assert named <= {method.name for method in CHEN.methods}

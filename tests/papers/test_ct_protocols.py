"""Luo 2020 and Xue 2020: what their protocols say."""

import pytest
import torch

from npcrepro.cohorts.phantom.tumour import STAGE_MIX
from npcrepro.findings.claims import ledger
from npcrepro.protocol import registry

LUO, XUE = registry.load("luo2020"), registry.load("xue2020")


def test_the_rows_of_table_1_are_methods():
    rows = registry.reported("luo2020")["tables"]["table1"]
    titles = {method.title.lower() for method in LUO.methods}
    assert {row["model"].lower() for row in rows} <= titles
    assert LUO.methods[0].title == "Proposed"
    assert all(profile.methods[:4] == ("two-stage", "unet", "fcn8", "mask-rcnn") for profile in LUO.profiles)


def test_the_two_stages_are_trained_one_after_the_other():
    coarse, fine = LUO.method("two-stage").stages
    assert (coarse.trainable, coarse.forward) == (("coarse",), {"output": "coarse"})
    assert (fine.trainable, fine.forward) == (("fine",), {"output": "fine"})
    assert coarse.loss.options["target"] == "union"
    assert [stage.name for stage in LUO.method("joint").stages] == ["stage 1", "stage 2", "both"]


def test_fcn8_is_judged_beside_networks_with_its_own_loss():
    """A comparison of two losses would be none of two networks; Mask R-CNN makes a loss of its own."""
    losses = {name: LUO.method(name).stages[-1].loss for name in ("two-stage", "unet", "fcn8", "dice-present")}
    assert losses["unet"] == losses["two-stage"] != losses["fcn8"] == losses["dice-present"]
    assert LUO.method("one-stage-present").stages[-1].loss == losses["fcn8"]
    held_against = set()
    for part in (part for claim in ledger.claims("luo2020") for part in (claim, *claim.parts)):
        names = {arm.method for arm in part.arms}
        held_against |= names - {"fcn8", "mask-rcnn", "mask-rcnn-enlarged"} if "fcn8" in names else set()
    assert held_against == {"dice-present", "one-stage-present", "no-pooling-present"}


def test_the_rate_falls_nine_times_in_a_hundred_epochs_or_every_ten_iterations():
    for method in LUO.methods:
        if method.name.endswith(("-tuned", "nnunet-2d")):
            continue
        by_iteration = method.name == "iteration-decay"
        for stage in method.stages:
            assert stage.decay == 0.9
            assert (stage.decay_every, stage.decays) == ((10, None) if by_iteration else (None, 9))


@pytest.mark.parametrize(
    ("name", "profile", "read"),
    [
        ("deeplabv3plus", "bench", False),
        ("rates-1-2-3", "bench", True),
        ("deeplabv3plus", "paper", True),
    ],
)
def test_at_small_matrices_the_pyramid_reads_padding(name, profile, read):
    """Kernels of which only the middle meets the map are 1 x 1 convolutions: the other weights have no gradient."""
    torch.manual_seed(0)
    network = XUE.method(name).build(0.05).eval()
    network(torch.rand(1, 1, *XUE.profile(profile).matrix)).sum().backward()
    atrous = [layer for layer in network.pyramid.modules() if getattr(layer, "kernel_size", 0) == (3, 3)]
    assert len(atrous) == 3
    for layer in atrous:
        outer = layer.weight.grad.clone()
        assert outer[..., 1, 1].abs().max() > 0
        outer[..., 1, 1] = 0
        assert bool(outer.abs().max() > 0) == read


def test_the_schedule_of_xue_2020():
    for method in XUE.methods:
        (stage,) = method.stages
        if method.name == "nnunet-2d":
            continue
        assert (stage.plateau, stage.decay, stage.keep_best) == (5, 0.8, True)
        assert stage.optimiser.options["lr"] == (0.001 if method.name == "rate-0.001" else 0.005)


def test_stages_of_table_1_are_those_of_the_phantom():
    printed = registry.reported("xue2020")["tables"]["table1"]
    assert sum(printed[f"T{stage}"] for stage in range(1, 5)) == pytest.approx(100, abs=0.1)
    assert pytest.approx([printed[f"T{stage}"] / 100 for stage in range(1, 5)]) == STAGE_MIX

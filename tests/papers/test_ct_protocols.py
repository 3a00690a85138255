"""Luo 2020 and Xue 2020: what their protocols say."""

import pytest
import torch

from npcrepro.cohorts.phantom.tumour import STAGE_MIX
from npcrepro.protocol import registry

LUO, XUE = registry.load("luo2020"), registry.load("xue2020")


def test_the_proposed_method_is_the_first_and_every_profile_has_it_with_its_rivals():
    assert LUO.methods[0].title == "Proposed"
    assert all(profile.methods[:4] == ("two-stage", "unet", "fcn8", "mask-rcnn") for profile in LUO.profiles)


def test_the_two_stages_are_trained_one_after_the_other():
    coarse, fine = LUO.method("two-stage").stages
    assert (coarse.trainable, coarse.forward) == (("coarse",), {"output": "coarse"})
    assert (fine.trainable, fine.forward) == (("fine",), {"output": "fine"})
    assert coarse.loss.options["target"] == "union"
    assert [stage.name for stage in LUO.method("joint").stages] == ["stage 1", "stage 2", "both"]
    assert coarse.loss.build().dice.smoothing == 1e-5
    assert [stage.loss.build().dice.smoothing for stage in LUO.method("epsilon-1").stages] == [1, 1]


def test_networks_are_compared_with_the_same_loss_and_the_same_input():
    """A comparison of two losses would be none of two networks; Mask R-CNN makes a loss of its own."""
    losses = {method.name: method.stages[-1].loss for method in LUO.methods}
    assert losses["fcn8"] == losses["unet"] == losses["two-stage"]
    assert losses["fcn8"] != losses["fcn8-plain"] == losses["dice-present"] == losses["one-stage-present"]
    for name, batch_norm in (("fcn8", True), ("fcn8-plain", False)):
        assert LUO.method(name).build(0.02).batch_norm == batch_norm
    assert LUO.comparisons["fcn8-plain"] == "dice-present"
    pair = "mask-rcnn-enlarged", LUO.comparisons["mask-rcnn-enlarged"]
    assert [LUO.method(name).network.options["enlarge"] for name in pair] == [2, 2]


@pytest.mark.parametrize("profile", [profile.name for profile in LUO.profiles])
@pytest.mark.parametrize("name", ["mask-rcnn", "mask-rcnn-enlarged"])
def test_mask_rcnn_has_anchors_and_instances_for_small_slices(name, profile):
    """At every profile the anchors of a 512 x 512 slice: their sizes and their distance, in parts of the slice."""
    network = LUO.at(profile).method(name).build(0.05)
    side = LUO.profile(profile).matrix[0] * network.enlarge
    assert network.made_for == 512
    size, step = network.anchor_sizes[0] * side / 512, 4 / network.places
    assert step <= 0.67 * size
    if (name, profile) == ("mask-rcnn", "paper"):
        assert (size, step) == (8, 4)


def test_the_rate_falls_every_ten_epochs_or_every_ten_iterations():
    """Profiles with fewer updates have the nine decays of a hundred epochs in each stage."""
    epoch = round(registry.reported("luo2020")["text"]["training_slices"] / LUO.profile("paper").batch_size)
    assert LUO.profile("paper").updates == 100 * epoch
    for profile, schedule in (("paper", (10 * epoch, None)), ("bench", (None, 9)), ("smoke", (None, 9))):
        for method in LUO.at(profile).methods:
            if method.name.endswith("-tuned") or method.name.startswith("nnunet-"):
                continue
            for stage in method.stages:
                assert stage.decay == 0.9
                by_iteration = method.name == "iteration-decay"
                assert (stage.decay_every, stage.decays) == ((10, None) if by_iteration else schedule)


@pytest.mark.parametrize(
    ("name", "profile", "read"),
    [("deeplabv3plus", "bench", False), ("rates-1-2-3", "bench", True), ("deeplabv3plus", "paper", True)],
)
def test_at_small_matrices_the_pyramid_reads_padding(name, profile, read):
    """Kernels of which only the middle meets the map are 1 x 1 convolutions: the other weights have no gradient."""
    torch.manual_seed(0)
    network = XUE.method(name).build(0.05).eval()
    network(torch.rand(1, 1, *XUE.profile(profile).matrix)).sum().backward()
    atrous = [layer for layer in network.pyramid.modules() if getattr(layer, "kernel_size", 0) == (3, 3)]
    assert len(atrous) == 3
    for layer in atrous:
        size = layer.weight.grad.abs().amax(dim=(0, 1))
        middle, outer = size[1, 1].item(), size.flatten()[[0, 1, 2, 3, 5, 6, 7, 8]].max().item()
        assert middle > 0
        assert (outer > 1e-5 * middle) == read


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

"""The U-Nets from MONAI."""

import math

import numpy as np
import pytest
import torch
from network_cases import parameters

from npcrepro.models.baselines.nnunet import PlannedUNet, nnunet_unet, plain_unet, plan_shape


@pytest.mark.parametrize(("unet", "count"), [(plain_unet, 1_978_433), (nnunet_unet, 5_811_105)])
def test_parameters_follow_the_width_all_get_a_gradient_and_logits_have_the_size_of_the_image(unet, count):
    assert parameters(unet(1, 1, 1.0)) == count
    network = unet(1, 1, width=0.25)
    assert parameters(network) < count / 9
    logits = network(torch.randn(2, 1, 32, 48))
    assert logits.shape == (2, 1, 32, 48)
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    assert unet(3, 2, width=0.1, dimensions=3)(torch.zeros(2, 3, 16, 32, 32)).shape == (2, 2, 16, 32, 32)


def test_the_unet_of_today_is_monai_s_with_each_weight_once():
    from monai.networks.nets import DynUNet

    torch.manual_seed(0)
    ours = nnunet_unet(1, 2, width=0.1, levels=3)
    torch.manual_seed(0)
    theirs = DynUNet(2, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[3, 6, 13], res_block=True)
    image = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(ours(image), theirs(image))
    places = [tensor.data_ptr() for tensor in ours.state_dict().values()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(("dimensions", "size"), [(2, (64, 48)), (3, (8, 32, 32))])
def test_the_planned_unet_scores_at_several_sizes_and_reaches_every_weight(dimensions, size):
    torch.manual_seed(0)
    network = PlannedUNet(1, 3, width=0.25, dimensions=dimensions)
    image = torch.randn(2, 1, *size)
    *inner, last = network(image, deep=True)
    torch.testing.assert_close(last, network(image))
    sides = [each.shape[-1] for each in (*inner, last)]
    assert sides == [size[-1] // 2**level for level in reversed(range(len(sides)))]
    sum(each.square().mean() for each in (*inner, last)).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in network.parameters())
    with pytest.raises(ValueError, match="divisible"):
        network(image[..., 1:])


def test_the_plan_of_the_shape_by_hand():
    # One slice of middle size goes in whole, rounded up to what four halvings divide; 72 / 16 is above 4, 72 / 32 not.
    plan = plan_shape([(72, 72), (72, 72), (60, 60)], [(4.0, 4.0), (3.8, 3.8), (9.0, 9.0)], 80 * 80)
    assert (plan.spacing_mm, plan.patch, plan.strides) == ([4.0, 4.0], [80, 80], [[1, 1], *[[2, 2]] * 4])
    # Slices of 4 mm and pixels of 1 mm: halved in the plane, with kernels in the plane, until the spacings are alike.
    plan = plan_shape([(20, 60, 60)], [(4.0, 1.0, 1.0)], 24 * 64 * 64)
    assert plan.strides == [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert plan.kernels[:3] == [[1, 3, 3], [1, 3, 3], [3, 3, 3]]
    # A patch that would show less than a quarter of the image makes the voxels larger.
    plan = plan_shape([(512, 512)], [(1.0, 1.0)], 96 * 96)
    assert 2.6 < plan.spacing_mm[0] < 2.8
    assert plan.patch == [96, 96]


@pytest.mark.parametrize("seed", range(4))
def test_every_plan_fits_its_budget_and_its_network(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, (60, 300, 300), (5, 3))
    spacings = rng.uniform((1.0, 0.4, 0.4), (6.0, 2.0, 2.0), (5, 3))
    budget = int(rng.integers(2_000, 40_000))
    plan = plan_shape(sizes, spacings, budget)
    assert math.prod(plan.patch) <= budget
    median = np.median(sizes * spacings / plan.spacing_mm, axis=0)
    assert math.prod(plan.patch) > 0.05 * median.prod()
    network = PlannedUNet(1, 2, 0.1, 3, plan.strides, plan.kernels)
    assert network(torch.zeros(1, 1, *plan.patch)).shape == (1, 2, *plan.patch)

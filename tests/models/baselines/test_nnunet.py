"""The U-Nets from MONAI."""

import pytest
import torch

from npcrepro.models.baselines.nnunet import nnunet_unet, plain_unet


@pytest.mark.parametrize("unet", [plain_unet, nnunet_unet])
@pytest.mark.parametrize(("dimensions", "size"), [(2, (32, 48)), (3, (16, 32, 32))])
def test_logits_have_the_size_of_the_image(unet, dimensions, size):
    network = unet(3, 2, width=0.1, dimensions=dimensions)
    assert network(torch.zeros(2, 3, *size)).shape == (2, 2, *size)


@pytest.mark.parametrize(("unet", "count"), [(plain_unet, 1_978_433), (nnunet_unet, 5_811_105)])
def test_parameters_follow_the_width_and_all_get_a_gradient(unet, count):
    def parameters(width):
        return sum(parameter.numel() for parameter in unet(1, 1, width).parameters())

    assert parameters(1.0) == count
    assert parameters(0.5) < parameters(1.0) / 3
    network = unet(1, 1, width=0.25)
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_the_unet_of_today_is_monai_s_with_each_weight_once():
    from monai.networks.nets import DynUNet

    torch.manual_seed(0)
    ours = nnunet_unet(1, 2, width=0.1, levels=3)
    torch.manual_seed(0)
    theirs = DynUNet(2, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[3, 6, 13], res_block=True)
    image = torch.randn(1, 1, 16, 16)
    assert torch.equal(ours(image), theirs(image))
    places = [tensor.data_ptr() for tensor in ours.state_dict().values()]
    assert len(set(places)) == len(places)

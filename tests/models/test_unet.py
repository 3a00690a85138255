"""The plain U-Net."""

import pytest
import torch

from npcrepro.models.unet import plain_unet


@pytest.mark.parametrize(("dimensions", "size"), [(2, (32, 48)), (3, (16, 32, 32))])
def test_logits_have_the_size_of_the_image(dimensions, size):
    network = plain_unet(3, 2, width=0.1, dimensions=dimensions)
    assert network(torch.zeros(2, 3, *size)).shape == (2, 2, *size)


def test_parameters_follow_the_width_and_all_get_a_gradient():
    def parameters(width):
        return sum(parameter.numel() for parameter in plain_unet(1, 1, width).parameters())

    assert parameters(1.0) == 1_978_433
    assert parameters(0.5) < parameters(1.0) / 3
    network = plain_unet(1, 1, width=0.25)
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())

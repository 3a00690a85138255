"""Blocks that several networks are made of."""

import pytest
import torch
from torch import nn

from npcrepro.models.blocks import AtrousConv3d, unit


@pytest.mark.parametrize(("kernel", "rates"), [((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (1, 3, 2)), ((1, 3, 3), (1, 2, 4))])
def test_holes_give_what_pytorch_gives(kernel, rates):
    torch.manual_seed(0)
    ours = AtrousConv3d(3, 2, kernel, rates)
    theirs = nn.Conv3d(3, 2, kernel, padding="same", dilation=rates)
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(2, 3, 5, 7, 9)
    inputs = [image.clone().requires_grad_() for _ in range(2)]
    outputs = [ours.on_sorted_voxels(inputs[0]), theirs(inputs[1])]
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sides", "rate", "bfloat16", "sorts"),
    [
        ((4, 12, 12), 2, True, True),
        ((2, 6, 6), 3, True, True),  # padded to 3 x 6 x 6, one and a half times the voxels
        ((1, 3, 3), 2, True, False),  # to 2 x 4 x 4, more than three times
        ((4, 12, 12), 1, True, False),
        ((4, 12, 12), 2, False, False),
    ],
)
def test_voxels_are_sorted_where_a_processor_gains_by_it(monkeypatch, sides, rate, bfloat16, sorts):
    layer, image = AtrousConv3d(1, 1, (3, 3, 3), (rate,) * 3), torch.zeros(1, 1, *sides)
    calls, on_sorted_voxels = [], layer.on_sorted_voxels
    monkeypatch.setattr(layer, "on_sorted_voxels", lambda maps: calls.append(maps.dtype) or on_sorted_voxels(maps))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        found = layer(image)
    assert calls == [torch.bfloat16] * sorts
    assert found.dtype == (torch.bfloat16 if bfloat16 else torch.float32)


def test_a_single_tap_that_reads_far_away_and_a_strided_convolution_that_has_no_holes():
    layer = AtrousConv3d(1, 1, (3, 3, 3), (2, 1, 3))
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[0, 0, 0, 1, 2] = 1.0  # two slices up, three voxels to the right
    image = torch.zeros(1, 1, 4, 2, 8)
    image[0, 0, 0, 1, 6] = 5.0
    expected = torch.zeros_like(image)
    expected[0, 0, 2, 1, 3] = 5.0
    torch.testing.assert_close(layer.on_sorted_voxels(image), expected)
    with pytest.raises(ValueError, match="stride 2 has no holes"):
        unit(1, 2, rate=2, stride=2)

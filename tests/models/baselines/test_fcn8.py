import pytest
import torch
import torch.nn.functional as F
from network_cases import on_meta, parameters, without_gradient

from npcrepro.models.baselines.fcn8 import FCN8, BilinearUpsampling
from npcrepro.models.layers import layer_table


@pytest.mark.parametrize("factor", [2, 8])
def test_upsampling_starts_as_bilinear_interpolation_of_each_channel(factor):
    torch.manual_seed(0)
    score = torch.randn(2, 3, 5, 6)
    enlarged = BilinearUpsampling(3, factor)(score)
    expected = F.interpolate(score, scale_factor=factor, mode="bilinear", align_corners=False)
    assert enlarged.shape == expected.shape
    inner = slice(factor, -factor)
    torch.testing.assert_close(enlarged[..., inner, inner], expected[..., inner, inner])


def test_published_parameters_and_sizes():
    """VGG-16 has 14,714,688 in its convolutions, 102,764,544 and 16,781,312 in fc6 and fc7."""
    network = on_meta(FCN8, 3, 21)
    assert [parameters(part) for part in (network.blocks, network.fc6, network.fc7)] == [
        *(14_714_688, 102_764_544, 16_781_312)
    ]
    scores = (network.score_pool3, network.score_pool4, network.score_fc7)
    assert sum(map(parameters, scores)) == 21 * (256 + 512 + 4096 + 3)
    enlarged = (network.enlarge_fc7, network.enlarge_pool4, network.enlarge_pool3)
    assert sum(map(parameters, enlarged)) == 21**2 * (16 + 16 + 256)
    assert parameters(on_meta(FCN8, 1, 21)) == parameters(network) - 2 * 64 * 9
    rows = layer_table(on_meta(FCN8, 1, 15), (1, 512, 512))
    pools = [row.output for row in rows if row.kind == "MaxPool2d"]
    assert pools == [(64, 256, 256), (128, 128, 128), (256, 64, 64), (512, 32, 32), (512, 16, 16)]
    convolutions = [row.output[0] for row in rows if row.kind == "Conv2d" and row.kernel == (3, 3)]
    assert convolutions == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    sizes = {row.name: row.output for row in rows}
    assert sizes["fc6.0"] == sizes["fc7.0"] == (4096, 16, 16)
    assert sizes["enlarge_fc7"] == sizes["score_pool4"] == (15, 32, 32)
    assert sizes["enlarge_pool4"] == sizes["score_pool3"] == (15, 64, 64)
    assert sizes["enlarge_pool3"] == (15, 512, 512)


def test_other_sizes_are_filled_below_and_on_the_right():
    network, image = FCN8(1, 2, width=0.03).eval(), torch.randn(1, 1, 40, 50)
    torch.testing.assert_close(network(image), network(F.pad(image, (0, 14, 0, 24)))[..., :40, :50])


@pytest.mark.parametrize("batch_norm", [True, False])
def test_gradients_reach_every_parameter(batch_norm):
    torch.manual_seed(0)
    network = FCN8(2, 3, width=0.1, batch_norm=batch_norm)
    assert without_gradient(network, torch.randn(2, 2, 64, 64)) == []


def test_scores_of_fc7_are_in_fp32_where_the_rest_is_in_bf16():
    """Processors with AMX would write past their memory in the gradient of 4,096 by 15 weights in bf16."""
    torch.manual_seed(0)
    network, seen = FCN8(1, 15, width=0.05), {}
    for name in ("score_fc7", "score_pool4"):
        layer = getattr(network, name)
        layer.register_forward_hook(lambda layer, inputs, output, name=name: seen.update({name: output.dtype}))
    image = torch.randn(1, 1, 64, 64)
    expected = torch.autograd.grad(network(image).square().mean(), network.score_fc7.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(network(image).square().mean(), network.score_fc7.weight)[0]
    assert seen == {"score_fc7": torch.float32, "score_pool4": torch.bfloat16}
    torch.testing.assert_close(found, expected, rtol=0.2, atol=0.05 * expected.abs().max().item())

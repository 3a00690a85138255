import pytest
import torch
import torch.nn.functional as F
from network_cases import on_meta, parameters, without_gradient
from torch import nn

from npcrepro.models.layers import layer_table
from npcrepro.models.unet import UNet


class Pointwise(nn.Conv2d):
    """An additional module."""

    def __init__(self, channels):
        super().__init__(channels, channels, 1)


# Base; parameters of five levels, of three, and of five without batch normalisation; billions of multiply-accumulates
# at 512 x 512 of five and of three.
WIDTHS = {
    16: (1_943_761, 117_775, 1_940_817, 12.1, 6.4),
    32: (7_765_409, 467_983, 7_759_521, 48.1, 25.5),
    64: (31_042_369, 1_865_743, 31_030_593, 192.4, 101.5),
}


@pytest.mark.parametrize("base", WIDTHS)
def test_parameters_and_multiply_accumulates(base):
    deep, shallow = on_meta(UNet, 1, 1, base=base), on_meta(UNet, 2, 15, base=base, levels=3)
    macs = [layer_table(network, (channels, 512, 512)) for network, channels in ((deep, 1), (shallow, 2))]
    billions = [round(sum(layer.macs for layer in table) / 1e9, 1) for table in macs]
    plain = on_meta(UNet, 1, 1, base=base, batch_norm=False)
    assert (*map(parameters, (deep, shallow, plain)), *billions) == WIDTHS[base]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())


def test_sizes_of_the_five_levels():
    rows = {layer.name: layer.output for layer in layer_table(on_meta(UNet, 1, 1), (1, 512, 512))}
    for level in range(5):
        expected = (32 * 2**level, 512 // 2**level, 512 // 2**level)
        assert rows[f"down.{level}.3"] == expected
        if level < 4:
            assert rows[f"enlarge.{level}"] == rows[f"up.{level}.3"] == expected
    assert rows["score"] == (1, 512, 512)


@pytest.mark.parametrize(
    ("position", "channels"),
    [("input", [3]), ("skips", [8, 16, 32, 64]), ("bottleneck", [128]), (None, [])],
)
def test_where_an_additional_block_stands(position, channels):
    torch.manual_seed(0)
    network = UNet(3, 2, base=8, block=Pointwise, block_at=position)
    assert [m.in_channels for m in network.modules() if isinstance(m, Pointwise)] == channels
    assert network(torch.zeros(2, 3, 16, 48)).shape == (2, 2, 16, 48)
    assert without_gradient(network, torch.randn(2, 3, 32, 32)) == []


@pytest.mark.parametrize(("levels", "factor", "good", "bad"), [(5, 16, (16, 48), (24, 32)), (3, 4, (4, 20), (32, 30))])
def test_logits_have_the_size_of_the_image_which_has_to_divide(levels, factor, good, bad):
    network = UNet(2, 3, width=0.1, levels=levels)
    assert network(torch.zeros(2, 2, *good)).shape == (2, 3, *good)
    with pytest.raises(ValueError, match=rf"divisible by {factor}, got \({bad[0]}, {bad[1]}\)"):
        network(torch.zeros(1, 2, *bad))


def test_an_enlarged_slice_has_four_pixels_for_each():
    torch.manual_seed(0)
    plain, enlarged = UNet(1, 3, width=0.1, levels=3).eval(), UNet(1, 3, width=0.1, levels=3, enlarge=2).eval()
    enlarged.load_state_dict(plain.state_dict())
    image = torch.randn(2, 1, 6, 8)  # 12 x 16 enlarged, which two poolings divide; 6 by itself is not divisible by 4
    logits = plain(F.interpolate(image, scale_factor=2.0, mode="bilinear"))
    by_hand = logits.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-2, -1))
    torch.testing.assert_close(enlarged(image), by_hand)

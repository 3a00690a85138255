import pytest
import torch
import torch.nn.functional as F
from torch import nn

from npcrepro.models.layers import layer_table
from npcrepro.papers.xue2020.network import DeepLabV3Plus, InvertedResidual, MobileNetV2Trunk

pytest_plugins = ["core_fixtures"]


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def paper(network, *channels, **options):
    with torch.device("meta"):
        return network(*channels, **options)


# Stage by stage: channels, side at 512 with output stride 16 and 8.
STAGES = ((16, 256, 256), (24, 128, 128), (32, 64, 64), (64, 32, 64), (96, 32, 64), (160, 32, 64), (320, 32, 64))


@pytest.mark.parametrize(("output_stride", "column"), [(16, 1), (8, 2)])
def test_stages_of_the_trunk(output_stride, column):
    trunk = paper(MobileNetV2Trunk, 1, output_stride=output_stride)
    stages = trunk(torch.empty(1, 1, 512, 512, device="meta"))
    assert [tuple(maps.shape[1:]) for maps in stages] == [(row[0], row[column], row[column]) for row in STAGES]
    assert [len(stage) for stage in trunk.stages] == [1, 2, 3, 4, 3, 3, 1]
    assert trunk.stem[0].out_channels == 32


@pytest.mark.parametrize(("channels", "expected"), [(1, 1_811_136), (3, 1_811_712)])
def test_parameters_of_the_trunk(channels, expected):
    assert parameters(paper(MobileNetV2Trunk, channels)) == expected
    assert parameters(paper(MobileNetV2Trunk, channels, output_stride=8)) == expected


@pytest.mark.parametrize(("output_stride", "dilations"), [(16, [1, 1, 1, 1, 1, 2, 2]), (8, [1, 1, 1, 2, 2, 4, 4])])
def test_dilation_takes_the_place_of_the_last_strides(output_stride, dilations):
    trunk = paper(MobileNetV2Trunk, 1, output_stride=output_stride)
    for stage, dilation in zip(trunk.stages, dilations, strict=True):
        depthwise = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert {m.dilation for m in depthwise} == {(dilation, dilation)}
        assert {m.padding for m in depthwise} == {(dilation, dilation)}


def test_four_kinds_of_modules():
    modules = [m for m in paper(MobileNetV2Trunk, 1).modules() if isinstance(m, InvertedResidual)]
    assert len(modules) == 17
    assert sum(m.identity for m in modules) == 1 + 2 + 3 + 2 + 2
    strided = [m for m in modules if any(c.stride == (2, 2) for c in m.modules() if isinstance(c, nn.Conv2d))]
    assert len(strided) == 3
    assert not any(m.identity for m in strided)


@pytest.mark.parametrize(
    ("before", "after", "stride", "identity"), [(8, 8, 1, True), (8, 8, 2, False), (8, 12, 1, False)]
)
def test_the_identity_is_added_where_size_and_channels_agree(before, after, stride, identity):
    module = InvertedResidual(before, after, 6, stride, 1).eval()
    nn.init.zeros_(module.layers[-1].weight)
    maps = torch.randn(2, before, 8, 8)
    expected = maps if identity else torch.zeros(2, after, 8 // stride, 8 // stride)
    assert torch.equal(module(maps), expected)


def test_layers_of_an_inverted_residual():
    kinds = [type(layer).__name__ for layer in InvertedResidual(8, 8, 6, 1, 1).layers]
    unit = ["Conv2d", "BatchNorm2d", "ReLU6"]
    assert kinds == [*unit, *unit, "Conv2d", "BatchNorm2d"]
    # Without expansion there is no 1 x 1 convolution in front.
    assert len(InvertedResidual(8, 8, 1, 1, 1).layers) == 5


@pytest.mark.parametrize(
    ("separable", "expected", "macs", "macs_8"), [(True, 2_714_097, 5.48, 12.81), (False, 5_810_337, 26.19, 39.53)]
)
def test_parameters_and_multiply_accumulates_of_the_whole(separable, expected, macs, macs_8):
    for output_stride, billions in ((16, macs), (8, macs_8)):
        network = paper(DeepLabV3Plus, 1, 1, separable=separable, output_stride=output_stride)
        assert parameters(network) == expected
        found = sum(layer.macs for layer in layer_table(network, (1, 512, 512))) / 1e9
        assert found == pytest.approx(billions, rel=0.01)


def test_sizes_of_pyramid_and_decoder():
    rows = {layer.name: layer.output for layer in layer_table(paper(DeepLabV3Plus, 1, 1), (1, 512, 512))}
    assert [rows[f"pyramid.branches.{i}.{last}"] for i, last in ((0, 2), (1, 5), (2, 5), (3, 5))] == [(256, 32, 32)] * 4
    assert rows["pyramid.pooled.2"] == (256, 1, 1)
    assert rows["pyramid.fuse.2"] == (256, 32, 32)
    assert rows["reduce.2"] == (48, 128, 128)
    assert rows["decoder.0.0"] == (304, 128, 128)
    assert rows["decoder.0.5"] == rows["decoder.1.5"] == (256, 128, 128)
    assert rows["score"] == (1, 128, 128)


def test_a_separable_convolution_is_normalised_after_its_depthwise_part():
    kinds = [type(layer).__name__ for layer in paper(DeepLabV3Plus, 1, 1).decoder[0]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2


@pytest.mark.parametrize(
    ("options", "dilations"),
    [
        ({}, [6, 12, 18]),
        ({"output_stride": 8}, [12, 24, 36]),
        ({"rates": (1, 3)}, [1, 3]),
        ({"rates": ()}, []),
        ({"separable": False}, [6, 12, 18]),
    ],
)
def test_rates_of_the_pyramid(options, dilations):
    pyramid = paper(DeepLabV3Plus, 1, 1, **options).pyramid
    found = [m.dilation[0] for m in pyramid.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert found == dilations
    assert pyramid.fuse[0].in_channels == 256 * (len(dilations) + 2)


def test_image_pooling_is_the_mean_of_the_map():
    """With everything else cut off, the pyramid is constant over the map and moves with its mean."""
    torch.manual_seed(0)
    pyramid = DeepLabV3Plus(1, 1, width=0.1).eval().pyramid
    for branch in pyramid.branches:
        nn.init.zeros_(branch[-2].weight)
    maps = torch.rand(1, 32, 4, 6)
    found = pyramid(maps)
    assert found.any()
    torch.testing.assert_close(found, found[:, :, :1, :1].expand_as(found))
    torch.testing.assert_close(found, pyramid(maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)))
    assert not torch.allclose(found, pyramid(2 * maps))


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(48, 64), (33, 50)])
def test_logits_have_the_size_of_the_image(size, output_stride):
    network = DeepLabV3Plus(2, 3, width=0.1, output_stride=output_stride)
    assert network(torch.zeros(2, 2, *size)).shape == (2, 3, *size)


def test_width_scales_all_inner_channels():
    network = paper(DeepLabV3Plus, 1, 1, width=0.5)
    assert network.trunk.channels == [8, 12, 16, 32, 48, 80, 160]
    assert (network.trunk.stem[0].out_channels, network.reduce[0].out_channels) == (16, 24)
    assert network.decoder[1][-3].out_channels == 128
    assert paper(MobileNetV2Trunk, 1, width=0.001).channels == [1] * 7


@pytest.mark.parametrize("options", [{}, {"separable": False}, {"output_stride": 8}])
def test_gradients_reach_every_parameter(options):
    torch.manual_seed(0)
    network = DeepLabV3Plus(2, 3, width=0.1, **options)
    network(torch.randn(2, 2, 32, 32)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("part", ["pyramid.fuse", "reduce"])
def test_deep_and_low_level_features_alone_tell_two_images_apart(part):
    torch.manual_seed(0)
    network = DeepLabV3Plus(1, 2, width=0.2).eval()
    other = {"pyramid.fuse": "reduce", "reduce": "pyramid.fuse"}[part]
    nn.init.zeros_(network.get_submodule(other)[-2].weight)
    image = torch.randn(2, 1, 64, 64)
    assert not torch.allclose(*network(image))
    nn.init.zeros_(network.get_submodule(part)[-2].weight)
    assert torch.equal(*network(image))


def test_he_initialisation():
    """The fan-in of a depthwise convolution is that of its one channel."""
    torch.manual_seed(0)
    network = DeepLabV3Plus(1, 1)
    pointwise, depthwise = network.pyramid.fuse[0].weight, network.decoder[0][0].weight
    assert pointwise.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)
    assert depthwise.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)
    assert not network.score.bias.any()


def test_the_same_seed_gives_the_same_network():
    logits = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        logits.append(DeepLabV3Plus(1, 2, width=0.1)(torch.ones(2, 1, 32, 32).tril()))
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


def test_a_training_batch_of_one_is_an_error():
    image = torch.randn(1, 1, 32, 32)
    network = DeepLabV3Plus(1, 1, width=0.1)
    with pytest.raises(ValueError, match="at least two images in a training batch"):
        network(image)
    assert network.eval()(image).shape == image.shape


@pytest.mark.parametrize("output_stride", [4, 32])
def test_an_unknown_output_stride_is_an_error(output_stride):
    with pytest.raises(ValueError, match=f"output stride {output_stride}; choices: 8, 16"):
        DeepLabV3Plus(1, 1, output_stride=output_stride)


def test_one_case_of_a_left_and_a_right_structure_can_be_learnt_by_heart():
    """In training mode: of two maps of 3 x 3 the running variance is above that of the batch, layer upon layer."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    left = ((y - 24) ** 2 + (x - 12) ** 2 <= 144) & (x <= 12)
    label = torch.stack([left, left.flip(1)]).float()[None].repeat(2, 1, 1, 1)
    image = label.sum(dim=1, keepdim=True)
    target = torch.cat([1 - image, label], dim=1).argmax(dim=1)
    image = image + 0.1 * torch.randn(image.shape)
    network = DeepLabV3Plus(1, 3, width=0.1)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(network(image), target).backward()
        optimiser.step()
    found = F.one_hot(network(image).argmax(dim=1), 3).permute(0, 3, 1, 2)[:, 1:]
    dsc = 2 * (found * label).sum(dim=(0, 2, 3)) / (found + label).sum(dim=(0, 2, 3))
    assert (dsc > 0.95).all()

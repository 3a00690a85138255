import pytest
import torch
import torch.nn.functional as F
from network_cases import (
    dice,
    learn,
    mirrored_half_discs,
    on_meta,
    parameters,
    structures_of,
    with_background,
    without_gradient,
)
from torch import nn

from npcrepro.models.layers import layer_table
from npcrepro.papers.xue2020.network import DeepLabV3Plus, InvertedResidual, MobileNetV2Trunk

# Stage by stage: channels, side at 512 with output stride 16 and 8.
STAGES = ((16, 256, 256), (24, 128, 128), (32, 64, 64), (64, 32, 64), (96, 32, 64), (160, 32, 64), (320, 32, 64))


@pytest.mark.parametrize(
    ("output_stride", "column", "dilations"), [(16, 1, [1, 1, 1, 1, 1, 2, 2]), (8, 2, [1, 1, 1, 2, 2, 4, 4])]
)
def test_stages_of_the_trunk(output_stride, column, dilations):
    """Dilation takes the place of the last strides."""
    trunk = on_meta(MobileNetV2Trunk, 1, output_stride=output_stride)
    stages = trunk(torch.empty(1, 1, 512, 512, device="meta"))
    assert [tuple(maps.shape[1:]) for maps in stages] == [(row[0], row[column], row[column]) for row in STAGES]
    assert [len(stage) for stage in trunk.stages] == [1, 2, 3, 4, 3, 3, 1]
    assert (trunk.stem[0].out_channels, parameters(trunk)) == (32, 1_811_136)
    for stage, dilation in zip(trunk.stages, dilations, strict=True):
        depthwise = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert {(m.dilation, m.padding) for m in depthwise} == {((dilation, dilation), (dilation, dilation))}


@pytest.mark.parametrize(
    ("before", "after", "stride", "identity"), [(8, 8, 1, True), (8, 8, 2, False), (8, 12, 1, False)]
)
def test_the_identity_is_added_where_size_and_channels_agree(before, after, stride, identity):
    module = InvertedResidual(before, after, 6, stride, 1).eval()
    nn.init.zeros_(module.layers[-1].weight)
    maps = torch.randn(2, before, 8, 8)
    expected = maps if identity else torch.zeros(2, after, 8 // stride, 8 // stride)
    torch.testing.assert_close(module(maps), expected)


@pytest.mark.parametrize(
    ("separable", "expected", "macs", "macs_8"), [(True, 2_714_097, 5.48, 12.81), (False, 5_810_337, 26.19, 39.53)]
)
def test_parameters_and_multiply_accumulates_of_the_whole(separable, expected, macs, macs_8):
    for output_stride, billions in ((16, macs), (8, macs_8)):
        network = on_meta(DeepLabV3Plus, 1, 1, separable=separable, output_stride=output_stride)
        assert parameters(network) == expected
        found = sum(layer.macs for layer in layer_table(network, (1, 512, 512))) / 1e9
        assert found == pytest.approx(billions, rel=0.01)


def test_sizes_of_pyramid_and_decoder():
    rows = {layer.name: layer.output for layer in layer_table(on_meta(DeepLabV3Plus, 1, 1), (1, 512, 512))}
    assert [rows[f"pyramid.branches.{i}.{last}"] for i, last in ((0, 2), (1, 5), (2, 5), (3, 5))] == [(256, 32, 32)] * 4
    assert (rows["pyramid.pooled.2"], rows["pyramid.fuse.2"]) == ((256, 1, 1), (256, 32, 32))
    assert (rows["reduce.2"], rows["decoder.0.0"]) == ((48, 128, 128), (304, 128, 128))
    assert rows["decoder.0.5"] == rows["decoder.1.5"] == (256, 128, 128)
    assert rows["score"] == (1, 128, 128)


@pytest.mark.parametrize(
    ("options", "dilations"),
    [({}, [6, 12, 18]), ({"output_stride": 8, "separable": False}, [12, 24, 36]), ({"rates": (1, 3)}, [1, 3])],
)
def test_rates_of_the_pyramid(options, dilations):
    pyramid = on_meta(DeepLabV3Plus, 1, 1, **options).pyramid
    found = [m.dilation[0] for m in pyramid.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert found == dilations
    assert pyramid.fuse[0].in_channels == 256 * (len(dilations) + 2)


def test_without_the_pyramid_one_convolution_is_in_its_place():
    whole, plain = on_meta(DeepLabV3Plus, 1, 1), on_meta(DeepLabV3Plus, 1, 1, pyramid=False)
    rows = {layer.name: layer.output for layer in layer_table(plain, (1, 512, 512))}
    assert [rows[name] for name in rows if name.startswith("pyramid")] == [(256, 32, 32)] * 3
    assert (rows["decoder.0.0"], rows["score"]) == ((304, 128, 128), (1, 128, 128))
    # 320 x 256 weights, and scale and shift of 256 channels; nothing else is another.
    assert parameters(plain) == 2_045_617 == parameters(whole) - parameters(whole.pyramid) + 320 * 256 + 2 * 256
    # No image pooling, so that a batch of one can be trained.
    assert DeepLabV3Plus(1, 1, width=0.1, pyramid=False)(torch.zeros(1, 1, 48, 64)).shape == (1, 1, 48, 64)


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, (48, 64)), ({"separable": False}, (32, 32)), ({"output_stride": 8}, (33, 50)), ({"pyramid": False}, (9, 9))],
)
def test_logits_have_the_size_of_the_image_and_gradients_reach_every_parameter(options, size):
    torch.manual_seed(0)
    network = DeepLabV3Plus(2, 3, width=0.25, **options)
    assert network(torch.zeros(2, 2, *size)).shape == (2, 3, *size)
    assert without_gradient(network, torch.randn(2, 2, 64, 64)) == []


def test_a_training_batch_of_one_and_an_unknown_output_stride_are_errors():
    image, network = torch.randn(1, 1, 32, 32), DeepLabV3Plus(1, 1, width=0.1)
    with pytest.raises(ValueError, match="at least two images in a training batch"):
        network(image)
    assert network.eval()(image).shape == image.shape
    with pytest.raises(ValueError, match="output stride 4; choices: 8, 16"):
        DeepLabV3Plus(1, 1, output_stride=4)


def test_one_case_of_a_left_and_a_right_structure_can_be_learnt_by_heart():
    """In training mode: of two maps of 3 x 3 the running variance is above that of the batch, layer upon layer."""
    torch.manual_seed(0)
    image, label = (each.repeat(2, 1, 1, 1) for each in mirrored_half_discs(48))
    network = DeepLabV3Plus(1, 3, width=0.1)
    learn(network, image, lambda logits: F.cross_entropy(logits, with_background(label)), 80)
    assert (dice(structures_of(network(image)), label) > 0.95).all()

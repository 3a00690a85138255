import pytest
import torch
import torch.nn.functional as F
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.models.layers import layer_table
from npcrepro.papers.luo2020.network import OUTSIDE_LOGIT, MultiScalePooling, MultiScaleUNet, TwoStageUNet

pytest_plugins = ["core_fixtures"]

POSITIONS = ["bottleneck", "input", "skips", None]
INPUTS = ["both", "map", "masked", "crop"]


def UNet(*channels, multi_scale=None, **options):
    return MultiScaleUNet(*channels, multi_scale=multi_scale, **options)


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def paper_unet(*channels, **options):
    with torch.device("meta"):
        return UNet(*channels, **options)


def fusions(network) -> int:
    return sum(parameters(module) for module in network.modules() if isinstance(module, MultiScalePooling))


def mirrored_half_discs(size=32):
    """An image of two half discs that turn their backs to each other, and their labels as two structures."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    left = ((y - size / 2) ** 2 + (x - size / 4) ** 2 <= (size / 4) ** 2) & (x <= size / 4)
    label = torch.stack([left, left.flip(1)]).float()[None]
    return label.sum(dim=1, keepdim=True), label


class Fixed(nn.Module):
    """Stands for a first stage: the same logits whatever the image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, image):
        return self.logits


class Seen(nn.Module):
    """Stands for a second stage: keeps what it is given and answers with its sum over channels."""

    factor = 4

    def __init__(self, out_channels=1):
        super().__init__()
        self.out_channels, self.given = out_channels, []

    def forward(self, maps):
        self.given.append(maps)
        return maps.sum(dim=1, keepdim=True).repeat(1, self.out_channels, 1, 1)


def with_stand_ins(logits, out_channels=1, **options):
    network = TwoStageUNet(2, out_channels, width=0.05, **options)
    network.coarse, network.fine = Fixed(logits), Seen(out_channels)
    return network


# --- Multi-scale pooling -----------------------------------------------------------------------------------------


def test_poolings_by_hand():
    block = MultiScalePooling(1)
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    one, three, five, seven = (pool(maps)[0, 0] for pool in block.pools)
    assert torch.equal(one, maps[0, 0])
    assert three[0, 0] == (0 + 1 + 4 + 5) / 4  # a corner has four pixels in sight
    assert three[1, 1] == maps[0, 0, :3, :3].mean()
    assert five[0, 0] == maps[0, 0, :3, :3].mean()
    assert seven[0, 0] == maps.mean()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 8)])
def test_a_constant_map_stays_constant_up_to_the_border(size):
    maps = torch.full((2, 3, *size), 0.7)
    for pool in MultiScalePooling(3).pools:
        torch.testing.assert_close(pool(maps), maps)


def test_the_block_can_become_any_weighting_of_its_poolings():
    block = MultiScalePooling(2)
    with torch.no_grad():
        block.fuse.weight.zero_()
        block.fuse.bias.zero_()
        for channel in range(2):
            block.fuse.weight[channel, 3 * 2 + channel] = 1.0  # channels of the fourth pooling
    maps = torch.randn(1, 2, 5, 9)
    torch.testing.assert_close(block(maps), F.avg_pool2d(maps, 7, 1, 3, count_include_pad=False))


def test_only_the_fusion_has_parameters():
    assert parameters(MultiScalePooling(8)) == 4 * 8 * 8 + 8
    assert parameters(MultiScalePooling(8, kernels=(1, 5))) == 2 * 8 * 8 + 8


def test_an_even_kernel_is_an_error():
    with pytest.raises(ValueError, match=r"odd to keep the size, got \(1, 2\)"):
        MultiScalePooling(1, kernels=(1, 2))


# --- U-Net -------------------------------------------------------------------------------------------------------


# Base; parameters and billions of multiply-accumulates at 512 x 512 of the first and of the second stage.
WIDTHS = {
    16: (1_943_761, 117_775, 12.1, 6.4),
    32: (7_765_409, 467_983, 48.1, 25.5),
    64: (31_042_369, 1_865_743, 192.4, 101.5),
}


@pytest.mark.parametrize("multi_scale", ["bottleneck", None])
@pytest.mark.parametrize("base", WIDTHS)
def test_parameters_besides_the_fusions(base, multi_scale):
    deep = paper_unet(1, 1, base=base, multi_scale=multi_scale)
    shallow = paper_unet(2, 15, base=base, levels=3, multi_scale=multi_scale)
    assert (parameters(deep) - fusions(deep), parameters(shallow) - fusions(shallow)) == WIDTHS[base][:2]
    channels = {"bottleneck": (16 * base, 4 * base), None: (0, 0)}[multi_scale]
    assert (fusions(deep), fusions(shallow)) == tuple(4 * c * c + c for c in channels)


@pytest.mark.parametrize("base", WIDTHS)
def test_multiply_accumulates(base):
    for network, shape, expected in (
        (paper_unet(1, 1, base=base, multi_scale=None), (1, 512, 512), WIDTHS[base][2]),
        (paper_unet(2, 15, base=base, levels=3, multi_scale=None), (2, 512, 512), WIDTHS[base][3]),
    ):
        assert round(sum(layer.macs for layer in layer_table(network, shape)) / 1e9, 1) == expected


@pytest.mark.parametrize(("base", "expected"), [(64, 31_030_593), (32, 7_759_521), (16, 1_940_817)])
def test_parameters_without_batch_normalisation(base, expected):
    network = paper_unet(1, 1, base=base, multi_scale=None, batch_norm=False)
    assert parameters(network) == expected
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_sizes_of_the_five_levels():
    table = layer_table(paper_unet(1, 1, multi_scale="bottleneck"), (1, 512, 512))
    pooled = [layer.output for layer in table if layer.kind == "MaxPool2d"]
    assert pooled == [(32 * 2**level, 256 // 2**level, 256 // 2**level) for level in range(4)]
    rows = {layer.name: layer.output for layer in table}
    for level in range(5):
        expected = (32 * 2**level, 512 // 2**level, 512 // 2**level)
        assert rows[f"down.{level}.3"] == expected
        if level < 4:
            assert rows[f"enlarge.{level}"] == rows[f"up.{level}.3"] == expected
    assert rows["bottleneck_block.fuse"] == (512, 32, 32)
    assert rows["score"] == (1, 512, 512)


def test_every_3x3_convolution_is_followed_by_batch_normalisation_and_relu():
    layers = [layer for layer in layer_table(paper_unet(1, 1), (1, 64, 64)) if layer.kind != "Identity"]
    convolutions = [i for i, layer in enumerate(layers) if layer.kernel == (3, 3) and layer.kind == "Conv2d"]
    assert len(convolutions) == 18
    for i in convolutions:
        assert [layer.kind for layer in layers[i + 1 : i + 3]] == ["BatchNorm2d", "ReLU"]


@pytest.mark.parametrize(
    ("multi_scale", "extra"),
    [("input", [3]), ("skips", [8, 16, 32, 64]), ("bottleneck", [128]), (None, [])],
)
def test_where_the_block_stands(multi_scale, extra):
    network = UNet(3, 2, base=8, multi_scale=multi_scale)
    assert fusions(network) == sum(4 * c * c + c for c in extra)
    fused = [layer for layer in layer_table(network, (3, 32, 48)) if layer.name.endswith("fuse")]
    assert [layer.output[0] for layer in fused] == extra
    if multi_scale == "input":
        assert fused[0].output == (3, 32, 48)


@pytest.mark.parametrize("multi_scale", POSITIONS)
@pytest.mark.parametrize(("levels", "size"), [(5, (16, 48)), (3, (4, 20)), (1, (5, 7))])
def test_logits_have_the_size_of_the_image(levels, size, multi_scale):
    network = UNet(2, 3, width=0.1, levels=levels, multi_scale=multi_scale)
    assert network(torch.zeros(2, 2, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize(("levels", "factor", "size"), [(5, 16, (24, 32)), (3, 4, (32, 30))])
def test_a_size_that_does_not_divide_is_an_error(levels, factor, size):
    with pytest.raises(ValueError, match=rf"divisible by {factor}, got \({size[0]}, {size[1]}\)"):
        UNet(1, 1, width=0.1, levels=levels)(torch.zeros(1, 1, *size))


def test_width_scales_the_base():
    network = paper_unet(1, 1, width=0.3, base=32)
    assert [level[0].out_channels for level in network.down] == [10, 20, 40, 80, 160]
    assert paper_unet(1, 1, width=0.001).down[0][0].out_channels == 1


@pytest.mark.parametrize("multi_scale", POSITIONS)
def test_gradients_reach_every_parameter(multi_scale):
    """In evaluation mode, because batch normalisation in training takes the biases in front of it out again."""
    torch.manual_seed(0)
    network = UNet(2, 3, width=0.1, multi_scale=multi_scale).eval()
    network(torch.randn(2, 2, 32, 32)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_skips_carry_fine_features_past_the_bottleneck():
    torch.manual_seed(0)
    network = UNet(1, 1, width=0.1).eval()
    image = torch.randn(2, 1, 32, 32)
    for cut in (0, 1):
        nn.init.zeros_(network.enlarge[cut].weight)
        first, second = network(image)
        assert not torch.allclose(first, second)
    # With all skips cut as well nothing of the image is left.
    network.skip_blocks = nn.ModuleList(Zero() for _ in range(4))
    first, second = network(image)
    assert torch.equal(first, second)


class Zero(nn.Module):
    def forward(self, maps):
        return torch.zeros_like(maps)


@pytest.mark.parametrize(
    ("levels", "multi_scale", "pixels", "size"),
    [(3, None, 44, 96), (3, "bottleneck", 68, 96), (5, None, 188, 320), (5, "bottleneck", 284, 320)],
)
def test_pixels_in_sight_of_one_logit(levels, multi_scale, pixels, size):
    """Through average pooling and positive weights, so that every pixel in sight has a gradient."""
    network = UNet(1, 1, width=0.01, levels=levels, multi_scale=multi_scale).eval().double()
    network.pool = nn.AvgPool2d(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
    image = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    network(image)[0, 0, size // 2, size // 2].backward()
    seen = image.grad[0, 0] != 0
    assert seen.any(dim=0).sum() == seen.any(dim=1).sum() == pixels


def test_an_enlarged_slice_has_four_pixels_for_each():
    torch.manual_seed(0)
    plain, enlarged = UNet(1, 3, width=0.1, levels=3).eval(), UNet(1, 3, width=0.1, levels=3, enlarge=2).eval()
    enlarged.load_state_dict(plain.state_dict())
    image = torch.randn(2, 1, 6, 8)  # 12 x 16 enlarged, which two poolings divide; 6 by itself is not divisible by 4
    logits = plain(F.interpolate(image, scale_factor=2.0, mode="bilinear"))
    by_hand = logits.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-2, -1))
    assert enlarged(image).shape == (2, 3, 6, 8)
    torch.testing.assert_close(enlarged(image), by_hand)


def test_both_stages_see_enlarged_slices():
    network = TwoStageUNet(1, 3, width=0.1, enlarge=2)
    assert network.coarse.enlarge_image == network.fine.enlarge_image == 2
    assert [maps.shape for maps in network(torch.zeros(2, 1, 16, 16), output="both")] == [
        (2, 1, 16, 16),
        (2, 3, 16, 16),
    ]


def test_he_initialisation():
    torch.manual_seed(0)
    network = UNet(1, 1, base=16, multi_scale="bottleneck")
    for layer, fan_in in (
        (network.down[4][3], 256 * 9),
        (network.enlarge[3], 256),
        (network.bottleneck_block.fuse, 1024),
    ):
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert len(biases) == 18 * 2 + 4 + 2
    assert not any(p.any() for p in biases)


def test_the_same_seed_gives_the_same_network():
    logits = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        logits.append(UNet(1, 2, width=0.1)(torch.ones(2, 1, 32, 32).tril()))
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


def test_a_misspelt_position_names_the_near_miss():
    with pytest.raises(InputError, match="did you mean 'skips'"):
        UNet(1, 1, multi_scale="skip")


# --- Two stages --------------------------------------------------------------------------------------------------


def test_the_two_stages_of_the_paper():
    with torch.device("meta"):
        network = TwoStageUNet(1, 15)
    assert parameters(network.coarse) - fusions(network.coarse) == 7_765_409
    assert parameters(network.fine) - fusions(network.fine) == 467_983
    assert parameters(network) == 7_765_409 + 467_983 + (4 * 512 * 512 + 512) + (4 * 128 * 128 + 128)
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"coarse", "fine"}
    assert (len(network.coarse.down), len(network.fine.down)) == (5, 3)


@pytest.mark.parametrize("stage2_input", INPUTS)
@pytest.mark.parametrize("training", [True, False])
def test_shapes_of_the_outputs(stage2_input, training):
    network = TwoStageUNet(2, 4, width=0.1, stage2_input=stage2_input).train(training)
    image = torch.randn(2, 2, 32, 48)
    coarse_shape = (2, 1, 32, 48)
    assert network(image).shape == (2, 4, 32, 48)
    assert network(image, output="coarse").shape == coarse_shape
    assert [logits.shape for logits in network(image, output="both")] == [coarse_shape, (2, 4, 32, 48)]


def test_both_are_the_outputs_of_the_stages():
    network = TwoStageUNet(1, 2, width=0.1).eval()
    image = torch.randn(1, 1, 32, 32)
    coarse, fine = network(image, output="both")
    assert torch.equal(coarse, network(image, output="coarse"))
    assert torch.equal(fine, network(image))


def test_the_coarse_output_does_not_run_the_second_stage():
    network = TwoStageUNet(1, 2, width=0.1)
    network.fine = Seen()
    network(torch.zeros(2, 1, 32, 32), output="coarse")
    assert network.fine.given == []


@pytest.mark.parametrize(("stage2_input", "channels"), [("both", 3), ("map", 1), ("masked", 2), ("crop", 2)])
def test_channels_that_the_second_stage_receives(stage2_input, channels):
    network = TwoStageUNet(2, 5, width=0.1, stage2_input=stage2_input)
    assert network.fine.down[0][0].in_channels == channels


def test_what_the_second_stage_receives():
    logits, image = torch.randn(1, 1, 8, 8), torch.randn(1, 2, 8, 8)
    expected = {
        "both": torch.cat([image, logits.sigmoid()], dim=1),
        "map": logits.sigmoid(),
        "masked": image * logits.sigmoid(),
    }
    for stage2_input, maps in expected.items():
        network = with_stand_ins(logits, stage2_input=stage2_input)
        network(image)
        torch.testing.assert_close(network.fine.given[0], maps)


def disc_logits(rows, columns, size=64):
    logits = torch.full((1, 1, size, size), -5.0)
    logits[:, :, rows, columns] = 5.0
    return logits


# Box of rows 21 to 30 and columns 41 to 42, four pixels around, then out to multiples of four.
BOX = (slice(16, 36), slice(36, 48))


@pytest.mark.parametrize(("activation", "background"), [("sigmoid", OUTSIDE_LOGIT), ("softmax", 0.0)])
def test_a_crop_is_the_box_and_outside_is_background(activation, background):
    image = torch.randn(1, 2, 64, 64)
    network = with_stand_ins(disc_logits(slice(21, 31), slice(41, 43)), 3, stage2_input="crop", activation=activation)
    logits = network(image)
    (given,) = network.fine.given
    assert torch.equal(given, image[:, :, BOX[0], BOX[1]])
    assert torch.equal(logits[:, 2:, BOX[0], BOX[1]], given.sum(dim=1, keepdim=True))
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[BOX] = False
    assert (logits[0, 0][outside] == background).all()
    assert (logits[0, 1:, outside] == OUTSIDE_LOGIT).all()


def test_a_box_ends_at_the_border():
    image = torch.randn(1, 2, 64, 64)
    network = with_stand_ins(disc_logits(slice(1, 3), slice(62, 64)), stage2_input="crop")
    network(image)
    assert torch.equal(network.fine.given[0], image[:, :, :8, 56:])


def test_the_margin_grows_with_the_image():
    image = torch.randn(1, 2, 256, 256)
    network = with_stand_ins(disc_logits(slice(100, 110), slice(40, 60), size=256), stage2_input="crop")
    network(image)
    assert torch.equal(network.fine.given[0], image[:, :, 92:120, 32:68])


def test_an_empty_map_leaves_the_whole_image():
    image = torch.randn(1, 2, 64, 64)
    network = with_stand_ins(torch.full((1, 1, 64, 64), -5.0), stage2_input="crop")
    network(image)
    assert torch.equal(network.fine.given[0], image)


def test_boxes_are_of_the_batch_in_training_and_of_the_image_in_evaluation():
    image = torch.randn(2, 2, 64, 64)
    logits = torch.cat([disc_logits(slice(21, 31), slice(41, 43)), disc_logits(slice(5, 7), slice(41, 43))])
    network = with_stand_ins(logits, stage2_input="crop")
    network(image)
    assert [tuple(maps.shape) for maps in network.fine.given] == [(2, 2, 36, 12)]
    network.eval().fine.given.clear()
    network(image)
    assert [tuple(maps.shape) for maps in network.fine.given] == [(1, 2, 20, 12), (1, 2, 12, 12)]
    assert torch.equal(network.fine.given[1], image[1:, :, 0:12, 36:48])


@pytest.mark.parametrize("stage2_input", INPUTS)
def test_a_result_does_not_depend_on_the_images_beside_it(stage2_input):
    torch.manual_seed(0)
    network = TwoStageUNet(1, 3, width=0.1, stage2_input=stage2_input).eval()
    image = torch.randn(3, 1, 32, 32)
    alone = torch.cat([network(one[None]) for one in image])
    torch.testing.assert_close(network(image), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage2_input", INPUTS)
def test_the_final_loss_reaches_the_first_stage_through_its_map(stage2_input):
    torch.manual_seed(0)
    network = TwoStageUNet(1, 3, width=0.1, stage2_input=stage2_input).eval()
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert all(p.grad.any() for p in network.fine.parameters())
    reached = [p.grad is not None and bool(p.grad.any()) for p in network.coarse.parameters()]
    assert all(reached) if stage2_input != "crop" else not any(reached)


def test_a_crop_lets_gradients_through_to_the_image_inside_the_box():
    image = torch.randn(1, 2, 64, 64, requires_grad=True)
    network = with_stand_ins(disc_logits(slice(21, 31), slice(41, 43)), stage2_input="crop")
    network(image).sum().backward()
    expected = torch.zeros(64, 64)
    expected[BOX] = 1.0
    assert torch.equal(image.grad[0, 0], expected)


@pytest.mark.parametrize("stage2_input", INPUTS)
def test_one_case_of_a_left_and_a_right_structure_can_be_learnt_by_heart(stage2_input):
    torch.manual_seed(0)
    image, label = mirrored_half_discs()
    target = torch.cat([1 - image, label], dim=1).argmax(dim=1)
    image = image + 0.1 * torch.randn(image.shape)
    network = TwoStageUNet(1, 3, width=0.25, stage2_input=stage2_input)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(network(image), target).backward()
        optimiser.step()
    found = F.one_hot(network.eval()(image).argmax(dim=1), 3).permute(0, 3, 1, 2)[:, 1:]
    dsc = 2 * (found * label).sum(dim=(0, 2, 3)) / (found + label).sum(dim=(0, 2, 3))
    assert (dsc > 0.95).all()


def test_an_unknown_output_is_an_error():
    with pytest.raises(ValueError, match="unknown output 'corse'"):
        TwoStageUNet(1, 2, width=0.1)(torch.zeros(1, 1, 16, 16), output="corse")


@pytest.mark.parametrize(
    ("options", "near"),
    [
        ({"stage2_input": "mask"}, "masked"),
        ({"activation": "sigmoyd"}, "sigmoid"),
    ],
)
def test_a_misspelt_option_names_the_near_miss(options, near):
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        TwoStageUNet(1, 2, width=0.1, **options)

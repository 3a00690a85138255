import pytest
import torch
import torch.nn.functional as F
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.models.baselines.deeplab3d import DeepLabV3
from npcrepro.models.baselines.vnet import VNet
from npcrepro.models.blocks import unit
from npcrepro.models.layers import layer_table, receptive_field
from npcrepro.papers.guo2021.losses import DistanceFocalLoss
from npcrepro.papers.guo2021.network import ACDNet, BUNet, ConcatenatedConvolutions, JointCascade

BLOCK = (8, 24, 24)
REPLACES = {"position": "replaces convolutions"}
SHALLOW = {"blocks": 2, "layers": 2}

# Each network with the channels of its input.
NETWORKS = {
    "bunet": (BUNet, 1, {}),
    "cnn": (BUNet, 1, {"skips": False}),
    "acdnet": (ACDNet, 2, {}),
    "acdnet, image alone": (ACDNet, 1, SHALLOW),
    "acdnet, map alone": (ACDNet, 2, {"uses_image": False, **SHALLOW}),
    "acdnet, pyramids as layers": (ACDNet, 2, {**REPLACES, **SHALLOW}),
    "joint": (JointCascade, 1, {}),
    "deeplab": (DeepLabV3, 1, {}),
    "deeplab, stride 4": (DeepLabV3, 1, {"output_stride": 4}),
    "v-net": (VNet, 1, {"halvings": 3}),
}


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def at_full_width(kind, *channels, **options):
    with torch.device("meta"):
        return kind(*channels, **options)


def small(name, width=0.25):
    kind, channels, options = NETWORKS[name]
    torch.manual_seed(0)
    return kind(channels, 2, width=width, **options), channels


@pytest.fixture(params=NETWORKS)
def network(request):
    """The network at a quarter of its width, and the channels it takes."""
    return small(request.param)


def ellipsoid(size, radii):
    """bool ``(2, 1, *size)``: one in the first of two blocks."""
    axes = torch.meshgrid(*(torch.arange(n) - n / 2 for n in size), indexing="ij")
    inside = sum((axis / radius) ** 2 for axis, radius in zip(axes, radii, strict=True)) <= 1
    return torch.stack([inside, torch.zeros_like(inside)])[:, None]


def with_maps(label):
    """Noisy images of a label and, behind them, blurred maps of it."""
    torch.manual_seed(1)
    image = label.float() + 0.3 * torch.randn(label.shape)
    return torch.cat([image, F.avg_pool3d(label.float(), 3, stride=1, padding=1)], dim=1)


# --- Counts and sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (at_full_width(BUNet, 1, 2), 1_401_986),
        (at_full_width(BUNet, 1, 2, base=32), 5_602_562),
        (at_full_width(ACDNet, 2, 2), 1_017_892),
        (at_full_width(ACDNet, 1, 2), 1_017_892 - 27 * 32),
        (at_full_width(ACDNet, 2, 2, uses_image=False), 1_017_892 - 27 * 32),
        (at_full_width(JointCascade, 1, 2), 1_401_986 + 1_017_892),
        (at_full_width(BUNet, 1, 2, skips=False), 1_401_986 - 27 * (64**2 + 32**2 + 16**2)),
        (at_full_width(DeepLabV3, 1, 2), 3_518_914),
        (at_full_width(VNet, 1, 2), 45_597_898),
        (at_full_width(VNet, 1, 2, halvings=3), 12_237_130),
    ],
)
def test_parameters(network, expected):
    assert parameters(network) == expected


def acdnet_formula(channels, stem, blocks, layers, growth, rates, branch, compression):
    """The parameters by the formula of the specification: 27 c k + k + 2 k for a layer, and so on."""
    total, c = 27 * channels * stem + 3 * stem, stem
    for _ in range(blocks):
        for _ in range(layers):
            total, c = total + 27 * c * growth + 3 * growth, c + growth
        total, c = total + rates * (27 * c * branch + 3 * branch), c + rates * branch
        kept = round(c * compression)
        total, c = total + c * kept + 3 * kept, kept
    return total + 2 * c + 2


@pytest.mark.parametrize(
    ("stem", "blocks", "layers", "growth", "rates", "branch", "compression"),
    [(32, 3, 4, 16, 3, 16, 0.5), (24, 2, 3, 8, 2, 12, 0.5), (16, 1, 5, 4, 1, 6, 0.25)],
)
def test_parameters_of_acdnet_by_the_formula(stem, blocks, layers, growth, rates, branch, compression):
    options = {"stem": stem, "blocks": blocks, "layers": layers, "growth": growth, "compression": compression}
    network = at_full_width(ACDNet, 2, 2, rates=range(1, rates + 1), pyramid_channels=branch, **options)
    assert parameters(network) == acdnet_formula(2, stem, blocks, layers, growth, rates, branch, compression)


def test_pyramids_as_layers_cost_as_much_as_plain_ones():
    """The rates share a layer's growth, so that only the rates differ from a block without a pyramid."""
    replaced, plain = (at_full_width(ACDNet, 2, 2, rates=rates, **REPLACES) for rates in ((1, 2, 3), (1,)))
    assert parameters(replaced) == parameters(plain)
    assert parameters(replaced) == acdnet_formula(2, 32, 3, 4, 16, 0, 0, 0.5)
    assert [each[0].out_channels for each in replaced.blocks[0][0].units] == [6, 5, 5]


def test_rates_do_not_change_the_count_but_0_does():
    counts = [
        parameters(at_full_width(ACDNet, 2, 2, rates=rates))
        for rates in ((1, 1, 1), (6, 12, 18), ((1, 2, 2), (1, 4, 4), (2, 6, 6)), (0, 0, 0))
    ]
    assert counts[:3] == [1_017_892] * 3
    # Pointwise branches: 26 taps less for each pair of channels. Blocks come in with 96, 136 and 156 channels.
    assert counts[3] == 1_017_892 - 26 * 3 * 16 * (96 + 136 + 156)


def test_levels_of_bunet():
    rows = {layer.name: layer.output for layer in layer_table(at_full_width(BUNet, 1, 2), (1, *BLOCK))}
    sizes = [(16, 8, 24, 24), (32, 4, 12, 12), (64, 2, 6, 6), (128, 1, 3, 3)]
    assert [rows[f"down.{level}.1.2"] for level in range(4)] == sizes
    assert [rows[f"up.{level}.1.2"] for level in range(3)] == sizes[:3]
    assert rows["score"] == (2, *BLOCK)


def test_channels_of_acdnet():
    table = layer_table(at_full_width(ACDNet, 2, 2), (2, *BLOCK))
    assert {layer.output[1:] for layer in table} == {BLOCK}
    rows = {layer.name: layer for layer in table}
    assert [rows[f"bottlenecks.{block}.0"].output[0] for block in range(3)] == [72, 92, 102]
    rates = [rows[f"blocks.0.4.units.{branch}.0"].padding for branch in range(3)]
    assert rates == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


@pytest.mark.parametrize(("stride", "size", "rate"), [(8, (1, 3, 3), 4), (4, (2, 6, 6), 8)])
def test_the_maps_of_deeplab(stride, size, rate):
    rows = {layer.name: layer for layer in layer_table(DeepLabV3(1, 2, 0.1, output_stride=stride), (1, *BLOCK))}
    last = rows["stages.3.1.convolutions.1"]
    assert rows["fuse.0"].output[1:] == last.output[1:] == size
    assert last.padding == (rate,) * 3


def test_each_convolution_is_followed_by_normalisation_and_relu():
    for network, count in ((BUNet(1, 2, 0.1), 14), (ACDNet(2, 2, 0.1), 1 + 3 * (4 + 3 + 1))):
        units = [m for m in network.modules() if isinstance(m, nn.Sequential) and isinstance(m[0], nn.Conv3d)]
        assert len(units) == count
        assert all([type(part) for part in each] == [nn.Conv3d, nn.BatchNorm3d, nn.ReLU] for each in units)
        normalised = sum(isinstance(module, nn.BatchNorm3d) for module in network.modules())
        assert normalised == count


def test_logits_have_the_size_of_the_block(network):
    network, channels = network
    for size in (BLOCK, (16, 8, 16)):
        assert network(torch.zeros(2, channels, *size)).shape == (2, 2, *size)


@pytest.mark.parametrize("name", ["bunet", "v-net"])
def test_a_block_that_cannot_be_halved_is_an_error(name):
    network, _ = small(name)
    with pytest.raises(ValueError, match=r"divisible by 8, got \(8, 20, 24\)"):
        network(torch.zeros(2, 1, 8, 20, 24))


def test_width_scales_all_channels():
    assert BUNet(1, 2, width=0.3).down[0][0][0].out_channels == 5
    network = ACDNet(2, 2, width=0.5)
    assert (network.stem[0].out_channels, network.blocks[0][0].channels) == (16, 24)
    assert VNet(1, 2, width=0.5, halvings=3).first.out_channels == 8
    assert VNet(3, 2, width=0.5, halvings=3).first.out_channels == 9  # three copies of three channels
    assert DeepLabV3(1, 2, width=0.5).stem[0][0].out_channels == 8
    for kind in (BUNet, ACDNet, DeepLabV3, VNet):
        kind(2, 2, width=0.001)


# --- Gradients and sight -----------------------------------------------------------------------------------------


def test_gradients_reach_every_parameter(network):
    """In evaluation mode, because batch normalisation in training takes the biases in front of it out again."""
    network, channels = network
    torch.manual_seed(0)
    image = torch.rand(2, channels, 8, 16, 16)
    network.eval()(image).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("options", "voxels"),
    [
        # 3 of the stem, 2 for each of the 12 layers, and twice the largest rate for each of the 3 blocks.
        ({}, (45, 45, 45)),
        ({"rates": (1, 1, 1)}, (33, 33, 33)),
        ({"rates": (0,)}, (27, 27, 27)),
        ({"rates": ((1, 2, 2), (0, 4, 3))}, (33, 51, 45)),
        ({"blocks": 1, "layers": 2}, (13, 13, 13)),
        # Each of 12 layers sees as far as its largest rate.
        (REPLACES | {"rates": (1, 2)}, (51, 51, 51)),
    ],
)
def test_voxels_in_sight_of_acdnet(options, voxels):
    network = ACDNet(2, 2, width=0.05, **options)
    for axis, seen in enumerate(voxels):
        # A row of voxels along one axis shows as much of it as a cube.
        row = tuple(59 if other == axis else 1 for other in range(3))
        assert receptive_field(network, 2, row)[axis] == seen


def test_a_block_of_the_paper_is_all_in_sight():
    """Finding G07: with these rates every logit sees the whole depth, and none needs a larger rate for it."""
    assert receptive_field(ACDNet(2, 2, width=0.05), 2, BLOCK) == BLOCK


def test_sight_does_not_change_the_network():
    network = BUNet(1, 2, width=0.1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    # Through three halvings: every voxel of a block of the paper.
    assert receptive_field(network, 1, BLOCK) == BLOCK
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.training
    assert isinstance(network.pool, nn.MaxPool3d)


def test_skips_carry_fine_features_past_the_bottleneck():
    for skips in (True, False):
        torch.manual_seed(0)
        network = BUNet(1, 1, width=0.25, skips=skips).eval()
        nn.init.zeros_(network.enlarge[0].weight)
        first, second = network(torch.randn(2, 1, 8, 8, 8))
        assert torch.equal(first, second) == (not skips)


# --- The pyramid -------------------------------------------------------------------------------------------------


def slow_convolution(image, weight, bias, rate):
    """One 3 x 3 x 3 convolution with taps ``rate`` (z, y, x) apart, voxel by voxel; zeros outside."""
    out = torch.empty(weight.shape[0], *image.shape[1:], dtype=image.dtype)
    depth, height, width = image.shape[1:]
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                total = bias.clone()
                for i in range(3):
                    for j in range(3):
                        for k in range(3):
                            at = z + (i - 1) * rate[0], y + (j - 1) * rate[1], x + (k - 1) * rate[2]
                            if all(0 <= a < n for a, n in zip(at, image.shape[1:], strict=True)):
                                total = total + weight[:, :, i, j, k] @ image[:, at[0], at[1], at[2]]
                out[:, z, y, x] = total
    return out


def test_the_pyramid_against_a_slow_one():
    torch.manual_seed(0)
    rates = (1, 2, (1, 3, 2))
    pyramid = ConcatenatedConvolutions(2, (2, 1, 3), rates).double().eval()
    maps = torch.randn(1, 2, 3, 5, 4, dtype=torch.float64)
    parts = [maps[0]]
    for each, rate in zip(pyramid.units, ((1, 1, 1), (2, 2, 2), (1, 3, 2)), strict=True):
        convolution, normalisation, _ = each
        normalisation.running_mean.normal_()
        normalisation.running_var.uniform_(0.5, 2)
        with torch.no_grad():
            normalisation.weight.uniform_(-1, 1)
            normalisation.bias.normal_()
            convolution.bias.normal_()
        found = slow_convolution(maps[0], convolution.weight, convolution.bias, rate)
        mean, var, scale, shift = (
            tensor[:, None, None, None]
            for tensor in (
                normalisation.running_mean,
                normalisation.running_var,
                normalisation.weight,
                normalisation.bias,
            )
        )
        parts.append(((found - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0))
    torch.testing.assert_close(pyramid(maps)[0], torch.cat(parts))
    assert pyramid.channels == 8


def test_a_rate_of_0_leaves_the_middle_tap():
    assert unit(1, 1, rate=0)[0].kernel_size == (1, 1, 1)
    assert unit(1, 1, rate=(0, 2, 1))[0].kernel_size == (1, 3, 3)
    assert unit(1, 1, rate=[0, 2, 1])[0].dilation == (1, 2, 1)


def test_a_misspelt_position_names_the_near_miss():
    with pytest.raises(InputError, match="did you mean 'before bottleneck'"):
        ACDNet(2, 2, width=0.1, position="before bottlenecks")


# --- The cascade -------------------------------------------------------------------------------------------------


def test_the_map_alone():
    torch.manual_seed(0)
    network = ACDNet(3, 2, width=0.1, uses_image=False).eval()
    first, second = torch.randn(2, 1, 3, 4, 4, 4)
    second[:, 2:] = first[:, 2:]
    assert torch.equal(network(first), network(second))
    second[:, 2] += 1
    assert not torch.allclose(network(first), network(second))


def test_a_map_alone_needs_a_map():
    with pytest.raises(ValueError, match="1 channels hold no image and 1 maps"):
        ACDNet(1, 2, uses_image=False)


def test_fused_logits_are_logarithms_of_probabilities():
    torch.manual_seed(0)
    network, channels = small("joint")
    logits = network.eval()(torch.rand(1, channels, *BLOCK))
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(1, *BLOCK), atol=2e-3, rtol=0)


def test_the_mean_of_a_jointly_trained_cascade():
    network, _ = small("joint")
    image = torch.randn(2, 1, 8, 8, 8)
    coarse = network.eval().coarse(image).softmax(dim=1)
    fine = network.fine(torch.cat([image, coarse[:, 1:]], dim=1)).softmax(dim=1)
    torch.testing.assert_close(network(image).softmax(dim=1), (coarse + fine) / 2)


# --- V-Net and DeepLab -------------------------------------------------------------------------------------------


def test_with_four_halvings_it_is_the_v_net_of_monai():
    from monai.networks.nets import VNet as MonaiVNet

    torch.manual_seed(0)
    theirs, ours = MonaiVNet(3, 1, 2).eval(), VNet(1, 2)
    renamed = {"in_tr": "first", "out_tr": "score"}
    renamed |= {f"down_tr{32 * 2**level}": f"down.{level}" for level in range(4)}
    renamed |= {f"up_tr{32 * 2**level}": f"up.{level}" for level in range(4)}
    weights = {}
    for name, tensor in theirs.state_dict().items():
        part, rest = name.split(".", 1)
        weights[f"{renamed[part]}.{rest}"] = tensor
    ours.load_state_dict(weights)
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs(image))


def test_five_halvings_are_an_error():
    with pytest.raises(ValueError, match="halves 1 to 4 times, not 5"):
        VNet(1, 2, halvings=5)


def test_another_output_stride_is_an_error():
    with pytest.raises(ValueError, match="output stride 16; choices: 4, 8"):
        DeepLabV3(1, 2, output_stride=16)


def test_deeplab_does_not_train_on_one_block():
    network = DeepLabV3(1, 2, width=0.1)
    with pytest.raises(ValueError, match="at least two blocks"):
        network(torch.zeros(1, 1, *BLOCK))
    assert network.eval()(torch.zeros(1, 1, *BLOCK)).shape == (1, 2, *BLOCK)


# --- Learning ----------------------------------------------------------------------------------------------------


def learn(network, image, label, updates, loss=None):
    """What the network finds after so many updates, at a rate that falls to zero so that running means catch up."""
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=updates)
    for _ in range(updates):
        optimiser.zero_grad()
        (loss or F.cross_entropy)(network(image), label if loss else label[:, 0].long()).backward()
        optimiser.step()
        schedule.step()
    return found_by(network, image)


@torch.no_grad()
def found_by(network, image):
    return network.eval()(image).argmax(dim=1, keepdim=True) == 1


def overlap(found, label) -> float:
    return float(2 * (found & label).sum() / (found.sum() + label.sum()))


def recall(found, label) -> float:
    return float((found & label).sum() / label.sum())


# Updates for one case by heart, and how often it is in the batch: the coarsest maps need numbers to be normalised.
UPDATES = {"bunet": (60, 2), "cnn": (80, 2), "v-net": (120, 2), "deeplab": (50, 4), "deeplab, stride 4": (30, 4)}


@pytest.mark.parametrize("name", NETWORKS)
def test_one_case_can_be_learnt_by_heart(name):
    network, channels = small(name)
    updates, times = UPDATES.get(name, (50, 1))
    size = (8, 16, 16) if times > 1 and name != "v-net" else (8, 8, 8)
    label = ellipsoid(size, (3.5, size[1] * 0.4, size[2] * 0.4))
    if name.startswith("deeplab"):
        # Its maps are enlarged eight times, to a plane but not to a small ellipsoid.
        label[0] = torch.arange(16) < 10
    label = label.repeat(times, 1, 1, 1, 1)
    image = with_maps(label)[:, :channels]
    assert overlap(learn(network, image, label, updates), label) > 0.95


def test_the_loss_of_the_paper_does_not_end_in_an_empty_answer():
    """Gap 18: the paper says that a network avoided its penalty by predicting nothing. One that does has no recall."""
    label = ellipsoid((8, 16, 16), (2, 3, 3)).repeat(2, 1, 1, 1, 1)
    weight = 1.0 + label  # as printed, were the tumour so thin
    assert label.float().mean() < 0.02
    image = with_maps(label)[:, :1]
    network, _ = small("bunet")
    found = learn(network, image, label, 60, lambda logits, label: DistanceFocalLoss()(logits, label, weight))
    assert recall(found, label) > 0.9
    with torch.no_grad():
        network.score.bias += torch.tensor([1e3, 0.0])
    assert recall(found_by(network, image), label) == 0

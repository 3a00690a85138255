import pytest
import torch
import torch.nn.functional as F
from network_cases import dice, learn, on_meta, parameters, settled, without_gradient

from npcrepro.base.errors import InputError
from npcrepro.models.layers import layer_table, receptive_field
from npcrepro.papers.guo2021.losses import DistanceFocalLoss
from npcrepro.papers.guo2021.network import ACDNet, BUNet, ConcatenatedConvolutions, JointCascade

BLOCK = (8, 24, 24)
REPLACES = {"position": "replaces convolutions"}
WITHIN = {"position": "within layers"}
SEQUENCE = {"connections": "sequence"}
SHALLOW = {"blocks": 2, "layers": 2}

# Each network with the channels of its input.
NETWORKS = {
    "bunet": (BUNet, 1, {}),
    "cnn": (BUNet, 1, {"skips": False}),
    "acdnet": (ACDNet, 2, SHALLOW),
    "acdnet, map alone": (ACDNet, 2, {"uses_image": False, **SHALLOW}),
    "acdnet, pyramids as layers": (ACDNet, 2, {**REPLACES, **SHALLOW}),
    "acdnet, in sequence": (ACDNet, 2, {**SEQUENCE, **SHALLOW}),
    "acdnet, blocks as layers": (ACDNet, 2, {**WITHIN, "blocks": 1, "layers": 2}),
    "joint": (JointCascade, 1, {}),
}


def small(name):
    """The network at a quarter of its width, and the channels it takes."""
    kind, channels, options = NETWORKS[name]
    torch.manual_seed(0)
    return kind(channels, 2, width=0.25, **options), channels


def ellipsoid(size, radii):
    """``(2, 1, *size)``: one in the first of two blocks."""
    axes = torch.meshgrid(*(torch.arange(n) - n / 2 for n in size), indexing="ij")
    inside = sum((axis / radius) ** 2 for axis, radius in zip(axes, radii, strict=True)) <= 1
    return torch.stack([inside, torch.zeros_like(inside)])[:, None].float()


def with_maps(label):
    """Noisy images of a label and, behind them, blurred maps of it."""
    image = label + 0.3 * torch.randn(label.shape)
    return torch.cat([image, F.avg_pool3d(label, 3, stride=1, padding=1)], dim=1)


@pytest.mark.parametrize(
    ("kind", "channels", "options", "expected"),
    [
        (BUNet, 1, {}, 1_401_986),
        (BUNet, 1, {"base": 32}, 5_602_562),
        (BUNet, 1, {"skips": False}, 1_401_986 - 27 * (64**2 + 32**2 + 16**2)),
        (ACDNet, 2, {}, 1_516_392),
        (ACDNet, 1, {}, 1_516_392 - 27 * 32),
        (ACDNet, 2, {"uses_image": False}, 1_516_392 - 27 * 32),
        (ACDNet, 2, SEQUENCE, 1_017_892),
        (ACDNet, 2, {"rates": ((1, 2, 2), (1, 4, 4), (2, 6, 6))}, 1_516_392),
        # Pointwise branches: 26 taps less for each pair of channels. Pyramids see 96, 168 and 276 channels, and 96, 136
        # and 156 where the blocks stand in sequence.
        (ACDNet, 2, {"rates": (0, 0, 0)}, 1_516_392 - 26 * 3 * 16 * (96 + 168 + 276)),
        (ACDNet, 2, {"rates": (0, 0, 0), **SEQUENCE}, 1_017_892 - 26 * 3 * 16 * (96 + 136 + 156)),
        (JointCascade, 1, {}, 1_401_986 + 1_516_392),
        (JointCascade, 1, SEQUENCE, 1_401_986 + 1_017_892),
    ],
)
def test_parameters(kind, channels, options, expected):
    assert parameters(on_meta(kind, channels, 2, **options)) == expected


def test_levels_of_bunet_and_channels_of_acdnet():
    rows = {layer.name: layer.output for layer in layer_table(on_meta(BUNet, 1, 2), (1, *BLOCK))}
    sizes = [(16, 8, 24, 24), (32, 4, 12, 12), (64, 2, 6, 6), (128, 1, 3, 3)]
    assert [rows[f"down.{level}.1.2"] for level in range(4)] == sizes
    assert [rows[f"up.{level}.1.2"] for level in range(3)] == sizes[:3]
    assert rows["score"] == (2, *BLOCK)
    rows = {layer.name: layer for layer in layer_table(on_meta(ACDNet, 2, 2), (2, *BLOCK))}
    assert {layer.output[1:] for layer in rows.values()} == {BLOCK}
    assert [rows[f"bottlenecks.{block}.0"].output[0] for block in range(3)] == [72, 108, 162]
    assert [rows[f"blocks.0.4.units.{branch}.0"].padding[0] for branch in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("connections", ["dense", "sequence"])
def test_each_block_takes_in_the_stem_and_all_blocks_before(connections):
    network = ACDNet(2, 2, width=0.1, connections=connections).eval()
    made, taken = [], []
    for part in (network.stem, *network.bottlenecks):
        part.register_forward_hook(lambda part, arguments, out: made.append(out))
    for part in (*network.blocks, network.score):
        part.register_forward_pre_hook(lambda part, arguments: taken.append(arguments[0]))
    network(torch.randn(1, 2, 4, 4, 4))
    for number, found in enumerate(taken, 1):
        wanted = made[:number] if connections == "dense" else made[number - 1 : number]
        assert torch.equal(found, torch.cat(wanted, dim=1)), number


def test_a_block_as_one_layer_is_pyramid_bottleneck_and_convolution():
    network = on_meta(ACDNet, 2, 2, **WITHIN, blocks=1, layers=9)
    rows = {layer.name: layer.output[0] for layer in layer_table(network, (2, *BLOCK))}
    for number in range(9):
        layer = f"blocks.0.{number}"
        assert [rows[f"{layer}.pyramid.units.{branch}.0"] for branch in range(3)] == [16] * 3
        assert (rows[f"{layer}.bottleneck.0"], rows[f"{layer}.convolution.0"]) == (64, 16)
        assert network.blocks[0][number].channels == 32 + 16 * (number + 1)
    # About as many as where each block has four layers.
    assert parameters(network) == pytest.approx(1_516_392, rel=0.05)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_have_the_size_of_the_block_and_gradients_reach_every_parameter(name):
    network, channels = small(name)
    assert network(torch.zeros(2, channels, 16, 8, 16)).shape == (2, 2, 16, 8, 16)
    assert without_gradient(network, torch.rand(2, channels, 8, 16, 16)) == []


def test_what_cannot_be_used_is_an_error():
    with pytest.raises(ValueError, match=r"divisible by 8, got \(8, 20, 24\)"):
        BUNet(1, 2, width=0.1)(torch.zeros(2, 1, 8, 20, 24))
    with pytest.raises(InputError, match="did you mean 'before bottleneck'"):
        ACDNet(2, 2, width=0.1, position="before bottlenecks")
    with pytest.raises(InputError, match="did you mean 'dense'"):
        ACDNet(2, 2, width=0.1, connections="denses")
    with pytest.raises(ValueError, match="1 channels hold no image and 1 maps"):
        ACDNet(1, 2, uses_image=False)


def test_a_block_of_the_paper_is_all_in_sight():
    """Finding G07: with these rates every logit sees the whole depth, and none needs a larger rate for it."""
    assert receptive_field(ACDNet(2, 2, width=0.05), 2, BLOCK) == BLOCK
    assert receptive_field(BUNet(1, 2, width=0.1), 1, BLOCK) == BLOCK  # through three halvings


def slow_convolution(image, weight, bias, rate):
    """One 3 x 3 x 3 convolution with taps ``rate`` (z, y, x) apart, voxel by voxel; zeros outside."""
    out = torch.empty(weight.shape[0], *image.shape[1:], dtype=image.dtype)
    for voxel in torch.cartesian_prod(*map(torch.arange, image.shape[1:])).tolist():
        total = bias.clone()
        for tap in torch.cartesian_prod(*[torch.arange(3)] * 3).tolist():
            at = [v + (t - 1) * r for v, t, r in zip(voxel, tap, rate, strict=True)]
            if all(0 <= a < n for a, n in zip(at, image.shape[1:], strict=True)):
                total = total + weight[(..., *tap)] @ image[(slice(None), *at)]
        out[(slice(None), *voxel)] = total
    return out


def test_the_pyramid_against_a_slow_one():
    torch.manual_seed(0)
    rates = ((1, 1, 1), (2, 2, 2), (1, 3, 2))
    pyramid = ConcatenatedConvolutions(2, (2, 1, 3), (1, 2, rates[2])).double().eval()
    maps = torch.randn(1, 2, 3, 5, 4, dtype=torch.float64)
    parts = [maps[0]]
    for (convolution, norm, _), rate in zip(pyramid.units, rates, strict=True):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        with torch.no_grad():
            norm.weight.uniform_(-1, 1)
            for bias in (norm.bias, convolution.bias):
                bias.normal_()
        found = slow_convolution(maps[0], convolution.weight, convolution.bias, rate)
        mean, var, scale, shift = (
            each[:, None, None, None] for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        parts.append(((found - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0))
    torch.testing.assert_close(pyramid(maps)[0], torch.cat(parts))
    assert pyramid.channels == 8


def test_the_map_alone_and_a_jointly_trained_cascade_that_is_the_mean_of_both_probabilities():
    torch.manual_seed(0)
    network = ACDNet(3, 2, width=0.25, uses_image=False).eval()
    first, second = torch.randn(2, 1, 3, 4, 4, 4)
    second[:, 2:] = first[:, 2:]
    torch.testing.assert_close(network(first), network(second))
    second[:, 2] += 1
    assert not torch.allclose(network(first), network(second))
    network, _ = small("joint")
    image = torch.randn(2, 1, 8, 8, 8)
    coarse = network.eval().coarse(image).softmax(dim=1)
    fine = network.fine(torch.cat([image, coarse[:, 1:]], dim=1)).softmax(dim=1)
    torch.testing.assert_close(network(image).softmax(dim=1), (coarse + fine) / 2)
    torch.testing.assert_close(network(image).exp(), (coarse + fine) / 2, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("name", "times", "side"), [("bunet", 2, 16), ("acdnet", 1, 8)])
def test_one_case_can_be_learnt_by_heart(name, times, side):
    """The coarsest maps of BUNet need more than one block to be normalised."""
    network, channels = small(name)
    label = ellipsoid((8, side, side), (3.5, 0.4 * side, 0.4 * side)).repeat(times, 1, 1, 1, 1)
    image = with_maps(label)[:, :channels]
    learn(network, image, lambda logits: F.cross_entropy(logits, label[:, 0].long()), 50)
    assert dice(settled(network, image)(image).argmax(dim=1, keepdim=True), label) > 0.95


def test_the_loss_of_the_paper_does_not_end_in_an_empty_answer():
    """Gap 18: the paper says that a network avoided its penalty by predicting nothing. One that does has no recall."""
    label = ellipsoid((8, 16, 16), (2, 3, 3)).repeat(2, 1, 1, 1, 1)
    weight = 1.0 + label  # as printed, were the tumour so thin
    assert label.mean() < 0.02
    network, _ = small("bunet")
    image = with_maps(label)[:, :1]
    learn(network, image, lambda logits: DistanceFocalLoss()(logits, label, weight), 60, rate=0.02)
    found = settled(network, image)(image).argmax(dim=1, keepdim=True)
    assert (found * label).sum() / label.sum() > 0.9

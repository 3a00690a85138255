from functools import partial
from math import exp, sqrt

import pytest
import torch
from network_cases import dice, learn, on_meta, parameters, settled, without_gradient
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.losses.dice import DiceLoss
from npcrepro.models.layers import layer_table
from npcrepro.papers.chen2020.network import VARIANCE_FLOOR, BaseNetwork, Encoder, FusionBlock, MMFNet

pytest_plugins = ["core_fixtures"]

# The fusion block in the steps of the ablation, with the number of small networks and of maps in the spatial attention.
BASE_BLOCK = {"separate_mlps": False, "std_in_channel_attention": False, "std_in_spatial_attention": False}
BLOCKS = [
    (BASE_BLOCK, 1, 2),
    (BASE_BLOCK | {"separate_mlps": True}, 2, 2),
    ({"std_in_spatial_attention": False}, 3, 2),
    ({"std_in_channel_attention": False}, 2, 3),
    ({}, 3, 3),
    ({"separate_mlps": False}, 1, 3),
]
NETWORKS = {
    "3-D U-Net": partial(BaseNetwork, 1),
    "2-D U-Net": partial(BaseNetwork, 1, in_plane=True),
    "single encoder": partial(BaseNetwork, 3, encoder_width=3),
    "multi-encoder": partial(MMFNet, 3, skips="concat"),
    "MMFNet": partial(MMFNet, 3),
    "MMFNet of two series": partial(MMFNet, 2, bottom="block"),
    "MMFNet base": partial(MMFNet, 3, bottom="sum", **BASE_BLOCK),
}


def series_of(build) -> int:
    return build.args[0]


def shaken(network):
    """The network with biases and normalisations that are not those it starts with, in evaluation mode."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                # Mostly positive, so that not all of the few hidden values of an attention are behind a zero.
                value.copy_(torch.rand(value.shape) - 0.2)
            elif name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape))
    return network.eval()


# --- Sizes and parameters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (on_meta(BaseNetwork, 1, 1), 679_697),
        (on_meta(BaseNetwork, 1, 1, base=16, in_plane=True), 943_233),
        (on_meta(MMFNet, 3, 1, skips="concat"), 1_701_345),
        (on_meta(BaseNetwork, 3, 1, encoder_width=3), 3_682_929),
        (on_meta(BaseNetwork, 3, 1), 679_697 + 2 * 8 * 27),
        (on_meta(MMFNet, 3, 1), 1_548_403),
        (on_meta(MMFNet, 3, 1).fusions, 140_818),
    ],
)
def test_parameters(network, expected):
    assert parameters(network) == expected


def test_parameters_of_an_encoder_level_by_level():
    encoder = on_meta(BaseNetwork, 1, 1).encoder
    assert [parameters(level) for level in encoder.levels] == [1_992, 10_464, 41_664, 166_272]
    assert (parameters(encoder.bottom), parameters(encoder)) == (110_784, 331_176)


@pytest.mark.parametrize(("options", "mlps", "maps"), BLOCKS)
def test_parameters_of_a_fusion_block(options, mlps, maps):
    for series in (2, 3):
        channels, joined = 16, 16 * series
        mlp = joined * 4 + 4 + 4 * joined + joined
        spatial, merge = maps * 27 + 1, joined * channels + channels
        residual = 2 * (channels * channels * 9 + channels) + 2 * channels
        assert parameters(FusionBlock(channels, series, **options)) == mlps * mlp + spatial + merge + residual


@pytest.mark.parametrize("series", [2, 3])
def test_hidden_layers_are_a_quarter_of_a_series_for_any_number_of_them(series):
    hidden = [block.mlps[0][0].out_features for block in on_meta(MMFNet, series, 1).fusions[:4]]
    assert hidden == [2, 4, 8, 16]


LEVELS = [(8, 16, 256, 256), (16, 8, 128, 128), (32, 4, 64, 64), (64, 2, 32, 32)]


@pytest.mark.parametrize(("kind", "series", "prefix"), [(BaseNetwork, 1, ""), (MMFNet, 3, "s.2")])
def test_sizes_at_every_level(kind, series, prefix):
    network = on_meta(kind, series, 1)
    rows = {row.name: row for row in layer_table(network, (series, 16, 256, 256))}
    for level, size in enumerate(LEVELS):
        assert rows[f"encoder{prefix}.levels.{level}.0.2"].output == size
        assert rows[f"encoder{prefix}.levels.{level}.1.2"].output == size
        assert rows[f"decoder.enlarge.{level}"].output == rows[f"decoder.merge.{level}.2"].output == size
        assert network.decoder.merge[level][0].in_channels == 2 * size[0]
    assert rows[f"encoder{prefix}.bottom.2"].output == (64, 1, 16, 16)
    assert network.decoder.enlarge[3].in_channels == 64 * series
    assert rows["decoder.score"].output == (1, 16, 256, 256)
    convolutions = [row.kernel for row in rows.values() if row.kind == "Conv3d" and "fusions" not in row.name]
    assert convolutions == [(3, 3, 3)] * (9 * series + 4) + [(1, 1, 1)]


def test_without_fusion_blocks_the_decoder_sees_the_maps_of_all_series():
    decoder = on_meta(MMFNet, 3, 1, skips="concat").decoder
    assert [merge[0].in_channels for merge in decoder.merge] == [8 + 24, 16 + 48, 32 + 96, 64 + 192]


def test_the_2d_network_keeps_all_slices_at_every_level():
    network = on_meta(BaseNetwork, 1, 1, in_plane=True)
    rows = {row.name: row.output for row in layer_table(network, (1, 5, 64, 48))}
    assert (rows["encoder.levels.3.1.2"], rows["encoder.bottom.2"]) == ((64, 5, 8, 6), (64, 5, 4, 3))
    assert rows["decoder.merge.0.2"] == (8, 5, 64, 48)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_logits_have_the_size_of_the_image_and_no_layer_vanishes_at_a_small_width(build):
    network = build(2, width=0.001)
    assert min(min(m.weight.shape[:2]) for m in network.modules() if isinstance(m, nn.Conv3d | nn.Linear)) == 1
    assert network.eval()(torch.zeros(1, series_of(build), 16, 32, 48)).shape == (1, 2, 16, 32, 48)


def test_what_cannot_be_used_is_an_error():
    for options, size, units in (({}, (8, 16, 16), "16, 16, 16"), ({"in_plane": True}, (3, 24, 16), "1, 16, 16")):
        with pytest.raises(ValueError, match=rf"divisible by \({units}\), got \({size[0]}, {size[1]}, {size[2]}\)"):
            BaseNetwork(1, 1, width=0.1, **options)(torch.zeros(1, 1, *size))
    with pytest.raises(InputError, match="did you mean 'concat'"):
        MMFNet(2, 1, bottom="concatenate")


# --- Gradients and learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_gradients_reach_every_parameter(build):
    torch.manual_seed(0)
    network = build(1)
    for module in network.modules():
        if isinstance(module, FusionBlock):
            for mlp in module.mlps:
                nn.init.ones_(mlp[0].bias)  # of the few hidden values, none is behind a zero
    assert without_gradient(network, torch.randn(3, series_of(build), 16, 32, 16)) == []


@pytest.mark.parametrize("skips", ["block", "concat"])
def test_gradients_stay_finite_where_every_channel_is_constant(skips):
    network = MMFNet(3, 1, width=0.25, skips=skips, bottom="block")
    image = torch.zeros(2, 3, 16, 16, 16, requires_grad=True)
    network(image).square().mean().backward()
    assert image.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def noisy_balls(series):
    """Two windows with a ball each, bright in one series, dark in the next, and so on."""
    z, y, x = torch.meshgrid(torch.arange(16), torch.arange(32), torch.arange(16), indexing="ij")
    label = torch.stack([(z - 8) ** 2 + (y - c) ** 2 + (x - 8) ** 2 <= 36 for c in (10, 20)])[:, None].float()
    signs = torch.tensor([1.0, -1.0, 1.0])[:series].reshape(1, -1, 1, 1, 1)
    return label * signs + 0.2 * torch.randn(2, series, 16, 32, 16), label


@pytest.mark.parametrize("name", ["2-D U-Net", "single encoder", "MMFNet"])
def test_one_case_can_be_learnt_by_heart(name):
    torch.manual_seed(0)
    image, label = noisy_balls(series_of(NETWORKS[name]))
    network = NETWORKS[name](1, width=0.25)
    learn(network, image, lambda logits: DiceLoss(pooled="image")(logits, label), 60, rate=0.05)
    assert dice((settled(network, image)(image) >= 0).float(), label) > 0.95


@pytest.mark.parametrize("skips", ["block", "concat"])
def test_the_encoder_of_one_series_fits_into_that_of_several(skips):
    single, several = BaseNetwork(1, 1, width=0.25), MMFNet(3, 1, width=0.25, skips=skips)
    for encoder in several.encoders:
        encoder.load_state_dict(single.encoder.state_dict())
    assert {name.split(".")[0] for name, _ in several.named_parameters()} >= {"encoders", "decoder"}


def test_each_encoder_sees_its_own_series():
    network, seen = MMFNet(3, 1, width=0.25), []
    for number, encoder in enumerate(network.encoders):
        encoder.register_forward_pre_hook(lambda _, given, number=number: seen.append((number, given[0])))
    image = torch.randn(2, 3, 16, 16, 16)
    network(image)
    assert [number for number, _ in seen] == [0, 1, 2]
    assert all(torch.equal(given, image[:, number : number + 1]) for number, given in seen)


def test_the_2d_network_does_not_look_at_other_slices():
    torch.manual_seed(0)
    flat, deep = (shaken(BaseNetwork(1, 1, width=0.25, in_plane=plane)) for plane in (True, False))
    image = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(flat(image)[:, :, 3:4], flat(image[:, :, 3:4]))
    other = image.clone()
    other[0, 0, 8] += 1
    inside = torch.arange(16) == 8
    for network, reach in ((flat, 0), (deep, 1)):
        changed = (network(image) - network(other)).abs().amax(dim=(0, 1, 3, 4)) > 1e-5
        assert changed[8]
        assert changed[~inside].any() == bool(reach)


def test_the_encoder_alone_gives_skips_and_bottom():
    skips, bottom = Encoder(1, (2, 3, 4, 5), 6)(torch.zeros(2, 1, 16, 32, 16))
    sizes = [(2, 2, 16, 32, 16), (2, 3, 8, 16, 8), (2, 4, 4, 8, 4), (2, 5, 2, 4, 2)]
    assert [tuple(skip.shape) for skip in skips] == sizes
    assert bottom.shape == (2, 6, 1, 2, 1)


# --- Fusion block ------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + exp(-x))


def statistics_of(values, std):
    mean = sum(values) / len(values)
    found = [mean, max(values)]
    if std:
        found.append(sqrt(sum((v - mean) ** 2 for v in values) / len(values) + VARIANCE_FLOOR))
    return found


def by_mlp(mlp, values):
    first, _, second = mlp
    hidden = [
        max(0.0, sum(w * v for w, v in zip(row, values, strict=True)) + b)
        for row, b in zip(first.weight.tolist(), first.bias.tolist(), strict=True)
    ]
    return [
        sum(w * h for w, h in zip(row, hidden, strict=True)) + b
        for row, b in zip(second.weight.tolist(), second.bias.tolist(), strict=True)
    ]


def convolved(maps, weight, bias, z, y, x):
    """One output voxel of a convolution of one output channel with padding, term by term."""
    total = bias
    for channel, kernel in zip(maps, weight, strict=True):
        for dz, plane in enumerate(kernel):
            for dy, row in enumerate(plane):
                for dx, w in enumerate(row):
                    at = z + dz - len(kernel) // 2, y + dy - len(plane) // 2, x + dx - len(row) // 2
                    if all(0 <= i < n for i, n in zip(at, (len(channel), len(channel[0]), len(channel[0][0])))):
                        total += w * channel[at[0]][at[1]][at[2]]
    return total


def slow_attention(block, joined):
    """Channel weights, voxel weights and the merged map of one image (C, D, H, W), voxel by voxel."""
    depth, height, width = joined.shape[1:]
    places = [(z, y, x) for z in range(depth) for y in range(height) for x in range(width)]
    pooled = [statistics_of(maps.flatten().tolist(), block.std_in_channel_attention) for maps in joined]
    number = len(pooled[0])
    mlps = list(block.mlps) if len(block.mlps) > 1 else [block.mlps[0]] * number
    scores = [by_mlp(mlps[i], [values[i] for values in pooled]) for i in range(number)]
    channel = [sigmoid(sum(each)) for each in zip(*scores, strict=True)]
    weighted = [[[[w * v for v in r] for r in p] for p in m] for w, m in zip(channel, joined.tolist(), strict=True)]
    over_channels = {
        (z, y, x): statistics_of([maps[z][y][x] for maps in weighted], block.std_in_spatial_attention)
        for z, y, x in places
    }
    maps = [
        [[[over_channels[z, y, x][i] for x in range(width)] for y in range(height)] for z in range(depth)]
        for i in range(len(over_channels[0, 0, 0]))
    ]
    (weight,), (bias,) = block.spatial.weight.tolist(), block.spatial.bias.tolist()
    voxel = {place: sigmoid(convolved(maps, weight, bias, *place)) for place in places}
    merged = torch.zeros(len(block.merge.weight), depth, height, width, dtype=torch.float64)
    for z, y, x in places:
        kept = [voxel[z, y, x] * a[z][y][x] + b[z, y, x].item() for a, b in zip(weighted, joined, strict=True)]
        for c, (row, b) in enumerate(zip(block.merge.weight.flatten(1).tolist(), block.merge.bias.tolist())):
            merged[c, z, y, x] = sum(w * v for w, v in zip(row, kept, strict=True)) + b
    return torch.tensor(channel), torch.tensor([voxel[p] for p in places]).reshape(depth, height, width), merged


@pytest.mark.parametrize("options", [options for options, _, _ in BLOCKS])
def test_the_block_term_by_term(options):
    torch.manual_seed(0)
    block = shaken(FusionBlock(4, 3, **options)).double()
    maps = [torch.randn(2, 4, 2, 3, 4, dtype=torch.float64) for _ in range(3)]
    channels, voxels = block.attention(maps)
    fused = block(maps)
    for image in range(2):
        joined = torch.cat([each[image] for each in maps])
        channel, voxel, merged = slow_attention(block, joined)
        torch.testing.assert_close(channels[image], channel, check_dtype=False)
        torch.testing.assert_close(voxels[image, 0], voxel, check_dtype=False)
        torch.testing.assert_close(fused[image], merged + block.residual(merged[None])[0])


def test_the_residual_part_does_not_mix_slices():
    block = shaken(FusionBlock(4, 2))
    maps = torch.randn(1, 4, 3, 5, 5)
    alone = torch.cat([block.residual(maps[:, :, z : z + 1]) for z in range(3)], dim=2)
    torch.testing.assert_close(block.residual(maps), alone)
    assert [type(layer).__name__ for layer in block.residual] == ["Conv3d", "BatchNorm3d", "ReLU", "Conv3d"]


def test_the_switches_act_on_their_own_statistic():
    """Maps of equal average and maximum differ in their deviation, which only the block that uses it can tell."""
    flat = torch.tensor([0.0, 1.0, 0.5, 0.5]).reshape(1, 1, 1, 2, 2).repeat(1, 16, 1, 1, 1)
    wide = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(1, 1, 1, 2, 2).repeat(1, 16, 1, 1, 1)
    for std in (True, False):
        torch.manual_seed(0)
        block = shaken(FusionBlock(16, 2, std_in_channel_attention=std))
        first, second = (block.attention([maps, maps])[0] for maps in (flat, wide))
        assert torch.allclose(first, second) == (not std)


@pytest.mark.parametrize("options", [{}, BASE_BLOCK])
def test_permuted_series_have_permuted_attention(options):
    torch.manual_seed(0)
    order, channels = [2, 0, 1], 4
    block = shaken(FusionBlock(channels, 3, **options))
    moved = FusionBlock(channels, 3, **options).eval()
    moved.load_state_dict(block.state_dict())
    index = torch.cat([torch.arange(channels) + channels * series for series in order])
    with torch.no_grad():
        for old, new in zip(block.mlps, moved.mlps, strict=True):
            new[0].weight.copy_(old[0].weight[:, index])
            new[2].weight.copy_(old[2].weight[index])
            new[2].bias.copy_(old[2].bias[index])
        moved.merge.weight.copy_(block.merge.weight[:, index])
    maps = [torch.randn(2, channels, 2, 4, 4) for _ in range(3)]
    permuted = [maps[series] for series in order]
    before, after = block.attention(maps), moved.attention(permuted)
    torch.testing.assert_close(after[0], before[0][:, index])
    torch.testing.assert_close(after[1], before[1])
    torch.testing.assert_close(moved(permuted), block(maps))
    assert not torch.allclose(after[0], before[0], atol=1e-3)


@pytest.mark.parametrize(("bottom", "levels"), [("concat", 4), ("block", 5)])
def test_attention_of_the_network_level_by_level(bottom, levels):
    torch.manual_seed(0)
    network = shaken(MMFNet(2, 1, width=0.5, bottom=bottom))
    image = torch.randn(2, 2, 16, 32, 16)
    weights = network.attention(image)
    assert [tuple(channels.shape) for channels, _ in weights] == [(2, 8), (2, 16), (2, 32), (2, 64), (2, 64)][:levels]
    sizes = [(16, 32, 16), (8, 16, 8), (4, 8, 4), (2, 4, 2), (1, 2, 1)]
    assert [tuple(voxels.shape) for _, voxels in weights] == [(2, 1, *size) for size in sizes][:levels]
    for each in (each for pair in weights for each in pair):
        assert not each.requires_grad
        assert ((each >= 0) & (each <= 1)).all()
    maps = [encoder(image[:, s : s + 1])[0][1] for s, encoder in enumerate(network.encoders)]
    torch.testing.assert_close(weights[1][0], network.fusions[1].attention(maps)[0])
    assert MMFNet(2, 1, width=0.1, skips="concat").eval().attention(torch.zeros(1, 2, 16, 16, 16)) == []


def test_concatenation_keeps_the_order_of_the_series_and_the_sum_forgets_it():
    image = torch.randn(1, 2, 16, 16, 16)
    for how, same in (("sum", True), ("concat", False)):
        torch.manual_seed(0)
        network = shaken(MMFNet(2, 1, width=0.25, skips=how, bottom=how))
        network.encoders[1].load_state_dict(network.encoders[0].state_dict())
        assert torch.allclose(network(image), network(image.flip(1)), atol=1e-5) == same

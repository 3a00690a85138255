from functools import partial
from math import exp, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.losses.dice import DiceLoss
from npcrepro.models.baselines.patch_cnn import PatchNetwork
from npcrepro.models.layers import layer_table
from npcrepro.papers.chen2020.network import VARIANCE_FLOOR, BaseNetwork, Encoder, FusionBlock, MMFNet

pytest_plugins = ["core_fixtures"]

# The three parts of the fusion block that the ablation switches on one by one.
BASE_BLOCK = {"separate_mlps": False, "std_in_channel_attention": False, "std_in_spatial_attention": False}
BLOCKS = [
    BASE_BLOCK,
    BASE_BLOCK | {"separate_mlps": True},
    {"std_in_spatial_attention": False},
    {"std_in_channel_attention": False},
    {},
    {"separate_mlps": False},
]
NETWORKS = {
    "3-D U-Net": partial(BaseNetwork, 1),
    "2-D U-Net": partial(BaseNetwork, 1, in_plane=True),
    "single encoder": partial(BaseNetwork, 3, encoder_width=3),
    "multi-encoder": partial(MMFNet, 3, skips="concat"),
    "MMFNet": partial(MMFNet, 3),
    "MMFNet of two series": partial(MMFNet, 2, bottom="block"),
    "MMFNet base": partial(MMFNet, 3, bottom="sum", **BASE_BLOCK),
    "patch CNN": partial(PatchNetwork, 1),
    "Siamese patch CNN": partial(PatchNetwork, 3),
}
VARIANTS = ("MMFNet of two series", "MMFNet base")


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def on_paper(kind, *channels, **options):
    """A network at full width that takes no memory."""
    with torch.device("meta"):
        return kind(*channels, **options)


def series_of(build) -> int:
    return build.args[0]


def shaken(network, seed=0):
    """The network with biases and normalisations that are not those it starts with, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                # Mostly positive, so that not all of the few hidden values of an attention are behind a zero.
                value.copy_(torch.rand(value.shape, generator=generator) - 0.2)
            elif name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return network.eval()


# --- Sizes and parameters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (on_paper(BaseNetwork, 1, 1), 679_697),
        (on_paper(MMFNet, 3, 1, skips="concat"), 1_701_345),
        (on_paper(BaseNetwork, 3, 1, encoder_width=3), 3_682_929),
        (on_paper(BaseNetwork, 3, 1), 679_697 + 2 * 8 * 27),
        (on_paper(MMFNet, 3, 1), 1_548_403),
        (on_paper(MMFNet, 3, 1).fusions, 140_818),
    ],
)
def test_parameters(network, expected):
    assert parameters(network) == expected


def test_parameters_of_an_encoder_level_by_level():
    encoder = on_paper(BaseNetwork, 1, 1).encoder
    assert [parameters(level) for level in encoder.levels] == [1_992, 10_464, 41_664, 166_272]
    assert parameters(encoder.bottom) == 110_784
    assert parameters(encoder) == 331_176


@pytest.mark.parametrize(
    ("options", "mlps", "maps"),
    [
        (BASE_BLOCK, 1, 2),
        (BASE_BLOCK | {"separate_mlps": True}, 2, 2),
        ({"std_in_spatial_attention": False}, 3, 2),
        ({"std_in_channel_attention": False}, 2, 3),
        ({}, 3, 3),
        ({"separate_mlps": False}, 1, 3),
    ],
)
@pytest.mark.parametrize("series", [2, 3])
def test_parameters_of_a_fusion_block(series, options, mlps, maps):
    channels, joined = 16, 16 * series
    mlp = joined * 4 + 4 + 4 * joined + joined
    spatial, merge = maps * 27 + 1, joined * channels + channels
    residual = 2 * (channels * channels * 9 + channels) + 2 * channels
    assert parameters(FusionBlock(channels, series, **options)) == mlps * mlp + spatial + merge + residual


@pytest.mark.parametrize("series", [1, 2, 3, 4])
def test_hidden_layers_are_a_quarter_of_a_series_for_any_number_of_them(series):
    hidden = [block.mlps[0][0].out_features for block in on_paper(MMFNet, series, 1).fusions[:4]]
    assert hidden == [2, 4, 8, 16]


LEVELS = [(8, 16, 256, 256), (16, 8, 128, 128), (32, 4, 64, 64), (64, 2, 32, 32)]


@pytest.mark.parametrize(("network", "prefix"), [(BaseNetwork(1, 1), ""), (MMFNet(3, 1), "s.2")])
def test_sizes_at_every_level(network, prefix):
    series = 3 if prefix else 1
    rows = {row.name: row for row in layer_table(network.to("meta"), (series, 16, 256, 256))}
    for level, (size, parts) in enumerate(zip(LEVELS, [1, 1, 1, 1], strict=True)):
        assert rows[f"encoder{prefix}.levels.{level}.0.2"].output == size
        assert rows[f"encoder{prefix}.levels.{level}.1.2"].output == size
        assert rows[f"decoder.enlarge.{level}"].output == rows[f"decoder.merge.{level}.2"].output == size
        assert network.decoder.merge[level][0].in_channels == 2 * size[0] * parts
    assert rows[f"encoder{prefix}.bottom.2"].output == (64, 1, 16, 16)
    assert network.decoder.enlarge[3].in_channels == 64 * series
    assert rows["decoder.score"].output == (1, 16, 256, 256)
    convolutions = [row.kernel for row in rows.values() if row.kind == "Conv3d" and "fusions" not in row.name]
    assert convolutions == [(3, 3, 3)] * (9 * series + 4) + [(1, 1, 1)]


def test_without_fusion_blocks_the_decoder_sees_the_maps_of_all_series():
    decoder = on_paper(MMFNet, 3, 1, skips="concat").decoder
    assert [merge[0].in_channels for merge in decoder.merge] == [8 + 24, 16 + 48, 32 + 96, 64 + 192]


def test_the_2d_network_keeps_all_slices_at_every_level():
    network = on_paper(BaseNetwork, 1, 1, in_plane=True)
    rows = {row.name: row.output for row in layer_table(network, (1, 5, 64, 48))}
    assert rows["encoder.levels.3.1.2"] == (64, 5, 8, 6)
    assert rows["encoder.bottom.2"] == (64, 5, 4, 3)
    assert rows["decoder.merge.0.2"] == (8, 5, 64, 48)
    assert parameters(on_paper(BaseNetwork, 1, 1, base=16, in_plane=True)) == 943_233


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_logits_have_the_size_of_the_image(build):
    network = build(2, width=0.2)
    assert network(torch.zeros(1, series_of(build), 16, 32, 48)).shape == (1, 2, 16, 32, 48)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_no_layer_vanishes_at_a_small_width(build):
    network = on_paper(build, 1, width=0.001)
    smallest = min(min(m.weight.shape[:2]) for m in network.modules() if isinstance(m, nn.Conv3d | nn.Linear))
    assert smallest == 1


@pytest.mark.parametrize(
    ("options", "size", "units"),
    [({}, (8, 16, 16), "16, 16, 16"), ({}, (16, 16, 24), "16, 16, 16"), ({"in_plane": True}, (3, 24, 16), "1, 16, 16")],
)
def test_a_size_that_does_not_divide_is_an_error(options, size, units):
    with pytest.raises(ValueError, match=rf"divisible by \({units}\), got \({size[0]}, {size[1]}, {size[2]}\)"):
        BaseNetwork(1, 1, width=0.1, **options)(torch.zeros(1, 1, *size))


def test_a_misspelt_fusion_names_the_near_miss():
    with pytest.raises(InputError, match="did you mean 'concat'"):
        MMFNet(2, 1, bottom="concatenate")


# --- Gradients and learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_gradients_reach_every_parameter(build):
    """In evaluation mode, because batch normalisation in training takes the biases in front of it out again."""
    torch.manual_seed(0)
    network = shaken(build(1))
    network(torch.randn(2, series_of(build), 16, 32, 16)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("skips", ["block", "concat"])
def test_gradients_stay_finite_where_every_channel_is_constant(skips):
    network = MMFNet(3, 1, width=0.25, skips=skips, bottom="block")
    image = torch.zeros(2, 3, 16, 16, 16, requires_grad=True)
    network(image).square().mean().backward()
    assert image.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    block = FusionBlock(2, 2)
    maps = [torch.zeros(1, 2, 2, 4, 4, requires_grad=True) for _ in range(2)]
    block(maps).sum().backward()
    assert all(each.grad.isfinite().all() and each.grad.any() for each in maps)


def noisy_ball(series):
    """Two windows with a ball each, bright in one series, dark in the next, and so on."""
    z, y, x = torch.meshgrid(torch.arange(16), torch.arange(32), torch.arange(16), indexing="ij")
    label = torch.stack([(z - 8) ** 2 + (y - c) ** 2 + (x - 8) ** 2 <= 36 for c in (10, 20)])[:, None].float()
    signs = torch.tensor([1.0, -1.0, 1.0])[:series].reshape(1, -1, 1, 1, 1)
    return label * signs + 0.2 * torch.randn(2, series, 16, 32, 16), label


def dice(logits, label) -> float:
    found = logits >= 0
    return (2 * (found * label).sum() / (found.sum() + label.sum())).item()


def set_statistics(network, image):
    """Running statistics are those of the image: after few updates they still lag behind."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(image)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in VARIANTS])
def test_one_case_can_be_learnt_by_heart(name):
    torch.manual_seed(0)
    image, label = noisy_ball(series_of(NETWORKS[name]))
    if "patch" in name:
        image, label = image[:, :, 6:10], label[:, :, 6:10]
    network = NETWORKS[name](1, width=0.25)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    loss = DiceLoss(pooled="image")
    for _ in range(80):
        logits = network(image)
        if dice(logits, label) > 0.97:
            break
        optimiser.zero_grad()
        loss(logits, label).backward()
        optimiser.step()
    set_statistics(network, image)
    assert dice(network.eval()(image), label) > 0.95


@pytest.mark.parametrize("skips", ["block", "concat"])
def test_the_encoder_of_one_series_fits_into_that_of_several(skips):
    single, several = BaseNetwork(1, 1, width=0.25), MMFNet(3, 1, width=0.25, skips=skips)
    there = {name.removeprefix("encoder."): p for name, p in single.state_dict().items() if name.startswith("encoder.")}
    for number in range(3):
        prefix = f"encoders.{number}."
        here = {n.removeprefix(prefix): p for n, p in several.state_dict().items() if n.startswith(prefix)}
        assert {name: p.shape for name, p in there.items()} == {name: p.shape for name, p in here.items()}


def test_each_encoder_sees_its_own_series():
    torch.manual_seed(0)
    network = shaken(MMFNet(3, 1, width=0.25))
    seen = []
    for number, encoder in enumerate(network.encoders):
        encoder.register_forward_pre_hook(lambda _, given, number=number: seen.append((number, given[0])))
    image = torch.randn(2, 3, 16, 16, 16)
    network(image)
    assert [number for number, _ in seen] == [0, 1, 2]
    assert all(torch.equal(given, image[:, number : number + 1]) for number, given in seen)


def test_the_2d_network_does_not_look_at_other_slices():
    torch.manual_seed(0)
    network = shaken(BaseNetwork(1, 1, width=0.25, in_plane=True))
    image = torch.randn(1, 1, 3, 32, 32)
    alone = torch.cat([network(image[:, :, z : z + 1]) for z in range(3)], dim=2)
    torch.testing.assert_close(network(image), alone)
    flat, deep = (shaken(BaseNetwork(1, 1, width=0.25, in_plane=plane)) for plane in (True, False))
    for network, reach in ((flat, 0), (deep, 1)):
        image = torch.zeros(1, 1, 16, 16, 16)
        before = network(image)
        image[0, 0, 8] = 1
        changed = (network(image) != before).flatten(3).any(dim=3)[0, 0]
        assert changed[8]
        assert changed[[z for z in range(16) if z != 8]].any() == bool(reach)


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


@pytest.mark.parametrize("options", BLOCKS)
def test_the_block_term_by_term(options):
    torch.manual_seed(0)
    block = shaken(FusionBlock(4, 3, **options)).double()
    maps = [torch.randn(2, 4, 2, 3, 4, dtype=torch.float64) for _ in range(3)]
    channels, voxels = block.attention(maps)
    assert channels.shape == (2, 12)
    assert voxels.shape == (2, 1, 2, 3, 4)
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
    kinds = [type(layer).__name__ for layer in block.residual]
    assert kinds == ["Conv3d", "BatchNorm3d", "ReLU", "Conv3d"]


def test_the_switches_act_on_their_own_statistic():
    """Maps of equal average and maximum differ in their deviation, which only the block that uses it can tell."""
    flat = torch.tensor([0.0, 1.0, 0.5, 0.5]).reshape(1, 1, 1, 2, 2).repeat(1, 16, 1, 1, 1)
    wide = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(1, 1, 1, 2, 2).repeat(1, 16, 1, 1, 1)
    for std in (True, False):
        torch.manual_seed(0)
        block = shaken(FusionBlock(16, 2, std_in_channel_attention=std))
        first, second = (block.attention([maps, maps])[0] for maps in (flat, wide))
        assert torch.equal(first, second) == (not std)


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


@pytest.mark.parametrize(("bottom", "levels"), [("concat", 4), ("sum", 4), ("block", 5)])
def test_attention_of_the_network_level_by_level(bottom, levels):
    torch.manual_seed(0)
    network = shaken(MMFNet(2, 1, width=0.5, bottom=bottom))
    image = torch.randn(2, 2, 16, 32, 16)
    weights = network.attention(image)
    assert [tuple(channels.shape) for channels, _ in weights] == [(2, 8), (2, 16), (2, 32), (2, 64), (2, 64)][:levels]
    sizes = [(16, 32, 16), (8, 16, 8), (4, 8, 4), (2, 4, 2), (1, 2, 1)]
    assert [tuple(voxels.shape) for _, voxels in weights] == [(2, 1, *size) for size in sizes][:levels]
    for channels, voxels in weights:
        assert not channels.requires_grad
        assert ((channels > 0) & (channels < 1)).all()
        assert ((voxels > 0) & (voxels < 1)).all()
    maps = [encoder(image[:, s : s + 1])[0][1] for s, encoder in enumerate(network.encoders)]
    torch.testing.assert_close(weights[1][0], network.fusions[1].attention(maps)[0])


def test_without_blocks_there_is_no_attention():
    assert MMFNet(2, 1, width=0.1, skips="concat").eval().attention(torch.zeros(1, 2, 16, 16, 16)) == []


def test_concatenation_keeps_the_order_of_the_series_and_the_sum_forgets_it():
    image = torch.randn(1, 2, 16, 16, 16)
    for how, same in (("sum", True), ("concat", False)):
        torch.manual_seed(0)
        network = shaken(MMFNet(2, 1, width=0.25, skips=how, bottom=how))
        network.encoders[1].load_state_dict(network.encoders[0].state_dict())
        assert torch.allclose(network(image), network(image.flip(1)), atol=1e-5) == same


# --- Patches -----------------------------------------------------------------------------------------------------


def classified_alone(network, patches):
    """What the classifier says to patches (N, series, 32, 32), with poolings that shrink the map: (N, out)."""
    maps = patches.flatten(0, 1)[:, None]
    for layer in network.trunk:
        if isinstance(layer, nn.Conv3d):
            maps = F.conv2d(maps, layer.weight[:, :, 0], layer.bias)
        elif isinstance(layer, nn.MaxPool3d):
            maps = F.max_pool2d(maps, 2)
        else:
            maps = layer(maps[:, :, None])[:, :, 0]
    assert maps.shape[2:] == (1, 1)
    return network.classify(maps.reshape(len(patches), -1, 1, 1, 1)).flatten(1)


@pytest.mark.parametrize("series", [1, 3])
def test_all_patches_at_once_are_the_patches_one_by_one(series):
    torch.manual_seed(0)
    network = shaken(PatchNetwork(series, 2, width=0.25))
    image = torch.randn(1, series, 2, 9, 12)
    dense = network(image)
    framed = F.pad(image, (16, 15, 16, 15, 0, 0), mode="replicate")
    patches = [framed[0, :, z, y : y + 32, x : x + 32] for z in range(2) for y in range(9) for x in range(12)]
    alone = classified_alone(network, torch.stack(patches)).T.reshape(1, 2, 2, 9, 12)
    torch.testing.assert_close(dense, alone, rtol=1e-4, atol=1e-5)


def test_a_pixel_sees_its_patch_and_no_more():
    torch.manual_seed(0)
    network = PatchNetwork(1, 1, width=0.25).eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.constant_(layer.weight, 0.1)
    image = torch.rand(1, 1, 3, 70, 70, requires_grad=True)
    network(image)[0, 0, 1, 35, 35].backward()
    seen = image.grad[0, 0] != 0
    assert not seen[[0, 2]].any()
    rows, columns = seen[1].any(dim=1).nonzero().flatten(), seen[1].any(dim=0).nonzero().flatten()
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (19, 50, 19, 50)


def test_the_series_share_the_convolutions_of_the_patches():
    one, three = on_paper(PatchNetwork, 1, 1), on_paper(PatchNetwork, 3, 1)
    assert parameters(one.trunk) == parameters(three.trunk)
    assert parameters(three.classify) - parameters(one.classify) == 2 * 32 * 128
    assert parameters(one) == 32_001


def test_the_encoder_alone_gives_skips_and_bottom():
    skips, bottom = Encoder(1, (2, 3, 4, 5), 6)(torch.zeros(2, 1, 16, 32, 16))
    assert [tuple(skip.shape) for skip in skips] == [
        (2, 2, 16, 32, 16),
        (2, 3, 8, 16, 8),
        (2, 4, 4, 8, 4),
        (2, 5, 2, 4, 2),
    ]
    assert bottom.shape == (2, 6, 1, 2, 1)

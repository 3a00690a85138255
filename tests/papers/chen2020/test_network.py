from functools import partial

import pytest
import torch
import torch.nn.functional as F
from network_cases import dice, learn, on_meta, parameters, settled, without_gradient
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.losses.dice import DiceLoss
from npcrepro.models.layers import layer_table
from npcrepro.papers.chen2020.network import VARIANCE_FLOOR, BaseNetwork, FusionBlock, MMFNet

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


@pytest.mark.parametrize(("options", "mlps", "maps"), BLOCKS)
@pytest.mark.parametrize("series", [2, 3])
def test_parameters_of_a_fusion_block(series, options, mlps, maps):
    mlp = 2 * 16 * series * 4 + 4 + 16 * series
    spatial, merge, residual = maps * 27 + 1, 16 * series * 16 + 16, 2 * (16 * 16 * 9 + 16) + 2 * 16
    assert parameters(FusionBlock(16, series, **options)) == mlps * mlp + spatial + merge + residual


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


def test_what_cannot_be_used_is_an_error():
    for options, size, units in (({}, (8, 16, 16), "16, 16, 16"), ({"in_plane": True}, (3, 24, 16), "1, 16, 16")):
        with pytest.raises(ValueError, match=rf"divisible by \({units}\), got \({size[0]}, {size[1]}, {size[2]}\)"):
            BaseNetwork(1, 1, width=0.1, **options)(torch.zeros(1, 1, *size))
    with pytest.raises(InputError, match="did you mean 'concat'"):
        MMFNet(2, 1, bottom="concatenate")


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_logits_have_the_size_of_the_image_no_layer_vanishes_and_gradients_reach_every_parameter(build):
    tiny = build(2, width=0.001)
    assert min(min(m.weight.shape[:2]) for m in tiny.modules() if isinstance(m, nn.Conv3d | nn.Linear)) == 1
    assert tiny.eval()(torch.zeros(1, series_of(build), 16, 32, 48)).shape == (1, 2, 16, 32, 48)
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


def test_one_case_can_be_learnt_by_heart():
    """Two windows with a ball each, bright in one series, dark in the next, and so on."""
    torch.manual_seed(0)
    z, y, x = torch.meshgrid(torch.arange(16), torch.arange(32), torch.arange(16), indexing="ij")
    label = torch.stack([(z - 8) ** 2 + (y - c) ** 2 + (x - 8) ** 2 <= 36 for c in (10, 20)])[:, None].float()
    signs = torch.tensor([1.0, -1.0, 1.0]).reshape(1, -1, 1, 1, 1)
    image = label * signs + 0.2 * torch.randn(2, 3, 16, 32, 16)
    network = MMFNet(3, 1, width=0.25)
    learn(network, image, lambda logits: DiceLoss(pooled="image")(logits, label), 60, rate=0.05)
    assert dice((settled(network, image)(image) >= 0).float(), label) > 0.95


def test_the_2d_network_does_not_look_at_other_slices():
    torch.manual_seed(0)
    flat, deep = (shaken(BaseNetwork(1, 1, width=0.25, in_plane=plane)) for plane in (True, False))
    image = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(flat(image)[:, :, 3:4], flat(image[:, :, 3:4]))
    other = image.clone()
    other[0, 0, 8] += 1
    reached = [((each(image) - each(other)).abs().amax(dim=(0, 1, 3, 4)) > 1e-5).tolist() for each in (flat, deep)]
    assert reached[0] == [z == 8 for z in range(16)]
    assert sum(reached[1]) > 1


def slow_attention(block, joined):
    """Channel weights, voxel weights and the merged map of one image (C, D, H, W), from the equations."""

    def statistics_of(maps, std):
        """Each of maps (n, ...) over its last axis."""
        found = [maps.mean(dim=-1), maps.amax(dim=-1)]
        return found + ([(maps.var(dim=-1, correction=0) + VARIANCE_FLOOR).sqrt()] if std else [])

    pooled = statistics_of(joined.flatten(1), block.std_in_channel_attention)
    mlps = list(block.mlps) * (len(pooled) // len(block.mlps))
    scores = [
        mlp[2].weight @ (mlp[0].weight @ values + mlp[0].bias).clamp(min=0) + mlp[2].bias
        for mlp, values in zip(mlps, pooled, strict=True)
    ]
    channel = 1 / (1 + (-sum(scores)).exp())
    weighted = channel[:, None, None, None] * joined
    maps = F.pad(torch.stack(statistics_of(weighted.movedim(0, -1), block.std_in_spatial_attention)), (1,) * 6)
    near = maps.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)
    score = torch.einsum("czyxabd,cabd->zyx", near, block.spatial.weight[0]) + block.spatial.bias
    voxel = 1 / (1 + (-score).exp())
    merged = torch.einsum("oc,czyx->ozyx", block.merge.weight.flatten(1), voxel * weighted + joined)
    return channel, voxel, merged + block.merge.bias[:, None, None, None]


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

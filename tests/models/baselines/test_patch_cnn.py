import pytest
import torch
import torch.nn.functional as F
from network_cases import dice, learn, on_meta, parameters, settled, without_gradient
from torch import nn

from npcrepro.losses.dice import DiceLoss
from npcrepro.models.baselines.patch_cnn import PatchNetwork

pytest_plugins = ["core_fixtures"]


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
    network = PatchNetwork(series, 2, width=0.25).double().eval()
    image = torch.randn(1, series, 2, 9, 12, dtype=torch.float64)
    framed = F.pad(image, (16, 15, 16, 15, 0, 0), mode="replicate")
    patches = [framed[0, :, z, y : y + 32, x : x + 32] for z in range(2) for y in range(9) for x in range(12)]
    alone = classified_alone(network, torch.stack(patches)).T.reshape(1, 2, 2, 9, 12)
    torch.testing.assert_close(network(image), alone)


def test_a_pixel_sees_its_patch_and_no_more():
    network = PatchNetwork(1, 1, width=0.25).eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.constant_(layer.weight, 0.1)
    image = torch.rand(1, 1, 3, 70, 70)
    before = network(image)[0, 0, 1, 35, 35]
    inside, outside = [(1, 19, 19), (1, 50, 50)], [(0, 35, 35), (2, 35, 35), (1, 18, 35), (1, 35, 51)]
    for voxel in (*inside, *outside):
        bright = image.clone()
        bright[(0, 0, *voxel)] = 1e3  # weights are positive, so that no pooling leaves it out
        assert torch.allclose(network(bright)[0, 0, 1, 35, 35], before) == (voxel in outside)


def test_parameters_and_gradients():
    """The series share the convolutions of the patches."""
    one, three = on_meta(PatchNetwork, 1, 1), on_meta(PatchNetwork, 3, 1)
    assert (parameters(one), parameters(three)) == (32_001, 40_193)
    assert parameters(one.trunk) == parameters(three.trunk)
    torch.manual_seed(0)
    assert without_gradient(PatchNetwork(3, 1), torch.randn(2, 3, 4, 32, 16)) == []


def test_one_case_can_be_learnt_by_heart():
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(16), indexing="ij")
    label = torch.stack([(y - c) ** 2 + (x - 8) ** 2 <= 36 for c in (10, 20)])[:, None, None].float()
    image = label + 0.2 * torch.randn(label.shape)
    network = learn(PatchNetwork(1, 1, width=0.25), image, lambda logits: DiceLoss()(logits, label), 40, rate=0.05)
    assert dice((settled(network, image)(image) >= 0).float(), label) > 0.95

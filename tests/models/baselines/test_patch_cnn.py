import pytest
import torch
import torch.nn.functional as F
from network_cases import on_meta, parameters, without_gradient
from torch import nn

from npcrepro.models.baselines.patch_cnn import PatchNetwork


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


def test_parameters_and_gradients():
    """The series share the convolutions of the patches."""
    one, three = on_meta(PatchNetwork, 1, 1), on_meta(PatchNetwork, 3, 1)
    assert (parameters(one), parameters(three)) == (32_001, 40_193)
    assert parameters(one.trunk) == parameters(three.trunk)
    torch.manual_seed(0)
    assert without_gradient(PatchNetwork(3, 1), torch.randn(2, 3, 4, 32, 16)) == []

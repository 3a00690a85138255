import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from npcrepro.models.baselines.mask_rcnn import MaskRCNN
from npcrepro.models.layers import Layer, count_layers, layer_table, receptive_field
from npcrepro.models.unet import UNet


def test_rows_of_a_literal_network():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3, bias=False)
    )
    assert layer_table(network, (1, 4, 4)) == [
        Layer("0", "Conv2d", (3, 3), (1, 1), (1, 1), (2, 4, 4), 2 * 9 + 2, 2 * 9 * 16),
        Layer("1", "ReLU", (), (), (), (2, 4, 4), 0, 0),
        Layer("2", "MaxPool2d", (2, 2), (2, 2), (0, 0), (2, 2, 2), 0, 0),
        Layer("3", "Flatten", (), (), (), (8,), 0, 0),
        Layer("4", "Linear", (), (), (), (3,), 24, 24),
    ]


def test_transposed_grouped_and_3d_convolutions():
    network = nn.Sequential(
        nn.Conv3d(2, 4, (1, 3, 3), padding=(0, 1, 1), groups=2, bias=False),
        nn.BatchNorm3d(4),
        nn.ConvTranspose3d(4, 1, 2, stride=2),
    )
    convolution, norm, transposed = layer_table(network, (2, 3, 4, 5))
    assert (convolution.kernel, convolution.output) == ((1, 3, 3), (4, 3, 4, 5))
    assert (convolution.parameters, convolution.macs) == (4 * 9, 4 * 9 * 60)
    assert (norm.parameters, norm.macs) == (8, 0)
    assert transposed.output == (1, 6, 8, 10)
    assert (transposed.parameters, transposed.macs) == (4 * 8 + 1, 4 * 8 * 60)


def test_agrees_with_the_flop_counter_of_torch():
    with torch.device("meta"):
        network = UNet(1, 3, width=0.25)
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 1, 48, 64, device="meta"))
    parameters, layers, macs = count_layers(lambda: UNet(1, 3, width=0.25), (1, 48, 64))
    assert parameters == sum(layer.parameters for layer in layers) == sum(p.numel() for p in network.parameters())
    assert 2 * macs == counter.get_total_flops()
    # A network whose layers depend on the image has no table.
    parameters, layers, macs = count_layers(lambda: MaskRCNN(1, 2, width=0.1), (1, 32, 32))
    assert (parameters > 0, layers, macs) == (True, None, None)


def test_voxels_in_sight_of_a_literal_network():
    pool, along = nn.MaxPool3d(3, stride=1, padding=1), nn.Conv3d(1, 1, (1, 1, 3), padding="same")
    network = nn.Sequential(nn.Conv3d(1, 1, 3, padding=1), pool, along)
    weights = network[0].weight.clone()
    assert receptive_field(network, 1, (9, 9, 9)) == (5, 5, 7)
    assert receptive_field(network, 1, (3, 9, 6)) == (3, 5, 6)
    assert torch.equal(network[0].weight, weights)
    assert isinstance(network[1], nn.MaxPool3d)

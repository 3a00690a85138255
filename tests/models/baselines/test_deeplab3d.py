import pytest
import torch
from network_cases import on_meta, parameters, without_gradient

from npcrepro.models.baselines.deeplab3d import DeepLabV3
from npcrepro.models.layers import layer_table


def test_parameters_and_width():
    assert parameters(on_meta(DeepLabV3, 1, 2)) == 3_518_914
    assert on_meta(DeepLabV3, 1, 2, width=0.5).stem[0][0].out_channels == 8


@pytest.mark.parametrize(("stride", "size", "rate"), [(8, (1, 3, 3), 4), (4, (2, 6, 6), 8)])
def test_maps_at_an_output_stride(stride, size, rate):
    torch.manual_seed(0)
    network = DeepLabV3(1, 2, 0.25, output_stride=stride)
    rows = {layer.name: layer for layer in layer_table(network, (1, 8, 24, 24))}
    last = rows["stages.3.1.convolutions.1"]
    assert rows["fuse.0"].output[1:] == last.output[1:] == size
    assert last.padding == (rate,) * 3
    assert rows["score"].output[0] == network(torch.zeros(2, 1, 16, 8, 16)).shape[1] == 2
    assert without_gradient(network, torch.rand(3, 1, 16, 24, 24)) == []


def test_what_cannot_be_used_is_an_error():
    network = DeepLabV3(1, 2, width=0.1)
    with pytest.raises(ValueError, match="at least two blocks"):
        network(torch.zeros(1, 1, 8, 24, 24))
    assert network.eval()(torch.zeros(1, 1, 8, 24, 24)).shape == (1, 2, 8, 24, 24)
    with pytest.raises(ValueError, match="output stride 16; choices: 4, 8"):
        DeepLabV3(1, 2, output_stride=16)

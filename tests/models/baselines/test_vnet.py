import pytest
import torch
from network_cases import on_meta, parameters, without_gradient
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.models.baselines.vnet import VNet


def test_parameters_and_as_published_each_channel_has_a_slope_of_its_own():
    assert parameters(on_meta(VNet, 1, 2, halvings=4, act="elu")) == 45_597_898
    network = on_meta(VNet, 1, 2, halvings=3)
    slopes = {name: m.num_parameters for name, m in network.named_modules() if isinstance(m, nn.PReLU)}
    assert not any(isinstance(module, nn.ELU) for module in network.modules())
    assert (slopes["first.act_function"], slopes["down.2.act_function2"]) == (16, 128)
    plain = parameters(on_meta(VNet, 1, 2, halvings=3, act="elu"))
    assert (plain, parameters(network)) == (12_237_130, 12_237_130 + sum(slopes.values()))
    with pytest.raises(InputError, match="did you mean 'prelu'"):
        VNet(1, 2, width=0.1, act="prelus")


def test_sizes_and_width():
    torch.manual_seed(0)
    network = VNet(1, 2, width=0.5, halvings=3)
    assert network.first.out_channels == 8
    assert VNet(3, 2, width=0.5, halvings=3).first.out_channels == 9  # three copies of three channels
    assert network(torch.zeros(2, 1, 16, 8, 16)).shape == (2, 2, 16, 8, 16)
    assert without_gradient(network, torch.rand(2, 1, 8, 16, 16)) == []
    with pytest.raises(ValueError, match=r"divisible by 8, got \(8, 20, 24\)"):
        network(torch.zeros(2, 1, 8, 20, 24))
    with pytest.raises(ValueError, match="halves 1 to 4 times, not 5"):
        VNet(1, 2, halvings=5)


@pytest.mark.parametrize(("name", "act"), [("prelu", "prelu"), ("elu", ("elu", {"inplace": True}))])
def test_with_four_halvings_it_is_the_v_net_of_monai(name, act):
    from monai.networks.nets import VNet as MonaiVNet

    torch.manual_seed(0)
    theirs, ours = MonaiVNet(3, 1, 2, act=act).eval(), VNet(1, 2, act=name)
    renamed = {"in_tr": "first", "out_tr": "score"}
    renamed |= {f"down_tr{32 * 2**level}": f"down.{level}" for level in range(4)}
    renamed |= {f"up_tr{32 * 2**level}": f"up.{level}" for level in range(4)}
    weights = {}
    for key, tensor in theirs.state_dict().items():
        part, rest = key.split(".", 1)
        weights[f"{renamed[part]}.{rest}"] = tensor
    ours.load_state_dict(weights)
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs(image))

import pytest
import torch
import torch.nn.functional as F
from network_cases import (
    dice,
    learn,
    mirrored_half_discs,
    on_meta,
    parameters,
    settled,
    structures_of,
    with_background,
    without_gradient,
)
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.papers.luo2020.network import OUTSIDE_LOGIT, MultiScalePooling, TwoStageUNet

INPUTS = ["both", "map", "masked", "crop"]


def fusions(network) -> int:
    return sum(parameters(module) for module in network.modules() if isinstance(module, MultiScalePooling))


class Fixed(nn.Module):
    """Stands for a first stage: the same logits whatever the image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, image):
        return self.logits


class Seen(nn.Module):
    """Stands for a second stage: keeps what it is given and answers with its sum over channels."""

    factor = 4

    def __init__(self, out_channels=1):
        super().__init__()
        self.out_channels, self.given = out_channels, []

    def forward(self, maps):
        self.given.append(maps)
        return maps.sum(dim=1, keepdim=True).repeat(1, self.out_channels, 1, 1)


def with_stand_ins(logits, out_channels=1, **options):
    network = TwoStageUNet(2, out_channels, width=0.05, **options)
    network.coarse, network.fine = Fixed(logits), Seen(out_channels)
    return network


def test_poolings_by_hand():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    one, three, five, seven = (pool(maps)[0, 0] for pool in MultiScalePooling(1).pools)
    assert torch.equal(one, maps[0, 0])
    assert three[0, 0] == (0 + 1 + 4 + 5) / 4  # a corner has four pixels in sight
    torch.testing.assert_close(three[1, 1], maps[0, 0, :3, :3].mean())
    torch.testing.assert_close(five[0, 0], maps[0, 0, :3, :3].mean())
    torch.testing.assert_close(seven[0, 0], maps.mean())
    constant = torch.full((2, 1, 2, 3), 0.7)
    for pool in MultiScalePooling(1).pools:
        torch.testing.assert_close(pool(constant), constant)  # up to the border


def test_parameters_and_levels_of_the_two_stages():
    assert parameters(MultiScalePooling(8)) == 4 * 8 * 8 + 8
    assert parameters(MultiScalePooling(8, kernels=(1, 5))) == 2 * 8 * 8 + 8
    network = on_meta(TwoStageUNet, 1, 15)
    assert parameters(network.coarse) - fusions(network.coarse) == 7_765_409
    assert parameters(network.fine) - fusions(network.fine) == 467_983
    assert parameters(network) == 7_765_409 + 467_983 + (4 * 512 * 512 + 512) + (4 * 128 * 128 + 128)
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"coarse", "fine"}
    assert (len(network.coarse.down), len(network.fine.down)) == (5, 3)
    enlarged = TwoStageUNet(1, 3, width=0.1, enlarge=2)
    assert enlarged.coarse.enlarge_image == enlarged.fine.enlarge_image == 2


@pytest.mark.parametrize(("stage2_input", "channels"), [("both", 3), ("map", 1), ("masked", 2), ("crop", 2)])
def test_outputs_of_the_stages(stage2_input, channels):
    torch.manual_seed(0)
    network = TwoStageUNet(2, 4, width=0.1, stage2_input=stage2_input)
    assert network.fine.down[0][0].in_channels == channels
    image = torch.randn(2, 2, 32, 48)
    assert network(image).shape == (2, 4, 32, 48)
    coarse, fine = network.eval()(image, output="both")
    assert (coarse.shape, fine.shape) == ((2, 1, 32, 48), (2, 4, 32, 48))
    torch.testing.assert_close(fine, network(image))
    network.fine = Seen()
    torch.testing.assert_close(coarse, network(image, output="coarse"))
    assert network.fine.given == []  # the coarse output does not run the second stage


@pytest.mark.parametrize("stage2_input", ["both", "map", "masked"])
def test_what_the_second_stage_receives(stage2_input):
    logits, image = torch.randn(1, 1, 8, 8), torch.randn(1, 2, 8, 8)
    image_and_map = torch.cat([image, logits.sigmoid()], dim=1)
    expected = {"both": image_and_map, "map": logits.sigmoid(), "masked": image * logits.sigmoid()}
    network = with_stand_ins(logits, stage2_input=stage2_input)
    network(image)
    torch.testing.assert_close(network.fine.given[0], expected[stage2_input])


def box_logits(rows, columns, size=64):
    logits = torch.full((1, 1, size, size), -5.0)
    logits[:, :, rows, columns] = 5.0
    return logits


SMALL = (slice(21, 31), slice(41, 43))
BOX = (slice(16, 36), slice(36, 48))  # four pixels around, then out to multiples of four


@pytest.mark.parametrize(("activation", "background"), [("sigmoid", OUTSIDE_LOGIT), ("softmax", 0.0)])
def test_a_crop_is_the_box_and_outside_is_background(activation, background):
    """Gradients pass to the image inside the box alone."""
    image = torch.randn(1, 2, 64, 64, requires_grad=True)
    network = with_stand_ins(box_logits(*SMALL), 3, stage2_input="crop", activation=activation)
    logits = network(image)
    (given,) = network.fine.given
    assert torch.equal(given, image[:, :, BOX[0], BOX[1]])
    assert torch.equal(logits[:, 2:, BOX[0], BOX[1]], given.sum(dim=1, keepdim=True))
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[BOX] = False
    assert (logits[0, 0][outside] == background).all()
    assert (logits[0, 1:, outside] == OUTSIDE_LOGIT).all()
    logits.sum().backward()
    assert torch.equal(image.grad[0, 0] == 0, outside)


@pytest.mark.parametrize(
    ("rows", "columns", "size", "box"),
    [
        (slice(1, 3), slice(62, 64), 64, (slice(0, 8), slice(56, 64))),  # it ends at the border
        (slice(100, 110), slice(40, 60), 256, (slice(92, 120), slice(32, 68))),  # the margin grows with the image
        (slice(0), slice(0), 64, (slice(0, 64), slice(0, 64))),  # an empty map leaves the whole image
    ],
)
def test_boxes(rows, columns, size, box):
    image = torch.randn(1, 2, size, size)
    network = with_stand_ins(box_logits(rows, columns, size), stage2_input="crop")
    network(image)
    assert torch.equal(network.fine.given[0], image[:, :, box[0], box[1]])


def test_boxes_are_of_the_batch_in_training_and_of_the_image_in_evaluation():
    image = torch.randn(2, 2, 64, 64)
    network = with_stand_ins(
        torch.cat([box_logits(*SMALL), box_logits(slice(5, 7), slice(41, 43))]), stage2_input="crop"
    )
    network(image)
    assert [tuple(maps.shape) for maps in network.fine.given] == [(2, 2, 36, 12)]
    network.eval().fine.given.clear()
    network(image)
    assert [tuple(maps.shape) for maps in network.fine.given] == [(1, 2, 20, 12), (1, 2, 12, 12)]
    assert torch.equal(network.fine.given[1], image[1:, :, 0:12, 36:48])


@pytest.mark.parametrize("stage2_input", INPUTS)
def test_each_image_is_its_own_and_the_final_loss_reaches_the_first_stage_through_its_map(stage2_input):
    torch.manual_seed(0)
    image = torch.randn(3, 1, 32, 32, dtype=torch.float64)
    network = settled(TwoStageUNet(1, 3, width=0.25, stage2_input=stage2_input).double(), image)
    torch.testing.assert_close(network(image), torch.cat([network(one[None]) for one in image]))
    dead = without_gradient(network, image)
    assert dead == ([name for name, _ in network.coarse.named_parameters("coarse")] if stage2_input == "crop" else [])


@pytest.mark.parametrize("stage2_input", ["both", "crop"])
def test_one_case_of_a_left_and_a_right_structure_can_be_learnt_by_heart(stage2_input):
    torch.manual_seed(0)
    image, label = mirrored_half_discs(32)
    network = TwoStageUNet(1, 3, width=0.25, stage2_input=stage2_input)
    learn(network, image, lambda logits: F.cross_entropy(logits, with_background(label)), 40)
    assert (dice(structures_of(settled(network, image)(image)), label) > 0.95).all()


def test_unknown_outputs_and_options_are_errors():
    with pytest.raises(ValueError, match=r"odd to keep the size, got \(1, 2\)"):
        MultiScalePooling(1, kernels=(1, 2))
    with pytest.raises(ValueError, match="unknown output 'corse'"):
        TwoStageUNet(1, 2, width=0.1)(torch.zeros(1, 1, 16, 16), output="corse")
    with pytest.raises(InputError, match="did you mean 'masked'"):
        TwoStageUNet(1, 2, width=0.1, stage2_input="mask")
    with pytest.raises(InputError, match="did you mean 'sigmoid'"):
        TwoStageUNet(1, 2, width=0.1, activation="sigmoyd")

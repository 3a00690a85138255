import pytest
import torch
import torch.nn.functional as F
from loss_cases import one

from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.losses.cross_entropy import CrossEntropyLoss, DeepSupervisionLoss, DiceCrossEntropyLoss
from npcrepro.losses.dice import DiceLoss


@pytest.mark.parametrize("size", [(8, 8), (2, 4)])
def test_cross_entropy_agrees_with_torch(size):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, *size, generator=generator)
    label = (torch.rand(3, 2, 8, 8, generator=generator) > 0.5).to(torch.uint8)
    target = F.interpolate(label.float(), size=size, mode="area")
    pixels = F.binary_cross_entropy(logits.sigmoid(), target, reduction="none")
    torch.testing.assert_close(CrossEntropyLoss()(logits, label), pixels.mean())
    # The sum runs over the pixels of an image; over images it is a mean.
    torch.testing.assert_close(CrossEntropyLoss("sum")(logits, label), pixels.sum(dim=(1, 2, 3)).mean())
    assert CrossEntropyLoss()(one(1e8, -1e8), one(0, 0)).item() == pytest.approx(0.5e8)


def test_dice_and_cross_entropy_are_added():
    generator = torch.Generator().manual_seed(0)
    logits, label = torch.randn(2, 3, 6, 5, generator=generator), torch.randint(2, (2, 3, 6, 5), generator=generator)
    expected = DiceLoss()(logits, label) + 3 * CrossEntropyLoss()(logits, label)
    torch.testing.assert_close(DiceCrossEntropyLoss()(logits, label), expected)


def test_outputs_at_several_sizes_weigh_half_as_much_from_size_to_size():
    generator = torch.Generator().manual_seed(0)
    label = F.one_hot(torch.randint(3, (2, 8, 8), generator=generator), 3).movedim(3, 1)[:, 1:].to(torch.uint8)
    outputs = [torch.randn(2, 3, side, side, generator=generator) for side in (2, 4, 8)]
    expected = 0.0
    for weight, logits in zip((1, 2, 4), outputs):
        small = F.adaptive_avg_pool2d(label.float(), logits.shape[2:])
        target = torch.cat([1 - small.sum(dim=1, keepdim=True), small], dim=1)
        dice = DiceLoss(activation="softmax")(logits, label)
        expected += weight / 7 * (F.cross_entropy(logits, target) + dice)
    torch.testing.assert_close(DeepSupervisionLoss()(tuple(outputs), label), expected)
    torch.testing.assert_close(DeepSupervisionLoss()((outputs[2],), label), DeepSupervisionLoss()(outputs[2], label))


def test_what_was_not_contoured_has_no_part_in_the_loss_at_any_size():
    generator = torch.Generator().manual_seed(0)
    label = F.one_hot(torch.randint(3, (2, 8, 8), generator=generator), 3).movedim(3, 1)[:, 1:].to(torch.uint8)
    label[0, 1] = NOT_CONTOURED
    outputs = [torch.randn(2, 3, side, side, generator=generator, requires_grad=True) for side in (4, 8)]
    loss = DeepSupervisionLoss()(tuple(outputs), label)
    loss.backward()
    assert loss.isfinite()
    assert all(not each.grad[0, 2].any() and each.grad[0, :2].any() and each.grad[1, 2].any() for each in outputs)

from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from npcrepro.losses.cross_entropy import CrossEntropyLoss, DiceCrossEntropyLoss
from npcrepro.losses.dice import DiceLoss


def softplus(x):
    return log(1 + exp(x))


def one(*values):
    """A 1 x 1 x 1 x n tensor."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


def test_cross_entropy_by_hand():
    logits, label = one(0.0, 2.0, -1.0, 3.0), one(1, 1, 0, 0)
    expected = (log(2) + softplus(-2) + softplus(-1) + softplus(3)) / 4
    assert CrossEntropyLoss()(logits, label).item() == pytest.approx(expected, rel=1e-6)
    assert CrossEntropyLoss("sum")(logits, label).item() == pytest.approx(4 * expected, rel=1e-6)


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


def test_cross_entropy_of_huge_logits_is_finite():
    assert CrossEntropyLoss()(one(1e8, -1e8), one(0, 0)).item() == pytest.approx(0.5e8)


def test_dice_and_cross_entropy_are_added():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 5, generator=generator)
    label = (torch.rand(2, 3, 6, 5, generator=generator) > 0.5).to(torch.uint8)
    expected = DiceLoss()(logits, label) + 3 * CrossEntropyLoss()(logits, label)
    torch.testing.assert_close(DiceCrossEntropyLoss()(logits, label), expected)

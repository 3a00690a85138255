import pytest
import torch

from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.papers.chen2020.losses import ChenDiceLoss


def voxels(*values):
    """A 1 x 1 x 1 x 1 x n tensor."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None, None]


def printed(p, g, smoothing):
    return 1 - 2 * ((p * g).sum() + smoothing) / (p.sum() + g.sum() + smoothing)


@pytest.mark.parametrize("smoothing", [1.0, 0.25])
def test_the_printed_equation(smoothing):
    logits, label = voxels(-1.0, 0.5, 2.0, 0.0), voxels(0, 1, 1, 0)
    expected = printed(logits.sigmoid(), label, smoothing)
    torch.testing.assert_close(ChenDiceLoss(smoothing)(logits, label), expected)


def test_each_image_has_a_loss_of_its_own():
    torch.manual_seed(0)
    logits = torch.randn(3, 1, 2, 4, 4)
    label = (torch.rand(3, 1, 2, 4, 4) > torch.tensor([0.9, 0.5, 0.1]).reshape(3, 1, 1, 1, 1)).float()
    each = torch.stack([printed(p, g, 1.0) for p, g in zip(logits.sigmoid(), label, strict=True)])
    torch.testing.assert_close(ChenDiceLoss()(logits, label), each.mean())
    pooled = printed(logits.sigmoid(), label, 1.0)
    torch.testing.assert_close(ChenDiceLoss(pooled="batch")(logits, label), pooled)


def test_a_structure_that_was_not_contoured_takes_no_part():
    logits, label = torch.randn(2, 1, 2, 4, 4), torch.ones(2, 1, 2, 4, 4, dtype=torch.uint8)
    label[0] = NOT_CONTOURED
    torch.testing.assert_close(ChenDiceLoss()(logits, label), ChenDiceLoss()(logits[1:], label[1:]))

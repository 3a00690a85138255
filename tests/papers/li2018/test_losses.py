import pytest
import torch
import torch.nn.functional as F

from npcrepro.papers.li2018.losses import EuclideanLoss


def one(*values):
    """A 1 x 1 x 1 x n tensor."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


def test_euclidean_by_hand():
    logits, label = one(0.5, 2.0, -1.0, 0.0), one(1, 1, 0, 0)
    expected = (0.25 + 1 + 1 + 0) / 2
    assert EuclideanLoss("sum")(logits, label).item() == pytest.approx(expected)
    assert EuclideanLoss()(logits, label).item() == pytest.approx(expected / 4)


def test_euclidean_agrees_with_torch_on_a_reduced_label():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 2, 2, generator=generator)
    label = (torch.rand(3, 1, 4, 4, generator=generator) > 0.5).to(torch.uint8)
    squares = F.mse_loss(logits, F.avg_pool2d(label.float(), 2), reduction="none")
    torch.testing.assert_close(EuclideanLoss()(logits, label), squares.mean() / 2)
    torch.testing.assert_close(EuclideanLoss("sum")(logits, label), squares.sum() / 2 / 3)

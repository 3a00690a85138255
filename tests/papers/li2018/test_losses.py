import pytest
import torch
import torch.nn.functional as F
from loss_cases import one

from npcrepro.papers.li2018.losses import EuclideanLoss, HingeLoss


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


def test_hinge_by_hand_with_both_classes_alike():
    distance, label = one(0.5, 2.0, -1.0, 0.0, -3.0), one(1, 1, 0, 0, 0)
    # In the structure 0.5 and 0, outside 0, 1 and 0.
    assert HingeLoss()(distance, label).item() == pytest.approx((0.25 + 1 / 3) / 2)
    assert HingeLoss()(distance, torch.zeros_like(label)).item() == pytest.approx((1.5 + 3 + 0 + 1 + 0) / 5)


def test_hinge_is_flat_beyond_the_margin():
    distance = one(3.0, -3.0, 0.2).requires_grad_()
    HingeLoss()(distance, one(1, 0, 1)).backward()
    assert distance.grad.flatten().tolist() == pytest.approx([0, 0, -0.25])

import pytest
import torch
import torch.nn.functional as F
from loss_cases import one

from npcrepro.papers.li2018.losses import EuclideanLoss, HingeLoss


def test_euclidean_by_hand_and_as_torch_has_it_on_a_reduced_label():
    logits, label = one(0.5, 2.0, -1.0, 0.0), one(1, 1, 0, 0)
    assert EuclideanLoss("sum")(logits, label).item() == pytest.approx((0.25 + 1 + 1 + 0) / 2)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 2, 2, generator=generator)
    label = (torch.rand(3, 1, 4, 4, generator=generator) > 0.5).to(torch.uint8)
    squares = F.mse_loss(logits, F.avg_pool2d(label.float(), 2), reduction="none")
    torch.testing.assert_close(EuclideanLoss()(logits, label), squares.mean() / 2)
    torch.testing.assert_close(EuclideanLoss("sum")(logits, label), squares.sum() / 2 / 3)


def test_hinge_by_hand_with_both_classes_alike_and_flat_beyond_the_margin():
    distance, label = one(0.5, 2.0, -1.5, 0.0, -3.0).requires_grad_(), one(1, 1, 0, 0, 0)
    # In the structure 0.5 and 0, outside 0, 1 and 0.
    loss = HingeLoss()(distance, label)
    loss.backward()
    assert loss.item() == pytest.approx((0.25 + 1 / 3) / 2)
    assert distance.grad.flatten().tolist() == pytest.approx([-0.25, 0, 0, 1 / 6, 0])
    assert HingeLoss()(distance, torch.zeros_like(label)).item() == pytest.approx((1.5 + 3 + 0 + 1 + 0) / 5)

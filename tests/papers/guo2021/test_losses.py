"""The focal loss of Guo et al. 2021 with a weight for each voxel."""

from math import log

import pytest
import torch
import torch.nn.functional as F

from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.losses.focal import FocalLoss
from npcrepro.papers.guo2021.losses import DistanceFocalLoss


def logits_of(*probabilities):
    """``(1, 2, n)``: background first, whose softmax gives the structure these probabilities."""
    return torch.tensor([[[log(1 - p) for p in probabilities], [log(p) for p in probabilities]]])


def row(*values):
    return torch.tensor([[values]], dtype=torch.float32)


def test_without_weight_and_focus_it_is_the_cross_entropy():
    torch.manual_seed(0)
    logits, label = torch.randn(3, 2, 2, 3, 4), (torch.rand(3, 1, 2, 3, 4) > 0.5).to(torch.uint8)
    expected = F.cross_entropy(logits, label[:, 0].long())
    torch.testing.assert_close(DistanceFocalLoss(gamma=0)(logits, label), expected)
    torch.testing.assert_close(
        DistanceFocalLoss()(logits, label), 2 * FocalLoss(0.5, activation="softmax")(logits, label)
    )


@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
def test_literal_values_and_the_weights_of_a_batch_that_are_summed_together(gamma):
    """Not a mean of the means of its blocks: a block without tumour weighs less."""
    logits = torch.cat([logits_of(0.7, 0.2), logits_of(0.4, 0.1)])
    label, weight = torch.tensor([[[1, 1]], [[0, 0]]]), torch.tensor([[[9.0, 1.0]], [[1.0, 1.0]]])
    terms = [9 * 0.3**gamma * log(0.7), 0.8**gamma * log(0.2), 0.4**gamma * log(0.6), 0.1**gamma * log(0.9)]
    found = DistanceFocalLoss(gamma)(logits, label, weight)
    assert found.shape == ()
    assert found.item() == pytest.approx(-sum(terms) / 12, rel=1e-5)


@pytest.mark.parametrize(("gamma", "size"), [(0.0, 0.0), (2.0, 0.0), (2.0, 30.0), (0.0, 1e20), (2.0, 1e20)])
def test_loss_and_gradient_are_finite_at_extreme_logits(gamma, size):
    logits = torch.tensor([[[size, -size, size, -size], [-size, size, -size, size]]], requires_grad=True)
    loss = DistanceFocalLoss(gamma)(logits, row(1, 1, 0, 0), row(3.0, 2.0, 1.0, 1.0))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    # The first voxel is a tumour missed, the last background taken for tumour: both still pull.
    assert logits.grad[0, 1, 0] < 0 < logits.grad[0, 1, 3]
    wrong = 2 * size * (3 + 1) / 7 if size else log(2) * 0.5**gamma
    assert loss.item() == pytest.approx(wrong, rel=1e-5)


def test_a_block_that_was_not_contoured_takes_no_part():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 3, requires_grad=True)
    label = torch.tensor([[[1, 0, 1]], [[NOT_CONTOURED] * 3]], dtype=torch.uint8)
    weight = torch.rand(2, 1, 3) + 1
    loss = DistanceFocalLoss()(logits, label, weight)
    torch.testing.assert_close(loss, DistanceFocalLoss()(logits[:1], label[:1], weight[:1]))
    loss.backward()
    assert logits.grad[0].all()
    assert not logits.grad[1].any()
    nothing = DistanceFocalLoss()(logits[1:], label[1:], weight[1:])
    assert nothing.item() == 0

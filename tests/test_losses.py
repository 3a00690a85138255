from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from npcrepro.errors import InputError
from npcrepro.losses import CrossEntropyLoss, EuclideanLoss, reduce_label

LABEL = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.uint8)[None, None]


def softplus(x):
    return log(1 + exp(x))


def one(*values):
    """A 1 x 1 x 1 x n tensor."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("area", [[1.0, 0.25], [0.25, 0.0]]),
        ("nearest", [[1.0, 0.0], [0.0, 0.0]]),
        ("maximum", [[1.0, 1.0], [1.0, 0.0]]),
    ],
)
def test_reduction_of_a_literal_label(how, expected):
    reduced = reduce_label(LABEL, (2, 2), how)
    assert reduced.dtype == torch.float32
    assert reduced[0, 0].tolist() == expected


@pytest.mark.parametrize(("how", "expected"), [("area", 5 / 16 + 1 / 16), ("nearest", 1.0), ("maximum", 1.0)])
def test_reduction_to_one_pixel(how, expected):
    assert reduce_label(LABEL, (1, 1), how).item() == expected


def test_reduction_of_a_volume_with_another_factor_for_each_axis():
    label = torch.arange(8.0).reshape(1, 1, 2, 2, 2) / 8
    assert reduce_label(label, (2, 1, 2), "area").flatten().tolist() == [1 / 8, 2 / 8, 5 / 8, 6 / 8]
    assert reduce_label(label, (1, 2, 2), "maximum").flatten().tolist() == [4 / 8, 5 / 8, 6 / 8, 7 / 8]


def test_a_label_of_the_right_size_stays_as_it_is():
    assert torch.equal(reduce_label(LABEL, (4, 4), "maximum"), LABEL.float())


@pytest.mark.parametrize("size", [(3, 2), (2, 3), (8, 8)])
def test_sizes_that_do_not_divide(size):
    with pytest.raises(ValueError, match="the sizes do not divide"):
        reduce_label(LABEL, size)


def test_an_unknown_reduction_of_the_label_names_the_near_miss():
    with pytest.raises(InputError, match="did you mean 'nearest'"):
        reduce_label(LABEL, (2, 2), "neares")


def test_cross_entropy_by_hand():
    logits, label = one(0.0, 2.0, -1.0, 3.0), one(1, 1, 0, 0)
    expected = (log(2) + softplus(-2) + softplus(-1) + softplus(3)) / 4
    assert CrossEntropyLoss()(logits, label).item() == pytest.approx(expected, rel=1e-6)
    assert CrossEntropyLoss("sum")(logits, label).item() == pytest.approx(4 * expected, rel=1e-6)


def test_cross_entropy_against_a_soft_target():
    # Half of the pixels of the block are tumour, and the score says even chances: the entropy of a coin.
    assert CrossEntropyLoss()(torch.zeros(1, 1, 1, 1), one(1, 0).repeat(1, 1, 2, 1)).item() == pytest.approx(log(2))


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (2, 4)])
def test_cross_entropy_agrees_with_torch(size):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, *size, generator=generator)
    label = (torch.rand(3, 2, 8, 8, generator=generator) > 0.5).to(torch.uint8)
    target = F.interpolate(label.float(), size=size, mode="area")
    pixels = F.binary_cross_entropy(logits.sigmoid(), target, reduction="none")
    torch.testing.assert_close(CrossEntropyLoss()(logits, label), pixels.mean())
    # The sum runs over the pixels of an image; over images it is a mean.
    torch.testing.assert_close(CrossEntropyLoss("sum")(logits, label), pixels.sum(dim=(1, 2, 3)).mean())


def test_cross_entropy_of_huge_scores_is_finite():
    loss = CrossEntropyLoss()(one(1e8, -1e8), one(0, 0))
    assert loss.item() == pytest.approx(0.5e8)


def test_euclidean_by_hand():
    logits, label = one(0.5, 2.0, -1.0, 0.0), one(1, 1, 0, 0)
    expected = (0.25 + 1 + 1 + 0) / 2
    assert EuclideanLoss("sum")(logits, label).item() == pytest.approx(expected)
    assert EuclideanLoss()(logits, label).item() == pytest.approx(expected / 4)


def test_euclidean_agrees_with_torch():
    generator = torch.Generator().manual_seed(0)
    logits, label = torch.randn(3, 1, 4, 4, generator=generator), LABEL.repeat(3, 1, 1, 1)
    squares = F.mse_loss(logits, label.float(), reduction="none")
    torch.testing.assert_close(EuclideanLoss()(logits, label), squares.mean() / 2)
    torch.testing.assert_close(EuclideanLoss("sum")(logits, label), squares.sum() / 2 / 3)


@pytest.mark.parametrize("loss", [CrossEntropyLoss, EuclideanLoss])
def test_the_target_of_an_inner_score_can_be_chosen(loss):
    logits = torch.full((1, 1, 2, 2), 1.5)
    for how in ("area", "nearest", "maximum"):
        expected = loss()(logits, reduce_label(LABEL, (2, 2), how))
        torch.testing.assert_close(loss(target=how)(logits, LABEL), expected)


def test_the_gradient_of_cross_entropy_is_probability_minus_target():
    logits = torch.tensor([0.3, -1.2, 2.0, 0.0]).reshape(1, 1, 2, 2).requires_grad_()
    label = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 2, 2)
    CrossEntropyLoss("sum")(logits, label).backward()
    torch.testing.assert_close(logits.grad, logits.detach().sigmoid() - label)


@pytest.mark.parametrize("loss", [CrossEntropyLoss, EuclideanLoss])
def test_an_image_without_tumour_is_an_ordinary_image(loss):
    assert loss()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).isfinite()


@pytest.mark.parametrize("loss", [CrossEntropyLoss, EuclideanLoss])
def test_scores_of_half_precision_are_summed_in_single(loss):
    value = loss("sum")(torch.zeros(1, 1, 300, 300, dtype=torch.bfloat16), torch.ones(1, 1, 300, 300))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(90_000 * {CrossEntropyLoss: log(2), EuclideanLoss: 0.5}[loss], rel=1e-4)


@pytest.mark.parametrize("loss", [CrossEntropyLoss, EuclideanLoss])
def test_a_misspelt_reduction_names_the_near_miss(loss):
    with pytest.raises(InputError, match="did you mean 'mean'"):
        loss("maen")

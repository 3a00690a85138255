import pytest
import torch
from loss_cases import random_case, require_no_say_of_what_was_not_contoured

from npcrepro.base.errors import InputError
from npcrepro.losses.dice import DiceLoss
from npcrepro.losses.focal import FocalLoss
from npcrepro.losses.targets import reduce_label

LOSSES = [DiceLoss, FocalLoss]


@pytest.mark.parametrize("pooled", ["batch", "image"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_dice_agrees_with_monai(pooled, activation):
    from monai.losses import DiceLoss as MonaiDice

    logits, label = random_case(activation=activation)
    softmax = activation == "softmax"
    full = torch.cat([1 - label.sum(dim=1, keepdim=True), label], dim=1) if softmax else label
    peer = MonaiDice(
        include_background=not softmax, sigmoid=not softmax, softmax=softmax, smooth_nr=0.3, smooth_dr=0.3,
        batch=pooled == "batch",
    )  # fmt: skip
    torch.testing.assert_close(DiceLoss(0.3, pooled, activation=activation)(logits, label), peer(logits, full))


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.9, 0.0), (0.9, 3.5)])
def test_focal_agrees_with_monai(alpha, gamma):
    from monai.losses import FocalLoss as MonaiFocal

    logits, label = random_case()
    expected = MonaiFocal(gamma=gamma, alpha=alpha)(logits, label)
    torch.testing.assert_close(FocalLoss(alpha, gamma)(logits, label), expected)


@pytest.mark.parametrize("structures", [1, 3])
def test_focal_of_a_softmax_takes_each_structure_against_all_else(structures):
    logits, label = random_case(structures, activation="softmax")
    p = logits.double().softmax(dim=1)[:, 1:]
    expected = torch.where(label == 1, -0.3 * (1 - p) ** 2 * p.log(), -0.7 * p**2 * (1 - p).log()).mean()
    torch.testing.assert_close(
        FocalLoss(0.3, activation="softmax")(logits, label).double(), expected, rtol=1e-5, atol=1e-6
    )


def test_absent_structures_can_be_left_out():
    logits, label = random_case()
    label[1, 0] = 0  # one structure of one image
    present = [(b, s) for b in range(3) for s in range(2) if (b, s) != (1, 0)]
    each = [DiceLoss(pooled="image")(logits[b, s][None, None], label[b, s][None, None]) for b, s in present]
    torch.testing.assert_close(DiceLoss(pooled="image", absent="skip")(logits, label), sum(each) / 5)
    # Present in other images of the batch.
    found, counted = (DiceLoss(pooled="batch", absent=absent)(logits, label) for absent in ("skip", "count"))
    torch.testing.assert_close(found, counted)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_union_is_one_structure_where_all_was_contoured(loss):
    _, label = random_case(3)
    logits, _ = random_case(1, seed=1)
    expected = loss()(logits, label.amax(dim=1, keepdim=True))
    torch.testing.assert_close(loss(target="union")(logits, label), expected)
    expected = loss(target="union")(logits[[0, 2]], label[[0, 2]])
    label[1, 2] = 255
    torch.testing.assert_close(loss(target="union")(logits, label), expected)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", LOSSES)
def test_what_was_not_contoured_has_no_gradient_and_no_say(loss, activation):
    require_no_say_of_what_was_not_contoured(loss(activation=activation), activation)


@pytest.mark.parametrize("target", ["structures", "union"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_contoured_is_a_zero_with_a_zero_gradient(loss, activation, target):
    logits, label = random_case(3 if target == "structures" else 1, activation=activation)
    label = torch.full((3, 3, *label.shape[2:]), 255, dtype=torch.uint8)
    value = loss(activation=activation, target=target)(logits, label)
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("size", [20.0, 1e20])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_logits_have_finite_losses_and_gradients(loss, activation, size):
    _, label = random_case(3, activation=activation)
    label[0, 1] = 255
    logits, _ = random_case(3, activation=activation)
    logits = (size * logits.detach().sign()).requires_grad_()
    value = loss(activation=activation)(logits, label)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_volumes_and_inner_scores(loss):
    logits, _ = random_case(2, size=(2, 3, 4))
    _, label = random_case(2, size=(4, 6, 4))
    label[0, 1] = 255
    halves = reduce_label(label, (2, 3, 4))
    assert (halves[0, 1] == 255).all()
    torch.testing.assert_close(loss()(logits, label), loss()(logits, halves))


@pytest.mark.parametrize("loss", LOSSES)
def test_channels_that_do_not_go_together_and_a_misspelt_option(loss):
    for activation, target, count in (("softmax", "structures", 3), ("sigmoid", "union", 1)):
        with pytest.raises(ValueError, match=f"{activation} logits of {target} have {count} channels for .*, got 2"):
            loss(activation=activation, target=target)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(InputError, match="did you mean 'union'"):
        loss(target="unoin")
    with pytest.raises(InputError, match="did you mean 'image'"):
        DiceLoss(pooled="images")

from math import log

import pytest
import torch
from loss_cases import one, random_case, require_no_say_of_what_was_not_contoured

from npcrepro.losses.focal import FocalLoss
from npcrepro.papers.luo2020.losses import LuoDiceLoss, LuoJointLoss, LuoLoss


# Equation 1 of Luo et al. 2020 on masks of 512 x 512 pixels with 1000 of the structure: with epsilon 1e-5.
@pytest.mark.parametrize(
    ("found", "labelled", "printed", "factor_2"),
    [
        ("structure", "structure", 0.0, 0.0),
        ("nothing", "structure", 0.501, 0.501),
        ("inverted", "structure", 1.0, 1.0),
        ("nothing", "nothing", -0.5, 0.0),
        ("one pixel", "nothing", 0.5, 0.5),
    ],
)
def test_dice_of_luo_on_plain_masks(found, labelled, printed, factor_2):
    structure = torch.zeros(1, 1, 512, 512)
    structure.view(-1)[:1000] = 1
    masks = {"structure": structure, "nothing": 0 * structure, "inverted": 1 - structure, "one pixel": 0 * structure}
    masks["one pixel"][0, 0, 9, 9] = 1
    logits = torch.where(masks[found] > 0, 100.0, -100.0)
    for form, expected in (("printed", printed), ("factor 2", factor_2)):
        loss = LuoDiceLoss(form)(logits, masks[labelled])
        assert loss.item() == pytest.approx(expected, abs=5e-5)


def test_dice_of_luo_by_hand():
    # Probabilities 1/2, 1/2, 1/2, 3/4 of labels 1, 0, 0, 0; epsilon 0.1.
    logits, label = one(0, 0, 0, log(3)), one(1, 0, 0, 0)
    inside, outside = (0.5 + 0.1) / (3.25 + 0.1), (1.25 + 0.1) / (1.75 + 3 + 0.1)
    assert LuoDiceLoss(smoothing=0.1)(logits, label).item() == pytest.approx(1 - inside - outside)
    inside, outside = (1.0 + 0.1) / (3.25 + 0.1), (2.5 + 0.1) / (1.75 + 3 + 0.1)
    assert LuoDiceLoss("factor 2", smoothing=0.1)(logits, label).item() == pytest.approx(1 - (inside + outside) / 2)


def test_luo_weighs_dice_and_focal():
    logits, label = random_case(activation="softmax")
    options = {"activation": "softmax"}
    for beta in (0.0, 0.3, 1.0):
        expected = beta * LuoDiceLoss("factor 2", **options)(logits, label)
        expected = expected + (1 - beta) * FocalLoss(0.7, 1.0, **options)(logits, label)
        found = LuoLoss(beta, dice={"form": "factor 2"}, focal={"alpha": 0.7, "gamma": 1.0}, **options)(logits, label)
        torch.testing.assert_close(found, expected)
    plain = LuoDiceLoss(**options)(logits, label) / 2 + FocalLoss(**options)(logits, label) / 2
    torch.testing.assert_close(LuoLoss(**options)(logits, label), plain)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_two_stages_together_are_the_sum_of_both(activation):
    fine, label = random_case(3, activation=activation)
    union, _ = random_case(1, seed=1)
    expected = LuoLoss(0.3, activation=activation)(fine, label) + LuoLoss(0.3, target="union")(union, label)
    torch.testing.assert_close(LuoJointLoss(activation=activation, beta=0.3)((union, fine), label), expected)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", [LuoDiceLoss, LuoLoss])
def test_what_was_not_contoured_has_no_gradient_and_no_say(loss, activation):
    loss = loss(activation=activation)
    require_no_say_of_what_was_not_contoured(loss, activation)
    logits, label = random_case(3, activation=activation)
    assert loss(logits, torch.full_like(label, 255)) == 0

from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from npcrepro.base.errors import InputError
from npcrepro.losses.cross_entropy import CrossEntropyLoss
from npcrepro.losses.dice import DiceLoss
from npcrepro.losses.focal import FocalLoss
from npcrepro.losses.targets import reduce_label
from npcrepro.papers.li2018.losses import EuclideanLoss
from npcrepro.papers.luo2020.losses import LuoDiceLoss, LuoJointLoss, LuoLoss

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
    ],
)
def test_reduction_of_a_literal_label(how, expected):
    reduced = reduce_label(LABEL, (2, 2), how)
    assert reduced.dtype == torch.float32
    assert reduced[0, 0].tolist() == expected


@pytest.mark.parametrize(("how", "expected"), [("area", 5 / 16 + 1 / 16), ("nearest", 1.0)])
def test_reduction_to_one_pixel(how, expected):
    assert reduce_label(LABEL, (1, 1), how).item() == expected


def test_reduction_of_a_volume_with_another_factor_for_each_axis():
    label = torch.arange(8.0).reshape(1, 1, 2, 2, 2) / 8
    assert reduce_label(label, (2, 1, 2), "area").flatten().tolist() == [1 / 8, 2 / 8, 5 / 8, 6 / 8]
    assert reduce_label(label, (1, 2, 2), "area").flatten().tolist() == [2 / 8, 3 / 8, 4 / 8, 5 / 8]


def test_a_label_of_the_right_size_stays_as_it_is():
    assert torch.equal(reduce_label(LABEL, (4, 4)), LABEL.float())


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
    for how in ("area", "nearest"):
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


# --- Overlap and focal losses ------------------------------------------------------------------------------------


SURE = 100.0  # a logit whose probability is 1 in single precision
OVERLAP_LOSSES = [DiceLoss, LuoDiceLoss]
NEW_LOSSES = [DiceLoss, LuoDiceLoss, FocalLoss, LuoLoss]


def random_case(structures=2, images=3, size=(6, 5), activation="sigmoid", seed=0):
    """Random logits that want a gradient, and a label in which structures do not overlap."""
    generator = torch.Generator().manual_seed(seed)
    channels = structures + (activation == "softmax")
    logits = torch.randn(images, channels, *size, generator=generator).requires_grad_()
    picked = torch.randint(structures + 1, (images, *size), generator=generator)
    label = torch.stack([picked == s + 1 for s in range(structures)], dim=1).to(torch.uint8)
    return logits, label


def sure(mask):
    """Logits that answer with exactly this mask."""
    return torch.where(mask > 0, SURE, -SURE)


def a_square(pixels, size=64):
    mask = torch.zeros(1, 1, size, size)
    mask[..., :pixels, :pixels] = 1
    return mask


def test_dice_by_hand():
    # Probabilities 1/2, 1/2, 1/2, 1/2 of labels 1, 1, 1, 0.
    logits, label = one(0, 0, 0, 0), one(1, 1, 1, 0)
    assert DiceLoss(smoothing=1.0)(logits, label).item() == pytest.approx(1 - (3 + 1) / (2 + 3 + 1))
    assert DiceLoss(smoothing=1e-5)(logits, label).item() == pytest.approx(1 - 3 / 5, abs=1e-5)


@pytest.mark.parametrize(("smoothing", "expected"), [(1.0, 1 - 1 / 5), (1e-5, 1.0)])
def test_dice_of_a_missed_structure(smoothing, expected):
    assert DiceLoss(smoothing)(one(*[-SURE] * 4), one(1, 1, 1, 1)).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss", [DiceLoss(), LuoDiceLoss(), LuoDiceLoss("factor 2")])
def test_the_right_answer_has_no_dice_loss(loss):
    mask = a_square(8)
    assert loss(sure(mask), mask).item() == pytest.approx(0, abs=1e-6)


def test_dice_of_two_structures_is_the_mean_of_each():
    logits, label = random_case()
    for options in ({}, {"pooled": "image"}, {"smoothing": 0.1}):
        each = [DiceLoss(**options)(logits[:, s : s + 1], label[:, s : s + 1]) for s in range(2)]
        torch.testing.assert_close(DiceLoss(**options)(logits, label), sum(each) / 2)


def test_pooling_over_the_batch_weighs_images_by_their_size():
    # A large structure found and a small one missed.
    label = torch.cat([a_square(8), a_square(2)])
    logits = torch.cat([sure(a_square(8)), sure(a_square(0))])
    assert DiceLoss(1e-6, "image")(logits, label).item() == pytest.approx(0.5)
    assert DiceLoss(1e-6, "batch")(logits, label).item() == pytest.approx(1 - 2 * 64 / (64 + 68))


def test_choices_that_the_papers_leave_open():
    found, label = torch.cat([a_square(8), a_square(0)]), torch.cat([a_square(8), a_square(2)])
    label = torch.cat([label, torch.zeros_like(label)], dim=1)  # and a structure that is nowhere, but found once
    logits = sure(torch.cat([found, a_square(1).expand_as(found)], dim=1))
    # One coefficient of the batch for each structure, smoothed by 1; the absent one counts.
    assert DiceLoss()(logits, label).item() == pytest.approx(((1 - 129 / 133) + (1 - 1 / 3)) / 2)
    # One of each image, in which the absent one counts too: 4 of 4096 pixels missed, and one too many, twice.
    missed, false = 1 - 4092 / (4092 + 4096), 1 - 4095 / (4095 + 4096)
    assert LuoDiceLoss()(logits, label).item() == pytest.approx((0 + missed + 2 * false) / 4, abs=1e-5)
    assert LuoDiceLoss(absent="skip")(logits, label).item() == pytest.approx((0 + missed) / 2, abs=1e-5)
    options = vars(FocalLoss()) | vars(LuoLoss()) | {"epsilon": LuoDiceLoss().smoothing}
    assert [options[name] for name in ("alpha", "gamma", "beta", "epsilon")] == [0.25, 2.0, 0.5, 1e-5]


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


@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [0.25, 0.9])
def test_focal_agrees_with_monai(alpha, gamma):
    from monai.losses import FocalLoss as MonaiFocal

    logits, label = random_case()
    torch.testing.assert_close(
        FocalLoss(alpha, gamma)(logits, label), MonaiFocal(gamma=gamma, alpha=alpha)(logits, label)
    )


def test_focal_by_hand():
    logits, label = one(0.0, log(3), log(3), -log(3)), one(1, 1, 0, 0)  # probabilities 1/2, 3/4, 3/4, 1/4
    pixels = [
        0.25 * (1 / 2) ** 2 * log(2),
        0.25 * (1 / 4) ** 2 * log(4 / 3),
        0.75 * (3 / 4) ** 2 * log(4),
        0.75 * (1 / 4) ** 2 * log(4 / 3),
    ]
    assert FocalLoss()(logits, label).item() == pytest.approx(sum(pixels) / 4)


def test_focal_without_gamma_is_half_the_cross_entropy():
    logits, label = random_case()
    torch.testing.assert_close(FocalLoss(0.5, 0)(logits, label), CrossEntropyLoss()(logits, label) / 2)


@pytest.mark.parametrize("structures", [1, 3])
def test_focal_of_a_softmax_takes_each_structure_against_all_else(structures):
    logits, label = random_case(structures, activation="softmax")
    p = logits.double().softmax(dim=1)[:, 1:]
    expected = torch.where(label == 1, -0.3 * (1 - p) ** 2 * p.log(), -0.7 * p**2 * (1 - p).log()).mean()
    torch.testing.assert_close(
        FocalLoss(0.3, activation="softmax")(logits, label).double(), expected, rtol=1e-5, atol=1e-6
    )


def test_a_softmax_of_two_is_a_sigmoid_of_the_difference():
    logits, label = random_case(1, activation="softmax")
    difference = logits[:, 1:] - logits[:, :1]
    for loss in NEW_LOSSES:
        torch.testing.assert_close(loss(activation="softmax")(logits, label), loss()(difference, label))


# Equation 1 of Luo et al. 2020 on masks of 512 x 512 pixels with 1000 of the structure: with epsilon 1e-5.
@pytest.mark.parametrize(
    ("found", "labelled", "printed", "factor_2"),
    [
        ("structure", "structure", 0.0, 0.0),
        ("nothing", "structure", 0.501, 0.501),
        ("inverted", "structure", 1.0, 1.0),
        ("nothing", "nothing", -0.5, 0.0),
    ],
)
def test_dice_of_luo_on_plain_masks(found, labelled, printed, factor_2):
    structure = torch.zeros(1, 1, 512, 512)
    structure.view(-1)[:1000] = 1
    masks = {"structure": structure, "nothing": 0 * structure, "inverted": 1 - structure}
    for form, expected in (("printed", printed), ("factor 2", factor_2)):
        loss = LuoDiceLoss(form)(sure(masks[found]), masks[labelled])
        assert loss.item() == pytest.approx(expected, abs=5e-5)


def test_one_false_pixel_on_an_empty_slice_costs_luo_half():
    found = torch.zeros(1, 1, 512, 512)
    found[0, 0, 9, 9] = 1
    assert LuoDiceLoss(smoothing=1e-5)(sure(found), 0 * found).item() == pytest.approx(0.5, abs=1e-4)


def test_dice_of_luo_by_hand():
    # Probabilities 1/2, 1/2, 1/2, 3/4 of labels 1, 0, 0, 0; epsilon 0.1.
    logits, label = one(0, 0, 0, log(3)), one(1, 0, 0, 0)
    inside, outside = (0.5 + 0.1) / (3.25 + 0.1), (1.25 + 0.1) / (1.75 + 3 + 0.1)
    assert LuoDiceLoss(smoothing=0.1)(logits, label).item() == pytest.approx(1 - inside - outside)
    inside, outside = (1.0 + 0.1) / (3.25 + 0.1), (2.5 + 0.1) / (1.75 + 3 + 0.1)
    assert LuoDiceLoss("factor 2", smoothing=0.1)(logits, label).item() == pytest.approx(1 - (inside + outside) / 2)


@pytest.mark.parametrize("form", ["printed", "factor 2"])
def test_the_two_forms_have_one_gradient_where_epsilon_is_small(form):
    logits, label = random_case()
    (expected,) = torch.autograd.grad(LuoDiceLoss(smoothing=1e-6)(logits, label), logits)
    (found,) = torch.autograd.grad(LuoDiceLoss(form, smoothing=1e-6)(logits, label), logits)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", OVERLAP_LOSSES)
def test_absent_structures_can_be_left_out(loss):
    logits, label = random_case()
    label[1, 0] = 0  # one structure of one image
    for pooled in ("image", "batch"):
        each = [
            loss(pooled=pooled, absent="count")(logits[b, s][None, None], label[b, s][None, None])
            for b in range(3)
            for s in range(2)
            if (b, s) != (1, 0)
        ]
        found = loss(pooled=pooled, absent="skip")(logits, label)
        if pooled == "image":
            torch.testing.assert_close(found, sum(each) / 5)
        else:  # present in other images of the batch
            torch.testing.assert_close(found, loss(pooled=pooled, absent="count")(logits, label))


@pytest.mark.parametrize("loss", OVERLAP_LOSSES)
@pytest.mark.parametrize("pooled", ["image", "batch"])
def test_only_absent_structures_leave_a_zero_with_a_zero_gradient(loss, pooled):
    logits, label = random_case()
    value = loss(pooled=pooled, absent="skip")(logits, 0 * label)
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


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


@pytest.mark.parametrize("loss", NEW_LOSSES)
def test_the_union_is_one_structure(loss):
    _, label = random_case(3)
    logits, _ = random_case(1, seed=1)
    expected = loss()(logits, label.amax(dim=1, keepdim=True))
    torch.testing.assert_close(loss(target="union")(logits, label), expected)


# --- Structures that were not contoured --------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", NEW_LOSSES)
def test_what_was_not_contoured_has_no_gradient_and_no_say(loss, activation):
    logits, label = random_case(3, activation=activation)
    channel = 1 + (activation == "softmax")
    label[0, 1] = 255
    value = loss(activation=activation)(logits, label)
    (gradient,) = torch.autograd.grad(value, logits)
    missing = torch.zeros(logits.shape, dtype=torch.bool)
    missing[0, channel] = True
    assert not gradient[missing].any()
    assert gradient.isfinite().all()
    assert gradient[1:, channel].any()
    assert gradient[0, channel - 1].any()
    other = logits.detach().masked_fill(missing, 3.0)
    torch.testing.assert_close(loss(activation=activation)(other, label), value.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", [DiceLoss(pooled="image"), LuoDiceLoss(), FocalLoss(), LuoLoss()])
def test_a_structure_that_was_never_contoured_might_as_well_not_exist(loss, activation):
    logits, label = random_case(3, activation=activation)
    for part in (loss, getattr(loss, "dice", None), getattr(loss, "focal", None)):
        if part:
            part.activation = activation
    kept = [0, 2]
    channels = kept if activation == "sigmoid" else [0, 1, 3]
    expected = loss(logits[:, channels], label[:, kept])
    label[:, 1] = 255
    torch.testing.assert_close(loss(logits, label), expected)


def test_a_pooled_coefficient_leaves_out_images_without_the_contour():
    logits, label = random_case(1)
    expected = DiceLoss()(logits[1:], label[1:])
    label[0] = 255
    torch.testing.assert_close(DiceLoss()(logits, label), expected)


def test_one_marked_pixel_marks_the_channel():
    """A rotation fills the corners of a label with zeros."""
    logits, label = random_case(2)
    whole, part = label.clone(), label.clone()
    whole[0, 1] = 255
    part[0, 1, 3, 3] = 255
    for loss in NEW_LOSSES:
        assert torch.equal(loss()(logits, whole), loss()(logits, part))


@pytest.mark.parametrize("target", ["structures", "union"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", NEW_LOSSES)
def test_nothing_contoured_is_a_zero_with_a_zero_gradient(loss, activation, target):
    logits, label = random_case(3 if target == "structures" else 1, activation=activation)
    label = torch.full((3, 3, *label.shape[2:]), 255, dtype=torch.uint8)
    value = loss(activation=activation, target=target)(logits, label)
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("loss", NEW_LOSSES)
def test_an_image_has_a_union_only_where_all_was_contoured(loss):
    _, label = random_case(3)
    logits, _ = random_case(1, seed=1)
    expected = loss(target="union")(logits[[0, 2]], label[[0, 2]])
    label[1, 2] = 255
    torch.testing.assert_close(loss(target="union")(logits, label), expected)


# --- Numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [20.0, 1e4, 1e8, 1e20])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", NEW_LOSSES)
def test_extreme_logits_have_finite_losses_and_gradients(loss, activation, size):
    _, label = random_case(3, activation=activation)
    label[0, 1] = 255
    for seed in range(4):
        logits, _ = random_case(3, activation=activation, seed=seed)
        logits = (size * logits.detach().sign()).requires_grad_()
        value = loss(activation=activation)(logits, label)
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_sure_mistake_costs_its_logit(activation):
    """Where one minus the probability rounds to zero, its logarithm is still that of the logits."""
    logits, label = one(60.0), one(0)
    if activation == "softmax":
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    assert FocalLoss(activation=activation)(logits, label).item() == pytest.approx(0.75 * 60)


def test_the_gradient_of_a_softmax_is_that_of_numbers():
    for loss in NEW_LOSSES:
        logits, label = random_case(3, images=2, size=(2, 2), activation="softmax")
        logits = (3 * logits.detach()).requires_grad_()
        loss(activation="softmax")(logits, label).backward()
        for index in ((0, 0, 0, 0), (1, 2, 1, 0), (0, 3, 1, 1)):
            step = torch.zeros_like(logits)
            step[index] = 0.01
            with torch.no_grad():
                up, down = (loss(activation="softmax")(logits + sign * step, label) for sign in (1, -1))
            assert logits.grad[index].item() == pytest.approx((up - down).item() / 0.02, rel=0.02, abs=2e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", NEW_LOSSES)
def test_half_precision_logits_are_taken_to_single(loss, activation):
    logits, label = random_case(2, size=(64, 64), activation=activation)
    logits = logits.detach().bfloat16()
    expected = loss(activation=activation)(logits.float(), label)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(activation=activation)(logits, label)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("loss", NEW_LOSSES)
def test_volumes_and_inner_scores(loss):
    logits, _ = random_case(2, size=(2, 3, 4))
    _, label = random_case(2, size=(4, 6, 4))
    label[0, 1] = 255
    halves = reduce_label(label, (2, 3, 4))
    assert (halves[0, 1] == 255).all()
    torch.testing.assert_close(loss()(logits, label), loss()(logits, halves))


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        (1, {}, "sigmoid logits of structures have 2 channels for this label, got 1"),
        (2, {"activation": "softmax"}, "softmax logits of structures have 3 channels for this label, got 2"),
        (2, {"target": "union"}, "sigmoid logits of union have 1 channels for this label, got 2"),
        (1, {"target": "union", "activation": "softmax"}, "softmax logits of union have 2 channels"),
    ],
)
@pytest.mark.parametrize("loss", NEW_LOSSES)
def test_channels_that_do_not_go_together(loss, channels, options, message):
    with pytest.raises(ValueError, match=message):
        loss(**options)(torch.zeros(1, channels, 4, 4), torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize(
    ("loss", "options", "near"),
    [
        (DiceLoss, {"pooled": "images"}, "image"),
        (DiceLoss, {"absent": "skipped"}, "skip"),
        (LuoDiceLoss, {"form": "print"}, "printed"),
        (FocalLoss, {"activation": "softmx"}, "softmax"),
        (LuoLoss, {"target": "unoin"}, "union"),
    ],
)
def test_a_misspelt_option_names_the_near_miss(loss, options, near):
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        loss(**options)

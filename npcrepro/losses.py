"""Losses: logits and labels in, one number out. Each takes the label at full size and brings it to the logits' size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from npcrepro.protocol import pick

# Fills the channel of a structure that nobody drew in a case, which is not the same as its not being there. A label is
# 0 or 1 otherwise.
NOT_CONTOURED = 255


def reduce_label(label: Tensor, size: tuple[int, ...], how: str = "area") -> Tensor:
    """Bring a label to the size of an inner score map.

    Args:
        label: ``(B, C, ...)`` with values in [0, 1].
        size: spatial size to reach; each side has to divide the label's.
        how: ``"area"`` (fraction of the pixel covered) or ``"nearest"``.

    Returns:
        ``(B, C, *size)``, float.

    Raises:
        InputError: unknown ``how``.
        ValueError: ``size`` does not divide the label's size.

    Example:
        >>> import torch
        >>> reduce_label(torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]), (1, 1)).item()
        0.25
    """
    label = label.float()
    full = tuple(label.shape[2:])
    if full == tuple(size):
        return label
    if any(a % b for a, b in zip(full, size, strict=True)):
        raise ValueError(f"a label of size {full} cannot be reduced to {tuple(size)}: the sizes do not divide")
    pool = F.avg_pool2d if len(full) == 2 else F.avg_pool3d
    factor = tuple(a // b for a, b in zip(full, size, strict=True))
    ways = {
        "area": lambda: pool(label, factor),
        "nearest": lambda: F.interpolate(label, size=tuple(size), mode="nearest"),
    }
    return pick(ways, how, "way to reduce a label")()


class CrossEntropyLoss:
    """Sigmoid cross-entropy of one-channel scores, ``-[y log s(x) + (1 - y) log(1 - s(x))]``.

    Args:
        reduction: ``"mean"`` over all pixels, or ``"sum"`` over the pixels of an image and mean over images.
        target: how the label is brought to the logits' size, see :func:`reduce_label`.

    Shape:
        logits ``(B, C, *small)``, label ``(B, C, *full)`` in [0, 1]; returns a scalar >= 0. An image without tumour is
        an ordinary image here.

    Example:
        >>> import torch
        >>> round(CrossEntropyLoss()(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item(), 4)
        0.6931
    """

    def __init__(self, reduction: str = "mean", target: str = "area"):
        self.reduction = pick({"mean": "mean", "sum": "sum"}, reduction, "reduction")
        self.target = target

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        target = reduce_label(label, logits.shape[2:], self.target)
        total = F.binary_cross_entropy_with_logits(logits.float(), target, reduction=self.reduction)
        return total / len(logits) if self.reduction == "sum" else total


class EuclideanLoss:
    """Half the squared distance of scores and label, the other loss that fits a network ending in a linear score.

    ``L = (x - y)^2 / 2``.

    Args:
        reduction: ``"mean"`` over all pixels, or ``"sum"`` over the pixels of an image and mean over images.
        target: how the label is brought to the logits' size, see :func:`reduce_label`.

    Shape:
        as :class:`CrossEntropyLoss`. A score trained this way is cut at 0.5, not at 0.

    Example:
        >>> import torch
        >>> EuclideanLoss("sum")(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item()
        2.0
    """

    def __init__(self, reduction: str = "mean", target: str = "area"):
        self.reduction = pick({"mean": "mean", "sum": "sum"}, reduction, "reduction")
        self.target = target

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        target = reduce_label(label, logits.shape[2:], self.target)
        half_square = (logits.float() - target).square() / 2
        return half_square.mean() if self.reduction == "mean" else half_square.sum() / len(logits)


# --- Overlap and focal losses ------------------------------------------------------------------------------------

# Stands for minus infinity: its exponential is zero as well, and it times zero is zero.
_IMPOSSIBLE = -1e30


class DiceLoss:
    """One minus the soft Dice coefficient, ``1 - (2 sum p g + s) / (sum p + sum g + s)``, mean over structures.

    Args:
        smoothing: ``s`` > 0. The larger it is, the less it costs to find a little where there is nothing.
        pooled: ``"batch"`` sums over all images of the batch, ``"image"`` makes a coefficient for each image.
        absent: structures without a labelled pixel in what is summed ``"count"`` like others, or are left out
            (``"skip"``).
        activation: ``"sigmoid"``, or ``"softmax"`` over background (first) and structures.
        target: ``"structures"``, or ``"union"``: one structure in the logits against all of the label taken together.

    Shape:
        logits ``(B, S, ...)``, for softmax ``(B, 1 + S, ...)``, with S = 1 for the union; label ``(B, S, ...)`` of 0
        and 1, brought to the logits' size. Returns a scalar in [0, 1].

        A structure with the value 255 anywhere in its channel was not contoured in that image and takes no part: its
        channel counts nowhere, a softmax of that image runs over the other channels, and an image in which any
        structure is missing has no union. If nothing is left, the loss is zero, with zero gradient.

    Raises:
        InputError: an unknown option.
        ValueError: numbers of channels of logits and label that do not go together.

    Example:
        >>> import torch
        >>> DiceLoss()(torch.full((1, 1, 1, 4), -100.0), torch.tensor([[[[1, 0, 0, 0]]]])).item()
        0.5
    """

    # SILENT: Xue 2020, smoothing, sum over image or batch, slices without tumour; 1, over the batch, counted.
    def __init__(
        self,
        smoothing: float = 1.0,
        pooled: str = "batch",
        absent: str = "count",
        activation: str = "sigmoid",
        target: str = "structures",
    ):
        self.smoothing = smoothing
        self.pooled = _option(("batch", "image"), pooled, "pooling")
        self.absent = _option(("count", "skip"), absent, "treatment of absent structures")
        self.activation = _option(("sigmoid", "softmax"), activation, "activation")
        self.target = _option(("structures", "union"), target, "target")

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        truth, contoured = _truth(logits, label, self.activation, self.target)
        logits = _without_missing(logits, contoured, self.activation)
        probability = logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)[:, 1:]
        counted = contoured if self.pooled == "image" else contoured.any(dim=0, keepdim=True)
        if self.absent == "skip":
            counted = counted & (self._sum(truth, contoured) > 0)
        return _mean_where(self._loss(probability, truth, contoured), counted)

    def _loss(self, probability: Tensor, truth: Tensor, contoured: Tensor) -> Tensor:
        return 1 - self._coefficient(probability, truth, contoured, factor=2)

    def _coefficient(self, probability: Tensor, truth: Tensor, contoured: Tensor, factor: int) -> Tensor:
        overlap = self._sum(probability * truth, contoured)
        sizes = self._sum(probability + truth, contoured)
        return (factor * overlap + self.smoothing) / (sizes + self.smoothing)

    def _sum(self, values: Tensor, contoured: Tensor) -> Tensor:
        """Over the pixels of an image, ``(B, S)``, or of all images in which a structure is contoured, ``(1, S)``."""
        sums = values.flatten(2).sum(dim=2)
        return sums if self.pooled == "image" else torch.where(contoured, sums, 0.0).sum(dim=0, keepdim=True)


class LuoDiceLoss(DiceLoss):
    """Dice loss of Luo et al. 2020, equation 1, with a term for the structure and one for all that is outside it.

    As printed, ``1 - (sum p r + e) / (sum (p + r) + e) - (sum (1-p)(1-r) + e) / (sum (2 - p - r) + e)``. It is 0 for
    the right answer, 1 for the inverted one, about 0.5 where a small structure is missed, and -0.5 where a structure
    is absent and not found.

    Args:
        form: ``"printed"``, or ``"factor 2"``, the mean of two Dice coefficients subtracted from one: the same, but
            that it stays in [0, 1] and is 0 where a structure is absent and not found.
        smoothing: ``e``.
        pooled, absent, activation, target: as in :class:`DiceLoss`, also for shapes and structures not contoured.

    Example:
        >>> import torch
        >>> nothing = torch.full((1, 1, 8, 8), -100.0), torch.zeros(1, 1, 8, 8)
        >>> round(LuoDiceLoss()(*nothing).item(), 4)
        -0.5
    """

    # PAPER: Luo 2020, equation 1, with a background term and without the factor 2.
    # SILENT: Luo 2020, epsilon, what is summed over, and how structures are averaged; 1e-5, the pixels of an image, the
    # mean over all structures. A structure that is absent and not found is rewarded with -0.5. Without absent ones
    # ("skip") next to nothing tells a network not to mark them in slices of others, and for long it does.
    def __init__(
        self,
        form: str = "printed",
        smoothing: float = 1e-5,
        pooled: str = "image",
        absent: str = "count",
        activation: str = "sigmoid",
        target: str = "structures",
    ):
        super().__init__(smoothing, pooled, absent, activation, target)
        self.form = _option(("printed", "factor 2"), form, "form of the Dice loss")

    def _loss(self, probability: Tensor, truth: Tensor, contoured: Tensor) -> Tensor:
        factor = 1 if self.form == "printed" else 2
        inside = self._coefficient(probability, truth, contoured, factor)
        outside = self._coefficient(1 - probability, 1 - truth, contoured, factor)
        return 1 - (inside + outside) / factor


class ChenDiceLoss(DiceLoss):
    """Dice loss of Chen et al. 2020, equation 1, as printed: ``1 - 2 (sum p g + s) / (sum p + sum g + s)``.

    With the smoothing inside the factor 2 it is -1 where a structure is absent and not found, and below 0 for the
    right answer. :class:`DiceLoss` has the form that stays in [0, 1].

    Args:
        smoothing: ``s`` > 0.
        pooled, absent, activation, target: as in :class:`DiceLoss`, also for shapes and structures not contoured.

    Example:
        >>> import torch
        >>> round(ChenDiceLoss()(torch.full((1, 1, 8, 8), -100.0), torch.zeros(1, 1, 8, 8)).item(), 4)
        -1.0
    """

    # PAPER: Chen 2020, equation 1, smoothing of 1.
    # SILENT: Chen 2020, sum over an image or over the batch; an image.
    def __init__(self, smoothing: float = 1.0, pooled: str = "image", **options: str):
        super().__init__(smoothing, pooled, **options)

    def _loss(self, probability: Tensor, truth: Tensor, contoured: Tensor) -> Tensor:
        return 1 - 2 * self._coefficient(probability, truth, contoured, factor=1)


class FocalLoss:
    """Cross-entropy that counts sure pixels less, ``-a (1-p)^g log p`` inside, ``-(1-a) p^g log(1-p)`` outside.

    Mean over pixels and structures. In a softmax each structure is taken against all else, so that background takes
    part through the probabilities only.

    Args:
        alpha: weight of labelled pixels, in [0, 1].
        gamma: >= 0; 0 makes it a weighted cross-entropy.
        activation, target: as in :class:`DiceLoss`, also for shapes and structures not contoured.

    Example:
        >>> import torch
        >>> round(FocalLoss(alpha=0.5, gamma=0)(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item(), 4)
        0.3466
    """

    # PAPER: Luo 2020, equation 2.
    # SILENT: Luo 2020, alpha, gamma, and mean or sum over pixels; 0.25 and 2 of the focal-loss paper, mean. With 0.25
    # a labelled pixel weighs a third of one of background.
    def __init__(
        self, alpha: float = 0.25, gamma: float = 2.0, activation: str = "sigmoid", target: str = "structures"
    ):
        self.alpha, self.gamma = alpha, gamma
        self.activation = _option(("sigmoid", "softmax"), activation, "activation")
        self.target = _option(("structures", "union"), target, "target")

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        truth, contoured = _truth(logits, label, self.activation, self.target)
        logits = _without_missing(logits, contoured, self.activation)
        log_p, log_not_p = _log_sigmoid(logits) if self.activation == "sigmoid" else _log_softmax(logits)
        inside = self.alpha * truth * (self.gamma * log_not_p).exp() * log_p
        outside = (1 - self.alpha) * (1 - truth) * (self.gamma * log_p).exp() * log_not_p
        return _mean_where(-(inside + outside).flatten(2).mean(dim=2), contoured)


class DiceCrossEntropyLoss:
    """Dice loss over the batch plus cross-entropy, what segmentation networks are commonly trained with today.

    The cross-entropy is that of each structure against all else, mean over pixels and sum over structures.

    Args:
        activation, target: as in :class:`DiceLoss`, also for shapes and structures not contoured.

    Example:
        >>> import torch
        >>> label = torch.tensor([[[[1, 0, 0, 0]]]])
        >>> round(DiceCrossEntropyLoss()(torch.zeros(1, 1, 1, 4), label).item(), 4)
        1.1931
    """

    def __init__(self, activation: str = "sigmoid", target: str = "structures"):
        self.dice = DiceLoss(activation=activation, target=target)
        self.halved_cross_entropy = FocalLoss(alpha=0.5, gamma=0.0, activation=activation, target=target)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        structures = 1 if self.dice.target == "union" else label.shape[1]
        return self.dice(logits, label) + 2 * structures * self.halved_cross_entropy(logits, label)


class LuoLoss:
    """Loss of each step of Luo et al. 2020, equation 3: ``beta * Dice + (1 - beta) * Focal``.

    Args:
        beta: weight of the Dice loss, in [0, 1].
        dice, focal: options of :class:`LuoDiceLoss` and :class:`FocalLoss`.
        activation, target: of both, as in :class:`DiceLoss`, also for shapes and structures not contoured.
    """

    # SILENT: Luo 2020, beta; 0.5.
    def __init__(
        self,
        beta: float = 0.5,
        dice: Mapping[str, Any] | None = None,
        focal: Mapping[str, Any] | None = None,
        activation: str = "sigmoid",
        target: str = "structures",
    ):
        self.beta = beta
        self.dice = LuoDiceLoss(**(dice or {}), activation=activation, target=target)
        self.focal = FocalLoss(**(focal or {}), activation=activation, target=target)

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        return self.beta * self.dice(logits, label) + (1 - self.beta) * self.focal(logits, label)


class LuoJointLoss:
    """Losses of both stages of Luo et al. 2020 together, each as :class:`LuoLoss`, their sum.

    The first stage has one sigmoid logit for the union of the structures.

    Args:
        activation: of the second stage.
        options: of both, see :class:`LuoLoss`.

    Shape:
        a pair (coarse, fine) of logits, and the label, as in :class:`DiceLoss`.
    """

    # SILENT: Luo 2020, weights of the two stages where they are trained together; equal.
    def __init__(self, activation: str = "softmax", **options: Any):
        self.coarse = LuoLoss(activation="sigmoid", target="union", **options)
        self.fine = LuoLoss(activation=activation, **options)

    def __call__(self, logits: tuple[Tensor, Tensor], label: Tensor) -> Tensor:
        coarse, fine = logits
        return self.coarse(coarse, label) + self.fine(fine, label)


class DistanceFocalLoss:
    """Focal loss of Guo et al. 2021 with a weight for each voxel, ``-sum a (1 - p_t)^g log p_t / sum a``.

    ``p_t`` is the probability of a structure where it is labelled, and one minus it elsewhere.

    Args:
        gamma: >= 0; 0 makes it a weighted cross-entropy.

    Shape:
        logits ``(B, 1 + S, ...)`` with background first, label ``(B, S, ...)`` of 0 and 1, weight ``(B, S, ...)`` >= 0;
        without a weight each voxel counts 1. Returns a scalar >= 0. A structure that was not contoured takes no part,
        as in :class:`DiceLoss`; if nothing is left, the loss is zero, with zero gradient.

    Raises:
        ValueError: numbers of channels of logits and label that do not go together.

    Example:
        >>> import torch
        >>> label, weight = torch.tensor([[[1, 0]]]), torch.tensor([[[3.0, 1.0]]])
        >>> round(DistanceFocalLoss()(torch.zeros(1, 2, 2), label, weight).item(), 4)
        0.1733
    """

    # PAPER: Guo 2021, equations 1 to 7, a focal loss whose alpha is a map computed from the reference.
    # SILENT: Guo 2021, gamma; 2.
    # SILENT: Guo 2021, p, as there are two softmax outputs; that of the tumour.
    # DIFFERS: Guo 2021, alpha is in [0, 1] in equation 4 and at least 1 in equation 7; at least 1, and the loss is
    # divided by the sum of the weights.
    def __init__(self, gamma: float = 2.0):
        self.gamma = gamma

    def __call__(self, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        truth, contoured = _truth(logits, label, "softmax", "structures")
        log_p, log_not_p = _log_softmax(_without_missing(logits, contoured, "softmax"))
        inside = truth > 0
        log_right, log_wrong = torch.where(inside, log_p, log_not_p), torch.where(inside, log_not_p, log_p)
        weight = torch.ones_like(truth) if weight is None else weight
        weight = weight * _beside(contoured, weight)
        loss = weight * (self.gamma * log_wrong).exp() * log_right
        return -loss.sum() / weight.sum().clamp(min=torch.finfo(loss.dtype).tiny)


def _option(choices: tuple[str, ...], name: str, what: str) -> str:
    return pick({choice: choice for choice in choices}, name, what)


def _truth(logits: Tensor, label: Tensor, activation: str, target: str) -> tuple[Tensor, Tensor]:
    """Label at the logits' size, ``(B, S, ...)`` float, and where it means something, ``(B, S)``."""
    contoured = (label != NOT_CONTOURED).flatten(2).all(dim=2)
    if target == "union":
        label, contoured = label.amax(dim=1, keepdim=True), contoured.all(dim=1, keepdim=True)
    channels = label.shape[1] + (activation == "softmax")
    if logits.shape[1] != channels:
        raise ValueError(
            f"{activation} logits of {target} have {channels} channels for this label, got {logits.shape[1]}"
        )
    return reduce_label(label, logits.shape[2:]), contoured


def _beside(flags: Tensor, maps: Tensor) -> Tensor:
    """Flags ``(B, S)`` with axes for the pixels of ``maps``."""
    return flags.reshape(*flags.shape, *(1,) * (maps.ndim - 2))


def _without_missing(logits: Tensor, contoured: Tensor, activation: str) -> Tensor:
    """Logits in single precision, with nothing left for structures that were not contoured."""
    logits = logits.float()
    if activation == "softmax":
        contoured = F.pad(contoured, (1, 0), value=True)  # background
    return logits.masked_fill(~_beside(contoured, logits), _IMPOSSIBLE)


def _mean_where(loss: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, loss, 0.0).sum() / counted.sum().clamp(min=1)


def _log_sigmoid(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the probability and of its complement."""
    return F.logsigmoid(logits), F.logsigmoid(-logits)


def _log_softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the probability of each structure and of its complement, without background.

    The complement of the largest channel is summed over the others; one minus a probability that rounds to 1 would
    lose it. Any other probability is at most 1/2.
    """
    log_p = logits.log_softmax(dim=1)
    largest = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, largest, _IMPOSSIBLE).logsumexp(dim=1, keepdim=True)
    complement = torch.log1p(-log_p.exp().clamp(max=0.5))
    complement = complement.scatter(1, largest, others - logits.logsumexp(dim=1, keepdim=True))
    return log_p[:, 1:], complement[:, 1:]

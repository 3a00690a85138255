"""Losses: logits and labels in, one number out. Each takes the label at full size and brings it to the logits' size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from npcrepro.protocol import pick


def reduce_label(label: Tensor, size: tuple[int, ...], how: str = "area") -> Tensor:
    """Bring a label to the size of an inner score map.

    Args:
        label: ``(B, C, ...)`` with values in [0, 1].
        size: spatial size to reach; each side has to divide the label's.
        how: ``"area"`` (fraction of the pixel covered), ``"nearest"`` or ``"maximum"`` (any part covered).

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
    pool_average, pool_maximum = (F.avg_pool2d, F.max_pool2d) if len(full) == 2 else (F.avg_pool3d, F.max_pool3d)
    factor = tuple(a // b for a, b in zip(full, size, strict=True))
    ways = {
        "area": lambda: pool_average(label, factor),
        "maximum": lambda: pool_maximum(label, factor),
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

"""Euclidean loss, one of two losses that fit the network of Li et al. 2018; the paper names none."""

from __future__ import annotations

from torch import Tensor

from npcrepro.base.errors import pick
from npcrepro.losses.targets import reduce_label


class EuclideanLoss:
    """Half the squared distance of scores and label, ``L = (x - y)^2 / 2``. It fits a network with a linear last score.

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
        # No equation in the paper: L = (x - y)^2 / 2
        half_square = (logits.float() - target).square() / 2
        return half_square.mean() if self.reduction == "mean" else half_square.sum() / len(logits)

"""Losses for Li et al. 2018, which names none: the Euclidean loss for its network, the hinge loss for its rivals."""

import torch
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


class HingeLoss:
    """The loss of support vector machines, ``max(0, 1 - y x)``, y being 1 in the structure and -1 elsewhere.

    Both classes count alike: the mean over pixels of the structure and the mean over all others are averaged; of a
    batch with one class alone, its mean counts.

    Shape:
        distances ``(B, C, *size)`` and label ``(B, C, *size)`` in [0, 1], cut at one half; returns a scalar >= 0.

    Example:
        >>> import torch
        >>> HingeLoss()(torch.tensor([[[[0.0, -2.0, -0.5]]]]), torch.tensor([[[[1, 0, 0]]]])).item()
        0.625
    """

    def __call__(self, distance: Tensor, label: Tensor) -> Tensor:
        inside = reduce_label(label, distance.shape[2:]) > 0.5
        hinge = (1 - torch.where(inside, 1.0, -1.0) * distance.float()).clamp_min(0)
        return torch.stack([hinge[part].mean() for part in (inside, ~inside) if part.any()]).mean()

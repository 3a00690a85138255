"""Cross-entropy, alone and together with a Dice loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from npcrepro.base.errors import one_of
from npcrepro.losses.dice import DiceLoss
from npcrepro.losses.focal import FocalLoss
from npcrepro.losses.targets import reduce_label


class CrossEntropyLoss:
    """Sigmoid cross-entropy of logits, ``-[y log p + (1 - y) log(1 - p)]``.

    Args:
        reduction: ``"mean"`` over all pixels, or ``"sum"`` over the pixels of an image and mean over images.
        target: how the label is brought to the size of the logits, see :func:`reduce_label`.

    Shape:
        logits ``(B, C, *small)``, label ``(B, C, *full)`` in [0, 1]; returns a scalar >= 0.

    Example:
        >>> import torch
        >>> round(CrossEntropyLoss()(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item(), 4)
        0.6931
    """

    def __init__(self, reduction: str = "mean", target: str = "area"):
        self.reduction = one_of(("mean", "sum"), reduction, "reduction")
        self.target = target

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        target = reduce_label(label, logits.shape[2:], self.target)
        total = F.binary_cross_entropy_with_logits(logits.float(), target, reduction=self.reduction)
        return total / len(logits) if self.reduction == "sum" else total


class DiceCrossEntropyLoss:
    """Dice loss over the batch plus cross-entropy, the loss that most segmentation networks are trained with today.

    The cross-entropy of each structure against everything else is averaged over pixels and summed over structures.

    Args:
        activation, target: as in :class:`DiceLoss`, which also says what the shapes are.

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

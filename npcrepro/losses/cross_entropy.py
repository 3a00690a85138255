"""Cross-entropy, alone and together with a Dice loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from npcrepro.base.errors import one_of
from npcrepro.losses.dice import DiceLoss
from npcrepro.losses.focal import FocalLoss
from npcrepro.losses.targets import beside, mean_where, reduce_label, target_of, without_missing


class CrossEntropyLoss:
    """Sigmoid cross-entropy of logits, ``-[y log p + (1 - y) log(1 - p)]``.

    Args:
        reduction: ``"mean"`` over all pixels, or ``"sum"`` over the pixels of an image and mean over images.
        target: how the label is brought to the size of the logits, see :func:`reduce_label`.

    Shape:
        logits ``(B, C, *small)``, label ``(B, C, *full)`` in [0, 1]; returns a scalar >= 0. A structure that
        was not contoured (255) is not foreseen.

    Example:
        >>> import torch
        >>> round(CrossEntropyLoss()(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item(), 4)
        0.6931
    """

    def __init__(self, reduction: str = "mean", target: str = "area"):
        self.reduction = one_of(("mean", "sum"), reduction, "reduction")
        self.target = target

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        # No equation in Li 2018: L = -[y log p + (1 - y) log(1 - p)], p the logistic function of the logit
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


class DeepSupervisionLoss:
    """Dice loss over the batch plus cross-entropy, summed over outputs of a network at several sizes.

    The cross-entropy is that of a softmax over background and structures, mean over pixels. Each output is compared
    with the label at its own size, pixels at boundaries as the fraction that is covered. The largest output has the
    weight 1, the next one 1/2, then 1/4, divided by their sum.

    Args:
        smoothing: of the Dice loss, see :class:`DiceLoss`.

    Shape:
        logits ``(B, 1 + S, ...)``, or a tuple of such tensors of which the last is the largest; label ``(B, S, ...)``
        as in :class:`DiceLoss`. Returns a scalar, >= 0 where no two structures overlap. Where they do, the share of the
        background is below 0 and the loss has no lower bound; no run is made then.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021;18:203-211. Differs: a smoothing of 1 in place of 1e-5, and shares
        of a pixel in place of the nearest label at the smaller sizes.

    Example:
        >>> label = torch.tensor([[[[1, 0, 0, 0]]]])
        >>> large, small = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 2)
        >>> round(DeepSupervisionLoss()((small, large), label).item(), 4)
        1.1598
    """

    def __init__(self, smoothing: float = 1.0):
        self.dice = DiceLoss(smoothing, activation="softmax")

    def __call__(self, logits: Tensor | tuple[Tensor, ...], label: Tensor) -> Tensor:
        outputs = logits[::-1] if isinstance(logits, tuple) else (logits,)
        weights = [0.5**number for number in range(len(outputs))]
        losses = [weight * self._at_one_size(output, label) for weight, output in zip(weights, outputs, strict=True)]
        return torch.stack(losses).sum() / sum(weights)

    def _at_one_size(self, logits: Tensor, label: Tensor) -> Tensor:
        truth, contoured = target_of(logits, label, "softmax", "structures")
        log_p = without_missing(logits, contoured, "softmax").log_softmax(dim=1)
        truth = truth.where(beside(contoured, truth), 0.0)
        truth = torch.cat([1 - truth.sum(dim=1, keepdim=True), truth], dim=1)
        each = -(truth * log_p).sum(dim=1, keepdim=True).flatten(2).mean(dim=2)
        return self.dice(logits, label) + mean_where(each, contoured.any(dim=1, keepdim=True))

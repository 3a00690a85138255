"""Dice loss: one minus the soft Dice coefficient."""

import torch
from torch import Tensor

from npcrepro.base.errors import one_of
from npcrepro.losses.targets import mean_where, target_of, without_missing


class DiceLoss:
    """One minus the soft Dice coefficient, ``1 - (2 sum p g + s) / (sum p + sum g + s)``, mean over structures.

    Args:
        smoothing: ``s`` > 0. The larger it is, the less it costs to find a little where there is nothing.
        pooled: ``"batch"`` sums over all images of the batch. ``"image"`` makes one coefficient for each image.
        absent: what happens to a structure without a labelled pixel. ``"count"`` treats it like the others, ``"skip"``
            leaves it out.
        activation: ``"sigmoid"``, or ``"softmax"`` over background (first) and structures.
        target: ``"structures"``, or ``"union"``: the logits have one structure, the union of those in the label.

    Shape:
        logits ``(B, S, ...)``, for softmax ``(B, 1 + S, ...)``, with S = 1 for the union; label ``(B, S, ...)`` of 0
        and 1, which is brought to the size of the logits. Returns a scalar in [0, 1].

        The value 255 anywhere in a channel of the label says that this structure was not contoured in this image. Its
        channel then counts nowhere, and a softmax runs over the other channels. An image in which any structure was
        not contoured has no union. If nothing is left, the loss and its gradient are zero.

    Raises:
        InputError: an unknown option.
        ValueError: the channels of logits and label do not go together.

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
        self.pooled = one_of(("batch", "image"), pooled, "pooling")
        self.absent = one_of(("count", "skip"), absent, "treatment of absent structures")
        self.activation = one_of(("sigmoid", "softmax"), activation, "activation")
        self.target = one_of(("structures", "union"), target, "target")

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        truth, contoured = target_of(logits, label, self.activation, self.target)
        logits = without_missing(logits, contoured, self.activation)
        probability = logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)[:, 1:]
        counted = contoured if self.pooled == "image" else contoured.any(dim=0, keepdim=True)
        if self.absent == "skip":
            counted = counted & (self._sum(truth, contoured) > 0)
        return mean_where(self._loss(probability, truth, contoured), counted)

    def _loss(self, probability: Tensor, truth: Tensor, contoured: Tensor) -> Tensor:
        # No equation in Xue 2020, loss: 1 - DSC, with probabilities p in place of the mask
        # eq. 1 of Chen 2020, with s outside of the factor 2: L = 1 - (2 sum p g + s) / (sum p + sum g + s)
        return 1 - self._coefficient(probability, truth, contoured, factor=2)

    def _coefficient(self, probability: Tensor, truth: Tensor, contoured: Tensor, factor: int) -> Tensor:
        # Luo 2020, eq. 1, a fraction: (sum p r + e) / (sum (p + r) + e); a factor of 2 for other papers
        overlap = self._sum(probability * truth, contoured)
        sizes = self._sum(probability + truth, contoured)
        return (factor * overlap + self.smoothing) / (sizes + self.smoothing)

    def _sum(self, values: Tensor, contoured: Tensor) -> Tensor:
        """Over the pixels of an image, ``(B, S)``, or of all images in which a structure is contoured, ``(1, S)``."""
        sums = values.flatten(2).sum(dim=2)
        return sums if self.pooled == "image" else torch.where(contoured, sums, 0.0).sum(dim=0, keepdim=True)

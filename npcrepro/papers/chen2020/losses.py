"""Dice loss of Chen et al. 2020, with the smoothing where the paper prints it."""

from torch import Tensor

from npcrepro.losses.dice import DiceLoss


class ChenDiceLoss(DiceLoss):
    """Dice loss of Chen et al. 2020, equation 1, as printed: ``1 - 2 (sum p g + s) / (sum p + sum g + s)``.

    The smoothing stands inside the factor 2. So the loss is -1 where a structure is absent and not found, and below 0
    for the right answer. :class:`DiceLoss` has the form that stays in [0, 1].

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
        # eqs. 1 to 3: 1 - 2 (sum p g + s) / (sum p + sum g + s), p the probabilities and g the labels
        return 1 - 2 * self._coefficient(probability, truth, contoured, factor=1)

"""Losses of Luo et al. 2020: Dice with a term for the background, its sum with the focal loss, and both stages."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from npcrepro.base.errors import one_of
from npcrepro.losses.dice import DiceLoss
from npcrepro.losses.focal import FocalLoss


class LuoDiceLoss(DiceLoss):
    """Dice loss of Luo et al. 2020, equation 1, with a term for the structure and one for all that is outside it.

    As printed, ``1 - (sum p r + e) / (sum (p + r) + e) - (sum (1-p)(1-r) + e) / (sum (2 - p - r) + e)``. It is 0 for
    the right answer, 1 for the inverted one, and about 0.5 where a small structure is missed.

    Where a structure is absent and not found the loss is -0.5, but only once its probabilities add up to less than
    about ``e``. With 1e-5, on a slice of 80 x 80, it stays at 0.50 and has next to no gradient while the
    probability of a pixel falls from 1e-2 to 1e-6, and then drops, between 1e-8 and 1e-10. With 1, it falls evenly from
    0.49 to -0.49 between 1e-2 and 1e-6.

    Args:
        form: ``"printed"``, or ``"factor 2"``, the mean of two Dice coefficients subtracted from one: the same, but
            that it stays in [0, 1] and ends at 0 where a structure is absent and not found.
        smoothing: ``e``, above 0.
        pooled, absent, activation, target: as in :class:`DiceLoss`, also for shapes and structures not contoured.

    Example:
        >>> import torch
        >>> nothing = torch.full((1, 1, 8, 8), -100.0), torch.zeros(1, 1, 8, 8)
        >>> round(LuoDiceLoss()(*nothing).item(), 4)
        -0.5
    """

    # PAPER: Luo 2020, equation 1, with a background term and without the factor 2.
    # SILENT: Luo 2020, epsilon, but that it lies between 0 and 1; 1e-5, whose reward for an absent structure is a
    #   cliff, at probabilities of about 1e-9 on 80 x 80 pixels and 4e-11 on 512 x 512. The method epsilon-1 has 1,
    #   whose reward is a slope.
    # SILENT: Luo 2020, what is summed over, and how structures are averaged; the pixels of an image, the mean over all
    #   structures. If absent ones are left out ("skip"), almost nothing in the loss forbids marking a structure in
    #   slices that do not show it, and networks do so for a long time.
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
        self.form = one_of(("printed", "factor 2"), form, "form of the Dice loss")

    def _loss(self, probability: Tensor, truth: Tensor, contoured: Tensor) -> Tensor:
        factor = 1 if self.form == "printed" else 2
        inside = self._coefficient(probability, truth, contoured, factor)
        outside = self._coefficient(1 - probability, 1 - truth, contoured, factor)
        # eq. 1: 1 - (sum p r + e) / (sum (p + r) + e) - (sum (1-p)(1-r) + e) / (sum ((1-p) + (1-r)) + e)
        return 1 - (inside + outside) / factor


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
        # eq. 3: Loss = beta Dice + (1 - beta) Focal, with Focal of eq. 2 in npcrepro.losses.focal
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

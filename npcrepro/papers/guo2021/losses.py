"""Focal loss of Guo et al. 2021, weighted by distance."""

import torch
from torch import Tensor

from npcrepro.losses.focal import log_softmax
from npcrepro.losses.targets import beside, target_of, without_missing


class DistanceFocalLoss:
    """Focal loss of Guo et al. 2021 with a weight for each voxel, ``-sum a (1 - p_t)^g log p_t / sum a``.

    ``p_t`` is the probability of a structure where it is labelled, and one minus it elsewhere.

    Args:
        gamma: >= 0; 0 makes it a weighted cross-entropy.

    Shape:
        logits ``(B, 1 + S, ...)`` with background first, label ``(B, S, ...)`` of 0 and 1, weight ``(B, S, ...)`` >= 0;
        without a weight each voxel counts 1. Returns a scalar >= 0. A structure that was not contoured takes no part,
        as in :class:`DiceLoss`; if nothing is left, the loss is zero and its gradient ``nan``; blocks of
        such cases are not drawn.

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
        truth, contoured = target_of(logits, label, "softmax", "structures")
        log_p, log_not_p = log_softmax(without_missing(logits, contoured, "softmax"))
        inside = truth > 0
        # eqs. 1 to 3: CE = -log p_t, p_t = p where y = 1 and 1 - p elsewhere
        log_right, log_wrong = torch.where(inside, log_p, log_not_p), torch.where(inside, log_not_p, log_p)
        # eq. 7, in the weight: alpha = d(v, edge) + 1 inside the tumour, 1 outside (npcrepro.losses.distance_weight)
        weight = torch.ones_like(truth) if weight is None else weight
        weight = weight * beside(contoured, weight)
        # eqs. 4 to 6: FL = -alpha (1 - p_t)^gamma log p_t
        loss = weight * (self.gamma * log_wrong).exp() * log_right
        return -loss.sum() / weight.sum().clamp(min=torch.finfo(loss.dtype).tiny)

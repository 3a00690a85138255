"""Focal loss: cross-entropy that counts pixels less of which the network is sure."""

import torch
import torch.nn.functional as F
from torch import Tensor

from npcrepro.base.errors import one_of
from npcrepro.losses.targets import IMPOSSIBLE, mean_where, target_of, without_missing


class FocalLoss:
    """Cross-entropy in which sure pixels weigh less, ``-a (1-p)^g log p`` inside, ``-(1-a) p^g log(1-p)`` outside.

    It is the mean over pixels and structures. With a softmax, each structure is compared with everything else, so that
    the background takes part through the probabilities only.

    Args:
        alpha: weight of labelled pixels, in [0, 1].
        gamma: >= 0; 0 makes it a weighted cross-entropy.
        activation, target: as in :class:`DiceLoss`, which also says what the shapes are.

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
        self.activation = one_of(("sigmoid", "softmax"), activation, "activation")
        self.target = one_of(("structures", "union"), target, "target")

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        truth, contoured = target_of(logits, label, self.activation, self.target)
        logits = without_missing(logits, contoured, self.activation)
        if self.activation == "sigmoid":
            log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
        else:
            log_p, log_not_p = log_softmax(logits)
        # Luo 2020, eq. 2: y = 1: -alpha (1 - p)^gamma log p; y = 0: -(1 - alpha) p^gamma log(1 - p)
        inside = self.alpha * truth * (self.gamma * log_not_p).exp() * log_p
        outside = (1 - self.alpha) * (1 - truth) * (self.gamma * log_p).exp() * log_not_p
        return mean_where(-(inside + outside).flatten(2).mean(dim=2), contoured)


def log_softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the probability of each structure and of its complement, without background.

    The complement of the most probable channel is the sum of the others, because one minus a probability that rounds
    to 1 would be zero. Every other probability is at most 1/2.
    """
    log_p = logits.log_softmax(dim=1)
    largest = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, largest, IMPOSSIBLE).logsumexp(dim=1, keepdim=True)
    complement = torch.log1p(-log_p.exp().clamp(max=0.5))
    complement = complement.scatter(1, largest, others - logits.logsumexp(dim=1, keepdim=True))
    return log_p[:, 1:], complement[:, 1:]

"""From logits to probabilities, and from these to decisions."""

import torch
from torch import Tensor

from npcrepro.base.errors import pick


def probabilities(logits: Tensor, activation: str) -> Tensor:
    """Probability of each structure.

    Args:
        logits: ``(B, S, ...)``, or ``(B, 1 + S, ...)`` with background first for ``"softmax"``.
        activation: ``"sigmoid"``, ``"softmax"`` or ``"identity"``.

    Returns:
        ``(B, S, ...)`` float32 in [0, 1]; a network that gives probabilities itself is cut to that range.

    Raises:
        InputError: unknown activation.
    """
    logits = logits.float()
    ways = {
        "sigmoid": lambda: logits.sigmoid(),
        "softmax": lambda: logits.softmax(dim=1)[:, 1:],
        "identity": lambda: logits.clamp(0, 1),
    }
    return pick(ways, activation, "activation")()


def decide(probability: Tensor, threshold: float | None) -> Tensor:
    """The structure of each voxel: the most probable one where it reaches the threshold, else background.

    Args:
        probability: ``(B, S, ...)`` in [0, 1]; ``nan`` counts as background.
        threshold: in [0, 1]; ``None`` compares with the probability of background, one minus the sum.

    Returns:
        ``(B, ...)`` int64, 0 for background and ``s + 1`` for structure ``s``.

    Example:
        >>> decide(torch.tensor([[[0.2, 0.6]]]), threshold=0.5)
        tensor([[0, 1]])
    """
    probability = probability.nan_to_num(nan=-1.0)
    largest, index = probability.max(dim=1)
    if threshold is None:
        reached = largest > 1 - probability.sum(dim=1)
    else:
        reached = largest >= threshold
    return torch.where(reached, index + 1, 0)

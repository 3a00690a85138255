"""From a trained network and a case to probabilities and decisions on the case's own grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.protocol import pick

if TYPE_CHECKING:
    from npcrepro.preprocess import SliceData


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


@torch.no_grad()
def predict_slices(
    network: nn.Module, data: SliceData, case: str, *, activation: str, batch_size: int, device
) -> Tensor:  # fmt: skip
    """Probability of each structure in all slices of a case.

    Args:
        network: ``(B, C, y, x)`` to logits, in evaluation mode.
        data: where the slices come from.
        case: name of the case.
        activation: see :func:`probabilities`.
        batch_size: slices in one forward pass.
        device: of the network.

    Returns:
        ``(S, z, y, x)`` float32 in [0, 1] on the grid of the case, ``nan`` where the network gave no number.
    """
    depth = len(data.arrays(case)[0])
    native = data.cohort.case(case).label.shape[-2:]
    maps = []
    for start in range(0, depth, batch_size):
        image, _ = data.batch([(case, z) for z in range(start, min(depth, start + batch_size))])
        probability = probabilities(network(data.finish(image.to(device))), activation)
        # Probabilities, not logits, are brought to the native grid: a single saturated logit would spread otherwise.
        maps.append(F.interpolate(probability, size=tuple(native), mode="bilinear", align_corners=False).cpu())
    return torch.cat(maps).transpose(0, 1)

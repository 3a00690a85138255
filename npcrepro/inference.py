"""From a trained network and a case to probabilities and a label map on the case's own grid."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from npcrepro.preprocess import SliceData


@torch.no_grad()
def predict_slices(network: nn.Module, data: SliceData, case: str, *, batch_size: int, device) -> np.ndarray:
    """Probability of each structure in all slices of a case.

    Args:
        network: ``(B, C, y, x)`` to logits ``(B, S, y, x)``, in evaluation mode.
        data: where the slices come from.
        case: name of the case.
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
        logits = network(data.finish(image.to(device))).float()
        # Probabilities, not logits, are brought to the native grid: a single saturated logit would spread otherwise.
        probability = logits.sigmoid()
        maps.append(F.interpolate(probability, size=tuple(native), mode="bilinear", align_corners=False).cpu())
    return torch.cat(maps).transpose(0, 1).numpy()


def label_map(probability: np.ndarray, threshold: float, values: list[int]) -> np.ndarray:
    """Label of each voxel: the most probable structure where it reaches the threshold, else background.

    Args:
        probability: ``(S, z, y, x)`` in [0, 1]; ``nan`` counts as background.
        threshold: in [0, 1].
        values: label value of each structure.

    Returns:
        ``(z, y, x)`` uint8.
    """
    probability = np.nan_to_num(probability, nan=-1.0)
    best = probability.argmax(axis=0)
    reached = probability.max(axis=0) >= threshold
    return np.where(reached, np.asarray(values, dtype=np.uint8)[best], np.uint8(0)).astype(np.uint8)

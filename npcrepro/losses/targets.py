"""Labels as losses need them: at the size of the logits, without what was not contoured."""

import torch
import torch.nn.functional as F
from torch import Tensor

from npcrepro.base.errors import one_of
from npcrepro.base.labels import NOT_CONTOURED

# In place of minus infinity: its exponential is zero too, but its product with zero is zero and not nan.
IMPOSSIBLE = -1e30


def reduce_label(label: Tensor, size: tuple[int, ...], how: str = "area") -> Tensor:
    """Bring a label to the size of an inner score map.

    Args:
        label: ``(B, C, ...)`` with values in [0, 1].
        size: spatial size to reach; each side has to divide that of the label.
        how: ``"area"`` (fraction of the pixel that is covered) or ``"nearest"``.

    Returns:
        ``(B, C, *size)``, float.

    Raises:
        InputError: unknown ``how``, where the sizes differ.
        ValueError: ``size`` does not divide the size of the label, or has another number of axes.

    Example:
        >>> import torch
        >>> reduce_label(torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]), (1, 1)).item()
        0.25
    """
    label = label.float()
    full = tuple(label.shape[2:])
    if full == tuple(size):
        return label
    if any(a % b for a, b in zip(full, size, strict=True)):
        raise ValueError(f"a label of size {full} cannot be reduced to {tuple(size)}: the sizes do not divide")
    one_of(("area", "nearest"), how, "way to reduce a label")
    return F.interpolate(label, size=tuple(size), mode=how)


def target_of(logits: Tensor, label: Tensor, activation: str, target: str) -> tuple[Tensor, Tensor]:
    """Label at the size of the logits, ``(B, S, ...)`` float, and which structures were contoured, ``(B, S)`` bool."""
    contoured = (label != NOT_CONTOURED).flatten(2).all(dim=2)
    if target == "union":
        label, contoured = label.amax(dim=1, keepdim=True), contoured.all(dim=1, keepdim=True)
    channels = label.shape[1] + (activation == "softmax")
    if logits.shape[1] != channels:
        raise ValueError(
            f"{activation} logits of {target} have {channels} channels for this label, got {logits.shape[1]}"
        )
    return reduce_label(label, logits.shape[2:]), contoured


def beside(flags: Tensor, maps: Tensor) -> Tensor:
    """Flags ``(B, S)`` with one more axis of length 1 for each spatial axis of ``maps``."""
    return flags.reshape(*flags.shape, *(1,) * (maps.ndim - 2))


def without_missing(logits: Tensor, contoured: Tensor, activation: str) -> Tensor:
    """Logits in single precision; those of structures that were not contoured give the probability 0."""
    logits = logits.float()
    if activation == "softmax":
        contoured = F.pad(contoured, (1, 0), value=True)  # background
    return logits.masked_fill(~beside(contoured, logits), IMPOSSIBLE)


def mean_where(loss: Tensor, counted: Tensor) -> Tensor:
    """Mean of the losses ``(B, S)`` that are counted; 0 if none is."""
    return torch.where(counted, loss, 0.0).sum() / counted.sum().clamp(min=1)

"""What the networks of several papers have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]
IN_PLANE: Triple = (1, 3, 3)
IN_PLANE_STEP: Triple = (1, 2, 2)


def scaled(channels: int, width: float) -> int:
    """Channel number at a width; never below one."""
    return max(1, round(width * channels))


def require_divisible(image: Tensor, factor: int | tuple[int, ...]) -> None:
    """Raise a ``ValueError`` unless the sides of ``(B, C, H, W)`` or ``(B, C, D, H, W)`` are multiples of a factor.

    ``factor`` is one for all sides, or one for each.
    """
    sides = tuple(image.shape[2:])
    factors = (factor,) * len(sides) if isinstance(factor, int) else factor
    if any(side % each for side, each in zip(sides, factors, strict=True)):
        names = "height and width" if len(sides) == 2 else "depth, height and width"
        raise ValueError(f"{names} have to be divisible by {factor}, got {sides}")


def in_fp32(layer: nn.Module, maps: Tensor) -> Tensor:
    """The output of a layer that is computed in fp32, also where the rest of the network is in bf16 (autocast).

    Args:
        layer: takes maps of any shape.
        maps: its input, in any precision.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     in_fp32(nn.Conv2d(2, 3, 1), torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    if maps.is_meta:  # which has no autocast, as nothing is computed
        return layer(maps)
    with torch.autocast(maps.device.type, enabled=False):
        return layer(maps.float())


def initialise_he(network: nn.Module) -> None:
    """Draw the weights of all convolutions from He's normal distribution, ``sd = sqrt(2 / fan_in)``; biases are zero.

    The fan-in of a grouped convolution is that of one group. In a transposed convolution with stride equal to its
    kernel, each output pixel depends on one tap of every input channel, so its fan-in is the number of channels.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.normal_(module.weight, std=(2 / module.in_channels) ** 0.5)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


Rate = int | Sequence[int]


def unit(before: int, after: int, kernel: int = 3, rate: Rate = 1, stride: int = 1) -> nn.Sequential:
    """3-D convolution that keeps the size at stride 1, batch normalisation, ReLU.

    Args:
        before, after: channels.
        kernel: odd side of the kernel.
        rate: distance between the taps of the kernel, for all axes or for each (z, y, x); 0 leaves the middle tap alone
            along that axis.
        stride: of all axes.
    """
    rates = (rate,) * 3 if isinstance(rate, int) else tuple(rate)
    convolution = nn.Conv3d(
        before,
        after,
        tuple(kernel if rate else 1 for rate in rates),
        stride,
        padding=tuple(rate * (kernel // 2) for rate in rates),
        dilation=tuple(max(rate, 1) for rate in rates),
    )
    # PAPER: Guo 2021, each block has a convolution, batch normalisation and ReLU (Section 3.2).
    return nn.Sequential(convolution, nn.BatchNorm3d(after), nn.ReLU())

"""What the networks of several papers have in common."""

from __future__ import annotations

from torch import Tensor, nn


def scaled(channels: int, width: float) -> int:
    """Channel number at a width; never below one."""
    return max(1, round(width * channels))


def require_divisible(image: Tensor, factor: int | tuple[int, ...]) -> None:
    """Raise a ``ValueError`` unless the sides of ``(B, C, H, W)`` or ``(B, C, D, H, W)`` are multiples of a factor, or
    each of its own."""
    sides = tuple(image.shape[2:])
    factors = (factor,) * len(sides) if isinstance(factor, int) else factor
    if any(side % each for side, each in zip(sides, factors, strict=True)):
        names = "height and width" if len(sides) == 2 else "depth, height and width"
        raise ValueError(f"{names} have to be divisible by {factor}, got {sides}")


def initialise_he(network: nn.Module) -> None:
    """Draw the weights of all convolutions from He's normal distribution, ``sd = sqrt(2 / fan_in)``; biases are zero.

    The fan-in of a grouped convolution is that of one group. Of a transposed convolution with stride equal to its
    kernel, each output pixel sees one tap of every input channel, and that is its fan-in.
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

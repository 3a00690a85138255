"""Plain U-Nets, from MONAI: the baseline that a result is held against where a paper does not bring its own."""

from __future__ import annotations

from torch import nn


def plain_unet(in_channels: int, out_channels: int, width: float = 1.0, dimensions: int = 2) -> nn.Module:
    """MONAI's BasicUNet: five levels, instance normalisation, leaky ReLU, transposed convolutions.

    Args:
        in_channels, out_channels: of images and logits.
        width: factor on the channel numbers 32, 32, 64, 128, 256.
        dimensions: 2 or 3.

    Shape:
        ``(B, in_channels, [D,] H, W)`` to logits ``(B, out_channels, [D,] H, W)``; sizes of at least 16.

    Example:
        >>> plain_unet(3, 1, width=0.25)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """
    from monai.networks.nets import BasicUNet

    features = [max(1, round(width * channels)) for channels in (32, 32, 64, 128, 256, 32)]
    return BasicUNet(dimensions, in_channels, out_channels, features)

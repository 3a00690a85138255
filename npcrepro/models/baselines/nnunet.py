"""Two U-Nets from MONAI for comparison: a plain one, and that of nnU-Net."""

from __future__ import annotations

from torch import nn

from npcrepro.models.blocks import scaled


def plain_unet(in_channels: int, out_channels: int, width: float = 1.0, dimensions: int = 2) -> nn.Module:
    """MONAI's BasicUNet: five levels, instance normalisation, leaky ReLU, transposed convolutions.

    Args:
        width: factor on the channel numbers 32, 32, 64, 128, 256.
        dimensions: 2 or 3.

    Shape:
        ``(B, in_channels, [D,] H, W)`` to logits ``(B, out_channels, [D,] H, W)``; sizes of at least 16.

    Example:
        >>> import torch
        >>> plain_unet(3, 1, width=0.25)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """
    from monai.networks.nets import BasicUNet

    features = [scaled(channels, width) for channels in (32, 32, 64, 128, 256, 32)]
    return BasicUNet(dimensions, in_channels, out_channels, features)


def nnunet_unet(
    in_channels: int, out_channels: int, width: float = 1.0, dimensions: int = 2, levels: int = 5
) -> nn.Module:
    """MONAI's DynUNet with residual blocks: the U-Net of nnU-Net, without deep supervision.

    Instance normalisation, leaky ReLU, strided and transposed convolutions.

    Args:
        width: factor on the channel numbers 32, 64, 128, 256, 320, of which the first ``levels`` are taken.
        dimensions: 2 or 3.
        levels: resolutions, at most five, each half of the one above along all axes.

    Shape:
        ``(B, in_channels, [D,] H, W)`` to logits ``(B, out_channels, [D,] H, W)``; sides that ``2 ** (levels - 1)``
        divides.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021;18:203-211.

    Example:
        >>> import torch
        >>> nnunet_unet(3, 1, width=0.25)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """
    from monai.networks.nets import DynUNet

    filters = [scaled(channels, width) for channels in (32, 64, 128, 256, 320)]
    network = DynUNet(
        dimensions,
        in_channels,
        out_channels,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=filters[:levels],
        res_block=True,
    )
    # DynUNet registers each block twice, in lists and in the chain of its forward pass. A checkpoint of the chain alone
    # holds each weight once.
    return nn.Sequential(network.skip_layers, network.output_block)

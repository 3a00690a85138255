"""DeepLabv3 in three dimensions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.models.baselines.vnet import ResidualBlock
from npcrepro.models.blocks import Rate, initialise_he, scaled, unit


class DeepLabV3(nn.Module):
    """DeepLabv3 (Chen et al. 2017) in three dimensions: residual trunk, atrous pyramid with pooling, enlargement.

    Args:
        width: factor on ``base``.
        base: channels of the first convolution; the four stages have 1, 2, 4 and 8 times as many.
        output_stride: how much smaller the maps of the pyramid are, 8 or 4; beyond it rates take the place of strides.
        rates: of the pyramid.

    Shape:
        ``(B, in_channels, D, H, W)`` of any size to logits ``(B, out_channels, D, H, W)``.

    Raises:
        ValueError: another output stride; a training batch of one block, of which the pooled branch has a single number
            per channel.

    Example:
        >>> DeepLabV3(1, 2, width=0.1)(torch.zeros(2, 1, 8, 24, 24)).shape
        torch.Size([2, 2, 8, 24, 24])
    """

    # SILENT: Guo 2021, which DeepLab, in two or three dimensions, and its trunk; v3 in three, on the same blocks as
    # the others, with the residual blocks of an 18-layer ResNet at the width of BUNet.
    # DIFFERS: Guo 2021, output stride 16 and rates 6, 12, 18 of DeepLabv3 leave nothing of a block of 8 voxels; output
    # stride 8 and rates 1, 2, 3, and a first convolution of 3 x 3 x 3. The maps of a block are then 1 x 3 x 3, on which
    # rate 3 reaches no neighbour; method deeplab-stride-4 has 2 x 6 x 6.
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        base: int = 16,
        output_stride: int = 8,
        rates: Sequence[Rate] = (1, 2, 3),
    ):
        super().__init__()
        if output_stride not in (4, 8):
            raise ValueError(f"output stride {output_stride}; choices: 4, 8")
        channels = [scaled(base, width) * 2**stage for stage in range(4)]
        self.stem = nn.Sequential(unit(in_channels, channels[0], stride=2), nn.MaxPool3d(3, 2, padding=1))
        self.stages = nn.ModuleList()
        before, reached, rate = channels[0], 4, 1
        for number, after in enumerate(channels):
            stride = 1 if number == 0 else 2
            if reached == output_stride:
                rate, stride = rate * stride, 1
            reached *= stride
            self.stages.append(
                nn.Sequential(ResidualBlock(before, after, stride, rate), ResidualBlock(after, after, 1, rate))
            )
            before = after
        self.branches = nn.ModuleList([unit(before, before, kernel=1), *(unit(before, before, rate=r) for r in rates)])
        self.pooled = unit(before, before, kernel=1)
        self.fuse = unit(before * (len(self.branches) + 1), before, kernel=1)
        self.score = nn.Conv3d(before, out_channels, 1)
        initialise_he(self)

    def forward(self, image: Tensor) -> Tensor:
        if self.training and len(image) == 1:
            raise ValueError("the pooled branch with batch normalisation needs at least two blocks in a training batch")
        maps = self.stem(image)
        for stage in self.stages:
            maps = stage(maps)
        pooled = self.pooled(maps.mean(dim=(2, 3, 4), keepdim=True)).expand(-1, -1, *maps.shape[2:])
        found = self.fuse(torch.cat([*(branch(maps) for branch in self.branches), pooled], dim=1))
        return F.interpolate(self.score(found), size=image.shape[2:], mode="trilinear", align_corners=False)

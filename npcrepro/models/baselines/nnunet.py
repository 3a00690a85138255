"""U-Nets of MONAI for comparison: a plain one, and that of nnU-Net with the plan of its size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from npcrepro.models.blocks import require_divisible, scaled

# Sides of maps are halved as long as four voxels are left, and axes together whose spacings differ less than this.
SMALLEST_SIDE, SIMILAR_SPACING = 4, 2.0
# A patch should show this share of an image of middle size; images are brought to larger voxels until it does.
SMALLEST_SHARE = 0.25
COARSER = 1.03
# The lowest percentile of the spacing across slices is taken where slices are so much thicker than pixels.
THICK, THICK_PERCENTILE = 3.0, 10
LARGEST_NUMBER = {2: 512, 3: 320}  # of channels, by dimensions


def plain_unet(in_channels: int, out_channels: int, width: float = 1.0, dimensions: int = 2) -> nn.Module:
    """MONAI's BasicUNet: five levels, instance normalisation, leaky ReLU, transposed convolutions.

    Args:
        width: factor on the channel numbers 32, 32, 64, 128, 256.
        dimensions: 2 or 3.

    Shape:
        ``(B, in_channels, [D,] H, W)`` to logits ``(B, out_channels, [D,] H, W)``; sizes of at least 16, one of them of
        at least 32, so that the coarsest maps have more than one voxel.

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
    """MONAI's DynUNet with residual blocks, after the U-Net of nnU-Net; without its plan and without deep supervision.

    The U-Net of nnU-Net has plain blocks. Instance normalisation, leaky ReLU, strided and transposed convolutions.

    Args:
        width: factor on the channel numbers 32, 64, 128, 256, 320, of which the first ``levels`` are taken.
        dimensions: 2 or 3.
        levels: resolutions, three to five, each half of the one above along all axes.

    Shape:
        ``(B, in_channels, [D,] H, W)`` to logits ``(B, out_channels, [D,] H, W)``; sides that ``2 ** (levels - 1)``
        divides, so large that the coarsest maps have more than one voxel.

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


class PlannedUNet(nn.Module):
    """MONAI's DynUNet in the shape that nnU-Net plans for a cohort, with outputs at several sizes for training.

    Two convolutions a level with instance normalisation and leaky ReLU, strided and transposed convolutions between
    levels. The channels double from 32 on, up to 512 in 2-D and 320 in 3-D.

    Args:
        width: factor on the numbers of channels.
        dimensions: 2 or 3.
        strides: of each level, for each axis, the first of them 1; see :func:`plan_shape`. By default, where no cohort
            is known yet, five levels in 2-D; in 3-D four, the second of which keeps its slices.
        kernels: of each level, for each axis; 3 by default.

    Shape:
        ``(B, in_channels, [D,] H, W)`` to logits ``(B, out_channels, [D,] H, W)``. Sides are divisible by the product
        of the strides, and the coarsest maps have more than one voxel.

    Raises:
        ValueError: a side is not divisible.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021;18:203-211.

    Example:
        >>> import torch
        >>> [tuple(each.shape[2:]) for each in PlannedUNet(1, 2, width=0.1)(torch.zeros(1, 1, 32, 48), deep=True)]
        [(8, 12), (16, 24), (32, 48)]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        dimensions: int = 2,
        strides: Sequence[Sequence[int]] = (),
        kernels: Sequence[Sequence[int]] = (),
    ):
        from monai.networks.nets import DynUNet

        super().__init__()
        default = [[1] * 2, *[[2] * 2] * 4] if dimensions == 2 else [[1] * 3, [1, 2, 2], [2] * 3, [2] * 3]
        strides = [list(each) for each in strides or default]
        self.factors = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
        largest = LARGEST_NUMBER[dimensions]
        network = DynUNet(
            dimensions,
            in_channels,
            out_channels,
            kernel_size=[list(each) for each in kernels] or [[3] * dimensions] * len(strides),
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=[scaled(min(32 * 2**level, largest), width) for level in range(len(strides))],
            deep_supervision=True,
            deep_supr_num=max(1, len(strides) - 3),  # the outputs of the two coarsest levels teach little
        )
        self.down = nn.ModuleList([network.input_block, *network.downsamples, network.bottleneck])
        self.up = network.upsamples
        self.score, self.inner_scores = network.output_block, network.deep_supervision_heads

    def forward(self, image: Tensor, deep: bool = False) -> Tensor | tuple[Tensor, ...]:
        """Logits, or with ``deep`` the logits of several sizes, the smallest first."""
        require_divisible(image, self.factors)
        skips: list[Tensor] = []
        for level in self.down:
            skips.append(level(skips[-1] if skips else image))
        maps, scores = skips.pop(), []
        for number, (up, skip) in enumerate(zip(self.up, reversed(skips), strict=True)):
            maps, level = up(maps, skip), len(skips) - 1 - number
            if deep and 0 < level <= len(self.inner_scores):
                scores.append(self.inner_scores[level - 1](maps))
        return (*scores, self.score(maps)) if deep else self.score(maps)


@dataclass(frozen=True)
class Shape:
    """What :func:`plan_shape` finds; axes are (z, y, x), or (y, x) for slices.

    Attributes:
        spacing_mm: to which images are brought.
        patch: voxels of the network's input.
        strides, kernels: of each level of the network and each axis.
    """

    spacing_mm: list[float]
    patch: list[int]
    strides: list[list[int]]
    kernels: list[list[int]]


def plan_shape(sizes: Sequence[Sequence[int]], spacings_mm: Sequence[Sequence[float]], budget: int) -> Shape:
    """The rules by which nnU-Net reads spacing, patch and depth off a cohort.

    1. Images are brought to the median spacing. Where slices are three times as thick as pixels are wide and three
       times fewer, across slices to the tenth percentile.
    2. While a patch of ``budget`` voxels would show less than a quarter of the median image, the spacing grows by 3 %,
       at first along the axes that are fine. This is nnU-Net's configuration of low resolution.
    3. The patch begins as large as the median image. While it has more voxels than the budget, the axis of which it
       shows the largest share is cut.
    4. All axes with the same spacing, up to a factor of 2, are halved from level to level as long as 4 voxels are left.
       Kernels have 3 voxels along an axis whose spacing is within a factor of 2 of the finest, and 1 before.
    5. The sides of the patch are rounded up to what the halvings divide.

    Differs from nnU-Net: the budget is a number of voxels, that of the networks it is compared with, not the memory of
    a GPU, and a batch is as large as theirs if the method has none of its own.

    Args:
        sizes: voxels of each image (z, y, x), or (y, x) for networks of slices.
        spacings_mm: of each image, likewise.
        budget: the largest number of voxels of a patch.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021;18:203-211, supplement, and its public code.

    Example:
        >>> plan_shape([(72, 72)], [(4.0, 4.0)], budget=6400).patch
        [80, 80]
        >>> plan_shape([(20, 160, 160)], [(4.0, 1.0, 1.0)], budget=16 * 64 * 64).strides[1]
        [1, 2, 2]
    """
    spacings = np.asarray(spacings_mm, float)
    spacing = np.median(spacings, axis=0)
    size = np.median(np.asarray(sizes) * spacings / spacing, axis=0)
    thick = int(spacing.argmax())
    others = [axis for axis in range(len(spacing)) if axis != thick]
    if spacing[thick] > THICK * spacing[others].max() and size[thick] * THICK < size[others].min():
        thinner = min(np.percentile(spacings[:, thick], THICK_PERCENTILE), spacing[thick])
        size[thick] *= spacing[thick] / max(thinner, spacing[others].max())
        spacing[thick] = max(thinner, spacing[others].max())
    while budget < SMALLEST_SHARE * size.prod():
        fine = spacing < spacing.max() / SIMILAR_SPACING
        grows = np.where(fine | ~fine.any(), COARSER, 1.0)
        spacing, size = spacing * grows, size / grows
    patch = np.maximum(np.ceil(size - 1e-6), 1).astype(int)
    while True:
        strides, kernels = _levels(patch, spacing)
        factors = np.prod(strides, axis=0)
        sides = -(-patch // factors) * factors
        if sides.prod() <= budget:
            return Shape(spacing.tolist(), sides.tolist(), strides, kernels)
        axis = int(np.where(sides > 1, sides / size, 0).argmax())
        patch[axis] = max(1, sides[axis] - factors[axis])


def _levels(patch: np.ndarray, spacing: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    """Strides and kernels of the levels of a network for a patch; at least three levels."""
    side, spacing = patch.astype(float), spacing.astype(float)
    strides, kernels = [[1] * len(side)], []
    kernel = np.ones(len(side), int)
    while True:
        kernel = np.where(spacing < SIMILAR_SPACING * spacing.min(), 3, kernel)
        kernels.append(kernel.tolist())
        long = side >= 2 * SMALLEST_SIDE
        if not long.any():
            break
        halved = long & (spacing < SIMILAR_SPACING * spacing[long].min())
        strides.append(np.where(halved, 2, 1).tolist())
        side, spacing = np.where(halved, np.ceil(side / 2), side), np.where(halved, 2 * spacing, spacing)
    while len(strides) < 3:  # of tiny patches, which MONAI's network is not made for otherwise
        strides.append([1] * len(side))
        kernels.append(kernels[-1])
    return strides, kernels

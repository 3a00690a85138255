"""A 2-D U-Net with padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.base.errors import one_of
from npcrepro.models.blocks import initialise_he, require_divisible, scaled

BLOCK_POSITIONS = ("bottleneck", "input", "skips")


class MultiScalePooling(nn.Module):
    """Average poolings of several kernels side by side, fused by a 1 x 1 convolution to the channels that came in.

    At the border the average runs over the pixels that exist. Zeros counted in would darken the border, the more the
    larger the kernel, and on the few pixels of a bottleneck that is most of the map.

    Args:
        channels: in and out.
        kernels: odd sides; a kernel of 1 is the map itself.

    Shape:
        ``(B, channels, H, W)`` to the same, for any H and W.

    Raises:
        ValueError: an even kernel.

    Example:
        >>> MultiScalePooling(2)(torch.zeros(1, 2, 4, 4)).shape
        torch.Size([1, 2, 4, 4])
    """

    # PAPER: Luo 2020, four average poolings with kernels 1, 3, 5 and 7, their outputs fused (Section 2.1.1).
    def __init__(self, channels: int, kernels: tuple[int, ...] = (1, 3, 5, 7)):
        super().__init__()
        if any(kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"pooling kernels have to be odd to keep the size, got {tuple(kernels)}")
        # SILENT: Luo 2020, the stride; 1, without which the four outputs have different sizes.
        self.pools = nn.ModuleList(
            nn.AvgPool2d(kernel, stride=1, padding=kernel // 2, count_include_pad=False) for kernel in kernels
        )
        # SILENT: Luo 2020, sum or concatenation; concatenation and a linear 1 x 1 convolution back to the channels.
        self.fuse = nn.Conv2d(channels * len(kernels), channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.fuse(torch.cat([pool(maps) for pool in self.pools], dim=1))


class UNet(nn.Module):
    """U-Net with padding, so that logits have the size of the image.

    Args:
        in_channels, out_channels: of images and logits.
        width: factor on ``base``.
        base: channels of the finest level; each level below has twice as many.
        levels: resolutions, so that the coarsest map is smaller by ``2 ** (levels - 1)``.
        multi_scale: where :class:`MultiScalePooling` stands: behind the coarsest level (``"bottleneck"``), before the
            first convolution (``"input"``), on every skip connection (``"skips"``), or nowhere (``None``).
        batch_norm: behind every 3 x 3 convolution.
        enlarge: times that the image is enlarged in both directions before it goes in; a logit is the mean over the
            pixels that one became.

    Shape:
        ``(B, in_channels, H, W)`` with H and W, enlarged, divisible by ``2 ** (levels - 1)`` to logits
        ``(B, out_channels, H, W)``. With batch normalisation, training needs more than one value per channel at the
        coarsest level.

    Raises:
        ValueError: H or W not divisible.
        InputError: unknown position of the block.

    Example:
        >>> UNet(1, 15, width=0.1, levels=3)(torch.zeros(2, 1, 16, 24)).shape
        torch.Size([2, 15, 16, 24])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        # SILENT: Luo 2020, channels of any level; 32, doubled from level to level.
        base: int = 32,
        levels: int = 5,
        multi_scale: str | None = None,
        batch_norm: bool = True,
        enlarge: int = 1,
    ):
        super().__init__()
        self.enlarge_image = enlarge
        position = multi_scale and one_of(BLOCK_POSITIONS, multi_scale, "position of the multi-scale block")
        self.factor = 2 ** (levels - 1)
        channels = [scaled(base, width) * 2**level for level in range(levels)]
        self.input_block = MultiScalePooling(in_channels) if position == "input" else nn.Identity()
        self.down = nn.ModuleList(
            self._level(before, after, batch_norm)
            for before, after in zip([in_channels, *channels], channels, strict=False)
        )
        # SILENT: Luo 2020, the kind of pooling; maximum, 2 x 2.
        self.pool = nn.MaxPool2d(2)
        self.bottleneck_block = MultiScalePooling(channels[-1]) if position == "bottleneck" else nn.Identity()
        self.skip_blocks = nn.ModuleList(
            MultiScalePooling(fine) if position == "skips" else nn.Identity() for fine in channels[:-1]
        )
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * fine, fine, 2, stride=2) for fine in channels[:-1])
        self.up = nn.ModuleList(self._level(2 * fine, fine, batch_norm) for fine in channels[:-1])
        self.score = nn.Conv2d(channels[0], out_channels, 1)
        # SILENT: Luo 2020, initial weights; He.
        initialise_he(self)

    @staticmethod
    def _level(before: int, after: int, batch_norm: bool) -> nn.Sequential:
        layers: list[nn.Module] = []
        # SILENT: Luo 2020, whether a layer is one convolution or a level of two; two, as in the U-Net that is cited.
        for channels in (before, after):
            # SILENT: Luo 2020, kernels and padding; 3 x 3 that keep the size. A convolution keeps its bias in front of
            # the batch normalisation, which takes it out again, as is the default of the paper's software.
            layers.append(nn.Conv2d(channels, after, 3, padding=1))
            # PAPER: Luo 2020, convolution, batch normalisation, ReLU (Section 2.1).
            if batch_norm:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.ReLU())
        return nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        if self.enlarge_image > 1:
            image = F.interpolate(image, scale_factor=float(self.enlarge_image), mode="bilinear")
        require_divisible(image, self.factor)
        maps, skips = self.input_block(image), []
        for down, block in zip(self.down[:-1], self.skip_blocks, strict=True):
            maps = down(maps)
            skips.append(block(maps))
            maps = self.pool(maps)
        maps = self.bottleneck_block(self.down[-1](maps))
        for enlarge, up, skip in reversed(list(zip(self.enlarge, self.up, skips, strict=True))):
            maps = up(torch.cat([skip, enlarge(maps)], dim=1))
        logits = self.score(maps)
        return F.avg_pool2d(logits, self.enlarge_image) if self.enlarge_image > 1 else logits

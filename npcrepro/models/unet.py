"""A 2-D U-Net with padding."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.base.errors import one_of
from npcrepro.models.blocks import initialise_he, require_divisible, scaled

BLOCK_POSITIONS = ("bottleneck", "input", "skips")


class UNet(nn.Module):
    """U-Net with padding, so that the logits have the size of the image.

    Args:
        width: factor on ``base``.
        base: channels of the finest level; each level below has twice as many.
        levels: resolutions, so that the coarsest map is smaller by ``2 ** (levels - 1)``.
        batch_norm: behind every 3 x 3 convolution.
        enlarge: factor by which the image is enlarged in both directions before it goes in. The logit of a pixel is
            the mean over the pixels that it was enlarged to.
        block: makes an additional module for a number of channels, which it keeps.
        block_at: where this module stands: behind the coarsest level (``"bottleneck"``), before the first convolution
            (``"input"``), on every skip connection (``"skips"``), or nowhere (``None``).

    Shape:
        ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``. H and W, enlarged, are divisible by
        ``2 ** (levels - 1)``. With batch normalisation, training needs more than one value per channel at the coarsest
        level.

    Raises:
        ValueError: H or W is not divisible.
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
        batch_norm: bool = True,
        enlarge: int = 1,
        block: Callable[[int], nn.Module] | None = None,
        block_at: str | None = None,
    ):
        super().__init__()
        self.enlarge_image = enlarge
        if block_at:
            one_of(BLOCK_POSITIONS, block_at, "position of the additional block")

        def block_if(position: str, channels: int) -> nn.Module:
            return block(channels) if block and position == block_at else nn.Identity()

        self.factor = 2 ** (levels - 1)
        channels = [scaled(base, width) * 2**level for level in range(levels)]
        self.input_block = block_if("input", in_channels)
        self.down = nn.ModuleList(
            self._level(before, after, batch_norm)
            for before, after in zip([in_channels, *channels], channels, strict=False)
        )
        # SILENT: Luo 2020, the kind of pooling; maximum, 2 x 2.
        self.pool = nn.MaxPool2d(2)
        self.bottleneck_block = block_if("bottleneck", channels[-1])
        self.skip_blocks = nn.ModuleList(block_if("skips", fine) for fine in channels[:-1])
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
            # SILENT: Luo 2020, the constants of batch normalisation; PyTorch's.
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
        # Luo 2020, Section 2.1: deconvolutions, with the maps of the way down behind each other (abstract: skips)
        maps = self.bottleneck_block(self.down[-1](maps))
        for enlarge, up, skip in reversed(list(zip(self.enlarge, self.up, skips, strict=True))):
            maps = up(torch.cat([skip, enlarge(maps)], dim=1))
        logits = self.score(maps)
        return F.avg_pool2d(logits, self.enlarge_image) if self.enlarge_image > 1 else logits

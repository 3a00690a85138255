"""The cascade CSCN of Guo et al. 2021 (Intelligent Automation & Soft Computing 31(3):1771-1782): BUNet and ACDNet.

BUNet is a 3-D U-Net that maps the tumour coarsely. ACDNet has dense blocks with atrous pyramids, densely connected with
each other, and refines that map beside the image. The mean of both maps is the result; the paper has no equation of
the networks.

Input: blocks ``(B, 1, 8, 24, 24)``, for ACDNet two channels, the image and the map of BUNet. Output: logits of
background and tumour for each voxel. At width 1 BUNet has 1,401,986 parameters and ACDNet 1,516,392
(1,017,892 with its blocks in sequence). The paper prints no number to hold beside them.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from npcrepro.base.errors import one_of
from npcrepro.models.blocks import Rate, initialise_he, require_divisible, scaled, unit

PYRAMID_POSITIONS = ("before bottleneck", "replaces convolutions", "within layers")
CONNECTIONS = ("dense", "sequence")


class BUNet(nn.Module):
    """3-D U-Net with padding, so that logits have the size of the block.

    Args:
        width: factor on ``base``.
        base: channels of the finest level; each level below has twice as many.
        levels: resolutions.
        skips: without them it is a plain encoder and decoder.

    Shape:
        ``(B, in_channels, D, H, W)``, each side divisible by ``2 ** (levels - 1)``, to logits
        ``(B, out_channels, D, H, W)``.

    Raises:
        ValueError: a side that is not divisible.

    Example:
        >>> BUNet(1, 2, width=0.25)(torch.zeros(2, 1, 8, 24, 24)).shape
        torch.Size([2, 2, 8, 24, 24])
    """

    # SILENT: levels, widths, normalisation and dropout of BUNet; the most levels that 8 voxels allow, 16 channels at
    # the finest, batch normalisation, no dropout.
    # SILENT: the "CNN" that the paper compares with; BUNet without skip connections.
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        base: int = 16,
        levels: int = 4,
        skips: bool = True,
    ):
        super().__init__()
        self.factor, self.skips = 2 ** (levels - 1), skips
        channels = [scaled(base, width) * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            self._level(before, after) for before, after in zip([in_channels, *channels], channels, strict=False)
        )
        self.pool = nn.MaxPool3d(2)
        self.enlarge = nn.ModuleList(nn.ConvTranspose3d(2 * fine, fine, 2, stride=2) for fine in channels[:-1])
        self.up = nn.ModuleList(self._level((1 + skips) * fine, fine) for fine in channels[:-1])
        self.score = nn.Conv3d(channels[0], out_channels, 1)
        # SILENT: initial weights; He, apart from V-Net, which keeps those of MONAI.
        initialise_he(self)

    @staticmethod
    def _level(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(unit(before, after), unit(after, after))

    def forward(self, image: Tensor) -> Tensor:
        require_divisible(image, self.factor)
        # Section 3.1, BUNet: a 3-D U-Net
        maps, skips = image, []
        for down in self.down[:-1]:
            skips.append(down(maps))
            maps = self.pool(skips[-1])
        maps = self.down[-1](maps)
        for enlarge, up, skip in reversed(list(zip(self.enlarge, self.up, skips, strict=True))):
            maps = enlarge(maps)
            maps = up(torch.cat([skip, maps], dim=1) if self.skips else maps)
        return self.score(maps)


class ConcatenatedConvolutions(nn.Module):
    """3 x 3 x 3 units side by side, one for each rate, whose maps are put behind those that came in.

    With one rate it is a layer of a dense block, with several an atrous spatial pyramid.

    Args:
        added: channels of each unit.
        rates: of each unit, see :func:`unit`.

    Shape:
        ``(B, before, D, H, W)`` to ``(B, before + sum(added), D, H, W)``.
    """

    def __init__(self, before: int, added: Sequence[int], rates: Sequence[Rate]):
        super().__init__()
        self.units = nn.ModuleList(unit(before, c, rate=rate) for c, rate in zip(added, rates, strict=True))
        self.channels = before + sum(added)

    def forward(self, maps: Tensor) -> Tensor:
        # Section 3.2, pyramid: several rates side by side
        return torch.cat([maps, *(each(maps) for each in self.units)], dim=1)


class PyramidLayer(nn.Module):
    """One layer of a dense block: an atrous spatial pyramid, a 1 x 1 x 1 bottleneck and a 3 x 3 x 3 convolution.

    Args:
        added: channels that the layer puts behind those that came in; the bottleneck has four times as many, as in
            DenseNet (Huang et al. 2017).
        pyramid: channels of each rate.

    Shape:
        ``(B, before, D, H, W)`` to ``(B, before + added, D, H, W)``.
    """

    def __init__(self, before: int, added: int, pyramid: int, rates: Sequence[Rate]):
        super().__init__()
        self.pyramid = ConcatenatedConvolutions(before, (pyramid,) * len(rates), rates)
        self.bottleneck = unit(self.pyramid.channels, 4 * added, kernel=1)
        self.convolution = unit(4 * added, added)
        self.channels = before + added

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps, self.convolution(self.bottleneck(self.pyramid(maps)))], dim=1)


class ACDNet(nn.Module):
    """Dense blocks with an atrous spatial pyramid, all at the resolution of the block.

    Args:
        in_channels, out_channels: of the input and of the logits. The input is the image, or the image and behind it
            the coarse maps of the ``out_channels - 1`` structures.
        width: factor on ``stem``, ``growth`` and ``pyramid_channels``.
        stem: channels of the first convolution.
        blocks, layers: dense blocks, and convolutions in each.
        growth: channels that a layer adds.
        rates: of the pyramid, each a number or one for each axis (z, y, x).
        pyramid_channels: of each rate.
        position: where the pyramid stands: ``"before bottleneck"``, behind the layers of each block, or ``"replaces
            convolutions"``: each layer is a pyramid whose rates share its growth, or ``"within layers"``: each layer
            is a pyramid, a bottleneck and a convolution.
        connections: ``"dense"``: a block, and the score behind the last, take in the stem and all blocks before;
            ``"sequence"``: the block before alone.
        compression: share of the channels that a bottleneck keeps.
        uses_image: without it the network sees the coarse maps alone.

    Shape:
        ``(B, in_channels, D, H, W)`` of any size to logits ``(B, out_channels, D, H, W)``.

    Raises:
        InputError: unknown position or connections.
        ValueError: a network without the image that has no maps either.

    Example:
        >>> ACDNet(2, 2, width=0.1)(torch.zeros(2, 2, 8, 24, 24)).shape
        torch.Size([2, 2, 8, 24, 24])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        # SILENT: dense blocks, layers, growth, compression; 3 x 4 layers of 16, half.
        # SILENT: whether maps are reduced. Section 5 puts pyramids in place of the "pooling layer", and the abstract
        # has a "process of upsampling", which may be that of BUNet; no pooling.
        # SILENT: whether ACDNet is 2-D or 3-D (its bottleneck is printed as 1 x 1); 3-D, as the blocks are.
        stem: int = 32,
        blocks: int = 3,
        layers: int = 4,
        growth: int = 16,
        # SILENT: rates and channels of the pyramid; 1, 2, 3 with 16 each. Rates of 6, 12, 18 reach beyond the 8 voxels
        # of a block.
        # SILENT: the 1 x 1 branch and the pooled branch that the pyramid of DeepLabv3 has; neither. Behind the pyramid
        # stands what came into it, which the 1 x 1 bottleneck reads (a rate of 0 is that branch: acdnet-1x1-branch).
        rates: Sequence[Rate] = (1, 2, 3),
        pyramid_channels: int = 16,
        # DIFFERS: the pyramid stands inside the dense block (abstract), before the bottleneck of each (Section 3.2) or
        # in place of convolution and pooling (Section 5); before the bottleneck, the most precise of the three.
        # DIFFERS: "each block was set with a convolutional layer, a BN layer and a ReLU layer" (Section 3.2), so one
        # convolution; here a block is a dense block of four with a bottleneck behind it. Read as one layer of a dense
        # block, of pyramid, 1 x 1 bottleneck and convolution, it is method acdnet-blocks-as-layers.
        position: str = "before bottleneck",
        # PAPER: dense connections between the blocks (Section 3.2).
        # DIFFERS: "each layer is directly connected to the Input and Loss"; here from the stem, not the input, and from
        # each bottleneck, to all blocks behind and to the score.
        connections: str = "dense",
        compression: float = 0.5,
        # SILENT: whether ACDNet sees the image besides the map that is its input; both, as a map alone cannot bring
        # back a tumour that was missed.
        uses_image: bool = True,
    ):
        super().__init__()
        one_of(PYRAMID_POSITIONS, position, "position of the pyramid")
        self.first = 0 if uses_image else in_channels - (out_channels - 1)
        if not uses_image and self.first < 1:
            raise ValueError(
                f"{in_channels} channels hold no image and {out_channels - 1} maps, so none can be left out"
            )
        self.dense = one_of(CONNECTIONS, connections, "connections between blocks") == "dense"
        growth, pyramid_channels = scaled(growth, width), scaled(pyramid_channels, width)
        channels = scaled(stem, width)
        self.stem = unit(in_channels - self.first, channels)
        self.blocks, self.bottlenecks = nn.ModuleList(), nn.ModuleList()
        for _ in range(blocks):
            parts: list[ConcatenatedConvolutions | PyramidLayer] = []
            reached = channels
            for _ in range(layers):
                if position == "replaces convolutions":
                    parts.append(ConcatenatedConvolutions(reached, _shares(growth, len(rates)), rates))
                elif position == "within layers":
                    parts.append(PyramidLayer(reached, growth, pyramid_channels, rates))
                else:
                    parts.append(ConcatenatedConvolutions(reached, (growth,), (1,)))
                reached = parts[-1].channels
            if position == "before bottleneck":
                parts.append(ConcatenatedConvolutions(reached, (pyramid_channels,) * len(rates), rates))
                reached = parts[-1].channels
            kept = scaled(reached, compression)
            self.blocks.append(nn.Sequential(*parts))
            # PAPER: a 1 x 1 convolution compresses the features of each block.
            self.bottlenecks.append(unit(reached, kept, kernel=1))
            channels = channels + kept if self.dense else kept
        self.score = nn.Conv3d(channels, out_channels, 1)
        initialise_he(self)

    def forward(self, image: Tensor) -> Tensor:
        # Section 3.2: dense block, atrous spatial pyramid, and a 1 x 1 bottleneck behind them
        maps = self.stem(image[:, self.first :])
        for block, bottleneck in zip(self.blocks, self.bottlenecks, strict=True):
            found = bottleneck(block(maps))
            # Section 3.2: dense connections between blocks, x_j = [x_0, ..., x_(j-1)]
            maps = torch.cat([maps, found], dim=1) if self.dense else found
        return self.score(maps)


def _shares(total: int, parts: int) -> list[int]:
    """A number in parts as equal as they can be, each at least one."""
    return [max(1, total // parts + (part < total % parts)) for part in range(parts)]


class JointCascade(nn.Module):
    """BUNet and ACDNet as one network, trained together on the mean of their probabilities.

    Args:
        connections: of the blocks of :class:`ACDNet`.

    Shape:
        ``(B, in_channels, D, H, W)``, each side divisible by 8, to logits ``(B, out_channels, D, H, W)``, the softmax
        of which is the mean of the two.

    Example:
        >>> JointCascade(1, 2, width=0.1)(torch.zeros(2, 1, 8, 8, 8)).shape
        torch.Size([2, 2, 8, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, width: float = 1.0, connections: str = "dense"):
        super().__init__()
        self.coarse = BUNet(in_channels, out_channels, width)
        self.fine = ACDNet(in_channels + out_channels - 1, out_channels, width, connections=connections)

    def forward(self, image: Tensor) -> Tensor:
        coarse = self.coarse(image)
        fine = self.fine(torch.cat([image, coarse.softmax(dim=1)[:, 1:]], dim=1))
        # Section 3.1: probability fusion, P = (P_coarse + P_fine) / 2
        # The logarithm of the sum, of logarithms, so that small probabilities keep their gradient.
        return torch.logaddexp(*(logits.float().log_softmax(dim=1) for logits in (coarse, fine))) - math.log(2)

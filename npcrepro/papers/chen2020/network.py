"""MMFNet, the fusion network of several MRI sequences by Chen et al. 2020 (Neurocomputing 394:27-40).

Each sequence has an encoder of its own. At each level a fusion block weighs the channels and the voxels of all
sequences, and merges them into the skip connection of one decoder. The networks that it is compared with are made of
the same encoder and decoder.

Input: windows ``(B, sequences, 16, 256, 256)``. Output: one logit for each structure and voxel. Parameters at width 1
with one structure: 679,697 for one sequence, 1,701,345 for three encoders without fusion blocks, 3,682,929 for one
encoder of three times the width, 1,548,403 for MMFNet, of which 140,818 are in its four fusion blocks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from npcrepro.base.errors import pick
from npcrepro.models.blocks import IN_PLANE, Triple, require_divisible, scaled

# PAPER: 8, 16, 32 and 64 channels, and 64 at the bottom (Section III-A): multiples of the finest level's.
BASE = 8
MULTIPLES = (1, 2, 4, 8)
BOTTOM_MULTIPLE = 8
VARIANCE_FLOOR = 1e-6
CUBE: Triple = (3, 3, 3)


def _channels(base: int, width: float) -> list[int]:
    """Channels of the four levels and of the bottom."""
    return [scaled(base * multiple, width) for multiple in (*MULTIPLES, BOTTOM_MULTIPLE)]


def _convolution(before: int, after: int, kernel: Triple) -> nn.Sequential:
    # SILENT: padding and bias; the size stays, the bias as well.
    convolution = nn.Conv3d(before, after, kernel, padding=tuple(side // 2 for side in kernel))
    return nn.Sequential(convolution, nn.BatchNorm3d(after), nn.ReLU())


def _step(kernel: Triple) -> Triple:
    """How much smaller the next level is: halved along each axis that the kernel sees."""
    return tuple(2 if side > 1 else 1 for side in kernel)  # type: ignore[return-value]


class Encoder(nn.Module):
    """Four levels of two convolutions, halved from level to level, and one convolution at the bottom.

    Args:
        channels: of the four levels.
        bottom: channels of the last convolution.
        kernel: of the convolutions; ``(1, 3, 3)`` works slice by slice, and keeps the number of slices.

    Shape:
        ``(B, in_channels, D, H, W)``, each axis that the kernel sees divisible by 16, to a list of four maps
        ``(B, channels[i], D / 2^i, H / 2^i, W / 2^i)`` and the bottom ``(B, bottom, D / 16, H / 16, W / 16)``.

    Raises:
        ValueError: a size that does not divide.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], bottom: int, kernel: Triple = CUBE):
        super().__init__()
        self.step = _step(kernel)
        # SILENT: channels of the first convolution of a level; those of the level.
        self.levels = nn.ModuleList(
            nn.Sequential(_convolution(before, after, kernel), _convolution(after, after, kernel))
            for before, after in zip([in_channels, *channels], channels, strict=False)
        )
        # PAPER: 2 x 2 x 2 maximum pooling behind each level, a single convolution at the bottom (Section III-A).
        self.pool = nn.MaxPool3d(self.step)
        self.bottom = _convolution(channels[-1], bottom, kernel)

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        require_divisible(image, tuple(side ** len(MULTIPLES) for side in self.step))
        maps, skips = image, []
        for level in self.levels:
            maps = level(maps)
            # SILENT: whether the skip leaves before or behind the pooling; before, the sizes fit only then.
            skips.append(maps)
            maps = self.pool(maps)
        return skips, self.bottom(maps)


class Decoder(nn.Module):
    """Four levels, each a deconvolution, the skip beside it, and one convolution; then one logit for each structure.

    Args:
        bottom: channels that come in at the bottom.
        skips: channels of the four skips, finest first.
        channels: of the four levels, finest first.

    Shape:
        what :class:`Encoder` returns to logits ``(B, out_channels, D, H, W)``.
    """

    def __init__(
        self, bottom: int, skips: Sequence[int], channels: Sequence[int], out_channels: int, kernel: Triple = CUBE
    ):
        super().__init__()
        step = _step(kernel)
        # SILENT: kernel, channels, normalisation of the deconvolution; 2 x 2 x 2, those of the level, none.
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose3d(before, after, step, stride=step)
            for before, after in zip([*channels[1:], bottom], channels, strict=True)
        )
        # SILENT: kernel, normalisation and activation of the convolution; those of the encoder.
        self.merge = nn.ModuleList(
            _convolution(after + skip, after, kernel) for after, skip in zip(channels, skips, strict=True)
        )
        # SILENT: kernel of the last convolution; 1 x 1 x 1.
        self.score = nn.Conv3d(channels[0], out_channels, 1)

    def forward(self, skips: Sequence[Tensor], bottom: Tensor) -> Tensor:
        maps = bottom
        for enlarge, merge, skip in reversed(list(zip(self.enlarge, self.merge, skips, strict=True))):
            maps = merge(torch.cat([enlarge(maps), skip], dim=1))
        return self.score(maps)


class BaseNetwork(nn.Module):
    """One encoder and one decoder: a 3-D U-Net for one MRI sequence, or for several as channels of one image.

    Args:
        width: factor on all channel numbers.
        encoder_width: a further factor on those of the encoder.
        base: channels of the finest level.
        in_plane: convolutions, poolings and deconvolutions within slices only, which makes it a 2-D U-Net.

    Shape:
        ``(B, in_channels, D, H, W)`` to logits ``(B, out_channels, D, H, W)``; H and W divisible by 16, D as well
        unless ``in_plane``.

    Raises:
        ValueError: a size that does not divide.

    Example:
        >>> BaseNetwork(1, 1, width=0.25)(torch.zeros(2, 1, 16, 32, 48)).shape
        torch.Size([2, 1, 16, 32, 48])
    """

    # SILENT: initial weights; the defaults of PyTorch today. Those of version 0.4.1, which the paper names, draw the
    # scales of batch normalisation from 0 to 1 and start deconvolutions smaller; all scales are 1 here.
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        encoder_width: float = 1.0,
        base: int = BASE,
        in_plane: bool = False,
    ):
        super().__init__()
        kernel = IN_PLANE if in_plane else CUBE
        *skips, bottom = _channels(base, width * encoder_width)
        *levels, _ = _channels(base, width)
        self.encoder = Encoder(in_channels, skips, bottom, kernel)
        self.decoder = Decoder(bottom, skips, levels, out_channels, kernel)

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(*self.encoder(image))


def _deviation(maps: Tensor, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    # DIFFERS: 1e-6 is added to the variance, as the gradient of equation 10 is infinite where a channel is constant.
    # Such a channel has 0.001 here and 0 in the paper. Equation 10 divides by the number of voxels.

    # eq. 10: StdPool(F) = (AvgPool((F - AvgPool(F))^2))^(1/2)
    variance = maps.float().var(dim=axes, correction=0, keepdim=keepdim)
    return (variance + VARIANCE_FLOOR).sqrt().to(maps.dtype)


class FusionBlock(nn.Module):
    """Channel attention, spatial attention and residual fusion of the maps of several MRI sequences.

    Section III-B, equations 4 to 13. The overall equation 6 is written out in equations 12 and 13.

    Args:
        channels: of the map of each sequence, and of the fused one.
        series: number of sequences.
        separate_mlps: one network for each statistic of a channel, or one for all.
        std_in_channel_attention, std_in_spatial_attention: use the standard deviation beside average and maximum.

    With all three switched off, it is a 3-D convolutional block attention module with residual fusion.

    Shape:
        ``series`` maps ``(B, channels, D, H, W)`` to one of the same shape. :meth:`attention` gives the weights of
        channels ``(B, series * channels)``, one sequence after the other, and of voxels ``(B, 1, D, H, W)``. All
        weights are in (0, 1).

    Example:
        >>> FusionBlock(8, series=2)([torch.zeros(1, 8, 4, 4, 4)] * 2).shape
        torch.Size([1, 8, 4, 4, 4])
    """

    def __init__(
        self,
        channels: int,
        series: int,
        separate_mlps: bool = True,
        std_in_channel_attention: bool = True,
        std_in_spatial_attention: bool = True,
    ):
        super().__init__()
        self.std_in_channel_attention = std_in_channel_attention
        self.std_in_spatial_attention = std_in_spatial_attention
        joined = channels * series
        # PAPER: the hidden layer is smaller by r = 12 (Section III-B).
        # DIFFERS: r is four times the number of series; 12 is so for three, and would have to be rounded for two.
        hidden = scaled(channels, 1 / 4)
        statistics = 2 + std_in_channel_attention
        # SILENT: activation and bias of the small networks; ReLU, with bias.
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(joined, hidden), nn.ReLU(), nn.Linear(hidden, joined))
            for _ in range(statistics if separate_mlps else 1)
        )
        # SILENT: kernel of the spatial attention without standard deviation; 3 x 3 x 3, as with it.
        self.spatial = nn.Conv3d(2 + std_in_spatial_attention, 1, 3, padding=1)
        self.merge = nn.Conv3d(joined, channels, 1)
        # PAPER: 1 x 3 x 3 kernels in the residual part, which do not mix slices (Section III-B).
        self.residual = nn.Sequential(
            nn.Conv3d(channels, channels, IN_PLANE, padding=(0, 1, 1)),
            nn.BatchNorm3d(channels),
            nn.ReLU(),
            nn.Conv3d(channels, channels, IN_PLANE, padding=(0, 1, 1)),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        # Section III-B: F_ori = [F_1; F_2; F_3]
        joined = torch.cat(list(maps), dim=1)
        # eq. 4: F_c = W_c(F_ori) * F_ori
        weighted = self._of_channels(joined) * joined
        # PAPER: the base block ends in the same residual fusion, which adds the unweighted maps (Section V, with
        # equations 6 and 12).

        # eqs. 5 and 12: F_s = W_s(F_c) * F_c and F_r = conv_1x1x1(F_ori + F_s)
        merged = self.merge(self._of_voxels(weighted) * weighted + joined)
        # eqs. 6 and 13: F_fused = Res(F_s + F_ori) = F_r + conv_1x3x3(ReLU(BN(conv_1x3x3(F_r))))
        return merged + self.residual(merged)

    def attention(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Weights of channels and of voxels, which show what the block prefers."""
        joined = torch.cat(list(maps), dim=1)
        channels = self._of_channels(joined)
        return channels.flatten(1), self._of_voxels(channels * joined)

    def _of_channels(self, joined: Tensor) -> Tensor:
        volume = (2, 3, 4)
        # eqs. 8 and 9: F_avg = AvgPool(F_ori), F_max = MaxPool(F_ori)
        statistics = [joined.mean(dim=volume), joined.amax(dim=volume)]
        if self.std_in_channel_attention:
            # PAPER: equation 10 has F once where F_ori is meant.
            statistics.append(_deviation(joined, volume))
        # eq. 7: W_c = sigmoid(MLP_avg(F_avg) + MLP_max(F_max) + MLP_std(F_std))
        mlps = self.mlps if len(self.mlps) > 1 else [self.mlps[0]] * len(statistics)
        scores = [mlp(values) for mlp, values in zip(mlps, statistics, strict=True)]
        return torch.stack(scores).sum(dim=0).sigmoid()[:, :, None, None, None]

    def _of_voxels(self, weighted: Tensor) -> Tensor:
        # eq. 11: W_s = sigmoid(conv_3x3x3([AvgPool(F_c); MaxPool(F_c); StdPool(F_c)]))
        statistics = [weighted.mean(dim=1, keepdim=True), weighted.amax(dim=1, keepdim=True)]
        if self.std_in_spatial_attention:
            statistics.append(_deviation(weighted, (1,), keepdim=True))
        return self.spatial(torch.cat(statistics, dim=1)).sigmoid()


class _Concatenation(nn.Module):
    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(maps), dim=1)


class _Sum(nn.Module):
    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(maps)).sum(dim=0)


class MMFNet(nn.Module):
    """An encoder for each MRI sequence, fusion blocks on the skips, and one decoder.

    Args:
        in_channels: sequences of the image, one channel each; channels behind these are not looked at.
        width: factor on all channel numbers.
        skips, bottom: how the maps of the sequences become one: ``"block"`` (:class:`FusionBlock`), ``"concat"`` or
            ``"sum"``. With ``"concat"`` for both it is the multi-encoder network without fusion blocks.
        separate_mlps, std_in_channel_attention, std_in_spatial_attention: see :class:`FusionBlock`.

    The encoders are those of :class:`BaseNetwork` with one channel: weights that were trained there as ``encoder`` fit
    here as ``encoders.0``, ``encoders.1`` and so on (self-transfer, Section III-C).

    Shape:
        ``(B, in_channels, D, H, W)``, sizes divisible by 16, to logits ``(B, out_channels, D, H, W)``.

    Raises:
        ValueError: a size that does not divide.
        InputError: an unknown fusion.

    Example:
        >>> MMFNet(3, 1, width=0.25)(torch.zeros(2, 3, 16, 32, 32)).shape
        torch.Size([2, 1, 16, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        skips: str = "block",
        # SILENT: what happens to the three maps at the bottom, where no block is described; concatenated.
        bottom: str = "concat",
        separate_mlps: bool = True,
        std_in_channel_attention: bool = True,
        std_in_spatial_attention: bool = True,
    ):
        super().__init__()
        *levels, deepest = _channels(BASE, width)
        self.encoders = nn.ModuleList(Encoder(1, levels, deepest) for _ in range(in_channels))

        def fusion(how: str, channels: int) -> nn.Module:
            ways = {
                "block": lambda: FusionBlock(
                    channels, in_channels, separate_mlps, std_in_channel_attention, std_in_spatial_attention
                ),
                "concat": _Concatenation,
                "sum": _Sum,
            }
            return pick(ways, how, "fusion")()

        self.fusions = nn.ModuleList([*(fusion(skips, channels) for channels in levels), fusion(bottom, deepest)])
        grown = {how: in_channels if how == "concat" else 1 for how in (skips, bottom)}
        self.decoder = Decoder(
            deepest * grown[bottom], [channels * grown[skips] for channels in levels], levels, out_channels
        )

    def forward(self, image: Tensor) -> Tensor:
        # Section III-A, decoder: y = D(Fuse_1(...), ..., Fuse_4(...), [B_1; B_2; B_3])
        *skips, bottom = [fuse(maps) for fuse, maps in zip(self.fusions, self._levels(image), strict=True)]
        return self.decoder(skips, bottom)

    @torch.no_grad()
    def attention(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weights of each fusion block, finest level first: channels ``(B, series * c)``, voxels ``(B, 1, D, H, W)``.

        Call it in evaluation mode.
        """
        pairs = zip(self.fusions, self._levels(image), strict=True)
        return [fuse.attention(maps) for fuse, maps in pairs if isinstance(fuse, FusionBlock)]

    def _levels(self, image: Tensor) -> list[list[Tensor]]:
        """For each level, the bottom last, the maps of all sequences."""
        # Section III-A, encoders: F_s,1, ..., F_s,4, B_s = E_s(x_s), one encoder for each sequence s
        encoded = [encoder(image[:, s : s + 1]) for s, encoder in enumerate(self.encoders)]
        return [list(maps) for maps in zip(*([*skips, bottom] for skips, bottom in encoded), strict=True)]

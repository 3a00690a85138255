"""What the networks of several papers have in common."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
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
MOST_PADDED = 2  # times the voxels of a map; beyond, sorting a map takes longer than the holes


class AtrousConv3d(nn.Conv3d):
    """A 3-D convolution with holes that takes processors no longer in bfloat16 than one without.

    There the gradient of its weights takes oneDNN five to nine times as long as that of a convolution without holes.
    Voxels that a kernel of rate ``r`` reads together lie ``r`` apart. So processors sort the voxels into smaller
    images, where the same kernel has no holes, and take these as a larger batch. In 32 bits a processor gains little
    by it, or loses, and on maps that are not much larger than the rate most of the sorted voxels are padding. Those are
    computed as they are, as all are on graphics cards. Weights, output and gradients are those of ``nn.Conv3d``.

    Args:
        before, after: channels.
        kernel: odd sides; the output has the size of the input.
        rates: distance between the taps of the kernel, for each axis (z, y, x).

    Shape:
        ``(B, before, D, H, W)`` of any size to ``(B, after, D, H, W)``.

    Example:
        >>> AtrousConv3d(1, 2, (3, 3, 3), (1, 2, 3))(torch.zeros(1, 1, 4, 5, 7)).shape
        torch.Size([1, 2, 4, 5, 7])
    """

    def __init__(self, before: int, after: int, kernel: Triple, rates: Triple):
        padding = tuple(rate * (side // 2) for rate, side in zip(rates, kernel, strict=True))
        super().__init__(before, after, kernel, padding=padding, dilation=rates)

    def forward(self, maps: Tensor) -> Tensor:
        padded = math.prod(-(-side // rate) * rate for side, rate in zip(maps.shape[2:], self.dilation, strict=True))
        worth_it = max(self.dilation) > 1 and padded <= MOST_PADDED * maps[0, 0].numel()
        if maps.device.type == "cpu" and torch.is_autocast_enabled("cpu") and worth_it:
            return self.on_sorted_voxels(maps.to(torch.get_autocast_dtype("cpu")))
        return super().forward(maps)

    def on_sorted_voxels(self, maps: Tensor) -> Tensor:
        """The same, computed without holes."""
        sides, rates = maps.shape[2:], self.dilation
        counts = [-(-side // rate) for side, rate in zip(sides, rates, strict=True)]
        missing = [rate * count - side for rate, count, side in zip(rates, counts, sides, strict=True)]
        # Channels stand last, so that whole voxels are moved.
        voxels = F.pad(maps.permute(0, 2, 3, 4, 1), [0, 0, 0, missing[2], 0, missing[1], 0, missing[0]])
        voxels = voxels.unflatten(3, (counts[2], rates[2])).unflatten(2, (counts[1], rates[1]))
        voxels = voxels.unflatten(1, (counts[0], rates[0])).permute(0, 2, 4, 6, 1, 3, 5, 7)
        sorted_maps = voxels.flatten(0, 3).permute(0, 4, 1, 2, 3)
        padding = [side // 2 for side in self.kernel_size]
        found = F.conv3d(sorted_maps, self.weight, self.bias, padding=padding).permute(0, 2, 3, 4, 1)
        found = found.unflatten(0, (len(maps), *rates)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        found = found.flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return found[:, : sides[0], : sides[1], : sides[2]].permute(0, 4, 1, 2, 3)


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
    sides: Triple = tuple(kernel if rate else 1 for rate in rates)  # type: ignore[assignment]
    holes: Triple = tuple(max(rate, 1) for rate in rates)  # type: ignore[assignment]
    convolution: nn.Conv3d
    if max(holes) > 1:
        if stride > 1:
            raise ValueError(f"a convolution of stride {stride} has no holes here, got rate {rate}")
        convolution = AtrousConv3d(before, after, sides, holes)
    else:
        convolution = nn.Conv3d(before, after, sides, stride, padding=tuple(side // 2 for side in sides))
    # PAPER: Guo 2021, each block has a convolution, batch normalisation and ReLU (Section 3.2).
    return nn.Sequential(convolution, nn.BatchNorm3d(after), nn.ReLU())

"""The layers of Mask R-CNN: a residual trunk with a feature pyramid, and the three heads that read it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.models.baselines.boxes import RATIOS


def multiple_of_eight(number: float) -> int:
    """The nearest multiple of eight to a number of channels, at least eight."""
    return max(8, 8 * round(number / 8))


def _normalisation(channels: int) -> nn.GroupNorm:
    # SILENT: Luo 2020, the normalisation; groups of eight channels. A detector whose trunk starts from random weights
    # needs statistics that do not suffer from a small batch of slices that are much alike.
    return nn.GroupNorm(channels // 8, channels)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: ``(B, C1, H, W) -> (B, C2, H / stride, W / stride)``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = _normalisation(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = _normalisation(out_channels)
        self.shortcut = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), _normalisation(out_channels)
            )

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(maps)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(maps))


class FeaturePyramid(nn.Module):
    """Residual trunk with the outline of ResNet-18, and the pyramid on top of it.

    Shape:
        ``(B, C, H, W)`` to levels P2 to P6, ``(B, F, H / stride, W / stride)`` with strides 4, 8, 16, 32, 64.
    """

    def __init__(self, in_channels: int, channels: int, width: float):
        super().__init__()
        # SILENT: Luo 2020, the trunk; ResNet-18 with a pyramid, from random weights as the paper's other networks.
        depths = [multiple_of_eight(width * number) for number in (64, 128, 256, 512)]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, depths[0], 7, stride=2, padding=3, bias=False),
            _normalisation(depths[0]),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(ResidualBlock(before, depth, stride), ResidualBlock(depth, depth, 1))
            for before, depth, stride in zip([depths[0], *depths], depths, (1, 2, 2, 2))
        )
        self.lateral = nn.ModuleList(nn.Conv2d(depth, channels, 1) for depth in depths)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in depths)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps, bottom_up = self.stem(image), []
        for stage, lateral in zip(self.stages, self.lateral):
            maps = stage(maps)
            bottom_up.append(lateral(maps))
        merged = [bottom_up[-1]]
        for finer in reversed(bottom_up[:-1]):
            merged.insert(0, finer + F.interpolate(merged[0], scale_factor=2.0, mode="nearest"))
        levels = [smooth(level) for smooth, level in zip(self.smooth, merged)]
        return [*levels, F.max_pool2d(levels[-1], 2, ceil_mode=True)]


class ProposalHead(nn.Module):
    """For each anchor the logit that it holds a structure, and the offsets to its box; shared by all levels.

    Args:
        places: of anchors in each direction within a cell, as in `anchor_boxes`.

    Shape:
        levels ``(B, F, h, w)`` to logits ``(B, anchors)`` and offsets ``(B, anchors, 4)``, float32, in the order of
        `anchor_boxes`.
    """

    def __init__(self, channels: int, places: int = 1):
        super().__init__()
        anchors = len(RATIOS) * places**2
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.logit = nn.Conv2d(channels, anchors, 1)
        self.offsets = nn.Conv2d(channels, 4 * anchors, 1)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        hidden = [F.relu(self.conv(level)) for level in levels]
        logits = [self.logit(level).permute(0, 2, 3, 1).flatten(1) for level in hidden]
        offsets = [self.offsets(level).permute(0, 2, 3, 1).reshape(len(level), -1, 4) for level in hidden]
        return torch.cat(logits, dim=1).float(), torch.cat(offsets, dim=1).float()


class BoxHead(nn.Module):
    """Which structure a region holds, and the offsets to its box, for each structure of its own.

    Shape:
        ``(N, F, 7, 7)`` to logits ``(N, 1 + S)``, background first, and offsets ``(N, S, 4)``; float32.
    """

    def __init__(self, channels: int, structures: int, hidden: int):
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(49 * channels, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.logits = nn.Linear(hidden, 1 + structures)
        self.offsets = nn.Linear(hidden, 4 * structures)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(regions)
        return self.logits(hidden).float(), self.offsets(hidden).reshape(len(hidden), -1, 4).float()


class MaskHead(nn.Module):
    """Logits of the pixels of a region, for each structure of its own: ``(N, F, 14, 14) -> (N, S, 28, 28)``."""

    def __init__(self, channels: int, structures: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, structures, 1)

    def forward(self, regions: Tensor) -> Tensor:
        for conv in self.convs:
            regions = F.relu(conv(regions))
        return self.logits(F.relu(self.enlarge(regions))).float()

"""Mask R-CNN (He et al. 2017) on plain tensors, read as a semantic network: a row of Table 1 of Luo et al. 2020.

A residual trunk with a feature pyramid; a head that proposes regions where a structure may lie; a head that names each
region and moves its box; a head that draws the structure inside the box. While training, the network is its own loss;
afterwards the masks it found are laid over each other, all instances of a structure in one map.

Boxes are ``(x1, y1, x2, y2)`` in pixels of the slice, where pixel ``i`` covers the interval from ``i`` to ``i + 1``.

The paper prints one line of results for this network and nothing on how it was built or trained; the reference it
gives appears to be a data set of nuclei. Every choice below is therefore ours; those that may move the result carry a
tag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.base.labels import NOT_CONTOURED

STRIDES = (4, 8, 16, 32, 64)  # of the pyramid's levels P2 to P6
RATIOS = (0.5, 1.0, 2.0)  # height to width of the anchors
SMALLEST_INSTANCE = 9  # pixels
PROPOSAL_OVERLAP = 0.7  # above it, two proposals are one
DETECTION_OVERLAP = 0.5
REGION_SCALE = (10.0, 10.0, 5.0, 5.0)  # brings the offsets from a proposal to its structure to unit size


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """Overlap of every box with every other, in [0, 1]; 0 for boxes without area.

    Args:
        first, second: ``(..., N, 4)`` and ``(..., M, 4)``.

    Returns:
        ``(..., N, M)``.

    Example:
        >>> intersection_over_union(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor([[0.3333]])
    """
    left, top, right, bottom = first[..., :, None, :].unbind(-1)
    other_left, other_top, other_right, other_bottom = second[..., None, :, :].unbind(-1)
    width = torch.minimum(right, other_right) - torch.maximum(left, other_left)
    height = torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)
    common = width.clamp_min(0) * height.clamp_min(0)
    area, other_area = (right - left) * (bottom - top), (other_right - other_left) * (other_bottom - other_top)
    return common / (area + other_area - common).clamp_min(torch.finfo(common.dtype).tiny)


def non_maximum_suppression(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Keep a box unless a kept box of higher score overlaps it by more than ``threshold``.

    Args:
        boxes, scores: ``(..., N, 4)`` and ``(..., N)``; of equal scores the first box wins.
        threshold: intersection over union.

    Returns:
        ``(..., N)`` bool in the order of the boxes.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    ranked = boxes.gather(-2, order[..., None].expand_as(boxes))
    beats = (intersection_over_union(ranked, ranked) > threshold).triu(1)
    # All boxes at once, again and again: after n rounds the first n are right, and mostly all of them after a few.
    kept = torch.ones_like(order, dtype=torch.bool)
    while True:
        again = ~(beats & kept[..., None]).any(dim=-2)
        if torch.equal(again, kept):
            return torch.empty_like(kept).scatter_(-1, order, kept)
        kept = again


def encode_boxes(boxes: Tensor, origin: Tensor) -> Tensor:
    """Offsets from boxes ``origin`` to ``boxes``: shift of the centre in widths and heights, logarithm of the growth.

    Both ``(..., 4)``, with positive width and height; returns ``(..., 4)`` as ``(x, y, width, height)``.
    """
    size, origin_size = boxes[..., 2:] - boxes[..., :2], origin[..., 2:] - origin[..., :2]
    shift = (boxes[..., :2] + boxes[..., 2:] - origin[..., :2] - origin[..., 2:]) / 2
    return torch.cat([shift / origin_size, (size / origin_size).log()], dim=-1)


def decode_boxes(offsets: Tensor, origin: Tensor, shape: tuple[int, int]) -> Tensor:
    """Boxes that lie ``offsets`` away from ``origin``, cut to a slice of ``shape`` (y, x); inverse of `encode_boxes`.

    Offsets that are not numbers give a box without area, so that a diverged network ends in a loss and not in an error.
    """
    origin_size = origin[..., 2:] - origin[..., :2]
    centre = (origin[..., :2] + origin[..., 2:]) / 2 + offsets[..., :2] * origin_size
    # A wild offset of the first updates would overflow; no structure is 60 times the box it is found from.
    half = origin_size * offsets[..., 2:].clamp(max=math.log(60)).exp() / 2
    boxes = torch.cat([centre - half, centre + half], dim=-1).nan_to_num(nan=0.0)
    limit = boxes.new_tensor([shape[1], shape[0], shape[1], shape[0]])
    return torch.minimum(boxes.clamp_min(0), limit)


def anchor_boxes(shape: tuple[int, int], sizes: tuple[float, ...], device=None) -> list[Tensor]:
    """Boxes from which proposals start, for each level ``(cells * 3, 4)``: three ratios around every cell's centre.

    Args:
        shape: of the slice, (y, x).
        sizes: square root of the area of each level's anchors, in pixels.
        device: where to put them.
    """
    levels = []
    for stride, size in zip(STRIDES, sizes, strict=True):
        y, x = ((torch.arange(math.ceil(n / stride), device=device) + 0.5) * stride for n in shape)
        centre = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
        half = [[size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2] for ratio in RATIOS]
        half = torch.tensor(half, device=device)
        levels.append(torch.cat([centre[:, :, None] - half, centre[:, :, None] + half], dim=-1).reshape(-1, 4))
    return levels


def region_align(maps: list[Tensor], boxes: Tensor, size: int) -> Tensor:
    """Features of regions, each brought to ``size x size``: RoIAlign with 2 x 2 bilinear samples in each bin.

    Args:
        maps: one or more levels ``(B, C, H, W)``, each half the size of the one before. A region is read from the
            level in which it spans 7 to 14 cells, or the one nearest to that.
        boxes: ``(B, R, 4)`` in pixels of the first map, inside it.
        size: of the output.

    Returns:
        ``(B, R, C, size, size)`` float32.
    """
    scale = 2.0 ** torch.arange(len(maps), device=boxes.device)
    # SILENT: Luo 2020, which level a region is read from; 7 to 14 cells, as the heads' 7 x 7 and 14 x 14 bins.
    side = (boxes[..., 2:] - boxes[..., :2]).clamp_min(1).prod(dim=-1).sqrt()
    level = (side / 7).log2().floor().clamp(0, len(maps) - 1).long()

    # All levels on one sheet, the first at the left, the smaller ones in a column beside it: one call reads them all.
    sheet, corners = _sheet(maps)
    extents = [(level_map.shape[-1], level_map.shape[-2]) for level_map in maps]
    corner, extent = (torch.tensor(pairs, device=boxes.device)[level] for pairs in (corners, extents))
    fraction = (torch.arange(2 * size, device=boxes.device) + 0.5) / (2 * size)
    weights = []
    for axis, cells in ((0, sheet.shape[-1]), (1, sheet.shape[-2])):
        low, high = boxes[..., axis, None], boxes[..., axis + 2, None]
        # The centre of cell i lies at i + 0.5; no sample may reach over the edge of its own level.
        cell = (low + (high - low) * fraction) / scale[level][..., None] - 0.5
        cell = torch.minimum(cell.clamp_min(0), extent[..., axis, None] - 1) + corner[..., axis, None]
        weights.append(_linear_weights(cell, cells).unflatten(2, (size, 2)).mean(dim=3))
    # As two matrix products, along y and along x: the same numbers as from grid_sample and its mean, but several times
    # faster on a processor, and with a gradient that sums in the same order each time on a GPU.
    with torch.autocast(boxes.device.type, enabled=False):
        rows = torch.einsum("brph,bchw->brpcw", weights[1], sheet.float())
        return torch.einsum("brqw,brpcw->brcpq", weights[0], rows)


def _linear_weights(positions: Tensor, cells: int) -> Tensor:
    """Shares of ``cells`` in values read linearly at ``positions`` (index 0 is the first): ``(..., N, cells)``."""
    return (1 - (positions[..., None] - torch.arange(cells, device=positions.device)).abs()).clamp_min(0)


def _sheet(maps: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Levels side by side, and the corner (x, y) of each."""
    if len(maps) == 1:
        return maps[0], [(0, 0)]
    first, second = maps[0], maps[1]
    height, width = first.shape[-2:]
    sheet = first.new_zeros((*first.shape[:2], height, width + second.shape[-1]))
    corners, top = [(0, 0)], 0
    sheet[..., :width] = first
    for level_map in maps[1:]:
        corners.append((width, top))
        sheet[..., top : top + level_map.shape[-2], width : width + level_map.shape[-1]] = level_map
        top += level_map.shape[-2]
    return sheet, corners


@dataclass(frozen=True)
class Instances:
    """Connected pieces of the structures of a batch, filled up with boxes without area to the same number G.

    Attributes:
        boxes: ``(B, G, 4)``.
        structure: ``(B, G)`` index of the structure.
        contoured: ``(B, S)``, whether the structure was contoured at all.
    """

    boxes: Tensor
    structure: Tensor
    contoured: Tensor


def find_instances(label: Tensor) -> Instances:
    """Instances of a label ``(B, S, H, W)``: 1 inside a structure, 255 where it was not contoured in this case.

    Pieces that touch at a corner are one; pieces of fewer than nine pixels are left out.
    """
    from scipy import ndimage

    contoured = ~(label == NOT_CONTOURED).flatten(2).any(dim=2)
    # SILENT: Luo 2020, what an instance of an organ is; a connected piece in the slice.
    inside = label == 1
    rows, columns = (inside.any(dim=axis).cpu().numpy() for axis in (3, 2))
    masks = inside.cpu().numpy()
    found: list[list[tuple]] = [[] for _ in range(len(label))]
    for sample, structure in zip(*rows.any(axis=2).nonzero()):
        y, x = (along[sample, structure].nonzero()[0][[0, -1]] for along in (rows, columns))
        # Labelled in its own box: a whole slice for each structure would take longer than the network.
        part = masks[sample, structure, y[0] : y[1] + 1, x[0] : x[1] + 1]
        pieces, _ = ndimage.label(part, structure=[[1] * 3] * 3)
        for number, (down, across) in enumerate(ndimage.find_objects(pieces), 1):
            if (pieces[down, across] == number).sum() >= SMALLEST_INSTANCE:
                box = (x[0] + across.start, y[0] + down.start, x[0] + across.stop, y[0] + down.stop)
                found[sample].append((*map(float, box), int(structure)))
    most = max(1, *map(len, found))
    table = torch.tensor([pieces + [(0.0, 0.0, 0.0, 0.0, 0)] * (most - len(pieces)) for pieces in found])
    table = table.to(label.device)
    return Instances(table[..., :4], table[..., 4].long(), contoured)


def draw_sample(
    positive: Tensor, negative: Tensor, count: int, most_positive: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw candidates of each image: at most ``most_positive`` positive ones, filled up with negative ones.

    Args:
        positive, negative: ``(B, N)`` bool.
        generator: on the CPU, so that a draw is the same on every device.

    Returns:
        Indices ``(B, count)``, positive ones first; which are positive; which were drawn at all, all ``(B, count)``.
        Where there are fewer than ``count`` candidates, the rest of the row is not drawn.
    """
    ticket = torch.rand(positive.shape, generator=generator).to(positive.device)
    highest = torch.where(positive, ticket, -1.0).topk(min(most_positive, ticket.shape[1]))
    chosen = torch.zeros_like(positive).scatter_(1, highest.indices, highest.values >= 0)
    ticket = torch.where(chosen, ticket + 1, torch.where(negative, ticket, -1.0))
    drawn = ticket.topk(min(count, ticket.shape[1]))
    return drawn.indices, drawn.values >= 1, drawn.values >= 0


def pick_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Rows of a table for each sample: ``(B, N, 4)`` at ``(B, K)`` gives ``(B, K, 4)``."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def _channels(number: float) -> int:
    """The nearest multiple of eight, at least eight."""
    return max(8, 8 * round(number / 8))


def _normalisation(channels: int) -> nn.GroupNorm:
    # SILENT: Luo 2020, the normalisation; groups of eight channels. The trunk starts from random weights, and a
    # detector that does so needs statistics that a batch of few, much alike slices does not disturb.
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
        depths = [_channels(width * number) for number in (64, 128, 256, 512)]
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

    Shape:
        levels ``(B, F, h, w)`` to logits ``(B, anchors)`` and offsets ``(B, anchors, 4)``, float32, in the order of
        `anchor_boxes`.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.logit = nn.Conv2d(channels, len(RATIOS), 1)
        self.offsets = nn.Conv2d(channels, 4 * len(RATIOS), 1)

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


class MaskRCNN(nn.Module):
    """Mask R-CNN that gives its loss while training and a map of each structure otherwise.

    Args:
        in_channels: of the image.
        out_channels: number of structures S, without background.
        width: factor on all inner channel numbers; they are rounded to multiples of eight.
        anchor_sizes: of the levels P2 to P6, in pixels.
        sampled_anchors, sampled_regions: drawn from each image for the losses of the proposals and of the heads.
        proposals: kept in each image.
        score_threshold: probability of its structure from which a region is taken for one.
        enlarge: times that image and label are enlarged in both directions before anything is found in them; the maps
            are brought back by the mean over the pixels that one became.

    Shape:
        image ``(B, C, H, W)``; inside, the lower and the right side are filled with zeros to multiples of 32. With a
        label ``(B, S, H, W)``, 1 inside a structure, the loss: a float32 scalar. A structure that holds 255 was not
        contoured in this case: the image says nothing on it, though its regions count as background among the
        structures that were. Without a label, probabilities ``(B, S, H, W)`` float32 in [0, 1], 0 where nothing was
        found.

    What is sampled follows from two buffers, a number drawn with the weights and the count of training calls; a
    training that goes on from a saved state therefore draws as if it had never stopped.

    Example:
        >>> MaskRCNN(1, 2, width=0.1)(torch.zeros(1, 1, 32, 32)).shape
        torch.Size([1, 2, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        # SILENT: Luo 2020, sizes of the anchors; from an optic nerve to a mandible in pixels of a 512 x 512 slice.
        anchor_sizes: tuple[float, ...] = (8, 16, 32, 64, 128),
        # SILENT: Luo 2020, how many are sampled; half the anchors and an eighth of the regions and proposals that are
        # usual for photographs, as a slice holds a handful of structures.
        sampled_anchors: int = 128,
        sampled_regions: int = 64,
        proposals: int = 128,
        # SILENT: Luo 2020, the score from which a region counts; it has to be more probable than all else together.
        score_threshold: float = 0.5,
        # SILENT: Luo 2020, whether its slices are enlarged, as detectors of photographs do with small ones; no.
        enlarge: int = 1,
    ):
        super().__init__()
        self.enlarge = enlarge
        channels = _channels(width * 256)
        self.anchor_sizes, self.proposals, self.score_threshold = tuple(anchor_sizes), proposals, score_threshold
        self.sampled_anchors, self.sampled_regions = sampled_anchors, sampled_regions
        self.pyramid = FeaturePyramid(in_channels, channels, width)
        self.proposal_head = ProposalHead(channels)
        self.box_head = BoxHead(channels, out_channels, _channels(width * 1024))
        self.mask_head = MaskHead(channels, out_channels)
        self.register_buffer("seed", torch.randint(2**48, ()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._initialise()

    def _initialise(self) -> None:
        # SILENT: Luo 2020, initial weights; He, and what keeps the size of the maps where no ReLU follows.
        linear = {*self.pyramid.lateral, *self.pyramid.smooth}
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module in linear else "relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The last layers start near zero: nothing is preferred, and no box moves before there is a reason.
        heads = (self.proposal_head.logit, self.proposal_head.offsets, self.box_head.logits, self.mask_head.logits)
        for layer in heads:
            nn.init.normal_(layer.weight, std=0.01)
        nn.init.normal_(self.box_head.offsets.weight, std=0.001)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        if self.enlarge > 1:
            image = F.interpolate(image, scale_factor=float(self.enlarge), mode="bilinear")
            if label is not None:
                label = label.repeat_interleave(self.enlarge, -1).repeat_interleave(self.enlarge, -2)
        height, width = image.shape[-2:]
        margins = (0, -width % 32, 0, -height % 32)
        image = F.pad(image, margins)
        shape = tuple(image.shape[-2:])
        levels = self.pyramid(image)
        anchors = anchor_boxes(shape, self.anchor_sizes, image.device)
        logits, offsets = self.proposal_head(levels)
        with torch.no_grad():
            boxes, real = self._propose(anchors, logits, offsets, shape)
        if label is None:
            maps = self._detect(levels[:4], boxes, real, shape)[..., :height, :width]
            return F.avg_pool2d(maps, self.enlarge) if self.enlarge > 1 else maps
        label = F.pad(label, margins)
        instances = find_instances(label)
        generator = torch.Generator().manual_seed(int(self.seed + self.steps))
        if self.training:
            self.steps += 1
        return self._proposal_loss(torch.cat(anchors), logits, offsets, instances, generator) + self._region_loss(
            levels[:4], boxes, real, label, instances, generator
        )

    def _propose(self, anchors: list[Tensor], logits: Tensor, offsets: Tensor, shape) -> tuple[Tensor, Tensor]:
        """The best boxes of each image, ``(B, N, 4)``, and which of them are real; the rest fills the table."""
        found, lengths = [], [len(level) for level in anchors]
        for level, level_logits, level_offsets in zip(anchors, logits.split(lengths, 1), offsets.split(lengths, 1)):
            best = level_logits.topk(min(self.proposals, len(level)))
            boxes = decode_boxes(pick_rows(level_offsets, best.indices), level[best.indices], shape)
            wide = (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1) >= 1
            scores = torch.where(wide, best.values, -torch.inf)
            kept = non_maximum_suppression(boxes, scores, PROPOSAL_OVERLAP)
            found.append((boxes, torch.where(kept, scores, -torch.inf)))
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*found))
        best = scores.topk(min(self.proposals, scores.shape[1]))
        return pick_rows(boxes, best.indices), best.values > -torch.inf

    def _proposal_loss(
        self, anchors: Tensor, logits: Tensor, offsets: Tensor, instances: Instances, generator
    ) -> Tensor:
        """Cross-entropy of sampled anchors plus smooth L1 of the offsets of the positive ones."""
        overlap = intersection_over_union(instances.boxes, anchors)
        best, nearest = overlap.max(dim=1)
        highest = overlap.amax(dim=2, keepdim=True)
        # SILENT: Luo 2020, which anchors count; as He et al. from an overlap of 0.7 as positive, below 0.3 as negative.
        # The best anchors of an instance are positive in any case, or a small structure would have none.
        positive = (best >= 0.7) | ((overlap == highest) & (highest > 0)).any(dim=1)
        index, is_positive, drawn = draw_sample(
            positive, ~positive & (best < 0.3), self.sampled_anchors, self.sampled_anchors // 2, generator
        )
        objectness = F.binary_cross_entropy_with_logits(
            logits.gather(1, index), is_positive.float(), weight=drawn.float(), reduction="sum"
        )
        origin, target = anchors[index], pick_rows(instances.boxes, nearest.gather(1, index))
        distance = _box_distance(pick_rows(offsets, index), origin, target, is_positive)
        return (objectness + distance) / drawn.sum().clamp_min(1)

    def _region_loss(self, levels: list[Tensor], boxes, real, label, instances: Instances, generator) -> Tensor:
        """Cross-entropy of sampled regions, smooth L1 of their boxes, cross-entropy of the pixels of positive ones."""
        boxes = torch.cat([boxes, instances.boxes], dim=1)
        real = torch.cat([real, instances.boxes.any(dim=2)], dim=1)
        best, nearest = intersection_over_union(instances.boxes, boxes).max(dim=1)
        most = self.sampled_regions // 4
        index, is_positive, drawn = draw_sample(
            real & (best >= 0.5), real & (best < 0.5), self.sampled_regions, most, generator
        )
        boxes, nearest = pick_rows(boxes, index), nearest.gather(1, index)
        structure = instances.structure.gather(1, nearest)

        logits, offsets = self._read_boxes(levels, boxes)
        known = torch.cat([torch.ones_like(instances.contoured[:, :1]), instances.contoured], dim=1)
        logits = logits.masked_fill(~known[:, None], -torch.inf)
        target = torch.where(is_positive, structure + 1, 0)
        naming = (F.cross_entropy(logits.transpose(1, 2), target, reduction="none") * drawn).sum()
        offsets = offsets.gather(2, structure[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
        scale = offsets.new_tensor(REGION_SCALE)
        distance = _box_distance(offsets, boxes, pick_rows(instances.boxes, nearest), is_positive, scale)

        # Positive regions come first. What a mask should show is read from the label itself: another piece of the same
        # structure inside the box belongs to it as well, since all pieces are united in the end.
        shown, boxes, structure = is_positive[:, :most], boxes[:, :most], structure[:, :most]
        masks = self.mask_head(region_align(levels, boxes / STRIDES[0], 14)[shown])
        sample, own = shown.nonzero()[:, 0], structure[shown]
        aim = region_align([(label[sample, own] == 1).float()[:, None]], boxes[shown][:, None], 28)
        drawing = F.binary_cross_entropy_with_logits(
            masks[torch.arange(len(own), device=own.device), own], aim[:, 0, 0], reduction="sum"
        )
        return (naming + distance) / drawn.sum().clamp_min(1) + drawing / max(1, aim.numel())

    def _read_boxes(self, levels: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, R, 1 + S)`` and offsets ``(B, R, S, 4)`` of regions."""
        logits, offsets = self.box_head(region_align(levels, boxes / STRIDES[0], 7).flatten(0, 1))
        return logits.unflatten(0, boxes.shape[:2]), offsets.unflatten(0, boxes.shape[:2])

    def _detect(self, levels: list[Tensor], boxes: Tensor, real: Tensor, shape: tuple[int, int]) -> Tensor:
        """Maps ``(B, S, H, W)``: the masks of the regions found, at their boxes, united by the maximum."""
        logits, offsets = self._read_boxes(levels, boxes)
        # A region speaks for its most probable structure only; below a threshold of 0.5 it could be two.
        score, structure = logits.softmax(dim=2)[..., 1:].max(dim=2)
        offsets = offsets.gather(2, structure[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
        boxes = decode_boxes(offsets / offsets.new_tensor(REGION_SCALE), boxes, shape)
        wide = (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1) >= 1
        score = torch.where(real & wide & (score >= self.score_threshold), score, -torch.inf)
        # Structures side by side on a long strip: boxes of different ones never overlap.
        apart = boxes + (structure * 2 * max(shape))[..., None]
        found = non_maximum_suppression(apart, score, DETECTION_OVERLAP) & (score > -torch.inf)

        # SILENT: Luo 2020, how instances become the map of a structure; their largest probability, whatever the score.
        maps = []
        for sample, chosen in enumerate(found):
            own, mine = structure[sample, chosen], boxes[sample, chosen]
            here = [level[sample : sample + 1] for level in levels]
            masks = self.mask_head(region_align(here, mine[None] / STRIDES[0], 14)[0])
            masks = masks[torch.arange(len(own), device=own.device), own].sigmoid()
            pasted = paste_masks(masks, mine, shape).flatten(1)
            united = pasted.new_zeros((logits.shape[2] - 1, pasted.shape[1]))
            maps.append(united.scatter_reduce(0, own[:, None].expand_as(pasted), pasted, "amax").unflatten(1, shape))
        # The shares of a pixel's four neighbours add up to one but for rounding.
        return torch.stack(maps).clamp(max=1)


def _box_distance(offsets: Tensor, origin: Tensor, target: Tensor, counted: Tensor, scale: Tensor | float = 1.0):
    """Sum of the smooth L1 distances of the offsets that count; the others may have no target."""
    wanted = encode_boxes(target[counted], origin[counted]) * scale
    return F.smooth_l1_loss(offsets[counted], wanted, beta=1 / 9, reduction="sum")


def paste_masks(masks: Tensor, boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Masks ``(N, 28, 28)`` of boxes ``(N, 4)`` on slices ``(N, H, W)`` of ``shape``.

    A pixel is 0 if its centre lies outside the box, and else read bilinearly.
    """
    weights = []
    for axis, extent in ((0, shape[1]), (1, shape[0])):
        centre = torch.arange(extent, device=boxes.device) + 0.5
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        cell = ((centre - low) / (high - low) * masks.shape[-1] - 0.5).clamp(0, masks.shape[-1] - 1)
        inside = (centre > low) & (centre < high)
        weights.append(_linear_weights(cell, masks.shape[-1]) * inside[..., None])
    with torch.autocast(boxes.device.type, enabled=False):
        return weights[1] @ masks.float() @ weights[0].mT

"""Boxes on a slice: their overlap, the anchors they start from, and what is read from and drawn into them.

A box is ``(x1, y1, x2, y2)`` in pixels of the slice. Pixel ``i`` covers the interval from ``i`` to ``i + 1``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

STRIDES = (4, 8, 16, 32, 64)  # of the levels P2 to P6 of the feature pyramid
RATIOS = (0.5, 1.0, 2.0)  # height to width of the anchors


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """Overlap of every box with every other box, in [0, 1]; 0 for boxes without area.

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
    ranked = boxes.take_along_dim(order[..., None], dim=-2)
    beats = (intersection_over_union(ranked, ranked) > threshold).triu(1)
    # Each round decides on all boxes at once. After n rounds the first n are right, and mostly all of them after a few.
    kept = torch.ones_like(order, dtype=torch.bool)
    while True:
        again = ~(beats & kept[..., None]).any(dim=-2)
        if torch.equal(again, kept):
            return torch.empty_like(kept).scatter_(-1, order, kept)
        kept = again


def encode_boxes(boxes: Tensor, origin: Tensor) -> Tensor:
    """Offsets from boxes ``origin`` to ``boxes``: shift of the centre in widths and heights, logarithm of the growth.

    Both are ``(..., 4)`` with positive width and height; returns ``(..., 4)`` as ``(x, y, width, height)``.
    """
    size, origin_size = boxes[..., 2:] - boxes[..., :2], origin[..., 2:] - origin[..., :2]
    shift = (boxes[..., :2] + boxes[..., 2:] - origin[..., :2] - origin[..., 2:]) / 2
    return torch.cat([shift / origin_size, (size / origin_size).log()], dim=-1)


def decode_boxes(offsets: Tensor, origin: Tensor, shape: tuple[int, int]) -> Tensor:
    """Boxes that lie ``offsets`` away from ``origin``, cut to a slice of ``shape`` (y, x); inverse of `encode_boxes`.

    Offsets that are ``nan`` give a box without area, so a diverged network has the loss ``nan`` and raises no error.
    """
    origin_size = origin[..., 2:] - origin[..., :2]
    centre = (origin[..., :2] + origin[..., 2:]) / 2 + offsets[..., :2] * origin_size
    # A wild offset of the first updates would overflow; no structure is 60 times the box it is found from.
    half = origin_size * offsets[..., 2:].clamp(max=math.log(60)).exp() / 2
    boxes = torch.cat([centre - half, centre + half], dim=-1).nan_to_num(nan=0.0)
    limit = boxes.new_tensor([shape[1], shape[0], shape[1], shape[0]])
    return torch.minimum(boxes.clamp_min(0), limit)


def wide_enough(boxes: Tensor) -> Tensor:
    """Whether boxes ``(..., 4)`` are at least one pixel wide and high: ``(...)``."""
    return (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1) >= 1


def anchor_boxes(
    shape: tuple[int, int], sizes: Sequence[float], device: torch.device | None = None, places: int = 1
) -> list[Tensor]:
    """Boxes from which proposals start, for each level ``(cells * places ** 2 * 3, 4)``, cell by cell.

    Args:
        shape: of the slice, (y, x).
        sizes: square root of the area of each level's anchors, in pixels.
        places: in each direction within a cell, evenly spread; three ratios of height to width stand at each.
    """
    levels = []
    for stride, size in zip(STRIDES, sizes, strict=True):
        step = stride / places
        y, x = ((torch.arange(math.ceil(n / stride) * places, device=device) + 0.5) * step for n in shape)
        centre = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
        # Places (rows, y, columns, x) come cell by cell, as the channels of the head do.
        centre = centre.unflatten(1, (-1, places)).unflatten(0, (-1, places)).transpose(1, 2).flatten(0, 3)
        half = [[size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2] for ratio in RATIOS]
        half = torch.tensor(half, device=device)
        levels.append(torch.cat([centre[:, None] - half, centre[:, None] + half], dim=-1).reshape(-1, 4))
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
    # Two matrix products, along y and along x, give the same numbers as grid_sample and its mean, but are several times
    # faster on a processor, and their gradient on a GPU is summed in the same order each time.
    with torch.autocast(boxes.device.type, enabled=False):
        rows = torch.einsum("brph,bchw->brpcw", weights[1], sheet.float())
        return torch.einsum("brqw,brpcw->brcpq", weights[0], rows)


def _linear_weights(positions: Tensor, cells: int) -> Tensor:
    """Weights ``(..., N, cells)`` of the cells in a linear interpolation at ``positions`` ``(..., N)``, as indices."""
    return (1 - (positions[..., None] - torch.arange(cells, device=positions.device)).abs()).clamp_min(0)


def _sheet(maps: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """All levels on one map, so that one call reads them all, and the corner (x, y) of each.

    The first level is on the left, the smaller ones stand in a column beside it.
    """
    if len(maps) == 1:
        return maps[0], [(0, 0)]
    first = maps[0]
    height, width = first.shape[-2:]
    sheet = first.new_zeros((*first.shape[:2], height, width + maps[1].shape[-1]))
    sheet[..., :width] = first
    corners, top = [(0, 0)], 0
    for level_map in maps[1:]:
        corners.append((width, top))
        sheet[..., top : top + level_map.shape[-2], width : width + level_map.shape[-1]] = level_map
        top += level_map.shape[-2]
    return sheet, corners


def paste_masks(masks: Tensor, boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Masks ``(N, m, m)`` of boxes ``(N, 4)``, drawn on slices ``(N, H, W)`` of ``shape``.

    A pixel whose centre lies outside the box is 0, the others are read bilinearly.
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

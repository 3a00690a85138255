import math

import pytest
import torch
import torch.nn.functional as F

from npcrepro.models.baselines.boxes import (
    anchor_boxes,
    decode_boxes,
    encode_boxes,
    intersection_over_union,
    non_maximum_suppression,
    paste_masks,
    region_align,
)

SIZES = (8, 16, 32, 64, 128)


def random_boxes(*shape: int, extent: float) -> torch.Tensor:
    ends = torch.rand(*shape, 2, 2) * extent
    return torch.cat([ends.amin(dim=-2), ends.amax(dim=-2)], dim=-1)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 4, 2), (2, 1, 6, 3), 2 / 14),
        ((0, 0, 4, 4), (1, 1, 3, 3), 4 / 16),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0),
        ((1, 1, 1, 1), (1, 1, 1, 1), 0),
    ],
)
def test_intersection_over_union(first, second, expected):
    boxes = [torch.tensor([box], dtype=torch.float32) for box in (first, second)]
    assert intersection_over_union(*boxes).item() == pytest.approx(expected)
    assert intersection_over_union(*reversed(boxes)).item() == pytest.approx(expected)


def test_encoding_and_decoding_are_inverse_and_decoded_boxes_stay_inside_the_slice():
    torch.manual_seed(0)
    boxes, origin = (random_boxes(50, extent=60) + torch.tensor([0, 0, 2.0, 2.0]) for _ in range(2))
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, origin), origin, (64, 64)), boxes, rtol=0, atol=1e-3)
    origin = torch.tensor([[10.0, 10, 20, 20]])
    assert decode_boxes(torch.tensor([[0.0, 0, 50, 50]]), origin, (32, 64)).tolist() == [[0, 0, 64, 32]]
    for value in (math.nan, math.inf, -math.inf):
        box = decode_boxes(torch.full((1, 4), value), origin, (32, 64))
        assert ((box >= 0) & (box <= 64)).all()


def test_anchors():
    levels = anchor_boxes((64, 96), SIZES)
    assert [len(level) for level in levels] == [3 * 16 * 24, 3 * 8 * 12, 3 * 4 * 6, 3 * 2 * 3, 3 * 1 * 2]
    for level, size in zip(levels, SIZES):
        width, height = (level[:, 2:] - level[:, :2]).unbind(dim=1)
        torch.testing.assert_close(width * height, torch.full_like(width, size**2))
        torch.testing.assert_close((height / width).view(-1, 3), torch.tensor([0.5, 1, 2]).expand(len(level) // 3, 3))
    # The square one of the third cell of the second row of P2, around (10, 6).
    assert levels[0][(24 + 2) * 3 + 1].tolist() == [6, 2, 14, 10]


def test_suppression_is_greedy():
    torch.manual_seed(0)
    boxes, scores = random_boxes(3, 60, extent=10), torch.rand(3, 60)
    for threshold in (0.1, 0.5):
        found = non_maximum_suppression(boxes, scores, threshold)
        for sample, overlap in enumerate(map(intersection_over_union, boxes, boxes)):
            kept = []
            for i in scores[sample].argsort(descending=True).tolist():
                if (overlap[i, kept] <= threshold).all():
                    kept.append(i)
            assert found[sample].nonzero().flatten().tolist() == sorted(kept)


@pytest.mark.parametrize(("side", "level"), [(2, 0), (13.9, 0), (14.1, 1), (27.9, 1), (28.1, 2), (60, 3), (130, 3)])
def test_the_level_of_a_region_follows_from_its_size(side, level):
    maps = [torch.full((1, 1, 160 >> k, 160 >> k), float(k)) for k in range(4)]
    regions = torch.tensor([[[10, 10, 10 + side, 10 + side], [10, 20, 10 + side / 2, 20 + 2 * side]]])
    assert region_align(maps, regions.clamp(max=160), 2).unique().tolist() == [level]


def test_regions_are_what_grid_sample_reads():
    torch.manual_seed(0)
    cells, boxes = torch.randn(2, 3, 9, 13), random_boxes(2, 6, extent=9)
    found = region_align([cells], boxes, 5)
    samples = (torch.arange(10) + 0.5) / 10
    for image in range(2):
        for number, (x1, y1, x2, y2) in enumerate(boxes[image]):
            at_x, at_y = (x1 + (x2 - x1) * samples) / 13 * 2 - 1, (y1 + (y2 - y1) * samples) / 9 * 2 - 1
            grid = torch.stack(torch.meshgrid(at_x, at_y, indexing="xy"), dim=-1)[None]
            read = F.grid_sample(cells[image : image + 1], grid, padding_mode="border", align_corners=False)
            torch.testing.assert_close(found[image, number], F.avg_pool2d(read, 2)[0], rtol=0, atol=1e-5)


def test_a_mask_fills_its_box_and_nothing_else():
    expected = torch.zeros(1, 16, 12)
    expected[0, 5:7, 3:9] = 1
    found = paste_masks(torch.ones(1, 28, 28), torch.tensor([[3.0, 5, 9, 7]]), (16, 12))
    torch.testing.assert_close(found, expected)

import math

import pytest
import torch
import torch.nn.functional as F
from network_cases import dice, on_meta
from torch import nn

from npcrepro.models.baselines.boxes import anchor_boxes, encode_boxes, intersection_over_union
from npcrepro.models.baselines.feature_pyramid import ProposalHead
from npcrepro.models.baselines.mask_rcnn import Instances, MaskRCNN, find_instances

SIZES = (8, 16, 32, 64, 128)


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Two discs that mirror each other, structures 0 and 1, and a darker rectangle, structure 2."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    left, right = (((y - 20) ** 2 + (x - centre) ** 2) <= 81 for centre in (15, 48))
    rectangle = (y >= 40) & (y < 58) & (x >= 22) & (x < 46)
    label = torch.stack([left, right, rectangle])[None].to(torch.uint8)
    image = (left | right).float() + 0.6 * rectangle + 0.1 * torch.randn(64, 64, generator=generator)
    return image[None, None], label


def small_network(structures: int = 3, **options) -> MaskRCNN:
    torch.manual_seed(0)
    return MaskRCNN(1, structures, **{"width": 0.1, "sampled_regions": 32, "proposals": 32} | options)


def train(network: MaskRCNN, image, label, steps: int, rate: float = 1e-3) -> list[float]:
    optimiser = torch.optim.Adam(network.train().parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = network(image, label)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_instances_are_the_connected_pieces_of_each_structure():
    label = torch.zeros(2, 3, 32, 40, dtype=torch.uint8)
    label[0, 0, 2:6, 3:10] = 1
    label[0, 0, 20:30, 30:40] = 1
    label[0, 2, 6:10, 0:4] = 1
    label[0, 2, 10:12, 4:6] = 1  # touches the last one at a corner
    label[0, 2, 20:22, 20:24] = 1  # eight pixels
    instances = find_instances(label)
    assert instances.boxes.shape == (2, 3, 4)
    assert instances.boxes[0].tolist() == [[3, 2, 10, 6], [30, 20, 40, 30], [0, 6, 6, 12]]
    assert instances.structure[0].tolist() == [0, 0, 2]
    assert not instances.boxes[1].any()
    assert instances.contoured.all()
    assert find_instances(label, 8).boxes[0, 3].tolist() == [20, 20, 24, 22]


@pytest.mark.parametrize("options", [{}, {"made_for": 512, "places": 6}])
def test_on_a_small_slice_a_small_piece_teaches_if_the_network_is_made_for_a_larger_one(options):
    """A spinal cord of 3 x 3 pixels less one, as it is on 80 x 80."""
    label = torch.zeros(1, 1, 80, 80, dtype=torch.uint8)
    label[0, 0, 41:44, 38:41] = 1
    label[0, 0, 41, 38] = 0
    network = small_network(1, **options)
    network(torch.rand(1, 1, 80, 80), label).backward()
    assert bool(network.mask_head.logits.weight.grad.any()) == bool(options)


def test_anchors_that_shrink_with_the_slice_overlap_small_boxes_wherever_they_are():
    shrunk = torch.cat(anchor_boxes((96, 96), [size * 80 / 512 for size in SIZES], places=6))
    y, x = torch.meshgrid(torch.arange(30, 38), torch.arange(30, 38), indexing="ij")
    corner = torch.stack([x, y], dim=-1).flatten(0, 1).float()
    for width in (3, 10, 25):
        boxes = torch.cat([corner, corner + width], dim=1)
        assert intersection_over_union(boxes, shrunk).amax(dim=1).min() > 0.4
        assert width > 3 or intersection_over_union(boxes, torch.cat(anchor_boxes((96, 96), SIZES))).max() < 0.15


def test_anchors_at_places_within_a_cell_are_those_of_a_larger_slice_cell_by_cell():
    large, small = anchor_boxes((128, 256), SIZES), anchor_boxes((32, 64), [size / 4 for size in SIZES], places=4)
    for level, (one, other) in enumerate(zip(large, small, strict=True)):
        if level < 4:  # P6 of the larger slice ends behind it
            assert sorted(one.tolist()) == sorted((4 * other).tolist())
    centres = (small[0][:, :2] + small[0][:, 2:]).reshape(8, 16, 3 * 16, 2) / 2
    assert torch.equal((centres[..., 0] // 4).long(), torch.arange(16)[None, :, None].expand(8, -1, 48))
    assert torch.equal((centres[..., 1] // 4).long(), torch.arange(8)[:, None, None].expand(-1, 16, 48))
    levels = [torch.zeros(1, 8, 8, 16)]
    logits, offsets = ProposalHead(8, places=4)(levels)
    assert (logits.shape[1], offsets.shape[1]) == (len(small[0]), len(small[0]))


def proposal_loss(boxes: list, logits: torch.Tensor, offsets: torch.Tensor, sampled_anchors: int = 128) -> float:
    anchors = torch.cat(anchor_boxes((64, 64), SIZES))
    boxes = torch.tensor([boxes], dtype=torch.float32)
    instances = Instances(boxes, torch.zeros(1, boxes.shape[1], dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool))
    generator = torch.Generator().manual_seed(0)
    network = small_network(1, sampled_anchors=sampled_anchors)
    return network._proposal_loss(anchors, logits, offsets, instances, generator).item()


def test_perfect_proposals_cost_nothing_and_doubtful_anchors_do_not_count():
    anchors = torch.cat(anchor_boxes((64, 64), SIZES))
    boxes = [[8, 8, 24, 24], [30, 40, 36, 46]]
    overlap = intersection_over_union(anchors, torch.tensor(boxes, dtype=torch.float32))
    # The second is 6 x 6 and reaches 0.7 with no anchor: those that cover it whole are its best.
    assert 0.3 < overlap[:, 1].max() < 0.7
    positive = (overlap >= 0.7).any(dim=1) | (overlap == overlap.amax(dim=0)).any(dim=1)
    doubtful = ~positive & (overlap >= 0.3).any(dim=1)
    assert doubtful.any()
    own = torch.tensor(boxes, dtype=torch.float32)[overlap.argmax(dim=1)]
    offsets, logits = encode_boxes(own, anchors)[None], torch.where(positive, 30.0, -30.0)[None]
    offsets[0, ~positive] = 7.0
    assert proposal_loss(boxes, logits, offsets) < 1e-5
    logits[0, doubtful] = 30.0
    assert proposal_loss(boxes, logits, offsets) < 1e-5
    assert proposal_loss(boxes, logits, offsets, sampled_anchors=2000) < 1e-5
    # All called background: the positive ones cost 30 each, shared among the 128 drawn.
    missed = proposal_loss(boxes, torch.full_like(logits, -30.0), offsets)
    assert missed == pytest.approx(30 * min(64, int(positive.sum())) / 128, rel=1e-3)
    # All boxes one offset aside: smooth L1 costs two coordinates 1 - 1/18 each.
    aside = proposal_loss(boxes, logits, offsets + torch.tensor([1.0, 1.0, 0, 0]))
    assert aside == pytest.approx(2 * (1 - 1 / 18) * min(64, int(positive.sum())) / 128, rel=1e-3)


class SameMask(nn.Module):
    """A mask head that says for each structure the same in every pixel."""

    def __init__(self, logits: list[float]):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, regions):
        return self.logits[None, :, None, None].expand(len(regions), -1, 28, 28)


def region_loss(mask_logits: list[float], aside: float = 0.0, names: tuple[int, int, int] = (0, 1, 2)) -> float:
    """Loss of perfect regions around a rectangle of structure 0 and one of structure 1, but for what is asked for.

    ``names`` are the class given to background, structure 0 and structure 1; ``aside`` shifts the boxes.
    """
    torch.manual_seed(0)
    label = torch.zeros(1, 2, 64, 64, dtype=torch.uint8)
    label[0, 0, 8:24, 8:28] = label[0, 1, 40:60, 30:50] = 1
    instances = find_instances(label)
    # Four proposals on background, two near the structures, and two places that hold no proposal.
    boxes = [[40, 0, 60, 20], [0, 40, 20, 60], [30, 0, 50, 8], [0, 0, 6, 6], [9, 9, 29, 24], [30, 38, 52, 60]]
    boxes = torch.tensor([boxes + 2 * [[8, 8, 28, 24]]], dtype=torch.float32)
    real = torch.arange(8)[None] < 6
    network = small_network(2)
    network.mask_head = SameMask(mask_logits)

    def perfect(levels, boxes):
        overlap, nearest = intersection_over_union(boxes, instances.boxes).max(dim=2)
        name = torch.tensor(names)[torch.where(overlap >= 0.5, nearest + 1, 0)]
        offsets = torch.full((*boxes.shape[:2], 2, 4), 7.0)
        own = encode_boxes(instances.boxes[0][nearest], boxes) * torch.tensor([10, 10, 5, 5]) + aside
        return 60 * F.one_hot(name, 3) - 30.0, offsets.scatter(
            2, nearest[..., None, None].expand(-1, -1, 1, 4), own[:, :, None]
        )

    network._read_boxes = perfect
    levels = [torch.zeros(1, 8, 16 >> k, 16 >> k) for k in range(4)]
    return network._region_loss(levels, boxes, real, label, instances, torch.Generator().manual_seed(0)).item()


def test_perfect_regions_cost_nothing_and_masks_are_held_against_their_own_structure():
    """Masks cost log 2 for each pixel at even odds. Eight regions count, four of them show a structure."""
    assert region_loss([0.0, 0.0]) == pytest.approx(math.log(2), rel=1e-4)
    assert region_loss([0.0, 0.0], aside=1.0) == pytest.approx(math.log(2) + 4 * 4 * (1 - 1 / 18) / 8, rel=1e-4)
    assert region_loss([0.0, 0.0], names=(0, 2, 1)) == pytest.approx(math.log(2) + 4 * 60 / 8, rel=1e-4)
    # The structures fill their boxes, and two of the four regions reach a little beyond.
    assert region_loss([30.0, 30.0]) < 0.2 * 30
    assert region_loss([30.0, -30.0]) == pytest.approx(15, rel=0.2)
    assert region_loss([-30.0, 30.0]) == pytest.approx(15, rel=0.2)


def class_gradients(network: MaskRCNN, structure: int) -> list[torch.Tensor]:
    return [
        network.box_head.logits.weight.grad[1 + structure],
        network.box_head.offsets.weight.grad[4 * structure : 4 * structure + 4],
        network.mask_head.logits.weight.grad[structure],
    ]


def test_gradients_reach_every_parameter_but_not_those_of_a_structure_that_was_not_contoured():
    image, label = scene()
    network = small_network()
    network(image, label).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    label[:, 1] = 255
    network = small_network()
    network(image, label).backward()
    assert not any(gradient.any() for gradient in class_gradients(network, 1))
    for structure in (0, 2):
        assert all(gradient.any() for gradient in class_gradients(network, structure))


@pytest.mark.parametrize("structures", [1, 2])
def test_a_slice_without_structures_is_an_ordinary_one(structures):
    network = small_network(structures)
    label = torch.zeros(2, structures, 32, 32, dtype=torch.uint8)
    loss = network(torch.randn(2, 1, 32, 32), label)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    assert network.box_head.logits.bias.grad[0] < 0  # towards background
    assert not network.mask_head.logits.weight.grad.any()


def test_training_goes_on_from_a_saved_state_as_if_it_had_not_stopped():
    image, label = scene()
    network = small_network(sampled_anchors=16, sampled_regions=8)
    train(network, image, label, 2)
    other = small_network(sampled_anchors=16, sampled_regions=8)
    other.load_state_dict(network.state_dict())
    assert train(network, image, label, 2) == train(other, image, label, 2)
    assert all(map(torch.equal, network.state_dict().values(), other.state_dict().values()))


def test_what_is_found_is_united_in_the_map_of_its_structure():
    network = small_network(2)
    network.mask_head = SameMask([30.0, 30.0])
    regions = [
        ([8, 8, 24, 24], (0.04, 0.9, 0.06)),
        ([10, 8, 26, 24], (0.03, 0.07, 0.9)),  # another structure at the same place
        ([7, 8, 23, 24], (0.2, 0.7, 0.1)),  # the first one again, less certain
        ([36, 40, 44, 50], (0.3, 0.6, 0.1)),  # another piece of the first; half its width to the right
        ([50, 4, 60, 14], (0.9, 0.05, 0.05)),
        ([50, 20, 60, 30], (0.55, 0.45, 0.0)),
        ([4, 50, 14, 60], (0.1, 0.8, 0.1)),  # no proposal
    ]
    boxes = torch.tensor([[box for box, _ in regions]], dtype=torch.float32)
    logits = torch.tensor([[probabilities for _, probabilities in regions]]).log()
    offsets = torch.zeros(1, 7, 2, 4)
    offsets[0, 3, 0, 0] = 5.0
    offsets[0, 3, 1] = 9.0
    network._read_boxes = lambda levels, boxes: (logits, offsets)
    levels = [torch.zeros(1, 8, 16 >> k, 16 >> k) for k in range(4)]
    maps = network._detect(levels, boxes, torch.arange(7)[None] < 6, (64, 64))
    expected = torch.zeros(1, 2, 64, 64)
    expected[0, 0, 8:24, 8:24] = expected[0, 0, 40:50, 40:48] = expected[0, 1, 8:24, 10:26] = 1
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("size", [(48, 32), (32, 65)])
def test_other_sizes_are_filled_with_zeros_to_multiples_of_32(size):
    network = small_network(score_threshold=0.0).eval()
    image, label = torch.randn(2, 1, *size), torch.zeros(2, 3, *size, dtype=torch.uint8)
    label[:, 0, 4:12, 4:12] = 1
    label[1, 1] = 255
    filled = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32))
    maps = network(image)
    assert maps.shape == label.shape
    torch.testing.assert_close(maps, network(filled)[..., : size[0], : size[1]])
    zeros = F.pad(label, (0, -size[1] % 32, 0, -size[0] % 32))
    torch.testing.assert_close(network(image, label), network(filled, zeros))


@pytest.mark.parametrize(("width", "trunk", "pyramid", "hidden"), [(1, 512, 256, 1024), (0, 8, 8, 8)])
def test_width_scales_all_inner_channels_and_never_to_none(width, trunk, pyramid, hidden):
    network = on_meta(MaskRCNN, 3, 14, width=width)
    box, mask = network.box_head, network.mask_head.logits
    assert (network.pyramid.lateral[3].in_channels, mask.in_channels) == (trunk, pyramid)
    assert (box.logits.in_features, box.logits.out_features, box.offsets.out_features) == (hidden, 15, 56)
    assert (network.pyramid.stem[0].in_channels, mask.out_channels) == (3, 14)


@pytest.mark.slow
def test_one_case_can_be_learnt_by_heart():
    network = small_network(width=0.25, proposals=64)
    image, label = scene()
    losses = train(network, image, label, 100)
    # Single losses jump with what is drawn.
    assert sum(losses[-20:]) / 20 < 0.2 * losses[0]
    with torch.no_grad():
        maps = network.eval()(image)
    assert ((maps >= 0) & (maps <= 1)).all()
    # Left and right look alike, so nothing but their place tells which is which.
    assert min(dice((maps >= 0.5).float(), label)) > 0.9

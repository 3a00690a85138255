"""Mask R-CNN (He et al. 2017), a row of Table 1 of Luo et al. 2020, used as a network for semantic segmentation.

A residual trunk has a feature pyramid and three heads. The first proposes regions where a structure may lie, the second
names each region and moves its box, the third draws the structure inside the box. In training, the network computes its
own loss. Afterwards all instances of a structure are united in one map.

The paper reports one line of results for this network and does not say how it was built or trained. Every choice below
is therefore ours; those that may change the result carry a tag.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.models.baselines.boxes import (
    STRIDES,
    anchor_boxes,
    decode_boxes,
    encode_boxes,
    intersection_over_union,
    non_maximum_suppression,
    paste_masks,
    region_align,
    wide_enough,
)
from npcrepro.models.baselines.feature_pyramid import BoxHead, FeaturePyramid, MaskHead, ProposalHead, multiple_of_eight

PROPOSAL_OVERLAP = 0.7  # above it, two proposals are one
DETECTION_OVERLAP = 0.5
REGION_SCALE = (10.0, 10.0, 5.0, 5.0)  # brings the offsets from a proposal to its structure to unit size


@dataclass(frozen=True)
class Instances:
    """Connected pieces of the structures of a batch. Boxes without area fill up each image to the same number G."""

    boxes: Tensor  # (B, G, 4)
    structure: Tensor  # (B, G), index of the structure
    contoured: Tensor  # (B, S), whether the structure was contoured in the image


def find_instances(label: Tensor, smallest: float = 9.0) -> Instances:
    """Instances of a label ``(B, S, H, W)``: 1 inside a structure, 255 where it was not contoured in this case.

    Pieces that touch at a corner are one piece. Pieces of fewer than ``smallest`` pixels are left out.
    """
    from scipy import ndimage

    contoured = ~(label == NOT_CONTOURED).flatten(2).any(dim=2)
    # SILENT: Luo 2020, what an instance of an organ is; a connected piece in the slice.
    inside = label == 1
    rows, columns = (inside.any(dim=axis).cpu().numpy() for axis in (3, 2))
    masks = inside.cpu().numpy()
    found: list[list[tuple[float, ...]]] = [[] for _ in range(len(label))]
    for sample, structure in zip(*rows.any(axis=2).nonzero()):
        y, x = (along[sample, structure].nonzero()[0][[0, -1]] for along in (rows, columns))
        # Pieces are looked for in the box of the structure: in whole slices, that would take longer than the network.
        part = masks[sample, structure, y[0] : y[1] + 1, x[0] : x[1] + 1]
        pieces, _ = ndimage.label(part, structure=[[1] * 3] * 3)
        for number, (down, across) in enumerate(ndimage.find_objects(pieces), 1):
            if (pieces[down, across] == number).sum() >= smallest:
                box = (x[0] + across.start, y[0] + down.start, x[0] + across.stop, y[0] + down.stop)
                found[sample].append((*map(float, box), int(structure)))
    most = max(1, *map(len, found))
    rows_of_images = [pieces + [(0.0, 0.0, 0.0, 0.0, 0)] * (most - len(pieces)) for pieces in found]
    table = torch.tensor(rows_of_images).to(label.device)
    return Instances(table[..., :4], table[..., 4].long(), contoured)


def draw_sample(
    positive: Tensor, negative: Tensor, count: int, most_positive: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw candidates of each image: at most ``most_positive`` positive ones, filled up with negative ones.

    Args:
        positive, negative: ``(B, N)`` bool.
        generator: on the CPU, so that a draw is the same on every device.

    Returns:
        Three tensors ``(B, count)``: indices, positive ones first; which are positive; which were drawn. Where there
        are fewer than ``count`` candidates, the rest of the row was not drawn.
    """
    ticket = torch.rand(positive.shape, generator=generator).to(positive.device)
    highest = torch.where(positive, ticket, -1.0).topk(min(most_positive, ticket.shape[1]))
    chosen = torch.zeros_like(positive).scatter_(1, highest.indices, highest.values >= 0)
    ticket = torch.where(chosen, ticket + 1, torch.where(negative, ticket, -1.0))
    drawn = ticket.topk(min(count, ticket.shape[1]))
    return drawn.indices, drawn.values >= 1, drawn.values >= 0


def pick_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Rows of a table for each image: ``(B, N, 4)`` at ``(B, K)`` gives ``(B, K, 4)``."""
    return rows.take_along_dim(index[..., None], dim=1)


def _offsets_of(structure: Tensor, offsets: Tensor) -> Tensor:
    """Offsets ``(B, R, 4)`` to the box of one structure ``(B, R)`` of each region, out of ``(B, R, S, 4)``."""
    return offsets.take_along_dim(structure[..., None, None], dim=2)[:, :, 0]


class MaskRCNN(nn.Module):
    """Mask R-CNN. With a label it returns its loss, without one a map of each structure.

    Args:
        in_channels: of the image.
        out_channels: number of structures S, without background.
        width: factor on all inner channel numbers, which are rounded to multiples of eight.
        anchor_sizes: of the levels P2 to P6, in pixels: square root of the area of an anchor.
        smallest_instance: pieces of a structure with fewer pixels are no instances: they count as background.
        made_for: longer side of the slices, in pixels, that ``anchor_sizes`` and ``smallest_instance`` are meant for.
            On other slices both grow or shrink with the slice. ``None`` takes them as they are on slices of every size.
        places: of anchors in each direction within a cell of a level. The trunk's cells have a fixed number of pixels:
            anchors that shrink with the slice need more places in each, or small structures would lie between them.
        sampled_anchors, sampled_regions: drawn from each image for the losses of the proposals and of the heads.
        proposals: kept in each image.
        score_threshold: a region counts if the probability of its structure reaches this value.
        enlarge: factor by which image and label are enlarged in both directions. A pixel of the resulting map is the
            mean over the pixels that it was enlarged to.

    Shape:
        image ``(B, C, H, W)``; zeros fill up its lower and right side to multiples of 32. With a label
        ``(B, S, H, W)``, 1 inside a structure, the loss is a float32 scalar. A structure that holds 255 was not
        contoured: the image teaches nothing about it, but its regions count as background among the other structures.
        Without a label, the result is probabilities ``(B, S, H, W)`` float32 in [0, 1], 0 where nothing was found.

    Two buffers decide what is sampled: a number drawn with the weights, and the count of training calls. A training
    that is resumed therefore draws the same samples as one that never stopped.

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
        # SILENT: Luo 2020, the smallest piece that is an instance; nine pixels of a 512 x 512 slice.
        smallest_instance: float = 9.0,
        # DIFFERS: Luo 2020, on slices below the printed 512 x 512 the anchors and the smallest piece shrink with them
        #   (made_for, places). On 80 x 80, most pieces of a spinal cord have fewer than nine pixels.
        made_for: int | None = None,
        places: int = 1,
        # SILENT: Luo 2020, how many anchors, regions and proposals are sampled; half the anchors and an
        # eighth of the regions and proposals that are usual for photographs, as a slice holds a handful of structures.
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
        channels = multiple_of_eight(width * 256)
        self.anchor_sizes, self.proposals, self.score_threshold = tuple(anchor_sizes), proposals, score_threshold
        self.smallest_instance, self.made_for, self.places = smallest_instance, made_for, places
        self.sampled_anchors, self.sampled_regions = sampled_anchors, sampled_regions
        self.pyramid = FeaturePyramid(in_channels, channels, width)
        self.proposal_head = ProposalHead(channels, places)
        self.box_head = BoxHead(channels, out_channels, multiple_of_eight(width * 1024))
        self.mask_head = MaskHead(channels, out_channels)
        self.register_buffer("seed", torch.randint(2**48, ()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # SILENT: Luo 2020, initial weights; He, and what keeps the size of the maps where no ReLU follows.
        linear = {*self.pyramid.lateral, *self.pyramid.smooth}
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module in linear else "relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The last layers start near zero, so that no structure is preferred and no box is moved.
        for layer in (
            self.proposal_head.logit,
            self.proposal_head.offsets,
            self.box_head.logits,
            self.mask_head.logits,
        ):
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
        scale = max(height, width) / self.made_for if self.made_for else 1.0
        anchors = anchor_boxes(shape, [size * scale for size in self.anchor_sizes], image.device, self.places)
        logits, offsets = self.proposal_head(levels)
        with torch.no_grad():
            boxes, real = self._propose(anchors, logits, offsets, shape)
        if label is None:
            maps = self._detect(levels[:4], boxes, real, shape)[..., :height, :width]
            return F.avg_pool2d(maps, self.enlarge) if self.enlarge > 1 else maps
        label = F.pad(label, margins)
        instances = find_instances(label, self.smallest_instance * scale**2)
        generator = torch.Generator().manual_seed(int(self.seed + self.steps))
        if self.training:
            self.steps += 1
        proposal_loss = self._proposal_loss(torch.cat(anchors), logits, offsets, instances, generator)
        return proposal_loss + self._region_loss(levels[:4], boxes, real, label, instances, generator)

    def _propose(
        self, anchors: list[Tensor], logits: Tensor, offsets: Tensor, shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The best boxes of each image, ``(B, N, 4)``, and which of them are real; the others fill up the table."""
        found, lengths = [], [len(level) for level in anchors]
        for level, level_logits, level_offsets in zip(anchors, logits.split(lengths, 1), offsets.split(lengths, 1)):
            best = level_logits.topk(min(self.proposals, len(level)))
            boxes = decode_boxes(pick_rows(level_offsets, best.indices), level[best.indices], shape)
            scores = torch.where(wide_enough(boxes), best.values, -torch.inf)
            kept = non_maximum_suppression(boxes, scores, PROPOSAL_OVERLAP)
            found.append((boxes, torch.where(kept, scores, -torch.inf)))
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*found))
        best = scores.topk(min(self.proposals, scores.shape[1]))
        return pick_rows(boxes, best.indices), best.values > -torch.inf

    def _proposal_loss(
        self, anchors: Tensor, logits: Tensor, offsets: Tensor, instances: Instances, generator: torch.Generator
    ) -> Tensor:
        """Cross-entropy of sampled anchors plus smooth L1 of the offsets of the positive ones."""
        overlap = intersection_over_union(instances.boxes, anchors)
        best, nearest = overlap.max(dim=1)
        highest = overlap.amax(dim=2, keepdim=True)
        # SILENT: Luo 2020, which anchors count; as He et al. from an overlap of 0.7 as positive, below 0.3 as negative.
        # The best anchors of an instance are always positive, because a small structure would have none otherwise.
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

    def _region_loss(
        self,
        levels: list[Tensor],
        boxes: Tensor,
        real: Tensor,
        label: Tensor,
        instances: Instances,
        generator: torch.Generator,
    ) -> Tensor:
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
        target_boxes, scale = pick_rows(instances.boxes, nearest), offsets.new_tensor(REGION_SCALE)
        distance = _box_distance(_offsets_of(structure, offsets), boxes, target_boxes, is_positive, scale)

        # Positive regions come first. The target of a mask is the label inside the box. Another piece of the same
        # structure that lies in this box belongs to it too, since all pieces are united in the end.
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
        # A region counts for its most probable structure only; below a threshold of 0.5 it could be two.
        score, structure = logits.softmax(dim=2)[..., 1:].max(dim=2)
        boxes = decode_boxes(_offsets_of(structure, offsets) / offsets.new_tensor(REGION_SCALE), boxes, shape)
        score = torch.where(real & wide_enough(boxes) & (score >= self.score_threshold), score, -torch.inf)
        # Boxes are moved aside by structure, so that those of different structures never overlap.
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
        # The weights of an interpolation add up to one only up to rounding.
        return torch.stack(maps).clamp(max=1)


def _box_distance(
    offsets: Tensor, origin: Tensor, target: Tensor, counted: Tensor, scale: Tensor | float = 1.0
) -> Tensor:
    """Sum of the smooth L1 distances of the offsets that are counted; the others may have no target."""
    wanted = encode_boxes(target[counted], origin[counted]) * scale
    return F.smooth_l1_loss(offsets[counted], wanted, beta=1 / 9, reduction="sum")

"""Small blocks of volumes, drawn for training and slid over the whole volume for testing (Guo et al. 2021).

Axis order is (z, y, x) throughout. A block ``(C, 8, 24, 24)`` has its short side along the normal of its view: for an
axial block that is z, for a coronal one y, for a sagittal one x. The short side always comes first, so that one network
sees all three.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from npcrepro.base.errors import InputError, one_of, pick
from npcrepro.cohorts.prepared import PreparedCase, PreparedCohort, missing_series
from npcrepro.losses.distance_weight import FORMS, distance_weight
from npcrepro.sampling.grid import Grid, Triple
from npcrepro.sampling.head import head_mask, tell_what_is_cut_off, zscore
from npcrepro.sampling.samples import Data, mean_of_overlaps, read_probability
from npcrepro.sampling.store import Store

# Axes of the volume in the order in which a block has them.
ORDER: dict[str, Triple] = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
VIEWS = {"axial": ("axial",), "three": tuple(ORDER)}


class Block(NamedTuple):
    """A block of a case: its view, first voxel (z, y, x) on the case's block grid, and whether it is mirrored in x."""

    case: str
    view: str
    corner: Triple
    mirrored: bool = False


def _product(coarse: Tensor, fine: Tensor) -> Tensor:
    both, neither = coarse * fine, (1 - coarse) * (1 - fine)
    return both / (both + neither).clamp_min(torch.finfo(both.dtype).tiny)


FUSIONS = {
    # Section 3.1 of Guo 2021: probability fusion of coarse and fine map
    "mean": lambda coarse, fine: (coarse + fine) / 2,
    "product": _product,
    "maximum": torch.maximum,
    "fine": lambda coarse, fine: fine,
}


class BlockData(Data):
    """Blocks of volumes, for 3-D networks.

    Each case is brought once to cubic voxels around the head, normalised, and kept. Training draws blocks at random
    places and mirrors half of them, so that the method needs no augmentation besides; testing slides blocks over the
    volume and averages where they overlap. Testing reads no label.

    Args:
        cohort, structures, maps: see :class:`npcrepro.sampling.samples.Data`. Maps become the last channels.
        matrix: ``(z, y, x)`` of an axial block, its short side first.
        channels: as there; the first one that a case has shows where its head is.
        views: ``"axial"``, or ``"three"``: training draws blocks of all three, testing averages the three.
        tumour_share: of the blocks drawn, so many (rounded up) hold a voxel of a structure for certain.
        distance_weight: ``"none"``, or a form of :func:`npcrepro.losses.distance_weight.distance_weight`; batches then
            have the weight as a third part.
        fusion: of coarse and fine probability in testing: ``"mean"``, ``"product"`` (of the odds), ``"maximum"``, or
            ``"fine"``, which leaves the coarse one out. Without maps there is nothing to fuse.
        overlap: share of a side by which neighbouring blocks overlap in testing, in [0, 1).
        flip: probability of mirroring left and right in training.
        spacing_mm: of the cubic voxels; a case whose voxels are larger than this in all directions keeps the finest of
            its own. Cohorts of unknown spacing keep their voxels, and lengths count voxels.
        size_mm: (z, y, x), the largest volume; larger heads are cut about their middle, whatever the label shows.
        cut: where that is done: ``"always"``, ``"never"``, or ``"own structures"``, in cohorts that have the structures
            under the names that the method gives them. Where another stands in, it may lie anywhere.
        enlarge: whole factor on ``matrix``.

    Raises:
        InputError: ``tumour_share`` or ``overlap`` out of its range, mirrored blocks with structures of a side, and see
            :func:`npcrepro.sampling.head.tell_what_is_cut_off`.
    """

    def __init__(
        self,
        cohort: PreparedCohort,
        # PAPER: Guo 2021, blocks of 24 x 24 x 8 (Section 4).
        matrix: Triple,
        channels: tuple[str, ...],
        structures: tuple[str, ...],
        maps: Mapping[str, Sequence[Path]] | None = None,
        # DIFFERS: Guo 2021, training blocks at random places (Section 4.1), from a window slid in three directions
        # (4.2), or at random places in three directions (5); axial ones at random places here, and a sliding window in
        # testing; three directions are an option.
        views: str = "axial",
        # SILENT: Guo 2021, how many blocks of a batch hold tumour; half of them.
        tumour_share: float = 0.5,
        distance_weight: str = "none",
        # SILENT: Guo 2021, what "probability fusion" of coarse and fine is; the mean.
        fusion: str = "mean",
        # SILENT: Guo 2021, overlap and stitching of the blocks; half a block, and the mean.
        overlap: float = 0.5,
        # SILENT: Guo 2021, axis and probability of the "horizontal flip"; left and right, one half.
        flip: float = 0.5,
        # PAPER: Guo 2021, 1 x 1 x 1 mm (Section 4.1).
        spacing_mm: float = 1.0,
        # SILENT: Guo 2021, the order of the axes of 160 x 198 x 103 voxels; x, y, z.
        size_mm: tuple[float, float, float] = (103.0, 198.0, 160.0),
        # PAPER: Guo 2021, the tumour's position in the head "was relatively fixed", so a cut is possible (Section 4.1).
        # DIFFERS: Guo 2021, a tumour outside the head, such as a sarcoma of a limb, has none: such cohorts stay whole.
        cut: str = "own structures",
        # SILENT: Guo 2021, whether the second network works on the same blocks; it does, larger ones are an option.
        enlarge: int = 1,
    ):
        super().__init__(cohort, [enlarge * side for side in matrix], channels, structures)
        self.maps = maps
        self.views: tuple[str, ...] = pick(VIEWS, views, "choice of views")
        self.fusion = one_of(FUSIONS, fusion, "fusion")
        self.distance_weight = one_of(("none", *FORMS), distance_weight, "distance weight")
        self.tumour_share, self.overlap, self.flip = tumour_share, overlap, flip
        self.spacing_mm, self.size_mm = spacing_mm, tuple(size_mm)
        own = set(structures) <= set(cohort.structures)
        self.cut = pick({"always": True, "never": False, "own structures": own}, cut, "cut")
        if not 0 < tumour_share <= 1:
            raise InputError(f"tumour_share={tumour_share:g} is a share of blocks: above 0, at most 1")
        if not 0 <= overlap < 1:
            raise InputError(f"overlap={overlap:g} is a share of a block: at least 0, below 1")
        sides = [name for name in self.structures if name.endswith(("_L", "_R"))]
        if sides and flip:
            raise InputError(f"flip={flip:g}: mirrored blocks would exchange {sides[0]} with that of the other side")
        options = [self.matrix, views, spacing_mm, self.size_mm, self.cut, self.channels, self.structures]
        self.store = Store(cohort.folder, "npcrepro.sampling.blocks:BlockData", options)
        self._voxels: dict[str, np.ndarray] = {}
        self._maps: dict[str, np.ndarray] = {}

    # Volumes

    def grid(self, case: str) -> Grid:
        """The block grid of a case."""
        origin, (side, *_), size = self.store.get(case, "grid", lambda: self._volume(case)).tolist()
        z, y, x = map(int, size)
        return Grid(tuple(origin), side, (z, y, x))

    def image(self, case: str) -> np.ndarray:
        """Normalised image ``(C, z, y, x)`` float32 of a case on its block grid, memory-mapped, without maps."""
        return self.store.get(case, "image", lambda: self._volume(case))

    def head(self, case: str) -> np.ndarray:
        """Where the head is on the block grid ``(z, y, x)``, bool, memory-mapped."""
        return self.store.get(case, "head", lambda: self._volume(case))

    def label(self, case: str) -> np.ndarray:
        """Label ``(S, z, y, x)`` uint8 on the block grid, memory-mapped."""
        return self.store.get(case, "label", lambda: self._labels(case))

    def _labels(self, case: str) -> dict[str, np.ndarray]:
        """Label on the block grid, and of each structure the share that is cut off."""
        prepared = self.cohort.case(case)
        masks = [self._label(prepared, name, lambda m: self._take(prepared, m.numpy())) for name in self.structures]
        cut_off = self._unseen(case, np.ones(self.grid(case).size, bool))
        return {"label": np.stack(masks), "cut_off": np.array([*cut_off.values()])}

    def weight(self, case: str) -> np.ndarray:
        """Distance weight ``(S, z, y, x)`` float32 on the block grid; 1 for a structure that was not contoured."""
        # Kept: a distance transform in the training loop would cost more than the network.
        return self.store.get(case, self.distance_weight, lambda: {self.distance_weight: self._weight(case)})

    def _weight(self, case: str) -> np.ndarray:
        spacing = (self.grid(case).spacing_mm,) * 3
        return np.stack([distance_weight(mask == 1, spacing, self.distance_weight) for mask in self.label(case)])

    def share_outside(self, case: str) -> dict[str, float]:
        """Share of each structure's voxels beyond the cut, or in no block that holds a part of the head; see `Data`."""
        seen = np.zeros(self.grid(case).size, bool)
        for block in (block for view in self.views for block in self.tested(case, view)):
            seen[self._slices(block)] = True
        return self._unseen(case, seen)

    def _unseen(self, case: str, seen: np.ndarray) -> dict[str, float]:
        """Share of each structure's voxels beyond the block grid, or where ``seen`` (z, y, x) of it is false."""
        prepared, grid = self.cohort.case(case), self.grid(case)
        places = grid.places(self._spacing(prepared), prepared.label.shape)
        z, y, x = ((place > -0.5) & (place < size - 0.5) for place, size in zip(places, grid.size, strict=True))
        nearest = [np.rint(place).astype(int).clip(0, size - 1) for place, size in zip(places, grid.size, strict=True)]
        return self._share_outside(case, z[:, None, None] & y[:, None] & x & seen[np.ix_(*nearest)])

    def _volume(self, name: str) -> dict[str, np.ndarray]:
        """Grid, image and head of a case."""
        case = self.cohort.case(name)
        channels, spacing = self._channels(case), self._spacing(case)
        # SILENT: Guo 2021, the "greedy algorithm" that removes the black area (Section 4.1); half of Otsu's threshold,
        # the largest connected part above it, and its holes.
        head = head_mask(next((channel for channel in channels if channel.any()), channels[0]))
        # DIFFERS: Guo 2021, a case of larger voxels is not brought to 1 mm: a block would show next to nothing of it.
        side = max(self.spacing_mm, min(spacing)) if self.cohort.spacing_known else 1.0
        smallest = np.max([self._side(view) for view in self.views], axis=0).tolist()
        largest = self.size_mm if self.cut else [(n + 1) * mm for n, mm in zip(head.shape, spacing, strict=True)]
        grid = Grid.around(head, spacing, side, largest, smallest)
        on_grid = grid.take(head, spacing, outside=0) >= 0.5
        # SILENT: Guo 2021, intensity normalisation is not mentioned; z-score inside the head.
        images = [zscore(grid.take(channel, spacing, outside=channel.min()), on_grid) for channel in channels]
        rows = np.array([grid.origin_mm, (grid.spacing_mm,) * 3, grid.size])
        return {"grid": rows, "image": np.stack(images), "head": on_grid}

    def _channels(self, case: PreparedCase) -> list[np.ndarray]:
        """Images ``(z, y, x)`` of the channels; a series that the case lacks is zero."""
        images = [np.asarray(case.image[self.cohort.channels.index(name)]) for name in self.channels]
        missing = missing_series(self.cohort, case.name)
        for name, image in zip(self.channels, images, strict=True):
            if name not in missing and image.min() == image.max():
                raise InputError(
                    f"case {case.name}: all voxels of {name} are {image.flat[0]:g}, so no head can be found in it; "
                    f"an empty or wrongly converted image"
                )
        return images

    def _spacing(self, case: PreparedCase) -> tuple[float, float, float]:
        return case.spacing_mm if self.cohort.spacing_known else (1.0, 1.0, 1.0)

    def _take(self, case: PreparedCase, array: np.ndarray) -> np.ndarray:
        """A mask or map of a case on its block grid."""
        return self.grid(case.name).take(array, self._spacing(case), outside=0)

    def _map(self, case: str) -> np.ndarray:
        """Coarse map ``(S, z, y, x)`` on the block grid, uint8 in steps of 1/255."""
        # SILENT: Guo 2021, the grid of the coarse map; that of the case, brought back to cubic voxels.
        if case not in self._maps:
            if not self.maps or case not in self.maps:
                raise InputError(f"there is no coarse map of case {case}: the method that makes them did not test it")
            kept = [read_probability(path) for path in self.maps[case]]
            coarse = [self._take(self.cohort.case(case), one) for one in np.mean(kept, axis=0)]
            self._maps[case] = np.stack(coarse).round().astype(np.uint8)
        return self._maps[case]

    # Blocks

    def samples(self, cases: list[str]) -> list[Block]:
        """Blocks side by side that hold a structure, and as many others of the head as `tumour_share` asks for."""
        for number, structure in enumerate(self.structures):
            off = {case: self.store.get(case, "cut_off", partial(self._labels, case)) for case in cases}
            tell_what_is_cut_off(structure, {case: float(shares[number]) for case, shares in off.items()})
        return [block for case in cases for view in self.views for block in self._blocks(case, view)]

    def _blocks(self, case: str, view: str) -> list[Block]:
        label, head = self.label(case), self.head(case)
        holding, others = [], []
        for block in self._side_by_side(case, view, overlap=0.0):
            place = self._slices(block)
            if (label[:, *place] == 1).any():
                holding.append(block)
            elif head[place].any():
                others.append(block)
        wanted = min(len(others), round(len(holding) * (1 - self.tumour_share) / self.tumour_share))
        return holding + [others[i] for i in np.linspace(0, len(others) - 1, wanted).round().astype(int)]

    def _side_by_side(self, case: str, view: str, overlap: float) -> Iterator[Block]:
        """Blocks that cover a volume; the last of a row is moved inside."""
        starts = []
        for size, side in zip(self.grid(case).size, self._side(view), strict=True):
            step = max(1, int(side * (1 - overlap)))
            starts.append([*range(0, size - side, step), size - side])
        return (Block(case, view, corner) for corner in itertools.product(*starts))

    def draw(self, samples: Sequence[Block], count: int, generator: torch.Generator) -> list[Block]:
        """``count`` blocks at random places of the samples' cases, each case and each view as likely as the others.

        The first of them hold a random voxel of a structure at a random place inside; the others lie anywhere.
        """
        cases = list(dict.fromkeys(block.case for block in samples))
        holding = math.ceil(self.tumour_share * count)
        drawn = torch.rand((count, 7), generator=generator, dtype=torch.float64).tolist()
        return [self._random_block(cases, number < holding, *row) for number, row in enumerate(drawn)]

    def _random_block(
        self, cases: list[str], holding: bool, which: float, view: float, voxel: float, mirror: float, *place: float
    ) -> Block:
        """A block out of seven numbers in [0, 1)."""
        case, chosen = cases[int(which * len(cases))], self.views[int(view * len(self.views))]
        size, side = self.grid(case).size, self._side(chosen)
        if holding:
            voxels = self._structure_voxels(case)
            held = voxels[int(voxel * len(voxels))].tolist()
            corner = [h - int(p * n) for h, p, n in zip(held, place, side, strict=True)]
        else:
            corner = [int(p * (s - n + 1)) for p, s, n in zip(place, size, side, strict=True)]
        z, y, x = (min(max(c, 0), s - n) for c, s, n in zip(corner, size, side, strict=True))
        return Block(case, chosen, (z, y, x), mirror < self.flip)

    def _structure_voxels(self, case: str) -> np.ndarray:
        if case not in self._voxels:
            self._voxels[case] = np.argwhere((self.label(case) == 1).any(axis=0)).astype(np.int16)
        return self._voxels[case]

    def batch(self, samples: Sequence[Block]) -> tuple[Tensor, ...]:
        """Image ``(B, C, 8, 24, 24)``, already normalised, label ``(B, S, ...)``, and the distance weight if any."""
        volumes = [self.label] if self.distance_weight == "none" else [self.label, self.weight]
        parts = [np.stack([self._cut(volume(block.case), block) for block in samples]) for volume in volumes]
        return self.inputs(samples), *map(torch.from_numpy, parts)

    def inputs(self, samples: Sequence[Block]) -> Tensor:
        """The image of a batch; reads no label."""
        image = np.stack([self._cut(self.image(block.case), block) for block in samples])
        if self.maps:
            coarse = np.stack([self._cut(self._map(block.case), block) for block in samples])
            image = np.concatenate([image, coarse.astype(np.float32) / 255], axis=1)
        return torch.from_numpy(image)

    def _cut(self, volume: np.ndarray, block: Block) -> np.ndarray:
        """A block of a volume (C, z, y, x), its axes in the order of the view."""
        part = volume[:, *self._slices(block)]
        part = part[..., ::-1] if block.mirrored else part
        return part.transpose(0, *(axis + 1 for axis in ORDER[block.view]))

    def _side(self, view: str) -> Triple:
        """Voxels of a block along the volume's axes."""
        z, y, x = (self.matrix[ORDER[view].index(axis)] for axis in range(3))
        return z, y, x

    def _slices(self, block: Block) -> tuple[slice, ...]:
        return tuple(slice(c, c + n) for c, n in zip(block.corner, self._side(block.view), strict=True))

    # Testing

    @torch.no_grad()
    def predict(self, network, case: str, *, activation: str, batch_size: int, device) -> Tensor:
        """Probability of each structure, see :meth:`Data.predict`; 0 in blocks wholly outside the head."""
        fine = torch.zeros(len(self.structures), *self.grid(case).size)
        for view in self.views:
            blocks = self.tested(case, view)
            back = [0, *(ORDER[view].index(axis) + 1 for axis in range(3))]
            parts = (
                (self._slices(block), probability.permute(back))
                for chunk, found in self._predicted(network, blocks, activation, batch_size, device)
                for block, probability in zip(chunk, found.cpu(), strict=True)
            )
            # DIFFERS: Guo 2021, "the features of multiple views were fused" in upsampling (abstract); here it is the
            # mean of their probabilities.
            fine += mean_of_overlaps(fine.shape, parts) / len(self.views)
        if self.maps:
            fine = FUSIONS[self.fusion](torch.from_numpy(self._map(case)).float() / 255, fine)
        prepared = self.cohort.case(case)
        size, spacing = prepared.label.shape, self._spacing(prepared)
        native = np.stack([self.grid(case).give_back(one, spacing, size) for one in fine.numpy()])
        return torch.from_numpy(native).clamp(0, 1)  # means are rounded

    def tested(self, case: str, view: str) -> list[Block]:
        """Blocks of one view that are slid over the head."""
        blocks = self._side_by_side(case, view, self.overlap)
        return [block for block in blocks if self.head(case)[self._slices(block)].any()]

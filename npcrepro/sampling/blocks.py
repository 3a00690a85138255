"""Small blocks of volumes, drawn for training and slid over the whole volume for testing (Guo et al. 2021).

Axis order is (z, y, x) throughout. A block ``(C, 8, 24, 24)`` has its short side along the normal of its view: for an
axial block that is z, for a coronal one y, for a sagittal one x. The short side always comes first, so that one network
sees all three.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from npcrepro.base.code_hash import code_sha256
from npcrepro.base.errors import InputError, pick
from npcrepro.base.files import read_json, sha256_of, write_json, writing
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.prepared import PreparedCase, PreparedCohort, missing_series
from npcrepro.cohorts.structures import mask_of
from npcrepro.losses.distance_weight import FORMS, distance_weight
from npcrepro.models.outputs import probabilities
from npcrepro.sampling.head import head_mask, zscore
from npcrepro.sampling.samples import OPEN_CASES, match_names

Triple = tuple[int, int, int]

# Axes of the volume in the order in which a block has them.
ORDER: dict[str, Triple] = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
VIEWS = {"axial": ("axial",), "three": tuple(ORDER)}


class Block(NamedTuple):
    """A block of a case: its view, first voxel (z, y, x) on the case's block grid, and whether it is mirrored in x."""

    case: str
    view: str
    corner: Triple
    mirrored: bool = False


@dataclass(frozen=True)
class Grid:
    """Cubic voxels around the head of a case.

    Attributes:
        origin_mm: middle of the first voxel (z, y, x), seen from the middle of the case's own first voxel.
        spacing_mm: side of a voxel; 1, in voxels, where the cohort's spacing is not known.
        size: voxels (z, y, x).
    """

    origin_mm: tuple[float, float, float]
    spacing_mm: float
    size: Triple


def resample_to(
    array: np.ndarray, first: Sequence[float], step: Sequence[float], size: Sequence[int], outside: float
) -> np.ndarray:
    """Values of a volume on another grid with the same axes, linear between voxels.

    Args:
        array: ``(z, y, x)``.
        first, step: first voxel of the other grid and distance to the next, in voxels of ``array``.
        size: voxels of the other grid (z, y, x).
        outside: value where ``array`` has no voxel.

    Returns:
        float32 of ``size``.

    Example:
        >>> resample_to(np.array([[[4, 8]]]), (0, 0, -1), (1, 1, 0.75), (1, 1, 4), outside=-1).tolist()
        [[[-1.0, 4.0, 6.0, 8.0]]]
    """
    from scipy.ndimage import affine_transform

    array = np.asarray(array, np.uint8 if array.dtype == bool else np.float32)
    # SILENT: Guo 2021, interpolation; linear, for masks too, which are then cut at one half.
    found = affine_transform(array, step, first, tuple(size), output=np.float32, order=1, mode="nearest")
    for axis, (start, by, count) in enumerate(zip(first, step, size, strict=True)):
        place = start + by * np.arange(count)
        found.swapaxes(0, axis)[(place < -0.5) | (place >= array.shape[axis] - 0.5)] = outside
    return found


def _mean(coarse: Tensor, fine: Tensor) -> Tensor:
    return (coarse + fine) / 2


def _product(coarse: Tensor, fine: Tensor) -> Tensor:
    both, neither = coarse * fine, (1 - coarse) * (1 - fine)
    return both / (both + neither).clamp_min(torch.finfo(both.dtype).tiny)


def _fine(coarse: Tensor, fine: Tensor) -> Tensor:
    return fine


FUSIONS = {"mean": _mean, "product": _product, "maximum": torch.maximum, "fine": _fine}


class BlockData:
    """Blocks of volumes, for 3-D networks (see :class:`npcrepro.sampling.samples.Data`).

    Each case is brought once to cubic voxels around the head, normalised, and kept as memory-mapped files beside the
    prepared cohort. Training draws blocks at random places and mirrors half of them, so that the method needs no
    augmentation besides; testing slides blocks over the volume and averages where they overlap. Testing reads no label.

    Args:
        cohort: prepared.
        matrix: ``(z, y, x)`` of an axial block, its short side first.
        channels: names of the channels wanted, in order; where exactly one is missing and the cohort has exactly one
            under another name, that one stands in. The first one that a case has shows where its head is.
        structures: names of the structures wanted, under the same rule.
        maps: for each case, the ``.npz`` of a coarse ``probability`` (S, z, y, x) in steps of 1/255; they become the
            last channels of the image, in [0, 1].
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
        enlarge: whole factor on ``matrix``.

    Raises:
        InputError: a channel or structure that the cohort lacks, an option out of its range, and mirrored blocks with
            structures of a side.
    """

    def __init__(
        self,
        cohort: PreparedCohort,
        # PAPER: Guo 2021, blocks of 24 x 24 x 8 (Section 4).
        matrix: Triple,
        channels: tuple[str, ...],
        structures: tuple[str, ...],
        maps: Mapping[str, Path] | None = None,
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
        # SILENT: Guo 2021, whether the second network works on the same blocks; it does, larger ones are an option.
        enlarge: int = 1,
    ):
        self.cohort, self.matrix = cohort, tuple(enlarge * side for side in matrix)
        self.channels = match_names(channels, cohort.channels, cohort.name, "channel")
        self.structures = match_names(structures, tuple(cohort.structures), cohort.name, "structure")
        self.maps = maps
        self.views: tuple[str, ...] = pick(VIEWS, views, "choice of views")
        self.fuse = pick(FUSIONS, fusion, "fusion")
        self.distance_weight = distance_weight
        self.tumour_share, self.overlap, self.flip = tumour_share, overlap, flip
        self.spacing_mm, self.size_mm = spacing_mm, tuple(size_mm)
        self._check()
        about = [self.matrix, views, spacing_mm, self.size_mm, self.channels]
        # Named after the code that makes them: volumes of an older version are never read.
        version = sha256_of([*about, code_sha256(["npcrepro.sampling.blocks:BlockData"])])[:8]
        self.folder = Path(cohort.folder) / f"blocks-{version}"
        # In names of files; the names of thirty organs are longer than one may be.
        self._drawn = sha256_of(self.structures)[:8]
        self._grids: dict[str, Grid] = {}
        self._open: dict[str, np.ndarray] = {}
        self._voxels: dict[str, np.ndarray] = {}
        self._maps: dict[str, np.ndarray] = {}

    def _check(self) -> None:
        pick(dict.fromkeys(("none", *FORMS)), self.distance_weight, "distance weight")
        if not 0 < self.tumour_share <= 1:
            raise InputError(f"tumour_share={self.tumour_share:g} is a share of blocks: above 0, at most 1")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap={self.overlap:g} is a share of a block: at least 0, below 1")
        sides = [name for name in self.structures if name.endswith(("_L", "_R"))]
        if sides and self.flip:
            raise InputError(
                f"flip={self.flip:g}: mirrored blocks would exchange {sides[0]} with that of the other side"
            )

    # Volumes

    def image(self, case: str) -> np.ndarray:
        """Normalised image ``(C, z, y, x)`` float32 of a case on its block grid, memory-mapped, without maps."""
        self.grid(case)
        return self._array(case, "image")

    def head(self, case: str) -> np.ndarray:
        """Where the head is on the block grid ``(z, y, x)``, bool, memory-mapped."""
        self.grid(case)
        return self._array(case, "head")

    def label(self, case: str) -> np.ndarray:
        """Label ``(S, z, y, x)`` uint8 on the block grid; a structure that was not contoured is NOT_CONTOURED."""
        name = f"label-{self._drawn}"
        if not self._path(case, name).exists():
            grid, prepared = self.grid(case), self.cohort.case(case)
            masks = [self._to_grid(prepared, mask, grid, 0) >= 0.5 for mask in self._masks(prepared)]
            label = np.stack(masks).astype(np.uint8)
            label[[structure in prepared.not_contoured for structure in self.structures]] = NOT_CONTOURED
            self._save(case, name, label)
        return self._array(case, name)

    def weight(self, case: str) -> np.ndarray:
        """Distance weight ``(S, z, y, x)`` float32 on the block grid; 1 for a structure that was not contoured."""
        name = f"{self.distance_weight}-{self._drawn}"
        if not self._path(case, name).exists():
            spacing = (self.grid(case).spacing_mm,) * 3
            # Once for each case: a transform in the training loop would cost more than the network.
            weights = [distance_weight(mask == 1, spacing, self.distance_weight) for mask in self.label(case)]
            self._save(case, name, np.stack(weights))
        return self._array(case, name)

    def grid(self, case: str) -> Grid:
        """The block grid of a case; made on first use, together with its image."""
        if case in self._grids:
            return self._grids[case]
        path = self.folder / f"{case}.grid.json"
        if not path.exists():
            prepared = self.cohort.case(case)
            channels = self._series(prepared)
            # SILENT: Guo 2021, the "greedy algorithm" that removes the black area (Section 4.1); half of Otsu's
            # threshold, the largest connected part above it, and its holes.
            head = head_mask(next((channel for channel in channels if channel.any()), channels[0]))
            grid = self._around(head, self._spacing(prepared))
            on_grid = self._to_grid(prepared, head, grid, 0) >= 0.5
            channels = [self._to_grid(prepared, channel, grid, channel.min()) for channel in channels]
            # SILENT: Guo 2021, intensity normalisation is not mentioned; z-score inside the head.
            self._save(case, "image", np.stack([zscore(channel, on_grid) for channel in channels]))
            self._save(case, "head", on_grid)
            write_json(path, asdict(grid))
        fields = read_json(path)
        self._grids[case] = Grid(tuple(fields["origin_mm"]), fields["spacing_mm"], tuple(fields["size"]))
        return self._grids[case]

    def share_outside(self, case: str) -> dict[str, float]:
        """Share of each structure's voxels that no block of testing sees; nan where there are none.

        They lie beyond the cut, or in blocks that are passed over, wholly outside the head.
        """
        prepared, grid = self.cohort.case(case), self.grid(case)
        seen = np.zeros(grid.size, bool)
        for block in (block for view in self.views for block in self.tested(case, view)):
            seen[self._slices(block)] = True
        inside, nearest = [], []
        for count, spacing, origin, size in zip(
            prepared.label.shape, self._spacing(prepared), grid.origin_mm, grid.size, strict=True
        ):
            place = (np.arange(count) * spacing - origin) / grid.spacing_mm
            inside.append((place > -0.5) & (place < size - 0.5))
            nearest.append(np.rint(place).astype(int).clip(0, size - 1))
        kept = inside[0][:, None, None] & inside[1][:, None] & inside[2] & seen[np.ix_(*nearest)]
        masks = dict(zip(self.structures, self._masks(prepared), strict=True))
        return {
            name: float((mask & ~kept).sum() / mask.sum()) if mask.any() else math.nan for name, mask in masks.items()
        }

    def _around(self, head: np.ndarray, spacing_mm: tuple[float, float, float]) -> Grid:
        # DIFFERS: Guo 2021, a case of larger voxels is not brought to 1 mm: a block would show next to nothing of it.
        side = max(self.spacing_mm, min(spacing_mm)) if self.cohort.spacing_known else 1.0
        least = [max(self._side(view)[axis] for view in self.views) for axis in range(3)]
        origin, size = [], []
        for axis, (spacing, largest) in enumerate(zip(spacing_mm, self.size_mm, strict=True)):
            shown = np.flatnonzero(head.any(axis=tuple({0, 1, 2} - {axis})))
            needed = math.ceil((shown[-1] - shown[0] + 1) * spacing / side - 1e-6)
            # SILENT: Guo 2021, the "up-down jitter method" that cuts in z; the middle of the head's box, never by the
            # label.
            # DIFFERS: Guo 2021, smaller heads are padded to a block only; blocks of padding would teach nothing.
            voxels = max(min(needed, round(largest / side)), least[axis])
            first = (shown[0] + shown[-1]) / 2 * spacing - (voxels - 1) / 2 * side
            # Voxels of the right size stay where they are, so that nothing is interpolated.
            origin.append(round(first / spacing) * spacing if spacing == side else first)
            size.append(voxels)
        return Grid(tuple(origin), side, tuple(size))

    def _spacing(self, prepared: PreparedCase) -> tuple[float, float, float]:
        return prepared.spacing_mm if self.cohort.spacing_known else (1.0, 1.0, 1.0)

    def _to_grid(self, prepared: PreparedCase, array: np.ndarray, grid: Grid, outside: float) -> np.ndarray:
        """A volume of a case on its block grid."""
        spacing = self._spacing(prepared)
        first = [origin / mm for origin, mm in zip(grid.origin_mm, spacing, strict=True)]
        return resample_to(array, first, [grid.spacing_mm / mm for mm in spacing], grid.size, outside)

    def _to_native(self, array: np.ndarray, case: str) -> np.ndarray:
        """A volume of the block grid on the grid of its case."""
        prepared, grid = self.cohort.case(case), self.grid(case)
        first = [-origin / grid.spacing_mm for origin in grid.origin_mm]
        step = [mm / grid.spacing_mm for mm in self._spacing(prepared)]
        return resample_to(array, first, step, prepared.image.shape[1:], outside=0)

    def _series(self, prepared: PreparedCase) -> list[np.ndarray]:
        """Images ``(z, y, x)`` of the channels; a series that the case lacks is zero."""
        missing = missing_series(self.cohort, prepared.name)
        images = {name: np.asarray(prepared.image[self.cohort.channels.index(name)]) for name in self.channels}
        for name, image in images.items():
            if name not in missing and image.min() == image.max():
                raise InputError(
                    f"case {prepared.name}: all voxels of {name} are {image.flat[0]:g}, so no head can be found in it; "
                    f"an empty or wrongly converted image"
                )
        return list(images.values())

    def _masks(self, prepared: PreparedCase) -> list[np.ndarray]:
        label = np.asarray(prepared.label)
        return [mask_of(label, self.cohort.structures, name) for name in self.structures]

    def _path(self, case: str, name: str) -> Path:
        return self.folder / f"{case}.{name}.npy"

    def _save(self, case: str, name: str, array: np.ndarray) -> None:
        with writing(self._path(case, name)) as temporary:
            np.save(temporary, array)

    def _array(self, case: str, name: str) -> np.ndarray:
        key = f"{case}.{name}"
        if key not in self._open:
            if len(self._open) >= 2 * OPEN_CASES:
                del self._open[next(iter(self._open))]
            self._open[key] = np.load(self._path(case, name), mmap_mode="r")
        return self._open[key]

    def _map(self, case: str) -> np.ndarray:
        """Coarse map ``(S, z, y, x)`` on the block grid, uint8 in steps of 1/255."""
        if case not in self._maps:
            if case not in self.maps:
                raise InputError(f"there is no coarse map of case {case}: the method that makes them did not test it")
            with np.load(self.maps[case]) as arrays:
                coarse = arrays["probability"]
            prepared, grid = self.cohort.case(case), self.grid(case)
            self._maps[case] = (
                np.stack([self._to_grid(prepared, one, grid, 0) for one in coarse]).round().astype(np.uint8)
            )
        return self._maps[case]

    # Blocks

    def _side(self, view: str) -> Triple:
        """Voxels of a block along the volume's axes."""
        return tuple(self.matrix[ORDER[view].index(axis)] for axis in range(3))

    def _corners(self, case: str, view: str, overlap: float) -> Iterator[Triple]:
        """First voxels of blocks that cover a volume; the last of a row is moved inside."""
        starts = []
        for size, side in zip(self.grid(case).size, self._side(view), strict=True):
            step = max(1, int(side * (1 - overlap)))
            starts.append([*range(0, size - side, step), size - side])
        return itertools.product(*starts)

    def samples(self, cases: list[str]) -> list[Block]:
        """Blocks side by side that hold a structure, and others of the head in the proportion of `tumour_share`.

        The same for every call. Validation goes through them; training draws from the cases that have some.
        """
        return [block for case in cases for view in self.views for block in self._blocks(case, view)]

    def _blocks(self, case: str, view: str) -> list[Block]:
        label, head = self.label(case), self.head(case)
        holding, others = [], []
        for corner in self._corners(case, view, overlap=0.0):
            block = Block(case, view, corner)
            place = self._slices(block)
            if (label[:, *place] == 1).any():
                holding.append(block)
            elif head[place].any():
                others.append(block)
        wanted = min(len(others), round(len(holding) * (1 - self.tumour_share) / self.tumour_share))
        return holding + [others[i] for i in np.linspace(0, len(others) - 1, wanted).round().astype(int)]

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
        case, view = cases[int(which * len(cases))], self.views[int(view * len(self.views))]
        size, side = self.grid(case).size, self._side(view)
        if holding:
            voxels = self._structure_voxels(case)
            held = voxels[int(voxel * len(voxels))].tolist()
            corner = [h - int(p * n) for h, p, n in zip(held, place, side, strict=True)]
        else:
            corner = [int(p * (s - n + 1)) for p, s, n in zip(place, size, side, strict=True)]
        inside = tuple(min(max(c, 0), s - n) for c, s, n in zip(corner, size, side, strict=True))
        return Block(case, view, inside, mirror < self.flip)

    def _structure_voxels(self, case: str) -> np.ndarray:
        if case not in self._voxels:
            self._voxels[case] = np.argwhere((self.label(case) == 1).any(axis=0)).astype(np.int16)
        return self._voxels[case]

    def batch(self, samples: Sequence[Block]) -> tuple[Tensor, ...]:
        """Image ``(B, C, 8, 24, 24)`` float32, label ``(B, S, ...)`` uint8, and with a distance weight that too.

        The image is normalised already; maps are its last channels.
        """
        parts = [[self._image_block(block) for block in samples], [self._cut(self.label(b.case), b) for b in samples]]
        if self.distance_weight != "none":
            parts.append([self._cut(self.weight(block.case), block) for block in samples])
        return tuple(torch.from_numpy(np.stack(part)) for part in parts)

    def _image_block(self, block: Block) -> np.ndarray:
        image = self._cut(self.image(block.case), block)
        if not self.maps:
            return image
        coarse = self._cut(self._map(block.case), block)
        return np.concatenate([image, coarse.astype(np.float32) / 255])

    def _cut(self, volume: np.ndarray, block: Block) -> np.ndarray:
        """A block of a volume (C, z, y, x), its axes in the order of the view."""
        part = volume[:, *self._slices(block)]
        part = part[..., ::-1] if block.mirrored else part
        return part.transpose(0, *(axis + 1 for axis in ORDER[block.view]))

    def _slices(self, block: Block) -> tuple[slice, ...]:
        return tuple(slice(c, c + n) for c, n in zip(block.corner, self._side(block.view), strict=True))

    def finish(self, image: Tensor) -> Tensor:
        """The image as it is: volumes are normalised as a whole."""
        return image

    # Testing

    @torch.no_grad()
    def predict(self, network, case: str, *, activation: str, batch_size: int, device) -> Tensor:
        """Probability of each structure ``(S, z, y, x)`` float32 in [0, 1] on the grid of a case.

        Blocks wholly outside the head are passed over: the probability is 0 there.

        Args:
            network: ``(B, C, ...)`` to logits, in evaluation mode.
            activation: see :func:`npcrepro.models.outputs.probabilities`.
            batch_size: blocks in one forward pass.
            device: of the network.
        """
        fine = torch.zeros(len(self.structures), *self.grid(case).size)
        for view in self.views:
            # SILENT: Guo 2021, how views are fused; the mean of their probabilities.
            fine += self._slide(network, case, view, activation, batch_size, device) / len(self.views)
        if self.maps:
            coarse = torch.from_numpy(self._map(case)).float() / 255
            fine = self.fuse(coarse, fine)
        native = np.stack([self._to_native(one, case) for one in fine.numpy()])
        return torch.from_numpy(native).clamp(0, 1)  # means are rounded

    def tested(self, case: str, view: str) -> list[Block]:
        """Blocks of one view that are slid over the head."""
        blocks = (Block(case, view, corner) for corner in self._corners(case, view, self.overlap))
        return [block for block in blocks if self.head(case)[self._slices(block)].any()]

    def _slide(self, network, case: str, view: str, activation: str, batch_size: int, device) -> Tensor:
        """Mean probability ``(S, z, y, x)`` of the blocks of one view on the block grid."""
        head, order = self.head(case), ORDER[view]
        back = tuple(order.index(axis) + 1 for axis in range(3))
        total, times = torch.zeros(len(self.structures), *head.shape), torch.zeros(head.shape)
        blocks = self.tested(case, view)
        for start in range(0, len(blocks), batch_size):
            chunk = blocks[start : start + batch_size]
            image = torch.from_numpy(np.stack([self._image_block(block) for block in chunk]))
            found = probabilities(network(self.finish(image.to(device))), activation).cpu()
            for block, probability in zip(chunk, found, strict=True):
                place = self._slices(block)
                total[:, *place] += probability.permute(0, *back)
                times[place] += 1
        return total / times.clamp_min(1)

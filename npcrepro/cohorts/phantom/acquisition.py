"""From anatomy and signal to voxels: sampling, partial volume, soft borders, texture, bias field and noise.

Everything is done slab by slab, so that only the finished volumes are as large as the matrix.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from npcrepro.cohorts.phantom.anatomy import Anatomy
from npcrepro.cohorts.phantom.shapes import RandomField, Triple
from npcrepro.cohorts.phantom.tissues import Structure, Tissue

# Tissue fractions of a slab are this many numbers at most.
SLAB_NUMBERS = 8_000_000

# The border of a tumour: `SOFT_BORDER` of the signal within about `SOFT_BORDER_MM` of it is mixed with its
# surroundings where the tumour infiltrates; 0 is a crisp border.
SOFT_BORDER = 0.9
SOFT_BORDER_MM = 2.2
# Where half of the border infiltrates: distance over which this changes along the border.
INFILTRATION_MM = 8.0
# Air stays crisp: this much air in the surroundings, or more, and nothing is mixed.
CRISP_AIR = 0.25

# Distances over which texture inside a tissue changes, and the share (of variance) of each.
TEXTURES_MM = ((2.3, 0.5), (8.0, 0.5))
TEXTURE_KNOTS = 64  # after which a field repeats

TUMOUR_TISSUES = (Tissue.TUMOUR, Tissue.NECROSIS, Tissue.METASTATIC_NODE)
AIR_TISSUES = (Tissue.OUTSIDE, Tissue.AIR, Tissue.LUMEN)
MARKER_RADIUS_MM = 3.5


@dataclass(frozen=True)
class Draw:
    """Independent random numbers for each thing that has a name, whatever else is drawn."""

    seed: int
    patient: int

    def __call__(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.patient, zlib.crc32(name.encode())])


@dataclass(frozen=True)
class Grid:
    """Voxels of a volume: matrix (z, y, x), spacing and centre of the volume (z, y, x) in mm."""

    matrix: tuple[int, int, int]
    spacing_mm: Triple
    centre_mm: Triple = (0.0, 0.0, 0.0)

    def axes(self, slices: slice = slice(None), shift_mm: Triple = (0.0, 0.0, 0.0)) -> list[np.ndarray]:
        """Voxel centres in mm along z (of these slices), y and x."""
        axes = [
            (np.arange(n) - (n - 1) / 2) * step + centre + shift
            for n, step, centre, shift in zip(self.matrix, self.spacing_mm, self.centre_mm, shift_mm)
        ]
        return [axes[0][slices], *axes[1:]]

    def samples(self) -> tuple[int, int]:
        """Samples of a voxel through the slice, each of which is staggered in y, and along x."""
        through = 2 if self.spacing_mm[0] <= 4 else 3
        return through, 1 if self.spacing_mm[2] <= 0.7 else 2

    def slabs(self) -> Iterator[slice]:
        """Runs of slices that fit into memory together."""
        step = max(1, SLAB_NUMBERS // (self.matrix[1] * self.matrix[2] * len(Tissue)))
        return (slice(i, min(i + step, self.matrix[0])) for i in range(0, self.matrix[0], step))


def _offsets(count: int, spacing: float) -> np.ndarray:
    return ((np.arange(count) + 0.5) / count - 0.5) * spacing


@dataclass(frozen=True)
class Sampled:
    """A slab: tissue fractions (z, y, x, tissue) float32, samples (z, y, x) in each of the structures present, and the
    fraction (z, y, x) of voxels in the reference marker."""

    fractions: np.ndarray
    structures: dict[Structure, np.ndarray]
    marker: np.ndarray | None = None


def sample(
    anatomy: Anatomy,
    grid: Grid,
    slices: slice,
    wanted: Sequence[Structure],
    *,
    shift_mm: Triple = (0.0, 0.0, 0.0),
    marker_mm: Triple | None = None,
) -> Sampled:
    """Tissue and the wanted structures of these slices, with the head moved by `shift_mm` (z, y, x).

    `marker_mm`: (x, y, z) of the centre of the marker.
    """
    z, y, x = grid.axes(slices, tuple(-s for s in shift_mm))
    through, along = grid.samples()
    shape = (len(z), len(y), len(x))
    fine_x = (x[:, None] + _offsets(along, grid.spacing_mm[2])).ravel()
    voxel = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(*shape, 1) * len(Tissue)
    counts = np.zeros(voxel.size * len(Tissue), np.float32)
    structures: dict[Structure, np.ndarray] = {}
    marker = None if marker_mm is None else np.zeros(shape, np.float32)
    share = np.float32(1 / (through * along))
    for dz, dy in zip(_offsets(through, grid.spacing_mm[0]), _offsets(through, grid.spacing_mm[1])):
        tissue, structure = anatomy.regions(z + dz, y + dy, fine_x)
        index = voxel + tissue.reshape(*shape, along)
        for sub in range(along):
            # One sample of a voxel at a time: no index comes twice, and adding in place is quick.
            counts[index[..., sub].ravel()] += share
        for number in wanted:
            inside = (structure == number).view(np.uint8)
            if inside.any():
                counted = sum(inside[..., sub::along] for sub in range(along))
                structures[number] = structures[number] + counted if number in structures else counted
        if marker is not None:
            near = [(axis - c) ** 2 for axis, c in zip((z + dz, y + dy, fine_x), marker_mm[::-1])]
            ball = near[0][:, None, None] + near[1][:, None] + near[2] < MARKER_RADIUS_MM**2
            marker += ball.reshape(*shape, along).sum(-1) * share
    return Sampled(counts.reshape(*shape, len(Tissue)), structures, marker)


def partition(sampled: Sampled, grid: Grid) -> np.ndarray:
    """Structure (z, y, x) uint8 that fills at least half of a voxel; on a tie the one with the lower number."""
    through, along = grid.samples()
    out = np.zeros(sampled.fractions.shape[:3], np.uint8)
    for number, count in sorted(sampled.structures.items()):
        out[(2 * count >= through * along) & (out == 0)] = number
    return out


class Fields:
    """The random fields of one patient: texture of water and of uptake, and where the tumour infiltrates."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.water, self.uptake = ([RandomField(rng, mm, TEXTURE_KNOTS) for mm, _ in TEXTURES_MM] for _ in range(2))
        self.infiltration = RandomField(rng, INFILTRATION_MM)


def texture(fields: Sequence[RandomField], axes: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of a coarse and a fine field: mean 0, standard deviation 1, (z, y, x) float32."""
    return sum(np.float32(share**0.5) * field(*axes) for field, (_, share) in zip(fields, TEXTURES_MM))


def soften(fractions: np.ndarray, grid: Grid, axes: Sequence[np.ndarray], field: RandomField) -> None:
    """Mix the tissues along the border of the tumour, slice by slice and in place."""
    sigma = [SOFT_BORDER_MM / s for s in grid.spacing_mm[1:]]
    margin = [int(np.ceil(3 * s)) for s in sigma]
    present = sum(fractions[..., kind] for kind in TUMOUR_TISSUES) > 0
    for number in np.flatnonzero(present.any((1, 2))):
        (box,) = ndimage.find_objects(present[number].astype(np.uint8))
        box = tuple(slice(max(0, b.start - m), b.stop + m) for b, m in zip(box, margin))
        patch = fractions[number][box]
        kinds = np.flatnonzero(patch.any((0, 1)))
        blurred = [ndimage.gaussian_filter(patch[..., kind], sigma) for kind in kinds]
        tumour = sum(plane for plane, kind in zip(blurred, kinds) if kind in TUMOUR_TISSUES)
        air = sum(plane for plane, kind in zip(blurred, kinds) if kind in AIR_TISSUES)
        where = [axes[0][number : number + 1], axes[1][box[0]], axes[2][box[1]]]
        infiltrating = np.clip(np.float32(0.6) + np.float32(0.5) * field(*where)[0], 0, 1)
        weight = 4 * tumour * (1 - tumour) * infiltrating * np.clip(1 - air / CRISP_AIR, 0, 1)
        weight *= np.float32(SOFT_BORDER)
        for kind, plane in zip(kinds, blurred):
            patch[..., kind] += weight * (plane - patch[..., kind])


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of a signal with complex Gaussian noise of standard deviation `sigma`; float32, 0 and more."""
    real = rng.standard_normal(signal.shape, np.float32)
    imaginary = rng.standard_normal(signal.shape, np.float32)
    scale = np.float32(sigma)
    return np.hypot(np.maximum(signal, 0) + scale * real, scale * imaginary)

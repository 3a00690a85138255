"""The primary tumour: a front that grows from the nasopharynx through what its T stage lets it invade."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from npcrepro.cohorts.phantom.shapes import RandomField, smooth_minimum
from npcrepro.cohorts.phantom.tissues import STRUCTURE_STEP, Structure, Tissue, code_of

# T1 to T4 as in Table 1 of Xue 2020.
STAGE_MIX = (0.073, 0.153, 0.527, 0.247)

# Median and limits of the volume in ml, by stage.
VOLUME_ML = {1: (4.0, 2.2, 9.0), 2: (8.0, 3.0, 26.0), 3: (14.0, 4.0, 48.0), 4: (26.0, 8.0, 58.0)}

# How much later, in mm of growth, the tumour reaches a tissue. What is not named for a stage or an earlier one is not
# invaded at that stage.
RESISTANCE_MM = {
    1: {Tissue.MUCOSA: 0.0, Tissue.ADENOID: 0.5, Tissue.AIR: 3.0, Tissue.CARTILAGE: 1.0},
    2: {Tissue.FAT: 2.0, Tissue.NODE: 2.0, Tissue.MUSCLE: 3.0},
    3: {Tissue.MARROW: 3.5, Tissue.CORTICAL_BONE: 4.0, Tissue.FLUID: 3.0},
    4: {Tissue.CSF: 4.0, Tissue.VEIN: 3.0, Tissue.GREY_MATTER: 6.0, Tissue.WHITE_MATTER: 7.0},
}

# Tissues that make the stage, and the least fraction of the tumour that lies in them.
HALLMARK = {
    1: ((Tissue.MUCOSA, Tissue.ADENOID), 0.0),
    2: ((Tissue.FAT, Tissue.MUSCLE), 0.15),
    3: ((Tissue.MARROW, Tissue.CORTICAL_BONE), 0.06),
    4: ((Tissue.CSF, Tissue.VEIN, Tissue.GREY_MATTER, Tissue.WHITE_MATTER), 0.04),
}

# Where lobes grow to (left side), their weight, and the stage from which on they do.
TARGETS = (
    ((10, 2, -14), 0.10, 1),  # oropharynx
    ((8, -24, 2), 0.12, 1),  # nasal cavity
    ((-12, 2, 4), 0.18, 1),  # across the midline
    ((2, -3, 11), 0.15, 1),  # roof
    ((28, -4, 0), 0.28, 2),  # parapharyngeal space
    ((7, 14, -2), 0.20, 2),  # prevertebral muscle
    ((6, 8, 17), 0.25, 3),  # clivus
    ((18, -18, 4), 0.15, 3),  # pterygoid process
    ((6, -9, 20), 0.15, 3),  # sphenoid sinus
    ((14, 2, 27), 0.40, 4),  # cavernous sinus
    ((6, 22, 18), 0.30, 4),  # behind the clivus
)

STEP_MM = 2.5
HALF_EXTENT_MM = (42.5, 42.5, 42.5)

Axes = Place = Sequence[np.ndarray]


def _resistance(stage: int) -> np.ndarray:
    """Delay in mm for every code; infinite where the tumour does not grow."""
    delays = np.full((len(Structure), STRUCTURE_STEP), np.inf, np.float32)
    for tissues in (RESISTANCE_MM[s] for s in range(1, stage + 1)):
        for tissue, delay in tissues.items():
            delays[:, tissue] = delay
    delays[Structure.BrainStem] = np.inf
    if stage < 4:
        delays[Structure.Pituitary] = np.inf
    return delays.ravel()


class Tumour:
    """The region that a growing front reaches first, up to the volume drawn for this patient, in one piece.

    `side` is +1 on the left, `centre_mm` (z, y, x) the nasopharynx; `healthy` gives the codes without the tumour and
    `anatomical` the anatomical coordinates x, y, z, both from world axes z, y, x.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        side: int,
        stage: int,
        centre_mm: np.ndarray,
        healthy: Callable[[Axes], np.ndarray],
        anatomical: Callable[[Axes], Place],
    ) -> None:
        median, low, high = VOLUME_ML[stage]
        self.wanted_ml = float(np.clip(median * np.exp(0.5 * rng.standard_normal()), low, high))
        self.lobes = _lobes(rng, side, stage)
        self.resistance = _resistance(stage)
        self.surface, self.detail = RandomField(rng, 11.0), RandomField(rng, 5.0)
        axes = [c + np.arange(-h, h + 1e-6, STEP_MM) for c, h in zip(centre_mm, HALF_EXTENT_MM)]
        self.first_mm = np.array([axis[0] for axis in axes])
        piece = self._grow(healthy(axes), anatomical(axes), axes, stage)
        self.volume_ml = float(piece.sum()) * STEP_MM**3 / 1000
        self._cores(rng, piece)
        # One step wider than the piece itself, since the surface passes between grid points; empty at the border.
        self.piece = ndimage.binary_dilation(piece)
        for axis in range(3):
            np.moveaxis(self.piece, axis, 0)[[0, -1]] = False
        (box,) = ndimage.find_objects(self.piece.astype(np.uint8))
        self.low_mm = self.first_mm + STEP_MM * (np.array([part.start for part in box]) - 0.5)
        self.high_mm = self.first_mm + STEP_MM * (np.array([part.stop - 1 for part in box]) + 0.5)

    def paint(self, code: np.ndarray, place: Place, axes: Axes) -> None:
        """Paint the tumour into `code` (z, y, x) in place; `place` and world `axes` as in `Tumour`."""
        block = tuple(
            slice(*np.searchsorted(axis, (low, high))) for axis, low, high in zip(axes, self.low_mm, self.high_mm)
        )
        target = code[block]
        if not target.size:
            return
        near = [axis[part] for axis, part in zip(axes, block)]
        level, detail = self._level([p[block] for p in place], near)
        level += self.resistance[target]
        inside = (level < self.reach_mm) & self._in_piece(near)
        np.copyto(target, code_of(Tissue.TUMOUR, Structure.GTVp), where=inside)
        for centre, radii in self.cores:
            z, y, x = np.ix_(*(((axis - c) / r).astype(np.float32) for axis, c, r in zip(near, centre, radii)))
            dead = inside & (z * z + y * y + x * x + np.float32(0.3) * detail < 1) & (level < self.reach_mm - 2.0)
            np.copyto(target, code_of(Tissue.NECROSIS, Structure.GTVp), where=dead)

    def _level(self, place: Place, axes: Axes) -> tuple[np.ndarray, np.ndarray]:
        """Growth in mm after which the front arrives where nothing resists it, and the fine field on its surface."""
        level = None
        for centre, inverse, delay in self.lobes:
            dx, dy, dz = ((p - np.float32(c)) * np.float32(i) for p, c, i in zip(place, centre, inverse))
            arrival = np.sqrt(dx * dx + dy * dy + dz * dz) + np.float32(delay)
            level = arrival if level is None else smooth_minimum(level, arrival, 3.0)
        detail = self.detail(*axes)
        level += np.float32(2.4) * self.surface(*axes) + np.float32(0.9) * detail
        return level, detail

    def _grow(self, code: np.ndarray, place: Place, axes: Axes, stage: int) -> np.ndarray:
        """Find the reach that gives the volume in one piece on the grid `axes`; returns the piece.

        Noise and resistance would leave islands ahead of the front. Where too little of the tumour lies in the tissues
        that make its stage, their resistance is lowered, and half as much that of bone on the way.
        """
        free, _ = self._level(place, axes)
        hallmark, least = HALLMARK[stage]
        deep = np.isin(code % STRUCTURE_STEP, hallmark)
        wanted = round(self.wanted_ml * 1000 / STEP_MM**3)
        easier = np.zeros(STRUCTURE_STEP, np.float32)
        easier[[Tissue.CORTICAL_BONE, Tissue.MARROW]] = 1.0
        easier[list(hallmark)] = 2.0
        for _ in range(12):
            piece = self._reach(free + self.resistance[code], wanted)
            if deep[piece].sum() >= least * piece.sum():
                break
            self.resistance -= np.tile(easier, len(Structure))
        return piece

    def _reach(self, level: np.ndarray, wanted: int) -> np.ndarray:
        arrival = np.sort(level, axis=None)
        last = int(np.isfinite(arrival).sum()) - 1
        count = wanted
        for _ in range(5):
            self.reach_mm = float(arrival[min(count, last)])
            pieces, _ = ndimage.label(level < self.reach_mm)
            largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
            count += wanted - int(largest.sum())
        return largest

    def _cores(self, rng: np.random.Generator, piece: np.ndarray) -> None:
        """Centres and radii (z, y, x) in world mm of the necrotic cores; only in some of the large tumours."""
        self.cores: list[tuple[np.ndarray, np.ndarray]] = []
        if self.volume_ml < 14 or rng.random() > 0.5:
            return
        depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1, 1:-1] * STEP_MM
        for _ in range(rng.integers(1, 4)):
            deepest = np.unravel_index(np.argmax(depth * rng.uniform(0.7, 1.0, depth.shape)), depth.shape)
            radius = float(depth[deepest]) * rng.uniform(0.45, 0.75)
            centre = self.first_mm + STEP_MM * np.array(deepest)
            self.cores.append((centre, radius * rng.uniform(0.75, 1.25, 3)))
            apart = np.ogrid[tuple(slice(n) for n in depth.shape)]
            distance = np.sqrt(sum((a - d) ** 2 for a, d in zip(apart, deepest))) * STEP_MM
            depth = np.where(distance < 1.5 * radius, 0, depth)

    def _in_piece(self, axes: Axes) -> np.ndarray:
        index = [
            np.clip(np.rint((axis - first) / STEP_MM).astype(int), 0, n - 1)
            for axis, first, n in zip(axes, self.first_mm, self.piece.shape)
        ]
        return self.piece[np.ix_(*index)]


def _lobes(rng: np.random.Generator, side: int, stage: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Centre, inverse of the relative radii and delay in mm of each lobe; the first is the origin."""
    mirror = np.array([side, 1.0, 1.0])
    if rng.random() < 0.75:  # most NPC start in the fossa of Rosenmueller
        origin = mirror * [14.0, 1.0, 3.0] + rng.normal(0, 1.5, 3)
    else:
        origin = mirror * [4.0, -2.0, 11.0] + rng.normal(0, 1.5, 3)
    open_targets = [(place, weight) for place, weight, first in TARGETS if first <= stage]
    typical = [index for index, (_, _, first) in enumerate(TARGETS) if first == stage]
    weights = np.array([weight for _, weight in open_targets])
    number = min(int(rng.integers(2, 5)) + (stage > 2), len(open_targets))
    chosen = list(rng.choice(len(open_targets), size=number, replace=False, p=weights / weights.sum()))
    if stage > 1 and not set(chosen) & set(typical):
        chosen.append(rng.choice(typical))
    lobes = [(origin, 1 / np.array([1.05, 1.1, 0.85]), 0.0)]
    for index in chosen:
        end = mirror * open_targets[index][0] + rng.normal(0, 2, 3)
        nearer = rng.uniform(0.8, 1.0) if index in typical else rng.uniform(0.5, 1.0)
        centre = origin + nearer * (end - origin)
        size = np.exp(rng.normal(0, 0.15, 3)) * [1.05, 1.05, 0.9]
        delay = 0.5 * float(np.linalg.norm(centre - origin)) + rng.uniform(0, 2)
        lobes.append((centre, 1 / size, delay))
    return lobes

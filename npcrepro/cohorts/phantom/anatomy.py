"""One patient: a function from world coordinates in mm to tissue and structure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.phantom.airways import pharynx, sinuses
from npcrepro.cohorts.phantom.shapes import SIDES, Organ, Patient, RandomField
from npcrepro.cohorts.phantom.skull import brain, jaws, orbits, spine
from npcrepro.cohorts.phantom.soft_tissue import glands, head, head_muscles, neck_muscles, nodes, vessels
from npcrepro.cohorts.phantom.tissues import STRUCTURE_STEP, Structure, Tissue, code_of
from npcrepro.cohorts.phantom.tumour import STAGE_MIX, Tumour

Box = tuple[slice, slice, slice]
# Points that are painted together, so that temporaries stay in cache, and planes whose coordinates are held together.
CHUNK_POINTS = 40_000
SLAB_POINTS = 1_600_000
# Distances to organs of several well blended parts are evaluated on a lattice of this step and interpolated.
NODE_STEP_MM = 2.0
SMOOTH_BLEND_MM = 3.0
SULCUS_DEPTH_MM = 12.0
FASCIA_MM = 0.7


@dataclass(frozen=True)
class _Grid:
    """World axes z, y, x in mm and the anatomical coordinates x, y, z of their points, each (z, y, x)."""

    axes: tuple[np.ndarray, ...]
    place: tuple[np.ndarray, ...]

    @cached_property
    def ranges(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Smallest and largest anatomical x of each column, y of each row and z of each plane."""
        return [(p.min(axis=others), p.max(axis=others)) for p, others in zip(self.place, ((0, 1), (0, 2), (1, 2)))]

    def boxes(self, low: np.ndarray, high: np.ndarray) -> list[Box | None]:
        """For each row of low and high, (n, 3) as x, y, z in mm: the index box (z, y, x) of the points between them, or
        None."""
        starts, stops = [], []
        for axis, (first, last) in enumerate(self.ranges):
            hit = (last >= low[:, axis, None]) & (first <= high[:, axis, None])
            some = hit.any(1)
            starts.append(hit.argmax(1))
            stops.append(np.where(some, hit.shape[1] - hit[:, ::-1].argmax(1), 0))
        found = np.min(stops, 0) > 0
        return [
            (slice(a[2], b[2]), slice(a[1], b[1]), slice(a[0], b[0])) if ok else None
            for ok, a, b in zip(found, np.stack(starts, 1).tolist(), np.stack(stops, 1).tolist())
        ]

    def distance(self, organ: Organ, box: Box) -> np.ndarray:
        """Signed distance in mm to an organ in an index box."""
        low, high = zip(*((a[part].min(), b[part].max()) for (a, b), part in zip(self.ranges, box[::-1])))
        return organ.distance(*(p[box] for p in self.place), (np.array(low), np.array(high)))


class _Lattice:
    """Points of the world on multiples of `NODE_STEP_MM`, from which smooth distances are interpolated to a grid; only
    those next to a point of the grid."""

    def __init__(self, grid: _Grid, anatomical: Callable[[Sequence[np.ndarray]], tuple[np.ndarray, ...]]) -> None:
        axes, self.weights, self.first = [], [], []
        for axis in grid.axes:
            place = np.asarray(axis, float) / NODE_STEP_MM
            lower = np.floor(place)
            nodes = np.union1d(lower, lower + 1)
            axes.append(nodes * NODE_STEP_MM)
            self.weights.append(np.maximum(1 - np.abs(place - nodes[:, None]), 0).astype(np.float32))
            self.first.append(np.searchsorted(nodes, lower))
        self.grid = _Grid(tuple(axes), anatomical(axes))

    def nodes(self, box: Box) -> Box:
        """The nodes on which an index box of the grid depends."""
        return tuple(slice(int(f[part.start]), int(f[part.stop - 1]) + 2) for f, part in zip(self.first, box))

    def distance(self, organ: Organ, box: Box) -> np.ndarray:
        """Signed distance in mm to an organ at the nodes of an index box of the grid."""
        nodes = self.nodes(box)
        out = np.empty([part.stop - part.start for part in nodes], np.float32)
        for block in _chunks(nodes):
            out[_within(block, nodes)] = self.grid.distance(organ, block)
        return out

    def interpolate(self, values: np.ndarray, box: Box, block: Box) -> np.ndarray:
        """Values at the nodes of `box` to the points of `block`, which lies within it."""
        outer, inner = self.nodes(box), self.nodes(block)
        values = values[_within(inner, outer)]
        wz, wy, wx = (w[n, b] for w, n, b in zip(self.weights, inner, block))
        rows = np.tensordot(wz.T, values, 1) @ wx
        return wy.T @ rows


class Anatomy:
    """One patient: a function from world coordinates (mm) to tissue and structure.

    Every size, place, deformation and the tumour are drawn from `rng`; without a `stage` (T stage 1-4) it is, too, with
    the mix of Xue 2020 (Table 1). `side` is +1 where the tumour starts on the patient's left. `volume_ml` is that of
    tumour and necrosis, to within the grid on which it grew.

    Raises:
        InputError: a stage that is not 1-4.
    """

    def __init__(self, rng: np.random.Generator, *, stage: int | None = None) -> None:
        drawn = int(rng.choice([1, 2, 3, 4], p=STAGE_MIX))
        if stage not in (None, 1, 2, 3, 4):
            raise InputError(f"the T stage of a phantom patient is 1, 2, 3 or 4, not {stage!r}")
        self.stage = drawn if stage is None else int(stage)
        patient = Patient(rng)
        self.scale = np.array([0.99 * patient.vary(0.035), 0.98 * patient.vary(0.025), patient.vary(0.035)])
        self.shift_mm = np.clip(rng.normal(0, 1, 3), -2, 2) * [2.0, 1.5, 3.0] + [0.0, -2.0, 0.0]
        self.rotation = _rotation(np.deg2rad(np.clip(rng.normal(0, 1, 3), -2, 2) * [3.0, 2.0, 2.5]))
        # Coarse fields move whole organs, fine ones make their surfaces irregular.
        self.coarse = [RandomField(rng, 42.0, 16) for _ in range(3)]
        self.fine = [RandomField(rng, 13.0) for _ in range(3)]
        self.folds = RandomField(rng, 8.0)
        self.fascia = RandomField(rng, 9.0)
        self.side = int(rng.choice(SIDES))
        self.head = head(patient)
        # In the order in which they are painted.
        for region in (neck_muscles, head_muscles, glands, brain, spine, jaws, orbits, sinuses):
            region(patient)
        pharynx(patient, -self.side)
        vessels(patient)
        nodes(patient)
        self.organs = patient.organs
        self.bounds = tuple(np.array(b) for b in zip(*(organ.bounds for organ in [self.head, *self.organs])))
        self.tumour = Tumour(rng, self.side, self.stage, self.shift_mm[::-1], self._codes, self._anatomical)
        self.volume_ml = self.tumour.volume_ml

    def regions(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tissue and structure, each (len(z), len(y), len(x)) uint8, on the world axes z, y, x in mm.

        An empty axis gives empty arrays.

        Raises:
            InputError: an axis that does not rise.
        """
        structure, tissue = np.divmod(self._codes((z, y, x), self.tumour), STRUCTURE_STEP)
        return tissue.astype(np.uint8), structure.astype(np.uint8)

    def _codes(self, axes: Sequence[np.ndarray], tumour: Tumour | None = None) -> np.ndarray:
        axes = tuple(np.asarray(axis, float) for axis in axes)
        for name, axis in zip("zyx", axes):
            if axis.ndim != 1 or not np.isfinite(axis).all() or (np.diff(axis) <= 0).any():
                raise InputError(f"the {name} axis of a phantom series must be a rising row of positions in mm")
        out = np.empty([len(axis) for axis in axes], np.uint16)
        if not out.size:
            return out
        step = max(1, SLAB_POINTS // (out.shape[1] * out.shape[2]))
        for part in (slice(i, i + step) for i in range(0, out.shape[0], step)):
            slab = (axes[0][part], axes[1], axes[2])
            grid = _Grid(slab, self._anatomical(slab))
            out[part] = self._paint(grid)
            if tumour is not None:
                tumour.paint(out[part], grid.place, slab)
        return out

    def _anatomical(self, axes: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Anatomical coordinates x, y, z, each (len(z), len(y), len(x)), of the world axes z, y, x."""
        z, y, x = axes
        world = [axis.astype(np.float32) - np.float32(o) for axis, o in zip((x, y, z), self.shift_mm)]
        out = []
        for row, scale, coarse, fine in zip(self.rotation, self.scale, self.coarse, self.fine):
            rx, ry, rz = ((w * np.float32(r / scale)) for w, r in zip(world, row))
            place = np.float32(1.3) * coarse(z, y, x)
            place += np.float32(0.65) * fine(z, y, x)
            place += rx
            place += (rz[:, None] + ry)[:, :, None]
            out.append(place)
        return tuple(out)

    def _paint(self, grid: _Grid) -> np.ndarray:
        """Codes of tissue and structure without the primary tumour."""
        code = np.full(grid.place[0].shape, Tissue.OUTSIDE, np.uint16)
        inside = np.zeros(code.shape, bool)
        fascia = self.fascia(*grid.axes)
        fascia *= np.float32(FASCIA_MM)
        lattice = _Lattice(grid, self._anatomical)
        boxes = grid.boxes(*self.bounds)
        for block, depth in _distances(self.head, boxes[0], grid, lattice):
            _paint_organ(self.head, code[block], True, depth, fascia[block], grid.place[0][block])
            # Nothing reaches the surface: skin and a little fat stay.
            np.less(depth, self.head.layers[1][0] - 0.6, out=inside[block])
        for organ, box in zip(self.organs, boxes[1:]):
            for block, distance in _distances(organ, box, grid, lattice):
                if organ.fold_mm:
                    sulcus = np.abs(self.folds(*(axis[part] for axis, part in zip(grid.axes, block))))
                    sulcus *= np.float32(-organ.fold_mm)
                    sulcus += np.minimum(distance + np.float32(SULCUS_DEPTH_MM), 0)
                    distance = np.where(distance < 0, np.maximum(sulcus, distance), distance)
                _paint_organ(organ, code[block], inside[block], distance, fascia[block], grid.place[0][block])
        return code


def _paint_organ(
    organ: Organ, target: np.ndarray, inside: np.ndarray | bool, distance: np.ndarray, fascia: np.ndarray, x: np.ndarray
) -> None:
    """Paint the layers of an organ into the codes `target`, in place, where `inside` is true.

    `fascia`: mm by which layers of fat move outwards and those of muscle inwards, so that the planes between them vary.
    """
    free = (distance < organ.outermost_mm) & inside
    if organ.over:
        allowed = np.zeros(STRUCTURE_STEP, bool)
        allowed[list(organ.over)] = True
        free &= allowed[target & (STRUCTURE_STEP - 1)]
    right, left = organ.structure if isinstance(organ.structure, tuple) else (organ.structure, None)
    if not organ.layers:
        np.copyto(target, target % STRUCTURE_STEP + np.uint16(code_of(Tissue.OUTSIDE, right)), where=free)
    for offset, tissue in organ.layers:
        if tissue in (Tissue.FAT, Tissue.MUSCLE):
            within = (distance - fascia if tissue == Tissue.FAT else distance + fascia) < offset
        else:
            within = distance < offset
        within &= free
        np.copyto(target, np.uint16(code_of(tissue, right if offset <= 0 else Structure.NONE)), where=within)
        if left is not None and offset <= 0:
            within &= x > 0
            np.copyto(target, np.uint16(code_of(tissue, left)), where=within)


def _distances(organ: Organ, box: Box | None, grid: _Grid, lattice: _Lattice) -> Iterator[tuple[Box, np.ndarray]]:
    """Index boxes of the grid that cover `box`, each with the signed distance to the organ in it."""
    if box is None:
        return
    smooth = organ.blend_mm >= SMOOTH_BLEND_MM and len(organ.parts) > 1
    nodes = lattice.distance(organ, box) if smooth else np.empty(0)
    for block in _chunks(box):
        yield block, lattice.interpolate(nodes, box, block) if smooth else grid.distance(organ, block)


def _within(inner: Box, outer: Box) -> tuple[slice, ...]:
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer))


def _chunks(box: Box) -> Iterator[Box]:
    """The box in pieces of at most about `CHUNK_POINTS` points, split along z, then along y."""
    z, y, x = box
    rows = max(1, min(y.stop - y.start, CHUNK_POINTS // (x.stop - x.start)))
    planes = max(1, CHUNK_POINTS // (rows * (x.stop - x.start)))
    for i in range(z.start, z.stop, planes):
        for j in range(y.start, y.stop, rows):
            yield slice(i, min(i + planes, z.stop)), slice(j, min(j + rows, y.stop)), x


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix about x (nod), y (tilt) and z (turn); radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    nod = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    tilt = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return turn @ tilt @ nod

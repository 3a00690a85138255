"""Random fields, signed distances, and how the organs of one patient are built of them, in the order of painting."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from npcrepro.cohorts.phantom.tissues import Structure, Tissue

Triple = tuple[float, float, float]
SIDES = (-1, 1)  # right, left
SOFT = (Tissue.FAT, Tissue.MUSCLE)


def _cubic_basis(axis: np.ndarray, step: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform cubic B-spline basis (len(axis), k) of the k knots that matter, and their indices modulo n."""
    axis = np.asarray(axis, float) / step
    knots = np.arange(np.floor(axis.min()) - 1, np.floor(axis.max()) + 3)
    t = np.abs(axis[:, None] - knots)
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, inner, outer).astype(np.float32), knots.astype(int) % n


class RandomField:
    """Smooth random field of mean 0 and standard deviation 1: a cubic B-spline lattice of independent normal values.

    It is defined everywhere and repeats after `knots` * `step_mm`.
    """

    def __init__(self, rng: np.random.Generator, step_mm: float, knots: int = 40) -> None:
        self.step = step_mm
        # The squared basis sums to 0.479 on average; its cube brings the field back to unit variance.
        self.values = rng.standard_normal((knots, knots, knots), np.float32) * np.float32(0.479**-1.5)

    def __call__(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values (len(z), len(y), len(x)) on the axes z, y, x in mm; no axis may be empty."""
        (bz, iz), (by, iy), (bx, ix) = (_cubic_basis(a, self.step, len(self.values)) for a in (z, y, x))
        rows = np.tensordot(bz, self.values[np.ix_(iz, iy, ix)], 1) @ np.ascontiguousarray(bx.T)
        out = np.empty((len(bz), len(by), len(bx)), np.float32)
        for plane, row in zip(out, rows):
            np.matmul(by, row, out=plane)
        return out


@dataclass(frozen=True)
class Ellipsoid:
    """Ellipsoid with centre and radii (x, y, z) in mm, turned by `yaw_deg` in the axial plane."""

    centre: Triple
    radii: Triple
    yaw_deg: float = 0.0

    # How much farther than its offset a layer can reach, since distances are exact at the surface only.
    slack: ClassVar[float] = 1.4

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest (x, y, z) in mm."""
        r = np.array(self.radii)
        if self.yaw_deg:
            c, s = np.cos(np.deg2rad(self.yaw_deg)), np.sin(np.deg2rad(self.yaw_deg))
            r[:2] = np.hypot(r[0] * c, r[1] * s), np.hypot(r[0] * s, r[1] * c)
        return np.array(self.centre) - r, np.array(self.centre) + r

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Signed distance in mm, exact to first order near the surface."""
        x, y, z = x - np.float32(self.centre[0]), y - np.float32(self.centre[1]), z - np.float32(self.centre[2])
        if self.yaw_deg:
            c, s = np.float32(np.cos(np.deg2rad(self.yaw_deg))), np.float32(np.sin(np.deg2rad(self.yaw_deg)))
            x, y = c * x + s * y, c * y - s * x
        for p, r in zip((x, y, z), self.radii):
            p *= np.float32(1 / r)
            p *= p
        shell = x + y
        shell += z
        for p, r in zip((x, y, z), self.radii):
            p *= np.float32(1 / r**2)
        x += y
        x += z
        x += np.float32(1e-9)
        np.sqrt(x, out=x)
        np.sqrt(shell, out=y)
        shell -= y
        shell /= x
        return shell


@dataclass(frozen=True)
class Tube:
    """Cone with round ends from `start` to `end` (x, y, z), radii in mm; `wide` stretches its section along x and y."""

    start: Triple
    end: Triple
    radius: float
    end_radius: float
    wide: tuple[float, float] = (1.0, 1.0)

    @property
    def slack(self) -> float:
        """How much farther than its offset a layer reaches along the axis that `wide` stretches most."""
        return max(1.0, *self.wide) / min(1.0, *self.wide)

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest (x, y, z) in mm."""
        points = np.array([self.start, self.end])
        r = max(self.radius, self.end_radius) * np.array([*self.wide, 1.0])
        return points.min(0) - r, points.max(0) + r

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Signed distance in mm; along the axis that `wide` stretches most it is too small."""
        scale = (1 / self.wide[0], 1 / self.wide[1], 1.0)
        along = ((np.array(self.end) - self.start) * scale).astype(np.float32)
        x, y, z = (p - np.float32(o) for p, o in zip((x, y, z), self.start))
        for p, s in zip((x, y), scale):
            if s != 1:
                p *= np.float32(s)
        unit = along / (along @ along)
        h = x * unit[0]
        h += y * unit[1]
        h += z * unit[2]
        np.clip(h, 0, 1, out=h)
        for p, a in zip((x, y, z), along):
            p -= h * a
            p *= p
        x += y
        x += z
        np.sqrt(x, out=x)
        if self.end_radius != self.radius:
            h *= np.float32(self.end_radius - self.radius)
            x -= h
        x -= np.float32(self.radius)
        if min(self.wide) < 1:
            x *= np.float32(min(self.wide))
        return x


def smooth_minimum(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Minimum of two signed distances, rounded where they differ by less than `blend_mm` (polynomial)."""
    gap = a - b
    np.abs(gap, out=gap)
    np.subtract(np.float32(blend_mm), gap, out=gap)
    np.maximum(gap, 0, out=gap)
    gap *= gap
    gap *= np.float32(0.25 / blend_mm)
    return np.subtract(np.minimum(a, b), gap, out=gap)


Part = Ellipsoid | Tube
Layers = Sequence[tuple[float, Tissue]]
BONE: Layers = ((0.0, Tissue.CORTICAL_BONE), (-1.6, Tissue.MARROW))
THIN_BONE: Layers = ((0.0, Tissue.CORTICAL_BONE), (-1.1, Tissue.MARROW))


@dataclass(frozen=True)
class Organ:
    """Smooth union of parts, painted in layers.

    `layers` are pairs (offset_mm, tissue), from the outermost inwards: tissue where the signed distance is below
    offset. With `over`, only those tissues are painted over. An organ without layers leaves the tissue as it is.

    `structure` is that of all within the signed distance 0; a pair gives those of the patient's right and left half.
    With `fold_mm`, sulci go in from the surface where a random field is 0: the layers within follow them. It is the
    distance from a sulcus, in mm, per unit of the field.
    """

    parts: Sequence["Part | Organ"]
    layers: Layers = ((0.0, Tissue.OUTSIDE),)
    blend_mm: float = 2.0
    over: tuple[Tissue, ...] = ()
    structure: Structure | tuple[Structure, Structure] = Structure.NONE
    fold_mm: float = 0.0

    @property
    def outermost_mm(self) -> float:
        """Offset of the outermost layer, at least 0."""
        return max(self.layers[0][0], 0.0) if self.layers else 0.0

    @cached_property
    def slack(self) -> float:
        """That of the widest part."""
        return max(part.slack for part in self.parts)

    @cached_property
    def part_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest (x, y, z) in mm of each part, each (parts, 3)."""
        low, high = zip(*(part.bounds for part in self.parts))
        return np.array(low), np.array(high)

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest (x, y, z) in mm."""
        grow = self.slack * self.outermost_mm + (self.blend_mm / 2 if len(self.parts) > 1 else 0.0)
        low, high = self.part_bounds
        return low.min(0) - grow, high.max(0) + grow

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, box: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Signed distance in mm at coordinates of one shape, all within `box`: smallest and largest (x, y, z).

        Beyond the outermost layer it may be too large.
        """
        # A part beyond blend and outermost layer of the box cannot change what is painted.
        grow = self.blend_mm + self.slack * self.outermost_mm
        box = box[0] - grow, box[1] + grow
        low, high = self.part_bounds
        distance = None
        for part, wanted in zip(self.parts, ((low <= box[1]) & (high >= box[0])).all(1)):
            if wanted:
                other = part.distance(x, y, z, box) if isinstance(part, Organ) else part.distance(x, y, z)
                distance = other if distance is None else smooth_minimum(distance, other, self.blend_mm)
        return np.full(x.shape, 1e3, np.float32) if distance is None else distance


class Patient:
    """Draws organs with the patient's own random variation of place and size.

    Shapes are given for the left side; `sides` are two views of the patient that put them on the right and on the left.
    `fat` is 0 for a thin and 1 for an obese patient. The layers of a `muscle` begin with a sheath of fat, which leaves
    planes between muscles.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.fat = float(rng.beta(1.5, 2.5))
        self.muscle: Layers = ((0.3 + 0.8 * self.fat, Tissue.FAT), (0.0, Tissue.MUSCLE))
        self.organs: list[Organ] = []
        self.side = 1

    @property
    def sides(self) -> "list[Patient]":
        """The same patient with shapes on the right, then on the left."""
        right, left = copy.copy(self), copy.copy(self)
        right.side, left.side = SIDES
        return [right, left]

    def vary(self, spread: float) -> float:
        """A factor about 1, log-normal, cut at two standard deviations."""
        return float(np.exp(spread * np.clip(self.rng.standard_normal(), -2, 2)))

    def shift(self, sd_mm: float) -> np.ndarray:
        """A displacement (3,) in mm, cut at two standard deviations."""
        return sd_mm * np.clip(self.rng.standard_normal(3), -2, 2)

    def ball(self, centre: Triple, radii: Triple, yaw: float = 0.0, *, sd: float = 0.6) -> list[Part]:
        """An ellipsoid; `sd` is the standard deviation of its place in mm."""
        cx, cy, cz = np.array(centre) + self.shift(sd)
        # At most about 1.2 mm, so that a large skull still fits a large head.
        rx, ry, rz = (r * self.vary(min(0.05, 1.2 / r)) for r in radii)
        return [Ellipsoid((self.side * cx, cy, cz), (rx, ry, rz), self.side * yaw)]

    def path(self, *points: Triple, r: float | Sequence[float], wide: tuple[float, float] = (1.0, 1.0)) -> list[Tube]:
        """Tubes through points; `r` is the radius at all points or at each of them."""
        radii = [r] * len(points) if isinstance(r, int | float) else list(r)
        shift, size = self.shift(0.6), self.vary(0.06)
        moved = [np.array([x * self.side, y, z]) + shift for x, y, z in points]
        return [
            Tube(tuple(a), tuple(b), ra * size, rb * size, wide)
            for a, b, ra, rb in zip(moved[:-1], moved[1:], radii[:-1], radii[1:])
        ]

    def structure(self, name: str) -> Structure:
        """The structure of this side, for instance ``Eye_R`` for ``"Eye"``."""
        return Structure[f"{name}_{'L' if self.side > 0 else 'R'}"]

    def add(
        self,
        parts: Sequence[Part | Organ],
        layers: Layers | Tissue,
        blend_mm: float = 2.0,
        over: tuple[Tissue, ...] = (),
        structure: Structure | tuple[Structure, Structure] = Structure.NONE,
        fold_mm: float = 0.0,
    ) -> None:
        """Add an `Organ`; a tissue in place of layers fills it up to the surface."""
        if isinstance(layers, Tissue):
            layers = ((0.0, layers),)
        self.organs.append(Organ(parts, layers, blend_mm, over, structure, fold_mm))

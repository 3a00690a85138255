"""Random fields and signed distances from which the anatomy is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npcrepro.cohorts.phantom.tissues import Tissue

Triple = tuple[float, float, float]


def _cubic_basis(axis: np.ndarray, first: float, step: float, n: int) -> np.ndarray:
    """Uniform cubic B-spline basis (len(axis), n) with knots at first + step * i."""
    t = np.abs((axis[:, None] - first) / step - np.arange(n))
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, inner, outer).astype(np.float32)


class RandomField:
    """Smooth random field of mean 0 and standard deviation 1: a cubic B-spline lattice of independent normal values.

    The tensor product of three small matrices evaluates it on any axis-aligned grid.
    """

    def __init__(self, rng: np.random.Generator, step_mm: float, half_extent_mm: Triple = (60.0, 130.0, 130.0)) -> None:
        self.step = step_mm
        self.first = [-h - 2 * step_mm for h in half_extent_mm]
        shape = [int(np.ceil(2 * h / step_mm)) + 5 for h in half_extent_mm]
        # The squared basis sums to 0.479 on average; its cube brings the field back to unit variance.
        self.values = (rng.standard_normal(shape) / 0.479**1.5).astype(np.float32)

    def __call__(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values (len(z), len(y), len(x)) on the axes z, y, x in mm."""
        bz, by, bx = (
            _cubic_basis(np.asarray(a, float), f, self.step, n)
            for a, f, n in zip((z, y, x), self.first, self.values.shape)
        )
        rows = np.tensordot(bz, self.values, 1) @ np.ascontiguousarray(bx.T)
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

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest (x, y, z) in mm."""
        r = np.array(self.radii)
        if self.yaw_deg:
            c, s = np.cos(np.deg2rad(self.yaw_deg)), np.sin(np.deg2rad(self.yaw_deg))
            r[:2] = np.hypot(r[0] * c, r[1] * s), np.hypot(r[0] * s, r[1] * c)
        return np.array(self.centre) - r, np.array(self.centre) + r

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        x, y, z = x - np.float32(self.centre[0]), y - np.float32(self.centre[1]), z - np.float32(self.centre[2])
        if self.yaw_deg:
            c, s = np.float32(np.cos(np.deg2rad(self.yaw_deg))), np.float32(np.sin(np.deg2rad(self.yaw_deg)))
            x, y = c * x + s * y, c * y - s * x
        x, y, z = x * x, y * y, z * z
        (ix, iy, iz), (jx, jy, jz) = (np.array(self.radii, np.float32) ** p for p in (-2, -4))
        k0 = np.sqrt(ix * x + iy * y + iz * z) + np.float32(1e-6)
        k1 = np.sqrt(jx * x + jy * y + jz * z) + np.float32(1e-6 / min(self.radii))
        return k0 * (k0 - 1) / k1


@dataclass(frozen=True)
class Tube:
    """Cone with round ends from `start` to `end` (x, y, z), radii in mm; `wide` stretches its section along x and y."""

    start: Triple
    end: Triple
    radius: float
    end_radius: float
    wide: tuple[float, float] = (1.0, 1.0)

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest (x, y, z) in mm."""
        points = np.array([self.start, self.end])
        r = max(self.radius, self.end_radius) * np.array([*self.wide, 1.0])
        return points.min(0) - r, points.max(0) + r

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        scale = np.array([1 / self.wide[0], 1 / self.wide[1], 1.0])
        start = np.array(self.start) * scale
        along = (np.array(self.end) * scale - start).astype(np.float32)
        x, y, z = (p * np.float32(s) - np.float32(o) for p, s, o in zip((x, y, z), scale, start))
        h = (x * along[0] + y * along[1] + z * along[2]) * np.float32(1 / (along @ along))
        h = np.minimum(np.maximum(h, 0), 1)
        x, y, z = x - h * along[0], y - h * along[1], z - h * along[2]
        radius = np.float32(self.radius) + np.float32(self.end_radius - self.radius) * h
        return (np.sqrt(x * x + y * y + z * z) - radius) * np.float32(min(1.0, *self.wide))


def smooth_minimum(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Minimum of two signed distances, rounded where they differ by less than `blend_mm` (polynomial)."""
    gap = np.maximum(np.float32(blend_mm) - np.abs(a - b), 0)
    return np.minimum(a, b) - gap * gap * np.float32(0.25 / blend_mm)


Part = Ellipsoid | Tube
Layers = Sequence[tuple[float, Tissue]]


@dataclass(frozen=True)
class Organ:
    """Smooth union of parts, painted in layers.

    `layers` are pairs (offset_mm, tissue), from the outermost inwards: tissue where the signed distance is below
    offset. With `over`, only those tissues are painted over. `fold_mm` is the standard deviation of a random field that
    moves the inner layers (offset below -3 mm), for grey matter that follows gyri.
    """

    parts: Sequence[Part | Organ]
    layers: Layers = ((0.0, Tissue.OUTSIDE),)
    blend_mm: float = 2.0
    over: tuple[Tissue, ...] = ()
    fold_mm: float = 0.0

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest (x, y, z) in mm."""
        boxes = [part.bounds for part in self.parts]
        grow = max(self.layers[0][0], 0.0) + self.blend_mm / 4
        return np.min([b[0] for b in boxes], 0) - grow, np.max([b[1] for b in boxes], 0) + grow

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Signed distance in mm, exact enough up to the outermost layer; farther away it may be too large."""
        # Most parts are far from a slice: beyond blend and outermost layer they cannot change what is painted.
        grow = self.blend_mm + max(self.layers[0][0], 0.0)
        bottom, top = z.min() - grow, z.max() + grow
        distance = None
        for part in self.parts:
            low, high = part.bounds
            if low[2] <= top and high[2] >= bottom:
                other = part.distance(x, y, z)
                distance = other if distance is None else smooth_minimum(distance, other, self.blend_mm)
        return np.full(x.shape, np.inf, np.float32) if distance is None else distance

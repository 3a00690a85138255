"""How the organs of one patient are drawn: shapes with random variation, put down in the order of painting."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from npcrepro.cohorts.phantom.shapes import Ellipsoid, Layers, Organ, Part, Triple, Tube
from npcrepro.cohorts.phantom.tissues import Structure, Tissue

SIDES = (-1, 1)  # right, left
BONE: Layers = ((0.0, Tissue.CORTICAL_BONE), (-1.6, Tissue.MARROW))
THIN_BONE: Layers = ((0.0, Tissue.CORTICAL_BONE), (-1.1, Tissue.MARROW))
SOFT = (Tissue.FAT, Tissue.MUSCLE)


class Patient:
    """Draws organs with the patient's own random variation of place and size.

    Shapes are given for the left side; `sides` are two views of the patient that put them on the right and on the left.

    Attributes:
        fat: 0 for a thin and 1 for an obese patient.
        muscle: layers of a muscle. A sheath of fat around each muscle leaves the planes that separate them.
        organs: all that was added, in the order in which it is painted.
        side: +1, and -1 in the view that mirrors shapes to the right.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.fat = float(rng.beta(1.5, 2.5))
        self.muscle: Layers = ((0.3 + 0.8 * self.fat, Tissue.FAT), (0.0, Tissue.MUSCLE))
        self.organs: list[Organ] = []
        self.side = 1

    @property
    def sides(self) -> list[Patient]:
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

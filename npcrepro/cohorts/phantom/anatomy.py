"""One patient: a function from world coordinates in mm to tissue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from npcrepro.cohorts.phantom.shapes import Ellipsoid, Layers, Organ, Part, RandomField, Triple, Tube, smooth_minimum
from npcrepro.cohorts.phantom.tissues import Tissue

# How much later, in mm of growth, the tumour reaches a tissue. What is not named here is not invaded.
RESISTANCE_MM = {
    Tissue.MUCOSA: 0.0,
    Tissue.ADENOID: 0.5,
    Tissue.AIR: 3.0,
    Tissue.FAT: 2.0,
    Tissue.NODE: 2.0,
    Tissue.MUSCLE: 3.0,
    Tissue.MARROW: 5.0,
    Tissue.CORTICAL_BONE: 5.0,
}

GROWTH_STEP_MM = 2.5


class _Shapes:
    """Parts with the patient's own random variation of place and size."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def vary(self, spread: float) -> float:
        """A factor about 1, log-normal, cut at two standard deviations."""
        return float(np.exp(spread * np.clip(self.rng.standard_normal(), -2, 2)))

    def shift(self, sd_mm: float) -> np.ndarray:
        return sd_mm * np.clip(self.rng.standard_normal(3), -2, 2)

    def ball(self, centre: Triple, radii: Triple, yaw: float = 0.0, *, side: int = 1, sd: float = 0.6) -> Ellipsoid:
        """An ellipsoid; centre and yaw are those of the left side, `side` -1 mirrors them."""
        cx, cy, cz = np.array(centre) + self.shift(sd)
        rx, ry, rz = (r * self.vary(0.05) for r in radii)
        return Ellipsoid((side * cx, cy, cz), (rx, ry, rz), side * yaw)

    def path(
        self, *points: Triple, r: float | Sequence[float], wide: tuple[float, float] = (1.0, 1.0), side: int = 1
    ) -> list[Part]:
        """Tubes through points of the left side, `side` -1 mirrors them; `r` for all points or for each."""
        radii = [r] * len(points) if isinstance(r, int | float) else list(r)
        shift, size = self.shift(0.6), self.vary(0.06)
        moved = [np.array([p[0] * side, p[1], p[2]]) + shift for p in points]
        return [
            Tube(tuple(a), tuple(b), ra * size, rb * size, wide)
            for a, b, ra, rb in zip(moved[:-1], moved[1:], radii[:-1], radii[1:])
        ]


SIDES = (-1, 1)  # right, left


def _head(s: _Shapes) -> Organ:
    fat = 0.8 + 1.4 * s.rng.random()
    body: list[Part] = [
        s.ball((0, 14, 38), (74, 88, 74)),
        s.ball((0, -26, -2), (60, 50, 48)),
        s.ball((0, -34, -40), (50, 40, 30)),
        s.ball((0, 34, -40), (60, 54, 60)),
    ]
    for side in SIDES:
        body += [
            s.ball((46, -38, 4), (20, 25, 26), side=side),
            s.ball((57, 4, -10), (16 + fat, 34, 48), side=side),
        ]
    nose: list[Part] = [s.ball((0, -72, -1), (9, 15, 14))]
    nose += s.path((0, -70, 30), (0, -80, 6), (0, -89, -6), r=(8, 9, 8))
    ears: list[Part] = []
    flare = s.rng.uniform(14, 30)
    for side in SIDES:
        nose.append(s.ball((8, -82, -8), (6, 8, 6), side=side))
        ears.append(s.ball((76, 22, 2), (3.2, 11, 24), -flare, side=side))
    face = Organ([Organ(body, blend_mm=14.0), *nose], blend_mm=9.0)
    return Organ([face, *ears], ((0.0, Tissue.SKIN), (-2.0, Tissue.FAT)), blend_mm=4.0)


def _organs(s: _Shapes, open_side: int) -> list[Organ]:
    """The organs inside the head, in the order in which they are painted; the airway stays open on `open_side`."""
    T = Tissue
    rng = s.rng
    organs: list[Organ] = []

    def add(parts: Sequence[Part], layers: Layers, blend_mm: float = 2.0, over: tuple[Tissue, ...] = ()) -> None:
        organs.append(Organ(parts, layers, blend_mm, over))

    def solid(tissue: Tissue) -> Layers:
        return ((0.0, tissue),)

    bone = ((0.0, T.CORTICAL_BONE), (-1.6, T.MARROW))

    # A sheath of fat around each muscle leaves the planes that separate them.
    muscle = ((0.9, T.FAT), (0.0, T.MUSCLE))

    # Neck and nape.
    add([s.ball((0, 56, -30), (50, 34, 44))], muscle)
    for side in SIDES:
        add([s.ball((31, 43, -28), (9, 11, 20), side=side)], muscle)
        add([s.ball((30, 58, -20), (10, 9, 18), 30, side=side)], muscle)
        add([s.ball((11, 62, -17), (9, 6, 17), 12, side=side)], muscle)
        add([s.ball((17, 71, -26), (16, 7, 28), 10, side=side)], muscle)
        add([s.ball((24, 81, -24), (25, 7.5, 34), 16, side=side)], muscle)
        add([s.ball((44, 63, -28), (8, 20, 33), 38, side=side)], muscle)
        add(s.path((58, 42, 0), (56, 34, -48), r=(8.5, 9), wide=(0.8, 1.8), side=side), muscle)
        add(s.path((50, 36, -2), (42, 22, -34), r=(4.5, 5), side=side), muscle)
    # Chewing and face.
    for side in SIDES:
        add([s.ball((58, -15, -22), (9, 20, 27), 8, side=side)], muscle)
        add([s.ball((56, -20, 19), (9, 21, 30), 6, side=side)], muscle)
        lateral = s.path((20, -17, 6), (33, -6, 4), (46, 5, 3), r=(9, 10.5, 7), wide=(1.0, 1.1), side=side)
        add(lateral, muscle)
        medial = s.path((20, -14, -2), (31, -9, -18), (40, -7, -38), r=(7, 10, 8.5), wide=(0.9, 1.2), side=side)
        add(medial, muscle)
        add([s.ball((37, -48, -26), (4, 25, 16), -22, side=side)], muscle)
        add(s.path((14, -66, -8), (24, -64, -18), r=(3.2, 2.8), side=side), muscle)
    add([*s.path((-24, -68, -24), (0, -76, -25), (24, -68, -24), r=4.0)], muscle)
    # Deep to the pharynx.
    for side in SIDES:
        prevertebral = s.path((8, 16, -48), (9, 13.5, -14), (8, 10.5, 7), r=(6, 7, 6), wide=(1.5, 0.85), side=side)
        add(prevertebral, muscle)
        add([s.ball((36, 30, -6), (8, 6, 9), side=side)], muscle)
        add(s.path((40, 12, 0), (30, 2, -30), r=(4.5, 4.5), side=side), muscle)
        add(s.path((21, -8, 9), (17, -9, -12), r=(3.0, 2.4), wide=(0.8, 1.6), side=side), muscle)
    # Salivary glands.
    for side in SIDES:
        gland = [s.ball((62, 15, -14), (11, 18, 27), -14, side=side), s.ball((50, 17, -16), (10, 9, 20), side=side)]
        add([*gland, s.ball((67, -4, -14), (4.5, 19, 17), 6, side=side)], solid(T.PAROTID), 5.0)
        add([s.ball((36, -14, -52), (9, 14, 14), side=side)], solid(T.PAROTID))

    # Cranial cavity with vault and base: fossae in one smooth union.
    cerebellum: list[Part] = [s.ball((0, 54, 18), (52, 36, 21)), s.ball((0, 50, 32), (56, 42, 24))]
    fossa: list[Part] = [s.ball((0, 16, 58), (67, 80, 36))]
    for side in SIDES:
        fossa += [s.ball((42, -3, 31), (22, 27, 17), -18, side=side), s.ball((44, 14, 36), (24, 30, 18), side=side)]
    base: list[Part] = [s.ball((0, -7, 22), (23, 17, 11))]
    for x in (-7, 0, 7):
        base += s.path((x, 19, 1), (x, 9, 24), r=(4.5, 6.5))
    petrous = []
    for side in SIDES:
        petrous += s.path((12, 12, 15), (36, 24, 13), (56, 33, 8), r=(7.5, 9.5, 11), side=side)
        petrous += s.path((56, 35, 4), (55, 36, -9), r=(9, 5), side=side)
    squama = ((6.0, T.CORTICAL_BONE), (4.6, T.MARROW), (1.4, T.CORTICAL_BONE))
    cerebrum = ((1.4, T.CORTICAL_BONE), (0.2, T.CSF), (-0.8, T.GREY_MATTER), (-5.2, T.WHITE_MATTER))
    folia = [(-3.1 - 2.4 * i, (T.WHITE_MATTER, T.GREY_MATTER)[i % 2]) for i in range(7)]
    add([s.ball((0, 16, 58), (68, 81, 37))], squama)
    organs.append(Organ(fossa, cerebrum, 12.0, fold_mm=4.0))
    # Not over the cerebrum: its layer of CSF stays as the tentorium.
    outside = (T.FAT, T.MUSCLE, T.PAROTID, T.CORTICAL_BONE, T.MARROW)
    organs.append(Organ(cerebellum, (*squama, (0.2, T.CSF), (-1.0, T.GREY_MATTER), *folia), 10.0, outside, 1.8))
    add(petrous, ((0.0, T.CORTICAL_BONE), (-2.5, T.MARROW), (-6.0, T.CORTICAL_BONE)), 3.0)
    add(base, bone, 4.0)
    for side in SIDES:
        for _ in range(rng.integers(4, 9)):
            cell = (55 + rng.uniform(-6, 5), 35 + rng.uniform(-6, 8), rng.uniform(-2, 16))
            add([s.ball(cell, (2.6, 2.8, 3.2), side=side)], ((0.8, T.CORTICAL_BONE), (0.0, T.AIR)))

    # Vertebrae and condyles of the occiput, then canal, cord, stem.
    add(s.path((0, 26, -22), (0, 26, -3), r=(6, 5)), bone)
    add([s.ball((0, 26, -28), (12, 9, 8)), *s.path((0, 26, -40), (0, 26, -52), r=9, wide=(1.3, 0.9))], bone)
    add([s.ball((0, 18.5, -9), (9, 3.6, 5.5))], bone)
    for side in SIDES:
        add([s.ball((20, 30, -10), (9, 9, 7), side=side)], bone)
        add([s.ball((17, 27, 0), (6, 11, 6), 25, side=side)], bone)
        add([s.ball((17, 32, -24), (9, 8, 7), side=side)], bone)
        arch = s.path((24, 36, -10), (23, 48, -11), (12, 57, -12), (0, 59, -12), r=2.8, side=side)
        add([*arch, *s.path((24, 32, -10), (38, 34, -11), r=(4, 3.5), side=side)], bone)
        lamina = s.path((18, 38, -28), (15, 50, -30), (4, 60, -32), r=(3.4, 3.4, 4), side=side)
        add([*lamina, *s.path((0, 60, -33), (0, 70, -35), r=3.4)], bone)
        add(s.path((52, 24, 2), (44, 16, -18), r=(2.4, 1.4), side=side), solid(T.CORTICAL_BONE))
    add(s.path((0, 43, -60), (0, 43, -8), (0, 41, 6), r=(9.5, 10.5, 11)), ((1.0, T.CORTICAL_BONE), (0.0, T.CSF)))
    stem = s.path((0, 42, -60), (0, 42, -8), (0, 38, 10), r=(5.2, 5.8, 8.5), wide=(1.2, 0.9))
    add(stem, solid(T.SPINAL_CORD))
    cistern = [s.ball((0, 30, 24), (22, 15, 15)), s.ball((0, 0, 40), (15, 16, 10))]
    add(cistern, solid(T.CSF), 4.0, (T.GREY_MATTER, T.WHITE_MATTER))
    pons = [s.ball((0, 35, 22), (16, 12, 12)), *s.path((12, 38, 22), (26, 46, 22), r=6)]
    add([*pons, *s.path((-12, 38, 22), (-26, 46, 22), r=6)], solid(T.WHITE_MATTER), 4.0)
    add([s.ball((0, 51, 20), (7, 3.5, 12))], solid(T.CSF))

    # Face: zygoma, maxilla, palate, mandible, teeth.
    for side in SIDES:
        add(s.path((46, -46, 8), (58, -34, 9), (67, -12, 9), (66, 6, 10), r=(7, 4.5, 2.8, 3.4), side=side), bone)
        ramus = [s.ball((49, -6, -20), (4.2, 16, 23), 12, side=side), s.ball((51, 11, 3), (8.5, 4.6, 6), side=side)]
        ramus += s.path((50, 8, -8), (51, 10, 2), r=(4, 4), side=side)
        add([*ramus, *s.path((50, -18, -12), (51, -19, 6), r=(3.5, 2.2), wide=(1, 1.7), side=side)], bone, 3.0)
        body = s.path((48, -8, -40), (38, -34, -41), (22, -58, -43), (0, -66, -44), r=(6, 6.5, 7, 7.5), side=side)
        add(body, ((0.0, T.CORTICAL_BONE), (-2.2, T.MARROW)))
        alveolar = ((27, -26, -20), (25, -44, -20), (16, -60, -20), (0, -66, -20))
        add(s.path(*alveolar, r=(6, 6.5, 6.5, 6.5), side=side), ((0.0, T.CORTICAL_BONE), (-1.4, T.MARROW)))
        for t in np.linspace(0.03, 0.97, 7):
            i, f = divmod(t * 3, 1)
            x, y, z = np.array(alveolar[int(i)]) * (1 - f) + np.array(alveolar[int(i) + 1]) * f
            add(s.path((x, y, z - 16), (x, y, z), r=(3.3, 2.0), side=side), solid(T.CORTICAL_BONE))
        for outward in (18, 24):  # medial and lateral plate of the pterygoid process
            plate = s.path((15, -21, 10), (outward, -14, -8), r=(2.6, 1.5), wide=(1, 1.8), side=side)
            add(plate, solid(T.CORTICAL_BONE))
    add([s.ball((0, -46, -13), (23, 25, 3.2))], bone)
    tongue = [s.ball((0, -34, -40), (25, 32, 22)), s.ball((0, -22, -50), (24, 24, 26))]
    add(tongue, ((1.6, T.MUCOSA), (0.0, T.TONGUE)), 3.0, (T.FAT, T.MUSCLE, T.PAROTID))
    add(
        [s.ball((0, -14, -14), (13, 13, 4.5)), *s.path((0, -8, -15), (0, 0, -24), r=(5, 3), wide=(1.8, 0.8))],
        ((0.0, T.MUCOSA), (-1.8, T.MUSCLE)),
        3.0,
    )

    # Orbits.
    for side in SIDES:
        add([s.ball((29, -44, 34), (19, 30, 19), 16, side=side)], ((1.8, T.CORTICAL_BONE), (0.0, T.FAT)))
        add([s.ball((32, -57, 31), (12, 12, 12), side=side)], ((0.0, T.SKIN), (-1.4, T.VITREOUS)))
        add(s.path((30, -46, 31), (17, -16, 33), r=2.2, side=side), solid(T.SPINAL_CORD))
        add(s.path((42, -50, 31), (22, -20, 32), r=(2, 2.2), side=side), solid(T.MUSCLE))
        add(s.path((21, -54, 31), (14, -22, 32), r=(2, 2.2), side=side), solid(T.MUSCLE))
        add(s.path((31, -50, 20), (17, -20, 28), r=(2, 2.4), wide=(1.6, 1), side=side), solid(T.MUSCLE))

    # Paranasal sinuses.
    for side in SIDES:
        thick = rng.choice([0.8, 1.2, 3.0], p=[0.5, 0.35, 0.15])
        antrum = [s.ball((32, -43, 3), (13, 17, 15), -18, side=side), s.ball((28, -54, 2), (9, 9, 12), side=side)]
        add(antrum, ((1.9, T.CORTICAL_BONE), (0.6, T.MUCOSA), (-thick, T.AIR)), 4.0)
        if rng.random() < 0.2:
            cyst = [s.ball((34, -38, -7), (8, 8, 7), side=side)]
            add(cyst, ((0.0, T.MUCOSA), (-1.0, T.FLUID)), 2.0, (T.AIR,))
        for y, z in ((-62, 26), (-53, 22), (-44, 27), (-35, 22), (-28, 27)):
            add(
                [s.ball((6.5, y, z), (4.6, 4.3, 7), side=side)],
                ((0.8, T.CORTICAL_BONE), (0.2, T.MUCOSA), (-0.7, T.AIR)),
            )
    sphenoid = [s.ball((rng.uniform(2, 7), -9, 22), (9, 11, 7)), s.ball((-rng.uniform(2, 7), -9, 22), (9, 11, 7))]
    add(sphenoid, ((1.2, T.CORTICAL_BONE), (0.2, T.MUCOSA), (-0.8, T.AIR)), 1.0)

    # Nasal cavity with septum and turbinates; congestion differs from side to side (nasal cycle).
    septum = rng.normal(0, 1.2)
    for side in SIDES:
        congestion = s.vary(0.22)
        cavity = [
            s.ball((7.5, -46, 3), (7, 29, 16), side=side),
            s.ball((6.0, -74, -2), (4.0, 14, 8), side=side),
            s.ball((7.0, -24, 1), (6, 9, 11), side=side),
        ]
        add(cavity, ((2.2, T.CORTICAL_BONE), (1.4, T.MUCOSA), (0.0, T.AIR)), 4.0)
        over = (T.AIR,)
        add([s.ball((9.5, -48, -5), (4.3 * congestion, 23, 6.5), side=side)], solid(T.MUCOSA), 2.0, over)
        add([s.ball((8.0, -42, 8), (3.5 * congestion, 19, 6.5), side=side)], solid(T.MUCOSA), 2.0, over)
    bend = [s.ball((septum, -46, 2), (1.7, 32, 22))]
    add(bend, ((0.0, T.MUCOSA), (-1.0, T.CORTICAL_BONE)), 2.0, (T.AIR, T.MUCOSA, T.CORTICAL_BONE, T.FAT))

    # Pharynx: airway with lateral recesses (fossae of Rosenmueller) and torus tubarius, mucosa around it.
    width = s.vary(0.12)
    airway: list[Part] = [s.ball((0, -10, 1), (12.5 * width, 12, 13)), s.ball((0, -19, 1), (11, 9, 11))]
    for side in SIDES:
        airway += s.path((8, -3, 3), (17 * width, 2, 4), r=(4.2, 2.0), side=side)
    oropharynx = s.path((0, -5, -4), (0, 2, -22), (0, 5, -60), r=(6.0, 5.0, 6.0), wide=(1.7, 0.75))
    add(oropharynx, ((3.6, T.MUSCLE), (1.2, T.MUCOSA), (0.0, T.AIR)), 2.0)
    lymphoid = rng.uniform(1.8, 3.2)
    add(
        airway,
        ((lymphoid + 1.6, T.MUSCLE), (lymphoid, T.MUCOSA), (0.0, T.AIR)),
        4.0,
        (T.FAT, T.MUSCLE, T.MUCOSA, T.CORTICAL_BONE, T.MARROW, T.TONGUE, T.AIR),
    )
    o = open_side
    lumen = s.path((o * 5, -32, 2), (o * 5, -20, 1), (o * 7, -11, 1), (o * 4, -4, -8), (0, 2, -22), (0, 5, -60), r=3.2)
    add(lumen, solid(T.LUMEN), 2.0, (T.AIR,))
    if rng.random() < 0.45:
        size = rng.uniform(0.6, 1.2)
        adenoid = [s.ball((0, 1, 7), (14, 7 * size, 9)), s.ball((3, -3, 11), (9, 8 * size, 5))]
        add(adenoid, solid(T.ADENOID), 3.0, (T.AIR, T.MUCOSA))
    for side in SIDES:
        torus = [s.ball((14.5, -8, 0), (4.6, 4.4, 8), side=side)]
        add(torus, ((0.0, T.MUCOSA), (-2.4, T.MUSCLE)), 2.0, (T.AIR, T.MUCOSA, T.FAT))

    # Vessels and nodes last: nothing covers them.
    for side in SIDES:
        carotid = ((25, 21, -60), (26, 20, -20), (27, 18, 4), (24, 15, 13), (12, 8, 16), (11, 0, 24), (10, -3, 34))
        add(s.path(*carotid, r=(2.9, 2.7, 2.6, 2.6, 2.6, 2.6, 2.3), side=side), ((0.8, T.MUSCLE), (0.0, T.VESSEL)))
        jugular = ((34, 27, -60), (32, 27, -18), (31, 30, 1), (44, 42, 1), (51, 50, 10), (55, 62, 26))
        size = s.vary(0.15)
        add(s.path(*jugular, r=[size * r for r in (4.6, 4.2, 4.0, 3.2, 3.2, 3.2)], side=side), solid(T.VESSEL))
        add(s.path((21, 33, -60), (22, 34, -14), (8, 38, 2), r=1.7, side=side), solid(T.VESSEL))
        add(s.path((54, 16, -44), (53, 16, 2), r=(2.4, 1.8), side=side), solid(T.VESSEL))
        add(s.path((12, -2, 25), (13, 4, 26), r=4, wide=(0.8, 1.6), side=side), solid(T.VESSEL), 2.0, (T.MARROW, T.CSF))
        if rng.random() < 0.5:
            size, z = rng.uniform(0.7, 1.5), rng.uniform(-14, 2)
            add(
                [s.ball((19.5, 12, z), (3.2 * size, 3.6 * size, 6 * size), side=side)],
                solid(T.NODE),
                2.0,
                (T.FAT, T.MUSCLE),
            )
        for _ in range(rng.integers(1, 4)):
            place, size = (43 + rng.uniform(-4, 4), 27 + rng.uniform(-4, 4), rng.uniform(-34, -14)), rng.uniform(2, 4)
            add([s.ball(place, (size, size, 1.6 * size), side=side)], solid(T.NODE), 2.0, (T.FAT,))
    add(s.path((0, 92, 30), (0, 88, 22), r=3), solid(T.VESSEL))
    return organs


@dataclass(frozen=True)
class TumourGrowth:
    """A front that leaves `origin` and spreads as lobes; the tumour is what it has reached after `reach_mm`."""

    origin: np.ndarray
    lobes: tuple[tuple[np.ndarray, np.ndarray, float], ...]  # centre, inverse relative radii, delay_mm
    volume_ml: float
    surface: RandomField
    detail: RandomField


def _growth(rng: np.random.Generator, side: int) -> TumourGrowth:
    if rng.random() < 0.75:  # most NPC start in the fossa of Rosenmueller
        origin = np.array([side * 14.0, 1.0, 3.0]) + rng.normal(0, 1.5, 3)
    else:
        origin = np.array([side * 4.0, -2.0, 11.0]) + rng.normal(0, 1.5, 3)
    volume_ml = float(np.clip(10 * np.exp(0.72 * rng.standard_normal()), 2.2, 58))
    targets = {
        "parapharyngeal": (side * 28, -4, 0),
        "skull base": (side * 6, 6, 17),
        "prevertebral": (side * 7, 14, -2),
        "across the midline": (-side * 12, 3, 3),
        "nasal cavity": (side * 8, -26, 2),
        "oropharynx": (side * 10, 2, -18),
    }
    chance = np.array([0.28, 0.2, 0.2, 0.17, 0.08, 0.07])
    chosen = rng.choice(len(targets), size=rng.integers(3, 6), replace=False, p=chance)
    lobes = [(origin, 1 / np.array([1.05, 1.1, 0.85]), 0.0)]
    for index in chosen:
        end = np.array(list(targets.values())[index], float) + rng.normal(0, 2, 3)
        centre = origin + rng.uniform(0.5, 1.0) * (end - origin)
        size = np.exp(rng.normal(0, 0.15, 3)) * [1.05, 1.05, 0.9]
        lobes.append((centre, 1 / size, 0.5 * float(np.linalg.norm(centre - origin)) + rng.uniform(0, 2)))
    return TumourGrowth(origin, tuple(lobes), volume_ml, RandomField(rng, 11.0), RandomField(rng, 5.0))


class Anatomy:
    """One patient: a function from world coordinates (mm) to tissue.

    Parameters
    ----------
    rng : generator from which every size, place, deformation and the tumour are drawn.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        shapes = _Shapes(rng)
        self.scale = np.array([0.99 * shapes.vary(0.035), 0.98 * shapes.vary(0.025), shapes.vary(0.035)])
        self.shift_mm = np.clip(rng.normal(0, 1, 3), -2, 2) * [2.0, 1.5, 3.0] + [0.0, -2.0, 0.0]
        self.rotation = _rotation(np.deg2rad(np.clip(rng.normal(0, 1, 3), -2, 2) * [3.0, 2.0, 2.5]))
        self.deformation = [RandomField(rng, 42.0) for _ in range(3)]
        self.folds = RandomField(rng, 7.0)
        self.head = _head(shapes)
        side = int(rng.choice(SIDES))
        self.organs = _organs(shapes, -side)
        self.bounds = tuple(np.array(b) for b in zip(*(organ.bounds for organ in [self.head, *self.organs])))
        self.growth = _growth(rng, side)
        self._grow()

    def tissue(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Tissue (len(z), len(y), len(x)) uint8 on the world axes z, y, x in mm."""
        out = np.empty((len(z), len(y), len(x)), np.uint8)
        for part in _blocks(len(z), len(y) * len(x)):
            place = self._anatomical(z[part], y, x)
            out[part] = self._paint(place, (z[part], y, x))
            found = self._level(out[part], place, (z[part], y, x))
            if found is not None:
                block, level = found
                reached = level < self.reach_mm
                if reached.any():
                    reached &= self._connected([axis[part] for axis, part in zip((z[part], y, x), block)])
                    out[part][block][reached] = Tissue.TUMOUR
        return out

    def _anatomical(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """World axes to anatomical coordinates x, y, z, each (len(z), len(y), len(x))."""
        world = [axis.astype(np.float32) - np.float32(o) for axis, o in zip((x, y, z), self.shift_mm)]
        world = [world[0][None, None, :], world[1][None, :, None], world[2][:, None, None]]
        out = []
        for row, scale, field in zip(self.rotation, self.scale, self.deformation):
            r = (row / scale).astype(np.float32)
            out.append(world[0] * r[0] + world[1] * r[1] + world[2] * r[2] + np.float32(1.3) * field(z, y, x))
        return tuple(out)

    def _paint(self, place: Sequence[np.ndarray], axes: Sequence[np.ndarray]) -> np.ndarray:
        x, y, z = place
        boxes = _Extent(x, y, z).boxes(*self.bounds)
        tissue = np.full(x.shape, Tissue.OUTSIDE, np.uint8)
        if boxes[0] is None:
            return tissue
        whole = boxes[0]
        inside = np.zeros(x.shape, bool)
        depth = self.head.distance(x[whole], y[whole], z[whole])
        for offset, value in self.head.layers:
            tissue[whole][depth < offset] = value
        inside[whole] = depth < -3.5
        for organ, block in zip(self.organs, boxes[1:]):
            if block is None:
                continue
            distance = organ.distance(x[block], y[block], z[block])
            target = tissue[block]
            free = inside[block] & (distance < organ.layers[0][0])
            if organ.over:
                allowed = np.zeros(max(Tissue) + 1, bool)
                allowed[list(organ.over)] = True
                free &= allowed[target]
            if organ.fold_mm:
                folds = self.folds(*(axis[part] for axis, part in zip(axes, block)))
                folded = np.minimum(distance + np.float32(organ.fold_mm) * folds, distance + np.float32(3.0))
            for offset, value in organ.layers:
                target[free & ((folded if organ.fold_mm and offset < -3 else distance) < offset)] = value
        return tissue

    def _level(
        self, tissue: np.ndarray, place: Sequence[np.ndarray], axes: Sequence[np.ndarray]
    ) -> tuple[tuple[slice, ...], np.ndarray] | None:
        """Growth in mm after which the front arrives, in the block where that can be; infinite where it never does."""
        growth = self.growth
        (block,) = _Extent(*place).boxes(growth.origin[None] - 45.0, growth.origin[None] + 45.0)
        if block is None:
            return None
        x, y, z = (p[block] for p in place)
        level = None
        for centre, inverse, delay in growth.lobes:
            dx, dy, dz = ((p - np.float32(c)) * np.float32(i) for p, c, i in zip((x, y, z), centre, inverse))
            arrival = np.sqrt(dx * dx + dy * dy + dz * dz) + np.float32(delay)
            level = arrival if level is None else smooth_minimum(level, arrival, 3.0)
        near = [axis[part] for axis, part in zip(axes, block)]
        level = level + np.float32(2.2) * growth.surface(*near) + np.float32(0.7) * growth.detail(*near)
        resistance = np.full(max(Tissue) + 1, np.inf, np.float32)
        for value, delay in RESISTANCE_MM.items():
            resistance[value] = delay
        return block, level + resistance[tissue[block]]

    def _grow(self) -> None:
        """Find once, on a grid of `GROWTH_STEP_MM`, the reach that gives the volume, and the part in one piece.

        Without the second, noise and resistance would leave islands ahead of the front.
        """
        centre = self.shift_mm[::-1]
        axes = [c + np.arange(-h, h + 1e-6, GROWTH_STEP_MM) for c, h in zip(centre, (35.0, 42.5, 42.5))]
        place = self._anatomical(*axes)
        found = self._level(self._paint(place, axes), place, axes)
        assert found is not None
        level = np.full(place[0].shape, np.inf, np.float32)
        level[found[0]] = found[1]
        self.growth_origin_mm = np.array([axis[0] for axis in axes])
        arrival = np.sort(level, axis=None)
        wanted = round(self.growth.volume_ml * 1000 / GROWTH_STEP_MM**3)
        count = wanted
        for _ in range(4):
            self.reach_mm = float(arrival[min(count, int(np.isfinite(arrival).sum()) - 1)])
            pieces, _ = ndimage.label(level < self.reach_mm)
            largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
            count += wanted - int(largest.sum())
        # One step wider than the piece itself, since the surface passes between grid points; empty at the border.
        self.piece = ndimage.binary_dilation(largest)
        for axis in range(3):
            np.moveaxis(self.piece, axis, 0)[[0, -1]] = False

    def _connected(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        index = [
            np.clip(np.rint((axis - first) / GROWTH_STEP_MM).astype(int), 0, n - 1)
            for axis, first, n in zip(axes, self.growth_origin_mm, self.piece.shape)
        ]
        return self.piece[np.ix_(*index)]


class _Extent:
    """Smallest and largest anatomical coordinate of each column, row and plane of a block."""

    def __init__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        self.ranges = [
            (coords.min(axis=axes), coords.max(axis=axes)) for coords, axes in ((x, (0, 1)), (y, (0, 2)), (z, (1, 2)))
        ]

    def boxes(self, low: np.ndarray, high: np.ndarray) -> list[tuple[slice, slice, slice] | None]:
        """For each row of low and high, (n, 3) as x, y, z in mm: the index box (z, y, x) of the points between them.

        None where there is no such point.
        """
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


def _blocks(planes: int, plane_size: int, points: int = 60_000) -> Iterator[slice]:
    """Runs of planes of about `points` points, so that temporaries stay in cache."""
    step = max(1, points // plane_size)
    return (slice(i, i + step) for i in range(0, planes, step))


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix about x (nod), y (tilt) and z (turn); radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    nod = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    tilt = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return turn @ tilt @ nod

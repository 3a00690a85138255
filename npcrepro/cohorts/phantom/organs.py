"""The organs of one patient in anatomical coordinates, region by region, in the order in which they are painted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npcrepro.cohorts.phantom.shapes import Ellipsoid, Layers, Organ, Part, Triple, Tube
from npcrepro.cohorts.phantom.tissues import Structure as S
from npcrepro.cohorts.phantom.tissues import Tissue as T

SIDES = (-1, 1)  # right, left
BONE: Layers = ((0.0, T.CORTICAL_BONE), (-1.6, T.MARROW))
THIN_BONE: Layers = ((0.0, T.CORTICAL_BONE), (-1.1, T.MARROW))
SOFT = (T.FAT, T.MUSCLE)


def solid(tissue: T) -> Layers:
    """One layer up to the surface."""
    return ((0.0, tissue),)


def of_side(side: int, right: S, left: S) -> S:
    """The structure of side +1 (left) or -1 (right)."""
    return left if side > 0 else right


class Patient:
    """Parts with the patient's own random variation of place and size.

    Attributes:
        fat: 0 for a thin and 1 for an obese patient.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.fat = float(rng.beta(1.5, 2.5))
        # A sheath of fat around each muscle leaves the planes that separate them.
        self.muscle: Layers = ((0.3 + 0.8 * self.fat, T.FAT), (0.0, T.MUSCLE))

    def vary(self, spread: float) -> float:
        """A factor about 1, log-normal, cut at two standard deviations."""
        return float(np.exp(spread * np.clip(self.rng.standard_normal(), -2, 2)))

    def shift(self, sd_mm: float) -> np.ndarray:
        """A displacement (3,) in mm, cut at two standard deviations."""
        return sd_mm * np.clip(self.rng.standard_normal(3), -2, 2)

    def ball(self, centre: Triple, radii: Triple, yaw: float = 0.0, *, side: int = 1, sd: float = 0.6) -> Ellipsoid:
        """An ellipsoid; centre and yaw are those of the left side, `side` -1 mirrors them."""
        cx, cy, cz = np.array(centre) + self.shift(sd)
        # At most about 1.2 mm, so that a large skull still fits a large head.
        rx, ry, rz = (r * self.vary(min(0.05, 1.2 / r)) for r in radii)
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


def head(p: Patient) -> Organ:
    """Surface of head, neck and shoulders, with skin, the fat below it and the thin muscle of face and neck in it."""
    body: list[Part] = [
        p.ball((0, 14, 38), (73, 87, 74)),
        p.ball((0, -26, -2), (59, 48, 48)),
        p.ball((0, -34, -40), (49, 40, 25)),
        p.ball((0, 30, -34), (56, 54, 56)),
    ]
    for side in SIDES:
        body.append(p.ball((32, -57, 31), (15, 14, 14), side=side))
        body += [p.ball((44, -37, 4), (19, 24, 26), side=side), p.ball((56, 4, -12), (16, 34, 48), side=side)]
    body.append(p.ball((0, -38, -54), (30, 26, 10 + 12 * p.fat)))
    neck = p.path((0, 32, -40), (0, 31, -85), (0, 38, -150), r=(50, 50, 58), wide=(1.04, 1.1))
    for side in SIDES:
        neck += p.path((22, 48, -126), (150, 56, -176), r=(36, 46), side=side)
    nose: list[Part] = [p.ball((0, -72, -1), (9, 15, 14))]
    nose += p.path((0, -70, 30), (0, -80, 6), (0, -89, -6), r=(8, 9, 8))
    ears: list[Part] = []
    flare = p.rng.uniform(14, 30)
    for side in SIDES:
        nose.append(p.ball((8, -82, -8), (6, 8, 6), side=side))
        ears.append(p.ball((75, 22, 4), (3.2, 11, 21), -flare, side=side))
    face = Organ([Organ(body, blend_mm=14.0), Organ(neck, blend_mm=26.0), *nose], blend_mm=11.0)
    grow = 0.5 + 4.5 * p.fat
    deep = 3.4 + 2.2 * p.fat
    layers = (
        (grow, T.SKIN),
        (grow - 2.0, T.FAT),
        (grow - deep, T.MUSCLE),
        (grow - deep - p.rng.uniform(1.2, 2.0), T.FAT),
    )
    return Organ([face, *ears], layers, blend_mm=4.0)


def neck_muscles(p: Patient) -> list[Organ]:
    """Neck down to the shoulders: a core of muscle, planes and spaces of fat in it, then the single muscles."""
    out: list[Organ] = []

    def add(parts: Sequence[Part], layers: Layers = p.muscle, blend_mm: float = 2.0) -> None:
        out.append(Organ(parts, layers, blend_mm))

    slim = 1.06 - 0.14 * p.fat
    add(p.path((0, 36, -32), (0, 35, -85), (0, 44, -150), r=(47, 43, 46), wide=(1.0, 1.1)))
    for side in SIDES:
        shoulder = p.path((50, 58, -128), (150, 62, -178), r=(20, 34), side=side)
        add(shoulder)
        # Spaces of the carotid sheath and of the posterior triangle.
        sheath = p.path((34, 24, -10), (34, 22, -70), (36, 26, -140), r=7 + 5 * p.fat, wide=(1.3, 0.9), side=side)
        add(sheath, solid(T.FAT))
        add([p.ball((47, 46, -84), (7 + 5 * p.fat, 15, 34), 25, side=side)], solid(T.FAT))
        add([p.ball((46, 30, -128), (20, 16, 12 + 5 * p.fat), side=side)], solid(T.FAT))
    add([p.ball((0, 60, -30), (48, 32, 44))])
    for side in SIDES:
        add([p.ball((31, 43, -28), (9.5, 12, 20), side=side)])
        add([p.ball((30, 58, -20), (11, 10, 18), 30, side=side)])
        add([p.ball((11, 62, -17), (9.5, 7, 17), 12, side=side)])
        add(p.path((13, 66, -10), (16, 70, -50), (17, 74, -134), r=(8, 10, 11), wide=(1.2, 0.75), side=side))
        add(p.path((10, 61, -44), (11, 66, -140), r=(6, 8), wide=(1.1, 0.9), side=side))
        add(p.path((26, 77, -12), (24, 80, -60), (20, 84, -136), r=(9, 9, 8), wide=(1.8, 0.6), side=side))
        trapezius = p.path((12, 88, -10), (26, 89, -70), (52, 84, -116), (150, 66, -160), r=(6, 8, 10, 12), side=side)
        add([Tube(t.start, t.end, t.radius, t.end_radius, (1.5, 0.62)) for t in trapezius], blend_mm=3.0)
        add(p.path((41, 56, -30), (45, 60, -80), (54, 66, -130), r=(7, 8, 8), wide=(0.8, 1.2), side=side))
        add(p.path((30, 40, -50), (33, 40, -90), (48, 38, -138), r=(5, 7.5, 9), wide=(0.9, 1.2), side=side))
        add(p.path((24, 30, -60), (28, 28, -95), (40, 22, -140), r=(3.5, 5, 7), side=side))
        mastoid = ((58, 42, 0), (55, 34, -42), (45, 14, -88), (20, -8, -138))
        add(p.path(*mastoid, r=(8 * slim, 9.5 * slim, 9 * slim, 6), wide=(0.75, 1.6), side=side), blend_mm=4.0)
        add(p.path((50, 36, -2), (42, 22, -34), (34, -4, -58), r=(4.5, 5, 2.6), side=side))
        add(p.path((14, -22, -68), (14, -21, -100), (12, -12, -140), r=(4, 4.5, 5), wide=(1.9, 0.6), side=side))
        add(p.path((10, 15, -48), (10, 16, -85), (11, 28, -136), r=(6, 6, 6), wide=(1.3, 0.8), side=side))
    return out


def head_muscles(p: Patient) -> list[Organ]:
    """Muscles of chewing, face, pharynx and in front of the spine."""
    out: list[Organ] = []
    slim = 1.1 - 0.12 * p.fat

    def add(parts: Sequence[Part]) -> None:
        out.append(Organ(parts, p.muscle))

    for side in SIDES:
        add([p.ball((57.5, -16, -21), (9.5 * slim, 23, 28), 8, side=side)])
        add([p.ball((56, -20, 19), (9.5 * slim, 22, 31), 6, side=side)])
        add(p.path((21, -20, 6), (33, -8, 4), (46, 5, 3), r=(10.5, 12, 7), wide=(1.0, 1.15), side=side))
        add(p.path((20, -14, -2), (31, -9, -18), (41, -5, -38), r=(8, 11, 9), wide=(0.9, 1.25), side=side))
        add(p.path((49, -28, 16), (48, -20, -10), r=(9 * slim, 6), wide=(0.8, 1.2), side=side))
        add([p.ball((37, -48, -26), (4.5 * slim, 26, 17), -22, side=side)])
        add(p.path((42, -62, 12), (32, -70, -16), r=(2.0, 2.6), wide=(1.8, 0.8), side=side))
        add(p.path((14, -66, -8), (24, -64, -18), r=(3.2, 2.8), side=side))
        add(p.path((30, -58, -48), (22, -66, -30), r=(2.6, 2.6), wide=(1.8, 0.8), side=side))
    add([*p.path((-24, -65, -24), (0, -72, -25), (24, -65, -24), r=4.6), p.ball((0, -73, -40), (14, 3.6, 8))])
    for side in SIDES:
        add(p.path((8, 16, -48), (9, 13.5, -14), (8, 10.5, 7), r=(6, 7, 6), wide=(1.5, 0.85), side=side))
        add([p.ball((36, 30, -6), (8, 6, 9), side=side)])
        add(p.path((40, 12, 0), (30, 2, -30), r=(4.5, 4.5), side=side))
        add(p.path((21, -8, 9), (17, -9, -12), r=(3.0, 2.4), wide=(0.8, 1.6), side=side))
    return out


def glands(p: Patient) -> list[Organ]:
    """Parotid and submandibular glands."""
    out: list[Organ] = []
    for side in SIDES:
        size = p.vary(0.05)
        parotid = [p.ball((61, 15, -15), (12 * size, 18, 27 * size), -14, side=side)]
        parotid += [p.ball((50, 17, -17), (10, 9, 20), side=side), p.ball((66, -3, -14), (4.5, 18, 17), 6, side=side)]
        structure = of_side(side, S.Parotid_R, S.Parotid_L)
        out.append(Organ(parotid, solid(T.PAROTID), 5.0, structure=structure))
        gland = [p.ball((32, -11, -54), (10.4, 15, 13.4), 18, side=side), p.ball((29, -21, -48), (6, 9, 7), side=side)]
        structure = of_side(side, S.Submandibular_R, S.Submandibular_L)
        layers = ((0.8, T.FAT), (0.0, T.SUBMANDIBULAR))
        out.append(Organ(gland, layers, 4.0, structure=structure))
    return out


def brain(p: Patient) -> list[Organ]:
    """Cranial vault and base with cerebrum and cerebellum; mastoid cells."""
    out: list[Organ] = []
    fossa: list[Part] = [p.ball((0, 16, 62), (67, 80, 40))]
    cerebellum: list[Part] = [p.ball((0, 54, 18), (52, 36, 21)), p.ball((0, 50, 32), (56, 42, 24))]
    base: list[Part] = [p.ball((0, -7, 22), (23, 17, 11))]
    petrous: list[Part] = []
    for side in SIDES:
        fossa += [p.ball((42, -3, 31), (22, 27, 17), -18, side=side), p.ball((44, 14, 36), (24, 30, 18), side=side)]
        petrous += p.path((12, 12, 15), (36, 24, 13), (56, 33, 8), r=(7.5, 9.5, 11), side=side)
        petrous += p.path((56, 35, 4), (55, 36, -9), r=(9, 5), side=side)
    for x in (-7, 0, 7):
        base += p.path((x, 19, 1), (x, 9, 24), r=(4.5, 6.5))
    cerebrum = ((1.4, T.CORTICAL_BONE), (0.2, T.CSF), (-0.8, T.GREY_MATTER), (-3.8, T.WHITE_MATTER))
    folia = [(-2.4 - 1.7 * i, (T.WHITE_MATTER, T.GREY_MATTER)[i % 2]) for i in range(7)]
    out.append(Organ(fossa[:1], ((6.8, T.CORTICAL_BONE), (5.2, T.MARROW), (2.6, T.CORTICAL_BONE))))
    out.append(Organ(fossa, cerebrum, 12.0, fold_mm=5.0))
    # Not over the cerebrum: its layer of CSF stays as the tentorium.
    outside = (T.FAT, T.MUSCLE, T.PAROTID, T.CORTICAL_BONE, T.MARROW)
    cerebellum_layers = (
        (4.6, T.CORTICAL_BONE),
        (3.4, T.MARROW),
        (1.2, T.CORTICAL_BONE),
        (0.2, T.CSF),
        (-1.0, T.GREY_MATTER),
        *folia,
    )
    out.append(Organ(cerebellum, cerebellum_layers, 10.0, outside, fold_mm=8.0))

    matter = (T.GREY_MATTER, T.WHITE_MATTER)
    falx = [p.ball((0, 20, 76), (1.1, 78, 30), p.rng.normal(0, 0.6))]
    out.append(Organ(falx, solid(T.CSF), 2.0, matter))
    ventricle_size = p.vary(0.3)
    for side in SIDES:
        out.append(Organ([p.ball((24, 10, 52), (7, 15, 8), 12, side=side)], solid(T.GREY_MATTER), 2.0, matter))
        out.append(Organ([p.ball((9, 20, 50), (7, 12, 8), 15, side=side)], solid(T.GREY_MATTER), 2.0, matter))
        horn = p.path((9, -14, 57), (8, 10, 62), (15, 36, 60), (26, 44, 52), (32, 22, 40), r=3.2, side=side)
        horn = [Tube(t.start, t.end, t.radius * ventricle_size, t.end_radius * ventricle_size) for t in horn]
        out.append(Organ(horn, solid(T.CSF), 3.0, matter))
        sylvian = p.path((26, -22, 38), (44, -18, 43), (57, 6, 49), (58, 26, 56), r=1.5, wide=(2.2, 1.0), side=side)
        sylvian += [p.ball((37, -2, 51), (1.6, 17, 8), side=side), *p.path((38, -6, 46), (58, 2, 48), r=1.4, side=side)]
        out.append(Organ(sylvian, solid(T.CSF), 3.0, matter))
        lobe = [p.ball((43, -3, 31), (26, 33, 17), -18, side=side), p.ball((47, 18, 36), (27, 40, 16), side=side)]
        out.append(Organ(lobe, (), 4.0, matter, of_side(side, S.TemporalLobe_R, S.TemporalLobe_L)))
    out.append(Organ([p.ball((0, 16, 44), (1.8 * ventricle_size, 11, 8))], solid(T.CSF), 2.0, matter))

    out.append(Organ(petrous, ((0.0, T.CORTICAL_BONE), (-2.5, T.MARROW), (-6.0, T.CORTICAL_BONE)), 3.0))
    out.append(Organ(base, BONE, 4.0))
    for side in SIDES:
        for _ in range(p.rng.integers(5, 11)):
            cell = (55 + p.rng.uniform(-6, 5), 35 + p.rng.uniform(-6, 8), p.rng.uniform(-4, 16))
            radii = p.rng.uniform(1.8, 3.6, 3)
            out.append(Organ([p.ball(cell, tuple(radii), side=side)], ((0.8, T.CORTICAL_BONE), (0.0, T.AIR))))
        out.append(Organ(p.path((74, 18, 6), (60, 18, 7), (48, 19, 8), r=(2.4, 2.2, 3.0), side=side), solid(T.AIR)))
    return out


# Height, front to back of the centre, and radius across of the vertebral bodies C3 to T2.
BODIES = ((-46, 27, 11.5), (-63, 26.5, 12), (-80, 27.5, 12.5), (-97, 31, 13), (-114, 37, 14), (-132, 44, 15))


def spine(p: Patient) -> list[Organ]:
    """Vertebrae, discs and condyles of the occiput, then canal, cord and brain stem."""
    out: list[Organ] = []

    def add(parts: Sequence[Part], layers: Layers = BONE, blend_mm: float = 2.0) -> None:
        out.append(Organ(parts, layers, blend_mm))

    add([p.ball((0, 26.5, -37.5), (9.5, 7.5, 5), sd=0.2)], solid(T.CARTILAGE))
    for z, y, r in BODIES:
        # Discs first, taller than the gap: the bodies cut them to plates.
        add([p.ball((0, y + 1.5, z - 8.7), (r * 0.98, 8.2, 4.6), sd=0.2)], solid(T.CARTILAGE))
    for z, y, r in BODIES:
        add(p.path((-r * 0.42, y, z), (r * 0.42, y, z), r=7.4, wide=(1.0, 1.12)), BONE, 3.0)
        for side in SIDES:
            pillar = p.path((r + 6, y + 14, z + 5), (r + 6, y + 16, z - 6), r=(5.5, 5.5), side=side)
            add([*pillar, *p.path((r - 2, y + 5, z), (r + 5, y + 12, z), r=3.0, side=side)], THIN_BONE)
            add(p.path((r + 1, y, z - 2), (r + 9, y + 4, z - 4), r=(2.4, 3.0), side=side), THIN_BONE)
            add(p.path((r + 5, y + 18, z), (r - 1, y + 27, z - 3), (1, y + 32, z - 5), r=2.6, side=side), THIN_BONE)
        long = 1.0 + 0.9 * (z < -90)
        add(p.path((0, y + 31, z - 5), (0, y + 38 + 9 * long, z - 9 - 3 * long), r=(2.8, 3.4)), THIN_BONE)
    add(p.path((0, 26, -22), (0, 26, -3), r=(6, 5)))
    add([p.ball((0, 26, -28), (12, 9, 9))])
    add([p.ball((0, 18.5, -9), (9, 3.6, 5.5))])
    for side in SIDES:
        add([p.ball((20, 30, -10), (9, 9, 7), side=side)])
        add([p.ball((17, 27, 0), (6, 11, 6), 25, side=side)])
        add([p.ball((17, 32, -24), (9, 8, 7), side=side)])
        arch = p.path((24, 36, -10), (23, 48, -11), (12, 57, -12), (0, 59, -12), r=2.8, side=side)
        add([*arch, *p.path((24, 32, -10), (38, 34, -11), r=(4, 3.5), side=side)])
        lamina = p.path((18, 38, -28), (15, 50, -30), (4, 60, -32), r=(3.4, 3.4, 4), side=side)
        add([*lamina, *p.path((0, 60, -33), (2, 70, -35), r=3.4)])
        add(p.path((52, 24, 2), (44, 16, -18), r=(2.4, 1.4), side=side), solid(T.CORTICAL_BONE))
        rib = p.path((20, 58, -132), (56, 62, -138), (88, 30, -152), r=5, side=side)
        add(rib)
        add(p.path((8, -14, -146), (60, -2, -140), (140, 34, -136), r=6, side=side))

    line = ((0, 41, 4), (0, 43, -10), (0, 44, -44), (0, 44, -64), (0, 46, -86), (0, 53, -112), (0, 62, -150))
    canal = p.path(*line, r=(11, 10.5, 9, 8.5, 8.5, 8.5, 8.5), wide=(1.15, 0.95))
    add(canal, ((1.0, T.CORTICAL_BONE), (0.0, T.CSF)))
    cord = p.path(*line[1:], r=(5.8, 5.4, 5.6, 5.8, 5.4, 5.0), wide=(1.2, 0.85))
    out.append(Organ(cord, solid(T.SPINAL_CORD), structure=S.SpinalCord))
    cisterns = [p.ball((0, 30, 24), (22, 15, 15)), p.ball((0, 0, 38), (12, 10, 5))]
    out.append(Organ(cisterns, solid(T.CSF), 4.0, (T.GREY_MATTER, T.WHITE_MATTER)))
    peduncles: list[Part] = []
    for side in SIDES:
        peduncles += p.path((14, 40, 22), (28, 48, 22), r=6.5, side=side)
        out.append(Organ(p.path((6, 30, 40), (14, 22, 48), r=(6.5, 7), side=side), solid(T.WHITE_MATTER), 3.0))
    out.append(Organ(peduncles, solid(T.WHITE_MATTER), 4.0))
    stem = [p.ball((0, 35, 22), (18, 13.2, 13.5)), p.ball((0, 36, 38), (15.5, 12, 8.5))]
    stem += p.path((0, 43, -3), (0, 40, 14), r=(6.8, 9.0), wide=(1.15, 0.95))
    out.append(Organ(stem, solid(T.WHITE_MATTER), 5.0, structure=S.BrainStem))
    out.append(Organ([p.ball((0, 51, 20), (7, 3.5, 12))], solid(T.CSF)))
    return out


UPPER_ARCH = ((28, -24, -20), (25, -43, -20), (15, -59, -20), (0, -66, -20))
LOWER_ARCH = ((30, -20, -38), (25, -43, -38), (14, -58, -38), (0, -64, -38))
TOOTH_RADII = (5.0, 5.0, 4.8, 3.6, 3.5, 3.6, 3.0, 3.0)  # from the last molar to the middle


def jaws(p: Patient) -> list[Organ]:
    """Zygoma, maxilla, palate, mandible, teeth with fillings, tongue, soft palate and floor of the mouth."""
    out: list[Organ] = []
    mandible: list[Part] = []
    for side in SIDES:
        zygoma = p.path((46, -46, 8), (58, -34, 9), (67, -12, 9), (66, 6, 10), r=(7, 4.5, 2.8, 3.4), side=side)
        out.append(Organ(zygoma, BONE))
        mandible += [
            p.ball((48.5, -5, -20), (5.4, 16.5, 24), 12, side=side),
            p.ball((51, 11, 3), (8.5, 4.8, 6), side=side),
        ]
        mandible += p.path((50, 8, -8), (51, 10, 2), r=(4.2, 4.2), side=side)
        mandible += p.path((50, -18, -12), (51, -19, 6), r=(3.5, 2.2), wide=(1, 1.7), side=side)
        lower = p.path((47, -6, -38), (39, -32, -43), (23, -57, -46), (0, -67, -47), r=(6.8, 6.8, 7.0, 7.6), side=side)
        upper = p.path((45, -10, -32), *LOWER_ARCH, r=(5, 6.2, 6, 5.4, 5.2), side=side)
        mandible += [*lower, *upper]
        out.append(Organ(p.path(*UPPER_ARCH, r=(6.4, 6.6, 6.5, 6.5), side=side), THIN_BONE))
        for outward in (18, 24):  # medial and lateral plate of the pterygoid process
            plate = p.path((15, -21, 10), (outward, -14, -8), r=(2.6, 1.5), wide=(1, 1.8), side=side)
            out.append(Organ(plate, solid(T.CORTICAL_BONE)))
    layers = ((0.0, T.CORTICAL_BONE), (-2.0, T.MARROW))
    out.append(Organ(mandible, layers, 3.0, structure=(S.Mandible_R, S.Mandible_L)))
    out.append(Organ([p.ball((0, -46, -13), (23, 25, 3.2))], BONE))
    floor = [p.ball((0, -36, -55), (27, 26, 8))]
    out.append(Organ(floor, p.muscle, over=SOFT))
    for side in SIDES:
        digastric = p.path((7, -60, -53), (14, -26, -64), r=(4, 4.5), wide=(1.5, 1), side=side)
        out.append(Organ(digastric, p.muscle, over=SOFT))
    tongue = [p.ball((0, -34, -40), (24, 28, 21)), p.ball((0, -22, -48), (23, 24, 24))]
    out.append(Organ(tongue, ((1.6, T.MUCOSA), (0.0, T.TONGUE)), 3.0, SOFT))
    out.append(Organ([p.ball((0, -36, -42), (0.9, 20, 16))], solid(T.FAT), 2.0, (T.TONGUE,)))
    for side in SIDES:
        sublingual = [p.ball((13, -42, -51), (4, 14, 5), 14, side=side)]
        out.append(Organ(sublingual, solid(T.SUBMANDIBULAR), 2.0, (T.TONGUE, T.MUCOSA, *SOFT)))
    out.append(Organ([p.ball((0, -36, -18.5), (12, 14, 1.3))], solid(T.AIR), 2.0, (T.TONGUE, T.MUCOSA, *SOFT)))
    out += _teeth(p)
    soft_palate = [p.ball((0, -14, -14), (13, 13, 4.5)), *p.path((0, -8, -15), (0, 0, -24), r=(5, 3), wide=(1.8, 0.8))]
    out.append(Organ(soft_palate, ((0.0, T.MUCOSA), (-1.8, T.MUSCLE)), 3.0))
    return out


def _teeth(p: Patient) -> list[Organ]:
    """Eight teeth on each side of each jaw, some lost; fillings in a third of the patients."""
    teeth: list[Organ] = []
    crowns: list[Triple] = []
    for arch, root, crown in ((UPPER_ARCH, 4.0, -9.5), (LOWER_ARCH, -5.0, 7.5)):
        points = np.array(arch, float)
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        ends = np.cumsum(np.array(TOOTH_RADII) * 2)
        places = (ends - TOOTH_RADII) / ends[-1] * along[-1]
        for side in SIDES:
            for place, radius in zip(places, TOOTH_RADII):
                x, y, z = (np.interp(place, along, points[:, axis]) for axis in range(3))
                if p.rng.random() < 0.04:
                    continue
                size = 0.9 * along[-1] / ends[-1] * radius
                tooth = p.path((x, y, z + root), (x, y, z + crown), r=(0.55 * size, size), side=side)
                teeth.append(Organ(tooth, solid(T.TOOTH)))
                if radius > 4:
                    crowns.append((side * x, y, z + crown))
    if p.rng.random() < 1 / 3:
        for index in p.rng.choice(len(crowns), size=p.rng.integers(1, 4), replace=False):
            teeth.append(Organ([p.ball(crowns[index], (2.8, 3.0, 2.4))], solid(T.METAL), over=(T.TOOTH,)))
    return teeth


def orbits(p: Patient) -> list[Organ]:
    """Orbits with eyes, muscles and optic nerves; chiasm and pituitary."""
    out: list[Organ] = []
    eye_size = p.vary(0.015)
    for side in SIDES:
        out.append(
            Organ([p.ball((29, -42, 31.5), (18, 29, 16.5), 16, side=side)], ((1.8, T.CORTICAL_BONE), (0.0, T.FAT)))
        )
        cx, cy, cz = np.array([side * 32, -54, 31]) + p.shift(0.6)
        eye = Ellipsoid((cx, cy, cz), (12.4 * eye_size,) * 3)
        layers = ((0.0, T.CARTILAGE), (-1.4, T.VITREOUS))  # the sclera is as dark as cartilage
        out.append(Organ([eye], layers, structure=of_side(side, S.Eye_R, S.Eye_L)))
        lens = Ellipsoid((cx, cy - eye.radii[1] + 4.2, cz), (4.6, 2.1, 4.6))
        out.append(Organ([lens], solid(T.LENS), structure=of_side(side, S.Lens_R, S.Lens_L)))
        back = (side * cx - 2, cy + eye.radii[1] - 1, cz)
        nerve = p.path(back, (24, -30, 32.5), (17, -16, 33.5), (9, -5, 36.5), r=2.05, side=side)
        out.append(Organ(nerve, solid(T.OPTIC_NERVE), structure=of_side(side, S.OpticNerve_R, S.OpticNerve_L)))
        over = (T.FAT, T.SKIN)
        for start, end, r, wide in (
            ((42, -50, 31), (22, -20, 32), 2.1, (1, 1)),
            ((21, -54, 31), (14, -22, 32), 2.1, (1, 1)),
            ((31, -50, 20), (17, -20, 28), 2.2, (1.6, 1)),
            ((31, -52, 43), (18, -20, 37), 2.1, (1.6, 1)),
        ):
            out.append(Organ(p.path(start, end, r=r, wide=wide, side=side), solid(T.MUSCLE), 2.0, over))
        out.append(Organ([p.ball((41, -54, 42), (5, 7, 4), side=side)], solid(T.PAROTID), 2.0, over))
    out.append(Organ([p.ball((0, 2, 31), (6.2, 5, 3.8))], solid(T.MUCOSA), structure=S.Pituitary))
    chiasm: list[Part] = [p.ball((0, -1, 37.5), (7.5, 4.2, 2.6), sd=0.3)]
    for side in SIDES:
        chiasm += p.path((4, 1, 37.5), (10, 9, 38), r=1.8, side=side)
    out.append(Organ(chiasm, solid(T.OPTIC_NERVE), 2.0, structure=S.OpticChiasm))
    return out


def sinuses(p: Patient) -> list[Organ]:
    """Paranasal sinuses and nasal cavity."""
    out: list[Organ] = []
    rng = p.rng
    for side in SIDES:
        thick = rng.choice([0.8, 1.2, 3.0], p=[0.5, 0.35, 0.15])
        antrum = [p.ball((32, -42, 3), (13.5, 19, 16), -18, side=side), p.ball((28, -54, 2), (9, 9, 12), side=side)]
        out.append(Organ(antrum, ((1.9, T.CORTICAL_BONE), (0.6, T.MUCOSA), (-thick, T.AIR)), 4.0))
        if rng.random() < 0.2:
            cyst = [p.ball((34, -38, -7), (8, 8, 7), side=side)]
            out.append(Organ(cyst, ((0.0, T.MUCOSA), (-1.0, T.FLUID)), 2.0, (T.AIR,)))
        if rng.random() < 0.12:
            level = [p.ball((31, -38, -6), (16, 24, 10), side=side)]
            out.append(Organ(level, solid(T.FLUID), 2.0, (T.AIR,)))
        for y, z in ((-62, 26), (-53, 22), (-44, 27), (-35, 22), (-28, 27)):
            for x in (5.5, 11.5):
                radii = np.array([3.6, 4.3, 6.5]) * np.exp(rng.normal(0, 0.18, 3))
                cell = [p.ball((x, y, z), tuple(radii), rng.uniform(-25, 25), side=side, sd=1.3)]
                out.append(Organ(cell, ((0.7, T.CORTICAL_BONE), (0.2, T.MUCOSA), (-0.6, T.AIR))))
        frontal = [p.ball((9, -62, 48), (9 * p.vary(0.25), 4, 8 * p.vary(0.25)), 20, side=side)]
        out.append(Organ(frontal, ((1.5, T.CORTICAL_BONE), (0.2, T.MUCOSA), (-0.6, T.AIR))))
    sphenoid = [p.ball((rng.uniform(2, 7), -9, 21), (9, 11, 7)), p.ball((-rng.uniform(2, 7), -9, 21), (9, 11, 7))]
    out.append(Organ(sphenoid, ((1.2, T.CORTICAL_BONE), (0.2, T.MUCOSA), (-0.8, T.AIR)), 1.0))

    # Septum and turbinates; congestion differs from side to side (nasal cycle).
    for side in SIDES:
        cavity = [
            p.ball((7.5, -46, 3), (7, 29, 16), side=side),
            p.ball((6.0, -74, -2), (4.0, 14, 8), side=side),
            p.ball((7.0, -24, 1), (6, 9, 11), side=side),
        ]
        out.append(Organ(cavity, ((2.2, T.CORTICAL_BONE), (1.4, T.MUCOSA), (0.0, T.AIR)), 4.0))
        congestion = p.vary(0.22)
        lower = [p.ball((9.5, -48, -5), (4.3 * congestion, 23, 6.5), side=side)]
        out.append(Organ(lower, ((0.0, T.MUCOSA), (-3.2, T.CORTICAL_BONE)), 2.0, (T.AIR,)))
        middle = [p.ball((8.0, -42, 8), (3.5 * congestion, 19, 6.5), side=side)]
        out.append(Organ(middle, ((0.0, T.MUCOSA), (-2.6, T.CORTICAL_BONE)), 2.0, (T.AIR,)))
    bend = [p.ball((rng.normal(0, 1.2), -46, 2), (1.7, 32, 22), rng.normal(0, 1.5))]
    over = (T.AIR, T.MUCOSA, T.CORTICAL_BONE, T.FAT)
    out.append(Organ(bend, ((0.0, T.MUCOSA), (-1.0, T.CORTICAL_BONE)), 2.0, over))
    return out


def pharynx(p: Patient, open_side: int) -> list[Organ]:
    """Airway from the nasopharynx to the trachea, lymphoid tissue, larynx; the airway stays open on `open_side`."""
    out: list[Organ] = []
    rng = p.rng
    larynx: list[Organ] = []
    hyoid = [*p.path((-22, 0, -62), (-13, -18, -66), (0, -24, -67), (13, -18, -66), (22, 0, -62), r=2.3)]
    larynx.append(Organ(hyoid, THIN_BONE))
    for side in SIDES:
        plate = [p.ball((10, -14, -86), (2.2, 15, 13), 38, side=side)]
        larynx.append(Organ(plate, ((1.0, T.FAT), (0.0, T.CARTILAGE))))
        lobe = p.path((15, 2, -98), (13, 3, -118), r=(5, 7.5), wide=(0.9, 1.3), side=side)
        larynx.append(Organ(lobe, ((0.6, T.FAT), (0.0, T.MUCOSA))))
    cords = [p.ball((0, -10, -88), (9, 14, 13))]
    larynx.append(Organ(cords, solid(T.MUSCLE)))
    ring = p.path((0, -6, -101), (0, -4, -109), r=12.5, wide=(0.95, 1.0))
    larynx.append(Organ(ring, ((0.5, T.FAT), (0.0, T.CARTILAGE), (-3.0, T.MUSCLE))))
    out += larynx
    gullet = p.path((0, 12, -100), (0, 17, -120), (2, 26, -150), r=5.5, wide=(1.4, 0.8))
    out.append(Organ(gullet, ((0.0, T.MUSCLE), (-2.4, T.MUCOSA), (-4.0, T.AIR))))
    trachea = p.path((0, -6, -98), (0, -2, -116), (0, 10, -150), r=(7, 8, 8.5))
    out.append(Organ(trachea, ((2.2, T.CARTILAGE), (0.8, T.MUCOSA), (0.0, T.AIR))))
    glottis = p.path((0, -2, -72), (0, -8, -84), (0, -8, -98), r=(6, 4.5, 6), wide=(0.6, 1.5))
    out.append(Organ(glottis, ((1.2, T.MUCOSA), (0.0, T.AIR))))

    width = p.vary(0.12)
    oropharynx = p.path((0, -5, -4), (0, 2, -22), (0, 4, -50), (0, 3, -74), r=(6.0, 5.0, 6.0, 6.5), wide=(1.7, 0.75))
    out.append(Organ(oropharynx, ((3.6, T.MUSCLE), (1.2, T.MUCOSA), (0.0, T.AIR)), 2.0))
    tonsil_size = rng.uniform(0.7, 1.3)
    for side in SIDES:
        tonsil = [p.ball((13.5, 0, -26), (4.5 * tonsil_size, 6, 9 * tonsil_size), side=side)]
        out.append(Organ(tonsil, solid(T.ADENOID), 2.0, (T.FAT, T.MUSCLE, T.MUCOSA, T.AIR)))
    # One passage through all of these, which the walls painted over each other would close.
    passage = p.path((0, 4, -50), (0, 3, -70), (0, -3, -78), (0, -8, -90), (0, -6, -102), (0, -2, -116), r=2.8)
    out.append(Organ(passage, solid(T.AIR), 2.0, (T.MUSCLE, T.MUCOSA)))
    epiglottis = [p.ball((0, -7, -66), (9, 1.8, 9))]
    out.append(Organ(epiglottis, ((0.8, T.MUCOSA), (0.0, T.CARTILAGE)), 2.0, (T.AIR, T.MUCOSA, *SOFT)))

    airway: list[Part] = [p.ball((0, -9, 1), (11.8 * width, 11, 12.5)), p.ball((0, -19, 1), (10.5, 9, 10.5))]
    for side in SIDES:
        airway += p.path((8, -3, 3), (17 * width, 2, 4), r=(4.2, 2.0), side=side)
    lymphoid = rng.uniform(1.8, 3.2)
    over = (T.FAT, T.MUSCLE, T.MUCOSA, T.CORTICAL_BONE, T.MARROW, T.TONGUE, T.AIR)
    wall = ((lymphoid + 1.6, T.MUSCLE), (lymphoid, T.MUCOSA), (0.0, T.AIR))
    out.append(Organ(airway, wall, 4.0, over))
    o = open_side
    lumen = ((o * 5, -32, 2), (o * 5, -20, 1), (o * 7, -11, 1), (o * 4, -4, -8), (0, 2, -22), (0, 4, -60))
    out.append(Organ(p.path(*lumen, r=3.2), solid(T.LUMEN), 2.0, (T.AIR, T.MUCOSA, T.MUSCLE)))
    if rng.random() < 0.45:
        size = rng.uniform(0.6, 1.2)
        adenoid = [p.ball((0, 1, 7), (14, 7 * size, 9)), p.ball((3, -3, 11), (9, 8 * size, 5))]
        out.append(Organ(adenoid, solid(T.ADENOID), 3.0, (T.AIR, T.MUCOSA)))
    for side in SIDES:
        torus = [p.ball((14.5, -8, 0), (4.6, 4.4, 8), side=side)]
        out.append(Organ(torus, ((0.0, T.MUCOSA), (-2.4, T.CARTILAGE)), 2.0, (T.AIR, T.MUCOSA, T.FAT, T.MUSCLE)))
    return out


def vessels(p: Patient) -> list[Organ]:
    """Arteries of neck and skull base, jugular veins, venous sinuses."""
    out: list[Organ] = []
    artery: Layers = ((0.8, T.MUSCLE), (0.0, T.ARTERY))
    common = ((22, 22, -150), (25, 20, -110), (27, 20, -74), (28, 20, -64))
    inner = ((28, 22, -64), (28, 22, -45), (26, 20, -20), (27, 18, 4), (24, 15, 13), (12, 8, 16), (11, 0, 24))
    outer = ((28, 17, -66), (33, 9, -50), (42, 11, -26), (53, 14, -4))
    vertebral = ((20, 34, -150), (18, 30, -114), (18, 30, -80), (18, 29, -44), (21, 33, -16), (22, 42, -8))
    jugular = ((38, 22, -150), (37, 22, -110), (36, 27, -60), (32, 27, -18), (31, 30, 1), (44, 42, 1), (51, 50, 10))
    transverse = ((51, 50, 10), (56, 62, 26), (44, 84, 32), (4, 97, 33))
    for side in SIDES:
        out.append(Organ(p.path(*common, r=(3.5, 3.4, 3.6, 4.2), side=side), artery))
        out.append(Organ(p.path(*inner, (10, -4, 29), (12, 2, 33), r=(3.4, 2.7) + (2.5,) * 7, side=side), artery))
        out.append(Organ(p.path(*outer, r=(2.4, 2.2, 2.0, 1.6), side=side), artery))
        out.append(Organ(p.path(*vertebral, (9, 34, 0), (0, 22, 10), r=p.vary(0.2) * 1.7, side=side), solid(T.ARTERY)))
        size = p.vary(0.15)
        radii = [size * r for r in (6.0, 5.6, 5.4, 4.4, 4.0, 3.4, 3.2)]
        out.append(Organ(p.path(*jugular, r=radii, side=side), solid(T.VEIN)))
        out.append(Organ(p.path(*transverse, r=[size * 3.2] * 4, side=side), solid(T.VEIN)))
        out.append(Organ(p.path((54, 16, -44), (53, 16, 2), r=(2.4, 1.8), side=side), solid(T.VEIN)))
        cavernous = p.path((11, -8, 27), (13, 9, 27), r=4.2, wide=(0.85, 1.4), side=side)
        out.append(Organ(cavernous, solid(T.VEIN), 2.0, (T.MARROW, T.CSF, T.CORTICAL_BONE, *SOFT)))
        superficial = p.path((60, 26, -40), (54, 28, -90), (46, 24, -130), r=1.7, side=side)
        out.append(Organ(superficial, solid(T.VEIN), 2.0, (T.FAT,)))
    out.append(Organ(p.path((0, 22.5, 8), (0, 21.5, 30), r=1.7), solid(T.ARTERY)))
    out.append(Organ(p.path((0, 97, 34), (0, 95, 60), (0, 60, 98), (0, 10, 103), r=2.8), solid(T.VEIN)))
    return out


def nodes(p: Patient) -> list[Organ]:
    """Normal lymph nodes, then metastatic ones: N0, N1, N2, N3 in 5, 27, 57 and 11 % of the patients (Xue 2020)."""
    out: list[Organ] = []
    rng = p.rng
    for side in SIDES:
        if rng.random() < 0.5:
            size, z = rng.uniform(0.7, 1.3), rng.uniform(-14, 2)
            node = [p.ball((19.5, 12, z), (3.2 * size, 3.6 * size, 6 * size), side=side)]
            out.append(Organ(node, solid(T.NODE), 2.0, SOFT))
        for low, high, x, y in ((-34, -14, 43, 28), (-90, -45, 42, 30)):
            for _ in range(rng.integers(1, 4)):
                place, size = (
                    (x + rng.uniform(-5, 5), y + rng.uniform(-6, 6), rng.uniform(low, high)),
                    rng.uniform(2, 4),
                )
                node = [p.ball(place, (size, size, 1.6 * size), side=side)]
                out.append(Organ(node, solid(T.NODE), 2.0, (T.FAT,)))
    stage = int(rng.choice(4, p=[0.05, 0.27, 0.57, 0.11]))
    number = (0, int(rng.integers(1, 3)), int(rng.integers(2, 5)), int(rng.integers(3, 7)))[stage]
    first = int(rng.choice(SIDES))
    taken: list[tuple[np.ndarray, float]] = []
    while len(taken) < number:
        # N1 is on one side of the neck, beyond that on both.
        side = first if stage == 1 else first * (1, -1)[len(taken) % 2]
        place, largest = _LEVELS[rng.choice(len(_LEVELS) - (stage < 3), p=_CHANCE[stage == 3])]
        centre = np.array(place) + rng.uniform(-1, 1, 3) * [2.5, 4, 7]
        centre[0] *= side
        radius = min(largest, float(rng.uniform(5, 9) if stage < 3 else rng.uniform(7, 12)))
        if any(np.linalg.norm(centre - other) < radius + reach for other, reach in taken):
            number -= rng.random() < 0.2  # no endless search in a full neck
            continue
        taken.append((centre, radius))
        out.append(_metastasis(p, centre, radius))
    return out


# Centre of the left side and largest radius in mm: retropharyngeal, levels IIa, IIb, III, V.
_LEVELS = (
    ((20, 11, -3), 7.0),
    ((42, 20, -42), 12.0),
    ((45, 33, -32), 10.0),
    ((43, 22, -72), 11.0),
    ((52, 48, -76), 10.0),
)
_CHANCE = ([0.35, 0.3, 0.2, 0.15], [0.2, 0.3, 0.2, 0.2, 0.1])


def _metastasis(p: Patient, centre: np.ndarray, radius: float) -> Organ:
    # A lobe beside the main body keeps the outline from being an ellipsoid.
    lobe = centre + p.rng.uniform(-0.6, 0.6, 3) * radius
    parts = [
        Ellipsoid(tuple(centre), tuple(radius * p.rng.uniform([0.85, 0.85, 1.1], [1.05, 1.05, 1.45]))),
        Ellipsoid(tuple(lobe), tuple(radius * p.rng.uniform(0.5, 0.75, 3))),
    ]
    layers: Layers = ((0.6, T.FAT), (0.0, T.METASTATIC_NODE))
    if radius > 6 and p.rng.random() < 0.4:
        layers = (*layers, (-radius * p.rng.uniform(0.25, 0.6), T.NECROSIS))
    return Organ(parts, layers, 3.0, (T.FAT, T.MUSCLE, T.NODE, T.VEIN), S.GTVnd)


def organs(p: Patient, open_side: int) -> list[Organ]:
    """All organs inside the head, in the order in which they are painted; the airway stays open on `open_side`."""
    regions = [neck_muscles(p), head_muscles(p), glands(p), brain(p), spine(p), jaws(p), orbits(p), sinuses(p)]
    regions += [pharynx(p, open_side), vessels(p), nodes(p)]
    return [organ for region in regions for organ in region]

"""Surface of the head, muscles and glands, blood vessels and lymph nodes."""

from dataclasses import replace

import numpy as np

from npcrepro.cohorts.phantom.shapes import SIDES, SOFT, Ellipsoid, Layers, Organ, Part, Patient
from npcrepro.cohorts.phantom.tissues import Structure as S
from npcrepro.cohorts.phantom.tissues import Tissue as T


def head(p: Patient) -> Organ:
    """Surface of head, neck and shoulders, with skin, the fat below it and the thin muscle of face and neck in it."""
    body: list[Part] = (
        p.ball((0, 14, 38), (73, 87, 74))
        + p.ball((0, -26, -2), (59, 48, 48))
        + p.ball((0, -34, -40), (49, 40, 25))
        + p.ball((0, 30, -34), (56, 54, 56))
    )
    for s in p.sides:
        body += s.ball((32, -57, 31), (15, 14, 14))
        body += s.ball((44, -37, 4), (19, 24, 26)) + s.ball((56, 4, -12), (16, 34, 48))
    body += p.ball((0, -38, -54), (30, 26, 10 + 12 * p.fat))
    neck = p.path((0, 32, -40), (0, 31, -85), (0, 38, -150), r=(50, 50, 58), wide=(1.04, 1.1))
    for s in p.sides:
        neck += s.path((22, 48, -126), (150, 56, -176), r=(36, 46))
    nose: list[Part] = p.ball((0, -72, -1), (9, 15, 14))
    nose += p.path((0, -70, 30), (0, -80, 6), (0, -89, -6), r=(8, 9, 8))
    ears: list[Part] = []
    flare = p.rng.uniform(14, 30)
    for s in p.sides:
        nose += s.ball((8, -82, -8), (6, 8, 6))
        ears += s.ball((75, 22, 4), (3.2, 11, 21), -flare)
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


def neck_muscles(p: Patient) -> None:
    """Neck down to the shoulders: a core of muscle, planes and spaces of fat in it, then the single muscles."""
    slim = 1.06 - 0.14 * p.fat
    p.add(p.path((0, 36, -32), (0, 35, -85), (0, 44, -150), r=(47, 43, 46), wide=(1.0, 1.1)), p.muscle)
    for s in p.sides:
        p.add(s.path((50, 58, -128), (150, 62, -178), r=(20, 34)), p.muscle)
        p.add(s.path((34, 24, -10), (34, 22, -70), (36, 26, -140), r=7 + 5 * p.fat, wide=(1.3, 0.9)), T.FAT)
        p.add(s.ball((47, 46, -84), (7 + 5 * p.fat, 15, 34), 25), T.FAT)  # posterior triangle of the neck
        p.add(s.ball((46, 30, -128), (20, 16, 12 + 5 * p.fat)), T.FAT)
    p.add(p.ball((0, 60, -30), (48, 32, 44)), p.muscle)
    for s in p.sides:
        p.add(s.ball((31, 43, -28), (9.5, 12, 20)), p.muscle)
        p.add(s.ball((30, 58, -20), (11, 10, 18), 30), p.muscle)
        p.add(s.ball((11, 62, -17), (9.5, 7, 17), 12), p.muscle)
        p.add(s.path((13, 66, -10), (16, 70, -50), (17, 74, -134), r=(8, 10, 11), wide=(1.2, 0.75)), p.muscle)
        p.add(s.path((10, 61, -44), (11, 66, -140), r=(6, 8), wide=(1.1, 0.9)), p.muscle)
        p.add(s.path((26, 77, -12), (24, 80, -60), (20, 84, -136), r=(9, 9, 8), wide=(1.8, 0.6)), p.muscle)
        trapezius = s.path((12, 88, -10), (26, 89, -70), (52, 84, -116), (150, 66, -160), r=(6, 8, 10, 12))
        p.add([replace(tube, wide=(1.5, 0.62)) for tube in trapezius], p.muscle, blend_mm=3.0)
        p.add(s.path((41, 56, -30), (45, 60, -80), (54, 66, -130), r=(7, 8, 8), wide=(0.8, 1.2)), p.muscle)
        p.add(s.path((30, 40, -50), (33, 40, -90), (48, 38, -138), r=(5, 7.5, 9), wide=(0.9, 1.2)), p.muscle)
        p.add(s.path((24, 30, -60), (28, 28, -95), (40, 22, -140), r=(3.5, 5, 7)), p.muscle)
        mastoid = ((58, 42, 0), (55, 34, -42), (45, 14, -88), (20, -8, -138))
        p.add(s.path(*mastoid, r=(8 * slim, 9.5 * slim, 9 * slim, 6), wide=(0.75, 1.6)), p.muscle, blend_mm=4.0)
        p.add(s.path((50, 36, -2), (42, 22, -34), (34, -4, -58), r=(4.5, 5, 2.6)), p.muscle)
        p.add(s.path((14, -22, -68), (14, -21, -100), (12, -12, -140), r=(4, 4.5, 5), wide=(1.9, 0.6)), p.muscle)
        p.add(s.path((10, 15, -48), (10, 16, -85), (11, 28, -136), r=(6, 6, 6), wide=(1.3, 0.8)), p.muscle)


def head_muscles(p: Patient) -> None:
    """Muscles of chewing, face, pharynx and in front of the spine."""
    slim = 1.1 - 0.12 * p.fat
    for s in p.sides:
        p.add(s.ball((57.5, -16, -21), (9.5 * slim, 23, 28), 8), p.muscle)
        p.add(s.ball((56, -20, 19), (9.5 * slim, 22, 31), 6), p.muscle)
        p.add(s.path((21, -20, 6), (33, -8, 4), (46, 5, 3), r=(10.5, 12, 7), wide=(1.0, 1.15)), p.muscle)
        p.add(s.path((20, -14, -2), (31, -9, -18), (41, -5, -38), r=(8, 11, 9), wide=(0.9, 1.25)), p.muscle)
        p.add(s.path((49, -28, 16), (48, -20, -10), r=(9 * slim, 6), wide=(0.8, 1.2)), p.muscle)
        p.add(s.ball((37, -48, -26), (4.5 * slim, 26, 17), -22), p.muscle)
        p.add(s.path((42, -62, 12), (32, -70, -16), r=(2.0, 2.6), wide=(1.8, 0.8)), p.muscle)
        p.add(s.path((14, -66, -8), (24, -64, -18), r=(3.2, 2.8)), p.muscle)
        p.add(s.path((30, -58, -48), (22, -66, -30), r=(2.6, 2.6), wide=(1.8, 0.8)), p.muscle)
    p.add(p.path((-24, -65, -24), (0, -72, -25), (24, -65, -24), r=4.6) + p.ball((0, -73, -40), (14, 3.6, 8)), p.muscle)
    for s in p.sides:
        p.add(s.path((8, 16, -48), (9, 13.5, -14), (8, 10.5, 7), r=(6, 7, 6), wide=(1.5, 0.85)), p.muscle)
        p.add(s.ball((36, 30, -6), (8, 6, 9)), p.muscle)
        p.add(s.path((40, 12, 0), (30, 2, -30), r=(4.5, 4.5)), p.muscle)
        p.add(s.path((21, -8, 9), (17, -9, -12), r=(3.0, 2.4), wide=(0.8, 1.6)), p.muscle)


def glands(p: Patient) -> None:
    """Parotid and submandibular glands."""
    for s in p.sides:
        size = p.vary(0.05)
        parotid = s.ball((61, 15, -15), (12 * size, 18, 27 * size), -14)
        parotid += s.ball((50, 17, -17), (10, 9, 20)) + s.ball((66, -3, -14), (4.5, 18, 17), 6)
        p.add(parotid, T.PAROTID, 5.0, structure=s.structure("Parotid"))
        gland = s.ball((32, -11, -54), (10.4, 15, 13.4), 18) + s.ball((29, -21, -48), (6, 9, 7))
        p.add(gland, ((0.8, T.FAT), (0.0, T.SUBMANDIBULAR)), 4.0, structure=s.structure("Submandibular"))


def vessels(p: Patient) -> None:
    """Arteries of neck and skull base, jugular veins, venous sinuses."""
    artery: Layers = ((0.8, T.MUSCLE), (0.0, T.ARTERY))
    common = ((22, 22, -150), (25, 20, -110), (27, 20, -74), (28, 20, -64))
    inner = ((28, 22, -64), (28, 22, -45), (26, 20, -20), (27, 18, 4), (24, 15, 13), (12, 8, 16), (11, 0, 24))
    outer = ((28, 17, -66), (33, 9, -50), (42, 11, -26), (53, 14, -4))
    vertebral = ((20, 34, -150), (18, 30, -114), (18, 30, -80), (18, 29, -44), (21, 33, -16), (22, 42, -8))
    jugular = ((38, 22, -150), (37, 22, -110), (36, 27, -60), (32, 27, -18), (31, 30, 1), (44, 42, 1), (51, 50, 10))
    transverse = ((51, 50, 10), (56, 62, 26), (44, 84, 32), (4, 97, 33))
    for s in p.sides:
        p.add(s.path(*common, r=(3.5, 3.4, 3.6, 4.2)), artery)
        p.add(s.path(*inner, (10, -4, 29), (12, 2, 33), r=(3.4, 2.7) + (2.5,) * 7), artery)
        p.add(s.path(*outer, r=(2.4, 2.2, 2.0, 1.6)), artery)
        p.add(s.path(*vertebral, (9, 34, 0), (0, 22, 10), r=p.vary(0.2) * 1.7), T.ARTERY)
        size = p.vary(0.15)
        radii = [size * r for r in (6.0, 5.6, 5.4, 4.4, 4.0, 3.4, 3.2)]
        p.add(s.path(*jugular, r=radii), T.VEIN)
        p.add(s.path(*transverse, r=[size * 3.2] * 4), T.VEIN)
        p.add(s.path((54, 16, -44), (53, 16, 2), r=(2.4, 1.8)), T.VEIN)
        cavernous = s.path((11, -8, 27), (13, 9, 27), r=4.2, wide=(0.85, 1.4))
        p.add(cavernous, T.VEIN, over=(T.MARROW, T.CSF, T.CORTICAL_BONE, *SOFT))
        p.add(s.path((60, 26, -40), (54, 28, -90), (46, 24, -130), r=1.7), T.VEIN, over=(T.FAT,))
    p.add(p.path((0, 22.5, 8), (0, 21.5, 30), r=1.7), T.ARTERY)
    p.add(p.path((0, 97, 34), (0, 95, 60), (0, 60, 98), (0, 10, 103), r=2.8), T.VEIN)


# Centre on the left side and largest radius in mm: retropharyngeal, levels IIa, IIb, III, V.
_LEVELS = (
    ((20, 11, -3), 7.0),
    ((42, 20, -42), 12.0),
    ((45, 33, -32), 10.0),
    ((43, 22, -72), 11.0),
    ((52, 48, -76), 10.0),
)
_CHANCE = ([0.35, 0.3, 0.2, 0.15], [0.2, 0.3, 0.2, 0.2, 0.1])


def nodes(p: Patient) -> None:
    """Normal lymph nodes, then metastatic ones: N0, N1, N2, N3 in 5, 27, 57 and 11 % of the patients (Xue 2020)."""
    rng = p.rng
    for s in p.sides:
        if rng.random() < 0.5:
            size, z = rng.uniform(0.7, 1.3), rng.uniform(-14, 2)
            p.add(s.ball((19.5, 12, z), (3.2 * size, 3.6 * size, 6 * size)), T.NODE, over=SOFT)
        for low, high, x, y in ((-34, -14, 43, 28), (-90, -45, 42, 30)):
            for _ in range(rng.integers(1, 4)):
                place, size = (
                    (x + rng.uniform(-5, 5), y + rng.uniform(-6, 6), rng.uniform(low, high)),
                    rng.uniform(2, 4),
                )
                p.add(s.ball(place, (size, size, 1.6 * size)), T.NODE, over=(T.FAT,))
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
        _add_metastasis(p, centre, radius)


def _add_metastasis(p: Patient, centre: np.ndarray, radius: float) -> None:
    # A lobe beside the main body keeps the outline from being an ellipsoid.
    lobe = centre + p.rng.uniform(-0.6, 0.6, 3) * radius
    parts = [
        Ellipsoid(tuple(centre), tuple(radius * p.rng.uniform([0.85, 0.85, 1.1], [1.05, 1.05, 1.45]))),
        Ellipsoid(tuple(lobe), tuple(radius * p.rng.uniform(0.5, 0.75, 3))),
    ]
    layers: Layers = ((0.6, T.FAT), (0.0, T.METASTATIC_NODE))
    if radius > 6 and p.rng.random() < 0.4:
        layers = (*layers, (-radius * p.rng.uniform(0.25, 0.6), T.NECROSIS))
    p.add(parts, layers, 3.0, (T.FAT, T.MUSCLE, T.NODE, T.VEIN), S.GTVnd)

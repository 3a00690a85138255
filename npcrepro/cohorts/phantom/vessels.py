"""Blood vessels and lymph nodes."""

from __future__ import annotations

import numpy as np

from npcrepro.cohorts.phantom.patient import SIDES, SOFT, Patient
from npcrepro.cohorts.phantom.shapes import Ellipsoid, Layers
from npcrepro.cohorts.phantom.tissues import Structure as S
from npcrepro.cohorts.phantom.tissues import Tissue as T


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

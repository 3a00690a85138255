"""Sinuses, nasal cavity, pharynx and larynx."""

import numpy as np

from npcrepro.cohorts.phantom.shapes import SOFT, THIN_BONE, Part, Patient
from npcrepro.cohorts.phantom.tissues import Tissue as T


def sinuses(p: Patient) -> None:
    """Paranasal sinuses and nasal cavity."""
    rng = p.rng
    for s in p.sides:
        thick = rng.choice([0.8, 1.2, 3.0], p=[0.5, 0.35, 0.15])
        antrum = s.ball((32, -42, 3), (13.5, 19, 16), -18) + s.ball((28, -54, 2), (9, 9, 12))
        p.add(antrum, ((1.9, T.CORTICAL_BONE), (0.6, T.MUCOSA), (-thick, T.AIR)), 4.0)
        if rng.random() < 0.2:
            cyst = s.ball((34, -38, -7), (8, 8, 7))
            p.add(cyst, ((0.0, T.MUCOSA), (-1.0, T.FLUID)), over=(T.AIR,))
        if rng.random() < 0.12:
            p.add(s.ball((31, -38, -6), (16, 24, 10)), T.FLUID, over=(T.AIR,))  # a level of fluid
        for y, z in ((-62, 26), (-53, 22), (-44, 27), (-35, 22), (-28, 27)):
            for x in (5.5, 11.5):
                radii = np.array([3.6, 4.3, 6.5]) * np.exp(rng.normal(0, 0.18, 3))
                cell = s.ball((x, y, z), tuple(radii), rng.uniform(-25, 25), sd=1.3)
                p.add(cell, ((0.7, T.CORTICAL_BONE), (0.2, T.MUCOSA), (-0.6, T.AIR)))
        frontal = s.ball((9, -62, 48), (9 * p.vary(0.25), 4, 8 * p.vary(0.25)), 20)
        p.add(frontal, ((1.5, T.CORTICAL_BONE), (0.2, T.MUCOSA), (-0.6, T.AIR)))
    sphenoid = p.ball((rng.uniform(2, 7), -9, 21), (9, 11, 7)) + p.ball((-rng.uniform(2, 7), -9, 21), (9, 11, 7))
    p.add(sphenoid, ((1.2, T.CORTICAL_BONE), (0.2, T.MUCOSA), (-0.8, T.AIR)), 1.0)
    for s in p.sides:
        cavity = (
            s.ball((7.5, -46, 3), (7, 29, 16))
            + s.ball((6.0, -74, -2), (4.0, 14, 8))
            + s.ball((7.0, -24, 1), (6, 9, 11))
        )
        p.add(cavity, ((2.2, T.CORTICAL_BONE), (1.4, T.MUCOSA), (0.0, T.AIR)), 4.0)
        congestion = p.vary(0.22)  # differs from side to side (nasal cycle)
        lower = s.ball((9.5, -48, -5), (4.3 * congestion, 23, 6.5))
        p.add(lower, ((0.0, T.MUCOSA), (-3.2, T.CORTICAL_BONE)), over=(T.AIR,))
        middle = s.ball((8.0, -42, 8), (3.5 * congestion, 19, 6.5))
        p.add(middle, ((0.0, T.MUCOSA), (-2.6, T.CORTICAL_BONE)), over=(T.AIR,))
    bend = p.ball((rng.normal(0, 1.2), -46, 2), (1.7, 32, 22), rng.normal(0, 1.5))
    p.add(bend, ((0.0, T.MUCOSA), (-1.0, T.CORTICAL_BONE)), over=(T.AIR, T.MUCOSA, T.CORTICAL_BONE, T.FAT))


def pharynx(p: Patient, open_side: int) -> None:
    """Airway from the nasopharynx to the trachea, lymphoid tissue, larynx; the airway stays open on `open_side`."""
    rng = p.rng
    hyoid = p.path((-22, 0, -62), (-13, -18, -66), (0, -24, -67), (13, -18, -66), (22, 0, -62), r=2.3)
    p.add(hyoid, THIN_BONE)
    for s in p.sides:
        p.add(s.ball((10, -14, -86), (2.2, 15, 13), 38), ((1.0, T.FAT), (0.0, T.CARTILAGE)))  # thyroid cartilage
        thyroid = s.path((15, 2, -98), (13, 3, -118), r=(5, 7.5), wide=(0.9, 1.3))
        p.add(thyroid, ((0.6, T.FAT), (0.0, T.MUCOSA)))
    p.add(p.ball((0, -10, -88), (9, 14, 13)), T.MUSCLE)  # vocal cords
    ring = p.path((0, -6, -101), (0, -4, -109), r=12.5, wide=(0.95, 1.0))
    p.add(ring, ((0.5, T.FAT), (0.0, T.CARTILAGE), (-3.0, T.MUSCLE)))
    gullet = p.path((0, 12, -100), (0, 17, -120), (2, 26, -150), r=5.5, wide=(1.4, 0.8))
    p.add(gullet, ((0.0, T.MUSCLE), (-2.4, T.MUCOSA), (-4.0, T.AIR)))
    trachea = p.path((0, -6, -98), (0, -2, -116), (0, 10, -150), r=(7, 8, 8.5))
    p.add(trachea, ((2.2, T.CARTILAGE), (0.8, T.MUCOSA), (0.0, T.AIR)))
    glottis = p.path((0, -2, -72), (0, -8, -84), (0, -8, -98), r=(6, 4.5, 6), wide=(0.6, 1.5))
    p.add(glottis, ((1.2, T.MUCOSA), (0.0, T.AIR)))
    width = p.vary(0.12)
    oropharynx = p.path((0, -5, -4), (0, 2, -22), (0, 4, -50), (0, 3, -74), r=(6.0, 5.0, 6.0, 6.5), wide=(1.7, 0.75))
    p.add(oropharynx, ((3.6, T.MUSCLE), (1.2, T.MUCOSA), (0.0, T.AIR)), 2.0)
    tonsil_size = rng.uniform(0.7, 1.3)
    for s in p.sides:
        tonsil = s.ball((13.5, 0, -26), (4.5 * tonsil_size, 6, 9 * tonsil_size))
        p.add(tonsil, T.ADENOID, over=(T.FAT, T.MUSCLE, T.MUCOSA, T.AIR))
    # One passage through all of these, which the walls painted over each other would close.
    passage = p.path((0, 4, -50), (0, 3, -70), (0, -3, -78), (0, -8, -90), (0, -6, -102), (0, -2, -116), r=2.8)
    p.add(passage, T.AIR, over=(T.MUSCLE, T.MUCOSA))
    epiglottis = p.ball((0, -7, -66), (9, 1.8, 9))
    p.add(epiglottis, ((0.8, T.MUCOSA), (0.0, T.CARTILAGE)), over=(T.AIR, T.MUCOSA, *SOFT))
    airway: list[Part] = p.ball((0, -9, 1), (11.8 * width, 11, 12.5)) + p.ball((0, -19, 1), (10.5, 9, 10.5))
    for s in p.sides:
        airway += s.path((8, -3, 3), (17 * width, 2, 4), r=(4.2, 2.0))
    lymphoid = rng.uniform(1.8, 3.2)
    over = (T.FAT, T.MUSCLE, T.MUCOSA, T.CORTICAL_BONE, T.MARROW, T.TONGUE, T.AIR)
    wall = ((lymphoid + 1.6, T.MUSCLE), (lymphoid, T.MUCOSA), (0.0, T.AIR))
    p.add(airway, wall, 4.0, over)
    o = open_side
    lumen = ((o * 5, -32, 2), (o * 5, -20, 1), (o * 7, -11, 1), (o * 4, -4, -8), (0, 2, -22), (0, 4, -60))
    p.add(p.path(*lumen, r=3.2), T.LUMEN, over=(T.AIR, T.MUCOSA, T.MUSCLE))  # the part that the tumour leaves open
    if rng.random() < 0.45:
        size = rng.uniform(0.6, 1.2)
        adenoid = p.ball((0, 1, 7), (14, 7 * size, 9)) + p.ball((3, -3, 11), (9, 8 * size, 5))
        p.add(adenoid, T.ADENOID, 3.0, (T.AIR, T.MUCOSA))
    for s in p.sides:
        torus = s.ball((14.5, -8, 0), (4.6, 4.4, 8))
        p.add(torus, ((0.0, T.MUCOSA), (-2.4, T.CARTILAGE)), over=(T.AIR, T.MUCOSA, T.FAT, T.MUSCLE))

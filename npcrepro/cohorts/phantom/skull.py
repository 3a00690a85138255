"""Brain, skull, spine, jaws, teeth and orbits."""

from dataclasses import replace

import numpy as np

from npcrepro.cohorts.phantom.shapes import BONE, SOFT, THIN_BONE, Ellipsoid, Part, Patient, Triple
from npcrepro.cohorts.phantom.tissues import Structure as S
from npcrepro.cohorts.phantom.tissues import Tissue as T


def brain(p: Patient) -> None:
    """Cranial vault and base with cerebrum and cerebellum; mastoid cells."""
    fossa: list[Part] = p.ball((0, 16, 62), (67, 80, 40))
    cerebellum: list[Part] = p.ball((0, 54, 18), (52, 36, 21)) + p.ball((0, 50, 32), (56, 42, 24))
    base: list[Part] = p.ball((0, -7, 22), (23, 17, 11))
    petrous: list[Part] = []
    for s in p.sides:
        fossa += s.ball((42, -3, 31), (22, 27, 17), -18) + s.ball((44, 14, 36), (24, 30, 18))
        petrous += s.path((12, 12, 15), (36, 24, 13), (56, 33, 8), r=(7.5, 9.5, 11))
        petrous += s.path((56, 35, 4), (55, 36, -9), r=(9, 5))
    for x in (-7, 0, 7):
        base += p.path((x, 19, 1), (x, 9, 24), r=(4.5, 6.5))
    cerebrum = ((1.4, T.CORTICAL_BONE), (0.2, T.CSF), (-0.8, T.GREY_MATTER), (-3.8, T.WHITE_MATTER))
    folia = [(-2.4 - 1.7 * i, (T.WHITE_MATTER, T.GREY_MATTER)[i % 2]) for i in range(7)]
    p.add(fossa[:1], ((6.8, T.CORTICAL_BONE), (5.2, T.MARROW), (2.6, T.CORTICAL_BONE)))
    p.add(fossa, cerebrum, 12.0, fold_mm=5.0)
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
    p.add(cerebellum, cerebellum_layers, 10.0, outside, fold_mm=8.0)
    matter = (T.GREY_MATTER, T.WHITE_MATTER)
    p.add(p.ball((0, 20, 76), (1.1, 78, 30), p.rng.normal(0, 0.6)), T.CSF, over=matter)  # falx
    ventricle_size = p.vary(0.3)
    for s in p.sides:
        p.add(s.ball((24, 10, 52), (7, 15, 8), 12), T.GREY_MATTER, over=matter)
        p.add(s.ball((9, 20, 50), (7, 12, 8), 15), T.GREY_MATTER, over=matter)
        horn = s.path((9, -14, 57), (8, 10, 62), (15, 36, 60), (26, 44, 52), (32, 22, 40), r=3.2)
        horn = [replace(t, radius=t.radius * ventricle_size, end_radius=t.end_radius * ventricle_size) for t in horn]
        p.add(horn, T.CSF, 3.0, matter)
        sylvian = s.path((26, -22, 38), (44, -18, 43), (57, 6, 49), (58, 26, 56), r=1.5, wide=(2.2, 1.0))
        sylvian += s.ball((37, -2, 51), (1.6, 17, 8)) + s.path((38, -6, 46), (58, 2, 48), r=1.4)
        p.add(sylvian, T.CSF, 3.0, matter)
        lobe = s.ball((43, -3, 31), (26, 33, 17), -18) + s.ball((47, 18, 36), (27, 40, 16))
        p.add(lobe, (), 4.0, matter, s.structure("TemporalLobe"))
    p.add(p.ball((0, 16, 44), (1.8 * ventricle_size, 11, 8)), T.CSF, over=matter)
    p.add(petrous, ((0.0, T.CORTICAL_BONE), (-2.5, T.MARROW), (-6.0, T.CORTICAL_BONE)), 3.0)
    p.add(base, BONE, 4.0)
    for s in p.sides:
        for _ in range(p.rng.integers(5, 11)):
            cell = (55 + p.rng.uniform(-6, 5), 35 + p.rng.uniform(-6, 8), p.rng.uniform(-4, 16))
            radii = p.rng.uniform(1.8, 3.6, 3)
            p.add(s.ball(cell, tuple(radii)), ((0.8, T.CORTICAL_BONE), (0.0, T.AIR)))
        p.add(s.path((74, 18, 6), (60, 18, 7), (48, 19, 8), r=(2.4, 2.2, 3.0)), T.AIR)


# Height, front to back of the centre, and radius across of the vertebral bodies C3 to T2.
BODIES = ((-46, 27, 11.5), (-63, 26.5, 12), (-80, 27.5, 12.5), (-97, 31, 13), (-114, 37, 14), (-132, 44, 15))


def spine(p: Patient) -> None:
    """Vertebrae, discs and condyles of the occiput, then canal, cord and brain stem."""
    p.add(p.ball((0, 26.5, -37.5), (9.5, 7.5, 5), sd=0.2), T.CARTILAGE)
    for z, y, r in BODIES:
        # Discs first, taller than the gap: the bodies cut them to plates.
        p.add(p.ball((0, y + 1.5, z - 8.7), (r * 0.98, 8.2, 4.6), sd=0.2), T.CARTILAGE)
    for z, y, r in BODIES:
        p.add(p.path((-r * 0.42, y, z), (r * 0.42, y, z), r=7.4, wide=(1.0, 1.12)), BONE, 3.0)
        for s in p.sides:
            pillar = s.path((r + 6, y + 14, z + 5), (r + 6, y + 16, z - 6), r=(5.5, 5.5))
            p.add(pillar + s.path((r - 2, y + 5, z), (r + 5, y + 12, z), r=3.0), THIN_BONE)
            p.add(s.path((r + 1, y, z - 2), (r + 9, y + 4, z - 4), r=(2.4, 3.0)), THIN_BONE)
            p.add(s.path((r + 5, y + 18, z), (r - 1, y + 27, z - 3), (1, y + 32, z - 5), r=2.6), THIN_BONE)
        long = 1.0 + 0.9 * (z < -90)
        p.add(p.path((0, y + 31, z - 5), (0, y + 38 + 9 * long, z - 9 - 3 * long), r=(2.8, 3.4)), THIN_BONE)
    p.add(p.path((0, 26, -22), (0, 26, -3), r=(6, 5)), BONE)
    p.add(p.ball((0, 26, -28), (12, 9, 9)), BONE)
    p.add(p.ball((0, 18.5, -9), (9, 3.6, 5.5)), BONE)
    for s in p.sides:
        p.add(s.ball((20, 30, -10), (9, 9, 7)), BONE)
        p.add(s.ball((17, 27, 0), (6, 11, 6), 25), BONE)
        p.add(s.ball((17, 32, -24), (9, 8, 7)), BONE)
        arch = s.path((24, 36, -10), (23, 48, -11), (12, 57, -12), (0, 59, -12), r=2.8)
        p.add(arch + s.path((24, 32, -10), (38, 34, -11), r=(4, 3.5)), BONE)
        lamina = s.path((18, 38, -28), (15, 50, -30), (4, 60, -32), r=(3.4, 3.4, 4))
        p.add(lamina + p.path((0, 60, -33), (2, 70, -35), r=3.4), BONE)
        p.add(s.path((52, 24, 2), (44, 16, -18), r=(2.4, 1.4)), T.CORTICAL_BONE)  # styloid process
        p.add(s.path((20, 58, -132), (56, 62, -138), (88, 30, -152), r=5), BONE)  # first rib
        p.add(s.path((8, -14, -146), (60, -2, -140), (140, 34, -136), r=6), BONE)  # clavicle
    line = ((0, 41, 4), (0, 43, -10), (0, 44, -44), (0, 44, -64), (0, 46, -86), (0, 53, -112), (0, 62, -150))
    p.add(p.path(*line, r=(11, 10.5, 9, 8.5, 8.5, 8.5, 8.5), wide=(1.15, 0.95)), ((1.0, T.CORTICAL_BONE), (0.0, T.CSF)))
    p.add(p.path(*line[1:], r=(5.8, 5.4, 5.6, 5.8, 5.4, 5.0), wide=(1.2, 0.85)), T.SPINAL_CORD, structure=S.SpinalCord)
    cisterns = p.ball((0, 30, 24), (22, 15, 15)) + p.ball((0, 0, 38), (12, 10, 5))
    p.add(cisterns, T.CSF, 4.0, (T.GREY_MATTER, T.WHITE_MATTER))
    peduncles: list[Part] = []
    for s in p.sides:
        peduncles += s.path((14, 40, 22), (28, 48, 22), r=6.5)
        p.add(s.path((6, 30, 40), (14, 22, 48), r=(6.5, 7)), T.WHITE_MATTER, 3.0)
    p.add(peduncles, T.WHITE_MATTER, 4.0)
    stem = p.ball((0, 35, 22), (18, 13.2, 13.5)) + p.ball((0, 36, 38), (15.5, 12, 8.5))
    stem += p.path((0, 43, -3), (0, 40, 14), r=(6.8, 9.0), wide=(1.15, 0.95))
    p.add(stem, T.WHITE_MATTER, 5.0, structure=S.BrainStem)
    p.add(p.ball((0, 51, 20), (7, 3.5, 12)), T.CSF)


UPPER_ARCH = ((28, -24, -20), (25, -43, -20), (15, -59, -20), (0, -66, -20))
LOWER_ARCH = ((30, -20, -38), (25, -43, -38), (14, -58, -38), (0, -64, -38))
TOOTH_RADII = (5.0, 5.0, 4.8, 3.6, 3.5, 3.6, 3.0, 3.0)  # from the last molar to the middle


def jaws(p: Patient) -> None:
    """Zygoma, maxilla, palate, mandible, teeth with fillings, tongue, soft palate and floor of the mouth."""
    mandible: list[Part] = []
    for s in p.sides:
        p.add(s.path((46, -46, 8), (58, -34, 9), (67, -12, 9), (66, 6, 10), r=(7, 4.5, 2.8, 3.4)), BONE)  # zygoma
        mandible += s.ball((48.5, -5, -20), (5.4, 16.5, 24), 12) + s.ball((51, 11, 3), (8.5, 4.8, 6))
        mandible += s.path((50, 8, -8), (51, 10, 2), r=(4.2, 4.2))
        mandible += s.path((50, -18, -12), (51, -19, 6), r=(3.5, 2.2), wide=(1, 1.7))
        lower = s.path((47, -6, -38), (39, -32, -43), (23, -57, -46), (0, -67, -47), r=(6.8, 6.8, 7.0, 7.6))
        upper = s.path((45, -10, -32), *LOWER_ARCH, r=(5, 6.2, 6, 5.4, 5.2))
        mandible += lower + upper
        p.add(s.path(*UPPER_ARCH, r=(6.4, 6.6, 6.5, 6.5)), THIN_BONE)
        for outward in (18, 24):  # medial and lateral plate of the pterygoid process
            p.add(s.path((15, -21, 10), (outward, -14, -8), r=(2.6, 1.5), wide=(1, 1.8)), T.CORTICAL_BONE)
    p.add(mandible, ((0.0, T.CORTICAL_BONE), (-2.0, T.MARROW)), 3.0, structure=(S.Mandible_R, S.Mandible_L))
    p.add(p.ball((0, -46, -13), (23, 25, 3.2)), BONE)  # hard palate
    p.add(p.ball((0, -36, -55), (27, 26, 8)), p.muscle, over=SOFT)  # floor of the mouth
    for s in p.sides:
        p.add(s.path((7, -60, -53), (14, -26, -64), r=(4, 4.5), wide=(1.5, 1)), p.muscle, over=SOFT)  # digastric
    tongue = p.ball((0, -34, -40), (24, 28, 21)) + p.ball((0, -22, -48), (23, 24, 24))
    p.add(tongue, ((1.6, T.MUCOSA), (0.0, T.TONGUE)), 3.0, SOFT)
    p.add(p.ball((0, -36, -42), (0.9, 20, 16)), T.FAT, over=(T.TONGUE,))
    for s in p.sides:
        p.add(s.ball((13, -42, -51), (4, 14, 5), 14), T.SUBMANDIBULAR, over=(T.TONGUE, T.MUCOSA, *SOFT))
    p.add(p.ball((0, -36, -18.5), (12, 14, 1.3)), T.AIR, over=(T.TONGUE, T.MUCOSA, *SOFT))
    _teeth(p)
    soft_palate = p.ball((0, -14, -14), (13, 13, 4.5)) + p.path((0, -8, -15), (0, 0, -24), r=(5, 3), wide=(1.8, 0.8))
    p.add(soft_palate, ((0.0, T.MUCOSA), (-1.8, T.MUSCLE)), 3.0)


def _teeth(p: Patient) -> None:
    """Eight teeth on each side of each jaw, some lost; fillings in a third of the patients."""
    crowns: list[Triple] = []
    for arch, root, crown in ((UPPER_ARCH, 4.0, -9.5), (LOWER_ARCH, -5.0, 7.5)):
        points = np.array(arch, float)
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        ends = np.cumsum(np.array(TOOTH_RADII) * 2)
        places = (ends - TOOTH_RADII) / ends[-1] * along[-1]
        for s in p.sides:
            for place, radius in zip(places, TOOTH_RADII):
                x, y, z = (np.interp(place, along, points[:, axis]) for axis in range(3))
                if p.rng.random() < 0.04:
                    continue
                size = 0.9 * along[-1] / ends[-1] * radius
                p.add(s.path((x, y, z + root), (x, y, z + crown), r=(0.55 * size, size)), T.TOOTH)
                if radius > 4:
                    crowns.append((s.side * x, y, z + crown))
    if p.rng.random() < 1 / 3:
        for index in p.rng.choice(len(crowns), size=p.rng.integers(1, 4), replace=False):
            p.add(p.ball(crowns[index], (2.8, 3.0, 2.4)), T.METAL, over=(T.TOOTH,))


def orbits(p: Patient) -> None:
    """Orbits with eyes, muscles and optic nerves; chiasm and pituitary."""
    eye_size = p.vary(0.015)
    for s in p.sides:
        p.add(s.ball((29, -42, 31.5), (18, 29, 16.5), 16), ((1.8, T.CORTICAL_BONE), (0.0, T.FAT)))
        cx, cy, cz = np.array([s.side * 32, -54, 31]) + p.shift(0.6)
        eye = Ellipsoid((cx, cy, cz), (12.4 * eye_size,) * 3)
        p.add([eye], ((0.0, T.CARTILAGE), (-1.4, T.VITREOUS)), structure=s.structure("Eye"))
        lens = Ellipsoid((cx, cy - eye.radii[1] + 4.2, cz), (4.6, 2.1, 4.6))
        p.add([lens], T.LENS, structure=s.structure("Lens"))
        back = (s.side * cx - 2, cy + eye.radii[1] - 1, cz)
        nerve = s.path(back, (24, -30, 32.5), (17, -16, 33.5), (9, -5, 36.5), r=2.05)
        p.add(nerve, T.OPTIC_NERVE, structure=s.structure("OpticNerve"))
        over = (T.FAT, T.SKIN)
        for start, end, r, wide in (
            ((42, -50, 31), (22, -20, 32), 2.1, (1, 1)),
            ((21, -54, 31), (14, -22, 32), 2.1, (1, 1)),
            ((31, -50, 20), (17, -20, 28), 2.2, (1.6, 1)),
            ((31, -52, 43), (18, -20, 37), 2.1, (1.6, 1)),
        ):
            p.add(s.path(start, end, r=r, wide=wide), T.MUSCLE, over=over)
        p.add(s.ball((41, -54, 42), (5, 7, 4)), T.PAROTID, over=over)
    p.add(p.ball((0, 2, 31), (6.2, 5, 3.8)), T.MUCOSA, structure=S.Pituitary)
    chiasm: list[Part] = p.ball((0, -1, 37.5), (7.5, 4.2, 2.6), sd=0.3)
    for s in p.sides:
        chiasm += s.path((4, 1, 37.5), (10, 9, 38), r=1.8)
    p.add(chiasm, T.OPTIC_NERVE, 2.0, structure=S.OpticChiasm)

"""Computed tomography: Hounsfield units, noise, streaks from dental metal, a marker on the skin, target volumes."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from npcrepro.cohorts.phantom.acquisition import MARKER_RADIUS_MM, Draw, Fields, Grid, Sampled, texture
from npcrepro.cohorts.phantom.anatomy import Anatomy
from npcrepro.cohorts.phantom.shapes import Triple
from npcrepro.cohorts.phantom.tissues import Tissue, columns

# Standard deviation in HU between patients: of any soft tissue, and of the tumour, whose contrast to muscle is small.
SOFT_TISSUE_VARIATION_HU = 3.0
TUMOUR_VARIATION_HU = 5.0
MARKER_HU = 450.0
KERNEL_MM, NOISE_KERNEL_MM = 0.55, 0.8  # sd
NOISE_HU = (9.0, 15.0)  # sd, over patients

# Streaks: height in HU beside a filling of 100 mm2, and the distance over which they fade.
STREAK_HU = 200.0
STREAK_FADE_MM = 55.0
LARGEST_NUMBER_OF_FILLINGS = 24

# Margins in mm from gross tumour to clinical target volume, and what cuts them.
CTV_MARGINS_MM = {"CTV2": ("GTVp", 8.0), "CTVnd": ("GTVnd", 6.0)}
BARRIERS = [
    *(Tissue.OUTSIDE, Tissue.CORTICAL_BONE, Tissue.MARROW, Tissue.TOOTH, Tissue.METAL, Tissue.AIR, Tissue.LUMEN),
    *(Tissue.CSF, Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.SPINAL_CORD),
    *(Tissue.OPTIC_NERVE, Tissue.VITREOUS, Tissue.LENS),
]


class CtScan:
    """The simulation CT with contrast agent of one patient: Hounsfield units, noise and streaks are the patient's own.

    Attributes:
        table: ``(tissue, 2)`` mean and texture in HU.
    """

    motion = None

    def __init__(self, grid: Grid, draw: Draw, marker_mm: Triple) -> None:
        self.grid, self.marker_mm, self.noise = grid, marker_mm, draw("CT noise")
        rng = draw("CT")
        table = np.stack([columns()["hu"], columns()["hu_texture"]], 1)
        shift = np.clip(rng.standard_normal(len(Tissue)), -2, 2)
        sd = np.where(table[:, 0] > 300, 0.06 * table[:, 0], SOFT_TISSUE_VARIATION_HU)
        sd[[Tissue.TUMOUR, Tissue.METASTATIC_NODE]] = TUMOUR_VARIATION_HU
        sd[[Tissue.OUTSIDE, Tissue.AIR, Tissue.LUMEN, Tissue.METAL]] = 0
        table[:, 0] += sd * shift
        streaks = ndimage.gaussian_filter1d(rng.standard_normal((LARGEST_NUMBER_OF_FILLINGS, 180)), 1.2, mode="wrap")
        self.table, self.streaks = table.astype(np.float32), streaks / streaks.std()
        self.noise_hu = rng.uniform(*NOISE_HU)

    def slab(self, out: np.ndarray, sampled: Sampled, moved: None, axes: Sequence[np.ndarray], fields: Fields) -> None:
        """Fill `out` (1, z, y, x)."""
        for image, *parts in zip(out[0], sampled.fractions, texture(fields.water, axes), sampled.marker):
            image[...] = np.rint(self.slice(*parts))

    def slice(self, fractions: np.ndarray, texture: np.ndarray, marker: np.ndarray) -> np.ndarray:
        """One slice (y, x) in HU from tissue fractions (y, x, tissue), texture and fraction of the marker (y, x)."""
        parts = fractions @ self.table
        image = parts[..., 0] + parts[..., 1] * texture
        image += marker * (np.float32(MARKER_HU) - image)
        image = ndimage.gaussian_filter(image, [KERNEL_MM / s for s in self.grid.spacing_mm[1:]])
        metal = fractions[..., Tissue.METAL]
        if metal.any():
            image += _streaks(metal, self.streaks, self.grid)
        noise = self.noise.standard_normal(image.shape, np.float32)
        noise = ndimage.gaussian_filter(noise, [NOISE_KERNEL_MM / s for s in self.grid.spacing_mm[1:]])
        image += noise * np.float32(self.noise_hu / noise.std())
        return np.clip(image, -1024, 3071)


def _streaks(metal: np.ndarray, profiles: np.ndarray, grid: Grid) -> np.ndarray:
    """Streaks (y, x) in HU: from each filling a fan of bright and dark lines, dark towards the other fillings."""
    pieces, count = ndimage.label(metal > 0)
    numbers = np.arange(1, min(count, LARGEST_NUMBER_OF_FILLINGS) + 1)
    centres = np.array(ndimage.center_of_mass(metal, pieces, numbers)) * grid.spacing_mm[1:]
    areas = ndimage.sum_labels(metal, pieces, numbers) * np.prod(grid.spacing_mm[1:])
    y, x = (np.arange(n, dtype=np.float32) * np.float32(s) for n, s in zip(metal.shape, grid.spacing_mm[1:]))
    degrees = np.arange(180)
    out = np.zeros(metal.shape, np.float32)
    for centre, area, profile in zip(centres, areas, profiles):
        profile = profile.copy()
        for other in centres:
            if (other != centre).any():
                towards = np.degrees(np.arctan2(*(other - centre))) % 180
                off = np.abs((degrees - towards + 90) % 180 - 90)
                profile -= 1.5 * np.exp(-((off / 4) ** 2))
        profile = np.append(profile, profile[0]).astype(np.float32)
        dy, dx = y[:, None] - np.float32(centre[0]), x - np.float32(centre[1])
        away = np.hypot(dy, dx)
        angle = np.degrees(np.arctan2(dy, dx)) % 180
        height = STREAK_HU * np.sqrt(area / 100)
        out += np.interp(angle, np.arange(181), profile) * height * np.exp(-away / STREAK_FADE_MM) * (away > 2)
    return out


def marker_place(anatomy: Anatomy, rng: np.random.Generator) -> Triple:
    """Centre (x, y, z) in mm of a ball that lies on the skin of the left cheek."""
    y, z = np.array([-26.0, 0.0]) + rng.normal(0, 2.0, 2)
    x = np.arange(20.0, 120.0, 0.5)
    outside = anatomy.regions(np.array([z]), np.array([y]), x)[0][0, 0] == Tissue.OUTSIDE
    return float(x[np.flatnonzero(~outside)[-1]] + MARKER_RADIUS_MM - 1.5), float(y), float(z)


def with_margin(mask: np.ndarray, tissue: np.ndarray, grid: Grid, margin_mm: float) -> np.ndarray:
    """`mask` (z, y, x) grown by `margin_mm`, cut at bone, air and the nervous system; empty where `mask` is."""
    grown = np.zeros_like(mask)
    if not mask.any():
        return grown
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    steps = [int(np.ceil(margin_mm / s)) for s in grid.spacing_mm]
    box = tuple(slice(max(0, b.start - n), b.stop + n) for b, n in zip(box, steps))
    gross = mask[box]
    near = ndimage.distance_transform_edt(~gross, sampling=grid.spacing_mm) <= margin_mm
    free = gross | (near & ~np.isin(tissue[box], BARRIERS))
    # What lies behind a barrier is not reached.
    pieces, _ = ndimage.label(free)
    grown[box] = free & np.isin(pieces, np.unique(pieces[gross]))
    return grown

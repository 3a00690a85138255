"""Computed tomography: Hounsfield units, noise, streaks from dental metal, a marker on the skin, target volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from npcrepro.cohorts.phantom.acquisition import MARKER_RADIUS_MM, Grid
from npcrepro.cohorts.phantom.anatomy import Anatomy
from npcrepro.cohorts.phantom.shapes import Triple
from npcrepro.cohorts.phantom.tissues import PROPERTIES, Tissue

# Standard deviation in HU between patients: of any soft tissue, and of the tumour, whose contrast to muscle is small.
SOFT_TISSUE_VARIATION_HU = 3.0
TUMOUR_VARIATION_HU = 5.0
MARKER_HU = 450.0

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


@dataclass(frozen=True)
class ComputedTomography:
    """A simulation CT with contrast agent: width of the kernel (sd, mm) and range of noise (sd, HU) over patients."""

    name: str = "CT"
    kernel_mm: float = 0.55
    noise_hu: tuple[float, float] = (9.0, 15.0)
    noise_kernel_mm: float = 0.8


@dataclass(frozen=True)
class CtPatient:
    """What differs from scan to scan: `table` (tissue, 2) mean and texture in HU, noise in HU, profiles of streaks."""

    table: np.ndarray
    noise_hu: float
    streaks: np.ndarray


def draw_ct(series: ComputedTomography, rng: np.random.Generator) -> CtPatient:
    """Draw one patient's Hounsfield units, noise and streaks."""
    table = np.array([(PROPERTIES[t].hu, PROPERTIES[t].hu_texture) for t in Tissue], float)
    shift = np.clip(rng.standard_normal(len(Tissue)), -2, 2)
    sd = np.where(table[:, 0] > 300, 0.06 * table[:, 0], SOFT_TISSUE_VARIATION_HU)
    sd[[Tissue.TUMOUR, Tissue.METASTATIC_NODE]] = TUMOUR_VARIATION_HU
    sd[[Tissue.OUTSIDE, Tissue.AIR, Tissue.LUMEN, Tissue.METAL]] = 0
    table[:, 0] += sd * shift
    streaks = ndimage.gaussian_filter1d(rng.standard_normal((LARGEST_NUMBER_OF_FILLINGS, 180)), 1.2, mode="wrap")
    return CtPatient(table.astype(np.float32), rng.uniform(*series.noise_hu), streaks / streaks.std())


def ct_slice(
    series: ComputedTomography,
    patient: CtPatient,
    grid: Grid,
    fractions: np.ndarray,
    texture: np.ndarray,
    marker: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """One slice (y, x) in HU from tissue fractions (y, x, tissue), texture and fraction of the marker (y, x)."""
    parts = fractions @ patient.table
    image = parts[..., 0] + parts[..., 1] * texture
    image += marker * (np.float32(MARKER_HU) - image)
    image = ndimage.gaussian_filter(image, [series.kernel_mm / s for s in grid.spacing_mm[1:]])
    metal = fractions[..., Tissue.METAL]
    if metal.any():
        image += _streaks(metal, patient.streaks, grid)
    noise = rng.standard_normal(image.shape, np.float32)
    noise = ndimage.gaussian_filter(noise, [series.noise_kernel_mm / s for s in grid.spacing_mm[1:]])
    image += noise * np.float32(patient.noise_hu / noise.std())
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
    outside = anatomy.tissue(np.array([z]), np.array([y]), x)[0, 0] == Tissue.OUTSIDE
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

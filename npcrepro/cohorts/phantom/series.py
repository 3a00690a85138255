"""From tissue to images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npcrepro.cohorts.phantom.anatomy import Anatomy
from npcrepro.cohorts.phantom.shapes import RandomField, Triple
from npcrepro.cohorts.phantom.tissues import Tissue
from npcrepro.errors import InputError

if TYPE_CHECKING:
    from npcrepro.cohorts.layout import CaseArrays, Cohort

STRUCTURES = {"GTVp": 1}
CHANNELS = ("CET1",)
REFERENCE = "Digital phantom of NPC made by npcrepro.cohorts.phantom; synthetic, no patient data."
LICENCE = "CC0 (synthetic)"


@dataclass(frozen=True)
class Signal:
    """Intensity of one tissue: mean, and relative standard deviation of a fine and a coarse random texture."""

    mean: float
    fine: float = 0.0
    coarse: float = 0.0


# Contrast-enhanced T1-weighted gradient echo without fat suppression, arbitrary units.
CET1 = {
    Tissue.OUTSIDE: Signal(0),
    Tissue.SKIN: Signal(430, 0.08),
    Tissue.FAT: Signal(750, 0.05, 0.03),
    Tissue.MUSCLE: Signal(330, 0.10, 0.06),
    Tissue.CORTICAL_BONE: Signal(90, 0.25),
    Tissue.MARROW: Signal(500, 0.14, 0.12),
    Tissue.AIR: Signal(15),
    Tissue.LUMEN: Signal(15),
    Tissue.MUCOSA: Signal(700, 0.12, 0.08),
    Tissue.ADENOID: Signal(610, 0.08, 0.06),
    Tissue.PAROTID: Signal(500, 0.12, 0.05),
    Tissue.TONGUE: Signal(400, 0.14, 0.06),
    Tissue.VESSEL: Signal(840, 0.05),
    Tissue.NODE: Signal(500, 0.08, 0.05),
    Tissue.CSF: Signal(140, 0.15),
    Tissue.GREY_MATTER: Signal(325, 0.05, 0.03),
    Tissue.WHITE_MATTER: Signal(440, 0.04, 0.03),
    Tissue.SPINAL_CORD: Signal(400, 0.04),
    Tissue.VITREOUS: Signal(150, 0.03),
    Tissue.FLUID: Signal(240, 0.05),
    Tissue.TUMOUR: Signal(500, 0.10, 0.12),
}


def _samples(n: int, extent_mm: float, per_voxel: int) -> np.ndarray:
    """Sample positions in mm of `per_voxel` points in each of n voxels, symmetric about 0."""
    m = n * per_voxel
    return (np.arange(m) + 0.5) * (extent_mm / m) - extent_mm / 2


def tissue_fractions(anatomy: Anatomy, matrix: Sequence[int], field_of_view_mm: Sequence[float]) -> np.ndarray:
    """Fraction of each tissue in each voxel, (z, y, x, tissue) float32 in 0-1, from 2 x 2 in-plane samples.

    Through the slice there are 2 samples, 3 where the slice is thicker than 4 mm.
    """
    nz, ny, nx = matrix
    through = 2 if field_of_view_mm[0] / nz <= 4 else 3
    tissue = anatomy.tissue(*(_samples(n, f, k) for n, f, k in zip(matrix, field_of_view_mm, (through, 2, 2))))
    kinds = max(Tissue) + 1
    tissue = tissue.reshape(nz, through, ny, 2, nx, 2)
    offset = np.arange(ny * nx, dtype=np.int32).reshape(1, ny, 1, nx, 1) * kinds
    fractions = np.empty((nz, ny, nx, kinds), np.float32)
    for out, plane in zip(fractions, tissue):
        counts = np.bincount((offset + plane).ravel(), minlength=ny * nx * kinds)
        np.multiply(counts.reshape(out.shape), np.float32(1 / (4 * through)), out=out, casting="same_kind")
    return fractions


@dataclass(frozen=True)
class PhantomPatient:
    """One patient of the phantom.

    image : (C, z, y, x) float32, channels `CHANNELS`, arbitrary units of about 0-1000.
    label : (z, y, x) uint8, values of `STRUCTURES`; voxels at least half tumour.
    tissue : (z, y, x) uint8, values of `Tissue`; the most frequent tissue of the voxel.
    spacing_mm : (z, y, x).
    volume_ml : volume of the tumour with partial volume counted, so it hardly depends on the matrix.
    """

    image: np.ndarray
    label: np.ndarray
    tissue: np.ndarray
    spacing_mm: Triple
    volume_ml: float


def make_patient(
    patient: int,
    *,
    seed: int = 0,
    matrix: Sequence[int] = (20, 144, 144),
    field_of_view_mm: Sequence[float] = (60.0, 220.0, 220.0),
) -> PhantomPatient:
    """Patient number `patient` of the phantom cohort `seed`, at any matrix (z, y, x) and field of view in mm.

    The default is the series of Li et al. 2018: 20 slices of 144 x 144, 60 x 220 x 220 mm. The anatomy depends on
    (seed, patient) only; noise also on the matrix. Same arguments give the same bytes.

    Raises `InputError` for a negative patient or seed, a matrix below 4 or a field of view that is not positive.
    """
    _check_grid(matrix, field_of_view_mm)
    if patient < 0 or seed < 0:
        raise InputError(f"patient {patient} and seed {seed} must not be negative")
    matrix = tuple(int(n) for n in matrix)
    anatomy_rng, signal_rng, noise_rng = np.random.default_rng([seed, patient]).spawn(3)
    fractions = tissue_fractions(Anatomy(anatomy_rng), matrix, field_of_view_mm)
    centres = [_samples(n, f, 1) for n, f in zip(matrix, field_of_view_mm)]
    image = _cet1(fractions, centres, signal_rng, noise_rng)
    tumour = fractions[..., Tissue.TUMOUR]
    spacing_mm = tuple(float(f) / n for n, f in zip(matrix, field_of_view_mm))
    return PhantomPatient(
        image=image[None],
        label=(tumour >= 0.5).astype(np.uint8) * np.uint8(STRUCTURES["GTVp"]),
        tissue=fractions.argmax(-1).astype(np.uint8),
        spacing_mm=spacing_mm,
        volume_ml=float(tumour.sum(dtype=np.float64)) * float(np.prod(spacing_mm)) / 1000,
    )


def _cet1(
    fractions: np.ndarray, centres: Sequence[np.ndarray], rng: np.random.Generator, noise_rng: np.random.Generator
) -> np.ndarray:
    """Contrast-enhanced T1-weighted magnitude image (z, y, x) float32 from tissue fractions."""
    mean = np.array([CET1[t].mean for t in Tissue]) * np.exp(rng.normal(0, 0.04, len(Tissue)))
    uptake = np.exp(rng.normal(0, 0.06))  # timing and dose move all that enhances together
    for tissue in (Tissue.TUMOUR, Tissue.MUCOSA, Tissue.ADENOID, Tissue.NODE, Tissue.VESSEL):
        mean[tissue] *= uptake
    fine = mean * [CET1[t].fine for t in Tissue]
    coarse = mean * [CET1[t].coarse for t in Tissue]
    table = np.stack([mean, fine, coarse], 1).astype(np.float32)
    signal = fractions @ table
    image = signal[..., 0] + signal[..., 1] * RandomField(rng, 3.5)(*centres)
    image += signal[..., 2] * RandomField(rng, 9.0)(*centres)
    image *= np.exp(np.float32(0.09) * RandomField(rng, 80.0)(*centres))
    sigma = rng.uniform(12, 26)
    real, imaginary = noise_rng.normal(0, sigma, (2, *image.shape)).astype(np.float32)
    return np.hypot(np.maximum(image, 0) + real, imaginary)


def _check_grid(matrix: Sequence[int], field_of_view_mm: Sequence[float]) -> None:
    if len(matrix) != 3 or min(matrix) < 4:
        raise InputError(f"the phantom needs a matrix (z, y, x) of at least 4 x 4 x 4, not {tuple(matrix)}")
    if len(field_of_view_mm) != 3 or not min(field_of_view_mm) > 0:
        raise InputError(f"the field of view (z, y, x) must be three positive lengths in mm, not {field_of_view_mm}")


def write_phantom(
    root: str | Path,
    *,
    patients: int,
    seed: int = 0,
    matrix: Sequence[int] = (20, 144, 144),
    field_of_view_mm: Sequence[float] = (60.0, 220.0, 220.0),
) -> Cohort:
    """Write a phantom cohort with the cases PHANTOM_000, PHANTOM_001, ... under `root`; images are int16.

    Raises `InputError` when `patients` is below 1 or the grid cannot be used.
    """
    from npcrepro.cohorts.layout import CaseArrays, write_cohort

    if patients < 1:
        raise InputError(f"a phantom cohort needs at least 1 patient, not {patients}")
    _check_grid(matrix, field_of_view_mm)

    def cases() -> Iterator[CaseArrays]:
        for number in range(patients):
            made = make_patient(number, seed=seed, matrix=matrix, field_of_view_mm=field_of_view_mm)
            name = f"PHANTOM_{number:03d}"
            yield CaseArrays(
                name=name,
                patient=name,
                image=np.rint(made.image).astype(np.int16),
                label=made.label,
                spacing_mm=made.spacing_mm,
            )

    return write_cohort(
        root,
        cases(),
        name="phantom",
        channels=list(CHANNELS),
        structures=STRUCTURES,
        reference=REFERENCE,
        licence=LICENCE,
        publishable=True,
    )

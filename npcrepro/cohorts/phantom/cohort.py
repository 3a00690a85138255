"""Patients and cohorts of the phantom: MRI, CT, high-resolution and dynamic contrast-enhanced series."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from npcrepro.base.errors import InputError, pick
from npcrepro.cohorts.phantom.acquisition import Fields, Grid, Sampled, partition, rician, sample, soften, texture
from npcrepro.cohorts.phantom.anatomy import Anatomy
from npcrepro.cohorts.phantom.ct import CTV_MARGINS_MM, ComputedTomography, ct_slice, draw_ct, marker_place, with_margin
from npcrepro.cohorts.phantom.observers import check_agreement
from npcrepro.cohorts.phantom.observers import second_observer as draw_again
from npcrepro.cohorts.phantom.shapes import RandomField, Triple
from npcrepro.cohorts.phantom.signal import (
    PatientTissues,
    Series,
    SpinEcho,
    SpoiledGradientEcho,
    draw_tissues,
    series_signal,
)
from npcrepro.cohorts.phantom.tissues import Structure, Tissue

if TYPE_CHECKING:
    from npcrepro.cohorts.layout import CaseArrays, Cohort

REFERENCE = "Digital phantom of NPC made by npcrepro.cohorts.phantom; synthetic, no patient data."
LICENCE = "CC0 (synthetic)"
SECOND_OBSERVER_FOLDER = "labels_observer2"
MARKER = "LocRef"  # a ball on the skin, the small reference structure of a simulation CT

# Grey matter has this intensity (before contrast agent) where the gain of the scanner is 1.
GREY_MATTER_LEVEL = 300.0
GAIN_VARIATION = 0.30  # log-normal sd of the gain, drawn for each patient and series
BIAS_FIELD = 0.16  # log-normal sd of the sensitivity over the head
BIAS_FIELD_MM = 80.0
NOISE_RANGE = (9.0, 18.0)  # sd of the complex noise over patients, in units of the level above
POINT_SPREAD = 0.45  # sd of the point spread function in the plane, in voxels

# Every tenth patient moves during the dynamic series, from this range of frames on and by about this much (z, y, x).
MOTION_EVERY, MOTION_PATIENT = 10, 1
MOTION_FRAMES = (15, 45)
MOTION_MM = (1.5, 3.0, 1.5)


@dataclass(frozen=True)
class Kind:
    """A kind of phantom cohort: its series, its default grid (z, y, x; mm), and the structures of its labels."""

    series: tuple[Series | ComputedTomography, ...]
    matrix: tuple[int, int, int]
    spacing_mm: Triple
    structures: tuple[str, ...] = ("GTVp",)
    centre_mm: Triple = (0.0, 0.0, 0.0)

    @property
    def channels(self) -> dict[str, tuple[int, int]]:
        """Name of each channel: which series, and which frame of it."""
        names = {}
        for number, series in enumerate(self.series):
            frames = getattr(series, "frames", 1)
            for frame in range(frames):
                names[series.name if frames == 1 else f"frame_{frame + 1:02d}"] = (number, frame)
        return names


KINDS = {
    "mri": Kind(
        series=(
            SpinEcho("T1", repetition_ms=600, echo_ms=10),
            SpinEcho("T2", repetition_ms=4000, echo_ms=90, arterial_flow=0.1, venous_flow=0.4),
            SpinEcho("CET1", repetition_ms=600, echo_ms=10, contrast_after_s=150),
        ),
        matrix=(24, 160, 160),
        spacing_mm=(3.0, 1.375, 1.375),
    ),
    "thrive": Kind(
        series=(
            SpoiledGradientEcho(
                "THRIVE", repetition_ms=5, echo_ms=2.3, flip_deg=12, contrast_after_s=240, fat_suppressed=True
            ),
        ),
        matrix=(24, 256, 256),
        spacing_mm=(3.0, 0.6, 0.6),
    ),
    "dce": Kind(
        series=(
            SpoiledGradientEcho(
                "DCE", repetition_ms=4, echo_ms=1.5, flip_deg=15, frames=65, interval_s=5, arrival=8
            ),
        ),
        matrix=(20, 144, 144),
        spacing_mm=(3.0, 1.53, 1.53),
    ),
    "ct": Kind(
        series=(ComputedTomography(),),
        matrix=(72, 256, 256),
        spacing_mm=(3.0, 1.0, 1.0),
        structures=(
            "GTVp",
            "GTVnd",
            "CTV2",
            "CTVnd",
            "Mandible_L",
            "Mandible_R",
            "Parotid_L",
            "Parotid_R",
            "BrainStem",
            "SpinalCord",
            "Eye_L",
            "Eye_R",
            "OpticNerve_L",
            "OpticNerve_R",
            "OpticChiasm",
            MARKER,
        ),
        centre_mm=(-10.0, 0.0, 0.0),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class PhantomPatient:
    """One patient of the phantom.

    Attributes:
        image: ``(C, z, y, x)`` int16; MRI in arbitrary units from 0 to about 2000, CT in HU.
        masks: structure to bool ``(z, y, x)``, the voxels at least half of which it fills; masks may overlap.
        tissue: ``(z, y, x)`` uint8, values of `Tissue`; the most frequent tissue of the voxel.
        spacing_mm: ``(z, y, x)``.
        stage: T stage, 1 to 4.
        volume_ml: volume of the primary tumour with partial volume counted, so it hardly depends on the matrix.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]
    tissue: np.ndarray
    spacing_mm: Triple
    stage: int
    volume_ml: float


def make_patient(
    patient: int,
    *,
    seed: int = 0,
    kind: str = "mri",
    matrix: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    channels: Sequence[str] | None = None,
) -> PhantomPatient:
    """One patient of a phantom cohort.

    The anatomy depends on (seed, patient) only; noise also on the matrix. Same arguments give the same bytes.

    Args:
        patient: number in the cohort, from 0.
        seed: of the cohort.
        kind: one of `KINDS`.
        matrix: ``(z, y, x)``, by default that of the kind.
        spacing_mm: ``(z, y, x)``; by default the field of view is that of the kind, at any matrix.
        channels: those of the kind that are wanted, in this order; by default all. A channel is the same alone.

    Raises:
        InputError: an unknown kind or channel, a negative patient or seed, a matrix below 4, or a spacing that is not
            positive.

    Example:
        >>> patient = make_patient(0, matrix=(4, 24, 24), channels=["CET1"])
        >>> patient.image.shape, patient.image.dtype, list(patient.masks)
        ((1, 4, 24, 24), dtype('int16'), ['GTVp'])
    """
    if patient < 0 or seed < 0:
        raise InputError(f"patient {patient} and seed {seed} must not be negative")
    chosen = pick(KINDS, kind, "kind of phantom")
    grid = _grid(chosen, matrix, spacing_mm)
    names = _channels(kind, chosen, channels)
    anatomy_rng, tissue_rng, field_rng, place_rng = np.random.default_rng([seed, patient]).spawn(4)
    anatomy = Anatomy(anatomy_rng)
    fields = Fields.draw(field_rng)
    draw = _Draw(seed, patient)
    if kind == "ct":
        scan = _Ct(chosen.series[0], grid, draw, marker_place(anatomy, place_rng))
    else:
        scan = _Mri(chosen, names, grid, draw, draw_tissues(tissue_rng), _motion(kind, patient, place_rng))
    wanted = sorted({part for name in chosen.structures for part in _parts(name)})
    image = np.empty((len(names), *grid.matrix), np.int16)
    tissue, structure = np.empty((2, *grid.matrix), np.uint8)
    marker = np.zeros(grid.matrix, bool)
    tumour = 0.0
    for slices in grid.slabs():
        axes = grid.axes(slices)
        sampled = sample(anatomy, grid, slices, wanted, marker_mm=scan.marker_mm)
        tissue[slices] = sampled.fractions.argmax(-1)
        structure[slices] = partition(sampled, grid)
        if sampled.marker is not None:
            marker[slices] = sampled.marker >= 0.5
        tumour += float(sampled.structures.get(Structure.GTVp, np.zeros(1)).sum(dtype=np.int64))
        soften(sampled.fractions, grid, axes, fields.infiltration)
        moved = None
        if scan.motion is not None:
            moved = sample(anatomy, grid, slices, (), shift_mm=scan.motion[1])
            soften(moved.fractions, grid, axes, fields.infiltration)
        scan.slab(image[:, slices], sampled, moved, axes, fields)
    return PhantomPatient(
        image=image,
        masks=_masks(chosen.structures, structure, marker, tissue, grid),
        tissue=tissue,
        spacing_mm=grid.spacing_mm,
        stage=anatomy.stage,
        volume_ml=tumour / math.prod(grid.samples()) * grid.voxel_ml,
    )


@dataclass(frozen=True)
class _Draw:
    """Independent random numbers for each thing that has a name, whatever else is drawn."""

    seed: int
    patient: int

    def __call__(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.patient, zlib.crc32(name.encode())])


class _Ct:
    """The CT of one patient."""

    motion = None

    def __init__(self, series: ComputedTomography, grid: Grid, draw: _Draw, marker_mm: Triple) -> None:
        self.series, self.grid, self.marker_mm = series, grid, marker_mm
        self.patient = draw_ct(series, draw(series.name))
        self.noise = draw(f"{series.name} noise")

    def slab(self, out: np.ndarray, sampled: Sampled, moved: None, axes: Sequence[np.ndarray], fields: Fields) -> None:
        """Fill `out` (1, z, y, x)."""
        fine = texture(fields.water, axes)
        for number, fractions in enumerate(sampled.fractions):
            parts = fractions, fine[number], sampled.marker[number]
            out[0, number] = np.rint(ct_slice(self.series, self.patient, self.grid, *parts, self.noise))


class _Mri:
    """The wanted channels of one patient's MRI. `motion`: frame from which on the head is elsewhere, and where."""

    marker_mm = None

    def __init__(
        self,
        kind: Kind,
        names: Sequence[str],
        grid: Grid,
        draw: _Draw,
        tissues: PatientTissues,
        motion: tuple[int, Triple] | None,
    ) -> None:
        self.grid, self.motion = grid, motion
        self.places = [kind.channels[name] for name in names]
        self.series = kind.series
        self.noises = [draw(f"{name} noise") for name in names]
        self.tables, self.bias, self.sigma = {}, {}, {}
        for number in sorted({number for number, _ in self.places}):
            rng = draw(kind.series[number].name)
            table = series_signal(kind.series[number], tissues)
            level = GREY_MATTER_LEVEL / table[0, Tissue.GREY_MATTER, 0]
            gain = np.exp(GAIN_VARIATION * np.clip(rng.standard_normal(), -2, 2))
            self.tables[number] = (gain * level * table).astype(np.float32)
            self.sigma[number] = gain * rng.uniform(*NOISE_RANGE)
            self.bias[number] = RandomField(rng, BIAS_FIELD_MM, knots=8)
        # (tissue, channel, 3), to take all channels of a slice in one product.
        self.table = np.stack([self.tables[number][frame] for number, frame in self.places], 1)

    def slab(
        self, out: np.ndarray, sampled: Sampled, moved: Sampled | None, axes: Sequence[np.ndarray], fields: Fields
    ) -> None:
        """Fill `out` (C, z, y, x)."""
        water, uptake = texture(fields.water, axes), texture(fields.uptake, axes)
        bias = {n: np.exp(np.float32(BIAS_FIELD) * field(*axes)) for n, field in self.bias.items()}
        before = [moved is None or frame < self.motion[0] for _, frame in self.places]
        for z in range(len(axes[0])):
            still = self._signal(sampled.fractions[z], water[z], uptake[z])
            after = None if moved is None else self._signal(moved.fractions[z], water[z], uptake[z])
            for channel, (number, _) in enumerate(self.places):
                source, signal = (sampled, still) if before[channel] else (moved, after)
                plane = ndimage.gaussian_filter(signal[channel], POINT_SPREAD, truncate=3)
                metal = source.fractions[z][..., Tissue.METAL]
                if metal.any():
                    plane *= self._void(metal, self.series[number].void_mm)
                plane *= bias[number][z]
                out[channel, z] = np.rint(rician(plane, self.sigma[number], self.noises[channel]))

    def _signal(self, fractions: np.ndarray, water: np.ndarray, uptake: np.ndarray) -> np.ndarray:
        """Signal (C, y, x) of a slice from tissue fractions and textures."""
        kinds, channels, _ = self.table.shape
        parts = fractions.reshape(-1, kinds) @ self.table.transpose(0, 2, 1).reshape(kinds, 3 * channels)
        parts = parts.reshape(*water.shape, 3, channels)
        signal = parts[:, :, 0] + water[..., None] * parts[:, :, 1] + uptake[..., None] * parts[:, :, 2]
        return np.ascontiguousarray(np.moveaxis(signal, -1, 0))

    def _void(self, metal: np.ndarray, void_mm: float) -> np.ndarray:
        """What the field about a filling leaves of the signal, 0-1."""
        spread = ndimage.gaussian_filter(metal, [void_mm / s for s in self.grid.spacing_mm[1:]])
        return np.clip(1 - 6 * spread, 0, 1)


def _motion(kind: str, patient: int, rng: np.random.Generator) -> tuple[int, Triple] | None:
    if kind != "dce" or patient % MOTION_EVERY != MOTION_PATIENT:
        return None
    shift = rng.choice([-1, 1], 3) * rng.uniform(0.6, 1.4, 3) * MOTION_MM
    return int(rng.integers(*MOTION_FRAMES)), tuple(shift.tolist())


def _masks(
    names: Sequence[str], structure: np.ndarray, marker: np.ndarray, tissue: np.ndarray, grid: Grid
) -> dict[str, np.ndarray]:
    masks = {}
    for name in names:
        mask = marker if name == MARKER else np.zeros(grid.matrix, bool)
        for part in _parts(name):
            mask |= structure == part
        if name in CTV_MARGINS_MM:
            mask = with_margin(mask, tissue, grid, CTV_MARGINS_MM[name][1])
        masks[name] = mask
    return masks


def _parts(name: str) -> tuple[Structure, ...]:
    """What a structure of a cohort is made of, before margins: an eye of globe and lens, the marker of nothing."""
    if name == MARKER:
        return ()
    part = Structure[CTV_MARGINS_MM[name][0] if name in CTV_MARGINS_MM else name]
    return (part, Structure[part.name.replace("Eye", "Lens")]) if name.startswith("Eye") else (part,)


def _channels(name: str, kind: Kind, channels: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(kind.channels) if channels is None else tuple(channels)
    for channel in names:
        pick(kind.channels, channel, f"channel of the phantom {name}")
    if not names or len(set(names)) < len(names):
        raise InputError(f"the phantom needs channels, each once, not {list(names)}")
    return names


def _grid(kind: Kind, matrix: Sequence[int] | None, spacing_mm: Sequence[float] | None) -> Grid:
    matrix = kind.matrix if matrix is None else tuple(int(n) for n in matrix)
    if len(matrix) != 3 or min(matrix) < 4:
        raise InputError(f"the phantom needs a matrix (z, y, x) of at least 4 x 4 x 4, not {matrix}")
    if spacing_mm is None:
        spacing_mm = [n * s / m for n, s, m in zip(kind.matrix, kind.spacing_mm, matrix)]
    spacing_mm = tuple(float(s) for s in spacing_mm)
    if len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise InputError(f"the spacing (z, y, x) must be three positive lengths in mm, not {spacing_mm}")
    return Grid(matrix, spacing_mm, kind.centre_mm)


def write_phantom(
    root: str | Path,
    *,
    kind: str = "mri",
    patients: int,
    seed: int = 0,
    matrix: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    channels: Sequence[str] | None = None,
    second_observer: float | None = None,
) -> Cohort:
    """Write a phantom cohort with the cases PHANTOM_000, PHANTOM_001, ... under `root`; images are int16.

    Args:
        root: folder to write, new or empty.
        kind, seed, matrix, spacing_mm, channels: see `make_patient`.
        patients: how many.
        second_observer: DSC between two observers (see `observers.second_observer`): tumour and nodes as the second one
            draws them go to ``labels_observer2``, with the file names and codes of ``labelsTr``, and without the other
            structures.

    Raises:
        InputError: ``patients`` is below 1, ``root`` holds something already, or an option cannot be used.
    """
    from npcrepro.cohorts.layout import CaseArrays, write_cohort

    if patients < 1:
        raise InputError(f"a phantom cohort needs at least 1 patient, not {patients}")
    if second_observer is not None:
        check_agreement(second_observer)
    chosen = pick(KINDS, kind, "kind of phantom")
    names = _channels(kind, chosen, channels)
    _grid(chosen, matrix, spacing_mm)

    def cases() -> Iterator[CaseArrays]:
        for number in range(patients):
            made = make_patient(number, seed=seed, kind=kind, matrix=matrix, spacing_mm=spacing_mm, channels=channels)
            name = f"PHANTOM_{number:03d}"
            yield CaseArrays(name=name, patient=name, image=made.image, label=made.masks, spacing_mm=made.spacing_mm)

    cohort = write_cohort(
        root,
        cases(),
        name="phantom" if kind == "mri" else f"phantom-{kind}",
        channels=names,
        structures=chosen.structures,
        reference=REFERENCE,
        licence=LICENCE,
        publishable=True,
    )
    if second_observer is not None:
        _write_second_observer(cohort, second_observer, seed)
    return cohort


def _write_second_observer(cohort: Cohort, agreement: float, seed: int) -> None:
    import SimpleITK as sitk

    from npcrepro.base.files import writing_folder
    from npcrepro.cohorts.images import read_image, to_itk
    from npcrepro.cohorts.structures import mask_of

    gross = [name for name in ("GTVnd", "GTVp") if name in cohort.structures]  # where both are, the tumour stays
    with writing_folder(cohort.root / SECOND_OBSERVER_FOLDER) as folder:
        for number, case in enumerate(cohort.cases):
            label, spacing_mm, geometry = read_image(case.label)
            second = np.zeros_like(label)
            for name in gross:
                rng = _Draw(seed, number)(f"second observer of {name}")
                drawn = draw_again(mask_of(label, cohort.structures, name), spacing_mm, rng, agreement)
                second[drawn] = cohort.structures[name][0]
            sitk.WriteImage(to_itk(second, spacing_mm, geometry), str(folder / case.label.name))

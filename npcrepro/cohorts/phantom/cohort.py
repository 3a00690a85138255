"""Patients and cohorts of the phantom: MRI, CT, high-resolution and dynamic contrast-enhanced series."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npcrepro.base.errors import InputError, pick
from npcrepro.cohorts.phantom.acquisition import Draw, Fields, Grid, partition, sample, soften
from npcrepro.cohorts.phantom.anatomy import Anatomy
from npcrepro.cohorts.phantom.ct import CTV_MARGINS_MM, CtScan, marker_place, with_margin
from npcrepro.cohorts.phantom.observers import check_agreement
from npcrepro.cohorts.phantom.observers import second_observer as draw_again
from npcrepro.cohorts.phantom.scan import KINDS, MARKER, Kind, MriScan, draw_motion
from npcrepro.cohorts.phantom.shapes import Triple
from npcrepro.cohorts.phantom.signal import draw_tissues
from npcrepro.cohorts.phantom.tissues import Structure

if TYPE_CHECKING:
    from npcrepro.cohorts.cohort import CaseArrays, Cohort

REFERENCE = "Digital phantom of NPC made by npcrepro.cohorts.phantom; synthetic, no patient data."
LICENCE = "CC0 (synthetic)"
SECOND_OBSERVER_FOLDER = "labels_observer2"


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
    fields = Fields(field_rng)
    draw = Draw(seed, patient)
    if kind == "ct":
        scan = CtScan(grid, draw, marker_place(anatomy, place_rng))
    else:
        scan = MriScan(chosen, names, grid, draw, draw_tissues(tissue_rng), draw_motion(kind, patient, place_rng))
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
    masks = {name: np.isin(structure, _parts(name)) for name in chosen.structures}
    for name in masks.keys() & CTV_MARGINS_MM.keys():
        masks[name] = with_margin(masks[name], tissue, grid, CTV_MARGINS_MM[name][1])
    if MARKER in masks:
        masks[MARKER] = marker
    volume_ml = tumour / math.prod(grid.samples()) * (math.prod(grid.spacing_mm) / 1000)
    return PhantomPatient(image, masks, tissue, grid.spacing_mm, anatomy.stage, volume_ml)


def _parts(name: str) -> tuple[Structure, ...]:
    """What a structure of a cohort is made of, before margins: an eye of globe and lens, the marker of nothing."""
    if name == MARKER:
        return ()
    part, _ = CTV_MARGINS_MM.get(name, (name, 0.0))
    return tuple(Structure[each] for each in dict.fromkeys((part, part.replace("Eye", "Lens"))))


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
    from npcrepro.cohorts.cohort import CaseArrays
    from npcrepro.cohorts.layout import write_cohort

    if patients < 1:
        raise InputError(f"a phantom cohort needs at least 1 patient, not {patients}")
    if second_observer is not None:
        check_agreement(second_observer)
    chosen = pick(KINDS, kind, "kind of phantom")

    def cases() -> Iterator[CaseArrays]:
        for number in range(patients):
            made = make_patient(number, seed=seed, kind=kind, matrix=matrix, spacing_mm=spacing_mm, channels=channels)
            name = f"PHANTOM_{number:03d}"
            yield CaseArrays(name=name, patient=name, image=made.image, label=made.masks, spacing_mm=made.spacing_mm)

    cohort = write_cohort(
        root,
        cases(),
        name="phantom" if kind == "mri" else f"phantom-{kind}",
        channels=tuple(channels or chosen.channels),
        structures=chosen.structures,
        reference=REFERENCE,
        licence=LICENCE,
        publishable=True,
    )
    if second_observer is not None:
        _write_second_observer(cohort, second_observer, seed)
    return cohort


def _write_second_observer(cohort: Cohort, agreement: float, seed: int) -> None:
    from npcrepro.base.files import writing_folder
    from npcrepro.cohorts.images import read_image, to_itk, write_image
    from npcrepro.cohorts.structures import mask_of

    gross = [name for name in ("GTVnd", "GTVp") if name in cohort.structures]  # where both are, the tumour stays
    with writing_folder(cohort.root / SECOND_OBSERVER_FOLDER) as folder:
        for number, case in enumerate(cohort.cases):
            label, spacing_mm, geometry = read_image(case.label)
            second = np.zeros_like(label)
            for name in gross:
                rng = Draw(seed, number)(f"second observer of {name}")
                drawn = draw_again(mask_of(label, cohort.structures, name), spacing_mm, rng, agreement)
                second[drawn] = cohort.structures[name][0]
            write_image(to_itk(second, spacing_mm, geometry), folder / case.label.name)

"""DICOM series, with or without RTSTRUCTs, become a cohort."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from npcrepro.base.errors import InputError
from npcrepro.base.files import check_new
from npcrepro.base.progress import Report
from npcrepro.cohorts.cohort import CaseArrays, Cohort
from npcrepro.cohorts.dicom.draft import accept_only_ones, draft_rules, listed, open_questions
from npcrepro.cohorts.dicom.find import Series
from npcrepro.cohorts.dicom.rules import Rules, read_rules
from npcrepro.cohorts.dicom.series import read_grid, read_series
from npcrepro.cohorts.dicom.structures import Drawing, Patient, find_patients, rasterise, read_structures
from npcrepro.cohorts.images import from_itk, to_itk
from npcrepro.cohorts.layout import write_cohort
from npcrepro.cohorts.resample import register_rigid, resample, resample_mask, same_grid
from npcrepro.cohorts.structures import is_target


@dataclass(frozen=True)
class _Plan:
    """What is imported of a patient: a series for each channel, and the drawn names that each structure is made of.

    ``drawing`` is the RTSTRUCT, and ``drawn_on`` the series on whose slices the contours were drawn; None where no
    patient has contours.
    """

    folder: Path
    channels: Mapping[str, Series]
    drawing: Path | None = None
    drawn_on: Series | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def import_dicom(
    source: str | Path, destination: str | Path, *, rules: str | Path | None = None, report: Report = print
) -> Cohort:
    """Write the cohort of a folder tree of DICOM series and RTSTRUCTs, and return it.

    ``rules`` is a YAML file (see the module `rules`); without one, the channels are those that all patients have, and
    where that leaves a series or a structure open, ``rules-draft.yaml`` is written beside ``destination`` (see the
    module `draft`). The structures are those that any patient has: where an organ was not drawn, the case says so
    (``not_contoured``); a target volume that was not drawn is an empty mask. A patient's images are resampled to one
    reference series. Series of another frame of reference are registered only where the rules say so. Where no patient
    has an RTSTRUCT, the images become a cohort to be segmented (``imagesTs``), without structures and labels.

    Cases are called CASE_000, CASE_001, ...; neither names, identifiers, dates nor descriptions get into the cohort.
    ``report`` is told which case comes from which folder, which patients are skipped and why, and which structures fit
    no rule. Nothing of that is stored.

    Raises InputError for a missing or empty folder, a ``destination`` that is not empty, rules that cannot be read, a
    file that is broken in its header, series or structures that need rules, and where no patient is left.
    """
    check_new(Path(destination))
    chosen = read_rules(rules)
    patients = find_patients(source, report)
    if rules is None:
        chosen = accept_only_ones(chosen, patients, report)
        questions = open_questions(chosen, patients)
        if questions:
            raise InputError(f"{source}: {'; '.join(questions)}: {draft_rules(source, destination, chosen, patients)}")
    channels = _common_channels(patients, chosen, report)
    reference = chosen.reference_of(channels)
    plans = []
    for patient in patients:
        try:
            plan = _plan(patient, channels, reference, chosen)
        except InputError as problem:
            report(f"{patient.folder}: skipped: {problem}")
            continue
        plans.append(plan)
        for other in patient.drawings:
            if other.path != plan.drawing:
                taken = f"one RTSTRUCT of each patient is taken, here {plan.drawing}"
                report(f"{other.path}: left out: {taken}; 'reference' in the rules decides which")
    if not plans:
        raise InputError(f"{source}: no patient can be imported, of {len(patients)}: the lines above say why")
    # Structures that take another name, and those that fit no rule.
    for structure in chosen.structures:
        drawn = sorted({name for plan in plans for name in plan.names.get(structure, ())})
        if drawn and drawn != [structure]:
            report(f"{structure} is what was drawn as {', '.join(map(repr, drawn))}")
    unknown = sorted({name for patient in patients for name in patient.names if chosen.structure_of(name) is None})
    if unknown:
        report(f"structures that fit no rule and are left out: {', '.join(map(repr, unknown))}")
    structures = tuple(name for name in chosen.structures if any(name in plan.names for plan in plans))

    def cases() -> Iterator[CaseArrays]:
        number = 0
        for plan in plans:
            name = f"CASE_{number:03d}"
            try:
                case = _case(name, plan, reference, structures, report)
            except InputError as problem:
                report(f"{plan.folder}: skipped: {problem}")
                continue
            report(f"{name}: {plan.folder}")
            number += 1
            yield case
        if not number:
            raise InputError(f"{source}: no patient can be read, of {len(plans)}: the lines above say why")

    return write_cohort(
        destination, cases(), name=Path(destination).resolve().name, channels=channels, structures=structures
    )


def _common_channels(patients: list[Patient], rules: Rules, report: Report) -> tuple[str, ...]:
    """Channels of the cohort, in the order of the rules."""
    names = [rule.name for rule in rules.channels]
    if rules.own_channels:
        return tuple(names)
    having = {name: sum(name in rules.channels_of(patient.series) for patient in patients) for name in names}
    for name, count in having.items():
        if 0 < count < len(patients):
            report(f"channel {name} is left out: {count} of {len(patients)} patients have it")
    common = tuple(name for name, count in having.items() if count == len(patients))
    if not common:
        found = listed(sorted(f"{one.modality} {one.description!r}" for each in patients for one in each.series))
        cause = "name modality and description of each channel in the rules"
        raise InputError(f"no channel that all {len(patients)} patients have ({found}): {cause}")
    return common


def _plan(patient: Patient, channels: tuple[str, ...], reference: str, rules: Rules) -> _Plan:
    chosen, found = {}, rules.channels_of(patient.series)
    for name in channels:
        candidates = found.get(name, [])
        if len(candidates) != 1:
            there = listed(repr(series.description) for series in candidates or patient.series)
            cause = "its description fits no rule, or it was not exported"
            if candidates:
                there = listed(f"{one.description!r} in {one.files[0].parent}" for one in candidates)
                cause = (
                    "narrow the rules; where the descriptions are the same, keep one study of the patient in the "
                    "folder, or give people who share a PatientID one each"
                )
            raise InputError(f"{len(candidates)} series for channel {name} among {there or 'no series'}: {cause}")
        chosen[name] = candidates[0]
    for name, series in chosen.items():
        if not rules.register and not _share_frame(series, chosen[reference]):
            cause = "they do not lie upon each other; 'register: true' in the rules aligns them"
            raise InputError(f"{name} and {reference} have different frames of reference: {cause}")
    if not patient.drawings:
        return _Plan(patient.folder, chosen)
    drawing, drawn_on = _drawn(patient, chosen, reference)
    lost = [name for name in drawing.open if rules.structure_of(name)]
    if lost:
        cause = "close the contours in the planning system and export again"
        raise InputError(f"{drawing.path}: {listed(lost)}: only points or open lines, which enclose nothing: {cause}")
    names: dict[str, list[str]] = {}
    for name in drawing.names:
        structure = rules.structure_of(name)
        if structure:
            names.setdefault(structure, []).append(name)
    if not names:
        raise InputError(f"{drawing.path}: none of its {len(drawing.names)} contoured structures fits a rule")
    return _Plan(patient.folder, chosen, drawing.path, drawn_on, {key: tuple(value) for key, value in names.items()})


def _share_frame(one: Series, other: Series) -> bool:
    return one.uid == other.uid or one.frame_of_reference == other.frame_of_reference != ""


def _drawn(patient: Patient, chosen: Mapping[str, Series], reference: str) -> tuple[Drawing, Series]:
    """The RTSTRUCT to import and the series it was drawn on: the reference, else another channel, else any series."""
    rest = [series for series in patient.series if series not in chosen.values()]
    for series in [chosen[reference], *chosen.values(), *rest]:
        drawings = [drawing for drawing in patient.drawings if series.uid in drawing.series]
        if len(drawings) > 1:
            files = ", ".join(str(drawing.path) for drawing in drawings)
            raise InputError(f"{len(drawings)} RTSTRUCTs were drawn on one series ({files}): keep one of them")
        if not drawings:
            continue
        drawing = drawings[0]
        if drawing.frames_of_reference and series.frame_of_reference not in drawing.frames_of_reference:
            cause = "the images were registered or exported anew after the contours were drawn"
            raise InputError(f"{drawing.path}: refers to another frame of reference than its own series: {cause}")
        if series in rest and not _share_frame(series, chosen[reference]):
            cause = "import that series as a channel too"
            raise InputError(f"{drawing.path}: drawn in another frame of reference than {reference}: {cause}")
        return drawing, series
    cause = "an RTSTRUCT of another series or patient, or the series it was drawn on was not exported"
    raise InputError(f"{patient.drawings[0].path}: refers to none of the series that are there: {cause}")


def _case(name: str, plan: _Plan, reference: str, structures: tuple[str, ...], report: Report) -> CaseArrays:
    target = plan.channels[reference]
    grid = to_itk(*read_series(target.files))
    arrays: list[np.ndarray] = []
    transforms: dict[str, sitk.Transform | None] = {}
    for channel, series in plan.channels.items():
        image = grid if channel == reference else to_itk(*read_series(series.files))
        transforms[series.uid] = None
        if not _share_frame(series, target):
            transforms[series.uid], information = register_rigid(grid, image)
            report(f"{name}: {channel} registered to {reference} (mutual information {information:.2f}); look at it")
        if transforms[series.uid] is not None or not same_grid(image, grid):
            image = resample(image, grid, transforms[series.uid])
        arrays.append(from_itk(image)[0])
    masks = _masks(name, plan, structures, grid, transforms, report)
    _, spacing_mm, geometry = from_itk(grid)
    # Every patient has the organs, drawn or not; without a target volume there is likely none.
    missing = tuple(key for key in structures if key not in plan.names and not is_target(key))
    return CaseArrays(name, name, np.stack(arrays), masks, spacing_mm, not_contoured=missing, geometry=geometry)


def _masks(
    case: str,
    plan: _Plan,
    structures: tuple[str, ...],
    reference: sitk.Image,
    transforms: Mapping[str, sitk.Transform | None],
    report: Report,
) -> dict[str, np.ndarray]:
    """Masks on the grid of ``reference``; structures that were not drawn are empty, and without an RTSTRUCT there is no
    mask."""
    if plan.drawing is None or plan.drawn_on is None:
        return {}
    transform = transforms.get(plan.drawn_on.uid)
    grid = read_grid(plan.drawn_on.files)
    drawn = read_structures(plan.drawing).structures
    masks = {}
    for structure in structures:
        names = plan.names.get(structure, ())
        mask = np.zeros(grid.shape, bool)
        for one in drawn:
            if one.name in names:
                mask |= rasterise(one.contours, grid, lambda text, n=one.name: report(f"{case}: {n!r}: {text}"))
                if one.open:
                    report(f"{case}: {one.name!r}: points and open lines left out, which enclose nothing: {one.open}")
        if len(names) > 1:
            report(f"{case}: {structure} is put together from {', '.join(map(repr, names))}")
        if not names:
            meaning = "taken as not there" if is_target(structure) else "marked as not contoured"
            report(f"{case}: {structure} is not drawn: {meaning}")
        elif not mask.any():
            cause = "they lie beyond the images, or between the middles of voxels"
            raise InputError(f"{plan.drawing}: {structure} has contours but no voxel: {cause}")
        image = to_itk(mask, grid.spacing_mm, grid.geometry)
        if transform is not None or not same_grid(image, reference):
            image = resample_mask(image, reference, transform)
        masks[structure] = from_itk(image)[0] != 0
        if mask.any() and not masks[structure].any():
            report(f"{case}: {structure} lies beyond the reference images, or is smaller than their voxels: empty mask")
    return masks

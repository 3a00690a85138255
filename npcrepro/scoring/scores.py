"""From two sides to a row for each prediction, case and structure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd

from npcrepro.base.errors import InputError, pick
from npcrepro.cohorts.check import grid_defects
from npcrepro.cohorts.defects import Refused
from npcrepro.cohorts.structures import Structures
from npcrepro.metrics.surface import CONVENTIONS, surface_distances
from npcrepro.runs.evaluation import AREAS, UNKNOWN_SPACING, score_masks
from npcrepro.scoring.given import NSD_TOLERANCE_MM, Labels
from npcrepro.scoring.sides import (
    Files,
    LabelImage,
    Mask,
    MaskFolder,
    Nothing,
    find_cases,
    first_file,
    listed,
    read_mask,
)

# Such files hold no millimetres that could be trusted.
WITHOUT_SPACING = (".png", ".tif", ".tiff")
# More values than any set of structures has: somebody gave the image in place of its labels.
MOST_VALUES = 255


@dataclass(frozen=True)
class Scores:
    """What was measured.

    Attributes:
        cases: one row for each prediction, case and structure: status (``missing`` without a prediction), counts,
            volumes, every metric under both conventions of the surface, and ``diagonal_mm`` of the image.
        tolerances_mm: of the NSD, for each structure.
        notes: what should be known, a sentence each.
    """

    cases: pd.DataFrame
    tolerances_mm: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...]

    @property
    def predictions(self) -> tuple[str, ...]:
        """Names of the predictions, in the order given."""
        return tuple(dict.fromkeys(self.cases.prediction))


def score(
    predictions: Mapping[str, Path],
    reference: Path,
    *,
    labels: Labels | None = None,
    spacing_mm: Sequence[float] | None = None,
    tolerances_mm: Mapping[str, Sequence[float]] | None = None,
    cases: Collection[str] | None = None,
    track: Callable[[list[str]], Iterable[str]] = iter,
) -> Scores:
    """Score predictions, case by case and structure by structure.

    Args:
        predictions: name to file or folder.
        reference: a file if the predictions are files, else a folder.
        labels: see `parse_labels`; by default every value of the references is a structure.
        spacing_mm: ``(z, y, x)`` of every case, ``nan`` if unknown; None takes it from the images, and then grids have
            to agree in spacing, direction and origin too, not in shape alone.
        tolerances_mm: of the NSD, see `parse_tolerances`.
        cases: that are looked at; by default every case of the reference.
        track: wraps the list of cases while it is gone through, to show progress.

    Raises:
        InputError: see the top of this package; nothing in common between a prediction and the reference; no case or
            structure left by ``labels``; a spacing or tolerance that is none.
    """
    labels = labels or Labels()
    plan = _plan(predictions, reference, labels, spacing_mm, tolerances_mm or {}, cases)
    rows = []
    for case in track(list(plan.references)):
        about = {"case": case, "patient": labels.patients.get(case, case), "suspect": case in labels.suspect}
        rows += [about | row for row in _score_case(case, plan)]
    return Scores(_table(rows, list(plan.sides), list(plan.tolerances_mm)), plan.tolerances_mm, plan.notes)


@dataclass(frozen=True)
class _Plan:
    """What is scored against what; no mask has been compared yet.

    Attributes:
        references: files of each case.
        drawn: for each case, the structures that its reference shows or could show.
        sides: files of each prediction.
        codes: of the structures in label images; empty where there is no label image.
        known: every code that a label image may hold.
        spacing_mm: of every case, or None for that of the images.
        tolerances_mm: of the NSD, for each structure.
    """

    references: Files
    drawn: Mapping[str, tuple[str, ...]]
    sides: Mapping[str, Files]
    codes: Structures
    known: set[int]
    spacing_mm: tuple[float, ...] | None
    tolerances_mm: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...]


def _plan(
    predictions: Mapping[str, Path],
    reference: Path,
    labels: Labels,
    spacing_mm: Sequence[float] | None,
    tolerances_mm: Mapping[str, Sequence[float]],
    cases: Collection[str] | None,
) -> _Plan:
    spacing_mm = _spacing(spacing_mm, labels)
    references = _only(find_cases(reference), cases)
    if not references:
        raise InputError(f"{reference} has none of the cases {listed(sorted(cases))}: names have to agree")
    wrong = [case for case in references if case in labels.wrong]
    references = {case: files for case, files in references.items() if case not in wrong}
    if set(references) <= set(labels.suspect):
        raise InputError(
            f"{reference}: dataset.json calls every label wrong or suspect, so there is nothing to average"
        )
    sides = {name: _matched(path, reference, references, labels.wrong) for name, path in predictions.items()}
    sides = {name: _only(files, cases) for name, files in sides.items()}
    codes, known = _codes(reference, references, labels)
    masks = {name for files in references.values() if isinstance(files, dict) for name in files}
    names = tuple(codes or sorted(masks))
    drawn = {case: _drawn(names, files, labels.not_contoured.get(case, ())) for case, files in references.items()}
    if not any(drawn.values()):
        raise InputError(f"{reference}: none of the structures {listed(names)} was drawn, so there is nothing to score")
    notes = _notes_on_cases(references, wrong, labels.suspect, spacing_mm)
    notes += _notes_on_structures(names, drawn, [*_unnamed(codes, known), *sorted(masks - set(names))])
    if labels.structures is None and codes:
        notes += _hint(reference)
    for name, files in sides.items():
        notes += _notes_on_prediction(name, predictions[name], files, drawn, names, codes)
    tolerances = _tolerances(tolerances_mm, names)
    return _Plan(references, drawn, sides, codes, known, spacing_mm, tolerances, tuple(notes))


def _only(files: Files, cases: Collection[str] | None) -> Files:
    return files if cases is None else {case: found for case, found in files.items() if case in cases}


def _spacing(spacing_mm: Sequence[float] | None, labels: Labels) -> tuple[float, ...] | None:
    if spacing_mm is None:
        return None if labels.spacing_known else UNKNOWN_SPACING
    if not all(0 < spacing < inf or isnan(spacing) for spacing in spacing_mm):
        raise InputError(f"--spacing {spacing_mm} is not three positive numbers of mm along z, y and x")
    return tuple(spacing_mm)


def _tolerances(given: Mapping[str, Sequence[float]], names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    for name in set(given) - {"", *names}:
        pick(dict.fromkeys(names), name, "structure in --nsd-tolerance")
    others = given.get("", (NSD_TOLERANCE_MM,))
    return {name: tuple(given.get(name, others)) for name in names}


def _matched(path: Path, reference: Path, references: Files, wrong: Sequence[str]) -> Files:
    """Cases of a prediction under the names of the reference."""
    files = {case: found for case, found in find_cases(path).items() if case not in wrong}
    if path.is_file() != reference.is_file():
        raise InputError(f"{path} and {reference} are a file and a folder: give two files or two folders")
    if path.is_file():
        return dict(zip(references, files.values(), strict=True))
    if not set(files) & set(references):
        mine, theirs = listed(list(files)), listed(list(references))
        raise InputError(f"{path} and {reference} have no case in common: {mine} against {theirs}; names have to agree")
    return files


def _codes(reference: Path, references: Files, labels: Labels) -> tuple[Structures, set[int]]:
    """Codes of the structures, and every code that occurs in the references or has a name."""
    images = [files for files in references.values() if isinstance(files, Path)]
    values = {int(value) for file in images for value in np.unique(read_mask(file).array)} - {0}
    if labels.structures is not None:
        return labels.structures, values.union(*labels.structures.values())
    if images and not values:
        raise InputError(f"{reference}: every reference is empty: name the structures in --labels")
    if len(values) > MOST_VALUES:
        cause = "an image was given in place of its labels"
        raise InputError(f"{reference}: {len(values)} different values in the references: {cause}")
    return {f"label_{value}": (value,) for value in sorted(values)}, values


def _unnamed(codes: Structures, known: set[int]) -> list[str]:
    return [str(code) for code in sorted(known.difference(*codes.values()))]


def _drawn(names: Sequence[str], files: Path | dict[str, Path], not_contoured: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in not_contoured and (isinstance(files, Path) or name in files))


# Notes


def _notes_on_cases(
    references: Files, wrong: Sequence[str], suspect: Sequence[str], spacing_mm: Sequence[float] | None
) -> list[str]:
    notes = []
    if wrong:
        notes.append(f"wrong labels by dataset.json, so not scored: {listed(wrong, 'case')}")
    suspect = [case for case in references if case in suspect]
    if suspect:
        notes.append(
            f"doubtful labels by dataset.json, so in the rows of cases but in no mean: {listed(suspect, 'case')}"
        )
    bare = [case for case, files in references.items() if _is_bare(files)]
    if spacing_mm is None and bare:
        notes.append(f"no distances, because PNG and TIFF hold no spacing: give --spacing ({listed(bare, 'case')})")
    return notes


def _notes_on_structures(names: Sequence[str], drawn: Mapping[str, Sequence[str]], left: Sequence[str]) -> list[str]:
    notes = [f"in the references and not in --labels, so not scored: {listed(left)}"] if left else []
    lacking = {name: [case for case, found in drawn.items() if name not in found] for name in names}
    lines = [f"{name} ({listed(cases, 'case')})" for name, cases in lacking.items() if cases]
    return notes + ([f"not drawn in the reference, so not scored: {listed(lines)}"] if lines else [])


def _hint(reference: Path) -> list[str]:
    folder = reference if reference.is_dir() else reference.parent
    found = next((each / "dataset.json" for each in (folder, folder.parent) if (each / "dataset.json").is_file()), None)
    return [f"structures have no names: --labels {found} would give them"] if found else []


def _notes_on_prediction(
    name: str,
    path: Path,
    files: Files,
    drawn: Mapping[str, Sequence[str]],
    names: Sequence[str],
    codes: Structures,
) -> list[str]:
    """What a prediction has too much or too little of, compared with the reference."""
    missing, extra = [case for case in drawn if case not in files], [case for case in files if case not in drawn]
    notes = [f"{name}: no prediction, which counts as the worst: {listed(missing, 'case')}"] if missing else []
    notes += [f"{name}: no reference, so not scored: {listed(extra, 'case')}"] if extra else []
    masks = {case: set(files[case]) for case in drawn if isinstance(files.get(case), dict)}
    if not masks:
        if not codes:
            cause = "name the structures of the label images in --labels"
            raise InputError(f"{path} holds label images and the reference a folder of masks for each case: {cause}")
        return notes
    found = set().union(*masks.values())
    if not found & set(names):
        mine, theirs = listed(sorted(found)), listed(names)
        raise InputError(f"{path} has no structure of the reference: {mine} against {theirs}; names have to agree")
    unknown = sorted(found - set(names))
    for structure in names:
        cases = [case for case, mine in masks.items() if structure in drawn[case] and structure not in mine]
        if cases:
            near = difflib.get_close_matches(structure, unknown, n=1)
            hint = f"; is it {near[0]!r} there?" if near else ""
            notes.append(f"{name}: no mask of {structure}, which counts as the worst: {listed(cases, 'case')}{hint}")
    if unknown:
        notes.append(f"{name}: not in the references or not in --labels, so not scored: {listed(unknown, 'structure')}")
    return notes


# Scores


def _is_bare(files: Path | dict[str, Path]) -> bool:
    return first_file(files).name.endswith(WITHOUT_SPACING)


def _opened(files: Path | dict[str, Path] | None, plan: _Plan) -> LabelImage | MaskFolder | Nothing:
    if files is None:
        return Nothing()
    return LabelImage(files, plan.codes, plan.known) if isinstance(files, Path) else MaskFolder(files)


def _score_case(case: str, plan: _Plan) -> list[dict]:
    reference = _opened(plan.references[case], plan)
    predicted = {name: _opened(files.get(case), plan) for name, files in plan.sides.items()}
    fixed = UNKNOWN_SPACING if plan.spacing_mm is None and _is_bare(plan.references[case]) else plan.spacing_mm
    rows = []
    for structure in plan.drawn[case]:
        wanted = reference.mask(structure)
        for name, side in predicted.items():
            found = side.mask(structure)
            if found is not None:
                _refuse_other_grid(found, wanted, shape_only=fixed is not None)
            scores = _score(found, wanted.array, fixed or wanted.spacing_mm, plan.tolerances_mm[structure])
            rows.append({"prediction": name, "structure": structure} | scores)
    return rows


def _refuse_other_grid(found: Mask, wanted: Mask, shape_only: bool) -> None:
    cause = "the two were drawn on different images, or one was resampled: bring it to the grid of the reference"
    spacing_mm, geometry = (wanted.spacing_mm, wanted.geometry) if shape_only else (found.spacing_mm, found.geometry)
    grid = (found.array.shape, spacing_mm, geometry)
    defects = grid_defects(
        str(found.file), grid, str(wanted.file), wanted.array.shape, wanted.spacing_mm, wanted.geometry, cause
    )
    if defects:
        raise Refused(defects[0])


def _score(
    found: Mask | None, wanted: np.ndarray, spacing_mm: tuple[float, ...], tolerances: tuple[float, ...]
) -> dict:
    mask = np.zeros_like(wanted) if found is None else found.array
    row = score_masks(mask, wanted, spacing_mm)
    for name in AREAS:
        del row[name]
    if found is None:
        row["status"] = "missing"
    axes = slice(1, None) if len(wanted) == 1 else slice(None)  # a single slice is scored by its outline
    for convention in CONVENTIONS:
        more = [tolerance for tolerance in tolerances if nsd_column(convention, tolerance) not in row]
        if more and not any(isnan(spacing) for spacing in spacing_mm):
            masks = (mask[0], wanted[0]) if len(wanted) == 1 else (mask, wanted)
            distances = surface_distances(*masks, spacing_mm[axes], convention)
            row |= {nsd_column(convention, tolerance): distances.nsd(tolerance) for tolerance in more}
    row |= {f"spacing_{axis}_mm": spacing for axis, spacing in zip("zyx", spacing_mm, strict=True)}
    lengths = [n * spacing for n, spacing in zip(wanted.shape[axes], spacing_mm[axes], strict=True)]
    return row | {"diagonal_mm": sqrt(sum(length**2 for length in lengths))}


def nsd_column(convention: str, tolerance_mm: float) -> str:
    """Column of the NSD in the table of cases, such as ``surfel_nsd_2mm``."""
    return f"{convention}_nsd_{tolerance_mm:g}mm"


def _table(rows: list[dict], predictions: list[str], structures: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    first = ["prediction", "case", "patient", "suspect", "structure", "status"]
    table = table[[*first, *(column for column in table if column not in first)]]
    ranks = {"prediction": {name: i for i, name in enumerate(predictions)}}
    ranks["structure"] = {name: i for i, name in enumerate(structures)}
    return table.sort_values(
        ["structure", "prediction", "case"], key=lambda column: column.map(ranks.get(column.name, lambda x: x))
    ).reset_index(drop=True)

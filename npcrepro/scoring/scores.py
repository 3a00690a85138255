"""From two sides to a row for each prediction, case and structure."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd

from npcrepro.base.errors import InputError, one_of
from npcrepro.cohorts.check import grid_defects
from npcrepro.cohorts.defects import Refused
from npcrepro.cohorts.images import axes_of
from npcrepro.cohorts.listing import scan
from npcrepro.cohorts.structures import Structures
from npcrepro.metrics.surface import CONVENTIONS, surface_distances
from npcrepro.runs.evaluation import OF_PROBABILITY, UNKNOWN_SPACING, VALIDATED, VALIDATED_COUNTS, score_masks
from npcrepro.scoring import notes
from npcrepro.scoring.given import NSD_TOLERANCE_MM, Labels
from npcrepro.scoring.sides import Files, Mask, find_cases, is_bare, listed, open_case, read_mask

# More values than any set of structures has: somebody gave the image in place of its labels.
MOST_VALUES = 255


@dataclass(frozen=True)
class Scores:
    """What was measured.

    Attributes:
        cases: one row for each prediction, case and structure: status (``missing`` without a prediction), counts,
            volumes, every metric under both conventions of the surface, pieces, areas, planes and sides (see
            :mod:`npcrepro.metrics.panel`; by the axes of the reference), and ``diagonal_mm`` of the image.
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
        cases: that are scored; by default every case of the reference.
        track: wraps the list of cases, to show progress.

    Raises:
        InputError: see the top of this package; a prediction has nothing in common with the reference; ``labels`` leave
            no case or structure; a spacing or tolerance cannot be one.
    """
    labels = labels or Labels()
    plan = _plan(predictions, reference, labels, spacing_mm, tolerances_mm or {}, cases)
    rows = []
    for case in track(list(plan.references)):
        about = {"case": case, "patient": labels.patients.get(case, case), "suspect": case in labels.suspect}
        rows += [{"prediction": row["prediction"]} | about | row for row in _score_case(case, plan)]
    structures, names = list(plan.tolerances_mm), list(predictions)
    rows.sort(key=lambda row: (structures.index(row["structure"]), names.index(row["prediction"]), row["case"]))
    return Scores(pd.DataFrame(rows), plan.tolerances_mm, plan.notes)


@dataclass(frozen=True)
class _Plan:
    """What is scored against what; no mask has been compared yet."""

    references: Files
    drawn: Mapping[str, tuple[str, ...]]  # for each case, the structures that its reference shows or could show
    sides: Mapping[str, Files]  # of each prediction
    codes: Structures  # in label images; empty if there is none
    named: Mapping[str, Structures]  # those of a prediction that says so in a dataset.json of its own
    known: set[int]  # every code that a label image may hold
    spacing_mm: tuple[float, ...] | None  # of every case; None for that of the images
    tolerances_mm: Mapping[str, tuple[float, ...]]  # of the NSD, for each structure
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
        raise InputError(f"{reference} has none of the cases {listed(sorted(cases or ()))}: names have to agree")
    wrong = [case for case in references if case in labels.wrong]
    references = {case: files for case, files in references.items() if case not in wrong}
    if set(references) <= set(labels.suspect):
        raise InputError(f"{reference}: dataset.json calls every label wrong or suspect: there is nothing to average")
    sides = {name: _matched(path, reference, references, labels.wrong) for name, path in predictions.items()}
    sides = {name: _only(files, cases) for name, files in sides.items()}
    codes, known = _codes(reference, references, labels)
    masks = {name for files in references.values() if isinstance(files, dict) for name in files}
    names = tuple(codes or sorted(masks))
    drawn = {case: _drawn(names, files, labels.not_contoured.get(case, ())) for case, files in references.items()}
    if not any(drawn.values()):
        raise InputError(f"{reference}: none of the structures {listed(names)} was drawn, so there is nothing to score")
    unnamed = [str(code) for code in sorted(known.difference(*codes.values()))]
    said = notes.on_cases(references, wrong, labels.suspect, spacing_mm)
    said += notes.on_structures(names, drawn, [*unnamed, *sorted(masks - set(names))])
    if labels.structures is None and codes:
        folder = reference if reference.is_dir() else reference.parent
        nearby = [path for path in (folder / "dataset.json", folder.parent / "dataset.json") if path.is_file()]
        said += [f"structures have no names: --labels {path} would give them" for path in nearby[:1]]
    named = {name: own for name, files in sides.items() if (own := _own_codes(predictions[name], files, names))}
    for name, own in named.items():
        if not any(set(own) & set(each) for each in drawn.values()):
            raise InputError(f"{predictions[name]} has {listed(sorted(own))} alone, which no reference shows")
    for name, files in sides.items():
        said += notes.on_prediction(name, predictions[name], files, drawn, names, codes)
        said += notes.on_own_names(name, _beside(predictions[name]), named.get(name), names)
    tolerances = _tolerances(tolerances_mm, names)
    return _Plan(references, drawn, sides, codes, named, known, spacing_mm, tolerances, tuple(said))


def _own_codes(path: Path, files: Files, names: Sequence[str]) -> Structures | None:
    """Codes of label images beside a ``dataset.json``, which ``predict`` and nnU-Net write; None without one, and where
    it has none of the names of the reference."""
    if not _beside(path) or any(isinstance(each, dict) for each in files.values()):
        return None
    structures = scan(path if path.is_dir() else path.parent).structures or {}
    return structures if set(structures) & set(names) else None


def _beside(path: Path) -> bool:
    """Whether a folder of predictions, or that of a single one, has a ``dataset.json``."""
    return ((path if path.is_dir() else path.parent) / "dataset.json").is_file()


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
        one_of(names, name, "structure in --nsd-tolerance")
    others = given.get("", (NSD_TOLERANCE_MM,))
    return {name: tuple(given.get(name, others)) for name in names}


def _matched(path: Path, reference: Path, references: Files, wrong: Sequence[str]) -> Files:
    """Cases of a prediction under the names of the reference."""
    files = find_cases(path)
    if path.is_file() != reference.is_file():
        raise InputError(f"{path} and {reference} are a file and a folder: give two files or two folders")
    if path.is_file():
        return dict(zip(references, files.values(), strict=True))
    files = {case: found for case, found in files.items() if case not in wrong}
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


def _drawn(names: Sequence[str], files: Path | dict[str, Path], not_contoured: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in not_contoured and (isinstance(files, Path) or name in files))


def _score_case(case: str, plan: _Plan) -> list[dict]:
    files = plan.references[case]
    reference = open_case(files, plan.codes, plan.known)
    predicted = {}
    for name, its_files in plan.sides.items():
        own = plan.named.get(name)
        if own is None:
            predicted[name] = open_case(its_files.get(case), plan.codes, plan.known)
        else:
            known = {code for each in own.values() for code in each}
            predicted[name] = open_case(its_files.get(case), own, known, "its own dataset.json")
    fixed = UNKNOWN_SPACING if plan.spacing_mm is None and is_bare(files) else plan.spacing_mm
    rows = []
    for structure in plan.drawn[case]:
        wanted = reference(structure)
        assert wanted is not None
        for name, side in predicted.items():
            if structure not in plan.named.get(name, plan.drawn[case]):
                continue  # a network is not asked for what it never learnt
            found = side(structure)
            if found is not None:
                _refuse_other_grid(found, wanted, shape_only=fixed is not None)
            scores = _score(found, wanted, fixed or wanted.spacing_mm, plan.tolerances_mm[structure])
            rows.append({"prediction": name, "structure": structure} | scores)
    return rows


def _refuse_other_grid(found: Mask, wanted: Mask, shape_only: bool) -> None:
    cause = "the two were drawn on different images, or one was resampled: bring it to the grid of the reference"
    spacing_mm, geometry = (wanted.spacing_mm, wanted.geometry) if shape_only else (found.spacing_mm, found.geometry)
    grid, other = (found.array.shape, spacing_mm, geometry), (wanted.array.shape, wanted.spacing_mm, wanted.geometry)
    defects = grid_defects(str(found.file), grid, str(wanted.file), *other, cause)
    if defects:
        raise Refused(defects[0])


def _score(found: Mask | None, drawn: Mask, spacing_mm: tuple[float, ...], tolerances: tuple[float, ...]) -> dict:
    wanted = drawn.array
    mask = np.zeros_like(wanted) if found is None else found.array
    row = score_masks(mask, wanted, spacing_mm, axes=axes_of(drawn.geometry))
    for name in (*OF_PROBABILITY, *VALIDATED, *VALIDATED_COUNTS):
        del row[name]
    if found is None:
        row["status"] = "missing"
    axes = slice(1, None) if len(wanted) == 1 else slice(None)  # a single slice is scored by its outline
    for convention in CONVENTIONS:
        more = [tolerance for tolerance in tolerances if nsd_column(convention, tolerance) not in row]
        if more and not any(isnan(spacing) for spacing in spacing_mm):
            one, other = (mask[0], wanted[0]) if len(wanted) == 1 else (mask, wanted)
            distances = surface_distances(one, other, spacing_mm[axes], convention)
            row |= {nsd_column(convention, tolerance): distances.nsd(tolerance) for tolerance in more}
    row |= {f"spacing_{axis}_mm": spacing for axis, spacing in zip("zyx", spacing_mm, strict=True)}
    lengths = [n * spacing for n, spacing in zip(wanted.shape[axes], spacing_mm[axes], strict=True)]
    return row | {"diagonal_mm": sqrt(sum(length**2 for length in lengths))}


def nsd_column(convention: str, tolerance_mm: float) -> str:
    """Column of the NSD in the table of cases, such as ``surfel_nsd_2mm``."""
    return f"{convention}_nsd_{tolerance_mm:g}mm"

"""A cohort from a table of files: what a user has who has neither DICOM nor the nnU-Net layout.

The table is CSV with one row a case. Its columns:

* ``case``, and where a patient has several cases ``patient``;
* ``mask:NAME``: a file with one value inside structure NAME and zero elsewhere; one column for each structure.
  Masks may overlap. An empty cell means an empty mask for a target volume (GTV, CTV, ITV, PTV), and an organ that was
  not contoured;
* or ``label:NAME=1 OTHER=2``: one file with a code for each structure;
* every other column is a channel, called as the column.

Spaces around a name, and capitals in ``case``, ``patient``, ``mask`` and ``label`` do not count.

Files are NIfTI, NRRD, MHA or what else SimpleITK reads, relative to the folder of the table.
"""

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.base.wording import plural
from npcrepro.cohorts.cohort import CaseArrays, Cohort
from npcrepro.cohorts.defects import Refused
from npcrepro.cohorts.images import LABEL_TOLERANCE, from_itk, not_finite, read_image, to_itk
from npcrepro.cohorts.layout import write_cohort
from npcrepro.cohorts.resample import ELSEWHERE, inside, resample, resample_mask, same_grid
from npcrepro.cohorts.structures import LARGEST_CODE, is_target

KEPT_NAMES = ("background", "ignore")  # names with a meaning of their own in nnU-Net


@dataclass(frozen=True)
class _Columns:
    """What the columns of a table mean. Where there is a mask for each structure, there is no label and no codes."""

    channels: tuple[str, ...]
    structures: tuple[str, ...]
    label: str
    codes: Mapping[str, int] | None


def import_table(table: str | Path, destination: str | Path, report: Callable[[str], None] = print) -> Cohort:
    """Write the cohort that a table lists (see the module), named as the folder ``destination``, and return it.

    Channels and masks on another grid are resampled to that of the first channel, in scanner coordinates and without
    registration; ``report`` gets a line for each. Such a cohort is not publishable until its ``dataset.json`` says so.

    Raises InputError for a table that cannot be read, has no case, channel or structure or one of them twice, for a
    file that cannot be read, a mask or label with NaN, codes that the column does not name, and for a channel or a
    structure of which nothing is left on the grid of the first channel.
    """
    table = Path(table)
    rows = _read(table)
    columns = _columns(table, list(rows[0]))

    return write_cohort(
        destination,
        (_case(table, row, columns, report) for row in rows),
        name=Path(destination).resolve().name,
        channels=columns.channels,
        structures=columns.structures,
    )


def _read(table: Path) -> list[dict[str, str]]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            sample = file.readline()
            file.seek(0)
            # Spreadsheets in many countries separate by semicolons, and some save tabs.
            separator = max(",;\t", key=sample.count)
            reader = csv.DictReader(file, delimiter=separator, strict=True)
            names = reader.fieldnames = [_plain(name) for name in reader.fieldnames or ()]
            numbered = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise InputError(f"{table}: no such file: a mistyped path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{table}: not a CSV table ({problem}): save it as CSV with UTF-8 text") from None
    for name, times in Counter(names).items():
        if times > 1:
            cause = "a column was copied and not renamed, or a spreadsheet has columns without a name"
            raise InputError(f"{table}: {times} columns are called {name!r}: {cause}")
    rows = [row for _, row in numbered]
    if not rows or "case" not in rows[0]:
        found = ", ".join(str(name) for name in rows[0] if name) if rows else "no row"
        cause = "; a first line such as sep=; has to go" * found.startswith("sep=")
        raise InputError(f"{table}: a table needs the column 'case' and a row for each case; found: {found}{cause}")
    for number, row in numbered:
        if None in row or None in row.values():
            cause = "a comma too many, or a name with a comma and no quotes"
            raise InputError(f"{table}, line {number}: not as many cells as the first line has columns: {cause}")
        if not row["case"].strip():
            raise InputError(
                f"{table}, line {number}: no case name: a cell left empty, or a merged cell of a spreadsheet"
            )
    return [{key: cell.strip() for key, cell in row.items()} for row in rows]


def _plain(column: str) -> str:
    """The name of a column as the module gives it."""
    first, colon, rest = (part.strip() for part in column.partition(":"))
    if first.lower() in (("mask", "label") if colon else ("case", "patient")):
        return f"{first.lower()}{colon}{rest}"
    return column.strip()


def _columns(table: Path, names: list[str]) -> _Columns:
    masks = [name for name in names if name.startswith("mask:")]
    labels = [name for name in names if name.startswith("label:")]
    channels = tuple(name for name in names if name not in ("case", "patient", *masks, *labels))
    if not channels:
        raise InputError(f"{table}: no channel: every column that is not case, patient, mask:... or label:... is one")
    if bool(masks) == bool(labels) or len(labels) > 1:
        cause = "give mask:GTVp, mask:GTVnd, ... or one label:GTVp=1 GTVnd=2"
        raise InputError(f"{table}: {len(masks)} mask columns and {len(labels)} label columns: {cause}")
    if masks:
        structures, codes = tuple(name.removeprefix("mask:") for name in masks), None
    else:
        structures, codes = _codes(table, labels[0])
    for column, name in zip(masks or labels * len(structures), structures, strict=True):
        if name in ("", *KEPT_NAMES):
            what = f"{name!r}, which nnU-Net keeps for itself" if name else "no structure"
            raise InputError(f"{table}: column {column!r} names {what}: it looks like mask:GTVp or label:GTVp=1")
    return _Columns(channels, structures, "".join(labels), codes)


def _codes(table: Path, column: str) -> tuple[tuple[str, ...], dict[str, int]]:
    """Structures and their codes from the name of a column of labels."""
    pairs = [part.partition("=") for part in column.removeprefix("label:").split()]
    if not pairs or not all(name and code.isdecimal() and 0 < int(code) <= LARGEST_CODE for name, _, code in pairs):
        raise InputError(f"{table}: column {column!r} does not name its codes: it looks like 'label:GTVp=1 GTVnd=2'")
    names, numbers = [name for name, _, _ in pairs], [int(code) for _, _, code in pairs]
    for what, given in (("structure", names), ("code", numbers)):
        for each, times in Counter(given).items():
            if times > 1:
                cause = "a structure has one code here, and a code one structure"
                raise InputError(f"{table}: column {column!r} names the {what} {each} twice: {cause}")
    return tuple(names), dict(zip(names, numbers, strict=True))


def _case(table: Path, row: Mapping[str, str], columns: _Columns, report: Callable[[str], None]) -> CaseArrays:
    case, reference = row["case"], columns.channels[0]

    def place(column: str) -> str:
        return f"{case}, column {column!r}"

    def load(column: str):
        if not row[column]:
            raise InputError(f"{table}: case {case} has no file in column {column!r}: every case needs every channel")
        try:
            return to_itk(*read_image(table.parent / row[column]))
        except Refused as problem:
            raise Refused(problem.defect, place(column)) from None

    def drawn_in(column: str, array: np.ndarray) -> dict[str, np.ndarray]:
        """The masks of the structures in a file, by their names."""
        file = table.parent / row[column]
        if not np.isfinite(array).all():  # NaN is neither inside nor outside
            raise Refused(not_finite(str(file), array), place(column))
        if columns.codes is None:
            name, values = column.removeprefix("mask:"), np.unique(array[array != 0])
            if len(values) > 1:
                cause = f"a label image has a column such as label:{name}=1 OTHER=2, and no mask one"
                told = f"{len(values)} values, {values[0]:g} to {values[-1]:g}, in the mask of one structure"
                raise InputError(f"case {place(column)}: {file}: {told}; likely cause: {cause}")
            return {name: array != 0}
        for value in np.unique(array).tolist():
            if min(abs(value - code) for code in (0, *columns.codes.values())) > LABEL_TOLERANCE:
                cause = f"column {column!r} does not list it, or the label was resampled with interpolation"
                raise InputError(f"case {place(column)}: {file}: label value {value:g}: {cause}")
        return {name: np.abs(array - code) <= LABEL_TOLERANCE for name, code in columns.codes.items()}

    def lost(column: str, what: str, cause: str) -> InputError:
        there = f"{reference} ({table.parent / row[reference]})"
        about = f"case {place(column)}: {table.parent / row[column]}: {what}"
        return InputError(f"{about} {there}; likely cause: {cause}")

    def fitted(name: str):
        image = grid if name == reference else load(name)
        if name == reference or same_grid(image, grid):
            return image
        if not inside(image, grid).any():
            raise lost(name, "covers no voxel of", ELSEWHERE)
        report(f"case {case}: {name} resampled to the grid of {reference}")
        return resample(image, grid)

    def fitted_mask(structure: str, column: str, drawn: np.ndarray, where: list):
        mask = to_itk(drawn, *where)
        if same_grid(mask, grid):
            return drawn
        fits = from_itk(resample_mask(mask, grid))[0] != 0
        # What is cut off at the border is as it should be; a structure without a voxel would pass for one not there.
        if drawn.any() and not fits.any():
            marked = f"{plural(int(drawn.sum()), 'voxel')} of {structure}"
            if (drawn & inside(grid, mask)).any():
                cause = "it is too small for this grid; take a finer image for the first channel"
                raise lost(column, f"{marked}, which reach the middle of no voxel of", cause)
            raise lost(column, f"{marked}, none of them inside", ELSEWHERE)
        report(f"case {case}: {f'label {structure}' if columns.codes else column} resampled to the grid of {reference}")
        return fits

    grid = load(reference)
    image = np.stack([from_itk(fitted(name))[0] for name in columns.channels])
    _, spacing_mm, geometry = from_itk(grid)
    found = {}
    for column in [columns.label] if columns.codes else [f"mask:{name}" for name in columns.structures]:
        if columns.codes or row[column]:
            array, *where = from_itk(load(column))
            for name, drawn in drawn_in(column, array).items():
                found[name] = fitted_mask(name, column, drawn, where)
    missing = tuple(name for name in columns.structures if name not in found and not is_target(name))
    found = found or {columns.structures[0]: np.zeros(image.shape[1:], bool)}
    patient = row.get("patient") or case
    return CaseArrays(case, patient, image, found, spacing_mm, not_contoured=missing, geometry=geometry)

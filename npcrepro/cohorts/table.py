"""A cohort from a table of files: what a user has who has neither DICOM nor the nnU-Net layout.

The table is CSV with one row a case. Its columns:

* ``case``, and where a patient has several cases ``patient``;
* ``mask:NAME``: a file that is not zero inside structure NAME; one column for each structure. Masks may overlap, an
  empty cell means an empty mask;
* or ``label:NAME=1 OTHER=2``: one file with a code for each structure;
* every other column is a channel, called as the column.

Files are NIfTI, NRRD, MHA or what else SimpleITK reads, relative to the folder of the table.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npcrepro.cohorts.images import LABEL_TOLERANCE, from_itk, read_image, to_itk
from npcrepro.cohorts.layout import CaseArrays, Cohort, write_cohort
from npcrepro.cohorts.resample import resample, resample_mask, same_grid
from npcrepro.errors import InputError


@dataclass(frozen=True)
class _Columns:
    """What the columns of a table mean. ``codes`` is None where there is a mask for each structure."""

    channels: tuple[str, ...]
    structures: tuple[str, ...]
    label: str | None
    codes: Mapping[str, int] | None


def import_table(
    table: str | Path,
    destination: str | Path,
    *,
    reference: str | None = None,
    licence: str = "",
    report: Callable[[str], None] = print,
) -> Cohort:
    """Write the cohort that a table lists (see the module) and return it.

    Channels and masks on another grid are resampled to that of channel ``reference``, by default the first one, in
    scanner coordinates and without registration; ``report`` gets a line for each. Such a cohort is not publishable
    until its ``dataset.json`` says so.

    Raises InputError for a table that cannot be read, has no case, channel or structure or a case twice, for a file
    that cannot be read, and for codes that the column does not name.
    """
    table = Path(table)
    rows = _read(table)
    columns = _columns(table, list(rows[0]))
    reference = columns.channels[0] if reference is None else reference
    if reference not in columns.channels:
        raise InputError(
            f"{table}: no column {reference!r} for the reference: channels are {', '.join(columns.channels)}"
        )

    def cases() -> Iterator[CaseArrays]:
        for row in rows:
            yield _case(table, row, columns, reference, report)

    return write_cohort(
        destination,
        cases(),
        name=re.sub(r"[^\w.-]+", "-", table.stem).lstrip(".") or "cohort",
        channels=columns.channels,
        structures=columns.structures,
        licence=licence,
    )


def _read(table: Path) -> list[dict[str, str]]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            sample = file.readline()
            file.seek(0)
            # Spreadsheets in many countries separate by semicolons.
            separator = ";" if sample.count(";") > sample.count(",") else ","
            rows = list(csv.DictReader(file, delimiter=separator, strict=True))
    except FileNotFoundError:
        raise InputError(f"{table}: no such file: a mistyped path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{table}: not a CSV table ({problem}): save it as CSV with UTF-8 text") from None
    if not rows or "case" not in rows[0]:
        found = ", ".join(map(str, rows[0])) if rows else "no row"
        raise InputError(f"{table}: a table needs the column 'case' and a row for each case; found: {found}")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            cause = "a comma too many, or a name with a comma and no quotes"
            raise InputError(f"{table}, line {number}: not as many cells as the first line has columns: {cause}")
        if not row["case"].strip():
            raise InputError(f"{table}, line {number}: no case name: an empty line, or a merged cell of a spreadsheet")
    return [{key.strip(): cell.strip() for key, cell in row.items()} for row in rows]


def _columns(table: Path, names: list[str]) -> _Columns:
    masks = [name for name in names if name.startswith("mask:")]
    labels = [name for name in names if name.startswith("label:")]
    channels = [name for name in names if name not in ("case", "patient", *masks, *labels)]
    if not channels:
        raise InputError(f"{table}: no channel: every column that is not case, patient, mask:... or label:... is one")
    if bool(masks) == bool(labels) or len(labels) > 1:
        cause = "give mask:GTVp, mask:GTVnd, ... or one label:GTVp=1 GTVnd=2"
        raise InputError(f"{table}: {len(masks)} mask columns and {len(labels)} label columns: {cause}")
    if masks:
        structures = [name.removeprefix("mask:").strip() for name in masks]
        return _Columns(tuple(channels), tuple(structures), None, None)
    pairs = [part.partition("=") for part in labels[0].removeprefix("label:").split()]
    if not pairs or not all(name and code.isdecimal() and 0 < int(code) <= 255 for name, _, code in pairs):
        raise InputError(f"{table}: column {labels[0]!r} does not name its codes: it looks like 'label:GTVp=1 GTVnd=2'")
    codes = {name: int(code) for name, _, code in pairs}
    return _Columns(tuple(channels), tuple(codes), labels[0], codes)


def _case(
    table: Path, row: Mapping[str, str], columns: _Columns, reference: str, report: Callable[[str], None]
) -> CaseArrays:
    case = row["case"]

    def load(column: str):
        if not row[column]:
            raise InputError(f"{table}: case {case} has no file in column {column!r}: every case needs every channel")
        return to_itk(*read_image(table.parent / row[column]))

    def fitted(image, column: str, how):
        if same_grid(image, grid):
            return image
        report(f"case {case}: {column} resampled to the grid of {reference}")
        return how(image, grid)

    grid = load(reference)
    images = [grid if name == reference else fitted(load(name), name, resample) for name in columns.channels]
    if columns.codes is None:
        masks = {}
        for name in columns.structures:
            column = f"mask:{name}"
            if row[column]:
                masks[name] = fitted(load(column), column, resample_mask)
    else:
        label = load(columns.label)
        array, *where = from_itk(label)
        for value in np.unique(array).tolist():
            if min(abs(value - code) for code in (0, *columns.codes.values())) > LABEL_TOLERANCE:
                cause = f"column {columns.label!r} does not list it, or the label was resampled with interpolation"
                raise InputError(f"{table.parent / row[columns.label]}: label value {value:g}: {cause}")
        masks = {}
        for name, code in columns.codes.items():
            one = to_itk(np.abs(array - code) <= LABEL_TOLERANCE, *where)
            masks[name] = fitted(one, f"label {name}", resample_mask)
    arrays, (_, spacing_mm, geometry) = [from_itk(image)[0] for image in images], from_itk(grid)
    found = {name: from_itk(mask)[0] != 0 for name, mask in masks.items()}
    found = found or {columns.structures[0]: np.zeros(arrays[0].shape, bool)}
    return CaseArrays(case, row.get("patient") or case, np.stack(arrays), found, spacing_mm, geometry=geometry)

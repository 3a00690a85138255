"""What can be measured of the worst cases: ``python benchmarks/worst_cases.py RUNS[,RUNS...] COHORT...``

Adds what is measured to the readings in book/results/worst-cases/cases.csv that lack it: their columns cohort, case,
structure, channels, cause and note are written by hand (see npcrepro/book/topics/errors.py). Writes cut_out.csv beside
it. RUNS hold the predictions that were looked at, of the methods that lead their boards; COHORT the images. Numbers
only, no image.
"""

import sys

import pandas as pd

from npcrepro.book.topics import errors, leaderboard
from npcrepro.book.topics.cut_out import RECORD as CUT_OUT
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.overlap import count
from npcrepro.runs.records import find, write_csv

CT = ("CT",)


def opened(cohort, case: str) -> tuple:
    """First image, label and spacing of a case."""
    found = {each.name: each for each in cohort.cases}[case]
    (image, spacing_mm, _), (label, *_) = read_image(found.images[0]), read_image(found.label)
    return image, label, spacing_mm


def predicted(folders: list[str], board, case: str, structure: str):
    """The mask of the board's best method with the first of its seeds."""
    for record in [record for folder in folders for record in find(folder, cohort=board.cohort)]:
        method = record.config["method"]
        if board.titles[0].startswith(f"{method['title']} (") and (record.folder / f"predictions/{case}.npz").exists():
            return record.prediction(case)[0] == 1 + list(board.structures).index(structure)
    sys.exit(f"no run of {board.titles[0]} on {board.cohort} has a prediction of {case}")


def measured(row: dict, folders: list[str], board, cohort) -> dict:
    """A reading with what is measured of it."""
    image, label, spacing_mm = opened(cohort, row["case"])
    reference = mask_of(label, cohort.structures, row["structure"])
    found = predicted(folders, board, row["case"], row["structure"])
    numbers = errors.measure(image, reference, found, spacing_mm, ct=cohort.channels == CT)
    numbers["dsc_seen"] = count(found, reference).dsc
    seen = {"method_seen": board.titles[0]}
    return row | seen | {name: round(value, 4) for name, value in numbers.items()}


def cut_out(board, cohort) -> list[dict]:
    """How much of each structure of the tested cases lies in slices that are blank but for it."""
    rows = []
    for case in sorted(board.methods[0].cases.case.unique()):
        image, label, spacing_mm = opened(cohort, case)
        blank = errors.blank(image, spacing_mm)
        for structure in board.structures:
            mask = mask_of(label, cohort.structures, structure)
            share = round(float(mask[blank].sum() / mask.sum()), 4)
            rows.append({"cohort": board.cohort, "case": case, "structure": structure, "share": share})
    return rows


if __name__ == "__main__":
    cohorts = {cohort.name: cohort for cohort in map(read_cohort, sys.argv[2:])}
    boards = {board.cohort: board for board in reversed(leaderboard.boards())}
    readings = pd.read_csv(errors.READINGS).to_dict("records")
    runs = sys.argv[1].split(",")
    rows = [
        measured(row, runs, boards[row["cohort"]], cohorts[row["cohort"]]) if pd.isna(row["method_seen"]) else row
        for row in readings
    ]
    write_csv(errors.READINGS, rows, errors.COLUMNS)
    shares = [row for name, cohort in cohorts.items() if cohort.channels == CT for row in cut_out(boards[name], cohort)]
    write_csv(CUT_OUT, shares, [*errors.KEY, "share"])
    print(f"{len(rows)} readings in {errors.READINGS}, {len(shares)} shares in {CUT_OUT}")

"""Structures in blank slices of CT: ``python benchmarks/cut_out.py COHORT...`` writes book/results/cut-out/shares.csv.

For each structure of each case that published runs test: the share of its voxels in slices that are blank but for
drawn organs. Numbers only, no image.
"""

import sys

import numpy as np

from npcrepro.book.topics import leaderboard
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.structures import mask_of
from npcrepro.runs.records import write_csv

AIR_HU, BODY_CM2 = -900.0, 30.0  # an axial slice of a neck or a head has more body than this


def shares(board, cohort) -> list[dict]:
    """A row for each case and structure of a board."""
    known, rows = {each.name: each for each in cohort.cases}, []
    for case in sorted(board.cases.case.unique()):
        image, spacing_mm, _ = read_image(known[case].images[0])
        label = read_image(known[case].label)[0]
        blank = (np.asarray(image) > AIR_HU).sum(axis=(1, 2)) * spacing_mm[1] * spacing_mm[2] / 100 < BODY_CM2
        for structure in board.structures:
            mask = mask_of(label, cohort.structures, structure)
            share = round(float(mask[blank].sum() / mask.sum()), 4)
            rows.append({"cohort": board.cohort, "case": case, "structure": structure, "share": share})
    return rows


if __name__ == "__main__":
    boards = {name: found[0] for name, found in leaderboard.by_cohort(leaderboard.boards()).items()}
    rows = [row for cohort in map(read_cohort, sys.argv[1:]) for row in shares(boards[cohort.name], cohort)]
    write_csv(leaderboard.CUT_OUT, rows, ["cohort", "case", "structure", "share"])
    print(f"{len(rows)} shares in {leaderboard.CUT_OUT}")

"""Structures that lie in slices of a CT which are blank but for drawn organs: how many, and what the DSC is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from npcrepro.book.topics.errors import KEY, largest, record
from npcrepro.book.topics.leaderboard import Board
from npcrepro.runs.published import RESULTS

RECORD = RESULTS / "worst-cases" / "cut_out.csv"
SHARE = 0.05  # of a structure's voxels in blank slices: more of them, and it counts as cut out


def shares(path: Path = RECORD) -> pd.DataFrame:
    """How much of each tested structure lies in slices that are blank but for it: ``cohort``, ``case``, ``structure``,
    ``share`` of the voxels of the reference.

    Raises:
        InputError: the record is not there.
    """
    return record(path)


def dsc_with_and_without(cut: pd.DataFrame, boards: Sequence[Board]) -> pd.DataFrame:
    """Mean DSC of the best method in cases whose structure is cut out (`SHARE`) and in all others.

    Args:
        cut: from :func:`shares`.
        boards: from :func:`npcrepro.book.topics.leaderboard.boards`.

    Returns:
        A row for each structure that is cut out in some case: ``cohort``, ``structure``, ``n_cut`` and ``cut``,
        ``n_whole`` and ``whole``.
    """
    found = []
    for board in largest(boards):
        best = board.cases[board.cases.method == board.titles[0]]
        rows = best.groupby(["case", "structure"]).dsc.mean().reset_index().assign(cohort=board.cohort)
        for structure, group in rows.merge(cut, on=KEY).groupby("structure", sort=False):
            out, whole = (group.dsc[there] for there in (group.share > SHARE, group.share <= SHARE))
            if len(out):
                found.append((board.cohort, structure, len(out), out.mean(), len(whole), whole.mean()))
    return pd.DataFrame(found, columns=["cohort", "structure", "n_cut", "cut", "n_whole", "whole"])


def dsc_text(found: pd.DataFrame) -> str:
    """What :func:`dsc_with_and_without` found, in a few words."""
    if found.empty:
        return "No structure of a published record is cut out in more than a few voxels."
    told = "; ".join(
        f"{row.structure}: {row.cut:.2f} in {row.n_cut} patients with it, {row.whole:.2f} in {row.n_whole} without"
        for row in found.itertuples()
    )
    return f"Mean DSC with and without such slices: {told}. The patients are not the same, so part may be chance."


def note(cut: pd.DataFrame, board: Board) -> str:
    """What such slices mean for a board, as Markdown; empty for a cohort that was not measured.

    Args:
        cut: from :func:`shares`.
        board: cases with doubtful labels are not on it and do not count.
    """
    tested = board.cases[["case", "structure"]].drop_duplicates().assign(cohort=board.cohort)
    rows = tested.merge(cut, on=KEY)
    if rows.empty:
        return ""
    counts = (rows.share > SHARE).groupby(rows.structure, sort=False).agg(["sum", "size"])
    many = [f"of {row.Index} in {row.sum} of {row.size} cases" for row in counts.itertuples() if row.sum]
    if many:
        told = f"More than {100 * SHARE:.0f} % {', '.join(many)} lies in such slices, so that the DSC may be too high."
    else:
        most = f"At most {100 * rows.share.max():.1f} %" if rows.share.max() else "Nothing"
        told = (
            f"{most} of {' or '.join(counts.index)} lies in such slices in the {rows.case.nunique()} cases tested; "
            "whether other slices show the label was not measured."
        )
    head = "Slices near the ends of some of these CT scans are blank but for drawn organs ([Errors](errors.html))."
    return f"{head} {told}"

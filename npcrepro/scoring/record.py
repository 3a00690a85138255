"""Segmentations that were made elsewhere, as a record beside published runs on the same patients.

Both have to be tested on the same cases against the same references. A reference that differs by a voxel is refused.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from npcrepro.base.errors import InputError
from npcrepro.base.files import check_new, check_writable, write_json, writing_folder
from npcrepro.runs.evaluation import CASE_COLUMNS, COUNTS
from npcrepro.runs.published import PLACE, Published, write_by_method
from npcrepro.runs.records import IDENTITY
from npcrepro.runs.training import HISTORY_COLUMNS
from npcrepro.scoring.scores import Scores
from npcrepro.scoring.sides import find_cases, listed

ELSEWHERE = "elsewhere"  # in place of a paper and of a profile
SPACING = ["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]


def fold_cases(predictions: Mapping[str, Path], beside: Published) -> list[str]:
    """Cases of the folds that the predictions are for: those of every fold of which a case was predicted.

    Args:
        predictions: name to folder.
        beside: published runs.

    Raises:
        InputError: no case of the published runs was predicted.
    """
    predicted = {case for path in predictions.values() for case in find_cases(path)}
    cases = beside.cases[["case", "fold"]].drop_duplicates()
    folds = cases.fold[cases.case.isin(predicted)].unique()
    if not len(folds):
        mine, theirs = listed(sorted(predicted)), listed(sorted(set(cases.case)))
        raise InputError(f"none of the cases of {beside.folder} was predicted: {theirs} against {mine}")
    return sorted(set(cases.case[cases.fold.isin(folds)]))


def write_record(scores: Scores, beside: Published, folder: Path) -> None:
    """Write scores in the form of published runs, see :func:`npcrepro.runs.published.publish`.

    The paper and the profile are `ELSEWHERE`, the methods have the names of the predictions, the seed is 0. A case
    without prediction has empty masks. Structures that the published runs do not have are left out.

    Args:
        scores: of the cases that `fold_cases` names.
        beside: runs on the same cohort and folds.
        folder: new or empty.

    Raises:
        InputError: a structure or case of ``beside`` that was not scored, references that differ from those of
            ``beside``, and a folder that is not empty.
    """
    check_writable(folder)
    check_new(folder)
    cases = _rows(scores, beside)
    first = beside.runs[0]
    shared = {key: first[key] for key in ("cohort", "data_sha256", "split_sha256") if key in first}
    shared |= {"paper": ELSEWHERE, "profile": {"name": ELSEWHERE}, "status": ELSEWHERE, "beside": beside.folder.name}
    shared |= {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
    runs = cases[["method", "fold", "seed"]].drop_duplicates().to_dict("records")
    methods = {name: {"paper": ELSEWHERE, "name": name, "title": name} for name in scores.predictions}
    with writing_folder(folder) as made:
        write_by_method(made, "cases", cases.reindex(columns=[*IDENTITY, *CASE_COLUMNS]), methods)
        unseen = pd.DataFrame(columns=[*PLACE, *HISTORY_COLUMNS])  # of a training that nobody saw
        write_by_method(made, "history", unseen, methods)
        write_json(made / "runs.json", {"common": shared, "methods": methods, "runs": runs})


def _rows(scores: Scores, beside: Published) -> pd.DataFrame:
    """Rows of ``cases.csv``, one for each that the published runs have in these folds."""
    wanted = beside.cases[beside.cases.region == "all_slices"].drop_duplicates(["case", "structure"])
    wanted = wanted[wanted.fold.isin(wanted.fold[wanted.case.isin(scores.cases.case)])]
    about = wanted[["case", "structure", "patient", "suspect", "cohort", "fold", "region"]]
    mine = scores.cases.drop(columns=["patient", "suspect"]).rename(columns={"prediction": "method"})
    common = set.intersection(*mine.groupby("method").structure.agg(set))
    lacking = set(wanted.structure) - common
    if lacking:
        scored, theirs = listed(sorted(common)), listed(sorted(lacking))
        cause = "every prediction needs them, under the names of the cohort: --labels dataset.json"
        raise InputError(f"{beside.folder} has {theirs}, which was not scored beside {scored}: {cause}")
    rows = about.merge(mine, on=["case", "structure"], how="left")
    unscored = [f"{row.structure} of {row.case}" for row in rows[rows.method.isna()].itertuples()]
    if unscored:
        where = listed(unscored)
        raise InputError(f"{beside.folder} tests {where}, which was not scored: another reference, or no case of it")
    _refuse_other_references(rows, wanted, beside)
    # A missing prediction is an empty mask.
    missing = np.where(rows.fn > 0, "pred_empty", "both_empty")
    rows["status"] = rows.status.mask(rows.status == "missing", missing)
    return rows.assign(paper=ELSEWHERE, profile=ELSEWHERE, seed=0)


def _refuse_other_references(rows: pd.DataFrame, wanted: pd.DataFrame, beside: Published) -> None:
    keys = ["case", "structure"]
    both = rows.merge(wanted[[*keys, *COUNTS, *SPACING]], on=keys, suffixes=("", "_there"))
    drawn, there = both.tp + both.fn, both.tp_there + both.fn_there
    whole = sum(both[name] - both[f"{name}_there"] for name in COUNTS)
    for row in both[(drawn != there) | (whole != 0)].itertuples():
        raise InputError(
            f"{row.structure} of {row.case} has {row.tp + row.fn} voxels in the reference and "
            f"{row.tp_there + row.fn_there} in {beside.folder}: another version of the cohort, or another grid"
        )
    here, there = (both[[f"{name}{end}" for name in SPACING]].to_numpy(float) for end in ("", "_there"))
    for number in np.flatnonzero(~np.isclose(here, there, rtol=1e-3, equal_nan=True).all(axis=1)):
        mine, theirs = (" x ".join(f"{length:g}" for length in each[number]) for each in (here, there))
        cause = "another version of the cohort, or --spacing"
        raise InputError(f"{both.case[number]} has voxels of {mine} mm, but {theirs} in {beside.folder}: {cause}")

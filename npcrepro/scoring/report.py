"""Scores as files, as tables for a screen, and in words."""

import json
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from npcrepro.base.errors import InputError
from npcrepro.base.files import check_writable, write_json, writing
from npcrepro.base.wording import DASH, signed
from npcrepro.scoring.scores import Scores
from npcrepro.scoring.summary import compare, rank, summarise

WORST = "counts as the worst (DSC and NSD 0, distances the diagonal of the image)"
RULES_IN_WORDS = {
    "worst": f"where a mask is empty, a value that is not defined {WORST}; where both are, the case is left out",
    "leave-out": f"where a mask is empty, values that are not defined are left out; a missing prediction {WORST}",
    "one": "where both masks are empty, DSC and NSD count as 1 and distances are left out; where one is, a value that "
    f"is not defined {WORST}",
}


def as_data(scores: Scores, rule: str, convention: str) -> dict[str, Any]:
    """Everything as plain data for JSON; what is not a number is None."""
    return {
        "rule": RULES_IN_WORDS[rule],
        "convention": convention,
        "nsd_tolerances_mm": {name: list(group) for name, group in scores.tolerances_mm.items()},
        "notes": list(scores.notes),
        "summary": _records(summarise(scores, rule, convention)),
        "comparisons": _records(compare(scores, rule, convention)),
        "ranks": _records(rank(scores, rule)),
        "cases": _records(scores.cases),
    }


def _records(table: pd.DataFrame) -> list[dict]:
    # NaN is no JSON.
    return json.loads(table.to_json(orient="records", double_precision=15))


def check_out(path: Path) -> None:
    """Refuse a file that `write` cannot write, before anything is computed.

    Raises:
        InputError: neither CSV nor JSON, or a place that cannot be written to.
    """
    if path.suffix not in (".csv", ".json"):
        raise InputError(f"--out {path} ends with neither .csv (rows of cases) nor .json (everything)")
    check_writable(path.parent)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")


def write(scores: Scores, path: Path, rule: str, convention: str) -> None:
    """Write the rows of cases as CSV, or everything as JSON, by the ending; in one piece."""
    check_out(path)
    if path.suffix == ".json":
        write_json(path, as_data(scores, rule, convention))
        return
    with writing(path) as temporary:
        scores.cases.to_csv(temporary, index=False, float_format="%.6g")


def summary_table(scores: Scores, rule: str, convention: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `summarise` for a screen, a column for each metric.

    Of several predictions each has a row below the name of the structure, and a rank (see `rank`). The column of empty
    masks is left out where there are none.
    """
    summary = summarise(scores, rule, convention)
    ranks = {
        (line.structure, line.prediction): f"{line.rank} ({line.low}–{line.high})"
        for line in rank(scores, rule).itertuples()
    }
    metrics = list(dict.fromkeys(summary.metric))
    several, empty = len(scores.predictions) > 1, bool(summary["empty"].any())
    header = ["structure", "n", *["empty"] * empty, *map(_title, metrics), *["rank"] * several]
    rows = []
    for structure, of_structure in summary.groupby("structure", sort=False):
        if several:
            rows.append([structure, *[""] * (len(header) - 1)])
        for prediction, group in of_structure.groupby("prediction", sort=False):
            found = {line.metric: line for line in group.itertuples()}
            n = found["dsc"].n
            row = [f"  {prediction}" if several else structure, str(n), *[str(found["dsc"].empty)] * empty]
            row += [_mean_and_sd(found[metric], n) if metric in found else "" for metric in metrics]
            rows.append(row + [ranks.get((structure, prediction), DASH)] * several)
    return header, rows


def comparison_table(scores: Scores, rule: str, convention: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `compare` for a screen."""
    rows = [
        [
            line.structure,
            line.prediction,
            _title(line.metric),
            str(line.n),
            DASH if isnan(line.difference) else signed(line.difference),
            DASH if isnan(line.low) else f"{signed(line.low)} to {signed(line.high)}",
            DASH if isnan(line.p_holm) else "<0.001" if line.p_holm < 0.001 else f"{line.p_holm:.3f}",
        ]
        for line in compare(scores, rule, convention).itertuples()
    ]
    return ["structure", "prediction", "metric", "n", "difference", "95 % interval", "p (Holm)"], rows


def words(scores: Scores, rule: str, convention: str) -> list[str]:
    """What has to be said below the table, a sentence each: n, the rule, the convention; then the notes."""
    said = ["mean ± sd over n patients; an n in brackets is that of its cell"]
    if (scores.cases.status != "ok").any():
        said.append("empty: cases in which prediction or reference, or both, have no voxel, or there is no prediction")
        said.append(f"rule '{rule}': {RULES_IN_WORDS[rule]}")
    if not scores.cases.diagonal_mm.isna().all():
        said.append(f"distances of surfaces by the convention '{convention}', MASD the mean of both directions")
    if len(scores.predictions) > 1:
        said.append(
            "differences: mean over patients, BCa bootstrap interval, sign-flip test, Holm over the rows of a metric; "
            "rank: by DSC, in brackets where it lies in 95 % of 10,000 resampled cohorts"
        )
    return [*said, *(f"note: {note}" for note in scores.notes)]


def _title(metric: str) -> str:
    name = metric.split("_", 1)[-1]
    if name.startswith("nsd"):
        return f"NSD {name[4:-2]} mm"
    return {"dsc": "DSC", "hd95_mm": "HD95 (mm)", "masd_mm": "MASD (mm)"}[name]


def _mean_and_sd(line: Any, n: int) -> str:
    if not line.n:
        return DASH
    decimals = 1 if line.metric.endswith("hd95_mm") else 2
    spread = "" if isnan(line.sd) else f" ± {line.sd:.{decimals}f}"
    return f"{line.mean:.{decimals}f}{spread}" + (f" ({line.n})" if line.n != n else "")

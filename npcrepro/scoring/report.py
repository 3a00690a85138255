"""Means, comparisons and ranks of scores, as data frames, as tables for a screen, and as files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from npcrepro import statistics
from npcrepro.base.errors import InputError, pick
from npcrepro.base.files import write_json, writing
from npcrepro.base.wording import DASH
from npcrepro.metrics.surface import CONVENTIONS
from npcrepro.scoring.scores import Scores, nsd_column

RULES = {"worst": "worst", "leave-out": "leave_out", "one": "both_empty_is_one"}
RULES_IN_WORDS = {
    "worst": "where a mask is empty, a value that is not defined counts as the worst (DSC and NSD 0, distances the "
    "diagonal of the image); where both are, the case is left out",
    "leave-out": "where a mask is empty, values that are not defined are left out; a missing prediction counts as the "
    "worst (DSC and NSD 0, distances the diagonal of the image)",
    "one": "where both masks are empty, DSC and NSD count as 1 and distances are left out; where one is, a value that "
    "is not defined counts as the worst (DSC and NSD 0, distances the diagonal of the image)",
}


def summarise(scores: Scores, rule: str = "worst", convention: str = "surfel") -> pd.DataFrame:
    """Means over patients; cases of a patient are averaged first, and doubtful labels are left out.

    Returns:
        One row for each structure, prediction and metric (DSC, HD95, MASD, NSD): mean, sd, n, 95 % interval, how many
        patients have no value (``left_out``) or an undefined one that counts (``counted``), and in how many cases a
        mask is ``empty`` or missing. Where the spacing is not known, DSC only.

    Raises:
        InputError: unknown rule or convention.
    """
    rows = []
    for metric in _metrics(scores, convention):
        values = _by_patient(scores, metric, rule)
        for (structure, prediction), group in values.groupby(["structure", "prediction"], sort=False):
            if metric.startswith(f"{convention}_nsd") and metric not in _nsd_of(scores, structure, convention):
                continue
            summary = statistics.summarise(group.value)
            about = {"structure": structure, "prediction": prediction, "metric": metric}
            about |= {name: getattr(summary, name) for name in ("mean", "sd", "n", "low", "high", "left_out")}
            rows.append(about | {"counted": int(group.counted.sum()), "empty": int(group["empty"].sum())})
    return pd.DataFrame(rows)


def compare(scores: Scores, rule: str = "worst", convention: str = "surfel") -> pd.DataFrame:
    """Each prediction against the first on the same patients, by DSC and by HD95.

    Returns:
        One row for each structure, other prediction and metric: mean difference (other minus first), 95 % interval (BCa
        bootstrap), n, p of the sign-flip test, and p adjusted by Holm over the structures and predictions of that
        metric. No rows for a single prediction.
    """
    first, *others = scores.predictions
    rows = []
    for metric in (name for name in _metrics(scores, convention) if name in ("dsc", f"{convention}_hd95_mm")):
        tests = []
        for structure, wide in _wide(scores, metric, rule):
            for other in others:
                test = statistics.paired(wide[other], wide[first])
                about = {"structure": structure, "prediction": other, "minus": first, "metric": metric}
                difference = test.difference
                about |= {"n": difference.n, "difference": difference.mean, "low": difference.low}
                tests.append(about | {"high": difference.high, "p": test.p})
        adjusted = statistics.holm([test["p"] for test in tests])
        rows += [test | {"p_holm": p} for test, p in zip(tests, adjusted, strict=True)]
    return pd.DataFrame(rows)


def rank(scores: Scores, rule: str = "worst") -> pd.DataFrame:
    """Ranks of the predictions by mean DSC, with the range of 95 % of 10,000 cohorts drawn from the patients.

    Returns:
        One row for each structure and prediction; ``share_first`` is how often it is first, alone or with others. No
        rows for a single prediction, or where no patient has a value of every prediction.
    """
    rows = []
    for structure, wide in _wide(scores, "dsc", rule):
        if len(wide.columns) < 2 or not len(wide.dropna()):
            continue
        stability = statistics.rank_stability({name: wide[name] for name in wide})
        for each in stability.ranks:
            about = {"structure": structure, "prediction": each.method, "n": stability.n, "rank": each.rank}
            rows.append(about | {"low": each.low, "high": each.high, "share_first": each.shares[0]})
    return pd.DataFrame(rows)


def _metrics(scores: Scores, convention: str) -> list[str]:
    pick(CONVENTIONS, convention, "convention")
    if scores.cases.diagonal_mm.isna().all():
        return ["dsc"]
    tolerances = sorted({tolerance for group in scores.tolerances_mm.values() for tolerance in group})
    distances = [f"{convention}_hd95_mm", f"{convention}_masd_mm"]
    return ["dsc", *distances, *(nsd_column(convention, tolerance) for tolerance in tolerances)]


def _nsd_of(scores: Scores, structure: str, convention: str) -> list[str]:
    return [nsd_column(convention, tolerance) for tolerance in scores.tolerances_mm[structure]]


def _by_patient(scores: Scores, metric: str, rule: str) -> pd.DataFrame:
    """Value of each patient after the rule, whether it has an undefined value that counts, and its empty masks."""
    pick(RULES, rule, "rule of --undefined")
    cases = scores.cases[~scores.cases.suspect]
    distance = metric.endswith("_mm")
    diagonal = cases.diagonal_mm.to_numpy()
    # A share is 0 at worst, but where the spacing is not known an NSD stays unknown.
    worst = diagonal if distance else np.zeros(len(cases)) if metric == "dsc" else 0 * diagonal
    measured = cases[metric].to_numpy(dtype=float)
    values = np.where(np.isnan(measured) & (cases.status == "missing"), worst, measured)
    if RULES[rule] == "leave_out":
        filled = statistics.fill(values)
    else:
        name = "worst" if distance else RULES[rule]
        filled = statistics.fill(values, name, statuses=cases.status.tolist(), worst=worst)
    counted = np.isnan(measured) & ~np.isnan(filled.values)
    columns = {"value": filled.values, "counted": counted, "empty": cases.status != "ok"}
    groups = cases.assign(**columns).groupby(["structure", "prediction", "patient"], sort=False)
    return groups.agg({"value": "mean", "counted": "any", "empty": "sum"}).reset_index()


def _wide(scores: Scores, metric: str, rule: str) -> Iterable[tuple[str, pd.DataFrame]]:
    """For each structure, patients in rows and predictions in columns."""
    for structure, group in _by_patient(scores, metric, rule).groupby("structure", sort=False):
        yield structure, group.pivot(index="patient", columns="prediction", values="value")[list(scores.predictions)]


# What is written


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
        InputError: neither CSV nor JSON.
    """
    if path.suffix not in (".csv", ".json"):
        raise InputError(f"--out {path} ends with neither .csv (rows of cases) nor .json (everything)")


def write(scores: Scores, path: Path, rule: str, convention: str) -> None:
    """Write the rows of cases as CSV, or everything as JSON, by the ending; in one piece."""
    check_out(path)
    if path.suffix == ".json":
        write_json(path, as_data(scores, rule, convention))
        return
    with writing(path) as temporary:
        scores.cases.to_csv(temporary, index=False, float_format="%.6g")


# What is shown


def summary_table(scores: Scores, rule: str, convention: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `summarise` for a screen, a column for each metric.

    Of several predictions each has a row below the name of the structure, and a rank (see `rank`). The column of empty
    masks is left out where there are none.
    """
    summary, ranks = summarise(scores, rule, convention), rank(scores, rule)
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
            rows.append(row + [_rank(ranks, structure, prediction)] * several)
    return header, rows


def _rank(ranks: pd.DataFrame, structure: str, prediction: str) -> str:
    if not len(ranks):
        return DASH
    mine = ranks[(ranks.structure == structure) & (ranks.prediction == prediction)]
    return next((f"{line.rank} ({line.low}–{line.high})" for line in mine.itertuples()), DASH)


def comparison_table(scores: Scores, rule: str, convention: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `compare` for a screen."""
    rows = [
        [
            line.structure,
            line.prediction,
            _title(line.metric),
            str(line.n),
            DASH if isnan(line.difference) else f"{line.difference:+z.3f}",
            DASH if isnan(line.low) else f"{line.low:+z.3f} to {line.high:+z.3f}",
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

"""Means, comparisons and ranks of scores over patients, as data frames."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from npcrepro import statistics
from npcrepro.base.errors import one_of
from npcrepro.metrics.surface import CONVENTIONS
from npcrepro.scoring.scores import Scores, nsd_column

# Names of the rules on the command line to those of `npcrepro.statistics.fill`.
RULES = {"worst": "worst", "leave-out": "leave_out", "one": "both_empty_is_one"}


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
            nsds = [nsd_column(convention, tolerance) for tolerance in scores.tolerances_mm[structure]]
            if metric.startswith(f"{convention}_nsd") and metric not in nsds:
                continue
            summary = statistics.summarise(group.value)
            row = {"structure": structure, "prediction": prediction, "metric": metric}
            row |= {name: getattr(summary, name) for name in ("mean", "sd", "n", "low", "high", "left_out")}
            rows.append(row | {"counted": int(group.counted.sum()), "empty": int(group["empty"].sum())})
    return pd.DataFrame(rows)


def compare(scores: Scores, rule: str = "worst", convention: str = "surfel") -> pd.DataFrame:
    """Each prediction against the first on the same patients, by DSC and by HD95.

    Returns:
        One row for each structure, other prediction and metric: mean difference (other minus first), 95 % interval (BCa
        bootstrap), n, p of the sign-flip test, and p adjusted by Holm over the structures and predictions of that
        metric. No rows for a single prediction, and none for a structure that one of the two does not have.
    """
    first, *others = scores.predictions
    rows = []
    for metric in (name for name in _metrics(scores, convention) if name in ("dsc", f"{convention}_hd95_mm")):
        tests = []
        for structure, wide in _wide(scores, metric, rule):
            for other in others:
                if not {first, other} <= {*wide}:
                    continue  # a structure that one of them does not have
                test = statistics.paired(wide[other], wide[first])
                about = (structure, other, first, metric)
                difference = test.difference
                tests.append((*about, difference.n, difference.mean, difference.low, difference.high, test.p))
        adjusted = statistics.holm([test[-1] for test in tests])
        rows += [(*test, p) for test, p in zip(tests, adjusted, strict=True)]
    columns = ["structure", "prediction", "minus", "metric", "n", "difference", "low", "high", "p", "p_holm"]
    return pd.DataFrame(rows, columns=columns)


def rank(scores: Scores, rule: str = "worst") -> pd.DataFrame:
    """Ranks of the predictions by mean DSC, with the range of 95 % of 10,000 cohorts drawn from the patients.

    Returns:
        One row for each structure and prediction; ``share_first`` is how often it is first, alone or with others. No
        rows for a single prediction, or where fewer than three patients have a value of every prediction.
    """
    rows = []
    for structure, wide in _wide(scores, "dsc", rule):
        if len(wide.columns) < 2 or len(wide.dropna()) < 3:
            continue
        for each in statistics.rank_stability({name: wide[name] for name in wide}):
            about = {"structure": structure, "prediction": each.method, "n": len(wide.dropna()), "rank": each.rank}
            rows.append(about | {"low": each.low, "high": each.high, "share_first": each.first})
    return pd.DataFrame(rows)


def _metrics(scores: Scores, convention: str) -> list[str]:
    one_of(CONVENTIONS, convention, "convention")
    if scores.cases.diagonal_mm.isna().all():
        return ["dsc"]
    tolerances = sorted({tolerance for group in scores.tolerances_mm.values() for tolerance in group})
    distances = [f"{convention}_hd95_mm", f"{convention}_masd_mm"]
    return ["dsc", *distances, *(nsd_column(convention, tolerance) for tolerance in tolerances)]


def _by_patient(scores: Scores, metric: str, rule: str) -> pd.DataFrame:
    """Value of each patient after the rule, whether it has an undefined value that counts, and its empty masks."""
    one_of(RULES, rule, "rule of --undefined")
    cases = scores.cases[~scores.cases.suspect]
    distance = metric.endswith("_mm")
    diagonal = cases.diagonal_mm.to_numpy()
    # The worst NSD is 0, but stays unknown where the spacing is.
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


def _wide(scores: Scores, metric: str, rule: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """For each structure, patients in rows and predictions in columns."""
    for structure, group in _by_patient(scores, metric, rule).groupby("structure", sort=False):
        wide = group.pivot(index="patient", columns="prediction", values="value")
        yield structure, wide[[name for name in scores.predictions if name in wide]]

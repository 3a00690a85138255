"""What only the chapter on Xue et al. 2020 shows."""

from __future__ import annotations

from math import nan

import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy import stats

from npcrepro import statistics
from npcrepro.base.errors import InputError
from npcrepro.base.wording import DASH
from npcrepro.book import tables
from npcrepro.book.figures.printed import BLUE, FORBIDDEN, VERMILION, Picture, axes
from npcrepro.book.results import Results
from npcrepro.findings.audit.checks import Reported, half
from npcrepro.papers.xue2020 import audit
from npcrepro.runs.published import Published

PAIR = ("deeplabv3plus", "unet")
# The paper's metrics and ours: its distances are between points of the contours, as ours between border voxels.
METRICS = {"dsc": "dsc", "jsc": "jsc", "asd_mm": "voxel_masd_mm", "hd_mm": "voxel_hd_mm"}
SIDES = {f"{side}_mm": side for side in ("front", "back", "left", "right", "top", "bottom")}


def printed_beside(reported: Reported, results: Results):
    """The paper's table beside our mean and standard deviation over patients, for both networks.

    The patients are others, so that no difference of the two is shown.
    """
    rows = []
    for row, name in zip(audit.networks(reported), PAIR, strict=True):
        mine, line = results.averaged[results.averaged.method == name], {"network": row["model"], "n": DASH}
        for column, metric in METRICS.items():
            digits, values = round(-np.log10(2 * half(reported, column))), mine[metric].dropna()
            line["n"] = len(values) or DASH
            line[f"{audit.TITLES[column]} printed"] = "{mean:.{0}f} ± {sd:.{0}f}".format(digits, **row[column])
            ours = f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"
            line[f"{audit.TITLES[column]} ours"] = ours if len(values) > 1 else DASH
        rows.append(line)
    caption = f"Mean ± sd over patients, printed and ours, distances of border voxels ({results.made})"
    return tables.show(pd.DataFrame(rows), caption)


def t_tests(reported: Reported, results: Results) -> pd.DataFrame:
    """The paired t-test of the paper over patients, which are averaged over seeds first, beside the printed p.

    Returns:
        A row for each metric of the paper: number of pairs, mean difference, correlation of the two networks, p of the
        t-test and of the sign flips that the book uses elsewhere, and the printed p. Fewer than `tables.TESTABLE`
        patients have no p.
    """
    rows = []
    for column, metric in METRICS.items():
        wide = results.averaged.pivot(index="patient", columns="method", values=metric)[list(PAIR)].dropna()
        rows.append((audit.TITLES[column], *_tested(wide), _printed_p(reported, column)))
    names = ["metric", "patients", "mean difference", "correlation", "p (paired t)", "p (sign flip)", "printed p"]
    return pd.DataFrame(rows, columns=names)


def _printed_p(reported: Reported, column: str) -> str:
    p, bound = audit.p_value(reported, column)
    return f"{'below ' if bound else ''}{p:g}"


def by_unit(slices: pd.DataFrame) -> pd.DataFrame:
    """The same masks compared twice: with slices as pairs, as the printed p suggest, and with patients.

    Args:
        slices: columns ``patient``, ``slice``, ``method`` and ``dsc``, from `npcrepro.book.chapter.Chapter.by_slice`.

    Returns:
        A row for each unit, as in `t_tests`. Slices of one patient are no independent pairs: their p is there to show
        what counting them does.
    """
    wide = slices.pivot_table(index=["patient", "slice"], columns="method", values="dsc")[list(PAIR)].dropna()
    names = ["unit", "n", "mean difference of the DSC", "correlation", "p (paired t)", "p (sign flip)"]
    rows = [("slices", *_tested(wide, least=2)), ("patients", *_tested(wide.groupby("patient").mean()))]
    return pd.DataFrame(rows, columns=names)


def _tested(wide: pd.DataFrame, least: int = tables.TESTABLE) -> tuple[int, float, float, float, float]:
    """Pairs, mean difference, correlation, p of the paired t-test and p of sign flips of two columns."""
    first, second = wide.iloc[:, 0], wide.iloc[:, 1]
    if len(wide) < least:
        return len(wide), (first - second).mean(), nan, nan, nan
    test = statistics.paired(first, second)
    return len(wide), test.difference.mean, first.corr(second), stats.ttest_rel(first, second).pvalue, test.p


def by_direction(results: Results):
    """Distance of the two surfaces on each side of the reference, mean over patients; or that the record lacks it."""
    rows = results.cases
    sides = {column: title for column, title in SIDES.items() if column in rows and rows[column].notna().any()}
    if not sides:
        return Markdown(
            "*These runs were scored before distances by direction were measured, so that the largest errors cannot be "
            f"looked for on one side ({results.made}). Runs that are made now have them.*"
        )
    means = rows.groupby(["method", "patient"])[list(sides)].agg(lambda values: values.mean(skipna=False))
    lines = []
    for name in results.methods:
        found = {title: statistics.summarise(means.loc[name][column]) for column, title in sides.items()}
        n = len(means.loc[name])
        cells = {f"{title} (mm)": tables.mean_and_interval(one, n) for title, one in found.items()}
        lines.append({"method": results.paper.method(name).title, "n": n, **cells})
    caption = f"Distance of the surfaces by side of the reference, mean over patients (95 % interval). {results.made}"
    return tables.show(pd.DataFrame(lines), caption)


def epochs(published: Published) -> float:
    """How often a published training went through the slices that show the target, mean over folds.

    Raises:
        InputError: nothing says how many slices of the cohort show it.
    """
    profile, cohort = published.runs[0]["profile"], published.runs[0]["cohort"]
    path = next((published.folder.parent / "cohorts").glob(f"*_{cohort}.csv"), None)
    if path is None:
        raise InputError(f"{published.folder.parent / 'cohorts'} has no table of {cohort}, which counts its slices")
    slices = pd.read_csv(path).groupby("patient").slices.sum()
    train = [slices[slices.index.isin(fold["train"])].sum() for fold in published.folds.values()]
    return float(np.mean([profile["updates"] * profile["batch_size"] / each for each in train]))


def correlations(results: Results, metric: str) -> list[float]:
    """Correlation of the two networks over patients in single trainings, one for each seed that both have."""
    wide = results.over_structures.pivot(index=["seed", "patient"], columns="method", values=metric)[list(PAIR)]
    return [float(one[PAIR[0]].corr(one[PAIR[1]])) for _, one in wide.dropna().groupby("seed")]


def smallest_p(reported: Reported) -> Picture:
    """Xue: printed p of each metric beside the smallest p that its spreads allow in 15 pairs."""
    figure, axis = axes(2.9)
    told, floor = [], 1e-6
    for y, (metric, title) in enumerate(audit.TITLES.items()):
        printed, bound = audit.p_value(reported, metric)
        exact, favoured = (max(audit.smallest_p(reported, metric, way), floor) for way in (False, True))
        axis.fill_betweenx([y - 0.3, y + 0.3], floor, favoured, **FORBIDDEN)
        axis.plot([favoured, exact], [y, y], color=BLUE, linewidth=4, alpha=0.6)
        axis.plot(exact, y, "|", color=BLUE, markersize=18, markeredgewidth=2.5)
        axis.plot(printed, y, "<" if bound else "o", color=VERMILION, markersize=8)
        word = "less than " if bound else ""
        least = f"below {floor:g}" if exact <= floor else f"{exact:.2g}"
        told.append(f"{title} printed {word}{printed:g}, smallest possible {least}")
    axis.set_yticks(range(len(told)), audit.TITLES.values())
    axis.set(xscale="log", xlim=(floor, 1), ylim=(len(told) - 0.5, -0.5), xlabel="p of a paired t-test (no unit)")
    n = reported["tables"]["p_values"]["test_patients"]
    handles = [
        axis.plot([], [], "o", color=VERMILION, label="printed (triangle: less than)")[0],
        axis.plot([], [], "|", color=BLUE, markersize=12, markeredgewidth=2.5, label=f"smallest p of {n} pairs")[0],
        axis.plot([], [], color=BLUE, linewidth=4, alpha=0.6, label="down to here with rounding in its favour")[0],
        axis.fill_betweenx([], [], [], label="not possible", **FORBIDDEN),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return Picture(figure, f"Printed and smallest possible p of {n} pairs: {'; '.join(told)}.")

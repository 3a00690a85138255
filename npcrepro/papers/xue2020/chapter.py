"""What only the chapter on Xue et al. 2020 shows."""

from math import nan

import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Rectangle
from scipy import stats

from npcrepro import statistics
from npcrepro.base.errors import InputError
from npcrepro.base.wording import DASH, in_words, percent, plural, span
from npcrepro.book import tables
from npcrepro.book.figures.style import BLUE, FORBIDDEN, GREEN, VERMILION, Picture, axes, narrow
from npcrepro.book.lesson.result import Maps, Trained
from npcrepro.book.published import PublishedResults
from npcrepro.book.results import Results
from npcrepro.findings.audit.checks import Reported, half
from npcrepro.papers.xue2020 import audit
from npcrepro.runs import per_patient
from npcrepro.runs.published import RESULTS, Published

RATES = (6, 12, 18)
BRANCHES = ("1 × 1", *(f"Rate {rate}" for rate in RATES))
LONG = RESULTS / "xue2020-openkbp-long"
PAIR = ("deeplabv3plus", "unet")
# The paper's metrics and ours: its distances are between points of the contours, as ours between border voxels.
METRICS = {"dsc": "dsc", "jsc": "jsc", "asd_mm": "voxel_masd_mm", "hd_mm": "voxel_hd_mm"}
SIDES = {f"{side}_mm": side for side in ("front", "back", "left", "right", "top", "bottom")}


def met(rate: int, side: int) -> float:
    """Share of the eight outer taps of a 3 x 3 kernel that meet a square map, mean over its pixels; the others read
    padding.

    Example:
        >>> met(1, 2), met(6, 5)
        (0.375, 0.0)
    """
    inside = max(0, side - rate) / side  # of the taps on one side of a line
    return ((1 + 2 * inside) ** 2 - 1) / 8


def taps(sides: tuple[int, int], rates: tuple[int, ...] = RATES) -> Picture:
    """Where the taps of one kernel fall on the paper's coarse map and on ours."""
    figure, both = axes(3.2, 2, sharex=True, sharey=True)
    told, reach = [], max(rates) + 4
    for axis, side, whose in zip(both, sides, ("the paper's", "ours"), strict=True):
        low = -(side // 2) - 0.5
        axis.add_patch(Rectangle((low, low), side, side, facecolor="0.85", edgecolor="0.4"))
        for rate, marker, colour in zip(rates, "os^", (BLUE, GREEN, VERMILION), strict=True):
            x, y = np.meshgrid((-rate, 0, rate), (-rate, 0, rate))
            axis.plot(x.ravel(), y.ravel(), marker, color=colour, markersize=5, label=f"rate {rate}")
        axis.plot(0, 0, "o", color="black", markersize=5)
        axis.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal")
        axis.set_title(f"{whose}: {side} × {side}", fontsize=10)
        axis.set_xlabel("pixels of the map", fontsize=9)
        shares = ", ".join(f"{percent(met(rate, side))} at rate {rate}" for rate in rates)
        told.append(f"On the map of {side} × {side} pixels {shares}")
    figure.legend(
        *both[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rates), fontsize=9, frameon=False
    )
    alt = "Outer taps of a kernel in the middle of the map, grey. Share of them that meets it, mean over its pixels: "
    return narrow(figure, f"{alt}{'; '.join(told)}.")


def branches(trained: Trained, case: str, z: int) -> Maps:
    """How strongly each branch of the pyramid answers: the mean of its channels, as a share of the largest of all."""
    image, label = trained.data.batch([(case, z)])
    with torch.no_grad():
        deep = trained.network.trunk(trained.data.finish(image))[-1]
        found = [branch(deep).mean(dim=1)[0].numpy() for branch in trained.network.pyramid.branches]
    largest = max(float(one.max()) for one in found) or 1.0
    maps = {title: one / largest for title, one in zip(BRANCHES, found, strict=True)}
    return image[0, 0].numpy(), label[0, 0].numpy().astype(bool), maps


def one_branch(trained: Trained, case: str, z: int) -> Maps:
    """The probability when a single branch of the pyramid may say where: the maps of the others are made flat."""
    image, label = trained.data.batch([(case, z)])

    def probability(flat: list[torch.nn.Module]) -> np.ndarray:
        hooks = [branch.register_forward_hook(_flattened) for branch in flat]
        try:
            with torch.no_grad():
                return trained.network(trained.data.finish(image)).sigmoid()[0, 0].numpy()
        finally:
            for hook in hooks:
                hook.remove()

    every = list(trained.network.pyramid.branches)
    maps = {"All branches": probability([]), "None of them": probability(every)}
    for title, branch in zip(BRANCHES, every, strict=True):
        maps[f"{title} alone"] = probability([other for other in every if other is not branch])
    return image[0, 0].numpy(), label[0, 0].numpy().astype(bool), maps


def _flattened(_module, _inputs, maps: torch.Tensor) -> torch.Tensor:
    return maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)


def at_full_width(narrower: PublishedResults) -> str:
    """The mean Dice of a long training at the paper's width, beside single trainings of the narrower network on the
    same patients."""
    full = PublishedResults(narrower.paper, LONG)
    rows = (one.over_structures.pivot(index="patient", columns=["method", "seed"]).dsc for one in (full, narrower))
    both = pd.concat([one[PAIR[0]] for one in rows], axis=1, join="inner", keys=("full", "narrow"))
    wide, ends = both.full.mean(), both.narrow.mean()
    updates = full.published.runs[0]["profile"]["updates"]
    inside, times = wide.between(ends.min(), ends.max()).all(), "once" if len(wide) == 1 else f"{len(wide)} times"
    return (
        f"At full width, trained {times} for up to {updates:,} updates, DeepLabv3+ has a mean Dice of "
        f"{wide.mean():.2f} on {plural(len(both), 'patient')}. The {plural(len(ends), 'training')} of the narrower "
        f"network end between {ends.min():.2f} and {ends.max():.2f}"
        f"{', so no effect of the width or of the longer training is seen' if inside else ''}."
    )


def reported_beside(reported: Reported, results: Results) -> tuple:
    """Two tables: the paper's means and standard deviations over patients beside ours, of other patients, for both
    networks; and `t_tests` of ours."""
    rows = []
    for column, metric in METRICS.items():
        digits, line = round(-np.log10(2 * half(reported, column))), {"metric": audit.TITLES[column]}
        for row, name in zip(audit.networks(reported), PAIR, strict=True):
            values = results.averaged[results.averaged.method == name][metric].dropna()
            ours = f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"
            line[f"{row['model']}, paper"] = "{mean:.{0}f} ± {sd:.{0}f}".format(digits, **row[column])
            line[f"{row['model']}, ours"] = ours if len(values) > 1 else DASH
        rows.append(line)
    tests, trainings = t_tests(reported, results), span([len(results.means_by_seed(name)) for name in PAIR])
    caption = (
        f"Mean ± standard deviation over patients. Ours: {plural(results.averaged.patient.nunique(), 'patient')}, "
        f"{trainings} trainings averaged, distances between border voxels."
    )
    paired = f"{tables.minus(results.paper, *PAIR)}, the same {span(list(tests.patients))} patients and seeds."
    tests = tests.drop(columns=["patients", "correlation"])
    return tables.show(pd.DataFrame(rows), caption), tables.show(tests, paired, precision=3)


def small_p(reported: Reported, results: Results) -> str:
    """Which metrics have a p below `tables.ALPHA` on our patients, and whether seeds agree, in sentences."""
    tests = t_tests(reported, results).set_index("metric").filter(like="p (").min(axis=1)
    small = {audit.TITLES[one]: metric for one, metric in METRICS.items() if tests[audit.TITLES[one]] < tables.ALPHA}
    told = [f"Our p is below {tables.ALPHA:g} for the {in_words(small)}."] if small else []
    for title, metric in small.items():
        means = results.by_seed(*PAIR, metric).mean()
        told.append(f"The difference of the {title} is {means.min():+.3g} to {means.max():+.3g} from seed to seed.")
        if means.min() < 0 < means.max():
            told.append("A single training of each network could have shown either sign.")
    return " ".join(told) or f"No p of ours is below {tables.ALPHA:g}."


def t_tests(reported: Reported, results: Results) -> pd.DataFrame:
    """The paired t-test of the paper over patients and the sign flips of this book, beside the printed p: a row for
    each metric. The seeds that both networks have are averaged. Fewer than `tables.TESTABLE` patients have no p."""
    rows = []
    for column, metric in METRICS.items():
        wide = per_patient.side_by_side(results.over_structures, PAIR, metric).dropna()
        p, bound = audit.p_value(reported, column)
        rows.append((audit.TITLES[column], *_tested(wide), f"{'< ' * bound}{p:g}"))
    names = ["metric", "patients", "mean difference", "correlation", "p (paired t)", "p (sign flip)", "reported p"]
    return pd.DataFrame(rows, columns=names)


def by_unit(slices: pd.DataFrame) -> pd.DataFrame:
    """The rows of `Chapter.by_slice` compared as in `t_tests`: with slices as pairs, as the printed p suggest, and with
    patients. Slices of one patient are no independent pairs: their p shows what counting them does."""
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


def epochs(published: Published) -> float:
    """How often a published training went through the slices that show the target, mean over folds; an `InputError`
    where nothing says how many slices show it. A share of the slices drawn shows none, and does not count."""
    profile, cohort = published.runs[0]["profile"], published.runs[0]["cohort"]
    empty = published.methods[PAIR[0]]["data"]["options"]["background_share"]
    seen = profile["updates"] * profile["batch_size"] * (1 - empty)
    path = next((published.folder.parent / "cohorts").glob(f"*_{cohort}.csv"), None)
    if path is None:
        raise InputError(f"{published.folder.parent / 'cohorts'} has no table of {cohort}, which counts its slices")
    slices = pd.read_csv(path).groupby("patient").slices.sum()
    train = [slices[slices.index.isin(fold["train"])].sum() for fold in published.folds.values()]
    return float(np.mean([seen / each for each in train]))


def correlations(results: Results, metric: str) -> list[float]:
    """Correlation of the two networks over patients in single trainings, one for each seed that both have."""
    wide = results.over_structures.pivot(index=["seed", "patient"], columns="method", values=metric)[list(PAIR)]
    return [float(one[PAIR[0]].corr(one[PAIR[1]])) for _, one in wide.dropna().groupby("seed")]


def smallest_p(reported: Reported) -> Picture:
    """Xue: reported p of each metric beside the smallest p that its spreads allow in 15 pairs."""
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
        told.append(f"{title} reported {word}{printed:g}, smallest possible {least}")
    axis.set_yticks(range(len(told)), audit.TITLES.values())
    axis.set(xscale="log", xlim=(floor, 1), ylim=(len(told) - 0.5, -0.5), xlabel="p of a paired t-test (no unit)")
    n = reported["tables"]["p_values"]["test_patients"]
    handles = [
        axis.plot([], [], "o", color=VERMILION, label="reported (triangle: less than)")[0],
        axis.plot([], [], "|", color=BLUE, markersize=12, markeredgewidth=2.5, label=f"smallest p of {n} pairs")[0],
        axis.plot([], [], color=BLUE, linewidth=4, alpha=0.6, label="down to here with rounding in its favour")[0],
        axis.fill_betweenx([], [], [], label="not possible", **FORBIDDEN),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return narrow(figure, f"Reported and smallest possible p of {n} pairs: {'; '.join(told)}.")

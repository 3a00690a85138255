"""Charts of scores, volumes and training. Reference and methods keep their colours through the whole book."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from npcrepro.book.figures import style
from npcrepro.findings import observers
from npcrepro.protocol.method import Paper
from npcrepro.runs.per_patient import over_seeds
from npcrepro.statistics import Summary

ABOVE = {"fontsize": 8, "frameon": False, "loc": "lower center", "bbox_to_anchor": (0.5, 1)}  # of a legend
TURNED = {"ha": "right", "rotation_mode": "anchor"}  # names of methods below an axis


def curves(lines: Mapping[str, np.ndarray], x: np.ndarray, xlabel: str, ylabel: str) -> Figure:
    """One line for each name, told apart by colour."""
    figure, (axis,) = style.panels(1, 1, 3.2)
    sns.lineplot(
        pd.DataFrame(lines, index=x), palette=style.structure_colours(list(lines)), dashes=False, linewidth=1.8
    )
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(fontsize=8, frameon=False)
    return style.edged(figure)


def strips(values: Mapping[str, Sequence[float]], xlabel: str, log: bool = False) -> Figure:
    """One row of dots for each group, with its median as a bar and n beside its name."""
    figure, (axis,) = style.panels(1, 1, 0.8 + 0.42 * len(values))
    groups = [pd.Series(group, dtype=float).dropna() for group in values.values()]
    for y, group in enumerate(groups):
        axis.scatter(group, y + style.jitter(len(group), 0.22), s=10, color="0.55", linewidths=0)
        axis.vlines(group.median(), y - 0.34, y + 0.34, color="black", linewidth=2)
    names = [f"{name} (n = {len(group)})" for name, group in zip(values, groups, strict=True)]
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
    if log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    return figure


def over_stages(history: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``history.csv`` of one method with the ``total`` of updates since the first stage, and whether a row is
    the ``last`` of its stage."""
    lengths = history.groupby("stage", sort=False)["update"].max()
    before = history.stage.map(lengths.cumsum() - lengths)
    return history.assign(total=history["update"] + before, last=history["update"] == history.stage.map(lengths))


def learning_curves(history: pd.DataFrame, paper: Paper) -> Figure:
    """Training and validation loss of each method over its stages: one thin line for each run, and their mean."""
    names = style.methods_of(history, paper)
    figure, axes = style.panels(len(names), 4, 2.9, sharey=True)
    for axis, name in zip(axes, names, strict=True):
        rows, colour = over_stages(history[history.method == name]), style.colours(paper, names)[name]
        for stage, of_stage in rows.groupby("stage", sort=False):
            start = (of_stage.total - of_stage["update"]).iloc[0]
            axis.axvline(start, color="0.8", linewidth=0.8)
            # Along its line and at the bottom, for a loss falls: two short stages have no room side by side.
            place = {"xycoords": axis.get_xaxis_transform(), "xytext": (3, 3), "textcoords": "offset points"}
            ground = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
            text = {"rotation": 90, "va": "bottom", "fontsize": 7, "color": "0.3", "zorder": 5, "bbox": ground}
            axis.annotate(stage, (start, 0), **place, **text)
            for column, dashes in {"loss": "-", "validation_loss": "--"}.items():
                each = of_stage.pivot_table(index="total", columns=["fold", "seed"], values=column)
                for run in each:
                    axis.plot(each[run].dropna(), dashes, color=colour, alpha=0.3, linewidth=0.7)
                axis.plot(each.mean(axis=1), dashes, marker=".", color=colour, linewidth=1.8)
        axis.set(xlabel="updates", yscale="log")
        axis.set_title(style.wrapped(style.titles(paper)[name], 24), fontsize=8)
    for axis in axes[::4]:
        axis.set_ylabel("loss of the stage's score")
        axis.yaxis.set_major_formatter(style.PlainLog())
        axis.yaxis.set_minor_formatter(style.PlainLog())
    _line_styles(figure, {"training": "-", "validation": "--"}, "lower")
    return style.edged(figure)


def by_patient(patients: pd.DataFrame, paper: Paper, metric: str = "dsc", printed: float | None = None) -> Figure:
    """One dot for each patient and method, patients joined by a line, the mean as a bar; the printed mean as a rule."""
    names = style.methods_of(patients, paper)
    wide = patients.pivot(index="patient", columns="method", values=metric)[names]
    many = len(names) > 6
    figure, (axis,) = style.panels(1, 1, 3.8 if many else 3.2)
    axis.plot(range(len(names)), wide.T.to_numpy(), color="0.85", linewidth=0.7, zorder=1)
    for x, name in enumerate(names):
        colour = style.colours(paper, names)[name]
        axis.scatter([x] * len(wide), wide[name], color=colour, s=22, zorder=2, edgecolor="white")
        axis.hlines(wide[name].mean(), x - 0.2, x + 0.2, color=colour, linewidth=3)
    if printed is not None:
        axis.axhline(printed, color="black", linestyle=":", linewidth=1)
        place = {"transform": axis.get_yaxis_transform(), "va": "center"}  # beside the dots, not on them
        axis.text(1.01, printed, "reported,\nproposed\nnetwork", fontsize=8, **place)
    counts = wide.notna().sum()
    told = dict.fromkeys(names, "")
    if counts.nunique() == 1:
        axis.set_xlabel(f"n = {counts.iloc[0]} in each", fontsize=8)
    else:
        told = {n: f" (n = {counts[n]})" for n in names}
    ticks = [f"{style.wrapped(style.titles(paper)[n], 24 if many else 16)}{told[n]}" for n in names]
    turned = {"rotation": 40, "va": "top", **TURNED} if many else {}
    axis.set_xticks(range(len(names)), ticks, fontsize=8, **turned)
    low = min(0.0, np.nanmin(wide.to_numpy())) if wide.notna().any(axis=None) else 0.0
    axis.set(ylabel=style.METRIC_TITLES[metric], ylim=(low - 0.03, 1.03), xlim=(-0.5, len(names) - 0.5))
    return style.edged(figure)


def boxes(patients: pd.DataFrame, paper: Paper, metrics: Mapping[str, str]) -> Figure:
    """For each metric (column to axis title) a box for each method, see `style.boxes`; dots are patients, averaged over
    seeds."""
    rows = over_seeds(patients)
    names = style.methods_of(rows, paper)
    key = style.key(paper, names)
    figure, axes = style.panels(len(metrics), len(metrics), 3.0)
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        style.boxes(axis, rows, x="method", y=metric, order=names, color="0.3", width=0.6, showfliers=False)
        for x, colour in enumerate(key.values()):
            values = rows[rows.method == names[x]][metric].dropna()
            size = 12 if len(values) < 30 else 4
            axis.scatter(x + style.jitter(len(values), 0.15), values, color=colour, s=size, zorder=3)
        axis.set_xticks(range(len(names)), list(key), fontsize=7, rotation=35, **TURNED)
        axis.set_ylabel(title, fontsize=8)
        _from_zero(axis, metric)
    return style.edged(figure)


def boxes_by_structure(patients: pd.DataFrame, paper: Paper, metric: str = "dsc") -> Figure:
    """For each structure a box for each method, see `style.boxes`; dots are patients beyond whiskers, averaged over
    seeds."""
    rows = over_seeds(patients)
    names = style.methods_of(rows, paper)
    figure, (axis,) = style.panels(1, 1, 3.6)
    groups = {"x": "structure", "y": metric, "hue": "method", "hue_order": names}
    dots = {"marker": ".", "markersize": 3}
    look = {"palette": style.colours(paper, names), "gap": 0.2, "flierprops": dots}
    style.boxes(axis, rows, order=list(dict.fromkeys(patients.structure)), **groups, **look)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_ylabel(style.METRIC_TITLES[metric])
    _from_zero(axis, metric)
    style.legend(figure, style.key(paper, names))
    return style.edged(figure)


def by_fold(means: pd.DataFrame, paper: Paper, metrics: Mapping[str, str]) -> Figure:
    """One line for each method through the means of the folds, one panel for each metric (column to axis title)."""
    names = style.methods_of(means, paper)
    figure, axes = style.panels(len(metrics), len(metrics), 3.2)
    lines = {"marker": "o", "markersize": 4, "markeredgewidth": 0, "linewidth": 1.4, "legend": False}
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        sns.lineplot(means, x="fold", y=metric, hue="method", palette=style.colours(paper, names), ax=axis, **lines)
        axis.set(xlabel="fold", xticks=sorted(means.fold.unique()))
        axis.set_ylabel(title, fontsize=8)
    style.legend(figure, style.key(paper, names))
    return style.edged(figure)


def volume_agreement(patients: pd.DataFrame, printed: pd.DataFrame, paper: Paper, where: str) -> Figure:
    """Automatic against reference volume in ml: the paper's patients on the left, ours on the right, with the identity
    line.

    Args:
        printed: columns ``volume_auto`` and ``volume_readers``, from the place ``where`` in the paper.
    """
    figure, axes = style.panels(2, 2, 3.6)
    axes[0].scatter(printed.volume_readers, printed.volume_auto, s=18, color="0.3")
    axes[0].set_title(f"As reported ({where}, n = {len(printed)})", fontsize=9)
    for name, rows in patients.groupby("method", sort=False):
        dots = {"s": 18, "color": style.colours(paper)[name], "label": style.titles(paper)[name]}
        axes[1].scatter(rows.reference_ml, rows.predicted_ml, **dots)
    known = patients.dropna(subset=["reference_ml", "predicted_ml"])
    axes[1].set_title(f"Ours (n = {known.patient.nunique()})", fontsize=9)
    if len(known):
        axes[1].legend(fontsize=7)
    else:
        axes[1].text(0.5, 0.5, "spacing unknown:\nno volumes", transform=axes[1].transAxes, ha="center", va="center")
    for axis in axes:
        end = max(axis.get_xlim()[1], axis.get_ylim()[1])
        axis.plot([0, end], [0, end], color="0.7", linewidth=0.8)
        axis.set(xlim=(0, end), ylim=(0, end), xlabel="reference volume (ml)", ylabel="automatic volume (ml)")
    return style.edged(figure)


def observer_agreement(pairs: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """A row of dots for each structure, sorted by its median DSC; medians as bars, n beside the name.

    Rings are doubtful pairs (``suspect``), which count in no median.

    Args:
        metrics: column of ``pairs`` to axis title, one panel for each.
    """
    medians = observers.agreement(pairs)
    place = pairs.structure.map({name: y for y, name in enumerate(medians.index)})
    height = 1.0 + 0.24 * len(medians)
    figure, axes = style.panels(len(metrics), len(metrics), height, sharey=True)
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        faces = np.where(pairs.suspect, "none", "0.55")
        axis.scatter(pairs[metric], place, s=16, facecolor=faces, edgecolor="0.55", linewidths=0.8)
        at = np.arange(len(medians))
        axis.vlines(medians[metric], at - 0.36, at + 0.36, color="black", linewidth=2)
        axis.set_xlabel(title, fontsize=9)
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)
    names = [f"{name} (n = {n})" for name, n in medians.n.items()]
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def dsc_by_volume(
    lines: Mapping[str, np.ndarray], volumes_ml: np.ndarray, points: pd.DataFrame, named: Sequence[str]
) -> Figure:
    """DSC against volume on a logarithmic axis: computed lines, and a dot for each structure.

    Args:
        lines: legend text to DSC at each of the volumes.
        volumes_ml: ``(n,)``.
        points: columns ``reference_ml`` and ``dsc``, one row for each structure.
        named: structures whose name stands beside the dot.
    """
    figure, (axis,) = style.panels(1, 1, 3.8)
    for colour, (name, values) in zip(style.METHODS[3:], lines.items(), strict=False):
        axis.plot(volumes_ml, values, color=colour, linewidth=1.8, label=name)
    axis.scatter(points.reference_ml, points.dsc, s=22, color="0.35", zorder=3, label="two people, median")
    for name in named:
        place = points.loc[name, ["reference_ml", "dsc"]]
        axis.annotate(name, place, (5, -10), textcoords="offset points", fontsize=8)
    axis.set(xlabel="volume (ml)", ylabel="DSC", xscale="log", ylim=(0, 1.03))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def by_surface(units: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Numbers of two masks over a shift, one panel for each unit: a colour for each number, a style for each surface.

    Args:
        units: axis title to {number: table}, the table with the shift in mm as index and one column for each
            convention of a surface; one column alone stands for both.
    """
    figure, axes = style.panels(len(units), len(units), 3.9)
    styles: dict[str, str] = {}
    for axis, (title, numbers) in zip(axes, units.items(), strict=True):
        for colour, (number, table) in zip(style.structure_colours(list(numbers)), numbers.items(), strict=True):
            found = dict(zip(table, ("--", "-")[-table.shape[1] :], strict=True))
            for column, dashes in found.items():
                axis.plot(table[column], dashes, color=colour, linewidth=1.6)
            styles |= found if len(found) > 1 else {}
            axis.plot([], [], color=colour, label=number)
        axis.set(xlabel="sideways shift (mm)", ylabel=title, ylim=(0, None))
        axis.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    _line_styles(figure, styles, "upper")
    return figure


def forest(
    differences: Mapping[str, Summary], xlabel: str, printed: Mapping[str, float] | None = None
) -> Figure:  # fmt: skip
    """Mean differences with their 95 % intervals, one row for each comparison, and the reported ones as crosses.

    Args:
        differences: name to the summary of paired differences over patients.
        xlabel: of what, first minus second.
        printed: name to the difference of the paper's means.
    """
    names = [f"{name} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{found.n})" for name, found in differences.items()]
    names = [style.wrapped(name, 42) for name in names]
    row = 0.14 * max([2, *(name.count("\n") + 1 for name in names)]) + 0.14
    figure, (axis,) = style.panels(1, 1, 1.1 + row * len(names))
    axis.axvline(0, color="0.6", linewidth=0.8)
    found, places = list(differences.values()), range(len(differences))
    axis.hlines(places, [one.low for one in found], [one.high for one in found], color="0.25", linewidth=1.6)
    means = {"color": "0.25", "markersize": 5, "label": "ours, with 95 % interval"}
    axis.plot([one.mean for one in found], places, "s", **means)
    shown = {name: value for name, value in (printed or {}).items() if name in differences}
    if shown:
        at = [list(differences).index(name) for name in shown]
        axis.plot(list(shown.values()), at, "x", color=style.REFERENCE, markersize=7, mew=2, label="reported")
    axis.set_yticks(places, names, fontsize=8)
    axis.set(xlabel=xlabel, ylim=(len(differences) - 0.5, -0.5))
    axis.locator_params(axis="x", nbins=5)
    if differences:
        axis.legend(**ABOVE, ncols=2)
    return figure


def channel_weights(levels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Attention weights of the channels of each MRI sequence at each level: dots, and their mean as a bar.

    Args:
        levels: name of the level to {sequence: weights of its channels, in [0, 1]}.
    """
    figure, (axis,) = style.panels(1, 1, 2.8)
    sequences = list(next(iter(levels.values())))
    width = 0.8 / len(sequences)
    for i, (name, colour) in enumerate(zip(sequences, style.structure_colours(["", *sequences])[1:], strict=True)):
        for x, weights in enumerate(levels.values()):
            at = x + (i - (len(sequences) - 1) / 2) * width
            dots = at + style.jitter(len(weights[name]), 0.3 * width)
            axis.scatter(dots, weights[name], s=9, color=colour, linewidths=0, alpha=0.7)
            axis.hlines(weights[name].mean(), at - 0.4 * width, at + 0.4 * width, color=colour, linewidth=3)
        axis.scatter([], [], color=colour, label=name)
    axis.set_xticks(range(len(levels)), list(levels), fontsize=8)
    axis.set(ylabel="weight of a channel", ylim=(0, 1))
    axis.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
    axis.legend(**ABOVE, ncols=len(sequences))
    return figure


def validation_curves(history: pd.DataFrame, paper: Paper, metric: str = "validation_loss") -> Figure:
    """Validation loss, or another column of ``history.csv``, of several methods on one axis; a dot ends each stage."""
    names = style.methods_of(history, paper)
    figure, (axis,) = style.panels(1, 1, 3.0)
    for name in names:
        colour, mine = style.colours(paper, names)[name], history[history.method == name]
        runs = [over_stages(one) for _, one in mine.groupby(["fold", "seed"])]
        for run in runs:
            axis.plot(run.total, run[metric], color=colour, alpha=0.3, linewidth=0.7)
            axis.scatter(run.total[run["last"]], run[metric][run["last"]], color=colour, s=10)
        axis.plot(pd.concat(runs).groupby("total")[metric].mean(), color=colour, linewidth=1.8)
    axis.set(xlabel="updates", ylabel=metric.replace("_", " ").replace("dsc", "DSC"))
    style.legend(figure, style.key(paper, names))
    return style.edged(figure)


def _from_zero(axis: Axes, metric: str) -> None:
    axis.set_ylim(0, None if metric.endswith("_mm") else 1.03)


def _line_styles(figure: Figure, styles: Mapping[str, str], side: str) -> None:
    lines = [Line2D([], [], color="0.3", linestyle=dashes) for dashes in styles.values()]
    figure.legend(lines, list(styles), loc=f"outside {side} center", ncols=2, fontsize=8, frameon=False)

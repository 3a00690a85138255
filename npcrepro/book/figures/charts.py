"""Figures of the book. The reference contour and each method keep their colour through the whole book.

Colours are those of Okabe and Ito, which stay apart under the common forms of colour blindness and on both grey images
and white paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from npcrepro.book.figures.style import (
    METHODS,
    METRIC_TITLES,
    WIDTH_IN,
    PlainLog,
    colours,
    edged,
    legend,
    structure_colours,
    titles,
    wrapped,
)
from npcrepro.protocol.method import Paper
from npcrepro.runs.per_patient import over_seeds


def curves(lines: Mapping[str, np.ndarray], x: np.ndarray, xlabel: str, ylabel: str) -> Figure:
    """One line for each name, told apart by colour and by the label at its end."""
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 3.2), layout="constrained")
    for colour, (name, values) in zip(structure_colours(list(lines)), lines.items(), strict=True):
        axis.plot(x, values, color=colour, linewidth=1.8, label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(fontsize=8, frameon=False)
    return edged(figure)


def strips(values: Mapping[str, Sequence[float]], xlabel: str, log: bool = False) -> Figure:
    """One row of dots for each group, with its median as a bar and n beside its name."""
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 0.8 + 0.42 * len(values)), layout="constrained")
    rng = np.random.default_rng(0)
    names = []
    for y, (name, group) in enumerate(values.items()):
        group = np.asarray(group, float)
        group = group[~np.isnan(group)]
        axis.scatter(group, y + rng.uniform(-0.22, 0.22, len(group)), s=10, color="0.55", linewidths=0)
        if len(group):
            axis.vlines(np.median(group), y - 0.34, y + 0.34, color="black", linewidth=2)
        names.append(f"{name} (n = {len(group)})")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
    if log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    return figure


def learning_curves(history: pd.DataFrame, paper: Paper) -> Figure:
    """Training and validation loss of each method over its stages, one thin line for each run and their mean."""
    names = [m.name for m in paper.methods if m.name in set(history.method)]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(WIDTH_IN, 2.9 * lines), sharey=True, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for axis, name in zip(axes.flat, names, strict=False):
        rows, colour = history[history.method == name].copy(), colours(paper, names)[name]
        starts, start = {}, 0
        for stage in rows.stage.unique():
            starts[stage] = start
            axis.axvline(start, color="0.8", linewidth=0.8)
            # Along its line and at the bottom, for a loss falls: two short stages have no room side by side.
            place = {"xycoords": axis.get_xaxis_transform(), "xytext": (3, 3), "textcoords": "offset points"}
            ground = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
            text = {"rotation": 90, "va": "bottom", "fontsize": 7, "color": "0.3", "zorder": 5, "bbox": ground}
            axis.annotate(stage, (start, 0), **place, **text)
            start += rows[rows.stage == stage]["update"].max()
        rows["total"] = rows["update"] + rows.stage.map(starts)
        for column, style in {"loss": "-", "validation_loss": "--"}.items():
            for _, stage_rows in rows.groupby("stage", sort=False):
                for _, one in stage_rows.groupby(["fold", "seed"]):
                    axis.plot(one.total, one[column], style, color=colour, alpha=0.3, linewidth=0.7)
                mean = stage_rows.groupby("total")[column].mean()
                axis.plot(mean.index, mean, style, marker=".", color=colour, linewidth=1.8)
        axis.set(xlabel="updates", yscale="log")
        axis.set_title(wrapped(titles(paper)[name], 24), fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("loss of the stage's score")
        axis.yaxis.set_major_formatter(PlainLog())
        axis.yaxis.set_minor_formatter(PlainLog())
    styles = [Line2D([], [], color="0.3", linestyle=style) for style in ("-", "--")]
    place = {"loc": "outside lower center", "ncols": 2, "fontsize": 8, "frameon": False}
    figure.legend(styles, ["training", "validation"], **place)
    return edged(figure)


def by_patient(patients: pd.DataFrame, paper: Paper, metric: str = "dsc", printed: float | None = None) -> Figure:
    """One dot for each patient and method, patients joined by a line, the mean as a bar; the printed mean as a rule."""
    names = [m.name for m in paper.methods if m.name in set(patients.method)]
    wide = patients.pivot(index="patient", columns="method", values=metric)[names]
    many = len(names) > 6
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 3.8 if many else 3.2), layout="constrained")
    for _, values in wide.iterrows():
        axis.plot(range(len(names)), values, color="0.85", linewidth=0.7, zorder=1)
    for x, name in enumerate(names):
        axis.scatter([x] * len(wide), wide[name], color=colours(paper, names)[name], s=22, zorder=2, edgecolor="white")
        axis.hlines(wide[name].mean(), x - 0.2, x + 0.2, color=colours(paper, names)[name], linewidth=3)
    if printed is not None:
        axis.axhline(printed, color="black", linestyle=":", linewidth=1)
        axis.text(len(names) - 0.55, printed, " printed mean", fontsize=8, va="bottom", ha="right")
    counts = {n: f"n = {wide[n].notna().sum()}" for n in names}
    if many:
        ticks = [f"{wrapped(titles(paper)[n], 24)} ({counts[n]})" for n in names]
        turned = {"rotation": 40, "ha": "right", "va": "top", "rotation_mode": "anchor"}
    else:
        ticks, turned = [f"{wrapped(titles(paper)[n], 16)}\n{counts[n]}" for n in names], {}
    axis.set_xticks(range(len(names)), ticks, fontsize=8, **turned)
    low = min(0.0, np.nanmin(wide.to_numpy())) if wide.notna().any(axis=None) else 0.0
    axis.set(ylabel=METRIC_TITLES[metric], ylim=(low - 0.03, 1.03), xlim=(-0.5, len(names) - 0.5))
    return edged(figure)


def boxes(patients: pd.DataFrame, paper: Paper, metrics: Mapping[str, str]) -> Figure:
    """For each metric a box for each method over its patients, which are shown as dots.

    Boxes are quartiles with the median, whiskers the 10th and 90th percentile.

    Args:
        patients: from :func:`npcrepro.runs.per_patient.select`; seeds are averaged within a patient.
        metrics: column to axis title.
    """
    rows = over_seeds(patients)
    names = [m.name for m in paper.methods if m.name in set(rows.method)]
    figure, axes = plt.subplots(1, len(metrics), figsize=(WIDTH_IN, 3.0), squeeze=False, layout="constrained")
    rng = np.random.default_rng(0)
    for axis, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        for x, name in enumerate(names):
            values = rows[rows.method == name][metric].dropna()
            colour = colours(paper, names)[name]
            if len(values):
                axis.boxplot(
                    values, positions=[x], whis=(10, 90), widths=0.6, showfliers=False, medianprops={"color": colour}
                )
            size = 12 if len(values) < 30 else 4
            axis.scatter(x + rng.uniform(-0.15, 0.15, len(values)), values, color=colour, s=size, zorder=3)
        ticks = {"fontsize": 7, "rotation": 35, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(range(len(names)), [titles(paper)[name] for name in names], **ticks)
        axis.set_ylabel(title, fontsize=8)
        axis.set_ylim(0, None if metric.endswith("_mm") else 1.03)
    return edged(figure)


def boxes_by_structure(patients: pd.DataFrame, paper: Paper, metric: str = "dsc") -> Figure:
    """For each structure a box for each method over its patients: quartiles, median, 10th and 90th percentile, rest.

    Args:
        patients: from :func:`npcrepro.runs.per_patient.by_patient`, one region; seeds are averaged within a patient.
    """
    rows = over_seeds(patients)
    structures = list(dict.fromkeys(patients.structure))
    names = [m.name for m in paper.methods if m.name in set(rows.method)]
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 3.6), layout="constrained")
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        colour = colours(paper, names)[name]
        mine = rows[rows.method == name]
        axis.boxplot(
            [mine[mine.structure == structure][metric].dropna() for structure in structures],
            positions=np.arange(len(structures)) + (i - (len(names) - 1) / 2) * width,
            widths=0.8 * width,
            whis=(10, 90),
            manage_ticks=False,
            boxprops={"color": colour},
            whiskerprops={"color": colour},
            capprops={"color": colour},
            medianprops={"color": colour, "linewidth": 2},
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": colour},
        )
    axis.set_xticks(range(len(structures)), structures, fontsize=8)
    axis.set_ylabel(METRIC_TITLES[metric])
    axis.set_ylim(0, None if metric.endswith("_mm") else 1.03)
    legend(figure, {titles(paper)[name]: colours(paper, names)[name] for name in names})
    return edged(figure)


def by_fold(means: pd.DataFrame, paper: Paper, metrics: Mapping[str, str]) -> Figure:
    """One line for each method through the means of the folds, one panel for each metric.

    Args:
        means: columns ``method``, ``fold`` and the metrics, one row for each method and fold.
        metrics: column to axis title.
    """
    names = [m.name for m in paper.methods if m.name in set(means.method)]
    figure, axes = plt.subplots(1, len(metrics), figsize=(WIDTH_IN, 3.2), squeeze=False, layout="constrained")
    for axis, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        for name in names:
            mine, colour = means[means.method == name].sort_values("fold"), colours(paper, names)[name]
            axis.plot(mine.fold, mine[metric], marker="o", markersize=4, color=colour, linewidth=1.4)
        axis.set(xlabel="fold", xticks=sorted(means.fold.unique()))
        axis.set_ylabel(title, fontsize=8)
    legend(figure, {titles(paper)[name]: colours(paper, names)[name] for name in names})
    return edged(figure)


def volume_agreement(patients: pd.DataFrame, printed: pd.DataFrame, paper: Paper, where: str) -> Figure:
    """Automatic against reference volume: the paper's patients on the left, ours on the right, with the identity line.

    Args:
        patients: rows of :func:`npcrepro.runs.per_patient.by_patient` with volumes in millilitres.
        printed: columns ``volume_auto`` and ``volume_readers`` in cubic centimetres (= millilitres).
        where: the place of these in the paper, such as ``"Table 2"``.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH_IN, 3.6), layout="constrained")
    axes[0].scatter(printed.volume_readers, printed.volume_auto, s=18, color="0.3")
    axes[0].set_title(f"As printed ({where}, n = {len(printed)})", fontsize=9)
    for name, rows in patients.groupby("method", sort=False):
        axes[1].scatter(
            rows.reference_ml, rows.predicted_ml, s=18, color=colours(paper)[name], label=titles(paper)[name]
        )
    known = patients[["reference_ml", "predicted_ml"]].notna().all(axis=1)
    axes[1].set_title(f"Ours (n = {patients[known].patient.nunique()})", fontsize=9)
    if known.any():
        axes[1].legend(fontsize=7)
    else:
        axes[1].text(0.5, 0.5, "spacing unknown:\nno volumes", transform=axes[1].transAxes, ha="center", va="center")
    for axis in axes:
        end = max(axis.get_xlim()[1], axis.get_ylim()[1])
        axis.plot([0, end], [0, end], color="0.7", linewidth=0.8)
        axis.set(xlim=(0, end), ylim=(0, end), xlabel="reference volume (ml)", ylabel="automatic volume (ml)")
    return edged(figure)


def observer_agreement(pairs: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """A row of dots for each structure, sorted by its median of the first metric; medians as bars, n beside the name.

    Rings are doubtful pairs (``suspect``), which count in no median.

    Args:
        pairs: columns ``structure``, ``suspect`` and the metrics.
        metrics: column to axis title, one panel for each.
    """
    kept = pairs[~pairs.suspect]
    names = kept.groupby("structure")[next(iter(metrics))].median().sort_values(ascending=False, kind="stable").index
    n = kept.structure.value_counts()
    height = 1.0 + 0.24 * len(names)
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(WIDTH_IN, height), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        for y, name in enumerate(names):
            rows = pairs[pairs.structure == name]
            for doubtful, style in ((True, {"facecolor": "none"}), (False, {"facecolor": "0.55"})):
                values = rows[rows.suspect == doubtful][metric]
                axis.scatter(values, [y] * len(values), s=16, edgecolor="0.55", linewidths=0.8, **style)
            axis.vlines(rows[~rows.suspect][metric].median(), y - 0.36, y + 0.36, color="black", linewidth=2)
        axis.set_xlabel(title, fontsize=9)
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)
    axes[0][0].set_yticks(range(len(names)), [f"{name} (n = {n[name]})" for name in names], fontsize=8)
    axes[0][0].set_ylim(len(names) - 0.4, -0.6)
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
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 3.8), layout="constrained")
    for colour, (name, values) in zip(METHODS[3:], lines.items(), strict=False):
        axis.plot(volumes_ml, values, color=colour, linewidth=1.8, label=name)
    axis.scatter(points.reference_ml, points.dsc, s=22, color="0.35", zorder=3, label="two people, median")
    for name in named:
        place = points.loc[name, ["reference_ml", "dsc"]]
        axis.annotate(name, place, (5, -10), textcoords="offset points", fontsize=8)
    axis.set(xlabel="volume (ml)", ylabel="DSC", xscale="log", ylim=(0, 1.03))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def by_surface(panels: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Numbers of two masks over a shift, one panel for each unit: a colour for each number, a style for each surface.

    Args:
        panels: axis title to {number: table}, the table with the shift in mm as index and one column for each
            convention of a surface; one column alone stands for both.
    """
    styles = ("--", "-")
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH_IN, 3.9), squeeze=False, layout="constrained")
    surfaces = {}
    for axis, (title, numbers) in zip(axes[0], panels.items(), strict=True):
        for colour, (number, table) in zip(structure_colours(list(numbers)), numbers.items(), strict=True):
            for style, column in zip(styles[-table.shape[1] :], table, strict=True):
                axis.plot(table.index, table[column], style, color=colour, linewidth=1.6)
                if table.shape[1] > 1:
                    surfaces[column] = style
            axis.plot([], [], color=colour, label=number)
        axis.set(xlabel="sideways shift (mm)", ylabel=title, ylim=(0, None))
        axis.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    lines = [Line2D([], [], color="0.3", linestyle=style) for style in surfaces.values()]
    figure.legend(lines, list(surfaces), loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure

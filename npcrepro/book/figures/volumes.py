"""Figures of volumes, for the papers with 3-D networks. Colours of reference and methods as in `figures`."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from npcrepro.book.figures.slices import LONG_NAME, show_slice
from npcrepro.book.figures.style import (
    REFERENCE,
    WIDTH_IN,
    colours,
    edged,
    grid,
    legend,
    structure_colours,
    titles,
    wrapped,
)
from npcrepro.protocol.method import Paper
from npcrepro.statistics import Summary


def forest(
    differences: Mapping[str, Summary], xlabel: str, printed: Mapping[str, float] | None = None
) -> Figure:  # fmt: skip
    """Mean differences with their 95 % intervals, one row for each comparison, and where printed as a cross.

    Args:
        differences: name to the summary of paired differences over patients.
        xlabel: of what, first minus second.
        printed: name to the difference of the paper's means.
    """
    names = [
        wrapped(f"{name} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{summary.n})", 42)
        for name, summary in differences.items()
    ]
    row = 0.14 * max([2, *(name.count("\n") + 1 for name in names)]) + 0.14
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 1.1 + row * len(names)), layout="constrained")
    axis.axvline(0, color="0.6", linewidth=0.8)
    for y, summary in enumerate(differences.values()):
        axis.hlines(y, summary.low, summary.high, color="0.25", linewidth=1.6)
        axis.plot(
            summary.mean, y, "s", color="0.25", markersize=5, label="ours, with 95 % interval" if y == 0 else None
        )
    shown = {name: value for name, value in (printed or {}).items() if name in differences}
    if shown:
        places = [list(differences).index(name) for name in shown]
        axis.plot(list(shown.values()), places, "x", color=REFERENCE, markersize=7, mew=2, label="printed")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlabel=xlabel, ylim=(len(differences) - 0.5, -0.5))
    axis.locator_params(axis="x", nbins=5)
    if differences:
        axis.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def channel_weights(levels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Attention weights of the channels of each series at each level: dots, and their mean as a bar.

    Args:
        levels: name of the level to {series: weights of its channels, in [0, 1]}.
    """
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 2.8), layout="constrained")
    series = list(next(iter(levels.values())))
    rng = np.random.default_rng(0)
    width = 0.8 / len(series)
    for i, (name, colour) in enumerate(zip(series, structure_colours(["", *series])[1:], strict=True)):
        for x, weights in enumerate(levels.values()):
            at = x + (i - (len(series) - 1) / 2) * width
            dots = at + rng.uniform(-0.3, 0.3, len(weights[name])) * width
            axis.scatter(dots, weights[name], s=9, color=colour, linewidths=0, alpha=0.7)
            axis.hlines(weights[name].mean(), at - 0.4 * width, at + 0.4 * width, color=colour, linewidth=3)
        axis.scatter([], [], color=colour, label=name)
    axis.set_xticks(range(len(levels)), list(levels), fontsize=8)
    axis.set(ylabel="weight of a channel", ylim=(0, 1))
    axis.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
    axis.legend(fontsize=8, frameon=False, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def voxel_weights(image: np.ndarray, reference: np.ndarray, levels: Mapping[str, np.ndarray]) -> Figure:
    """Attention weights of voxels on a slice, beside the image; one scale of colours for all levels.

    Args:
        image, reference: ``(y, x)``.
        levels: name of the level to weights ``(y, x)``, which may be coarser.
    """
    figure, axes = grid(1, 1 + len(levels))
    low, high = (extreme([extreme(weights) for weights in levels.values()]) for extreme in (np.min, np.max))
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    show_slice(axes[0][0], image, {})
    for axis, weights in zip(axes[0][1:], levels.values(), strict=True):
        shown = axis.imshow(weights, cmap="viridis", vmin=low, vmax=high, extent=extent, interpolation="nearest")
    for axis, title in zip(axes[0], ["image", *levels], strict=True):
        axis.set_title(wrapped(title, 16), fontsize=8)
        if reference.any():
            axis.contour(reference, [0.5], colors=REFERENCE, linewidths=1)
    figure.colorbar(shown, ax=axes, shrink=0.6, label="weight of a voxel", format="%.3g")
    return figure


def validation_curves(history: pd.DataFrame, paper: Paper, metric: str = "validation_loss") -> Figure:
    """Validation loss of several methods on one axis, over the updates of all stages; a dot ends each stage.

    Args:
        history: rows of ``history.csv`` of any number of runs.
        metric: the column that is drawn.
    """
    names = [method.name for method in paper.methods if method.name in set(history.method)]
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 3.0), layout="constrained")
    for name in names:
        colour, mine = colours(paper, names)[name], history[history.method == name]
        runs = [_over_stages(one) for _, one in mine.groupby(["fold", "seed"])]
        for run in runs:
            axis.plot(run.total, run[metric], color=colour, alpha=0.3, linewidth=0.7)
            axis.scatter(run.total[run.last], run[metric][run.last], color=colour, s=10)
        mean = pd.concat(runs).groupby("total")[metric].mean()
        axis.plot(mean.index, mean, color=colour, linewidth=1.8)
    axis.set(xlabel="updates", ylabel=metric.replace("_", " ").replace("dsc", "DSC"))
    entries = {titles(paper)[name]: colours(paper, names)[name] for name in names}
    legend(figure, entries, 2 if max(map(len, entries)) > LONG_NAME else 4)
    return edged(figure)


def _over_stages(run: pd.DataFrame) -> pd.DataFrame:
    """Rows of one run with the ``total`` of updates since its first stage, and which is the ``last`` of its stage."""
    lengths = run.groupby("stage", sort=False)["update"].max()
    before = lengths.cumsum() - lengths
    return run.assign(total=run["update"] + run.stage.map(before), last=run["update"] == run.stage.map(lengths))

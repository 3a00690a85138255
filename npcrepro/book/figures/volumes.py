"""Figures for the papers with 3-D networks: differences, attention weights and validation curves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from npcrepro.book.figures import style
from npcrepro.book.figures.charts import over_stages
from npcrepro.book.figures.slices import maps
from npcrepro.protocol.method import Paper
from npcrepro.statistics import Summary

ABOVE = {"fontsize": 8, "frameon": False, "loc": "lower center", "bbox_to_anchor": (0.5, 1)}  # of a legend


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


def voxel_weights(image: np.ndarray, reference: np.ndarray, levels: Mapping[str, np.ndarray]) -> Figure:
    """Attention weights of voxels on a slice, beside the image; one scale of colours for all levels.

    Args:
        image, reference: ``(y, x)``.
        levels: name of the level to weights ``(y, x)``, which may be coarser.
    """
    limits = min(map(np.min, levels.values())), max(map(np.max, levels.values()))
    return maps({"image": image} | dict(levels), reference, list(levels), limits, "weight of a voxel")


def validation_curves(history: pd.DataFrame, paper: Paper, metric: str = "validation_loss") -> Figure:
    """Validation loss of several methods on one axis, over the updates of all stages; a dot ends each stage.

    Args:
        history: rows of ``history.csv`` of any number of runs.
        metric: the column that is drawn.
    """
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

"""Figures of the page "Leaderboard". Methods are told apart by their place and name, not by colour: they are many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from npcrepro.book.figures import style
from npcrepro.statistics import Agreement, Friedman, RankStability

COLUMNS = 3
LABEL_WIDTH, WIDE_LABEL = 30, 34  # letters of a method's name in a line
PEOPLE_COLOUR = style.METHODS[3]


def boxes(structures: Mapping[str, pd.DataFrame], xlabel: str, people: Mapping[str, float]) -> Figure:
    """A panel for each structure with a box for each method, see `style.boxes`; dots are patients.

    Args:
        structures: name to a frame of patients x methods, the same methods in each; the first one is drawn on top.
        xlabel: what is measured.
        people: structure to what two people reach on it, as a dashed line.
    """
    names = list(next(iter(structures.values())))
    figure, axes = style.panels(len(structures), COLUMNS, 0.9 + 0.34 * len(names), sharex=True, sharey=True)
    for axis, (structure, values) in zip(axes, structures.items(), strict=True):
        for y, name in enumerate(names):
            dots = values[name].dropna()
            axis.scatter(dots, y + style.jitter(len(dots), 0.2), s=6, color=style.METHODS[0], linewidths=0, zorder=1)
        median = {"color": "black", "linewidth": 1.8}
        style.boxes(axis, values, orient="h", color="0.3", width=0.6, showfliers=False, medianprops=median)
        if structure in people:
            axis.axvline(people[structure], color=PEOPLE_COLOUR, linestyle="--", linewidth=1.4)
        axis.set_title(f"{structure} (n = {len(values)})", fontsize=9)
        axis.tick_params(axis="x", labelsize=8, labelbottom=True)
        axis.grid(axis="x", color="0.92")
        axis.set_axisbelow(True)
        axis.set_xlabel(xlabel, fontsize=8)
    axes[0].set_yticks(range(len(names)), [_label(name, LABEL_WIDTH) for name in names], fontsize=8)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def critical_difference(found: Friedman) -> Figure:
    """Mean ranks on a line; a bar joins methods whose ranks are not further apart than the critical difference.

    Args:
        found: from :func:`npcrepro.statistics.friedman`.
    """
    names = list(found.mean_ranks)
    left = -(-len(names) // 2)
    bars = 0.35 * len(found.groups)
    figure, (axis,) = style.panels(1, 1, 1.3 + 0.32 * left + 0.4 * bars)
    low, high = 1, len(names)
    axis.hlines(0, low, high, color="black", linewidth=1.2)
    ticks = range(low, high + 1)
    axis.vlines(ticks, 0, 0.12, color="black", linewidth=1)
    for tick in ticks:
        axis.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=8)
    for number, group in enumerate(found.groups, 1):
        ends = found.mean_ranks[group[0]] - 0.03, found.mean_ranks[group[-1]] + 0.03
        axis.hlines(-0.35 * number, *ends, color="black", linewidth=4)
    for place, (name, rank) in enumerate(found.mean_ranks.items()):
        # The better half is named on the left, the other on the right, from the outside in.
        first = place < left
        depth = -bars - 0.45 - 0.75 * (place if first else len(names) - 1 - place)
        end = low - 0.15 if first else high + 0.15
        axis.plot([rank, rank, end], [0, depth, depth], color="0.4", linewidth=1)
        label, side = (f"{name}  {rank:.2f}", "right") if first else (f"{rank:.2f}  {name}", "left")
        beyond = end + 0.02 * (low - high if first else high - low)
        axis.text(beyond, depth, _label(label, WIDE_LABEL), ha=side, va="center", multialignment=side, fontsize=8)
    reach = min(found.critical_difference, high - low)
    axis.hlines(0.95, low, low + reach, color=PEOPLE_COLOUR, linewidth=2)
    told = f" critical difference {found.critical_difference:.2f}"
    axis.text(low + reach, 0.95, told, va="center", fontsize=8, color=PEOPLE_COLOUR)
    margin = 0.62 * (high - low)
    axis.set(xlim=(low - margin, high + margin), ylim=(-bars - 0.75 * left - 0.2, 1.3))
    axis.axis("off")
    return figure


def rank_shares(stability: RankStability) -> Figure:
    """How often each method has each rank when patients are drawn anew, in percent; the best method on top.

    Args:
        stability: from :func:`npcrepro.statistics.rank_stability`.
    """
    shares = 100 * np.array([rank.shares for rank in stability.ranks])
    size = len(shares)
    figure, (axis,) = style.panels(1, 1, 0.9 + 0.36 * size)
    figure.set_figwidth(min(style.WIDTH_IN, 3.2 + 0.6 * size))
    names = [_label(rank.method, WIDE_LABEL) for rank in stability.ranks]
    labels = np.where(shares >= 0.5, np.char.mod("%.0f", shares), "")
    look = {"cmap": "Blues", "vmin": 0, "vmax": 100, "cbar": False, "annot_kws": {"size": 8}}
    sns.heatmap(shares, annot=labels, fmt="", xticklabels=range(1, size + 1), yticklabels=names, ax=axis, **look)
    axis.tick_params(labelsize=8, labelrotation=0)
    axis.set_xlabel("rank by mean DSC", fontsize=9)
    return figure


def volume_differences(titles: Mapping[str, tuple[pd.DataFrame, Agreement]]) -> Figure:
    """Difference of the volumes against their mean (Bland and Altman), a dot for each patient, a panel for each title.

    The line is the bias, dashed lines are the limits of agreement, bands the 95 % intervals of these.

    Args:
        titles: title to a frame with ``reference_ml`` and ``predicted_ml``, and the agreement of these.
    """
    figure, axes = style.panels(len(titles), COLUMNS, 2.5)
    for axis, (title, (volumes, found)) in zip(axes, titles.items(), strict=True):
        mean, difference = volumes.mean(axis=1), volumes.predicted_ml - volumes.reference_ml
        axis.scatter(mean, difference, s=12, color=style.METHODS[4], linewidths=0, zorder=2)
        axis.axhline(0, color="0.8", linewidth=0.8)
        axis.axhline(found.bias, color="black", linewidth=1.4)
        axis.axhspan(*found.bias_interval, color="0.5", alpha=0.25, linewidth=0)
        for limit, interval in ((found.low, found.low_interval), (found.high, found.high_interval)):
            axis.axhline(limit, color="black", linestyle="--", linewidth=1)
            axis.axhspan(*interval, color=style.METHODS[0], alpha=0.2, linewidth=0)
        axis.set_title(f"{title} (n = {found.n})", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.set_xlabel("mean of both (ml)", fontsize=8)
    for axis in axes[::COLUMNS]:
        axis.set_ylabel("predicted − reference (ml)", fontsize=8)
    return figure


def _label(name: str, width: int) -> str:
    """A method's name in lines of about so many letters; what is in brackets stays together."""
    title, bracket, rest = name.rpartition(" (")
    return style.wrapped(title + bracket + rest.replace(" ", "\u00a0"), width).replace("\u00a0", " ")

"""What the page on lessons holds side by side: differences of published methods, by what makes the two differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from npcrepro import statistics
from npcrepro.base.wording import plural
from npcrepro.book.figures import style
from npcrepro.book.published import PublishedResults
from npcrepro.protocol import registry
from npcrepro.runs import published


@dataclass(frozen=True)
class Contrast:
    """Two methods of a paper.

    Attributes:
        paper: key.
        first, second: names of the methods.
        what: that the first has and the second has not, in words.
        record: folder of book/results, where it is not the one that stands for the paper.
    """

    paper: str
    first: str
    second: str
    what: str
    record: str = ""


def _contrasts(group: str) -> tuple[Contrast, ...]:
    """The contrasts of a group that the YAML files of the papers list under ``lessons``, in the order of the book."""
    told = ((key, registry.reported(key).get("lessons", {})) for key in registry.KEYS)
    return tuple(Contrast(key, **one) for key, lessons in told for one in lessons.get(group, ()))


PROPOSED, MOVED, STAYED = map(_contrasts, ("proposed", "moved", "stayed"))


def effects(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """One row for each: the DSC of its first method minus the second, on the same patients and with the same seeds.

    Returns:
        ``paper``, ``what``, ``mean`` over patients with the ends ``low`` and ``high`` of its 95 % interval,
        ``patients``, and ``seeds``: the mean difference of each seed that both methods have.

    Raises:
        InputError: a record is not published.

    Example:
        >>> effects(PROPOSED[-1:]).what[0]
        'DeepLabv3+ in place of U-Net'
    """
    places = dict.fromkeys((one.paper, one.record) for one in contrasts)
    found = {place: results(place[0], record=place[1]) for place in places}
    rows = []
    for one in contrasts:
        wide = found[one.paper, one.record].by_seed(one.first, one.second)
        summary = statistics.summarise(wide.mean(axis=1))
        about = registry.PAPERS[one.paper].short, one.what
        rows.append((*about, summary.mean, summary.low, summary.high, summary.n, wide.mean().tolist()))
    return pd.DataFrame(rows, columns=["paper", "what", "mean", "low", "high", "patients", "seeds"])


def results(paper: str, region: str = "", record: str = "") -> PublishedResults:
    """The record of a paper that this page reads, or another; in other slices than its chapter's if ``region`` names
    some."""
    usual = registry.reported(paper)["lessons"]
    place = published.RESULTS / (record or usual["record"])
    return PublishedResults(registry.load(paper), place, region or usual["region"])


def draw(groups: dict[str, pd.DataFrame]) -> Figure:
    """Differences under each other, a panel for each group: intervals over patients, and a circle for each seed.

    Args:
        groups: title to rows of `effects`.
    """
    heights = [len(rows) for rows in groups.values()]
    figure, axes = style.panels(len(groups), 1, 1.0, sharex=True, height_ratios=heights)
    figure.set_figheight(0.27 * sum(heights) + 0.5 * len(groups) + 0.5)
    for axis, (title, rows) in zip(axes, groups.items(), strict=True):
        places = np.arange(len(rows))
        axis.hlines(places, rows.low, rows.high, color="0.75", linewidth=11)
        axis.vlines(rows["mean"], places - 0.4, places + 0.4, color="black", linewidth=2)
        seeds = rows.reset_index().seeds.explode()
        axis.scatter(seeds, seeds.index, s=14, color="white", edgecolors="black", zorder=3)
        names = [f"{row.what} ({row.paper}, {plural(len(row.seeds), 'seed')})" for row in rows.itertuples()]
        axis.set_yticks(places, names, fontsize=8)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.axvline(0, color="0.4", linewidth=1)
        axis.set_title(title, loc="left", fontsize=9)
    axes[-1].set_xlabel("gain in mean DSC (right of 0: better with it)")
    return figure

"""Differences of published methods by what makes them differ, for the page on lessons and for the front page."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from npcrepro import statistics
from npcrepro.base.colours import METHODS
from npcrepro.base.wording import plural
from npcrepro.book.figures import style
from npcrepro.book.published import PublishedResults
from npcrepro.findings import leakage
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
        kind: one of `KINDS`; the contrasts under ``proposed`` are ideas of a paper.
    """

    paper: str
    first: str
    second: str
    what: str
    record: str = ""
    kind: str = "idea"


def _contrasts(group: str) -> tuple[Contrast, ...]:
    """The contrasts of a group that the YAML files of the papers list under ``lessons``, in the order of the book."""
    told = ((key, registry.reported(key).get("lessons", {})) for key in registry.KEYS)
    return tuple(Contrast(key, **one) for key, lessons in told for one in lessons.get(group, ()))


PROPOSED, MOVED, STAYED = map(_contrasts, ("proposed", "moved", "stayed"))
IDEA, SPLIT, SEED = "idea", "split", "seed"
KINDS = {
    SPLIT: "Split by slice, not by patient",
    "recipe": "Training recipe",
    "loss": "Loss",
    "size": "Size of images, blocks or maps",
    "network": "Details of a network",
    IDEA: "Ideas of the papers",
    SEED: "Only another seed",
}
COLOURS = {IDEA: METHODS[4], SEED: "0.45"}  # of the dots of the picture; the other kinds have the last colour
OTHER = METHODS[3]
LARGE = 0.05  # a change of the mean DSC that the front page calls large


def effects(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """One row for each: the DSC of its first method minus the second, on the same patients and with the same seeds.

    ``paper``, ``kind``, ``what``, ``mean`` over patients with the ends ``low`` and ``high`` of its 95 % interval,
    ``patients``, ``seeds``: the mean difference of each seed that both methods have, ``of_all``: that of the means over
    all seeds of each, and ``all_low`` and ``all_high``, the interval over patients and trainings
    (:func:`npcrepro.statistics.crossed`; ``nan`` of one seed).

    Example:
        >>> effects(PROPOSED[-1:]).what[0]
        'DeepLabv3+ in place of U-Net'
    """
    places = dict.fromkeys((one.paper, one.record) for one in contrasts)
    found = {place: results(place[0], record=place[1]) for place in places}
    rows = []
    for one in contrasts:
        runs = found[one.paper, one.record]
        wide = runs.by_seed(one.first, one.second)
        summary = statistics.summarise(wide.mean(axis=1))
        folds = runs.cases.groupby("patient").fold.first()[wide.index]
        about = registry.PAPERS[one.paper].short, one.kind, one.what
        of_all = runs.of_all_seeds(one.first, one.second)
        numbers = summary.mean, summary.low, summary.high, summary.n, wide.mean().tolist(), of_all
        rows.append((*about, *numbers, *statistics.crossed(wide, folds)))
    columns = ["paper", "kind", "what", "mean", "low", "high", "patients", "seeds", "of_all", "all_low", "all_high"]
    return pd.DataFrame(rows, columns=columns)


def results(paper: str, region: str = "", record: str = "") -> PublishedResults:
    """The record of a paper that this page reads, or another; in its chapter's slices if no ``region`` is named."""
    usual = registry.reported(paper)["lessons"]
    place = published.RESULTS / (record or usual["record"])
    return PublishedResults(registry.load(paper), place, region or usual["region"])


def draw(groups: dict[str, pd.DataFrame]) -> style.Picture:
    """Rows of `effects` under each other, a panel for each group: intervals over patients, a circle for each seed.

    The name of a row stands above it, so that a phone shows the whole chart.
    """
    heights = [len(rows) for rows in groups.values()]
    figure, axes = style.panels(len(groups), 1, 1.0, sharex=True, height_ratios=heights)
    plt.close(figure)  # pyplot would show it once more
    figure.set_size_inches(style.NARROW_IN, 0.4 * sum(heights) + 0.5 * len(groups) + 0.5)
    told = []
    for axis, (title, rows) in zip(axes, groups.items(), strict=True):
        places = np.arange(len(rows))
        axis.hlines(places, rows.low, rows.high, color="0.75", linewidth=8)
        axis.vlines(rows["mean"], places - 0.25, places + 0.25, color="black", linewidth=2)
        seeds = rows.reset_index().seeds.explode()
        axis.scatter(seeds, seeds.index, s=14, color="white", edgecolors="black", zorder=3)
        for place, row in zip(places, rows.itertuples(), strict=True):
            name = f"{row.what} ({row.paper}, {plural(len(row.seeds), 'seed')})"
            axis.text(0.01, place - 0.3, name, transform=axis.get_yaxis_transform(), fontsize=8, va="bottom")
        axis.set_yticks([])
        axis.set_ylim(len(rows) - 0.5, -0.9)
        axis.axvline(0, color="0.4", linewidth=1, zorder=0)
        axis.set_title(title, loc="left", fontsize=9)
        told.append(f"{title}: {'; '.join(f'{row.what} {row.mean:+.3f}' for row in rows.itertuples())}.")
    axes[-1].set_xlabel("gain in mean DSC (right of 0: better with it)")
    return style.Picture(figure, f"Gains in mean DSC with intervals. {' '.join(told)}")


def by_kind() -> pd.DataFrame:
    """All that moves a mean DSC in the published records: the contrasts, the split by slice, and chance of training.

    Returns:
        Rows with ``paper``, ``kind`` (of `KINDS`), ``what``, ``mean``, ``low`` and ``high``, kind by kind, the largest
        mean first. Of a seed, ``mean`` is the mean DSC of a method with its best seed minus that with its worst, for
        each method with three seeds or more in the records that the ideas come from; it has no interval (``nan``).
    """
    rows = [effects([*PROPOSED, *MOVED, *STAYED])]
    for key, entry in registry.PAPERS.items():
        for by_slice, by_patient in leakage.pairs(published.RESULTS, key):
            found = leakage.inflation(by_slice.cases, by_patient.cases)
            found = found[found.structure == leakage.ALL].rename(columns={"inflation": "mean"})
            about = {"paper": entry.short, "kind": SPLIT, "what": "split by slice, not by patient"}
            rows.append(found[["mean", "low", "high", "patients"]].assign(**about))
    for key, record in dict.fromkeys((one.paper, one.record) for one in PROPOSED):
        runs = results(key, record=record)
        means = {name: runs.means_by_seed(name) for name in runs.methods}
        spread = [(runs.paper.method(name).title, max(each) - min(each)) for name, each in means.items() if each[2:]]
        rows.append(pd.DataFrame(spread, columns=["what", "mean"]).assign(paper=registry.PAPERS[key].short, kind=SEED))
    found = pd.concat(rows, ignore_index=True)
    order = found.kind.map(list(KINDS).index)
    return found.assign(order=order).sort_values(["order", "mean"], ascending=[True, False]).drop(columns="order")


def picture(rows: pd.DataFrame, narrow: bool = False) -> Figure:
    """The picture of the front page: a dot for each row of `by_kind`, a line for its 95 % interval, a band for each
    kind; if ``narrow``, for a phone, with names of the kinds above their dots and without names of comparisons."""
    above, least = (2.5, 0.0) if narrow else (0.2, 2.2)  # lines of dots that a name takes, and a band has
    edges, places = [0.0], []
    for kind in KINDS:
        mine = rows.kind == kind
        # Many seeds share three lines; every other row has a line of its own.
        lines = np.arange(mine.sum()) % 3 if kind == SEED else np.arange(mine.sum())
        size = max(lines.max() + 1.8 if len(lines) else 0, least)
        free = (size - lines.max(initial=0)) / 2 if size == least else 0.9
        places.append(edges[-1] + above + free + lines)
        edges.append(edges[-1] + above + size)
    figure, axis = plt.subplots(
        figsize=(4.0 if narrow else 8.0, 0.6 + (0.09 if narrow else 0.12) * edges[-1]),
        facecolor="white",
        layout="constrained",
    )
    for number, (kind, name) in enumerate(KINDS.items()):
        top, bottom, mine = edges[number], edges[number + 1], rows[rows.kind == kind]
        colour = COLOURS.get(kind, OTHER)
        axis.axhspan(top, bottom, color="0.955" if number % 2 else "white", linewidth=0, zorder=0)
        axis.hlines(places[number], mine.low, mine.high, color=colour, linewidth=1.4, alpha=0.55)
        axis.scatter(mine["mean"], places[number], s=15, color=colour, alpha=0.6 if kind == SEED else 1, zorder=3)
        if narrow:
            axis.text(1, top + 1.5, name, ha="right", va="center", weight="bold", transform=axis.get_yaxis_transform())
        else:
            _name_the_largest(axis, mine, places[number])
    middles = (np.array(edges[:-1]) + edges[1:]) / 2
    axis.set_yticks([] if narrow else middles, [] if narrow else list(KINDS.values()), weight="bold")
    axis.axvline(0, color="0.3", linewidth=1)
    if not narrow:
        axis.set_xlim(right=axis.get_xlim()[1] + 0.08)  # for a name beside its interval
    axis.set(ylim=(edges[-1], 0), xlabel="change of the mean DSC")
    axis.grid(axis="x", color="0.87")
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    axis.spines[["left", "right", "top"]].set_visible(False)
    return figure


def _name_the_largest(axis: Axes, rows: pd.DataFrame, places: np.ndarray) -> None:
    """What the rows are that gain more than `LARGE`, beside their intervals; seeds and a single row have no name."""
    for row, place in zip(rows.itertuples(), places, strict=True):
        if row.mean > LARGE and row.kind not in (SEED, SPLIT):
            left = row.high > 0.35
            end, side = (row.low - 0.004, "right") if left else (row.high + 0.004, "left")
            told = axis.text(end, place, row.what, ha=side, va="center", fontsize=7.5, color="0.25")
            told.set_in_layout(False)


def alt_text(rows: pd.DataFrame) -> str:
    """The picture in words: how many comparisons each kind has, and their least and largest mean."""
    groups = rows.groupby("kind", sort=False)["mean"]
    told = "; ".join(
        f"{KINDS[kind]}: {plural(len(each), 'comparison')}, {each.min():+.2f} to {each.max():+.2f}"
        if len(each) > 1
        else f"{KINDS[kind]}: {each.iloc[0]:+.2f}"
        for kind, each in groups
    )
    return f"Dots with intervals: change of the mean Dice score. {told}."

"""What the page on lessons holds side by side: differences of published methods, by what makes the two differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from npcrepro import figures, papers, records, statistics
from npcrepro.results import Results
from npcrepro.words import plural

# What stands for each paper: its record on patients, and slices as its chapter has them.
FOLDERS = {
    "li2018": ("li2018-npc-t2-slices", "reference_slices"),
    "luo2020": ("luo2020-openkbp", "all_slices"),
    "guo2021": ("guo2021-sts", "all_slices"),
    "chen2020": ("chen2020-sts", "all_slices"),
    "xue2020": ("xue2020-openkbp", "all_slices"),
}


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


# Four networks of Chen et al. in all folds, from three seeds; the others have one fold and one seed.
FOLDS = "chen2020-sts-folds"

# The ideas of the papers that two published methods tell apart, as narrowly as the methods allow.
PROPOSED = (
    Contrast("li2018", "linear-scores", "linear-one-shot", "training step by step"),
    Contrast("li2018", "linear-scores", "linear-unfused", "fusing fine features"),
    Contrast("luo2020", "no-pooling", "unet", "a second stage"),
    Contrast("luo2020", "one-stage", "unet", "multi-scale pooling in one stage"),
    Contrast("luo2020", "two-stage", "no-pooling", "multi-scale pooling in two stages"),
    Contrast("luo2020", "two-stage", "dice", "focal loss added to Dice"),
    Contrast("luo2020", "two-stage", "focal", "Dice loss added to focal"),
    Contrast("guo2021", "cascade-unfused", "bunet", "a second network behind the first"),
    Contrast("guo2021", "cascade-unfused", "acdnet", "a first network before the second"),
    Contrast("guo2021", "cscn", "cascade-unfused", "probabilities of both fused"),
    Contrast("guo2021", "bunet", "bunet-unweighted", "loss weighted by distance, as printed"),
    Contrast("chen2020", "multi-encoder", "unet-3d-t1", "three series in place of T1", FOLDS),
    Contrast("chen2020", "multi-encoder", "unet-3d-pet", "three series in place of PET", FOLDS),
    Contrast("chen2020", "multi-encoder", "single-encoder", "an encoder for each series", FOLDS),
    Contrast("chen2020", "mmfnet-no-transfer", "multi-encoder", "attention where series are fused"),
    Contrast("chen2020", "mmfnet", "mmfnet-no-transfer", "self-transfer"),
    Contrast("xue2020", "deeplabv3plus", "unet", "DeepLabv3+ in place of U-Net"),
)
# Chosen with hindsight, because they mattered, and turned so that each is a gain.
MOVED = (
    Contrast("li2018", "linear-scores", "stepwise", "scores without the printed ReLU"),
    Contrast("li2018", "one-shot-tuned", "linear-one-shot", "loss and optimiser of today"),
    Contrast("luo2020", "two-stage", "dice-present", "absent structures count in the Dice loss"),
    Contrast("luo2020", "two-stage", "iteration-decay", "rate falls by epochs, not iterations"),
    Contrast("luo2020", "mask-rcnn-enlarged", "mask-rcnn", "Mask R-CNN on slices enlarged twice"),
    Contrast("luo2020", "unet-tuned", "unet", "U-Net in a recipe of today"),
    Contrast("guo2021", "deeplab-stride-4", "deeplab", "maps twice as fine for DeepLab"),
    Contrast("guo2021", "bunet-boundary-weight", "bunet", "weight of the loss turned round"),
)
# Choices on the same patients that moved little.
STAYED = (
    Contrast("luo2020", "two-stage-long", "two-stage", "twice the updates for two stages"),
    Contrast("luo2020", "nnunet-unet-tuned", "unet-tuned", "U-Net of nnU-Net in the recipe of today"),
    Contrast("guo2021", "fusion-product", "cscn", "product of the probabilities, not their mean"),
    Contrast("xue2020", "full-convolutions", "deeplabv3plus", "full convolutions, not separable ones"),
    Contrast("xue2020", "rates-1-2-3", "deeplabv3plus", "a pyramid as wide as the map of DeepLabv3+"),
)


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
        size = summary.n, wide.mean().tolist()
        rows.append((papers.PAPERS[one.paper].short, one.what, summary.mean, summary.low, summary.high, *size))
    return pd.DataFrame(rows, columns=["paper", "what", "mean", "low", "high", "patients", "seeds"])


def results(paper: str, region: str = "", record: str = "") -> Results:
    """The record of a paper that this page reads, or another; in other slices than its chapter's if ``region`` names
    some."""
    folder, usual = FOLDERS[paper]
    return Results(papers.load(paper), records.RESULTS / (record or folder), region or usual)


def draw(groups: dict[str, pd.DataFrame]) -> Figure:
    """Differences under each other, a panel for each group: intervals over patients, and a circle for each seed.

    Args:
        groups: title to rows of `effects`.
    """
    heights = [len(rows) for rows in groups.values()]
    figure, axes = plt.subplots(
        len(groups),
        1,
        figsize=(figures.WIDTH_IN, 0.27 * sum(heights) + 0.5 * len(groups) + 0.5),
        sharex=True,
        squeeze=False,
        layout="constrained",
        height_ratios=heights,
    )
    for axis, (title, rows) in zip(axes[:, 0], groups.items(), strict=True):
        for place, row in enumerate(rows.itertuples()):
            axis.hlines(place, row.low, row.high, color="0.75", linewidth=11)
            axis.vlines(row.mean, place - 0.4, place + 0.4, color="black", linewidth=2)
            axis.scatter(row.seeds, [place] * len(row.seeds), s=14, color="white", edgecolors="black", zorder=3)
        names = [f"{row.what} ({row.paper}, {plural(len(row.seeds), 'seed')})" for row in rows.itertuples()]
        axis.set_yticks(range(len(rows)), names, fontsize=8)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.axvline(0, color="0.4", linewidth=1)
        axis.set_title(title, loc="left", fontsize=9)
    axes[-1, 0].set_xlabel("gain in mean DSC (right of 0: better with it)")
    return figure

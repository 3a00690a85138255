"""What only the chapter on Li et al. 2018 shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Patch

from npcrepro.base.wording import plural
from npcrepro.book import tables
from npcrepro.book.figures.printed import BLUE, GREEN, VERMILION, Picture, axes
from npcrepro.book.published import PublishedResults
from npcrepro.cohorts.structures import mask_of
from npcrepro.findings.audit.checks import Reported, half
from npcrepro.metrics.overlap import Counts, count
from npcrepro.papers.li2018 import audit
from npcrepro.protocol.method import Method, Profile
from npcrepro.runs.published import RESULTS
from npcrepro.sampling.samples import to_native_plane
from npcrepro.sampling.slices import SliceData

# `through_matrix` of the published slices at the matrices of the profiles: numbers only, no mask.
AT_MATRIX = RESULTS / "at-matrix" / "NPC_T2Slices.csv"
# Columns of Table 2 by the name of the metric, in the order of the paper.
TABLE_2 = {
    "predicted_ml": "V auto (ml)",
    "reference_ml": "V reference (ml)",
    "sensitivity": "PM",
    "corresponding_ratio": "CR",
    "dsc": "DSC",
    "precision": "Recall (= precision)",
    "jsc": "JSC",
}


def volumes(reported: Reported) -> Picture:
    """Li: ratio of the volumes against PM over recall, with what rounding leaves open, for each patient."""
    data = audit.patients(reported)
    x, y = data["percent_match"] / data["recall"], data["volume_auto"] / data["volume_readers"]
    x_size = _spread(data, reported, "percent_match", "recall", x)
    y_size = _spread(data, reported, "volume_auto", "volume_readers", y)
    figure, axis = axes(4.4)
    line = np.linspace(x.min() - 0.03, x.max() + 0.03, 50)
    axis.plot(line, line, color="0.35", linestyle="--", label="as the equations define it: equal ratios")
    axis.plot(line, 1 / line, color=GREEN, label="FP and FN exchanged: inverse ratios")
    axis.errorbar(x, y, x_size, y_size, fmt="o", color="black", ecolor="0.6", markersize=4, label=f"{len(x)} patients")
    axis.set(
        xlabel="percent match / recall, as printed (no unit)",
        ylabel="automatic / readers' volume (no unit)",
    )
    axis.legend(fontsize=8, frameon=False)
    inverse, defined = np.abs(y - 1 / x).max(), np.abs(y - x).max()
    alt = (
        f"Scatter plot of {len(x)} patients. The ratio of automatic to manual volume falls from {y.max():.2f} to "
        f"{y.min():.2f} while percent match over recall rises from {x.min():.2f} to {x.max():.2f}. The points follow "
        f"the inverse curve to within {inverse:.2f}; from the line of equal ratios they differ by up to {defined:.2f}."
    )
    return Picture(figure, alt)


def _spread(data, reported: Reported, top: str, bottom: str, ratio):
    """Half the width of what rounding leaves open of a ratio."""
    return ratio * (half(reported, top) / data[top] + half(reported, bottom) / data[bottom])


def architecture(method: Method, profile: Profile) -> Picture:
    """Li: the layers in order, each as high as its map, with its channels, and the maps that are concatenated.

    Args:
        method: with :class:`npcrepro.papers.li2018.network.Li2018Network`.
        profile: gives matrix and width.
    """
    rows = tables.layers(method, profile)
    shown = rows[~rows.layer.str.startswith("relu")].reset_index(drop=True)
    sizes = [tuple(map(int, size.split(" x "))) for size in shown.iloc[:, 4]]
    names = shown.layer.tolist()
    figure, axis = axes(3.6)
    first = names.index("deconv1")
    colours = [BLUE if place < first else VERMILION for place in range(len(names))]
    sides = [side for _, side, _ in sizes]
    axis.bar(range(len(names)), sides, color=colours, width=0.55)
    for place, (channels, side, _) in enumerate(sizes):
        axis.annotate(f"{channels}", (place, side), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    for source, target in (("conv2", "concat1"), ("conv1", "concat2")):
        if target in names:
            ends = [(names.index(name), sides[names.index(name)] + max(sides) / 8) for name in (target, source)]
            style = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.2", "color": "0.4"}
            axis.annotate("", *ends, arrowprops=style)
    axis.set_xticks(range(len(names)), names, rotation=60, fontsize=8)
    axis.set(ylabel="side of the map (pixels)", ylim=(0, 1.6 * max(sides)))
    handles = [Patch(color=BLUE, label="feature phase"), Patch(color=VERMILION, label="reconstruction phase")]
    axis.legend(handles=handles, fontsize=8, frameon=False, loc="upper center", ncols=2)
    told = "; ".join(f"{name} {side} pixels, {size[0]} channels" for name, side, size in zip(names, sides, sizes))
    skips = "Arrows lead from conv1 and conv2, behind their ReLU, to the concatenations of their size."
    return Picture(figure, f"Layers in order, without ReLUs, by the side of their map: {told}. {skips}")


def through_matrix(data: SliceData) -> pd.DataFrame:
    """What is left of each reference that is brought to the matrix of the networks, as they are taught it, and back.

    Returns:
        A row for each case and structure that it shows: ``case``, ``patient``, ``suspect``, ``structure``, ``matrix``
        (pixels along y) and the counts ``tp``, ``fp`` and ``fn`` of the returned mask against the reference.
    """
    rows = []
    for name in data.cohort.case_names:
        case = data.cohort.case(name)
        label = np.asarray(case.label)
        coarse = torch.from_numpy(np.array(data.arrays(name)[1])).float()
        returned = (to_native_plane(coarse, label.shape[1:]) >= 0.5).numpy()
        for number, structure in enumerate(data.structures):
            truth = mask_of(label, data.cohort.structures, structure)
            if truth.any():
                found = count(returned[:, number], truth)
                place = (name, case.patient, case.suspect, structure, data.matrix[0])
                rows.append((*place, found.tp, found.fp, found.fn))
    return pd.DataFrame(rows, columns=["case", "patient", "suspect", "structure", "matrix", "tp", "fp", "fn"])


def best_dsc(rows: pd.DataFrame) -> pd.Series:
    """DSC of each patient of `through_matrix`, pixels of all cases pooled; doubtful masks left out."""
    sums = rows[~rows.suspect].groupby("patient")[["tp", "fp", "fn"]].sum()
    return pd.Series({row.Index: Counts(row.tp, row.fp, row.fn, 0).dsc for row in sums.itertuples()}, dtype=float)


def ceiling_line(rows: pd.DataFrame) -> str:
    """What `best_dsc` says of a cohort at one matrix, in a sentence."""
    best = best_dsc(rows)
    if best.empty:
        return "No mask is free of doubt, so that nothing is said of what the matrix costs."
    side = rows.matrix.iloc[0]
    return (
        f"The reference itself, brought to {side} x {side} pixels as the networks are taught it and back, has a mean "
        f"DSC of {best.mean():.2f} over {plural(len(best), 'patient')} and one of {best.min():.2f} in the worst case; "
        "a network that learns it perfectly reaches about that."
    )


def own_table_2(patients: pd.DataFrame, best: pd.Series | None = None) -> pd.DataFrame:
    """Patients of one method in the shape of the paper's Table 2; columns without any number are left out.

    Args:
        patients: one row for each patient.
        best: from `best_dsc`, as a last column.
    """
    table = patients[["patient", *TABLE_2]].dropna(axis=1, how="all").rename(columns={"patient": "Patient", **TABLE_2})
    return table if best is None else table.assign(**{"DSC at best": patients.patient.map(best).to_numpy()})


def published_table_2(results: PublishedResults, best: pd.Series) -> pd.DataFrame:
    """`own_table_2` of the proposed method of published runs, means over seeds."""
    rows = results.averaged
    return own_table_2(rows[rows.method == results.paper.methods[0].name], best)

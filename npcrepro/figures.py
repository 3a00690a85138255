"""Figures of the book. The reference contour and each method keep their colour through the whole book.

Colours are those of Okabe and Ito, which stay apart under the common forms of colour blindness and on both grey images
and white paper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogFormatter

from npcrepro.cohorts.layout import Cohort
from npcrepro.evaluation import over_seeds
from npcrepro.protocol import Paper, Settings

REFERENCE = "#E69F00"
YELLOW = "#F0E442"
METHODS = ("#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", YELLOW)
# For tables longer than Okabe and Ito's list: olive, violet, teal, brown, lavender, rose and lime.
MORE = ("#999933", "#AA4499", "#44AA99", "#994F00", "#B3B3FF", "#FFAABB", "#A6D854")
NNUNET = "#882255"  # wine, for the U-Net of nnU-Net, which stands beside the methods of several papers
GREY = "#999999"
WIDTH_IN = 6.9  # of the text on a page of the book, at 100 dots per inch: wider figures would be shrunk and blurred
REGION_TITLES = {"all_slices": "all slices", "reference_slices": "slices that show the structure"}
METRIC_TITLES = {
    "dsc": "DSC",
    "jsc": "JSC",
    "sensitivity": "Sensitivity (PM)",
    "precision": "Precision",
    "corresponding_ratio": "CR",
    "relative_volume_difference": "Relative volume difference",
    "average_precision": "AP",
    "auc": "AUC",
    **{f"{convention}_hd_mm": "HD (mm)" for convention in ("voxel", "surfel")},
    **{f"{convention}_hd95_mm": "HD95 (mm)" for convention in ("voxel", "surfel")},
    **{f"{convention}_masd_mm": "MASD (mm)" for convention in ("voxel", "surfel")},
    **{f"{convention}_assd_mm": "ASSD (mm)" for convention in ("voxel", "surfel")},
    **{f"{convention}_nsd_{mm}mm": f"NSD at {mm} mm" for convention in ("voxel", "surfel") for mm in (1, 2)},
}


def colours(paper: Paper, shown: Sequence[str] = ()) -> dict[str, str]:
    """Colour of each method of a paper: its own through the whole book, as far as colours go; the others share grey.

    Methods of the profiles quick and bench come first, then the paper's list. The U-Net of nnU-Net has the same colour
    in all papers.

    Args:
        shown: methods of the figure; those that would be grey take the colours that no other of these has.
    """
    listed = [name for profile in paper.profiles if profile.name in ("quick", "bench") for name in profile.methods]
    names = dict.fromkeys([*listed, *(method.name for method in paper.methods)])
    nnunet = {name: NNUNET for name in names if name.startswith("nnunet")}
    kept = dict.fromkeys(names, GREY) | dict(
        zip((n for n in names if n not in nnunet), (*METHODS, *MORE), strict=False)
    )
    kept |= nnunet
    free = [colour for colour in (*METHODS, *MORE) if colour not in {kept[name] for name in shown}]
    grey = [name for name in shown if kept[name] == GREY]
    return kept | dict(zip(grey, free, strict=False))


def edged(figure: Figure) -> Figure:
    """The figure with a grey edge around lines and dots that are yellow, which is bright on images and faint on paper.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axis = Figure().subplots()
        >>> lines = axis.plot([0, 1], color=YELLOW) + axis.plot([1, 0], color=REFERENCE)
        >>> _ = edged(axis.figure)
        >>> [bool(line.get_path_effects()) for line in lines]
        [True, False]
    """
    for artist in figure.findobj(_is_yellow):
        width = float(np.max(artist.get_linewidth(), initial=0))
        # A faint line stays one: its edge would be darker than the line of a mean, and wider than itself.
        if artist.get_alpha() is None or artist.get_alpha() > 0.5:
            artist.set_path_effects([withStroke(linewidth=width + 1, foreground="0.45")])
    return figure


def _is_yellow(artist: Artist) -> bool:
    if isinstance(artist, Line2D):
        return same_color(artist.get_color(), YELLOW)
    if not isinstance(artist, Collection):
        return False
    colours = [*artist.get_facecolor(), *artist.get_edgecolor()]
    return bool(colours) and same_color((*colours[0][:3], 1), YELLOW)


def titles(paper: Paper) -> dict[str, str]:
    """Legend text of each method."""
    return {method.name: method.title for method in paper.methods}


def show_images(cohort: Cohort, settings: Settings, draw: Callable[..., Figure], *arguments, **options) -> None:
    """Show a figure of a cohort's images, or where its licence forbids that, a line that says so.

    Args:
        cohort: whose images the figure shows.
        settings: with ``private``, the figure is shown in any case.
        draw: one of the functions below, and what it is called with.
    """
    from IPython.display import Markdown, display

    if cohort.publishable or settings.private:
        draw(*arguments, **options)
        plt.show()
        return
    licence = f"its licence is: {cohort.licence}" if cohort.licence else "its dataset.json names no licence"
    line = f"Images of cohort {cohort.name} may not be published ({licence}), so this figure is left out. "
    display(Markdown(f"*{line}For a book that stays with you, set the parameter `private: true`.*"))


def sheet(
    rows: Mapping[str, Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray]]]],
    limits: tuple[float, float] | None = None,
    structures: Sequence[str] = (),
) -> Figure:
    """A contact sheet: patients down, series or levels across, with the contours of structures.

    Args:
        rows: title of the row to {title of the column: (image (y, x), {structure: mask (y, x)})}.
        limits: intensities shown as black and white; by default the tails of each image.
        structures: all that have a colour, shown here or not; by default those that are shown.
    """
    columns = list(next(iter(rows.values())))
    shown = list(dict.fromkeys(name for row in rows.values() for _, masks in row.values() for name in masks))
    structures = structures or shown
    colour = dict(zip(structures, structure_colours(structures), strict=True))
    figure, axes = grid(len(rows), len(columns))
    for line, (title, row) in zip(axes, rows.items(), strict=True):
        for axis, column in zip(line, columns, strict=True):
            image, masks = row[column]
            show_slice(axis, image, {colour[name]: mask for name, mask in masks.items()}, limits)
        line[0].set_ylabel(title, fontsize=9)
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=9)
    if shown:
        legend(figure, {name: colour[name] for name in structures if name in shown})
    return figure


def structure_colours(structures: Sequence[str]) -> list[str]:
    """The reference's colour for the first structure, others from the colour-blind safe list, again from its start."""
    others = (*METHODS, NNUNET, *MORE)
    return [REFERENCE, *(others[i % len(others)] for i in range(len(structures) - 1))][: len(structures)]


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


def contours(
    rows: Mapping[str, tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]], paper: Paper
) -> Figure:  # fmt: skip
    """Patients down, methods across, each with the reference contour and the method's.

    Args:
        rows: title of the row to ``(image (y, x), reference (y, x), {method: prediction (y, x)})``.
    """
    names = list(next(iter(rows.values()))[2])
    figure, axes = grid(len(rows), len(names))
    for line, (title, (image, reference, predictions)) in zip(axes, rows.items(), strict=True):
        box = _around(reference)
        for axis, name in zip(line, names, strict=True):
            show_slice(axis, image[box], {REFERENCE: reference[box], colours(paper)[name]: predictions[name][box]})
        line[0].set_ylabel(title, fontsize=9)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(titles(paper)[name], fontsize=9)
    legend(figure, {"Reference": REFERENCE} | {titles(paper)[n]: colours(paper)[n] for n in names})
    return figure


def maps(images: Mapping[str, np.ndarray], reference: np.ndarray, probability: Sequence[str] = ()) -> Figure:
    """Maps side by side with the reference contour: grey for the image, viridis with a colour bar for the others.

    Args:
        images: title to ``(y, x)``; maps may be coarser than the reference.
        reference: ``(y, x)``.
        probability: titles of the maps whose colours run from 0 to 1.
    """
    figure, axes = grid(1, len(images))
    shown = None
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        extent = (-0.5, reference.shape[1] - 0.5, reference.shape[0] - 0.5, -0.5)
        if title in probability:
            shown = axis.imshow(image, cmap="viridis", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        else:
            axis.imshow(image, cmap="gray", extent=extent)
        if reference.any():
            axis.contour(reference, [0.5], colors=REFERENCE, linewidths=1)
        axis.set_title(title, fontsize=9)
    if shown:
        figure.colorbar(shown, ax=axes, shrink=0.6, label="probability")
    legend(figure, {"Reference": REFERENCE})
    return figure


class _Plain(LogFormatter):
    """Labels of a logarithmic axis as plain numbers, where it has room for them."""

    def __call__(self, x, pos=None):
        return f"{x:g}" if super().__call__(x, pos) else ""


def wrapped(title: str, width: int) -> str:
    """A title in lines of about so many letters, broken at spaces and behind plus signs.

    Example:
        >>> wrapped("MMFNet+multi-MLP+stdPool", 12)
        'MMFNet+\\nmulti-MLP+\\nstdPool'
    """
    lines = textwrap.wrap(title.replace("+", "+ "), width, break_on_hyphens=False)
    return "\n".join(line.replace("+ ", "+") for line in lines)


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
        axis.yaxis.set_major_formatter(_Plain())
        axis.yaxis.set_minor_formatter(_Plain())
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
        patients: from :func:`npcrepro.evaluation.select`; seeds are averaged within a patient.
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
        patients: from :func:`npcrepro.evaluation.by_patient`, one region; seeds are averaged within a patient.
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
        patients: rows of :func:`npcrepro.evaluation.by_patient` with volumes in millilitres.
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


def grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A figure of square places for images, without ticks, and its axes ``(rows, columns)``."""
    side = min(WIDTH_IN / columns, 3.0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, side * rows + 0.5), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def show_slice(
    axis: Axes, image: np.ndarray, masks: Mapping[str, np.ndarray], limits: tuple[float, float] | None = None
) -> None:
    """Draw a slice in grey, and contours of masks on it; of an empty mask none.

    Args:
        image: ``(y, x)``.
        masks: colour to mask ``(y, x)``.
        limits: intensities shown as black and white; by default the tails of the image.
    """
    low, high = limits or np.percentile(image, (0.5, 99.5))
    axis.imshow(image, cmap="gray", vmin=low, vmax=high)
    for colour, mask in masks.items():
        if mask.any():
            axis.contour(mask, [0.5], colors=colour, linewidths=1.2)


def _around(reference: np.ndarray) -> tuple[slice, slice]:
    """The central half of the slice, or more where the reference reaches further."""
    box = []
    for axis, size in enumerate(reference.shape):
        where = np.flatnonzero(reference.any(axis=1 - axis))
        low, high = size // 5, size - size // 5
        if len(where):
            low, high = min(low, where[0] - 2), max(high, where[-1] + 3)
        box.append(slice(max(0, low), min(size, high)))
    return tuple(box)


def legend(figure: Figure, entries: Mapping[str, str], columns: int = 4) -> None:
    """A legend below a figure: title to the colour of its line."""
    lines = [Line2D([], [], color=colour, linewidth=2) for colour in entries.values()]
    place = {"loc": "outside lower center", "ncols": min(columns, len(lines))}
    figure.legend(lines, list(entries), **place, fontsize=8, frameon=False)


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

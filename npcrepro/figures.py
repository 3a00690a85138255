"""Figures of the book. The reference contour and each method keep their colour through the whole book.

Colours are those of Okabe and Ito, which stay apart under the common forms of colour blindness and on both grey images
and white paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from npcrepro.cohorts.layout import Cohort
from npcrepro.protocol import Paper, Settings

REFERENCE = "#E69F00"
METHODS = ("#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442", "#999999")
WIDTH_IN = 7.5  # width of a page of the book
METRIC_TITLES = {
    "dsc": "DSC",
    "jsc": "JSC",
    "sensitivity": "Sensitivity (PM)",
    "precision": "Precision",
    "corresponding_ratio": "CR",
}


def colours(paper: Paper) -> dict[str, str]:
    """Colour of each method of a paper, by its place in the paper's list; the seventh and later share grey."""
    return {m.name: METHODS[min(i, len(METHODS) - 1)] for i, m in enumerate(paper.methods)}


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


def slices(images: Mapping[str, tuple[np.ndarray, np.ndarray]], structure: str = "Reference") -> Figure:
    """A row of slices with the reference contour.

    Args:
        images: title to ``(image (y, x), reference (y, x))``.
    """
    figure, axes = _grid(1, len(images))
    for axis, (title, (image, reference)) in zip(axes[0], images.items(), strict=True):
        _show(axis, image, {REFERENCE: reference})
        axis.set_title(title, fontsize=9)
    _legend(figure, {structure: REFERENCE})
    return figure


def contours(
    rows: Mapping[str, tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]], paper: Paper
) -> Figure:  # fmt: skip
    """Patients down, methods across, each with the reference contour and the method's.

    Args:
        rows: title of the row to ``(image (y, x), reference (y, x), {method: prediction (y, x)})``.
    """
    names = list(next(iter(rows.values()))[2])
    figure, axes = _grid(len(rows), len(names))
    for line, (title, (image, reference, predictions)) in zip(axes, rows.items(), strict=True):
        box = _around(reference)
        for axis, name in zip(line, names, strict=True):
            _show(axis, image[box], {REFERENCE: reference[box], colours(paper)[name]: predictions[name][box]})
        line[0].set_ylabel(title, fontsize=9)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(titles(paper)[name], fontsize=9)
    _legend(figure, {"Reference": REFERENCE} | {titles(paper)[n]: colours(paper)[n] for n in names})
    return figure


def maps(images: Mapping[str, np.ndarray], reference: np.ndarray, probability: Sequence[str] = ()) -> Figure:
    """Maps side by side with the reference contour: grey for the image, viridis with a colour bar for the others.

    Args:
        images: title to ``(y, x)``; maps may be coarser than the reference.
        reference: ``(y, x)``.
        probability: titles of the maps whose colours run from 0 to 1.
    """
    figure, axes = _grid(1, len(images))
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
    _legend(figure, {"Reference": REFERENCE})
    return figure


def learning_curves(history: pd.DataFrame, paper: Paper) -> Figure:
    """Training and validation loss of each method over its stages, one thin line for each run and their mean."""
    names = [m.name for m in paper.methods if m.name in set(history.method)]
    figure, axes = plt.subplots(
        1, len(names), figsize=(WIDTH_IN, 2.9), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], names, strict=True):
        rows = history[history.method == name].copy()
        starts, start = {}, 0
        for stage in rows.stage.unique():
            starts[stage] = start
            axis.axvline(start, color="0.8", linewidth=0.8)
            axis.text(start, 1.0, f" {stage}", transform=axis.get_xaxis_transform(), va="top", fontsize=7, color="0.3")
            start += rows[rows.stage == stage]["update"].max()
        rows["total"] = rows["update"] + rows.stage.map(starts)
        for column, style in {"loss": "-", "validation_loss": "--"}.items():
            for _, stage_rows in rows.groupby("stage", sort=False):
                for _, one in stage_rows.groupby(["fold", "seed"]):
                    axis.plot(one.total, one[column], style, color=colours(paper)[name], alpha=0.3, linewidth=0.7)
                mean = stage_rows.groupby("total")[column].mean()
                axis.plot(mean.index, mean, style, marker=".", color=colours(paper)[name], linewidth=1.8)
        axis.set(xlabel="updates", yscale="log")
        axis.set_title(titles(paper)[name], fontsize=8)
    axes[0][0].set_ylabel("loss of the stage's score")
    lines = [Line2D([], [], color="0.3", linestyle=style) for style in ("-", "--")]
    axes[0][-1].legend(lines, ["training", "validation patient"], fontsize=7, loc="lower left")
    return figure


def by_patient(patients: pd.DataFrame, paper: Paper, metric: str = "dsc", printed: float | None = None) -> Figure:
    """One dot for each patient and method, patients joined by a line, the mean as a bar; the printed mean as a rule."""
    names = [m.name for m in paper.methods if m.name in set(patients.method)]
    wide = patients.pivot(index="patient", columns="method", values=metric)[names]
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 3.2), layout="constrained")
    for _, values in wide.iterrows():
        axis.plot(range(len(names)), values, color="0.85", linewidth=0.7, zorder=1)
    for x, name in enumerate(names):
        axis.scatter([x] * len(wide), wide[name], color=colours(paper)[name], s=22, zorder=2, edgecolor="white")
        axis.hlines(wide[name].mean(), x - 0.2, x + 0.2, color=colours(paper)[name], linewidth=3)
    if printed is not None:
        axis.axhline(printed, color="black", linestyle=":", linewidth=1)
        axis.text(len(names) - 0.55, printed, " printed mean", fontsize=8, va="bottom", ha="right")
    axis.set_xticks(range(len(names)), [f"{titles(paper)[n]}\nn = {wide[n].notna().sum()}" for n in names], fontsize=8)
    low = min(0.0, np.nanmin(wide.to_numpy())) if wide.notna().any(axis=None) else 0.0
    axis.set(ylabel=METRIC_TITLES[metric], ylim=(low - 0.03, 1.03), xlim=(-0.5, len(names) - 0.5))
    return figure


def volume_agreement(patients: pd.DataFrame, printed: pd.DataFrame, paper: Paper) -> Figure:
    """Automatic against reference volume: the paper's patients on the left, ours on the right, with the identity line.

    Args:
        patients: rows of :func:`npcrepro.evaluation.by_patient` with volumes in millilitres.
        printed: columns ``volume_auto`` and ``volume_readers`` in cubic centimetres (= millilitres).
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH_IN, 3.6), layout="constrained")
    axes[0].scatter(printed.volume_readers, printed.volume_auto, s=18, color="0.3")
    axes[0].set_title(f"As printed (Table 2, n = {len(printed)})", fontsize=9)
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
    return figure


def _grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    side = min(WIDTH_IN / columns, 3.0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, side * rows + 0.5), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def _show(axis, image: np.ndarray, masks: Mapping[str, np.ndarray]) -> None:
    axis.imshow(image, cmap="gray", vmin=np.percentile(image, 0.5), vmax=np.percentile(image, 99.5))
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


def _legend(figure: Figure, entries: Mapping[str, str]) -> None:
    lines = [Line2D([], [], color=colour, linewidth=2) for colour in entries.values()]
    figure.legend(lines, list(entries), loc="outside lower center", ncols=min(4, len(lines)), fontsize=8, frameon=False)

"""Five pictures for the strongest findings. Each comes with a text for those who do not see it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.figure import Figure

from npcrepro.audit import chen2020, guo2021, li2018, xue2020
from npcrepro.audit.frame import Reported, half, jsc_of
from npcrepro.figures import METHODS, WIDTH_IN
from npcrepro.words import in_words

BLUE, GREEN, VERMILION = METHODS[0], METHODS[1], METHODS[3]
FORBIDDEN = {"facecolor": "0.9", "hatch": "///", "edgecolor": "0.72", "linewidth": 0}
RESOLUTION = 120


@dataclass(frozen=True)
class Picture:
    """A figure with its text alternative; shown by a notebook as an image of a page.

    Attributes:
        figure: not known to pyplot, so that a notebook shows it once.
        alt: what it shows, with the numbers that matter.
    """

    figure: Figure
    alt: str

    def _repr_html_(self) -> str:
        stream = io.BytesIO()
        self.figure.savefig(stream, format="png", dpi=RESOLUTION, facecolor="white")
        data = base64.b64encode(stream.getvalue()).decode()
        return f'<img alt="{escape(self.alt, quote=True)}" src="data:image/png;base64,{data}">'


def _axes(height_in: float, columns: int = 1, **options):
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots(1, columns, **options)


def volumes(reported: Reported) -> Picture:
    """Li: ratio of the volumes against PM over recall, with what rounding leaves open, for each patient."""
    data = li2018.patients(reported)
    x, y = data["percent_match"] / data["recall"], data["volume_auto"] / data["volume_readers"]
    x_size = _spread(data, reported, "percent_match", "recall", x)
    y_size = _spread(data, reported, "volume_auto", "volume_readers", y)
    figure, axis = _axes(4.4)
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


def jsc_above_dsc(reported: Reported) -> Picture:
    """Luo: JSC against DSC with the region that no set of masks reaches."""
    table = reported["tables"]["table1"]
    dsc, jsc = (np.array([row[name] for row in table]) for name in ("dsc", "jsc"))
    figure, axis = _axes(4.6)
    line = np.linspace(0.55, 0.95, 100)
    axis.fill_between(line, line, 1, label="no average of masks lies here", **FORBIDDEN)
    axis.fill_between(line, jsc_of(line), line, color=GREEN, alpha=0.35, linewidth=0, label="where averages can lie")
    axis.plot(line, jsc_of(line), color=GREEN, label="a single mask: J = D / (2 - D)")
    axis.plot(dsc, jsc, "o", color=VERMILION, markersize=7, label="Table 1")
    for row in table:
        axis.annotate(row["model"], (row["dsc"], row["jsc"]), (6, 4), textcoords="offset points", fontsize=9)
    axis.set(xlabel="DSC (no unit)", ylabel="JSC (no unit)", xlim=(0.62, 0.9), ylim=(0.45, 0.95))
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    points = in_words([f"{row['model']} DSC {row['dsc']:.4f} and JSC {row['jsc']:.4f}" for row in table])
    alt = (
        f"JSC against DSC of the four networks of Table 1: {points}. All lie above the diagonal, in the hatched region "
        "that no average of masks can reach."
    )
    return Picture(figure, alt)


def smallest_p(reported: Reported) -> Picture:
    """Xue: printed p of each metric beside the smallest p that its spreads allow in 15 pairs."""
    figure, axis = _axes(2.9)
    told, floor = [], 1e-6
    for y, (metric, title) in enumerate(xue2020.TITLES.items()):
        printed, bound = xue2020.p_value(reported, metric)
        exact, favoured = (max(xue2020.smallest_p(reported, metric, way), floor) for way in (False, True))
        axis.fill_betweenx([y - 0.3, y + 0.3], floor, favoured, **FORBIDDEN)
        axis.plot([favoured, exact], [y, y], color=BLUE, linewidth=4, alpha=0.6)
        axis.plot(exact, y, "|", color=BLUE, markersize=18, markeredgewidth=2.5)
        axis.plot(printed, y, "<" if bound else "o", color=VERMILION, markersize=8)
        word = "less than " if bound else ""
        least = f"below {floor:g}" if exact <= floor else f"{exact:.2g}"
        told.append(f"{title} printed {word}{printed:g}, smallest possible {least}")
    axis.set_yticks(range(len(told)), xue2020.TITLES.values())
    axis.set(xscale="log", xlim=(floor, 1), ylim=(len(told) - 0.5, -0.5), xlabel="p of a paired t-test (no unit)")
    n = reported["tables"]["p_values"]["test_patients"]
    handles = [
        axis.plot([], [], "o", color=VERMILION, label="printed (triangle: less than)")[0],
        axis.plot([], [], "|", color=BLUE, markersize=12, markeredgewidth=2.5, label=f"smallest p of {n} pairs")[0],
        axis.plot([], [], color=BLUE, linewidth=4, alpha=0.6, label="down to here with rounding in its favour")[0],
        axis.fill_betweenx([], [], [], label="not possible", **FORBIDDEN),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return Picture(figure, f"Printed and smallest possible p of {n} pairs: {'; '.join(told)}.")


def f1_against_dsc(reported: Reported) -> Picture:
    """Guo: F1 against DSC; of the same masks they are equal."""
    rows = guo2021.rows(reported)
    figure, axis = _axes(4.2)
    low, high = min(row["dsc"] for row in rows) - 0.02, max(row["f1"] for row in rows) + 0.02
    line = np.array([low, high])
    # The three networks in the middle are close together.
    places, words = {"CNN": (-30, -3), "ACDNet": (-46, 0)}, {"textcoords": "offset points", "fontsize": 9}
    axis.fill_between(line, low, line, label="no average lies here", **FORBIDDEN)
    axis.plot(line, line, color="black", label="the same masks: F1 = DSC")
    for row in rows:
        axis.plot([row["dsc"]] * 2, [row["dsc"], row["f1"]], color=BLUE, linewidth=1.2)
        axis.annotate(row["model"], (row["dsc"], row["f1"]), places.get(row["model"], (8, -3)), **words)
    axis.plot([r["dsc"] for r in rows], [r["f1"] for r in rows], "o", color=VERMILION, markersize=7, label="printed")
    axis.set(xlabel="DSC (no unit)", ylabel="F1 (no unit)", xlim=(low, high), ylim=(low, high))
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    gaps = in_words([f"{row['model']} {row['f1'] - row['dsc']:+z.3f}" for row in rows])
    alt = (
        f"F1 against DSC. All rows lie above the diagonal on which F1 equals DSC, by {gaps}. An F1 made of the mean "
        "precision and the mean recall lies there."
    )
    return Picture(figure, alt)


def gains(reported: Reported) -> Picture:
    """Chen: the nine gains of the text against Table I, and what self-transfer adds in each configuration."""
    found, printed = chen2020.recomputed_gains(reported), chen2020.printed_gains(reported)
    figure, (left, right) = _axes(3.4, 2)
    marks = {"dsc": ("o", BLUE), "ap": ("s", GREEN), "loss_dice": ("^", VERMILION)}
    factor = {"dsc": 1, "ap": 1, "loss_dice": 100}
    for name, (mark, colour) in marks.items():
        x = [factor[name] * found[key][name] for key in found]
        y = [factor[name] * printed[key][name] for key in found]
        left.plot(x, y, mark, color=colour, label=chen2020.TITLES[name] + (" x 100" if name == "loss_dice" else ""))
    left.axline((0, 0), slope=1, color="0.5", linewidth=1, zorder=0)
    left.set(xlabel="from Table I (points)", ylabel="in the text (points)", title="Nine gains, printed twice")
    left.legend(fontsize=8, frameon=False)
    transfer = {name: 100 * gain for name, gain in chen2020.transfer_gains(reported).items()}
    right.bar(range(len(transfer)), transfer.values(), color=BLUE, width=0.6)
    for place, gain in enumerate(transfer.values()):
        right.annotate(f"{gain:.2f}", (place, gain), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    names = [name.removeprefix("MMFNet").lstrip("+").replace("+", "\n+ ") for name in transfer]
    right.set_xticks(range(len(names)), names, fontsize=8)
    right.margins(y=0.12)
    right.set(ylabel="gain of the DSC (points)", title="What self-transfer adds")
    shown = in_words([f"{name} {gain:.2f}" for name, gain in transfer.items()])
    alt = (
        "Left, nine gains of the text against the same recomputed from Table I: all lie on the diagonal. Right, the "
        f"gain from self-transfer in points of the DSC: {shown}."
    )
    return Picture(figure, alt)

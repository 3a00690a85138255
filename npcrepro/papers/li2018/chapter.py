"""What only the chapter on Li et al. 2018 shows."""

from __future__ import annotations

import numpy as np

from npcrepro.book.figures.printed import GREEN, Picture, axes
from npcrepro.findings.audit.checks import Reported, half
from npcrepro.papers.li2018 import audit


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

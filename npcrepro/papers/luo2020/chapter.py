"""What only the chapter on Luo et al. 2020 shows."""

from __future__ import annotations

import numpy as np

from npcrepro.base.wording import in_words
from npcrepro.book.figures.printed import FORBIDDEN, GREEN, VERMILION, Picture, axes
from npcrepro.findings.audit.checks import Reported, jsc_of


def jsc_above_dsc(reported: Reported) -> Picture:
    """Luo: JSC against DSC with the region that no set of masks reaches."""
    table = reported["tables"]["table1"]
    dsc, jsc = (np.array([row[name] for row in table]) for name in ("dsc", "jsc"))
    figure, axis = axes(4.6)
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


def window_share(side: int, reach: int = 3) -> float:
    """Share of a map of ``side`` x ``side`` pixels that a window covers, mean over the pixels that it is centred on.

    Args:
        reach: pixels on each side of the middle; what lies beyond the border of the map does not count.

    Example:
        >>> window_share(2), window_share(1)
        (1.0, 1.0)
    """
    places = np.arange(side)
    covered = np.minimum(places + reach, side - 1) - np.maximum(places - reach, 0) + 1
    return float((covered.mean() / side) ** 2)

"""What only the chapter on Xue et al. 2020 shows."""

from __future__ import annotations

from npcrepro.book.figures.printed import BLUE, FORBIDDEN, VERMILION, Picture, axes
from npcrepro.findings.audit.checks import Reported
from npcrepro.papers.xue2020 import audit


def smallest_p(reported: Reported) -> Picture:
    """Xue: printed p of each metric beside the smallest p that its spreads allow in 15 pairs."""
    figure, axis = axes(2.9)
    told, floor = [], 1e-6
    for y, (metric, title) in enumerate(audit.TITLES.items()):
        printed, bound = audit.p_value(reported, metric)
        exact, favoured = (max(audit.smallest_p(reported, metric, way), floor) for way in (False, True))
        axis.fill_betweenx([y - 0.3, y + 0.3], floor, favoured, **FORBIDDEN)
        axis.plot([favoured, exact], [y, y], color=BLUE, linewidth=4, alpha=0.6)
        axis.plot(exact, y, "|", color=BLUE, markersize=18, markeredgewidth=2.5)
        axis.plot(printed, y, "<" if bound else "o", color=VERMILION, markersize=8)
        word = "less than " if bound else ""
        least = f"below {floor:g}" if exact <= floor else f"{exact:.2g}"
        told.append(f"{title} printed {word}{printed:g}, smallest possible {least}")
    axis.set_yticks(range(len(told)), audit.TITLES.values())
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

"""Pictures of printed numbers. Each comes with a text for those who do not see it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

from npcrepro.book.figures.style import METHODS, WIDTH_IN
from npcrepro.book.parts import data_uri

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
        data = data_uri(self.figure.savefig, "png", dpi=RESOLUTION, facecolor="white")
        return f'<img alt="{escape(self.alt, quote=True)}" src="{data}">'


def axes(height_in: float, columns: int = 1, **options):
    """A figure as wide as the page that pyplot does not know, and its axes."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots(1, columns, **options)

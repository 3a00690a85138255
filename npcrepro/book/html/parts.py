"""Small parts of HTML that several widgets of a page need."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from html import escape
from io import BytesIO

import numpy as np

from npcrepro.base.wording import DASH


def unique_name(kind: str, *content: str) -> str:
    """An identifier for a widget: the same content has the same one in every build, other content has another.

    Example:
        >>> unique_name("slider", "shift") == unique_name("slider", "shift") != unique_name("slider", "turn")
        True
    """
    return f"{kind}-{sha256(''.join(content).encode()).hexdigest()[:8]}"


def data_uri(save: Callable, kind: str, **options) -> str:
    """A picture as an address that holds it.

    Args:
        save: ``save`` of a Pillow image or ``savefig`` of a figure.
        kind: ``"png"`` or ``"webp"``.
        options: of ``save``.
    """
    stream = BytesIO()
    save(stream, format=kind, **options)
    return f"data:image/{kind};base64,{b64encode(stream.getvalue()).decode('ascii')}"


def number_text(value: float, digits: int) -> str:
    """A number with so many digits behind the point, a dash where there is none."""
    return DASH if np.isnan(value) else f"{value:.{digits}f}"


def swatch(colour: str) -> str:
    """A small square of a colour, which screen readers skip."""
    # With a border, as white is among the colours.
    box = "display: inline-block; width: 0.7em; height: 0.7em; border: 1px solid #888"
    return f'<span aria-hidden="true" style="{box}; background: {colour}"></span>'


def panel(title: str, label: str, shape: Sequence[int], spacing_mm: Sequence[float] | np.ndarray, drawing: str) -> str:
    """An SVG figure of a slice with pixels as high and wide as they are in the patient.

    Args:
        title: HTML below the slice.
        label: what the slice shows, for screen readers.
        shape: rows and columns of the slice.
        spacing_mm: ``(y, x)``.
        drawing: SVG in pixels.
    """
    height, width = np.array(shape) * spacing_mm
    return (
        f'<figure><svg role="img" aria-label="{escape(label, quote=True)}" viewBox="0 0 {width:g} {height:g}">'
        f'<g transform="scale({spacing_mm[1]:g} {spacing_mm[0]:g})">{drawing}</g></svg>'
        f"<figcaption>{title}</figcaption></figure>"
    )


def outline(mask: np.ndarray) -> str:
    """SVG path around a mask ``(y, x)``, in half pixels, from corner to corner; empty for an empty mask.

    Example:
        >>> outline(np.array([[0, 1, 0]]))
        'M2 1l+1-1+1+1-1+1z'
    """
    from contourpy import contour_generator

    # Framed, or it would stay open at the edges of the image; half a pixel from corners to middles of pixels.
    lines = contour_generator(z=np.pad(mask.astype(np.float32), 1)).lines(0.5)
    return "".join(_path(np.rint(2 * np.asarray(line) - 1).astype(int)) for line in lines)


def _path(points: np.ndarray) -> str:
    """A closed line ``(n, 2)`` as steps, those of one direction as one; whole numbers with signs need no blanks."""
    steps = np.diff(points, axis=0)
    turns = np.flatnonzero((np.sign(steps[1:]) != np.sign(steps[:-1])).any(axis=1)) + 1
    steps = np.add.reduceat(steps, [0, *turns])[:-1]
    return f"M{points[0, 0]} {points[0, 1]}l" + "".join(f"{x:+d}{y:+d}" for x, y in steps) + "z"

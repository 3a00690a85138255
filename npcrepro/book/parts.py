"""Small parts of HTML that several widgets of a page need, and the templates of these widgets."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from npcrepro.base.wording import DASH


def fill(template: str, **content: object) -> str:
    """The HTML of a template in ``templates/``; what is no `Markup` is text.

    Args:
        template: its name, ``"slider"``.
        content: what it shows. ``name`` is the identifier of the widget: the same content has the same one in every
            build, other content has another.
    """
    name = unique_name(template, repr(content))
    return _templates().get_template(f"{template}.html").render(name=name, **content)


def unique_name(kind: str, content: str) -> str:
    """An identifier for a widget, made of its content."""
    return f"{kind}-{sha256(content.encode()).hexdigest()[:8]}"


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined,
    )  # fmt: skip
    found.globals["swatch"] = lambda colour: Markup(swatch(colour))
    found.filters["together"] = together
    return found


def frame(
    rows: Sequence[Sequence[str]], head: Sequence[str] = (), caption: str = "", classes: str = "dataframe npc-frame"
) -> Markup:
    """A table with a head for each row, and for each column if ``head`` has some.

    Args:
        rows: the title of each row and its cells; what is no `Markup` is text.
    """
    return Markup(fill("frame", rows=rows, head=head, caption=caption, classes=classes))


def together(text: str, most: int = 12) -> str:
    """A short text with blanks that do not break, such as "0 of 110"; a longer one as it is.

    Example:
        >>> together("Luo 2020"), together("a longer text")
        ('Luo\\xa02020', 'a longer text')
    """
    return text.replace(" ", "\N{NO-BREAK SPACE}") if len(text) <= most else text


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


def colour_key(entries: Mapping[str, str]) -> str:
    """What colours mean: a square and a word for each, on one line where there is room.

    Args:
        entries: word to colour.
    """
    return ", ".join(
        f'<span style="white-space: nowrap">{swatch(colour)} {escape(word)}</span>' for word, colour in entries.items()
    )


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

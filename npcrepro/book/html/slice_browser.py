"""Slices of a patient on a page, to move through without a kernel: one slider, an image and outlines for each state."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from io import BytesIO

import numpy as np

from npcrepro.book.html.slider import slider
from npcrepro.metrics.overlap import count

LARGEST = 256  # pixels of the longer side of a slice on the page
QUALITY = 80  # of WebP
STYLE = """
.npc-panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.5rem; }
.npc-panels figure { margin: 0; max-width: 20rem; }
.npc-panels svg { display: block; width: 100%; background: #000; }
.npc-slider .npc-panels figure figcaption { color: inherit; font-size: 0.8rem; line-height: 1.2; text-align: left; }
"""
# A name stays beside its colour.
LEGEND = '<span style="white-space: nowrap"><span style="color: {}" aria-hidden="true">&#9632;</span> {}</span>'


def browser(
    image: np.ndarray,
    panels: Mapping[str, Mapping[str, np.ndarray]],
    colours: Mapping[str, str],
    spacing_mm: Sequence[float],
    limits: tuple[float, float] | None = None,
) -> str:
    """HTML with the slices in which a mask shows something, and one more at either end; all where no mask does.

    It starts at the slice with most in the first panel, or in the middle.

    Args:
        image: ``(z, y, x)``.
        panels: title of each panel, side by side, to {name of the structure: mask ``(z, y, x)``}. Two masks are
            outlined and have their DSC below; more are painted over the image, later ones over earlier ones.
        colours: name of each structure to its colour, ``"#E69F00"``.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known, for pixels drawn as squares.
        limits: intensities shown as black and white; by default the tails of the volume.

    Raises:
        ValueError: a mask lies on another grid than the image.
    """
    masks = [mask for outlines in panels.values() for mask in outlines.values()]
    if any(mask.shape != image.shape for mask in masks):
        raise ValueError(f"masks of {sorted({mask.shape for mask in masks})} do not lie on an image of {image.shape}")
    seen = np.flatnonzero(np.any([mask.any(axis=(1, 2)) for mask in masks], axis=0))
    if not len(seen):
        seen = np.arange(len(image))
    low, high = limits or np.percentile(image, (0.5, 99.5))
    grey = np.clip((image.astype(np.float32) - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    pixel = np.nan_to_num(spacing_mm[1:], nan=1.0)
    states = {}
    for z in range(max(0, seen[0] - 1), min(len(image), seen[-1] + 2)):
        cut = {title: {name: mask[z] for name, mask in outlines.items()} for title, outlines in panels.items()}
        states[f"Slice {z + 1} of {len(image)}"] = _panels(grey[z], cut, colours, pixel)
    first = next(iter(panels.values())).values()
    areas = np.sum([mask.sum(axis=(1, 2)) for mask in first], axis=0)[seen]
    widest = seen[areas.argmax() if areas.any() else len(seen) // 2]
    legend = ", ".join(LEGEND.format(colour, escape(name)) for name, colour in colours.items())
    moved = slider(states, "Slice, from below to above", f"Slice {widest + 1} of {len(image)}")
    return f"<style>{STYLE}</style>{moved}<p>{legend}</p>"


def show(*arguments, **options) -> None:
    """Display `browser` in a notebook."""
    from IPython.display import HTML, display

    display(HTML(browser(*arguments, **options)))


def outline(mask: np.ndarray) -> str:
    """SVG path around a mask ``(y, x)``, in half pixels, from corner to corner; empty for an empty mask.

    Example:
        >>> outline(np.array([[0, 1, 0]]))
        'M2 1l+1-1+1+1-1+1z'
    """
    from contourpy import contour_generator

    if not mask.any():
        return ""
    # Framed, or it would stay open at the edges of the image; half a pixel from corners to middles of pixels.
    lines = contour_generator(z=np.pad(mask.astype(np.float32), 1)).lines(0.5)
    return "".join(_path(np.rint(2 * line - 1).astype(int)) for line in lines)


def _path(points: np.ndarray) -> str:
    """A closed line ``(n, 2)`` as steps, those of one direction as one; whole numbers with signs need no blanks."""
    steps = np.diff(points, axis=0)
    turns = np.flatnonzero((np.sign(steps[1:]) != np.sign(steps[:-1])).any(axis=1)) + 1
    steps = np.add.reduceat(steps, [0, *turns])[:-1]
    return f"M{points[0, 0]} {points[0, 1]}l" + "".join(f"{x:+d}{y:+d}" for x, y in steps) + "z"


def _panels(
    grey: np.ndarray,
    panels: Mapping[str, Mapping[str, np.ndarray]],
    colours: Mapping[str, str],
    spacing_mm: Sequence[float],
) -> str:
    """Figures side by side for one slice; the image is in the page once, and the other panels refer to it."""
    rows, columns = grey.shape
    height, width = rows * spacing_mm[0], columns * spacing_mm[1]
    data = _webp(grey)
    name = "slice-" + sha256("".join([data, *panels]).encode()).hexdigest()[:10]
    shown = f'<image id="{name}" width="{columns}" height="{rows}" preserveAspectRatio="none" href="{data}"/>'
    figures = []
    for title, outlines in panels.items():
        seen = {structure: mask for structure, mask in outlines.items() if mask.any()}
        drawn = (_outlines if len(outlines) <= 2 else _areas)(seen, colours) if seen else ""
        label = escape(f"{title}: {', '.join(seen) or 'nothing'}", quote=True)
        figures.append(
            f'<figure><svg role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}">'
            f'<g transform="scale({spacing_mm[1]:g} {spacing_mm[0]:g})">{shown}{drawn}</g></svg>'
            f"<figcaption>{escape(title)}{_scores(outlines)}</figcaption></figure>"
        )
        shown = f'<use href="#{name}"/>'
    return f'<div class="npc-panels">{"".join(figures)}</div>'


def _outlines(masks: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> str:
    paths = "".join(
        f'<path d="{outline(mask)}" stroke="{colours[structure]}" vector-effect="non-scaling-stroke"/>'
        for structure, mask in masks.items()
    )
    return f'<g fill="none" stroke-width="1.5" transform="scale(.5)">{paths}</g>'


def _areas(masks: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> str:
    from PIL import Image

    label = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for number, mask in enumerate(masks.values(), 1):
        label[mask] = number
    picture = Image.fromarray(label).convert("P")
    picture.putpalette(b"\0\0\0" + b"".join(bytes.fromhex(colours[name].lstrip("#")) for name in masks))
    size = f'width="{label.shape[1]}" height="{label.shape[0]}"'
    return (
        f'<image {size} preserveAspectRatio="none" opacity="0.6" style="image-rendering: pixelated" '
        f'href="{_address(picture, "PNG", transparency=0, optimize=True)}"/>'
    )


def _scores(outlines: Mapping[str, np.ndarray]) -> str:
    """The DSC of two outlines, where there are two and one of them shows something."""
    if len(outlines) != 2 or not any(mask.any() for mask in outlines.values()):
        return ""
    return f"<br>DSC {count(*outlines.values()).dsc:.2f}"


def _webp(grey: np.ndarray) -> str:
    from PIL import Image

    picture = Image.fromarray(grey)
    picture.thumbnail((LARGEST, LARGEST))
    return _address(picture, "WEBP", quality=QUALITY)


def _address(picture, kind: str, **options) -> str:
    """A picture as an address that holds it."""
    file = BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64," + b64encode(file.getvalue()).decode("ascii")

"""Slices of a patient on a page, to move through without a kernel: one slider, an image and outlines for each state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from npcrepro.book.html.parts import data_uri, outline, panel, swatch, unique_name
from npcrepro.book.html.slider import slider
from npcrepro.metrics.overlap import count

LARGEST = 256  # pixels of the longer side of a slice on the page
QUALITY = 80  # of WebP


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
    seen = np.flatnonzero(np.any(masks, axis=(0, 2, 3)))
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
    # A name stays beside its colour.
    key = [f'<span style="white-space: nowrap">{swatch(of)} {escape(name)}</span>' for name, of in colours.items()]
    return (
        slider(states, "Slice, from below to above", f"Slice {widest + 1} of {len(image)}") + f"<p>{', '.join(key)}</p>"
    )


def show(*arguments, **options) -> None:
    """Display `browser` in a notebook."""
    from IPython.display import HTML, display

    display(HTML(browser(*arguments, **options)))


def _panels(
    grey: np.ndarray,
    panels: Mapping[str, Mapping[str, np.ndarray]],
    colours: Mapping[str, str],
    spacing_mm: np.ndarray,
) -> str:
    """Figures side by side for one slice; the image is in the page once, and the other panels refer to it."""
    picture = Image.fromarray(grey)
    picture.thumbnail((LARGEST, LARGEST))
    data = data_uri(picture.save, "webp", quality=QUALITY)
    name = unique_name("slice", data, *panels)
    size = f'width="{grey.shape[1]}" height="{grey.shape[0]}" preserveAspectRatio="none"'
    shown = f'<image id="{name}" {size} href="{data}"/>'
    figures = []
    for title, outlines in panels.items():
        seen = {structure: mask for structure, mask in outlines.items() if mask.any()}
        drawn = (_outlines(seen, colours) if len(outlines) <= 2 else _areas(seen, colours, size)) if seen else ""
        two = seen and len(outlines) == 2
        score = f"<br>DSC {count(*outlines.values()).dsc:.2f}" if two else ""
        label = f"{title}: {', '.join(seen) or 'nothing'}"
        figures.append(panel(f"{escape(title)}{score}", label, grey.shape, spacing_mm, shown + drawn))
        shown = f'<use href="#{name}"/>'
    return f'<div class="npc-panels">{"".join(figures)}</div>'


def _outlines(masks: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> str:
    paths = "".join(
        f'<path d="{outline(mask)}" stroke="{colours[structure]}" vector-effect="non-scaling-stroke"/>'
        for structure, mask in masks.items()
    )
    return f'<g fill="none" stroke-width="1.5" transform="scale(.5)">{paths}</g>'


def _areas(masks: Mapping[str, np.ndarray], colours: Mapping[str, str], size: str) -> str:
    """An image over the slice with a colour for each mask."""
    label = np.max([number * mask for number, mask in enumerate(masks.values(), 1)], axis=0).astype(np.uint8)
    picture = Image.fromarray(label).convert("P")
    picture.putpalette(b"\0\0\0" + b"".join(bytes.fromhex(colours[name].lstrip("#")) for name in masks))
    data = data_uri(picture.save, "png", transparency=0, optimize=True)
    return f'<image {size} opacity="0.6" style="image-rendering: pixelated" href="{data}"/>'

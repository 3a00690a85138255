"""Boxes and arrows from top to bottom as SVG: the drawing of an idea, and that of a network.

The drawing is narrow, so that it can be read on a phone. Its text and lines take the colour of the page around them, so
that it can be read on a light and on a dark page.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from npcrepro.base.colours import GREY, METHODS
from npcrepro.base.errors import pick
from npcrepro.book.parts import colour_key, unique_name

# Colour of each kind of box, the same for all papers, told apart by colour-blind readers.
KINDS = {
    "data": (GREY, "image and result"),
    "features": (METHODS[0], "features"),
    "idea": (METHODS[3], "the idea of the paper"),
    "enlarge": (METHODS[1], "back to the size of the image"),
    "score": (METHODS[2], "one map for each structure"),
}
# How several maps become one: sign on the arrow, and word.
MERGES = {"concatenate": ("&#8214;", "concatenated"), "add": ("+", "added"), "multiply": ("×", "multiplied")}
WIDTH = 380.0  # units of the drawing, which are about pixels on a phone
LANE = 13.0  # room of an arrow that passes boxes
MARGIN, GAP, LINE = 6.0, 20.0, 14.0
LETTER = 6.1  # width of a letter of the labels


@dataclass(frozen=True)
class Node:
    """A box.

    Attributes:
        label: its name, broken into lines where it is long.
        kind: one of `KINDS`, for its colour.
        size: second line, such as ``"80 × 144 × 144"``.
        scale: side of its maps as a share of the image's, in (0, 1]; a box of smaller maps is narrower.
        times: how many of it stand side by side.
    """

    label: str
    kind: str = "features"
    size: str = ""
    scale: float = 1.0
    times: int = 1


@dataclass(frozen=True)
class Arrow:
    """From one box to a later one, by their numbers; ``merge`` is one of `MERGES`, or empty."""

    source: int
    target: int
    merge: str = ""


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float
    lines: list[str]
    words: int  # how many of the lines are the label

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


class Diagram:
    """A drawing that a notebook shows.

    Args:
        nodes: in an order in which every arrow leads to a later one.
        arrows: without any, each node leads to the next.
        title: what the drawing shows, in a sentence; its alternative text begins with it.
        note: what the second lines are, for the words below the drawing.

    Raises:
        ValueError: an arrow that leads back.
        InputError: an unknown kind of box or of merge.

    Example:
        >>> drawing = Diagram([Node("image", "data"), Node("network", "idea")], title="An image goes in.")
        >>> drawing.alt
        'An image goes in. image; network, from image.'
    """

    def __init__(self, nodes: Sequence[Node], arrows: Sequence[Arrow] = (), title: str = "", note: str = ""):
        self.nodes, self.title, self.note = list(nodes), title, note
        self.arrows = list(arrows) or [Arrow(number, number + 1) for number in range(len(nodes) - 1)]
        for arrow in self.arrows:
            if arrow.source >= arrow.target:
                raise ValueError(f"an arrow from {nodes[arrow.source].label} leads back to {nodes[arrow.target].label}")
            if arrow.merge:
                pick(MERGES, arrow.merge, "way to merge maps")
        for node in self.nodes:
            pick(KINDS, node.kind, "kind of box")

    @property
    def alt(self) -> str:
        """The drawing in words: each box with its size and the boxes that lead to it."""
        told = []
        for number, node in enumerate(self.nodes):
            before = [self.nodes[arrow.source].label for arrow in self.arrows if arrow.target == number]
            words = [f"{node.times} times {node.label}" if node.times > 1 else node.label, node.size]
            words += [f"from {' and '.join(before)}"] if before else []
            told.append(", ".join(filter(None, words)))
        return f"{self.title} {'; '.join(told)}.".strip()

    def svg(self) -> str:
        """The drawing as SVG."""
        rows = self._rows()
        row_of = {number: place for place, row in enumerate(rows) for number in row}
        lanes = self._lanes(row_of)
        room = WIDTH - 2 * MARGIN - (LANE * (1 + max(lanes.values())) + 14 if lanes else 0)
        boxes, height = self._place(rows, room)
        name = unique_name("drawing", self.alt)
        signs: dict[str, None] = {}  # one where several arrows end
        drawn = [
            f'<defs><marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>'
        ]
        for arrow in self.arrows:
            path, end = self._path(arrow, boxes, lanes, room)
            drawn.append(
                f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity=".75" stroke-width="1.3" '
                f'marker-end="url(#{name})"/>'
            )
            if arrow in lanes and arrow.merge:
                signs[_sign(end, MERGES[arrow.merge][0])] = None
        drawn += [*signs, *(_drawn(node, boxes[number]) for number, node in enumerate(self.nodes))]
        return (
            f'<svg role="img" aria-label="{escape(self.alt, quote=True)}" viewBox="0 0 {WIDTH:g} {height:g}" '
            'style="display: block; width: 100%; max-width: 33rem; height: auto; margin: auto" '
            f'font-family="sans-serif">{"".join(drawn)}</svg>'
        )

    def _repr_html_(self) -> str:
        return f'<figure class="npc-drawing" style="margin: 0">{self.svg()}{self._key()}</figure>'

    def _key(self) -> str:
        """What colours and signs mean."""
        kinds = {node.kind for node in self.nodes}
        words = [colour_key({word: colour for kind, (colour, word) in KINDS.items() if kind in kinds})]
        signs = dict.fromkeys(MERGES[arrow.merge] for arrow in self.arrows if arrow.merge)
        words += [f'<span style="white-space: nowrap">{sign} {word}</span>' for sign, word in signs]
        words += [escape(self.note)] if self.note else []
        return f'<figcaption style="text-align: center">{", ".join(words)}</figcaption>'

    def _rows(self) -> list[list[int]]:
        """Boxes that stand side by side: each below the lowest that leads to it."""
        depth = [0] * len(self.nodes)
        for arrow in sorted(self.arrows, key=lambda each: each.target):
            depth[arrow.target] = max(depth[arrow.target], depth[arrow.source] + 1)
        return [[n for n, place in enumerate(depth) if place == row] for row in range(max(depth) + 1)]

    def _lanes(self, row_of: Mapping[int, int]) -> dict[Arrow, int]:
        """A lane on the right for each arrow that passes a row; short arrows are near the boxes."""
        passing = [arrow for arrow in self.arrows if row_of[arrow.target] - row_of[arrow.source] > 1]
        lanes: dict[Arrow, int] = {}
        for arrow in sorted(passing, key=lambda each: row_of[each.target] - row_of[each.source]):
            top, bottom = row_of[arrow.source], row_of[arrow.target]
            taken = {
                lane for other, lane in lanes.items() if row_of[other.source] <= bottom and row_of[other.target] >= top
            }
            lanes[arrow] = next(lane for lane in range(len(passing)) if lane not in taken)
        return lanes

    def _place(self, rows: Sequence[Sequence[int]], room: float) -> tuple[list[_Box], float]:
        boxes: dict[int, _Box] = {}
        y = MARGIN
        for row in rows:
            share = (room - 10 * (len(row) - 1)) / len(row)
            made = []
            for place, number in enumerate(row):
                node = self.nodes[number]
                label = f"{node.times} × {node.label}" if node.times > 1 else node.label
                width = max(share * (0.45 + 0.55 * node.scale**0.5), min(share, LETTER * max(len(label), 18) + 16))
                lines = textwrap.wrap(label, max(6, int((width - 10) / LETTER)))
                x = MARGIN + place * (share + 10) + (share - width) / 2
                label_lines = len(lines)
                lines += textwrap.wrap(node.size, max(6, int((width - 8) / LETTER)))
                made.append((number, _Box(x, y, width, LINE * len(lines) + 10, lines, label_lines)))
            boxes |= made
            y += max(box.height for _, box in made) + GAP
        return [boxes[number] for number in range(len(self.nodes))], y - GAP + MARGIN

    def _path(
        self, arrow: Arrow, boxes: Sequence[_Box], lanes: Mapping[Arrow, int], room: float
    ) -> tuple[str, tuple[float, float]]:
        """The line of an arrow, and where it ends."""
        source, target = boxes[arrow.source], boxes[arrow.target]
        if arrow in lanes:
            x = MARGIN + room + 20 + LANE * lanes[arrow]
            # Above and below the middle, so that what leaves a box does not run over what comes in.
            start, end = source.y + 0.7 * source.height, target.y + 0.3 * target.height
            right = target.x + target.width
            corners = f"H{x - 5:.1f}q5 0 5 5V{end - 5:.1f}q0 5 -5 5H{right + 1:.1f}"
            return f"M{source.x + source.width:.1f} {start:.1f}{corners}", (right, end)
        begin, top = source.y + source.height, target.y - 1
        if abs(source.middle - target.middle) < 1:
            return f"M{source.middle:.1f} {begin:.1f}V{top:.1f}", (target.middle, top)
        half = (begin + top) / 2
        path = f"M{source.middle:.1f} {begin:.1f}C{source.middle:.1f} {half:.1f} {target.middle:.1f} {half:.1f}"
        return f"{path} {target.middle:.1f} {top:.1f}", (target.middle, top)


def drawing(told: Mapping[str, Any]) -> Diagram:
    """A drawing of a ``paper.yaml``: ``title``, ``boxes`` (see `Node`), ``arrows`` where not each leads to the next.

    Example:
        >>> drawing({"title": "An image goes in.", "boxes": [["image", "data"], ["network"]]}).alt
        'An image goes in. image; network, from image.'
    """
    arrows = [Arrow(*arrow) for arrow in told.get("arrows", ())]
    return Diagram([Node(*box) for box in told["boxes"]], arrows, told["title"])


def _sign(end: tuple[float, float], sign: str) -> str:
    """The sign of a merge, a little before the end of its arrow."""
    x, y = end[0] + 14, end[1]
    return (
        f'<text x="{x:.1f}" y="{y - 5:.1f}" font-size="11" font-weight="bold" text-anchor="middle" '
        f'fill="currentColor">{sign}</text>'
    )


def _drawn(node: Node, box: _Box) -> str:
    colour = KINDS[node.kind][0]
    frame = (
        f'<rect x="{{x:.1f}}" y="{{y:.1f}}" width="{box.width:.1f}" height="{box.height:.1f}" rx="4" '
        f'fill="{colour}" fill-opacity=".22" stroke="{colour}" stroke-width="1.5"/>'
    )
    behind = [frame.format(x=box.x + 3 * each, y=box.y + 3 * each) for each in range(min(node.times - 1, 2), 0, -1)]
    text = "".join(
        f'<text x="{box.middle:.1f}" y="{box.y + 4 + LINE * (number + 0.85):.1f}" font-size="11.5" '
        f"{'' if number < box.words else 'fill-opacity=' + chr(34) + '.8' + chr(34)} "
        f'text-anchor="middle" fill="currentColor">{escape(line)}</text>'
        for number, line in enumerate(box.lines)
    )
    return "".join(behind) + frame.format(x=box.x, y=box.y) + text

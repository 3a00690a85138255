"""Boxes and arrows."""

import re
from xml.etree import ElementTree

import pytest

from npcrepro.base.errors import InputError
from npcrepro.book.lesson.diagram import LETTER, WIDTH, Arrow, Diagram, Node

SKIP = Diagram(
    [Node("in", "data"), Node("down", times=3), Node("bottom", size="4 × 2 × 2", scale=0.1), Node("up", "enlarge")],
    [Arrow(0, 1), Arrow(1, 2), Arrow(2, 3), Arrow(1, 3, "concatenate")],
    "A small U.",
)


def test_it_is_told_in_words():
    told = "A small U. in; 3 times down, from in; bottom, 4 × 2 × 2, from down; up, from bottom and down."
    assert SKIP.alt == told
    assert ElementTree.fromstring(SKIP.svg()).get("aria-label") == told


def test_an_arrow_that_passes_a_box_goes_beside_it_with_its_sign():
    assert "‖ concatenated" in SKIP._repr_html_().replace("&#8214;", "‖")
    drawing = ElementTree.fromstring(SKIP.svg())
    boxes = list(drawing.iter("rect"))
    right = max(float(box.get("x")) + float(box.get("width")) for box in boxes)
    (passing,) = [each.get("d") for each in drawing.iter("path") if "q" in each.get("d")]
    assert right < float(re.search(r"H([\d.]+)q", passing)[1]) < WIDTH


def test_labels_stay_inside_their_boxes_where_many_stand_side_by_side():
    branches = [Node(f"branch with rate {n}", size="256 × 32 × 32") for n in range(5)]
    arrows = [Arrow(0, n) for n in range(1, 6)] + [Arrow(n, 6) for n in range(1, 6)]
    drawing = ElementTree.fromstring(Diagram([Node("in"), *branches, Node("out")], arrows).svg())
    narrow = min(float(box.get("width")) for box in drawing.iter("rect"))
    assert max(len(text.text) for text in drawing.iter("text")) * LETTER <= narrow + LETTER


@pytest.mark.parametrize(
    ("nodes", "arrows", "error"),
    [
        ([Node("a"), Node("b")], [Arrow(1, 0)], ValueError),
        ([Node("a", "feature"), Node("b")], [], InputError),
        ([Node("a"), Node("b")], [Arrow(0, 1, "concat")], InputError),
    ],
)
def test_what_cannot_be_drawn_is_refused(nodes, arrows, error):
    with pytest.raises(error):
        Diagram(nodes, arrows)

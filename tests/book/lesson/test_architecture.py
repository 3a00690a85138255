"""Networks as drawings."""

import pytest

from npcrepro.base.errors import InputError
from npcrepro.book.lesson.architecture import Block, architecture, blocks_of
from npcrepro.protocol import registry

PAPER = registry.load("li2018")
FULL = PAPER.profile("paper")
BLOCKS = blocks_of("li2018", "stepwise")


def test_sizes_and_skips_are_those_of_table_1():
    drawing = architecture(PAPER.methods[0], FULL, BLOCKS)
    sides = [int(node.size.split(" × ")[1]) for node in drawing.nodes]
    assert sides == [144, 144, 72, 36, 36, 36, 36, 72, 72, 144, 144, 144]
    assert [int(node.size.split(" × ")[0]) for node in drawing.nodes] == [1, 80, 120, 500, 300, 100, 1, 1, 1, 1, 1, 1]
    labels = [node.label.split(",")[0] for node in drawing.nodes]
    skips = {(labels[a.source], labels[a.target]): a.merge for a in drawing.arrows if a.target - a.source > 1}
    assert skips == {("conv2", "conv7"): "concatenate", ("conv1", "conv8"): "concatenate"}


def test_a_network_without_fusion_has_no_skips():
    drawing = architecture(PAPER.method("linear-unfused"), FULL, BLOCKS)
    assert all(arrow.target - arrow.source == 1 for arrow in drawing.arrows)


def test_modules_of_one_pattern_share_a_box():
    paper = registry.load("chen2020")
    blocks = [Block("encoders.*.levels.0", "level 1"), Block("fusions.0", "fusion"), Block("decoder.score", "score")]
    drawing = architecture(paper.methods[0], paper.profile("paper"), blocks)
    assert drawing.nodes[1].times == 3
    assert "fusion, 8 × 16 × 256 × 256, from level 1" in drawing.alt


def test_a_module_that_is_not_there_or_not_used_is_named():
    with pytest.raises(InputError, match="no module 'conv9'"):
        architecture(PAPER.methods[0], FULL, [Block("conv9", "more")])
    with pytest.raises(InputError, match="does not use concat1"):
        architecture(PAPER.method("linear-unfused"), FULL, [Block("concat1", "merge")])

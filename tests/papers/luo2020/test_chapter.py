import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from npcrepro.book.lesson.architecture import architecture, blocks_of
from npcrepro.papers.luo2020 import chapter
from npcrepro.papers.luo2020.network import TwoStageUNet
from npcrepro.protocol import registry

LUO = registry.load("luo2020")


def test_a_record_from_before_mask_rcnn_was_mended_says_so():
    record = SimpleNamespace(outdated=lambda paper: dict.fromkeys(["unet", "mask-rcnn-enlarged"], "changed"))
    assert "its smallest anchor had eight pixels" in chapter.older_mask_rcnn(record)
    assert chapter.older_mask_rcnn(SimpleNamespace(outdated=lambda paper: {})) == ""


def test_slices_in_which_mask_rcnn_has_no_instance_to_learn_from():
    label = np.zeros((4, 2, 80, 80), np.uint8)
    label[0, 0, 40:43, 40:43] = label[1, 0, 40:42, 40:44] = label[2, 0, 40, 40] = 1
    label[0, 1, 10:30, 10:30] = 1
    data = SimpleNamespace(structures=("SpinalCord", "Mandible"), matrix=(80, 80), arrays=lambda case: (None, label))
    table = chapter.share_without_instance(data, ["A"]).set_index("structure")
    assert table.slices.tolist() == [3, 1]
    assert table["nine pixels"].tolist() == pytest.approx([2 / 3, 0])
    assert table["nine pixels of 512 x 512"].tolist() == [0, 0]


def test_the_maps_of_both_stages():
    torch.manual_seed(0)
    network = TwoStageUNet(1, 3, width=0.1).eval()
    image, label = torch.rand(1, 1, 32, 32), torch.zeros(1, 2, 32, 32, dtype=torch.uint8)
    label[0, 0, 3, 4] = label[0, 1, 5, 6] = 1
    label[0, 1, 0, 0] = 255  # not contoured
    data = SimpleNamespace(batch=lambda samples: (2 * image, label), finish=lambda raw: raw / 2)
    shown, reference, found = chapter.two_maps(SimpleNamespace(network=network, data=data), "A", 3)
    with torch.no_grad():
        coarse, fine = network(image, output="both")
    np.testing.assert_allclose(shown, image[0, 0])
    assert np.argwhere(reference).tolist() == [[3, 4], [5, 6]]
    np.testing.assert_allclose(found["Stage 1: any structure"], coarse.sigmoid()[0, 0])
    np.testing.assert_allclose(found["Stage 2: any structure"], fine.softmax(dim=1)[0, 1:].sum(dim=0), atol=1e-6)


def test_the_second_stage_is_drawn_with_the_image_and_the_map():
    drawing = architecture(LUO.methods[0], LUO.profile("paper"), blocks_of("luo2020", "two-stage"))
    labels = [node.label for node in drawing.nodes]
    into = [arrow for arrow in drawing.arrows if labels[arrow.target] == "stage 2, level 1"]
    assert [(labels[arrow.source], arrow.merge) for arrow in into] == [
        ("image: CT", "concatenate"),
        ("map of stage 1: any structure", "concatenate"),
    ]
    coarsest = next(node for node in drawing.nodes if node.kind == "idea")
    assert coarsest.size == f"512 × {chapter.GRID} × {chapter.GRID}"


def test_the_reward_for_marking_nothing_is_a_cliff_or_a_slope():
    picture = chapter.cliff(80)
    slope, cliff = (line.get_ydata() for line in picture.figure.axes[0].lines[:2])
    assert (slope[-1], cliff[-1]) == pytest.approx((-0.5, -0.5), abs=0.01)
    probability = picture.figure.axes[0].lines[0].get_xdata()
    ends = [np.searchsorted(-probability, -p) for p in (1e-2, 1e-6)]
    assert slope[ends] == pytest.approx([0.49, -0.49], abs=0.01)
    assert cliff[ends] == pytest.approx([0.5, 0.5], abs=0.01)
    # Half of the way down, the probabilities of 6,400 pixels add up to epsilon.
    assert "epsilon 1 it crosses 0 at a probability of 2e-04; with epsilon 1e-05 it crosses 0 at" in picture.alt


def test_windows_average_what_surrounds_a_pixel():
    data = SimpleNamespace(inputs=lambda samples: torch.rand(1, 1, 64, 64), finish=lambda image: image)
    page = chapter.pooled(data, "A", 0).data
    assert re.findall(r"Window of (\d) × \1</figcaption>", page) == ["1", "3", "5", "7"]


def test_each_patient_of_the_slices_is_a_dot():
    picture, told = chapter.leakage_of_slices(LUO)
    (dots,) = picture.figure.axes[0].collections[:1]
    assert f", {len(dots.get_offsets())} patients)" in told

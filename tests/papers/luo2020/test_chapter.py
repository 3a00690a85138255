import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from npcrepro.base.code_hash import PACKAGE
from npcrepro.papers.luo2020 import chapter
from npcrepro.papers.luo2020.network import TwoStageUNet
from npcrepro.protocol import registry
from npcrepro.runs import published

LUO = registry.load("luo2020")


def test_a_record_from_before_the_baselines_were_mended_says_so():
    record = SimpleNamespace(outdated=lambda paper: dict.fromkeys(["unet", "mask-rcnn", "fcn8"], "changed"))
    assert list(chapter.older_baselines(record)) == ["fcn8", "mask-rcnn"]
    assert chapter.older_baselines(SimpleNamespace(outdated=lambda paper: {})) == {}


def test_slices_in_which_mask_rcnn_has_no_instance_to_learn_from():
    label = np.zeros((4, 2, 80, 80), np.uint8)
    label[0, 0, 40:43, 40:43] = label[1, 0, 40:42, 40:44] = label[2, 0, 40, 40] = 1
    label[0, 1, 10:30, 10:30] = 1
    data = SimpleNamespace(structures=("SpinalCord", "Mandible"), matrix=(80, 80), arrays=lambda case: (None, label))
    table = chapter.share_without_instance(data, ["A"]).set_index("structure")
    assert table.slices.tolist() == [3, 1]
    assert table["nine pixels"].tolist() == pytest.approx([2 / 3, 0])
    assert table["nine pixels of 512 x 512"].tolist() == [0, 0]


def test_the_maps_of_both_stages(monkeypatch):
    torch.manual_seed(0)
    network = TwoStageUNet(1, 3, width=0.1).eval()
    monkeypatch.setattr("npcrepro.runs.run.load_network", lambda record: network)
    image = torch.rand(1, 1, 32, 32)
    data = SimpleNamespace(inputs=lambda samples: 2 * image, finish=lambda raw: raw / 2)
    found = chapter.two_maps(None, data, "A", 3)
    assert list(found) == ["CT", "stage 1: any structure", "stage 2: any structure"]
    with torch.no_grad():
        coarse, fine = network(image, output="both")
    np.testing.assert_allclose(found["CT"], image[0, 0])
    np.testing.assert_allclose(found["stage 1: any structure"], coarse.sigmoid()[0, 0])
    np.testing.assert_allclose(found["stage 2: any structure"], fine.softmax(dim=1)[0, 1:].sum(dim=0), atol=1e-6)


def test_printed_numbers_stand_beside_the_published_record():
    """Not beside the quick run of the page, which has two patients."""
    cells = json.loads((PACKAGE.parent / "notebooks" / "luo2020.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    start = next(i for i, source in enumerate(sources) if "# Beside the printed numbers" in source)
    assert "real.beside(" in sources[start + 1]
    assert any(published.RESULTS.joinpath("luo2020-openkbp").glob("cases-two-stage.csv"))
    assert sum("chapter.results" in source for source in sources[start:]) == 0

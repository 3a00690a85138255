import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from published_cases import cases, publish

from npcrepro.base.wording import DASH
from npcrepro.book.lesson.architecture import architecture, blocks_of
from npcrepro.book.published import PublishedResults
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


@pytest.fixture
def longer(tmp_path):
    """Fold 0 of two methods; the second is tested on another fold, too."""
    first = np.linspace(0.6, 0.7, 8)[:, None]
    dsc = {"two-stage": np.hstack([first + 0.1, first - 0.1]), "nnunet-3d": first}
    one = cases(dsc, structures=("A", "B"), paper="luo2020")
    other = cases({"nnunet-3d": np.full((4, 1), 0.9)}, structures=("A", "B"), paper="luo2020").assign(fold=1)
    other["patient"] = other["case"] = "Q" + other.patient
    rows = pd.concat([one, other]).assign(surfel_hd95_mm=7.0)
    publish(tmp_path / "longer", rows, profile={"name": "long", "updates": 2000})
    return PublishedResults(LUO, tmp_path / "longer")


def test_one_fold_of_a_record_has_its_own_patients_and_caption(longer):
    fold = chapter.of_fold(longer)
    assert (longer.patients.patient.nunique(), fold.patients.patient.nunique()) == (12, 8)
    assert fold.made == "8 patients, cohort made-up, profile long, fold 0"
    assert fold.mean("nnunet-3d").mean == pytest.approx(0.65, abs=0.005)
    assert set(fold.history.fold) == {0}


def test_longer_trainings_and_their_differences_stand_in_tables(longer):
    fold, pairs = chapter.of_fold(longer), [("two-stage", "nnunet-3d")]
    trained = chapter.trained_for_longer(fold, LUO.profile("long")).data.set_index("method")
    assert trained.loc["Proposed", ["seeds", "at most", "images an update"]].tolist() == [2, "2,000", 16]
    assert trained.loc["nnU-Net's recipe, 3-D", ["seeds", "at most", "images an update"]].tolist() == [1, "3,000", 2]
    row = fold.differences(pairs).data.iloc[0]
    assert row[["mean difference", "seeds", "seed by seed"]].tolist() == ["+0.100", 1, DASH]
    row = chapter.one_change({"long": fold}, [("two-stage", "two-stage")]).data.iloc[0]
    assert row["long: seed by seed"] == "+0.000 to +0.000 (2 seeds)"


def test_scores_by_organ_end_with_the_mean_over_organs(longer):
    columns = {"one": (chapter.of_fold(longer), "nnunet-3d"), "all": (longer, "nnunet-3d")}
    table = chapter.by_organ(columns).data.set_index("structure")
    assert table.index.tolist() == ["A", "B", "mean"]
    assert table.loc["mean", "one: DSC"].startswith("0.65")
    assert table.loc["mean", "all: DSC"].startswith("0.73")
    assert table.loc["B", "all: HD95 (mm)"] == "7.0 (7.0 to 7.0)"


def test_a_network_that_marks_nothing_for_a_while_is_told():
    updates = [100, 200, 300, 400, 500]
    seen = {0: [0.2, 0.0, 0.1, 0.3, 0.4], 1: [0.5, 0.0, 0.2]}
    rows = [("fcn8", seed, update, dsc, -update) for seed, each in seen.items() for update, dsc in zip(updates, each)]
    history = pd.DataFrame(rows, columns=["method", "seed", "update", "validation_dsc", "loss"])
    told = chapter.slow_start(SimpleNamespace(history=history, empty=lambda method: (3, 1000)), "fcn8")
    assert "each of its 2 trainings the DSC on validation patients is 0.000 at some check, and 0.20 or more at" in told
    assert "1 of them ended early, after 300 updates. Their weights are of update 100." in told
    assert "In 1 of the other 1 the training loss still falls" in told
    assert told.endswith("Of its 1,000 masks on the patients for testing, 3 have no voxel.")

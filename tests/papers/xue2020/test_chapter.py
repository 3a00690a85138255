import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from published_cases import cases, publish, scores
from scipy import stats

from npcrepro.base.errors import InputError
from npcrepro.book.published import PublishedResults
from npcrepro.papers.xue2020 import chapter
from npcrepro.papers.xue2020.network import DeepLabV3Plus
from npcrepro.protocol import registry
from npcrepro.runs.published import read_published

PAPER, REPORTED = registry.load("xue2020"), registry.reported("xue2020")


def record(folder, patients=10, **about):
    """Two networks on some patients; distances from their numbers."""
    dsc = {name: scores(mean, patients, 2, generator=g) for g, (name, mean) in enumerate(zip(chapter.PAIR, (0.6, 0.5)))}
    rows = cases(dsc)
    distance = {"voxel_hd_mm": 20.0, "surfel_hd_mm": 99.0, "voxel_masd_mm": 3.0}
    number = rows.case.str[1:].astype(int)
    spread = number % 3 + (rows.method == "unet") * (1 + number % 2)
    rows = rows.assign(**{name: value + spread for name, value in distance.items()})
    publish(folder, rows, **about)
    return PublishedResults(PAPER, folder)


def test_voxel_distances_stand_beside_the_printed_numbers(tmp_path):
    tables = chapter.reported_beside(REPORTED, record(tmp_path / "made-up"))
    shown, tested = (table.data.set_index("metric") for table in tables)
    assert shown.loc["HD (mm)", "DeepLabv3+, paper"] == "10.9 ± 8.6"
    assert shown.loc["HD (mm)", "DeepLabv3+, ours"] == "20.9 ± 0.9"
    assert shown.loc["DSC", "U-Net, paper"] == "0.73 ± 0.13"
    assert "Ours: 10 patients, 2 trainings averaged" in tables[0].caption
    assert tables[1].caption == "DeepLabv3+ minus U-Net, the same 10 patients and seeds."
    assert tested.columns.tolist() == ["mean difference", "p (paired t)", "p (sign flip)", "reported p"]
    assert tested.loc["DSC", "reported p"] == "< 0.001"
    assert ">< 0.001</td>" in tables[1].to_html()


def test_a_small_p_of_ours_is_named_with_the_difference_of_each_seed(tmp_path):
    results = record(tmp_path / "made-up")
    told = chapter.small_p(REPORTED, results)
    assert told.startswith("Our p is below 0.05 for the DSC, JI, ASD (mm) and HD (mm).")
    assert told.endswith("The difference of the HD (mm) is -1.5 to -1.5 from seed to seed.")
    results.over_structures.loc[results.over_structures.seed == 0, "voxel_hd_mm"] *= -0.5
    swayed = "is -1.5 to +0.75 from seed to seed. A single training of each network could have shown either sign."
    assert chapter.small_p(REPORTED, results).endswith(swayed)
    rows = results.over_structures
    rows["dsc"] = rows["jsc"] = 0.5
    assert "DSC" not in chapter.small_p(REPORTED, results)
    # A seed that one network has alone does not count.
    results = record(tmp_path / "unequal")
    table = chapter.t_tests(REPORTED, results)
    more = results.over_structures.query("method == 'unet' and seed == 0").assign(seed=9, voxel_hd_mm=99.0)
    results.over_structures = pd.concat([results.over_structures, more])
    pd.testing.assert_frame_equal(chapter.t_tests(REPORTED, results), table)
    few = record(tmp_path / "few", patients=5)
    assert chapter.small_p(REPORTED, few) == "No p of ours is below 0.05."


@pytest.mark.parametrize(("reached", "inside"), [(0.8, False), (0.6, True)])
def test_a_training_at_full_width_stands_beside_each_of_the_narrower_network(tmp_path, monkeypatch, reached, inside):
    dsc = np.array([[0.5, 0.7]] * 8 + [[0.1, 0.1]] * 4)  # the last four patients were tested by this record alone
    publish(tmp_path / "narrow", cases({"deeplabv3plus": dsc, "unet": dsc}))
    wide = cases({"deeplabv3plus": np.full((8, 1), reached)})
    publish(tmp_path / "wide", wide, profile={"name": "long", "updates": 8000})
    monkeypatch.setattr(chapter, "LONG", tmp_path / "wide")
    told = chapter.at_full_width(PublishedResults(PAPER, tmp_path / "narrow"))
    assert f"trained once for up to 8,000 updates, DeepLabv3+ has a mean Dice of {reached:.2f} on 8 patients" in told
    assert "The 2 trainings of the narrower network end between 0.50 and 0.70" in told
    assert ("no effect of the width or of the longer training is seen" in told) == inside


def test_taps_that_meet_the_map_are_counted_with_a_convolution():
    for rate, side in ((1, 5), (3, 5), (6, 5), (12, 32)):
        ones = torch.ones(1, 1, side, side)
        kernel = torch.ones(1, 1, 3, 3)
        kernel[..., 1, 1] = 0
        met = torch.nn.functional.conv2d(ones, kernel, padding=rate, dilation=rate).mean() / 8
        assert chapter.met(rate, side) == pytest.approx(float(met))
    picture = chapter.taps((32, 5))
    picture._repr_html_()  # can be drawn
    assert "5 × 5 pixels 0 % at rate 6" in picture.alt


class Slices:
    """Slices of 64 x 64 pixels."""

    def batch(self, drawn):
        return torch.rand(1, 1, 64, 64, generator=torch.manual_seed(0)), torch.zeros(1, 1, 64, 64)

    def finish(self, image):
        return image


def test_maps_of_the_pyramid_come_from_its_branches():
    network, generator = DeepLabV3Plus(1, 1, width=0.1, rates=(1, 2, 3)).eval(), torch.manual_seed(1)
    for parameters in network.parameters():
        torch.nn.init.uniform_(parameters, -1, 1, generator=generator)
    trained = SimpleNamespace(network=network, data=Slices())
    _, _, strength = chapter.branches(trained, "P0", 0)
    assert {title: one.shape for title, one in strength.items()} == dict.fromkeys(chapter.BRANCHES, (4, 4))
    assert max(one.max() for one in strength.values()) == pytest.approx(1)
    image, _, found = chapter.one_branch(trained, "P0", 0)
    with torch.no_grad():
        whole = network(torch.from_numpy(image)[None, None]).sigmoid()[0, 0].numpy()
    assert np.array_equal(found["All branches"], whole)  # and no hook is left
    assert np.abs(found["1 × 1 alone"] - found["None of them"]).max() > 1e-3
    assert np.abs(found["1 × 1 alone"] - whole).max() > 1e-3


def test_the_t_test_of_the_paper_is_over_patients(tmp_path):
    results = record(tmp_path / "made-up")
    wide = results.averaged.pivot(index="patient", columns="method", values="dsc")
    row = chapter.t_tests(REPORTED, results).set_index("metric").loc["DSC"]
    assert row["patients"] == 10
    assert row["mean difference"] == pytest.approx((wide.deeplabv3plus - wide.unet).mean())
    assert row["p (paired t)"] == pytest.approx(stats.ttest_rel(wide.deeplabv3plus, wide.unet).pvalue)
    assert row["reported p"] == "< 0.001"
    few = chapter.t_tests(REPORTED, record(tmp_path / "few", patients=5))
    assert few[["p (paired t)", "p (sign flip)"]].isna().all(axis=None)
    assert chapter.correlations(results, "dsc") == pytest.approx([wide.corr().iloc[0, 1]] * 2)


def test_slices_make_a_small_p_of_two_patients_and_patients_none():
    random = np.random.default_rng(0)
    slices = pd.DataFrame(
        [(f"P{patient}", f"P{patient} {z}", name, random.normal(0.5 + 0.1 * (name == "unet"), 0.05))
         for patient in range(2) for z in range(20) for name in chapter.PAIR],
        columns=["patient", "slice", "method", "dsc"],
    )  # fmt: skip
    units = chapter.by_unit(slices).set_index("unit")
    assert units.n.tolist() == [40, 2]
    assert units.loc["slices", "p (paired t)"] < 0.001
    assert units.loc["patients", ["p (paired t)", "p (sign flip)"]].isna().all()
    assert units.loc["patients", "mean difference of the DSC"] == pytest.approx(-0.1, abs=0.05)


def test_epochs_are_counted_from_the_record_and_its_cohort(tmp_path):
    record(tmp_path / "made-up", profile={"name": "bench", "updates": 100, "batch_size": 4})
    about = json.loads((tmp_path / "made-up" / "runs.json").read_text())
    about["folds"] = {"0": {"train": ["T1", "T2"], "validation": [], "test": ["P00"]}}
    about["methods"] = {"deeplabv3plus": {"data": {"options": {"background_share": 0.25}}}}
    (tmp_path / "made-up" / "runs.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="no table of made-up, which counts its slices"):
        chapter.epochs(read_published(tmp_path / "made-up"))
    (tmp_path / "cohorts").mkdir()
    (tmp_path / "cohorts" / "900_made-up.csv").write_text("patient,slices\nT1,30\nT2,50\nP00,99\n")
    assert chapter.epochs(read_published(tmp_path / "made-up")) == 5 * 0.75  # a quarter shows no target


def test_the_printed_schedule_is_that_of_profile_paper():
    size, method = PAPER.at("paper").profile("paper"), PAPER.at("paper").method("deeplabv3plus")
    text, (stage,) = REPORTED["text"], method.stages
    assert (list(size.matrix), size.width, size.batch_size) == (REPORTED["paper"]["matrix"], 1, 8)
    assert (stage.optimiser.target, stage.optimiser.options["lr"]) == ("torch.optim:Adam", text["learning_rate"])
    assert (stage.plateau, stage.decay) == (text["patience"], text["decay"])
    slices = 8 * size.updates / text["epochs"]
    # A check after each epoch, of as many slices as the printed times fit (X12).
    assert 8 * size.check_every == pytest.approx(slices, rel=0.01)
    assert 2143 < slices < 2512

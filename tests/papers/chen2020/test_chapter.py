from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from npcrepro.book import tables
from npcrepro.book.figures import charts
from npcrepro.book.lesson.architecture import architecture, blocks_of
from npcrepro.book.lesson.result import of_page
from npcrepro.book.published import PublishedResults
from npcrepro.papers.chen2020 import chapter as chapter_module
from npcrepro.papers.chen2020.chapter import (
    machines,
    silent_mlps,
    time_by_part,
    weights_line,
    without_record,
)
from npcrepro.protocol import registry
from npcrepro.runs.published import RESULTS
from npcrepro.runs.timing import CaseTime

pytest_plugins = ["volume_fixtures"]


def test_the_page_names_methods_whose_weights_an_older_rule_chose_if_it_matters():
    paper = registry.load("chen2020")
    stages = {
        name: {"stages": [{}] * count} for name, count in (("multi-encoder", 2), ("mmfnet", 2), ("unet-3d-t1", 1))
    }
    days = {"multi-encoder": "2026-11-21T21:00", "mmfnet": "2026-11-23T21:00", "unet-3d-t1": "2026-11-21T20:00"}

    def said(*names, first=0.3):
        runs = [{"method": name, "fold": 0, "seed": 0, "finished": days[name]} for name in names]
        rows = [
            {"method": name, "fold": 0, "seed": 0, "stage": stage, "validation_loss": loss}
            for name in names
            for stage, loss in (("rate 0.001", first), ("rate 0.0001", 0.4), ("rate 0.0001", 0.5))
        ]
        record = SimpleNamespace(runs=runs, methods=stages, history=pd.DataFrame(rows))
        return weights_line(SimpleNamespace(paper=paper, published=record)).data

    title = paper.method("multi-encoder").title
    named = f"*{title}* was trained under an older rule: it kept the best weights of its second stage, although a "
    named += "check in the first was better. Read its differences with caution."
    assert said("multi-encoder", "mmfnet", "unet-3d-t1") == said("multi-encoder") == named
    assert said("multi-encoder", "mmfnet", first=0.6) == "All weights are those that the present rule chooses."
    assert said("mmfnet") == said("unet-3d-t1") == said("multi-encoder", first=0.6)


def test_rows_without_a_record_are_named():
    own, other = registry.load("chen2020"), registry.load("chen2020", ("T1", "CT", "PET"))
    records = (
        SimpleNamespace(paper=own, methods=("unet-3d-t1",)),
        SimpleNamespace(paper=other, methods=("unet-3d-t1", "multi-encoder")),
    )
    titles = ["3D U-net (T1)", own.method("multi-encoder").title, "Base MMFNet", "Base MMFNet"]
    said = without_record({"Table I": [{"model": title} for title in titles]}, *records).data
    assert said == (
        "* Table I: 2 of 3 reported rows have a record, 1 of these on T1, T2 and CET1. Without a record: Base MMFNet."
    )


def record_of(device_of, used=None):
    """A record of one patient: DSC 0.5 on the first device and 0.6 on the second, whatever the method."""
    runs = [
        {"method": name, "seed": seed, "device": device, "precision": "bf16-mixed", "used": used or {},
         "config_sha256": f"{seed:08d}ff"}
        for (name, seed), device in device_of.items()
    ]  # fmt: skip
    rows = [
        {"patient": "P0", "method": run["method"], "seed": run["seed"], "dsc": 0.6 if run["device"] == "gpu" else 0.5}
        for run in runs
    ]
    paper, found = registry.load("chen2020"), pd.DataFrame(rows)
    return SimpleNamespace(published=SimpleNamespace(runs=runs), over_structures=found, paper=paper)


def test_devices_are_compared_where_a_method_has_enough_seeds_on_each():
    both = {("unet-2d-t1", seed): "gpu" if seed < 5 else "cpu" for seed in range(10)}
    said = machines(record_of(both | {("mmfnet", seed): "gpu" for seed in range(5)})).data
    assert said.startswith("Runs: 10 on gpu in mixed bf16 and 5 on cpu in mixed bf16. Two arms")
    assert "*U-net (T1)* has 5 seeds or more on each. The mean DSC on cpu minus that on gpu is -0.100." in said
    few = {("unet-2d-t1", seed): "gpu" if seed < 4 else "cpu" for seed in range(9)}
    assert machines(record_of(few)).data == "Runs: 5 on cpu in mixed bf16 and 4 on gpu in mixed bf16."


def test_encoders_from_runs_outside_of_the_record_are_counted():
    inside, outside = ({"unet-3d-t1": [f"chen2020/long/fold-00_seed-0_{key}"]} for key in ("00000000", "12345678"))
    said = [machines(record_of({("mmfnet", 0): "cpu"}, used)).data for used in (inside, outside)]
    assert said[0] == "Runs: 1 on cpu in mixed bf16."
    assert said[1] == f"{said[0]} 1 run took over encoders from runs that are not in this record."


@pytest.fixture(scope="module")
def on_phantom():
    return PublishedResults(registry.load("chen2020"), RESULTS / "chen2020-phantom")


def test_a_table_of_differences_names_what_changes_and_has_the_reported_ones_where_both_are_printed(on_phantom):
    pairs = {"one": ("mmfnet", "single-encoder"), "other": ("mmfnet-no-transfer-long", "mmfnet")}
    table = on_phantom.differences(pairs, {one.title: 0.5 for one in on_phantom.paper.methods[:20]})
    one, other = table.data.to_dict("records")
    assert [one["comparison"], other["comparison"]] == ["one", "other"]
    assert (one["reported"], other["reported"]) == ("+0.000", tables.DASH)
    told = on_phantom.difference_text(*pairs["one"])
    assert told.startswith(f"{one['mean difference']} (95 % interval {one['95 % interval']};")
    assert on_phantom.seed_by_seed(*pairs["one"]) == f"seed by seed {one['seed by seed']}"
    assert one["seeds"] == other["seeds"] == 5
    assert "same patients and seeds (40 patients, " in table.caption


def test_all_trainings_with_the_network_and_the_images_of_mmfnet_are_counted():
    full = {"network": "full", "channels": ["T1", "T2", "CET1"]}
    plain, pair = full | {"network": "plain"}, full | {"channels": ["T1", "T2"]}
    methods = {"mmfnet": full, "longer": full, "plain": plain, "pair": pair}
    lacking = [f"all layers: fusions.{level}.mlps.1.0.bias" for level in (0, 2)]

    def record(*runs):
        runs = [{"method": name, "without_gradient": names} for name, names in runs]
        return SimpleNamespace(runs=runs, methods=methods)

    others = record(("mmfnet", []), ("longer", lacking), ("plain", lacking), ("pair", lacking))
    said = silent_mlps(record(("mmfnet", lacking)), others).data
    assert said.startswith("* In 2 of 3 published trainings with the full block and three images, ")
    assert "this holds for the MLPs of the maximum at level 1 and the maximum at level 3. " in said


# What the pages say in words of these differences: the side of the interval, and that of every seed (0: they disagree).
SAID = {
    ("multi-encoder", "single-encoder"): (0, 0),
    ("mmfnet", "single-encoder"): (-1, 0),
    ("mmfnet-base", "multi-encoder"): (0, 0),
    ("mmfnet-multi-mlp", "mmfnet-base"): (1, 0),
    ("mmfnet-no-transfer", "mmfnet-multi-mlp"): (0, 0),
    ("mmfnet-std-channel", "mmfnet-multi-mlp"): (-1, 0),
    ("mmfnet-std-spatial", "mmfnet-multi-mlp"): (-1, 0),
    ("mmfnet", "mmfnet-no-transfer"): (-1, -1),
    ("mmfnet-base-transfer", "mmfnet-base"): (-1, 0),
    ("mmfnet-multi-mlp-transfer", "mmfnet-multi-mlp"): (-1, 0),
    ("multi-encoder-transfer", "multi-encoder"): (0, 0),
    ("mmfnet-no-transfer-long", "mmfnet"): (1, 1),
    ("mmfnet-no-transfer-long", "mmfnet-no-transfer"): (1, 1),
    ("mmfnet", "patch-cnn"): (1, 0),
    ("mmfnet-no-transfer", "patch-cnn"): (1, 1),
    ("patch-cnn-t1", "unet-2d-t1"): (-1, -1),
    ("patch-cnn-t2", "unet-2d-t2"): (-1, -1),
    ("patch-cnn-cet1", "unet-2d-cet1"): (-1, -1),
    ("mmfnet", "mmfnet-t1-t2"): (1, 1),
    ("mmfnet", "mmfnet-t1-cet1"): (1, 0),
    ("mmfnet", "mmfnet-t2-cet1"): (1, 0),
    ("mmfnet-t1-t2", "mmfnet-t1-cet1"): (0, 0),
    ("mmfnet-t1-t2", "mmfnet-t2-cet1"): (0, -1),
    ("mmfnet-t2-cet1", "mmfnet-t1-cet1"): (1, 0),
}


@pytest.mark.parametrize("pair", SAID, ids=" minus ".join)
def test_the_record_bears_out_what_the_pages_say_of_it(on_phantom, pair):
    signs = set(np.sign(on_phantom.by_seed(*pair).mean()))
    agreed = int(signs.pop()) if len(signs) == 1 else 0
    assert (tables.side(on_phantom.difference(*pair).difference), agreed) == SAID[pair]


@pytest.mark.parametrize(
    ("profile", "matrix", "width"), [("quick", (16, 256, 256), 1.0), ("smoke", (16, 32, 32), 0.125)]
)
def test_the_time_of_a_patient_is_at_the_papers_size_but_for_smoke(chapter, monkeypatch, profile, matrix, width):
    asked = []
    monkeypatch.setattr(chapter, "settings", replace(chapter.settings, profile=profile))

    def time_case(cohort, case, method, profile, device):
        asked.append((case, method.name, profile.matrix, profile.width, profile.batch_size, device))
        return CaseTime(1.0, 2.5, 0.5, 2, "cpu")

    monkeypatch.setattr(chapter_module, "time_case", time_case)
    said = time_by_part(chapter, 9).data
    assert asked == [("P0", "mmfnet", matrix, width, 1, "cpu")]
    assert said.startswith("The proposed network takes 4.00 s for P0 (2 windows of ")
    assert "reading 1.00 s (25 %), the network 2.50 s (62 %) and merging 0.50 s (12 %)" in said
    assert "Most of it goes into the network. The paper reports about 9 s" in said


@pytest.fixture(scope="module")
def trained(chapter):
    record = next(r for r in chapter.found if r.config["method"]["name"] == "mmfnet-no-transfer")
    return of_page(record, chapter.prepared, "smoke")


def test_the_weights_of_voxels_are_those_of_the_slice(trained):
    (case, *_) = trained.cases
    z = trained.slice_of(case)
    image, reference, maps = chapter_module.voxel_weights(trained, case, z)
    assert image.shape == reference.shape == (32, 32)
    assert reference.any()
    assert [weights.shape for weights in maps.values()] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert all((weights.min(), weights.max()) == (0, 1) for weights in maps.values())


def test_channels_are_weighed_for_each_series_and_level(trained, monkeypatch):
    seen, draw = [], charts.channel_weights
    monkeypatch.setattr(charts, "channel_weights", lambda levels: [seen.append(levels), draw(levels)][1])
    alt = chapter_module.channel_weights(trained).alt
    (levels,) = seen
    assert list(levels) == ["level 1", "level 2", "level 3", "level 4"]
    assert all(list(weights) == ["T1", "T2", "CET1"] for weights in levels.values())
    assert [len(weights["T2"]) for weights in levels.values()] == [1, 2, 4, 8]
    assert f"level 1: T1 {levels['level 1']['T1'].mean():.2f}, T2" in alt


def test_the_series_are_of_the_slice_with_most_tumour(chapter):
    page = chapter_module.series(chapter.data, chapter.prepared.case_names[0]).data
    assert page.count("<svg") == 3
    assert page.count("<path") == 3  # the reference on each


def test_the_steps_of_table_ii_are_drawn_as_reported(chapter):
    picture = chapter_module.steps(chapter.reported)
    random, transferred = picture.figure.axes[0].lines
    assert random.get_ydata().tolist() == [0.7005, 0.7007, 0.7083, 0.7189]
    assert transferred.get_xdata().tolist() == [1, 2, 3]
    assert "self-transfer 0.7095, 0.7128 and 0.7191" in picture.alt


def test_an_empty_window_that_stays_empty_is_paid_for():
    printed, outside, exact = (line.get_ydata() for line in chapter_module.empty_window().figure.axes[0].lines)
    assert (printed[0], outside[0]) == (-1, 0)
    assert printed[1] == exact[0] == 0
    assert outside[1] == 0.5


def test_every_encoder_and_fusion_block_is_drawn():
    paper = registry.load("chen2020")
    drawn = architecture(paper.methods[0], paper.profile("paper"), blocks_of("chen2020", "mmfnet"))
    boxes = {node.label: (node.times, node.size) for node in drawn.nodes}
    assert boxes["encoder level 4"] == (3, "64 × 2 × 32 × 32")
    assert boxes["fusion block 4"] == (1, "64 × 2 × 32 × 32")
    arrows = {(drawn.nodes[a.source].label, drawn.nodes[a.target].label) for a in drawn.arrows}
    assert {("fusion block 1", "decoder level 1"), ("encoder bottom", "decoder level 4")} <= arrows

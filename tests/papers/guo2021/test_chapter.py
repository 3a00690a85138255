from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from core_cases import finish

from npcrepro.book.figures import slices
from npcrepro.book.lesson.architecture import architecture, blocks_of
from npcrepro.book.lesson.result import of_page
from npcrepro.metrics.overlap import count
from npcrepro.papers.guo2021 import chapter
from npcrepro.papers.guo2021.chapter import against_two_observers, learning_state, maps_of_training_patients
from npcrepro.papers.guo2021.protocol import PAPER
from npcrepro.runs.run import load_data, load_network

pytest_plugins = ["volume_fixtures"]


def test_maps_of_both_kinds_stand_side_by_side(cascade, monkeypatch):
    tables, pictures = [], []
    monkeypatch.setattr(chapter, "display", lambda table: tables.append(table.data))
    monkeypatch.setattr(slices, "show_images", lambda *arguments: pictures.append(arguments))
    assert "GTVp" in maps_of_training_patients(cascade, "bunet", "cscn", count=2).data
    (table,), ((*_, images, truth, drawn),) = tables, pictures
    record, _ = cascade.more("cscn", "bunet")
    assert table.case.tolist() == cascade.prepared.cases_of(record.config["fold"]["train"])[:2]
    case = table.case[0]
    path = load_data(record, cascade.prepared).maps[case][0]
    mask = cascade.masks(case)["GTVp"]
    with np.load(path) as arrays:
        kept = arrays["probability"][0] / 255
    assert table["not trained"][0] == pytest.approx(kept[mask].mean())
    assert table["DSC, not trained on it"][0] == pytest.approx(count(kept > 0.5, mask).dsc, nan_ok=True)
    z = int(mask.sum(axis=(1, 2)).argmax())
    assert np.array_equal(truth, mask[z])
    assert np.array_equal(images["not trained on it"], kept[z])
    # One is of a network that saw the case, the other of one that did not.
    assert drawn == ("trained on it", "not trained on it")
    assert not np.allclose(images["trained on it"], images["not trained on it"], atol=1 / 255)


def test_the_cascade_runs_on_maps_of_patients_that_bunet_did_not_see_and_fusions_have_its_weights(cascade):
    methods = ("cscn", "cascade-unfused", "fusion-product", "fusion-maximum")
    (first, *fusions), _ = finish("phantom", cascade.settings.runs, PAPER, profile="smoke", methods=methods)
    used = first.provenance["used"]
    assert list(used) == ["bunet"]
    assert len(used["bunet"]) == 3  # for the patients tested, and one for each part of the others
    ours = load_network(first).state_dict()
    for record in fusions:
        assert record.provenance["status"] == "trained"
        taken = load_network(record).state_dict()
        assert all(torch.equal(ours[part], taken[part]) for part in ours)


def test_how_far_networks_came_is_counted_in_blocks_and_by_their_best_check():
    ends = {("bunet", 0): (0.1, 0.2, 0.3), ("bunet", 1): (0.3, 0.2, 0.1), ("cnn", 0): (0.1, 0.3, 0.2)}
    rows = [(m, 0, s, n, dsc) for (m, s), curve in ends.items() for n, dsc in enumerate(curve)]
    history = pd.DataFrame(rows, columns=["method", "fold", "seed", "update", "validation_dsc"]).sample(
        frac=1, random_state=0
    )
    profile = {"updates": 500, "batch_size": 8, "width": 0.25}
    record = SimpleNamespace(paper=PAPER, history=history, published=SimpleNamespace(runs=[{"profile": profile}]))
    said = learning_state(record)
    assert "0.25 times the channels and saw 0.5 % of the blocks" in said
    assert said.endswith(
        "2 of 3 trainings were best at one of their last two checks, so longer training might have helped them."
    )
    record.history = history[history.seed == 1]
    assert learning_state(record).endswith("0 of 1 trainings were best at one of their last two checks.")


def test_the_second_observer_agrees_as_told_and_is_one_for_all_methods(cascade, monkeypatch):
    truth = {case: cascade.masks(case)["GTVp"] for case in cascade.prepared.case_names}
    found = [
        SimpleNamespace(config=record.config, prediction=lambda case, part=part: (truth[case] * part, None))
        for record, part in zip(cascade.found, (1, 0), strict=True)
    ]
    monkeypatch.setattr(cascade, "found", found)
    rows = against_two_observers(cascade, 0.6)
    assert rows.method.tolist() == ["BUNet", "CSCN"]
    assert rows.observers.tolist() == pytest.approx([0.6, 0.6], abs=0.1)
    # One copies the reference, the other finds nothing.
    assert rows.reference.tolist() == [1, 0]
    assert rows.second.tolist() == [rows.observers[0], 0]
    assert rows.cases.tolist() == [len(cascade.prepared.cases_of(found[0].config["fold"]["test"]))] * 2


def test_both_networks_are_drawn_with_every_skip():
    first = architecture(PAPER.method("bunet"), PAPER.profile("paper"), blocks_of("guo2021", "bunet"))
    assert [node.size.split(" × ")[0] for node in first.nodes[1:5]] == ["16", "32", "64", "128"]
    assert sum(arrow.merge == "concatenate" for arrow in first.arrows) == 6  # a skip and what comes up, three times
    second = architecture(PAPER.methods[0], PAPER.profile("paper"), blocks_of("guo2021", "cscn"))
    assert second.nodes[0].label == "image: THRIVE, map of BUNet"
    score = next(number for number, node in enumerate(second.nodes) if node.kind == "score")
    sources = {second.nodes[arrow.source].label for arrow in second.arrows if arrow.target == score}
    assert sources == {"stem: 3 × 3 × 3 convolution", *(f"block {n}: 1 × 1 × 1 bottleneck" for n in (1, 2, 3))}


def test_taps_beyond_a_block_are_counted():
    alt = chapter.taps((1, 3), (6, 18)).alt
    assert [alt.split(f"rate {rate}: ")[1][0] for rate in (1, 3, 6, 18)] == ["8", "8", "2", "0"]


def test_what_a_network_has_in_sight(cascade):
    rows = cascade.receptive_fields(side=64)
    assert rows.to_dict("list") == {"network": ["BUNet", "CSCN"], "voxels in sight along an axis": ["all", "45"]}
    assert cascade.receptive_fields("acdnet-no-rates", side=48).iloc[0].tolist() == ["No rates", "33"]


def test_the_fused_map_is_the_mean_of_the_other_two_and_a_network_alone_has_one(cascade):
    records = {one.config["method"]["name"]: one for one in cascade.found}
    trained = of_page(records["cscn"], cascade.prepared, "smoke")
    case = trained.cases[0]
    z = trained.slice_of(case)
    image, reference, found = chapter.maps(trained, case, z)
    assert np.array_equal(reference, cascade.masks(case)["GTVp"][z])
    assert np.array_equal(image, cascade.image(case)[z])
    coarse, fine, fused = found.values()
    # Up to rounding of stored maps, and maps brought to the grid of the blocks and back.
    assert np.abs((coarse + fine) / 2 - fused).mean() < 0.02
    assert np.abs(coarse - fine).mean() > 0.02
    alone = of_page(records["bunet"], cascade.prepared, "smoke")
    *_, found = chapter.maps(alone, alone.cases[0], 0)
    assert list(found) == ["BUNet"]


def test_weights_and_blocks_are_drawn_from_the_data_of_the_loop(cascade):
    method = PAPER.method("bunet")
    data = method.data.build(cascade.prepared, (8, 24, 24), method.channels, method.structures)
    case = data.cohort.case_names[0]
    assert "24 voxels" in chapter.block_in_slice(data, case).alt
    z = (data.label(case)[0] == 1).sum(axis=(1, 2)).argmax()
    assert f"as reported at most {data.weight(case)[0, z].max():.0f}" in chapter.weights(data, case).alt


def test_a_training_of_the_printed_size_stands_beside_short_ones_on_the_patients_that_it_tested():
    updates, dsc = [10, 20, 30, 40], [0.2, 0.5, 0.4, 0.4]
    history = pd.DataFrame({"method": "bunet", "update": updates, "validation_dsc": dsc, "loss": [4.0, 2.0, 1.0, 0.5]})
    record = SimpleNamespace(cases=pd.DataFrame({"case": ["A", "B"]}), folds={"0": {"validation": ["V"]}})
    printed = SimpleNamespace(
        published=record,
        history=history.assign(learning_rate=[1.0, 0.1, 0.01, 0.001]),
        paper=PAPER,
        mean=lambda name: SimpleNamespace(mean=0.345),
    )
    rows = [("bunet", 0, 0.1), ("bunet", 1, 0.3), ("bunet-long", 0, 0.4), ("bunet-long", 1, 0.6)]
    same = [(*row, patient) for row in rows for patient in "AB"] + [("bunet", 2, 0.9, "C")]
    short = SimpleNamespace(over_structures=pd.DataFrame(same, columns=["method", "seed", "dsc", "patient"]))
    told = chapter.at_printed_size(printed, short, "bunet", "bunet-long")
    assert "On the same 2 patients short trainings of the narrow BUNet reach 0.10 to 0.30." in told
    assert "2 trainings with 8 times the updates reach 0.40 to 0.60." in told
    assert "the 1 validation patient is highest after 20 updates. After 30 the learning rate has fallen to" in told
    assert told.endswith("the loss of training falls only from 1.0000 to 0.5000 in the rest.")

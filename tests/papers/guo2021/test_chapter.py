from types import SimpleNamespace

import numpy as np
import pytest

from npcrepro.book.figures import slices
from npcrepro.metrics.overlap import count
from npcrepro.papers.guo2021 import chapter
from npcrepro.papers.guo2021.chapter import against_two_observers, maps_of_training_patients
from npcrepro.runs.run import load_data

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

"""What the chapters on volumes show of their own runs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from npcrepro.book.html import viewer
from npcrepro.metrics.overlap import count

pytest_plugins = ["volume_fixtures"]


def test_the_patient_shown_is_tested_in_the_first_fold_by_every_method(chapter):
    shown = chapter.shown
    first = chapter.found[0].config["fold"]
    assert first["number"] == 0
    assert shown.case in first["test"]
    assert set(shown.predictions) == {"multi-encoder", "mmfnet-no-transfer"}
    assert shown.image.shape == shown.reference.shape == (18, 24, 24)
    assert np.array_equal(shown.reference, np.asarray(chapter.prepared.case(shown.case).label) == 1)
    rows = chapter.first_seed()
    for name, mask in shown.predictions.items():
        scored = rows[(rows.method == name) & (rows.patient == shown.case)].dsc.item()
        assert count(mask, shown.reference).dsc == pytest.approx(scored, abs=1e-6)


def test_patients_to_browse_have_the_masks_and_the_probabilities_of_their_runs(chapter, monkeypatch):
    shown = []
    monkeypatch.setattr(viewer, "show", lambda *given: shown.append(given))
    line = chapter.browse("mmfnet-no-transfer", "missing", count=2, limits=(0, 1)).data
    ((patients, colours, thresholds),) = shown
    assert [one.name for one in patients] == chapter.cases_shown(2)
    assert f"{len(patients)} patient" in line
    names = list(dict.fromkeys((chapter.ranked()[0], "mmfnet-no-transfer")))
    titles = [chapter.paper.method(name).title for name in names]
    assert list(colours) == ["Reference", *titles]
    assert thresholds == dict.fromkeys(titles, 0.5)
    for one in patients:
        assert (list(one.series), one.limits) == (list(chapter.data.channels), (0, 1))
        assert np.array_equal(one.masks["GTVp"], chapter.masks(one.name)["GTVp"])
        for name, title in zip(names, titles, strict=True):
            maps = chapter.first_fold()[name].prediction(one.name)[1]
            assert np.array_equal(one.probabilities[title]["GTVp"], maps[0])


def test_every_part_of_a_page_can_be_made(chapter):
    assert "10 windows of 16 x 32 x 32" in chapter.series(2).data
    assert list(chapter.sizes().parameters) == [1_701_345, 1_548_403]
    times = chapter.seconds_for_a_patient()
    assert times["windows of a case"].tolist() == [2, 2]
    assert (times["seconds for a case"] > 0).all()
    for part in (chapter.planes("multi-encoder"), chapter.errors(), chapter.surfaces("multi-encoder", "unet-3d-t1")):
        assert chapter.shown.case in part.data
    assert len(plt.get_fignums()) >= 3

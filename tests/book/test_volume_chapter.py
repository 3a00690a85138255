"""What the chapters on volumes show of their own runs."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from npcrepro.metrics.overlap import count

pytest_plugins = ["volume_fixtures"]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


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


def test_every_part_of_a_page_can_be_made(chapter):
    assert "10 windows of 16 x 32 x 32" in chapter.series(2).data
    assert list(chapter.sizes().parameters) == [1_701_345, 1_548_403]
    times = chapter.seconds_for_a_patient()
    assert times["windows of a case"].tolist() == [2, 2]
    assert (times["seconds for a case"] > 0).all()
    for part in (chapter.planes("multi-encoder"), chapter.errors(), chapter.surfaces("multi-encoder", "unet-3d-t1")):
        assert chapter.shown.case in part.data
    assert len(plt.get_fignums()) >= 3


def test_patients_from_best_to_worst_in_every_plane(cascade, monkeypatch):
    """Of five patients tested, made up as the fold of the smallest phantom tests one: the first, middle and last."""
    names = cascade.prepared.patients
    fold = cascade.found[0].config["fold"] | {"test": names}
    monkeypatch.setattr(cascade, "ranked", lambda: ("cscn", pd.DataFrame({"patient": names})))
    truth = {case: cascade.masks(case)["GTVp"] for case in cascade.prepared.case_names}
    found = [
        SimpleNamespace(
            config=record.config | {"fold": fold},
            provenance=record.provenance,
            prediction=lambda case, part=part: (truth[case] * part, None),
        )
        for record, part in zip(cascade.found, (1, 0), strict=True)
    ]
    monkeypatch.setattr(cascade, "found", found)
    shown = cascade.patients_shown(3)
    assert [one.case for one in shown] == [cascade.prepared.cases_of([names[place]])[0] for place in (0, 2, 4)]
    assert all(np.array_equal(one.predictions["bunet"], one.reference) for one in shown)
    assert not any(one.predictions["cscn"].any() for one in shown)
    told = cascade.errors_of_patients("axial", "sagittal").data
    assert "GTVp, 3 patients, from best to worst" in told
    assert len([axis for axis in plt.gcf().axes if axis.images]) == 3 * 2 * 2
    assert "all that the first fold tests" in cascade.errors_of_patients("axial", count=9).data


def test_what_a_network_has_in_sight(cascade):
    rows = cascade.receptive_fields(side=64)
    assert rows.to_dict("list") == {"network": ["BUNet", "CSCN"], "voxels in sight along an axis": ["all", "45"]}
    assert cascade.receptive_fields("acdnet-no-rates", side=48).iloc[0].tolist() == ["No rates", "33"]

"""What the chapters say of published runs and where they come from."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from record_cases import dsc, publish, rows_of

from npcrepro.base.errors import InputError
from npcrepro.book import published as published_module
from npcrepro.book.published import PublishedResults, on_both, show_leakage
from npcrepro.findings import leakage
from npcrepro.protocol import registry
from npcrepro.runs.published import read_published, write_cases

LUO = registry.load("luo2020")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def record(tmp_path):
    """Five patients in two folds; U-Net misses the tumour of one. F is doubtful."""
    rows = rows_of("unet", 0, "F", suspect=True)
    for i, patient in enumerate("ABCDE"):
        rows += rows_of("two-stage", 8, patient, fold=i % 2) + rows_of("unet", 7 * (i > 0), patient, fold=i % 2)
    return PublishedResults(LUO, publish(tmp_path / "record", rows))


def test_a_record_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere holds no published runs"):
        PublishedResults(LUO, tmp_path / "nowhere")


def test_about_comes_from_the_record(record):
    told = record.about().data
    assert told.startswith("5 patients tested; 1 more with doubtful labels is in no mean, voxels of 2.5 x 3.9 x 3.9")
    record.published.cases["spacing_x_mm"] += 5.7 + np.arange(len(record.published.cases)) % 2
    assert "voxels of 2.5 x 3.9 x 9.6–10.6 mm" in record.about().data
    assert "Networks have 0.5 times the channels of profile `paper`, a matrix of 80 x 80 and 1,000 updates." in told
    assert "A fold has 4 to 5 patients to train, 1 to validate and 2 to 3 to test." in told
    assert told.endswith("Cohort c, profile p, 2 folds, seed 0, a card, 4 runs, 0.2 h in all, made 2026-01-02.")


def test_times_and_device_of_the_runs_and_those_that_diverged(record):
    shown = record.runs()
    assert shown.data["minutes to train"].tolist() == [2.0, 2.0]
    assert shown.data["seconds to predict all"].tolist() == [30.0, 30.0]
    assert (shown.data.runs.tolist(), shown.data.device.tolist()) == ([2, 2], ["a card"] * 2)
    assert shown.caption == "A run is one fold with one seed"
    next(run for run in record.published.runs if run["method"] == "unet" and run["fold"] == 1)["status"] = "diverged"
    assert record.runs().caption.endswith("as it then was: U-Net, fold 1, seed 0")


def test_curves_over_the_folds(record, tmp_path):
    told = record.by_fold({"dsc": "DSC"}).data
    assert "Standard deviation of the fold means, DSC: Proposed 0.000, U-Net 0." in told
    one = PublishedResults(LUO, publish(tmp_path / "one", rows_of("unet", 8, "A")))
    assert "no curve over folds" in one.by_fold({"dsc": "DSC"}).data


def test_a_phantom_and_patients_side_by_side(record, tmp_path):
    """Each has its own n; what one of them lacks is a dash."""
    found = (("two-stage", (8, 9)), ("unet", (6, 6)))
    rows = [row for name, hits in found for p, hit in zip("PQ", hits, strict=True) for row in rows_of(name, hit, p)]
    phantom = PublishedResults(LUO, publish(tmp_path / "phantom", rows))
    table = on_both(phantom, record, ("two-stage", "unet"), ("two-stage", "fcn8")).data
    mean = np.mean([dsc(8) - dsc(6), dsc(9) - dsc(6)])
    assert table["phantom, n = 2"].tolist() == [f"{mean:+.3f} (too few patients for an interval)", "–"]
    assert table["patients, n = 5"][0] == record.difference_text("two-stage", "unet").replace("95 % interval ", "")
    assert table.comparison[0] == "Proposed minus U-Net"


def test_leakage_is_shown_with_patients_as_dots(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(published_module, "display", shown.append)
    patient_of = {f"{p}{z}": p for p in "ABC" for z in "12"}
    high = [row for case in patient_of for row in rows_of("unet", 8, case)]
    low = [row | {"patient": of} for case, of in patient_of.items() for row in rows_of("unet", 6, case)]
    for folder in (
        publish(tmp_path / "luo2020-leakage-slices", high),
        publish(tmp_path / "luo2020-leakage-patients", low),
    ):
        cases = read_published(folder).cases
        cases["dsc"] = dsc(cases.tp)
        write_cases(folder, cases)
    (pair,) = leakage.pairs(tmp_path, "luo2020")
    assert "By patient: cohort c" in show_leakage(LUO, *pair).data
    step = dsc(8) - dsc(6)
    assert shown[0].data["inflation (95 % interval)"].tolist() == [f"{step:+.3f} ({step:+.3f} to {step:+.3f})"] * 2
    assert shown[0].data[["patients", "slices"]].to_numpy().tolist() == [[3, 6]] * 2

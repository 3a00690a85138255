import json
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from npcrepro.base.errors import InputError
from npcrepro.metrics.overlap import count
from npcrepro.runs.published import write_cases

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from npcrepro.book import tables, volume_chapter
from npcrepro.book.figures import volumes
from npcrepro.book.volume_chapter import VolumeResults, show_differences
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import CASE_COLUMNS
from npcrepro.runs.per_patient import over_seeds

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


def test_a_printed_table_beside_ours(chapter):
    title = "Multi-encoder multi-modality network"
    printed = [{"model": title, "dsc": 0.7}, {"model": "nobody's network", "dsc": 0.5}]
    printed.append({"model": "MMFNet+multi-MLP+stdPool", "dsc": None})
    frame = chapter.beside(printed, {"dsc": "dsc"}).data
    mine = over_seeds(chapter.scores()).query("method == 'multi-encoder'").dsc
    assert frame.n.tolist() == [2, "–", 2]
    assert frame["DSC printed"].tolist() == ["0.7000", "0.5000", "–"]
    other = over_seeds(chapter.scores()).query("method == 'mmfnet-no-transfer'").dsc
    # Two patients have no interval.
    assert frame["DSC ours"].tolist() == [f"{mine.mean():.3f}", "–", f"{other.mean():.3f}"]
    assert "; ours; n: our patients (" in chapter.beside(printed, {"dsc": "dsc"}).caption
    numbers = pd.DataFrame({"method": "multi-encoder", "dsc": [0.5, 0.6, 0.7]})
    three = chapter.beside(printed, {"dsc": "dsc"}, numbers)
    assert "ours with 95 % interval" in three.caption
    assert three.data["DSC ours"][0].startswith("0.600 (0.50 to 0.70")


def test_differences_of_printed_means_stand_beside_ours(chapter, monkeypatch):
    seen = []
    monkeypatch.setattr(volumes, "forest", lambda *arguments: seen.append(arguments))
    chapter.ablation([
        {"model": "Multi-encoder multi-modality network", "dsc": 0.7},
        {"model": "MMFNet+multi-MLP+stdPool", "dsc": 0.75},
    ])  # fmt: skip
    ((ours, label, printed),) = seen
    # The other method is compared with MMFNet, which was not run.
    assert list(ours) == ["Multi-encoder multi-modality network minus MMFNet+multi-MLP+stdPool"]
    (name,) = ours
    assert label == "difference of the DSC"
    assert printed == {name: pytest.approx(-0.05)}
    wide = over_seeds(chapter.scores()).pivot(index="patient", columns="method", values="dsc")
    expected = (wide["multi-encoder"] - wide["mmfnet-no-transfer"]).mean()
    assert ours[name].mean == pytest.approx(expected)
    assert ours[name].n == 2


def test_the_table_of_the_ablation_has_the_pairs_of_the_figure(chapter, monkeypatch):
    shown = []
    monkeypatch.setattr(volume_chapter, "display", lambda table: shown.append(table.data))
    printed = [{"model": "Multi-encoder multi-modality network", "dsc": 0.7}, {"model": "Base MMFNet", "dsc": 0.8}]
    chapter.ablation(printed)
    # MMFNet was not run: what stands against it has no row, and a pair of which one is not printed has a dash.
    assert shown[0].comparison.tolist() == ["Multi-encoder multi-modality network minus MMFNet+multi-MLP+stdPool"]
    assert shown[0].printed.tolist() == ["–"]
    monkeypatch.setattr(tables, "partners", lambda patients, paper: [])
    assert "no pair" in chapter.ablation(printed).data


def test_the_proposed_method_stands_against_the_rows_of_a_table(chapter, monkeypatch):
    rows = chapter.scores()
    proposed = rows[rows.method == "multi-encoder"].assign(method="mmfnet", dsc=0.5)
    monkeypatch.setattr(chapter, "scores", lambda: pd.concat([rows, proposed]))
    title, ours = "Multi-encoder multi-modality network", chapter.paper.methods[0].title
    printed = [{"model": title, "dsc": 0.7}, {"model": "U-net (T1)", "dsc": 0.1}, {"model": ours, "dsc": 0.72}]
    frame = chapter.against_proposed(printed).data
    # Neither the U-net, which was not run, nor MMFNet without transfer, which the table does not have.
    assert frame.comparison.tolist() == [f"{ours} minus {title}"]
    mean = rows[rows.method == "multi-encoder"].dsc.mean()
    assert frame["mean difference"].tolist() == [f"{0.5 - mean:+.3f}"]
    assert frame.printed.tolist() == ["+0.020"]


def test_differences_of_a_record_leave_out_what_was_not_run(chapter, monkeypatch):
    seen = []
    monkeypatch.setattr(volumes, "forest", lambda *arguments: seen.append(arguments))
    pairs = [("mmfnet-no-transfer", "multi-encoder"), ("mmfnet", "multi-encoder")]
    show_differences(chapter.scores(), chapter.paper, "dsc", pairs, {})
    ((found, _, printed),) = seen
    assert list(found) == ["MMFNet+multi-MLP+stdPool minus Multi-encoder multi-modality network"]
    assert printed == {}


def test_every_part_of_a_page_can_be_made(chapter):
    assert "10 windows of 16 x 32 x 32" in chapter.series(2).data
    assert list(chapter.sizes().parameters) == [1_701_345, 1_548_403]
    times = chapter.seconds_for_a_patient()
    assert times["windows of a case"].tolist() == [2, 2]
    assert (times["seconds for a case"] > 0).all()
    for part in (chapter.planes("multi-encoder"), chapter.errors(), chapter.surfaces("multi-encoder", "unet-3d-t1")):
        assert chapter.shown.case in part.data
    chapter.validation("multi-encoder", "mmfnet-no-transfer")
    assert len(plt.get_fignums()) >= 4


def test_patients_from_best_to_worst_in_every_plane(cascade, monkeypatch):
    """Of five patients tested, made up as the fold of the smallest phantom tests one: the first, middle and last."""
    names = cascade.prepared.patients
    ranked = pd.DataFrame({"patient": names})
    fold = cascade.found[0].config["fold"] | {"test": names}
    monkeypatch.setattr(cascade, "ranked", lambda: ("cscn", ranked))
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
    said = cascade.errors_of_patients("axial", "sagittal").data
    assert "GTVp, 3 patients, from best to worst" in said
    assert len([axis for axis in plt.gcf().axes if axis.images]) == 3 * 2 * 2
    assert "all that the first fold tests" in cascade.errors_of_patients("axial", count=9).data


def test_what_a_network_has_in_sight(cascade):
    rows = cascade.receptive_fields(side=64)
    assert rows.to_dict("list") == {"network": ["BUNet", "CSCN"], "voxels in sight along an axis": ["all", "45"]}
    assert cascade.receptive_fields("acdnet-no-rates", side=48).iloc[0].tolist() == ["No rates", "33"]


GUO = registry.load("guo2021")


def publish(folder, hits):
    """A record of a method's hits in each patient: of 10 voxels so many found and no other, none at all for 0."""
    rows, runs = [], []
    for name, patients in hits.items():
        about = {"paper": "guo2021", "method": name, "cohort": "c", "profile": "p", "fold": 0, "seed": 0}
        runs.append({"method": name, "fold": 0, "seed": 0, "cohort": "c", "profile": {"name": "p"}, "device": "a card"})
        runs[-1] |= {"seconds": {"train": 60, "predict": 6, "all": 66}, "finished": "2026-01-02T03:04:05"}
        for patient, (number, suspect) in patients.items():
            values = dict.fromkeys(CASE_COLUMNS, 0.5) | {"case": patient, "patient": patient, "suspect": suspect}
            values |= {"structure": "GTV", "region": "all_slices", "status": "ok" if number else "pred_empty"}
            values |= {"tp": number, "fp": 0, "fn": 10 - number, "tn": 90}
            values |= {"reference_ml": 10.0, "predicted_ml": float(number)}
            rows.append(about | values | {"voxel_masd_mm": 10.0 - number if number else np.nan})
    folder.mkdir()
    write_cases(folder, pd.DataFrame(rows))
    (folder / "runs.json").write_text(json.dumps({"common": {}, "methods": {}, "folds": {}, "runs": runs}))
    return folder


# CNN is always better than CSCN, BUNet always worse and once empty; V-Net is now better, now worse.
HITS = {"cscn": (5, 6, 5, 6), "cnn": (7, 8, 8, 8), "vnet": (4, 7, 5, 6), "bunet": (4, 5, 4, 0)}


@pytest.fixture
def record(tmp_path):
    """`HITS` in four patients, and a doubtful fifth."""
    patients = {name: {p: (n, False) for p, n in zip("ABCD", each, strict=True)} for name, each in HITS.items()}
    for name in patients:
        patients[name]["E"] = (0, True)
    publish(tmp_path / "guo2021-c", patients)
    return VolumeResults(GUO, tmp_path / "guo2021-c")


def test_a_record_that_is_not_there_stops_the_chapter_with_its_name(tmp_path):
    with pytest.raises(InputError, match="guo2021-nowhere holds no published runs"):
        VolumeResults(GUO, tmp_path / "guo2021-nowhere")


def test_a_network_that_finds_nothing_is_seen(record):
    frame = record.overview({"dsc": "DSC", "sensitivity": "recall", "precision": "precision"}).data
    assert frame.columns.tolist() == ["method", "patients", "seeds", "DSC", "recall", "precision", "empty predictions"]
    assert record.overview({"dsc": "DSC"}, "bunet", "cscn").data.method.tolist() == ["CSCN", "BUNet"]
    assert frame.method.tolist() == ["CSCN", "CNN", "V-Net", "BUNet"]
    # The doubtful fifth patient, in whom all predictions are empty, counts nowhere.
    assert frame["empty predictions"].tolist() == ["0 of 4", "0 of 4", "0 of 4", "1 of 4"]
    assert frame.recall[3].startswith(f"{(0.4 + 0.5 + 0.4) / 4:.2f} (")
    assert frame.precision[3] == "1.00 (1.00 to 1.00, n = 3)"
    assert (record.empty("bunet"), record.tested("bunet")) == (1, 4)


def test_volumes_found_over_those_outlined(record):
    assert record.volume_ratios() == pytest.approx({"CSCN": 0.55, "CNN": 0.8, "V-Net": 0.55, "BUNet": 0.4})


def test_words_are_chosen_by_interval_and_test(tmp_path):
    patients = {name: {p: (n, False) for p, n in zip("ABCDEFGH", 2 * each, strict=True)} for name, each in HITS.items()}
    eight = VolumeResults(GUO, publish(tmp_path / "eight", patients))
    assert eight.standing("cscn", ["cnn", "vnet", "bunet"]) == (
        "above that of BUNet; below that of CNN; not told apart from that of V-Net"
    )
    assert eight.standing("cnn", ["cscn", "vnet", "deeplab"]) == "above those of CSCN and V-Net"


def test_an_interval_that_no_test_supports_tells_nothing_apart(record):
    assert record.difference("cscn", "cnn").difference.high < 0
    assert record.standing("cscn", ["cnn"]) == "not told apart from that of CNN"


def test_too_few_patients_tell_nothing_apart(tmp_path):
    patients = {name: dict.fromkeys("AB", (n, False)) for name, n in {"cscn": 9, "cnn": 2}.items()}
    two = VolumeResults(GUO, publish(tmp_path / "two", patients))
    assert two.standing("cscn", ["cnn"]) == "not told apart from that of CNN"


def test_differences_stand_beside_the_printed_ones(record, monkeypatch):
    seen = []
    monkeypatch.setattr(volumes, "forest", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(volume_chapter, "display", lambda table: None)
    record.against("cscn", ["cnn", "bunet", "deeplab"], "dsc", {"CSCN": 0.741, "CNN": 0.707, "Deeplab": 0.714})
    ((ours, label, printed),) = seen
    assert label == "difference of the DSC"
    assert list(ours) == ["CSCN minus CNN", "CSCN minus BUNet"]
    assert ours["CSCN minus CNN"].mean == pytest.approx(record.mean("cscn").mean - record.mean("cnn").mean)
    assert printed == {"CSCN minus CNN": pytest.approx(0.034)}


def test_dots_of_the_patients_of_a_record(record):
    assert "GTV" in record.by_patient("dsc", "cscn", "bunet", "deeplab").data
    (axis,) = plt.gcf().axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["CSCN\nn = 4", "BUNet\nn = 4"]


def test_a_table_with_other_decimals_and_curves_of_another_column(cascade):
    frame = cascade.beside([{"model": "CSCN", "assd_mm": 1.212}], {"assd_mm": "voxel_masd_mm"}).data
    assert frame["MASD (mm) printed"].tolist() == ["1.212"]
    cascade.validation("bunet", "cscn", metric="validation_dsc")
    (axis,) = plt.gcf().axes
    assert axis.get_ylabel() == "validation DSC"
    history = cascade.found[1].history  # the proposed method is drawn first
    assert axis.lines[0].get_ydata().tolist() == pytest.approx(history.validation_dsc.tolist(), nan_ok=True)

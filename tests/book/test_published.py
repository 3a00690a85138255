"""What the chapters say of published runs."""

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from npcrepro.base.errors import InputError
from npcrepro.book import published as published_module
from npcrepro.book.figures import charts, style
from npcrepro.book.published import Results, on_both, show_leakage
from npcrepro.findings import leakage, observers
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import CASE_COLUMNS
from npcrepro.runs.published import read_published, write_cases

LUO = registry.load("luo2020")
ORGANS = ("BrainStem", "Mandible")


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    """Figures are drawn and closed; what is displayed is collected."""
    shown = []
    monkeypatch.setattr(published_module.plt, "show", lambda: matplotlib.pyplot.close("all"))
    monkeypatch.setattr(published_module, "display", shown.append)
    return shown


def rows_of(method, hits, *, patient=None, structure="BrainStem", seed=0, fold=0, suspect=False, hd95=2.0):
    """Rows of one case in both regions: ``hits`` of 10 voxels found, no other drawn, so that DSC = 2h / (h + 10)."""
    about = {"paper": "luo2020", "method": method, "cohort": "c", "profile": "p", "fold": fold, "seed": seed}
    values = dict.fromkeys(CASE_COLUMNS, 0.5)
    values |= {"case": patient, "patient": patient, "suspect": suspect, "structure": structure, "status": "ok"}
    values |= {"tp": hits, "fp": 0, "fn": 10 - hits, "tn": 90, "surfel_hd95_mm": hd95 if hits else np.nan}
    values |= {"spacing_z_mm": 2.5, "spacing_y_mm": 3.9, "spacing_x_mm": 3.9}
    return [about | values | {"region": region} for region in ("all_slices", "reference_slices")]


def publish(folder, rows):
    """A record with these rows, as `records.publish` would write it."""
    folder.mkdir()
    cases = pd.DataFrame(rows)
    write_cases(folder, cases)
    runs = cases[["method", "fold", "seed"]].drop_duplicates().to_dict("records")
    own = [{**run, "seconds": {"train": 120.0, "predict": 30.0, "all": 150.0}} for run in runs]
    profile = {"name": "p", "width": 0.5, "matrix": [80, 80], "updates": 1000}
    common = {"cohort": "c", "profile": profile, "device": "a card", "finished": "2026-01-02T00:00:00"}
    folds = {0: {"train": list("GHIJ"), "validation": ["K"], "test": list("ACE")}}
    folds[1] = {"train": list("GHIJA"), "validation": ["K"], "test": list("BD")}
    (folder / "runs.json").write_text(json.dumps({"common": common, "folds": folds, "runs": own}))
    curve = [{"stage": "s", "update": update, "loss": 1 / update, "validation_loss": 1 / update} for update in (1, 2)]
    history = [run | point for run in runs for point in curve]
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    return folder


@pytest.fixture
def results(tmp_path):
    """Five patients in two folds, two organs; U-Net finds fewer voxels than two stages, and misses one organ."""
    rows = []
    for i, patient in enumerate("ABCDE"):
        about = {"patient": patient, "fold": i % 2}
        rows += rows_of("two-stage", 8, **about) + rows_of("two-stage", 6, structure="Mandible", **about)
        rows += rows_of("unet", 7 - (i == 0) * 7, **about) + rows_of("unet", 6, structure="Mandible", **about)
    rows += rows_of("two-stage", 0, patient="F", suspect=True) + rows_of("unet", 0, patient="F", suspect=True)
    return Results(LUO, publish(tmp_path / "record", rows))


def dsc(hits):
    return 2 * hits / (hits + 10)


def text_of(styled):
    return styled.to_html()


def test_results_read_a_record(results, tmp_path):
    assert results.structures == ORGANS
    assert results.methods == ("two-stage", "unet")
    assert set(results.patients.patient) == set("ABCDE")
    with pytest.raises(InputError, match="nowhere holds no published runs"):
        Results(LUO, tmp_path / "nowhere")


def test_about_comes_from_the_record(results):
    said = results.about().data
    assert said.startswith("5 patients tested; 1 more with doubtful labels is in no mean, voxels of 2.5 x 3.9 x 3.9")
    results.published.cases["spacing_x_mm"] += 5.7 + np.arange(len(results.published.cases)) % 2
    assert "voxels of 2.5 x 3.9 x 9.6–10.6 mm" in results.about().data
    assert "Networks have 0.5 times the channels of profile `paper`, a matrix of 80 x 80 and 1,000 updates." in said
    assert "A fold has 4 to 5 patients to train, 1 to validate and 2 to 3 to test." in said
    assert said.endswith("Cohort c, profile p, 2 folds, seed 0, a card, 4 runs, 0.2 h in all, made 2026-01-02.")


def test_captions_say_where_a_table_comes_from(results, no_window):
    made = "5 patients, cohort c, profile p, 2 folds, seed 0"
    assert results.made == made
    for table in (results.table(), results.differences(("two-stage", "unet")), *no_window):
        assert made in table.caption
    assert made in results.boxes_by_structure().data


@pytest.mark.parametrize("kind", ["boxes", "boxes_by_structure"])
def test_methods_can_be_left_out_of_a_figure(results, monkeypatch, kind):
    shown = []
    monkeypatch.setattr(f"npcrepro.book.figures.charts.{kind}", lambda rows, *_: shown.append(set(rows.method)))
    argument = {"dsc": "DSC"} if kind == "boxes" else "dsc"
    getattr(results, kind)(argument)
    getattr(results, kind)(argument, leave_out=("unet",))
    assert shown == [{"two-stage", "unet"}, {"two-stage"}]


def test_another_region_has_rows_of_its_own(results):
    folder = results.published.folder
    cases = read_published(folder).cases
    cases.loc[cases.region == "reference_slices", "tp"] = 10
    write_cases(folder, cases)
    inside = Results(LUO, folder, "reference_slices")
    assert set(inside.patients.region) == {"reference_slices"}
    assert inside.made.startswith("5 patients, slices that show the structure, cohort c, ")
    assert inside.mean("two-stage").mean > Results(LUO, folder).mean("two-stage").mean


def test_means_are_over_structures_and_then_over_patients(results):
    assert results.mean("two-stage").mean == pytest.approx((dsc(8) + dsc(6)) / 2)
    assert results.table().data.Mandible[0].startswith(f"{dsc(6):.2f} (")
    missed, found = dsc(6) / 2, (dsc(7) + dsc(6)) / 2
    assert results.mean("unet").mean == pytest.approx((missed + 4 * found) / 5)
    # A distance to what was missed is not left out of the patient's mean: the patient is.
    whole = results.table("surfel_hd95_mm").data["mean"]
    assert (whole[0], whole[1]) == ("2.00 (2.00 to 2.00)", "2.00 (2.00 to 2.00, n = 4)")


def test_differences_are_paired_and_only_the_mean_is_tested(results, monkeypatch):
    found = results.difference("two-stage", "unet").difference
    assert found.n == 5
    assert found.mean == pytest.approx(results.mean("two-stage").mean - results.mean("unet").mean)
    shown = []
    monkeypatch.setattr("npcrepro.book.published.display", shown.append)
    each, (tested,) = results.differences(("two-stage", "unet")).data, shown
    assert tested.data.comparison.tolist() == each.comparison.tolist() == ["Proposed minus U-Net"]
    assert tested.data["mean difference"][0] == f"{found.mean:+.3f}"
    assert each.columns.tolist() == ["comparison", *ORGANS]
    assert each.Mandible[0] == "+0.000 (+0.000 to +0.000)"


def test_a_difference_in_words(results):
    assert results.said("two-stage", "two-stage") == "+0.000 (95 % interval +0.000 to +0.000)"
    assert results.said("two-stage", "unet") == (
        "+{0.mean:.3f} (95 % interval +{0.low:.3f} to +{0.high:.3f})".format(
            results.difference("two-stage", "unet").difference
        )
    )


def test_a_difference_is_of_the_seeds_that_both_have(tmp_path):
    """The seed that one of them lacks would be taken for a difference between the two."""
    found = (("two-stage", 0, 8), ("two-stage", 1, 2), ("unet", 0, 6), ("fcn8", 2, 6))
    rows = [row for m, seed, hits in found for p in "ABCDEF" for row in rows_of(m, hits, patient=p, seed=seed)]
    one = Results(LUO, publish(tmp_path / "r", rows))
    assert one.by_seed("two-stage", "unet").columns.tolist() == [0]
    assert one.seed_by_seed("two-stage", "unet") == "seed by seed +{0:.3f} to +{0:.3f}".format(dsc(8) - dsc(6))
    assert one.difference("two-stage", "unet").difference.mean == pytest.approx(dsc(8) - dsc(6))
    assert one.differences(("two-stage", "unet")).data["mean difference"].tolist() == [f"{dsc(8) - dsc(6):+.3f}"]
    assert np.isnan(one.difference("fcn8", "unet").difference.mean)


def test_few_patients_and_single_seeds_are_told(results, tmp_path):
    said = results.caution("two-stage", "unet", "fcn8")
    assert said.startswith("Intervals of so few patients")
    assert said.endswith("Each method has one seed only, so that chance of training is not in these intervals.")
    rows = [row for seed in (0, 1) for p in "ABCDEF" for row in rows_of("unet", 8, patient=p, seed=seed)]
    rows += [row for p in "ABCDEF" for row in rows_of("two-stage", 8, patient=p)]
    six = Results(LUO, publish(tmp_path / "six", rows))
    assert six.caution().startswith("Of *Proposed* there is one seed only")
    assert six.caution("unet") == ""


def test_a_record_of_two_patients_has_no_interval(tmp_path):
    rows = [row for p in "AB" for m, h in (("two-stage", 8), ("unet", 7)) for row in rows_of(m, h, patient=p)]
    assert "too few patients" in Results(LUO, publish(tmp_path / "r", rows)).said("two-stage", "unet")


def test_the_table_has_a_row_for_two_people(results):
    frame = results.table("dsc").data
    assert frame.columns.tolist() == ["method", "n", *ORGANS, "mean"]
    assert frame.method.tolist() == ["Proposed", "U-Net", "two people, median, other scans"]
    assert frame.BrainStem[0] == f"{dsc(8):.2f} ({dsc(8):.2f} to {dsc(8):.2f})"
    people = observers.agreement().loc["BrainStem"]
    assert frame.BrainStem[2] == f"{people.dsc:.2f} (n = {people.n:.0f})"
    distances = results.table("surfel_hd95_mm").data
    assert distances.BrainStem[1].endswith("n = 4)")
    # Nobody measured this one for two people.
    assert len(results.table("surfel_assd_mm").data) == 2


def test_times_and_device_of_the_runs(results):
    frame = results.runs().data
    assert frame["minutes to train"].tolist() == [2.0, 2.0]
    assert frame["seconds to predict all"].tolist() == [30.0, 30.0]
    assert (frame.runs.tolist(), frame.device.tolist()) == ([2, 2], ["a card"] * 2)


def test_runs_that_diverged_are_named(results):
    assert results.runs().caption == "A run is one fold with one seed"
    next(run for run in results.published.runs if run["method"] == "unet" and run["fold"] == 1)["status"] = "diverged"
    assert results.runs().caption.endswith("as it then was: U-Net, fold 1, seed 0")


def test_curves_name_their_stages_and_have_plain_numbers(results):
    figure = charts.learning_curves(results.published.history, results.paper)
    figure.canvas.draw()
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["s"]
    labels = filter(None, (text.get_text() for text in axis.get_yticklabels(which="both")))
    assert [float(label) for label in labels]
    matplotlib.pyplot.close(figure)


def test_curves_of_some_methods(results, monkeypatch):
    monkeypatch.setattr(matplotlib.pyplot, "show", lambda: None)
    for asked, shown in (((), ["Proposed", "U-Net"]), (("unet",), ["U-Net"])):
        results.learning_curves(*asked)
        assert [axis.get_title() for axis in matplotlib.pyplot.gcf().axes] == shown
        matplotlib.pyplot.close()


def test_figures_of_a_record(results):
    assert "Mean over 2 structures" in results.boxes({"dsc": "DSC"}).data
    results.boxes_by_structure()
    assert "Standard deviation of the fold means, DSC: Proposed 0.000, U-Net 0." in results.by_fold({"dsc": "DSC"}).data
    results.learning_curves()


def test_methods_with_fewer_seeds_are_told(tmp_path):
    rows = [row for seed in (0, 1) for row in rows_of("unet", 8, patient="A", seed=seed)]
    rows += rows_of("two-stage", 8, patient="A")
    found = Results(LUO, publish(tmp_path / "r", rows))
    assert found.made == "1 patient, cohort c, profile p, 1 fold, seeds 0, 1 of 1 method and seed 0 of 1 method"
    assert found.said("two-stage", "unet") == "+0.000 (too few patients for an interval; seed 0, which both have)"
    assert "Where two methods have different seeds" in found.differences(("two-stage", "unet")).caption


def test_seeds_have_means_of_their_own(tmp_path):
    rows = [row for p in "AB" for s, hits in ((0, 10), (1, 0)) for row in rows_of("unet", hits, patient=p, seed=s)]
    rows += [row for p in "AB" for row in rows_of("unet", 10, patient=p, seed=1, structure="Mandible")]
    rows += [row for p in "AB" for row in rows_of("unet", 10, patient=p, structure="Mandible")]
    assert Results(LUO, publish(tmp_path / "r", rows)).means_by_seed("unet") == [1.0, 0.5]


def test_one_structure_is_no_mean(tmp_path):
    rows = [row for p in "ABC" for row in rows_of("two-stage", 8, patient=p)]
    one = Results(LUO, publish(tmp_path / "r", rows))
    assert one.table().data.columns.tolist() == ["method", "n", "BrainStem"]
    assert one.differences(("two-stage", "unet")).data.empty
    assert "BrainStem" in one.boxes({"dsc": "DSC"}).data


def test_the_methods_of_a_figure_have_colours_of_their_own():
    names = ["two-stage", "unet", "fcn8", "mask-rcnn", "two-stage-tuned", "unet-tuned", "nnunet-unet-tuned"]
    names.append("two-stage-long")
    chosen = style.colours(LUO, names)
    assert len({chosen[name] for name in names}) == len(names)
    assert [chosen[name] for name in names[:4]] == [style.colours(LUO)[name] for name in names[:4]]
    assert {chosen["nnunet-unet-tuned"], style.colours(registry.load("li2018"))["nnunet-unet"]} == {style.NNUNET}


def test_a_phantom_and_patients_side_by_side(results, tmp_path):
    """Each has its own n; what one of them lacks is a dash."""
    found = (("two-stage", (8, 9)), ("unet", (6, 6)))
    rows = [row for name, hits in found for patient, hit in zip("PQ", hits, strict=True)
            for row in rows_of(name, hit, patient=patient)]  # fmt: skip
    phantom = Results(LUO, publish(tmp_path / "phantom", rows))
    table = on_both(phantom, results, ("two-stage", "unet"), ("two-stage", "fcn8")).data
    mean = np.mean([dsc(8) - dsc(6), dsc(9) - dsc(6)])
    assert table["phantom, n = 2"].tolist() == [f"{mean:+.3f} (too few patients for an interval)", "–"]
    here = f"patients, n = {results.patients.patient.nunique()}"
    assert table[here][0] == results.said("two-stage", "unet").replace("95 % interval ", "")
    assert "95 %" not in table[here][0]
    assert table.comparison[0] == "Proposed minus U-Net"


def test_leakage_is_shown_with_patients_as_dots(tmp_path, no_window):
    patient_of = {f"{p}{z}": p for p in "ABC" for z in "12"}
    high = [row for case in patient_of for row in rows_of("unet", 8, patient=case)]
    low = [row | {"patient": of} for case, of in patient_of.items() for row in rows_of("unet", 6, patient=case)]
    publish(tmp_path / "luo2020-leakage-slices", high)
    publish(tmp_path / "luo2020-leakage-patients", low)
    # A record of the DSC itself, as publish leaves it.
    for folder in tmp_path.iterdir():
        cases = read_published(folder).cases
        cases["dsc"] = dsc(cases.tp)
        write_cases(folder, cases)
    (pair,) = leakage.pairs(tmp_path, "luo2020")
    assert "By patient: cohort c" in show_leakage(LUO, *pair).data
    frame = no_window[0].data
    assert frame["inflation (95 % interval)"].tolist() == [f"{dsc(8) - dsc(6):+.3f} (+0.139 to +0.139)"] * 2
    assert frame[["patients", "slices"]].to_numpy().tolist() == [[3, 6]] * 2

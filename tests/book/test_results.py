"""Tables, figures and words on the runs of a paper."""

import numpy as np
import pytest
from record_cases import dsc, publish, rows_of

from npcrepro.base.errors import InputError
from npcrepro.book.published import PublishedResults
from npcrepro.protocol import registry

LUO, GUO = registry.load("luo2020"), registry.load("guo2021")


@pytest.fixture
def two_organs(tmp_path):
    """Five patients in two folds; U-Net finds fewer voxels than two stages, and misses one organ. F is doubtful."""
    rows = []
    for i, patient in enumerate("ABCDE"):
        rows += rows_of("two-stage", 8, patient, fold=i % 2)
        rows += rows_of("two-stage", 6, patient, fold=i % 2, structure="Mandible")
        rows += rows_of("unet", 7 - (i == 0) * 7, patient, fold=i % 2)
        rows += rows_of("unet", 6, patient, fold=i % 2, structure="Mandible")
    rows += rows_of("two-stage", 0, "F", suspect=True) + rows_of("unet", 0, "F", suspect=True)
    return PublishedResults(LUO, publish(tmp_path / "luo", rows))


# CNN is always better than CSCN, BUNet always worse and once empty; V-Net is now better, now worse.
HITS = {"cscn": (5, 6, 5, 6), "cnn": (7, 8, 8, 8), "vnet": (4, 7, 5, 6), "bunet": (4, 5, 4, 0)}


def of_hits(folder, hits, patients):
    rows = [
        row
        for name, numbers in hits.items()
        for patient, number in zip(patients, numbers, strict=True)
        for row in rows_of(name, number, patient, structure="GTV", paper="guo2021", suspect=patient == "E")
    ]
    return PublishedResults(GUO, publish(folder, rows))


@pytest.fixture
def tumours(tmp_path):
    """`HITS` in four patients, and a doubtful fifth in whom nothing is found."""
    return of_hits(tmp_path / "guo", {name: (*numbers, 0) for name, numbers in HITS.items()}, "ABCDE")


def test_a_region_that_old_records_lack_is_one_sentence(two_organs):
    with pytest.raises(InputError, match=r"unknown region of these records .+ 'labelled_slices'"):
        two_organs.only("labelled_slices")


def test_means_are_over_structures_and_then_over_patients(two_organs):
    assert two_organs.mean("two-stage").mean == pytest.approx((dsc(8) + dsc(6)) / 2)
    missed, found = dsc(6) / 2, (dsc(7) + dsc(6)) / 2
    assert two_organs.mean("unet").mean == pytest.approx((missed + 4 * found) / 5)


def test_how_much_is_marked_is_a_ratio_of_volumes_and_undefined_values_are_counted(tumours):
    assert tumours.mean_and_sd({"precision": "precision"}).data.precision[3] == "1.00 ± 0.00 (n = 3, 1 left out)"
    assert tumours.volume_ratios() == pytest.approx({"CSCN": 0.55, "CNN": 0.8, "V-Net": 0.55, "BUNet": 0.4})


def test_a_printed_table_beside_ours(tumours):
    printed = [{"model": "CSCN", "assd_mm": 1.212}, {"model": "nobody's", "assd_mm": 2}, {"model": "BUNet"}]
    shown = tumours.beside(printed, {"assd_mm": "voxel_masd_mm"})
    assert shown.data.seeds.tolist() == [1, "–", 1]
    assert shown.data["MASD (mm) reported"].tolist() == ["1.212", "2.000", "–"]
    ours = tumours.averaged.query("method == 'cscn'").voxel_masd_mm.mean()
    assert shown.data["MASD (mm) ours"][0].startswith(f"{ours:.3f} (")
    assert shown.data["MASD (mm) ours"][1] == "–"
    assert "ours with 95 % interval" in shown.caption
    assert "; ours (4 patients" in tumours.beside(printed[1:2], {"assd_mm": "voxel_masd_mm"}).caption
    both = tumours.beside(printed[:1], {"dsc": "dsc"}, also=["all_slices"]).data
    assert both["DSC ours"][0] == both["DSC ours, all slices"][0]
    assert both["DSC ours"][0].startswith(f"{tumours.mean('cscn').mean:.3f}")


def test_methods_with_other_numbers_of_patients_say_so_beside_a_printed_table(tmp_path):
    tested = (("unet", "A"), ("unet", "B"), ("fcn8", "A"))
    rows = [row for method, patient in tested for row in rows_of(method, 6, patient)]
    printed = [{"model": LUO.method(name).title} for name in ("unet", "fcn8")]
    shown = PublishedResults(LUO, publish(tmp_path / "r", rows)).beside(printed, {"dsc": "dsc"})
    assert (shown.data.n.tolist(), shown.caption.count("n: our patients")) == ([2, 1], 1)


def test_differences_are_paired(two_organs):
    found = two_organs.difference("two-stage", "unet").difference
    assert found.n == 5
    assert found.mean == pytest.approx(two_organs.mean("two-stage").mean - two_organs.mean("unet").mean)
    interval = f"95 % interval +{found.low:.3f} to +{found.high:.3f}"
    assert two_organs.difference_text("two-stage", "unet") == f"+{found.mean:.3f} ({interval})"


def test_a_difference_is_of_the_seeds_that_both_have(tmp_path):
    """The seed that one of them lacks would be taken for a difference between the two."""
    found = (("two-stage", 0, 8), ("two-stage", 1, 2), ("unet", 0, 6), ("fcn8", 2, 6))
    one = PublishedResults(
        LUO, publish(tmp_path / "r", [row for m, s, hits in found for p in "AB" for row in rows_of(m, hits, p, seed=s)])
    )
    assert one.by_seed("two-stage", "unet").columns.tolist() == [0]
    step = f"{dsc(8) - dsc(6):+.3f}"
    assert one.seed_by_seed("two-stage", "unet") == f"seed by seed {step} to {step}"
    assert one.means_by_seed("two-stage") == pytest.approx([dsc(8), dsc(2)])
    of_all = (dsc(8) + dsc(2)) / 2 - dsc(6)
    assert one.of_all_seeds("two-stage", "unet") == pytest.approx(of_all)
    shared = f"seed 0, shared; {of_all:+.3f} over all seeds of both methods"
    expected = f"{step} (too few patients for an interval; {shared})"
    assert one.difference_text("two-stage", "unet") == expected
    assert one.made.endswith("1 fold, seeds 0, 1 of 1 method, seed 0 of 1 method and seed 2 of 1 method")
    assert np.isnan(one.difference("fcn8", "unet").difference.mean)


def test_a_rank_needs_an_interval_and_a_test(tumours, tmp_path):
    eight = of_hits(tmp_path / "eight", {name: 2 * numbers for name, numbers in HITS.items()}, "ABCDFGHI")
    assert eight.ranking_text("cscn", ["cnn", "vnet", "bunet"]) == (
        "above that of BUNet; below that of CNN; not told apart from that of V-Net"
    )
    assert eight.ranking_text("cnn", ["cscn", "vnet", "deeplab"]) == "above those of CSCN and V-Net"
    # Four patients have an interval that excludes zero, and no test that could support it.
    assert tumours.difference("cscn", "cnn").difference.high < 0
    assert tumours.ranking_text("cscn", ["cnn"]) == "not told apart from that of CNN"


def test_trainings_that_end_far_apart_are_said(tmp_path):
    """A method whose seeds decide much is not compared in silence."""
    hits = {"two-stage": (8, 2), "unet": (8, 8)}
    rows = [
        row
        for name, numbers in hits.items()
        for seed, number in enumerate(numbers)
        for patient in "ABCDEF"
        for row in rows_of(name, number, patient, seed=seed)
    ]
    said = PublishedResults(LUO, publish(tmp_path / "luo", rows)).caution()
    ends = " and ".join(f"{dsc(number):.2f}" for number in sorted(hits["two-stage"]))
    assert said.startswith(f"The 2 trainings of *Proposed* end between a DSC of {ends}. The seed decides much")
    assert "U-Net" not in said

from math import isnan, nan

import numpy as np
import pandas as pd
import pytest
from core_cases import write_tiny

from npcrepro.cohorts.layout import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.metrics.overlap import METRICS
from npcrepro.runs import evaluation
from npcrepro.runs.evaluation import score_case
from npcrepro.runs.per_patient import by_patient, over_seeds, over_structures


def cohort_of(folder, reference, *, spacing_mm=(3.0, 0.5, 0.5), structures=None, **fields):
    case = CaseArrays("A", "A", np.zeros((1, *reference.shape), np.int16), reference, spacing_mm)
    return prepare(write_tiny(folder / "c", [case], structures=structures or {"GTVp": 1}, **fields), folder / "p")


@pytest.fixture
def boxes(tmp_path):
    """A box of 2 x 4 x 4 voxels in the reference."""
    reference = np.zeros((5, 10, 10), np.uint8)
    reference[1:3, 2:6, 2:6] = 1
    return cohort_of(tmp_path, reference)


def scores(label, cohort):
    rows = score_case(label, cohort.case("A"), cohort, tuple(cohort.structures))
    return {(row["structure"], row["region"]): row for row in rows}


def test_only_the_structures_of_the_method_are_scored(tmp_path):
    reference = np.array([[[1, 2]]], np.uint8)
    cohort = cohort_of(tmp_path, reference, structures={"GTVp": 1, "GTVnd": 2})
    rows = score_case(reference, cohort.case("A"), cohort, ("GTVnd",))
    assert {row["structure"] for row in rows} == {"GTVnd"}


def test_a_box_moved_by_one_slice_and_two_columns(boxes):
    found = np.zeros((5, 10, 10), np.uint8)
    found[2:4, 2:6, 4:8] = 1
    rows = scores(found, boxes)
    everywhere, in_reference = rows["GTVp", "all_slices"], rows["GTVp", "reference_slices"]
    assert set(everywhere) == set(evaluation.CASE_COLUMNS)
    # 1 slice x 4 rows x 2 columns in common, of 32 voxels each.
    assert [everywhere[k] for k in ("tp", "fp", "fn", "tn")] == [8, 24, 24, 500 - 56]
    # The false positives of slice 3 are outside of what the paper looks at.
    assert [in_reference[k] for k in ("tp", "fp", "fn", "tn")] == [8, 8, 24, 200 - 40]
    assert (everywhere["dsc"], in_reference["dsc"]) == (16 / 64, 16 / 48)
    assert (everywhere["jsc"], everywhere["precision"], in_reference["precision"]) == (8 / 56, 0.25, 0.5)
    assert everywhere["corresponding_ratio"] == (8 - 12) / 32
    assert everywhere["status"] == in_reference["status"] == "ok"


def test_volumes_in_millilitres(boxes):
    found = np.zeros((5, 10, 10), np.uint8)
    found[0, 0, :8] = 1
    row = scores(found, boxes)["GTVp", "all_slices"]
    # A voxel has 3 x 0.5 x 0.5 = 0.75 cubic millimetres.
    assert row["reference_ml"] == pytest.approx(32 * 0.75e-3)
    assert row["predicted_ml"] == pytest.approx(8 * 0.75e-3)
    assert [row[f"spacing_{axis}_mm"] for axis in "zyx"] == [3.0, 0.5, 0.5]


def test_the_dsc_of_two_balls(tmp_path):
    """Equal balls at a distance of one radius have 5/16 of their volume in common."""
    z, y, x = np.mgrid[:60, :60, :90]
    balls = [((z - 29.5) ** 2 + (y - 29.5) ** 2 + (x - c) ** 2 <= 24**2).astype(np.uint8) for c in (29.5, 53.5)]
    cohort = cohort_of(tmp_path, balls[0], spacing_mm=(1.0, 1.0, 1.0))
    row = scores(balls[1], cohort)["GTVp", "all_slices"]
    assert row["dsc"] == pytest.approx(5 / 16, abs=0.005)
    assert row["reference_ml"] == pytest.approx(4 / 3 * np.pi * 2.4**3, rel=0.01)


def test_an_unknown_spacing_gives_no_volume(tmp_path):
    reference = np.ones((1, 4, 4), np.uint8)
    row = scores(reference, cohort_of(tmp_path, reference, spacing_known=False))["GTVp", "all_slices"]
    assert row["dsc"] == 1
    assert all(isnan(row[k]) for k in ("reference_ml", "predicted_ml", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm"))


@pytest.mark.parametrize(
    ("in_reference", "found", "status", "inside"),
    [
        (1, 1, "ok", "ok"),
        (1, 0, "pred_empty", "pred_empty"),
        (0, 1, "ref_empty", "both_empty"),
        (0, 0, "both_empty", "both_empty"),
    ],
)
def test_status(tmp_path, in_reference, found, status, inside):
    reference, label = np.zeros((2, 2, 4, 4), np.uint8)
    reference[0, 0], label[0, 0] = in_reference, found
    rows = scores(label, cohort_of(tmp_path, reference))
    assert rows["GTVp", "all_slices"]["status"] == status
    # Without the structure in the reference there is no slice to look at.
    assert rows["GTVp", "reference_slices"]["status"] == inside
    assert isnan(rows["GTVp", "all_slices"]["dsc"]) == (status == "both_empty")


def test_each_structure_is_scored_by_its_own_value_and_slices(tmp_path):
    reference = np.zeros((3, 4, 4), np.uint8)
    reference[0, :2], reference[2, :1] = 1, 5
    label = np.where(reference == 5, 2, 0).astype(np.uint8)
    rows = scores(label, cohort_of(tmp_path, reference, structures={"GTVp": 1, "GTVnd": 5}))
    assert [(key, row["tp"], row["fn"]) for key, row in rows.items()] == [
        (("GTVp", "all_slices"), 0, 8),
        (("GTVp", "reference_slices"), 0, 8),
        (("GTVnd", "all_slices"), 4, 0),
        (("GTVnd", "reference_slices"), 4, 0),
    ]


def test_a_structure_of_several_codes_is_scored_as_their_union(tmp_path):
    reference = np.array([[[1, 2, 2, 0]]], np.uint8)
    cohort = cohort_of(tmp_path, reference, structures={"GTVp": 1, "CTV2": [1, 2]})
    rows = scores(np.array([[[0, 0, 2, 0]]], np.uint8), cohort)
    counts = {key[0]: (row["tp"], row["fp"], row["fn"], row["tn"]) for key, row in rows.items()}
    assert counts == {"GTVp": (0, 0, 1, 3), "CTV2": (1, 0, 2, 1)}


def test_a_structure_that_nobody_drew_is_not_scored(tmp_path):
    image, label = np.zeros((1, 1, 1, 3), np.int16), np.array([[[1, 0, 0]]], np.uint8)
    case = CaseArrays("A", "A", image, label, (1.0, 1.0, 1.0), not_contoured=("GTVnd",))
    cohort = prepare(write_tiny(tmp_path / "c", [case], structures={"GTVp": 1, "GTVnd": 2}), tmp_path / "p")
    assert {key[0] for key in scores(np.array([[[1, 2, 0]]], np.uint8), cohort)} == {"GTVp"}


def test_distances_and_areas_are_those_of_the_whole_case(tmp_path):
    """Two boxes of one voxel's height, apart by two voxels of 0.5 mm; the probability tells them apart wholly."""
    reference, label = np.zeros((2, 3, 6, 12), np.uint8)
    reference[1, 2:4, 2:4], label[1, 2:4, 4:6] = 1, 1
    cohort = cohort_of(tmp_path, reference)
    probability = np.where(reference == 1, 200, 10).astype(np.uint8)[None]
    row, part = score_case(label, cohort.case("A"), cohort, ["GTVp"], probability)
    assert row["voxel_hd_mm"] == pytest.approx(1.0)
    assert row["voxel_masd_mm"] == pytest.approx(0.75)
    assert (row["average_precision"], row["auc"]) == (1, 1)
    assert row["relative_volume_difference"] == 0
    assert isnan(part["voxel_hd_mm"])
    assert isnan(part["auc"])
    assert isnan(score_case(label, cohort.case("A"), cohort, ["GTVp"])[0]["auc"])


def test_a_single_slice_is_scored_by_its_outline(tmp_path):
    reference, label = np.zeros((2, 1, 9, 9), np.uint8)
    reference[0, 2:7, 2:7], label[0, 2:7, 2:7] = 1, 1
    label[0, 4, 4] = 0  # a hole is farther from the outline than from the pixels of a flat body
    row = scores(label, cohort_of(tmp_path, reference, spacing_mm=(5.0, 1.0, 1.0)))["GTVp", "all_slices"]
    assert row["voxel_hd_mm"] == pytest.approx(1.0)


def test_an_unknown_spacing_and_an_empty_prediction_give_no_distance(tmp_path):
    reference = np.ones((1, 4, 4), np.uint8)
    unknown = scores(reference, cohort_of(tmp_path / "a", reference, spacing_known=False))["GTVp", "all_slices"]
    empty = scores(reference * 0, cohort_of(tmp_path / "b", reference))["GTVp", "all_slices"]
    for row in (unknown, empty):
        assert all(isnan(row[name]) for name in ("voxel_hd_mm", "surfel_hd95_mm", "surfel_masd_mm"))
    assert isnan(unknown["surfel_nsd_1mm"])
    assert empty["surfel_nsd_1mm"] == 0


def table(*rows):
    """Rows of cases.csv: (case, patient, seed, tp, fp, fn, tn, reference_ml, predicted_ml)."""
    names = ["case", "patient", "seed", "tp", "fp", "fn", "tn", "reference_ml", "predicted_ml"]
    frame = pd.DataFrame(rows, columns=names)
    same = {"paper": "li2018", "method": "stepwise", "cohort": "tiny", "profile": "tiny", "fold": 0, "suspect": False}
    return frame.assign(**same, structure="GTVp", region="all_slices")


def test_the_voxels_of_a_patients_cases_are_pooled():
    patients = by_patient(
        table(
            ("a1", "A", 0, 1, 0, 1, 8, 0.5, 0.25), ("a2", "A", 0, 8, 2, 0, 0, 2.0, 2.5), ("b", "B", 0, 1, 1, 1, 7, 1, 1)
        )
    )
    assert list(patients.patient) == ["A", "B"]
    first = patients.iloc[0]
    assert [first[k] for k in ("tp", "fp", "fn", "tn")] == [9, 2, 1, 8]
    # Not the mean of the cases, which is (2/3 + 16/18) / 2.
    assert first.dsc == pytest.approx(18 / 21)
    assert (first.reference_ml, first.predicted_ml) == (2.5, 2.75)
    assert patients.iloc[1].dsc == pytest.approx(0.5)


def test_a_patient_without_anything_has_a_status_and_no_number():
    patient = by_patient(table(("a", "A", 0, 0, 0, 0, 9, 0.0, 0.0))).iloc[0]
    assert patient.status == "both_empty"
    assert isnan(patient.dsc)
    assert patient.specificity == 1


def test_unknown_volumes_stay_unknown():
    patient = by_patient(table(("a", "A", 0, 1, 0, 0, 9, nan, nan))).iloc[0]
    assert isnan(patient.reference_ml)
    assert patient.dsc == 1


def test_methods_seeds_structures_and_suspects_are_kept_apart():
    row = ("a", "A", 0, 1, 0, 0, 9, 1.0, 1.0)
    frames = [table(row), table(row).assign(method="unfused"), table(row).assign(structure="GTVnd")]
    frames += [table(row).assign(suspect=True), table(row).assign(seed=1), table(row).assign(region="reference_slices")]
    assert len(by_patient(pd.concat(frames))) == 6


def test_seeds_are_averaged_within_a_patient():
    rows = [("a", "A", seed, 1, 1, fn, 7, 1.0, predicted) for seed, fn, predicted in ((0, 0, 1.0), (1, 2, 3.0))]
    averaged = over_seeds(by_patient(table(*rows, ("b", "B", 0, 1, 0, 0, 9, 1.0, 1.0))))
    assert list(averaged.patient) == ["A", "B"]
    assert averaged.iloc[0].dsc == pytest.approx((2 / 3 + 2 / 5) / 2)
    assert averaged.iloc[0].predicted_ml == 2.0
    assert averaged.iloc[1].dsc == 1
    assert set(METRICS) <= set(averaged.columns)


def test_what_cannot_be_added_is_averaged_and_undefined_where_one_is():
    first = table(("a1", "A", 0, 1, 0, 0, 9, 1.0, 1.0), ("b1", "B", 0, 1, 0, 0, 9, 1.0, 1.0)).assign(auc=[0.5, 0.5])
    second = table(("a2", "A", 0, 1, 0, 0, 9, 1.0, 1.0), ("b2", "B", 0, 1, 0, 0, 9, 1.0, 1.0)).assign(auc=[1.0, nan])
    patients = by_patient(pd.concat([first, second]))
    assert patients.auc.tolist() == pytest.approx([0.75, nan], nan_ok=True)


def test_records_from_before_a_metric_was_added_are_read_with_nan_for_it():
    patients = by_patient(table(("a", "A", 0, 1, 0, 0, 9, 1.0, 1.0)))
    assert isnan(patients.auc[0])
    assert isnan(over_seeds(patients).voxel_hd_mm[0])


def test_a_seed_without_a_value_is_not_hidden():
    patients = by_patient(table(("a", "A", 0, 1, 0, 0, 9, 1.0, 1.0), ("a", "A", 1, 0, 0, 0, 9, 0.0, 0.0)))
    assert isnan(over_seeds(patients).dsc[0])


def test_the_mean_over_structures_leaves_out_what_neither_mask_shows():
    """A false alarm and a miss count; so does a seed in which nothing was drawn, by what it did draw."""
    right = table(("a", "A", 0, 8, 1, 1, 0, 9.0, 9.0), ("a", "A", 1, 8, 1, 1, 0, 9.0, 9.0)).assign(auc=0.75)
    other = table(("a", "A", 0, 0, 0, 0, 10, 0.0, 0.0), ("a", "A", 1, 0, 2, 0, 8, 0.0, 2.0)).assign(auc=nan)
    means = over_structures(by_patient(pd.concat([right, other.assign(structure="GTVnd")])))
    assert means.seed.tolist() == [0, 1]
    assert means.dsc.tolist() == pytest.approx([16 / 18, 8 / 18])
    # The area is undefined for the false alarm, and so is then the mean.
    assert means.auc.tolist() == pytest.approx([0.75, nan], nan_ok=True)
    assert means.predicted_ml.tolist() == [9.0, 11.0]
    assert means.structure.unique().tolist() == ["mean"]
    # Each seed counts, also where a structure has a value in one alone.
    assert over_seeds(means).dsc.tolist() == pytest.approx([12 / 18])


def test_a_patient_of_whom_nothing_is_shown_keeps_a_row_in_the_mean_over_structures():
    """As one structure by itself has it, so that seeds and methods have the same patients."""
    nothing, alarm = ("a", "A", 0, 0, 0, 0, 10, 0.0, 0.0), ("a", "A", 1, 0, 2, 0, 8, 0.0, 2.0)
    both = pd.concat([table(nothing, alarm).assign(structure=name) for name in ("GTVp", "GTVnd")])
    means = over_structures(by_patient(both))
    assert means.seed.tolist() == [0, 1]
    assert means.dsc.tolist() == pytest.approx([nan, 0.0], nan_ok=True)
    assert means.status.tolist() == ["both_empty", "ref_empty"]
    assert means.predicted_ml.tolist() == [0.0, 4.0]
    assert isnan(over_seeds(means).dsc[0])


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("ok", "both_empty"), "ok"),
        (("ok", "ref_empty"), "ref_empty"),
        (("both_empty", "pred_empty"), "pred_empty"),
        (("ref_empty", "pred_empty", "ok"), "pred_empty"),
    ],
)
def test_the_status_of_a_mean_says_why_a_distance_is_missing(statuses, expected):
    counts = {"ok": (8, 1, 1, 0), "pred_empty": (0, 0, 2, 8), "ref_empty": (0, 2, 0, 8), "both_empty": (0, 0, 0, 10)}
    frames = [
        table(("a", "A", 0, *counts[status], 1.0, 1.0)).assign(structure=f"S{number}")
        for number, status in enumerate(statuses)
    ]
    assert over_structures(by_patient(pd.concat(frames))).status.tolist() == [expected]

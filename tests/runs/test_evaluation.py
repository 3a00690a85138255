from math import isnan

import numpy as np
import pytest
from core_cases import write_tiny

from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.findings.claims.source import DECIDING
from npcrepro.runs import evaluation
from npcrepro.runs.evaluation import score_case


def cohort_of(folder, reference, *, spacing_mm=(3.0, 0.5, 0.5), structures=None, not_contoured=(), **fields):
    image = np.zeros((1, *reference.shape), np.int16)
    case = CaseArrays("A", "A", image, reference, spacing_mm, not_contoured=not_contoured)
    return prepare(write_tiny(folder / "c", [case], structures=structures or {"GTVp": 1}, **fields), folder / "p")


def scores(label, cohort, probability=None):
    rows = score_case(label, cohort.case("A"), cohort, tuple(cohort.structures), probability)
    return {(row["structure"], row["region"]): row for row in rows}


def test_a_box_moved_by_one_slice_and_two_columns(tmp_path):
    reference, found = np.zeros((2, 5, 10, 10), np.uint8)
    reference[1:3, 2:6, 2:6], found[2:4, 2:6, 4:8] = 1, 1
    rows = scores(found, cohort_of(tmp_path, reference))
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
    # A voxel has 3 x 0.5 x 0.5 = 0.75 cubic millimetres.
    assert everywhere["reference_ml"] == pytest.approx(32 * 0.75e-3)
    assert in_reference["predicted_ml"] == pytest.approx(16 * 0.75e-3)
    assert [everywhere[f"spacing_{axis}_mm"] for axis in "zyx"] == [3.0, 0.5, 0.5]


def test_labelled_slices_show_any_structure_of_the_method(tmp_path):
    """Of four slices the second shows one organ, the third the other, the first an organ that the method leaves out."""
    reference = np.zeros((4, 2, 2), np.uint8)
    reference[0, 0, 0], reference[1, 0, 0], reference[2, 0, 0] = 3, 1, 2
    cohort = cohort_of(tmp_path, reference, structures={"BrainStem": 1, "Chiasm": 2, "Mandible": 3})
    rows = score_case(np.ones_like(reference), cohort.case("A"), cohort, ("BrainStem", "Chiasm"))
    counts = {(row["structure"], row["region"]): (row["tp"], row["fp"], row["fn"], row["tn"]) for row in rows}
    assert counts["BrainStem", "all_slices"] == (1, 15, 0, 0)
    assert counts["BrainStem", "reference_slices"] == (1, 3, 0, 0)
    assert counts["BrainStem", "labelled_slices"] == (1, 7, 0, 0)
    assert counts["Chiasm", "labelled_slices"] == (0, 0, 1, 7)
    nothing = cohort_of(tmp_path / "n", reference * 0, structures={"BrainStem": 1}, not_contoured=("BrainStem",))
    assert score_case(reference, nothing.case("A"), nothing, ("BrainStem",)) == []


def test_a_structure_of_several_codes_is_their_union_and_one_that_nobody_drew_is_not_scored(tmp_path):
    codes = {"GTVp": 1, "CTV2": [1, 2], "GTVnd": 3}
    reference = np.array([[[1, 2, 2, 0]]], np.uint8)
    cohort = cohort_of(tmp_path, reference, structures=codes, not_contoured=("GTVnd",))
    rows = scores(np.array([[[3, 0, 2, 0]]], np.uint8), cohort)
    counts = {key[0]: (row["tp"], row["fp"], row["fn"], row["tn"]) for key, row in rows.items()}
    assert counts == {"GTVp": (0, 0, 1, 3), "CTV2": (1, 0, 2, 1)}


def test_distances_and_areas_are_those_of_the_whole_case(tmp_path):
    """Two boxes of one voxel's height, apart by two voxels of 0.5 mm; the probability tells them apart wholly."""
    reference, label = np.zeros((2, 3, 6, 12), np.uint8)
    reference[1, 2:4, 2:4], label[1, 2:4, 4:6] = 1, 1
    cohort = cohort_of(tmp_path, reference)
    row, part, _ = scores(label, cohort, np.where(reference == 1, 200, 10).astype(np.uint8)[None]).values()
    assert row["voxel_hd_mm"] == pytest.approx(1.0)
    assert row["voxel_masd_mm"] == pytest.approx(0.75)
    assert (row["average_precision"], row["auc"], row["relative_volume_difference"]) == (1, 1, 0)
    certain, doubtful = 4 * 200, (3 * 6 * 12 - 4) * 10
    assert row["soft_dice_loss"] == pytest.approx(1 - 2 * certain / (certain + doubtful + 4 * 255))
    assert (row["components"], row["reference_components"], row["axial_dsc"], row["slice_hd_mm"]) == (1, 1, 0, 1)
    assert all(isnan(part[name]) for name in evaluation.WHOLE)
    assert isnan(part["voxel_hd_mm"])
    assert isnan(part["auc"])
    assert isnan(scores(label, cohort)["GTVp", "all_slices"]["auc"])


def test_every_number_that_claims_may_rest_on_is_a_column():
    wanted = ["components", "reference_components", "soft_dice_loss", "slice_hd_mm", "slice_hd95_mm"]
    wanted += ["predicted_area_mm2", "reference_area_mm2", "dsc_validated", "validated_threshold"]
    wanted += [f"{plane}_dsc" for plane in ("axial", "coronal", "sagittal")]
    wanted += [f"{side}_mm" for side in ("front", "back", "left", "right", "top", "bottom")]
    assert set(wanted) <= {*evaluation.METRICS, *evaluation.ADDED} <= set(evaluation.CASE_COLUMNS)
    assert set(wanted) <= set(DECIDING)


def test_a_single_slice_is_scored_by_its_outline(tmp_path):
    reference, label = np.zeros((2, 1, 9, 9), np.uint8)
    reference[0, 2:7, 2:7], label[0, 2:7, 2:7] = 1, 1
    label[0, 4, 4] = 0  # a hole is farther from the outline than from the pixels of a flat body
    row = scores(label, cohort_of(tmp_path, reference, spacing_mm=(5.0, 1.0, 1.0)))["GTVp", "all_slices"]
    assert row["voxel_hd_mm"] == pytest.approx(1.0)


def test_an_unknown_spacing_gives_no_volume_and_like_an_empty_prediction_no_distance(tmp_path):
    reference = np.ones((1, 4, 4), np.uint8)
    unknown = scores(reference, cohort_of(tmp_path / "a", reference, spacing_known=False))["GTVp", "all_slices"]
    empty = scores(reference * 0, cohort_of(tmp_path / "b", reference))["GTVp", "all_slices"]
    for row in (unknown, empty):
        assert all(isnan(row[name]) for name in ("voxel_hd_mm", "surfel_hd95_mm", "surfel_masd_mm"))
    assert unknown["dsc"] == 1
    assert all(isnan(unknown[k]) for k in ("reference_ml", "predicted_ml", "spacing_z_mm", "spacing_x_mm"))
    assert isnan(unknown["surfel_nsd_1mm"])
    assert empty["surfel_nsd_1mm"] == 0

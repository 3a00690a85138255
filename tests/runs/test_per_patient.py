from math import isnan, nan

import pandas as pd
import pytest

from npcrepro.metrics.overlap import METRICS
from npcrepro.runs.per_patient import by_patient, over_seeds, over_structures


def table(*rows):
    """Rows of cases.csv: (case, patient, seed, tp, fp, fn, tn, reference_ml, predicted_ml)."""
    names = ["case", "patient", "seed", "tp", "fp", "fn", "tn", "reference_ml", "predicted_ml"]
    frame = pd.DataFrame(rows, columns=names)
    same = {"paper": "li2018", "method": "stepwise", "cohort": "tiny", "profile": "tiny", "fold": 0, "suspect": False}
    return frame.assign(**same, structure="GTVp", region="all_slices")


def test_the_voxels_of_a_patients_cases_are_pooled():
    cases = [("a1", "A", 0, 1, 0, 1, 8, 0.5, 0.25), ("a2", "A", 0, 8, 2, 0, 0, 2.0, 2.5)]
    patients = by_patient(table(*cases, ("b", "B", 0, 1, 1, 1, 7, 1, 1), ("c", "C", 0, 0, 0, 0, 9, nan, nan)))
    first, second, third = patients.itertuples()
    assert [first.tp, first.fp, first.fn, first.tn] == [9, 2, 1, 8]
    # Not the mean of the cases, which is (2/3 + 16/18) / 2.
    assert first.dsc == pytest.approx(18 / 21)
    assert (first.reference_ml, first.predicted_ml) == (2.5, 2.75)
    assert second.dsc == pytest.approx(0.5)
    # Without a voxel in either mask there is a status and no number; unknown volumes stay unknown.
    assert (third.status, third.specificity) == ("both_empty", 1)
    assert isnan(third.dsc)
    assert isnan(third.reference_ml)


def test_seeds_are_averaged_within_a_patient_and_none_without_a_value_is_hidden():
    rows = [("a", "A", seed, 1, 1, fn, 7, 1.0, predicted) for seed, fn, predicted in ((0, 0, 1.0), (1, 2, 3.0))]
    rows += [("b", "B", 0, 1, 0, 0, 9, 1.0, 1.0), ("b", "B", 1, 0, 0, 0, 9, 0.0, 0.0)]
    averaged = over_seeds(by_patient(table(*rows)))
    assert list(averaged.patient) == ["A", "B"]
    assert averaged.dsc.tolist() == pytest.approx([(2 / 3 + 2 / 5) / 2, nan], nan_ok=True)
    assert averaged.predicted_ml.tolist() == [2.0, 0.5]
    assert set(METRICS) <= set(averaged.columns)


def test_a_case_in_which_neither_mask_shows_anything_leaves_the_patients_averages_as_they_are():
    cases = table(("a1", "A", 0, 1, 0, 0, 9, 1.0, 1.0), ("a2", "A", 0, 0, 0, 0, 9, 0.0, 0.0)).assign(auc=[0.5, nan])
    assert by_patient(cases).auc.tolist() == [0.5]


def test_what_cannot_be_added_is_averaged_and_undefined_where_one_is():
    first = table(("a1", "A", 0, 1, 0, 0, 9, 1.0, 1.0), ("b1", "B", 0, 1, 0, 0, 9, 1.0, 1.0)).assign(auc=[0.5, 0.5])
    second = table(("a2", "A", 0, 1, 0, 0, 9, 1.0, 1.0), ("b2", "B", 0, 1, 0, 0, 9, 1.0, 1.0)).assign(auc=[1.0, nan])
    patients = by_patient(pd.concat([first, second]))
    assert patients.auc.tolist() == pytest.approx([0.75, nan], nan_ok=True)
    # Records from before a metric was added have no column of it.
    assert patients.voxel_hd_mm.isna().all()
    assert over_seeds(patients).voxel_hd_mm.isna().all()


def test_pieces_and_areas_are_added_as_volumes_are_and_old_records_have_none():
    two = table(("a1", "A", 0, 1, 0, 0, 9, 1.0, 1.0), ("a2", "A", 0, 1, 0, 0, 9, 1.0, 1.0))
    rows = two.assign(components=[2, 3], reference_area_mm2=[10.0, 20.5], axial_dsc=[0.5, 1.0])
    (row,) = by_patient(rows).itertuples()
    assert (row.components, row.reference_area_mm2, row.axial_dsc) == (5, 30.5, 0.75)
    assert isnan(row.reference_components)
    both = over_structures(by_patient(pd.concat([rows, rows.assign(structure="GTVnd")])))
    assert (both.components[0], both.axial_dsc[0]) == (10, 0.75)
    old = over_seeds(over_structures(by_patient(two)))
    assert isnan(old.components[0])
    assert old.predicted_ml[0] == 2


def test_the_dsc_at_the_validated_threshold_is_pooled_as_the_dsc_is():
    """Slices as cases: one without the structure would leave a mean of the slices undefined."""
    counts = [(8, 0, 2, 0), (0, 0, 0, 10), (0, 0, 0, 10)]
    rows = table(*((f"a{number}", "A", 0, *count, 1.0, 1.0) for number, count in enumerate(counts)))
    chosen = rows.assign(tp_validated=[9, 0, 0], fp_validated=[1, 3, 0], validated_threshold=0.3)
    chosen = chosen.assign(dsc_validated=[18 / 20, 0.0, nan])
    (row,) = by_patient(chosen).itertuples()
    assert (row.dsc_validated, row.validated_threshold) == (pytest.approx(18 / (10 + 13)), 0.3)
    assert row.dsc == pytest.approx(16 / 18)
    (old,) = by_patient(rows).itertuples()
    assert isnan(old.dsc_validated)
    (nothing,) = by_patient(chosen[chosen.case == "a2"]).itertuples()
    assert isnan(nothing.dsc_validated)


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
    means = over_structures(
        by_patient(pd.concat([table(nothing, alarm).assign(structure=name) for name in ("GTVp", "GTVnd")]))
    )
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

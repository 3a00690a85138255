"""What splitting by slice does to the numbers."""

import pandas as pd
import pytest

from npcrepro.base.errors import InputError
from npcrepro.findings import leakage


def cases(dsc, patient_of=None, structure="Organ", method="unet", seed=0, shown=True, suspect=False):
    """Rows of ``cases.csv``: DSC by slice; each slice is a patient unless ``patient_of`` says whose it is."""
    rows = [
        {"method": method, "seed": seed, "case": case, "patient": patient_of[case] if patient_of else case}
        | {"structure": structure, "region": region, "suspect": suspect, "dsc": value}
        | {"tp": 5 if shown else 0, "fn": 5 if shown else 0}
        for case, value in dsc.items()
        for region in ("all_slices", "reference_slices")
    ]
    return pd.DataFrame(rows)


PATIENTS = {"A1": "A", "A2": "A", "A3": "A", "B1": "B", "C1": "C", "D1": "D"}
LOW = {"A1": 0.5, "A2": 0.5, "A3": 0.5, "B1": 0.5, "C1": 0.4, "D1": 0.6}
HIGH = {"A1": 0.8, "A2": 0.9, "A3": 0.7, "B1": 0.6, "C1": 0.5, "D1": 0.7}


def row(table, structure, method="unet"):
    return table[(table.structure == structure) & (table.method == method)].iloc[0]


def test_slices_are_averaged_within_a_patient():
    table = leakage.inflation(cases(HIGH), cases(LOW, PATIENTS))
    found = row(table, "Organ")
    assert (found.patients, found.slices) == (4, 6)
    assert found.by_slice == pytest.approx(2.6 / 4)
    assert found.by_patient == pytest.approx(2.0 / 4)
    assert found.inflation == pytest.approx(0.15)  # 0.3 in the patient of three slices, 0.1 in three others
    assert 0.0999 < found.low < 0.15 < found.high < 0.3001
    # One structure is all structures.
    assert row(table, leakage.ALL).drop("structure").tolist() == found.drop("structure").tolist()


def test_the_mean_over_the_structures_of_a_slice():
    first, second = ({"A1": 0.9, "B1": 0.9, "C1": 0.9}, {"A1": 0.5, "B1": 0.5, "C1": 0.5})
    by_slice = pd.concat([cases(first), cases({"A1": 0.2}, structure="Other")])
    by_patient = pd.concat([cases(second, PATIENTS), cases({"A1": 0.4}, PATIENTS, structure="Other")])
    whole = row(leakage.inflation(by_slice, by_patient), leakage.ALL)
    # Slice A1: the mean of 0.4 and -0.2; the others 0.4.
    assert (whole.slices, whole.inflation) == (3, pytest.approx(0.9 / 3))


def test_what_does_not_count():
    """A structure that the slice does not show, a doubtful label, and the region with slices of other patients."""
    ignored = [{"shown": False}, {"suspect": True}]
    by_slice, by_patient = cases(HIGH), cases(LOW, PATIENTS)
    expected = leakage.inflation(by_slice, by_patient)
    for fields in ignored:
        more = cases({"D2": 1.0}, structure="Organ", **fields), cases({"D2": 0.0}, {"D2": "D"}, **fields)
        found = leakage.inflation(pd.concat([by_slice, more[0]]), pd.concat([by_patient, more[1]]))
        pd.testing.assert_frame_equal(found, expected)
    by_slice.loc[by_slice.region == "all_slices", "dsc"] = 0.0
    pd.testing.assert_frame_equal(leakage.inflation(by_slice, by_patient), expected)


def test_seeds_are_averaged_and_methods_kept_apart():
    by_slice = pd.concat([cases(HIGH), cases(LOW, seed=1), cases(LOW, method="fcn8")])
    by_patient = pd.concat([cases(LOW, PATIENTS), cases(LOW, PATIENTS, seed=1), cases(LOW, PATIENTS, method="fcn8")])
    table = leakage.inflation(by_slice, by_patient)
    assert row(table, "Organ").inflation == pytest.approx(0.15 / 2)
    assert (row(table, "Organ").patients, row(table, "Organ").slices) == (4, 6)
    assert row(table, "Organ", "fcn8").inflation == 0


def test_splits_without_a_slice_in_common():
    with pytest.raises(InputError, match="no slice of unet with seed 1 was tested in both splits"):
        leakage.inflation(pd.concat([cases(HIGH), cases(HIGH, seed=1)]), cases(LOW, PATIENTS))
    with pytest.raises(InputError, match="no slice of unet with seed 0"):
        leakage.inflation(cases({"A1": 0.8}), cases({"B1": 0.5}, PATIENTS))

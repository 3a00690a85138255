"""Slices as cases of their own."""

import numpy as np
import pytest
from core_cases import case_arrays, write_tiny

from npcrepro.cohorts.check import check
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.prepared import prepare
from npcrepro.cohorts.slices import write_slices


@pytest.fixture
def prepared(tmp_path):
    return prepare(write_tiny(tmp_path / "cohort", [case_arrays(f"P{i}", i) for i in range(4)]), tmp_path / "prepared")


@pytest.mark.parametrize("by_patient", [True, False])
def test_every_slice_with_a_structure_is_a_case(tmp_path, prepared, by_patient):
    cohort = write_slices(prepared, tmp_path / "slices", by_patient=by_patient)
    assert check(tmp_path / "slices") == []
    assert [case.name for case in cohort.cases] == [f"P{i}_{z:03d}" for i in range(4) for z in (1, 2)]
    again = prepare(cohort, tmp_path / "p")
    for case in again.case_names:
        whole, z = prepared.case(case[:2]), int(case[-3:])
        np.testing.assert_array_equal(again.case(case).image[:, 0], whole.image[:, z])
        np.testing.assert_array_equal(again.case(case).label[0], whole.label[z])


def test_only_the_split_differs(tmp_path, prepared):
    together = write_slices(prepared, tmp_path / "a", by_patient=True)
    apart = write_slices(prepared, tmp_path / "b", by_patient=False)
    assert together.patients == ("P0", "P1", "P2", "P3")
    assert apart.patients == tuple(case.name for case in apart.cases)

    def shared(cohort):
        """Patients who train and are tested, over the folds of a split."""
        for fold in split_patients(cohort, kind="k-fold", folds=4, validation=0).folds:
            train, test = ({case[:2] for case in cohort.cases_of(part)} for part in (fold.train, fold.test))
            yield from train & test

    assert list(shared(together)) == []
    assert list(shared(apart))

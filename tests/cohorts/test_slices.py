"""Slices as cases of their own."""

import numpy as np
from core_cases import case_arrays, write_tiny

from npcrepro.cohorts.check import check
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.prepared import prepare
from npcrepro.cohorts.slices import write_slices


def test_every_slice_with_a_structure_is_a_case_and_only_the_split_differs(tmp_path):
    whole = prepare(write_tiny(tmp_path / "cohort", [case_arrays(f"P{i}", i) for i in range(4)]), tmp_path / "prepared")
    for by_patient in (True, False):
        cohort = write_slices(whole, tmp_path / f"slices-{by_patient}", by_patient=by_patient)
        assert check(cohort.root) == []
        assert cohort.case_names == [f"P{i}_{z:03d}" for i in range(4) for z in (1, 2)]
        assert cohort.patients == (whole.patients if by_patient else tuple(cohort.case_names))
        again = prepare(cohort, tmp_path / "again")
        for name in again.case_names:
            case, z = whole.case(name[:2]), int(name[-3:])
            np.testing.assert_array_equal(again.case(name).image[:, 0], case.image[:, z])
            np.testing.assert_array_equal(again.case(name).label[0], case.label[z])
        shared = set()  # patients who train and are tested
        for fold in split_patients(cohort, kind="k-fold", folds=4, validation=0).folds:
            train, test = ({case[:2] for case in cohort.cases_of(part)} for part in (fold.train, fold.test))
            shared |= train & test
        assert bool(shared) != by_patient

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import Case, Cohort
from npcrepro.cohorts.folds import as_nnunet, split_patients


def cohort_of(groups, suspects=()):
    """A cohort without files, from case: patient."""
    cases = tuple(Case(name, patient, suspect=name in suspects) for name, patient in sorted(groups.items()))
    return Cohort("tiny", ("T1",), {"GTVp": (1,)}, cases)


def patients(n):
    return cohort_of({f"case{i:02d}": f"p{i:02d}" for i in range(n)})


@given(
    groups=st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 9).map("p{}".format), min_size=1),
    suspects=st.sets(st.text("abcdef", min_size=1, max_size=3)),
    seed=st.integers(0, 2**31),
    folds=st.integers(2, 5),
    validation=st.integers(0, 2),
    kind=st.sampled_from(["leave-one-out", "k-fold", "all"]),
)
def test_folds_never_share_a_patient(groups, suspects, seed, folds, validation, kind):
    cohort = cohort_of(groups, suspects)
    usable = {case.patient for case in cohort.cases if not case.suspect}
    try:
        split = split_patients(cohort, kind, folds=folds, seed=seed, validation=validation)
    except InputError:
        # Refused only where some fold cannot have its patients.
        largest = {"leave-one-out": 1, "k-fold": -(-len(usable) // folds), "all": 0}[kind]
        assert len(usable) - largest < validation + 1 or (kind == "k-fold" and folds > len(cohort.patients))
        return
    for fold in split.folds:
        roles = [set(fold.train), set(fold.validation), set(fold.test)]
        assert sum(map(len, roles)) == len(set.union(*roles))
        assert bool(fold.test) == (kind != "all")
        assert fold.train
        assert len(fold.validation) == validation
        assert roles[0] | roles[1] == usable - roles[2]
    tested = [patient for fold in split.folds for patient in fold.test]
    assert sorted(tested) == ([] if kind == "all" else sorted(cohort.patients))
    assert split_patients(cohort, kind, folds=folds, seed=seed, validation=validation) == split


def test_seed_changes_k_fold_and_validation_changes_with_the_fold():
    splits = [split_patients(patients(20), "k-fold", seed=seed) for seed in (1, 2)]
    assert splits[0].folds != splits[1].folds
    assert [len(fold.test) for fold in splits[0].folds] == [4] * 5
    split = split_patients(patients(20), "leave-one-out")
    assert len({fold.validation for fold in split.folds}) > 5


def test_split_hash_is_stable():
    # Records name this hash: it must not change with a library, a machine or a release.
    assert (
        split_patients(patients(7), "k-fold", folds=3).sha256
        == "653cdf0e731c179168e588b7511c76baad17a7e3ef8013f9ba69156f97b5895c"
    )
    split = split_patients(patients(4), "leave-one-out")
    assert [(fold.train, fold.validation) for fold in split.folds] == [
        (("p01", "p02"), ("p03",)),
        (("p00", "p02"), ("p03",)),
        (("p01", "p03"), ("p00",)),
        (("p00", "p02"), ("p01",)),
    ]


def test_nnunet_trains_on_cases_without_suspects_and_tests_all():
    cohort = cohort_of({"a1": "a", "a2": "a", "b": "b", "c1": "c", "c2": "c", "d": "d"}, suspects={"d", "c2"})
    folds = as_nnunet(split_patients(cohort, "leave-one-out"), cohort)
    assert [fold["val"] for fold in folds] == [["a1", "a2"], ["b"], ["c1", "c2"], ["d"]]
    assert [fold["train"] for fold in folds] == [
        ["b", "c1"],
        ["a1", "a2", "c1"],
        ["a1", "a2", "b"],
        ["a1", "a2", "b", "c1"],
    ]
    with pytest.raises(InputError, match="no patient 'd'"):
        as_nnunet(split_patients(cohort, "leave-one-out"), cohort_of({"a": "a", "b": "b", "c": "c"}))


@pytest.mark.parametrize(
    ("n", "kind", "more", "message"),
    [
        (2, "leave-one-out", {}, "cohort tiny has 2 patients: leave-one-out needs at least 3"),
        (3, "k-fold", {"folds": 1}, "for 1 fold: k-fold needs 2 folds or more"),
        (2, "k-fold", {"folds": 2}, "leaves 1 to train and validate, of 2 needed"),
        (4, "kfold", {}, "unknown kind of split 'kfold'; did you mean 'k-fold'.*choices: leave-one-out, k-fold, all"),
        (4, "leave-one-out", {"validation": -1}, "validation is -1"),
    ],
)
def test_split_that_cannot_be_made(n, kind, more, message):
    with pytest.raises(InputError, match=message):
        split_patients(patients(n), kind, **more)


def test_a_share_of_the_patients_validates():
    for n, folds, share in ((25, 5, 2), (3, 3, 1)):
        split = split_patients(patients(n), "k-fold", folds=folds, validation=0.1)
        assert [len(fold.validation) for fold in split.folds] == [share] * folds

import hashlib
import os
import shutil
import sys

import numpy as np
import pytest
from cohort_cases import SPACING, arrays, change, cut, edit, write

from npcrepro.base.code_hash import code_sha256
from npcrepro.base.errors import InputError
from npcrepro.cohorts import prepared as prepared_module
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import fingerprint, prepare, read_prepared


def test_prepared_cohort_holds_what_was_written(tmp_path):
    cases = [arrays("a", "p"), arrays("b", "p", suspect=True), arrays("c")]
    cohort = write(tmp_path / "cohort", cases, licence="CC0", spacing_known=False)
    prepared = prepare(cohort, tmp_path / "prepared")
    digest = fingerprint(cohort)
    version = code_sha256(["npcrepro.cohorts.prepared:_prepare_case"])
    assert prepared.folder == tmp_path / "prepared" / f"tiny-{digest[:8]}-{version[:8]}"
    assert (prepared.name, prepared.fingerprint, prepared.licence) == ("tiny", digest, "CC0")
    assert (prepared.channels, prepared.structures, prepared.spacing_known) == (("T1", "CT"), {"GTVp": (1,)}, False)
    assert (prepared.case_names, prepared.patients) == (["a", "b", "c"], ("c", "p"))
    assert prepared.cases_of(["p"]) == ["a", "b"]
    assert prepared.cases_of(["p"], include_suspect=False) == ["a"]
    case = prepared.case("b")
    assert (case.name, case.patient, case.suspect, case.spacing_mm) == ("b", "p", True, SPACING)
    assert isinstance(case.image, np.memmap)
    assert isinstance(case.label, np.memmap)
    assert not case.image.flags.writeable
    assert (case.image.dtype, case.label.dtype) == (np.int32, np.uint8)
    np.testing.assert_array_equal(case.image, cases[1].image)
    np.testing.assert_array_equal(case.label, cases[1].label)
    split = {"kind": "leave-one-out", "validation": 0}
    assert split_patients(prepared, **split) == split_patients(cohort, **split)


def test_prepare_is_idempotent_reads_back_without_simpleitk_and_other_code_reads_anew(root, tmp_path, monkeypatch):
    first = prepare(read_cohort(root), tmp_path / "prepared")
    stamps = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "SimpleITK", None)
        second = prepare(read_cohort(root), tmp_path / "prepared")
    assert second == first == read_prepared(first.folder)
    np.testing.assert_array_equal(second.case("c").image, arrays("c").image)
    monkeypatch.setattr(prepared_module, "code_sha256", lambda roots: "0" * 64)
    again = prepare(read_cohort(root), tmp_path / "prepared")
    assert again.folder != first.folder
    assert again.fingerprint == first.fingerprint
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == stamps


def test_a_corrected_licence_is_followed_and_another_content_prepared_beside(root, tmp_path):
    first = prepare(read_cohort(root), tmp_path / "prepared")
    edit(root, licence="CC BY 4.0", publishable=True)
    second = prepare(read_cohort(root), tmp_path / "prepared")
    assert second.folder == first.folder
    assert (second.licence, second.publishable) == ("CC BY 4.0", True)
    edit(root, wrong_labels=["b"])
    third = prepare(read_cohort(root), tmp_path / "prepared")
    assert third.folder != first.folder
    assert (first.case_names, third.case_names) == (["a", "b", "c"], ["a", "c"])


def test_failing_case_leaves_nothing_half_written(root, tmp_path):
    cut(root / "imagesTr" / "c_0001.nii.gz")
    with pytest.raises(InputError, match=r"case c: imagesTr/c_0001.nii.gz: cannot be read"):
        prepare(read_cohort(root), tmp_path / "prepared")
    assert os.listdir(tmp_path / "prepared") == ["fingerprints.json"]


def test_damaged_prepared_folder_is_named_and_made_again(root, tmp_path):
    with pytest.raises(InputError, match=r"prepared.json: missing"):
        read_prepared(tmp_path)
    prepared = prepare(read_cohort(root), tmp_path / "prepared")
    (prepared.folder / "a.image.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.image.npy: cannot be read .*prepare the cohort again"):
        prepared.case("a")
    (prepared.folder / "b.label.npy").unlink()
    with pytest.raises(InputError, match=r"b.label.npy: missing"):
        read_prepared(prepared.folder)
    again = prepare(read_cohort(root), tmp_path / "prepared")
    np.testing.assert_array_equal(again.case("b").label, arrays("b").label)
    (prepared.folder / "prepared.json").write_text("{}")
    with pytest.raises(InputError, match="not a prepared cohort"):
        read_prepared(prepared.folder)


def test_the_fingerprint_is_that_of_meaning_and_content_wherever_the_folder_lies(root, tmp_path):
    def now(**fields):
        edit(root, **fields)
        return fingerprint(read_cohort(root))

    seen = [now()]
    assert now(reference="a paper", licence="CC0", note="text") == seen[0]
    shutil.copytree(root, tmp_path / "elsewhere")
    assert fingerprint(read_cohort(tmp_path / "elsewhere")) == seen[0]
    for fields in (
        {"groups": {"a": "p"}},
        {"suspect_labels": ["a"]},
        {"wrong_labels": ["b"]},
        {"labels": {"background": 0, "GTVnd": 1}},
        {"channel_names": {"0": "T2", "1": "CT"}},
        {"spacing_known": False},
    ):
        seen.append(now(**fields))
    change(root / "labelsTr" / "c.nii.gz", lambda array: np.roll(array, 1))
    assert len({*seen, now()}) == 8


def test_a_fingerprint_does_not_change_with_a_release(root):
    # Records of runs name it. The hashes of files depend on how a library compresses, so that they are of text here.
    for number, path in enumerate(sorted(root.glob("*Tr/*"))):
        path.write_text(str(number))
    edit(root, not_contoured={"a": ["GTVp"]}, suspect_labels=["b"], groups={"c": "p"})
    assert fingerprint(read_cohort(root)) == ("08ef6fea8198a290ec5cb76fc6b08dc1110dd2bb9074e0317e94fbe9fa00d50b")


def test_cache_spares_reading_and_sees_changes(root, tmp_path, monkeypatch):
    cache = tmp_path / "hashes.json"
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr("hashlib.file_digest", lambda file, name: read.append(file.name) or digest(file, name))
    cohort = read_cohort(root)
    before = fingerprint(cohort, cache)
    assert len(read) == 9
    assert fingerprint(cohort, cache) == before
    assert len(read) == 9
    change(root / "labelsTr" / "b.nii.gz", np.zeros_like)
    assert fingerprint(cohort, cache) != before
    assert len(read) == 10
    cache.write_text("{")
    assert fingerprint(cohort, cache) == fingerprint(cohort)
    cohort.cases[0].label.unlink()
    with pytest.raises(InputError, match=r"a.nii.gz: cannot be read"):
        fingerprint(cohort)

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cohort_cases import SPACING, arrays, cut, edit, write

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.listing import cohort_folder
from npcrepro.cohorts.prepared import prepare
from npcrepro.cohorts.samples.make import AIR_HU, without_face


def test_importing_the_cohort_layer_loads_no_heavy_module():
    heavy = {"torch", "SimpleITK", "pandas", "matplotlib", "monai"}
    code = f"import sys, npcrepro.cohorts.check, npcrepro.cohorts.folds; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_written_cohort_reads_back(tmp_path):
    cases = [arrays("b", "p"), arrays("a", "p", suspect=True), arrays("c")]
    (tmp_path / "x" / "cohort").mkdir(parents=True)  # an empty folder is filled
    written = write(tmp_path / "x" / "cohort", cases, licence="CC0", reference="us", publishable=True)
    cohort = read_cohort(tmp_path / "x" / "cohort")
    assert written == cohort
    assert cohort.case_names == ["a", "b", "c"]
    assert cohort.patients == ("c", "p")
    assert [case.suspect for case in cohort.cases] == [True, False, False]
    assert (cohort.name, cohort.channels, cohort.structures) == ("tiny", ("T1", "CT"), {"GTVp": (1,)})
    assert (cohort.licence, cohort.reference, cohort.publishable) == ("CC0", "us", True)
    assert cohort.spacing_known
    assert [path.name for path in cohort.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    array, spacing_mm, geometry = read_image(cohort.cases[1].images[1])
    np.testing.assert_array_equal(array, arrays("b").image[1])
    assert spacing_mm == SPACING
    assert geometry == {"origin": [0.0, 0.0, 0.0], "direction": np.eye(3).ravel().tolist()}
    assert check(cohort.root) == []
    assert os.listdir(tmp_path / "x") == ["cohort"]


def test_geometry_and_number_types_survive_writing(tmp_path):
    geometry = {"origin": [7.0, -8.0, 9.0], "direction": [0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0]}
    # NIfTI has no half precision and no booleans.
    image, label = (arrays("a").image % 2048).astype(np.float16), arrays("a").label > 0
    case = CaseArrays("a", "a", image, label, (3.0, 2.0, 1.0), geometry=geometry)
    prepared = prepare(write(tmp_path / "cohort", [case]), tmp_path / "prepared").case("a")
    assert prepared.geometry["origin"] == pytest.approx(geometry["origin"])
    assert prepared.geometry["direction"] == pytest.approx(geometry["direction"])
    assert prepared.spacing_mm == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(prepared.image, image)
    np.testing.assert_array_equal(prepared.label, label)


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([], "no cases"),
        ([arrays("a"), arrays("a")], "case a is given twice"),
        ([arrays("a", channels=1)], "case a: image of shape .* for 2 channels"),
        ([arrays("../a")], "case name '../a' cannot be part of a file name"),
        ([arrays("a", spacing_mm=(1.0, 0.0, 1.0))], "case a: spacing_mm .* is not three positive numbers"),
        ([CaseArrays("a", "a", arrays("a").image, np.zeros((3, 4, 4)), SPACING)], "case a: label of shape"),
        ([CaseArrays("a", "a", arrays("a").image, np.full((3, 4, 5), 9), SPACING)], "case a: .*unknown label value"),
    ],
)
def test_write_cohort_refuses_and_leaves_nothing(tmp_path, cases, message):
    with pytest.raises(InputError, match=message) as error:
        write(tmp_path / "cohort", cases)
    assert ".tmp" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_write_cohort_does_not_overwrite(root):
    with pytest.raises(InputError, match="exists and is not empty"):
        write(root, ["z"])
    assert read_cohort(root).case_names == ["a", "b", "c"]


NO_CODES = {"labels": {"0": "background", "1": "GTVp"}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": None}, "missing field .labels"),
        ({"channel_names": None, "modality": {"0": "T1"}}, "missing field .channel_names.*v1 wrote 'modality'"),
        ({"channel_names": {"0": "T1", "1": "T1"}}, "two channels the same name.* cause: an entry was copied"),
        ({"file_ending": "nii.gz"}, "'file_ending' has no dot"),
        ({"file_ending": ".nii"}, r"'file_ending' is .nii but the files end with .nii.gz"),
        (NO_CODES, "'labels' does not map names .*: nnU-Net v1 has numbers as names"),
        ({"labels": {"GTVp": 1}}, "no background 0 .* cause: it was left out"),
        ({"labels": {"background": 0, "": 1}}, "a structure without a name"),
        ({"labels": {"background": 0, "GTVp": 1, "GTVnd": 1}}, "the same integers .* cause: an entry was copied"),
        ({"labels": {"background": 0, "CTV2": [1, 70000]}}, "integers, from 0 to 65,535 .* cause: it looks like"),
        ({"labels": {"background": 0, "GTVp": [0, 1]}}, "gives 0, .* cause: structures were counted from 0"),
        ({"labels": {"background": 0, "GTVp": 1, "ignore": 2}}, "ignore label.* cause: drawn for nnU-Net on a part"),
        ({"spacing_known": "no"}, "'spacing_known' is not a bool .'no'"),
        ({"not_contoured": {"a": ["GTV"]}}, "'not_contoured' names an unknown structure .GTV.; .* slip for 'GTVp'"),
        ({"missing_series": "zeros"}, "'missing_series' is neither"),
        ({"name": "../up"}, "'name' cannot be part of a file name"),
        ({"wrong_labels": ["a", "b", "c"]}, "no cases left"),
    ],
)
def test_bad_dataset_json_is_named(root, fields, message):
    edit(root, **fields)
    with pytest.raises(InputError, match=message) as error:
        read_cohort(root)
    assert str(root) in str(error.value)
    assert any(defect.severity == "error" and defect.problem in str(error.value) for defect in check(root))


def test_a_missing_or_broken_header_is_one_defect_and_the_images_are_still_looked_at(tmp_path, root):
    def found(folder):
        problems = [(d.file, d.problem) for d in check(folder)]
        with pytest.raises(InputError, match=problems[0][1]):
            read_cohort(folder)
        return problems

    assert found(tmp_path / "nowhere") == [(".", "no such folder")]
    text = (root / "dataset.json").read_bytes()
    (root / "dataset.json").write_bytes(b"\xef\xbb\xbf" + text)  # as Windows saves it
    assert check(root) == []
    (root / "dataset.json").write_text('{"labels": ')
    cut(root / "imagesTr" / "b_0001.nii.gz")
    image = ("imagesTr/b_0001.nii.gz", "cannot be read")
    assert found(root) == [("dataset.json", "not valid JSON"), image]
    (root / "dataset.json").unlink()
    assert found(root) == [("dataset.json", "missing"), image]


def test_wrong_labels_are_left_out_even_when_their_files_are_missing(root):
    edit(root, wrong_labels=["b"], suspect_labels=["c"])
    (root / "labelsTr" / "b.nii.gz").unlink()
    cohort = read_cohort(root)
    assert cohort.case_names == ["a", "c"]
    assert cohort.excluded == ("b",)
    assert cohort.cases_of(["a", "c"], include_suspect=False) == ["a"]
    assert check(root) == []


def test_sample_cohorts_may_be_shown_and_a_folder_of_the_name_goes_before_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("sample-ct", "sample-t2", "sample-sarcoma"):
        cohort = read_cohort(name)
        assert (cohort.name, cohort.publishable, bool(cohort.licence)) == (name, True, True)
        assert "doi" in cohort.reference
        assert check(name) == []
    (tmp_path / "sample-ct").mkdir()
    assert cohort_folder("sample-ct") == Path("sample-ct")
    with pytest.raises(InputError, match="did you mean 'sample-t2'"):
        read_cohort("sample-t1")


def test_a_face_is_taken_off_and_the_mandible_is_not():
    head, mandible = np.full((40, 40, 40), -1000), np.zeros((40, 40, 40), bool)
    head[:, 10:36, 8:32] = 40
    head[24:30, 4:10, 18:22] = 40  # a nose
    mandible[10:14, 10:30, 16:24] = True
    found = without_face(head, mandible, (3.0, 3.0, 3.0))
    assert (found[24:30, :10] == AIR_HU).all()
    assert (found[mandible] == 40).all()
    assert (found[:10] == head[:10]).all()  # below the chin
    assert (found[:, 34:] == head[:, 34:]).all()  # the back

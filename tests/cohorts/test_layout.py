import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npcrepro.cohorts.layout import (
    Case,
    CaseArrays,
    Cohort,
    Fold,
    Split,
    check,
    fingerprint,
    prepare,
    read_cohort,
    read_image,
    read_prepared,
    read_split,
    split_patients,
    write_cohort,
)
from npcrepro.errors import InputError

SPACING = (3.0, 1.0, 1.0)


def arrays(name, patient=None, *, channels=2, suspect=False, spacing_mm=SPACING):
    """A case of 3 x 4 x 5 voxels that no other name shares."""
    image = np.arange(channels * 60, dtype=np.int32).reshape(channels, 3, 4, 5) + 1000 * sum(name.encode())
    label = np.zeros((3, 4, 5), np.uint8)
    label[1, 1:3, 2:4] = 1
    return CaseArrays(name, patient or name, image, label, spacing_mm, suspect)


def write(root, cases=("a", "b", "c"), **fields):
    cases = [arrays(case) if isinstance(case, str) else case for case in cases]
    names = {"name": "tiny", "channels": ("T1", "CT"), "structures": {"GTVp": 1}}
    return write_cohort(root, cases, **(names | fields))


def edit(root, **fields):
    """Change fields of dataset.json; None removes one."""
    header = json.loads((root / "dataset.json").read_text()) | fields
    header = {key: value for key, value in header.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(header))


def save(array, path, *, spacing_mm=SPACING, origin=(0, 0, 0), direction=None):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    sitk.WriteImage(image, str(path))


def change(path, function=lambda array: array, **geometry):
    """Write a file again with other voxels or another header."""
    save(function(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))), path, **geometry)


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def only(root):
    """The one defect of a cohort."""
    defects = check(root)
    assert len(defects) == 1, [str(defect) for defect in defects]
    return defects[0]


def set_voxel(value):
    def function(array):
        array = array.astype(np.float32)
        array[0, 0, 0] = value
        return array

    return function


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "cohort")
    return tmp_path / "cohort"


# ---------------------------------------------------------------------------------------------------------------------
# reading and writing


def test_importing_layout_loads_no_heavy_module():
    heavy = {"torch", "SimpleITK", "pandas", "matplotlib", "monai"}
    code = f"import sys, npcrepro.cohorts.layout; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_written_cohort_reads_back(tmp_path):
    cases = [arrays("b", "p"), arrays("a", "p", suspect=True), arrays("c")]
    written = write(tmp_path / "x" / "cohort", cases, licence="CC0", reference="us", publishable=True)
    cohort = read_cohort(tmp_path / "x" / "cohort")
    assert written == cohort
    assert [case.name for case in cohort.cases] == ["a", "b", "c"]
    assert cohort.patients == ("c", "p")
    assert [case.suspect for case in cohort.cases] == [True, False, False]
    assert (cohort.name, cohort.channels, cohort.structures) == ("tiny", ("T1", "CT"), {"GTVp": 1})
    assert (cohort.licence, cohort.reference, cohort.publishable) == ("CC0", "us", True)
    assert cohort.spacing_known
    assert [path.name for path in cohort.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    array, spacing_mm, geometry = read_image(cohort.cases[1].images[1])
    np.testing.assert_array_equal(array, arrays("b").image[1])
    assert spacing_mm == SPACING
    assert geometry == {"origin": [0.0, 0.0, 0.0], "direction": np.eye(3).ravel().tolist()}
    assert check(cohort.root) == []
    assert os.listdir(tmp_path / "x") == ["cohort"]


def test_geometry_survives_writing(tmp_path):
    geometry = {"origin": [7.0, -8.0, 9.0], "direction": [0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0]}
    case = arrays("a")
    case = CaseArrays("a", "a", case.image, case.label, (3.0, 2.0, 1.0), geometry=geometry)
    prepared = prepare(write(tmp_path / "cohort", [case]), tmp_path / "prepared").case("a")
    assert prepared.geometry["origin"] == pytest.approx(geometry["origin"])
    assert prepared.geometry["direction"] == pytest.approx(geometry["direction"])
    assert prepared.spacing_mm == (3.0, 2.0, 1.0)


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
    before = sorted(path.read_bytes() for path in root.rglob("*.*"))
    with pytest.raises(InputError, match="exists and is not empty"):
        write(root, ["z"])
    assert sorted(path.read_bytes() for path in root.rglob("*.*")) == before


def test_write_cohort_fills_an_empty_folder(tmp_path):
    (tmp_path / "cohort").mkdir()
    assert write(tmp_path / "cohort").patients == ("a", "b", "c")


def test_booleans_and_half_precision_can_be_written(tmp_path):
    case = arrays("a")
    case = CaseArrays("a", "a", (case.image - case.image.min()).astype(np.float16), case.label > 0, SPACING)
    content = prepare(write(tmp_path / "cohort", [case]), tmp_path / "prepared").case("a")
    np.testing.assert_array_equal(content.image, case.image)
    np.testing.assert_array_equal(content.label, case.label)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": None}, "missing field .labels"),
        ({"channel_names": None}, "missing field .channel_names"),
        ({"channel_names": None, "modality": {"0": "T1"}}, "v1 wrote 'modality'"),
        ({"file_ending": None}, "missing field .file_ending"),
        ({"file_ending": "nii.gz"}, "'file_ending' has no dot"),
        ({"file_ending": ".nii"}, r"'file_ending' is .nii but the files end with .nii.gz"),
        ({"labels": {"0": "background", "1": "GTVp"}}, "'labels' does not map names to integers"),
        ({"labels": {"GTVp": 1}}, "no background 0"),
        ({"labels": {"background": 0}}, "no structure"),
        ({"labels": {"background": 0, "GTVp": 1, "GTVnd": 1}}, "not different integers"),
        ({"labels": {"background": 0, "GTVp": 1, "ignore": 2}}, "ignore label"),
        ({"channel_names": {"1": "T1", "2": "CT"}}, "does not number the channels"),
        ({"spacing_known": "no"}, "'spacing_known' is not a bool .'no'"),
        ({"suspect_labels": "a"}, "'suspect_labels' is not a list"),
        ({"groups": ["a"]}, "'groups' does not map"),
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


def test_missing_folder_and_missing_dataset_json(tmp_path, root):
    with pytest.raises(InputError, match="no such folder"):
        read_cohort(tmp_path / "nowhere")
    assert only(tmp_path / "nowhere").problem == "no such folder"
    (root / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset.json: missing"):
        read_cohort(root)
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == ("error", "dataset.json", "missing")


def test_broken_json_is_one_defect_and_the_images_are_still_looked_at(root):
    (root / "dataset.json").write_text('{"labels": ')
    cut(root / "imagesTr" / "b_0001.nii.gz")
    with pytest.raises(InputError, match="not valid JSON"):
        read_cohort(root)
    assert [(d.file, d.problem) for d in check(root)] == [
        ("dataset.json", "not valid JSON"),
        ("imagesTr/b_0001.nii.gz", "cannot be read"),
    ]


def test_name_defaults_to_the_folder_and_patients_to_the_cases(root):
    edit(root, name=None, publishable=None, spacing_known=None)
    cohort = read_cohort(root)
    assert (cohort.name, cohort.patients, cohort.publishable, cohort.spacing_known) == (
        "cohort",
        ("a", "b", "c"),
        False,
        True,
    )


def test_wrong_labels_are_left_out_even_when_their_files_are_missing(root):
    edit(root, wrong_labels=["b"], suspect_labels=["c"])
    (root / "labelsTr" / "b.nii.gz").unlink()
    cohort = read_cohort(root)
    assert [case.name for case in cohort.cases] == ["a", "c"]
    assert cohort.excluded == ("b",)
    assert cohort.cases_of(["a", "c"], include_suspect=False) == ["a"]
    assert check(root) == []


def test_dataset_mapping_replaces_the_folder_scan(tmp_path, root):
    other = tmp_path / "other"
    other.mkdir()
    (root / "labelsTr" / "a.nii.gz").rename(other / "tumour.nii.gz")
    header = {"file_ending": ".nii.gz", "numTraining": 1, "labels": {"background": 0, "GTVp": 1}}
    images = ["../cohort/imagesTr/a_0000.nii.gz", str(root / "imagesTr" / "a_0001.nii.gz")]
    header |= {"channel_names": {"0": "T1", "1": "CT"}}
    header |= {"dataset": {"first": {"images": images, "label": "tumour.nii.gz"}}}
    (other / "dataset.json").write_text(json.dumps(header))
    content = prepare(read_cohort(other), tmp_path / "prepared").case("first")
    np.testing.assert_array_equal(content.image, arrays("a").image)
    assert check(other) == []


def test_dataset_mapping_defects(tmp_path, root):
    one = {"images": ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"], "label": "labelsTr/a.nii.gz"}
    lost = {"images": ["imagesTr/a_0000.nii.gz", "imagesTr/gone.nii.gz"], "label": "labelsTr/a.nii.gz"}
    short = {"images": ["imagesTr/b_0000.nii.gz"], "label": "labelsTr/b.nii.gz"}
    edit(root, numTraining=3, dataset={"a": one, "lost": lost, "short": short, "x/y": one, "empty": {}})
    defects = check(root)
    assert ("imagesTr/gone.nii.gz", "no such file", "case lost") in [(d.file, d.problem, d.value) for d in defects]
    assert ("missing channel", "case short has 1 of 2") in [(d.problem, d.value) for d in defects]
    assert ("case name cannot be part of a file name", "'x/y'") in [(d.problem, d.value) for d in defects]
    assert ("case without 'images' and 'label'", "empty") in [(d.problem, d.value) for d in defects]
    with pytest.raises(InputError, match=r"missing channel|no such file"):
        read_cohort(root)


def test_case_written_twice_in_the_mapping(root):
    entry = '{"images": ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"], "label": "labelsTr/a.nii.gz"}'
    edit(root, numTraining=1)
    text = (root / "dataset.json").read_text().rstrip("}")
    (root / "dataset.json").write_text(text + f'}}, "dataset": {{"a": {entry}, "a": {entry}}}}}')
    assert list(json.loads((root / "dataset.json").read_text())["dataset"]) == ["a"]
    defect = only(root)
    assert (defect.severity, defect.problem, defect.value) == ("error", "the same name twice", "a")


# ---------------------------------------------------------------------------------------------------------------------
# check: one defect at a time


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_truncated_file(tmp_path, ending):
    save(np.random.default_rng(0).integers(0, 1000, (9, 40, 40)).astype(np.int16), tmp_path / f"a{ending}")
    read_image(tmp_path / f"a{ending}")
    cut(tmp_path / f"a{ending}")
    with pytest.raises(InputError, match=rf"a{ending}: cannot be read .*truncated"):
        read_image(tmp_path / f"a{ending}")


def test_truncated_before_it_was_compressed(tmp_path):
    save(np.arange(9 * 40 * 40, dtype=np.int16).reshape(9, 40, 40), tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data[:-100]))
    with pytest.raises(InputError, match=rf"{len(data) - 100} bytes of {len(data)}"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>"])
def test_file_that_is_no_image(root, content):
    (root / "imagesTr" / "a_0000.nii.gz").write_bytes(content)
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == ("error", "imagesTr/a_0000.nii.gz", "cannot be read")


def test_truncated_image_in_a_cohort(root):
    cut(root / "imagesTr" / "b_0000.nii.gz")
    size = (root / "imagesTr" / "b_0000.nii.gz").stat().st_size
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == ("error", "imagesTr/b_0000.nii.gz", "cannot be read")
    assert f"{size} bytes" in defect.value
    assert "truncated" in defect.cause


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_itk_would_make_zero_are_kept(tmp_path, dtype):
    array = np.arange(60, dtype=dtype).reshape(3, 4, 5)
    array[0, 1, 2], array[2, 0, 4], array[1, 3, 0] = np.nan, np.inf, -np.inf
    for ending in (".nii", ".nii.gz", ".mha"):
        save(array, tmp_path / f"a{ending}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a{ending}")[0], array)


def test_two_dimensional_file_is_one_slice(tmp_path):
    image = sitk.GetImageFromArray(np.arange(20, dtype=np.uint8).reshape(4, 5))
    image.SetSpacing((0.5, 0.25))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    array, spacing_mm, geometry = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(array, np.arange(20).reshape(1, 4, 5))
    assert spacing_mm == (1.0, 0.25, 0.5)
    assert (len(geometry["origin"]), len(geometry["direction"])) == (3, 9)


def test_time_series_is_refused(tmp_path):
    sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkFloat32), str(tmp_path / "a.nii.gz"))
    with pytest.raises(InputError, match="save one file a channel"):
        read_image(tmp_path / "a.nii.gz")


def test_oblique_header_that_itk_refuses_names_the_file(tmp_path):
    save(np.zeros((3, 4, 5), np.int16), tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[280:328] = np.array([[1, 0.9, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "<f4").tobytes()
    data[252:256] = np.array([0, 1], "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.nii: cannot be read .*not orthogonal"):
        read_image(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("geometry", "what", "value", "cause"),
    [
        ({"spacing_mm": (3.0, 1.0, 1.1)}, "spacing_mm (z, y, x)", "(3, 1, 1.1) and (3, 1, 1)", "resampled"),
        ({"origin": (0, 0, 4)}, "origin (x, y, z)", "(0, 0, 4) and (0, 0, 0)", "another series"),
        ({"direction": np.diag([-1, -1, 1])}, "direction", "(-1, 0, 0, 0, -1, 0, 0, 0, 1) and", "flipped on export"),
    ],
)
def test_label_on_another_grid(root, tmp_path, geometry, what, value, cause):
    change(root / "labelsTr" / "b.nii.gz", **geometry)
    defect = only(root)
    assert (defect.severity, defect.file) == ("error", "labelsTr/b.nii.gz")
    assert defect.problem == f"another grid: {what} differs"
    assert value in defect.value
    assert cause in defect.cause
    with pytest.raises(InputError, match=r"case b: labelsTr/b.nii.gz: another grid"):
        prepare(read_cohort(root), tmp_path / "prepared")


def test_label_of_another_shape(root):
    change(root / "labelsTr" / "b.nii.gz", lambda array: array[:, :, 1:])
    defect = only(root)
    assert (defect.file, defect.problem) == ("labelsTr/b.nii.gz", "another grid: shape (z, y, x) differs")
    assert defect.value == "(3, 4, 4) and (3, 4, 5) in imagesTr/b_0000.nii.gz"
    change(root / "labelsTr" / "b.nii.gz", lambda _: arrays("b").label.T.copy())
    assert "transposed" in only(root).cause


def test_rounding_of_the_header_is_no_defect(root):
    change(root / "labelsTr" / "b.nii.gz", spacing_mm=(3.0, 1.0005, 1.0), origin=(0.05, 0, 0))
    assert check(root) == []


def test_channels_on_different_grids(root):
    change(root / "imagesTr" / "c_0001.nii.gz", origin=(5, 0, 0))
    defect = only(root)
    assert (defect.severity, defect.file) == ("error", "imagesTr/c_0001.nii.gz")
    assert "channels" in defect.cause


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_image(root, value):
    change(root / "imagesTr" / "a_0001.nii.gz", set_voxel(value))
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem, defect.value) == (
        "error",
        "imagesTr/a_0001.nii.gz",
        "NaN or infinite values",
        "1 voxels",
    )


def test_not_finite_label(root):
    change(root / "labelsTr" / "a.nii.gz", set_voxel(np.nan))
    assert (only(root).file, only(root).problem) == ("labelsTr/a.nii.gz", "NaN or infinite values")


def test_unknown_label_value(root, tmp_path):
    change(root / "labelsTr" / "a.nii.gz", lambda array: array * 255)
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == ("error", "labelsTr/a.nii.gz", "unknown label value")
    assert defect.value == "255 in 4 voxels"
    assert "255 for 1" in defect.cause
    with pytest.raises(InputError, match=r"case a: .*unknown label value"):
        prepare(read_cohort(root), tmp_path / "prepared")


def test_interpolated_label(root):
    change(root / "labelsTr" / "a.nii.gz", set_voxel(0.37))
    assert (only(root).problem, only(root).value) == ("label values that are no integers", "0.37")
    assert "interpolation" in only(root).cause


def test_float_label_with_rounding_slop_is_accepted(root, tmp_path):
    change(root / "labelsTr" / "a.nii.gz", lambda array: array.astype(np.float32) * 0.9995)
    assert check(root) == []
    label = prepare(read_cohort(root), tmp_path / "prepared").case("a").label
    np.testing.assert_array_equal(label, arrays("a").label)


def test_empty_label_is_a_warning_and_is_prepared(root, tmp_path):
    change(root / "labelsTr" / "a.nii.gz", np.zeros_like)
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == ("warning", "labelsTr/a.nii.gz", "empty label")
    assert prepare(read_cohort(root), tmp_path / "prepared").case("a").label.max() == 0


def test_missing_channel(root):
    (root / "imagesTr" / "b_0001.nii.gz").unlink()
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem, defect.value) == (
        "error",
        "imagesTr/b_0001.nii.gz",
        "missing channel",
        "channel 1, CT",
    )
    with pytest.raises(InputError, match="missing channel"):
        read_cohort(root)


def test_channel_that_is_not_declared(root):
    shutil.copy(root / "imagesTr" / "b_0001.nii.gz", root / "imagesTr" / "b_0002.nii.gz")
    defect = only(root)
    assert (defect.severity, defect.file, defect.value) == ("warning", "imagesTr/b_0002.nii.gz", "channel 2")
    assert len(read_cohort(root).cases[1].images) == 2


def test_image_without_label(root):
    (root / "labelsTr" / "b.nii.gz").unlink()
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == ("error", "labelsTr/b.nii.gz", "image without label")
    with pytest.raises(InputError, match="image without label"):
        read_cohort(root)


def test_label_without_image(root):
    for number in range(2):
        (root / "imagesTr" / f"b_000{number}.nii.gz").unlink()
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == ("error", "labelsTr/b.nii.gz", "label without image")


def test_link_that_leads_nowhere_is_a_missing_file(root):
    (root / "imagesTr" / "b_0001.nii.gz").rename(root / "moved")
    (root / "imagesTr" / "b_0001.nii.gz").symlink_to(root / "gone")
    assert (only(root).file, only(root).problem) == ("imagesTr/b_0001.nii.gz", "missing channel")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    field=st.sampled_from(
        ["name", "labels", "channel_names", "file_ending", "dataset", "groups", "wrong_labels", "suspect_labels"]
    ),
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.sampled_from(["", "a", "0", ".nii"]),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["a", "0", "images", "label", "background"]), inner, max_size=2)
        ),
        max_leaves=5,
    ),
)
def test_no_value_in_dataset_json_makes_check_raise(root, field, value):
    before = (root / "dataset.json").read_text()
    header = json.loads(before)
    (root / "dataset.json").write_text(json.dumps(header | {field: value}))
    try:
        errors = [defect for defect in check(root) if defect.severity == "error"]
        try:
            read_cohort(root)
        except InputError:
            assert errors
    finally:
        (root / "dataset.json").write_text(before)


def test_label_named_like_an_image(root):
    (root / "labelsTr" / "b.nii.gz").rename(root / "labelsTr" / "b_0000.nii.gz")
    errors = [defect for defect in check(root) if defect.severity == "error"]
    assert {defect.problem for defect in errors} == {"image without label", "label without image"}
    assert {defect.cause for defect in errors} == {"the label is named like an image: a label has no _0000"}


def test_image_without_channel_number(root):
    (root / "imagesTr" / "b_0000.nii.gz").rename(root / "imagesTr" / "b.nii.gz")
    assert ("imagesTr/b.nii.gz", "image without a channel number") in [(d.file, d.problem) for d in check(root)]


def test_number_of_cases(root):
    edit(root, numTraining=7)
    defect = only(root)
    assert (defect.severity, defect.file, defect.value) == ("warning", "dataset.json", "7")
    assert "3" in defect.problem
    assert len(read_cohort(root).cases) == 3


@pytest.mark.parametrize(("groups", "severity"), [({}, "error"), ({"a": "p", "b": "p"}, "warning")])
def test_same_image_under_two_names(root, groups, severity):
    shutil.copy(root / "imagesTr" / "a_0001.nii.gz", root / "imagesTr" / "b_0001.nii.gz")
    edit(root, groups=groups)
    defect = only(root)
    assert (defect.severity, defect.file) == (severity, "imagesTr/b_0001.nii.gz")
    assert "cases a and b" in defect.value


def test_same_case_under_two_endings(root):
    save(arrays("b").image[0], root / "imagesTr" / "b_0000.nii")
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == (
        "error",
        "imagesTr/b_0000.nii",
        "the same case name twice",
    )


def test_other_ending_alone_and_hidden_files_are_ignored(root):
    save(arrays("b").image[0], root / "imagesTr" / "z_0000.nii")
    (root / "imagesTr" / "._a_0000.nii.gz").write_bytes(b"resource fork")
    defect = only(root)
    assert (defect.severity, defect.file, defect.value) == ("warning", "imagesTr/z_0000.nii", ".nii")


def turn(root, case, direction):
    for folder, name in (("imagesTr", f"{case}_0000"), ("imagesTr", f"{case}_0001"), ("labelsTr", case)):
        change(root / folder / f"{name}.nii.gz", direction=direction)


@pytest.mark.parametrize(
    ("direction", "problem", "value"),
    [
        (np.diag([-1, -1, 1]), "another orientation than the other cases", "axes RAS, LPS in most cases"),
        (np.diag([1, 1, -1]), "another orientation than the other cases", "axes LPI, LPS in most cases"),
        ([[1, 0, 0], [0, 0, 1], [0, -1, 0]], "slices are not axial", "axes LIP"),
        ([[1, 0, 0], [0, 0.8660254, -0.5], [0, 0.5, 0.8660254]], "oblique axes", "30 degrees off the patient's axes"),
    ],
)
def test_suspicious_orientation(root, direction, problem, value):
    turn(root, "b", direction)
    defect = only(root)
    assert (defect.severity, defect.file) == ("warning", "imagesTr/b_0000.nii.gz")
    assert (defect.problem, defect.value) == (problem, value)


def test_orientation_shared_by_all_cases_is_one_warning(root):
    for case in "abc":
        turn(root, case, np.diag([-1, -1, 1]))
    defect = only(root)
    assert (defect.severity, defect.file, defect.value) == ("warning", "imagesTr", "axes RAS")


@pytest.mark.parametrize(
    ("spacing_mm", "problem"),
    [
        ((7.0, 1.0, 1.0), "spacing far from that of the other cases"),
        ((1.0, 1.0, 1.0), "spacing far from that of the other cases"),
        ((3.0, 1.0, 1.2), "spacing differs in the plane"),
    ],
)
def test_suspicious_spacing(tmp_path, spacing_mm, problem):
    cases = [arrays("a"), arrays("b", spacing_mm=spacing_mm), arrays("c")]
    write(tmp_path / "known", cases)
    defect = only(tmp_path / "known")
    assert (defect.severity, defect.file, defect.problem) == ("warning", "imagesTr/b_0000.nii.gz", problem)
    write(tmp_path / "unknown", cases, spacing_known=False)
    assert check(tmp_path / "unknown") == []


@pytest.mark.parametrize(
    ("fields", "value"),
    [({"groups": {"aa": "p"}}, "aa"), ({"wrong_labels": ["aa"]}, "aa"), ({"suspect_labels": ["aa"]}, "aa")],
)
def test_names_that_are_no_cases(root, fields, value):
    edit(root, **fields)
    defect = only(root)
    assert (defect.severity, defect.file, defect.value) == ("warning", "dataset.json", value)
    assert next(iter(fields)) in defect.problem
    assert "'a'" in defect.cause


def test_misspelt_field(root):
    edit(root, suspect_label=["a"], note="free text")
    defect = only(root)
    assert (defect.severity, defect.value) == ("warning", "suspect_label")
    assert "'suspect_labels'" in defect.cause


def test_every_defect_in_one_pass(tmp_path):
    root = tmp_path / "cohort"
    write(root, list("abcdefghij"))
    edit(root, numTraining=99, wrong_labels=["zz"])
    cut(root / "imagesTr" / "a_0000.nii.gz")
    change(root / "labelsTr" / "a.nii.gz", lambda array: array * 7)
    change(root / "labelsTr" / "b.nii.gz", origin=(9, 9, 9))
    change(root / "imagesTr" / "c_0001.nii.gz", set_voxel(np.nan))
    change(root / "labelsTr" / "d.nii.gz", np.zeros_like)
    (root / "imagesTr" / "e_0001.nii.gz").unlink()
    (root / "labelsTr" / "f.nii.gz").unlink()
    shutil.copy(root / "imagesTr" / "g_0000.nii.gz", root / "imagesTr" / "h_0000.nii.gz")
    turn(root, "i", np.diag([-1, 1, 1]))
    assert {(defect.severity, defect.file, defect.problem) for defect in check(root)} == {
        ("warning", "dataset.json", "'numTraining' is not the number of cases, 10"),
        ("warning", "dataset.json", "'wrong_labels' names a case that is not there"),
        ("error", "imagesTr/a_0000.nii.gz", "cannot be read"),
        ("error", "labelsTr/a.nii.gz", "unknown label value"),
        ("error", "labelsTr/b.nii.gz", "another grid: origin (x, y, z) differs"),
        ("error", "imagesTr/c_0001.nii.gz", "NaN or infinite values"),
        ("warning", "labelsTr/d.nii.gz", "empty label"),
        ("error", "imagesTr/e_0001.nii.gz", "missing channel"),
        ("error", "labelsTr/f.nii.gz", "image without label"),
        ("error", "imagesTr/h_0000.nii.gz", "the same image under two case names"),
        ("warning", "imagesTr/i_0000.nii.gz", "another orientation than the other cases"),
    }


# ---------------------------------------------------------------------------------------------------------------------
# fingerprint


def test_moved_folder_keeps_its_fingerprint(root, tmp_path):
    before = fingerprint(read_cohort(root))
    assert len(before) == 64
    shutil.move(root, tmp_path / "elsewhere")
    assert fingerprint(read_cohort(tmp_path / "elsewhere")) == before


def test_one_voxel_changes_the_fingerprint(root):
    before = fingerprint(read_cohort(root))

    def flip(array):
        array[2, 3, 4] ^= 1
        return array

    change(root / "labelsTr" / "c.nii.gz", flip)
    assert fingerprint(read_cohort(root)) != before


def test_meaning_changes_the_fingerprint_and_wording_does_not(root):
    def now(**fields):
        edit(root, **fields)
        return fingerprint(read_cohort(root))

    seen = [now()]
    assert now(reference="a paper", licence="CC0", note="text") == seen[0]
    for fields in (
        {"groups": {"a": "p"}},
        {"suspect_labels": ["a"]},
        {"wrong_labels": ["b"]},
        {"labels": {"background": 0, "GTVnd": 1}},
        {"channel_names": {"0": "T2", "1": "CT"}},
        {"spacing_known": False},
    ):
        seen.append(now(**fields))
    assert len(set(seen)) == len(seen)


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


def test_fingerprint_of_a_file_that_went_away(root):
    cohort = read_cohort(root)
    cohort.cases[0].label.unlink()
    with pytest.raises(InputError, match=r"a.nii.gz: cannot be read"):
        fingerprint(cohort)


# ---------------------------------------------------------------------------------------------------------------------
# splits


def cohort_of(groups, suspects=()):
    """A cohort without files, from case: patient."""
    cases = tuple(Case(name, patient, (), None, name in suspects) for name, patient in sorted(groups.items()))
    return Cohort(None, "tiny", ("T1",), {"GTVp": 1}, cases, (), True, "", "", False)


def patients(n):
    return cohort_of({f"case{i:02d}": f"p{i:02d}" for i in range(n)})


@settings(deadline=None)
@given(
    groups=st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 9).map("p{}".format), min_size=1),
    suspects=st.sets(st.text("abcdef", min_size=1, max_size=3)),
    seed=st.integers(0, 2**31),
    folds=st.integers(2, 5),
    validation=st.integers(0, 2),
    kind=st.sampled_from(["leave-one-out", "k-fold", "fixed"]),
    data=st.data(),
)
def test_folds_never_share_a_patient(groups, suspects, seed, folds, validation, kind, data):
    cohort = cohort_of(groups, suspects)
    test = sorted(data.draw(st.sets(st.sampled_from(cohort.patients), min_size=1))) if kind == "fixed" else ()
    usable = {case.patient for case in cohort.cases if not case.suspect}
    try:
        split = split_patients(cohort, kind, folds=folds, seed=seed, validation=validation, test=test)
    except InputError:
        # Refused only where some fold cannot have its patients.
        largest = {"leave-one-out": 1, "k-fold": -(-len(usable) // folds), "fixed": len(usable & set(test))}[kind]
        assert len(usable) - largest < validation + 1 or (kind == "k-fold" and folds > len(cohort.patients))
        return
    for fold in split.folds:
        roles = [set(fold.train), set(fold.validation), set(fold.test)]
        assert sum(map(len, roles)) == len(set.union(*roles))
        assert fold.test
        assert fold.train
        assert len(fold.validation) == validation
        assert roles[0] | roles[1] == usable - roles[2]
    tested = [patient for fold in split.folds for patient in fold.test]
    assert sorted(tested) == sorted(test or cohort.patients)
    assert split_patients(cohort, kind, folds=folds, seed=seed, validation=validation, test=test) == split


def test_leave_one_out_goes_by_patient():
    cohort = cohort_of({"a1": "a", "a2": "a", "b": "b", "c1": "c", "c2": "c", "d": "d"}, suspects={"d", "c2"})
    split = split_patients(cohort, "leave-one-out")
    assert [fold.test for fold in split.folds] == [("a",), ("b",), ("c",), ("d",)]
    assert [fold.number for fold in split.folds] == [0, 1, 2, 3]
    assert all("d" not in fold.train + fold.validation for fold in split.folds)
    assert sorted(split.folds[3].train + split.folds[3].validation) == ["a", "b", "c"]


def test_seed_changes_k_fold():
    splits = [split_patients(patients(20), "k-fold", seed=seed) for seed in (1, 2)]
    assert splits[0].folds != splits[1].folds
    assert [len(fold.test) for fold in splits[0].folds] == [4] * 5


def test_suspect_patients_are_spread_over_folds():
    cohort = cohort_of({f"c{i}": f"p{i}" for i in range(10)}, suspects={"c0", "c1"})
    split = split_patients(cohort, "k-fold")
    assert sorted(len(set(fold.test) - {"p0", "p1"}) for fold in split.folds) == [1, 1, 2, 2, 2]


def test_inner_validation_differs_from_fold_to_fold():
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


def test_split_is_written_and_read(tmp_path):
    split = split_patients(patients(5), "fixed", test=["p03", "p01"])
    assert split.folds[0].test == ("p01", "p03")
    split.write(tmp_path / "x" / "split.json")
    assert read_split(tmp_path / "x" / "split.json") == split
    assert os.listdir(tmp_path / "x") == ["split.json"]


def test_split_that_leaks_is_refused(tmp_path):
    Split("fixed", 1, (Fold(0, ("a", "b"), ("c",), ("b",)),)).write(tmp_path / "split.json")
    with pytest.raises(InputError, match="fold 0 names patient 'b' 2 times"):
        read_split(tmp_path / "split.json")


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "fixed"}'])
def test_file_that_is_no_split(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(InputError, match="not a split"):
        read_split(tmp_path / "split.json")
    with pytest.raises(InputError, match="no such split"):
        read_split(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("n", "kind", "more", "message"),
    [
        (1, "leave-one-out", {}, "cohort tiny has 1 patient: leave-one-out needs at least 3"),
        (2, "leave-one-out", {}, "cohort tiny has 2 patients: leave-one-out needs at least 3"),
        (1, "leave-one-out", {"validation": 0}, "cohort tiny has 1 patient: leave-one-out needs at least 2"),
        (3, "k-fold", {}, "cohort tiny has 3 patients, folds is 5: k-fold needs from 2 to 3 folds"),
        (3, "k-fold", {"folds": 1}, "folds is 1"),
        (2, "k-fold", {"folds": 2}, "leaves 1 to train and validate, of 2 needed"),
        (4, "fixed", {"test": ["p00", "p01", "p02"]}, "leaves 1 to train"),
        (4, "fixed", {"test": ["p0"]}, "no patient 'p0': a typing slip for 'p0"),
        (4, "fixed", {}, "only a fixed split names them"),
        (4, "k-fold", {"test": ["p00"]}, "only a fixed split names them"),
        (4, "kfold", {}, "unknown kind of split 'kfold': did you mean 'k-fold'"),
        (4, "xyz", {}, "it is one of leave-one-out, k-fold, fixed"),
        (4, "leave-one-out", {"validation": -1}, "validation is -1"),
    ],
)
def test_split_that_cannot_be_made(n, kind, more, message):
    with pytest.raises(InputError, match=message):
        split_patients(patients(n), kind, **more)


def test_too_few_patients_without_suspect_labels():
    cohort = cohort_of({"a": "a", "b": "b", "c": "c"}, suspects={"a", "b"})
    with pytest.raises(InputError, match="has 3 patients, of which 1 can be trained on"):
        split_patients(cohort, "leave-one-out")


# ---------------------------------------------------------------------------------------------------------------------
# prepared cohorts


def test_prepared_cohort_holds_what_was_written(tmp_path):
    cases = [arrays("a", "p"), arrays("b", "p", suspect=True), arrays("c")]
    cohort = write(tmp_path / "cohort", cases, licence="CC0", spacing_known=False)
    prepared = prepare(cohort, tmp_path / "prepared")
    digest = fingerprint(cohort)
    assert prepared.folder == tmp_path / "prepared" / f"tiny-{digest[:8]}"
    assert (prepared.name, prepared.fingerprint, prepared.licence) == ("tiny", digest, "CC0")
    assert (prepared.channels, prepared.structures, prepared.spacing_known) == (("T1", "CT"), {"GTVp": 1}, False)
    assert (len(prepared), prepared.cases, prepared.patients) == (3, ["a", "b", "c"], ("c", "p"))
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
    assert split_patients(prepared, "leave-one-out", validation=0) == split_patients(
        cohort, "leave-one-out", validation=0
    )


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (np.int16, np.int16, np.int16),
        (np.uint8, np.int16, np.int16),
        (np.int16, np.float32, np.float32),
        (np.float64, np.float64, np.float32),
        (np.int32, np.float32, np.float32),
    ],
)
def test_number_type_of_a_prepared_image(root, tmp_path, first, second, kept):
    for case in "abc":
        for number, dtype in enumerate((first, second)):
            change(root / "imagesTr" / f"{case}_000{number}.nii.gz", lambda x, dtype=dtype: (x % 100).astype(dtype))
    case = prepare(read_cohort(root), tmp_path / "prepared").case("a")
    assert case.image.dtype == kept
    np.testing.assert_array_equal(case.image, arrays("a").image % 100)


def test_values_beyond_float32_are_refused(root, tmp_path):
    change(root / "imagesTr" / "a_0000.nii.gz", lambda array: array * 1e300)
    with pytest.raises(InputError, match=r"case a: .*beyond the range of float32"):
        prepare(read_cohort(root), tmp_path / "prepared")


def test_prepare_is_idempotent_and_reads_back_without_simpleitk(root, tmp_path, monkeypatch):
    first = prepare(read_cohort(root), tmp_path / "prepared")
    stamps = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    second = prepare(read_cohort(root), tmp_path / "prepared")
    assert second == first == read_prepared(first.folder)
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == stamps
    np.testing.assert_array_equal(second.case("c").image, arrays("c").image)


def test_prepare_follows_a_corrected_licence(root, tmp_path):
    first = prepare(read_cohort(root), tmp_path / "prepared")
    edit(root, licence="CC BY 4.0", publishable=True)
    second = prepare(read_cohort(root), tmp_path / "prepared")
    assert second.folder == first.folder
    assert (second.licence, second.publishable) == ("CC BY 4.0", True)


def test_changed_cohort_is_prepared_beside_the_old_one(root, tmp_path):
    first = prepare(read_cohort(root), tmp_path / "prepared")
    edit(root, wrong_labels=["b"])
    second = prepare(read_cohort(root), tmp_path / "prepared")
    assert second.folder != first.folder
    assert (first.cases, second.cases) == (["a", "b", "c"], ["a", "c"])


def test_failing_case_leaves_nothing_half_written(root, tmp_path):
    cut(root / "imagesTr" / "c_0001.nii.gz")
    with pytest.raises(InputError, match=r"case c: imagesTr/c_0001.nii.gz: cannot be read"):
        prepare(read_cohort(root), tmp_path / "prepared")
    assert os.listdir(tmp_path / "prepared") == ["fingerprints.json"]


def test_damaged_prepared_folder_is_made_again(root, tmp_path):
    prepared = prepare(read_cohort(root), tmp_path / "prepared")
    (prepared.folder / "b.label.npy").unlink()
    with pytest.raises(InputError, match=r"b.label.npy: missing"):
        read_prepared(prepared.folder)
    again = prepare(read_cohort(root), tmp_path / "prepared")
    np.testing.assert_array_equal(again.case("b").label, arrays("b").label)


def test_prepared_folder_that_cannot_be_read(root, tmp_path):
    with pytest.raises(InputError, match=r"prepared.json: missing"):
        read_prepared(tmp_path)
    prepared = prepare(read_cohort(root), tmp_path / "prepared")
    (prepared.folder / "a.image.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.image.npy: cannot be read .*prepare the cohort again"):
        prepared.case("a")
    (prepared.folder / "prepared.json").write_text("{}")
    with pytest.raises(InputError, match="not a prepared cohort"):
        read_prepared(prepared.folder)


def test_unknown_case_and_patient_are_named(root, tmp_path):
    prepared = prepare(read_cohort(root), tmp_path / "prepared")
    with pytest.raises(InputError, match="has no case 'aa': a typing slip for 'a'"):
        prepared.case("aa")
    with pytest.raises(InputError, match="has no patient 'zzz': a mistyped name"):
        prepared.cases_of(["zzz"])


def test_one_slice_cohort(tmp_path):
    case = CaseArrays("a", "a", np.arange(20.0).reshape(1, 1, 4, 5), np.ones((1, 4, 5), np.uint8), (1, 1, 1))
    cohort = write_cohort(tmp_path / "cohort", [case], name="2d", channels=["T2"], structures={"GTVp": 1})
    assert prepare(cohort, tmp_path / "prepared").case("a").image.shape == (1, 1, 4, 5)
    assert check(cohort.root) == []

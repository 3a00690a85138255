import json
import shutil

import numpy as np
import pytest
from cohort_cases import arrays, change, cut, edit, only, save, set_voxel, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import missing_series, prepare


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


@pytest.mark.parametrize("value", [1e300, -1e300, 3.5e38])
def test_values_beyond_float32(root, value):
    def put(array):
        array = array.astype(np.float64)
        array[0, 0, 0] = value
        return array

    change(root / "imagesTr" / "a_0001.nii.gz", put)
    defect = only(root)
    assert (defect.severity, defect.file) == ("error", "imagesTr/a_0001.nii.gz")
    assert defect.problem == "values beyond the range of float32"
    assert defect.value.startswith("1 voxels, from ")
    assert f"{value:.3g}" in defect.value
    assert "wrong data type" in defect.cause


def test_the_largest_value_of_float32_is_no_defect(root):
    change(root / "imagesTr" / "a_0001.nii.gz", set_voxel(np.finfo(np.float32).max))
    assert check(root) == []


def test_an_image_of_one_value_is_a_warning_and_is_prepared(root, tmp_path):
    change(root / "imagesTr" / "a_0001.nii.gz", lambda array: np.full_like(array, 7))
    defect = only(root)
    assert (defect.severity, defect.file) == ("warning", "imagesTr/a_0001.nii.gz")
    assert (defect.problem, defect.value) == ("image has one value", "7")
    assert "an export without the voxels" in defect.cause
    assert (prepare(read_cohort(root), tmp_path / "prepared").case("a").image[1] == 7).all()


def test_complex_image(root):
    change(root / "imagesTr" / "a_0001.nii.gz", lambda array: array * np.complex64(1 + 2j))
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == ("error", "imagesTr/a_0001.nii.gz", "cannot be read")
    assert defect.value == "complex numbers"
    assert "save the magnitude" in defect.cause


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
        "warning",
        "imagesTr/b_0001.nii.gz",
        "missing channel, so that the case is left out",
        "channel 1, CT",
    )
    assert [case.name for case in read_cohort(root).cases] == ["a", "c"]


def test_a_case_without_a_series_is_left_out_unless_zeros_stand_in(root, tmp_path):
    full = prepare(read_cohort(root), tmp_path / "prepared")
    (root / "imagesTr" / "b_0000.nii.gz").unlink()
    left = prepare(read_cohort(root), tmp_path / "prepared")
    assert left.case_names == ["a", "c"]
    edit(root, missing_series="zero")
    assert (only(root).severity, only(root).problem) == ("warning", "missing channel, which becomes zeros")
    cohort = read_cohort(root)
    prepared = prepare(cohort, tmp_path / "prepared")
    assert [missing_series(prepared, case) for case in "abc"] == [(), ("T1",), ()]
    image = prepared.case("b").image
    assert not image[0].any()
    np.testing.assert_array_equal(image[1], full.case("b").image[1])
    assert len({full.fingerprint, left.fingerprint, prepared.fingerprint}) == 3


def test_no_case_with_all_series(root):
    for case in "abc":
        (root / "imagesTr" / f"{case}_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no cases left.*lacks a channel"):
        read_cohort(root)
    edit(root, missing_series="zeros")
    with pytest.raises(InputError, match='neither "leave-out" nor "zero"'):
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
    assert only(root).file == "imagesTr/b_0001.nii.gz"
    assert only(root).problem.startswith("missing channel")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        ("warning", "imagesTr/e_0001.nii.gz", "missing channel, so that the case is left out"),
        ("error", "labelsTr/f.nii.gz", "image without label"),
        ("error", "imagesTr/h_0000.nii.gz", "the same image under two case names"),
        ("warning", "imagesTr/i_0000.nii.gz", "another orientation than the other cases"),
    }

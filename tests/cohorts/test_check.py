"""Every defect is named with file, value and likely cause; errors are what `prepare` refuses, warnings are not."""

import re
import shutil

import numpy as np
import pytest
from cohort_cases import arrays, change, cut, edit, only, save, set_voxel, write

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import missing_series, prepare

IMAGE, LABEL = "imagesTr/b_0001.nii.gz", "labelsTr/b.nii.gz"


def spoilt(file, function=lambda array: array, **geometry):
    return lambda root: change(root / file, function, **geometry)


def edited(**fields):
    return lambda root: edit(root, **fields)


def turned(direction, case="b"):
    def turn(root):
        for file in (f"imagesTr/{case}_0000", f"imagesTr/{case}_0001", f"labelsTr/{case}"):
            change(root / f"{file}.nii.gz", direction=direction)

    return turn


def set_double(value):
    return lambda array: np.where(np.arange(array.size).reshape(array.shape) == 0, value, array.astype(np.float64))


def copied(old, new):
    return lambda root: shutil.copy(root / old, root / new)


OTHER_AXES, OBLIQUE = "another orientation than the other cases", "oblique axes"
ERRORS = [
    (lambda root: (root / IMAGE).write_bytes(b"<html>404</html>"), IMAGE, "cannot be read", "16 bytes", "damaged"),
    (lambda root: cut(root / IMAGE), IMAGE, "cannot be read", " bytes", "truncated"),
    (spoilt(IMAGE, lambda a: a * np.complex64(1j)), IMAGE, "cannot be read", "complex numbers", "the magnitude"),
    (spoilt(IMAGE, set_voxel(np.nan)), IMAGE, "NaN or infinite values", "1 voxels", "division by zero"),
    (spoilt(IMAGE, set_double(-1e300)), IMAGE, "values beyond the range of float32", "from -1e+300", "wrong data type"),
    (spoilt(IMAGE, origin=(5, 0, 0)), IMAGE, "another grid: origin (x, y, z) differs", "(5, 0, 0) and", "channels"),
    (
        spoilt(LABEL, spacing_mm=(3.0, 1.0, 1.1)),
        *(LABEL, "another grid: spacing_mm (z, y, x) differs", "(3, 1, 1.1) and (3, 1, 1)", "resampled"),
    ),
    (spoilt(LABEL, direction=np.diag([-1, -1, 1])), LABEL, "another grid: direction differs", "(-1, 0", "flipped on"),
    (
        spoilt(LABEL, lambda a: a[:, :, 1:]),
        *(LABEL, "another grid: shape (z, y, x) differs", "(3, 4, 4) and (3, 4, 5) in imagesTr/b_0000.nii.gz", ""),
    ),
    (spoilt(LABEL, lambda a: a.T.copy()), LABEL, "another grid: shape (z, y, x) differs", "", "transposed"),
    (spoilt(LABEL, lambda a: a * 255), LABEL, "unknown label value", "255 in 4 voxels", "255 for 1"),
    (spoilt(LABEL, set_voxel(0.37)), LABEL, "label values that are no integers", "0.37", "interpolation"),
    (lambda root: (root / LABEL).unlink(), LABEL, "image without label", "b", "not exported"),
    (
        lambda root: [path.unlink() for path in (root / "imagesTr").glob("b_*")],
        *(LABEL, "label without image", "b", "not exported"),
    ),
    (
        lambda root: save(arrays("b").image[1], root / "imagesTr/b_0001.nii"),
        *("imagesTr/b_0001.nii", "the same case name twice", "b_0001", "only b_0001.nii.gz is read"),
    ),
]
WARNINGS = [
    (lambda root: (root / IMAGE).unlink(), IMAGE, "missing channel, so that the case is left out", "channel 1, CT", ""),
    (copied(IMAGE, "imagesTr/b_0002.nii.gz"), "imagesTr/b_0002.nii.gz", "image of an unknown channel", "channel 2", ""),
    (copied(IMAGE, "imagesTr/d.nrrd"), "imagesTr/d.nrrd", "another file ending", ".nrrd", "the file is ignored"),
    (spoilt(IMAGE, lambda a: np.full_like(a, 7)), IMAGE, "image has one value", "7", "an export without the voxels"),
    (spoilt(LABEL, np.zeros_like), LABEL, "empty label", "0 voxels", "nothing was drawn"),
    (turned(np.diag([-1, -1, 1])), "imagesTr/b_0000.nii.gz", OTHER_AXES, "axes RAS, LPS in most cases", "a flip"),
    (turned([[1, 0, 0], [0, 0, 1], [0, -1, 0]]), "imagesTr/b_0000.nii.gz", "slices are not axial", "axes LIP", ""),
    (
        turned([[1, 0, 0], [0, 0.8660254, -0.5], [0, 0.5, 0.8660254]]),
        *("imagesTr/b_0000.nii.gz", OBLIQUE, "30 degrees off the patient's axes", "not resampled"),
    ),
    (edited(numTraining=7), "dataset.json", "'numTraining' is not the number of cases, 3", "7", "added or removed"),
    (edited(groups={"aa": "p"}), "dataset.json", "'groups' names a case that is not there", "aa", "slip for 'a'"),
    (edited(suspect_label=["a"]), "dataset.json", "unknown field, which is ignored", "suspect_label", "labels'"),
]


@pytest.mark.parametrize(("spoil", "file", "problem", "value", "cause"), ERRORS)
def test_an_error_is_named_and_prepare_refuses_it(root, tmp_path, spoil, file, problem, value, cause):
    spoil(root)
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem) == ("error", file, problem)
    assert value in defect.value
    assert cause in defect.cause
    with pytest.raises(InputError, match=f"{re.escape(file)}: {re.escape(problem)}"):
        prepare(read_cohort(root), tmp_path / "prepared")


@pytest.mark.parametrize(("spoil", "file", "problem", "value", "cause"), WARNINGS)
def test_a_warning_is_named_and_the_cohort_is_prepared(root, tmp_path, spoil, file, problem, value, cause):
    spoil(root)
    defect = only(root)
    assert (defect.severity, defect.file, defect.problem, defect.value) == ("warning", file, problem, value)
    assert cause in defect.cause
    assert prepare(read_cohort(root), tmp_path / "prepared").case_names[0] == "a"


def test_images_to_segment_need_no_dataset_json(root):
    (root / "imagesTr").rename(root / "imagesTs")
    shutil.rmtree(root / "labelsTr")
    (root / "dataset.json").unlink()
    assert (only(root).severity, only(root).file, only(root).problem) == ("warning", "dataset.json", "missing")


def test_what_is_no_defect(root, tmp_path):
    change(root / "labelsTr/a.nii.gz", lambda a: a.astype(np.float32) * 0.9995)
    change(root / LABEL, spacing_mm=(3.0, 1.0005, 1.0), origin=(0.05, 0, 0))  # rounding of a header
    change(root / IMAGE, set_voxel(np.finfo(np.float32).max))
    assert check(root) == []
    np.testing.assert_array_equal(prepare(read_cohort(root), tmp_path / "p").case("a").label, arrays("a").label)


def test_a_case_without_a_series_is_left_out_unless_zeros_stand_in(root, tmp_path):
    full = prepare(read_cohort(root), tmp_path / "prepared")
    (root / "imagesTr" / "b_0000.nii.gz").unlink()
    (root / "imagesTr" / "b_0000.nii.gz").symlink_to(root / "gone")  # a link that leads nowhere is a missing file
    left = prepare(read_cohort(root), tmp_path / "prepared")
    assert left.case_names == ["a", "c"]
    edit(root, missing_series="zero")
    assert (only(root).severity, only(root).problem) == ("warning", "missing channel, which becomes zeros")
    prepared = prepare(read_cohort(root), tmp_path / "prepared")
    assert [missing_series(prepared, case) for case in "abc"] == [(), ("T1",), ()]
    image = prepared.case("b").image
    assert not image[0].any()
    np.testing.assert_array_equal(image[1], full.case("b").image[1])
    assert len({full.fingerprint, left.fingerprint, prepared.fingerprint}) == 3


def test_the_same_image_under_two_names(root):
    shutil.copy(root / "imagesTr" / "a_0000.nii.gz", root / "imagesTr" / "b_0000.nii.gz")
    assert (only(root).severity, only(root).problem) == ("error", "the same image under two case names")
    assert only(root).value == "cases a and b of patients a and b"
    edit(root, groups={"a": "p", "b": "p"})
    assert (only(root).severity, only(root).value) == ("warning", "cases a and b of patient p")


@pytest.mark.parametrize(
    ("spacing_mm", "problem"),
    [
        ((7.0, 1.0, 1.0), "spacing far from that of the other cases"),
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


def test_units_that_are_wrong_in_every_case(tmp_path):
    write(tmp_path / "cm", [arrays(name, spacing_mm=(0.3, 0.1, 0.1)) for name in "ab"])
    assert [defect.problem for defect in check(tmp_path / "cm")] == ["an unlikely spacing"] * 2
    write(tmp_path / "ct", list("ab"))
    change(tmp_path / "ct" / "imagesTr" / "b_0001.nii.gz", lambda array: array + 1024)
    assert (only(tmp_path / "ct").file, only(tmp_path / "ct").problem) == (
        "imagesTr/b_0001.nii.gz",
        "a CT that is not in HU",
    )


def test_every_defect_in_one_pass(tmp_path):
    root = tmp_path / "cohort"
    write(root, list("abcdef"))
    edit(root, numTraining=99)
    cut(root / "imagesTr" / "a_0000.nii.gz")
    change(root / "labelsTr" / "a.nii.gz", lambda array: array * 7)
    change(root / "labelsTr" / "b.nii.gz", origin=(9, 9, 9))
    (root / "labelsTr" / "c.nii.gz").unlink()
    shutil.copy(root / "imagesTr" / "d_0000.nii.gz", root / "imagesTr" / "e_0000.nii.gz")
    turned(np.diag([-1, 1, 1]), "f")(root)
    assert [(defect.file, defect.problem) for defect in check(root)] == [
        ("labelsTr/c.nii.gz", "image without label"),
        ("dataset.json", "'numTraining' is not the number of cases, 6"),
        ("imagesTr/a_0000.nii.gz", "cannot be read"),
        ("labelsTr/a.nii.gz", "unknown label value"),
        ("labelsTr/b.nii.gz", "another grid: origin (x, y, z) differs"),
        ("imagesTr/e_0000.nii.gz", "the same image under two case names"),
        ("imagesTr/f_0000.nii.gz", OTHER_AXES),
    ]

"""A cohort from a table of files."""

import numpy as np
import pytest
from cohort_cases import save

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.structures import mask_of
from npcrepro.cohorts.table import import_table

SHAPE = (6, 16, 16)
TUMOUR, TARGET = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
TUMOUR[2:4, 4:8, 4:8] = TARGET[1:5, 3:9, 3:9] = True
MASKS = """case,T1,CT,mask:GTVp,mask:CTV2
one,one_t1.nrrd,one_ct.mha,one_gtv.nii.gz,one_ctv.nii
two,two_t1.nrrd,two_ct.mha,,two_ctv.nii
"""


@pytest.fixture
def folder(tmp_path):
    """Two cases as NRRD, MHA and NIfTI: T1 and CT, with a mask of each of two structures that overlap."""
    rng = np.random.default_rng(0)
    for case in ("one", "two"):
        save(rng.integers(0, 999, SHAPE).astype(np.int16), tmp_path / f"{case}_t1.nrrd")
        save(rng.integers(-1000, 999, SHAPE).astype(np.int16), tmp_path / f"{case}_ct.mha")
        save(TUMOUR * np.uint8(255), tmp_path / f"{case}_gtv.nii.gz")
        save(TARGET * np.uint8(1), tmp_path / f"{case}_ctv.nii")
        save(np.where(TUMOUR, 2, TARGET).astype(np.float32), tmp_path / f"{case}_label.nrrd")
    return tmp_path


def imported(folder, text, lines=None):
    path = folder / "my cohort.csv"
    path.write_text(text, encoding="utf-8")
    return import_table(path, folder / "out", report=[].append if lines is None else lines.append)


def masks(cohort, case=0):
    label = read_image(cohort.cases[case].label)[0]
    return {name: mask_of(label, cohort.structures, name) for name in cohort.structures}


def test_masks_become_structures(folder):
    lines = []
    cohort = imported(folder, MASKS, lines)
    assert (cohort.name, cohort.channels, tuple(cohort.structures)) == ("out", ("T1", "CT"), ("GTVp", "CTV2"))
    assert not cohort.publishable
    assert check(folder / "out") == []
    assert lines == []
    np.testing.assert_array_equal(masks(cohort)["GTVp"], TUMOUR)
    np.testing.assert_array_equal(masks(cohort)["CTV2"], TARGET)
    np.testing.assert_array_equal(read_image(cohort.cases[1].images[1])[0], read_image(folder / "two_ct.mha")[0])


def test_a_label_file_with_codes_and_patients(folder):
    text = "case;patient;T1;label:GTVp=2 CTV2=1\none;p;one_t1.nrrd;one_label.nrrd\ntwo;p;two_t1.nrrd;two_label.nrrd\n"
    cohort = imported(folder, "\ufeff" + text)
    assert cohort.patients == ("p",)
    np.testing.assert_array_equal(masks(cohort)["GTVp"], TUMOUR)


def test_an_empty_cell_is_an_empty_target_but_an_organ_that_nobody_drew(folder):
    cohort = imported(folder, MASKS.replace("mask:CTV2", "mask:BrainStem").replace(",two_ctv.nii", ","))
    assert [case.not_contoured for case in cohort.cases] == [(), ("BrainStem",)]
    assert not masks(cohort, 1)["GTVp"].any()


def test_a_label_image_in_place_of_a_mask_is_refused(folder):
    save(np.maximum(TUMOUR, 2 * np.roll(TUMOUR, 5, axis=2)).astype(np.uint8), folder / "one_gtv.nii.gz")
    with pytest.raises(
        InputError, match=r"2 values, 1 to 2, in the mask of one structure; likely cause: a label image"
    ):
        imported(folder, MASKS)


def test_other_grids_are_resampled_to_the_reference_and_said(folder):
    flipped = np.ascontiguousarray(TUMOUR[:, :, ::-1]) * np.uint8(1)
    save(flipped, folder / "one_gtv.nii.gz", direction=np.diag([-1.0, 1.0, 1.0]), origin=(15.0, 0.0, 0.0))
    save(
        np.arange(3 * 256, dtype=np.int16).reshape(3, 16, 16) - 1000, folder / "one_ct.mha", spacing_mm=(6.0, 1.0, 1.0)
    )
    lines = []
    cohort = imported(folder, MASKS, lines)
    assert lines == [f"case one: {name} resampled to the grid of T1" for name in ("CT", "mask:GTVp")]
    np.testing.assert_array_equal(masks(cohort)["GTVp"], TUMOUR)
    assert check(folder / "out") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("case,", "name,", "needs the column 'case' and a row for each case; found: name, T1"),
        ("case,", "sep=;\ncase,", "found: sep=; a first line such as sep=; has to go"),
        ("one_t1.nrrd,", "", "line 2: not as many cells"),
        ("two,", " ,", "line 3: no case name"),
        ("two,", "\n\n ,", "line 5: no case name"),
        ("mask:GTVp,mask:CTV2", "label:GTVp=1,mask:CTV2", "1 mask columns and 1 label columns"),
        ("mask:GTVp,mask:CTV2", "PET,label:GTVp", "column 'label:GTVp' does not name its codes"),
        ("mask:GTVp,mask:CTV2", "PET,label:GTVp=1 GTVp=2", "names the structure GTVp twice: a structure has one code"),
        ("mask:GTVp,mask:CTV2", "PET,label:GTVp=1 ignore=2", "2' names 'ignore', which nnU-Net keeps for itself"),
        ("T1,CT", "mask:T1,mask:CT", "no channel"),
        ("one_t1.nrrd", "", "case one has no file in column 'T1'"),
        ("one_gtv.nii.gz", "gtv.mha", "case one, column 'mask:GTVp': .*gtv.mha: cannot be read .no such file"),
        ("CT,", " T1 ,", "2 columns are called 'T1'"),
        ("two,two_t1", "one,two_t1", "case one is given twice"),
        ("two,two_t1", "../two,two_t1", "case name '../two' cannot be part of a file name"),
        (
            "mask:GTVp,mask:CTV2",
            "PET,label:GTVp=2",
            "column 'label:GTVp=2': .*label value 1: column .* does not list it",
        ),
    ],
)
def test_bad_tables_are_named_and_leave_nothing(folder, old, new, message):
    assert old in MASKS
    with pytest.raises(InputError, match=message):
        imported(folder, MASKS.replace(old, new, 1))
    assert not (folder / "out").exists()


@pytest.mark.parametrize(("column", "code"), [("mask:GTVp", -1), ("label:GTVp=1003", 1003)])
def test_drawings_that_are_damaged_or_lose_everything_are_refused(folder, column, code):
    text = f"case,T1,{column}\none,one_t1.nrrd,drawn.nii.gz\n"
    drawn = np.zeros((6, 8, 8), np.int16)
    drawn[2:4, 2:7, 1:6] = code
    save(drawn, folder / "drawn.nii.gz", origin=(0.0, 0.0, 500.0))
    message = r"drawn.nii.gz: 50 voxels of GTVp, none of them inside T1 \(.*one_t1.nrrd\); likely cause: its origin"
    with pytest.raises(InputError, match=rf"case one, column '{column}': .*{message}"):
        imported(folder, text)
    save(drawn, folder / "drawn.nii.gz", spacing_mm=(0.3, 0.1, 0.1))
    with pytest.raises(
        InputError, match=r"50 voxels of GTVp, which reach the middle of no voxel of T1 .* it is too small"
    ):
        imported(folder, text)
    # NaN is neither inside nor outside.
    save(np.where(drawn == code, np.float32(np.nan), drawn), folder / "drawn.nii.gz")
    with pytest.raises(InputError, match=rf"'{column}': .*drawn.nii.gz: NaN or infinite values \(50 voxels\)"):
        imported(folder, text)
    assert not (folder / "out").exists()
    # One of the two slices lies below T1: what is cut off at its border is no defect.
    save(drawn, folder / "drawn.nii.gz", origin=(0.0, 0.0, -9.0))
    assert masks(imported(folder, text))["GTVp"].sum() == 25


def test_an_image_of_another_place_is_refused(folder):
    ct = np.arange(6 * 256, dtype=np.int16).reshape(SHAPE)
    save(ct, folder / "one_ct.mha", origin=(0.0, 17.0, 0.0))
    message = r"one_ct.mha: covers no voxel of T1 \(.*one_t1.nrrd\); likely cause: its origin was lost"
    with pytest.raises(InputError, match=rf"case one, column 'CT': .*{message}"):
        imported(folder, MASKS)
    assert not (folder / "out").exists()
    save(ct, folder / "one_ct.mha", origin=(0.0, 15.0, 0.0))
    image = read_image(imported(folder, MASKS).cases[0].images[1])
    np.testing.assert_array_equal(image[0][:, 15], ct[:, 0])

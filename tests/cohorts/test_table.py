"""A cohort from a table of files."""

import sys

import numpy as np
import pytest
import SimpleITK as sitk
from cohort_cases import save

from npcrepro.base.errors import InputError
from npcrepro.cli import commands
from npcrepro.cohorts.check import check
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.structures import mask_of
from npcrepro.cohorts.table import import_table

SHAPE = (6, 16, 16)


@pytest.fixture
def folder(tmp_path):
    """Two cases as NRRD, MHA and NIfTI: T1 and CT, with a mask of each of two structures that overlap."""
    rng = np.random.default_rng(0)
    for case in ("one", "two"):
        save(rng.integers(0, 999, SHAPE).astype(np.int16), tmp_path / f"{case}_t1.nrrd")
        save(rng.integers(-1000, 999, SHAPE).astype(np.int16), tmp_path / f"{case}_ct.mha")
        tumour, target = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
        tumour[2:4, 4:8, 4:8] = 255
        target[1:5, 3:9, 3:9] = 1
        save(tumour, tmp_path / f"{case}_gtv.nii.gz")
        save(target, tmp_path / f"{case}_ctv.nii")
        save(np.where(tumour, 2, np.where(target, 1, 0)).astype(np.float32), tmp_path / f"{case}_label.nrrd")
    return tmp_path


def table(folder, text):
    path = folder / "my cohort.csv"
    path.write_text(text, encoding="utf-8")
    return path


MASKS = """case,T1,CT,mask:GTVp,mask:CTV2
one,one_t1.nrrd,one_ct.mha,one_gtv.nii.gz,one_ctv.nii
two,two_t1.nrrd,two_ct.mha,,two_ctv.nii
"""


def test_masks_become_structures(folder):
    lines = []
    cohort = import_table(table(folder, MASKS), folder / "out", report=lines.append)
    assert (cohort.name, cohort.channels, tuple(cohort.structures)) == ("out", ("T1", "CT"), ("GTVp", "CTV2"))
    assert not cohort.publishable
    assert check(folder / "out") == []
    assert lines == []
    one, two = (read_image(case.label)[0] for case in cohort.cases)
    np.testing.assert_array_equal(mask_of(one, cohort.structures, "GTVp"), read_image(folder / "one_gtv.nii.gz")[0] > 0)
    np.testing.assert_array_equal(mask_of(one, cohort.structures, "CTV2"), read_image(folder / "one_ctv.nii")[0] > 0)
    assert not mask_of(two, cohort.structures, "GTVp").any()
    np.testing.assert_array_equal(read_image(cohort.cases[1].images[1])[0], read_image(folder / "two_ct.mha")[0])


def test_a_label_file_with_codes_and_patients(folder):
    text = "case;patient;T1;label:GTVp=2 CTV2=1\none;p;one_t1.nrrd;one_label.nrrd\ntwo;p;two_t1.nrrd;two_label.nrrd\n"
    cohort = import_table(table(folder, "\ufeff" + text), folder / "out")
    assert cohort.patients == ("p",)
    label = read_image(cohort.cases[0].label)[0]
    np.testing.assert_array_equal(
        mask_of(label, cohort.structures, "GTVp"), read_image(folder / "one_gtv.nii.gz")[0] > 0
    )


def test_other_grids_are_resampled_to_the_reference_and_said(folder):
    direction = np.diag([-1.0, 1.0, 1.0])
    tumour = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "one_gtv.nii.gz")))
    flipped = np.ascontiguousarray(tumour[:, :, ::-1])
    save(flipped, folder / "one_gtv.nii.gz", direction=direction, origin=(15.0, 0.0, 0.0))
    save(np.arange(3 * 256, dtype=np.int16).reshape(3, 16, 16), folder / "one_ct.mha", spacing_mm=(6.0, 1.0, 1.0))
    lines = []
    cohort = import_table(table(folder, MASKS), folder / "out", report=lines.append)
    assert lines == [
        "case one: CT resampled to the grid of T1",
        "case one: mask:GTVp resampled to the grid of T1",
    ]
    label = read_image(cohort.cases[0].label)[0]
    np.testing.assert_array_equal(mask_of(label, cohort.structures, "GTVp"), tumour > 0)
    assert check(folder / "out") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("case,", "name,", "needs the column 'case' and a row for each case; found: name, T1"),
        (MASKS.split("\n", 1)[1], "", "a row for each case; found: no row"),
        ("one_t1.nrrd,", "", "line 2: not as many cells"),
        ("one_ctv.nii", "one_ctv.nii,x", "line 2: not as many cells"),
        ("two,", " ,", "line 3: no case name"),
        ("mask:GTVp,mask:CTV2", "label:GTVp=1,mask:CTV2", "1 mask columns and 1 label columns"),
        ("mask:GTVp,mask:CTV2", "GTVp,CTV2", "0 mask columns and 0 label columns"),
        ("mask:GTVp,mask:CTV2", "PET,label:GTVp", "column 'label:GTVp' does not name its codes"),
        ("mask:GTVp,mask:CTV2", "PET,label:GTVp=1 GTVp=2", "names the structure GTVp twice: a structure has one code"),
        ("mask:GTVp,mask:CTV2", "PET,label:GTVp=1 CTV2=01", "names the code 1 twice: .* and a code one structure"),
        ("mask:GTVp,mask:CTV2", "PET,label:GTVp=1 ignore=2", "2' names 'ignore', which nnU-Net keeps for itself"),
        ("mask:GTVp", "mask:background", "column 'mask:background' names 'background', which nnU-Net keeps"),
        ("mask:GTVp", "mask: ", "column 'mask:' names no structure"),
        ("T1,CT", "mask:T1,mask:CT", "no channel"),
        ("one_t1.nrrd", "", "case one has no file in column 'T1'"),
        ("one_t1.nrrd", "one_t2.nrrd", "case one, column 'T1': .*one_t2.nrrd: cannot be read .no such file"),
        ("one_gtv.nii.gz", "gtv.mha", "case one, column 'mask:GTVp': .*gtv.mha: cannot be read .no such file"),
        ("CT,", "T1,", "2 columns are called 'T1'"),
        ("CT,", " T1 ,", "2 columns are called 'T1'"),
        ("mask:CTV2", "mask: GTVp", "2 columns are called 'mask:GTVp'"),
        ("CT,", "Case,", "2 columns are called 'case'"),
        ("two,two_t1", "one,two_t1", "case one is given twice"),
        ("two,two_t1", "../two,two_t1", "case name '../two' cannot be part of a file name"),
    ],
)
def test_bad_tables_are_named_and_leave_nothing(folder, old, new, message):
    assert old in MASKS
    with pytest.raises(InputError, match=message):
        import_table(table(folder, MASKS.replace(old, new, 1)), folder / "out")
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "header", ["Case,PATIENT,T1,mask: GTVp", " case , patient,T1 ,mask :GTVp", "CASE,Patient,T1,MASK:GTVp"]
)
def test_spaces_and_capitals_of_a_header_do_not_count(folder, header):
    cohort = import_table(table(folder, f"{header}\none,p,one_t1.nrrd,one_gtv.nii.gz\n"), folder / "out")
    assert (cohort.channels, cohort.patients, tuple(cohort.structures)) == (("T1",), ("p",), ("GTVp",))


def test_codes_that_the_column_does_not_name(folder):
    text = "case,T1,label:GTVp=2\none,one_t1.nrrd,one_label.nrrd\n"
    message = r"one_label.nrrd: label value 1: column 'label:GTVp=2' does not list it"
    with pytest.raises(InputError, match=f"case one, column 'label:GTVp=2': .*{message}"):
        import_table(table(folder, text), folder / "out")


@pytest.mark.parametrize(("column", "file"), [("mask:GTVp", "nan.nii.gz"), ("label:GTVp=1", "nan.nii.gz")])
def test_a_voxel_that_is_no_number_is_neither_inside_nor_outside(folder, column, file):
    drawn = np.zeros(SHAPE, np.float32)
    drawn[2, 3, 4:6] = 1, np.nan
    save(drawn, folder / file)
    with pytest.raises(
        InputError, match=rf"case one, column '{column}': .*nan.nii.gz: NaN or infinite values \(1 voxels\)"
    ):
        import_table(table(folder, f"case,T1,{column}\none,one_t1.nrrd,{file}\n"), folder / "out")
    assert not (folder / "out").exists()


def test_a_mask_of_negative_values_keeps_them_on_another_grid(folder):
    drawn = np.zeros((6, 8, 8), np.int16)
    drawn[2:4, 2:5, 2:5] = -1
    save(drawn, folder / "coarse.nii.gz", spacing_mm=(3.0, 2.0, 2.0))
    cohort = import_table(table(folder, "case,T1,mask:GTVp\none,one_t1.nrrd,coarse.nii.gz\n"), folder / "out")
    assert read_image(cohort.cases[0].label)[0].sum() > 18


@pytest.mark.parametrize(("column", "code"), [("mask:GTVp", 1), ("label:GTVp=2", 2)])
def test_a_drawing_that_loses_everything_is_refused(folder, column, code):
    path = table(folder, f"case,T1,{column}\none,one_t1.nrrd,drawn.nii.gz\n")
    drawn = np.zeros((6, 8, 8), np.uint8)
    drawn[2:4, 2:7, 1:6] = code
    save(drawn, folder / "drawn.nii.gz", origin=(0.0, 0.0, 500.0))
    message = r"drawn.nii.gz: 50 voxels of GTVp, none of them inside T1 \(.*one_t1.nrrd\); likely cause: its origin"
    with pytest.raises(InputError, match=rf"case one, column '{column}': .*{message}"):
        import_table(path, folder / "out")
    save(drawn, folder / "drawn.nii.gz", spacing_mm=(0.3, 0.1, 0.1))
    with pytest.raises(InputError, match=r"50 voxels of GTVp, which fill half of no voxel of T1 .* it is too small"):
        import_table(path, folder / "out")
    assert not (folder / "out").exists()
    # One of the two slices lies below T1: what is cut off at its border is no defect.
    save(drawn, folder / "drawn.nii.gz", origin=(0.0, 0.0, -9.0))
    cohort = import_table(path, folder / "out", report=lambda line: None)
    assert read_image(cohort.cases[0].label)[0].sum() == 25


def test_an_image_of_another_place_is_refused(folder):
    ct = np.arange(6 * 256, dtype=np.int16).reshape(SHAPE)
    save(ct, folder / "one_ct.mha", origin=(0.0, 17.0, 0.0))
    message = r"one_ct.mha: covers no voxel of T1 \(.*one_t1.nrrd\); likely cause: its origin was lost"
    with pytest.raises(InputError, match=rf"case one, column 'CT': .*{message}"):
        import_table(table(folder, MASKS), folder / "out")
    assert not (folder / "out").exists()
    save(ct, folder / "one_ct.mha", origin=(0.0, 15.0, 0.0))
    image = read_image(import_table(table(folder, MASKS), folder / "out", report=lambda line: None).cases[0].images[1])
    np.testing.assert_array_equal(image[0][:, 15], ct[:, 0])


def test_codes_beyond_a_byte(folder):
    save(np.full(SHAPE, 1003, np.int16), folder / "codes.nii.gz")
    cohort = import_table(table(folder, "case,T1,label:GTVp=1003\none,one_t1.nrrd,codes.nii.gz\n"), folder / "out")
    assert (read_image(cohort.cases[0].label)[0] == 1).all()


def test_a_table_with_tabs(folder, call):
    path = folder / "table.tsv"
    path.write_text(MASKS.replace(",", "\t"))
    assert call("data", "import", path, folder / "out")[:2] == (
        0,
        f"2 cases in {folder / 'out'}; channels T1, CT; structures GTVp, CTV2\n",
    )


def test_files_that_are_no_table(folder):
    with pytest.raises(InputError, match="no such file"):
        import_table(folder / "none.csv", folder / "out")
    with pytest.raises(InputError, match="not a CSV table"):
        import_table(folder / "one_ct.mha", folder / "out")


def test_the_command_takes_a_table(folder, monkeypatch, capsys):
    path = table(folder, MASKS)
    arguments = ["npcrepro", "data", "import", str(path), str(folder / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="0"):
        commands.main()
    assert capsys.readouterr().out == f"2 cases in {folder / 'out'}; channels T1, CT; structures GTVp, CTV2\n"
    monkeypatch.setattr(sys, "argv", [*arguments, "--rules", "rules.yaml"])
    with pytest.raises(SystemExit, match="1"):
        commands.main()
    assert "--rules rules.yaml is for DICOM" in capsys.readouterr().err


def test_an_empty_cell_is_an_empty_target_but_an_organ_that_nobody_drew(folder):
    text = MASKS.replace("mask:CTV2", "mask:BrainStem").replace(",two_ctv.nii", ",")
    cohort = import_table(table(folder, text), folder / "out")
    assert [case.not_contoured for case in cohort.cases] == [(), ("BrainStem",)]
    assert not mask_of(read_image(cohort.cases[1].label)[0], cohort.structures, "GTVp").any()

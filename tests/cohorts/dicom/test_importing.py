import gzip
import json

import numpy as np
import pydicom
import pytest
from dicom_cases import DATE, NAME, PATIENT, SPACING, ramp, square, uid, write_patient, write_rtstruct, write_series

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.dicom import import_dicom
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.structures import mask_of

BOX = (slice(1, 4), slice(3, 10), slice(2, 7))
BOXES = [square(1.5, 2.5, 6.5, 9.5, number) for number in (1, 2, 3)]


@pytest.fixture
def importing(tmp_path):
    """Import tmp_path / "dicom" by rules (YAML text); returns the cohort and what was reported."""

    def importing(rules=None):
        path = None
        if rules is not None:
            path = tmp_path / "rules.yaml"
            path.write_text(rules)
        said = []
        cohort = import_dicom(tmp_path / "dicom", tmp_path / "cohort", rules=path, report=said.append)
        return cohort, said

    yield importing
    # Whatever happened, nothing half-written is left.
    assert not list(tmp_path.glob(".*"))


def skipped(tmp_path, words, rules=None):
    """The only patient of tmp_path / "dicom" is skipped for this reason, and nothing is written."""
    if rules:
        (tmp_path / "rules.yaml").write_text(rules)
        rules = tmp_path / "rules.yaml"
    said = []
    with pytest.raises(InputError, match=r"no patient can be (?:imported|read), of 1"):
        import_dicom(tmp_path / "dicom", tmp_path / "cohort", rules=rules, report=said.append)
    assert words in said[-1]
    assert not (tmp_path / "cohort").exists()


def mask(cohort, name, case=0):
    return mask_of(read_image(cohort.cases[case].label)[0], cohort.structures, name)


def box():
    made = np.zeros((6, 12, 10), bool)
    made[BOX] = True
    return made


def test_a_patient_becomes_a_case(tmp_path, importing):
    write_patient(tmp_path / "dicom")
    cohort, said = importing()
    assert (cohort.channels, list(cohort.structures)) == (("CT",), ["GTVp"])
    image, spacing, geometry = read_image(cohort.cases[0].images[0])
    np.testing.assert_array_equal(image, ramp() - 1024)
    assert spacing == pytest.approx(SPACING)
    assert geometry["origin"] == pytest.approx([-10, 20, -30])
    np.testing.assert_array_equal(mask(cohort, "GTVp"), box())
    assert said == [f"CASE_000: {tmp_path / 'dicom'}"]
    assert [defect for defect in check(tmp_path / "cohort") if defect.severity == "error"] == []


def test_no_identifier_is_written(tmp_path, importing):
    for number in range(2):
        write_patient(tmp_path / "dicom" / f"Doe-{number}", patient=f"{PATIENT}{number}", description="Secret series")
    cohort, _ = importing()
    assert len(cohort.cases) == 2
    secrets = [NAME, "Doe", PATIENT, DATE, "Secret", "ACC-0815", "Roe", uid(""), uid(PATIENT), "1.2.826", "IM0", ".dcm"]
    files = [path for path in (tmp_path / "cohort").rglob("*") if path.is_file()]
    assert len(files) == 5
    for path in files:
        content = path.read_bytes()
        content += gzip.decompress(content) if path.suffix == ".gz" else b""
        for secret in secrets:
            assert secret.encode() not in content
            assert secret not in path.name


MR = {"modality": "MR", "description": "T1 tse", "series": "mr"}


def test_other_series_are_resampled_to_the_reference(tmp_path, importing):
    write_patient(tmp_path / "dicom")
    # A coarser grid that shows the same slope of intensity along x.
    slope = np.broadcast_to(np.arange(8) * 20, (5, 9, 8))
    write_series(tmp_path / "dicom" / "mr", slope, spacing=(4.0, 1.2, 2.2), **MR)
    cohort, _ = importing()
    assert cohort.channels == ("CT", "T1")
    ct, mr = (read_image(path)[0] for path in cohort.cases[0].images)
    assert ct.shape == mr.shape == (6, 12, 10)
    np.testing.assert_allclose(mr[2, 3], np.arange(10) * 10, atol=1)
    np.testing.assert_array_equal(mask(cohort, "GTVp"), box())


def test_two_series_for_one_channel(tmp_path, importing):
    write_patient(tmp_path / "dicom")
    write_series(tmp_path / "dicom" / "late", ramp(), series="late", description="HEAD late")
    loose = "channels: {CT: {modality: CT}}"
    skipped(tmp_path, ": narrow the rules; ", loose)
    cohort, _ = importing("channels: {CT: {modality: CT, description: ^head$}}")
    assert len(cohort.cases) == 1


def blob(centre):
    z, y, x = np.mgrid[:16, :32, :32]
    far = ((z - centre[0]) / 4) ** 2 + ((y - centre[1]) / 8) ** 2 + ((x - centre[2]) / 7) ** 2
    return (1000 * np.exp(-far) + 200 * (x > 20) + 100 * (y > 25)).astype(np.int16)


def test_another_frame_of_reference_is_registered_only_if_the_rules_say_so(tmp_path, importing):
    """CT and, shifted by two voxels along x, MR in a frame of reference of its own."""
    grid = {"spacing": (2.0, 2.0, 2.0), "origin": (0.0, 0.0, 0.0)}
    shifted = np.roll(blob((8, 16, 15)), 2, axis=2)
    write_series(tmp_path / "dicom" / "ct", blob((8, 16, 15)), **grid)
    write_series(tmp_path / "dicom" / "mr", shifted, frame="elsewhere", **grid, **MR)
    write_rtstruct(tmp_path / "dicom" / "RS.dcm", {"GTVp": [square(10, 10, 20, 20, 8, **grid)]})
    skipped(tmp_path, "T1 and CT have different frames of reference")
    cohort, said = importing("register: true")
    assert any("T1 registered to CT" in line for line in said)
    ct, mr = (read_image(path)[0] for path in cohort.cases[0].images)
    inner = (slice(4, 12), slice(8, 24), slice(8, 22))
    assert np.abs(ct[inner] + 1024.0 - shifted[inner]).mean() > 80
    assert np.abs(ct[inner] + 1024.0 - mr[inner]).mean() < 20


@pytest.mark.parametrize(
    ("contours", "fields", "words"),
    [
        (BOXES, {"frame": "elsewhere"}, "refers to another frame of reference than its own series"),
        (BOXES, {"series": "elsewhere"}, "refers to none of the series that are there"),
        ([square(1.5, 2.5, 6.5, 9.5, 70)], {}, "they lie beyond the images"),  # which is no empty mask
    ],
)
def test_an_rtstruct_of_other_images(tmp_path, contours, fields, words):
    write_patient(tmp_path / "dicom")
    write_rtstruct(tmp_path / "dicom" / "RS.dcm", {"GTVp": contours}, **fields)
    skipped(tmp_path, words)


def test_structures_may_overlap_have_several_names_or_fit_no_rule(tmp_path, importing):
    near, far = [square(0.5, 0.5, 3.5, 3.5, 1)], [square(2.5, 0.5, 6.5, 3.5, 1)]
    drawn = {"GTV_p": BOXES, "brainstem": [square(2.5, 3.5, 4.5, 6.5, 2)], "GTVn1": near, "GTVn2": far}
    write_patient(tmp_path / "dicom", {**drawn, "Couch": BOXES, "zz_help": BOXES, "Empty": []})
    cohort, said = importing()
    assert list(cohort.structures) == ["GTVp", "GTVnd", "BrainStem"]
    np.testing.assert_array_equal(mask(cohort, "GTVp"), box())
    assert (mask(cohort, "BrainStem").sum(), mask(cohort, "GTVnd").sum()) == (6, 3 * 6)
    assert "CASE_000: GTVnd is put together from 'GTVn1', 'GTVn2'" in said
    assert "structures that fit no rule and are left out: 'Couch', 'zz_help'" in said
    assert "BrainStem is what was drawn as 'brainstem'" in said


@pytest.mark.parametrize("rules", [None, "structures: {GTVp: gtvp, GTVnd: gtvn, BrainStem: stem, Nobody: none}"])
def test_what_is_not_drawn_is_no_target_but_an_organ_not_contoured(tmp_path, importing, rules):
    write_patient(tmp_path / "dicom" / "A", {"GTVp": BOXES, "GTVnd": BOXES, "Brainstem": BOXES}, patient="A")
    write_patient(tmp_path / "dicom" / "B", {"GTVp": BOXES}, patient="B")
    cohort, said = importing(rules)
    assert list(cohort.structures) == ["GTVp", "GTVnd", "BrainStem"]
    assert not mask(cohort, "GTVnd", case=1).any()
    assert [case.not_contoured for case in cohort.cases] == [(), ("BrainStem",)]
    assert "CASE_001: GTVnd is not drawn: taken as not there" in said
    assert "CASE_001: BrainStem is not drawn: marked as not contoured" in said


def test_patients_with_a_gap_or_without_contours_are_skipped(tmp_path, importing):
    write_patient(tmp_path / "dicom" / "A", patient="A", change=lambda number, _: number != 2)
    write_patient(tmp_path / "dicom" / "B", patient="B")
    write_series(tmp_path / "dicom" / "C", ramp(), patient="C")
    cohort, said = importing()
    assert [case.name for case in cohort.cases] == ["CASE_000"]
    assert any("A: skipped:" in line and "missing between them: 1" in line for line in said)
    assert f"CASE_000: {tmp_path / 'dicom' / 'B'}" in said
    assert f"{tmp_path / 'dicom' / 'C'}: skipped: no RTSTRUCT that can be read" in said[0]


def test_a_folder_without_any_rtstruct_becomes_images_to_segment(tmp_path, importing):
    write_series(tmp_path / "dicom" / "A", ramp(), patient="A")
    write_series(tmp_path / "dicom" / "late", ramp((4, 5, 6)), patient="A", series="late", description="late")
    with pytest.raises(InputError, match="several series of one patient fit channel CT"):
        importing()
    draft = (tmp_path / "rules-draft.yaml").read_text()
    assert "structures:" not in draft
    offered = "CT: {modality: CT, description: ^HEAD$}"
    cohort, said = importing(draft.replace(f"# {offered}", offered))
    assert "holds no RTSTRUCT: the images are imported without contours" in said[0]
    assert (cohort.channels, cohort.structures) == (("CT",), {})
    files = {path.relative_to(cohort.root).as_posix() for path in cohort.root.rglob("*") if path.is_file()}
    assert files == {"dataset.json", "imagesTs/CASE_000_0000.nii.gz"}
    assert "labels" not in json.loads((cohort.root / "dataset.json").read_text())
    np.testing.assert_array_equal(read_image(cohort.cases[0].images[0])[0], ramp() - 1024)
    assert [defect for defect in check(cohort.root) if defect.severity == "error"] == []
    with pytest.raises(InputError, match="images without labels"):
        read_cohort(cohort.root)


def test_a_tumour_of_open_lines_is_no_missing_tumour(tmp_path):
    write_patient(tmp_path / "dicom", {"GTVp": BOXES, "BrainStem": [square(2.5, 3.5, 4.5, 6.5, 2)]})
    (path,) = (path for path in (tmp_path / "dicom").rglob("*.dcm") if pydicom.dcmread(path).Modality == "RTSTRUCT")
    made = pydicom.dcmread(path)
    for contour in made.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = "OPEN_PLANAR"
    made.save_as(path)
    skipped(tmp_path, "GTVp: only points or open lines, which enclose nothing: close the contours")


def test_folders_that_are_links_are_entered_once(tmp_path, importing):
    write_patient(tmp_path / "elsewhere")
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "patient").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "dicom")
    assert len(importing()[0].cases) == 1


def test_a_file_in_place_of_a_folder_and_a_name_that_no_cohort_can_have(tmp_path):
    write_patient(tmp_path / "dicom")
    file = next(path for path in (tmp_path / "dicom").rglob("*") if path.is_file())
    with pytest.raises(InputError, match="give the folder that the file is in"):
        import_dicom(file, tmp_path / "cohort")
    with pytest.raises(InputError, match="'co:hort' cannot name a cohort"):
        import_dicom(tmp_path / "dicom", tmp_path / "co:hort")

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_cases import NAME, PATIENT, ramp, uid, write_patient, write_series
from typer.testing import CliRunner

from npcrepro.base.errors import InputError
from npcrepro.cli import commands
from npcrepro.cohorts.dicom import export_rtstruct, import_dicom, rasterise, read_grid, read_structures
from npcrepro.cohorts.images import read_image, to_itk

RULES = "structures: {GTVp: ^GTVp$, GTVnd: ^GTVnd$}"

TURN = np.radians(25)
OBLIQUE = np.array([[np.cos(TURN), np.sin(TURN), 0], [-np.sin(TURN), np.cos(TURN), 0]])
TILT = np.array([[1, 0, 0], [0, np.cos(TURN), np.sin(TURN)], [0, -np.sin(TURN), np.cos(TURN)]])
ORIENTATIONS = {
    "axial": [[1, 0, 0], [0, 1, 0]],
    "axial, feet first": [[-1, 0, 0], [0, 1, 0]],
    "sagittal": [[0, 1, 0], [0, 0, -1]],
    "double oblique": (OBLIQUE @ TILT).tolist(),
}


def tumour(points):
    """Where points (..., 3: x, y, z in mm) lie in a solid that no mirror and no turn maps onto itself."""
    x, y, z = np.moveaxis(points, -1, 0)
    body = (x / 16) ** 2 + (y / 12) ** 2 + (z / 14) ** 2 < 1
    horn = (x > 0) & (x < 24) & (np.abs(y - 6) < 4) & (np.abs(z - 5) < 5)
    foot = (np.abs(x + 6) < 5) & (y < 0) & (y > -20) & (np.abs(z + 7) < 4)
    hole = ((x + 4) / 6) ** 2 + ((y - 1) / 5) ** 2 + (z / 6) ** 2 < 1
    return (body | horn | foot) & ~hole


def node(points):
    """A second solid, in two parts, which overlaps the first."""
    return (np.linalg.norm(points - [14, 6, 10], axis=-1) < 9) | (np.linalg.norm(points - [-18, -12, 14], axis=-1) < 5)


def centres(shape, spacing, geometry):
    """Points (z, y, x, 3) of the centres of voxels, as SimpleITK places them."""
    image = to_itk(np.zeros(shape, np.uint8), spacing, geometry)
    first, *steps = (np.array(image.TransformIndexToPhysicalPoint(i)) for i in np.eye(4, 3, k=-1, dtype=int).tolist())
    return first + np.moveaxis(np.indices(shape)[::-1], 0, -1) @ (np.array(steps) - first)


def save(path, label, grid):
    sitk.WriteImage(to_itk(label, grid.spacing_mm, grid.geometry), str(path))
    return path


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_export_then_import_keeps_place_and_shape(tmp_path, orientation):
    axes = np.array(ORIENTATIONS[orientation], float)
    shape, spacing = (22, 40, 48), (3.0, 1.6, 1.3)
    middle = (np.array(shape)[::-1] - 1) / 2 * spacing[::-1]
    origin = -middle @ np.stack([*axes, np.cross(*axes)])
    folder = write_series(tmp_path / "dicom" / "images", np.zeros(shape), axes=axes, origin=origin, spacing=spacing)
    grid = read_grid(folder)
    where = centres(grid.shape, grid.spacing_mm, grid.geometry)
    masks = {"GTVp": tumour(where), "GTVnd": node(where)}
    label = save(tmp_path / "label.nii.gz", masks["GTVp"] + 2 * masks["GTVnd"].astype(np.uint8), grid)

    export_rtstruct(label, folder, tmp_path / "dicom" / "RS.dcm", {"GTVp": (1, 3), "GTVnd": (2, 3)})
    (tmp_path / "rules.yaml").write_text(RULES)
    cohort = import_dicom(tmp_path / "dicom", tmp_path / "cohort", rules=tmp_path / "rules.yaml")

    back, spacing_back, geometry = read_image(cohort.cases[0].label)
    # The solid anew, at the places where the imported label says that its voxels are.
    truth = centres(back.shape, spacing_back, geometry)
    for name, solid in (("GTVp", tumour), ("GTVnd", node)):
        found, expected = np.isin(back, cohort.structures[name]), solid(truth)
        assert expected.sum() > 300
        assert dice(found, expected) >= 0.97
        shift = truth[found].mean(axis=0) - truth[expected].mean(axis=0)
        assert np.abs(shift).max() < 0.5 * min(spacing)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "images", ramp())


@pytest.fixture
def prediction(tmp_path, series):
    label = np.zeros((6, 12, 10), np.uint8)
    label[1:3, 2:9, 2:8] = 1
    label[2, 4:6, 4:6] = 0
    label[4, 0:3, 0:3] = 2
    return save(tmp_path / "label.nii.gz", label, read_grid(series))


def exported(tmp_path, prediction, series, structures):
    export_rtstruct(prediction, series, tmp_path / "RS.dcm", structures)
    return pydicom.dcmread(tmp_path / "RS.dcm")


def test_every_voxel_comes_back(tmp_path, prediction, series):
    exported(tmp_path, prediction, series, {"GTVp": 1, "BrainStem": 2})
    label = read_image(prediction)[0]
    found = read_structures(tmp_path / "RS.dcm").structures
    for structure, code in zip(found, (1, 2), strict=True):
        np.testing.assert_array_equal(rasterise(structure.contours, read_grid(series)), label == code)
    # A hole is a contour of its own: one on the first slice, two on the second.
    assert [len(s.contours) for s in found] == [3, 1]


@pytest.mark.parametrize(("options", "name"), [([], "GTVp"), (["--structures", "A=1,2"], "A")])
def test_the_command_names_the_structures(tmp_path, options, name):
    write_patient(tmp_path / "dicom")
    label = import_dicom(tmp_path / "dicom", tmp_path / "cohort").cases[0].label
    command = ["data", "export-rtstruct", label, tmp_path / "dicom" / "images", tmp_path / "out.dcm", *options]
    done = CliRunner().invoke(commands.app, list(map(str, command)))
    assert (done.exception, str(tmp_path / "out.dcm") in done.output) == (None, True)
    (structure,) = read_structures(tmp_path / "out.dcm").structures
    assert structure.name == name
    mask = rasterise(structure.contours, read_grid(tmp_path / "dicom" / "images"))
    np.testing.assert_array_equal(mask, read_image(label)[0] == 1)


def test_the_file_belongs_to_the_patient_and_study_of_the_series(tmp_path, prediction, series):
    made = exported(tmp_path, prediction, series, {"GTVp": 1, "BrainStem": 2})
    image = pydicom.dcmread(next(series.iterdir()))
    assert (made.PatientName, made.PatientID) == (NAME, PATIENT)
    for keyword in ("StudyInstanceUID", "PatientBirthDate", "FrameOfReferenceUID", "AccessionNumber"):
        assert made[keyword].value == image[keyword].value
    assert made.SeriesInstanceUID != image.SeriesInstanceUID
    assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID
    assert made.SOPClassUID.name == "RT Structure Set Storage"
    assert len(made.StructureSetLabel) <= 16
    assert made.ApprovalStatus == "UNAPPROVED"
    # Names, numbers and images refer to each other.
    assert [roi.ROIName for roi in made.StructureSetROISequence] == ["GTVp", "BrainStem"]
    numbers = [roi.ROINumber for roi in made.StructureSetROISequence]
    assert numbers == [contour.ReferencedROINumber for contour in made.ROIContourSequence]
    assert numbers == [each.ReferencedROINumber for each in made.RTROIObservationsSequence]
    assert [each.RTROIInterpretedType for each in made.RTROIObservationsSequence] == ["GTV", "ORGAN"]
    frame = made.ReferencedFrameOfReferenceSequence[0]
    referred = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == uid(PATIENT, "series")
    images = {pydicom.dcmread(path).SOPInstanceUID: path for path in series.iterdir()}
    assert {each.ReferencedSOPInstanceUID for each in referred.ContourImageSequence} == set(images)
    for contour in (c for roi in made.ROIContourSequence for c in roi.ContourSequence):
        assert contour.NumberOfContourPoints * 3 == len(contour.ContourData)
        one = pydicom.dcmread(images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID])
        assert set(contour.ContourData[2::3]) == {one.ImagePositionPatient[2]}


def test_a_structure_without_voxels_is_left_out_and_said(tmp_path, prediction, series):
    said = []
    export_rtstruct(prediction, series, tmp_path / "RS.dcm", {"A": 1, "B": 2, "C": 3}, report=said.append)
    assert said == ["C has no voxel and is left out"]
    assert [s.name for s in read_structures(tmp_path / "RS.dcm").structures] == ["A", "B"]
    # A slice of the series named by mistake would be lost.
    with pytest.raises(InputError, match=r"RS\.dcm exists: give a new name"):
        export_rtstruct(prediction, series, tmp_path / "RS.dcm", {"A": (1, 2)})


def refused(tmp_path, prediction, series, structures, words):
    with pytest.raises(InputError, match=words) as caught:
        export_rtstruct(prediction, series, tmp_path / "out" / "RS.dcm", structures)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_prediction_on_another_grid(tmp_path, series):
    grid = read_grid(series)
    flipped = dict(grid.geometry, direction=[-1, 0, 0, 0, -1, 0, 0, 0, 1])
    label = tmp_path / "label.nii.gz"
    sitk.WriteImage(to_itk(np.ones(grid.shape, np.uint8), grid.spacing_mm, flipped), str(label))
    message = refused(tmp_path, label, series, {"GTVp": 1}, "direction differs")
    assert str(label) in message
    assert str(series) in message
    sitk.WriteImage(to_itk(np.ones((6, 12, 11), np.uint8), grid.spacing_mm, grid.geometry), str(label))
    refused(tmp_path, label, series, {"GTVp": 1}, "shape .* differs")


def test_the_grid_of_the_prediction_tells_the_series(tmp_path, prediction, series):
    write_series(tmp_path / "other", ramp((4, 5, 6)), series="other")
    made = exported(tmp_path, prediction, tmp_path, {"GTVp": 1, "BrainStem": 2})
    frame = made.ReferencedFrameOfReferenceSequence[0]
    referred = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == uid(PATIENT, "series")
    shutil.rmtree(tmp_path / "other")
    write_series(tmp_path / "late", ramp(), series="late", description="HEAD late")
    names = r"\(CT 'HEAD'\), .*\(CT 'HEAD late'\)"
    refused(tmp_path, prediction, tmp_path, {"GTVp": (1, 2)}, f"lies on 2 series .*{names}.*: give the folder of one")
    for folder, shape in ((series, (4, 5, 6)), (tmp_path / "late", (6, 5, 6))):
        shutil.rmtree(folder)
        write_series(folder, ramp(shape), series=folder.name)
    refused(tmp_path, prediction, tmp_path, {"GTVp": (1, 2)}, "holds 2 series of images: on none of them: ")


@pytest.mark.parametrize(
    ("structures", "words"),
    [
        ({"GTVp": 1}, "unknown label value"),
        ({"x" * 65: (1, 2)}, "letters at most"),
        ({"a\\b": (1, 2)}, "no backslash"),
    ],
)
def test_structures_that_cannot_be_written(tmp_path, prediction, series, structures, words):
    refused(tmp_path, prediction, series, structures, words)


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "SOPInstanceUID", "StudyInstanceUID"])
def test_a_series_that_contours_cannot_refer_to(tmp_path, prediction, keyword):
    def change(_, made):
        made[keyword].value = ""

    folder = write_series(tmp_path / "bare", ramp(), change=change)
    refused(tmp_path, prediction, folder, {"GTVp": (1, 2)}, "an anonymiser removed")

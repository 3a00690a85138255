"""A stranger's whole journey: a DICOM study is imported, checked, segmented, and leaves as an RTSTRUCT."""

import json
import shlex
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from contourpy import contour_generator
from dicom_cases import PATIENT, uid, write_rtstruct, write_series
from matplotlib.path import Path as Outline
from typer.testing import CliRunner

from npcrepro.cli import commands
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.structures import mask_of

FEET_FIRST = np.array([[-1.0, 0, 0], [0, 1, 0]])
SAGITTAL = np.array([[0.0, 1, 0], [0, 0, -1]])
pytestmark = pytest.mark.slow

# Names as a clinic may have them; one is of no language that the package knows.
SLICES = slice(58, 82)  # of the sample, that show all three
NETWORK = "luo2020/two-stage"  # for CT; it comes with the package
DRAWN = {"BrainStem": "tronco encefalico", "SpinalCord": "Rückenmark", "Parotid_L": "Parotis links"}


def call(*arguments, status=0):
    done = CliRunner().invoke(commands.app, list(map(str, arguments)))
    error = done.exception
    assert done.exit_code == status, error
    return str(error) if status and not isinstance(error, SystemExit) else done.output


def write_study(folder):
    """Slices of the first patient of the sample CT, scanned feet first, beside a later CT, a sagittal T1 and a scout.

    All files lie in one folder, as a hospital exports them.
    """
    cohort = read_cohort("sample-ct")
    image, label = (
        sitk.ReadImage(str(path))[:, :, SLICES] for path in (cohort.cases[0].images[0], cohort.cases[0].label)
    )
    spacing = image.GetSpacing()[::-1]
    array = sitk.GetArrayFromImage(image) + 1024
    depth, _, width = array.shape
    # The first pixel of the first slice: the patient's left at the top of the volume.
    origin = image.TransformIndexToPhysicalPoint((width - 1, 0, depth - 1))
    turned = array[::-1, :, ::-1]
    about = {"series": "ct", "description": "Planung", "origin": origin, "axes": FEET_FIRST, "spacing": spacing}
    write_series(folder / "ct", turned, **about)
    write_series(folder / "late", turned[:4], **about | {"series": "late", "description": "Kontrolle"})
    sagittal = array[::-4, :, ::-4].transpose(2, 0, 1)
    steps = (4 * spacing[2], 4 * spacing[0], spacing[1])
    about = {"series": "t1", "description": "T1 sag", "origin": origin, "axes": SAGITTAL, "spacing": steps}
    write_series(folder / "t1", sagittal, modality="MR", **about)

    def scout(number, made):
        made.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(folder / "scout", turned[:2], series="scout", description="Topogramm", change=scout)
    contours = {}
    for structure, name in DRAWN.items():
        mask = mask_of(sitk.GetArrayFromImage(label), cohort.structures, structure)
        contours[name] = [
            [image.TransformContinuousIndexToPhysicalPoint((x, y, z)) for x, y in line.tolist()]
            for z, inside in enumerate(mask)
            for line in contour_generator(z=inside.astype(float)).lines(0.5)
        ]
    write_rtstruct(folder / "RS.dcm", contours, series="ct")
    for path in list(folder.glob("*/*.dcm")):
        path.rename(folder / f"{path.parent.name}{path.name}")
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    """The folder in which all of it happened."""
    root = tmp_path_factory.mktemp("journey")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_study(root / "study")
        message = call("data", "import", "study", "cohort", status=1)
        assert "several series of one patient fit channel CT ('Kontrolle', 'Planung')" in message
        draft = Path("rules-draft.yaml")
        text = draft.read_text(encoding="utf-8")
        for offered, decided in (
            ("  # CT: {modality: CT, description: ^Planung$}", "  CT: {modality: CT, description: ^Planung$}"),
            ("  # tronco encefalico:", "  BrainStem:"),
        ):
            assert text.count(offered) == 1
            text = text.replace(offered, decided)
        draft.write_text(text, encoding="utf-8")
        said = call(*shlex.split(message.split("then: npcrepro ")[1]))
        assert said.endswith("1 case in cohort; channels CT, T1; structures SpinalCord, Parotid_L, BrainStem\n")
        assert "cohort: 0 errors" in call("data", "check", "cohort")
        assert NETWORK in call("weights")
        predict = ("predict", "--weights", NETWORK, "--device", "cpu")
        assert call(*predict, "--cohort", "cohort", "--out", "found").endswith("1 case in found\n")
        call("data", "export-rtstruct", "found/CASE_000.nii.gz", "study", "RS-found.dcm")
        # The same patient before anybody has drawn a contour.
        (root / "study" / "RS.dcm").rename(root / "drawn.dcm")
        said = call("data", "import", "study", "images", "--rules", draft)
        assert said.endswith("1 case in images; channels CT, T1; no contours: images to be segmented\n")
        assert "images: 0 errors" in call("data", "check", "images")
        assert call(*predict, "--cohort", "images", "--out", "found-alone")
    return root


def test_a_network_needs_no_contours(journey):
    alone, found = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(journey / folder / "CASE_000.nii.gz")))
        for folder in ("found-alone", "found")
    )
    codes = [json.loads((journey / f / "dataset.json").read_text())["labels"] for f in ("found-alone", "found")]
    for name in DRAWN:
        np.testing.assert_array_equal(alone == codes[0][name], found == codes[1][name])


def upright(path):
    """The array and the origin of an image, turned to the axes of the sample; of the sample, what was scanned."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    image = image if image.GetSize()[2] == SLICES.stop - SLICES.start else image[:, :, SLICES]
    return sitk.GetArrayFromImage(image), image.GetOrigin()


def test_the_cohort_holds_what_was_scanned_and_drawn(journey):
    sample, made = read_cohort("sample-ct"), read_cohort(journey / "cohort")
    (before, origin), (after, origin_after) = (upright(each.cases[0].images[0]) for each in (sample, made))
    np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(origin_after, origin, atol=1e-3)
    for structure in DRAWN:
        before, after = (
            mask_of(upright(each.cases[0].label)[0], each.structures, structure) for each in (sample, made)
        )
        np.testing.assert_array_equal(after, before)


def predicted(journey):
    """The prediction and the mask of each structure in it."""
    image = sitk.ReadImage(str(journey / "found" / "CASE_000.nii.gz"))
    label = sitk.GetArrayFromImage(image)
    codes = json.loads((journey / "found" / "dataset.json").read_text())["labels"]
    return image, {name: label == code for name, code in codes.items() if code and (label == code).any()}


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def by_matplotlib(journey, image):
    """Masks of the RTSTRUCT: contours by pydicom, grid by SimpleITK, filled by matplotlib; nothing of the package."""
    made = pydicom.dcmread(journey / "RS-found.dcm")
    names = {roi.ROINumber: roi.ROIName for roi in made.StructureSetROISequence}
    width, height, depth = image.GetSize()
    masks = {}
    for roi in made.ROIContourSequence:
        mask = np.zeros((depth, height, width), bool)
        for contour in roi.ContourSequence:
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            index = (points - image.GetOrigin()) @ np.reshape(image.GetDirection(), (3, 3)) / image.GetSpacing()
            number = round(index[0, 2])
            np.testing.assert_allclose(index[:, 2], number, atol=1e-3)
            # The pixels that the contour may enclose: a ragged prediction has thousands of small contours.
            left, top = np.floor(index[:, :2].min(axis=0)).astype(int).clip(0)
            inside = mask[number, top : int(index[:, 1].max()) + 1, left : int(index[:, 0].max()) + 1]
            rows, columns = np.indices(inside.shape)
            centres = np.column_stack([columns.ravel() + left, rows.ravel() + top])
            inside ^= Outline(index[:, :2]).contains_points(centres).reshape(inside.shape)
        masks[names[roi.ReferencedROINumber]] = mask
    return masks


def test_the_contours_are_those_that_were_predicted(journey):
    image, expected = predicted(journey)
    assert len(expected) > 1
    found = by_matplotlib(journey, image)
    assert found.keys() == expected.keys()
    assert {name: dice(mask, expected[name]) for name, mask in found.items() if dice(mask, expected[name]) < 0.98} == {}


def test_the_contours_refer_to_the_series_that_was_segmented(journey):
    made = pydicom.dcmread(journey / "RS-found.dcm")
    series = made.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == uid(PATIENT, "ct")
    # GDCM, which SimpleITK reads DICOM with, sorts the slices by itself.
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(journey / "study"), series.SeriesInstanceUID)
    assert len(names) == predicted(journey)[0].GetSize()[2]
    there = {pydicom.dcmread(name, stop_before_pixels=True).SOPInstanceUID for name in names}
    assert {image.ReferencedSOPInstanceUID for image in series.ContourImageSequence} == there

"""Broken files: an InputError or a whole cohort, never anything else and never half of one."""

import shutil
import warnings

import numpy as np
import pydicom
import pytest
from dicom_cases import write_patient
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.dicom import import_dicom

IMAGE_FIELDS = (
    *("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness"),
    *("RescaleSlope", "RescaleIntercept", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel"),
    *("NumberOfFrames", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "SOPClassUID", "PixelData"),
    "PhotometricInterpretation",
)
VALUES = (b"nan", b"-1", b"0", b"1e99", b"1e-30\\-3", b"\xff\xff", b"", b"text")
TEXTS = (b"0", b"\xff\xff", b"")  # for fields that nobody reads as numbers
NUMBERS = [np.array(value, "<u2").tobytes() for value in (0, 1, 3, 8, 32, 65535, [1, 2], [])]


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    return write_patient(tmp_path_factory.mktemp("whole") / "patient")


def survives(tmp_path, monkeypatch):
    """Import tmp_path / "dicom" and look at what is left."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said, cohort = [], None
        try:
            cohort = import_dicom("dicom", "cohort", report=said.append)
        except InputError as problem:
            said.append(str(problem))
    assert not any("\n" in line for line in said)
    if cohort is None:
        (tmp_path / "rules-draft.yaml").unlink(missing_ok=True)  # of series that a damaged header makes two of
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dicom"]
        return said[-1]
    assert len(cohort.cases) == 1
    assert [defect for defect in check("cohort") if defect.severity == "error"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort", "dicom"]
    return None


@pytest.mark.parametrize("keyword", IMAGE_FIELDS)
def test_mutated_fields(tmp_path, monkeypatch, patient, keyword):
    """Every field takes damaged values, in one slice or in all."""
    tag, kind = Tag(keyword), dictionary_VR(keyword)
    for number, value in enumerate({"US": NUMBERS, "UI": TEXTS, "CS": TEXTS}.get(kind, VALUES)):
        shutil.copytree(patient, tmp_path / "dicom")
        files = sorted((tmp_path / "dicom" / "images").iterdir())
        for file in files if number % 2 else files[:1]:
            made = pydicom.dcmread(file)
            made[tag] = RawDataElement(tag, kind, len(value), value, 0, False, True)
            made.save_as(file)
        survives(tmp_path, monkeypatch)
        for path in tmp_path.iterdir():
            shutil.rmtree(path)


@pytest.mark.parametrize("size", [2, 10])
def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path, monkeypatch, patient, size):
    shutil.copytree(patient, tmp_path / "dicom")
    for file in (tmp_path / "dicom" / "images").iterdir():
        made = pydicom.dcmread(file)
        made.Rows, made.Columns = 65535, 2**size
        made.save_as(file)
    assert "no patient can be read, of 1" in survives(tmp_path, monkeypatch)

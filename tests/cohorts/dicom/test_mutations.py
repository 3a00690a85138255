"""Broken files: an InputError or a whole cohort, never anything else and never half of one."""

import shutil
import warnings
from contextlib import suppress

import numpy as np
import pydicom
import pytest
from dicom_cases import write_patient
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.dicom import find_series, import_dicom, read_series, read_structures

IMAGE_FIELDS = (
    *("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness"),
    *("RescaleSlope", "RescaleIntercept", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel"),
    *("NumberOfFrames", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "SOPClassUID", "PixelData"),
    "PhotometricInterpretation",
)
VALUES = (b"nan", b"-1", b"0", b"1e99", b"1e-30\\-3", b"\xff\xff", b"", b"text")
NUMBERS = [np.array(value, "<u2").tobytes() for value in (0, 1, 3, 8, 32, 65535, [1, 2], [])]


def truncate(content, rng):
    return content[: rng.integers(0, len(content))]


def flip(content, rng):
    """A few bytes become others."""
    changed = bytearray(content)
    for place in rng.integers(128, len(content), rng.integers(1, 9)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def replace_number(content, rng):
    """A number of the header or of a contour becomes something else, of the same length."""
    places = [i for i in range(len(content) - 6) if content[i : i + 1].isdigit() and b"." in content[i : i + 6]]
    if not places:
        return truncate(content, rng)
    place = places[rng.integers(len(places))]
    value = VALUES[rng.integers(len(VALUES))]
    return content[:place] + value + content[place + len(value) :]


BYTES = (truncate, flip, replace_number)


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
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dicom"]
        return said[-1]
    assert len(cohort.cases) == 1
    assert [defect for defect in check("cohort") if defect.severity == "error"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort", "dicom"]
    return None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mutate", BYTES)
def test_mutated_bytes(tmp_path, monkeypatch, patient, mutate, seed):
    shutil.copytree(patient, tmp_path / "dicom")
    rng = np.random.default_rng(seed)
    files = sorted(path for path in (tmp_path / "dicom").rglob("*.dcm"))
    # As often the RTSTRUCT as an image.
    file = tmp_path / "dicom" / "RS.dcm" if seed % 2 else files[rng.integers(len(files))]
    file.write_bytes(mutate(file.read_bytes(), rng))
    survives(tmp_path, monkeypatch)


def test_an_image_cut_anywhere(tmp_path, patient):
    content = (patient / "images" / "IM0000.dcm").read_bytes()
    for size in range(0, len(content), 17):
        (tmp_path / "cut.dcm").write_bytes(content[:size])
        # Where the cut leaves the header whole, there is a series to be found.
        with suppress(InputError):
            assert len(find_series(tmp_path)) == 1
        with pytest.raises(InputError):
            read_series([tmp_path / "cut.dcm"])


def test_contours_cut_anywhere(tmp_path, patient):
    content = (patient / "RS.dcm").read_bytes()
    for size in range(0, len(content), 17):
        (tmp_path / "cut.dcm").write_bytes(content[:size])
        with suppress(InputError):
            assert not any(structure.contours for structure in read_structures(tmp_path / "cut.dcm").structures)


@pytest.mark.parametrize("keyword", IMAGE_FIELDS)
def test_mutated_fields(tmp_path, monkeypatch, patient, keyword):
    """Every field takes damaged values, in one slice or in all."""
    tag, kind = Tag(keyword), dictionary_VR(keyword)
    for number, value in enumerate(NUMBERS if kind == "US" else VALUES):
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
    assert "none of 1 patients can be read" in survives(tmp_path, monkeypatch)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_orders_of_bytes_are_read_as_they_say(tmp_path, monkeypatch, patient, syntax):
    shutil.copytree(patient, tmp_path / "dicom")
    for file in (tmp_path / "dicom" / "images").iterdir():
        made = pydicom.dcmread(file)
        if not syntax.is_little_endian:
            made.PixelData = np.frombuffer(made.PixelData, "<i2").astype(">i2").tobytes()
        # pydicom turns only what it has taken apart.
        assert str(made)
        made.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(file, made, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    assert survives(tmp_path, monkeypatch) is None
    import_dicom(patient, tmp_path / "first", report=print)
    name = "imagesTr/CASE_000_0000.nii.gz"
    assert (tmp_path / "cohort" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()

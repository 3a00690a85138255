"""Tiny DICOM series and RTSTRUCTs, written field by field, for the tests of the import and the export."""

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
)

ROOT = "1.2.826.0.1.3680043.8.498.77"
AXIAL = np.eye(3)[:2]
SPACING = (3.0, 0.8, 1.1)
NAME, PATIENT, DATE = "Doe^Confidential", "HOSP-4711-X", "19530228"


def uid(*parts):
    return ".".join([ROOT, *(str(sum(map(ord, str(part)))) for part in parts)])


def dataset(path, sop_class, instance, patient, syntax=ExplicitVRLittleEndian):
    """An empty file with the fields that all files of a patient share."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = syntax
    made = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = sop_class, instance
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = NAME, patient, DATE, "O"
    made.StudyInstanceUID, made.StudyDate, made.StudyTime, made.StudyID = uid(patient, "study"), DATE, "120000", "1"
    made.AccessionNumber, made.ReferringPhysicianName = "ACC-0815", "Roe^Referring"
    return made


def item(**values):
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def write_series(
    folder,
    array,
    *,
    spacing=SPACING,
    origin=(-10.0, 20.0, -30.0),
    axes=AXIAL,
    modality="CT",
    description="HEAD",
    series="series",
    frame="frame",
    patient=PATIENT,
    change=lambda number, made: None,
):
    """One file a slice of array (z, y, x), stacked along the normal; file names and numbers are in no order.

    ``change(number, dataset)`` may alter a slice; returning False leaves it out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(0).permutation(len(array))
    normal = np.cross(*axes)
    for number, pixels in enumerate(array):
        path = folder / f"IM{names[number]:04d}.dcm"
        sop_class = MRImageStorage if modality == "MR" else CTImageStorage
        made = dataset(str(path), sop_class, f"{uid(patient, series)}.{number + 1}", patient)
        made.Modality, made.SeriesDescription, made.SeriesNumber = modality, description, 1
        made.SeriesInstanceUID, made.FrameOfReferenceUID = uid(patient, series), uid(patient, frame)
        made.InstanceNumber = int(names[number]) + 1
        made.Rows, made.Columns = pixels.shape
        made.PixelSpacing, made.SliceThickness = list(spacing[1:]), spacing[0]
        made.ImagePositionPatient = [round(v, 6) for v in np.asarray(origin) + number * spacing[0] * normal]
        made.ImageOrientationPatient = [round(v, 8) for v in np.ravel(axes)]
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated = made.BitsStored = 16
        made.HighBit, made.PixelRepresentation = 15, 1
        if modality == "CT":
            made.RescaleIntercept, made.RescaleSlope = -1024, 1
        made.PixelData = np.ascontiguousarray(pixels, "<i2").tobytes()
        if change(number, made) is not False:
            made.save_as(path)
    return folder


def write_rtstruct(path, structures, *, series="series", frame="frame", patient=PATIENT):
    """An RTSTRUCT of ``structures``: name to contours, each (N, 3: x, y, z) in millimetres."""
    path.parent.mkdir(parents=True, exist_ok=True)
    instance = uid(patient, path.name, "rtstruct")
    made = dataset(str(path), RTStructureSetStorage, instance, patient, ImplicitVRLittleEndian)
    made.Modality, made.SeriesInstanceUID, made.SeriesNumber = "RTSTRUCT", instance + ".9", 2
    made.StructureSetLabel = "drawn"
    referred = item(SeriesInstanceUID=uid(patient, series))
    studies = [item(RTReferencedSeriesSequence=[referred])]
    made.ReferencedFrameOfReferenceSequence = [
        item(FrameOfReferenceUID=uid(patient, frame), RTReferencedStudySequence=studies)
    ]
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), 1):
        made.StructureSetROISequence.append(
            item(ROINumber=number, ReferencedFrameOfReferenceUID=uid(patient, frame), ROIName=name)
        )
        drawn = [
            item(
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{v:.4f}" for v in np.ravel(points)],
            )
            for points in contours
        ]
        made.ROIContourSequence.append(item(ReferencedROINumber=number, ContourSequence=drawn))
    made.save_as(path, enforce_file_format=True)
    return path


def ramp(shape=(6, 12, 10)):
    """An image in which every voxel has another value."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def square(left, top, right, bottom, number, *, spacing=SPACING, origin=(-10.0, 20.0, -30.0)):
    """A rectangle on axial slice ``number``: corners in pixels, result in millimetres."""
    pixels = np.array([[left, top, number], [right, top, number], [right, bottom, number], [left, bottom, number]])
    return pixels * spacing[::-1] + origin


def write_patient(root, structures=None, **fields):
    """One CT series and one RTSTRUCT with a box as GTVp (or ``structures``)."""
    write_series(root / "images", ramp(), **fields)
    box = {"GTVp": [square(1.5, 2.5, 6.5, 9.5, number) for number in (1, 2, 3)]}
    known = {key: fields[key] for key in ("series", "frame", "patient") if key in fields}
    write_rtstruct(root / "RS.dcm", structures or box, **known)
    return root

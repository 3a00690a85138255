"""A prediction becomes an RTSTRUCT on the series that it was made from."""

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from npcrepro import __version__
from npcrepro.base.errors import InputError
from npcrepro.base.files import writing
from npcrepro.cohorts.check import grid_defects
from npcrepro.cohorts.dicom.find import find_series, reading
from npcrepro.cohorts.dicom.series import Grid, Slice, read_grid
from npcrepro.cohorts.images import read_image, to_mask
from npcrepro.cohorts.listing import scan
from npcrepro.cohorts.structures import Structures, is_target, mask_of

# SOP class by which an RTSTRUCT names a study; DICOM has retired the class but not the reference.
STUDY = "1.2.840.10008.3.1.2.3.1"
CONTOUR_DATA = Tag("ContourData")
LONGEST_NAME = 64
COLOURS = ((230, 60, 60), (60, 180, 75), (60, 120, 230), (240, 180, 0), (160, 70, 200), (0, 180, 190), (240, 120, 30))
# What an RTSTRUCT shares with the images of its patient and study; empty where the images lack it.
SHARED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)


def export_rtstruct(
    prediction: str | Path,
    series: str | Path,
    out: str | Path,
    structures: Mapping[str, int | Sequence[int]],
    *,
    report: Callable[[str], None] = print,
) -> None:
    """Write a label image as an RTSTRUCT.

    ``prediction`` lies on the grid of a DICOM series, as `import_dicom` makes it. ``series`` is the folder of that
    series, or of all series of the patient, of which it takes the one with the grid of the prediction.
    ``structures`` names the codes of each structure. Contours run halfway between voxels inside and outside, and holes
    are contours of their own. Patient and study are those of the series, because a planning system needs them. The file
    is therefore as confidential as the images. ``report`` is told of structures without voxels, which are left out.

    Raises InputError for an ``out`` that exists, files that cannot be read, a prediction on another grid, on the grid
    of several series or with an unknown code, one that is all background, and a series without a frame of reference.
    """
    if Path(out).exists():
        raise InputError(f"{out} exists: give a new name, or remove it first")
    label, *place = read_image(prediction)
    grid = _grid_of(str(prediction), (label.shape, *place), Path(series))
    codes = {name: (code,) if isinstance(code, int) else tuple(code) for name, code in structures.items()}
    mask, defects = to_mask(label, codes, str(prediction))
    if mask is None:
        raise InputError(str(defects[0]))
    contours = {}
    for name in codes:
        found = contours_of(mask_of(mask, codes, name), grid)
        if found:
            contours[name] = found
        else:
            report(f"{name} has no voxel and is left out")
    if not contours:
        raise InputError(f"{prediction}: all background: nothing to export")
    dataset = _dataset(grid, contours)
    with writing(Path(out)) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def structures_of(prediction: str | Path) -> Structures:
    """Codes of each structure as of the ``dataset.json`` beside the prediction, or in the folder above.

    Raises InputError where there is none, and where it does not say it.
    """
    if not Path(prediction).is_file():
        raise InputError(f"{prediction}: no such file: a mistyped path")
    folder = Path(prediction).resolve().parent
    for root in (folder, folder.parent):
        if (root / "dataset.json").is_file():
            found = scan(root).structures
            if not found:
                raise InputError(f"{root / 'dataset.json'}: no 'labels' that can be read: name the structures instead")
            return found
    raise InputError(f"{prediction}: no dataset.json beside it says what the codes mean: name the structures instead")


def parse_structures(pairs: Sequence[str]) -> Structures:
    """Codes of each structure from texts such as ``GTVp=1``, or ``GTVp=1,3`` where structures overlap."""
    found = {}
    for pair in pairs:
        match = re.fullmatch(r"([^=]*[^=\s])\s*=\s*([0-9]{1,5}(?:,[0-9]{1,5})*)", pair)
        if not match:
            raise InputError(f"structure {pair!r} does not look like GTVp=1, or GTVp=1,3 for several codes")
        found[match[1]] = tuple(int(code) for code in match[2].split(","))
    return found


def _grid_of(prediction: str, place: tuple, folder: Path) -> Grid:
    """The grid of the one series of a folder on which a prediction lies."""
    cause = "the prediction belongs to another series, or was resampled"
    found, problems = [], []
    for one in find_series(folder):
        if not one.is_image:
            continue
        try:
            grid = read_grid(one.files)
        except InputError as problem:
            problems.append(str(problem))
            continue
        name = f"{folder} ({one.modality} {one.description!r})"
        defects = grid_defects(prediction, place, name, grid.shape, grid.spacing_mm, grid.geometry, cause)
        problems += [str(defect) for defect in defects[:1]]
        found += [] if defects else [(name, grid)]
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise InputError(f"{prediction} lies on {len(found)} series ({names}): give the folder of one of them")
    if found:
        return found[0][1]
    if len(problems) == 1:
        raise InputError(problems[0])
    cause = f"on none of them: {cause}; {problems[0]}" if problems else "an empty folder, or files that are not DICOM"
    raise InputError(f"{prediction}: {folder} holds {len(problems)} series of images: {cause}")


def contours_of(mask: np.ndarray, grid: Grid) -> list[tuple[Slice, np.ndarray]]:
    """Outlines of a mask (z, y, x): the slice and the points (N, 3: x, y, z) in millimetres of each closed contour."""
    from contourpy import contour_generator

    found = []
    for inside, one in zip(mask, grid.slices):
        if not inside.any():
            continue
        # A frame of background, so that contours close at the border of the image.
        lines = contour_generator(z=np.pad(inside, 1).astype(float)).lines(0.5)
        for line in lines:
            pixels = line[:-1] - 1
            found.append((one, one.position + pixels * one.spacing_mm[::-1] @ one.axes))
    return found


def _dataset(grid: Grid, contours: Mapping[str, list[tuple[Slice, np.ndarray]]]) -> FileDataset:
    first = grid.slices[0]
    if not first.frame_of_reference or not all(one.sop_instance and one.sop_class for one in grid.slices):
        cause = "an anonymiser removed them; contours cannot be tied to such images"
        raise InputError(f"{first.path}: no frame of reference or no SOP instance UID in the series: {cause}")
    for name in contours:
        if len(name) > LONGEST_NAME or "\\" in name:
            raise InputError(f"structure {name!r}: a name in DICOM has {LONGEST_NAME} letters at most and no backslash")
    dataset = _header(first)
    images = [_reference(one) for one in grid.slices]
    series = _item(SeriesInstanceUID=first.series, ContourImageSequence=images)
    study = _item(ReferencedSOPClassUID=STUDY, ReferencedSOPInstanceUID=dataset.StudyInstanceUID)
    study.RTReferencedSeriesSequence = [series]
    frame = _item(FrameOfReferenceUID=first.frame_of_reference, RTReferencedStudySequence=[study])
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, (name, found) in enumerate(contours.items(), 1):
        roi = _item(ROINumber=number, ROIName=name, ROIGenerationAlgorithm="AUTOMATIC")
        roi.ReferencedFrameOfReferenceUID = first.frame_of_reference
        dataset.StructureSetROISequence.append(roi)
        outline = _item(ReferencedROINumber=number, ContourSequence=[_contour(*each) for each in found])
        outline.ROIDisplayColor = list(COLOURS[(number - 1) % len(COLOURS)])
        dataset.ROIContourSequence.append(outline)
        # DICOM has no term for an internal target volume; an unknown type is left empty.
        kind = name[:3].upper().replace("ITV", "") if is_target(name) else "ORGAN"
        observed = _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType=kind)
        observed.ROIInterpreter = ""
        dataset.RTROIObservationsSequence.append(observed)
    return dataset


def _header(first: Slice) -> FileDataset:
    """Everything but the structures: patient and study of the images, a series of its own."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    # With explicit types a long contour would not fit the length field.
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    with reading(first.path):
        image = pydicom.dcmread(first.path, stop_before_pixels=True, specific_tags=["SpecificCharacterSet", *SHARED])
        for keyword in SHARED:
            value = image.get(keyword)
            setattr(dataset, keyword, "" if value is None else str(value))
    if not dataset.StudyInstanceUID:
        raise InputError(f"{first.path}: no StudyInstanceUID: an anonymiser removed it; contours need a study")
    now = datetime.datetime.now()
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.SeriesDescription = "Automatic segmentation, not approved"
    dataset.OperatorsName = ""
    dataset.Manufacturer = dataset.ManufacturerModelName = "npcrepro"
    dataset.SoftwareVersions = __version__
    dataset.InstanceCreationDate = dataset.StructureSetDate = dataset.SeriesDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.StructureSetTime = dataset.SeriesTime = now.strftime("%H%M%S")
    dataset.StructureSetLabel = "npcrepro"
    dataset.FrameOfReferenceUID = first.frame_of_reference
    dataset.PositionReferenceIndicator = ""
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _contour(one: Slice, points: np.ndarray) -> Dataset:
    item = _item(ContourImageSequence=[_reference(one)], ContourGeometricType="CLOSED_PLANAR")
    item.NumberOfContourPoints = len(points)
    # As bytes, since pydicom makes a checked object of every number. Implicit types do not write that these are bytes.
    text = b"\\".join(b"%.4f" % value for value in points.ravel().tolist())
    text += b" " * (len(text) % 2)
    item.add_new(CONTOUR_DATA, "OB", text)
    return item


def _reference(one: Slice) -> Dataset:
    return _item(ReferencedSOPClassUID=one.sop_class, ReferencedSOPInstanceUID=one.sop_instance)


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item

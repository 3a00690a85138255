"""Small folders in exactly the layout of the public sets: a head of simple solids, its organs, its tumour."""

import io
import json
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_cases import write_series

from npcrepro.base.errors import InputError
from npcrepro.cohorts import public
from npcrepro.cohorts.check import check
from npcrepro.cohorts.images import read_image, to_itk
from npcrepro.cohorts.public.volumes import Volume
from npcrepro.cohorts.structures import mask_of

IDENTITY = [1.0, 0, 0, 0, 1, 0, 0, 0, 1]
FLIPPED = [1.0, 0, 0, 0, 1, 0, 0, 0, -1]


def grid(shape=(8, 12, 14), spacing_mm=(3.0, 1.5, 1.5), origin=None):
    """An empty volume about the origin of the patient's coordinates, unless ``origin`` (x, y, z) says otherwise."""
    middle = [-(n - 1) * s / 2 for n, s in zip(shape[::-1], spacing_mm[::-1])]
    return Volume(np.zeros(shape), spacing_mm, {"origin": list(origin or middle), "direction": IDENTITY})


def points(volume):
    """Coordinates (x, y, z) of every voxel in mm: (z, y, x, 3)."""
    axes = [
        start + step * np.arange(size)
        for start, step, size in zip(volume.geometry["origin"][::-1], volume.spacing_mm, volume.array.shape)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.stack([x, y, z], -1)


def ellipsoid(at, centre, radii):
    return (((at - np.array(centre)) / np.array(radii)) ** 2).sum(-1) < 1


def filled(volume, array):
    return Volume(array, volume.spacing_mm, volume.geometry)


def ct(volume, case=0):
    """A head in HU, another one for each case."""
    noise = np.random.default_rng(case).normal(0, 20, volume.array.shape)
    inside = ellipsoid(points(volume), (0, 0, 0), (9, 10, 30))
    return filled(volume, (np.where(inside, 40, -1000) + noise).astype(np.int16))


def block(volume, value=1, corner=(2, 3, 4), size=(2, 3, 4)):
    """A box of one value; where it lies tells axes and sides apart."""
    array = np.zeros(volume.array.shape, np.uint8)
    array[tuple(slice(c, c + s) for c, s in zip(corner, size))] = value
    return filled(volume, array)


def save(volume, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(volume.itk(), str(path))


def structseg(source, case, label):
    """A case of StructSeg 2019 with its organs."""
    save(ct(grid(), case), source / f"HaN_OAR/{case}/data.nii.gz")
    save(label, source / f"HaN_OAR/{case}/label.nii.gz")


def upside_down(volume):
    """The same box of space with slices from head to feet."""
    x, y, z = volume.geometry["origin"]
    top = z + (volume.array.shape[0] - 1) * volume.spacing_mm[0]
    return Volume(volume.array[::-1].copy(), volume.spacing_mm, {"origin": [x, y, top], "direction": FLIPPED})


# NPC MRI 277

TUMOUR = ((6.0, -10.0, 8.0), (14.0, 12.0, 16.0))
T2_MOTION_MM, T2_TURN_DEG = (4.0, -3.0, 5.0), 4.0
# Correlation of T2 with T1, which is its negative: -0.26 in patient 1 where the motion is not undone.
AGREE = -0.4
GRIDS = {
    "T1": grid((20, 48, 48), (6.0, 4.0, 4.0)),
    "T2": grid((22, 44, 44), (5.5, 4.4, 4.4)),
    "CE-T1": grid((24, 54, 54), (5.0, 3.6, 3.6)),
}


def moved(at):
    """Where in the head of T1 a point of the T2 series lies: the patient moved in between."""
    turn = np.radians(T2_TURN_DEG)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return (at - np.array(T2_MOTION_MM)) @ matrix


def npc_series(sequence, patient=0):
    """A series and its mask. T2 is bright where T1 is dark, so that only their information agrees."""
    volume = GRIDS[sequence]
    at = points(volume)
    at = moved(at) if sequence == "T2" else at
    tissues = np.zeros(volume.array.shape)
    random = np.random.default_rng(100 + patient)
    tissues[ellipsoid(at, (0, 0, 0), (80, 90, 70))] = 300
    for _ in range(25):
        centre, radii = random.uniform(-50, 50, 3), random.uniform(8, 20, 3)
        tissues[ellipsoid(at, centre, radii)] = random.uniform(100, 900)
    tumour = ellipsoid(at, *TUMOUR)
    tissues[tumour] = 600
    signal = {"T1": tissues, "T2": np.where(tissues > 0, 1000 - tissues, 0), "CE-T1": tissues * 1.2}[sequence]
    noise = np.random.default_rng([patient, len(sequence)]).normal(0, 10, tissues.shape)
    return filled(volume, signal + noise), filled(volume, tumour.astype(np.float32))


def npc_mri(root, patients=("001",)):
    for patient in patients:
        for sequence in GRIDS:
            series, mask = npc_series(sequence, int(patient))
            where = {"spacing": series.spacing_mm, "origin": series.geometry["origin"], "patient": patient}
            folder = root / "data/MRI-Segments" / patient / f"{sequence}WI"
            write_series(folder, series.array.astype(np.int16), modality="MR", series=sequence, **where)
            # Published masks are not exactly 0 and 1.
            mask.array[:] = mask.array * 0.9998
            save(mask, root / "data/MRI-Segments" / patient / f"ROI-{sequence}.nii")
    return root


def archive_of(names):
    """A zip archive of texts by name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in names.items():
            archive.writestr(name, text)
    return content.getvalue()


class Converted:
    """A conversion, and what it said."""

    def __init__(self, key, source, destination, variant=None):
        self.lines = []
        self.cohort = public.convert(public.find(key), source, destination, variant, self.lines.append)
        self.record = json.loads((destination / "conversion.json").read_text())
        self.defects = [str(defect) for defect in check(destination)]

    def case(self, name):
        return self.cohort.cases[self.cohort.case_names.index(name)]

    def image(self, case, channel=0):
        return read_image(self.case(case).images[channel])

    def label(self, case):
        return read_image(self.case(case).label)

    def mask(self, case, structure):
        return mask_of(self.label(case)[0], self.cohort.structures, structure)

    def centre(self, case, structure):
        """Centre (x, y, z) in mm of a structure."""
        index = np.argwhere(self.mask(case, structure)).mean(axis=0)[::-1]
        return np.array(to_itk(*self.label(case)).TransformContinuousIndexToPhysicalPoint(index.tolist()))


def refused(source, key, variant=None):
    with pytest.raises(InputError) as problem:
        public.convert(public.find(key), source, source.parent / "cohort", variant, lambda _: None)
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name]
    return str(problem.value)

"""A small cohort, and what can be done to it."""

import json

import numpy as np
import SimpleITK as sitk

from npcrepro.cohorts.check import check
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.layout import write_cohort

SPACING = (3.0, 1.0, 1.0)


def arrays(name, patient=None, *, channels=2, suspect=False, spacing_mm=SPACING):
    """A case of 3 x 4 x 5 voxels that no other name shares."""
    image = np.arange(channels * 60, dtype=np.int32).reshape(channels, 3, 4, 5) + 1000 * sum(name.encode())
    image[:, 0, -1, -1] = -1000  # the air of a CT
    label = np.zeros((3, 4, 5), np.uint8)
    label[1, 1:3, 2:4] = 1
    return CaseArrays(name, patient or name, image, label, spacing_mm, suspect)


def write(root, cases=("a", "b", "c"), **fields):
    cases = [arrays(case) if isinstance(case, str) else case for case in cases]
    names = {"name": "tiny", "channels": ("T1", "CT"), "structures": {"GTVp": 1}}
    return write_cohort(root, cases, **(names | fields))


def edit(root, **fields):
    """Change fields of dataset.json; None removes one."""
    header = json.loads((root / "dataset.json").read_text()) | fields
    header = {key: value for key, value in header.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(header))


def save(array, path, *, spacing_mm=SPACING, origin=(0, 0, 0), direction=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def change(path, function=lambda array: array, **geometry):
    """Write a file again with other voxels or another header."""
    save(function(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))), path, **geometry)


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def only(root):
    """The one defect of a cohort."""
    defects = check(root)
    assert len(defects) == 1, [str(defect) for defect in defects]
    return defects[0]


def set_voxel(value):
    def function(array):
        array = array.astype(np.float32)
        array[0, 0, 0] = value
        return array

    return function

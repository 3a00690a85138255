import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from cohort_cases import save

from npcrepro.base.errors import InputError
from npcrepro.cohorts.images import read_image, write_image


def test_truncated_before_it_was_compressed(tmp_path):
    save(np.arange(9 * 40 * 40, dtype=np.int16).reshape(9, 40, 40), tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data[:-100]))
    with pytest.raises(InputError, match=rf"{len(data) - 100} bytes of {len(data)}"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_itk_would_make_zero_are_kept(tmp_path, dtype):
    array = np.arange(60, dtype=dtype).reshape(3, 4, 5)
    array[0, 1, 2], array[2, 0, 4], array[1, 3, 0] = np.nan, np.inf, -np.inf
    for ending in (".nii", ".nii.gz", ".mha"):
        save(array, tmp_path / f"a{ending}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a{ending}")[0], array)


def test_two_dimensional_file_is_one_slice(tmp_path):
    image = sitk.GetImageFromArray(np.arange(20, dtype=np.uint8).reshape(4, 5))
    image.SetSpacing((0.5, 0.25))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    array, spacing_mm, geometry = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(array, np.arange(20).reshape(1, 4, 5))
    assert spacing_mm == (1.0, 0.25, 0.5)
    assert (len(geometry["origin"]), len(geometry["direction"])) == (3, 9)


def test_files_that_are_no_volume_are_refused(tmp_path):
    for ending, problem in ((".nrrd", r"\(complex numbers\)"), (".mha", "with 2 values a voxel")):
        # MetaImage has no complex numbers: ITK writes two values a voxel.
        save(np.arange(60).reshape(3, 4, 5) * np.complex128(1 + 2j), tmp_path / f"a{ending}")
        with pytest.raises(InputError, match=rf"a{ending}: cannot be read .*{problem}"):
            read_image(tmp_path / f"a{ending}")
    sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkFloat32), str(tmp_path / "a.nii.gz"))
    with pytest.raises(InputError, match="save one file a channel"):
        read_image(tmp_path / "a.nii.gz")


def test_a_file_that_a_full_disk_cut_off_is_an_error(tmp_path, monkeypatch):
    image, path = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5)), tmp_path / "a.nii.gz"
    write_image(image, path)
    whole = path.read_bytes()
    # ITK writes what fits, and says nothing that Python hears.
    for left in (whole[:-10], b""):
        monkeypatch.setattr(sitk, "WriteImage", lambda image, name, left=left: path.write_bytes(left))
        with pytest.raises(InputError, match=r"cannot write a\.nii\.gz: the file is cut off"):
            write_image(image, path)

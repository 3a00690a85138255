import numpy as np
import pytest
from dicom_cases import SPACING, ramp, write_patient, write_rtstruct, write_series
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from npcrepro.base.errors import InputError
from npcrepro.cohorts.dicom import find_series, read_series


def refused(*arguments):
    with pytest.raises(InputError) as caught:
        read_series(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("axes", [[[1.0, 0, 0], [0, 1, 0]], [[0.0, 1, 0], [0, 0, -1]]])
def test_slices_are_sorted_by_position_whatever_they_are_called(tmp_path, axes):
    array, spacing, geometry = read_series(write_series(tmp_path, ramp(), axes=np.array(axes)))
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array, ramp() - 1024)
    assert spacing == pytest.approx(SPACING)
    assert geometry["origin"] == pytest.approx([-10, 20, -30])
    # The columns are the directions of x, y and z; z is the normal of the slices.
    assert np.reshape(geometry["direction"], (3, 3)) == pytest.approx(np.column_stack([*axes, np.cross(*axes)]))


def test_rescaling_with_fractions_gives_floats(tmp_path):
    def change(number, made):
        made.RescaleSlope, made.RescaleIntercept = 0.5, number

    array = read_series(write_series(tmp_path, ramp(), change=change))[0]
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, ramp() * 0.5 + np.arange(6)[:, None, None])


def test_find_series_reads_what_headers_say(tmp_path):
    write_patient(tmp_path / "a")
    write_series(tmp_path / "b", ramp(), modality="MR", description="T1 ", series="mr", patient="OTHER")
    found = find_series(tmp_path)
    assert [(s.patient, s.modality, s.description, len(s.files)) for s in found] == [
        ("HOSP-4711-X", "RTSTRUCT", "", 1),
        ("HOSP-4711-X", "CT", "HEAD", 6),
        ("OTHER", "MR", "T1", 6),
    ]
    assert found[0].study == found[1].study != found[2].study
    assert [s.is_image for s in found] == [False, True, True]


def change_of(keyword, value, only=None):
    def change(number, made):
        if only is None or number == only:
            setattr(made, keyword, value)

    return change


def moved(place):
    """A change that sets the position of slice ``number`` to ``place(number)``."""
    return lambda number, made: setattr(made, "ImagePositionPatient", list(place(number)))


@pytest.mark.parametrize(
    ("shape", "change", "words"),
    [
        ((8, 4, 5), lambda number, _: number not in (2, 3), "missing between them: 2"),
        ((8, 4, 5), lambda number, _: number != 1, "6.00 mm apart"),
        ((6, 4, 5), change_of("ImagePositionPatient", [-10, 20, -27], only=2), "lie at the same position"),
        ((40, 4, 5), moved(lambda n: (-10, 20, 2.9 * min(n, 20) + 3.1 * max(n - 20, 0))), "off a regular stack"),
        ((6, 4, 5), moved(lambda n: (-10, 20 + n * 3 * np.tan(np.radians(12)), 3 * n)), "tilted by 12.0 degrees"),
        ((6, 12, 10), change_of("Rows", 10, only=4), "two matrices"),
        ((6, 12, 10), change_of("PixelSpacing", [0.9, 1.1], only=4), "mixed series"),
        ((6, 12, 10), change_of("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], only=4), "not parallel"),
        ((6, 4, 5), change_of("SeriesInstanceUID", "", only=5), "no SeriesInstanceUID"),
        # Headers that no series has.
        ((6, 4, 5), change_of("NumberOfFrames", 6), "multi-frame"),
        ((6, 4, 5), change_of("SamplesPerPixel", 3), "colour"),
        ((6, 4, 5), change_of("PixelSpacing", [0, 1.1]), "no scanner has it"),
        ((6, 4, 5), change_of("ImagePositionPatient", [1e30, 0, 0]), "ImagePositionPatient is 1e+30"),
        ((6, 4, 5), change_of("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "perpendicular"),
        ((6, 4, 5), change_of("Rows", 0), "0 rows"),
        ((6, 4, 5), change_of("RescaleSlope", 1e300), "not finite"),
    ],
)
def test_slices_that_are_no_regular_stack(tmp_path, shape, change, words):
    message = refused(write_series(tmp_path, ramp(shape), change=change))
    assert words in message
    assert str(tmp_path) in message


def test_two_series_in_a_folder(tmp_path):
    write_series(tmp_path / "a", ramp())
    write_series(tmp_path / "b", ramp(), series="other")
    assert "holds 2 series" in refused(tmp_path)
    assert "different series" in refused([*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()])


def test_compressed_slices_that_cannot_be_decoded(tmp_path):
    def change(_, made):
        made.file_meta.TransferSyntaxUID = JPEG2000Lossless
        made.PixelData = encapsulate([b"no such code stream!"])

    message = refused(write_series(tmp_path, ramp(), change=change))
    assert "cannot decode JPEG 2000" in message
    assert "without compression" in message


def test_nothing_to_read(tmp_path):
    assert "without files" in refused([])
    assert "holds 0 series" in refused(tmp_path)
    assert "is not a folder" in refused(tmp_path / "typo")
    assert "cannot be read" in refused([tmp_path / "typo.dcm"])
    write_rtstruct(tmp_path / "RS.dcm", {})
    assert "holds 0 series" in refused(tmp_path)

import numpy as np
import pytest
from dicom_cases import ramp, square, write_rtstruct, write_series
from matplotlib.path import Path as Outline

from npcrepro.base.errors import InputError
from npcrepro.cohorts.dicom import rasterise, read_grid, read_structures
from npcrepro.cohorts.dicom.structures import fill


@pytest.fixture
def grid(tmp_path):
    return read_grid(write_series(tmp_path / "images", ramp()))


def box(rows, columns, shape=(12, 10)):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def rectangle(left, top, right, bottom):
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("turn", [1, -1])
def test_fill_agrees_with_matplotlib(seed, turn):
    """A polygon without crossings, with a ragged edge."""
    rng = np.random.default_rng(seed)
    angle, radius = np.sort(rng.uniform(0, 2 * np.pi, 200)), rng.uniform(4, 14, 200)
    polygon = np.column_stack([15 + radius * np.cos(angle), 17 + radius * np.sin(angle)])[::turn]
    y, x = np.mgrid[:34, :30]
    inside = Outline(polygon, closed=False).contains_points(np.column_stack([x.ravel(), y.ravel()]))
    np.testing.assert_array_equal(fill([polygon], (34, 30)), inside.reshape(34, 30))


def test_neighbours_share_no_pixel_and_leave_none_out():
    # The common edge runs through centres of pixels.
    left, right = rectangle(1, 1, 4, 6), rectangle(4, 1, 8, 6)
    together = fill([left], (12, 10)).astype(int) + fill([right], (12, 10))
    np.testing.assert_array_equal(together, box((1, 6), (1, 8)))


def test_polygons_that_reach_beyond_the_image_are_cut():
    np.testing.assert_array_equal(fill([rectangle(-50, -50, 3.5, 1e5)], (12, 10)), box((0, 12), (0, 4)))
    assert not fill([rectangle(20, 20, 30, 30)], (12, 10)).any()


def test_contours_land_on_their_slices(grid):
    mask = rasterise([square(1.5, 2.5, 6.5, 9.5, number) for number in (1, 2, 4)], grid)
    assert mask.shape == (6, 12, 10)
    for number in range(6):
        np.testing.assert_array_equal(mask[number], box((3, 10), (2, 7)) if number in (1, 2, 4) else 0)


def test_a_contour_inside_another_is_a_hole_and_one_inside_that_an_island(grid):
    nested = [square(0.5, 0.5, 8.5, 10.5, 2), square(1.5, 1.5, 7.5, 9.5, 2), square(3.5, 4.5, 5.5, 6.5, 2)]
    expected = box((1, 11), (1, 9)) & ~box((2, 10), (2, 8)) | box((5, 7), (4, 6))
    np.testing.assert_array_equal(rasterise(nested, grid)[2], expected)


def test_a_keyhole_is_a_hole(grid):
    outer, inner = square(0.5, 0.5, 8.5, 10.5, 2), square(2.5, 2.5, 6.5, 6.5, 2)
    # Round the outside, in by the slit, round the inside the other way, and back by the same slit.
    keyhole = np.concatenate([outer, outer[:1], inner[::-1][[3, 0, 1, 2, 3]], outer[:1]])
    np.testing.assert_array_equal(rasterise([keyhole], grid)[2], box((1, 11), (1, 9)) & ~box((3, 7), (3, 7)))


@pytest.mark.parametrize("again", [
    np.copy, lambda one: np.roll(one, 1, axis=0), lambda one: one[::-1], lambda one: one + np.array([0, 0.005, 0]),
])  # fmt: skip
def test_a_contour_that_is_there_twice_is_no_hole_from_whichever_corner_and_direction_and_a_little_off(grid, again):
    said = []
    one = square(1.5, 2.5, 6.5, 9.5, 2)
    np.testing.assert_array_equal(rasterise([one, again(one)], grid, said.append)[2], box((3, 10), (2, 7)))
    assert said == ["contours left out, there twice: 1"]


def test_contours_that_overlap_in_part_are_joined(grid):
    said = []
    left, right = square(1.5, 2.5, 5.5, 9.5, 2), square(3.5, 2.5, 7.5, 9.5, 2)
    np.testing.assert_array_equal(rasterise([left, right], grid, said.append)[2], box((3, 10), (2, 8)))
    assert said == ["contours that overlap another, joined with it: 1"]
    # Inside the two together and in neither alone: a hole, or one more that was drawn over their seam.
    seam = square(2.5, 5.5, 6.5, 7.5, 2)
    assert not rasterise([left, right, seam], grid, said.append)[2][6:8, 3:7].any()
    assert said[-1] == "contours within several that were joined, taken as holes; look at them: 1"


def test_slices_that_were_not_drawn_between_others_stay_empty_and_are_counted(grid):
    said = []
    mask = rasterise([square(1.5, 2.5, 6.5, 9.5, number) for number in (0, 2, 4)], grid, said.append)
    assert mask.any(axis=(1, 2)).tolist() == [True, False, True, False, True, False]
    assert said == ["slices without a contour between drawn ones, left empty: 2"]
    # Planes in the middle between two slices all go up.
    between = rasterise([square(1.5, 2.5, 6.5, 9.5, number) for number in (0.5, 1.5, 2.5)], grid)
    assert between.any(axis=(1, 2)).tolist() == [False, True, True, True, False, False]


def test_read_structures(tmp_path):
    drawn = {"GTVp": [square(1.5, 2.5, 6.5, 9.5, 2)], " Cord ": [], "Brain": [square(0, 0, 3, 3, 1)] * 2}
    found = read_structures(write_rtstruct(tmp_path / "RS.dcm", drawn))
    assert [(s.name, len(s.contours), s.open) for s in found.structures] == [
        ("GTVp", 1, 0),
        ("Cord", 0, 0),
        ("Brain", 2, 0),
    ]
    np.testing.assert_allclose(found.structures[0].contours[0], drawn["GTVp"][0], atol=1e-4)
    assert len(found.series) == len(found.frames_of_reference) == 1


@pytest.mark.parametrize("text", [b"nan ", b"1e99", b"1.x "])
def test_contours_that_are_not_points(tmp_path, text):
    path = write_rtstruct(tmp_path / "RS.dcm", {"GTVp": [np.full((3, 3), 7.0)]})
    content = path.read_bytes()
    assert b"7.0000\\" in content
    path.write_bytes(content.replace(b"7.0000\\", text + b"  \\", 1))
    with pytest.raises(InputError, match=r"RS\.dcm"):
        read_structures(path)

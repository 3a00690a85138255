"""Pictures of slices and their numbers, on a case with known answers."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from npcrepro.book.explorer.picture import CaseData, View, over_thresholds, picture, worst_slice
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import ERRORS
from npcrepro.metrics.overlap import count
from npcrepro.metrics.panel import measure

COLOURS = {"a": "#56B4E9", "b": "#009E73"}
SPACING_MM = (4.0, 1.0, 1.0)


def rgb(colour):
    return tuple(round(255 * part) for part in to_rgb(colour))


def box(*sides):
    """A mask of 6 slices of 12 x 12 voxels; sides are (first, last + 1) along z, y and x."""
    mask = np.zeros((6, 12, 12), bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


REFERENCE = box((1, 5), (4, 8), (4, 8))
# Method a is sure of the reference but for its slice 4, and less sure of as much beside it; b finds nothing.
SURE, UNSURE = box((1, 4), (4, 8), (4, 8)), box((1, 4), (4, 8), (8, 12))


@pytest.fixture
def case():
    steps = np.where(SURE, 230, np.where(UNSURE, 102, 0)).astype(np.uint8)  # 0.9, 0.4
    image = np.broadcast_to(np.arange(12, dtype=np.float32) * 10, (6, 12, 12))
    found = {"a": steps, "b": steps * 0}
    return CaseData("P0", {"T1": image}, REFERENCE, found, SPACING_MM, False, {"a": "A", "b": "B"}, COLOURS)


@pytest.fixture
def view():
    return View("axial", 2, "T1", 55.0, 110.0, "contours", ("a",), "a", "b", opacity=0.5, threshold=0.5)


def voxel(image, y, x, shape=(12, 12)):
    """Colour in the middle of a pixel of the slice."""
    rows, columns = ((2 * place + 1) * size // (2 * count) for place, size, count in zip((y, x), image.shape, shape))
    return tuple(int(value) for value in image[rows, columns])


def test_numbers_are_those_of_the_records_at_each_threshold(case, view):
    rows = over_thresholds(case, view, (0.3, 0.5))
    for row, mask in zip(rows.itertuples(), (SURE | UNSURE, SURE), strict=True):
        expected = measure(mask, REFERENCE, SPACING_MM)["surfel_hd95_mm"], mask.sum() * 4 / 1000
        assert (row.hd95_mm, row.volume_ml) == pytest.approx(expected)
        assert row.dsc == count(mask, REFERENCE).dsc
        assert row.dsc_of_slice == count(mask[2], REFERENCE[2]).dsc


def test_the_window_maps_intensities_to_grey(case, view):
    image = picture(case, replace(view, methods=()))
    assert image.shape == (480, 480, 3)
    assert [voxel(image, 0, x)[0] for x in (0, 3, 11)] == pytest.approx([0, 70, 255], abs=2)  # 0, 30 and 110 of 110
    narrow = picture(case, replace(view, methods=(), level=30.0, width=2.0))
    assert [voxel(narrow, 0, x)[0] for x in (1, 5)] == [0, 255]


def test_a_mask_is_filled_and_has_a_line_inside_its_edge(case, view):
    image, plain = picture(case, view), picture(case, replace(view, methods=()))
    mixed = [(grey + part) / 2 for grey, part in zip(voxel(plain, 5, 5), rgb(COLOURS["a"]))]
    assert voxel(image, 5, 5) == pytest.approx(mixed, abs=1)
    assert voxel(image, 5, 9) == voxel(plain, 5, 9)
    # Voxel 4 begins at pixel 160: the reference's line ends there, the method's begins.
    line = [tuple(image[220, x]) for x in (158, 159, 160, 161)]
    assert line == [rgb(style.REFERENCE)] * 2 + [rgb(COLOURS["a"])] * 2


def test_errors_have_their_colours(case, view):
    view = replace(view, mode="errors", opacity=1.0, threshold=0.3)
    found, wrong, missed = (rgb(colour) for colour in ERRORS.values())
    image = picture(case, view)
    assert (voxel(image, 5, 5), voxel(image, 5, 10)) == (found, wrong)
    assert voxel(picture(case, replace(view, slice=4)), 5, 5) == missed
    assert voxel(picture(case, replace(view, first="b")), 5, 5) == missed


def test_coronal_slices_stand_upright(case, view):
    top = box((5, 6), (0, 12), (0, 12))
    one = replace(case, reference=top, found={"a": top * np.uint8(255)})
    image = picture(one, replace(view, plane="coronal", slice=6, opacity=1.0))
    assert voxel(image, 0, 5, (6, 12)) == rgb(COLOURS["a"]) != voxel(image, 5, 5, (6, 12))


def test_the_worst_slice_has_the_lowest_dsc_and_then_the_most_wrong_voxels(case, view):
    assert worst_slice(case, view) == 4  # of the reference, not found
    assert worst_slice(case, replace(view, first="b")) == 1
    # At 0.3 everything right of x = 7 is wrong.
    assert worst_slice(case, replace(view, plane="sagittal", threshold=0.3)) == 8
    more = REFERENCE.copy()
    more[3, 0:2] = True
    assert worst_slice(replace(case, reference=more), replace(view, first="b")) == 3

"""Pictures of slices and their numbers, on a case with known answers."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from npcrepro.book.explorer.studies import CaseData, Found

from npcrepro.base.errors import InputError
from npcrepro.book.explorer.picture import View, picture, worst_slice
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
    probability = np.where(SURE, 230, np.where(UNSURE, 102, 0)).astype(np.uint8)  # 0.9, 0.4
    found = {name: Found(steps, REFERENCE, SPACING_MM) for name, steps in (("a", probability), ("b", probability * 0))}
    image = np.broadcast_to(np.arange(12, dtype=np.float32) * 10, (6, 12, 12))
    return CaseData("P0", {"T1": image, "T2": image * 0}, REFERENCE, found, SPACING_MM)


@pytest.fixture
def view():
    return View("axial", 2, "T1", 55.0, 110.0, "contours", ("a",), "a", "b", opacity=0.5, threshold=0.5)


def voxel(image, y, x, shape=(12, 12)):
    """Colour in the middle of a pixel of the slice."""
    rows, columns = ((2 * place + 1) * size // (2 * count) for place, size, count in zip((y, x), image.shape, shape))
    return tuple(int(value) for value in image[rows, columns])


class TestNumbers:
    @pytest.mark.parametrize("threshold", [1 / 255, 0.3, 0.4, 0.401, 0.9, 1.0])
    def test_counts_are_those_of_the_mask(self, case, threshold):
        found = case.found["a"]
        assert found.counts(threshold) == count(found.mask(threshold), REFERENCE)

    @pytest.mark.parametrize("threshold", [0.0, 1.1, float("nan")])
    def test_a_threshold_that_marks_all_or_none_is_refused(self, case, threshold):
        with pytest.raises(InputError, match="above 0 and is at most 1"):
            case.found["a"].mask(threshold)

    def test_hd95_is_that_of_the_records_and_kept(self, case, monkeypatch):
        found = case.found["a"]
        assert found.hd95_mm(0.5) == pytest.approx(measure(SURE, REFERENCE, SPACING_MM)["surfel_hd95_mm"])
        monkeypatch.setattr("npcrepro.book.explorer.studies.surface_distances", lambda *_: pytest.fail("twice"))
        assert found.hd95_mm(0.501) == found.hd95_mm(0.5)  # the same voxels
        assert not found.knows_hd95(0.3)


class TestPicture:
    def test_the_window_maps_intensities_to_grey(self, case, view):
        image = picture(case, replace(view, methods=()), COLOURS)
        assert image.shape == (480, 480, 3)
        greys = [voxel(image, 0, x)[0] for x in (0, 3, 11)]
        assert greys == pytest.approx([0, 70, 255], abs=2)  # 0, 30 and 110 of 0 to 110
        narrow = picture(case, replace(view, methods=(), level=30.0, width=2.0), COLOURS)
        assert [voxel(narrow, 0, x)[0] for x in (1, 5)] == [0, 255]

    def test_a_mask_is_filled_and_has_a_line_inside_its_edge(self, case, view):
        image, plain = picture(case, view, COLOURS), picture(case, replace(view, methods=()), COLOURS)
        mixed = [(grey + part) / 2 for grey, part in zip(voxel(plain, 5, 5), rgb(COLOURS["a"]))]
        assert voxel(image, 5, 5) == pytest.approx(mixed, abs=1)
        assert voxel(image, 5, 9) == voxel(plain, 5, 9)
        # Voxel 4 begins at pixel 160: the reference's line ends there, the method's begins.
        line = [tuple(image[220, x]) for x in (158, 159, 160, 161)]
        assert line == [rgb(style.REFERENCE)] * 2 + [rgb(COLOURS["a"])] * 2
        assert tuple(image[220, 157]) == tuple(plain[220, 157])

    def test_errors_have_their_colours(self, case, view):
        view = replace(view, mode="errors", opacity=1.0, threshold=0.3)
        found, wrong, missed = (rgb(colour) for colour in ERRORS.values())
        image = picture(case, view, COLOURS)
        assert (voxel(image, 5, 5), voxel(image, 5, 10)) == (found, wrong)
        assert voxel(picture(case, replace(view, slice=4), COLOURS), 5, 5) == missed
        assert voxel(picture(case, replace(view, first="b"), COLOURS), 5, 5) == missed

    def test_coronal_slices_stand_upright(self, case, view):
        top = box((5, 6), (0, 12), (0, 12))
        one = replace(case, reference=top, found={"a": Found(top * np.uint8(255), top, SPACING_MM)})
        image = picture(one, replace(view, plane="coronal", slice=6, opacity=1.0), COLOURS)
        assert voxel(image, 0, 5, (6, 12)) == rgb(COLOURS["a"])
        assert voxel(image, 5, 5, (6, 12)) != rgb(COLOURS["a"])


class TestWorstSlice:
    def test_lowest_dsc_first_then_the_most_wrong_voxels(self, case, view):
        assert worst_slice(case, view) == 4  # of the reference, not found
        assert worst_slice(case, replace(view, first="b")) == 1
        # At 0.3 everything right of x = 7 is wrong.
        assert worst_slice(case, replace(view, plane="sagittal", threshold=0.3)) == 8
        more = REFERENCE.copy()
        more[3, 0:2] = True
        one = replace(case, reference=more, found={"b": Found(np.zeros(more.shape, np.uint8), more, SPACING_MM)})
        assert worst_slice(one, replace(view, first="b")) == 3

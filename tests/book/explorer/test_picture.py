"""Pictures of slices and their numbers, on a case with known answers."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from npcrepro.base.errors import InputError
from npcrepro.book.explorer.picture import GAP_PX, View, numbers, picture, worst_slice
from npcrepro.book.explorer.studies import CaseData, Found
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import ERRORS
from npcrepro.metrics.overlap import count
from npcrepro.metrics.surface import measure

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

    def test_no_distance_without_a_mask_or_a_spacing_and_an_outline_in_a_single_slice(self, case):
        assert np.isnan(case.found["b"].hd95_mm(0.5))
        unknown = Found(case.found["a"].probability, REFERENCE, (np.nan,) * 3)
        assert np.isnan([unknown.hd95_mm(0.5), unknown.volume_ml(0.5)]).all()
        flat, moved = np.zeros((2, 1, 9, 9), bool)
        flat[0, 2:6, 2:6], moved[0, 2:6, 4:8] = True, True
        assert Found(moved * np.uint8(255), flat, (9.0, 1.0, 1.0)).hd95_mm(0.5) == pytest.approx(2)

    def test_a_row_for_each_method_of_the_picture(self, case, view):
        rows = numbers(case, replace(view, mode="side by side"))
        assert rows.method.tolist() == ["a", "b"]
        hit, wanted = SURE.sum(), REFERENCE.sum()
        assert rows.dsc.tolist() == pytest.approx([2 * hit / (hit + wanted), 0])
        assert rows.dsc_of_slice.tolist() == [1.0, 0.0]
        assert [*rows.volume_ml, case.reference_ml] == pytest.approx([hit * 0.004, 0, wanted * 0.004])
        assert np.isnan(numbers(case, replace(view, threshold=0.3), distances=False).hd95_mm[0])


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

    def test_the_threshold_moves_the_contour(self, case, view):
        lower = picture(case, replace(view, threshold=0.3), COLOURS)
        assert tuple(lower[220, 479]) != rgb(COLOURS["a"])  # nothing lies outside at the border of the image
        assert tuple(lower[160, 400]) == rgb(COLOURS["a"])
        assert tuple(picture(case, view, COLOURS)[160, 400]) != rgb(COLOURS["a"])

    def test_errors_have_their_colours(self, case, view):
        view = replace(view, mode="errors", opacity=1.0, threshold=0.3)
        found, wrong, missed = (rgb(colour) for colour in ERRORS.values())
        image = picture(case, view, COLOURS)
        assert (voxel(image, 5, 5), voxel(image, 5, 10)) == (found, wrong)
        assert voxel(picture(case, replace(view, slice=4), COLOURS), 5, 5) == missed
        assert voxel(picture(case, replace(view, first="b"), COLOURS), 5, 5) == missed

    def test_side_by_side_has_one_method_each(self, case, view):
        image = picture(case, replace(view, mode="side by side", opacity=1.0), COLOURS)
        left, gap, right = image[:, :480], image[:, 480:-480], image[:, -480:]
        assert gap.shape[1] == GAP_PX
        assert (gap == 255).all()
        assert voxel(left, 5, 5) == rgb(COLOURS["a"])
        assert not (right == rgb(COLOURS["b"])).all(axis=2).any()
        assert tuple(right[220, 159]) == tuple(left[220, 159]) == rgb(style.REFERENCE)

    @pytest.mark.parametrize(
        ("plane", "spacing_mm", "shape"),
        [
            ("axial", (4.0, 1.0, 2.0), (240, 480)),
            ("coronal", (4.0, 9.0, 2.0), (480, 480)),
            ("sagittal", (np.nan,) * 3, (240, 480)),
        ],
    )
    def test_pixels_are_as_high_and_wide_as_in_the_patient(self, case, view, plane, spacing_mm, shape):
        one = replace(case, spacing_mm=spacing_mm)
        assert picture(one, replace(view, plane=plane), COLOURS).shape == (*shape, 3)

    def test_coronal_slices_stand_upright(self, case, view):
        top = box((5, 6), (0, 12), (0, 12))
        one = replace(case, reference=top, found={"a": Found(top * np.uint8(255), top, SPACING_MM)})
        image = picture(one, replace(view, plane="coronal", slice=6, opacity=1.0), COLOURS)
        assert voxel(image, 0, 5, (6, 12)) == rgb(COLOURS["a"])
        assert voxel(image, 5, 5, (6, 12)) != rgb(COLOURS["a"])

    def test_an_unknown_mode_names_the_near_miss(self, case, view):
        with pytest.raises(InputError, match="did you mean 'contours'"):
            picture(case, replace(view, mode="contour"), COLOURS)


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

    def test_where_nothing_is_the_slice_stays(self, case, view):
        nothing = np.zeros(REFERENCE.shape, bool)
        one = replace(case, reference=nothing, found={"a": Found(nothing.astype(np.uint8), nothing, SPACING_MM)})
        assert worst_slice(one, view) == 2
        assert worst_slice(one, replace(view, first="b")) == 2

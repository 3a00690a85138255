"""The chapter on the meaning of the numbers: made-up masks, the slider, and the agreement of two people."""

import numpy as np
import pytest

from npcrepro.book.topics import example_masks
from npcrepro.metrics.overlap import count
from npcrepro.metrics.panel import measure


class TestMasks:
    def test_reference_stays_and_prediction_moves_along_x(self):
        (first, reference), (second, again) = example_masks.shifted_pair(0), example_masks.shifted_pair(20 * 0.54)
        assert np.array_equal(reference, again)
        assert np.array_equal(second, np.roll(first, 20, axis=2))
        for mask in (reference, second):
            assert not any(np.take(mask, end, axis).any() for axis in range(3) for end in (0, -1))


class TestNumbers:
    def test_every_convention_is_that_of_the_records(self):
        pair = example_masks.shifted_pair(3)
        table, expected = example_masks.distances(*pair), measure(*pair, example_masks.SPACING_MM)
        columns = {"HD (mm)": "hd_mm", "HD95, larger of both directions (mm)": "hd95_mm", "MASD (mm)": "masd_mm"}
        columns |= {"ASSD (mm)": "assd_mm", "NSD at 1 mm": "nsd_1mm", "NSD at 2 mm": "nsd_2mm"}
        for convention, title in example_masks.SURFACES.items():
            for row, name in columns.items():
                assert table.loc[row, title] == expected[f"{convention}_{name}"], (row, title)
            larger, pooled = (table.loc[row, title] for row in list(table.index)[1:3])
            assert pooled < larger

    def test_the_same_masks_differ_as_the_chapter_says(self):
        border, elements = example_masks.distances(*example_masks.shifted_pair(2)).loc["NSD at 1 mm"]
        assert (round(border, 2), round(elements, 2)) == (0.32, 0.44)

    def test_border_voxels_may_reward_a_worse_mask(self):
        near, far = example_masks.shifted_pair(0), example_masks.shifted_pair(1)
        better, worse = (example_masks.distances(*pair).loc["NSD at 1 mm"] for pair in (near, far))
        assert count(*far).dsc < count(*near).dsc
        assert worse["border voxels"] > better["border voxels"]
        assert worse["surface elements"] < better["surface elements"]

    @pytest.mark.parametrize("steps", [1, 10, 39, 50])
    def test_ball_and_tube_are_those_of_fine_grids(self, steps):
        places = np.arange(-20.5, 71)
        z, y, x = np.meshgrid(places, places, places, indexing="ij", sparse=True)
        for squares, computed in (
            (z**2 + y**2 + x**2, example_masks.ball_dsc(4 / 3 * np.pi * 20**3 / 1000, steps)),
            (y[0] ** 2 + x[0] ** 2, example_masks.tube_dsc(40, steps)),
        ):
            mask = squares <= 400
            assert computed == pytest.approx(count(np.roll(mask, steps, axis=-1), mask).dsc, abs=0.01)

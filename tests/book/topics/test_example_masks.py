"""The chapter on the meaning of the numbers: made-up masks, the slider, and the agreement of two people."""

import re

import numpy as np
import pytest

from npcrepro.base.errors import InputError
from npcrepro.book.topics import example_masks
from npcrepro.cohorts.public.organs import DEEPMIND_ORGANS
from npcrepro.findings import observers
from npcrepro.metrics.overlap import Counts, count
from npcrepro.metrics.surface import measure


class TestMasks:
    def test_reference_stays_and_prediction_moves_along_x(self):
        (first, reference), (second, again) = example_masks.shifted_pair(0), example_masks.shifted_pair(20 * 0.54)
        assert np.array_equal(reference, again)
        assert np.array_equal(second, np.roll(first, 20, axis=2))
        for mask in (reference, second):
            assert not any(np.take(mask, end, axis).any() for axis in range(3) for end in (0, -1))

    def test_prediction_is_one_slice_higher_and_a_little_larger(self):
        prediction, reference = example_masks.shifted_pair(0)
        centres = [np.argwhere(mask).mean(axis=0) for mask in (prediction, reference)]
        np.testing.assert_allclose(centres[0] - centres[1], (1, 0, 0), atol=1e-9)
        assert prediction.sum() / reference.sum() == pytest.approx(example_masks.LARGER**3, rel=0.02)
        volume_mm3 = 4 / 3 * np.pi * np.prod(example_masks.RADII_MM)
        assert reference.sum() * np.prod(example_masks.SPACING_MM) == pytest.approx(volume_mm3, rel=0.02)

    def test_a_shift_off_the_grid_is_refused(self):
        for shift_mm in (-0.1, example_masks.LARGEST_SHIFT_MM + 0.1, float("nan")):
            with pytest.raises(ValueError, match="between 0 and 12 mm"):
                example_masks.shifted_pair(shift_mm)

    def test_empty_pairs_have_the_status_of_their_name(self):
        assert all(count(*pair).status == name for name, pair in example_masks.empty_pairs().items())


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

    def test_ball_takes_arrays_and_grows_with_volume(self):
        values = example_masks.ball_dsc(np.array([0.001, 0.1, 1, 100]), 2.5)
        assert values[0] == 0
        assert (np.diff(values) > 0).all()


def outline_rows(path):
    """Heights of the corners of an SVG path, in half pixels from above."""
    start, moves = re.fullmatch(r"M\d+ (\d+)l([-+\d]+)z", path).groups()
    return np.cumsum([int(start), *map(int, re.findall(r"[-+]\d+", moves)[1::2])])


class TestPicture:
    def test_higher_in_the_patient_is_higher_in_the_coronal_slice(self):
        text = example_masks.picture(*example_masks.shifted_pair(0))
        reference, prediction = (outline_rows(path) for path in re.findall(r'd="([^"]+)"', text)[2:])
        assert prediction.min() < reference.min()

    def test_page_holds_the_numbers_with_two_digits(self):
        pair = example_masks.shifted_pair(2)
        text = example_masks.page(*pair, example_masks.overlap(*pair), example_masks.distances(*pair))
        assert text.count("<svg") == 2
        assert re.search(r"NSD at 1 mm</th>\s*<td>0.32</td>\s*<td>0.44</td>", text)
        assert "<td>0.88</td>" in text  # DSC


class TestObservers:
    def test_record_is_whole(self):
        pairs = observers.pairs()
        assert len(pairs) == 145
        assert pairs.case.nunique() == 7
        assert set(pairs.structure) == set(DEEPMIND_ORGANS.values())
        assert not pairs.duplicated(["case", "structure"]).any()
        for row in pairs.itertuples():
            counts = Counts(row.tp, row.fp, row.fn, row.tn)
            assert row.dsc == pytest.approx(counts.dsc, abs=1e-6)
            voxel_mm3 = row.spacing_z_mm * row.spacing_y_mm * row.spacing_x_mm
            assert row.reference_ml == pytest.approx((row.tp + row.fn) * voxel_mm3 / 1000, rel=1e-3)

    def test_scans_with_a_copied_structure_are_doubtful(self):
        pairs = observers.pairs()
        copied = set(pairs[pairs.fp + pairs.fn == 0].case)
        assert copied == set(pairs[pairs.suspect].case) == {"0522c0014"}

    def test_agreement_is_the_median_of_what_is_not_doubtful(self):
        table = observers.pairs()
        expected = table[(table.structure == "Parotid_L") & (table.case != "0522c0014")]
        found = observers.agreement()
        assert found.loc["Parotid_L", "n"] == len(expected) == 6
        assert found.loc["Parotid_L", "surfel_hd95_mm"] == np.median(expected.surfel_hd95_mm)
        assert found.dsc.is_monotonic_decreasing
        assert list(found.columns) == ["n", *observers.MEDIANS]
        two = table[table.structure == "Brain"].head(2).assign(suspect=[False, True], dsc=[0.5, 0.7])
        assert observers.agreement(two).dsc.to_dict() == {"Brain": 0.5}

    def test_missing_record_is_one_sentence(self, tmp_path):
        with pytest.raises(InputError, match=r"cases\.csv is missing: it comes with a clone"):
            observers.pairs(tmp_path / "cases.csv")

"""The chapter on the meaning of the numbers: made-up masks, the slider, and the agreement of two people."""

import re

import numpy as np
import pandas as pd
import pytest

from npcrepro.base.errors import InputError
from npcrepro.book.figures import charts
from npcrepro.book.html.slider import slider
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

    @pytest.mark.parametrize("shift_mm", [-0.1, example_masks.LARGEST_SHIFT_MM + 0.1, float("nan")])
    def test_a_shift_off_the_grid_is_refused(self, shift_mm):
        with pytest.raises(ValueError, match="between 0 and 12 mm"):
            example_masks.shifted_pair(shift_mm)

    def test_empty_pairs_have_the_status_of_their_name(self):
        assert {name: count(*pair).status for name, pair in example_masks.empty_pairs().items()} == {
            name: name for name in ("ok", "pred_empty", "ref_empty", "both_empty")
        }


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

    def test_overlap_is_that_of_the_counts(self):
        prediction, reference = example_masks.shifted_pair(3)
        counts = count(prediction, reference)
        row = example_masks.overlap(prediction, reference).iloc[0]
        assert row.to_dict() == {
            "DSC": counts.dsc, "JSC": counts.jsc, "precision": counts.precision, "sensitivity": counts.sensitivity
        }  # fmt: skip

    @pytest.mark.parametrize("steps", [1, 10, 39, 40, 50])
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


class TestPicture:
    def test_outline_encloses_the_voxels(self):
        mask = example_masks.shifted_pair(0)[1][:, 40]
        x, area = 0, 0
        for command, number in re.findall(r"([MHv])(-?\d+)", example_masks._outline(mask)):
            if command == "v":
                area += x * int(number)
            else:
                x = int(number)
        assert -area == mask.sum()

    def test_empty_slice_has_no_outline_and_a_gap_is_refused(self):
        assert example_masks._outline(np.zeros((3, 3), bool)) == ""
        with pytest.raises(ValueError, match="gap"):
            example_masks._outline(np.array([[True, False, True]]))

    def test_higher_in_the_patient_is_higher_in_the_coronal_slice(self):
        paths = re.findall(r'd="M\d+ (\d+)', example_masks.picture(*example_masks.shifted_pair(0)))
        reference_top, prediction_top = map(int, paths[2:])
        assert prediction_top < reference_top

    def test_page_holds_the_numbers_with_two_digits(self):
        pair = example_masks.shifted_pair(2)
        text = example_masks.page(*pair, example_masks.overlap(*pair), example_masks.distances(*pair))
        assert text.count("<svg") == 2
        assert re.search(r"NSD at 1 mm</th>\s*<td>0.32</td>\s*<td>0.44</td>", text)
        assert "<td>0.88</td>" in text  # DSC


STATES = {"0 mm": "<b>nothing</b>", "1 < 2 mm": "<b>little</b>", "2 mm": "<b>much</b>"}


class TestSlider:
    def test_one_state_is_shown_and_the_control_waits_for_the_script(self):
        text = slider(STATES, "shift & more", "1 < 2 mm")
        hidden = re.findall(r'data-title="([^"]*)"( hidden)?', text)
        assert hidden == [("0 mm", " hidden"), ("1 &lt; 2 mm", ""), ("2 mm", " hidden")]
        assert '<div hidden><label for="' in text
        assert 'min="0" max="2" value="1"' in text
        assert "shift &amp; more" in text
        assert "http" not in text

    def test_names_are_the_same_in_every_build_and_differ_between_sliders(self):
        first, again, other = (slider(STATES, "shift", start) for start in ("0 mm", "0 mm", "2 mm"))
        assert first == again
        names = [re.search(r'id="(slider-\w{8})"', text)[1] for text in (first, other)]
        assert names[0] != names[1]
        assert first.count(names[0]) == 4  # the frame, the control, its label, and the script

    def test_unknown_start_is_refused(self):
        with pytest.raises(ValueError, match="none of the states"):
            slider(STATES, "shift", "3 mm")

    @pytest.mark.browser
    def test_keys_move_it_and_without_javascript_one_state_stays(self, chromium_path):
        from playwright.sync_api import sync_playwright

        text = slider(STATES, "shift", "1 < 2 mm")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.set_content(text)
            control = page.get_by_label("shift")
            seen = []
            for key in ("", "ArrowRight", "Home", "End"):
                if key:
                    control.press(key)
                seen.append((page.locator("b:visible").all_inner_texts(), control.get_attribute("aria-valuetext")))
            plain = browser.new_context(java_script_enabled=False).new_page()
            plain.set_content(text)
            still = plain.locator("b:visible").all_inner_texts(), plain.locator("input").is_visible()
            browser.close()
        assert seen == [
            (["little"], "1 < 2 mm"), (["much"], "2 mm"), (["nothing"], "0 mm"), (["much"], "2 mm")
        ]  # fmt: skip
        assert still == (["little"], False)


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


class TestFigures:
    def test_structures_are_sorted_by_the_first_metric_with_n(self):
        rows = [("A", False, 0.5, 9), ("A", True, 0.9, 1), ("B", False, 0.8, 3), ("B", False, 0.6, 5)]
        table = pd.DataFrame(rows, columns=["structure", "suspect", "dsc", "hd95"])
        figure = charts.observer_agreement(table, {"dsc": "DSC", "hd95": "HD95 (mm)"})
        first, second = figure.axes
        assert [label.get_text() for label in first.get_yticklabels()] == ["B (n = 2)", "A (n = 1)"]
        bars = [line.get_segments()[0][0][0] for line in second.collections if hasattr(line, "get_segments")]
        assert bars == [4, 9]

    def test_each_organ_is_a_dot_and_the_named_ones_have_their_name(self):
        points = pd.DataFrame({"reference_ml": [1.0, 20.0], "dsc": [0.7, 0.9]}, index=["Lens", "Parotid"])
        volumes = np.array([0.5, 50.0])
        figure = charts.dsc_by_volume({"one slice": np.array([0.5, 0.9])}, volumes, points, ["Parotid"])
        axis = figure.axes[0]
        assert [text.get_text() for text in axis.texts] == ["Parotid"]
        np.testing.assert_allclose(axis.collections[0].get_offsets(), [(1, 0.7), (20, 0.9)])

    def test_surfaces_have_a_style_and_numbers_a_colour(self):
        shifts = pd.Index([0.0, 1.0])
        both = pd.DataFrame({"border voxels": [1.0, 2.0], "surface elements": [1.5, 2.5]}, index=shifts)
        figure = charts.by_surface({"share": {"DSC": both[["border voxels"]], "NSD": both}})
        drawn = [line for line in figure.axes[0].lines if len(line.get_xdata())]
        assert [line.get_linestyle() for line in drawn] == ["-", "--", "-"]
        assert drawn[1].get_color() == drawn[2].get_color() != drawn[0].get_color()
        assert [text.get_text() for text in figure.legends[0].get_texts()] == list(both)

"""The model of the live explorer, and its controls without a notebook around them."""

import asyncio
import re
from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from core_cases import case_arrays, tiny_paper, write_tiny

from npcrepro.base.errors import InputError
from npcrepro.book import explorer as explorer_module
from npcrepro.book.explorer import CaseData, Found, View
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import ERRORS
from npcrepro.metrics.overlap import count
from npcrepro.metrics.surface import measure
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs.queue import run_paper
from npcrepro.runs.records import find

pytest_plugins = ["core_fixtures"]

COLOURS = {"a": "#56B4E9", "b": "#009E73"}
SPACING_MM = (4.0, 1.0, 1.0)


def rgb(colour):
    return tuple(round(255 * part) for part in matplotlib.colors.to_rgb(colour))


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


def blend(ground, colour, opacity):
    return tuple((1 - opacity) * ground + opacity * part for part in rgb(colour))


class TestNumbers:
    def test_the_threshold_changes_counts_and_volume(self, case):
        found = case.found["a"]
        hit, marked, wanted = SURE.sum(), (SURE | UNSURE).sum(), REFERENCE.sum()
        assert found.counts(0.5).dsc == 2 * hit / (hit + wanted)
        assert found.counts(0.3).dsc == 2 * hit / (marked + wanted)
        assert found.counts(0.95).dsc == 0
        assert found.volume_ml(0.3) == marked * 4 / 1000
        assert explorer_module.reference_ml(case) == wanted * 4 / 1000

    @pytest.mark.parametrize("threshold", [1 / 255, 0.3, 0.4, 0.401, 0.5, 0.9, 1.0])
    def test_counts_are_those_of_the_mask(self, case, threshold):
        found = case.found["a"]
        assert found.counts(threshold) == count(found.mask(threshold), REFERENCE)

    def test_a_probability_at_the_threshold_is_marked(self):
        steps = np.array([[[127, 128]]], np.uint8)
        assert Found(steps, steps > 0, SPACING_MM).mask(0.5).tolist() == [[[False, True]]]

    @pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, float("nan")])
    def test_a_threshold_that_marks_all_or_none_is_refused(self, case, threshold):
        with pytest.raises(InputError, match="above 0 and is at most 1"):
            case.found["a"].mask(threshold)

    def test_hd95_is_that_of_the_records_and_kept(self, case, monkeypatch):
        found = case.found["a"]
        assert not found.knows_hd95(0.5)
        assert found.hd95_mm(0.5) == measure(SURE, REFERENCE, SPACING_MM)["surfel_hd95_mm"]
        assert found.knows_hd95(0.5)
        monkeypatch.setattr(explorer_module, "surface_distances", lambda *_: pytest.fail("measured twice"))
        assert found.hd95_mm(0.501) == found.hd95_mm(0.5)  # the same voxels
        assert not found.knows_hd95(0.3)

    def test_no_distance_without_a_mask_or_a_spacing(self, case):
        assert np.isnan(case.found["b"].hd95_mm(0.5))
        unknown = Found(case.found["a"].probability, REFERENCE, (np.nan,) * 3)
        assert np.isnan([unknown.hd95_mm(0.5), unknown.volume_ml(0.5)]).all()

    def test_a_single_slice_is_measured_by_its_outline(self):
        flat, moved = np.zeros((2, 1, 9, 9), bool)
        flat[0, 2:6, 2:6], moved[0, 2:6, 4:8] = True, True
        found = Found(moved * np.uint8(255), flat, (9.0, 1.0, 1.0))
        assert found.hd95_mm(0.5) == 2

    def test_a_row_for_each_method_of_the_picture(self, case, view):
        rows = explorer_module.numbers(case, replace(view, mode="side by side"))
        assert rows.method.tolist() == ["a", "b"]
        assert rows.dsc_of_slice.tolist() == [1.0, 0.0]
        assert rows.volume_ml.tolist() == [SURE.sum() * 4 / 1000, 0]
        assert np.isnan(explorer_module.numbers(case, replace(view, threshold=0.3), distances=False).hd95_mm[0])

    def test_thresholds_one_below_the_other(self, case, view):
        rows = explorer_module.over_thresholds(case, view, (0.3, 0.5))
        assert rows.threshold.tolist() == [0.3, 0.5]
        assert rows.dsc.tolist() == [case.found["a"].counts(value).dsc for value in (0.3, 0.5)]


class TestPicture:
    def test_the_window_maps_intensities_to_grey(self, case, view):
        image = explorer_module.picture(case, replace(view, methods=()), COLOURS)
        assert image.shape == (480, 480, 3)
        greys = [voxel(image, 0, x) for x in range(12)]
        assert greys[0] == (0, 0, 0)
        assert greys[-1] == (255, 255, 255)
        assert greys[3] == pytest.approx((70,) * 3, abs=2)  # 30 of 0 to 110
        narrow = explorer_module.picture(case, replace(view, methods=(), level=30.0, width=2.0), COLOURS)
        assert [voxel(narrow, 0, x)[0] for x in (1, 5)] == [0, 255]

    def test_a_mask_is_filled_and_has_a_line_inside_its_edge(self, case, view):
        image = explorer_module.picture(case, view, COLOURS)
        plain = explorer_module.picture(case, replace(view, methods=()), COLOURS)
        ground = voxel(plain, 5, 5)[0]
        assert voxel(image, 5, 5) == pytest.approx(blend(ground, COLOURS["a"], 0.5), abs=1)
        assert voxel(image, 5, 9) == voxel(plain, 5, 9)
        # Voxel 4 begins at pixel 160: the reference's line ends there, the method's begins.
        assert [tuple(image[220, x]) for x in (158, 159, 160, 161)] == [rgb(style.REFERENCE)] * 2 + [
            rgb(COLOURS["a"])
        ] * 2
        assert tuple(image[220, 157]) == tuple(plain[220, 157])

    def test_the_threshold_moves_the_contour(self, case, view):
        lower = explorer_module.picture(case, replace(view, threshold=0.3), COLOURS)
        assert tuple(lower[220, 479]) != rgb(COLOURS["a"])  # nothing lies outside at the border of the image
        assert tuple(lower[160, 400]) == rgb(COLOURS["a"])
        assert tuple(explorer_module.picture(case, view, COLOURS)[160, 400]) != rgb(COLOURS["a"])

    def test_errors_have_their_colours(self, case, view):
        view = replace(view, mode="errors", opacity=1.0, threshold=0.3)
        found, wrong, missed = (rgb(colour) for colour in ERRORS.values())
        image = explorer_module.picture(case, view, COLOURS)
        assert (voxel(image, 5, 5), voxel(image, 5, 10)) == (found, wrong)
        assert voxel(explorer_module.picture(case, replace(view, slice=4), COLOURS), 5, 5) == missed
        assert voxel(explorer_module.picture(case, replace(view, first="b"), COLOURS), 5, 5) == missed

    def test_side_by_side_has_one_method_each(self, case, view):
        image = explorer_module.picture(case, replace(view, mode="side by side", opacity=1.0), COLOURS)
        left, gap, right = image[:, :480], image[:, 480:-480], image[:, -480:]
        assert gap.shape[1] == explorer_module.GAP_PX
        assert (gap == 255).all()
        assert voxel(left, 5, 5) == rgb(COLOURS["a"])
        assert rgb(COLOURS["b"]) not in {voxel(right, y, x) for y in range(12) for x in range(12)}
        assert tuple(right[220, 159]) == tuple(left[220, 159]) == rgb(style.REFERENCE)

    @pytest.mark.parametrize(
        ("plane", "spacing_mm", "shape"),
        [
            ("axial", (4.0, 1.0, 2.0), (240, 480)),
            ("coronal", (4.0, 9.0, 2.0), (480, 480)),
            ("sagittal", (1.0, 1.0, 9.0), (240, 480)),
            ("sagittal", (np.nan,) * 3, (240, 480)),
        ],
    )
    def test_pixels_are_as_high_and_wide_as_in_the_patient(self, case, view, plane, spacing_mm, shape):
        one = replace(case, spacing_mm=spacing_mm)
        assert explorer_module.picture(one, replace(view, plane=plane), COLOURS).shape == (*shape, 3)

    def test_coronal_slices_stand_upright(self, case, view):
        top = box((5, 6), (0, 12), (0, 12))
        one = replace(case, reference=top, found={"a": Found(top * np.uint8(255), top, SPACING_MM)})
        image = explorer_module.picture(one, replace(view, plane="coronal", slice=6, opacity=1.0), COLOURS)
        assert voxel(image, 0, 5, (6, 12)) == rgb(COLOURS["a"])
        assert voxel(image, 5, 5, (6, 12)) != rgb(COLOURS["a"])

    def test_an_image_says_in_words_what_it_shows(self, explorer):
        def words() -> str:
            return re.search(r'<img alt="([^"]*)"', explorer._image.value)[1]

        case, plane = explorer.case.name, f"CET1, axial slice {explorer.slice.value}"
        assert words() == f"{case}, {plane}: reference and contours of Stepwise, ReLU scores, Stepwise, linear scores"
        explorer.mode.value = "errors"
        assert words() == f"{case}, {plane}: reference and errors of Stepwise, ReLU scores"
        explorer.mode.value = "side by side"
        assert words().endswith("Stepwise, ReLU scores on the left, Stepwise, linear scores on the right")

    def test_png_is_the_image(self, case, view):
        from io import BytesIO

        from PIL import Image

        image = explorer_module.picture(case, view, COLOURS)
        assert np.array_equal(np.asarray(Image.open(BytesIO(explorer_module.png(image)))), image)

    def test_an_unknown_mode_names_the_near_miss(self, case, view):
        with pytest.raises(InputError, match="did you mean 'contours'"):
            explorer_module.picture(case, replace(view, mode="contour"), COLOURS)


class TestWorstSlice:
    def test_lowest_dsc_first(self, case, view):
        assert explorer_module.worst_slice(case, view) == 4  # of the reference, not found
        assert explorer_module.worst_slice(case, replace(view, first="b")) == 1

    def test_then_the_most_wrong_voxels(self, case, view):
        more = REFERENCE.copy()
        more[3, 0:2] = True
        one = replace(case, reference=more, found={"b": Found(np.zeros(more.shape, np.uint8), more, SPACING_MM)})
        assert explorer_module.worst_slice(one, replace(view, first="b")) == 3

    def test_of_the_plane(self, case, view):
        # At 0.3 everything right of x = 7 is wrong.
        assert explorer_module.worst_slice(case, replace(view, plane="sagittal", threshold=0.3)) == 8

    def test_where_nothing_is_the_slice_stays(self, case, view):
        nothing = np.zeros(REFERENCE.shape, bool)
        one = replace(case, reference=nothing, found={"a": Found(nothing.astype(np.uint8), nothing, SPACING_MM)})
        assert explorer_module.worst_slice(one, view) == 2
        assert explorer_module.worst_slice(one, replace(view, first="b")) == 2


def test_of_several_structures_the_most_probable_one_counts():
    probability = np.array([[[[0.6, 0.3, 0.2]]], [[[0.4, 0.5, 0.2]]]], np.float32)
    assert explorer_module._of_structure(probability, 0).tolist() == [[[153, 0, 51]]]
    assert explorer_module._of_structure(probability, 1).tolist() == [[[0, 128, 0]]]
    assert explorer_module._of_structure(probability[:1], 0).tolist() == [[[153, 76, 51]]]


# Runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Settings with the runs of two methods on five tiny patients."""
    root = tmp_path_factory.mktemp("explore")
    cases = [case_arrays(f"P{i}", i) for i in range(5)]
    write_tiny(root / "c", cases, publishable=True)
    methods = ("stepwise", "linear-scores")
    settings = Settings(cohort=str(root / "c"), profile="tiny", methods=methods, device="cpu", runs=str(root / "r"))
    run_paper(PAPER, settings, report=lambda line: None)
    return settings


PAPER = replace(tiny_paper(updates=3), split={"kind": "k-fold", "folds": 2, "validation": 1})


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda key, modalities=(): PAPER if key == "li2018" else load(key, modalities)
    )


class TestStudies:
    def test_all_that_is_there(self, made):
        (study,) = explorer_module.studies("li2018", made).values()
        assert study.methods == ("stepwise", "linear-scores")
        assert study.structures == ("GTVp",)
        tested = find(made.runs)[0].config["fold"]["test"]
        assert study.cases == tested
        assert study.titles()["stepwise"] == "Stepwise, ReLU scores"
        assert study.colours()["stepwise"] == style.METHODS[0]
        assert [*explorer_module.studies("li2018", replace(made, methods=("stepwise",)))["tiny"].methods] == [
            "stepwise"
        ]

    def test_numbers_at_a_half_are_those_of_the_record(self, made):
        (study,) = explorer_module.studies("li2018", made).values()
        case = explorer_module.load_case(study, study.cases[0], "GTVp")
        for name, runs in study.runs.items():
            rows = runs[0].cases
            row = rows[(rows.case == case.name) & (rows.region == "all_slices")].iloc[0]
            found = case.found[name]
            assert [found.counts(0.5).dsc, found.hd95_mm(0.5), found.volume_ml(0.5)] == pytest.approx(
                [row.dsc, row.surfel_hd95_mm, row.predicted_ml], nan_ok=True
            )
        with pytest.raises(InputError, match="did you mean 'GTVp'"):
            explorer_module.load_case(study, case.name, "GTV")

    @pytest.mark.parametrize(
        ("change", "command"),
        [
            ({"profile": "quick"}, "npcrepro run li2018 --cohort {cohort} --profile quick --runs {runs}"),
            ({"seeds": (3,)}, "npcrepro run li2018 --cohort {cohort} --profile tiny --seeds 3 --runs {runs}"),
            ({"cohort": "phantom", "runs": "no"}, "npcrepro run li2018 --profile tiny --runs no"),
        ],
    )
    def test_without_runs_the_command_that_makes_them(self, made, change, command):
        with pytest.raises(InputError) as error:
            explorer_module.studies("li2018", replace(made, **change))
        assert "holds no finished runs of li2018" in str(error.value)
        assert str(error.value).endswith(command.format(cohort=made.cohort, runs=made.runs))
        assert "\n" not in str(error.value)

    def test_a_misspelt_paper_or_profile_is_named(self, made):
        with pytest.raises(InputError, match="did you mean 'luo2020'"):
            explorer_module.studies("luo202", made)
        with pytest.raises(InputError, match="did you mean 'quick'"):
            explorer_module.studies("li2018", replace(made, profile="quik"))

    def test_the_newest_of_two_runs_is_taken(self, made):
        (study,) = explorer_module.studies("li2018", made).values()
        old, new = (
            SimpleNamespace(config=run.config, provenance={"finished": finished})
            for run, finished in zip(find(made.runs, method="stepwise") * 2, ("2026-01-01", "2026-01-02"))
        )
        found = explorer_module._study(PAPER, [new, old], study.prepared.folder.parents[1])
        assert found.runs == {"stepwise": [new]}
        assert explorer_module._study(PAPER, [new, old], study.prepared.folder) is None

    def test_a_paper_that_the_cohort_can_tell(self, made, tmp_path):
        assert explorer_module.paper_for("chen2020", Settings()) == "chen2020"
        cases = [case_arrays(f"P{i}", i) for i in range(6)]
        write_tiny(tmp_path / "ct", cases, channels=("CT",))
        ct = Settings(cohort=str(tmp_path / "ct"), profile="smoke")
        assert explorer_module.paper_for("chen2020", ct) != "chen2020"
        assert explorer_module.paper_for("xue2020", ct) == "xue2020"
        write_tiny(tmp_path / "few", cases[:2])
        with pytest.raises(InputError, match="none of the papers can be told on"):
            explorer_module.paper_for("chen2020", Settings(cohort=str(tmp_path / "few"), profile="smoke"))


# Controls


@pytest.fixture
def explorer(made):
    return explorer_module.Explorer("li2018", made)


def cells_of(explorer):
    rows = re.findall(r"<tr>(.*?)</tr>", explorer._table.value)
    texts = [re.sub(r"<[^>]+>", " ", row.replace("</td><td", "</td>|<td")).split("|") for row in rows]
    return [[cell.strip() for cell in row] for row in texts]


class TestExplorer:
    def test_it_opens_on_the_largest_slice(self, explorer):
        view, case = explorer.view, explorer.case
        assert (view.plane, view.slice, view.mode) == ("axial", case.largest("axial"), "contours")
        assert view.methods == ("stepwise", "linear-scores")
        assert (view.first, view.second) == view.methods
        assert explorer._image.value == explorer_module.image_html(case, view, explorer.study)

    def test_moving_the_threshold_changes_the_numbers(self, explorer):
        name, case = explorer.view.first, explorer.case
        low, high = (case.found[name].counts(value) for value in (0.05, 0.95))
        assert low != high
        seen = []
        for value in (0.05, 0.95):
            explorer.threshold.value = value
            seen.append((explorer._table.value, explorer._image.value))
            assert f">{case.found[name].volume_ml(value):.2f}<" in explorer._table.value
        assert seen[0][0] != seen[1][0]
        assert seen[0][1] != seen[1][1]

    def test_distances_wait_until_the_controls_rest(self, explorer, monkeypatch):
        monkeypatch.setattr(explorer_module, "REST_S", 0.01)
        measured = []
        hd95 = Found.hd95_mm
        monkeypatch.setattr(Found, "hd95_mm", lambda self, value: measured.append(value) or hd95(self, value))

        async def move():
            explorer.threshold.value = 0.21
            explorer.threshold.value = 0.22
            assert measured == []
            assert explorer_module.WAITING in explorer._table.value
            await asyncio.sleep(0.2)

        asyncio.run(move())
        assert set(measured) == {0.22}
        assert explorer_module.WAITING not in explorer._table.value

    def test_a_plane_has_its_own_slices(self, explorer):
        explorer.plane.value = "sagittal"
        assert (explorer.slice.min, explorer.slice.max) == (1, 16)
        assert explorer.slice.value - 1 == explorer.view.slice == explorer.case.largest("sagittal")
        explorer.slice.value = 16
        explorer.plane.value = "axial"
        assert explorer.slice.max == 4

    def test_worst_slice_is_a_button(self, explorer, monkeypatch):
        monkeypatch.setattr(explorer_module, "worst_slice", lambda case, view: 3)
        explorer.worst.click()
        assert (explorer.slice.value, explorer.view.slice) == (4, 3)

    def test_another_case_has_its_own_window_and_masks(self, explorer):
        first = explorer.case
        explorer.case_name.value = explorer.study.cases[1]
        assert explorer.case.name == explorer.study.cases[1] != first.name
        level, width = explorer.case.limits("CET1")
        assert (explorer.level.value, explorer.width.value) == pytest.approx((level, width))
        explorer.case_name.value = first.name
        assert explorer.case is first  # kept in memory

    def test_every_mode_and_tick_redraws(self, explorer):
        seen = [explorer._image.value]
        for mode in ("errors", "side by side"):
            explorer.mode.value = mode
            seen.append(explorer._image.value)
        assert ("left: Stepwise" in explorer._table.value, len(set(seen))) == (True, 3)
        explorer.mode.value = "errors"
        assert "missed (FN)" in explorer._table.value
        explorer.mode.value = "contours"
        for box in explorer.methods.values():
            box.value = False
        assert [row[0] for row in cells_of(explorer)[1:]] == ["Reference"]

    def test_controls_are_named_and_explained(self, explorer):
        controls = [explorer.cohort, explorer.case_name, explorer.structure, explorer.series, explorer.first,
                    explorer.second, explorer.slice, explorer.worst, explorer.threshold, explorer.opacity,
                    explorer.level, explorer.width]  # fmt: skip
        assert all(control.description and control.tooltip for control in controls)
        assert all(button.description and len(button.tooltips) == 3 for button in (explorer.mode, explorer.plane))

    def test_a_cohort_that_must_not_be_shown_is_not(self, made, explorer, monkeypatch):
        shown = []
        monkeypatch.setattr("IPython.display.display", shown.append)
        explorer._ipython_display_()
        assert shown == [explorer.widget]
        study = replace(explorer.study, prepared=replace(explorer.study.prepared, publishable=False, licence=""))
        monkeypatch.setattr(explorer_module, "studies", lambda key, settings: {"tiny": study, "other": study})
        closed = explorer_module.Explorer("li2018", made)
        closed._ipython_display_()
        assert "may not be published" in shown[-1].data
        assert closed.cohort.options == ("tiny",)
        assert explorer_module.Explorer("li2018", replace(made, private=True)).cohort.options == ("tiny", "other")

    def test_still_shows_the_three_ways(self, explorer):
        figure = explorer_module.still(explorer.case, explorer.view, explorer.study)
        assert [axis.get_title() for axis in figure.axes] == [
            "contours",
            "errors of Stepwise, ReLU scores",
            f"Stepwise, ReLU scores   |   {explorer.study.titles()['linear-scores']}",
        ]
        matplotlib.pyplot.close(figure)

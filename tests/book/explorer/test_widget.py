"""Finding runs to explore, and the controls without a notebook around them."""

import asyncio
import re
from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import pytest
from core_cases import case_arrays, tiny_paper, write_tiny

from npcrepro.base.errors import InputError
from npcrepro.book.explorer import picture, studies, widget
from npcrepro.book.explorer.studies import Found
from npcrepro.book.figures import style
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs.queue import run_paper
from npcrepro.runs.records import find

pytest_plugins = ["core_fixtures"]
matplotlib.use("Agg")
PAPER = replace(tiny_paper(updates=3), split={"kind": "k-fold", "folds": 2, "validation": 1})


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


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda key, of=(): PAPER if key == "li2018" else load(key, of))


class TestStudies:
    def test_all_that_is_there(self, made):
        (study,) = studies.studies("li2018", made).values()
        assert (study.methods, study.structures) == (("stepwise", "linear-scores"), ("GTVp",))
        assert study.cases == find(made.runs)[0].config["fold"]["test"]
        assert study.titles()["stepwise"] == "Stepwise, ReLU scores"
        assert study.colours()["stepwise"] == style.METHODS[0]
        assert studies.studies("li2018", replace(made, methods=("stepwise",)))["tiny"].methods == ("stepwise",)

    def test_numbers_at_a_half_are_those_of_the_record(self, made):
        (study,) = studies.studies("li2018", made).values()
        case = studies.load_case(study, study.cases[0], "GTVp")
        for name, runs in study.runs.items():
            rows = runs[0].cases
            row = rows[(rows.case == case.name) & (rows.region == "all_slices")].iloc[0]
            found = case.found[name]
            assert [found.counts(0.5).dsc, found.hd95_mm(0.5), found.volume_ml(0.5)] == pytest.approx(
                [row.dsc, row.surfel_hd95_mm, row.predicted_ml], nan_ok=True
            )
        with pytest.raises(InputError, match="did you mean 'GTVp'"):
            studies.load_case(study, case.name, "GTV")

    @pytest.mark.parametrize(
        ("change", "command"),
        [
            ({"seeds": (3,)}, "npcrepro run li2018 --cohort {cohort} --profile tiny --seeds 3 --runs {runs}"),
            ({"cohort": "phantom", "runs": "no"}, "npcrepro run li2018 --profile tiny --runs no"),
        ],
    )
    def test_without_runs_the_command_that_makes_them(self, made, change, command):
        with pytest.raises(InputError, match="holds no finished runs of li2018") as error:
            studies.studies("li2018", replace(made, **change))
        assert str(error.value).endswith(command.format(cohort=made.cohort, runs=made.runs))

    def test_a_misspelt_paper_or_profile_is_named(self, made):
        with pytest.raises(InputError, match="did you mean 'luo2020'"):
            studies.studies("luo202", made)
        with pytest.raises(InputError, match="did you mean 'quick'"):
            studies.studies("li2018", replace(made, profile="quik"))

    def test_the_newest_of_two_runs_is_taken(self, made):
        (study,) = studies.studies("li2018", made).values()
        old, new = (
            SimpleNamespace(config=run.config, provenance={"finished": finished})
            for run, finished in zip(find(made.runs, method="stepwise") * 2, ("2026-01-01", "2026-01-02"))
        )
        found = studies._study(PAPER, [new, old], study.prepared.folder.parents[1])
        assert found.runs == {"stepwise": [new]}
        assert studies._study(PAPER, [new, old], study.prepared.folder) is None

    def test_a_paper_that_the_cohort_can_tell(self, tmp_path):
        assert studies.paper_for("chen2020", Settings()) == "chen2020"
        cases = [case_arrays(f"P{i}", i) for i in range(6)]
        write_tiny(tmp_path / "ct", cases, channels=("CT",))
        ct = Settings(cohort=str(tmp_path / "ct"), profile="smoke")
        assert studies.paper_for("chen2020", ct) != "chen2020"
        assert studies.paper_for("xue2020", ct) == "xue2020"
        write_tiny(tmp_path / "few", cases[:2])
        with pytest.raises(InputError, match="none of the papers can be told on"):
            studies.paper_for("chen2020", Settings(cohort=str(tmp_path / "few"), profile="smoke"))


@pytest.fixture
def explorer(made):
    return widget.Explorer("li2018", made)


class TestExplorer:
    def test_it_opens_on_the_largest_slice(self, explorer):
        view, case = explorer.view, explorer.case
        assert (view.plane, view.slice, view.mode) == ("axial", case.largest("axial"), "contours")
        assert view.methods == (view.first, view.second) == ("stepwise", "linear-scores")
        assert explorer._image.value == picture.image_html(case, view, explorer.study)

    def test_moving_the_threshold_changes_the_picture_and_the_numbers(self, explorer):
        found, seen = explorer.case.found[explorer.view.first], []
        for value in (0.05, 0.95):
            explorer.threshold.value = value
            seen.append((explorer._table.value, explorer._image.value))
            assert f">{found.volume_ml(value):.2f}<" in explorer._table.value
        assert seen[0][0] != seen[1][0]
        assert seen[0][1] != seen[1][1]

    def test_distances_wait_until_the_controls_rest(self, explorer, monkeypatch):
        monkeypatch.setattr(widget, "REST_S", 0.01)
        measured = []
        hd95 = Found.hd95_mm
        monkeypatch.setattr(Found, "hd95_mm", lambda self, value: measured.append(value) or hd95(self, value))

        async def move():
            explorer.threshold.value = 0.21
            explorer.threshold.value = 0.22
            assert measured == []
            assert picture.WAITING in explorer._table.value
            await explorer_rests()

        async def explorer_rests():
            while picture.WAITING in explorer._table.value:
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(move(), 60))
        assert set(measured) == {0.22}

    def test_a_plane_has_its_own_slices(self, explorer):
        explorer.plane.value = "sagittal"
        assert (explorer.slice.min, explorer.slice.max) == (1, 16)
        assert explorer.slice.value - 1 == explorer.view.slice == explorer.case.largest("sagittal")
        explorer.slice.value = 16
        explorer.plane.value = "axial"
        assert explorer.slice.max == 4

    def test_worst_slice_is_a_button(self, explorer, monkeypatch):
        monkeypatch.setattr(widget, "worst_slice", lambda case, view: 3)
        explorer.worst.click()
        assert (explorer.slice.value, explorer.view.slice) == (4, 3)

    def test_another_case_has_its_own_window_and_the_first_is_kept(self, explorer):
        first = explorer.case
        explorer.case_name.value = explorer.study.cases[1]
        assert explorer.case.name == explorer.study.cases[1] != first.name
        assert (explorer.level.value, explorer.width.value) == pytest.approx(explorer.case.limits("CET1"))
        explorer.case_name.value = first.name
        assert explorer.case is first

    def test_every_mode_has_its_picture_words_and_table(self, explorer):
        def words() -> str:
            return re.search(r'<img alt="([^"]*)"', explorer._image.value)[1]

        place = f"{explorer.case.name}, CET1, axial slice {explorer.slice.value}: reference and"
        assert words() == f"{place} contours of Stepwise, ReLU scores, Stepwise, linear scores"
        explorer.mode.value = "errors"
        assert words() == f"{place} errors of Stepwise, ReLU scores"
        assert "missed (FN)" in explorer._table.value
        explorer.mode.value = "side by side"
        assert words() == f"{place} Stepwise, ReLU scores on the left, Stepwise, linear scores on the right"
        rows = [re.sub("<[^>]+>", "", row).strip() for row in re.findall("<th>.*?</th>", explorer._table.value)]
        assert rows[5:] == ["left: Stepwise, ReLU scores", "right: Stepwise, linear scores", "Reference"]
        explorer.mode.value = "contours"
        for box in explorer.methods.values():
            box.value = False
        assert explorer._table.value.count("<tr") == 2  # the head, and the reference

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
        monkeypatch.setattr(widget, "studies", lambda key, settings: {"tiny": study, "other": study})
        closed = widget.Explorer("li2018", made)
        closed._ipython_display_()
        assert "may not be published" in shown[-1].data
        assert closed.cohort.options == ("tiny",)
        assert widget.Explorer("li2018", replace(made, private=True)).cohort.options == ("tiny", "other")

    def test_still_shows_the_three_ways(self, explorer):
        figure = picture.still(explorer.case, explorer.view, explorer.study)
        assert [axis.get_title() for axis in figure.axes] == [
            "contours",
            "errors of Stepwise, ReLU scores",
            "Stepwise, ReLU scores   |   Stepwise, linear scores",
        ]
        matplotlib.pyplot.close(figure)

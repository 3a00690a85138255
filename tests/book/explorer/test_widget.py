"""Finding runs to explore, and the controls without a notebook around them."""

import asyncio
from dataclasses import replace

import matplotlib
import pytest
from core_cases import case_arrays, tiny_paper, write_tiny
from npcrepro.book.explorer.studies import Found

from npcrepro.base.errors import InputError
from npcrepro.book.build.notebooks import WIDGET_TYPE
from npcrepro.book.explorer import picture, studies, widget
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

    def test_without_runs_the_command_that_makes_them(self, made):
        with pytest.raises(InputError, match="holds no finished runs of li2018") as error:
            studies.studies("li2018", replace(made, seeds=(3,)))
        command = f"npcrepro run li2018 --cohort {made.cohort} --profile tiny --seeds 3 --runs {made.runs}"
        assert str(error.value).endswith(command)


@pytest.fixture
def explorer(made):
    return widget.Explorer("li2018", made)


class TestExplorer:
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

    def test_a_page_has_a_picture_of_it(self, explorer):
        explorer.threshold.value = 0.21
        still = explorer.still()
        assert "<span>Threshold <b>0.21</b></span>" in still
        assert f"<span>Case <b>{explorer.case_name.value}</b></span>" in still
        assert '<img alt="' in still
        assert picture.WAITING not in still

    def test_a_cohort_that_must_not_be_shown_is_not(self, made, explorer, monkeypatch):
        shown = []
        monkeypatch.setattr("IPython.display.display", lambda content, raw=False: shown.append(content))
        explorer._ipython_display_()
        assert shown[0][WIDGET_TYPE]["model_id"] == explorer.widget.model_id
        study = replace(explorer.study, prepared=replace(explorer.study.prepared, publishable=False, licence=""))
        monkeypatch.setattr(widget, "studies", lambda key, settings: {"tiny": study, "other": study})
        closed = widget.Explorer("li2018", made)
        closed._ipython_display_()
        assert "may not be published" in shown[-1].data
        assert closed.cohort.options == ("tiny",)
        assert widget.Explorer("li2018", replace(made, private=True)).cohort.options == ("tiny", "other")

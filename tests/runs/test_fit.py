"""The book on a cohort of the user: chapters that can be told, and those that say why not."""

import json

import numpy as np
import pytest

from npcrepro.base.errors import InputError
from npcrepro.book.build import book
from npcrepro.cohorts.layout import CaseArrays, write_cohort
from npcrepro.runs import fit

NOTEBOOKS = ["cohort", "li2018", "luo2020", "guo2021", "chen2020", "xue2020", "audit"]


def cohort(folder, channels, structure="GTVp", patients=6):
    label = np.zeros((2, 8, 8), np.uint8)
    label[:, 2:5, 2:5] = 1
    image = np.zeros((len(channels), 2, 8, 8), np.int16)
    cases = [CaseArrays(f"P{i}", f"P{i}", image, label, (3.0, 1.0, 1.0)) for i in range(patients)]
    write_cohort(folder, cases, name="mine", channels=channels, structures={structure: 1})
    return folder


def test_chapters_need_the_channels_of_their_methods(tmp_path):
    reasons = fit.untold(NOTEBOOKS, cohort(tmp_path / "c", ["T1", "CT", "PET"], "GTV"), "smoke")
    assert set(reasons) == {"li2018", "guo2021", "chen2020"}
    assert reasons["li2018"].startswith("cohort mine has the channels T1, CT, PET, the method needs CET1")


def test_one_channel_stands_in_for_another(tmp_path):
    reasons = fit.untold(NOTEBOOKS, cohort(tmp_path / "c", ["T2"]), "smoke")
    assert set(reasons) == {"chen2020"}


def test_all_methods_of_the_profile_are_asked(tmp_path):
    """The proposed method of Chen takes three series; a profile may also run those with fewer."""
    assert fit.untold(["chen2020"], cohort(tmp_path / "c", ["T1", "T2", "CET1"]), "quick") == {}
    assert fit.untold(["chen2020"], cohort(tmp_path / "d", ["T1", "T2"]), "quick")


def test_too_few_patients_for_the_division(tmp_path):
    reasons = fit.untold(["xue2020"], cohort(tmp_path / "c", ["CT"], patients=3), "smoke")
    assert "3 patients" in reasons["xue2020"]


def test_explorer_needs_one_paper(tmp_path):
    assert set(fit.untold(["explore", "chen2020"], cohort(tmp_path / "c", ["CT"]), "smoke")) == {"chen2020"}
    reasons = fit.untold(["explore"], cohort(tmp_path / "d", ["PET", "US"]), "smoke")
    assert reasons["explore"].startswith("cohort mine has the channels PET, US")


def test_folder_that_is_no_cohort_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"dataset\.json"):
        fit.untold(["xue2020"], tmp_path, "smoke")


def test_page_keeps_the_title_and_says_why(repository):
    notebook = repository / "notebooks" / "li2018.ipynb"
    told = json.loads(book._page_instead(notebook, "it has no CET1"))
    title, said = (cell["source"] for cell in told["cells"])
    assert title == "# Li et al. 2018: one network, three training steps"
    assert "cannot run on this cohort: it has no CET1." in said
    assert told["nbformat"] == json.loads(notebook.read_text("utf-8"))["nbformat"]


def test_build_executes_the_other_chapters_with_the_cohort(tmp_path, repository, monkeypatch):
    from npcrepro.book.build import book
    from npcrepro.book.build.notebooks import Done

    asked = {}

    def execute(root, names, parameters, output):
        asked.update(names=names, **parameters)
        (output / "executed").mkdir(parents=True)
        for name in names:
            (output / "executed" / f"{name}.ipynb").write_text("{}")
        return Done({}, 0, len(names))

    def stage(root, stage, executed, vendored):
        asked["staged"] = executed

    monkeypatch.chdir(repository)
    monkeypatch.setattr(book, "execute", execute)
    monkeypatch.setattr(book, "_stage", stage)
    monkeypatch.setattr(book, "_vendored", lambda root, output: {})
    monkeypatch.setattr(book, "_html", lambda stage, output: output / "html" / "index.html")
    path = cohort(tmp_path / "c", ["CT", "PET"])
    book.build("smoke", tmp_path / "_build", tmp_path / "runs", cohort=str(path), private=True)
    assert asked["cohort"] == str(path)
    assert asked["private"] is True
    assert {"luo2020", "xue2020", "cohort"} <= set(asked["names"])
    assert "li2018" not in asked["names"]
    assert "cannot run on this cohort" in asked["staged"]["li2018"].read_text("utf-8")
    assert asked["staged"]["xue2020"].name == "xue2020.ipynb"

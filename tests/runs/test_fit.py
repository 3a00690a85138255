"""The book on a cohort of the user: chapters that can be told, and those that say why not."""

import json

import pytest
from core_cases import case_arrays, write_tiny

from npcrepro.base.errors import InputError
from npcrepro.book.build import book, notebooks
from npcrepro.runs import fit

NOTEBOOKS = ["cohort", "li2018", "li2018-appendix", "luo2020", "guo2021", "chen2020", "xue2020", "audit"]


def cohort(folder, channels, patients=6):
    cases = [case_arrays(f"P{i}", channels=len(channels)) for i in range(patients)]
    return write_tiny(folder, cases, name="mine", channels=channels).root


@pytest.mark.parametrize(
    ("names", "channels", "profile", "expected"),
    [
        (NOTEBOOKS, ["T1", "CT", "PET"], "smoke", {"li2018", "li2018-appendix", "guo2021", "chen2020"}),
        # One channel stands in for another, but not for three.
        (NOTEBOOKS, ["T2"], "smoke", {"chen2020"}),
        # The proposed method of Chen takes three sequences; a profile may also run those with fewer.
        (["chen2020"], ["T1", "T2", "CET1"], "quick", set()),
        (["chen2020"], ["T1", "T2"], "quick", {"chen2020"}),
    ],
)
def test_a_chapter_needs_the_channels_of_its_methods(tmp_path, names, channels, profile, expected):
    assert set(fit.untold(names, cohort(tmp_path / "c", channels), profile)) == expected


def test_the_explorer_needs_some_paper_and_the_reason_is_said(tmp_path):
    assert set(fit.untold(["explore"], cohort(tmp_path / "c", ["CT"]), "smoke")) == set()
    reasons = fit.untold(["explore"], cohort(tmp_path / "d", ["PET", "US"]), "smoke")
    assert reasons["explore"].startswith("cohort mine has the channels PET, US, the method needs")
    told = fit.untold(["li2018", "guo2021", "explore"], cohort(tmp_path / "f", ["CET1"]), "smoke", ("guo2021",))
    assert told == {"li2018": "the runs of this book are those of guo2021"}
    assert "3 patients" in fit.untold(["xue2020"], cohort(tmp_path / "e", ["CT"], patients=3), "smoke")["xue2020"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"dataset\.json"):
        fit.untold(["xue2020"], tmp_path / "none", "smoke")


def test_build_executes_the_other_chapters_with_the_cohort(tmp_path, repository, monkeypatch):
    asked = {}

    def execute(root, names, parameters, output):
        asked.update(names=names, **parameters)
        (output / "executed").mkdir(parents=True)
        for name in names:
            (output / "executed" / f"{name}.ipynb").write_text("{}")
        return notebooks.Done({}, 0, len(names))

    def stage(root, stage, executed, vendored):
        asked["staged"] = executed

    monkeypatch.chdir(repository)
    monkeypatch.setattr(book, "execute", execute)
    monkeypatch.setattr(book, "_stage", stage)
    monkeypatch.setattr(book, "_vendored", lambda root, output: {})
    monkeypatch.setattr(book, "_html", lambda stage, output: output / "html" / "index.html")
    path = cohort(tmp_path / "c", ["CT", "PET"])
    book.build("smoke", tmp_path / "_build", tmp_path / "runs", cohort=str(path), private=True)
    assert (asked["cohort"], asked["private"]) == (str(path), True)
    assert {"luo2020", "xue2020", "cohort"} <= set(asked["names"])
    assert "li2018" not in asked["names"]
    title, said = json.loads(asked["staged"]["li2018"].read_text("utf-8"))["cells"]
    assert title["source"] == "# Li et al. 2018: one network, three training steps"
    assert "cannot run on this cohort" in said["source"]
    assert asked["staged"]["xue2020"].name == "xue2020.ipynb"

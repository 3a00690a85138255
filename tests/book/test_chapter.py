"""What the chapters say of their own runs."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from core_cases import case_arrays, tiny_paper, write_tiny

from npcrepro.book.chapter import Chapter
from npcrepro.book.figures import slices
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings

pytest_plugins = ["core_fixtures"]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A chapter of five tiny patients, three of them tested in the first fold."""
    root = tmp_path_factory.mktemp("page")
    write_tiny(root / "c", [case_arrays(f"P{i}", i) for i in range(5)])
    paper = replace(tiny_paper(updates=3), split={"kind": "k-fold", "folds": 2, "validation": 1})
    settings = Settings(cohort=str(root / "c"), profile="tiny", device="cpu", runs=str(root / "runs"), private=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda key, modalities=(): paper)
        made = Chapter("li2018", settings)
    assert len(made.found[0].config["fold"]["test"]) == 3
    return made


@pytest.mark.parametrize(
    ("tested", "words"),
    [(1, ["only patient"]), (2, ["best", "worst"]), (3, ["best", "middle", "worst"])],
)
def test_examples_name_what_they_show(page, monkeypatch, tested, words):
    drawn = {}
    ranked = page.first_seed().sort_values("dsc", ascending=False).head(tested).reset_index(drop=True)
    monkeypatch.setattr(page, "ranked", lambda region, structure: ("stepwise", ranked))
    monkeypatch.setattr(slices, "contours", lambda rows, paper: drawn.update(rows))
    assert "in all slices" in page.examples().data
    assert list(drawn) == [f"{word}: {patient}" for word, patient in zip(words, ranked.patient, strict=True)]


def test_a_structure_without_any_dsc_can_be_ranked_and_browsed(page, monkeypatch):
    """Neither a reference nor a prediction shows it: every slice is there to be looked at."""
    rows = page.first_seed()
    monkeypatch.setattr(page, "first_seed", lambda *where: rows.assign(dsc=np.nan))
    leader, ranked = page.ranked()
    assert (leader, ranked.patient.tolist()) == ("stepwise", sorted(rows.patient))
    empty = np.zeros((3, 16, 16), bool)
    monkeypatch.setattr(page, "masks", lambda case: {"GTVp": empty})
    monkeypatch.setattr(page, "image", lambda case: np.zeros(empty.shape))
    monkeypatch.setattr(page, "first_fold", dict)
    seen = []
    monkeypatch.setattr("npcrepro.book.html.slice_browser.show", lambda *given: seen.append(given))
    assert "in the middle of 3 patients by the DSC of Stepwise" in page.browse().data
    assert len(seen) == 1


def test_runs_of_a_page_count_with_those_they_were_built_on(page, monkeypatch):
    assert "seed 0," in page.made
    assert page.time().data.startswith("1 run (profile tiny")
    used = SimpleNamespace(folder="used", used={}, provenance={"seconds": {"all": 5.0}})
    made = [
        SimpleNamespace(folder=name, used={"unet": [used]}, provenance=page.found[0].provenance | used.provenance)
        for name in "ab"
    ]
    monkeypatch.setattr(page, "found", made)
    told = page.time().data
    assert told.startswith("3 runs, 1 of which others build on (")
    assert told.endswith("15 s of training and prediction in all.")


def test_samples_show_the_reference_beside_each_method(page, monkeypatch):
    drawn = {}
    monkeypatch.setattr(slices, "sheet", lambda rows, structures: drawn.update(rows))
    assert "1 network on 3 slices" in page.samples(3).data
    assert len(drawn) == 3
    assert all(list(row) == ["Reference", "Stepwise, ReLU scores"] for row in drawn.values())
    image, masks = next(iter(drawn.values()))["Reference"]
    assert masks["GTVp"].shape == image.shape == (16, 16)
    assert {title.split("\n")[0] for title in drawn} <= set(page.found[0].config["fold"]["test"])


def test_slices_that_show_the_structure_have_a_dsc_each(page):
    slices = page.by_slice("stepwise")
    tested = page.found[0].config["fold"]["test"]
    shown = {f"{p} {z}" for p in tested for z in np.flatnonzero(page.masks(p)["GTVp"].any(axis=(1, 2)))}
    assert (set(slices.slice), set(slices.patient)) == (shown, set(tested))
    case, z = slices.slice[0].split()
    mine, truth = page.found[0].prediction(case)[0][int(z)] == 1, page.masks(case)["GTVp"][int(z)]
    assert slices.dsc[0] == pytest.approx(2 * (mine & truth).sum() / (mine.sum() + truth.sum()))
    assert page.by_slice("unet").empty


def test_the_results_of_a_page_are_those_of_its_runs(page):
    shown = page.results.mean_and_sd({"dsc": "DSC"})
    assert shown.caption == f"GTVp, mean ± sd (3 patients, {page.made})"
    assert shown.data.method.tolist() == ["Stepwise, ReLU scores"]
    assert page.results.history.method.unique().tolist() == ["stepwise"]

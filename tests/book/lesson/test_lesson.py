"""What all lessons have in common."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from npcrepro.book import tables
from npcrepro.book.lesson.lesson import AGREE, BOX, DISAGREE, ONE_SEED, SHARED_SEEDS, TEST_DISAGREES, Lesson
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings

TOLD = [key for key in registry.KEYS if "lesson" in registry.reported(key)]


@pytest.fixture
def lesson(tmp_path):
    def of(key):
        paper = registry.load(key).at("smoke")
        settings = Settings(profile="smoke", runs=str(tmp_path))
        about = {"paper": paper, "reported": registry.reported(key), "size": paper.profile("smoke")}
        return Lesson(SimpleNamespace(settings=settings, **about))

    return of


@pytest.mark.parametrize("key", TOLD)
def test_the_box_has_the_paper_beside_the_record_and_the_sample_cohort_trains_the_proposed_method(lesson, key):
    told = lesson(key)
    page = told.box().data
    assert page.count("<tr>") == 1 + len(BOX)
    assert f"cohort {told.published.published.runs[0]['cohort']}" in page
    assert '<a href="../book/words.html">' in page
    data, method, stage = told.parts()
    assert len(data.samples(data.cohort.case_names))
    assert stage == method.stages[-1]


def test_ours_stands_beside_the_reported_number(lesson):
    page = lesson("li2018")
    table = page.beside({"dsc": {"title": "Dice", "mean": 0.89, "sd": 0.05}}, ["stepwise"]).data
    assert table.to_dict("records") == [
        {"metric": "Dice", "reported": "0.89 ± 0.05", "Stepwise, ReLU scores": page.score("stepwise")}
    ]


def test_only_an_interval_without_zero_is_told(lesson):
    page = lesson("li2018")
    pairs = ("linear-scores", "stepwise"), ("linear-scores", "linear-one-shot")
    found = [page.published.difference(*pair).difference for pair in pairs]
    assert found[0].low > 0 > found[1].low
    told = page.differences_text(*pairs)
    assert f"*Stepwise, linear scores minus Stepwise, ReLU scores* {found[0].mean:+.2f}" in told
    assert "One-shot" not in told
    assert page.differences_text(pairs[1]).startswith("The interval holds 0")


def test_clear_differences_are_told_apart_by_the_signs_of_their_seeds(lesson):
    page = lesson("luo2020")
    shared, decided = ("two-stage", "no-pooling"), ("two-stage", "unet")
    told = page.differences_text(decided, shared, ("unet-tuned", "unet"))
    agree, disagree, once = (told.index(words) for words in (AGREE, DISAGREE, ONE_SEED))
    assert agree < told.index("*Proposed minus U-Net*") < disagree
    assert disagree < told.index(page.published.seed_by_seed(*shared)) < once < told.index("*U-Net, tuned minus U-Net*")
    assert told.endswith(SHARED_SEEDS)
    assert SHARED_SEEDS not in page.differences_text(decided)
    assert (DISAGREE in page.differences_text(decided), AGREE in page.differences_text(shared)) == (False, False)


def test_an_interval_that_the_test_does_not_support_is_listed_apart(lesson, monkeypatch):
    page, pair = lesson("luo2020"), ("two-stage", "unet")
    assert page.differences_text(pair).startswith(AGREE)
    monkeypatch.setattr(tables, "ALPHA", 0.0)
    assert page.differences_text(pair).startswith(TEST_DISAGREES)


def test_a_check_on_synthetic_images_is_folded_and_ones_own_results_are_not(lesson):
    page = lesson("li2018")
    table = pd.DataFrame({"method": ["Stepwise"]}).style
    folded = page.folded(table, table).data
    assert folded.startswith("<details><summary>Check that it runs: a few updates on synthetic images</summary>")
    assert folded.count("Stepwise") == 2
    page.settings = replace(page.settings, cohort="mine")
    page.chapter.prepared = SimpleNamespace(name="<mine>")
    assert page.folded(table).data.startswith("<details open><summary>Scores on &lt;mine&gt;</summary>")


def test_the_loss_of_a_short_training_is_averaged_at_both_ends():
    told = Lesson.loop_text(
        [
            torch.tensor(float(value), requires_grad=True)
            for value in (1.0, 0.8, 0.9, 0.7, 0.6, 5, 0.5, 0.3, 0.4, 0.2, 0.1)
        ]
    )
    assert "first five updates is 0.800, that of the last five 0.300 (11 updates)" in told

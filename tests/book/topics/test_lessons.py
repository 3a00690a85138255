"""The page on lessons: its contrasts are those of records that are published."""

import numpy as np
import pytest

from npcrepro.book.topics import lessons

CONTRASTS = [*lessons.PROPOSED, *lessons.MOVED, *lessons.STAYED]


@pytest.fixture(scope="module")
def effects():
    return lessons.effects(CONTRASTS)


def test_a_row_for_each_contrast(effects):
    assert list(effects.what) == [one.what for one in CONTRASTS]
    assert (effects.low <= effects["mean"]).all()
    assert (effects["mean"] <= effects.high).all()
    assert len({(one.paper, one.what) for one in CONTRASTS}) == len(CONTRASTS)


def test_the_numbers_are_those_of_the_chapter_where_both_methods_have_the_same_seeds(effects):
    for contrast, row in zip(CONTRASTS, effects.itertuples(), strict=True):
        runs = lessons.results(contrast.paper, record=contrast.record)
        seeds = runs.patients.groupby("method").seed.unique().map(set)
        assert len(row.seeds) == len(seeds[contrast.first] & seeds[contrast.second])
        assert np.mean(row.seeds) == pytest.approx(row.mean)
        if seeds[contrast.first] == seeds[contrast.second]:
            assert row.mean == pytest.approx(runs.difference(contrast.first, contrast.second).difference.mean)


def test_choices_that_moved_the_result_are_turned_to_a_gain(effects):
    moved = effects.iloc[len(lessons.PROPOSED) : -len(lessons.STAYED)]
    assert list(moved.what) == [one.what for one in lessons.MOVED]
    assert (moved["mean"] > 0).all()

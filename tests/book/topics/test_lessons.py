"""The page on lessons: its contrasts are those of records that are published."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection

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


def test_each_group_is_a_panel_and_each_seed_a_circle(effects):
    figure = lessons.draw({"ideas": effects[:2], "choices": effects[2:5]})
    assert [axis.get_title("left") for axis in figure.axes] == ["ideas", "choices"]
    assert [len(axis.get_yticks()) for axis in figure.axes] == [2, 3]
    for axis, rows in zip(figure.axes, (effects[:2], effects[2:5]), strict=True):
        (dots,) = (one for one in axis.collections if isinstance(one, PathCollection))
        assert dots.get_offsets()[:, 0].tolist() == [seed for seeds in rows.seeds for seed in seeds]
    seeds = len(effects.seeds[0])
    assert figure.axes[0].get_yticklabels()[0].get_text() == (
        f"{effects.what[0]} ({effects.paper[0]}, {seeds} seed{'s' * (seeds > 1)})"
    )

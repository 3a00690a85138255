"""The page on lessons: its contrasts are those of records that are published."""

from functools import cache

import numpy as np
import pytest

from npcrepro.book.topics import lessons

CONTRASTS = [*lessons.PROPOSED, *lessons.MOVED, *lessons.STAYED]


@pytest.fixture(scope="module")
def effects():
    return lessons.effects(CONTRASTS)


def test_a_row_for_each_contrast_and_choices_that_moved_the_result_are_turned_to_a_gain(effects):
    assert list(effects.what) == [one.what for one in CONTRASTS]
    assert (effects.low <= effects["mean"]).all()
    assert (effects["mean"] <= effects.high).all()
    assert len({(one.paper, one.what) for one in CONTRASTS}) == len(CONTRASTS)
    moved = effects.iloc[len(lessons.PROPOSED) : -len(lessons.STAYED)]
    assert list(moved.what) == [one.what for one in lessons.MOVED]
    assert (moved["mean"] > 0).all()


def test_the_numbers_are_those_of_the_chapter_where_both_methods_have_the_same_seeds(effects):
    results = cache(lambda paper, record: lessons.results(paper, record=record))
    for contrast, row in zip(CONTRASTS, effects.itertuples(), strict=True):
        runs = results(contrast.paper, contrast.record)
        seeds = runs.patients.groupby("method").seed.unique().map(set)
        assert len(row.seeds) == len(seeds[contrast.first] & seeds[contrast.second])
        assert np.mean(row.seeds) == pytest.approx(row.mean)
        if seeds[contrast.first] == seeds[contrast.second]:
            assert row.mean == pytest.approx(runs.difference(contrast.first, contrast.second).difference.mean)


@pytest.fixture(scope="module")
def moved():
    return lessons.by_kind()


def test_the_picture_has_every_contrast_once_and_the_split_by_slice(moved, effects):
    assert list(dict.fromkeys(moved.kind)) == list(lessons.KINDS)
    contrasts = moved[~moved.kind.isin([lessons.SPLIT, lessons.SEED])]
    assert sorted(contrasts["mean"]) == sorted(effects["mean"])
    assert (moved[moved.kind == lessons.IDEA].shape[0]) == len(lessons.PROPOSED)
    split = moved[moved.kind == lessons.SPLIT].iloc[0]
    assert split.low < split["mean"] < split.high


def test_chance_of_a_seed_is_the_best_minus_the_worst(moved):
    mine = moved[(moved.kind == lessons.SEED) & (moved.paper == "Xue 2020") & (moved.what == "U-Net")]
    means = lessons.results("xue2020").means_by_seed("unet")
    assert mine["mean"].tolist() == pytest.approx([max(means) - min(means)])
    assert len(means) >= 3


@pytest.mark.parametrize("narrow", [False, True])
def test_a_dot_for_each_row_within_the_picture(moved, narrow):
    axis = lessons.picture(moved, narrow).axes[0]
    assert sum(len(dots.get_offsets()) for dots in axis.collections if hasattr(dots, "get_sizes")) == len(moved)
    bottom, top = axis.get_ylim()
    places = [y for dots in axis.collections if hasattr(dots, "get_sizes") for _, y in dots.get_offsets()]
    assert top < min(places) < max(places) < bottom
    words = lessons.alt_text(moved)
    assert f"Ideas of the papers: {len(lessons.PROPOSED)} comparisons" in words

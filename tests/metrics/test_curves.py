"""Metrics of scores: literals, definitions written out once more, scikit-learn, and properties."""

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npcrepro.metrics import curves
from npcrepro.metrics.curves import count_scores

# Few distinct values, so that ties are the rule.
voxels = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=60)


def arrays(pairs):
    """Probabilities and reference of the strategy above."""
    scores, reference = np.array(pairs, dtype=float).T
    return scores / 12, reference.astype(bool)


def random_case(seed, size=5000, digits=None, kind=np.float64):
    """Scores that know something of the reference."""
    rng = np.random.default_rng(seed)
    reference = rng.random(size) < 0.1
    scores = 1 / (1 + np.exp(3 - 2.5 * reference - rng.normal(size=size)))
    return (scores if digits is None else np.round(scores, digits)).astype(kind), reference


def same(first, second):
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in ("scores", "positives", "negatives"))


def test_metrics_of_a_literal():
    counts = count_scores(np.array([[0.9, 0.8], [0.8, 0.3]]), np.array([[1, 1], [0, 1]]))
    assert (counts.scores.tolist(), counts.positives.tolist()) == ([0.3, 0.8, 0.9], [1, 1, 1])
    assert counts.negatives.tolist() == [0, 1, 0]
    # Thresholds 0.9, 0.8, 0.3: precision 1, 2/3, 3/4 at recall 1/3, 2/3, 1.
    assert counts.average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    # Pairs with the one outside: 0.9 above, 0.8 equal, 0.3 below.
    assert counts.auc == pytest.approx(1.5 / 3)
    assert counts.soft_dice == pytest.approx(2 * 2.0 / (2.8 + 3))


@pytest.mark.parametrize(
    ("scores", "reference", "status", "undefined"),
    [
        ([], [], "no_voxels", {"average_precision", "auc", "soft_dice"}),
        ([0.0, 0.0], [0, 0], "ref_empty", {"average_precision", "auc", "soft_dice"}),
        ([0.2, 0.4], [0, 0], "ref_empty", {"average_precision", "auc"}),
        ([0.2, 0.4], [1, 1], "ref_full", {"auc"}),
        ([0.2, 0.4], [1, 0], "ok", set()),
    ],
)
@pytest.mark.parametrize("levels", [None, 101])
def test_nothing_to_measure_is_no_number(scores, reference, status, undefined, levels):
    counts = count_scores(np.array(scores), np.array(reference), levels)
    assert counts.status == status
    names = ("average_precision", "auc", "soft_dice")
    assert {name for name in names if isnan(getattr(counts, name))} == undefined


@pytest.mark.parametrize(("digits", "kind"), [(None, np.float64), (1, np.float64), (2, np.float32)])
def test_agrees_with_scikit_learn(digits, kind):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, reference = random_case(0, digits=digits, kind=kind)
    counts = count_scores(scores, reference)
    assert counts.average_precision == pytest.approx(metrics.average_precision_score(reference, scores), abs=1e-12)
    assert counts.auc == pytest.approx(metrics.roc_auc_score(reference, scores), abs=1e-12)


def test_bytes_are_counted_exactly_and_levels_bound_the_distinct_scores(monkeypatch):
    monkeypatch.setattr(curves, "CHUNK", 999)
    scores, reference = random_case(10, kind=np.float32)
    codes = np.rint(scores * 255).astype(np.uint8)
    assert same(count_scores(codes, reference), count_scores(codes / 255, reference))
    exact, coarse, fine = (count_scores(scores, reference, levels) for levels in (None, 11, 65536))
    assert len(exact.scores) > 4000
    assert same(coarse, count_scores(np.rint(scores * 10.0).astype(float) / 10, reference))
    assert fine.average_precision == pytest.approx(exact.average_precision, abs=1e-3)
    assert (fine.auc, fine.soft_dice) == pytest.approx((exact.auc, exact.soft_dice), abs=1e-4)


@given(voxels, voxels)
def test_counts_of_two_images_add_up(first, second):
    joined = count_scores(*arrays(first + second))
    assert same(count_scores(*arrays(first)) + count_scores(*arrays(second)), joined)


def test_what_cannot_be_counted_is_an_error():
    with pytest.raises(ValueError, match=r"scores have the shape \(2,\), reference \(3,\)"):
        count_scores(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="1 of 2 scores are not a number"):
        count_scores(np.array([nan, 1]), np.ones(2))
    with pytest.raises(ValueError, match="levels cannot be used"):
        count_scores(np.array([0.5, 1.5]), np.ones(2), levels=11)
    with pytest.raises(ValueError, match="are no probabilities"):
        _ = count_scores(np.array([-1.0, 0.5]), np.array([0, 1])).soft_dice

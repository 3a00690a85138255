from math import isnan, nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from npcrepro.metrics.overlap import METRICS, Counts, count, f1_of_means

numbers = st.integers(0, 10**9)
some = st.integers(1, 10**6)


def mask(*values):
    return np.array(values, dtype=bool)


def test_metrics_of_a_literal():
    counts = Counts(tp=6, fp=2, fn=4, tn=88)
    assert {name: getattr(counts, name) for name in METRICS} == pytest.approx(
        {
            "dsc": 12 / 18,
            "jsc": 6 / 12,
            "sensitivity": 6 / 10,
            "precision": 6 / 8,
            "specificity": 88 / 90,
            "corresponding_ratio": 5 / 10,
            "relative_volume_difference": -2 / 10,
        }
    )


@pytest.mark.parametrize(
    ("prediction", "reference", "status", "defined"),
    [
        (mask(1, 0), mask(1, 0), "ok", dict.fromkeys(METRICS, 1) | {"relative_volume_difference": 0}),
        (mask(1, 0), mask(0, 1), "ok", dict.fromkeys(METRICS, 0) | {"corresponding_ratio": -0.5}),
        (
            *(mask(0, 0), mask(1, 0), "pred_empty"),
            {"dsc": 0, "jsc": 0, "sensitivity": 0, "corresponding_ratio": 0, "relative_volume_difference": -1},
        ),
        (mask(1, 0), mask(0, 0), "ref_empty", {"dsc": 0, "jsc": 0, "precision": 0}),
        (mask(0, 0), mask(0, 0), "both_empty", {}),
    ],
)
def test_nothing_to_measure_is_no_number(prediction, reference, status, defined):
    counts = count(prediction, reference)
    assert counts.status == status
    assert isnan(count(mask(1, 1), mask(1, 1)).specificity)  # no background
    expected = {name: defined.get(name, nan) for name in METRICS if name != "specificity"}
    assert {name: getattr(counts, name) for name in expected} == pytest.approx(expected, nan_ok=True)


def test_counts_add_up_what_is_not_zero_counts_and_shapes_have_to_agree():
    first, second = (mask(1, 1, 0), mask(1, 0, 0)), (mask(0, 1, 0), mask(1, 1, 0))
    assert count(*first) + count(*second) == count(*map(np.concatenate, zip(first, second)))
    assert count(np.array([2, 0, 1]), np.array([0.5, 0.0, 0.0])) == Counts(tp=1, fp=1, fn=0, tn=1)
    with pytest.raises(ValueError, match="prediction has the shape"):
        count(np.zeros(4), np.zeros((1, 4)))


def test_agrees_with_monai():
    from monai import metrics

    rng = np.random.default_rng(0)
    masks = rng.random((2, 6, 16, 16)) < 0.3
    counts = count(*masks)
    prediction, reference = (torch.from_numpy(m.astype(np.float32))[None, None] for m in masks)
    tp, fp, tn, fn = metrics.get_confusion_matrix(prediction, reference)[0, 0].tolist()
    assert counts == Counts(int(tp), int(fp), int(fn), int(tn))
    matrix = metrics.get_confusion_matrix(prediction, reference)
    theirs = {
        "dsc": metrics.DiceMetric()(prediction, reference),
        "jsc": metrics.MeanIoU()(prediction, reference),
        "sensitivity": metrics.compute_confusion_matrix_metric("sensitivity", matrix),
        "precision": metrics.compute_confusion_matrix_metric("precision", matrix),
        "specificity": metrics.compute_confusion_matrix_metric("specificity", matrix),
    }
    for name, value in theirs.items():
        assert getattr(counts, name) == pytest.approx(value.item(), rel=1e-5), name


def test_f1_of_means_leaves_out_patients_without_a_value():
    assert f1_of_means([1.0, nan, 0.5], [0.5, 0.9, 1.0]) == 0.75
    assert isnan(f1_of_means([nan], [1.0]))
    assert isnan(f1_of_means([], []))
    assert f1_of_means([0.0, 0.0], [0.0, 0.0]) == 0
    with pytest.raises(ValueError, match="2 precisions for 1"):
        f1_of_means([1.0, 1.0], [1.0])


@given(some, numbers, numbers)
def test_relations_that_the_papers_table_can_be_checked_with(tp, fp, fn):
    counts = Counts(tp, fp, fn, 0)
    s, q = counts.sensitivity, counts.precision
    assert counts.dsc == pytest.approx(2 / (1 / s + 1 / q))
    assert counts.relative_volume_difference == pytest.approx(s / q - 1, abs=1e-6 * s / q)
    assert (tp + fp) / (tp + fn) == pytest.approx(s / q)  # automatic volume / readers' volume
    assert counts.corresponding_ratio == pytest.approx(s * (1.5 - 0.5 / q), rel=1e-6, abs=1e-6 * (1 + s / q))

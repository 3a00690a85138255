from itertools import product
from math import inf, isnan, nan

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from npcrepro.statistics import (
    bootstrap,
    compare_spread,
    crossed,
    crossed_p,
    detectable,
    equivalence,
    fill,
    holm,
    one_sample,
    paired,
    patients_needed,
    rank_stability,
    seed_spread,
    share,
    summarise,
)
from npcrepro.statistics.seeds import error_of_mean


def test_summary_of_a_literal():
    summary = summarise([0.5, 0.7, 0.9, 0.7])
    assert (summary.mean, summary.n, summary.left_out) == (pytest.approx(0.7), 4, 0)
    assert summary.sd == pytest.approx((0.08 / 3) ** 0.5)
    assert (summary.smallest, summary.largest) == (0.5, 0.9)
    assert summary.smallest <= summary.low < summary.mean < summary.high <= summary.largest
    with_gaps = summarise([0.5, nan, 0.7, nan, 0.9, 0.7])
    assert (with_gaps.mean, with_gaps.low, with_gaps.n, with_gaps.left_out) == (summary.mean, summary.low, 4, 2)


def test_few_values_have_no_interval_and_equal_ones_one_without_width():
    none, one, two, equal = (summarise(values) for values in ([nan, nan], [0.5], [0.5, 0.7], [0.8] * 5))
    assert (none.n, none.left_out, str(none)) == (0, 2, "no value (2 undefined)")
    assert all(isnan(number) for number in (none.mean, none.sd, none.low, none.smallest, one.sd, one.low, two.high))
    assert two.sd == pytest.approx(0.02**0.5)
    assert (equal.low, equal.high, equal.sd) == (0.8, 0.8, pytest.approx(0))
    assert str(equal) == "0.80 ± 0.00, 95 % interval 0.80 to 0.80, n = 5"


def test_p_of_literals_and_of_many():
    assert paired([1.0, 2.0, 3.0, nan, 1.0], [0.0, 0.0, 0.0, 1.0, nan]).p == pytest.approx(2 / 8)
    assert paired([1.0, 2.0, nan], [0.0, 0.0, 0.0]).difference.left_out == 1
    assert paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]).p == 1
    assert isnan(paired([nan, 1.0], [1.0, 2.0]).p)
    with pytest.raises(ValueError, match="2 against 3 values"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0])
    differences = np.random.default_rng(3).normal(0.02, 0.05, 29)
    found = [one_sample(differences, seed) for seed in (0, 0, 1)]
    assert found[0].p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
    assert found[0] == found[1]
    assert found[0].difference.low != found[2].difference.low


STATUSES = ["ok", "both_empty", "pred_empty", "ok"]


@pytest.mark.parametrize(
    ("options", "filled", "counted", "words"),
    [
        ({}, [0.8, nan, nan, 0.6], 0, "undefined values are left out"),
        (
            {"rule": "worst", "worst": 50.5, "statuses": STATUSES},
            [0.8, nan, 50.5, 0.6],
            1,
            "undefined values count as 50.5, and are left out where both masks are empty",
        ),
        (
            {"rule": "both_empty_is_one", "statuses": STATUSES, "worst": 0},
            [0.8, 1, 0, 0.6],
            2,
            "both masks empty counts as 1, other undefined values count as 0",
        ),
    ],
)
def test_rules_for_undefined_values(options, filled, counted, words):
    given = np.array([0.8, nan, nan, 0.6])
    result = fill(given, **options)
    np.testing.assert_array_equal(result.values, filled)
    assert (result.counted, result.rule) == (counted, words)
    assert isnan(given[1])
    summary = summarise(given, **options)
    assert (summary.mean, summary.n) == (pytest.approx(np.nanmean(filled)), 4 - np.isnan(filled).sum())
    assert (summary.left_out, summary.counted, summary.rule) == (np.isnan(filled).sum(), counted, words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "worse", "worst": 0}, "did you mean 'worst'"),
        ({"values": [1.0, inf]}, "an infinite value"),
        ({"rule": "worst"}, "needs the worst value"),
        ({"rule": "both_empty_is_one"}, "needs the status"),
        ({"rule": "worst", "worst": inf}, "an infinite worst value"),
        ({"rule": "worst", "worst": [0.0]}, "1 worst values for 2 values"),
    ],
)
def test_a_rule_without_what_it_needs_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        summarise(**{"values": [0.5, nan], **options})


def test_patients_without_a_difference_belong_to_neither_side():
    test = one_sample([0.0, 0.0, 0.0, 1.0, 2.0, 3.0, -4.0])
    assert (test.above, test.equal, test.below) == (3, 3, 1)
    assert test.rank_biserial == pytest.approx((4 + 5 + 6 - 7) / 28)
    # Ranks 4, 5, 6, 7 with all signs: 5 of 16 positive sums reach 15. Dropping the zeros would give 7 of 16.
    assert test.wilcoxon_p == pytest.approx(2 * 5 / 16)
    assert one_sample([0.0] * 4).wilcoxon_p == 1


def test_effect_size_is_corrected_for_few_patients():
    """Hedges' exact factor for 4 degrees of freedom is 0.79788."""
    test = one_sample([1.0, 2.0, 3.0, 4.0, 5.0])
    assert test.effect_size == pytest.approx(0.797885 * 3 / 2.5**0.5, rel=1e-5)
    many = one_sample(np.random.default_rng(0).normal(1, 1, 200))
    assert many.effect_size == pytest.approx(many.difference.mean / many.difference.sd, rel=0.005)
    assert isnan(one_sample([0.1] * 5).effect_size)
    assert isnan(paired([0.8] * 3, [0.7] * 3).effect_size)  # the same up to rounding


def test_equivalence_against_all_signs():
    differences = np.random.default_rng(2).normal(0.002, 0.01, 10).round(4)
    test = equivalence(differences, 0.01)
    flips = np.array(list(product([1, -1], repeat=10)))
    one_sided = [(flips @ d >= d.sum() - 1e-12).mean() for d in (differences + 0.01, 0.01 - differences)]
    assert test.p == pytest.approx(max(one_sided))
    assert test.interval == bootstrap((differences,), level=0.9)


def test_equivalence_of_a_few_is_never_shown_and_a_margin_is_positive():
    few = equivalence([0.001, -0.001, 0.002], 1.0)
    assert (few.inside, few.shown) == (True, False)  # the smallest one-sided p of three patients is 1/8
    assert not equivalence([0.0], 1.0).inside
    with pytest.raises(ValueError, match="margin"):
        equivalence([1.0, 2.0], nan)


def test_pitman_morgan_against_its_formula():
    rng = np.random.default_rng(0)
    second = rng.normal(size=30)
    first = 0.6 * (0.8 * second + 0.6 * rng.normal(size=30))
    test = compare_spread(first, second)
    f, r = first.var(ddof=1) / second.var(ddof=1), np.corrcoef(first, second)[0, 1]
    t = (f - 1) * 28**0.5 / (4 * f * (1 - r**2)) ** 0.5  # Pitman 1939
    assert test.p == pytest.approx(2 * stats.t.sf(abs(t), 28))
    assert (test.ratio, test.correlation) == (pytest.approx(f**0.5), pytest.approx(r))
    assert test.interval.low < test.interval_90.low < test.ratio < test.interval_90.high < test.interval.high
    assert isnan(compare_spread([0.1, 0.2, 0.3, 0.4], [0.3, 0.3, 0.1 + 0.2, 0.3]).ratio)
    back = compare_spread(second, first)
    assert (back.ratio, back.p) == (pytest.approx(1 / test.ratio), pytest.approx(test.p))


def test_a_share_and_its_exact_bounds():
    """Clopper and Pearson by beta quantiles; 0 of 29 bounds a share to 9.8 %, 0 of 10 to 26 %."""
    found = share(3, 12)
    assert found.interval == pytest.approx((stats.beta.ppf(0.025, 3, 10), stats.beta.ppf(0.975, 4, 9)))
    assert (found.at_least, found.at_most) == (
        pytest.approx(stats.beta.ppf(0.05, 3, 10)),
        pytest.approx(stats.beta.ppf(0.95, 4, 9)),
    )
    assert (share(0, 29).at_most, share(0, 10).at_most) == (
        pytest.approx(0.0981, abs=1e-4),
        pytest.approx(0.259, abs=1e-3),
    )
    assert (share(0, 0).at_least, share(0, 0).at_most) == (0, 1)


def test_the_detectable_effect_is_found_in_four_of_five_cohorts():
    rng = np.random.default_rng(5)
    cohorts = rng.normal(detectable(15, 0.1), 0.1, (4000, 15))
    assert (stats.ttest_1samp(cohorts, 0, axis=1).pvalue <= 0.05).mean() == pytest.approx(0.8, abs=0.02)
    equal = rng.normal(0, 0.1, (4000, 15))
    low, high = stats.ttest_1samp(equal, 0, axis=1).confidence_interval(0.9)
    assert (np.maximum(-low, high) < detectable(15, 0.1, equivalence=True)).mean() == pytest.approx(0.8, abs=0.02)


def test_patients_and_seeds_by_the_analysis_of_variance():
    """A literal: rows 1, 2, 6 and columns that add 0 and 1, then one cell moved."""
    values = np.array([[1.0, 2.0], [2.0, 3.0], [6.0, 7.6]])
    rest = 0.06  # (0.6 / 6)**2 * (1 + 1 + 4) * 2 / 2 degrees of freedom
    patients, seeds = 2 * np.var([1.5, 2.5, 6.8], ddof=1), 3 * np.var([3.0, 4.2], ddof=1)
    free = (patients + seeds - rest) ** 2 / (patients**2 / 2 + seeds**2 / 1 + rest**2 / 2)
    half = stats.t.ppf(0.975, free) * ((patients + seeds - rest) / 6) ** 0.5
    assert crossed(values) == pytest.approx((3.6 - half, 3.6 + half))
    assert seed_spread(values) == pytest.approx(np.std([3.0, 4.2], ddof=1))
    assert isnan(seed_spread(values[:, :1]))


def covered(seeds: int, by_fold: float, by_seed: float, times: int = 400) -> tuple[float, float]:
    """How often the interval of five folds with five patients holds the true mean, and its width."""
    rng, folds = np.random.default_rng(1), np.repeat(np.arange(5), 5)
    found = []
    for _ in range(times):
        table = rng.normal(0, 0.05, (25, 1)) + rng.normal(0, by_fold, (5, seeds))[folds]
        table = table + rng.normal(0, by_seed, (1, seeds)) + rng.normal(0, 0.03, (25, seeds))
        found.append(crossed(table, folds))
    low, high = np.array(found).T
    return ((low <= 0) & (high >= 0)).mean(), (high - low).mean()


def test_the_interval_over_patients_and_trainings_holds_the_mean_and_narrows_with_seeds():
    """Fifteen trainings on five folds are fifteen draws, unless a seed moves all folds alike."""
    few, width = covered(3, by_fold=0.04, by_seed=0.0)
    assert 0.93 < few < 0.98
    many, narrow = covered(10, by_fold=0.04, by_seed=0.0)
    assert 0.93 < many < 0.98
    assert narrow < 0.85 * width
    alike, wide = covered(3, by_fold=0.0, by_seed=0.04)
    assert 0.91 < alike < 0.98
    assert wide > 2 * width
    # Of as many trainings that one network of each seed tests everybody with, three draws remain.
    table = np.random.default_rng(2).normal(size=(25, 3)) + np.arange(3)
    together, apart = crossed(table), crossed(table, np.repeat(np.arange(5), 5))
    assert together.high - together.low == pytest.approx(apart.high - apart.low, rel=0.05)
    # Where each patient has networks of his own, what they add is scatter of the patients.
    assert crossed(table, np.arange(25)) == together


def test_statsmodels_says_the_same_of_holm_and_of_power():
    power, multitest = (pytest.importorskip(f"statsmodels.stats.{name}") for name in ("power", "multitest"))
    p = np.random.default_rng(0).uniform(0, 0.2, 12)
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])
    assert holm([0.04, nan, 0.01]) == pytest.approx([0.04, nan, 0.02], nan_ok=True)
    for effect, sd in ((0.0186, 0.05), (0.03, 0.08)):
        needed = power.TTestPower().solve_power(effect / sd, power=0.8, alpha=0.05)
        assert patients_needed(effect, sd) == np.ceil(needed)
        assert detectable(40, sd) == pytest.approx(sd * power.TTestPower().solve_power(nobs=40, power=0.8, alpha=0.05))


def test_statsmodels_fits_the_same_mixed_model():
    formula = pytest.importorskip("statsmodels.formula.api")
    rng, folds = np.random.default_rng(3), np.repeat(np.arange(3), 4)
    table = rng.normal(0, 1, (12, 1)) + rng.normal(0, 1, (1, 4)) + rng.normal(0, 1, (3, 4))[folds]
    table = table + rng.normal(0, 0.5, (12, 4))
    rows = [(value, patient, seed, folds[patient]) for (patient, seed), value in np.ndenumerate(table)]
    frame = pd.DataFrame(rows, columns=["value", "patient", "seed", "fold"]).assign(all=0)
    parts = {"patient": "0 + C(patient)", "seed": "0 + C(seed)", "training": "0 + C(fold):C(seed)"}
    model = formula.mixedlm("value ~ 1", frame, groups="all", vc_formula=parts, re_formula="0")
    assert error_of_mean(table, folds)[0] == pytest.approx(model.fit().bse["Intercept"], rel=0.03)


def test_ranks_of_methods_that_are_far_apart_and_of_ones_that_are_close():
    rng = np.random.default_rng(0)
    base = rng.normal(0.7, 0.1, 30)
    values = {"worst": base - 0.2, "first": base + rng.normal(0.0, 0.05, 30), "second": base}
    result = rank_stability({name: [*column, nan] for name, column in values.items()})
    leader, follower, last = (rank.method for rank in result)
    assert {leader, follower} == {"first", "second"}
    assert (last, result[2].first, result[2].low) == ("worst", 0, 3)
    assert leader == max(values, key=lambda name: values[name].mean())
    # The leader leads where the mean of the paired difference keeps its sign.
    differences = values[leader] - values[follower]
    expected = stats.norm.cdf(differences.mean() / (differences.std() / 30**0.5))
    assert result[0].first == pytest.approx(expected, abs=0.02)
    assert (result[0].low, result[0].high) == (1, 2)
    assert result[0].first + result[1].first == pytest.approx(1)
    for nothing in ({}, {"A": [nan]}):
        with pytest.raises(ValueError, match="there is nothing to rank"):
            rank_stability(nothing)


@pytest.mark.parametrize("folds", [None, [0, 0, 0, 1, 1, 1]])
def test_p_is_that_of_the_interval(folds):
    """5 % where the 95 % interval ends, on both sides of it and on one side of the 90 % interval."""
    values = np.random.default_rng(3).normal(0.1, 0.05, (6, 3))
    low, high = crossed(values, folds)
    assert [crossed_p(values, folds, end) for end in (low, high)] == pytest.approx([0.05, 0.05])
    assert crossed_p(values, folds, low - 0.01) < 0.05 < crossed_p(values, folds, low + 0.01)
    low, high = crossed(values, folds, level=0.9)
    assert crossed_p(values, folds, low, "greater") == pytest.approx(0.05)
    assert crossed_p(values, folds, high, "less") == pytest.approx(0.05)
    assert isnan(crossed_p(values[:, :1]))

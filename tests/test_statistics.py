from itertools import product
from math import isnan, nan

import numpy as np
import pytest
from scipy import stats

from npcrepro.papers import reported
from npcrepro.statistics import holm, paired, summarise


def test_summary_of_a_literal():
    summary = summarise([0.5, 0.7, 0.9, 0.7])
    assert (summary.mean, summary.n, summary.left_out) == (pytest.approx(0.7), 4, 0)
    assert summary.sd == pytest.approx((0.08 / 3) ** 0.5)
    assert (summary.smallest, summary.largest) == (0.5, 0.9)
    assert summary.smallest <= summary.low < summary.mean < summary.high <= summary.largest


def test_undefined_values_are_left_out_and_counted():
    summary = summarise([0.5, nan, 0.7, nan, 0.9])
    assert (summary.mean, summary.n, summary.left_out) == (pytest.approx(0.7), 3, 2)
    assert summary == summarise([nan, nan, 0.5, 0.7, 0.9])


@pytest.mark.parametrize("values", [[], [nan], [nan, nan]])
def test_no_value_is_no_number(values):
    summary = summarise(values)
    assert (summary.n, summary.left_out) == (0, len(values))
    assert all(isnan(getattr(summary, k)) for k in ("mean", "sd", "low", "high", "smallest", "largest"))
    assert str(summary).startswith(f"no value ({len(values)} undefined)")


def test_few_values_have_no_interval():
    one, two = summarise([0.5]), summarise([0.5, 0.7])
    assert (one.mean, two.mean) == (0.5, pytest.approx(0.6))
    assert isnan(one.sd)
    assert two.sd == pytest.approx(0.02**0.5)
    assert all(isnan(x) for x in (one.low, one.high, two.low, two.high))


def test_equal_values_have_an_interval_without_width():
    summary = summarise([0.8] * 5)
    assert (summary.low, summary.high, summary.sd) == (0.8, 0.8, pytest.approx(0))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5], ["0.50", "n = 1"]),
        ([0.5, 0.7], ["0.60 ± 0.14", "n = 2"]),
        ([0.8, 0.8, 0.8], ["0.80 ± 0.00", "95 % interval 0.80 to 0.80", "n = 3"]),
        ([0.5, nan, 0.7], ["0.60 ± 0.14", "n = 2"]),
    ],
)
def test_a_summary_in_words_says_its_n(values, words):
    text = str(summarise(values))
    assert all(word in text for word in words)
    assert "nan" not in text


def test_the_interval_is_the_bias_corrected_accelerated_bootstrap():
    """Computed here from its definition (Efron 1987), with resamples of our own."""
    values = np.random.default_rng(1).exponential(size=25)
    summary = summarise(values)
    rng = np.random.default_rng(2)
    means = np.sort(rng.choice(values, (40_000, 25)).mean(axis=1))
    bias = stats.norm.ppf((means < values.mean()).mean())
    jackknife = np.array([np.delete(values, i).mean() for i in range(25)])
    away = jackknife.mean() - jackknife
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    ends = []
    for z in stats.norm.ppf([0.025, 0.975]):
        ends.append(np.quantile(means, stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))))
    assert (summary.low, summary.high) == pytest.approx(ends, abs=0.03 * values.std())
    # A plain percentile interval is another one on such a skewed sample.
    assert abs(np.quantile(means, 0.975) - summary.high) > 0.05 * values.std()


def test_the_interval_of_many_normal_values_is_that_of_student():
    values = np.random.default_rng(0).normal(0.8, 0.05, 200)
    low, high = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    summary = summarise(values)
    assert (summary.low, summary.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(8)
    assert summarise(values, seed=1) == summarise(values, seed=1)
    assert summarise(values, seed=1).low != summarise(values, seed=2).low


def test_the_summary_of_the_papers_dsc():
    columns = reported("li2018")["tables"]["table2"]["columns"]
    dsc = [row[columns.index("dsc")] for row in reported("li2018")["tables"]["table2"]["rows"]]
    summary = summarise(dsc)
    assert (summary.n, round(summary.mean, 2), round(summary.sd, 2)) == (29, 0.89, 0.05)
    assert (summary.low, summary.high) == pytest.approx((0.873, 0.906), abs=0.002)


def sign_flips(differences):
    """Two-sided p by going through all signs."""
    differences = np.array(differences)
    flipped = np.array(list(product([1, -1], repeat=len(differences)))) @ differences
    observed = differences.sum()
    more, less = (flipped >= observed - 1e-12).mean(), (flipped <= observed + 1e-12).mean()
    return min(1.0, 2 * min(more, less))


@pytest.mark.parametrize(
    ("differences", "p"), [([1.0, 2.0, 3.0], 2 / 8), ([1.0, 1.0, 1.0, 1.0, 1.0], 2 / 32), ([1.0, -1.0], 1.0)]
)
def test_p_of_a_literal(differences, p):
    test = paired(differences, [0.0] * len(differences))
    assert test.p == pytest.approx(p)
    assert sign_flips(differences) == pytest.approx(p)


@pytest.mark.parametrize("n", [2, 5, 9, 13])
def test_p_agrees_with_going_through_all_signs(n):
    differences = np.random.default_rng(n).normal(0.5, 1, n).round(2)
    assert paired(differences, np.zeros(n)).p == pytest.approx(sign_flips(differences))


def test_p_of_more_patients_is_close_to_the_t_test():
    differences = np.random.default_rng(3).normal(0.02, 0.05, 29)
    test = paired(0.8 + differences, np.full(29, 0.8))
    assert test.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
    assert test.p == paired(0.8 + differences, np.full(29, 0.8)).p


def test_difference_is_first_minus_second_and_exchanging_them_keeps_p():
    first, second = [0.9, 0.8, 0.95, 0.7], [0.8, 0.75, 0.9, 0.72]
    there, back = paired(first, second), paired(second, first)
    assert there.difference.mean == pytest.approx(0.045)
    assert back.difference.mean == pytest.approx(-0.045)
    assert there.p == pytest.approx(back.p)


def test_pairs_with_an_undefined_value_are_left_out():
    test = paired([1.0, 2.0, nan, 3.0], [0.0, 0.0, 0.0, nan])
    assert (test.difference.n, test.difference.left_out) == (2, 2)
    assert test.p == paired([1.0, 2.0], [0.0, 0.0]).p


@pytest.mark.parametrize("values", [[], [1.0], [nan, 1.0]])
def test_a_test_of_fewer_than_two_pairs_is_no_number(values):
    assert isnan(paired(values, values).p)


def test_methods_that_do_not_differ():
    assert paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]).p == 1


@pytest.mark.parametrize(("first", "second"), [([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0], [1.0, 2.0, 3.0])])
def test_lists_of_different_length_are_an_error(first, second):
    with pytest.raises(ValueError):  # noqa: PT011
        paired(first, second)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04, nan, 0.01], [0.04, nan, 0.02]),
        ([0.5, 0.9, 0.4], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_p_values_adjusted_by_holm(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted, nan_ok=True)

"""Two methods compared on the same patients: their difference, whether it is small enough, and their spread."""

from dataclasses import dataclass
from math import exp, isnan, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from npcrepro.statistics.aggregation import Summary, columns, known, summarise
from npcrepro.statistics.intervals import RESAMPLES, UNKNOWN, Interval, bootstrap

# Differences are equal up to here: 0.9 - 0.8 and 0.8 - 0.7 differ in the seventeenth digit, and are a tie all the same.
DECIMALS = 12


@dataclass(frozen=True)
class PairedTest:
    """A comparison of two methods on the same patients.

    Attributes:
        difference: summary of the differences ``first - second``.
        p: two-sided sign-flip permutation test of the mean difference; ``nan`` for n < 2. All sign patterns are gone
            through where they are at most 10,000 (n < 14).
        wilcoxon_p: signed-rank test as a check; patients without a difference are ranked and belong to neither side
            (Pratt 1959).
        effect_size: mean over sd of the differences (Cohen's d_z), corrected for few patients (Hedges 1981); ``nan``
            where they do not vary, and for n < 3.
        rank_biserial: rank sum of the positive differences minus that of the negative ones over all ranks, -1 to 1.
        above, equal, below: patients with a positive, no and a negative difference.
    """

    difference: Summary
    p: float
    wilcoxon_p: float
    effect_size: float
    rank_biserial: float
    above: int
    equal: int
    below: int


def paired(first: ArrayLike, second: ArrayLike, seed: int = 0) -> PairedTest:
    """Compare two methods patient by patient; pairs in which either value is ``nan`` are left out and counted.

    If a missing result has to count as a failure, pass both through :func:`npcrepro.statistics.fill` before.

    Example:
        >>> test = paired([0.8, 0.7, 0.9, 0.6], [0.7, 0.65, 0.8, 0.62])
        >>> round(test.difference.mean, 4), test.p, test.above
        (0.0575, 0.25, 3)
    """
    values = columns(first, second)
    return one_sample(values[0] - values[1], seed)


def one_sample(differences: ArrayLike, seed: int = 0) -> PairedTest:
    """The same test for one number of each patient, a difference or a difference of differences, against 0.

    Example:
        >>> one_sample([0.1, 0.05, 0.1, -0.02]).p
        0.25
    """
    rounded = np.round(np.asarray(differences, dtype=float), DECIMALS)
    summary, kept = summarise(rounded, seed), rounded[~np.isnan(rounded)]
    above, below = int((kept > 0).sum()), int((kept < 0).sum())
    ranks, wilcoxon_p = stats.rankdata(np.abs(kept)), nan
    if len(kept) > 1:
        wilcoxon_p = float(stats.wilcoxon(kept, zero_method="pratt").pvalue) if kept.any() else 1.0
    return PairedTest(
        difference=summary,
        p=_sign_flip(kept, "two-sided", seed),
        wilcoxon_p=wilcoxon_p,
        effect_size=_effect_size(summary),
        rank_biserial=float((ranks * np.sign(kept)).sum() / ranks.sum()) if len(kept) else nan,
        above=above,
        equal=len(kept) - above - below,
        below=below,
    )


@dataclass(frozen=True)
class Equivalence:
    """Whether a mean difference is small enough to call two methods alike.

    Attributes:
        margin: the largest difference that counts as alike.
        interval: 90 % bootstrap interval of the mean difference.
        above, below: p of two one-sided sign-flip tests: that the mean is above ``-margin``, and below ``margin``.
    """

    margin: float
    interval: Interval
    above: float
    below: float

    @property
    def p(self) -> float:
        """The larger of the two, which decides."""
        return max(self.above, self.below)

    @property
    def inside(self) -> bool:
        """The 90 % interval lies inside the margin."""
        return -self.margin < self.interval.low and self.interval.high < self.margin

    @property
    def shown(self) -> bool:
        """The interval lies inside the margin and both one-sided tests say so at 5 %."""
        return self.inside and self.p <= 0.05


def equivalence(differences: ArrayLike, margin: float, seed: int = 0) -> Equivalence:
    """Test whether the mean difference lies inside ``-margin`` to ``margin``; ``nan`` differences are left out.

    Raises:
        ValueError: the margin is not positive.

    Example:
        >>> test = equivalence([0.01, -0.01, 0.02, 0.0, -0.02, 0.01], margin=0.05)
        >>> test.shown, test.p
        (True, 0.015625)
    """
    if not margin > 0:
        raise ValueError(f"a margin of equivalence is positive, got {margin}")
    (kept,) = known(columns(differences))
    above = _sign_flip(np.round(kept + margin, DECIMALS), "greater", seed)
    below = _sign_flip(np.round(kept - margin, DECIMALS), "less", seed)
    return Equivalence(margin, bootstrap((kept,), seed=seed, level=0.9), above, below)


@dataclass(frozen=True)
class SpreadTest:
    """The spread over patients of one method against another's, on the same patients.

    Attributes:
        n: pairs in which both values are known.
        ratio: sd of the first over sd of the second; ``nan`` where the second does not vary.
        interval, interval_90: 95 % and 90 % bootstrap intervals of the ratio; ``nan`` for fewer than six patients, and
            often for six or seven, because a resample that draws one patient alone has no ratio.
        p: Pitman-Morgan test of equal variances: t-test of the correlation between sum and difference. It assumes
            normal values; with heavy tails trust the interval.
        correlation: of the two methods over patients.
        above, below: p of two one-sided Pitman-Morgan tests: that the ratio is above ``1 / margin``, and below
            ``margin``. If both are small, the spreads are alike.
    """

    n: int
    ratio: float = nan
    interval: Interval = UNKNOWN
    interval_90: Interval = UNKNOWN
    p: float = nan
    correlation: float = nan
    above: float = nan
    below: float = nan


def compare_spread(first: ArrayLike, second: ArrayLike, seed: int = 0, margin: float | None = None) -> SpreadTest:
    """Compare two standard deviations over the same patients; fewer than three pairs give ``nan``.

    Args:
        margin: the largest ratio that counts as alike, above 1.

    Example:
        >>> round(compare_spread([0.5, 0.7, 0.9], [0.6, 0.7, 0.8]).ratio, 3)
        2.0
        >>> test = compare_spread([0.6, 0.7, 0.8, 0.9], [0.61, 0.70, 0.79, 0.90], margin=1.5)
        >>> print(max(test.above, test.below) < 0.05)
        True
    """
    if margin is not None and not margin > 1:
        raise ValueError(f"a margin of a ratio is above 1, got {margin}")
    one, other = np.round(known(columns(first, second)), DECIMALS)
    n = len(one)
    if n < 3 or np.ptp(other) == 0:
        return SpreadTest(n)
    total, difference = np.round(one + other, DECIMALS), np.round(one - other, DECIMALS)
    constant, sides = np.ptp(difference) == 0 or np.ptp(total) == 0, [nan, nan]
    if margin is not None and np.ptp(one):
        ends = {"greater": other / margin, "less": other * margin}
        sides = [float(stats.pearsonr(one + end, one - end, alternative=side).pvalue) for side, end in ends.items()]
    return SpreadTest(
        n,
        ratio=float(_sd_ratio(one, other)),
        interval=bootstrap((one, other), _sd_ratio, seed),
        interval_90=bootstrap((one, other), _sd_ratio, seed, level=0.9),
        p=1.0 if constant else float(stats.pearsonr(total, difference).pvalue),
        correlation=float(stats.pearsonr(one, other).statistic) if np.ptp(one) else nan,
        above=sides[0],
        below=sides[1],
    )


def holm(p_values: ArrayLike) -> list[float]:
    """p values adjusted for their number by Holm's step-down method; ``nan`` stays ``nan`` and is not counted.

    Example:
        >>> holm([0.01, 0.04])
        [0.02, 0.04]
    """
    adjusted = np.array(p_values, dtype=float)
    order = np.argsort(adjusted)[: np.count_nonzero(~np.isnan(adjusted))]  # nan come last
    counts = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1, adjusted[order] * counts))
    return adjusted.tolist()


def _sign_flip(differences: np.ndarray, alternative: str, seed: int) -> float:
    if len(differences) < 2:
        return nan
    test = stats.permutation_test(
        (np.sort(differences),),
        np.mean,
        permutation_type="samples",
        alternative=alternative,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _effect_size(summary: Summary) -> float:
    if isnan(summary.sd) or summary.smallest == summary.largest:
        return nan
    free = summary.n - 1
    correction = exp(special.gammaln(free / 2) - special.gammaln((free - 1) / 2)) / sqrt(free / 2) if free > 1 else nan
    return correction * summary.mean / summary.sd


def _sd_ratio(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    return first.std(axis=axis, ddof=1) / second.std(axis=axis, ddof=1)

"""Bootstrap intervals over patients, and the exact interval of a share."""

import warnings
from collections.abc import Callable, Sequence
from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLED_DECIMALS = 8  # of what is resampled; records have ten digits
RESAMPLES = 10_000


class Interval(NamedTuple):
    """Two ends; both ``nan`` where too few values are known."""

    low: float
    high: float


UNKNOWN = Interval(nan, nan)


def bootstrap(
    columns: Sequence[ArrayLike],
    statistic: Callable[..., np.ndarray] = np.mean,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Bias-corrected and accelerated (BCa) bootstrap interval over patients.

    Args:
        columns: one value for each patient in each, drawn together; no ``nan``.
        statistic: called with the columns and ``axis``.
        level: 0.95, or 0.9 for one-sided tests, as those of an equivalence.

    Returns:
        ``nan`` for fewer than three patients, and where the resamples allow no correction. If every resample gives the
        same number, for instance because all values are equal, the interval has no width.

    Example:
        >>> interval = bootstrap([[0.6, 0.7, 0.8, 0.9]])
        >>> 0.6 < interval.low < 0.75 < interval.high < 0.9
        True
    """
    # Sorted, and without the last digits, which depend on the order of a sum: the interval must not depend on the order
    # in which patients are listed.
    table = np.round(np.array(columns, dtype=float), RESAMPLED_DECIMALS)
    if table.shape[1] < 3:
        return UNKNOWN
    table = table[:, np.lexsort(table)]
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        options = {"n_resamples": RESAMPLES, "vectorized": True, "paired": True, "method": "BCa"}
        rng = np.random.default_rng(seed)
        result = stats.bootstrap(tuple(table), statistic, confidence_level=level, rng=rng, **options)
    drawn = result.bootstrap_distribution
    if np.isfinite(drawn).all() and np.ptp(drawn) <= 1e-12 * np.abs(drawn).max():
        value = float(statistic(*table, axis=-1))
        return Interval(value, value)
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


class Share(NamedTuple):
    """The exact 95 % interval (Clopper and Pearson) and the exact one-sided 95 % bounds of a share."""

    interval: Interval
    at_least: float
    at_most: float


def share(count: int, n: int) -> Share:
    """The share ``count / n`` with its exact bounds; without any unit the bounds are 0 and 1.

    Example:
        >>> round(share(0, 29).at_most, 3)
        0.098
    """
    if not n:
        return Share(Interval(0.0, 1.0), 0.0, 1.0)

    def bounds(alternative: str) -> Interval:
        result = stats.binomtest(count, n, alternative=alternative).proportion_ci(0.95, method="exact")
        return Interval(float(result.low), float(result.high))

    return Share(bounds("two-sided"), bounds("greater").low, bounds("less").high)

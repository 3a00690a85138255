"""How much of a result is chance of the training run."""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from npcrepro.statistics.intervals import Interval


def seed_spread(values: ArrayLike) -> float:
    """Standard deviation over seeds of the cohort mean; ``nan`` with one seed.

    Args:
        values: ``(patients, seeds)``, no ``nan``: of a metric, or of a paired difference.

    Example:
        >>> round(seed_spread([[0.70, 0.74], [0.80, 0.82]]), 4)
        0.0212
    """
    table = np.asarray(values, dtype=float)
    return float(table.mean(axis=0).std(ddof=1)) if table.shape[1] > 1 and len(table) else nan


def crossed(values: ArrayLike) -> Interval:
    """95 % interval of the mean over patients and seeds, both of which are drawn at random.

    This is the mixed model ``value ~ 1 + (1 | patient) + (1 | seed)``: as each patient is there once with each seed,
    its estimates are those of the analysis of variance. Student's t with the degrees of freedom of Satterthwaite.

    Args:
        values: ``(patients, seeds)``, at least two of each (else the interval is ``nan``), no ``nan``.

    Example:
        >>> interval = crossed([[0.70, 0.74], [0.80, 0.82], [0.60, 0.68]])
        >>> round(interval.low, 2), round(interval.high, 2)
        (0.54, 0.91)
    """
    table = np.asarray(values, dtype=float)
    n, k = table.shape
    if n < 2 or k < 2:
        return Interval(nan, nan)
    mean = float(table.mean())
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    residuals = table - rows[:, None] - columns + mean
    patients, seeds = k * rows.var(ddof=1), n * columns.var(ddof=1)
    rest = (residuals**2).sum() / ((n - 1) * (k - 1))
    variance, free = _variance_of_mean(patients, seeds, rest, n, k)
    half = float(stats.t.ppf(0.975, free)) * sqrt(variance)
    return Interval(mean - half, mean + half)


def _variance_of_mean(patients: float, seeds: float, rest: float, n: int, k: int) -> tuple[float, float]:
    """Variance of the mean and its degrees of freedom, from the three mean squares."""
    if seeds <= rest or patients <= rest:
        return max((patients / (n * k), n - 1), (seeds / (n * k), k - 1))
    squares = patients + seeds - rest
    parts = patients**2 / (n - 1) + seeds**2 / (k - 1) + rest**2 / ((n - 1) * (k - 1))
    return squares / (n * k), squares**2 / parts

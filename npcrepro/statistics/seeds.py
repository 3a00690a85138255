"""How much of a result is chance of the training run."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from scipy import stats

from npcrepro.statistics.intervals import Interval


def seed_spread(values: np.ndarray) -> float:
    """Standard deviation over seeds of the cohort mean; ``nan`` with one seed.

    Args:
        values: ``(patients, seeds)``, no ``nan``: of a metric, or of a paired difference.
    """
    values = np.asarray(values, dtype=float)
    return float(values.mean(axis=0).std(ddof=1)) if values.shape[1] > 1 and len(values) else nan


@dataclass(frozen=True)
class CrossedMean:
    """A mean whose interval allows for other patients and for other seeds.

    Attributes:
        mean: over patients and seeds.
        interval: 95 %; Student's t with the degrees of freedom of Satterthwaite.
        sd_patients, sd_seeds, sd_rest: what varies: patients, training runs, and what is left of both.
    """

    mean: float
    interval: Interval
    sd_patients: float
    sd_seeds: float
    sd_rest: float


def crossed(values: np.ndarray) -> CrossedMean:
    """Mean with patients and seeds both drawn at random, each patient once with each seed.

    This is the mixed model ``value ~ 1 + (1 | patient) + (1 | seed)``: in such complete data its estimates are those
    of the analysis of variance. A component that comes out negative is 0.

    Args:
        values: ``(patients, seeds)``, at least two of each (else the interval is ``nan``), no ``nan``.
    """
    values = np.asarray(values, dtype=float)
    n, k = values.shape
    mean = float(values.mean()) if values.size else nan
    if n < 2 or k < 2:
        return CrossedMean(mean, Interval(nan, nan), nan, nan, nan)
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    residuals = values - rows[:, None] - columns + mean
    patients, seeds = k * rows.var(ddof=1), n * columns.var(ddof=1)
    rest = (residuals**2).sum() / ((n - 1) * (k - 1))
    variance, free = _variance_of_mean(patients, seeds, rest, n, k)
    half = float(stats.t.ppf(0.975, free)) * sqrt(variance)
    components = [sqrt(max(0.0, part)) for part in ((patients - rest) / k, (seeds - rest) / n, rest)]
    return CrossedMean(mean, Interval(mean - half, mean + half), *components)


def _variance_of_mean(patients: float, seeds: float, rest: float, n: int, k: int) -> tuple[float, float]:
    """Variance of the mean and its degrees of freedom, from the three mean squares."""
    if seeds <= rest or patients <= rest:
        return max((patients / (n * k), n - 1), (seeds / (n * k), k - 1))
    squares = patients + seeds - rest
    parts = patients**2 / (n - 1) + seeds**2 / (k - 1) + rest**2 / ((n - 1) * (k - 1))
    return squares / (n * k), squares**2 / parts

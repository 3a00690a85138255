"""How much of a result is chance of the training run."""

from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from npcrepro.statistics.intervals import Interval

# p from which a seed counts as alike in all folds, as usual for such pooling (Bancroft and Han 1983).
POOLED_FROM = 0.25


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


def crossed(values: ArrayLike, folds: ArrayLike | None = None, level: float = 0.95) -> Interval:
    """Interval of the mean over patients and trainings, both of which are drawn at random.

    This is the mixed model ``value ~ 1 + (1 | patient) + (1 | seed) + (1 | fold:seed)``: as each patient is there once
    with each seed, its estimates are those of the analysis of variance. Each fold is trained by itself, so that 3 seeds
    on 5 folds are 15 draws of training. They count as 15 unless the same seed moves all folds alike (an F-test has p
    below `POOLED_FROM`); then they count as 3. Student's t with the degrees of freedom of Satterthwaite.

    Args:
        values: ``(patients, seeds)``, at least two of each (else the interval is ``nan``), no ``nan``.
        folds: of each patient, the fold in which he is tested; without it one network of each seed tested all.
        level: 0.95, or 0.9 for one-sided tests, as those of an equivalence.

    Example:
        >>> interval = crossed([[0.70, 0.74], [0.80, 0.82], [0.60, 0.68]])
        >>> round(interval.low, 2), round(interval.high, 2)
        (0.54, 0.91)
    """
    table = np.asarray(values, dtype=float)
    error, free = error_of_mean(table, folds)
    half = error * float(stats.t.ppf(0.5 + level / 2, free))
    return Interval(float(table.mean()) - half, float(table.mean()) + half)


def crossed_p(
    values: ArrayLike, folds: ArrayLike | None = None, null: float = 0.0, alternative: str = "two-sided"
) -> float:
    """p of the mean over patients and trainings against ``null``, by the model and the arguments of :func:`crossed`.

    Args:
        alternative: ``"two-sided"``, ``"less"`` or ``"greater"``.

    Returns:
        ``nan`` where :func:`crossed` has no interval, and where nothing varies.

    Example:
        >>> round(crossed_p([[0.10, 0.14], [0.20, 0.22], [0.15, 0.18]]), 3)
        0.013
    """
    table = np.asarray(values, dtype=float)
    error, free = error_of_mean(table, folds)
    if not error > 0:
        return nan
    less = float(stats.t.cdf((table.mean() - null) / error, free))
    return {"less": less, "greater": 1 - less, "two-sided": 2 * min(less, 1 - less)}[alternative]


def error_of_mean(table: np.ndarray, folds: ArrayLike | None = None) -> tuple[float, float]:
    """Standard error of the mean and its degrees of freedom, as :func:`crossed` has them; ``nan`` where it has none."""
    n, k = table.shape
    names, place = np.unique(np.zeros(n) if folds is None else np.asarray(folds), return_inverse=True)
    if len(names) == n:
        # Where each patient has networks of his own, what a training adds is a part of the residuals.
        names, place = np.unique(np.zeros(n), return_inverse=True)
    free = (n - len(names)) * (k - 1)
    if n < 2 or k < 2 or not free:
        return nan, nan
    by_fold = np.array([table[place == fold].mean(axis=0) for fold in range(len(names))])
    # What a training adds to the patients of its fold, beside what the fold has with all seeds.
    added = by_fold - by_fold.mean(axis=1, keepdims=True)
    rows = table.mean(axis=1)
    residuals = table - rows[:, None] - added[place]
    patients, rest = k * rows.var(ddof=1), float((residuals**2).sum()) / free
    trainings, drawn = _trainings(added, table.mean(axis=0) - table.mean(), np.bincount(place))
    if trainings <= rest or patients <= rest:
        variance, degrees = max((patients / (n * k), n - 1), (trainings / (n * k), drawn))
    else:
        squares = patients + trainings - rest
        parts = patients**2 / (n - 1) + trainings**2 / drawn + rest**2 / free
        variance, degrees = squares / (n * k), squares**2 / parts
    return sqrt(variance), float(degrees)


def _trainings(added: np.ndarray, columns: np.ndarray, sizes: np.ndarray) -> tuple[float, int]:
    """Mean square of trainings and its degrees of freedom: of fold and seed, or of seeds where these move all folds."""
    count, k = added.shape
    seeds = sizes.sum() * float((columns**2).sum()) / (k - 1)
    if count == 1:
        return seeds, k - 1
    inside = float((sizes[:, None] * (added - columns) ** 2).sum()) / ((count - 1) * (k - 1))
    ratio = seeds / inside if inside else (inf if seeds else 0.0)
    if stats.f.sf(ratio, k - 1, (count - 1) * (k - 1)) < POOLED_FROM:
        return seeds, k - 1
    return float((sizes[:, None] * added**2).sum()) / (count * (k - 1)), count * (k - 1)

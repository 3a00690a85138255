"""Rankings of methods: whether they would stand with other patients."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from npcrepro.statistics.aggregation import columns, known
from npcrepro.statistics.intervals import RESAMPLES
from npcrepro.statistics.pairs import DECIMALS


class Rank(NamedTuple):
    """Where a method stands.

    Attributes:
        method, mean: its name, and the mean of the metric over patients.
        rank: 1 is best; equal means share the better rank.
        first: share of the resamples in which it has rank 1.
        low, high: ranks between which 95 % of the resamples lie.
    """

    method: str
    mean: float
    rank: int
    first: float
    low: int
    high: int


def rank_stability(values: Mapping[str, ArrayLike], seed: int = 0) -> list[Rank]:
    """Rank methods by their means, and again in 10,000 cohorts drawn from the patients with replacement.

    Args:
        values: method to one value for each patient, higher is better, the same patients in the same order. Patients
            with a ``nan`` are left out for all methods; to count a missing result as a failure, use
            :func:`npcrepro.statistics.fill`.

    Returns:
        The methods, best first. Fewer than three patients say nothing of others: every resample is much the same.

    Raises:
        ValueError: no method, or no patient with a value of every method.

    Example:
        >>> best, _ = rank_stability({"A": [0.7, 0.8, 0.9], "B": [0.6, 0.8, 0.8]})
        >>> best.method, best.rank, best.low, best.high
        ('A', 1, 1, 1)
    """
    kept = known(columns(*values.values())) if values else np.empty(0)
    if not kept.size:
        raise ValueError("no patient has a value of every method, so there is nothing to rank")
    n = kept.shape[1]
    # How often each patient is drawn: all means are then one matrix product.
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    observed, resampled = _ranks(kept.mean(axis=1)[None])[0], _ranks(draws @ kept.T / n)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0, method="inverted_cdf").astype(int)
    first = (resampled == 1).mean(axis=0)
    rows = zip(
        values, kept.mean(axis=1).tolist(), *(each.tolist() for each in (observed, first, low, high)), strict=True
    )
    return sorted((Rank(*row) for row in rows), key=lambda rank: rank.rank)


def _ranks(means: np.ndarray) -> np.ndarray:
    return stats.rankdata(-np.round(means, DECIMALS), method="min", axis=1).astype(int)

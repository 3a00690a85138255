"""Rankings of methods: whether they would stand with other patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from npcrepro.statistics.aggregation import columns, known
from npcrepro.statistics.intervals import RESAMPLES
from npcrepro.statistics.pairs import DECIMALS


@dataclass(frozen=True)
class Rank:
    """Where a method stands.

    Attributes:
        method, mean: its name, and the mean of the metric over patients.
        rank: 1 is best; equal means share the better rank.
        shares: share of the resamples in which it has rank 1, 2, ...
        low, high: ranks between which 95 % of the resamples lie.
    """

    method: str
    mean: float
    rank: int
    shares: tuple[float, ...]
    low: int
    high: int


@dataclass(frozen=True)
class RankStability:
    """A ranking and how it moves when patients are drawn anew.

    Attributes:
        ranks: best first.
        n, left_out: patients used, and patients left out because a method has no value for them.
    """

    ranks: tuple[Rank, ...]
    n: int
    left_out: int


def rank_stability(values: Mapping[str, ArrayLike], seed: int = 0) -> RankStability:
    """Rank methods by their means, and again in 10,000 cohorts drawn from the patients with replacement.

    Args:
        values: method to one value for each patient, higher is better, the same patients in the same order. Patients
            with a ``nan`` are left out for all methods; to count a missing result as a failure, use
            :func:`npcrepro.statistics.fill`.

    Raises:
        ValueError: no method, or no patient with a value of every method.

    Example:
        >>> best, _ = rank_stability({"A": [0.7, 0.8, 0.9], "B": [0.6, 0.8, 0.8]}).ranks
        >>> best.method, best.rank, best.low, best.high
        ('A', 1, 1, 1)
    """
    kept, left_out = _known(values)
    n = kept.shape[1]
    # How often each patient is drawn: all means are then one matrix product.
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    observed = _ranks(kept.mean(axis=1)[None])[0]
    resampled = _ranks(draws @ kept.T / n)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0, method="inverted_cdf")
    ranks = [
        Rank(
            method=method,
            mean=float(kept[i].mean()),
            rank=int(observed[i]),
            shares=tuple(float((resampled[:, i] == rank).mean()) for rank in range(1, len(kept) + 1)),
            low=int(low[i]),
            high=int(high[i]),
        )
        for i, method in enumerate(values)
    ]
    return RankStability(tuple(sorted(ranks, key=lambda rank: rank.rank)), n, left_out)


def _known(values: Mapping[str, ArrayLike]) -> tuple[np.ndarray, int]:
    """Values ``(methods, patients)`` of the patients that have all of them, and how many patients are left out."""
    kept, left_out = known(columns(*values.values()))
    if not kept.size:
        raise ValueError("no patient has a value of every method, so there is nothing to rank")
    return kept, left_out


def _ranks(means: np.ndarray) -> np.ndarray:
    return stats.rankdata(-np.round(means, DECIMALS), method="min", axis=1).astype(int)

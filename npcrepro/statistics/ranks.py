"""Rankings of methods: whether they would stand with other patients, and which methods stand apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan, sqrt

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


@dataclass(frozen=True)
class Friedman:
    """Whether patients rank the methods alike, and which of them stand apart (Demšar 2006, JMLR 7).

    Attributes:
        mean_ranks: of each method over patients, best first; 1 is best, equal values share the mean of their ranks.
        p: Friedman's test that no method differs from the others; 1 where no patient tells any two of them apart.
        w: Kendall's coefficient of concordance, 0 (patients do not agree) to 1 (the same order in each of them);
            ``nan`` where no patient tells any two methods apart.
        critical_difference: two mean ranks further apart than this differ at 5 % (Nemenyi).
        n, left_out: patients used, and patients left out because a method has no value for them.
    """

    mean_ranks: Mapping[str, float]
    p: float
    w: float
    critical_difference: float
    n: int
    left_out: int

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Sets of two methods or more, best first, whose mean ranks are not further apart than the critical difference.

        None of them is part of another. Where Friedman's test does not reject, all methods are one group.
        """
        names, ranks = list(self.mean_ranks), list(self.mean_ranks.values())
        if self.p > 0.05:
            return [tuple(names)]
        found, reached = [], 0
        for first, rank in enumerate(ranks):
            end = sum(other - rank <= self.critical_difference for other in ranks)
            if end > max(reached, first + 1):
                found.append(tuple(names[first:end]))
            reached = max(reached, end)
        return found


def friedman(values: Mapping[str, ArrayLike]) -> Friedman:
    """Compare three methods or more on the same patients by their ranks: Friedman's test, then Nemenyi's.

    Args:
        values: method to one value for each patient, higher is better, the same patients in the same order. Patients
            with a ``nan`` are left out for all methods.

    Raises:
        ValueError: fewer than three methods, or no patient with a value of every method.

    Example:
        >>> found = friedman({"a": [0.9, 0.8, 0.9, 0.8], "b": [0.8, 0.7, 0.8, 0.6], "c": [0.7, 0.9, 0.6, 0.5]})
        >>> found.mean_ranks
        {'a': 1.25, 'b': 2.25, 'c': 2.5}
    """
    kept, left_out = _known(values)
    k, n = kept.shape
    if k < 3:
        raise ValueError(f"Friedman's test compares three methods or more, got {', '.join(values)}")
    kept = np.round(kept, DECIMALS)
    p, w = 1.0, nan
    if np.ptp(kept, axis=0).any():
        test = stats.friedmanchisquare(*kept)
        p, w = float(test.pvalue), float(test.statistic) / (n * (k - 1))
    mean_ranks = stats.rankdata(-kept, axis=0).mean(axis=1)
    ranked = dict(sorted(zip(values, mean_ranks.tolist(), strict=True), key=lambda item: item[1]))
    reach = float(stats.studentized_range.ppf(0.95, k, np.inf)) * sqrt(k * (k + 1) / (12 * n))
    return Friedman(ranked, p, w, reach, n, left_out)


def _known(values: Mapping[str, ArrayLike]) -> tuple[np.ndarray, int]:
    """Values ``(methods, patients)`` of the patients that have all of them, and how many patients are left out."""
    kept, left_out = known(columns(*values.values()))
    if not kept.size:
        raise ValueError("no patient has a value of every method, so there is nothing to rank")
    return kept, left_out


def _ranks(means: np.ndarray) -> np.ndarray:
    return stats.rankdata(-np.round(means, DECIMALS), method="min", axis=1).astype(int)

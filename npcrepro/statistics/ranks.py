"""Rankings of methods: whether they would stand with other patients, and whether folds agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from scipy import stats

from npcrepro.statistics.intervals import RESAMPLES


@dataclass(frozen=True)
class Rank:
    """Where a method stands.

    Attributes:
        method: its name.
        mean: of the metric over patients.
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

    @property
    def leader(self) -> str:
        """The method with the best mean."""
        return self.ranks[0].method


def rank_stability(
    values: Mapping[str, Sequence[float]], higher_is_better: bool = True, seed: int = 0
) -> RankStability:  # fmt: skip
    """Rank methods by their means, and again in 10,000 cohorts drawn from the patients with replacement.

    Args:
        values: method to one value for each patient, the same patients in the same order. Patients with a ``nan`` are
            left out for all methods; to count a missing result as a failure, use :func:`npcrepro.statistics.fill`.
        higher_is_better: as for overlap; ``False`` for distances.

    Raises:
        ValueError: no method, lists of different length, or no patient with a value of every method.
    """
    if len({len(column) for column in values.values()}) != 1:
        raise ValueError("a ranking needs one value of each method for every patient")
    table = np.array(list(values.values()), dtype=float)
    known = ~np.isnan(table).any(axis=0)
    if not known.any():
        raise ValueError("no patient has a value of every method, so there is nothing to rank")
    kept = table[:, known]
    n = kept.shape[1]
    # How often each patient is drawn; a mean is then one product instead of a copy of the cohort.
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    sign = -1 if higher_is_better else 1
    observed = _ranks(sign * kept.mean(axis=1)[None])[0]
    resampled = _ranks(sign * draws @ kept.T / n)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0, method="inverted_cdf")
    ranks = [
        Rank(
            method=method,
            mean=float(kept[i].mean()),
            rank=int(observed[i]),
            shares=tuple(float((resampled[:, i] == rank).mean()) for rank in range(1, len(table) + 1)),
            low=int(low[i]),
            high=int(high[i]),
        )
        for i, method in enumerate(values)
    ]
    return RankStability(tuple(sorted(ranks, key=lambda rank: rank.rank)), n, int((~known).sum()))


@dataclass(frozen=True)
class Concordance:
    """Whether folds (or observers) order the methods alike.

    Attributes:
        w: Kendall's coefficient of concordance, 0 (no agreement) to 1 (the same order everywhere).
        p: Friedman's test that no method differs from the others.
        n: folds.
    """

    w: float
    p: float
    n: int


def concordance(values: Mapping[str, Sequence[float]]) -> Concordance:
    """Agreement of orders: method to one value for each fold, at least three methods, no ``nan``.

    Raises:
        ValueError: fewer than three methods, or lists of different length.
    """
    columns = [np.round(np.asarray(column, dtype=float), 12) for column in values.values()]
    if len(columns) < 3 or len({len(column) for column in columns}) != 1:
        raise ValueError(f"concordance needs three methods or more with a value for every fold, got {list(values)}")
    n = len(columns[0])
    if all(np.array_equal(column, columns[0]) for column in columns):
        return Concordance(nan, 1.0, n)
    test = stats.friedmanchisquare(*columns)
    return Concordance(float(test.statistic) / (n * (len(columns) - 1)), float(test.pvalue), n)


def _ranks(means: np.ndarray) -> np.ndarray:
    return stats.rankdata(np.round(means, 12), method="min", axis=1).astype(int)

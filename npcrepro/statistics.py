"""Means, intervals and paired tests over patients. SciPy does the computing; this module fixes the protocol."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from scipy import stats

RESAMPLES = 10_000


@dataclass(frozen=True)
class Summary:
    """A mean with what is needed to judge it.

    Attributes:
        mean, sd: of the values that are numbers (sd with n - 1).
        n: how many those are.
        left_out: how many were ``nan``.
        low, high: 95 % bootstrap interval of the mean (bias-corrected and accelerated); ``nan`` for n < 3.
        smallest, largest: range.
    """

    mean: float
    sd: float
    n: int
    left_out: int
    low: float
    high: float
    smallest: float
    largest: float

    @property
    def mean_and_sd(self) -> str:
        """``0.52 ± 0.11``; what is not a number is left out, and n is added where values were left out."""
        if not self.n:
            return f"no value ({self.left_out} undefined)"
        spread = "" if np.isnan(self.sd) else f" ± {self.sd:.2f}"
        return f"{self.mean:.2f}{spread}" + (f" (n = {self.n})" if self.left_out else "")

    @property
    def interval(self) -> str:
        """``0.40 to 0.61``, or a dash."""
        return "–" if np.isnan(self.low) else f"{self.low:.2f} to {self.high:.2f}"

    @property
    def range(self) -> str:
        """``0.12 to 0.80``, or a dash."""
        return f"{self.smallest:.2f} to {self.largest:.2f}" if self.n else "–"

    def __str__(self) -> str:
        if not self.n:
            return self.mean_and_sd
        n = "" if self.left_out else f", n = {self.n}"
        return f"{self.mean_and_sd}, 95 % interval {self.interval}{n}"


def summarise(values: Sequence[float], seed: int = 0) -> Summary:
    """Summary of one value for each patient.

    Undefined values (``nan``) are left out and counted; an empty input gives ``nan`` with n = 0.

    Example:
        >>> summarise([0.5, float("nan"), 0.7]).n
        2
    """
    values = np.asarray(values, dtype=float)
    kept = values[~np.isnan(values)]
    left_out = len(values) - len(kept)
    if not len(kept):
        return Summary(nan, nan, 0, left_out, nan, nan, nan, nan)
    low, high = _interval(kept, seed)
    sd = float(kept.std(ddof=1)) if len(kept) > 1 else nan
    return Summary(float(kept.mean()), sd, len(kept), left_out, low, high, float(kept.min()), float(kept.max()))


@dataclass(frozen=True)
class PairedTest:
    """A comparison of two methods on the same patients.

    Attributes:
        difference: summary of the differences ``first - second``.
        p: two-sided sign-flip permutation test of the mean difference; ``nan`` for n < 2.
    """

    difference: Summary
    p: float


def paired(first: Sequence[float], second: Sequence[float], seed: int = 0) -> PairedTest:
    """Compare two methods patient by patient; pairs in which either value is ``nan`` are left out and counted.

    Raises:
        ValueError: the two lists differ in length.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values against {len(second)}: pairs need one of each for every patient")
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    kept = differences[~np.isnan(differences)]
    p = nan
    if len(kept) > 1:
        test = stats.permutation_test(
            (kept,),
            np.mean,
            permutation_type="samples",
            n_resamples=RESAMPLES,
            rng=np.random.default_rng(seed),
        )
        p = float(test.pvalue)
    return PairedTest(summarise(differences, seed), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number by Holm's step-down method; ``nan`` stays ``nan`` and is not counted.

    Example:
        >>> holm([0.01, 0.04])
        [0.02, 0.04]
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p_values), nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted.tolist()


def _interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    if len(values) < 3:
        return nan, nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (values,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(seed)
        ).confidence_interval
    return float(interval.low), float(interval.high)

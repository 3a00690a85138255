"""Agreement of two measurements of the same thing (Bland and Altman)."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

from numpy.typing import ArrayLike
from scipy import stats

from npcrepro.statistics.aggregation import columns, known
from npcrepro.statistics.intervals import Interval

REACH = 1.96


@dataclass(frozen=True)
class Agreement:
    """Bland-Altman agreement, in the unit of the measurements.

    Attributes:
        bias: mean difference ``first - second``.
        bias_interval: its 95 % interval (Student's t).
        low, high: limits of agreement, between which 95 % of the patients lie if their differences are normal.
        low_interval, high_interval: exact 95 % intervals of the limits (noncentral t).
        n, left_out: patients used, and pairs with an undefined value.
    """

    bias: float
    bias_interval: Interval
    low: float
    high: float
    low_interval: Interval
    high_interval: Interval
    n: int
    left_out: int


def bland_altman(first: ArrayLike, second: ArrayLike) -> Agreement:
    """Bias and limits of agreement, for instance of automatic and manual volumes.

    Args:
        first, second: one value for each patient, in one unit; pairs with a ``nan`` are left out and counted. Fewer
            than two pairs give ``nan``.

    Example:
        >>> found = bland_altman([11.0, 12.0, 16.0], [10.0, 10.0, 13.0])
        >>> round(found.bias, 2), round(found.low, 2), round(found.high, 2)
        (2.0, 0.04, 3.96)
    """
    pairs, left_out = known(columns(first, second))
    differences = pairs[0] - pairs[1]
    n = len(differences)
    if n < 2:
        unknown = Interval(nan, nan)
        return Agreement(nan, unknown, nan, nan, unknown, unknown, n, left_out)
    bias, sd = float(differences.mean()), float(differences.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * sd / sqrt(n)
    # The distance of a true limit from the mean, in units of sd / sqrt(n), follows a noncentral t.
    near, far = (float(x) * sd / sqrt(n) for x in stats.nct.ppf([0.025, 0.975], n - 1, REACH * sqrt(n)))
    return Agreement(
        bias=bias,
        bias_interval=Interval(bias - half, bias + half),
        low=bias - REACH * sd,
        high=bias + REACH * sd,
        low_interval=Interval(bias - far, bias - near),
        high_interval=Interval(bias + near, bias + far),
        n=n,
        left_out=left_out,
    )

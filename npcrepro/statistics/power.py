"""What a number of patients can show: t-test power for paired differences at 5 %, with a chance of 80 %."""

from math import asinh, atanh, inf, isnan, nan, sqrt

from scipy import optimize, stats

ALPHA = 0.05
CHANCE = 0.8


def detectable(n: int, sd: float, equivalence: bool = False) -> float:
    """The smallest mean difference that ``n`` patients show in 80 of 100 cohorts.

    Args:
        sd: of the paired differences.
        equivalence: the smallest margin inside which they show two equal methods to be alike.

    Returns:
        In the unit of ``sd``; ``nan`` for fewer than two patients or an unknown sd.

    Example:
        >>> round(detectable(n=20, sd=0.05), 3)
        0.033
    """
    if n < 2:
        return nan
    chance = _chance_of_equivalence if equivalence else _chance_of_difference
    largest = 1 / sqrt(n)
    while chance(n, largest) < CHANCE:
        largest *= 2
    return float(optimize.brentq(lambda effect: chance(n, effect) - CHANCE, 0, largest)) * sd


def patients_needed(effect: float, sd: float, equivalence: bool = False) -> int:
    """How many patients show a mean difference of ``effect`` in 80 of 100 cohorts.

    Args:
        effect: difference, or with ``equivalence`` the margin inside which two equal methods are to be shown alike.
        sd: of the paired differences.

    Raises:
        ValueError: an effect of 0, or an sd that is not positive and finite, which no number of patients shows.

    Example:
        >>> patients_needed(0.02, sd=0.08)
        128
    """
    if not abs(effect) > 0 or not 0 < sd < inf:
        raise ValueError(f"effect {effect} and sd {sd}: an effect other than 0 and a positive sd are needed")
    chance = _chance_of_equivalence if equivalence else _chance_of_difference
    few, enough = 1, 2
    while chance(enough, abs(effect) / sd) < CHANCE:
        few, enough = enough, 2 * enough
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if chance(middle, abs(effect) / sd) >= CHANCE else (middle, enough)
    return enough


def detectable_spread(n: int, correlation: float) -> float:
    """The ratio of two standard deviations above 1 that the Pitman-Morgan test shows in 80 of 100 cohorts.

    Args:
        n: patients.
        correlation: of the two methods over patients.

    Returns:
        ``nan`` for fewer than four patients or an unknown correlation; 1 for a correlation of 1 or -1, as every
        difference shows then. Its inverse is the ratio below 1.
    """
    if n < 4 or isnan(correlation):
        return nan
    if abs(correlation) >= 1:
        return 1.0
    # The correlation of sum and difference that n pairs show, by Fisher's transformation with its bias.
    critical = stats.t.ppf(1 - ALPHA / 2, n - 2)
    reach = asinh(critical / sqrt(n - 2)) + stats.norm.ppf(CHANCE) / sqrt(n - 3)
    wanted = optimize.brentq(lambda true: atanh(true) + true / (2 * (n - 1)) - reach, 0, 1 - 1e-12)

    def shown(ratio: float) -> float:
        return (ratio**2 - 1) / sqrt((ratio**2 + 1) ** 2 - 4 * (correlation * ratio) ** 2) - wanted

    return float(optimize.brentq(shown, 1, 1e6))


def _chance_of_difference(n: int, effect: float) -> float:
    """Of significance on the side of the effect; on the other side it would show the opposite."""
    return float(stats.nct.sf(stats.t.ppf(1 - ALPHA / 2, n - 1), n - 1, effect * sqrt(n)))


def _chance_of_equivalence(n: int, margin: float) -> float:
    return max(0.0, 2 * float(stats.nct.sf(stats.t.ppf(1 - ALPHA, n - 1), n - 1, margin * sqrt(n))) - 1)

"""Numbers and lists in words, for captions, tables and messages."""

from collections.abc import Iterable, Sequence

DASH = "–"  # in a table, where there is no value


def plural(number: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> plural(1, "run"), plural(1200, "run")
        ('1 run', '1,200 runs')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def in_words(values: Iterable[object], form: str = "") -> str:
    """``A, B and C``, each formatted by ``form``; ``none`` if there are no values.

    Example:
        >>> in_words("ABC"), in_words([0.5, 0.25], ".2f"), in_words([])
        ('A, B and C', '0.50 and 0.25', 'none')
    """
    *first, last = [format(value, form) for value in values] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def signed(value: float) -> str:
    """A difference with its sign and three decimals; more of them where it would look like 0 and is not.

    Example:
        >>> signed(0.0573), signed(-0.0004), signed(0.0)
        ('+0.057', '-0.0004', '+0.000')
    """
    digits = next((digits for digits in (3, 4, 5) if round(value, digits)), 3)
    return f"{value:+z.{digits}f}"


def percent(share: float, digits: int = 0) -> str:
    """A share of 1 in per cent.

    Example:
        >>> percent(0.256), percent(0.256, 1)
        ('26 %', '25.6 %')
    """
    return f"{100 * share:.{digits}f} %"


def span(numbers: Sequence[int]) -> str:
    """The smallest and the largest number; one number where all are equal, a dash for none.

    Example:
        >>> span([16, 15, 16]), span([1, 1]), span([])
        ('15 to 16', '1', '–')
    """
    return " to ".join(f"{number:,}" for number in sorted({min(numbers), max(numbers)})) if numbers else DASH


def seeds_line(seeds: Sequence[int]) -> str:
    """Seeds in a caption; more than three that follow each other by the first and the last.

    Example:
        >>> seeds_line([0]), seeds_line([0, 1, 2]), seeds_line([0, 1, 2, 3])
        ('seed 0', 'seeds 0, 1, 2', 'seeds 0 to 3')
    """
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 3 and list(seeds) == list(range(first, last + 1)):
        return f"seeds {first} to {last}"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def middle(count: int, leader: str) -> str:
    """Which patient a figure shows: the median one of ``count`` patients by the DSC of ``leader``.

    Example:
        >>> middle(2, "U-Net"), middle(5, "U-Net")
        ('the worse of 2 patients by the DSC of U-Net', 'in the middle of 5 patients by the DSC of U-Net')
    """
    if count == 1:
        return "the only patient that the first fold tests"
    place = "the worse of 2 patients" if count == 2 else f"in the middle of {count} patients"
    return f"{place} by the DSC of {leader}"

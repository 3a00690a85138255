"""What a check is, and the table that all of them make."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from npcrepro.base.errors import one_of, pick
from npcrepro.base.wording import DASH
from npcrepro.findings.tally import tally, text_table
from npcrepro.protocol import registry

VERDICTS = {
    "consistent": "the numbers fit together",
    "rounding": "they fit only if a last digit may move",
    "inconsistent": "two statements cannot both be right, or are very unlikely together",
    "impossible": "a number violates an identity or an inequality",
    "not stated": "the paper leaves out the setting, the definition, the spread or the row that the check asks for",
    "cannot tell": "what is reported fits more than one answer",
}
AS_REPORTED = "As reported."  # the reading of a check in which nothing needs saving
TINY = 1e-9  # printed decimals are not exact in binary
Reported = Mapping[str, Any]  # content of a paper's YAML file


@dataclass(frozen=True)
class Finding:
    """What a check computed.

    Attributes:
        verdict: one of :data:`VERDICTS`.
        computed: the computation in sentences, every number in them computed.
        numbers: the same by name, for prose and figures.
    """

    verdict: str
    computed: tuple[str, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(VERDICTS, self.verdict, "verdict")


Compute = Callable[..., Finding]


@dataclass(frozen=True)
class Check:
    """One question to the printed numbers of a paper.

    Attributes:
        key, paper: ``"L01"``, and ``"li2018"``, in whose ``audit.py`` it is written.
        claim, where: what the paper prints or implies, and the place.
        reading: under which the paper is right, or nearest to it.
        consequence: for the reproduction.
        compute: the finding from the content of the paper's YAML file.

    Example:
        >>> from npcrepro.protocol.registry import reported
        >>> CHECKS["L01"].compute(reported("li2018")).verdict
        'consistent'
    """

    key: str
    paper: str
    claim: str
    where: str
    consequence: str
    compute: Callable[[Reported], Finding]
    reading: str = AS_REPORTED


class Result(NamedTuple):
    """A check and what it found."""

    check: Check
    finding: Finding


CHECKS: dict[str, Check] = {}


def check(key: str, *given: str, **about: str) -> Callable:
    """Register a function as the computation of a check.

    Args:
        given: for the function behind the content of the YAML file, where it is that of several checks.
        about: the texts of :class:`Check`.
    """

    def register(compute: Compute) -> Compute:
        if key in CHECKS:
            raise ValueError(f"there are two checks {key}")
        paper = compute.__module__.split(".")[-2]
        CHECKS[key] = Check(key, paper, compute=lambda reported: compute(reported, *given), **about)
        return compute

    return register


def audit(keys: Iterable[str] = ()) -> list[Result]:
    """Findings of the checks called ``keys``, or of all, in the order of the papers.

    Raises:
        InputError: an unknown key, with the near miss.

    Example:
        >>> [result.finding.verdict for result in audit(["L10"])]
        ['inconsistent']
    """
    wanted = [pick(CHECKS, key, "check") for key in keys] or CHECKS.values()
    ordered = sorted(wanted, key=lambda each: (registry.KEYS.index(each.paper), each.key))
    return [Result(each, each.compute(registry.reported(each.paper))) for each in ordered]


def table(results: Sequence[Result]) -> pd.DataFrame:
    """One row for each check, as a data frame."""
    columns = {
        "check": lambda one: one.check.key,
        "paper": lambda one: one.check.paper,
        "verdict": lambda one: one.finding.verdict,
        "printed": lambda one: one.check.claim,
        "where": lambda one: one.check.where,
        "saved by": lambda one: DASH if one.check.reading == AS_REPORTED else one.check.reading,
        "computed": lambda one: " ".join(one.finding.computed),
        "consequence": lambda one: one.check.consequence,
    }
    return text_table(results, columns)


def counts(results: Sequence[Result]) -> pd.DataFrame:
    """How many checks of each paper came to each verdict, with sums, as a data frame."""
    return tally(table(results), by="paper", of="verdict", order=VERDICTS)


# --- What the checks of several papers need -----------------------------------------------------------------------


def half(reported: Reported, column: str) -> float:
    """Half a unit of the last printed digit of a column: what rounding may hide."""
    return 0.5 * 10.0 ** -reported["decimals"][column]


def reach(function: Callable, *columns: tuple[Any, float]) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of a function over everything that the printed numbers may stand for.

    Args:
        function: of one array for each column, monotone in each of them.
        columns: printed values and the half unit of their last digit.

    Example:
        >>> low, high = reach(lambda a, b: a / b, (8.0, 0.5), (4.0, 0.5))
        >>> round(float(low), 3), round(float(high), 3)
        (1.667, 2.429)
    """
    corners = [
        function(*(np.asarray(values) + sign * size for (values, size), sign in zip(columns, signs, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(columns))
    ]
    return np.min(corners, axis=0), np.max(corners, axis=0)


def within(printed: Any, size: float, low: Any, high: Any) -> np.ndarray:
    """Whether printed numbers, each known within ``size``, can lie between ``low`` and ``high``."""
    printed = np.asarray(printed)
    return (printed + size >= np.asarray(low) - TINY) & (printed - size <= np.asarray(high) + TINY)


def jsc_of(dsc: Any) -> Any:
    """JSC of the mask that has this DSC: D / (2 - D)."""
    return dsc / (2 - dsc)


def fits_f1_of_means(dsc: Any, f1: Any, size: float) -> np.ndarray:
    """Whether each F1 can be that of the mean precision P and the mean recall R, and each DSC the mean over the masks.

    For one mask DSC = 2 P R / (P + R). That is concave, so that F1 of the means is never below the mean DSC; and it is
    at least P + R - 1, whose mean is at least 2 F1 - 1, for the mean of P and R is at least F1.

    ``size`` is half a unit of the last printed digit.

    Example:
        >>> fits_f1_of_means([0.70, 0.70, 0.80], [0.75, 0.65, 0.95], 0.005).tolist()
        [True, False, False]
    """
    dsc, f1 = np.asarray(dsc), np.asarray(f1)
    return (f1 + size >= dsc - size - TINY) & (dsc + size >= 2 * (f1 - size) - 1 - TINY)


def halvings(size: int) -> int:
    """How often a side can be halved exactly.

    Example:
        >>> halvings(24)
        3
    """
    return (size & -size).bit_length() - 1


def spent_after(share: float, decay: float, every: int) -> float:
    """Iterations after which a share of the sum of all learning rates is spent."""
    return every * log(1 - share) / log(decay)

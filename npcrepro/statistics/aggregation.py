"""From one value for each patient to a mean that says what became of undefined values."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike

from npcrepro.base.errors import one_of
from npcrepro.base.wording import DASH
from npcrepro.statistics.intervals import bootstrap

RULES = ("leave_out", "worst", "both_empty_is_one")


@dataclass(frozen=True)
class Filled:
    """Values after a rule for undefined ones.

    Attributes:
        values: as many as were given; ``nan`` where a value is left out.
        counted: how many undefined values became a number.
        rule: the rule in words, for the caption of a table.
    """

    values: np.ndarray
    counted: int
    rule: str


def fill(
    values: ArrayLike,
    rule: str = "leave_out",
    statuses: Sequence[str] | None = None,
    worst: ArrayLike | None = None,
) -> Filled:
    """Apply a rule to undefined values (``nan``).

    Args:
        rule: ``"leave_out"`` leaves them out. ``"worst"`` counts them as the worst value of the metric, or leaves them
            out where ``statuses`` says that both masks are empty, because nothing was missed. ``"both_empty_is_one"``
            counts both masks empty as 1, and the others as ``worst`` if that is given.
        statuses: of each value, see :attr:`npcrepro.metrics.overlap.Counts.status`.
        worst: what a failure counts as: 0 for DSC; for a distance, for instance the diagonal of each image.

    Raises:
        InputError: unknown rule.
        ValueError: the rule needs ``worst`` or ``statuses``, lengths differ, or a value is infinite.

    Example:
        >>> filled = fill([0.8, float('nan'), 0.6], "worst", worst=0, statuses=["ok", "pred_empty", "ok"])
        >>> filled.values.tolist(), filled.counted
        ([0.8, 0.0, 0.6], 1)
    """
    one_of(RULES, rule, "rule for undefined values")
    filled = np.array(values, dtype=float)
    if np.isinf(filled).any():
        raise ValueError("an infinite value has no mean; metrics give nan and a status instead")
    if rule == "worst" and worst is None:
        raise ValueError("the rule 'worst' needs the worst value of the metric")
    if worst is not None and np.isinf(worst).any():
        raise ValueError(
            "an infinite worst value has no mean; give the largest that can be, as the diagonal of an image"
        )
    if worst is not None and np.ndim(worst) and np.shape(worst) != filled.shape:
        raise ValueError(f"{np.size(worst)} worst values for {len(filled)} values")
    if rule == "both_empty_is_one" and statuses is None:
        raise ValueError("the rule 'both_empty_is_one' needs the status of each value")
    if statuses is not None and len(statuses) != len(filled):
        raise ValueError(f"{len(statuses)} statuses for {len(filled)} values")
    undefined = np.isnan(filled)
    both_empty = undefined & (np.array(["ok"] * len(filled) if statuses is None else statuses) == "both_empty")
    if rule == "both_empty_is_one":
        filled[both_empty] = 1
    if rule != "leave_out" and worst is not None:
        failed = undefined & ~both_empty
        filled[failed] = np.broadcast_to(worst, filled.shape)[failed]
    counted = int(undefined.sum() - np.isnan(filled).sum())
    return Filled(filled, counted, _in_words(rule, statuses is not None, worst))


def _in_words(rule: str, with_statuses: bool, worst: ArrayLike | None) -> str:
    number = "" if worst is None else f"{worst:g}" if np.ndim(worst) == 0 else "the worst value"
    if rule == "worst":
        empty = ", and are left out where both masks are empty" if with_statuses else ""
        return f"undefined values count as {number}{empty}"
    if rule == "both_empty_is_one":
        others = f"count as {number}" if number else "are left out"
        return f"both masks empty counts as 1, other undefined values {others}"
    return "undefined values are left out"


@dataclass(frozen=True)
class Summary:
    """A mean with what is needed to judge it.

    Attributes:
        mean, sd: of the values that are numbers (sd with n - 1).
        n: how many those are.
        left_out: how many were undefined and are not among the n.
        low, high: 95 % bootstrap interval of the mean (bias-corrected and accelerated); ``nan`` for n < 3.
        smallest, largest: range.
        counted: how many of the n were undefined and count as a number.
        rule: what was done with undefined values, in words.
    """

    mean: float
    sd: float
    n: int
    left_out: int
    low: float
    high: float
    smallest: float
    largest: float
    counted: int
    rule: str

    @property
    def mean_and_sd(self) -> str:
        """``0.52 ± 0.11``; n is added where a value was undefined, with what became of it."""
        if not self.n:
            return f"no value ({self.left_out} undefined)"
        spread = "" if np.isnan(self.sd) else f" ± {self.sd:.2f}"
        left_out = f", {self.left_out} left out" if self.left_out else ""
        counted = f", {self.counted} undefined counted in" if self.counted else ""
        return f"{self.mean:.2f}{spread}" + (f" (n = {self.n}{left_out}{counted})" if left_out or counted else "")

    @property
    def interval(self) -> str:
        """``0.40 to 0.61``, or a dash."""
        return DASH if np.isnan(self.low) else f"{self.low:.2f} to {self.high:.2f}"

    @property
    def range(self) -> str:
        """``0.12 to 0.80``, or a dash."""
        return f"{self.smallest:.2f} to {self.largest:.2f}" if self.n else DASH

    def __str__(self) -> str:
        if not self.n:
            return self.mean_and_sd
        n = "" if self.left_out or self.counted else f", n = {self.n}"
        return f"{self.mean_and_sd}, 95 % interval {self.interval}{n}"


def summarise(
    values: ArrayLike,
    seed: int = 0,
    *,
    rule: str = "leave_out",
    statuses: Sequence[str] | None = None,
    worst: ArrayLike | None = None,
) -> Summary:
    """Summary of one value for each patient; an empty input gives ``nan`` with n = 0.

    ``rule``, ``statuses`` and ``worst`` are those of :func:`fill`, with its errors.

    Example:
        >>> summarise([0.5, float("nan"), 0.7]).n
        2
        >>> summarise([0.5, float("nan"), 0.7], rule="worst", worst=0).mean
        0.39999999999999997
    """
    filled = fill(values, rule, statuses, worst)
    kept = filled.values[~np.isnan(filled.values)]
    left_out = len(filled.values) - len(kept)
    if not len(kept):
        return Summary(nan, nan, 0, left_out, nan, nan, nan, nan, 0, filled.rule)
    low, high = bootstrap((kept,), seed=seed)
    sd = float(kept.std(ddof=1)) if len(kept) > 1 else nan
    reach = float(kept.min()), float(kept.max())
    return Summary(float(kept.mean()), sd, len(kept), left_out, low, high, *reach, filled.counted, filled.rule)


def columns(*lists: ArrayLike) -> np.ndarray:
    """Lists with one value for each patient as an array ``(lists, patients)``.

    Raises:
        ValueError: the lists differ in length.
    """
    if len({len(np.atleast_1d(each)) for each in lists}) != 1:
        lengths = " against ".join(str(len(np.atleast_1d(each))) for each in lists)
        raise ValueError(f"{lengths} values: every patient needs one value in each list")
    return np.array(lists, dtype=float)


def known(table: np.ndarray) -> np.ndarray:
    """The patients ``(lists, patients)`` with a value in every list."""
    return table[:, ~np.isnan(table).any(axis=0)]

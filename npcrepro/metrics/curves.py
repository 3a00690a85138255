"""Metrics of scores without a threshold, from the numbers of voxels at every distinct score.

As for masks, counts come first: counts of several images add up to the pooled ones. Equal scores are one threshold.

| here | in the papers |
|---|---|
| `ScoreCounts.average_precision` | AP of Chen 2020: precision times step of recall, at every distinct score |
| `ScoreCounts.auc` | AUC of Luo 2020, by the ranks of the reference voxels among all |
| `ScoreCounts.soft_dice` | 1 - loss of Chen 2020 with no smoothing term |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nan

import numpy as np

from npcrepro.metrics.overlap import Counts

BYTE_LEVELS = 256
CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Voxels inside and outside the reference, for every distinct score.

    Attributes:
        scores: ``(n,)``, ascending, each once.
        positives: ``(n,)``, voxels of the reference with that score.
        negatives: ``(n,)``, voxels outside the reference with that score.

    Example:
        >>> counts = count_scores(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 1, 0, 1]))
        >>> counts.positives.tolist(), counts.auc
        ([0, 1, 1], 0.875)
    """

    scores: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def __add__(self, other: ScoreCounts) -> ScoreCounts:
        scores = np.union1d(self.scores, other.scores)
        sums = np.zeros((2, len(scores)), dtype=np.int64)
        for part in (self, other):
            sums[:, np.searchsorted(scores, part.scores)] += part.positives, part.negatives
        return ScoreCounts(scores, *sums)

    def at(self, threshold: float) -> Counts:
        """Counts of the mask of the scores that reach a threshold.

        Example:
            >>> count_scores(np.array([0.1, 0.4, 0.9]), np.array([0, 1, 1])).at(0.4)
            Counts(tp=2, fp=0, fn=0, tn=1)
        """
        inside = self.scores >= threshold
        tp, fp = int(self.positives[inside].sum()), int(self.negatives[inside].sum())
        return Counts(tp, fp, int(self.positives.sum()) - tp, int(self.negatives.sum()) - fp)

    @property
    def status(self) -> str:
        """``ok``, ``no_voxels``, ``ref_empty`` (no voxel in the reference) or ``ref_full`` (none outside)."""
        inside, outside = self.positives.any(), self.negatives.any()
        if inside and outside:
            return "ok"
        if inside:
            return "ref_full"
        return "ref_empty" if outside else "no_voxels"

    @property
    def average_precision(self) -> float:
        """Sum of precision times step of recall over all distinct scores, in [0, 1]; ``nan`` if the reference is empty.

        Nothing is interpolated (scikit-learn's definition).
        """
        inside = np.flatnonzero(self.positives)[::-1]  # recall has no step elsewhere
        if not inside.size:
            return nan
        found = np.cumsum(self.positives[inside])
        wrong = np.cumsum(self.negatives[::-1])[len(self.scores) - 1 - inside]
        return float(np.sum(self.positives[inside] * (found / (found + wrong))) / found[-1])

    @property
    def auc(self) -> float:
        """Area under the ROC curve by ranks, in [0, 1]; equal scores share the mean of their ranks. So probabilities
        that were rounded, as those of runs to 1/255, make it too low where a structure is partly missed.

        The chance that one of the n reference voxels has a higher score than one of the m others: (S - n(n + 1)/2)
        / (n m), with S the sum of the ranks of the reference voxels. ``nan`` unless ``status`` is ``ok``.
        """
        if self.status != "ok":
            return nan
        inside = np.flatnonzero(self.positives)
        n, m = int(self.positives.sum()), int(self.negatives.sum())
        below = np.cumsum(self.negatives)[inside]
        # Twice the number of pairs in the right order, a tie being half a pair: whole numbers up to 3e9 voxels.
        pairs = np.sum(self.positives[inside] * (2 * below - self.negatives[inside]))
        return int(pairs) / (2 * n * m)

    @property
    def soft_dice(self) -> float:
        """2 sum(p g) / (sum(p) + sum(g)) of probabilities p and reference g; ``nan`` if both sums are 0."""
        if self.scores.size and not 0 <= self.scores[0] <= self.scores[-1] <= 1:
            raise ValueError(f"scores from {self.scores[0]} to {self.scores[-1]} are no probabilities")
        probability = self.scores.astype(np.float64)
        whole = np.sum((self.positives + self.negatives) * probability) + self.positives.sum()
        return float(2 * np.sum(self.positives * probability) / whole) if whole else nan


def count_scores(scores: np.ndarray, reference: np.ndarray, levels: int | None = None) -> ScoreCounts:
    """Counts at every distinct score.

    Args:
        scores: any shape. Bytes (``uint8``) are probabilities in steps of 1/255; for other types, larger means more
            likely inside, and only soft Dice needs probabilities.
        reference: of the same shape; what is not zero is inside.
        levels: None keeps every distinct score, at up to 32 bytes each. A number rounds probabilities to that many
            evenly spaced ones, which limits the memory; with 65536 the error of a score is below 8e-6.

    Raises:
        ValueError: shapes differ, a score is not a number, or ``levels`` with scores outside [0, 1].

    Example:
        >>> counts = count_scores(np.array([0, 255, 255], np.uint8), np.array([0, 0, 1]))
        >>> counts.scores.tolist(), counts.positives.tolist(), counts.negatives.tolist()
        ([0.0, 1.0], [0, 1], [1, 1])
    """
    scores, reference = np.asarray(scores), np.asarray(reference, dtype=bool)
    if scores.shape != reference.shape:
        raise ValueError(f"scores have the shape {scores.shape}, reference {reference.shape}")
    if scores.dtype == np.uint8:
        return _histogram(scores.ravel(), reference.ravel(), BYTE_LEVELS, lambda codes: codes)
    if np.isnan(scores).any():
        raise ValueError(f"{np.count_nonzero(np.isnan(scores))} of {scores.size} scores are not a number")
    if levels is None:
        return _distinct(scores.ravel(), reference.ravel())
    if scores.size and not 0 <= scores.min() <= scores.max() <= 1:
        raise ValueError(f"scores from {scores.min()} to {scores.max()} are no probabilities: levels cannot be used")
    return _histogram(scores.ravel(), reference.ravel(), levels, lambda part: np.rint(part * float(levels - 1)))


def _histogram(
    scores: np.ndarray, reference: np.ndarray, levels: int, code: Callable[[np.ndarray], np.ndarray]
) -> ScoreCounts:
    counts = np.zeros(2 * levels, dtype=np.int64)
    for first in range(0, len(scores), CHUNK):
        part = slice(first, first + CHUNK)
        counts += np.bincount(2 * code(scores[part]).astype(np.intp) + reference[part], minlength=2 * levels)
    negatives, positives = counts.reshape(levels, 2).T
    used = np.flatnonzero(positives + negatives)
    return ScoreCounts(used / (levels - 1), positives[used], negatives[used])


def _distinct(scores: np.ndarray, reference: np.ndarray) -> ScoreCounts:
    distinct, voxels = np.unique(scores, return_counts=True)
    inside, count = np.unique(scores[reference], return_counts=True)
    positives = np.zeros(len(distinct), dtype=np.int64)
    positives[np.searchsorted(distinct, inside)] = count
    return ScoreCounts(distinct, positives, voxels - positives)

"""Metrics of scores, before any threshold: from counts at every distinct score.

As for masks, counts come first: how often each score was given to voxels inside and outside the reference. All else is
computed from these, equal scores count as one threshold, and counts of several images add up to the pooled ones.

| here | in the papers |
|---|---|
| `ScoreCounts.average_precision` | AP of Chen 2020: precision times step of recall, at every distinct score |
| `ScoreCounts.auc` | AUC of Luo 2020, by the ranks of the reference voxels among all |
| `ScoreCounts.soft_dice` | 1 - loss of Chen 2020 with no smoothing term |
| `ScoreCounts.soft_dice_squared` | DSC of Luo 2020 as printed, with squared norms below; the soft form of V-Net |
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

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
        """Area under the ROC curve by ranks, in [0, 1]; equal scores share the mean of their ranks.

        (S - n(n + 1)/2) / (n m) with S the sum of the ranks of the n reference voxels and m the others, which is the
        chance that a voxel of the reference has a higher score than one outside. ``nan`` unless ``status`` is ``ok``.
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
        return self._soft_dice(self._probability)

    @property
    def soft_dice_squared(self) -> float:
        """2 sum(p g) / (sum(p²) + sum(g)); ``nan`` if both sums are 0."""
        return self._soft_dice(np.square(self._probability))

    def precision_recall(self, points: int = 200) -> PrecisionRecall:
        """Precision and recall at some of the distinct scores, from the highest down, for a figure.

        Args:
            points: at most so many, spread evenly over recall; 2 or more. The first and the last are kept.

        Returns:
            No points if the reference is empty.
        """
        if not self.positives.any():
            return PrecisionRecall(*np.empty((3, 0)))
        found, wrong = np.cumsum(self.positives[::-1]), np.cumsum(self.negatives[::-1])
        recall = found / found[-1]
        wanted = np.linspace(recall[0], 1, points - 1)  # and the last point, at the lowest score
        kept = np.unique([*np.searchsorted(recall, wanted), len(recall) - 1]) if len(recall) > points else ...
        return PrecisionRecall(self.scores[::-1][kept], (found / (found + wrong))[kept], recall[kept])

    def reliability(self, bins: int = 15) -> Reliability:
        """Mean probability against the share inside the reference, in bins of equal width over [0, 1].

        A probability on the boundary of two bins belongs to the lower one (Guo C. et al. 2017, arXiv:1706.04599), and
        the bins are of the probability of the structure, not of the more likely class.

        Raises:
            ValueError: scores that are no probabilities.
        """
        probability = self._probability
        place = np.searchsorted(np.arange(1, bins) / bins, probability, side="left")
        voxels = self.positives + self.negatives
        n = np.bincount(place, voxels, bins).astype(np.int64)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(place, voxels * probability, bins) / n
            share = np.bincount(place, self.positives, bins) / n
        return Reliability(np.arange(bins + 1) / bins, mean, share, n)

    def expected_calibration_error(self, bins: int = 15) -> float:
        """Mean distance of probability and share over the bins of `reliability`, weighted by voxels, in [0, 1].

        ``nan`` without voxels. Background far from the structure is most of an image and is easy: crop first, or say
        over what was averaged.
        """
        table = self.reliability(bins)
        full = table.voxels > 0
        if not full.any():
            return nan
        return float(np.average(np.abs(table.mean - table.share)[full], weights=table.voxels[full]))

    @property
    def _probability(self) -> np.ndarray:
        if self.scores.size and not 0 <= self.scores[0] <= self.scores[-1] <= 1:
            raise ValueError(f"scores from {self.scores[0]} to {self.scores[-1]} are no probabilities")
        return self.scores.astype(np.float64)

    def _soft_dice(self, size: np.ndarray) -> float:
        whole = np.sum((self.positives + self.negatives) * size) + self.positives.sum()
        return float(2 * np.sum(self.positives * self._probability) / whole) if whole else nan


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Points of a curve: ``scores`` from the highest down, ``precision`` and ``recall`` of all voxels at or above."""

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


@dataclass(frozen=True, eq=False)
class Reliability:
    """One row for each bin.

    Attributes:
        edges: ``(bins + 1,)``, from 0 to 1.
        mean: ``(bins,)``, mean probability; ``nan`` in an empty bin.
        share: ``(bins,)``, share of the voxels inside the reference; ``nan`` in an empty bin.
        voxels: ``(bins,)``.
    """

    edges: np.ndarray
    mean: np.ndarray
    share: np.ndarray
    voxels: np.ndarray


def count_scores(scores: np.ndarray, reference: np.ndarray, levels: int | None = None) -> ScoreCounts:
    """Counts at every distinct score.

    Args:
        scores: any shape. Bytes (``uint8``) are probabilities in steps of 1/255. Else numbers of which larger means
            more likely inside; only calibration and soft Dice ask for probabilities.
        reference: of the same shape; what is not zero is inside.
        levels: None keeps every distinct score, at up to 32 bytes each. A number rounds probabilities to that many
            evenly spaced ones, which bounds the memory; with 65536 the error of a rounded score is below 8e-6.

    Raises:
        ValueError: shapes differ, a score is not a number, or ``levels`` with scores outside [0, 1].
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


def _histogram(scores: np.ndarray, reference: np.ndarray, levels: int, code) -> ScoreCounts:
    counts = np.zeros(2 * levels, dtype=np.int64)
    for first in range(0, len(scores), CHUNK):
        part = slice(first, first + CHUNK)
        counts += np.bincount(2 * code(scores[part]).astype(np.intp) + reference[part], minlength=2 * levels)
    negatives, positives = counts.reshape(levels, 2).T
    used = np.flatnonzero(positives + negatives)
    return ScoreCounts(used / (levels - 1), positives[used], negatives[used])


def _distinct(scores: np.ndarray, reference: np.ndarray) -> ScoreCounts:
    everything = np.sort(scores)
    last = np.append(np.flatnonzero(everything[1:] != everything[:-1]), len(everything) - 1) if len(scores) else []
    distinct = everything[last] if len(scores) else everything
    voxels = np.diff(last, prepend=-1)
    inside, count = np.unique(scores[reference], return_counts=True)
    positives = np.zeros(len(distinct), dtype=np.int64)
    positives[np.searchsorted(distinct, inside)] = count
    return ScoreCounts(distinct, positives, voxels - positives)

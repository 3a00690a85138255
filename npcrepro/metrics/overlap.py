"""Overlap of two masks, from raw counts.

Counts come first and are kept, so that any other convention can be computed later and so that masks of several slices
or images of one patient can be pooled by adding counts. No metric returns a number for no data: it returns ``nan``, and
:meth:`Counts.status` says why.

| here | Li 2018 prints | formula |
|---|---|---|
| ``dsc`` | DSC (eq. 3) | 2 TP / (2 TP + FP + FN) |
| ``jsc`` | JSC (eq. 6) | TP / (TP + FP + FN) |
| ``sensitivity`` | PM (eq. 5), and "precision" (eq. 2) | TP / (TP + FN) |
| ``precision`` | "recall" (eq. 1) | TP / (TP + FP) |
| ``corresponding_ratio`` | CR (eq. 4) | (TP - FP/2) / (TP + FN) |
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Voxels in which prediction and reference agree or differ.

    Attributes:
        tp, fp, fn, tn: true positive, false positive, false negative, true negative.

    Example:
        >>> Counts(tp=2, fp=1, fn=1, tn=4).dsc
        0.6666666666666666
        >>> Counts(tp=0, fp=3, fn=0, tn=5).status
        'ref_empty'
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def status(self) -> str:
        """``ok``, ``both_empty``, ``ref_empty`` (reference empty) or ``pred_empty`` (prediction empty)."""
        reference, prediction = self.tp + self.fn > 0, self.tp + self.fp > 0
        if reference and prediction:
            return "ok"
        if reference:
            return "pred_empty"
        return "ref_empty" if prediction else "both_empty"

    @property
    def dsc(self) -> float:
        """Dice similarity coefficient in [0, 1]; ``nan`` if both masks are empty, 0 if one is."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def jsc(self) -> float:
        """Jaccard similarity coefficient in [0, 1]; ``nan`` if both masks are empty, 0 if one is."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def sensitivity(self) -> float:
        """Share of the reference that was found, in [0, 1]; ``nan`` if the reference is empty."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the prediction that is right, in [0, 1]; ``nan`` if the prediction is empty."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def specificity(self) -> float:
        """Share of the background left alone, in [0, 1]; ``nan`` if there is no background."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def corresponding_ratio(self) -> float:
        """Corresponding ratio (Li 2018, eq. 4), at most 1, no lower bound; ``nan`` if the reference is empty."""
        return _ratio(self.tp - 0.5 * self.fp, self.tp + self.fn)


METRICS = ("dsc", "jsc", "sensitivity", "precision", "specificity", "corresponding_ratio")


def count(prediction: np.ndarray, reference: np.ndarray) -> Counts:
    """Counts of two boolean masks of one shape.

    Raises:
        ValueError: shapes differ.
    """
    prediction, reference = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has the shape {prediction.shape}, reference {reference.shape}")
    both = int(np.count_nonzero(prediction & reference))
    fp = int(np.count_nonzero(prediction)) - both
    fn = int(np.count_nonzero(reference)) - both
    return Counts(tp=both, fp=fp, fn=fn, tn=reference.size - both - fp - fn)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else nan

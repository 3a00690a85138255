"""Overlap of two masks, from raw counts.

Counts are kept, so that other metrics can be computed later and slices or images of one patient can be pooled by adding
counts. A metric without data is ``nan``, and :attr:`Counts.status` says why.

| here | in the papers | formula |
|---|---|---|
| ``dsc`` | DSC of all papers (Li 2018, eq. 3); F1 of Luo 2020 and Guo 2021 (eq. 10) | 2 TP / (2 TP + FP + FN) |
| ``jsc`` | JSC (Li 2018, eq. 6; Luo 2020), JI (Xue 2020) | TP / (TP + FP + FN) |
| ``sensitivity`` | PM (Li 2018, eq. 5) and Li's "precision" (eq. 2); recall of the others | TP / (TP + FN) |
| ``precision`` | Li's "recall" (eq. 1); precision of the others | TP / (TP + FP) |
| ``corresponding_ratio`` | CR (Li 2018, eq. 4) | (TP - FP/2) / (TP + FN) |
| `f1_of_means` | what Guo 2021 may have printed as F1, which differs from its DSC | 2 PR / (P + R) of mean P, R |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, prod

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
        # Li 2018, eq. 3: DSC = 2 TP / (2 TP + FP + FN)
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
        # Li 2018, eq. 4: CR = (TP - FP/2) / (TP + FN)
        return _ratio(self.tp - 0.5 * self.fp, self.tp + self.fn)

    @property
    def relative_volume_difference(self) -> float:
        """(Predicted - reference volume) / reference volume, -1 or more; ``nan`` if the reference is empty."""
        return _ratio(self.fp - self.fn, self.tp + self.fn)

    def predicted_ml(self, spacing_mm: Sequence[float]) -> float:
        """Volume of the prediction in ml; ``nan`` where a spacing is."""
        return (self.tp + self.fp) * prod(spacing_mm) / 1000

    def reference_ml(self, spacing_mm: Sequence[float]) -> float:
        """Volume of the reference in ml; ``nan`` where a spacing is."""
        return (self.tp + self.fn) * prod(spacing_mm) / 1000


METRICS = (
    *("dsc", "jsc", "sensitivity", "precision", "specificity", "corresponding_ratio"),
    "relative_volume_difference",
)


def count(prediction: np.ndarray, reference: np.ndarray) -> Counts:
    """Counts of two boolean masks of one shape.

    Raises:
        ValueError: shapes differ.

    Example:
        >>> count(np.array([1, 1, 0]), np.array([1, 0, 0]))
        Counts(tp=1, fp=1, fn=0, tn=1)
    """
    prediction, reference = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has the shape {prediction.shape}, reference {reference.shape}")
    both = int(np.count_nonzero(prediction & reference))
    fp = int(np.count_nonzero(prediction)) - both
    fn = int(np.count_nonzero(reference)) - both
    return Counts(tp=both, fp=fp, fn=fn, tn=reference.size - both - fp - fn)


def f1_of_means(precisions: Sequence[float], sensitivities: Sequence[float]) -> float:
    """F1 of the mean precision and the mean sensitivity over patients, in [0, 1].

    It is never below the mean of F1 over patients. The two are equal where precision over sensitivity is the same in
    all patients, and the gap grows as that ratio varies from patient to patient. Guo 2021 prints an F1 above the DSC
    for every method, which this reading allows and the formulae given there do not.

    A patient with an undefined value is left out; ``nan`` if none is left.

    Raises:
        ValueError: not as many of one as of the other.

    Example:
        >>> f1_of_means([1.0, 0.5], [0.5, 1.0])  # the DSC of both is 2/3
        0.75
    """
    if len(precisions) != len(sensitivities):
        raise ValueError(f"{len(precisions)} precisions for {len(sensitivities)} sensitivities")
    values = np.array([precisions, sensitivities], dtype=float)
    values = values[:, ~np.isnan(values).any(axis=0)]
    if not values.shape[1]:
        return nan
    precision, sensitivity = values.mean(axis=1).tolist()
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else nan

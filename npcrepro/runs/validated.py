"""What the patients for validation choose once a network is trained, in ``validated.json``.

For each structure: the threshold of the probability, and whether its largest piece alone is better than all of it.
At one fixed threshold, a method that draws too much and one that draws too little differ by where they happen to stand.
Each at the threshold that its own validation patients choose, they differ by what they know.

The patients for validation also chose the weights, so that their DSC is no estimate of that of others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from operator import add
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.base.files import as_data, read_json, write_json
from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.curves import ScoreCounts, count_scores
from npcrepro.metrics.overlap import Counts, count
from npcrepro.metrics.panel import largest_component

THRESHOLDS = tuple(n / 20 for n in range(1, 20))
USUAL = 0.5  # of several thresholds that are as good, the nearest to this one is taken
EQUAL = 1e-9


@dataclass(frozen=True)
class Choice:
    """What was chosen for one structure.

    Attributes:
        threshold: of the probability of the structure by itself; None if no patient for validation shows it.
        dsc: mean over the patients for validation at that threshold.
        dsc_as_decided, dsc_of_largest: the same of the label that the method decides on, and of its largest piece.
        largest_component: whether the label keeps the largest piece alone: the method asks for it, and they gain by it.
        patients: how many for validation have the structure contoured.
    """

    threshold: float | None
    dsc: float | None
    dsc_as_decided: float | None
    dsc_of_largest: float | None
    largest_component: bool
    patients: int


Choices = Mapping[str, Choice]
# Of one patient: by score, of the label as it was decided on, and of its largest piece.
Counted = tuple[ScoreCounts, Counts, Counts]


def validate(
    segmented: Iterable[tuple[str, np.ndarray, np.ndarray]],
    cohort: PreparedCohort,
    structures: Sequence[str],
    keep_largest: bool = False,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Choice]:
    """The choices for each structure.

    The mean DSC over patients decides; cases of a patient are pooled. A patient in whom neither mask shows the
    structure counts as 1, so that all thresholds are judged by the same patients.

    Args:
        segmented: cases of the patients for validation, each with the label that was decided on, ``(z, y, x)``, and the
            probability ``(S, z, y, x)`` in steps of 1/255.
        structures: as in the cohort, in the order of the labels.
        keep_largest: whether a label may keep the largest piece of a structure alone.
        thresholds: that are tried.

    Raises:
        InputError: see `choose_threshold`.
    """
    counts: dict[str, dict[str, Counted]] = {structure: {} for structure in structures}
    for name, label, probability in segmented:
        case = cohort.case(name)
        for number, (structure, of_patient) in enumerate(counts.items()):
            if structure in case.not_contoured:
                continue
            wanted, found = mask_of(np.asarray(case.label), cohort.structures, structure), label == number + 1
            now = (
                count_scores(probability[number], wanted),
                count(found, wanted),
                count(largest_component(found), wanted),
            )
            before = of_patient.get(case.patient)
            of_patient[case.patient] = tuple(map(add, before, now)) if before else now
    return {structure: _choice(list(found.values()), keep_largest, thresholds) for structure, found in counts.items()}


def _choice(patients: Sequence[Counted], keep_largest: bool, thresholds: Sequence[float]) -> Choice:
    threshold, dsc = choose_threshold([scores for scores, _, _ in patients], thresholds)
    decided, largest = _mean(label for _, label, _ in patients), _mean(piece for _, _, piece in patients)
    gains = decided is not None and largest is not None and largest > decided + EQUAL
    return Choice(
        threshold=threshold,
        dsc=dsc,
        dsc_as_decided=decided,
        dsc_of_largest=largest,
        largest_component=keep_largest and gains,
        patients=len(patients),
    )


def choose_threshold(
    patients: Sequence[ScoreCounts], thresholds: Sequence[float] = THRESHOLDS
) -> tuple[float | None, float | None]:
    """The threshold with the best mean DSC over patients, and that DSC; of equals the nearest to 0.5,
    and of two as near the lower.

    None for both if no patient shows the structure.

    Raises:
        InputError: no threshold to choose from, or one that is not above 0 and at most 1.

    Example:
        >>> patient = count_scores(np.array([0.1, 0.3, 0.35, 0.2]), np.array([0, 1, 1, 0]))
        >>> choose_threshold([patient], (0.1, 0.25, 0.5))
        (0.25, 1.0)
    """
    if not thresholds:
        raise InputError("the list of thresholds is empty: give one at least, for instance 0.5")
    wrong = [threshold for threshold in thresholds if not (isfinite(threshold) and 0 < threshold <= 1)]
    if wrong:
        raise InputError(f"{wrong[0]} is no threshold of a probability: above 0, and 1 at most")
    if not any(counts.positives.any() for counts in patients):
        return None, None
    means = {threshold: _mean(counts.at(threshold) for counts in patients) or 0.0 for threshold in thresholds}
    best = max(means.values())
    threshold = min((t for t in means if means[t] > best - EQUAL), key=lambda t: (round(abs(t - USUAL), 9), t))
    return threshold, means[threshold]


def _mean(counts: Iterable[Counts]) -> float | None:
    found = [1.0 if each.status == "both_empty" else each.dsc for each in counts]
    return float(np.mean(found)) if found else None


def keep_largest(label: np.ndarray, choices: Choices | None, structures: Sequence[str]) -> np.ndarray:
    """The label without the smaller pieces of the structures of which the largest alone is kept.

    Example:
        >>> choice = Choice(0.5, 0.8, 0.8, 0.9, True, 3)
        >>> keep_largest(np.array([[1, 0, 1, 1, 0, 2]]), {"GTVp": choice}, ("GTVp", "GTVnd")).tolist()
        [[0, 0, 1, 1, 0, 2]]
    """
    label = label.copy()
    for number, structure in enumerate(structures, 1):
        if choices and structure in choices and choices[structure].largest_component:
            found = label == number
            label[found & ~largest_component(found)] = 0
    return label


def at_threshold(probability: np.ndarray, choice: Choice) -> np.ndarray | None:
    """Mask of a structure at the threshold that was chosen, its largest piece alone where that was chosen too.

    Args:
        probability: in steps of 1/255, or in [0, 1].
    """
    if choice.threshold is None:
        return None
    if probability.dtype == np.uint8:  # the comparison of `ScoreCounts.at`, once for each of 256 values
        mask = (np.arange(256) / 255 >= choice.threshold)[probability]
    else:
        mask = probability >= choice.threshold
    return largest_component(mask) if choice.largest_component else mask


def write_choices(path: Path, choices: Choices) -> None:
    """Write ``validated.json``."""
    write_json(path, {"thresholds": THRESHOLDS, "structures": as_data(choices)})


def read_choices(path: Path) -> dict[str, Choice] | None:
    """What `write_choices` wrote; None for a run that was made before there was any."""
    if not path.exists():
        return None
    return {name: Choice(**choice) for name, choice in read_json(path)["structures"].items()}

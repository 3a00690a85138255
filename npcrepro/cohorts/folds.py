"""Who trains, who validates and who tests: patients, never cases."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from npcrepro.base.errors import InputError, one_of
from npcrepro.base.files import sha256_of
from npcrepro.base.wording import plural
from npcrepro.cohorts.cohort import Cohort

KINDS = ("leave-one-out", "k-fold", "all")


@dataclass(frozen=True)
class Fold:
    """Patients of one fold, each tuple sorted. A patient is in one of them at most, but where a method asks for maps of
    patients that the network was trained on (:class:`npcrepro.protocol.method.Use`)."""

    number: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """The folds of an experiment, as patients. ``sha256`` names them in a record."""

    kind: str
    seed: int
    folds: tuple[Fold, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of kind, seed and folds."""
        return sha256_of(asdict(self))


def as_nnunet(split: Split, cohort: Cohort) -> list[dict[str, list[str]]]:
    """A split as nnU-Net keeps it in ``splits_final.json``: cases by name, ``train`` and ``val`` of each fold.

    ``val`` holds the cases that are tested here, for nnU-Net predicts and scores ``val`` at the end of a fold and does
    not choose its final weights by it. ``train`` holds those that train or validate here, without suspect labels.
    Raises InputError for a patient of the split who is not in the cohort.
    """
    return [
        {
            "train": cohort.cases_of((*fold.train, *fold.validation), include_suspect=False),
            "val": cohort.cases_of(fold.test, include_suspect=True),
        }
        for fold in split.folds
    ]


def split_patients(
    cohort: Cohort, kind: str, *, folds: int = 5, seed: int = 12345, validation: int | float = 1
) -> Split:
    """Split the patients of a cohort; the same arguments give the same split on every machine.

    ``kind``: ``leave-one-out`` (a fold for each patient, in sorted order), ``k-fold`` (``folds`` folds, shuffled by
    ``seed``), ``all`` (one fold that tests nobody: for a network that is to be used, not measured). ``validation``
    patients of each fold's training patients (or that share of them, rounded, one at least) are set apart, chosen by
    ``seed``. A patient all of whose cases are suspect is tested like every other, but is in no train or validation.
    Raises InputError for an unknown kind, and where too few patients are left.

    Example:
        >>> from npcrepro.cohorts.cohort import Case
        >>> cohort = Cohort("mine", ("CT",), {"GTVp": (1,)}, tuple(Case(name, name) for name in "ABCD"))
        >>> [fold.test for fold in split_patients(cohort, "k-fold", folds=2).folds]
        [('A', 'D'), ('B', 'C')]
    """
    patients = list(cohort.patients)
    usable = [p for p in patients if cohort.cases_of([p], include_suspect=False)]
    one_of(KINDS, kind, "kind of split")
    if validation < 0:
        raise InputError(f"validation is {validation}: it is a number of patients, 0 or more, or a share below 1")

    def shuffled(names: Iterable[str], *salt: object) -> list[str]:
        # By hash, not by a generator: the order then depends on no version of a library and on no other patient.
        return sorted(names, key=lambda p: hashlib.sha256(json.dumps([seed, *salt, p]).encode()).digest())

    if kind == "leave-one-out":
        tests = [[p] for p in patients]
    elif kind == "k-fold":
        if folds < 2 or folds > len(patients):
            cause = "k-fold needs 2 folds or more" if folds < 2 else "each fold tests at least one"
            has = f"{plural(len(patients), 'patient')} for {plural(folds, 'fold')}"
            raise InputError(f"cohort {cohort.name} has {has}: {cause}")
        # Dealt one after the other, so that neither kind of patient crowds into one fold.
        order = [*shuffled(usable, "k-fold"), *shuffled(set(patients) - set(usable), "k-fold")]
        tests = [sorted(order[i::folds]) for i in range(folds)]
    else:
        tests = [[]]

    result = []
    for number, tested in enumerate(tests):
        pool = [p for p in usable if p not in tested]
        wanted = validation if isinstance(validation, int) else max(1, round(validation * len(pool)))
        if len(pool) < wanted + 1:
            raise InputError(_too_few(cohort.name, kind, len(patients), len(usable), wanted, number, len(pool)))
        inner = sorted(shuffled(pool, number)[:wanted])
        train = tuple(p for p in pool if p not in inner)
        result.append(Fold(number, train, tuple(inner), tuple(tested)))
    return Split(kind, seed, tuple(result))


def inner_folds(fold: Fold, parts: int) -> list[Fold]:
    """The patients of a fold who train or validate, split again: each of them is tested once, in one of the parts.

    No patient validates. The same fold gives the same parts on every machine. Raises InputError for fewer than two
    parts, or more parts than patients.

    Example:
        >>> fold = Fold(0, train=("A", "B", "C"), validation=("D",), test=("E",))
        >>> [(part.train, part.test) for part in inner_folds(fold, 2)]
        [(('C', 'D'), ('A', 'B')), (('A', 'B'), ('C', 'D'))]
    """
    pool = (*fold.train, *fold.validation)
    if not 2 <= parts <= len(pool):
        has = f"fold {fold.number} has {plural(len(pool), 'patient')}"
        raise InputError(f"{has} to split again, in {parts} parts: give 2 to {len(pool)}")
    order = sorted(pool, key=lambda patient: hashlib.sha256(json.dumps([fold.number, patient]).encode()).digest())
    tests = [sorted(order[part::parts]) for part in range(parts)]
    return [Fold(fold.number, tuple(sorted(set(pool) - set(test))), (), tuple(test)) for test in tests]


def _too_few(name: str, kind: str, patients: int, usable: int, validation: int, number: int, left: int) -> str:
    has = f"cohort {name} has {plural(patients, 'patient')}"
    if usable < patients:
        has += f", of which {usable} can be trained on (the others have suspect labels only)"
    if kind == "leave-one-out":
        parts = f"1 to test, {validation} to validate, 1 to train"
        return f"{has}: leave-one-out needs at least {2 + validation} ({parts})"
    return f"{has}: fold {number} of the {kind} split leaves {left} to train and validate, of {1 + validation} needed"

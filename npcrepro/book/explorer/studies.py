"""Finished runs to explore, and a case of them with what every method found, ready for any threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isnan, nan
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError, pick
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import PLANES, largest_slices
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import PreparedCohort, prepared_folder, read_prepared
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.overlap import Counts, count
from npcrepro.metrics.surface import surface_distances
from npcrepro.protocol import registry
from npcrepro.protocol.method import Paper
from npcrepro.protocol.settings import Settings
from npcrepro.runs import fit, records
from npcrepro.runs.evaluation import UNKNOWN_SPACING
from npcrepro.runs.records import Record
from npcrepro.sampling.samples import match_names

STEPS = 255  # probabilities are kept in steps of 1/255


@dataclass(frozen=True, eq=False)
class Study:
    """Finished runs of a paper on one cohort, at one profile and with one seed.

    Attributes:
        paper: whose methods these are.
        prepared: the cohort.
        structures: as the cohort calls them, in the order of the networks' outputs.
        runs: name of a method, in the paper's order, to its runs, one for each fold.
    """

    paper: Paper
    prepared: PreparedCohort
    structures: tuple[str, ...]
    runs: Mapping[str, Sequence[Record]]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods."""
        return tuple(self.runs)

    @property
    def cases(self) -> list[str]:
        """Cases that some method was tested on, sorted."""
        tested = {name for found in self.runs.values() for run in found for name in run.config["fold"]["test"]}
        return self.prepared.cases_of(sorted(tested))

    def colours(self) -> dict[str, str]:
        """Colour of each method, as in the chapter of the paper."""
        return style.colours(self.paper, self.methods)

    def titles(self) -> dict[str, str]:
        """Legend text of each method."""
        return style.titles(self.paper)


def paper_for(first: str, settings: Settings) -> str:
    """The paper to explore: the first choice, or another one where its chapter cannot be told on the user's cohort, or
    where only the other one has runs.

    Args:
        first: key of a paper, ``"chen2020"``.

    Raises:
        InputError: no chapter can be told on this cohort; the reason is that of the first choice.
    """
    if settings.cohort == "phantom" or settings.modalities:
        return first
    keys = sorted(registry.KEYS, key=lambda key: key != first)
    reasons = fit.untold(keys, settings.cohort, settings.profile)
    if told := [key for key in keys if key not in reasons]:
        there = [key for key in told if records.find(settings.runs, paper=key, profile=settings.profile)]
        return (there or told)[0]
    raise InputError(f"none of the papers can be told on {settings.cohort}: {reasons[first]}")


def studies(key: str, settings: Settings) -> dict[str, Study]:
    """What is there to explore: name of a cohort to its study; the cohort of the settings comes first.

    Of the settings, ``profile``, ``runs``, ``methods``, ``folds`` and the first of ``seeds`` choose among the runs.
    Where the data or the code have changed between runs, the newest ones are taken.

    Args:
        key: of the paper, ``"chen2020"``.

    Raises:
        InputError: no finished runs, with the command that makes them; an unknown paper or profile.
    """
    paper, seed = registry.load(key, settings.modalities), settings.seeds[0]
    paper.profile(settings.profile)
    found: dict[str, list[Record]] = {}
    for run in records.find(settings.runs, paper=key, profile=settings.profile, seed=seed):
        method, fold = run.config["method"]["name"], run.config["fold"]["number"]
        if method in (settings.methods or [method]) and fold in (settings.folds or [fold]):
            found.setdefault(run.config["cohort"], []).append(run)
    folder = Path(settings.runs)
    made = {cohort: study for cohort, runs in found.items() if (study := _study(paper, runs, folder))}
    if not made:
        cohort = "" if settings.cohort == "phantom" else f" --cohort {settings.cohort}"
        command = f"npcrepro run {key}{cohort} --profile {settings.profile}{f' --seeds {seed}' if seed else ''}"
        raise InputError(
            f"{settings.runs} holds no finished runs of {key} at profile {settings.profile} with seed {seed}; this "
            f"makes them: {command} --runs {settings.runs}"
        )
    # Phantoms differ between papers, "phantom" and "phantom-thrive"; their names begin alike.
    wanted = "phantom" if settings.cohort == "phantom" else read_cohort(Path(settings.cohort)).name
    return dict(sorted(made.items(), key=lambda item: (not item[0].startswith(wanted), item[0])))


def _study(paper: Paper, runs: Sequence[Record], folder: Path) -> Study | None:
    """The newest runs on one state of the data; None where its images are no longer there."""
    newest = sorted(runs, key=lambda run: run.provenance["finished"])
    last = newest[-1].config
    # Later runs replace earlier ones of the same method and fold.
    kept = {
        (run.config["method"]["name"], run.config["fold"]["number"]): run
        for run in newest
        if run.config["data_sha256"] == last["data_sha256"]
    }
    try:
        prepared = read_prepared(prepared_folder(folder / "prepared", last["cohort"], last["data_sha256"]))
    except InputError:
        return None
    methods = {m.name: [run for (of, _), run in sorted(kept.items()) if of == m.name] for m in paper.methods}
    methods = {name: found for name, found in methods.items() if found}
    wanted = tuple(last["method"]["structures"])
    structures = match_names(wanted, tuple(prepared.structures), prepared.name, "structure")
    return Study(paper, prepared, structures, methods) if methods else None


class Found:
    """What a method found of a structure in a case, ready for any threshold.

    Voxels are counted for all thresholds at once, and a distance is measured once for each threshold.

    Args:
        probability: ``(z, y, x)`` uint8 in steps of 1/255; 0 where another structure is more probable.
        reference: mask ``(z, y, x)``.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known.

    Example:
        >>> found = Found(np.array([[[0, 128, 255]]], np.uint8), np.array([[[False, True, True]]]), (1, 1, 1))
        >>> found.counts(0.5).dsc, found.counts(0.9).dsc
        (1.0, 0.6666666666666666)
    """

    def __init__(self, probability: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]):
        self.probability, self.reference, self.spacing_mm = probability, reference, tuple(spacing_mm)
        self._all, self._inside = (
            np.bincount(voxels.ravel(), minlength=STEPS + 1)[::-1].cumsum()[::-1]
            for voxels in (probability, probability[reference])
        )
        self._hd95: dict[int, float] = {}

    def mask(self, threshold: float) -> np.ndarray:
        """Voxels ``(z, y, x)`` whose probability reaches the threshold, which lies above 0 and is at most 1."""
        return marked(self.probability, threshold)

    def counts(self, threshold: float) -> Counts:
        """Voxels in which this mask and the reference agree or differ."""
        voxels, hit = (int(sums[_level(threshold)]) for sums in (self._all, self._inside))
        missed = int(self._inside[0]) - hit
        return Counts(hit, voxels - hit, missed, self.probability.size - voxels - missed)

    def volume_ml(self, threshold: float) -> float:
        """Volume of this mask in ml; ``nan`` without a spacing."""
        return self.counts(threshold).predicted_ml(self.spacing_mm)

    def hd95_mm(self, threshold: float) -> float:
        """HD95 of this mask in mm, on surface elements, the larger of both directions (see `metrics.surface`).

        ``nan`` where a mask is empty or there is no spacing. A single slice is measured by its outline.
        """
        level = _level(threshold)
        if level not in self._hd95:
            masks, spacing_mm = (self.mask(threshold), self.reference), self.spacing_mm
            if len(self.reference) == 1:
                masks, spacing_mm = (masks[0][0], masks[1][0]), spacing_mm[1:]
            known = not any(map(isnan, self.spacing_mm))
            self._hd95[level] = surface_distances(*masks, spacing_mm, "surfel").hausdorff_95 if known else nan
        return self._hd95[level]

    def knows_hd95(self, threshold: float) -> bool:
        """Whether that number is there already; a ragged mask takes a tenth of a second."""
        return _level(threshold) in self._hd95


def marked(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Where a probability in steps of 1/255 reaches a threshold, which lies above 0 and is at most 1."""
    return probability >= _level(threshold)


def _level(threshold: float) -> int:
    """The lowest of the steps of 1/255 that reaches a threshold.

    Example:
        >>> _level(0.5), _level(1 / 255), _level(1.0)
        (128, 1, 255)
    """
    if not 0 < threshold <= 1:
        raise InputError(f"a threshold lies above 0 and is at most 1, not {threshold}")
    return ceil(threshold * STEPS - 1e-9)


@dataclass(frozen=True, eq=False)
class CaseData:
    """A case with what the methods found of one structure. All arrays are ``(z, y, x)``.

    Attributes:
        name: of the case.
        series: name of a channel to its image.
        reference: mask of the structure.
        found: method to what it found; methods that were not tested on this case are not there.
        spacing_mm: ``(z, y, x)``; ``nan`` where it is not known, for voxels drawn as cubes.
    """

    name: str
    series: Mapping[str, np.ndarray]
    reference: np.ndarray
    found: Mapping[str, Found]
    spacing_mm: Sequence[float]

    @property
    def reference_ml(self) -> float:
        """Volume of the reference in ml; ``nan`` without a spacing."""
        return count(self.reference, self.reference).reference_ml(self.spacing_mm)

    def limits(self, series: str) -> tuple[float, float]:
        """Level and width of a window between the tails of an image."""
        low, high = np.percentile(self.series[series], (0.5, 99.5))
        return (float(low) + float(high)) / 2, max(float(high) - float(low), 1e-6)

    def slices(self, plane: str) -> int:
        """How many slices there are in a plane."""
        return self.reference.shape[PLANES.index(plane)]

    def largest(self, plane: str) -> int:
        """The slice with the largest area of the reference; the middle one where it is empty."""
        return largest_slices(self.reference)[PLANES.index(plane)]


def load_case(study: Study, case: str, structure: str) -> CaseData:
    """Read a case and its predictions.

    Raises:
        InputError: an unknown case or structure.
    """
    number = pick({name: i for i, name in enumerate(study.structures)}, structure, "structure")
    about = study.prepared.case(case)
    reference = mask_of(np.asarray(about.label), study.prepared.structures, structure)
    spacing_mm = about.spacing_mm if study.prepared.spacing_known else UNKNOWN_SPACING
    found = {}
    for name, runs in study.runs.items():
        run = next((run for run in runs if about.patient in run.config["fold"]["test"]), None)
        if run:
            found[name] = Found(of_structure(run.prediction(case)[1], number), reference, spacing_mm)
    series = {name: np.asarray(image, np.float32) for name, image in zip(study.prepared.channels, about.image)}
    return CaseData(case, series, reference, found, spacing_mm)


def of_structure(probability: np.ndarray, number: int) -> np.ndarray:
    """Probability of one structure ``(z, y, x)`` in steps of 1/255, 0 where another one is more probable.

    Args:
        probability: ``(S, z, y, x)`` in [0, 1].
        number: of the structure, from 0.

    Example:
        >>> of_structure(np.array([[0.6, 0.3, 0.2], [0.4, 0.5, 0.2]]), 0).tolist()
        [153, 0, 51]
    """
    steps = np.rint(probability * STEPS).astype(np.uint8)
    return np.where(probability.argmax(axis=0) == number, steps[number], np.uint8(0))

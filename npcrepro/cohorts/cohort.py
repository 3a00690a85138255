"""What a cohort is: patients, their cases, the channels and structures of these, and what may be done with them."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.defects import likely_cause
from npcrepro.cohorts.structures import Structures

NO_IMAGE = Path(os.devnull)  # the empty file that every system has


@dataclass(frozen=True)
class Case:
    """One case. A suspect one is scored and not trained on; ``not_contoured`` names structures that nobody drew in it.

    ``images`` are files in channel order, `NO_IMAGE` where one is missing and becomes zeros. A prepared cohort, and one
    that is only planned, knows no files of its cases.
    """

    name: str
    patient: str
    images: tuple[Path, ...] = ()
    label: Path = NO_IMAGE
    suspect: bool = False
    not_contoured: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cohort:
    """A cohort as plans and splits see it, whether its arrays have been prepared or not.

    Attributes:
        structures: without the background.
        cases: sorted by name, without the ``excluded`` ones, whose labels are wrong.
        spacing_known: whether the spacing of the images is that of the scanner.
        root: folder of ``dataset.json``, where the cohort was read from.
        fingerprint, folder: SHA-256 of the content, and the folder of the prepared arrays; empty until asked for.
    """

    name: str
    channels: tuple[str, ...]
    structures: Structures
    cases: tuple[Case, ...]
    spacing_known: bool = True
    licence: str = ""
    reference: str = ""
    publishable: bool = False
    excluded: tuple[str, ...] = ()
    root: Path = Path()
    fingerprint: str = ""
    folder: Path = Path()

    @property
    def case_names(self) -> list[str]:
        """Names of the cases, sorted."""
        return [case.name for case in self.cases]

    @property
    def patients(self) -> tuple[str, ...]:
        """Patients, sorted, each once."""
        return tuple(sorted({case.patient for case in self.cases}))

    def cases_of(self, patients: Iterable[str], include_suspect: bool = True) -> list[str]:
        """Names of the cases of these patients, sorted. Raises InputError for an unknown patient."""
        wanted, known = set(patients), set(self.patients)
        for patient in sorted(wanted - known):
            cause = likely_cause(patient, known, "a mistyped name, or a split of another cohort")
            raise InputError(f"cohort {self.name} has no patient {patient!r}: {cause}")
        return [c.name for c in self.cases if c.patient in wanted and (include_suspect or not c.suspect)]


@dataclass(frozen=True)
class CaseArrays:
    """One case in memory: ``image`` (C, z, y, x), ``label`` (z, y, x) of integers, ``spacing_mm`` (z, y, x) as in
    the header (``spacing_known`` of the cohort says whether it can be trusted).

    Instead of integers ``label`` may hold masks (z, y, x) by the name of their structure, which may overlap.
    Without ``geometry`` (see `read_image`) the origin is zero and the axes are those of the patient.
    """

    name: str
    patient: str
    image: np.ndarray
    label: np.ndarray | Mapping[str, np.ndarray]
    spacing_mm: tuple[float, float, float]
    suspect: bool = False
    not_contoured: tuple[str, ...] = ()
    geometry: dict[str, list[float]] | None = None

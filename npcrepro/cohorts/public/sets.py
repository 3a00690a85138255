"""What a public data set is to the rest of the package: where it is, what may be done with it, how it becomes a cohort.

A converter is a function of a folder, a variant and a `ConversionLog`; it returns a `Conversion`, whose cases are read
one at a time. A case that cannot be used is skipped, never silently: the log keeps which and why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from npcrepro.base.errors import InputError
from npcrepro.base.files import as_data
from npcrepro.base.progress import Report
from npcrepro.cohorts.cohort import CaseArrays


@dataclass(frozen=True)
class Download:
    """One file of a set. ``sha256`` is None where the publisher may replace the file. ``unpack`` is false for archives
    that ask for a password."""

    url: str
    name: str
    sha256: str | None = None
    unpack: bool = True


class ConversionLog:
    """What happened to the cases of one conversion: which were skipped, what was noticed about the others.

    ``sheets`` is a folder for pictures, which the converter makes when it needs it.
    """

    def __init__(self, source: Path, sheets: Path, report: Report):
        self.source, self.sheets, self.report = source, sheets, report
        self.skipped: dict[str, str] = {}
        self.notes: dict[str, list[str]] = {}

    def skip(self, case: str, why: str) -> None:
        """A case that is left out; said at once and kept."""
        self.skipped[case] = self._short(why)
        self.report(f"{case} is skipped: {self.skipped[case]}")

    def note(self, case: str, text: str) -> None:
        """Something about a case that is converted; kept, not said. An empty text is nothing to note."""
        if text:
            self.notes.setdefault(case, []).append(self._short(text))

    def missing(self, case: str, structures: Iterable[str], masks: Collection[str]) -> tuple[str, ...]:
        """Structures without a mask, noted. Organs among them were not drawn, which an empty mask would deny."""
        names = tuple(name for name in structures if name not in masks)
        self.note(case, f"not contoured: {', '.join(names)}" if names else "")
        return names

    def convert(self, cases: Mapping[str, Path], make: Callable[[str, Path], CaseArrays]) -> Iterator[CaseArrays]:
        """The cases one by one; one for which ``make`` raises InputError is skipped."""
        for case, path in cases.items():
            try:
                arrays = make(case, path)
            except InputError as problem:
                self.skip(case, str(problem))
            else:
                yield arrays

    def _short(self, text: str) -> str:
        return text.replace(f"{self.source}/", "")


@dataclass(frozen=True)
class Conversion:
    """A cohort to be written: arguments of `write_cohort`. ``structures`` are names where the labels are masks."""

    name: str
    channels: tuple[str, ...]
    structures: Mapping[str, int | Sequence[int]] | Sequence[str]
    cases: Iterable[CaseArrays]


@dataclass(frozen=True)
class Outlook:
    """What a variant of a set will be, for plans that are made before anything is downloaded.

    Attributes:
        name: of the cohort.
        patients: as many as the publisher names, one case each.
        channels, structures: of the cohort.
        series: how many each patient has in the archive.
        shape: ``(z, y, x)`` that stands for all series where the publisher gives no sizes: our assumption.
    """

    name: str
    patients: int
    channels: tuple[str, ...]
    structures: tuple[str, ...]
    series: int
    shape: tuple[int, int, int]

    def gigabytes(self) -> dict[str, float]:
        """Room on a disk for each step, in GB: voxels of 16 bits, masks of 8, nothing compressed."""
        voxels = self.patients * prod(self.shape) / 1e9
        files, arrays = voxels * (2 * self.series + 1), voxels * (2 * len(self.channels) + 1)
        return {"archive": files, "unpacked": files, "cohort": arrays, "prepared copy": arrays}


@dataclass(frozen=True)
class PublicSet:
    """One public data set.

    ``access`` says how to get it; where ``downloads`` is empty, that is for the user to do. ``layout`` is what the
    folder given to the converter has to hold. ``variants`` map a choice to what it means; the first is the default.
    ``outlooks`` say of some variants what they will be.
    """

    key: str
    title: str
    content: str
    licence: str
    publishable: bool
    reference: str
    access: str
    layout: str
    variants: Mapping[str, str]
    convert: Callable[[Path, str, ConversionLog], Conversion]
    downloads: tuple[Download, ...] = ()
    outlooks: Mapping[str, Outlook] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """The set as plain data."""
        return as_data({name: value for name, value in vars(self).items() if name != "convert"})

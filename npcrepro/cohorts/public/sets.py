"""What a public data set is to the rest of the package, and how it becomes a cohort on disk.

A converter takes a `Conversion` and yields its cases, one at a time. A case that cannot be used is skipped, never
silently: the conversion keeps which and why.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

from npcrepro.base.errors import InputError, pick
from npcrepro.base.files import as_data, check_new, write_json, writing_folder
from npcrepro.base.progress import Report
from npcrepro.cohorts.cohort import CaseArrays, Cohort
from npcrepro.cohorts.layout import read_cohort, write_cohort


@dataclass(frozen=True)
class Download:
    """One file of a set. ``sha256`` is None where the publisher may replace the file. ``unpack`` is false for archives
    that ask for a password."""

    url: str
    name: str
    sha256: str | None = None
    unpack: bool = True


@dataclass(frozen=True)
class Variant:
    """A cohort that a set can become: what that ``meaning`` is, the name of the ``cohort``, and what it holds.

    ``structures`` have their codes in published label images, or the name of their file.
    """

    meaning: str
    cohort: str
    channels: tuple[str, ...]
    structures: Mapping[str, Any]


class Conversion:
    """One conversion of a set, and what happened to its cases: which were skipped, what was noticed about the others.

    ``source`` is the folder of the set; ``sheets`` is one for pictures, which the converter makes when it needs it.
    """

    def __init__(self, chosen: "PublicSet", variant: str, source: Path, sheets: Path, report: Report):
        self.chosen, self.variant, self.source, self.sheets, self.report = chosen, variant, source, sheets, report
        self.wanted = pick(chosen.variants, variant, f"variant of {chosen.key}")
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

    def missing(self, case: str, masks: Collection[str]) -> tuple[str, ...]:
        """Structures without a mask, noted. Organs among them were not drawn, which an empty mask would deny."""
        names = tuple(name for name in self.wanted.structures if name not in masks)
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
        """Room on a disk for each step, in GB: voxels of 16 bits, masks of 8, nothing compressed. The arrays that
        training keeps are those of whole slices: voxels of 32 bits, and a mask for each structure."""
        voxels = self.patients * prod(self.shape) / 1e9
        files, arrays = voxels * (2 * self.series + 1), voxels * (2 * len(self.channels) + 1)
        kept = voxels * (4 * len(self.channels) + len(self.structures))
        return {
            "archive": files,
            "unpacked": files,
            "cohort": arrays,
            "prepared copy": arrays,
            "arrays of training": kept,
        }


@dataclass(frozen=True)
class PublicSet:
    """One public data set: an entry of ``sets.yaml`` (which says what its fields mean), and its converter.

    ``access`` says how to get it; where ``downloads`` is empty, that is for the user to do.
    """

    key: str
    title: str
    content: str
    licence: str
    publishable: bool
    reference: str
    access: str
    layout: str
    variants: Mapping[str, Variant]
    convert: Callable[[Conversion], Iterator[CaseArrays]]
    downloads: tuple[Download, ...] = ()
    patients: int = 0
    series: int = 0
    shape: tuple[int, int, int] = (0, 0, 0)

    @property
    def outlooks(self) -> dict[str, Outlook]:
        """What each variant will be; none where the number of patients is not known."""
        return {
            key: Outlook(each.cohort, self.patients, each.channels, tuple(each.structures), self.series, self.shape)
            for key, each in self.variants.items()
            if self.patients
        }

    def described(self) -> dict[str, Any]:
        """The set as plain data."""
        left_out = ("convert", "patients", "series", "shape")
        plain = {name: value for name, value in vars(self).items() if name not in left_out}
        meanings = {key: each.meaning for key, each in self.variants.items()}
        return as_data(plain | {"variants": meanings, "outlooks": self.outlooks})


def convert(
    chosen: PublicSet, source: str | Path, destination: str | Path, variant: str | None = None, report: Report = print
) -> Cohort:
    """Write a public set, unpacked in ``source``, as a cohort to the new folder ``destination``.

    Cases that cannot be used are skipped and reported; ``conversion.json`` beside ``dataset.json`` keeps which and why,
    and what was noticed about the others. Some sets add pictures to look at in ``overlays``. Raises InputError for an
    unknown variant, a source with another layout, a destination that is not empty, and where no case could be used.
    """
    source, destination = Path(source), Path(destination)
    variant = next(iter(chosen.variants)) if variant is None else variant
    pick(chosen.variants, variant, f"variant of {chosen.key}")
    if not source.is_dir():
        hint = "unpack the archive first" if source.is_file() else "no such folder: a mistyped path"
        raise InputError(f"{source} is not a folder with {chosen.title}: {hint}")
    check_new(destination)
    try:
        with writing_folder(destination) as folder:
            log = Conversion(chosen, variant, source, folder / "overlays", report)
            _write(log, folder / "cohort", destination)
            # A cohort is written to a folder of its own, which write_cohort wants to be new.
            for part in (folder / "cohort").iterdir():
                part.rename(folder / part.name)
            (folder / "cohort").rmdir()
            found = {"set": chosen.key, "variant": variant, "skipped": log.skipped, "notes": log.notes}
            write_json(folder / "conversion.json", found)
    except OSError as problem:
        raise InputError(f"cannot write {destination}: {problem.strerror or problem}") from problem
    return read_cohort(destination)


def _write(log: Conversion, folder: Path, destination: Path) -> None:
    chosen, wanted, cases = log.chosen, log.wanted, log.chosen.convert(log)
    first = next(cases, None)
    if first is None:
        why = "".join(f"; the first: {case}: {cause}" for case, cause in [*log.skipped.items()][:1])
        raise InputError(f"{log.source} holds no case of {chosen.title} that can be used{why}")

    def counted() -> Iterator[CaseArrays]:
        done = 0
        for case in chain([first], cases):
            yield case
            done += 1
            log.report(f"{case.name} is written")
        left_out = f"{len(log.skipped)} skipped" if log.skipped else "none skipped"
        log.report(f"{done} cases, {left_out}, notes on {len(log.notes)}: see conversion.json")

    # Masks get codes as they turn up.
    structures = tuple(wanted.structures) if isinstance(first.label, Mapping) else wanted.structures
    try:
        write_cohort(
            folder,
            counted(),
            name=wanted.cohort,
            channels=wanted.channels,
            structures=structures,
            reference=chosen.reference,
            licence=chosen.licence,
            publishable=chosen.publishable,
        )
    except InputError as problem:
        raise InputError(str(problem).replace(str(folder), str(destination))) from None

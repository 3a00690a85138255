"""A cohort as memory-mapped NumPy files, checked once, so that training needs no image library."""

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from npcrepro.base.code_hash import code_sha256
from npcrepro.base.errors import InputError
from npcrepro.base.files import read_json, sha256_of, sha256_of_file, write_json, writing_folder
from npcrepro.cohorts.check import inspect_case
from npcrepro.cohorts.cohort import NO_IMAGE, Case, CaseArrays, Cohort
from npcrepro.cohorts.defects import Refused, likely_cause
from npcrepro.cohorts.images import unreadable

KEPT_DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "float32")


class PreparedCase(CaseArrays):
    """One case, memory-mapped and read-only; ``image`` in the number type that `prepare` keeps."""

    label: np.ndarray
    geometry: dict[str, list[float]]


@dataclass(frozen=True)
class PreparedCohort(Cohort):
    """A cohort with its arrays in ``folder``; ``entries`` is what ``prepared.json`` says of each case.

    Make it with `prepare` or `read_prepared`. Training needs nothing else, and no image library.
    """

    entries: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def case(self, name: str) -> PreparedCase:
        """Open one case; voxels are read when they are used. An unknown name is an InputError."""
        if name not in self.entries:
            cause = likely_cause(name, self.entries, "a mistyped name, or a case that was excluded")
            raise InputError(f"cohort {self.name} has no case {name!r}: {cause}")
        entry = self.entries[name]
        return PreparedCase(
            name=name,
            patient=entry["patient"],
            suspect=entry["suspect"],
            image=_open(self.folder / f"{name}.image.npy"),
            label=_open(self.folder / f"{name}.label.npy"),
            spacing_mm=tuple(entry["spacing_mm"]),
            geometry=entry["geometry"],
            not_contoured=tuple(entry["not_contoured"]),
        )


def _open(path: Path) -> np.memmap:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError) as problem:
        raise unreadable(path, problem, "damaged: remove the folder and prepare the cohort again") from None


def prepare(cohort: Cohort, folder: str | Path) -> PreparedCohort:
    """Write the `prepared_folder` with ``prepared.json``, ``CASE.image.npy`` and ``CASE.label.npy``.

    A cohort that was prepared before by the same code is read back. One case is in memory at a time; the folder appears
    when it is complete. Images keep their number type where it is one of ``KEPT_DTYPES`` for all channels together, and
    become float32 otherwise. Raises InputError that names the case for a truncated file, channels or a label on another
    grid, NaN, infinite values and those beyond float32, and an unknown label value. An empty label is no error, and a
    series that a case lacks becomes zeros (see ``missing_series`` in `layout`).
    """
    folder = Path(folder)
    digest = fingerprint(cohort, cache=folder / "fingerprints.json")
    target = prepared_folder(folder, cohort.name, digest)
    words = {key: getattr(cohort, key) for key in ("licence", "reference", "publishable")}
    try:
        prepared = read_prepared(target)
    except InputError:
        shutil.rmtree(target, ignore_errors=True)
    else:
        # The fingerprint does not cover these; a corrected licence must not be held up by voxels that are the same.
        if any(getattr(prepared, key) != value for key, value in words.items()):
            write_json(target / "prepared.json", read_json(target / "prepared.json") | words)
        return read_prepared(target)

    try:
        with writing_folder(target) as temporary:
            entries = {case.name: _prepare_case(case, cohort, temporary) for case in cohort.cases}
            about: dict[str, Any] = {"name": cohort.name, "fingerprint": digest, "channels": cohort.channels}
            about |= {"structures": cohort.structures, "spacing_known": cohort.spacing_known, **words}
            write_json(temporary / "prepared.json", about | {"cases": entries})
    except OSError:
        # Another process may have put the same folder into place in the meantime.
        if not target.is_dir():
            raise
    return read_prepared(target)


def prepared_folder(folder: Path, name: str, digest: str) -> Path:
    """Where `prepare` puts a cohort of this fingerprint: ``<folder>/<name>-<fingerprint[:8]>-<version>``."""
    # Named after the code that reads images: what an older version made of them is never read.
    version = code_sha256(["npcrepro.cohorts.prepared:_prepare_case"])[:8]
    return folder / f"{name}-{digest[:8]}-{version}"


def _prepare_case(case: Case, cohort: Cohort, folder: Path) -> dict[str, Any]:
    content, defects = inspect_case(case, cohort.structures, cohort.root)
    for defect in defects:
        if defect.severity == "error":
            raise Refused(defect, case.name)
    assert content is not None, "a case without an error has a content"
    dtype = np.result_type(*(image.dtype for _, image in content.images))
    dtype = dtype if dtype.name in KEPT_DTYPES else np.dtype(np.float32)
    stacked = np.zeros((len(cohort.channels), *content.images[0][1].shape), dtype)
    numbers = [number for number, path in enumerate(case.images) if path != NO_IMAGE]
    for number, (_, image) in zip(numbers, content.images, strict=True):
        stacked[number] = image
    np.save(folder / f"{case.name}.image.npy", stacked)
    np.save(folder / f"{case.name}.label.npy", np.ascontiguousarray(content.mask))
    return {
        "patient": case.patient,
        "suspect": case.suspect,
        "spacing_mm": content.spacing_mm,
        "geometry": content.geometry,
        "not_contoured": case.not_contoured,
        "missing_series": [name for name, path in zip(cohort.channels, case.images, strict=True) if path == NO_IMAGE],
    }


def missing_series(cohort: PreparedCohort, case: str) -> tuple[str, ...]:
    """Channels that a case lacks, and whose image is zero."""
    return tuple(cohort.entries[case].get("missing_series", ()))


def read_prepared(folder: str | Path) -> PreparedCohort:
    """Read back what `prepare` wrote. Raises InputError where it is missing or not complete."""
    folder = Path(folder)
    path = folder / "prepared.json"
    try:
        about = read_json(path)
        entries = about.pop("cases")
        about["channels"] = tuple(about["channels"])
        about["structures"] = {name: tuple(codes) for name, codes in about["structures"].items()}
        about["cases"] = tuple(
            Case(name, each["patient"], suspect=each["suspect"], not_contoured=tuple(each["not_contoured"]))
            for name, each in entries.items()
        )
        prepared = PreparedCohort(folder=folder, entries=entries, **about)
    except FileNotFoundError:
        raise InputError(f"{path}: missing: not the folder of a prepared cohort, or a mistyped path") from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(f"{path}: not a prepared cohort ({problem!r}): remove the folder and prepare again") from None
    for name in prepared.case_names:
        for kind in ("image", "label"):
            if not (folder / f"{name}.{kind}.npy").is_file():
                raise InputError(f"{folder / f'{name}.{kind}.npy'}: missing: remove the folder and prepare again")
    return prepared


def fingerprint(cohort: Cohort, cache: Path | None = None) -> str:
    """SHA-256 (hex) of what a cohort means and holds, wherever its folder lies.

    Covers channels, structures, patients, excluded and suspect cases, whether the spacing is known, and the content of
    every file in use. ``cache`` is a JSON file of content hashes by path, size and modification time: with it a second
    call reads no image. Raises InputError where a file cannot be read.
    """
    known: dict[str, list] = {}
    if cache is not None and cache.is_file():
        with suppress(ValueError):  # a damaged cache costs time and nothing else
            known = read_json(cache)
    before = dict(known)

    def content(path: Path) -> str:
        try:
            stat, key = path.stat(), str(path.resolve())
            if known.get(key, [])[:2] != [stat.st_size, stat.st_mtime_ns]:
                known[key] = [stat.st_size, stat.st_mtime_ns, sha256_of_file(path)]
        except OSError as problem:
            raise unreadable(path, problem, "moved or removed since the cohort was read") from None
        return known[key][2]

    meaning = {
        "channels": cohort.channels,
        "structures": cohort.structures,
        "spacing_known": cohort.spacing_known,
        "excluded": cohort.excluded,
        "cases": [
            [c.name, c.patient, c.suspect, c.not_contoured, [content(image) for image in c.images], content(c.label)]
            for c in cohort.cases
        ],
    }
    if cache is not None and known != before:
        write_json(cache, known)
    return sha256_of(meaning)

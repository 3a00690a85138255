"""A public set as it is published, to a cohort on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from npcrepro.base.errors import InputError, pick
from npcrepro.base.files import check_new, write_json, writing_folder
from npcrepro.base.progress import Report
from npcrepro.cohorts.cohort import CaseArrays, Cohort
from npcrepro.cohorts.layout import read_cohort, write_cohort
from npcrepro.cohorts.public.sets import Conversion, ConversionLog, PublicSet


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
            log = ConversionLog(source, folder / "overlays", report)
            conversion = chosen.convert(source, variant, log)
            _write(chosen, conversion, log, folder / "cohort", destination)
            # A cohort is written to a folder of its own, which write_cohort wants to be new.
            for part in (folder / "cohort").iterdir():
                part.rename(folder / part.name)
            (folder / "cohort").rmdir()
            found = {"set": chosen.key, "variant": variant, "skipped": log.skipped, "notes": log.notes}
            write_json(folder / "conversion.json", found)
    except OSError as problem:
        raise InputError(f"cannot write {destination}: {problem.strerror or problem}") from problem
    return read_cohort(destination)


def _write(chosen: PublicSet, conversion: Conversion, log: ConversionLog, folder: Path, destination: Path) -> None:
    try:
        write_cohort(
            folder,
            _counted(conversion, chosen, log),
            name=conversion.name,
            channels=conversion.channels,
            structures=conversion.structures,
            reference=chosen.reference,
            licence=chosen.licence,
            publishable=chosen.publishable,
        )
    except InputError as problem:
        raise InputError(str(problem).replace(str(folder), str(destination))) from None


def _counted(conversion: Conversion, chosen: PublicSet, log: ConversionLog) -> Iterator[CaseArrays]:
    done = 0
    for case in conversion.cases:
        yield case
        done += 1
        log.report(f"{case.name} is written")
    if not done:
        first = next(iter(log.skipped.items()), None)
        why = f"; the first: {first[0]}: {first[1]}" if first else ""
        raise InputError(f"{log.source} holds no case of {chosen.title} that can be used{why}")
    left_out = f"{len(log.skipped)} skipped" if log.skipped else "none skipped"
    log.report(f"{done} cases, {left_out}, notes on {len(log.notes)}: see conversion.json")

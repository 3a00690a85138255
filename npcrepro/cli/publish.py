"""The command ``npcrepro publish``."""

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from npcrepro.base.errors import InputError
from npcrepro.base.files import sha256_of_file
from npcrepro.base.wording import in_words, plural


def publish(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="Zip file to write, or to check.")],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUNS]...",
            help="Folder of runs, of one finished run, of published runs, or of published weights beside runs.",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Verify ARCHIVE instead of writing it.")] = False,
    into: Annotated[
        Path | None,
        typer.Option(metavar="RESULTS", help="With --check: also add what it holds there, for instance book/results."),
    ] = None,
) -> None:
    """Pack the numbers of finished runs into one file to send, or check such a file and add it to a book.

    No images, no predictions, no weights. Refused: changed numbers, other code, and what may say who a patient is.
    """
    if check and runs:
        raise InputError(f"publish --check takes an archive alone, and not {runs[0]} beside it")
    if not check and not runs:
        raise InputError(f"publish {archive} needs the folder of runs to pack, or --check to verify the archive")
    if into and not check:
        raise InputError(f"--into {into} is for --check: an archive is added after it was verified")
    from npcrepro.runs import archive as archives

    found = archives.check(archive, into) if check else archives.pack(archive, runs or [])
    for each in found:
        folds = [fold[part] for fold in each.folds.values() for part in ("train", "validation", "test")]
        names = sorted({*each.cases.patient, *each.cases.case, *chain.from_iterable(folds)})
        typer.echo(f"{each.folder.name}: {plural(len(each.runs), 'run')} of {in_words(each.methods)}; {_named(names)}")
    if not check:
        typer.echo(
            "Look at these names: no program can tell a pseudonym from a name. Nothing else says who a patient is."
        )
        typer.echo(f"written: {archive}, sha256 {sha256_of_file(archive)}")
        return
    typer.echo(f"{archive}: sums, fields, names and code are in order; sha256 {sha256_of_file(archive)}")
    if into:
        typer.echo(f"in {into}: {in_words([each.folder.name for each in found])}")


def _named(names: list[str]) -> str:
    return f"{plural(len(names), 'name')} of patients and cases: {', '.join(names)}"

"""Options that several commands have, and how commands print tables."""

import inspect
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from npcrepro.base.errors import InputError
from npcrepro.protocol.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Modalities = Annotated[
    str | None,
    typer.Option(help="Channels of the cohort in place of the paper's, in its order, for instance T1,CT,PET."),
]
CohortPath = Annotated[
    str,
    typer.Option(help="Folder in the nnU-Net raw layout, a sample cohort such as 'sample-ct', or 'phantom'."),
]
Size = Annotated[str, typer.Option(help="Size of the run: smoke, quick, bench, long or paper.")]
Methods = Annotated[
    list[str] | None, typer.Option(help="Method; several as A,B or given again; by default the profile's.")
]
Folds = Annotated[list[str] | None, typer.Option(help="Fold; several as 0,1 or given again; by default the profile's.")]
Seeds = Annotated[list[str] | None, typer.Option(help="Seed; several as 0,1 or given again; by default 0.")]
Device = Annotated[str, typer.Option(help="cpu, cuda (an NVIDIA GPU), or auto: a GPU where there is one.")]
Devices = Annotated[
    int,
    typer.Option(
        min=1, help="GPUs that share each batch; results are those of one up to rounding, not for Mask R-CNN."
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic", help="The same bits on a GPU each time; slower. On a CPU results are always the same."
    ),
]
Runs = Annotated[str, typer.Option(help="Folder for runs; finished ones in it are read back.")]
Papers = Annotated[
    list[str] | None, typer.Argument(metavar="[PAPER]...", help="For instance li2018; by default all of them.")
]
DEFAULT = Settings()


def settings_of(cohort, profile, methods, folds, seeds, device, runs, modalities) -> Settings:
    """Settings from options, of which those that may be repeated are None if not given."""
    return Settings(
        cohort=cohort,
        profile=profile,
        methods=tuple(name.strip() for text in methods or () for name in text.split(",")),
        folds=numbers_of("--folds", folds),
        seeds=numbers_of("--seeds", seeds) or DEFAULT.seeds,
        device=device,
        runs=runs,
        modalities=names_of(modalities),
    )


def check_devices(devices: int, device: str) -> None:
    """Refuse several devices where there is no GPU: processors share a batch in tests alone."""
    if devices == 1:
        return
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        raise InputError(f"--devices {devices} shares a batch among GPUs, and there is none: leave --devices out")


def numbers_of(option: str, texts: Sequence[str] | None) -> tuple[int, ...]:
    """Whole numbers from an option that was given as ``0,1`` or several times.

    Example:
        >>> numbers_of("--seeds", ["0,1", "3"]), numbers_of("--seeds", None)
        ((0, 1, 3), ())
    """
    parts = [part.strip() for text in texts or () for part in text.split(",")]
    for part in parts:
        if not part.isdecimal():
            raise InputError(f"{option} {part!r} is no whole number: it looks like {option} 0,1")
    return tuple(map(int, parts))


def names_of(text: str | None) -> tuple[str, ...]:
    """Names from ``T1,CT,PET``, with or without blanks behind the commas.

    Example:
        >>> names_of("T1, T2 ,CE T1"), names_of(None)
        (('T1', 'T2', 'CE T1'), ())
    """
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if not all(names):
        raise InputError(f"--modalities {text!r} has an empty name, perhaps a comma too many: it looks like T1,CT,PET")
    return names


def three_numbers(option: str, text: str, separator: str, number: type, example: str) -> list:
    """Three numbers (z, y, x) from the text of an option."""
    try:
        values = [number(part) for part in text.split(separator)]
    except ValueError:
        values = []
    if len(values) != 3:
        raise InputError(f"{option} {text!r} is not three numbers along z, y and x: it looks like {example}")
    return values


def reflow(app: typer.Typer) -> None:
    """Let the width of the terminal break the lines of every help text, and not those of the docstring."""
    for command in app.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(each.split()) for each in paragraphs)


def print_json(value: Any) -> None:
    """Rows or one mapping as JSON, in which a number that is none is null."""

    def known(item: Any) -> Any:
        return None if item != item else item

    rows = value if isinstance(value, list) else [value]
    found = [{name: known(item) for name, item in row.items()} for row in rows]
    typer.echo(json.dumps(found if isinstance(value, list) else found[0], indent=1, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # Without a terminal, rich would fold lines at 80 columns and break what a pipe reads.
    # Without markup, what a user named "GTV [old]" keeps its brackets.
    Console(width=None if sys.stdout.isatty() else 200, markup=False).print(table)

"""The command ``npcrepro score``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from npcrepro.base.errors import InputError
from npcrepro.cli.options import Json, print_table, three_numbers


def score(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="[PRED] REF", help="Two files or two folders; REF alone where there is --pred."),
    ],
    pred: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A prediction by name, in place of PRED; several are compared."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="dataset.json, or names as in GTVp=1,GTVnd=2; by default every value in the references."),
    ] = None,
    spacing: Annotated[
        str, typer.Option(help="from-image, millimetres along z, y and x as in 3,1,1, or unknown.")
    ] = "from-image",
    nsd_tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MM", help="Tolerance, or NAME=MM for a structure; may be given several times, by default 2."
        ),
    ] = None,
    convention: Annotated[
        str,
        typer.Option(
            help="Distances on the screen: surfel (surface elements) or voxel (voxels of the border). Files hold both."
        ),
    ] = "surfel",
    undefined: Annotated[
        str, typer.Option(help="How to count a value that an empty mask leaves undefined: worst, leave-out or one.")
    ] = "worst",
    out: Annotated[
        Path | None, typer.Option(help="Also write the cases to this CSV file, or everything to this JSON file.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write a record for the leaderboard; needs --beside."),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="PUBLISHED",
            help="Published runs on the same cohort, as in book/results: only the cases of their folds are scored.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score predicted masks against reference masks: DSC, surface distances and NSD, means and comparisons.

    PRED and REF are two images, two folders of label images (CASE.nii.gz, .nrrd, .mha),
    or two folders with a folder of masks for each case (CASE/Parotid_L.nii.gz).
    Cases belong together by name; a case without prediction counts as the worst.
    """
    from math import nan

    from rich.console import Console
    from rich.progress import track

    from npcrepro import scoring
    from npcrepro.base.errors import pick
    from npcrepro.base.files import check_new, check_writable
    from npcrepro.metrics.surface import CONVENTIONS
    from npcrepro.runs.published import read_published

    pick(scoring.RULES, undefined, "rule of --undefined")
    pick(CONVENTIONS, convention, "convention")
    if out:
        scoring.check_out(out)
    if record:
        check_writable(record)
        check_new(record)
        if not beside:
            raise InputError(f"--record {record} needs --beside: published runs on the same cohort name the folds")
    predictions, reference = scoring.parse_paths(paths, pred or [])
    published = read_published(beside) if beside else None
    known = {"from-image": None, "unknown": (nan, nan, nan)}
    given = known[spacing] if spacing in known else three_numbers("--spacing", spacing, ",", float, "3,1,1")
    screen = Console(stderr=True)
    scores = scoring.score(
        predictions,
        reference,
        labels=scoring.parse_labels(labels) if labels else None,
        spacing_mm=given,
        tolerances_mm=scoring.parse_tolerances(nsd_tolerance or []),
        cases=scoring.fold_cases(predictions, published) if published else None,
        track=lambda cases: track(cases, "cases", console=screen, transient=True, disable=not screen.is_terminal),
    )
    if record and published:
        scoring.write_record(scores, published, record)
    if out:
        scoring.write(scores, out, undefined, convention)
    if as_json:
        typer.echo(json.dumps(scoring.as_data(scores, undefined, convention), indent=1, allow_nan=False))
        return
    print_table(*scoring.summary_table(scores, undefined, convention))
    if len(predictions) > 1:
        typer.echo(f"\ndifferences from {next(iter(predictions))}")
        print_table(*scoring.comparison_table(scores, undefined, convention))
    typer.echo("\n" + "\n".join(scoring.words(scores, undefined, convention)))
    if record:
        typer.echo(f"record: {record}")

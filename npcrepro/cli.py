"""The command line: ``npcrepro``. Each command imports what it needs when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from npcrepro.errors import InputError
from npcrepro.protocol import Settings

app = typer.Typer(
    help="Reproducing NPC Segmentation: five papers on nasopharyngeal carcinoma, built again and measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data = typer.Typer(help="Check, make and look at cohorts in the nnU-Net raw layout.", no_args_is_help=True)
app.add_typer(data, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT = Settings()


@app.command("list")
def list_methods(as_json: Json = False) -> None:
    """List papers and their methods, the proposed one first."""
    from npcrepro import papers

    rows = [
        {"paper": key, "method": method.full_name, "title": method.title, "summary": method.summary}
        for key in papers.KEYS
        for method in papers.load(key).methods
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        _print_table(["method", "summary"], [(row["method"], row["summary"]) for row in rows])


@app.command()
def describe(
    name: Annotated[str, typer.Argument(metavar="PAPER/METHOD", help="For instance li2018/stepwise.")],
    profile: Annotated[str, typer.Option(help="Whose matrix and width to use.")] = "paper",
    as_json: Json = False,
) -> None:
    """Draw a method's network: layers with output sizes, parameters and multiply-accumulates."""
    import torch

    from npcrepro import papers
    from npcrepro.models.summary import layer_table

    paper, method = papers.find_method(name)
    size = paper.profile(profile)
    with torch.device("meta"):
        network = method.build(size.width)
    layers = layer_table(network, (len(method.channels), *size.matrix))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    macs = sum(layer.macs for layer in layers)
    if as_json:
        described = {
            "paper": paper.key,
            "method": method.full_name,
            "parameters": parameters,
            "macs": macs,
            "layers": [dataclasses.asdict(layer) for layer in layers],
        }
        typer.echo(json.dumps(described, indent=1))
        return
    _print_table(
        ["layer", "kind", "kernel", "stride", "padding", "output", "parameters", "MAC (M)"],
        [
            (
                layer.name,
                layer.kind,
                *(" x ".join(map(str, part)) for part in (layer.kernel, layer.stride, layer.padding)),
                " x ".join(map(str, layer.output)),
                f"{layer.parameters:,}" if layer.parameters else "",
                f"{layer.macs / 1e6:.2f}" if layer.macs else "",
            )
            for layer in layers
        ],
    )
    typer.echo(
        f"{method.full_name}: {parameters:,} parameters, {macs / 1e9:.2f} billion multiply-accumulates for a sample"
    )


@app.command()
def run(
    paper: Annotated[str, typer.Argument(help="Paper, for instance li2018.")],
    cohort: Annotated[
        str, typer.Option(help="Folder in the nnU-Net raw layout, or 'phantom' for the embedded cohort.")
    ] = DEFAULT.cohort,
    profile: Annotated[str, typer.Option(help="Size of the run: smoke, quick, bench or paper.")] = DEFAULT.profile,
    methods: Annotated[
        list[str] | None, typer.Option(help="Method, may be given several times. [default: the profile's]")
    ] = None,
    folds: Annotated[
        list[int] | None, typer.Option(help="Fold, may be given several times. [default: the profile's]")
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Seed, may be given several times. [default: 0]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = DEFAULT.device,
    runs: Annotated[str, typer.Option(help="Folder for runs; finished ones in it are read back.")] = DEFAULT.runs,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at any defect of the cohort and at channels under other names.")
    ] = False,
    publish: Annotated[
        Path | None, typer.Option(help="Also write the numbers of these runs (no images, no weights) to this folder.")
    ] = None,
) -> None:
    """Train and score a paper's methods on a cohort, fold by fold.

    A finished run is read back, an interrupted one goes on where it was, a changed configuration is a new run.
    """
    from npcrepro import papers, records
    from npcrepro.runs import run_paper

    settings = Settings(cohort, profile, tuple(methods or ()), tuple(folds or ()), tuple(seeds or (0,)), device, runs)
    finished = run_paper(papers.load(paper), settings, strict=strict, report=typer.echo)
    _print_scores(finished)
    if publish:
        records.publish(finished, publish)
        typer.echo(f"published in {publish}")


@data.command("check")
def data_check(path: Annotated[Path, typer.Argument(help="Folder in the nnU-Net raw layout.")]) -> None:
    """Report every defect of a cohort in one pass; exit status 1 if any of them is an error."""
    from npcrepro.cohorts.check import check

    defects = check(path)
    for defect in defects:
        typer.echo(f"{defect.severity}: {defect}")
    errors = sum(defect.severity == "error" for defect in defects)
    typer.echo(f"{path}: {errors} errors, {len(defects) - errors} warnings")
    raise typer.Exit(1 if errors else 0)


@data.command("phantom")
def data_phantom(
    path: Annotated[Path, typer.Argument(help="Folder to write; has to be new or empty.")],
    patients: Annotated[int, typer.Option(help="Number of patients.")] = 6,
    matrix: Annotated[tuple[int, int, int], typer.Option(help="Voxels along z, y and x.")] = (20, 144, 144),
    seed: Annotated[int, typer.Option(help="Another seed makes other patients.")] = 0,
) -> None:
    """Write the embedded cohort: synthetic heads with a tumour in the nasopharynx."""
    from npcrepro.cohorts.phantom import write_phantom

    cohort = write_phantom(path, patients=patients, seed=seed, matrix=matrix)
    typer.echo(f"{len(cohort.cases)} cases in {path}")


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="Profile of every notebook.")] = DEFAULT.profile,
    runs: Annotated[str, typer.Option(help="Folder for runs.")] = DEFAULT.runs,
    output: Annotated[str, typer.Option(help="Folder for the built book.")] = "_build",
) -> None:
    """Run the notebooks and build the book; what has not changed is not done again."""
    from npcrepro.book import build

    build(profile=profile, output=output, runs=runs)


def main() -> None:
    """Entry point: an :class:`InputError` becomes one line on stderr and exit status 1."""
    try:
        app()
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _print_table(header: list[str], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # Without a terminal, rich would fold lines at 80 columns and break what a pipe reads.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _print_scores(finished: list) -> None:
    from npcrepro import evaluation, records, statistics

    patients = evaluation.over_seeds(evaluation.by_patient(records.case_table(finished)))
    kept = patients[~patients.suspect]
    rows = []
    for (method, structure, region), group in kept.groupby(["method", "structure", "region"], sort=False):
        rows.append((method, structure, region, *(str(statistics.summarise(group[m])) for m in ("dsc", "sensitivity"))))
    _print_table(["method", "structure", "region", "DSC", "sensitivity"], rows)
    if patients.suspect.any():
        typer.echo(f"{patients[patients.suspect].patient.nunique()} patients with doubtful labels are not in the means")


if __name__ == "__main__":
    main()

"""The command line: ``npcrepro``. Each command imports what it needs when it runs, so that ``--help`` is quick."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from npcrepro.base.errors import InputError
from npcrepro.base.wording import plural
from npcrepro.cli import papers
from npcrepro.cli.data import data
from npcrepro.cli.options import (
    DEFAULT,
    CohortPath,
    Deterministic,
    Device,
    Devices,
    Folds,
    Json,
    Methods,
    Modalities,
    Papers,
    Runs,
    Seeds,
    Size,
    check_devices,
    print_json,
    print_table,
    reflow,
    settings_of,
)  # fmt: skip
from npcrepro.cli.publish import publish
from npcrepro.cli.score import score

app = typer.Typer(
    help="Reproducing NPC Segmentation: papers on nasopharyngeal carcinoma, built again and measured.",
    epilog="Your own scans, in this order: data import, data check, weights, predict --weights, data export-rtstruct.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data, name="data")
app.command("list")(papers.list_methods)
app.command()(papers.describe)


@app.command()
def run(
    paper: Annotated[str, typer.Argument(help="Paper, for instance li2018.")],
    cohort: CohortPath = DEFAULT.cohort,
    profile: Size = DEFAULT.profile,
    methods: Methods = None,
    folds: Folds = None,
    seeds: Seeds = None,
    device: Device = DEFAULT.device,
    runs: Runs = DEFAULT.runs,
    modalities: Modalities = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at any defect of the cohort and at channels under other names.")
    ] = False,
    publish: Annotated[
        Path | None, typer.Option(help="Also add the numbers of these runs (no images, no weights) to this folder.")
    ] = None,
    devices: Devices = 1,
    deterministic: Deterministic = False,
    only: Annotated[
        str, typer.Option(metavar="FOLDER", help="One of these runs, by its folder below the folder for runs.")
    ] = "",
) -> None:
    """Train and score a paper's methods on a cohort, fold by fold.

    A finished run is read back, an interrupted one goes on where it was, a changed configuration is a new run.
    """
    from npcrepro.base.files import check_writable
    from npcrepro.base.progress import shown
    from npcrepro.findings.claims.family import claims
    from npcrepro.protocol import registry
    from npcrepro.runs import published
    from npcrepro.runs.queue import run_paper

    if "/" in paper:
        key, _, method = paper.partition("/")
        raise InputError(
            f"{paper!r} is a method: give its paper and --methods, as in npcrepro run {key} --methods {method}"
        )
    check_devices(devices, device)
    settings = settings_of(cohort, profile, methods, folds, seeds, device, runs, modalities)
    if publish:
        check_writable(publish)
    protocol = registry.load(paper, settings.modalities)
    claims(paper)  # a test that waits to be frozen, or was changed, is an error before there are results
    with shown(typer.echo) as report:
        finished = run_paper(
            protocol,
            settings,
            strict=strict,
            report=report,
            devices=devices,
            deterministic=deterministic,
            only=only,
        )
    _print_scores(finished)
    if publish:
        gone = published.publish(finished, publish)
        typer.echo(f"published in {publish}")
        for row in gone:
            typer.echo(
                f"taken out of it: {row['method']}, fold {row['fold']}, seed {row['seed']}, as the method was defined "
                "otherwise then"
            )


def _print_scores(finished: list) -> None:
    from npcrepro import statistics
    from npcrepro.runs import per_patient, records

    patients = per_patient.over_seeds(per_patient.by_patient(records.concatenate(each.cases for each in finished)))
    kept = patients[~patients.suspect]
    rows = []
    for (method, structure, region), group in kept.groupby(["method", "structure", "region"], sort=False):
        rows.append((method, structure, region, *(str(statistics.summarise(group[m])) for m in ("dsc", "sensitivity"))))
    print_table(["method", "structure", "region", "DSC", "sensitivity"], rows)
    if patients.suspect.any():
        doubtful = plural(patients[patients.suspect].patient.nunique(), "patient")
        typer.echo(f"not in the means for doubtful labels: {doubtful}")


@app.command()
def status(
    papers: Papers = None,
    cohort: CohortPath = DEFAULT.cohort,
    profile: Size = DEFAULT.profile,
    methods: Methods = None,
    folds: Folds = None,
    seeds: Seeds = None,
    runs: Runs = DEFAULT.runs,
    modalities: Modalities = None,
    as_json: Json = False,
) -> None:
    """Tell what is done, running, failed and left of the runs that `run` would make with the same options.

    A stopped run has begun and goes on where it was. Nothing is trained, and no phantom is made.
    """
    from npcrepro.base.progress import spoken
    from npcrepro.runs import sweep

    settings = settings_of(cohort, profile, methods, folds, seeds, DEFAULT.device, runs, modalities)
    planned = sweep.make_sweep(papers or (), settings, images=False)
    found = {folder: sweep.progress(Path(runs) / folder) for folder in planned.runs}
    left_s = sweep.time_left_s(planned, found)
    if as_json:
        print_json([{"run": folder, **dataclasses.asdict(each)} for folder, each in found.items()])
        return
    print_table(*sweep.status_table(planned, found))
    for folder, each in found.items():
        if each.state in ("running", "failed", "stopped"):
            typer.echo(f"{each.state}: {folder}{f': {each.detail}' if each.detail else ''}")
    finished = sum(each.state in ("done", "diverged") for each in found.values())
    about = "" if left_s != left_s or not left_s else f"; about {spoken(left_s)} left, one run after the other"
    typer.echo(f"{finished} of {plural(len(found), 'run')} finished{about}")


@app.command()
def plan(
    papers: Papers = None,
    cohort: CohortPath = DEFAULT.cohort,
    profile: Size = "paper",
    methods: Methods = None,
    folds: Folds = None,
    seeds: Seeds = None,
    device: Device = DEFAULT.device,
    runs: Runs = DEFAULT.runs,
    modalities: Modalities = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a few updates of every network that no finished run tells about.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count the runs of a sweep and estimate its hours, memory and disk.

    A public set need not be there yet: give SET/VARIANT of `data list` as cohort, for instance npc-mri-277/CET1.

    The time of an update comes from finished runs of the same method and profile, or with --measure from random images
    on this device. Stages that end early make a run shorter, images on slow disks longer.
    """
    from npcrepro.runs import cost, sweep

    settings = settings_of(cohort, profile, methods, folds, seeds, device, runs, modalities)
    planned = sweep.make_sweep(papers or (), settings, images=False)
    rows = cost.estimate(planned, measure=measure, report=lambda line: typer.echo(line, err=True))
    if as_json:
        print_json([row._asdict() | {"hours": row.hours} for row in rows])
        return
    print_table(*cost.estimate_table(rows))
    for line in (cost.estimate_in_words(rows), *cost.needs_in_words(settings)):
        typer.echo(line)


@app.command()
def train(
    name: Annotated[
        str,
        typer.Argument(
            metavar="PAPER/METHOD", help="For instance luo2020/unet-tuned; a paper alone means its proposed method."
        ),
    ],
    cohort: CohortPath = DEFAULT.cohort,
    profile: Size = DEFAULT.profile,
    seeds: Seeds = None,
    device: Device = DEFAULT.device,
    runs: Runs = DEFAULT.runs,
    modalities: Modalities = None,
    devices: Devices = 1,
    deterministic: Deterministic = False,
) -> None:
    """Train a method on a whole cohort, for use on other images; no patient is tested.

    Some patients are kept for validation, to choose the weights. The folder of the run is what `predict` takes.
    """
    from npcrepro.base.progress import shown
    from npcrepro.protocol import registry
    from npcrepro.runs.predict import train_on_all

    check_devices(devices, device)
    key, _, method = name.partition("/")
    settings = settings_of(cohort, profile, (), (), seeds, device, runs, modalities)
    paper = registry.load(key, settings.modalities)
    settings = dataclasses.replace(settings, methods=(method or paper.methods[0].name,))
    with shown(typer.echo) as report:
        found = train_on_all(paper, settings, report, devices, deterministic)
    for record in found:
        fold = record.config["fold"]
        train, validation = plural(len(fold["train"]), "patient"), len(fold["validation"])
        typer.echo(f"{record.folder}: {train} for training, {validation} for validation")


@app.command()
def predict(
    cohort: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Folder with imagesTs or imagesTr, or a sample cohort; labels are not needed."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="OUT", help="Folder to write; has to be new or empty.")],
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Folder of a finished run; `train` prints it.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="NAME", help="Published weights in place of a run; `weights` lists them.")
    ] = None,
    device: Device = DEFAULT.device,
) -> None:
    """Segment every case of a folder with a trained network: OUT/CASE.nii.gz and a dataset.json.

    The network is that of a finished run (--run), or comes with this package (--weights).
    """
    from npcrepro.runs import predict
    from npcrepro.runs.weights import weights_of

    if run is not None and weights is not None:
        raise InputError(f"--run {run} and --weights {weights} name two networks: give one of them")
    if run is None and weights is None:
        raise InputError("no network is named: give --run with the folder of a run, or --weights with a name")
    number = predict.predict(run or weights_of(weights or ""), cohort, out, device, report=typer.echo)
    typer.echo(f"{plural(number, 'case')} in {out}")


@app.command("weights")
def list_weights(
    publish: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Pack a finished run into this package first; may be given several times."),
    ] = None,
    device: Device = DEFAULT.device,
) -> None:
    """List the trained networks that come with this package, for `predict --weights`."""
    from npcrepro.protocol import registry
    from npcrepro.runs import weights

    for run in publish or ():
        typer.echo(f"{run} packed in {weights.publish(run, device)}")
    if rows := weights.table():
        print_table(weights.TABLE, rows)
        typer.echo("DSC: mean over the structures of patients who did not train; n counts patients")
        typer.echo(f"model cards: {registry.FOLDERS}/PAPER/weights/METHOD/README.md")
        typer.echo("to use one: npcrepro predict --weights NAME --cohort FOLDER --out OUT")
    else:
        typer.echo("this copy of the package has no weights")


app.command()(score)
app.command()(publish)


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="Profile of every notebook.")] = DEFAULT.profile,
    runs: Annotated[str, typer.Option(help="Folder for runs.")] = DEFAULT.runs,
    output: Annotated[str, typer.Option(help="Folder for the built book.")] = "_build",
    cohort: Annotated[
        str, typer.Option(help="Cohort that the chapters are told on; those that cannot use it say why.")
    ] = DEFAULT.cohort,
    private: Annotated[
        bool, typer.Option("--private", help="Show images that may not be published; a book for your own eyes.")
    ] = DEFAULT.private,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also print the book to OUTPUT/pdf/book.pdf; needs Chromium.")
    ] = False,
) -> None:
    """Run the notebooks and build the book; what has not changed is not done again."""
    from npcrepro.book.build.book import build

    build(profile=profile, output=output, runs=runs, cohort=cohort, private=private)
    if pdf:
        from npcrepro.book.build.pdf import print_book

        print_book(output)


app.command("audit")(papers.audit_papers)
for each in (app, data):
    reflow(each)


def main() -> None:
    """Entry point: an :class:`InputError` becomes one line on stderr and exit status 1."""
    try:
        app(args=[_with_home(argument) for argument in sys.argv[1:]])
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _with_home(argument: str) -> str:
    """An argument with the home of the user for the ``~`` of ``--out=~/found`` or ``A=~/found``.

    A shell leaves that one as it is, and a folder called "~" would come of it.
    """
    return "=".join(map(os.path.expanduser, argument.split("=")))


if __name__ == "__main__":
    main()

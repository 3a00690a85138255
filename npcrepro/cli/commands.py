"""The command line: ``npcrepro``. Each command imports what it needs when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from npcrepro.base.errors import InputError
from npcrepro.base.wording import plural
from npcrepro.protocol.settings import Settings

app = typer.Typer(
    help="Reproducing NPC Segmentation: papers on nasopharyngeal carcinoma, built again and measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data = typer.Typer(help="Check, make and look at cohorts in the nnU-Net raw layout.", no_args_is_help=True)
app.add_typer(data, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Modalities = Annotated[
    str | None,
    typer.Option(help="Channels of the cohort in place of the paper's, in its order, for instance T1,CT,PET."),
]
CohortPath = Annotated[
    str, typer.Option(help="Folder in the nnU-Net raw layout, or 'phantom' for the embedded cohort.")
]
Size = Annotated[str, typer.Option(help="Size of the run: smoke, quick, bench or paper.")]
Methods = Annotated[
    list[str] | None, typer.Option(help="Method, may be given several times; by default the profile's.")
]
Folds = Annotated[list[int] | None, typer.Option(help="Fold, may be given several times; by default the profile's.")]
Seeds = Annotated[list[int] | None, typer.Option(help="Seed, may be given several times; by default 0.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Devices = Annotated[int, typer.Option(min=1, help="GPUs that share each batch; the numbers are those of one.")]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="The same bits on a GPU each time; slower. A CPU needs no asking.")
]
Runs = Annotated[str, typer.Option(help="Folder for runs; finished ones in it are read back.")]
Papers = Annotated[
    list[str] | None, typer.Argument(metavar="[PAPER]...", help="For instance li2018; by default all of them.")
]
DEFAULT = Settings()


@app.command("list")
def list_methods(as_json: Json = False) -> None:
    """List papers and their methods, the proposed one first."""
    from npcrepro.protocol import registry

    rows = [
        {"paper": key, "method": method.full_name, "title": method.title, "summary": method.summary}
        for key in registry.KEYS
        for method in registry.load(key).methods
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
    from npcrepro.models.layers import count_layers
    from npcrepro.protocol import registry

    paper, method = registry.find_method(name)
    size = paper.profile(profile)
    parameters, layers, macs = count_layers(lambda: method.build(size.width), method.input_shape(size))
    if as_json:
        described = {
            "paper": paper.key,
            "method": method.full_name,
            "parameters": parameters,
            "macs": macs,
            "layers": [dataclasses.asdict(layer) for layer in layers or ()],
        }
        typer.echo(json.dumps(described, indent=1))
        return
    if layers is None or macs is None:
        typer.echo(
            f"{method.full_name}: {parameters:,} parameters; which layers run, and how often, depends on what is found "
            "in an image, so there is no table of layers and no number of multiply-accumulates"
        )
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
    from npcrepro.protocol import registry
    from npcrepro.runs import published
    from npcrepro.runs.queue import run_paper

    settings = _settings(cohort, profile, methods, folds, seeds, device, runs, modalities)
    if publish:
        check_writable(publish)
    with shown(typer.echo) as report:
        finished = run_paper(
            registry.load(paper, settings.modalities),
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

    settings = _settings(cohort, profile, methods, folds, seeds, DEFAULT.device, runs, modalities)
    planned = sweep.make_sweep(papers or (), settings, images=False)
    found = {folder: sweep.progress(Path(runs) / folder) for folder in planned.runs}
    left_s = sweep.time_left_s(planned, found)
    if as_json:
        rows = [{"run": folder, **dataclasses.asdict(each)} for folder, each in found.items()]
        rows = [row | {"seconds": None if row["seconds"] != row["seconds"] else row["seconds"]} for row in rows]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    _print_table(*sweep.status_table(planned, found))
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
    """Count the runs of a sweep, and estimate its hours from measured updates.

    An update takes what it took in finished runs of the same method and profile, or with --measure what the network
    needs for random images on this device. Stages that end early make it shorter, images on slow disks longer.
    """
    from npcrepro.runs import cost, sweep

    settings = _settings(cohort, profile, methods, folds, seeds, device, runs, modalities)
    planned = sweep.make_sweep(papers or (), settings, images=False)
    rows = cost.estimate(planned, measure=measure, report=lambda line: typer.echo(line, err=True))
    if as_json:
        known = {row.method: None if row.seconds != row.seconds else row.hours for row in rows}
        found = [dataclasses.asdict(row) | {"hours": known[row.method]} for row in rows]
        found = [row | {"seconds": None if row["hours"] is None else row["seconds"]} for row in found]
        typer.echo(json.dumps(found, indent=1))
        return
    _print_table(*cost.estimate_table(rows))
    typer.echo(cost.estimate_in_words(rows))


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="PAPER/METHOD", help="For instance luo2020/unet-tuned.")],
    cohort: CohortPath = DEFAULT.cohort,
    profile: Size = DEFAULT.profile,
    seeds: Seeds = None,
    device: Device = DEFAULT.device,
    runs: Runs = DEFAULT.runs,
    modalities: Modalities = None,
    devices: Devices = 1,
    deterministic: Deterministic = False,
) -> None:
    """Train a method on a whole cohort, for use on other images; nobody is tested.

    Some patients choose the weights, as in every run, and do not train. The folder of the run is what `predict` takes.
    """
    from npcrepro.base.progress import shown
    from npcrepro.protocol import registry
    from npcrepro.runs.predict import train_on_all

    key, _, method = name.partition("/")
    settings = _settings(cohort, profile, (), (), seeds, device, runs, modalities)
    paper = registry.load(key, settings.modalities)
    settings = dataclasses.replace(settings, methods=(method or paper.methods[0].name,))
    with shown(typer.echo) as report:
        found = train_on_all(paper, settings, report, devices, deterministic)
    for record in found:
        fold = record.config["fold"]
        trained, chose = (plural(len(fold[part]), "patient") for part in ("train", "validation"))
        typer.echo(f"{record.folder}: {trained} trained, {chose} chose the weights")


@app.command()
def predict(
    run: Annotated[Path, typer.Option(metavar="RUN", help="Folder of a finished run; `train` prints it.")],
    cohort: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder with imagesTs or imagesTr; labels are not needed.")
    ],
    out: Annotated[Path, typer.Option(metavar="OUT", help="Folder to write; has to be new or empty.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = DEFAULT.device,
) -> None:
    """Segment every case of a folder with the network of a finished run: OUT/CASE.nii.gz and a dataset.json."""
    from npcrepro.runs import predict

    number = predict.predict(run, cohort, out, device, report=typer.echo)
    typer.echo(f"{plural(number, 'case')} in {out}")


@app.command()
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
        str, typer.Option(help="Surface on the screen: surfel or voxel. Files hold both.")
    ] = "surfel",
    undefined: Annotated[
        str, typer.Option(help="What a value counts as that an empty mask leaves undefined: worst, leave-out or one.")
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
    from npcrepro.metrics.surface import CONVENTIONS
    from npcrepro.runs.published import read_published

    pick(scoring.RULES, undefined, "rule of --undefined")
    pick(CONVENTIONS, convention, "convention")
    if out:
        scoring.check_out(out)
    if record:
        scoring.check_record(record)
        if not beside:
            raise InputError(f"--record {record} needs --beside: published runs on the same cohort name the folds")
    predictions, reference = scoring.parse_paths(paths, pred or [])
    published = read_published(beside) if beside else None
    known = {"from-image": None, "unknown": (nan, nan, nan)}
    given = known[spacing] if spacing in known else _three("--spacing", spacing, ",", float, "3,1,1")
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
    if record:
        scoring.write_record(scores, published, record)
    if out:
        scoring.write(scores, out, undefined, convention)
    if as_json:
        typer.echo(json.dumps(scoring.as_data(scores, undefined, convention), indent=1, allow_nan=False))
        return
    _print_table(*scoring.summary_table(scores, undefined, convention))
    if len(predictions) > 1:
        typer.echo(f"\ndifferences from {next(iter(predictions))}")
        _print_table(*scoring.comparison_table(scores, undefined, convention))
    typer.echo("\n" + "\n".join(scoring.words(scores, undefined, convention)))
    if record:
        typer.echo(f"record: {record}")


@data.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder in the nnU-Net raw layout.")],
) -> None:
    """Report every defect of a cohort in one pass; exit status 1 if any of them is an error.

    Cases whose labels are known to be wrong or doubtful are named, too.
    """
    from npcrepro.cohorts.check import check
    from npcrepro.cohorts.layout import scan

    defects = check(path)
    for defect in defects:
        typer.echo(f"{defect.severity}: {defect}")
    listing = scan(path)
    suspect = [case.name for case in listing.cases if case.suspect]
    for names, meaning in ((listing.excluded, "wrong labels, never used"), (suspect, "doubtful labels, scored apart")):
        if names:
            typer.echo(f"known: {', '.join(names)}: {meaning}")
    errors = sum(defect.severity == "error" for defect in defects)
    typer.echo(f"{path}: {plural(errors, 'error')}, {plural(len(defects) - errors, 'warning')}")
    raise typer.Exit(1 if errors else 0)


@data.command("describe")
def data_describe(
    path: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder in the nnU-Net raw layout.")],
    table: Annotated[Path | None, typer.Option(help="Also write every row to this CSV file.")] = None,
    runs: Annotated[str, typer.Option(help="Folder where the prepared cohort is kept.")] = DEFAULT.runs,
) -> None:
    """Sizes of the structures of a cohort, and how well the intensity of each channel alone tells them apart."""
    from npcrepro.base.files import writing
    from npcrepro.book import tables
    from npcrepro.cohorts.layout import read_cohort
    from npcrepro.cohorts.prepared import prepare
    from npcrepro.cohorts.summary import summarise_cohort

    rows = summarise_cohort(prepare(read_cohort(path), Path(runs) / "prepared"))
    if table:
        with writing(table) as temporary:
            rows.to_csv(temporary, index=False, float_format="%.6g")
    medians = tables.cohort(rows)
    lines = [[f"{cell:.3g}" if isinstance(cell, float) else cell for cell in row] for row in medians.to_numpy()]
    _print_table(list(medians), lines)
    typer.echo("medians over the cases that show the structure; separability 0.5: intensity tells nothing")


@data.command("prepare")
def data_prepare(
    path: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder in the nnU-Net raw layout.")],
    runs: Runs = DEFAULT.runs,
) -> None:
    """Write the checked, memory-mapped copy of a cohort from which everything trains; runs do this by themselves."""
    from npcrepro.cohorts.layout import read_cohort
    from npcrepro.cohorts.prepared import prepare

    typer.echo(prepare(read_cohort(path), Path(runs) / "prepared").folder)


@data.command("splits")
def data_splits(
    path: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder in the nnU-Net raw layout.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write; nnU-Net calls it splits_final.json.")],
    paper: Annotated[str, typer.Option(help="Whose split: the one that `run` uses, for instance luo2020.")],
) -> None:
    """Write the folds of a paper on a cohort as nnU-Net's splits_final.json: cases tested are its "val"."""
    from npcrepro.base.files import write_json
    from npcrepro.cohorts.folds import as_nnunet, split_patients
    from npcrepro.cohorts.layout import read_cohort
    from npcrepro.protocol import registry

    cohort = read_cohort(path)
    folds = as_nnunet(split_patients(cohort, **registry.load(paper).split), cohort)
    write_json(out, folds)
    typer.echo(f"{plural(len(folds), 'fold')} of {plural(len(cohort.cases), 'case')} in {out}")


@data.command("slices")
def data_slices(
    path: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder in the nnU-Net raw layout.")],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; has to be new or empty.")],
    by: Annotated[
        str, typer.Option(help="What a split keeps together: patient (the slices of one), or slice (each by itself).")
    ] = "patient",
    patients: Annotated[
        int | None, typer.Option(help="Only the first so many patients without doubtful labels; by default all.")
    ] = None,
    runs: Annotated[str, typer.Option(help="Folder where the prepared cohort is kept.")] = DEFAULT.runs,
) -> None:
    """Write every slice that shows a structure as a case, to measure what splitting by slice does to the numbers."""
    from npcrepro.base.errors import pick
    from npcrepro.cohorts.layout import read_cohort
    from npcrepro.cohorts.prepared import prepare
    from npcrepro.cohorts.slices import write_slices

    by_patient = pick({"patient": True, "slice": False}, by, "unit of --by")
    prepared = prepare(read_cohort(path), Path(runs) / "prepared")
    cohort = write_slices(prepared, destination, by_patient=by_patient, patients=patients)
    seen = plural(len(cohort.patients), "patient")
    typer.echo(f"{plural(len(cohort.cases), 'slice')} in {destination}; a split sees {seen}")


@data.command("list")
def data_list(as_json: Json = False) -> None:
    """List the public data sets: what is in them, licence, how to get them, and variants."""
    from npcrepro.cohorts import public

    if as_json:
        typer.echo(json.dumps([each.described() for each in public.SETS.values()], indent=1))
        return
    for each in public.SETS.values():
        may = "may" if each.publishable else "may not"
        typer.echo(f"{each.key}: {each.content}")
        typer.echo(f"    licence: {each.licence}; images {may} appear in a public book")
        typer.echo(f"    access: {each.access}")
        for variant, meaning in each.variants.items():
            typer.echo(f"    variant {variant}: {meaning}")


@data.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="SET", help="A set that 'data list' names, for instance npc-mri-277.")],
    destination: Annotated[Path, typer.Argument(metavar="FOLDER", help="For the archive and what is in it.")],
) -> None:
    """Download a public data set and unpack it; an interrupted download goes on where it was."""
    from npcrepro.cohorts import public

    public.fetch(public.find(name), destination, typer.echo)


@data.command("convert")
def data_convert(
    name: Annotated[str, typer.Argument(metavar="SET", help="A set that 'data list' names, for instance npc-mri-277.")],
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="The set as published, unpacked.")],
    destination: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder to write; has to be new or empty.")],
    variant: Annotated[
        str | None, typer.Option(help="Which series or structures; by default the first that 'data list' names.")
    ] = None,
) -> None:
    """Convert a public data set to a cohort in the nnU-Net raw layout, with its licence."""
    from npcrepro.cohorts import public

    cohort = public.convert(public.find(name), source, destination, variant, typer.echo)
    typer.echo(f"{plural(len(cohort.cases), 'case')} in {destination}; licence: {cohort.licence}")


@data.command("phantom")
def data_phantom(
    path: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder to write; has to be new or empty.")],
    kind: Annotated[str, typer.Option(help="mri, ct, thrive or dce.")] = "mri",
    patients: Annotated[int, typer.Option("--n", help="Number of patients.")] = 6,
    matrix: Annotated[
        str | None, typer.Option(help="Voxels along z, y and x, for instance 24x160x160; by default the kind's.")
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(
            help="Millimetres along z, y and x, for instance 3,1.25,1.25; by default the kind's field of view."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed makes other patients.")] = 0,
    second_observer: Annotated[
        float | None,
        typer.Option(help="Also write what a second observer draws, who agrees at this DSC, for instance 0.64."),
    ] = None,
) -> None:
    """Write the embedded cohort: synthetic heads with a tumour in the nasopharynx."""
    from npcrepro.cohorts.phantom import write_phantom

    cohort = write_phantom(
        path,
        kind=kind,
        patients=patients,
        seed=seed,
        matrix=None if matrix is None else _three("--matrix", matrix, "x", int, "24x160x160"),
        spacing_mm=None if spacing is None else _three("--spacing", spacing, ",", float, "3,1.25,1.25"),
        second_observer=second_observer,
    )
    typer.echo(f"{plural(len(cohort.cases), 'case')} in {path}")


def _settings(cohort, profile, methods, folds, seeds, device, runs, modalities) -> Settings:
    """Settings from options, of which those that may be repeated are None if not given."""
    return Settings(
        cohort=cohort,
        profile=profile,
        methods=tuple(methods or ()),
        folds=tuple(folds or ()),
        seeds=tuple(seeds or DEFAULT.seeds),
        device=device,
        runs=runs,
        modalities=_names(modalities),
    )


def _names(text: str | None) -> tuple[str, ...]:
    """Names from ``T1,CT,PET``, with or without blanks behind the commas."""
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if not all(names):
        raise InputError(f"--modalities {text!r} has an empty name, perhaps a comma too many: it looks like T1,CT,PET")
    return names


def _three(option: str, text: str, separator: str, number: type, example: str) -> list:
    """Three numbers (z, y, x) from the text of an option."""
    try:
        values = [number(part) for part in text.split(separator)]
    except ValueError:
        values = []
    if len(values) != 3:
        raise InputError(f"{option} {text!r} is not three numbers along z, y and x: it looks like {example}")
    return values


@data.command("import")
def data_import(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|TABLE", help="Folder tree of DICOM, or a CSV table of image files.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder to write; has to be new or empty.")],
    rules: Annotated[
        Path | None, typer.Option(help="YAML for DICOM: which series is which channel, which name which structure.")
    ] = None,
) -> None:
    """Make a cohort of DICOM (contours filled, images on one grid, identifiers dropped) or of a table of files.

    The table has the columns case, mask:STRUCTURE or label:STRUCTURE=1, and one for each channel.
    """
    if source.suffix.lower() in (".csv", ".tsv"):
        from npcrepro.cohorts.table import import_table

        if rules:
            raise InputError(f"--rules {rules} is for DICOM; in the table {source} the columns name the roles")
        cohort = import_table(source, destination, report=typer.echo)
    else:
        from npcrepro.cohorts.dicom import import_dicom

        cohort = import_dicom(source, destination, rules=rules, report=typer.echo)
    channels, structures = ", ".join(cohort.channels), ", ".join(cohort.structures)
    typer.echo(f"{plural(len(cohort.cases), 'case')} in {destination}; channels {channels}; structures {structures}")


@data.command("export-rtstruct")
def data_export_rtstruct(
    prediction: Annotated[Path, typer.Argument(metavar="PREDICTION", help="Label image on the grid of the series.")],
    series: Annotated[Path, typer.Argument(metavar="SERIES", help="Folder of the DICOM series.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="RTSTRUCT file to write. It names the patient, as the series does.")
    ],
    structures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CODE",
            help="May be given several times; by default as dataset.json beside the prediction says.",
        ),
    ] = None,
) -> None:
    """Write a prediction as an RTSTRUCT for a treatment planning system."""
    from npcrepro.cohorts.dicom import export_rtstruct, parse_structures, structures_of

    codes = parse_structures(structures) if structures else structures_of(prediction)
    export_rtstruct(prediction, series, out, codes, report=typer.echo)
    typer.echo(f"written: {out}; it holds the patient's name and identifier")


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


def _print_table(header: list[str], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # Without a terminal, rich would fold lines at 80 columns and break what a pipe reads.
    # Without markup, what a user named "GTV [old]" keeps its brackets.
    Console(width=None if sys.stdout.isatty() else 200, markup=False).print(table)


def _print_scores(finished: list) -> None:
    from npcrepro import statistics
    from npcrepro.runs import per_patient, records

    patients = per_patient.over_seeds(per_patient.by_patient(records.case_table(finished)))
    kept = patients[~patients.suspect]
    rows = []
    for (method, structure, region), group in kept.groupby(["method", "structure", "region"], sort=False):
        rows.append((method, structure, region, *(str(statistics.summarise(group[m])) for m in ("dsc", "sensitivity"))))
    _print_table(["method", "structure", "region", "DSC", "sensitivity"], rows)
    if patients.suspect.any():
        doubtful = plural(patients[patients.suspect].patient.nunique(), "patient")
        typer.echo(f"not in the means for doubtful labels: {doubtful}")


@app.command("audit")
def audit_papers(
    checks: Annotated[list[str] | None, typer.Argument(metavar="[CHECK]...", help="As L04: told in full.")] = None,
    as_json: Json = False,
) -> None:
    """Check whether the printed numbers of the papers fit together."""
    from npcrepro.findings import audit

    results = audit.audit(checks or ())
    rows = audit.table(results)
    if as_json:
        typer.echo(json.dumps(rows.to_dict("records"), indent=1, ensure_ascii=False))
    elif checks:
        typer.echo(
            "\n\n".join("\n".join(f"{name}: {cell}" for name, cell in row.items()) for row in rows.to_dict("records"))
        )
    else:
        _print_table(["check", "verdict", "printed"], rows[["check", "verdict", "printed"]].values.tolist())
        sums = audit.counts(results)
        _print_table(list(sums), sums.astype(str).values.tolist())


if __name__ == "__main__":
    main()

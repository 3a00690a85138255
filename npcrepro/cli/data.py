"""The commands ``npcrepro data``: cohorts made, checked, described, and converted."""

from pathlib import Path
from typing import Annotated

import typer

from npcrepro.base.errors import InputError
from npcrepro.base.wording import plural
from npcrepro.cli.options import DEFAULT, Json, print_json, print_table, three_numbers

CohortFolder = Annotated[
    Path,
    typer.Argument(metavar="COHORT", help="Folder in the nnU-Net raw layout, or a sample cohort such as 'sample-ct'."),
]
PreparedIn = Annotated[
    str, typer.Option("--runs", help="Folder for runs; the prepared cohort goes to `prepared` in it.")
]
NewCohort = Annotated[Path, typer.Argument(metavar="COHORT", help="Folder to write; has to be new or empty.")]
PublicSet = Annotated[
    str, typer.Argument(metavar="SET", help="A set that 'data list' names, for instance npc-mri-277.")
]
data = typer.Typer(
    help="Make cohorts of DICOM, of image files and of public sets; check them; export contours.", no_args_is_help=True
)


@data.command("check")
def data_check(
    path: CohortFolder,
) -> None:
    """Report every defect of a cohort in one pass; exit status 1 if any of them is an error.

    Cases whose labels are known to be wrong or doubtful are named, too.
    """
    from npcrepro.cohorts.check import check
    from npcrepro.cohorts.listing import cohort_folder, images_to_segment, scan

    defects = check(path)
    for defect in defects:
        typer.echo(f"{defect.severity}: {defect}")
    listing = scan(path)
    suspect = [case.name for case in listing.cases if case.suspect]
    for names, meaning in ((listing.excluded, "wrong labels, never used"), (suspect, "doubtful labels, scored apart")):
        if names:
            typer.echo(f"known: {', '.join(names)}: {meaning}")
    if images_to_segment(cohort_folder(path)):
        typer.echo("known: imagesTs: images to be segmented, without labels")
    errors = sum(defect.severity == "error" for defect in defects)
    typer.echo(f"{path}: {plural(errors, 'error')}, {plural(len(defects) - errors, 'warning')}")
    raise typer.Exit(1 if errors else 0)


@data.command("describe")
def data_describe(
    path: CohortFolder,
    table: Annotated[Path | None, typer.Option(help="Also write every row to this CSV file.")] = None,
    runs: PreparedIn = DEFAULT.runs,
) -> None:
    """Sizes of the structures of a cohort, and how well the intensity of each channel alone distinguishes them
    from their surroundings."""
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
    print_table(list(medians), lines)
    typer.echo("medians over the cases that show the structure; separability 0.5: intensity tells nothing")


@data.command("prepare")
def data_prepare(
    path: CohortFolder,
    runs: PreparedIn = DEFAULT.runs,
) -> None:
    """Write the checked, memory-mapped copy of a cohort from which everything trains; runs do this by themselves."""
    from npcrepro.cohorts.layout import read_cohort
    from npcrepro.cohorts.prepared import prepare

    typer.echo(prepare(read_cohort(path), Path(runs) / "prepared").folder)


@data.command("splits")
def data_splits(
    path: CohortFolder,
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
    path: CohortFolder,
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; has to be new or empty.")],
    by: Annotated[
        str, typer.Option(help="What a split keeps together: patient (the slices of one), or slice (each by itself).")
    ] = "patient",
    patients: Annotated[
        int | None, typer.Option(help="Only the first so many patients without doubtful labels; by default all.")
    ] = None,
    runs: PreparedIn = DEFAULT.runs,
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
        print_json([each.described() for each in public.SETS.values()])
        return
    for each in public.SETS.values():
        may = "may" if each.publishable else "may not"
        typer.echo(f"{each.key}: {each.content}")
        typer.echo(f"    licence: {each.licence}; images {may} appear in a public book")
        typer.echo(f"    access: {each.access}")
        for name, variant in each.variants.items():
            typer.echo(f"    variant {name}: {variant.meaning}")


@data.command("fetch")
def data_fetch(
    name: PublicSet,
    destination: Annotated[Path, typer.Argument(metavar="FOLDER", help="For the archive and what is in it.")],
) -> None:
    """Download a public data set and unpack it; an interrupted download goes on where it was."""
    from npcrepro.cohorts import public

    public.fetch(public.find(name), destination, typer.echo)


@data.command("convert")
def data_convert(
    name: PublicSet,
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="The set as published, unpacked.")],
    destination: NewCohort,
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
    path: NewCohort,
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
        matrix=None if matrix is None else three_numbers("--matrix", matrix, "x", int, "24x160x160"),
        spacing_mm=None if spacing is None else three_numbers("--spacing", spacing, ",", float, "3,1.25,1.25"),
        second_observer=second_observer,
    )
    typer.echo(f"{plural(len(cohort.cases), 'case')} in {path}")


@data.command("import")
def data_import(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|TABLE", help="Folder tree of DICOM, or a CSV table of image files.")
    ],
    destination: NewCohort,
    rules: Annotated[
        Path | None,
        typer.Option(help="YAML for DICOM: which series is which channel, and which name is which structure."),
    ] = None,
) -> None:
    """Make a cohort of DICOM (contours filled, images on one grid, identifiers dropped) or of a table of files.

    Series and structures of DICOM that are not recognised are written to rules-draft.yaml beside COHORT, to be edited
    and given as --rules. One series and one structure need no rules. A folder without any RTSTRUCT becomes images to
    be segmented by npcrepro predict.

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
    about = f"structures {structures}" if structures else "no contours: images to be segmented"
    typer.echo(f"{plural(len(cohort.cases), 'case')} in {destination}; channels {channels}; {about}")


@data.command("export-rtstruct")
def data_export_rtstruct(
    prediction: Annotated[Path, typer.Argument(metavar="PREDICTION", help="Label image on the grid of the series.")],
    series: Annotated[
        Path,
        typer.Argument(
            metavar="SERIES",
            help="DICOM folder of the series, or of the patient, from which the series with the same grid is taken.",
        ),
    ],
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

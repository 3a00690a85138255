"""The commands that tell of papers: ``npcrepro list``, ``describe`` and ``audit``."""

import dataclasses
from typing import Annotated

import typer

from npcrepro.cli.options import Json, print_json, print_table


def list_methods(as_json: Json = False) -> None:
    """List papers and their methods, the proposed one first."""
    from npcrepro.protocol import registry

    rows = [
        {"paper": key, "method": method.full_name, "title": method.title, "summary": method.summary}
        for key in registry.KEYS
        for method in registry.load(key).methods
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(["method", "summary"], [(row["method"], row["summary"]) for row in rows])


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
        print_json(described)
        return
    if layers is None or macs is None:
        typer.echo(
            f"{method.full_name}: {parameters:,} parameters; which layers run, and how often, depends on what is found "
            "in an image, so there is no table of layers and no number of multiply-accumulates"
        )
        return
    print_table(
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


def audit_papers(
    checks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHECK]...", help="Key of a check, for instance L04, to print in full."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check whether the printed numbers of the papers fit together."""
    from npcrepro.findings import audit

    results = audit.audit(checks or ())
    rows = audit.table(results)
    if as_json:
        print_json(rows.to_dict("records"))
    elif checks:
        typer.echo(
            "\n\n".join("\n".join(f"{name}: {cell}" for name, cell in row.items()) for row in rows.to_dict("records"))
        )
    else:
        print_table(["check", "verdict", "printed"], rows[["check", "verdict", "printed"]].values.tolist())
        sums = audit.counts(results)
        print_table(list(sums), sums.astype(str).values.tolist())

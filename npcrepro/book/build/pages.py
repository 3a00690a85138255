"""Pages of the book that are partly made of the code, so that they cannot drift from it.

A line ``% The table of parameters is inserted here when the book is built.`` in a page of ``book/`` is replaced by
what the function of that name in `PARTS` returns. A line ``% The modules of `base` and `runs` are inserted here when
the book is built.`` is replaced by the reference of all modules in these folders.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError, pick
from npcrepro.base.wording import DASH, span
from npcrepro.book.build import departures
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings

if TYPE_CHECKING:
    from npcrepro.runs.published import Published


MODULES = re.compile(r"^% The modules of (?P<folders>.+) are inserted here when the book is built\.$", re.MULTILINE)
MARK = re.compile(r"^% (?P<name>.+?) (?:is|are) inserted here when the book is built\.$", re.MULTILINE)


def fill(page: str, root: Path) -> str:
    """The text of a page with its marks replaced.

    Args:
        page: MyST text.
        root: folder of the book's sources.

    Raises:
        InputError: a mark that nothing belongs to, with the near miss.
    """
    page = MODULES.sub(lambda mark: modules(*re.findall(r"`(.+?)`", mark["folders"])), page)
    return MARK.sub(lambda mark: pick(PARTS, mark["name"], "part of a page")(root), page)


def described(kind: type) -> dict[str, str]:
    """Meaning of each field of a dataclass, from the section ``Attributes`` of its docstring.

    Raises:
        InputError: a field without a word on it.

    Example:
        >>> described(Settings)["runs"]
        'folder of the runs.'
    """
    section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    told = {name: re.sub(r"\s+", " ", text).replace("``", "`") for name, text in entries}
    silent = [field.name for field in dataclasses.fields(kind) if field.name not in told]
    if silent:
        raise InputError(f"the docstring of {kind.__name__} says nothing of {', '.join(silent)}")
    return told


def parameters(root: Path) -> str:
    """The parameters of every notebook, with type, default and effect, as a table."""
    told = described(Settings)
    rows = ["| parameter | type | default | effect |", "|---|---|---|---|"]
    for field in dataclasses.fields(Settings):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        kind = str(field.type).replace("tuple[", "list of ").replace(", ...]", "")
        shown = f'"{default}"' if isinstance(default, str) else str(default).lower()
        rows.append(f"| `{field.name}` | {kind} | `{shown}` | {told[field.name]} |")
    return "\n".join(rows)


def citation(root: Path) -> str:
    """The project's own citation from ``CITATION.cff``: as a sentence, and for BibTeX."""
    import yaml

    told = yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))
    authors = [author.get("name") or f"{author['given-names']} {author['family-names']}" for author in told["authors"]]
    year = re.search(r"^copyright: \"?(\d{4})", (root / "_config.yml").read_text("utf-8"), re.MULTILINE)[1]
    entry = {
        "author": " and ".join(f"{{{author}}}" for author in authors),
        "title": f"{{{textwrap.fill(told['title'], 64, subsequent_indent=' ' * 12)}}}",
        "year": year,
        "version": told["version"],
        "url": told["repository-code"],
    }
    fields = ",\n".join(f"  {name} = {{{value}}}" for name, value in entry.items())
    return (
        f"> {', '.join(authors)} ({year}). *{told['title']}*, version {told['version']}. {told['repository-code']}\n\n"
        f"```bibtex\n@software{{npcrepro,\n{fields}\n}}\n```"
    )


def versions(root: Path) -> str:
    """The package's own requirements with the range that is allowed and the version that is tested, as a table."""
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (root / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    tested = {canonicalize_name(name): version for name, version in pins.items()}
    python = re.search(r"^# Tested together on Python (\d+\.\d+)", "\n".join(lines), re.MULTILINE)[1]
    rows = ["| package | allowed | tested |", "|---|---|---|", f"| Python | {project['requires-python']} | {python} |"]
    for text in project["dependencies"]:
        requirement = Requirement(text)
        rows.append(f"| {requirement.name} | {requirement.specifier} | {tested[canonicalize_name(requirement.name)]} |")
    return "\n".join(rows)


def published_runs(root: Path) -> str:
    """Every published run, in three tables: on whom and at what size, what was trained and how long, and by what.

    The first has a row for each record: size of input and network, and patients that train, choose and test in a fold
    (slices where the split goes by slice). The second has a row for each method: updates of the method itself, all
    patients tested (n), seeds, and minutes of training and prediction for one run. The third has a row for each record:
    the machine and the code.
    """
    from npcrepro.runs.published import published_folders, read_published

    records = list(map(read_published, published_folders(root / "book" / "results")))
    methods = [row for record in records for row in _methods_of(record)]
    return "\n\n".join(map(_markdown, (list(map(_size_of, records)), methods, list(map(_made_by, records)))))


def repeated(root: Path) -> str:
    """Published runs that were made again somewhere else, as a table: the means of both, and how patients differ.

    They lie in ``book/results/repeated/WHY/RECORD`` and are held against the same method, fold and seed in
    ``book/results/RECORD``; doubtful labels are left out.

    Raises:
        InputError: no such runs, or one that was not published in the first place.
    """
    from npcrepro.runs.published import PLACE, read_published

    results, rows = root / "book" / "results", []
    for path in sorted((results / "repeated").glob("*/*/runs.json")):
        first, again = read_published(results / path.parent.name), read_published(path.parent)
        for run in again.runs:
            before = next((other for other in first.runs if all(other[key] == run[key] for key in PLACE)), None)
            if before is None:
                told = ", ".join(f"{key} {run[key]}" for key in PLACE)
                raise InputError(f"{path}: {told} is no run of {first.folder}, which it should repeat")
            dsc, other = (_dsc_of(*each) for each in ((first, before), (again, run)))
            rows.append(
                {
                    "record": f"`{first.folder.name}`",
                    "method": f"`{run['method']}`",
                    "seed": run["seed"],
                    "published on": _machine_of(before),
                    "mean DSC": f"{dsc.mean():.3f}",
                    "again on": _machine_of(run),
                    "mean DSC again": f"{other.mean():.3f}",
                    "difference": f"{other.mean() - dsc.mean():+z.3f}",
                    "of one patient, at most": f"{(other - dsc).abs().max():.3f}",
                }
            )
    if not rows:
        raise InputError(f"{results / 'repeated'} holds no runs that were made again")
    return _markdown(rows)


def _dsc_of(record: Published, run: Mapping):
    """DSC of each patient of a run, mean over structures."""
    from npcrepro.runs import per_patient
    from npcrepro.runs.published import PLACE

    cases = record.cases
    mine = (cases[PLACE] == [run[column] for column in PLACE]).all(axis=1)
    cases = cases[mine & (cases.region == "all_slices") & ~cases.suspect]
    return per_patient.over_structures(per_patient.by_patient(cases)).set_index("patient").dsc


def _machine_of(run: Mapping) -> str:
    return f"{run['processor']}, {run['precision']}"


def cohorts(root: Path) -> str:
    """The cohorts of real images that published runs are on: what they are part of, and how many cases, as a table.

    Raises:
        InputError: nothing says what a cohort is.
    """
    import pandas as pd

    rows = []
    for path in sorted((root / "book" / "results" / "cohorts").glob("*.csv")):
        name, cases = path.stem.partition("_")[2], pd.read_csv(path).drop_duplicates("case")
        if name not in COHORTS:
            raise InputError(
                f"book/results/cohorts/{path.name}: COHORTS in npcrepro/book/build/pages.py does not say what "
                f"{name!r} is"
            )
        numbers = {"cases": len(cases), "patients": cases.patient.nunique(), "doubtful": cases.suspect.sum()}
        rows.append({"cohort": name} | numbers | {"what it is": "".join(COHORTS[name])})
    return _markdown(rows)


# What each of them shows; what it is part of, and what was done to it.
COHORTS = {
    "OpenKBP_OAR": (
        "planning CT of cancers of the head and neck",
        " from OpenKBP {cite:p}`babier2021`, MIT; of its 128 x 128 x 128 coarse voxels of dose planning, "
        "112 x 72 x 72; all five organs are contoured in each case; some scans are cut off at an end",
    ),
    "OpenKBP_PTV70": ("planning target volumes of 70 Gy", " on the scans of `OpenKBP_OAR`"),
    "IBSI_STS": (
        "soft-tissue sarcomas",
        " from the validation set of the Image Biomarker Standardisation Initiative {cite:p}`vallieres2015`, "
        "CC BY 3.0; T1 MRI, CT and PET on the grid of the T1",
    ),
    "NPC_T2Slices": (
        "single T2 slices of NPC",
        " {cite:p}`li2025`, CC BY 4.0, as a public repository of code shows them; size of voxels unknown",
    ),
}


def papers(root: Path) -> str:
    """The papers of the book with their chapters, images and methods, as a table."""
    rows = [(key, registry.reported(key)["paper"]) for key in registry.KEYS]
    return _markdown(
        [
            {
                "paper": f"{{cite:t}}`{key}`",
                "chapter": f"[read](../notebooks/{key}.ipynb)",
                "images": about["images"],
                "method": about["method"],
            }
            for key, about in rows
        ]
    )


def bibliography(root: Path) -> str:
    """``book/references.bib`` with the entries of the papers, which their own YAML files hold."""
    own = (registry.reported(key)["paper"]["bibtex"] for key in registry.KEYS)
    return "\n".join([*own, (root / "book" / "references.bib").read_text("utf-8")])


def modules(*folders: str) -> str:
    """The reference of every module of folders of the package, from their docstrings.

    A module whose names the face of its folder hands on is described there.
    """
    names = []
    for path in (path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.py"))):
        face = path.with_name("__init__.py").read_text("utf-8")
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if path.name == "__init__.py" and face.strip():
            names.append(name.removesuffix(".__init__"))
        elif path.name != "__init__.py" and f"from {name} import" not in face:
            names.append(name)
    table = "\n".join(["```{eval-rst}", ".. autosummary::", "", *(f"   {name}" for name in names), "```"])
    return "\n\n".join([table, *(f"## `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n```" for name in names)])


def tagged(root: Path) -> str:
    """The departures from the papers, a table for each, with links to their lines."""
    import yaml

    repository = yaml.safe_load((root / "_config.yml").read_text("utf-8"))["repository"]["url"]
    return departures.page(departures.departures(), repository)


def _size_of(record: Published) -> dict[str, object]:
    first, folds = record.runs[0], record.folds.values()
    return {
        "record": f"`{record.folder.name}`",
        "cohort": first["cohort"],
        "profile": first["profile"]["name"],
        "input": _all(record.runs, lambda run: " x ".join(map(str, run["profile"].get("matrix", ()))) or DASH),
        "width": _all(record.runs, lambda run: str(run["profile"].get("width", DASH))),
        "folds": len({run["fold"] for run in record.runs}),
        **{name: span([len(fold[name]) for fold in folds]) for name in ("train", "validation", "test")},
    }


def _methods_of(record: Published) -> list[dict[str, object]]:
    rows, methods = [], record.methods
    for method in dict.fromkeys(run["method"] for run in record.runs):
        runs = [run for run in record.runs if run["method"] == method]
        minutes = sum(run["seconds"]["all"] for run in runs) / 60 / len(runs) if "seconds" in runs[0] else None
        rows.append(
            {
                "record": "" if rows else f"`{record.folder.name}`",
                "method": f"`{method}`",
                "updates": _all(runs, partial(_updates, methods.get(method, {}))),
                "n": record.cases[record.cases.method == method].patient.nunique(),
                "seeds": len({run["seed"] for run in runs}),
                "minutes a run": DASH if minutes is None else f"{minutes:.1f}",
                "device": _all(runs, lambda run: run.get("device", DASH)),
            }
        )
    return rows


def _made_by(record: Published) -> dict[str, object]:
    return {"record": f"`{record.folder.name}`"} | {name: _all(record.runs, of) for name, of in MADE_BY.items()}


def _updates(method: Mapping, run: Mapping) -> str:
    """Of a run. Records of before methods had a budget say nothing of it; a method without stages trains nothing."""
    if "updates" not in run["profile"]:
        return DASH
    return f"{round(run['profile']['updates'] * method.get('budget', 1.0)) if method.get('stages', True) else 0:,}"


# What of a run's provenance the third table shows.
MADE_BY = {
    "processor": lambda run: run.get("processor", DASH),
    "threads": lambda run: str(run.get("threads", DASH)),
    "precision": lambda run: run.get("precision", DASH),
    "torch": lambda run: run.get("versions", {}).get("torch", DASH),
    "Python": lambda run: run.get("python", DASH),
    "commit": lambda run: f"`{run['git_commit'][:7]}`" if run.get("git_commit") else DASH,
    "made": lambda run: run["finished"][:10].replace("-", "\N{NON-BREAKING HYPHEN}"),
}


def _all(runs: Sequence[dict], of: Callable[[dict], str]) -> str:
    return ", ".join(dict.fromkeys(map(of, runs)))


def _markdown(rows: Sequence[Mapping[str, object]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def answer(root: Path) -> str:
    """How the claims of the papers stand after all published runs: a sentence, those decided, a row for each paper."""
    from npcrepro.findings.claims import ledger, sensitivity

    found = ledger.sources(root / "book" / "results")
    lines = ledger.ledger(found)
    papers_of = dict.fromkeys(line.claim.paper for line in lines if line.verdict in ledger.DECIDED)
    turning = (
        {one.before.claim.key for one in sensitivity.otherwise(found, papers_of) if one.turns} if papers_of else ()
    )
    sums, short = ledger.counts(lines), {key: entry.short for key, entry in registry.PAPERS.items()}
    last, verdicts = sums.iloc[-1], ("confirmed", "weakened", "refuted")
    decided = [
        f"* **{verdict}** ({short[line.claim.paper]}): {line.claim.text}; on {_shown(line.cohort)}"
        f"{'; *hangs on a choice of the test*' if line.claim.key in turning else ''}"
        f"{'; *has a limit that the ledger tells*' if line.claim.limits else ''}\n"
        for verdict in verdicts
        for line in lines
        if line.verdict == verdict
    ]
    return (
        f"Of {last['all']} statements, most made by the {len(registry.KEYS)} papers, some implied by them and some by "
        f"the audit, published runs leave {', '.join(f'{last[verdict]} {verdict}' for verdict in verdicts)} and "
        f"{last['undecided']} undecided. The others have no runs yet, or need something that runs cannot give.\n\n"
        f"{''.join(decided)}\n{_markdown(sums.replace({'paper': short}).to_dict('records'))}"
    )


def _shown(cohort: str) -> str:
    """A cohort of the ledger, as ``IBSI_STS (bench)``, behind what it shows."""
    shows = COHORTS.get(cohort.partition(" (")[0], ("",))[0]
    return f"{shows}, {cohort}" if shows else cohort


PARTS: dict[str, Callable[[Path], str]] = {
    "The table of papers": papers,
    "The table of parameters": parameters,
    "The citation": citation,
    "The table of versions": versions,
    "The table of published runs": published_runs,
    "The table of repeated runs": repeated,
    "The table of cohorts": cohorts,
    "The state of the claims": answer,
    "The table of departures": tagged,
}

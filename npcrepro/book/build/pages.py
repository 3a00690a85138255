"""Pages of the book that are partly made of the code, so that they cannot drift from it.

A line ``% The table of parameters is inserted here when the book is built.`` in a page of ``book/`` is replaced by
what the function of that name in `PARTS` returns. A line ``% The modules of `base` and `runs` are inserted here when
the book is built.`` is replaced by the reference of all modules in these folders.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError, pick
from npcrepro.book import departures
from npcrepro.book.build import evidence, front
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings

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
    year = yaml.safe_load((root / "_config.yml").read_text("utf-8"))["copyright"]
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
    python = lines[0].partition("on Python ")[2].partition(" ")[0]
    rows = ["| package | allowed | tested |", "|---|---|---|", f"| Python | {project['requires-python']} | {python} |"]
    for text in project["dependencies"]:
        requirement = Requirement(text)
        rows.append(f"| {requirement.name} | {requirement.specifier} | {tested[canonicalize_name(requirement.name)]} |")
    return "\n".join(rows)


def bibliography(root: Path) -> str:
    """``book/references.bib`` with the entries of the papers, which their own YAML files hold."""
    own = (registry.reported(key)["paper"]["bibtex"] for key in registry.KEYS)
    return "\n".join([*own, (root / "book" / "references.bib").read_text("utf-8")])


def modules(*folders: str) -> str:
    """The reference of every module of folders of the package, from their docstrings.

    What the face of a folder hands on is described with the face.
    """
    names, parts = [], []
    for path in (path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.py"))):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        face = ast.parse(path.with_name("__init__.py").read_text("utf-8"))
        if path.name == "__init__.py" and not face.body:
            continue
        handed_on = [
            alias.name
            for node in face.body
            if isinstance(node, ast.ImportFrom) and node.module == name
            for alias in node.names
        ]
        names.append(name)
        left_out = f"\n   :exclude-members: {', '.join(handed_on)}" if handed_on else ""
        parts.append(f"## `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}{left_out}\n```")
    table = "\n".join(["```{eval-rst}", ".. autosummary::", "", *(f"   {name}" for name in names), "```"])
    return "\n\n".join([table, *parts])


def tagged(root: Path) -> str:
    """The departures from the papers, a table for each, with links to their lines."""
    import yaml

    repository = yaml.safe_load((root / "_config.yml").read_text("utf-8"))["repository"]["url"]
    return departures.page(departures.departures(), repository)


PARTS: dict[str, Callable[[Path], str]] = {
    "The picture of the front page": front.picture,
    "The list of findings": front.findings,
    "The table of papers": front.papers,
    "The table of parameters": parameters,
    "The citation": citation,
    "The table of versions": versions,
    "The table of published runs": evidence.published_runs,
    "The table of repeated runs": evidence.repeated,
    "The table of cohorts": evidence.cohorts,
    "The table of costs": evidence.costs,
    "The table of hours on a GPU": evidence.gpu_hours,
    "The table of departures": tagged,
}

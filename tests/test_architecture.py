"""The house has one rule of imports, and nothing below the papers knows one of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import npcrepro
from npcrepro.protocol import registry

PACKAGE = Path(npcrepro.__file__).parent
FLOORS = [
    {"base", "metrics"},
    {"cohorts", "models", "losses", "statistics", "protocol"},
    {"sampling"},
    {"runs"},
    {"scoring", "findings"},
    {"book"},
    {"papers", "cli"},
]
FLOOR = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}


def modules(below: str = "") -> list[Path]:
    """Files of the package, or those of folders on floors below the one that holds the folder ``below``."""
    highest = FLOOR[below] if below else len(FLOORS)
    paths = (path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE)
    return [path for path in paths if FLOOR[path.relative_to(PACKAGE).parts[0]] < highest]


def imports(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports when it runs, at its top or inside a function."""
    waiting: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        waiting += ast.iter_child_nodes(node)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        yield from (name.removeprefix("npcrepro.") for name in names if name.startswith("npcrepro."))


def upwards(path: Path, name: str) -> bool:
    """Whether a file of one folder imports a module of another that is not below it."""
    here, there = path.relative_to(PACKAGE).parts[0], name.split(".")[0]
    return there in FLOOR and there != here and FLOOR[there] >= FLOOR[here]


def test_every_folder_stands_on_a_floor():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))} == set(FLOOR)
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


def test_a_folder_imports_only_folders_below_its_own():
    assert [(path, name) for path in modules() for name in imports(path) if upwards(path, name)] == []


def test_an_import_upwards_is_seen_wherever_it_stands(tmp_path):
    path = tmp_path / "code.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "from npcrepro import __version__, sampling\n"
        "if TYPE_CHECKING:\n    from npcrepro.book import chapter\n"
        "def one():\n    from npcrepro.cli import commands\n    import npcrepro.base.files, numpy\n"
    )
    found = set(imports(path))
    assert found == {"__version__", "sampling", "cli.commands", "base.files"}
    here = PACKAGE / "protocol" / "code.py"
    assert {name for name in found if upwards(here, name)} == {"sampling", "cli.commands"}


def test_nothing_below_the_papers_names_one():
    named = [
        (path, node.lineno)
        for path in modules(below="papers")
        for node in ast.walk(without_docstrings(ast.parse(path.read_text("utf-8"))))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if any(key in node.value for key in registry.KEYS)
    ]
    assert named == []


def test_a_paper_imports_no_other():
    for path in (PACKAGE / "papers").glob("*/*.py"):
        others = {name.split(".")[1] for name in imports(path) if name.startswith("papers.")}
        assert others <= {path.parent.name}, path


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Examples in docstrings may name a paper."""
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(ast.Constant()), *_] as body:
                body[0] = ast.Pass()
    return tree

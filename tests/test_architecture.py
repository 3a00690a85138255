"""The table of modules in the book holds for the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import npcrepro

PACKAGE = Path(npcrepro.__file__).parent


@pytest.fixture(scope="module")
def rows(repository) -> list[list[str]]:
    """Files and folders of the package in each row, from top to bottom: ``cohorts/check.py``, ``models/``."""
    page = (repository / "book" / "architecture.md").read_text("utf-8")
    section = page.partition("\n## Modules\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    return [re.findall(r"`(.+?)`", cell) for cell in cells]


def places(rows: list[list[str]], path: Path) -> list[int]:
    """Numbers of the rows that a file of the package stands in, by itself or with its folder."""
    name = path.relative_to(PACKAGE).as_posix()
    return [
        number
        for number, entries in enumerate(rows)
        for entry in entries
        if name == entry or (entry.endswith("/") and name.startswith(entry))
    ]


def modules() -> list[Path]:
    """All files with code; what only makes a folder a package has none."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [path for path in paths if path.name != "__init__.py" or list(imports(path))]


def imports(path: Path) -> Iterator[Path]:
    """Files of the package that a file imports when it runs, at its top or inside a function."""
    waiting: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from filter(None, [file_of(alias.name) for alias in node.names])
        if isinstance(node, ast.ImportFrom):
            named = [file_of(f"{node.module}.{alias.name}") or file_of(node.module) for alias in node.names]
            yield from filter(None, named)


def file_of(module: str) -> Path | None:
    """File of a module of the package; none of others, and of the package's own face, which holds its version."""
    face, *parts = module.split(".")
    if face != "npcrepro" or not parts:
        return None
    path = PACKAGE.joinpath(*parts)
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.exists()), None)


def test_every_module_stands_in_one_row(rows):
    found = {path.relative_to(PACKAGE).as_posix(): len(places(rows, path)) for path in modules()}
    assert {name: number for name, number in found.items() if number != 1} == {}
    assert [entry for entries in rows for entry in entries if not (PACKAGE / entry).exists()] == []


def test_modules_import_from_their_own_row_and_those_above(rows):
    downwards = [
        f"{path.relative_to(PACKAGE)} imports {target.relative_to(PACKAGE)}"
        for path in modules()
        for target in imports(path)
        if places(rows, target) > places(rows, path)
    ]
    assert downwards == []


def test_imports_are_seen_wherever_they_stand(tmp_path):
    path = tmp_path / "code.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "from npcrepro import __version__, papers\n"
        "if TYPE_CHECKING:\n    from npcrepro.book import build\n"
        "def one():\n    from npcrepro.cohorts import check\n    import npcrepro.files, numpy\n"
    )
    assert {found.relative_to(PACKAGE).as_posix() for found in imports(path)} == {
        "papers/__init__.py",
        "cohorts/check.py",
        "files.py",
    }

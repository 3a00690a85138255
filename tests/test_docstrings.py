"""The examples of all docstrings run."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import npcrepro

PACKAGE = Path(npcrepro.__file__).parent
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def examples(path: Path) -> int:
    """How many examples the docstrings of a file have."""
    nodes = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, DOCUMENTED))
    parser = doctest.DocTestParser()
    return sum(len(parser.get_examples(ast.get_docstring(node) or "")) for node in nodes)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_of)
def test_examples_run_and_give_what_they_say(path):
    found = doctest.testmod(importlib.import_module(module_of(path)))
    assert not found.failed, "see what doctest printed"
    # doctest passes over what it is told to skip, and over what it does not see, such as a cached property.
    assert found.attempted == examples(path)

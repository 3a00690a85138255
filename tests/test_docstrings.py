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


def require_examples_to_run(path: Path, module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert not found.failed, "see what doctest printed"
    # doctest passes over what it is told to skip, and over what it does not see, such as a cached property.
    assert found.attempted == examples(path)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_of)
def test_examples_run_and_give_what_they_say(path):
    require_examples_to_run(path, module_of(path))


@pytest.mark.parametrize(("example", "runs"), [("1 + 2", True), ("1 + 1", False), ("1 + 2  # doctest: +SKIP", False)])
def test_a_wrong_example_and_one_that_is_skipped_are_seen(tmp_path, monkeypatch, example, runs):
    name = f"examples_{tmp_path.name}"
    path = tmp_path / f"{name}.py"
    path.write_text(f'"""A module.\n\n>>> {example}\n3\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    if runs:
        require_examples_to_run(path, name)
    else:
        with pytest.raises(AssertionError):
            require_examples_to_run(path, name)

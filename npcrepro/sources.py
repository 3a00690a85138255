"""Which code a result depends on, as a hash: the definitions that a function or class reaches inside the package.

A run made by other code is another run. Hashing whole files would make every run another one whenever a loss for the
next paper is added beside the one it used; following the names that a definition mentions does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from npcrepro.files import sha256_of

PACKAGE = Path(__file__).parent


def code_sha256(roots: Iterable[str]) -> str:
    """Hash of the definitions that ``roots`` reach, blind to comments, docstrings and annotations.

    A root is ``"npcrepro.module:name"``, or ``"npcrepro.module:Class.method"`` for one part of a class.

    Followed are names of functions, classes and constants of the same module, and names imported from other modules of
    the package. What is reached by other ways (an attribute of an imported module or of a variable, a string) has to be
    a root itself.

    Raises:
        KeyError: a root that its module does not define.
    """
    reached: dict[str, str] = {}
    waiting = [root for root in roots if root.startswith("npcrepro")]
    while waiting:
        target = waiting.pop()
        if target not in reached:
            definition, mentions = _definition(target)
            reached[target] = definition
            waiting += mentions
    return sha256_of(reached)


@cache
def _definition(target: str) -> tuple[str, tuple[str, ...]]:
    """The definition as a dumped syntax tree, and the targets inside the package that it mentions."""
    module, name = target.split(":")
    name, _, part = name.partition(".")
    defined, imported = _names(module)
    if name in imported and name not in defined:
        return "", (imported[name],)  # re-exported by the face of a package
    node = defined[name]
    if part:
        node = {child.name: child for child in node.body if isinstance(child, ast.FunctionDef)}[part]
    mentioned = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - {name}
    inside = {f"{module}:{other}" for other in mentioned & defined.keys()}
    across = {imported[other] for other in mentioned & imported.keys()}
    return ast.dump(node), tuple(sorted(inside | across))


@cache
def _names(module: str) -> tuple[dict[str, ast.stmt], dict[str, str]]:
    """Top-level definitions of a module, and where the names come from that it imports from the package."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    defined: dict[str, ast.stmt] = {}
    imported: dict[str, str] = {}
    for node in _without_words(ast.parse(path.read_text(encoding="utf-8"))).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    defined[part.id] = node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("npcrepro."):
            imported |= {alias.asname or alias.name: f"{node.module}:{alias.name}" for alias in node.names}
    return defined, imported


def _without_words(tree: ast.Module) -> ast.Module:
    """Without what is there for readers: docstrings, and annotations, which decide nothing when the code runs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)  # that there is one makes the field of a dataclass
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Pass()
    return tree

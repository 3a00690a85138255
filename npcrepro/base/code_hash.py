"""A hash of the code that a result depends on: the definitions that a function or class reaches inside the package.

A run made by other code is another run. If whole files were hashed, a new loss in a file would make every run that
uses another loss of this file a new run. Following the names that a definition mentions avoids that.
"""

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import npcrepro
from npcrepro.base.files import sha256_of

PACKAGE = Path(npcrepro.__file__).parent


def without_address(text: str) -> str:
    """``"npcrepro.module:Name"`` as ``"Name"``, because the module of a class of this package may change.

    Example:
        >>> without_address("npcrepro.base.code_hash:code_sha256"), without_address("torch.optim:SGD")
        ('code_sha256', 'torch.optim:SGD')
    """
    return re.sub(r"^npcrepro(\.\w+)*:", "", text)


def code_sha256(roots: Iterable[str]) -> str:
    """Hash of the definitions that ``roots`` reach, each by its name and its syntax tree.

    Comments, docstrings, annotations and the module of a definition do not count: code that moves to another file is
    the same code, and any version of Python finds the same hash. Names of functions, classes and constants of the same
    module are followed, and so are names imported from other modules of the package. Code that is reached otherwise (as
    an attribute of an imported module or of a variable, by a string, or by an import inside a function) has to be a
    root itself.

    Args:
        roots: ``"npcrepro.module:name"``, or ``"npcrepro.module:Class.method"`` for one part of a class.

    Raises:
        KeyError: a root that its module does not define.
    """
    reached: dict[str, tuple[str, str]] = {}
    waiting = [root for root in roots if root.startswith("npcrepro")]
    while waiting:
        target = waiting.pop()
        if target not in reached:
            definition, mentions = _definition(target)
            if definition:
                reached[target] = target.split(":")[1], definition
            waiting += mentions
    return sha256_of(sorted(reached.values()))


@cache
def _definition(target: str) -> tuple[str, tuple[str, ...]]:
    """The definition as a dumped syntax tree, and the targets inside the package that it mentions."""
    module, name = target.split(":")
    name, _, part = name.partition(".")
    defined, imported = _names(module)
    if name in imported and name not in defined:
        return "", (imported[name],)  # re-exported by the __init__ of a package
    node = defined[name]
    if part:
        node = {child.name: child for child in node.body if isinstance(child, ast.FunctionDef)}[part]
    mentioned = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - {name}
    inside = {f"{module}:{other}" for other in mentioned & defined.keys()}
    across = {imported[other] for other in mentioned & imported.keys()}
    return _dumped(node), tuple(sorted(inside | across))


def _dumped(node: Any) -> str:
    """A syntax tree as text; empty fields are left out, because versions of Python differ in those that they have."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dumped, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ", ".join(f"{name}={_dumped(field)}" for name, field in ast.iter_fields(node) if field not in (None, []))
    return f"{type(node).__name__}({fields})"


@cache
def _names(module: str) -> tuple[dict[str, Any], dict[str, str]]:
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
    """The tree without docstrings, annotations and addresses of the package's own code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)  # that there is one makes the field of a dataclass
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = without_address(node.value)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Pass()
    return tree

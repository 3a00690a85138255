"""Equations beside the very lines of code that compute them, read from the source when the book is built.

A paper's ``paper.yaml`` has its formulas under ``equations``. The line of code that computes one is marked by a comment
that begins in the same words::

    equations:
    - line: eq. 7                     # the comment is `# eq. 7: ...`
      what: Attention over channels
      latex: W_c = \\sigma(...)

A formula that is not numbered in the paper has a name in place of a number, such as ``Table 1, feature phase``.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from pathlib import Path

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError
from npcrepro.base.wording import plural
from npcrepro.book.build.departures import Departure, departures
from npcrepro.protocol import registry

REPOSITORY = "https://github.com/npcrepro/npcrepro/blob/main"
SHARED = ("losses", "models", "metrics", "sampling")  # where else the code of a paper's equation may stand


@dataclass(frozen=True)
class Equation:
    """A formula and its code.

    Attributes:
        name, what, latex: as in ``paper.yaml``.
        path: of the file, relative to the folder around the package.
        start, end: first and last line that are shown, from 1.
        code: these lines, without their common indentation.
        notes: further comments on what the paper says and leaves open, in the same class or function; where several
            formulas are in it, those that are nearest to this one.
    """

    name: str
    what: str
    latex: str
    path: str
    start: int
    end: int
    code: str
    notes: tuple[Departure, ...]

    @property
    def address(self) -> str:
        """The lines in the repository."""
        return f"{REPOSITORY}/{self.path}#L{self.start}-L{self.end}"


def equations(key: str) -> list[Equation]:
    """The formulas of a paper's ``paper.yaml`` with their code, in the order of the file.

    The code is looked for in the folder of the paper, then in the folders that papers share (`SHARED`).

    Raises:
        InputError: no comment, or several, begin with the words of a formula.

    Example:
        >>> found = equations("li2018")[0]
        >>> found.name, "self.conv1(image)" in found.code
        ('Table 1, feature phase', True)
    """
    found = [_equation(key, **entry) for entry in registry.reported(key).get("equations", ())]

    def nearest(note: Departure) -> Equation:
        return min((each for each in found if note in each.notes), key=lambda each: abs(each.start - note.line))

    def in_code(note: Departure) -> bool:
        return any(each.path == note.path and each.start <= note.line <= each.end for each in found)

    return [
        replace(each, notes=tuple(note for note in each.notes if not in_code(note) and nearest(note) is each))
        for each in found
    ]


def _equation(key: str, line: str, what: str, latex: str) -> Equation:
    own = sorted((PACKAGE / "papers" / key).glob("*.py"))
    shared = [path for folder in SHARED for path in sorted((PACKAGE / folder).rglob("*.py"))]
    for paths in (own, shared):
        found = [(path, number) for path in paths for number, text in _comments(path).items() if _begins(text, line)]
        if len(found) > 1:
            places = ", ".join(f"{path.name}:{number}" for path, number in found)
            raise InputError(f"{key}: several comments begin with {line!r} ({places}); a formula has one place")
        if found:
            ((path, number),) = found
            return _at(key, path, number, line, what, latex)
    raise InputError(
        f"{key}: no comment begins with {line!r}, which paper.yaml has a formula of; mark the line that computes it "
        f"by `# {line}: ...`"
    )


def _at(key: str, path: Path, number: int, line: str, what: str, latex: str) -> Equation:
    text = path.read_text("utf-8").splitlines()
    start, end = _extent(text, number)
    place = path.relative_to(PACKAGE.parent).as_posix()
    first, last = _around(path, number)
    notes = tuple(
        note for note in _departures() if note.path == place and note.paper in (key, "shared")
        and first <= note.line <= last and not start <= note.line <= end
    )  # fmt: skip
    indent = len(text[number - 1]) - len(text[number - 1].lstrip())
    code = "\n".join(each[indent:] for each in text[start - 1 : end])
    return Equation(line, what, latex, place, start, end, code, notes)


def _extent(text: Sequence[str], number: int) -> tuple[int, int]:
    """First and last line of the code of a comment: with the comments above it, to the next marked comment, blank line,
    or line that is indented less."""
    indent = len(text[number - 1]) - len(text[number - 1].lstrip())

    def comment(line: int) -> bool:
        return 0 < line <= len(text) and text[line - 1].startswith(" " * indent + "#")

    start = number
    while comment(start - 1) and not _marked(text[start - 2]):
        start -= 1
    end, coded = number, False
    while end < len(text):
        below = text[end]
        stops = not below.strip() or (len(below) - len(below.lstrip()) < indent and not below.lstrip().startswith(")"))
        # A comment in the same column may belong to the code below it, unless it marks another formula.
        if stops or (coded and comment(end + 1) and _leads_on(text, end + 1, indent)):
            break
        coded = coded or not comment(end + 1)
        end += 1
    while comment(end):
        end -= 1
    return start, end


def _leads_on(text: Sequence[str], line: int, indent: int) -> bool:
    """Whether the comments from this line on mark another formula."""
    while line <= len(text) and text[line - 1].startswith(" " * indent + "#"):
        if _marked(text[line - 1]):
            return True
        line += 1
    return False


def _marked(line: str) -> bool:
    """Whether a comment marks a formula or a part of a paper, and is no note such as ``SILENT:``."""
    return bool(re.match(r"\s*# ((\w+ \d{4}, )?[Ee]qs?\.|Section|Table|Figure|Abstract|No equation)[^:]*:", line))


def _begins(comment: str, line: str) -> bool:
    return bool(re.match(rf"{re.escape(line)}(?![\w.])", comment))


@cache
def _comments(path: Path) -> dict[int, str]:
    """Line to text of the comments of a source file."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
    return {each.start[0]: each.string.lstrip("# ") for each in tokens if each.type == tokenize.COMMENT}


@cache
def _departures() -> list[Departure]:
    return departures()


def _around(path: Path, number: int) -> tuple[int, int]:
    """First and last line of the class or function at the top of the file that a line is in."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.lineno <= number <= (node.end_lineno or 0):
            return node.lineno, node.end_lineno or 0
    return number, number


def show_equations(key: str, *names: str) -> None:
    """Display the formulas of a paper beside their code: a heading, the formula and the lines of each.

    The cell has the tag ``equations``, so that a wide page puts formula and code side by side.

    Args:
        key: of the paper.
        names: words of the formulas to show, as in ``paper.yaml``; all of them if not given.
    """
    from IPython.display import HTML, Math, display

    for each in equations(key):
        if not names or each.name in names:
            display(HTML(_heading(each)), Math(each.latex), HTML(_code(each)))


def _heading(each: Equation) -> str:
    name = each.name[0].upper() + each.name[1:]
    return f'<p class="npc-equation"><strong>{escape(each.what)}</strong> ({escape(name)})</p>'


def _code(each: Equation) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    file = each.path.split("/", 1)[1]
    code = highlight(each.code, PythonLexer(), HtmlFormatter(cssclass="highlight"))
    link = f'<a href="{each.address}"><code>{escape(file)}</code>, line {each.start}</a>'
    notes = "".join(
        f"<li><strong>{note.kind}</strong> {escape(note.what)} "
        f'(<a href="{REPOSITORY}/{note.path}#L{note.line}">line {note.line}</a>)</li>'
        for note in each.notes
    )
    told = f"{plural(len(each.notes), 'note')} beside it: what the paper says and leaves open"
    more = f"<details><summary>{told}</summary><ul>{notes}</ul></details>" if notes else ""
    return f'<div class="npc-code">{link}<div class="highlight-python">{code}</div>{more}</div>'

"""Equations beside the very lines of code that compute them, read from the source when the book is built.

A paper's ``paper.yaml`` has its formulas under ``equations``. The line of code that computes one is marked by a comment
that begins in the same words::

    equations:
    - line: eq. 7                     # the comment is `# eq. 7: ...`
      what: Attention over channels
      latex: W_c = \\sigma(...)

A formula that is not numbered in the paper has a name in place of a number, such as ``Table 1, feature phase``.
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import takewhile
from pathlib import Path

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError
from npcrepro.base.wording import plural
from npcrepro.book.departures import Departure, comments, departures
from npcrepro.book.parts import fill
from npcrepro.protocol import registry

REPOSITORY = "https://github.com/npcrepro/npcrepro/blob/main"
SHARED = ("losses", "models", "metrics", "sampling")  # where else the code of a paper's equation may stand
# A comment that marks a formula or a part of a paper, and is no note such as ``SILENT:``.
MARK = re.compile(r"\s*# ((\w+ \d{4}, )?[Ee]qs?\.|Section|Table|Figure|Abstract|No equation)[^:]*:")


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
    tagged = [note for note in departures() if note.paper in (key, "shared")]
    found = [_equation(key, tagged, **entry) for entry in registry.reported(key).get("equations", ())]

    def shown(note: Departure) -> bool:
        return any(each.path == note.path and each.start <= note.line <= each.end for each in found)

    def nearest(note: Departure) -> Equation:
        return min((each for each in found if note in each.notes), key=lambda each: abs(each.start - note.line))

    notes = [tuple(note for note in each.notes if not shown(note) and nearest(note) is each) for each in found]
    return [replace(each, notes=kept) for each, kept in zip(found, notes, strict=True)]


def _equation(key: str, tagged: Sequence[Departure], line: str, what: str, latex: str) -> Equation:
    begins = re.compile(rf"{re.escape(line)}(?![\w.])")
    own = sorted((PACKAGE / "papers" / key).glob("*.py"))
    shared = [path for folder in SHARED for path in sorted((PACKAGE / folder).rglob("*.py"))]
    for paths in (own, shared):
        found = [(path, number) for path in paths for number, text in _texts(path).items() if begins.match(text)]
        if len(found) > 1:
            places = ", ".join(f"{path.name}:{number}" for path, number in found)
            raise InputError(f"{key}: several comments begin with {line!r} ({places}); a formula has one place")
        for path, number in found:
            text = path.read_text("utf-8").splitlines()
            start, end = _extent(text, number)
            first, last = _around(path, number)
            place = path.relative_to(PACKAGE.parent).as_posix()
            notes = tuple(note for note in tagged if note.path == place and first <= note.line <= last)
            indent = len(text[number - 1]) - len(text[number - 1].lstrip())
            code = "\n".join(each[indent:] for each in text[start - 1 : end])
            return Equation(line, what, latex, place, start, end, code, notes)
    raise InputError(
        f"{key}: no comment begins with {line!r}, which paper.yaml has a formula of; mark the line that computes it "
        f"by `# {line}: ...`"
    )


def _texts(path: Path) -> dict[int, str]:
    """Line to text of the comments of a source file."""
    return {line: token.string.lstrip("# ") for line, token in comments(path.read_text("utf-8")).items()}


def _extent(text: Sequence[str], number: int) -> tuple[int, int]:
    """First and last line of the code of a comment: with the comments above it, to the next marked comment, blank line,
    or line that is indented less."""
    column = len(text[number - 1]) - len(text[number - 1].lstrip())
    same = [line.startswith(" " * column + "#") for line in text]  # a comment in the same column
    start = number
    while start > 1 and same[start - 2] and not MARK.match(text[start - 2]):
        start -= 1
    end, coded = number, False
    for below in text[number:]:
        if not below.strip() or (not below.startswith(" " * column) and not below.lstrip().startswith(")")):
            break
        # A comment in the same column may belong to the code below it, unless it marks another formula.
        if coded and any(map(MARK.match, takewhile(lambda line: line.startswith(" " * column + "#"), text[end:]))):
            break
        coded = coded or not same[end]
        end += 1
    while same[end - 1]:
        end -= 1
    return start, end


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
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    for each in equations(key):
        if not names or each.name in names:
            name = each.name[0].upper() + each.name[1:]
            head = f'<p class="npc-equation"><strong>{escape(each.what)}</strong> ({escape(name)})</p>'
            code = highlight(each.code, PythonLexer(), HtmlFormatter(cssclass="highlight"))
            told = f"{plural(len(each.notes), 'note')} beside it"
            page = fill("equation", each=each, code=code, told=told, repository=REPOSITORY)
            display(HTML(head), Math(each.latex), HTML(page))

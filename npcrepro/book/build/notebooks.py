"""Executes the notebooks of the book with papermill, several at a time, each in a process of its own.

No notebook reads what another makes. Chapters share cohorts and runs: the first chapter that needs one makes it, and
:mod:`npcrepro.runs.queue` lets the others wait.
"""

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

from npcrepro import __version__
from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError
from npcrepro.base.files import write_text
from npcrepro.runs.fit import paper_of

MEMORY_BYTES = 2**30  # of one notebook, kernel and libraries
WIDGET_TYPE = "application/vnd.jupyter.widget-view+json"


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

    A notebook that fails does not stop the others, so that one call shows all that is wrong. When the build is
    interrupted or killed, its processes and their kernels end, too.

    Args:
        root: folder with ``notebooks/``; notebooks run there.
        output: folder for ``executed/`` and ``logs/``.
        at_once: how many at a time; as many as there are processor cores and memory for if not given.

    Raises:
        InputError: a notebook is missing or fails; the message names the first that failed, its cell and its log.
    """
    executed = output / "executed"
    for folder in (executed, output / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
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
    at_once = min(at_once or _room(), len(stale))
    seconds, failures = {}, {}
    # Chapters train, which takes longest.
    ordered = sorted(stale, key=lambda name: not paper_of(name))
    print(f"Notebooks to execute, {at_once} at a time: {', '.join(ordered)}", flush=True)
    for name, result in _results(root, ordered, parameters, output, at_once):
        if isinstance(result, float):
            seconds[name] = result
            write_text(executed / f"{name}.key", stale[name])
        else:
            failures[name] = str(result)
        told = f"{result:.0f} s" if name in seconds else f"failed {result}"
        print(f"{name}: {told} ({len(seconds) + len(failures)} of {len(stale)})", flush=True)
    if failures:
        first, *more = [name for name in names if name in failures]
        raise InputError(failures[first] + (f" {', '.join(more)} failed, too." if more else ""))
    return Done(seconds, at_once, len(names) - len(stale))


def _key(root: Path, name: str, parameters: Mapping[str, object]) -> str:
    """What the outputs of a notebook depend on, as one hash."""
    from importlib.metadata import version

    sources = [
        root / "notebooks" / f"{name}.ipynb",
        # Weights and sample cases stand in the package, too.
        *(path for path in sorted(PACKAGE.rglob("*")) if path.is_file() and path.suffix != ".pyc"),
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


def _room() -> int:
    """How many notebooks this machine has cores and memory for."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(_cores(), memory // MEMORY_BYTES))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _results(
    root: Path, names: list[str], parameters: Mapping[str, object], output: Path, at_once: int
) -> Iterator[tuple[str, float | BaseException]]:
    """Seconds of each notebook, or what it failed with, in the order in which they end."""
    for name in names:
        (output / "executed" / f"{name}.key").unlink(missing_ok=True)
    threads = max(1, _cores() // at_once)
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        ends = {pool.submit(_execute_one, root, name, dict(parameters), output, threads): name for name in names}
        try:
            for end in as_completed(ends):
                yield ends[end], end.exception() or end.result()
        except BaseException:
            left = [name for end, name in ends.items() if not end.done()]
            print(f"Stopping; to be executed again: {', '.join(left)}", flush=True)
            for process in active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _execute_one(root: Path, name: str, parameters: dict[str, object], output: Path, threads: int) -> float:
    """Execute one notebook with papermill, in a process of its own, and return the seconds that it took.

    What the notebook prints goes to its log. A failing cell is one sentence; the notebook so far stays beside the log.
    """
    # A kernel ends with the process that has started it, and this process ends with the build.
    threading.Thread(target=_end_with, args=[parent_process()], daemon=True).start()
    # Several notebooks with all threads each would wait for one another. What the caller has set goes first.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError, strip_color

    start, logs = time.monotonic(), output / "logs"
    log, failed = logs / f"{name}.log", logs / f"{name}.failed.ipynb"
    with open(log, "w", encoding="utf-8", buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        print(f"notebooks/{name}.ipynb {json.dumps(parameters)}", file=stream)
        try:
            papermill.execute_notebook(
                str(root / "notebooks" / f"{name}.ipynb"),
                str(failed),
                parameters=parameters,
                kernel_name="python3",
                cwd=str(root),
                progress_bar=False,
                stdout_file=stream,
                stderr_file=stream,
                # A kernel otherwise warns on every start that it listens on this machine's loopback.
                extra_arguments=["--log-level=ERROR"],
            )
        except PapermillExecutionError as error:
            print(strip_color("\n".join(error.traceback)), file=stream)
            what = f"{error.ename}: {error.evalue}".splitlines()[0]
            raise InputError(
                f"Notebook {name} stopped in cell {error.cell_index} with {what} "
                f"(log: {shown(log)}; notebook so far: {shown(failed)})."
            ) from None
        except DeadKernelError:
            raise InputError(
                f"The kernel of notebook {name} was killed, for instance for lack of memory (log: {shown(log)})."
            ) from None
    notebook = _for_page(nbformat.read(failed, as_version=4))
    # The page offers the executed notebook for download: it should not carry the folders of this machine.
    for path in ("input_path", "output_path"):
        notebook.metadata.papermill[path] = f"notebooks/{name}.ipynb"
    write_text(output / "executed" / f"{name}.ipynb", nbformat.writes(notebook))
    failed.unlink()
    return time.monotonic() - start


def _end_with(build) -> None:
    build.join()
    os._exit(1)


def shown(path: Path) -> str:
    """The path as a person would type it from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _for_page(notebook):
    """A notebook without its widgets, which no kernel answers on a page, and without the cell that papermill adds.

    A picture that a widget brings along stays.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("remove-cell")
        if "outputs" in cell:
            widgets = [output for output in cell.outputs if output.get("data", {}).pop(WIDGET_TYPE, None)]
            cell.outputs = [output for output in cell.outputs if output not in widgets or "text/html" in output.data]
    return notebook

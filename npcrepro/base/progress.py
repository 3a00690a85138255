"""What a sweep of runs tells while it works: bars on a terminal, a line a minute elsewhere, a log in each run's folder.

A :data:`Report` takes lines. A plain line tells what has happened and is always shown; a :class:`Passing` line tells
where things are and may be left out.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from time import monotonic

from npcrepro.base.errors import InputError

LINE_SECONDS = 60.0


class Passing(str):
    """A line that the next one of its kind makes old.

    Attributes:
        share: of the run that is done, in [0, 1].
        of_all: of all runs.
        left_s: expected seconds until all runs are done; ``nan`` where nothing is known yet.

    Example:
        >>> line = Passing("update 3/4", share=0.75)
        >>> line.share, line.upper()
        (0.75, 'UPDATE 3/4')
    """

    share: float
    of_all: float
    left_s: float

    def __new__(cls, line: str, share: float, of_all: float = 0.0, left_s: float = math.nan) -> Passing:
        made = super().__new__(cls, line)
        made.share, made.of_all, made.left_s = share, of_all, left_s
        return made

    @property
    def left(self) -> str:
        """The time left as the end of a line; empty where it is not known."""
        return f", about {spoken(self.left_s)} left" if self.left_s > 0 else ""

    def __getnewargs__(self) -> tuple[str, float, float, float]:  # type: ignore[override]
        return str(self), self.share, self.of_all, self.left_s


def calm(write: Report) -> Report:
    """A report for logs and notebooks: passing lines only where nothing was said for a minute, with the time left.

    Example:
        >>> report = calm(print)
        >>> report(Passing("a", 0.1)), report(Passing("b", 0.2)), report("c")
        a
        c
        (None, None, None)
    """
    said = -math.inf

    def report(line: str) -> None:
        nonlocal said
        if isinstance(line, Passing) and monotonic() - said < LINE_SECONDS:
            return
        said = monotonic()
        write(line + line.left if isinstance(line, Passing) else line)

    return report


@contextmanager
def shown(write: Report) -> Iterator[Report]:
    """The report of a command.

    On a terminal: two bars, one of the run and one of all runs with the time left, which go when the block ends, and
    plain lines above them. Elsewhere: lines through ``write``, as :func:`calm` lets them pass.
    """
    if not sys.stdout.isatty():
        yield calm(write)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    # Names of users keep their brackets.
    columns = BarColumn(20), TaskProgressColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=Console(markup=False, highlight=False), transient=True) as bars:
        run, every_run = (bars.add_task("", total=1.0, visible=False) for _ in range(2))

        def report(line: str) -> None:
            if isinstance(line, Passing):
                bars.update(run, description=str(line), completed=line.share, visible=True)
                bars.update(every_run, description=f"all runs{line.left}", completed=line.of_all, visible=True)
            else:
                bars.console.print(line, soft_wrap=True)

        yield report


def spoken(seconds: float) -> str:
    """A time in one or two units.

    Example:
        >>> spoken(42.0), spoken(700.0), spoken(9000.0)
        ('42 s', '12 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def seconds_left(work: Mapping[str, tuple[str, float]], seconds: Mapping[str, float]) -> float:
    """How long the runs that are left will take, one after the other, judged by those that are done.

    Runs of a kind take equally long; where none of a kind is done, an update takes as long as those of other kinds.

    Args:
        work: for each run its kind and its updates.
        seconds: of each run that is done.

    Returns:
        Seconds; ``nan`` where there are runs left and none is done.

    Example:
        >>> work = {"a": ("small", 10), "b": ("small", 10), "c": ("large", 30)}
        >>> seconds_left(work, {}), seconds_left(work, {"a": 5.0}), seconds_left(work, {"a": 5.0, "c": 12.0})
        (nan, 20.0, 5.0)
    """
    of_kind: dict[str, list[float]] = {}
    for run, taken in seconds.items():
        of_kind.setdefault(work[run][0], []).append(taken)
    updates = sum(work[run][1] for run in seconds)
    of_an_update = sum(seconds.values()) / updates if updates else math.nan
    left = [work[run] for run in work if run not in seconds]
    return sum(fmean(of_kind[kind]) if kind in of_kind else own * of_an_update for kind, own in left)


@dataclass(frozen=True)
class Log:
    """``log.jsonl`` in the folder of a run: a line of JSON for each thing that happened, with its time (UTC).

    Events are ``started`` (with host, process, device, and whether it goes on from a checkpoint), ``check`` (a row of
    the learning curve), ``finished`` (with its status), ``failed`` (with the error and its traceback) and
    ``interrupted``. A line that cannot be written stops nothing: the files that count say so themselves.
    """

    path: Path

    def __call__(self, event: str, **about: object) -> None:
        row: dict[str, object] = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event}
        row |= {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in about.items()}
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        try:
            with open(self.path, "ab+") as file:
                # What a kill or a full disk cut short ends here.
                if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                    line = b"\n" + line
                file.write(line)
        except OSError:
            pass


def in_one_line(problem: BaseException) -> str:
    """An error as one line; of what another process has raised, the last line, which says it."""
    text = str(problem).strip()
    if "Traceback (most recent call last)" in text:
        text = text.splitlines()[-1].removeprefix("npcrepro.base.errors.InputError: ")
    elif not isinstance(problem, InputError):
        text = f"{type(problem).__name__}: {text}" if text else type(problem).__name__
    text = " ".join(text.split())
    return text if len(text) <= 500 else f"{text[:500]}..."


Report = Callable[[str], None]  # takes a line of progress

"""How a sweep of runs tells where it is: bars on a terminal, a line a minute elsewhere, a log in each run's folder.

What is shown goes through a :data:`npcrepro.base.progress.Report`, which takes a line. A plain line tells what has
happened and is always shown; a :class:`Passing` line tells where things are and may be left out.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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

    def __new__(cls, line: str, share: float, of_all: float = 0.0, left_s: float = math.nan):
        made = super().__new__(cls, line)
        made.share, made.of_all, made.left_s = share, of_all, left_s
        return made

    @property
    def left(self) -> str:
        """The time left as the end of a line; empty where it is not known."""
        return f", about {spoken(self.left_s)} left" if self.left_s > 0 else ""

    def __getnewargs__(self):
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


class Bars:
    """A report for a terminal: two bars, one of the run and one of all runs with the time left; plain lines above them.

    Use it in a ``with`` statement; the bars go when it ends.
    """

    every_s = 0.5

    def __init__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        # Names of users keep their brackets.
        self._text = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(20), TaskProgressColumn(), self._text)
        self._bars = Progress(*columns, console=Console(markup=False, highlight=False), transient=True)
        self._run, self._all = (self._bars.add_task("", total=1.0, visible=False) for _ in range(2))

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *ended) -> None:
        self._bars.stop()

    def __call__(self, line: str) -> None:
        if not isinstance(line, Passing):
            self._bars.console.print(line, soft_wrap=True)
            return
        self._bars.update(self._run, description=str(line), completed=line.share, visible=True)
        self._bars.update(self._all, description=f"all runs{line.left}", completed=line.of_all, visible=True)


@contextmanager
def shown(write: Report) -> Iterator[Report]:
    """The report of a command: bars where standard output is a terminal, else lines through ``write``, few of them."""
    if not sys.stdout.isatty():
        yield calm(write)
        return
    with Bars() as bars:
        yield bars


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


@dataclass
class Timetable:
    """How long the runs that are left will take, by those that are done.

    Runs of a kind take equally long; where none of a kind is done, an update takes as long as those of other kinds.

    Args:
        work: for each run its kind and its updates.

    Attributes:
        seconds: of the runs that are done.
        dropped: runs that will not be done.

    Example:
        >>> table = Timetable({"a": ("small", 10), "b": ("small", 10), "c": ("large", 30)})
        >>> table.left_s()
        nan
        >>> table.seconds["a"] = 5.0
        >>> table.left_s()
        20.0
        >>> table.left_s(running="b", since_s=3.0, share=0.5)
        19.5
    """

    work: Mapping[str, tuple[str, float]]
    seconds: dict[str, float] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)

    def left_s(self, running: str | None = None, since_s: float = 0.0, share: float = 0.0) -> float:
        """Seconds until all is done; ``nan`` where nothing is done yet.

        Args:
            running: the run that is going on, since so many seconds, with this share of it done.
        """
        known = self.seconds | ({running: since_s / share} if share > 0 else {})
        updates = sum(self.work[run][1] for run in known)
        of_kind: dict[str, list[float]] = {}
        for run, seconds in known.items():
            of_kind.setdefault(self.work[run][0], []).append(seconds)

        def expected(run: str) -> float:
            kind, own = self.work[run]
            if run in known:
                return known[run]
            if kind in of_kind:
                return fmean(of_kind[kind])
            return sum(known.values()) / updates * own if updates else math.nan

        waiting = self.work.keys() - self.seconds.keys() - self.dropped
        return sum(expected(run) for run in waiting) - (since_s if share > 0 else 0.0)


@dataclass(frozen=True)
class Log:
    """``log.jsonl`` in the folder of a run: a line of JSON for each thing that happened, with its time (UTC).

    Events are ``started`` (with host, process, device, and whether it goes on from a checkpoint), ``check`` (a row of
    the learning curve), ``finished`` (with its status), ``failed`` (with the error and its traceback) and
    ``interrupted``. A line that cannot be written stops nothing: the files that count say so themselves.
    """

    path: Path

    def __call__(self, event: str, **about) -> None:
        row = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event}
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

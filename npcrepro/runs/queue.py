"""Many runs in order, each behind what it uses, beside other processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.base.progress import LINE_SECONDS, Passing, Report, Timetable, calm, in_one_line
from npcrepro.base.wording import plural
from npcrepro.protocol.method import Paper
from npcrepro.protocol.settings import Settings
from npcrepro.runs.locking import Busy
from npcrepro.runs.plan import (
    in_order,
    open_cohort,
    outline,
    plan,
    prepare_and_report,
    refuse_defects,
    title_of,
    used_by,
)
from npcrepro.runs.records import Configuration, Record
from npcrepro.runs.run import Unusable, run

POLL_SECONDS = 5.0


def run_paper(
    paper: Paper,
    settings: Settings,
    *,
    strict: bool = False,
    only: str = "",
    report: Report | None = None,
    devices: int = 1,
    deterministic: bool = False,
) -> list[Record]:
    """Run methods x seeds x folds of a paper and return the records, reading back what is finished.

    Several processes may work on the same runs: one that another is working on comes last, and is waited for. A run
    that fails does not stop the others.

    Args:
        paper: from :func:`npcrepro.protocol.registry.load`.
        settings: what the user asked for.
        strict: stop at any defect of the cohort, warnings included, and at channels or structures under other names.
        only: folder of one of these runs, or of one that they use, below the folder of runs; the others are left.
        report: called with lines of progress; they are printed, at most one a minute, if not given.
        devices, deterministic: see :func:`npcrepro.runs.devices.make_fabric`.

    Raises:
        InputError: anything in the settings, cohort or folders that cannot be used; and behind all other runs, those
            that failed, and those that build on one that failed or diverged.
    """
    report = report or calm(print)
    runs = Path(settings.runs)
    cohort = open_cohort(paper, settings)
    _, wanted = plan(paper, settings, outline(cohort, runs / "prepared"))
    if strict:
        refuse_defects(cohort, list({run.method.name: run.method for run in wanted}.values()))
    todo = in_order(wanted)
    if only:
        todo = wanted = [run for run in todo if run.folder(Path()) == Path(only)]
    if not todo:
        raise InputError(f"run {only} is none of those asked for: the settings, the cohort or the code have changed")
    prepared = prepare_and_report(cohort, runs / "prepared", report)

    def compute(configuration: Configuration, report: Report) -> tuple[Record, bool]:
        return run(configuration, prepared, settings.device, runs, report, devices, deterministic)

    records = _run_all(todo, compute, runs, report)
    return [records[configuration.sha256] for configuration in wanted]


def _run_all(
    todo: Sequence[Configuration],
    compute: Callable[[Configuration, Report], tuple[Record, bool]],
    runs: Path,
    report: Report,
) -> dict[str, Record]:
    """Run configurations, each behind what it uses, and return their records by identity."""
    sweep = _Sweep(todo, report)
    records, failed, skipped, trained, told = {}, [], [], 0, ""
    left = list(enumerate(todo, 1))
    while left:
        later, busy = {}, []
        for number, configuration in left:
            name, title = configuration.sha256, f"[{number}/{len(todo)}] {title_of(configuration)}"
            if any(needed.sha256 in later for needed in used_by(configuration)):
                later[name] = number, configuration
                continue
            try:
                record, fresh = compute(configuration, sweep.begin(name, title))
            except Busy as problem:
                later[name] = number, configuration
                busy.append(f"{title}: waiting, {problem}")
                continue
            except Unusable as problem:
                sweep.drop(name, f"{title}: skipped, {problem}")
                skipped.append(title_of(configuration))
                continue
            except KeyboardInterrupt:
                report(
                    f"interrupted: {len(records)} of {len(todo)} runs are finished; "
                    "the same call goes on where this one stopped"
                )
                raise
            except Exception as problem:  # whatever it is, the other runs may do
                # Kept as words: the error itself would hold on to the tensors of its run.
                sweep.drop(name, f"{title}: failed, {in_one_line(problem)}")
                failed.append(f"{title_of(configuration)}: {in_one_line(problem)}")
                continue
            records[name] = record
            trained += fresh
            sweep.done(name, title, record, fresh)
        if later and len(later) == len(left):
            # Nothing but runs of other processes, and what builds on them.
            if busy[0] != told:
                told = busy[0]
                report(told)
            time.sleep(POLL_SECONDS)
        left = list(later.values())
    report(f"{plural(len(todo), 'run')}, {trained} trained now, {len(records) - trained} read back from {runs}")
    problems = []
    if failed:
        problems.append(f"{len(failed)} of {len(todo)} runs failed: {'; '.join(failed)}")
    if skipped:
        cause = "a run that they build on diverged or is not finished"
        problems.append(f"{len(skipped)} of {len(todo)} runs were skipped, as {cause}: {'; '.join(skipped)}")
    if problems:
        raise InputError("; and ".join(problems))
    return records


class _Sweep:
    """Says through a report where the runs are, and how long those that are left will take."""

    def __init__(self, todo: Sequence[Configuration], report: Report):
        work = {c.sha256: (c.method.full_name, c.method.budget * c.profile.updates) for c in todo}
        self.table, self.report = Timetable(work), report
        self.every_s = getattr(report, "every_s", LINE_SECONDS)
        self.started = self.said = time.monotonic()

    def begin(self, name: str, title: str) -> Report:
        """The report of one run, which puts its title before each line."""
        began = time.monotonic()

        def line(text: str) -> None:
            now = time.monotonic()
            if not isinstance(text, Passing):
                self.report(f"{title}: {text}")
            elif now - self.said >= self.every_s:
                self.said = now
                left_s = self.table.left_s(name, now - began, text.share)
                self.report(Passing(f"{title}: {text}", text.share, self._share(left_s), left_s))

        return line

    def done(self, name: str, title: str, record: Record, fresh: bool) -> None:
        """A run is finished; say so if that was now."""
        self.table.seconds[name] = record.provenance["seconds"]["all"]
        if fresh:
            left_s = self.table.left_s()
            line = f"{title}: done in {self.table.seconds[name]:.0f} s"
            self.report(Passing(line, 1.0, self._share(left_s), left_s))

    def drop(self, name: str, line: str) -> None:
        """A run will not be done."""
        self.table.dropped.add(name)
        self.report(line)

    def _share(self, left_s: float) -> float:
        gone = time.monotonic() - self.started
        return gone / (gone + left_s) if gone + left_s > 0 else 0.0

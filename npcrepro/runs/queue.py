"""Many runs in order, each behind what it uses, beside other processes."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.base.progress import Passing, Report, calm, in_one_line, seconds_left
from npcrepro.base.wording import plural
from npcrepro.cohorts.check import check
from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.prepared import PreparedCohort, prepare
from npcrepro.protocol.method import Paper
from npcrepro.protocol.settings import Settings
from npcrepro.runs.locking import Busy
from npcrepro.runs.plan import in_order, open_cohort, outline, plan, refuse_defects
from npcrepro.runs.records import Configuration, Record
from npcrepro.runs.run import Hardware, Unusable, run

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
    alike = {channel.lower(): channel for channel in cohort.channels}
    for name in settings.modalities:
        if name not in cohort.channels and name.lower() in alike:
            raise InputError(f"cohort {cohort.name} has no channel {name!r}; did you mean {alike[name.lower()]!r}?")
    outlined = outline(cohort, runs / "prepared")
    wanted = plan(paper, settings, outlined)
    if strict:
        refuse_defects(cohort, [configuration.method for configuration in wanted])
    todo = in_order(wanted)
    if only:
        todo = wanted = [configuration for configuration in todo if Path(configuration.place) == Path(only)]
    if not todo:
        raise InputError(f"run {only} is none of those asked for: the settings, the cohort or the code have changed")
    first_sight = not (outlined.folder / "prepared.json").exists()
    prepared = prepare(cohort, runs / "prepared")
    for defect in check(cohort.root) if first_sight else ():
        report(f"{defect.severity}: {defect}")
    for asked, there in _standing_in(wanted, cohort):
        report(f"{there} of the cohort stands in for {asked}")
    records = _run_all(todo, prepared, runs, report, Hardware(settings.device, devices, deterministic))
    return [records[configuration.sha256] for configuration in wanted]


def _standing_in(wanted: Iterable[Configuration], cohort: Cohort) -> list[tuple[str, str]]:
    """Channels and structures of the methods that the cohort has under another name, each with that name."""
    from npcrepro.sampling.samples import match_names  # torch, which an unusable setting need not wait for

    found: dict[str, str] = {}
    for method in {configuration.method.full_name: configuration.method for configuration in wanted}.values():
        for names, present in ((method.channels, cohort.channels), (method.structures, tuple(cohort.structures))):
            with suppress(InputError):  # a run that cannot be made says so itself
                found |= dict(zip(names, match_names(names, present, cohort.name, "name"), strict=True))
    return [(asked, there) for asked, there in found.items() if asked != there]


def _run_all(
    todo: Sequence[Configuration], cohort: PreparedCohort, runs: Path, report: Report, hardware: Hardware
) -> dict[str, Record]:
    """Run configurations, each behind what it uses, and return their records by identity."""
    progress = _Progress(todo, report)
    records: dict[str, Record] = {}
    trained, skipped, told = 0, [], ""
    failed: dict[str, list[str]] = {}  # cause to runs
    left = list(enumerate(todo, 1))
    while left:
        later, busy = {}, []
        for number, configuration in left:
            name, title = configuration.sha256, f"[{number}/{len(todo)}] {configuration.title}"
            if any(needed.sha256 in later for needed in configuration.needs):
                later[name] = number, configuration
                continue
            try:
                records[name], fresh = run(configuration, cohort, runs, progress.of(name, title), hardware)
            except Busy as problem:
                later[name] = number, configuration
                busy.append(f"{title}: waiting, {problem}")
            except Unusable as problem:
                progress.drop(name, f"{title}: skipped, {problem}")
                skipped.append(configuration.title)
            except KeyboardInterrupt:
                report(
                    f"interrupted: {len(records)} of {len(todo)} runs are finished; "
                    "the same call goes on from the last checkpoint"
                )
                raise
            except Exception as problem:  # whatever it is, the other runs may do
                # Kept as words: the error itself would hold on to the tensors of its run.
                progress.drop(name, f"{title}: failed, {in_one_line(problem)}")
                failed.setdefault(in_one_line(problem), []).append(configuration.title)
            else:
                trained += fresh
                progress.done(name, title, records[name], fresh)
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
        causes = "; ".join(f"{', '.join(titles)}: {cause}" for cause, titles in failed.items())
        problems.append(f"{sum(map(len, failed.values()))} of {len(todo)} runs failed: {causes}")
    if skipped:
        cause = "a run that they build on diverged or is not finished"
        problems.append(f"{len(skipped)} of {len(todo)} runs were skipped, as {cause}: {'; '.join(skipped)}")
    if problems:
        raise InputError("; and ".join(problems))
    return records


class _Progress:
    """Says through a report where the runs are, and how long those that are left will take."""

    def __init__(self, todo: Sequence[Configuration], report: Report):
        self.work = {each.sha256: (each.method.full_name, each.updates) for each in todo}
        self.seconds: dict[str, float] = {}
        self.report, self.began = report, time.monotonic()

    def of(self, name: str, title: str) -> Report:
        """The report of one run, which puts its title before each line."""
        first: tuple[float, float] | None = None  # time and share: a run that goes on does not begin at 0

        def report(line: str) -> None:
            nonlocal first
            if not isinstance(line, Passing):
                return self.report(f"{title}: {line}")
            now = time.monotonic()
            began, share = first = first or (now, line.share)
            in_all = (now - began) / (line.share - share) if line.share > share else 0.0
            known = self.seconds | ({name: in_all} if in_all else {})
            self._pass(f"{title}: {line}", line.share, seconds_left(self.work, known) + in_all * (1 - line.share))

        return report

    def done(self, name: str, title: str, record: Record, fresh: bool) -> None:
        """A run is finished; say so if that was now."""
        self.seconds[name] = record.provenance["seconds"]["all"]
        if fresh:
            line = f"{title}: done in {self.seconds[name]:.0f} s"
            self._pass(line, 1.0, seconds_left(self.work, self.seconds))

    def drop(self, name: str, line: str) -> None:
        """A run will not be done."""
        del self.work[name]
        self.report(line)

    def _pass(self, line: str, share: float, left_s: float) -> None:
        gone = time.monotonic() - self.began
        self.report(Passing(line, share, gone / (gone + left_s) if gone + left_s > 0 else 0.0, left_s))

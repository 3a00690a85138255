"""From settings to finished runs: make the cohort ready, split it, and run what is not there yet."""

from __future__ import annotations

import fcntl
import os
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from npcrepro.cohorts.check import check
from npcrepro.cohorts.folds import Fold, Split, inner_folds, split_patients
from npcrepro.cohorts.images import axes_of
from npcrepro.cohorts.layout import Cohort, read_cohort
from npcrepro.cohorts.prepared import PreparedCohort, fingerprint, prepare, prepared_folder
from npcrepro.errors import InputError
from npcrepro.files import read_json, sha256_of, write_json, writing
from npcrepro.progress import LINE_SECONDS, Log, Passing, Timetable, calm, in_one_line
from npcrepro.protocol import Method, Paper, Profile, Report, Settings, as_data, pick
from npcrepro.records import IDENTITY, SCORING_CODE, Configuration, Record, environment, quantised, write_csv
from npcrepro.sources import code_sha256
from npcrepro.words import plural

POLL_SECONDS = 5.0


class Busy(InputError):
    """Another process is working on the run."""


class Unusable(InputError):
    """A run that this one builds on is not finished, or diverged."""


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
        paper: from :func:`npcrepro.papers.load`.
        settings: what the user asked for.
        strict: stop at any defect of the cohort, warnings included, and at channels or structures under other names.
        only: folder of one of these runs, or of one that they use, below the folder of runs; the others are left.
        report: called with lines of progress; they are printed, at most one a minute, if not given.
        devices, deterministic: see :func:`npcrepro.training.make_fabric`.

    Raises:
        InputError: anything in the settings, cohort or folders that cannot be used; and behind all other runs, those
            that failed, and those that build on one that failed or diverged.
    """
    report = report or calm(print)
    runs = Path(settings.runs)
    cohort = open_cohort(paper, settings)
    _, wanted = plan(paper, settings, outline(cohort, runs / "prepared"))
    if strict:
        _refuse_defects(cohort, list({run.method.name: run.method for run in wanted}.values()))
    todo = in_order(wanted)
    if only:
        todo = wanted = [run for run in todo if run.folder(Path()) == Path(only)]
    if not todo:
        raise InputError(f"run {only} is none of those asked for: the settings, the cohort or the code have changed")
    prepared = _prepare(cohort, runs / "prepared", report)

    def compute(configuration: Configuration, report: Report) -> tuple[Record, bool]:
        return run(configuration, prepared, settings.device, runs, report, devices, deterministic)

    records = _run_all(todo, compute, runs, report)
    return [records[configuration.sha256] for configuration in wanted]


def outline(cohort: Cohort, folder: Path) -> PreparedCohort:
    """A cohort as :func:`prepare` makes it in ``folder``, as far as plans need it; no image is decoded.

    Nothing is written where ``folder`` is not there or belongs to somebody else, so that one can look at any runs.
    """
    digest = fingerprint(cohort, cache=folder / "fingerprints.json" if os.access(folder, os.W_OK) else None)
    return PreparedCohort(
        folder=prepared_folder(folder, cohort.name, digest),
        fingerprint=digest,
        entries={case.name: {"patient": case.patient, "suspect": case.suspect} for case in cohort.cases},
        **{name: getattr(cohort, name) for name in ("name", "channels", "structures", "spacing_known")},
        **{name: getattr(cohort, name) for name in ("publishable", "licence", "reference")},
    )


def plan(paper: Paper, settings: Settings, cohort: PreparedCohort) -> tuple[Split, list[Configuration]]:
    """The runs that settings ask for: methods x seeds x folds. :func:`in_order` adds the runs that these use.

    Raises:
        InputError: a method, profile or fold that is not there, or too few patients.
    """
    profile = paper.profile(settings.profile)
    names = settings.methods or profile.methods or (paper.methods[0].name,)
    methods = [paper.method(name).on(cohort.structures) for name in names]
    split = split_patients(cohort, **paper.split)
    folds = _choose_folds(settings, profile, split, cohort)
    split_sha256 = split.sha256
    return split, [
        configure(paper, method, profile, cohort, split_sha256, split.folds[fold], seed)
        for method in methods
        for seed in settings.seeds
        for fold in folds
    ]


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
            name, title = configuration.sha256, f"[{number}/{len(todo)}] {_title(configuration)}"
            if any(needed.sha256 in later for needed in _needed(configuration)):
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
                skipped.append(_title(configuration))
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
                failed.append(f"{_title(configuration)}: {in_one_line(problem)}")
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


def _needed(configuration: Configuration) -> Iterator[Configuration]:
    """The runs that this one uses itself."""
    return chain.from_iterable(configuration.used.values())


def configure(
    paper: Paper, method: Method, profile: Profile, cohort: PreparedCohort, split_sha256: str, fold: Fold, seed: int
) -> Configuration:
    """The run of a method on a fold, together with the runs of other methods that it uses."""

    def on(method: Method, fold: Fold, *inner: int) -> Configuration:
        used = {}
        for use in method.uses:
            other = paper.method(use.method).on(cohort.structures)
            if use.maps and other.structures != method.structures:
                one, another = (f"{m.full_name} ({', '.join(m.structures)})" for m in (method, other))
                raise InputError(f"{one} takes in maps of {another}: their structures have to be the same")
            parts = enumerate(inner_folds(fold, use.maps)) if use.maps else ()
            used[use.method] = (on(other, fold, *inner), *(on(other, part, *inner, number) for number, part in parts))
        # What a part uses belongs to the part: "0.1" is part 1 of the patients of part 0.
        about = as_data(fold) | ({"inner": ".".join(map(str, inner))} if inner else {})
        return Configuration(method, profile, cohort.name, cohort.fingerprint, split_sha256, about, seed, used)

    return on(method, fold)


def in_order(wanted: Iterable[Configuration]) -> list[Configuration]:
    """These runs and all that they use, each once and behind what it uses."""
    found: dict[str, Configuration] = {}

    def add(configuration: Configuration) -> None:
        for needed in _needed(configuration):
            add(needed)
        found.setdefault(configuration.sha256, configuration)

    for configuration in wanted:
        add(configuration)
    return list(found.values())


def _title(configuration: Configuration) -> str:
    fold = configuration.fold
    part = f"fold {fold['number']}" if fold["test"] else "all patients"
    part += f", part {fold['inner']}" if "inner" in fold else ""
    method, profile = configuration.method.full_name, configuration.profile.name
    return f"{method} on {configuration.cohort}, {profile}, {part}, seed {configuration.seed}"


def run(
    configuration: Configuration,
    cohort: PreparedCohort,
    device: str,
    runs: Path,
    report: Report,
    devices: int = 1,
    deterministic: bool = False,
) -> tuple[Record, bool]:
    """Train, predict and score one configuration, unless that is done already; what it uses has to be there.

    Args:
        device, devices, deterministic: see :func:`npcrepro.training.make_fabric`.
        report: called with lines of progress.

    Returns:
        The record, and whether anything was trained now.

    Raises:
        Busy: another process is working on it.
        Unusable: what it uses is not finished, or diverged.
        InputError: the folder cannot be written, or the cohort cannot be used.
    """
    folder = configuration.folder(runs)
    record = Record(folder)
    if _finished(record):
        return record, False
    if not (folder / "provenance.json").exists():
        _require_used(configuration, runs)
    _writable(folder)
    with _locked(folder):
        if _finished(record):
            return record, False
        if (folder / "provenance.json").exists():
            # Trained by the same code, scored by another: the predictions are there.
            stands_in = record.provenance["substituted"]
            structures = [stands_in.get(name, name) for name in configuration.method.structures]
            _score(configuration, cohort, folder, structures)
            provenance = record.provenance | {"scoring_sha256": code_sha256(SCORING_CODE)}
            write_json(folder / "provenance.json", provenance)
            return Record(folder), False
        with _logged(folder, device=device, devices=devices) as log:
            _compute(configuration, cohort, device, runs, report, devices, deterministic, log)
    return Record(folder), True


@contextmanager
def _logged(folder: Path, **about) -> Iterator[Log]:
    """The log of a run, with its beginning and its end."""
    log = Log(folder / "log.jsonl")
    resumed = (folder / "checkpoint.safetensors").exists()
    log("started", resumed=resumed, host=socket.gethostname(), process=os.getpid(), **about)
    try:
        yield log
    except KeyboardInterrupt:
        log("interrupted")
        raise
    except Exception as problem:
        log("failed", error=in_one_line(problem), traceback=traceback.format_exc())
        raise
    log("finished", status=Record(folder).provenance["status"])


def _finished(record: Record) -> bool:
    path = record.folder / "provenance.json"
    return path.exists() and read_json(path)["scoring_sha256"] == code_sha256(SCORING_CODE)


def _require_used(configuration: Configuration, runs: Path) -> None:
    for record in (Record(needed.folder(runs)) for needed in _needed(configuration)):
        finished = (record.folder / "provenance.json").exists()
        if not finished or record.provenance["status"] == "diverged":
            cause = "whose training diverged" if finished else "which is not finished"
            raise Unusable(f"{configuration.method.full_name} builds on {record.folder}, {cause}")


def open_cohort(paper: Paper, settings: Settings) -> Cohort:
    """The cohort of the settings, or the embedded phantom at the profile's size, made on first use."""
    runs = Path(settings.runs)
    _writable(runs)
    if settings.cohort != "phantom":
        return read_cohort(Path(settings.cohort))
    options = paper.profile(settings.profile).phantom
    root = phantom_folder(paper, settings)
    if not (root / "dataset.json").exists():
        from npcrepro.cohorts.phantom import write_phantom

        try:
            write_phantom(root, **options)
        except (InputError, OSError):
            # Another process may have put the same folder into place in the meantime.
            if not (root / "dataset.json").exists():
                raise
    return read_cohort(root)


def phantom_folder(paper: Paper, settings: Settings) -> Path:
    """Where the embedded phantom of a profile lies, or will lie."""
    options = as_data(paper.profile(settings.profile).phantom)
    made_from = sha256_of([options, code_sha256(["npcrepro.cohorts.phantom:write_phantom"])])
    return Path(settings.runs) / "cohorts" / f"phantom-{made_from[:8]}"


def load_network(record: Record):
    """The trained network of a record, in evaluation mode on the CPU."""
    from safetensors.torch import load_file

    network = Method.from_data(record.config["method"]).build(record.config["profile"]["width"])
    network.load_state_dict(load_file(record.folder / "model.safetensors"))
    return network.eval()


def load_data(record: Record, cohort: PreparedCohort):
    """The cases as the record's method sees them."""
    method = Method.from_data(record.config["method"])
    return _data(method, record.config["profile"]["matrix"], cohort, record.used)


def _compute(
    configuration: Configuration,
    cohort: PreparedCohort,
    device: str,
    runs: Path,
    report: Report,
    devices: int,
    deterministic: bool,
    log: Log,
) -> None:
    import numpy as np
    import torch

    from npcrepro import inference, training

    method, profile, fold = configuration.method, configuration.profile, configuration.fold
    folder = configuration.folder(runs)
    used = {name: [Record(each.folder(runs)) for each in needed] for name, needed in configuration.used.items()}
    for leftover in folder.rglob(".*"):
        if leftover.name != ".lock":
            leftover.unlink(missing_ok=True)
    write_json(folder / "config.json", configuration.data)
    fabric = training.make_fabric(device, deterministic=deterministic)
    on_gpu = fabric.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(fabric.device)
    data = _data(method, profile.matrix, cohort, used)
    checkpoint, taken_over = folder / "checkpoint.safetensors", _taken_over(method, used)
    train, validation = (cohort.cases_of(fold[part], include_suspect=False) for part in ("train", "validation"))

    task = method, profile, data, train, validation, configuration.seed
    if devices > 1 and method.stages:
        training.train_in_processes(device, devices, deterministic, report, *task, checkpoint, taken_over, log)
    network, state = training.train(*task, fabric, checkpoint, report, taken_over, log)
    if state.diverged:
        report(_diverged(state.culprit, folder))
    history = [configuration.identity | row for row in state.history]
    write_csv(folder / "history.csv", history, IDENTITY + training.HISTORY_COLUMNS)

    started = time.monotonic()
    for case in cohort.cases_of(fold["test"], include_suspect=True):
        probability = data.predict(
            network,
            case,
            activation=method.activation,
            batch_size=profile.batch_size,
            device=fabric.device,
        )
        label = inference.decide(probability[None], method.threshold)[0].to(torch.uint8).numpy()
        with writing(folder / "predictions" / f"{case}.npz") as temporary:
            np.savez_compressed(temporary, label=label, probability=quantised(probability))
    predict_seconds = time.monotonic() - started
    _score(configuration, cohort, folder, data.structures)

    weights = {name: tensor.contiguous().cpu() for name, tensor in network.module.state_dict().items()}
    training.write_tensors(folder / "model.safetensors", weights)
    write_json(
        folder / "provenance.json",
        {
            "status": "diverged" if state.diverged else "trained",
            **({"diverged": state.culprit} if state.diverged else {}),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "config_sha256": configuration.sha256,
            "scoring_sha256": code_sha256(SCORING_CODE),
            "device": torch.cuda.get_device_name(fabric.device) if on_gpu else "cpu",
            "devices": devices,
            "deterministic": deterministic or not on_gpu,
            "precision": fabric._precision.precision,
            "seconds": {
                "train": round(state.seconds, 2),
                "predict": round(predict_seconds, 2),
                "all": round(state.seconds + predict_seconds, 2),
            },
            "sessions": state.sessions,
            "peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated(fabric.device) / 2**20) if on_gpu else None,
            "substituted": _substituted(method, data),
            "axes": Counter(axes_of(cohort.entries[case]["geometry"]) for case in train).most_common(1)[0][0],
            "used": {name: [str(each.folder.relative_to(runs)) for each in found] for name, found in used.items()},
            "without_gradient": state.without_gradient,
            **environment(),
        },
    )
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)


def _diverged(culprit: Mapping, folder: Path) -> str:
    """One sentence on a loss that is no number."""
    samples = []
    for sample in culprit["samples"]:
        place = ", ".join(f"{name} {value}" for name, value in sample.items() if name != "case")
        samples.append(f"{sample['case']} ({place})")
    return (
        f"diverged, the loss of stage {culprit['stage']}, update {culprit['update']}, was {culprit['loss']} on "
        f"{', '.join(samples)}; the batch is in {folder / 'diverged.npz'}"
    )


def _score(configuration: Configuration, cohort: PreparedCohort, folder: Path, structures: Sequence[str]) -> None:
    """Write ``cases.csv`` from the predictions; the structures are named as in the cohort."""
    import numpy as np

    from npcrepro import evaluation

    rows = []
    for case in cohort.cases_of(configuration.fold["test"], include_suspect=True):
        with np.load(folder / "predictions" / f"{case}.npz") as arrays:
            label, probability = arrays["label"], arrays["probability"]
        rows += evaluation.score_case(label, cohort.case(case), cohort, structures, probability)
    write_csv(folder / "cases.csv", [configuration.identity | row for row in rows], IDENTITY + evaluation.CASE_COLUMNS)


def _data(method: Method, matrix, cohort: PreparedCohort, used: Mapping[str, Sequence[Record]]):
    maps = {
        path.stem: path
        for use in method.uses
        if use.maps
        for record in used[use.method]
        for path in sorted((record.folder / "predictions").glob("*.npz"))
    }
    return method.data.build(cohort, matrix, method.channels, method.structures, **({"maps": maps} if maps else {}))


def _taken_over(method: Method, used: Mapping[str, Sequence[Record]]) -> dict:
    """Weights by name that the network starts from (see :class:`npcrepro.protocol.Use`)."""
    from safetensors.torch import load_file

    taken = {}
    for use in method.uses:
        weights = load_file(used[use.method][0].folder / "model.safetensors") if use.weights else {}
        for there, here in use.weights.items():
            found = {here + name.removeprefix(there): t for name, t in weights.items() if name.startswith(there)}
            if not found:
                raise ValueError(f"{method.full_name} takes over {there!r} of {use.method}, which has no such weights")
            taken |= found
    return taken


def _substituted(method: Method, data) -> dict:
    """Channels and structures that stand in for the ones the method names."""
    pairs = [*zip(method.channels, data.channels), *zip(method.structures, data.structures)]
    return {wanted: used for wanted, used in pairs if wanted != used}


def _prepare(cohort: Cohort, folder: Path, report: Report) -> PreparedCohort:
    """Prepare the cohort; on first sight of it, say what is suspicious."""
    known = set(folder.glob("*/prepared.json"))
    prepared = prepare(cohort, folder)
    if set(folder.glob("*/prepared.json")) != known:
        for defect in check(cohort.root):
            report(f"{defect.severity}: {defect}")
    return prepared


def _choose_folds(settings: Settings, profile: Profile, split: Split, cohort: PreparedCohort) -> list[int]:
    there = {str(fold.number): fold.number for fold in split.folds}
    if settings.folds:
        return [pick(there, str(number), f"fold of cohort {cohort.name}") for number in settings.folds]
    return list(there.values())[: profile.folds]


def _refuse_defects(cohort: Cohort, methods: list[Method]) -> None:
    defects = check(cohort.root)
    if defects:
        first = defects[0]
        raise InputError(
            f"{cohort.root} has {len(defects)} defects, the first in {first.file}: {first.problem} ({first.value}); "
            f"see `npcrepro data check {cohort.root}`"
        )
    for method in methods:
        for wanted, there in ((method.channels, cohort.channels), (method.structures, tuple(cohort.structures))):
            missing = set(wanted) - set(there)
            if missing:
                raise InputError(f"cohort {cohort.name} has {', '.join(there)} but no {', '.join(sorted(missing))}")


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may be trying the same folder
    except OSError as error:
        raise InputError(f"cannot write to the run folder {folder}: {error.strerror or error}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep the folder for this process; Busy where another has it."""
    try:
        lock = open(folder / ".lock", "w")  # noqa: SIM115 (an error in the block below is none of the lock)
    except OSError as error:
        raise InputError(f"cannot write to the run folder {folder}: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy(f"another process is working on {folder}") from error
        yield


def in_use(folder: Path) -> bool:
    """Whether a process is working on the run in a folder."""
    try:
        with open(folder / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False

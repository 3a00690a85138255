"""From settings to finished runs: make the cohort ready, split it, and run what is not there yet."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from npcrepro.cohorts.check import check
from npcrepro.cohorts.folds import Fold, Split, inner_folds, split_patients
from npcrepro.cohorts.layout import Cohort, read_cohort
from npcrepro.cohorts.prepared import PreparedCohort, prepare
from npcrepro.errors import InputError
from npcrepro.files import read_json, sha256_of, write_json, writing
from npcrepro.protocol import Method, Paper, Profile, Report, Settings, as_data, pick
from npcrepro.records import IDENTITY, SCORING_CODE, Configuration, Record, environment, quantised, write_csv
from npcrepro.sources import code_sha256

POLL_SECONDS = 5.0


class Busy(InputError):
    """Another process is working on the run."""


class Unusable(InputError):
    """A run that this one builds on is not finished, or diverged."""


def run_paper(paper: Paper, settings: Settings, *, strict: bool = False, report: Report = print) -> list[Record]:
    """Run methods x seeds x folds of a paper and return the records, reading back what is finished.

    Several processes may work on the same runs: one that another is working on comes last, and is waited for.

    Args:
        paper: from :func:`npcrepro.papers.load`.
        settings: what the user asked for.
        strict: stop at any defect of the cohort, warnings included, and at channels or structures under other names.
        report: called with lines of progress.

    Raises:
        InputError: anything in the settings, cohort or folders that cannot be used; and behind all other runs, those
            that build on one that diverged.
    """
    profile = paper.profile(settings.profile)
    names = settings.methods or profile.methods or (paper.methods[0].name,)
    runs = Path(settings.runs)
    cohort = open_cohort(paper, settings)
    methods = [paper.method(name).on(cohort.structures) for name in names]
    if strict:
        _refuse_defects(cohort, methods)
    split = split_patients(cohort, **paper.split)
    folds = _choose_folds(settings, profile, split, cohort)
    prepared = _prepare(cohort, runs / "prepared", report)
    split.write(runs / "splits" / f"{paper.key}-{split.sha256[:8]}.json")

    wanted = [
        configure(paper, method, profile, prepared, split.sha256, split.folds[fold], seed)
        for method in methods
        for seed in settings.seeds
        for fold in folds
    ]
    records = _run_all(in_order(wanted), prepared, settings.device, runs, report)
    return [records[configuration.sha256] for configuration in wanted]


def _run_all(
    todo: Sequence[Configuration], cohort: PreparedCohort, device: str, runs: Path, report: Report
) -> dict[str, Record]:
    """Run configurations, each behind what it uses, and return their records by identity."""
    records, skipped, trained, told, started = {}, [], 0, "", time.monotonic()
    left = list(enumerate(todo, 1))
    while left:
        later, busy = {}, []
        for number, configuration in left:
            title = f"[{number}/{len(todo)}] {_title(configuration)}"

            def line(text: str, title: str = title) -> None:
                report(f"{title}: {text}")

            if any(needed.sha256 in later for needed in _needed(configuration)):
                later[configuration.sha256] = number, configuration
                continue
            try:
                record, fresh = run(configuration, cohort, device, runs, line)
            except Busy as problem:
                later[configuration.sha256] = number, configuration
                busy.append(f"{title}: waiting, {problem}")
                continue
            except Unusable as problem:
                skipped.append(_title(configuration))
                line(f"skipped, {problem}")
                continue
            records[configuration.sha256] = record
            if fresh:
                trained += 1
                pending = len(todo) - len(records) - len(skipped)
                minutes = (time.monotonic() - started) / trained * pending / 60
                line(f"done in {record.provenance['seconds']['all']:.0f} s, about {minutes:.0f} min left")
        if len(later) == len(left):
            # Nothing but runs of other processes, and what builds on them.
            if busy[0] != told:
                told = busy[0]
                report(told)
            time.sleep(POLL_SECONDS)
        left = list(later.values())
    report(f"{len(todo)} runs, {trained} trained now, {len(records) - trained} read back from {runs}")
    if skipped:
        cause = "a run that they build on diverged or is not finished"
        raise InputError(f"{len(skipped)} of {len(todo)} runs were skipped, as {cause}: {'; '.join(skipped)}")
    return records


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
    configuration: Configuration, cohort: PreparedCohort, device: str, runs: Path, report: Report
) -> tuple[Record, bool]:
    """Train, predict and score one configuration, unless that is done already; what it uses has to be there.

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
        _compute(configuration, cohort, device, runs, report)
    return Record(folder), True


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
    made_from = sha256_of([as_data(options), code_sha256(["npcrepro.cohorts.phantom:write_phantom"])])
    root = runs / "cohorts" / f"phantom-{made_from[:8]}"
    if not (root / "dataset.json").exists():
        from npcrepro.cohorts.phantom import write_phantom

        try:
            write_phantom(root, **options)
        except (InputError, OSError):
            # Another process may have put the same folder into place in the meantime.
            if not (root / "dataset.json").exists():
                raise
    return read_cohort(root)


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


def _compute(configuration: Configuration, cohort: PreparedCohort, device: str, runs: Path, report: Report) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from npcrepro import inference, training

    method, profile, fold = configuration.method, configuration.profile, configuration.fold
    folder = configuration.folder(runs)
    used = {name: [Record(each.folder(runs)) for each in needed] for name, needed in configuration.used.items()}
    for leftover in folder.rglob(".*"):
        if leftover.name != ".lock":
            leftover.unlink(missing_ok=True)
    write_json(folder / "config.json", configuration.data)
    fabric = training.make_fabric(device)
    on_gpu = fabric.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(fabric.device)
    data = _data(method, profile.matrix, cohort, used)

    network, state = training.train(
        method,
        profile,
        data,
        cohort.cases_of(fold["train"], include_suspect=False),
        cohort.cases_of(fold["validation"], include_suspect=False),
        configuration.seed,
        fabric,
        folder / "checkpoint.safetensors",
        report,
        _taken_over(method, used),
    )
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

    with writing(folder / "model.safetensors") as temporary:
        save_file({name: t.contiguous().cpu() for name, t in network.module.state_dict().items()}, temporary)
    write_json(
        folder / "provenance.json",
        {
            "status": "diverged" if state.diverged else "trained",
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "config_sha256": configuration.sha256,
            "scoring_sha256": code_sha256(SCORING_CODE),
            "device": torch.cuda.get_device_name(fabric.device) if on_gpu else "cpu",
            "precision": fabric._precision.precision,
            "seconds": {
                "train": round(state.seconds, 2),
                "predict": round(predict_seconds, 2),
                "all": round(state.seconds + predict_seconds, 2),
            },
            "sessions": state.sessions,
            "peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated(fabric.device) / 2**20) if on_gpu else None,
            "substituted": _substituted(method, data),
            "used": {name: [str(each.folder.relative_to(runs)) for each in found] for name, found in used.items()},
            "without_gradient": state.without_gradient,
            **environment(),
        },
    )
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)


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


def _choose_folds(settings: Settings, profile: Profile, split: Split, cohort: Cohort) -> list[int]:
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
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy(f"another process is working on {folder}") from error
        yield

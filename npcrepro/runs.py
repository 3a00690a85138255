"""From settings to finished runs: make the cohort ready, split it, and run what is not there yet."""

from __future__ import annotations

import fcntl
import resource
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
from npcrepro.records import IDENTITY, SCORING_CODE, Configuration, Record, environment, write_csv
from npcrepro.sources import code_sha256


def run_paper(paper: Paper, settings: Settings, *, strict: bool = False, report: Report = print) -> list[Record]:
    """Run methods x seeds x folds of a paper and return the records, reading back what is finished.

    Args:
        paper: from :func:`npcrepro.papers.load`.
        settings: what the user asked for.
        strict: stop at any defect of the cohort, warnings included, and at channels or structures under other names.
        report: called with lines of progress.

    Raises:
        InputError: anything in the settings, cohort or folders that cannot be used.
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
    todo = in_order(wanted)
    records, started, trained = {}, time.monotonic(), 0
    for number, configuration in enumerate(todo, 1):
        title = f"[{number}/{len(todo)}] {_title(configuration)}"

        def line(text: str, title: str = title) -> None:
            report(f"{title}: {text}")

        record, fresh = run(configuration, prepared, settings.device, runs, line)
        if fresh:
            trained += 1
            left = (time.monotonic() - started) / trained * (len(todo) - number)
            line(f"done in {record.provenance['seconds']['all']:.0f} s, about {left / 60:.0f} min left")
        records[configuration.sha256] = record
    report(f"{len(todo)} runs, {trained} trained now, {len(todo) - trained} read back from {runs}")
    return [records[configuration.sha256] for configuration in wanted]


def configure(
    paper: Paper, method: Method, profile: Profile, cohort: PreparedCohort, split_sha256: str, fold: Fold, seed: int
) -> Configuration:
    """The run of a method on a fold, together with the runs of other methods that it uses."""

    def on(method: Method, fold: Fold, *inner: int) -> Configuration:
        used = {}
        for use in method.uses:
            other = paper.method(use.method).on(cohort.structures)
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
        for needed in chain.from_iterable(configuration.used.values()):
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
        The record, and whether anything was computed now.
    """
    folder = configuration.folder(runs)
    record = Record(folder)
    if _finished(record):
        return record, False
    _writable(folder)
    with _locked(folder):
        if _finished(record):
            return record, False
        if (folder / "provenance.json").exists():
            # Trained by the same code, scored by another: the predictions are there.
            _score(configuration, cohort, folder, runs)
            provenance = record.provenance | {"scoring_sha256": code_sha256(SCORING_CODE)}
            write_json(folder / "provenance.json", provenance)
            return Record(folder), False
        _compute(configuration, cohort, device, runs, report)
    return Record(folder), True


def _finished(record: Record) -> bool:
    path = record.folder / "provenance.json"
    return path.exists() and read_json(path)["scoring_sha256"] == code_sha256(SCORING_CODE)


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

        write_phantom(root, **options)
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
    folder, used = configuration.folder(runs), _used(configuration, runs)
    for leftover in folder.rglob(".*"):
        if leftover.name != ".lock":
            leftover.unlink()
    write_json(folder / "config.json", configuration.data)
    fabric = training.make_fabric(device)
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
        rounded = (probability.nan_to_num() * 255).round().to(torch.uint8).numpy()
        with writing(folder / "predictions" / f"{case}.npz") as temporary:
            np.savez_compressed(temporary, label=label, probability=rounded)
    predict_seconds = time.monotonic() - started
    _score(configuration, cohort, folder, runs)

    with writing(folder / "model.safetensors") as temporary:
        save_file({name: t.contiguous().cpu() for name, t in network.module.state_dict().items()}, temporary)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    on_gpu = fabric.device.type == "cuda"
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
            "peak_memory_mib": round(peak),
            "peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20) if on_gpu else None,
            "substituted": _substituted(method, data),
            "used": {name: [str(each.folder.relative_to(runs)) for each in found] for name, found in used.items()},
            "without_gradient": state.without_gradient,
            **environment(),
        },
    )
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)


def _score(configuration: Configuration, cohort: PreparedCohort, folder: Path, runs: Path) -> None:
    """Write ``cases.csv`` from the predictions."""
    import numpy as np

    from npcrepro import evaluation

    data = _data(configuration.method, configuration.profile.matrix, cohort, _used(configuration, runs))
    rows = []
    for case in cohort.cases_of(configuration.fold["test"], include_suspect=True):
        with np.load(folder / "predictions" / f"{case}.npz") as arrays:
            label, probability = arrays["label"], arrays["probability"]
        rows += evaluation.score_case(label, cohort.case(case), cohort, data.structures, probability)
    write_csv(folder / "cases.csv", [configuration.identity | row for row in rows], IDENTITY + evaluation.CASE_COLUMNS)


def _used(configuration: Configuration, runs: Path) -> dict[str, list[Record]]:
    return {name: [Record(each.folder(runs)) for each in needed] for name, needed in configuration.used.items()}


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
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to the run folder {folder}: {error.strerror or error}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep the folder for this process: a second one that wants it does not wait but ends with an InputError."""
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process is working on {folder}; wait for it, or stop it and try again"
            ) from error
        yield

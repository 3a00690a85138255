"""One run, from its configuration to its record: train, predict, score, and write down how it was made."""

import math
import os
import socket
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from npcrepro.base.code_hash import code_sha256
from npcrepro.base.errors import InputError
from npcrepro.base.files import read_json, write_json, writing
from npcrepro.base.progress import Log, Report, in_one_line
from npcrepro.cohorts.images import axes_of
from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.protocol.method import Method, Profile
from npcrepro.runs.environment import environment
from npcrepro.runs.locking import locked
from npcrepro.runs.records import CHOOSING, IDENTITY, SCORING_CODE, Configuration, Record, quantised, write_csv

# Pixels or voxels of a batch times the square of the width. Up to here a second thread waits longer than it computes.
# Measured at profile smoke of Xue et al.: idle, one thread is as fast; beside two busy programs one takes 1.7 times as
# long, and two take 3 to 5 times. The smoke profiles of all papers lie below the limit.
SMALL = 1000


class Unusable(InputError):
    """A run that this one builds on is not finished, or diverged."""


@dataclass(frozen=True)
class Hardware:
    """What a run is computed on, see :func:`npcrepro.runs.devices.make_fabric`."""

    device: str = "auto"
    devices: int = 1
    deterministic: bool = False


def run(
    configuration: Configuration, cohort: PreparedCohort, runs: Path, report: Report, hardware: Hardware
) -> tuple[Record, bool]:
    """Train, predict and score one configuration, unless that is done already.

    Args:
        cohort: the one that the configuration names.
        runs: folder of all runs. Those that this one uses have to be there.
        report: called with lines of progress.

    Returns:
        The record, and whether anything was trained now.

    Raises:
        Busy: another process is working on it.
        Unusable: what it uses is not finished, or diverged.
        InputError: the folder cannot be written, or the cohort cannot be used.
    """
    folder = configuration.folder(runs)
    if _scored(folder):
        return Record(folder), False
    if not Record(folder).finished:
        for used in (Record(needed.folder(runs)) for needed in configuration.needs):
            if not used.finished or used.provenance["status"] == "diverged":
                cause = "whose training diverged" if used.finished else "which is not finished"
                raise Unusable(f"{configuration.method.full_name} builds on {used.folder}, {cause}")
    with locked(folder):
        if _scored(folder):  # by the process that held the lock until now
            return Record(folder), False
        if not Record(folder).finished:
            logged = _logged(folder, device=hardware.device, devices=hardware.devices)
            with logged as log, _threads_for(configuration.profile):
                _compute(configuration, cohort, runs, report, hardware, log)
            return Record(folder), True
        # Trained by the same code, scored by another: the predictions are there.
        provenance = read_json(folder / "provenance.json")
        stands_in = provenance["substituted"]
        _score(configuration, cohort, folder, [stands_in.get(name, name) for name in configuration.method.structures])
        write_json(folder / "provenance.json", provenance | {"scoring_sha256": code_sha256(SCORING_CODE)})
    return Record(folder), False


def _scored(folder: Path) -> bool:
    """Whether the run in a folder is finished, and scored by the code of now."""
    record = Record(folder)
    return record.finished and record.provenance["scoring_sha256"] == code_sha256(SCORING_CODE)


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


@contextmanager
def _threads_for(profile: Profile) -> Iterator[None]:
    """One thread of torch while a run of small batches is computed, and all of them for a larger one."""
    import torch

    before = torch.get_num_threads()
    if profile.batch_size * math.prod(profile.matrix) * profile.width**2 <= SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compute(
    configuration: Configuration, cohort: PreparedCohort, runs: Path, report: Report, hardware: Hardware, log: Log
) -> None:
    import numpy as np
    import torch

    from npcrepro.runs import processes, training, validated
    from npcrepro.runs.checkpoint import write_tensors
    from npcrepro.runs.devices import make_fabric

    method, profile, fold = configuration.method, configuration.profile, configuration.fold
    folder = configuration.folder(runs)
    checkpoint = folder / "checkpoint.safetensors"
    used = {name: [Record(each.folder(runs)) for each in needed] for name, needed in configuration.used.items()}
    for leftover in folder.rglob(".*"):
        if leftover.name != ".lock":
            leftover.unlink(missing_ok=True)
    write_json(folder / "config.json", configuration.data)
    fabric = make_fabric(hardware.device, deterministic=hardware.deterministic)
    on_gpu = fabric.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(fabric.device)

    train, validation = (cohort.cases_of(fold[part], include_suspect=False) for part in ("train", "validation"))
    data = build_data(method, profile.matrix, cohort, used)
    if planned := data.plan(train):
        write_json(folder / "plan.json", planned)
        method = method.planned(planned)
        data = build_data(method, profile.matrix, cohort, used)
    # The matrix of volumes has one side more than a profile of slices.
    profile = replace(profile, matrix=data.matrix, batch_size=method.batch_size or profile.batch_size)
    initial = weights_taken_over(method, used)
    task = method, profile, data, train, validation, configuration.seed
    if hardware.devices > 1 and method.stages:
        several = hardware.device, hardware.devices, hardware.deterministic
        processes.train_in_processes(*several, report, *task, checkpoint, initial, log)
    network, state = training.train(*task, fabric, checkpoint, report, initial, log)
    if state.diverged:
        report(_diverged(state.culprit, folder))
    history = [configuration.identity | row for row in state.history]
    write_csv(folder / "history.csv", history, IDENTITY + training.HISTORY_COLUMNS)

    started = time.monotonic()
    segmented = partial(_segmented, configuration, data, network, fabric.device)
    chosen = validated.validate(segmented(validation), cohort, data.structures, method.largest_component)
    validated.write_choices(folder / "validated.json", chosen)
    validate_seconds, started = time.monotonic() - started, time.monotonic()
    for case, label, probability in segmented(cohort.cases_of(fold["test"], include_suspect=True)):
        label = validated.keep_largest(label, chosen, data.structures)
        with writing(folder / "predictions" / f"{case}.npz") as temporary:
            np.savez_compressed(temporary, label=label, probability=probability)
    predict_seconds = time.monotonic() - started
    _score(configuration, cohort, folder, data.structures)

    weights = {name: tensor.contiguous().cpu() for name, tensor in network.module.state_dict().items()}
    write_tensors(folder / "model.safetensors", weights)
    names = [*zip(method.channels, data.channels), *zip(method.structures, data.structures)]
    write_json(
        folder / "provenance.json",
        {
            "status": "diverged" if state.diverged else "trained",
            **({"diverged": state.culprit} if state.diverged else {}),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "config_sha256": configuration.sha256,
            "scoring_sha256": code_sha256(SCORING_CODE),
            "device": torch.cuda.get_device_name(fabric.device) if on_gpu else "cpu",
            "devices": hardware.devices,
            "deterministic": hardware.deterministic or not on_gpu,
            "precision": fabric._precision.precision,
            "seconds": {
                "train": round(state.seconds, 2),
                "validate": round(validate_seconds, 2),
                "predict": round(predict_seconds, 2),
                "all": round(state.seconds + validate_seconds + predict_seconds, 2),
            },
            "sessions": state.sessions,
            "choosing": CHOOSING,
            "peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated(fabric.device) / 2**20) if on_gpu else None,
            # Channels and structures that stand in for the ones that the method names.
            "substituted": {wanted: there for wanted, there in names if wanted != there},
            "axes": Counter(axes_of(cohort.entries[case]["geometry"]) for case in train).most_common(1)[0][0],
            "spacing_known": cohort.spacing_known,
            "used": {name: [each.place for each in needed] for name, needed in configuration.used.items()},
            "without_gradient": state.without_gradient,
            **environment(),
        },
    )
    checkpoint.unlink(missing_ok=True)


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


def _segmented(configuration: Configuration, data, network, device, cases: Iterable[str]) -> Iterator[tuple]:
    """Each case with its label ``(z, y, x)`` uint8 and probability ``(S, z, y, x)`` in steps of 1/255."""
    import torch

    from npcrepro.models.outputs import decide

    method, batch_size = configuration.method, configuration.profile.batch_size
    about = {"activation": method.activation, "batch_size": batch_size, "device": device}
    for case in cases:
        probability = data.predict(network, case, **about)
        label = decide(probability[None], method.threshold)[0].to(torch.uint8).numpy()
        yield case, label, quantised(probability)


def _score(configuration: Configuration, cohort: PreparedCohort, folder: Path, structures: Sequence[str]) -> None:
    """Write ``cases.csv`` from the predictions; the structures are named as in the cohort."""
    import numpy as np

    from npcrepro.runs import evaluation, validated

    choices, rows = validated.read_choices(folder / "validated.json"), []
    for case in cohort.cases_of(configuration.fold["test"], include_suspect=True):
        with np.load(folder / "predictions" / f"{case}.npz") as arrays:
            label, probability = arrays["label"], arrays["probability"]
        rows += evaluation.score_case(label, cohort.case(case), cohort, structures, probability, choices)
    rows = [configuration.identity | row for row in rows]
    write_csv(folder / "cases.csv", rows, IDENTITY + evaluation.CASE_COLUMNS)


def build_data(method: Method, matrix: Sequence[int], cohort: PreparedCohort, used: Mapping[str, Sequence[Record]]):
    """The cases as a method sees them, with the maps of the runs that it uses.

    Args:
        used: records of those runs, by method.
    """
    maps: dict[str, list[Path]] = {}
    for use in (use for use in method.uses if use.maps):
        for record in used[use.method][use.averaged :]:
            for path in sorted((record.folder / "predictions").glob("*.npz")):
                maps.setdefault(path.stem, []).append(path)
    return method.data.build(cohort, matrix, method.channels, method.structures, **({"maps": maps} if maps else {}))


def weights_taken_over(method: Method, used: Mapping[str, Sequence[Record]]) -> dict:
    """Weights by name that the network starts from (see :class:`npcrepro.protocol.method.Use`).

    Raises:
        ValueError: the run that is used has no weights of that prefix.
    """
    from safetensors.torch import load_file

    taken: dict = {}
    for use in method.uses:
        weights = load_file(used[use.method][0].folder / "model.safetensors") if use.weights else {}
        for there, here in use.weights.items():
            found = {here + name.removeprefix(there): t for name, t in weights.items() if name.startswith(there)}
            if not found:
                raise ValueError(f"{method.full_name} takes over {there!r} of {use.method}, which has no such weights")
            taken |= found
    return taken


def load_network(record: Record):
    """The trained network of a record, in evaluation mode on the CPU."""
    from safetensors.torch import load_file

    network = record.method.build(record.config["profile"]["width"])
    network.load_state_dict(load_file(record.folder / "model.safetensors"))
    return network.eval()


def load_data(record: Record, cohort: PreparedCohort):
    """The cases as the record's method sees them."""
    return build_data(record.method, record.config["profile"]["matrix"], cohort, record.used)

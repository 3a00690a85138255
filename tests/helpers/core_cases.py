"""A tiny cohort and a tiny paper, for the tests of training, inference, runs and the command line."""

import os
import signal
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np

from npcrepro.base.files import write_json
from npcrepro.base.progress import Passing
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.layout import write_cohort
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol.method import Profile
from npcrepro.protocol.settings import Settings
from npcrepro.runs.records import CHOOSING, Configuration, Record, write_csv

TINY = Profile(
    name="tiny",
    matrix=(16, 16),
    width=0.05,
    batch_size=2,
    updates=12,
    check_every=2,
    folds=1,
    methods=("stepwise",),
    phantom={"patients": 3, "matrix": (4, 16, 16), "channels": ("CET1",)},
)


def disc(size=16, centre=(7.5, 7.5), radius=4.0):
    """A disc on a square grid, boolean ``(size, size)``."""
    y, x = np.mgrid[:size, :size]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def case_arrays(name, seed=0, *, size=16, depth=4, channels=1, **fields):
    """A case with a bright disc in its inner slices; the first and the last slice show none."""
    rng = np.random.default_rng(seed)
    label = np.zeros((depth, size, size), np.uint8)
    label[1:-1] = disc(size, (size / 2 - 0.5 + seed % 3, size / 2 - 0.5 - seed % 2), size / 4)
    image = np.where(label[None], 500, 100) + rng.integers(0, 40, (channels, depth, size, size))
    return CaseArrays(name, **{"patient": name, "spacing_mm": (3.0, 1.0, 1.0)} | fields, image=image.astype(np.int16),
                      label=label)  # fmt: skip


def write_tiny(root, cases=("P0", "P1", "P2", "P3"), **fields):
    """A cohort of bright discs in the nnU-Net raw layout."""
    cases = [case_arrays(case, number) if isinstance(case, str) else case for number, case in enumerate(cases)]
    return write_cohort(root, cases, **{"name": "tiny", "channels": ("CET1",), "structures": {"GTVp": 1}} | fields)


def tiny_paper(**profile):
    """Li 2018 with one more profile, small enough for a training in a blink."""
    return replace(PAPER, profiles=(*PAPER.profiles, replace(TINY, **profile)))


def finish(root, runs, paper=None, lines=None, **options):
    """Run a paper, the tiny one by default; returns the records and the lines of progress, of which those that pass are
    left out: how many there are depends on the machine. Options are those of run_paper and of the settings."""
    from npcrepro.runs.queue import run_paper

    lines = [] if lines is None else lines

    def report(line):
        if not isinstance(line, Passing) or ": done in " in line:
            lines.append(line)

    given = {name: options.pop(name) for name in ("strict", "only") if name in options}
    settings = Settings(**{"cohort": str(root), "profile": "tiny", "device": "cpu", "runs": str(runs)} | options)
    return run_paper(paper or tiny_paper(), settings, report=report, **given), lines


def configuration(**changes):
    """A run of the tiny profile of Li 2018 that was asked for."""
    fold = {"number": 0, "train": ["B", "C"], "validation": ["D"], "test": ["A"]}
    given = {"method": PAPER.method("stepwise"), "profile": TINY, "cohort": "tiny", "data_sha256": "d" * 64}
    return Configuration(**given | {"split_sha256": "e" * 64, "fold": fold, "seed": 0} | changes)


def record_at(runs, dsc=0.5, **changes):
    """The folder of such a run with one case, as it is left when it is finished."""
    asked = configuration(**changes)
    folder = asked.folder(runs)
    row = asked.identity | {"case": "007", "patient": "007", "status": "ok", "suspect": False, "dsc": dsc, "jsc": nan}
    curve = asked.identity | {"update": 1, "loss": 0.1}
    write_json(folder / "config.json", asked.data)
    write_csv(folder / "cases.csv", [row], list(row))
    write_csv(folder / "history.csv", [curve], list(curve))
    write_json(folder / "provenance.json", {"status": "trained", "choosing": CHOOSING})
    return Record(folder)


# What a child process does in the tests that kill it. It lives here, where a fresh process can import it.


def run_in_child(root: Path, runs: Path, profile: dict, death: str, position: tuple[int, int]) -> None:
    """Run the tiny paper, saving a checkpoint at every update, and meet a given end.

    Args:
        death: ``"none"``; ``"wait"`` (go on for two updates after ``position``, then wait to be killed);
            ``"checkpoint"`` or ``"prediction"`` (be killed half-way through writing that file).
        position: (stage, update) of the checkpoint concerned.
    """
    import torch

    from npcrepro.runs import checkpoint as checkpoint_module
    from npcrepro.runs import queue as queue_module
    from npcrepro.runs import training

    torch.set_num_threads(1)
    training.CHECKPOINT_SECONDS = -1.0
    queue_module.POLL_SECONDS = 0.01
    save, save_file = training.save_checkpoint, checkpoint_module.save_file
    at_position = []

    def saving(path, network, state, *rest):
        if (state.stage, state.update) >= position:
            at_position.append(state.update)
        save(path, network, state, *rest)
        if death == "wait" and len(at_position) > 2:
            signal.pause()

    def half_a_checkpoint(tensors, file, metadata):
        save_file(tensors, file, metadata)
        if at_position:
            # safetensors writes to a name of its own first, which a kill leaves behind too.
            (Path(file).parent / ".tmpAbCdEf").write_bytes(b"half")
            _die_with_half(file)

    def half_a_prediction(file, **arrays):
        Path(file).write_bytes(b"PK\x03\x04 half")
        _die_with_half(file)

    training.save_checkpoint = saving
    if death == "checkpoint":
        checkpoint_module.save_file = half_a_checkpoint
    if death == "prediction":
        np.savez_compressed = half_a_prediction
    settings = Settings(cohort=str(root), profile="tiny", device="cpu", runs=str(runs))
    queue_module.run_paper(tiny_paper(**profile), settings, report=lambda line: None)


def _die_with_half(file) -> None:
    size = Path(file).stat().st_size
    os.truncate(file, size // 2)
    os.kill(os.getpid(), signal.SIGKILL)

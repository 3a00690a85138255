"""What machines do to a sweep. Each fault costs one clear sentence, and nothing that was finished.

Workers that are killed, at any moment and in the middle of a file, are in ``test_runs.py``.
"""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from core_cases import run_in_child, tiny_paper

from npcrepro.base.errors import InputError
from npcrepro.papers.li2018.protocol import CROSS_ENTROPY, PAPER
from npcrepro.protocol import registry
from npcrepro.protocol.method import Component, Stage
from npcrepro.protocol.settings import Settings
from npcrepro.runs import checkpoint as checkpoint_module
from npcrepro.runs import run as run_module
from npcrepro.runs import training
from npcrepro.runs.queue import run_paper

pytest_plugins = ["core_fixtures"]

FEW = {"updates": 6, "check_every": 1}
NUMBERS = ("cases.csv", "history.csv", "model.safetensors")


def sweep(root, runs, folds=(0, 1, 2), paper=None, **fields):
    """Run the tiny paper; returns the records, the lines of progress and the sentence that it ended with."""
    lines = []
    settings = Settings(cohort=str(root), profile="tiny", device="cpu", runs=str(runs), folds=folds, **fields)
    try:
        return run_paper(paper or tiny_paper(**FEW), settings, report=lines.append), lines, ""
    except InputError as problem:
        return [], lines, str(problem)


def folders(runs):
    return {path.parent.name.split("_")[0]: path.parent for path in runs.glob("li2018/*/*/*/*/config.json")}


def finished(runs):
    return {fold for fold, folder in folders(runs).items() if (folder / "provenance.json").exists()}


def events(folder):
    return [json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines()]


def half_written(runs):
    return [path for path in runs.rglob(".*") if path.name != ".lock"]


@pytest.fixture(scope="module")
def undisturbed(tiny_root, tmp_path_factory):
    """The numbers of three folds, by fold and file."""
    runs = tmp_path_factory.mktemp("undisturbed")
    _, _, problem = sweep(tiny_root, runs)
    assert problem == ""
    return {fold: {name: (folder / name).read_bytes() for name in NUMBERS} for fold, folder in folders(runs).items()}


def assert_as_if_nothing_had_happened(runs, undisturbed):
    found = folders(runs)
    for fold, numbers in undisturbed.items():
        for name, content in numbers.items():
            assert (found[fold] / name).read_bytes() == content, (fold, name)
    assert finished(runs) == set(undisturbed)
    assert half_written(runs) == []


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk in memory of a given size; skipped where that is not ours to do."""
    mounted = []

    def mount(size):
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root mounts a disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk, free):
    """Fill a disk but for so many bytes."""
    room = os.statvfs(disk)
    (disk / "filler").write_bytes(b"0" * (room.f_bavail * room.f_bsize - free))


# The disk


@pytest.mark.parametrize("free", [0, 16 * 1024])
def test_a_full_disk(tiny_root, small_disk, undisturbed, free):
    """At once, and after the first small files."""
    disk = small_disk("4m")
    sweep(tiny_root, disk, (0,))
    fill(disk, free)
    _, lines, problem = sweep(tiny_root, disk)
    assert problem.startswith("2 of 3 runs failed: li2018/stepwise on tiny, tiny, fold 1, seed 0: cannot write ")
    assert problem.count(": the disk is full") == 2
    assert "\n" not in problem
    assert lines[-1] == f"3 runs, 0 trained now, 1 read back from {disk}"
    assert half_written(disk) == []
    (disk / "filler").unlink()
    assert sweep(tiny_root, disk)[2] == ""
    assert_as_if_nothing_had_happened(disk, undisturbed)


def test_a_disk_that_is_full_from_the_start(tiny_root, small_disk):
    disk = small_disk("16k")
    _, _, problem = sweep(tiny_root, disk)
    assert problem.startswith(f"cannot write {disk}/prepared/")
    assert problem.endswith(": the disk is full")
    assert not list(disk.glob("prepared/tiny-*"))
    assert half_written(disk) == []


def test_a_disk_that_may_only_be_read(tiny_root, small_disk, undisturbed):
    disk = small_disk("4m")
    sweep(tiny_root, disk, (0,))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    _, lines, problem = sweep(tiny_root, disk)
    assert problem == f"cannot write {disk}: {disk} may not be written to"
    assert lines == []
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert sweep(tiny_root, disk)[2] == ""
    assert_as_if_nothing_had_happened(disk, undisturbed)


# One run among others


def block(monkeypatch, cause):
    """Let the training of fold 1 end as it should not."""
    train = training.train

    def failing(method, profile, data, train_cases, *rest):
        if "P1" not in train_cases + rest[0]:
            raise cause
        return train(method, profile, data, train_cases, *rest)

    monkeypatch.setattr(training, "train", failing)


def test_a_run_that_fails_does_not_stop_the_others(tiny_root, tmp_path, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        block(patch, RuntimeError("CUDA out of memory.\n Tried to allocate 3 GiB"))
        _, lines, problem = sweep(tiny_root, tmp_path)
    cause = "RuntimeError: CUDA out of memory. Tried to allocate 3 GiB"
    assert problem == f"1 of 3 runs failed: li2018/stepwise on tiny, tiny, fold 1, seed 0: {cause}"
    assert [line for line in lines if "failed" in line] == [
        f"[2/3] li2018/stepwise on tiny, tiny, fold 1, seed 0: failed, {cause}"
    ]
    assert finished(tmp_path) == {"fold-00", "fold-02"}
    *_, last = (folders(tmp_path)["fold-01"] / "log.jsonl").read_text().splitlines()
    assert json.loads(last)["event"] == "failed"
    assert json.loads(last)["error"] == cause
    assert "in failing" in json.loads(last)["traceback"]
    _, lines, problem = sweep(tiny_root, tmp_path)
    assert (problem, lines[-1]) == ("", f"3 runs, 1 trained now, 2 read back from {tmp_path}")
    assert_as_if_nothing_had_happened(tmp_path, undisturbed)


@pytest.fixture
def command(monkeypatch, call, tiny_root, tmp_path):
    """Call ``npcrepro run`` for three folds of the tiny paper."""
    monkeypatch.setattr(registry, "load", lambda *_: tiny_paper(**FEW))
    folds = [text for fold in range(3) for text in ("--folds", fold)]
    options = ("--cohort", tiny_root, "--profile", "tiny", "--device", "cpu", "--runs", tmp_path)
    return lambda: call("run", "li2018", *options, *folds)


def test_the_command_says_which_run_failed(command, monkeypatch):
    block(monkeypatch, OSError(5, "Input/output error"))
    code, _, err = command()
    cause = "OSError: [Errno 5] Input/output error"
    assert code == 1
    assert err == f"error: 1 of 3 runs failed: li2018/stepwise on tiny, tiny, fold 1, seed 0: {cause}\n"


# Ctrl-C


def interrupt_fold_1(patch):
    """Press Ctrl-C while the second run writes its third checkpoint."""
    patch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    save_file, written = checkpoint_module.save_file, []

    def pressed(tensors, path, *rest):
        written.append("fold-01" in str(path))
        save_file(tensors, path, *rest)
        if sum(written) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    patch.setattr(checkpoint_module, "save_file", pressed)


def test_ctrl_c_and_the_same_command_again(command, tmp_path, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_fold_1(patch)
        code, out, err = command()
    assert (code, err) == (130, "")
    assert out.splitlines()[-1] == "interrupted: 1 of 3 runs are finished; the same call goes on where this one stopped"
    assert finished(tmp_path) == {"fold-00"}
    assert events(folders(tmp_path)["fold-01"])[-1] == "interrupted"
    assert half_written(tmp_path) == []
    code, out, err = command()
    assert (code, err) == (0, "")
    assert f"3 runs, 2 trained now, 1 read back from {tmp_path}" in out
    assert run_module.Record(folders(tmp_path)["fold-01"]).provenance["sessions"] == 2
    assert_as_if_nothing_had_happened(tmp_path, undisturbed)


# Two sweeps


def test_two_sweeps_in_the_same_folder(tiny_root, tmp_path, undisturbed):
    """Both begin with an empty folder; each run is made once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["npcrepro.runs.run", "npcrepro.runs.training", "npcrepro.runs.evaluation", "core_cases"]
    )
    arguments = (tiny_root, tmp_path, FEW | {"folds": 3}, "none", (0, 0))
    both = [context.Process(target=run_in_child, args=arguments, daemon=True) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(240)
    assert [process.exitcode for process in both] == [0, 0]
    assert_as_if_nothing_had_happened(tmp_path, undisturbed)
    for folder in folders(tmp_path).values():
        assert [event for event in events(folder) if event != "check"] == ["started", "finished"]
        assert run_module.Record(folder).provenance["sessions"] == 1


# A damaged checkpoint


def flip(content):
    """One bit of the last number."""
    return content[:-4] + bytes([content[-4] ^ 1]) + content[-3:]


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "no values": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "one bit": flip,
    "another file": lambda content: b"Dear diary, " * 1000,
}


@pytest.fixture(scope="module")
def interrupted(tiny_root, tmp_path_factory):
    """Runs of which the second was interrupted."""
    runs = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_fold_1(patch)
        with pytest.raises(KeyboardInterrupt):
            sweep(tiny_root, runs)
    return runs


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint(tiny_root, interrupted, tmp_path, undisturbed, damage):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    checkpoint = folders(tmp_path)["fold-01"] / "checkpoint.safetensors"
    checkpoint.write_bytes(DAMAGES[damage](checkpoint.read_bytes()))
    _, lines, problem = sweep(tiny_root, tmp_path)
    assert problem == ""
    (said,) = [line for line in lines if " is damaged (" in line]
    assert said.startswith(f"[2/3] li2018/stepwise on tiny, tiny, fold 1, seed 0: {checkpoint} is damaged (")
    assert said.endswith("): the training starts from the beginning")
    assert_as_if_nothing_had_happened(tmp_path, undisturbed)


def test_a_checkpoint_that_is_whole_is_taken(tiny_root, interrupted, tmp_path, undisturbed):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    _, lines, _ = sweep(tiny_root, tmp_path)
    assert not [line for line in lines if " is damaged (" in line]
    log = [json.loads(line) for line in (folders(tmp_path)["fold-01"] / "log.jsonl").read_text().splitlines()]
    assert [row["resumed"] for row in log if row["event"] == "started"] == [False, True]
    assert_as_if_nothing_had_happened(tmp_path, undisturbed)


# A loss that is no number


def test_a_loss_that_is_no_number_names_and_keeps_its_batch(tiny_root, tmp_path):
    huge = Component("torch.optim:SGD", {"lr": 1e30})
    method = replace(PAPER.method("linear-scores"), stages=(Stage("all layers", CROSS_ENTROPY, huge),))
    paper = replace(tiny_paper(**FEW), methods=(method, PAPER.method("stepwise")))
    records, lines, problem = sweep(tiny_root, tmp_path, (0,), paper, methods=("linear-scores", "stepwise"))
    diverged, other = records
    assert problem == ""
    assert [record.provenance["status"] for record in records] == ["diverged", "trained"]
    culprit = diverged.provenance["diverged"]
    assert (culprit["stage"], culprit["loss"]) in {("all layers", "nan"), ("all layers", "inf")}
    samples = [f"{sample['case']} (z {sample['z']})" for sample in culprit["samples"]]
    assert {sample["case"] for sample in culprit["samples"]} <= {"P1", "P2", "P3"}
    kept = diverged.folder / "diverged.npz"
    assert lines[0] == (
        f"[1/2] li2018/linear-scores on tiny, tiny, fold 0, seed 0: diverged, the loss of stage all layers, "
        f"update {culprit['update']}, was {culprit['loss']} on {', '.join(samples)}; the batch is in {kept}"
    )
    with np.load(kept) as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {
            "image": (2, 1, 16, 16), "label": (2, 1, 16, 16)
        }  # fmt: skip
        assert np.isfinite(arrays["image"]).all()
    assert events(diverged.folder)[-1] == "finished"
    assert not (other.folder / "diverged.npz").exists()
    assert "diverged" not in other.provenance

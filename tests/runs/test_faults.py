"""What machines do to a sweep. Each fault costs one clear sentence, and nothing that was finished."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from core_cases import finish, run_in_child, tiny_paper
from safetensors import SafetensorError
from safetensors.torch import load

from npcrepro.base.errors import InputError
from npcrepro.protocol import registry
from npcrepro.runs import checkpoint as checkpoint_module
from npcrepro.runs import queue, training
from npcrepro.runs.records import Record

FEW = {"updates": 6, "check_every": 1}
NUMBERS = ("cases.csv", "history.csv", "model.safetensors", "predictions", "validated.json")
TITLE = "li2018/stepwise on tiny, tiny, fold 1, seed 0"
PATIENCE_S = 600  # a machine that does other things is no failure


def sweep(root, runs, folds=(0, 1, 2)):
    """Run folds of the tiny paper; returns the lines of progress and the sentence that it ended with."""
    lines = []
    try:
        finish(root, runs, tiny_paper(**FEW), lines, folds=folds)
    except InputError as problem:
        return lines, str(problem)
    return lines, ""


def folders(runs):
    return {path.parent.name.split("_")[0]: path.parent for path in runs.glob("li2018/*/*/*/*/config.json")}


def finished(runs):
    return {fold for fold, folder in folders(runs).items() if (folder / "provenance.json").exists()}


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def half_written(runs):
    return [path for path in runs.rglob(".*") if path.name != ".lock"]


def numbers(runs):
    """The content of all files of each fold that hold numbers."""
    files = {path: path.relative_to(folder).parts for folder in folders(runs).values() for path in folder.rglob("*.*")}
    kept = {path: parts for path, parts in files.items() if parts[0] in NUMBERS}
    return {(path.parents[len(parts) - 1].name, *parts): path.read_bytes() for path, parts in kept.items()}


def assert_as_if_nothing_had_happened(runs, undisturbed):
    assert numbers(runs) == undisturbed
    assert finished(runs) == folders(runs).keys()
    assert half_written(runs) == []
    for folder in folders(runs).values():
        names = {path.name for path in folder.iterdir()}
        assert names == {*NUMBERS, ".lock", "config.json", "log.jsonl", "provenance.json"}


@pytest.fixture(scope="module")
def undisturbed(tiny_root, tmp_path_factory):
    """The numbers of three folds."""
    runs = tmp_path_factory.mktemp("undisturbed")
    assert sweep(tiny_root, runs)[1] == ""
    return numbers(runs)


# Kills

# Long enough that the end is never near when a run is killed; many checks, so that the curve has something to lose.
LONG = {"updates": 90, "check_every": 4}


@pytest.fixture(scope="module")
def child(tiny_root):
    """Start the run of the tiny paper in a process that a server with torch imported forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["npcrepro.runs.run", "npcrepro.runs.training", "npcrepro.runs.evaluation", "npcrepro.models.outputs",
         "npcrepro.sampling.augment", "pandas", "core_cases"]
    )  # fmt: skip

    def start(runs, profile=LONG, death="none", position=(0, 0)):
        process = context.Process(target=run_in_child, args=(tiny_root, runs, profile, death, position), daemon=True)
        process.start()
        return process

    return start


def wait_for_checkpoint(process, runs, position):
    """Until the checkpoint on disk is at least at (stage, update)."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.exitcode is None, "the run ended before it was killed"
        for path in runs.glob("*/*/*/*/*/checkpoint.safetensors"):
            # Opened once: between two looks at the path another checkpoint may have taken its place.
            content = path.read_bytes()
            try:
                load(content)
            except SafetensorError:
                raise AssertionError(f"{path} is not whole") from None
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            state = json.loads(header["__metadata__"]["state"])
            if (state["stage"], state["update"]) >= position:
                return
        time.sleep(0.005)
    raise AssertionError("no checkpoint came")


@pytest.fixture(scope="module")
def long(child, tmp_path_factory):
    """The numbers of one long run that nobody killed."""
    runs = tmp_path_factory.mktemp("long")
    process = child(runs)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    return numbers(runs)


def test_a_run_killed_at_any_moment_ends_as_if_nothing_had_happened(child, tmp_path, long):
    moment = random.Random(2018)
    for position in [(0, moment.randrange(2, 25)), (2, moment.randrange(2, 25))]:
        process = child(tmp_path, death="wait", position=position)
        wait_for_checkpoint(process, tmp_path, position)
        time.sleep(moment.uniform(0, 0.03))
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert not finished(tmp_path)
    # In the middle of a checkpoint, and later of a prediction.
    for death, position in (("checkpoint", (2, 27)), ("prediction", (0, 0))):
        process = child(tmp_path, death=death, position=position)
        process.join(PATIENCE_S)
        assert process.exitcode == -signal.SIGKILL
        assert [path for path in folders(tmp_path)["fold-00"].rglob(".*") if path.name != ".lock"]
    process = child(tmp_path)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert_as_if_nothing_had_happened(tmp_path, long)
    # The one that was killed while it predicted had trained to the end.
    assert Record(folders(tmp_path)["fold-00"]).provenance["sessions"] == 4


def test_a_run_waits_for_another_process_and_goes_on_when_that_dies(child, tiny_root, tmp_path, long, monkeypatch):
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    process = child(tmp_path, death="wait", position=(0, 2))
    waited = []

    class Lines(list):
        def append(self, line):
            if ": waiting, another process is working on " in line:
                waited.append(process.exitcode)
                process.kill()
                process.join(60)

    try:
        wait_for_checkpoint(process, tmp_path, (0, 2))
        finish(tiny_root, tmp_path, tiny_paper(**LONG), Lines())
    finally:
        process.kill()
        process.join(60)
    assert waited == [None]
    assert_as_if_nothing_had_happened(tmp_path, long)
    assert Record(folders(tmp_path)["fold-00"]).provenance["sessions"] == 2


def test_two_sweeps_in_the_same_folder(child, tmp_path, undisturbed):
    """Both begin with an empty folder; each run is made once."""
    both = [child(tmp_path, FEW | {"folds": 3}) for _ in range(2)]
    for process in both:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in both] == [0, 0]
    assert_as_if_nothing_had_happened(tmp_path, undisturbed)
    for folder in folders(tmp_path).values():
        assert [row["event"] for row in log(folder) if row["event"] != "check"] == ["started", "finished"]
        assert Record(folder).provenance["sessions"] == 1


# The disk


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


@pytest.mark.parametrize("free", [0, 16 * 1024])
def test_a_full_disk(tiny_root, small_disk, undisturbed, free):
    """At once, and after the first small files."""
    disk = small_disk("4m")
    sweep(tiny_root, disk, (0,))
    room = os.statvfs(disk)
    (disk / "filler").write_bytes(b"0" * (room.f_bavail * room.f_bsize - free))
    lines, problem = sweep(tiny_root, disk)
    assert problem.startswith(f"2 of 3 runs failed: {TITLE}: cannot write ")
    assert problem.count(": the disk is full") == 2
    assert "\n" not in problem
    assert lines[-1] == f"3 runs, 0 trained now, 1 read back from {disk}"
    assert half_written(disk) == []
    (disk / "filler").unlink()
    assert sweep(tiny_root, disk)[1] == ""
    assert_as_if_nothing_had_happened(disk, undisturbed)


def test_a_disk_that_is_full_from_the_start(tiny_root, small_disk):
    disk = small_disk("16k")
    _, problem = sweep(tiny_root, disk)
    assert problem.startswith(f"cannot write {disk}/prepared/")
    assert problem.endswith(": the disk is full")
    assert not list(disk.glob("prepared/tiny-*"))
    assert half_written(disk) == []


def test_a_disk_that_may_only_be_read(tiny_root, small_disk):
    disk = small_disk("4m")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert sweep(tiny_root, disk) == ([], f"cannot write {disk}: {disk} may not be written to")


# One run among others


@pytest.fixture
def command(monkeypatch, call, tiny_root, tmp_path):
    """Call ``npcrepro run`` for three folds of the tiny paper."""
    monkeypatch.setattr(registry, "load", lambda *_: tiny_paper(**FEW))
    folds = [text for fold in range(3) for text in ("--folds", fold)]
    options = ("--cohort", tiny_root, "--profile", "tiny", "--device", "cpu", "--runs", tmp_path)
    return lambda: call("run", "li2018", *options, *folds)


def test_a_run_that_fails_does_not_stop_the_others(command, tiny_root, tmp_path, undisturbed, monkeypatch):
    train = training.train

    def failing(method, profile, data, train_cases, *rest):
        if "P1" not in train_cases + rest[0]:
            raise RuntimeError("CUDA out of memory.\n Tried to allocate 3 GiB")
        return train(method, profile, data, train_cases, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", failing)
        code, out, err = command()
    cause = "RuntimeError: CUDA out of memory. Tried to allocate 3 GiB"
    assert (code, err) == (1, f"error: 1 of 3 runs failed: {TITLE}: {cause}\n")
    assert f"[2/3] {TITLE}: failed, {cause}" in out.splitlines()
    assert finished(tmp_path) == {"fold-00", "fold-02"}
    last = log(folders(tmp_path)["fold-01"])[-1]
    assert (last["event"], last["error"]) == ("failed", cause)
    assert "in failing" in last["traceback"]
    lines, problem = sweep(tiny_root, tmp_path)
    assert (problem, lines[-1]) == ("", f"3 runs, 1 trained now, 2 read back from {tmp_path}")
    assert_as_if_nothing_had_happened(tmp_path, undisturbed)


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
    assert (
        out.splitlines()[-1] == "interrupted: 1 of 3 runs are finished; the same call goes on from the last checkpoint"
    )
    assert finished(tmp_path) == {"fold-00"}
    assert log(folders(tmp_path)["fold-01"])[-1]["event"] == "interrupted"
    assert half_written(tmp_path) == []
    code, out, err = command()
    assert (code, err) == (0, "")
    assert f"3 runs, 2 trained now, 1 read back from {tmp_path}" in out
    folder = folders(tmp_path)["fold-01"]
    assert Record(folder).provenance["sessions"] == 2
    assert [row["resumed"] for row in log(folder) if row["event"] == "started"] == [False, True]
    assert_as_if_nothing_had_happened(tmp_path, undisturbed)


# A damaged checkpoint

DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "one bit of the last number": lambda content: content[:-4] + bytes([content[-4] ^ 1]) + content[-3:],
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
    lines, problem = sweep(tiny_root, tmp_path)
    assert problem == ""
    (said,) = [line for line in lines if " is damaged (" in line]
    assert said.startswith(f"[2/3] {TITLE}: {checkpoint} is damaged (")
    assert said.endswith("): the training starts from the beginning")
    assert_as_if_nothing_had_happened(tmp_path, undisturbed)

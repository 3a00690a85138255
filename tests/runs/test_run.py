import json
import multiprocessing
import random
import signal
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from core_cases import case_arrays, run_in_child, tiny_paper, write_tiny
from safetensors import SafetensorError
from safetensors.torch import load

from npcrepro.base.errors import InputError
from npcrepro.cohorts import phantom
from npcrepro.cohorts.prepared import read_prepared
from npcrepro.models.outputs import decide
from npcrepro.papers.li2018.protocol import CROSS_ENTROPY, PAPER
from npcrepro.protocol.method import Component, Stage
from npcrepro.protocol.settings import Settings
from npcrepro.runs import queue as queue_module
from npcrepro.runs import run as run_module
from npcrepro.runs import training
from npcrepro.runs.plan import open_cohort
from npcrepro.runs.queue import run_paper
from npcrepro.runs.run import load_data, load_network

pytest_plugins = ["core_fixtures"]

NUMBERS = ("cases.csv", "history.csv", "config.json", "model.safetensors", "predictions/P0.npz")


def settings(root, runs, **fields):
    return Settings(**{"cohort": str(root), "profile": "tiny", "device": "cpu", "runs": str(runs)} | fields)


def finish(root, runs, paper=None, **fields):
    """Run and return the records and the lines of progress."""
    lines = []
    return run_paper(paper or tiny_paper(), settings(root, runs, **fields), report=lines.append), lines


@contextmanager
def in_fp32():
    """fp32, whatever the machine is good at: in bf16 a prediction is only nearly the same when it is made again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict)
        yield


@pytest.fixture(scope="module")
def finished(tiny_root, tmp_path_factory):
    """A finished run of the tiny paper: its folder of runs and its record. Nobody writes to it but to read it back."""
    runs = tmp_path_factory.mktemp("runs")
    with in_fp32():
        (record,), _ = finish(tiny_root, runs)
    return runs, record


def folders_of_runs(runs):
    return [path.parent for path in runs.glob("*/*/*/*/*/config.json")]


# What a run leaves


def test_the_files_of_a_finished_run(finished):
    _, record = finished
    found = {str(path.relative_to(record.folder)) for path in record.folder.rglob("*") if path.is_file()}
    assert found - {".lock"} == {*NUMBERS, "provenance.json", "log.jsonl"}


def test_no_temporary_file_is_left_anywhere(finished):
    runs, _ = finished
    assert [path for path in runs.rglob(".*") if path.name != ".lock"] == []


def test_provenance(finished):
    _, record = finished
    provenance = record.provenance
    assert provenance["status"] == "trained"
    assert provenance["config_sha256"].startswith(record.folder.name.split("_")[-1])
    assert provenance["device"] == "cpu"
    assert provenance["precision"] == "32-true"
    assert provenance["sessions"] == 1
    assert provenance["substituted"] == {}
    assert provenance["peak_gpu_memory_mib"] is None
    assert provenance["versions"]["torch"] == torch.__version__
    assert provenance["seconds"]["all"] >= provenance["seconds"]["train"] > 0


def test_tables_of_a_run(finished):
    _, record = finished
    assert record.cases[["case", "structure", "region"]].values.tolist() == [
        ["P0", "GTVp", "all_slices"], ["P0", "GTVp", "reference_slices"]
    ]  # fmt: skip
    assert (record.cases.tp + record.cases.fp + record.cases.fn + record.cases.tn).tolist() == [4 * 256, 2 * 256]
    assert record.history[["stage", "update"]].values.tolist() == [
        [stage, update] for stage in ("score 1/4", "score 1/2", "score 1/1") for update in (2, 4)
    ]
    for table in (record.cases, record.history):
        assert table.iloc[0][list(run_module.IDENTITY)].tolist() == ["li2018", "stepwise", "tiny", "tiny", 0, 0]


def test_the_patients_of_a_fold_are_kept_apart(finished):
    _, record = finished
    fold = record.config["fold"]
    assert fold["test"] == ["P0"]
    assert sorted(fold["train"] + fold["validation"] + fold["test"]) == ["P0", "P1", "P2", "P3"]


def test_a_network_read_back_makes_the_same_prediction(finished):
    runs, record = finished
    (folder,) = (runs / "prepared").glob("tiny-*")
    network, data = load_network(record), load_data(record, read_prepared(folder))
    label, probability = record.prediction("P0")
    found = data.predict(network, "P0", activation="sigmoid", batch_size=2, device="cpu")
    # A prediction is kept in steps of 1/255.
    np.testing.assert_allclose(found, probability, atol=0.51 / 255)
    assert not network.training
    assert np.array_equal(decide(found[None], 0.5)[0], label)


# Read back, or run anew


def test_a_finished_run_is_read_back_and_nothing_is_trained(finished, tiny_root, monkeypatch):
    runs, record = finished
    before = {path: path.stat().st_mtime_ns for path in record.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(training, "train", None)
    (again,), lines = finish(tiny_root, runs)
    assert again.folder == record.folder
    assert lines[-1] == f"1 run, 0 trained now, 1 read back from {runs}"
    assert {path: path.stat().st_mtime_ns for path in record.folder.rglob("*") if path.is_file()} == before


def test_the_same_run_elsewhere_has_the_same_numbers_bit_for_bit(finished, tiny_root, tmp_path):
    _, record = finished
    with in_fp32():
        (again,), lines = finish(tiny_root, tmp_path)
    assert lines[-1].startswith("1 run, 1 trained now, 0 read back")
    assert again.folder.relative_to(tmp_path) == record.folder.relative_to(finished[0])
    for name in NUMBERS:
        assert (again.folder / name).read_bytes() == (record.folder / name).read_bytes(), name


def test_whatever_is_asked_otherwise_is_a_run_of_its_own(tiny_root, tmp_path):
    few = {"updates": 3, "check_every": 1}
    finish(tiny_root, tmp_path, tiny_paper(**few), seeds=(0, 1))
    finish(tiny_root, tmp_path, tiny_paper(updates=6, check_every=1))
    finish(tiny_root, tmp_path, tiny_paper(**few), folds=(2, 0))
    other = replace(
        PAPER.method("stepwise"), network=Component("npcrepro.papers.li2018.network:Li2018Network", {"fused": False})
    )
    finish(tiny_root, tmp_path, replace(tiny_paper(**few), methods=(other,)))
    assert len(folders_of_runs(tmp_path)) == 5
    assert len({(folder / "model.safetensors").read_bytes() for folder in folders_of_runs(tmp_path)}) == 5


def test_methods_seeds_and_folds_are_combined(tiny_root, tmp_path):
    paper = tiny_paper(updates=3, check_every=1)
    records, lines = finish(tiny_root, tmp_path, paper, methods=("unfused", "stepwise"), folds=(1, 3))
    found = [(r.config["method"]["name"], r.config["fold"]["number"], r.config["fold"]["test"]) for r in records]
    assert found == [("unfused", 1, ["P1"]), ("unfused", 3, ["P3"]), ("stepwise", 1, ["P1"]), ("stepwise", 3, ["P3"])]
    assert lines[0].startswith("[1/4] li2018/unfused on tiny, tiny, fold 1, seed 0: done in ")


def test_a_loss_that_is_no_number_is_a_finished_run_that_says_so(tiny_root, tmp_path):
    huge = Component("torch.optim:SGD", {"lr": 1e30})
    method = replace(PAPER.method("linear-scores"), stages=(Stage("all layers", CROSS_ENTROPY, huge),))
    (record,), _ = finish(tiny_root, tmp_path, replace(tiny_paper(), methods=(method,)), methods=("linear-scores",))
    assert record.provenance["status"] == "diverged"
    assert set(record.cases.status) == {"pred_empty"}
    assert record.cases.dsc.tolist() == [0, 0]
    assert not (record.folder / "checkpoint.safetensors").exists()


def test_suspect_cases_are_tested_and_not_trained_on(tmp_path):
    cases = [case_arrays(f"P{i}", i, suspect=i < 2) for i in range(5)]
    write_tiny(tmp_path / "c", cases)
    (record,), _ = finish(tmp_path / "c", tmp_path / "runs", tiny_paper(updates=3))
    assert record.config["fold"]["test"] == ["P0"]
    assert record.cases.suspect.all()
    assert not {"P0", "P1"} & set(record.config["fold"]["train"] + record.config["fold"]["validation"])


def test_training_sees_the_cases_of_its_fold_and_never_the_test_case(tmp_path, monkeypatch):
    cases = [case_arrays(f"{patient}-{i}", i, patient=patient) for patient in "ABCD" for i in (0, 1)]
    write_tiny(tmp_path / "c", cases)
    seen, train = [], training.train

    def watched(method, profile, data, train_cases, validation_cases, *rest):
        seen.append((train_cases, validation_cases))
        return train(method, profile, data, train_cases, validation_cases, *rest)

    monkeypatch.setattr(training, "train", watched)
    records, _ = finish(tmp_path / "c", tmp_path / "runs", tiny_paper(updates=3), folds=(0, 1, 2, 3))
    for record, cases in zip(records, seen):
        fold = record.config["fold"]
        assert cases == tuple([f"{p}-{i}" for p in fold[part] for i in (0, 1)] for part in ("train", "validation"))
        assert set(record.cases.case) == {f"{p}-{i}" for p in fold["test"] for i in (0, 1)}
        assert not set(record.cases.case) & {case for part in cases for case in part}


def test_a_channel_under_another_name_is_noted_or_refused(tmp_path):
    write_tiny(tmp_path / "c", channels=("CT",))
    paper = tiny_paper(updates=3)
    (record,), _ = finish(tmp_path / "c", tmp_path / "runs", paper)
    assert record.provenance["substituted"] == {"CET1": "CT"}
    with pytest.raises(InputError, match="cohort tiny has CT but no CET1"):
        run_paper(paper, settings(tmp_path / "c", tmp_path / "runs"), strict=True)


# Kills


@pytest.fixture(scope="module")
def children():
    """A server that has torch imported and forks a fresh process for each run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["npcrepro.runs.run", "npcrepro.runs.training", "npcrepro.models.outputs",
    "npcrepro.runs.evaluation",
                                    "npcrepro.sampling.augment", "pandas", "core_cases"])  # fmt: skip
    return context


PATIENCE_S = 600  # a machine that does other things is no failure
# Long enough that the end is never near when a run is killed; many checks, so that the curve has something to lose.
LONG = {"updates": 90, "check_every": 4}


def child(children, root, runs, death="none", position=(0, 0)):
    process = children.Process(target=run_in_child, args=(root, runs, LONG, death, position), daemon=True)
    process.start()
    return process


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
def undisturbed(children, tiny_root, tmp_path_factory):
    runs = tmp_path_factory.mktemp("undisturbed")
    process = child(children, tiny_root, runs)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    (folder,) = folders_of_runs(runs)
    return folder


def assert_as_if_nothing_had_happened(runs, undisturbed, sessions):
    (folder,) = folders_of_runs(runs)
    assert folder.name == undisturbed.name
    for name in NUMBERS:
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert run_module.Record(folder).provenance["sessions"] == sessions
    # Nothing half-written is left, whatever was being written when the run was killed.
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found - {".lock"} == {*NUMBERS, "provenance.json", "log.jsonl"}


def test_a_run_killed_three_times_ends_as_if_nothing_had_happened(children, tiny_root, tmp_path, undisturbed):
    moment = random.Random(2018)
    for position in [(0, moment.randrange(2, 25)), (1, moment.randrange(2, 25)), (2, moment.randrange(2, 25))]:
        process = child(children, tiny_root, tmp_path, "wait", position)
        wait_for_checkpoint(process, tmp_path, position)
        time.sleep(moment.uniform(0, 0.03))
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert not list(tmp_path.rglob("provenance.json"))
    process = child(children, tiny_root, tmp_path)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert_as_if_nothing_had_happened(tmp_path, undisturbed, sessions=4)


@pytest.mark.parametrize(("death", "position", "sessions"), [("checkpoint", (1, 7), 2), ("prediction", (0, 0), 1)])
def test_a_run_killed_in_the_middle_of_a_file(children, tiny_root, tmp_path, undisturbed, death, position, sessions):
    process = child(children, tiny_root, tmp_path, death, position)
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL
    halves = [path for path in tmp_path.glob("*/*/*/*/*/**/.*") if path.name != ".lock"]
    assert halves
    process = child(children, tiny_root, tmp_path)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert_as_if_nothing_had_happened(tmp_path, undisturbed, sessions=sessions)


def test_two_processes_on_the_same_run(children, tiny_root, tmp_path, undisturbed, monkeypatch):
    """The second one waits, and when the first one dies it goes on from its checkpoint."""
    monkeypatch.setattr(queue_module, "POLL_SECONDS", 0.01)
    process = child(children, tiny_root, tmp_path, "wait", (0, 2))
    waited = []

    def report(line):
        if ": waiting, another process is working on " in line:
            waited.append(process.exitcode)
            process.kill()
            process.join(60)

    try:
        wait_for_checkpoint(process, tmp_path, (0, 2))
        run_paper(tiny_paper(**LONG), settings(tiny_root, tmp_path), report=report)
    finally:
        process.kill()
        process.join(60)
    assert waited == [None]
    assert_as_if_nothing_had_happened(tmp_path, undisturbed, sessions=2)


def test_two_processes_that_write_the_same_phantom(tmp_path, monkeypatch):
    """The other one is quicker: what it put into place is taken."""
    asked = settings("phantom", tmp_path)

    def overtaken(root, **options):
        write_tiny(root)
        return write_phantom(root, **options)

    write_phantom = phantom.write_phantom
    monkeypatch.setattr(phantom, "write_phantom", overtaken)
    assert open_cohort(tiny_paper(), asked).patients == ("P0", "P1", "P2", "P3")


def test_a_phantom_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="at least 1 patient"):
        open_cohort(tiny_paper(phantom={"patients": 0}), settings("phantom", tmp_path))


# What cannot be run


def test_a_folder_for_runs_that_is_a_file(tiny_root, tmp_path):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(InputError, match="cannot write .*runs is a file"):
        finish(tiny_root, tmp_path / "runs")


def test_a_run_folder_that_is_a_file(tiny_root, tmp_path, finished):
    folder = tmp_path / finished[1].folder.relative_to(finished[0])
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    with pytest.raises(InputError, match=f"cannot write to the run folder {folder}: "):
        finish(tiny_root, tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"profile": "tinny"}, "unknown profile 'tinny'; did you mean 'tiny'"),
        ({"methods": ("stepwize",)}, "unknown method of li2018 'stepwize'; did you mean 'stepwise'"),
        ({"folds": (4,)}, "unknown fold of cohort tiny '4'; choices: 0, 1, 2, 3"),
        ({"folds": (-1,)}, "unknown fold of cohort tiny '-1'"),
        ({"cohort": "nowhere"}, "nowhere"),
    ],
)
def test_settings_that_do_not_fit(tiny_root, tmp_path, fields, words):
    with pytest.raises(InputError, match=words):
        finish(tiny_root, tmp_path, **fields)
    assert folders_of_runs(tmp_path) == []


def test_defects_are_reported_on_first_sight_and_refused_when_strict(tmp_path):
    cases = [case_arrays(f"P{i}", i) for i in range(4)]
    cases[3].label[:] = 0
    write_tiny(tmp_path / "c", cases)
    paper = tiny_paper(updates=3)
    _, first = finish(tmp_path / "c", tmp_path / "runs", paper)
    _, second = finish(tmp_path / "c", tmp_path / "runs", paper)
    assert [line for line in first if "empty label" in line]
    assert not [line for line in second if "empty label" in line]
    with pytest.raises(InputError, match=r"1 defects, the first in labelsTr/P3.nii.gz: empty label"):
        run_paper(paper, settings(tmp_path / "c", tmp_path / "runs"), strict=True)


def test_other_scoring_code_scores_the_predictions_again_and_trains_nothing(tiny_root, tmp_path):
    (record,), _ = finish(tiny_root, tmp_path)
    before = (record.folder / "cases.csv").read_bytes()
    (record.folder / "cases.csv").write_text("scored by other code\n")
    provenance = record.provenance | {"scoring_sha256": "0"}
    (record.folder / "provenance.json").write_text(json.dumps(provenance))
    (again,), lines = finish(tiny_root, tmp_path)
    assert again.folder == record.folder
    assert lines[-1].startswith("1 run, 0 trained now")
    assert (again.folder / "cases.csv").read_bytes() == before
    assert again.provenance["scoring_sha256"] != "0"
    assert again.provenance["finished"] == record.provenance["finished"]

"""One run: what it leaves, when it is read back, and what cannot be run. What machines do to it is in test_faults."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from core_cases import case_arrays, finish, tiny_paper, write_tiny

from npcrepro.base.errors import InputError
from npcrepro.base.progress import Passing
from npcrepro.cohorts import phantom
from npcrepro.cohorts.prepared import read_prepared
from npcrepro.models.outputs import decide
from npcrepro.papers.li2018.protocol import CROSS_ENTROPY, PAPER
from npcrepro.protocol.method import Component, Stage
from npcrepro.protocol.settings import Settings
from npcrepro.runs import queue, run, training
from npcrepro.runs.plan import open_cohort
from npcrepro.runs.records import IDENTITY
from npcrepro.runs.run import load_data, load_network
from npcrepro.sampling.slices import SliceData

NUMBERS = ("cases.csv", "history.csv", "config.json", "model.safetensors", "predictions/P0.npz", "validated.json")


@pytest.fixture(scope="module")
def finished(tiny_root, tmp_path_factory):
    """A finished run of the tiny paper: its folder of runs and its record. Nobody writes to it but to read it back.

    In fp32, whatever the machine is good at: in bf16 a prediction is only nearly the same when it is made again.
    """
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict)
        (record,), _ = finish(tiny_root, runs)
    return runs, record


def test_the_files_and_provenance_of_a_finished_run(finished):
    runs, record = finished
    found = {str(path.relative_to(record.folder)) for path in record.folder.rglob("*") if path.is_file()}
    assert found - {".lock"} == {*NUMBERS, "provenance.json", "log.jsonl"}
    assert [path for path in runs.rglob(".*") if path.name != ".lock"] == []
    provenance = record.provenance
    assert provenance["config_sha256"].startswith(record.folder.name.split("_")[-1])
    assert provenance["versions"]["torch"] == torch.__version__
    assert provenance["seconds"]["all"] >= provenance["seconds"]["train"] > 0
    expected = {"status": "trained", "device": "cpu", "precision": "32-true", "sessions": 1, "substituted": {}}
    assert provenance | expected | {"peak_gpu_memory_mib": None, "axes": "LPS", "used": {}} == provenance


def test_tables_of_a_run(finished):
    _, record = finished
    assert record.cases[["case", "structure", "region"]].values.tolist() == [
        ["P0", "GTVp", region] for region in ("all_slices", "reference_slices", "labelled_slices")
    ]
    assert record.cases[["tp", "fp", "fn", "tn"]].sum(axis=1).tolist() == [4 * 256, 2 * 256, 2 * 256]
    assert record.history[["stage", "update"]].values.tolist() == [
        [stage, update] for stage in ("score 1/4", "score 1/2", "score 1/1") for update in (2, 4)
    ]
    for table in (record.cases, record.history):
        assert table.iloc[0][IDENTITY].tolist() == ["li2018", "stepwise", "tiny", "tiny", 0, 0]


def test_a_network_read_back_makes_the_same_prediction(finished):
    runs, record = finished
    (folder,) = (runs / "prepared").glob("tiny-*")
    network, data = load_network(record), load_data(record, read_prepared(folder))
    label, probability = record.prediction("P0")
    found = data.predict(network, "P0", activation="sigmoid", batch_size=2, device="cpu")
    # A prediction is kept in steps of 1/255.
    np.testing.assert_allclose(found, probability, atol=0.51 / 255)
    assert not network.training
    # Where the probability is not within a step of the threshold, the label is the same.
    clear = np.abs(found[0].numpy() - 0.5) > 1 / 255
    assert np.array_equal(decide(found[None], 0.5)[0].numpy()[clear], label[clear])


def test_a_finished_run_is_read_back_and_nothing_is_trained(finished, tiny_root, monkeypatch):
    runs, record = finished
    before = {path: path.stat().st_mtime_ns for path in record.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(training, "train", None)
    (again,), lines = finish(tiny_root, runs)
    assert again.folder == record.folder
    assert lines[-1] == f"1 run, 0 trained now, 1 read back from {runs}"
    assert {path: path.stat().st_mtime_ns for path in record.folder.rglob("*") if path.is_file()} == before


def test_the_same_run_elsewhere_has_the_same_numbers_bit_for_bit(finished, tiny_root, tmp_path, monkeypatch):
    runs, record = finished
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    (again,), lines = finish(tiny_root, tmp_path)
    assert lines[-1].startswith("1 run, 1 trained now, 0 read back")
    assert again.folder.relative_to(tmp_path) == record.folder.relative_to(runs)
    for name in NUMBERS:
        assert (again.folder / name).read_bytes() == (record.folder / name).read_bytes(), name


@pytest.mark.parametrize(("small", "threads"), [(1000, 1), (0, 2)])
def test_a_run_of_small_batches_takes_one_thread_and_gives_the_other_back(
    tiny_root, tmp_path, monkeypatch, small, threads
):
    monkeypatch.setattr(run, "SMALL", small)
    torch.set_num_threads(2)
    try:
        (record,), _ = finish(tiny_root, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert record.provenance["threads"] == threads


@pytest.mark.parametrize(("own", "images"), [(None, 2), (3, 3)])
def test_a_method_may_have_batches_of_its_own_size(tiny_root, tmp_path, monkeypatch, own, images):
    drawn, draw = set(), SliceData.draw

    def watched(data, samples, count, generator):
        drawn.add(count)
        return draw(data, samples, count, generator)

    monkeypatch.setattr(SliceData, "draw", watched)
    paper = tiny_paper(updates=4, check_every=2, batch_size=2)
    finish(tiny_root, tmp_path, replace(paper, methods=(replace(paper.methods[0], batch_size=own),)))
    assert drawn == {images}


def test_training_sees_the_cases_of_its_fold_and_never_a_suspect_or_the_test_case(tmp_path, monkeypatch):
    cases = [case_arrays(f"{patient}-{i}", i, patient=patient) for patient in "ABCD" for i in (0, 1)]
    cases += [case_arrays("E-0", 0, patient="E", suspect=True)]
    write_tiny(tmp_path / "c", cases)
    seen, train = [], training.train

    def watched(method, profile, data, train_cases, validation_cases, *rest):
        seen.append((train_cases, validation_cases))
        return train(method, profile, data, train_cases, validation_cases, *rest)

    monkeypatch.setattr(training, "train", watched)
    paper = tiny_paper(updates=3, check_every=3)
    records, lines = finish(
        tmp_path / "c", tmp_path / "runs", paper, methods=("unfused", "stepwise"), folds=(0, 1, 2, 3, 4)
    )
    asked = [(record.config["method"]["name"], record.config["fold"]["test"]) for record in records]
    assert asked == [(name, [patient]) for name in ("unfused", "stepwise") for patient in "ABCDE"]
    done = [line for line in lines if ": done in " in line]
    assert done[1].startswith("[2/10] li2018/unfused on tiny, tiny, fold 1, seed 0: done in ")
    for record, cases in zip(records, seen, strict=True):
        fold = record.config["fold"]
        assert cases == tuple([f"{p}-{i}" for p in fold[part] for i in (0, 1)] for part in ("train", "validation"))
        assert set(record.cases.case) == {f"{p}-{i}" for p in fold["test"] for i in (0, 1)} - {"E-1"}
        assert not ({*record.cases.case, "E-0"}) & {case for part in cases for case in part}
        assert set(record.cases.suspect) == {fold["test"] == ["E"]}


def test_a_channel_under_another_name_is_noted_or_refused(tmp_path):
    write_tiny(tmp_path / "c", channels=("CT",))
    paper = tiny_paper(updates=3)
    (record,), lines = finish(tmp_path / "c", tmp_path / "runs", paper)
    assert record.provenance["substituted"] == {"CET1": "CT"}
    assert "CT of the cohort stands in for CET1" in lines
    with pytest.raises(InputError, match="cohort tiny has CT but no CET1"):
        finish(tmp_path / "c", tmp_path / "runs", paper, strict=True)


def test_a_loss_that_is_no_number_is_a_finished_run_that_names_and_keeps_its_batch(tiny_root, tmp_path):
    huge = Component("torch.optim:SGD", {"lr": 1e30})
    method = replace(PAPER.method("linear-scores"), stages=(Stage("all layers", CROSS_ENTROPY, huge),))
    (record,), lines = finish(tiny_root, tmp_path, replace(tiny_paper(), methods=(method,)), methods=("linear-scores",))
    assert record.provenance["status"] == "diverged"
    assert set(record.cases.status) == {"pred_empty"}
    assert record.cases.dsc.tolist() == [0, 0, 0]
    assert not (record.folder / "checkpoint.safetensors").exists()
    culprit, kept = record.provenance["diverged"], record.folder / "diverged.npz"
    assert (culprit["stage"], culprit["loss"]) in {("all layers", "nan"), ("all layers", "inf")}
    assert {sample["case"] for sample in culprit["samples"]} <= {"P1", "P2", "P3"}
    samples = [f"{sample['case']} (z {sample['z']})" for sample in culprit["samples"]]
    assert (
        f"[1/1] li2018/linear-scores on tiny, tiny, fold 0, seed 0: diverged, the loss of stage all layers, update "
        f"{culprit['update']}, was {culprit['loss']} on {', '.join(samples)}; the batch is in {kept}"
    ) in lines
    with np.load(kept) as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {
            "image": (2, 1, 16, 16), "label": (2, 1, 16, 16)
        }  # fmt: skip
        assert np.isfinite(arrays["image"]).all()


# What cannot be run


def test_the_phantom_is_made_on_first_use_by_one_of_two_processes(tmp_path, monkeypatch):
    """The other one is quicker: what it put into place is taken."""
    asked = Settings(profile="tiny", runs=str(tmp_path))

    def overtaken(root, **options):
        write_tiny(root)
        return write_phantom(root, **options)

    write_phantom = phantom.write_phantom
    with pytest.raises(InputError, match="at least 1 patient"):
        open_cohort(tiny_paper(phantom={"patients": 0}), asked)
    monkeypatch.setattr(phantom, "write_phantom", overtaken)
    assert open_cohort(tiny_paper(), asked).patients == ("P0", "P1", "P2", "P3")


def test_a_folder_that_is_a_file(tiny_root, tmp_path, finished):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write .*runs: .*runs is a file"):
        finish(tiny_root, tmp_path / "runs")
    folder = tmp_path / finished[1].folder.relative_to(finished[0])
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    with pytest.raises(InputError, match=f"cannot write to the folder {folder}: "):
        finish(tiny_root, tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"folds": (4,)}, "unknown fold of cohort tiny '4'; choices: 0, 1, 2, 3"),
        ({"only": "li2018/stepwise/tiny/tiny/fold-00_seed-0_00000000"}, "00000000 is none of those asked for"),
    ],
)
def test_settings_that_do_not_fit(tiny_root, tmp_path, fields, words):
    with pytest.raises(InputError, match=words):
        finish(tiny_root, tmp_path, **fields)
    assert not list(tmp_path.rglob("config.json"))


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
        finish(tmp_path / "c", tmp_path / "runs", paper, strict=True)


def test_the_time_left_of_a_run_that_goes_on_does_not_count_what_was_done_before(monkeypatch):
    todo = [SimpleNamespace(sha256=name, updates=1000, method=SimpleNamespace(full_name="li2018/toy")) for name in "ab"]
    clock, said = iter([0.0, 100.0, 100.0, 110.0, 110.0]), []
    monkeypatch.setattr(queue.time, "monotonic", lambda: next(clock))
    tell = queue._Progress(todo, said.append).of("a", "a")
    # At a second for an update: 0.90 of the first run were there before.
    tell(Passing("update 900/1000", share=0.9))
    tell(Passing("update 910/1000", share=0.91))
    assert np.isnan(said[0].left_s)
    assert said[1].left_s == pytest.approx(1000 + 90)

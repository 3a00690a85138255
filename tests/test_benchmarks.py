"""The benchmarks start, cover what they should, and run at their smallest size. What they measure is no matter here."""

import importlib
import io
import json
import sys

import pytest
import torch

from npcrepro.protocol import registry

NAMES = ("training", "data", "scaling", "gpu", "explore")


@pytest.fixture
def load(repository, monkeypatch):
    """A benchmark as a module."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in {*NAMES, "common"} - before:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_it_measures(load, name, capsys):
    with pytest.raises(SystemExit) as ended:
        load(name).main(["--help"])
    assert ended.value.code == 0
    assert f"benchmarks/{name}.py" in capsys.readouterr().out


def test_every_network_of_the_papers_takes_a_training_step(load):
    training = load("training")
    timed = {registry.find_method(name)[1].network.target for name in training.networks()}
    assert timed == {method.network.target for key in registry.KEYS for method in registry.load(key).methods}
    assert training.size_of(registry.load("chen2020").profile("paper")) == ((16, 128, 128), 2)


@pytest.mark.parametrize("name", ["guo2021/bunet", "luo2020/mask-rcnn", "luo2020/joint"])
def test_both_ways_of_a_step_are_the_same_training(load, name):
    """A loss that weighs voxels, a network that computes its own, and one of two outputs."""
    ours, plain = (load("training").Trainer(name, "cpu", plain, smoke=True) for plain in (False, True))
    ours.step(), plain.step()
    weights = [dict(each.module.state_dict()) for each in (ours, plain)]
    assert weights[0].keys() == weights[1].keys()
    for key, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][key], rtol=1e-2, atol=1e-2)


def test_data_of_both_sides_have_the_same_shape(load, tmp_path):
    data = load("data")
    for name, (matrix, batch) in data.SMOKE.items():
        made = data.make_data(name, matrix, tmp_path, patients=2)
        (ours, label), *_ = data.our_updates(name, made, batch, 1)
        theirs = data.monais(name, made, batch, 1)
        assert len(theirs) == batch
        item = theirs[0][0] if isinstance(theirs[0], list) else theirs[0]
        assert (ours[0].shape, label[0].shape) == (item["image"].shape, item["label"].shape), name


def test_scaling_runs_folds_once_it_is_told(load, tmp_path, monkeypatch, capsys):
    scaling = load("scaling")
    cohort, runs = str(tmp_path / "cohort"), str(tmp_path / "runs")
    scaling.child(cohort, write={"patients": 3, "matrix": (6, 48, 48)})
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\n"))
    found = scaling.child(cohort, runs=runs, folds=[0, 2], updates=1, side=48)
    assert capsys.readouterr().out == "ready\n"
    assert {"seconds", "mb", "about"} == set(json.loads(json.dumps(found)))
    assert len(list((tmp_path / "runs").rglob("provenance.json"))) == 2


def test_steps_of_the_explorer_are_timed(load, capsys):
    load("explore").main(["--smoke", "--turns", "1"])
    rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split(",")[0] for row in rows] == ["threshold", "slice"] * 4 + ["HD95"]
    assert all(float(number) > 0 for row in rows for number in row.split()[-2:])


def test_without_a_gpu_one_sentence(load, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device here: nothing was measured"):
        load("gpu").main([])


def test_the_targets_of_a_gpu_in_small_on_the_processor(load, tmp_path, monkeypatch):
    gpu = load("gpu")
    monkeypatch.setattr(gpu.subprocess, "run", lambda *_, **__: pytest.fail("nobody is asked"))
    monkeypatch.setattr(gpu, "POLL_S", 1e6)
    minutes, busy = gpu.whole_training("li2018/stepwise", 3, "cpu", True, tmp_path)
    assert isinstance(minutes, float)
    assert busy == []
    assert gpu.one_pass("xue2020/deeplabv3plus", 2, "cpu", True, turns=1) > 0

"""The benchmarks start, cover what they should, and run at their smallest size. What they measure is no matter here."""

import importlib
import io
import json
import subprocess
import sys

import pytest
import torch

from npcrepro.book.build import evidence
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


class Wrong(torch.nn.Conv2d):
    """In bf16 its gradient is too large, as where a library reads what nobody wrote."""

    def forward(self, image):
        factor = 1.2 if torch.is_autocast_enabled("cpu") else 1.0
        weight = self.weight.detach() + factor * (self.weight - self.weight.detach())
        return torch.nn.functional.conv2d(image, weight, self.bias, padding=1)


def trainer_of(training, network):
    """A trainer in bf16 of another network."""
    made = training.Trainer("xue2020/unet", "cpu", False, smoke=True, precision="bf16-mixed")
    scored = torch.nn.Sequential(network, torch.nn.Conv2d(2, 1, 1))
    made.module, made.optimiser = made.fabric.setup(scored, torch.optim.SGD(scored.parameters(), lr=0.1))
    return made


def test_a_wrong_gradient_in_bf16_is_named(load):
    training = load("training")
    error, _ = training.difference(trainer_of(training, torch.nn.Conv2d(1, 2, 3, padding=1)))
    assert 0 < error < 0.02
    error, layer = training.difference(trainer_of(training, Wrong(1, 2, 3, padding=1)))
    assert error == pytest.approx(0.2, abs=0.02)
    assert layer.endswith("0")


def test_a_killed_process_is_named_and_the_table_goes_on(load, monkeypatch, capsys):
    training = load("training")

    def in_child(script, name, **task):
        if name == "xue2020/unet":
            code = "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"
            return load("common").result(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
        error = 0.3 if name == "li2018/stepwise" else 0.003
        found = {"error": error, "layer": "up.0", "mb": 1.0, "seconds": [1.0, 2.0]}
        return found | {"parameters": 1, "size": "", "about": ""}

    monkeypatch.setattr(training, "in_child", in_child)
    names = ["li2018/stepwise", "xue2020/unet", "xue2020/deeplabv3plus"]
    with pytest.raises(SystemExit) as ended:
        training.main([word for name in names for word in ("--only", name)])
    assert ended.value.code.splitlines()[1:] == [
        "li2018/stepwise: the gradient of up.0 in bf16 is off by 0.3 of its size",
        "xue2020/unet: a measuring process was ended by SIGABRT",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["li2018/stepwise", "xue2020/unet:", "xue2020/deeplabv3plus", "0"]


@pytest.mark.slow
@pytest.mark.skipif(not torch.cpu.get_capabilities().get("amx_bf16", False), reason="trainings here are in fp32")
def test_gradients_agree_in_bf16_where_libraries_have_failed(load):
    """At the paper's width, each in a process of its own, as wrong memory may end it; the benchmark asks all networks.

    FCN-8 has 1 x 1 convolutions of 4,096 channels; the others are in three dimensions, one of them with holes.
    """
    for name in ("luo2020/fcn8", "chen2020/mmfnet", "guo2021/deeplab"):
        found = load("common").in_child("training", name=name, device="cpu", turns=0, smoke=False, bf16=True)
        assert found["error"] < 0.02, (name, found)


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
    assert [row.split(",")[0] for row in rows] == ["threshold", "slice"] * 4
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


def test_hours_are_written_as_the_book_reads_them(load, tmp_path, monkeypatch):
    gpu = load("gpu")
    monkeypatch.setattr(gpu, "TOLD", {"li2018": ["stepwise"], "chen2020": ["mmfnet"]})
    path = tmp_path / "book" / "results" / "gpu" / "hours.csv"
    path.parent.mkdir(parents=True)
    gpu.write_hours(path, "cpu", True, {"li2018/stepwise": 0.5})
    *rows, _, told = evidence.gpu_hours(tmp_path).splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["`li2018/stepwise`", "`chen2020/mmfnet`"]
    assert "`li2018/stepwise` 0.5 minutes" in told

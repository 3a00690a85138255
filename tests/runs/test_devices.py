"""Several devices share each batch: here two processes on a processor, with gloo between them."""

import json
import logging.handlers
import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from core_cases import TINY, tiny_paper
from safetensors.torch import load_file
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol.method import Component, Stage
from npcrepro.protocol.settings import Settings
from npcrepro.runs import devices, training
from npcrepro.runs.queue import run_paper

SGD = Component("torch.optim:SGD", {"lr": 0.5, "momentum": 0.9})


class Small(nn.Module):
    """Two convolutions with a score each. A process of rank 1 dies while ``marker`` is there."""

    def __init__(self, in_channels, out_channels, width, marker=""):
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.marker = marker

    def forward(self, image, scores="second"):
        if self.marker and Path(self.marker).exists() and os.environ.get("LOCAL_RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        first = self.first(image)
        if scores == "first":
            return first
        second = self.second(first)
        return (first, second) if scores == "both" else second


class BothScores:
    """The Dice loss of a whole batch, which is no mean over its images, for one score or two."""

    def __call__(self, logits, label):
        from npcrepro.losses.dice import DiceLoss

        scores = logits if isinstance(logits, tuple) else (logits,)
        return sum(DiceLoss(pooled="batch")(score, label) for score in scores)


def paper_of(**network):
    """Two stages: the second layer has no part in the first, and all layers learn in the second."""
    loss = Component(f"{__name__}:BothScores")
    stages = (
        Stage("first score", loss, SGD, share=0.5, forward={"scores": "first"}),
        Stage("both scores", loss, SGD, share=0.5, keep_best=True, forward={"scores": "both"}),
    )
    method = replace(PAPER.method("stepwise"), network=Component(f"{__name__}:Small", network), stages=stages)
    return replace(tiny_paper(batch_size=4), methods=(method,))


def finish(root, runs, devices, paper):
    settings = Settings(cohort=str(root), profile="tiny", device="cpu", runs=str(runs))
    lines = []
    (record,) = run_paper(paper, settings, report=lines.append, devices=devices)
    return record, lines


@pytest.fixture(scope="module")
def pair(tiny_root, tmp_path_factory):
    """The same run by one process and by two, with batches of the same size."""
    return [finish(tiny_root, tmp_path_factory.mktemp(f"by-{n}"), n, paper_of()) for n in (1, 2)]


def test_two_devices_give_the_numbers_of_one(pair):
    (one, _), (two, _) = pair
    assert one.provenance["precision"] == two.provenance["precision"]
    close = {"rtol": 1e-4, "atol": 1e-5} if one.provenance["precision"] == "32-true" else {"rtol": 0.05, "atol": 0.02}
    numbers = ["update", "loss", "validation_loss", "validation_dsc"]
    torch.testing.assert_close(*(torch.tensor(r.history[numbers].to_numpy()) for r in (two, one)), **close)
    weights = [load_file(record.folder / "model.safetensors") for record in (two, one)]
    torch.testing.assert_close(*weights, **close)
    # The learning moves the weights by far more than that.
    start = training.build_network(paper_of().methods[0], TINY, 0).state_dict()
    assert all((weights[0][name] - start[name]).abs().max() > 0.05 for name in start if name.endswith("weight"))


def test_there_is_one_record(pair):
    _, (two, lines) = pair
    runs = two.folder.parents[4]
    assert len(list(runs.glob("*/*/*/*/*/provenance.json"))) == 1
    assert [path for path in runs.rglob(".*") if path.name != ".lock"] == []
    assert two.provenance["devices"] == 2
    assert two.provenance["sessions"] == 1
    assert lines[-1].startswith("1 run, 1 trained now")
    log = [json.loads(line) for line in (two.folder / "log.jsonl").read_text().splitlines()]
    checks = [(row["stage"], row["update"]) for row in log if row["event"] == "check"]
    assert checks == list(two.history[["stage", "update"]].itertuples(index=False, name=None))
    assert [row["event"] for row in log if row["event"] != "check"] == ["started", "finished"]


def test_one_device_may_go_on_where_two_were_killed(pair, tiny_root, tmp_path):
    marker = tmp_path / "marker"
    paper = paper_of(marker=str(marker))
    marker.touch()
    with pytest.raises(InputError, match=r"^1 of 1 runs failed: .*terminated with signal SIGKILL$"):
        finish(tiny_root, tmp_path / "runs", 2, paper)
    assert multiprocessing.active_children() == []
    assert not [thread for thread in threading.enumerate() if "_pass_on" in thread.name]
    marker.unlink()
    record, _ = finish(tiny_root, tmp_path / "runs", 1, paper)
    found, expected = (load_file(r.folder / "model.safetensors") for r in (record, pair[0][0]))
    torch.testing.assert_close(found, expected)


def test_a_batch_that_cannot_be_shared(tiny_root, tmp_path):
    words = "has batches of 4, which 3 devices cannot share equally; give --devices a divisor of it"
    with pytest.raises(InputError, match=f"li2018/stepwise in profile tiny {words}"):
        finish(tiny_root, tmp_path, 3, paper_of())


# The device and its precision


@pytest.mark.parametrize(
    ("has", "precision"),
    [
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": False, "avx512_bf16": True}, "32-true"),  # whose weight gradients can be garbage
        ({}, "32-true"),
    ],
)
def test_bf16_only_where_the_processor_has_matrix_units_for_it(monkeypatch, has, precision):
    said = logging.handlers.BufferingHandler(100)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(logging.getLogger("lightning_fabric"), "handlers", [said])
    fabric = devices.make_fabric("auto")
    assert (fabric._precision.precision, fabric.device.type) == (precision, "cpu")
    assert said.buffer == []  # Lightning would tell the precision


def test_a_device_that_is_not_there_or_mistyped(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device 'cuda' was asked for, but torch sees no CUDA device"):
        devices.make_fabric("cuda")
    with pytest.raises(InputError, match=r"unknown device 'cdua'; did you mean 'cuda'\? choices: auto, cpu, cuda"):
        devices.make_fabric("cdua")


@pytest.mark.parametrize(
    ("convolution", "arguments", "options", "memory_format"),
    [
        (nn.Conv2d, (8, 16, 1), {"stride": 2}, torch.contiguous_format),
        (nn.Conv2d, (15, 16, 1), {"stride": (1, 2)}, torch.contiguous_format),
        (nn.Conv2d, (16, 16, 1), {"stride": 2}, torch.channels_last),
        (nn.Conv2d, (8, 16, 1), {}, torch.channels_last),
        (nn.Conv2d, (8, 16, 3), {"stride": 2}, torch.channels_last),
        (nn.Conv3d, (8, 16, 1), {"stride": 2}, torch.channels_last_3d),
    ],
)
def test_channels_are_last_but_where_the_processor_library_would_crash(convolution, arguments, options, memory_format):
    layer = convolution(*arguments, **options)
    network = nn.Sequential(nn.ReLU(), nn.Sequential(layer))
    assert devices.memory_format_of(network, layer.weight.ndim - 2) == memory_format


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with pytest.raises(InputError, match="--devices 2 was asked for, but torch sees 1 of them"):
        devices.make_fabric("cuda", devices=2)

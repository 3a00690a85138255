"""Seconds that are measured. What they are depends on the machine; what is measured does not."""

from dataclasses import replace
from math import isnan, nan
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from npcrepro.protocol import registry
from npcrepro.protocol.method import Component
from npcrepro.runs import timing, training
from npcrepro.runs.timing import MEASURED, seconds_of_pass, seconds_of_update


@pytest.mark.parametrize("name", ["luo2020/mask-rcnn", "chen2020/mmfnet", "li2018/stepwise"])
def test_updates_are_those_of_the_real_training(name, monkeypatch):
    """An update takes 2 s, but for the first of each stage, which takes 7 s."""
    paper, method = registry.find_method(name)
    train, now, stages = training.train, 0.0, []

    def watched(method, profile, data, *rest):
        drawn = []

        def draw(*arguments):
            nonlocal now
            now += 7.0 if len(drawn) == 1 else 2.0
            drawn.append(data.draw(*arguments))
            return drawn[-1]

        network, state = train(method, profile, SimpleNamespace(**vars(data) | {"draw": draw}), *rest)
        assert (state.diverged, state.history[-1]["update"]) == (False, MEASURED + 2)
        stages.append(method.stages[0].name)
        return network, state

    monkeypatch.setattr(training, "train", watched)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    seconds, source = seconds_of_update(method, paper.profile("smoke"), "cpu")
    assert stages == [stage.name for stage in method.stages]
    assert (seconds, source) == (pytest.approx(2.0), "timed, cpu")


class NoNumber(nn.Conv2d):
    """A network of which every score is no number."""

    def __init__(self, in_channels, out_channels, width):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, image):
        return super().forward(image) * nan


def test_a_rate_that_random_images_make_diverge_is_timed_and_a_loss_that_is_no_number_is_told():
    paper, method = registry.find_method("li2018/stepwise")
    huge = Component("torch.optim:SGD", {"lr": 1e30})
    stage = replace(method.stages[0], name="all", share=1.0, optimiser=huge, trainable=(), forward={})
    wild = replace(method, stages=(stage,))
    seconds, source = seconds_of_update(wild, paper.profile("smoke"), "cpu")
    assert (seconds > 0, source) == (True, "timed, cpu")
    lost = replace(wild, network=Component(f"{__name__}:NoNumber"))
    seconds, source = seconds_of_update(lost, paper.profile("smoke"), "cpu")
    assert (isnan(seconds), source) == (True, "not timed: the loss of stage all is no number on random images")


def test_a_pass_is_timed_without_gradients():
    paper, method = registry.find_method("xue2020/deeplabv3plus")
    assert seconds_of_pass(method, paper.profile("smoke"), passes=1) > 0
    assert torch.is_grad_enabled()

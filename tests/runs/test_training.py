import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from core_cases import TINY, write_tiny
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.papers.li2018.protocol import CROSS_ENTROPY, PAPER, STEPS
from npcrepro.protocol.method import Component, Stage
from npcrepro.runs import training
from npcrepro.sampling.slices import SliceData

TRAIN, VALIDATION = ["P0", "P1"], ["P2"]
SGD = Component("torch.optim:SGD", {"lr": 0.05, "momentum": 0.9})
STAGES = ("score 1/4", "score 1/2", "score 1/1")


class Interrupted(Exception):
    pass


@pytest.fixture
def learn(tiny_prepared, fabric, tmp_path):
    """Train on the tiny cohort; returns the weights and the state."""

    def learn(method="linear-scores", profile=TINY, seed=0, *, checkpoint=None, report=lambda line: None, **changes):
        method = replace(PAPER.method(method), **changes)
        data = method.data.build(tiny_prepared, profile.matrix, method.channels, method.structures)
        checkpoint = checkpoint or tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        network, state = training.train(method, profile, data, TRAIN, VALIDATION, seed, fabric, checkpoint, report)
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}, state

    return learn


@pytest.fixture
def at_every_update(monkeypatch):
    """A line of progress and a checkpoint at every update."""
    monkeypatch.setattr(training, "REPORT_SECONDS", -1.0)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def curve(state):
    """The learning curve with all digits, nan included."""
    return json.dumps(state.history)


def interrupt(learn, checkpoint, after, **how):
    """Train until the progress of ``after`` updates was reported in this session, then stop as a crash would."""
    lines = []

    def report(line):
        lines.append(line)
        if len(lines) == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        learn(checkpoint=checkpoint, report=report, **how)


def one_stage(**options):
    fields = {"name": "all layers", "loss": CROSS_ENTROPY, "optimiser": SGD}
    return (Stage(**fields | options),)


# Randomness


def test_the_same_seed_gives_the_same_weights_bit_for_bit_whatever_the_callers_generator(learn):
    torch.manual_seed(1)
    first, state = learn(seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, state_again = learn(seed=3)
    assert same(first, again)
    assert curve(state) == curve(state_again)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_key_gives_other_numbers_and_another_seed_other_weights_from_the_start():
    keys = (0, "a", 1), (0, "a", 1), (1, "a", 1), (0, "b", 1)
    first, again, *others = [torch.rand(3, generator=training.generator_for(*key)).tolist() for key in keys]
    assert first == again
    assert first not in others
    zero, one = (training.build_network(PAPER.method("stepwise"), TINY, seed).conv1.weight for seed in (0, 1))
    assert not torch.equal(zero, one)


# Stages


def test_the_stages_share_the_updates_and_appear_on_the_curve(learn):
    _, state = learn(profile=replace(TINY, updates=15, check_every=2))
    assert [(row["stage"], row["update"]) for row in state.history] == [(s, u) for s in STAGES for u in (2, 4, 5)]
    assert all(math.isfinite(row[k]) for row in state.history for k in ("loss", "validation_loss", "validation_dsc"))
    assert (state.stage, state.update, state.sessions, state.diverged) == (3, 0, 1, False)
    assert state.without_gradient == []
    assert list(state.history[0]) == training.HISTORY_COLUMNS


def test_the_loss_on_the_curve_is_the_mean_since_the_row_before(learn):
    each = [row["loss"] for row in learn(profile=replace(TINY, check_every=1))[1].history]
    joined = [row["loss"] for row in learn(profile=replace(TINY, check_every=2))[1].history]
    assert joined == pytest.approx(np.reshape(each, (-1, 2)).mean(axis=1).tolist(), rel=1e-6)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stage_moves_its_own_layers_and_no_other(learn, stage):
    method = PAPER.method("linear-scores")
    # The first stages only, as long as in the whole method.
    before, after = ({}, {})
    for count, weights in ((stage, before), (stage + 1, after)):
        stages = tuple(replace(s, share=1 / max(count, 1)) for s in method.stages[:count])
        weights |= learn(stages=stages, profile=replace(TINY, updates=4 * count))[0]
    moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved == set(STEPS[STAGES[stage]][1])


def test_the_network_is_in_training_mode_where_it_learns_and_only_there(learn, monkeypatch):
    modes, build = [], training.build_network

    def watched(*arguments):
        network = build(*arguments)
        network.register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
        return network

    monkeypatch.setattr(training, "build_network", watched)
    learn(profile=replace(TINY, updates=6, check_every=1))
    assert modes == [(True, True), (False, False)] * 6


@pytest.mark.parametrize("batch_size", [2, 5])
def test_the_validation_loss_is_the_mean_over_slices_whatever_the_batch(tiny_prepared, fabric, batch_size):
    method, profile = PAPER.method("linear-scores"), replace(TINY, batch_size=batch_size)
    data = method.data.build(tiny_prepared, TINY.matrix, method.channels, method.structures)
    validation = data.samples(["P0", "P1", "P2"])[:5]
    network = training.build_network(method, profile, 0)
    loss = CROSS_ENTROPY.build()
    found = training._validate(
        method, profile, method.stages[2], fabric.setup_module(network), data, validation, loss, fabric
    )
    image, label = data.batch(validation)
    with torch.no_grad():
        scores = network(data.finish(image))
    assert found["validation_loss"] == pytest.approx(loss(scores, label).item(), rel=1e-5)
    both = 2 * ((scores >= 0) & (label > 0)).sum() / ((scores >= 0).sum() + label.sum())
    assert found["validation_dsc"] == pytest.approx(both.item())


def test_a_stage_without_gradient_is_reported(learn, monkeypatch):
    build = training.build_network

    def with_dead_score(*arguments):
        network = build(*arguments)
        network.conv6.weight.data.zero_()
        network.conv6.bias.data.fill_(-100.0)
        return network

    monkeypatch.setattr(training, "build_network", with_dead_score)
    _, state = learn("one-shot")
    reported = set(state.without_gradient)
    assert {"all layers: conv6.weight", "all layers: conv3.weight", "all layers: deconv1.weight"} <= reported
    assert "all layers: conv8.weight" not in reported


def test_the_learning_rate_falls_by_steps(learn):
    def rates(updates, **decay):
        profile = replace(TINY, updates=updates, check_every=1)
        return [row["learning_rate"] / 0.05 for row in learn(stages=one_stage(**decay), profile=profile)[1].history]

    # Update n uses the rate of n - 1 updates done.
    assert rates(8, decay_every=3, decay=0.1) == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 2)
    # Decays are spread over a stage of any length.
    assert rates(6, decays=2, decay=0.5) == pytest.approx(np.repeat([1, 0.5, 0.25], 2))
    assert rates(12, decays=2, decay=0.5) == pytest.approx(np.repeat([1, 0.5, 0.25], 4))
    assert rates(4, power=0.9) == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.25**0.9])


def test_the_update_of_the_weights_is_that_of_torch(learn, tiny_prepared):
    """One update without augmentation, done by hand."""
    profile = replace(TINY, updates=1, check_every=1, batch_size=3)
    found, state = learn("unaugmented", profile, stages=one_stage())
    method = PAPER.method("unaugmented")
    network = training.build_network(method, profile, 0)
    data = SliceData(tiny_prepared, (16, 16), ("CET1",), ("GTVp",))
    slices, generator = data.samples(TRAIN), training.generator_for(0, "all layers", 0)
    picked = torch.randint(4, (3,), generator=generator)
    image, label = data.batch([slices[i] for i in picked])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    image = (image - image.mean(dim=(1, 2, 3), keepdim=True)) / image.std(dim=(1, 2, 3), keepdim=True, correction=0)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(network(image), label.float())
    loss.backward()
    optimiser.step()
    assert state.history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


# Interruptions


def test_a_training_interrupted_at_every_update(learn, at_every_update, tmp_path):
    expected, undisturbed = learn()
    checkpoint, sessions = tmp_path / "c.safetensors", 1
    # A session that is stopped at its second report has saved the first of its updates.
    while True:
        try:
            interrupt(learn, checkpoint, 2)
        except pytest.fail.Exception:
            break
        sessions += 1
    for _ in range(2):  # finished, it isn't trained again
        found, state = learn(checkpoint=checkpoint)
        assert state.sessions == sessions > 6
        assert same(found, expected)
        assert curve(state) == curve(undisturbed)
        assert state.without_gradient == undisturbed.without_gradient


def test_momentum_of_adam_and_the_best_weights_survive_an_interruption(learn, at_every_update, tmp_path):
    adam = Component("torch.optim:Adam", {"lr": 0.01})
    stages = one_stage(optimiser=adam, patience=3, decay_every=2, decay=0.7)
    how = {"stages": stages, "profile": replace(TINY, check_every=1)}
    expected, undisturbed = learn(**how)
    for after in (3, 6):
        checkpoint = tmp_path / f"after-{after}.safetensors"
        interrupt(learn, checkpoint, after, **how)
        found, state = learn(checkpoint=checkpoint, **how)
        assert same(found, expected)
        assert curve(state) == curve(undisturbed)


def test_progress_names_stage_and_update(learn, at_every_update):
    lines = []
    learn(report=lines.append)
    assert len(lines) == 12
    assert lines[0] == "stage score 1/4 (1/3), update 1/4"
    assert [line.share for line in lines] == pytest.approx([n / 12 for n in range(1, 13)])
    assert lines[-1].startswith("stage score 1/1 (3/3), update 4/4, loss ")


# Endings


def scripted(monkeypatch, losses):
    """Validation losses as a script says, instead of the network's own."""
    script = iter({"validation_loss": loss, "validation_dsc": -loss} for loss in losses)
    monkeypatch.setattr(training, "_validate", lambda *arguments: next(script))


@pytest.mark.parametrize(
    ("options", "losses", "checks", "best"),
    [
        ({}, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 6, 6),  # all updates are used, and the last weights kept
        ({"keep_best": True}, [3.0, 2.0, 1.0, 4.0, math.nan, 6.0], 6, 3),
        ({"patience": 2}, [3.0, 2.0, 1.0, 1.5, 1.0, 0.5], 5, 3),
        ({"patience": 2, "monitor": "validation_dsc"}, [-0.1, -0.5, -0.4, -0.5, -0.9, -0.9], 4, 2),
        ({"patience": 3}, [math.nan, 2.0, math.nan, 2.0, 3.0, 1.0], 5, 2),
    ],
)
def test_which_weights_are_kept_and_when_a_stage_ends(learn, monkeypatch, options, losses, checks, best):
    expected, _ = learn(stages=one_stage(), profile=replace(TINY, updates=2 * best))
    scripted(monkeypatch, losses)
    kept, state = learn(stages=one_stage(**options))
    assert [row["update"] for row in state.history] == [2 * n for n in range(1, checks + 1)]
    assert same(kept, expected)


def test_the_rate_falls_whenever_checks_do_not_improve(learn, monkeypatch):
    scripted(monkeypatch, [3.0, 3.5, 3.0, 3.0, 3.0, 2.0])
    _, state = learn(stages=one_stage(plateau=2, decay=0.5))
    rates = [row["learning_rate"] / SGD.options["lr"] for row in state.history]
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])


class OwnLoss(nn.Module):
    """A network that computes its own loss, and says probabilities otherwise."""

    def __init__(self, in_channels, out_channels, width):
        super().__init__()
        self.score = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, image, label=None):
        score = self.score(image)
        if label is None:
            return score.sigmoid()
        return nn.functional.binary_cross_entropy_with_logits(score, label.float())


def test_a_network_may_compute_its_own_loss(learn):
    (stage,) = one_stage(monitor="validation_dsc", keep_best=True)
    network = Component(f"{__name__}:OwnLoss")
    _, state = learn(network=network, stages=(replace(stage, loss=None),), activation="identity")
    assert state.history[-1]["loss"] < state.history[0]["loss"]
    assert all(math.isnan(row["validation_loss"]) and row["validation_dsc"] >= 0 for row in state.history)


def test_a_stage_may_keep_what_it_started_with(learn, monkeypatch, at_every_update, tmp_path):
    values, checkpoint = [3.0, 1.0, 2.0, 9.0, 8.0, 7.0], tmp_path / "c.safetensors"
    scripted(monkeypatch, values[:2])
    best, _ = learn(stages=one_stage(keep_best=True), profile=replace(TINY, updates=4))
    # Patience starts anew in the second stage, which is worse than the first and not held against it.
    stages = [Stage(n, CROSS_ENTROPY, SGD, share=0.5, keep_best=True, patience=2) for n in ("all layers", "second")]
    scripted(monkeypatch, values)
    interrupt(learn, checkpoint, 7, stages=stages)
    found, state = learn(stages=stages, checkpoint=checkpoint)
    assert same(found, best)
    assert [row["update"] for row in state.history] == [2, 4, 6, 2, 4, 6]
    scripted(monkeypatch, [*values[:5], 0.5])
    assert not same(learn(stages=stages)[0], best)


@pytest.mark.parametrize(
    "other", [{"forward": {"output": "score_half"}}, {"monitor": "validation_dsc"}, {"keep_best": False}]
)
def test_another_criterion_is_not_held_against_the_stage_before(learn, monkeypatch, other):
    second = one_stage(**{"name": "second", "keep_best": True, "share": 0.5} | other)
    scripted(monkeypatch, [1.0] * 3 + [2.0, 3.0, 4.0])
    moved, _ = learn(stages=(*one_stage(keep_best=True, share=0.5), *second))
    scripted(monkeypatch, [1.0] * 3)
    assert not same(moved, learn(stages=one_stage(keep_best=True), profile=replace(TINY, updates=6))[0])


def test_nothing_is_stopped_early_without_validation_cases(tiny_prepared, fabric, tmp_path):
    method = replace(PAPER.method("linear-scores"), stages=one_stage(patience=1))
    data = method.data.build(tiny_prepared, TINY.matrix, method.channels, method.structures)
    network, state = training.train(method, TINY, data, TRAIN, [], 0, fabric, tmp_path / "c.safetensors", print)
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert [row["update"] for row in state.history] == [2, 4, 6, 8, 10, 12]
    assert all(math.isnan(row["validation_loss"]) for row in state.history)


def test_training_cases_without_any_structure_are_an_error(tmp_path, fabric):
    blank = CaseArrays("P0", "P0", np.ones((1, 3, 16, 16), np.int16), np.zeros((3, 16, 16), np.uint8), (1.0, 1.0, 1.0))
    prepared = prepare(write_tiny(tmp_path / "c", [blank]), tmp_path / "p")
    method = PAPER.method("stepwise")
    data = method.data.build(prepared, TINY.matrix, method.channels, method.structures)
    with pytest.raises(InputError, match=r"none of the 1 training cases shows GTVp at the matrix \(16, 16\)"):
        training.train(method, TINY, data, ["P0"], [], 0, fabric, tmp_path / "c.safetensors", print)


# Learning


def test_running_statistics_of_frozen_layers_stay_as_they_are():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 1, 1))
    free = training._free(network, Stage("last", CROSS_ENTROPY, CROSS_ENTROPY, trainable=("2",)))
    assert set(free) == {"2.weight", "2.bias"}
    before = network[1].running_mean.clone()
    network(torch.randn(4, 1, 8, 8) + 3)
    assert torch.equal(network[1].running_mean, before)
    training._free(network, Stage("all", CROSS_ENTROPY, CROSS_ENTROPY))
    network(torch.randn(4, 1, 8, 8) + 3)
    assert not torch.equal(network[1].running_mean, before)

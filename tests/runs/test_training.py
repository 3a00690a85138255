import json
import math
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from core_cases import TINY, disc, write_tiny
from safetensors import safe_open
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.cohorts.layout import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.papers.li2018.protocol import CROSS_ENTROPY, PAPER, STEPS
from npcrepro.protocol.method import Component, Stage
from npcrepro.runs import checkpoint, devices, training
from npcrepro.runs import checkpoint as checkpoint_module
from npcrepro.sampling.slices import SliceData

pytest_plugins = ["core_fixtures"]

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
        data = method.data.build(
            changes.pop("cohort", tiny_prepared), profile.matrix, method.channels, method.structures
        )
        checkpoint = checkpoint or tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        cases = [TRAIN, VALIDATION]
        network, state = training.train(method, profile, data, *cases, seed, fabric, checkpoint, report)
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


def test_the_same_seed_gives_the_same_weights_bit_for_bit(learn):
    (first, state), (again, state_again) = learn(seed=3), learn(seed=3)
    assert same(first, again)
    assert curve(state) == curve(state_again)


def test_the_state_of_the_callers_generators_is_neither_used_nor_changed(learn):
    torch.manual_seed(1)
    first, _ = learn()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, _ = learn()
    assert same(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_other_weights_from_the_start(learn):
    assert not same(learn(seed=0)[0], learn(seed=1)[0])
    method = PAPER.method("stepwise")
    starts = [training.build_network(method, TINY, seed).conv1.weight for seed in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_another_seed_draws_other_batches(learn, monkeypatch):
    drawn = []
    batch = SliceData.batch
    monkeypatch.setattr(SliceData, "batch", lambda self, slices: drawn.append(slices) or batch(self, slices))
    for seed in (0, 0, 1):
        drawn.append(None)
        learn(seed=seed, profile=replace(TINY, batch_size=4, updates=3, check_every=100), stages=one_stage())
    first, again, other = ([s for s in run if s[0][0] in TRAIN] for run in _split(drawn))
    assert first == again != other
    assert len({tuple(s) for s in first}) > 1


def _split(items):
    parts = []
    for item in items:
        parts.append([]) if item is None else parts[-1].append(item)
    return parts


def test_a_generator_is_a_function_of_its_keys():
    draw = [torch.rand(3, generator=training.generator_for(*keys)).tolist() for keys in ((0, "a", 1), (0, "a", 1))]
    others = [torch.rand(3, generator=training.generator_for(*keys)).tolist() for keys in ((1, "a", 1), (0, "b", 1))]
    assert draw[0] == draw[1]
    assert draw[0] not in others


# Stages


def test_the_stages_share_the_updates_and_appear_on_the_curve(learn):
    _, state = learn(profile=replace(TINY, updates=15, check_every=2))
    assert [(row["stage"], row["update"]) for row in state.history] == [(s, u) for s in STAGES for u in (2, 4, 5)]
    assert all(math.isfinite(row[k]) for row in state.history for k in ("loss", "validation_loss", "validation_dsc"))
    assert (state.stage, state.update, state.sessions, state.diverged) == (3, 0, 1, False)
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


def test_fine_tuning_moves_all_layers_in_every_stage(learn):
    method = PAPER.method("fine-tune")
    options = {"network": PAPER.method("linear-scores").network}
    stages = tuple(replace(stage, share=0.5) for stage in method.stages[:2])
    two = learn(stages=stages, profile=replace(TINY, updates=8), **options)[0]
    three = learn(stages=method.stages, profile=replace(TINY, updates=12), **options)[0]
    assert not [name for name in two if torch.equal(two[name], three[name])]


def test_a_network_comes_back_ready_for_inference(tiny_prepared, fabric, tmp_path):
    method = PAPER.method("stepwise")
    data = method.data.build(tiny_prepared, TINY.matrix, method.channels, method.structures)
    network, _ = training.train(method, TINY, data, TRAIN, [], 0, fabric, tmp_path / "c.safetensors", lambda line: None)
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_network_is_in_training_mode_where_it_learns_and_only_there(learn, monkeypatch):
    modes, build = [], training.build_network

    def watched(*arguments):
        network = build(*arguments)
        network.register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
        return network

    monkeypatch.setattr(training, "build_network", watched)
    learn(profile=replace(TINY, updates=6, check_every=1))
    assert modes == [(True, True), (False, False)] * 6


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
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


def test_no_stage_is_reported_where_all_gradients_arrive(learn):
    assert learn("linear-scores")[1].without_gradient == []


def test_the_learning_rate_falls_by_steps(learn):
    stages = one_stage(decay_every=3, decay=0.1)
    _, state = learn(stages=stages, profile=replace(TINY, updates=8, check_every=1))
    # Update n uses the rate of n - 1 updates done.
    expected = [0.05] * 3 + [0.005] * 3 + [0.0005] * 2
    assert [row["learning_rate"] for row in state.history] == pytest.approx(expected)


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


@pytest.mark.parametrize("after", range(2, 13))
def test_an_interrupted_training_ends_in_the_same_weights(learn, at_every_update, tmp_path, after):
    """12 updates in three stages, each of them once the last one of its session."""
    expected, undisturbed = learn()
    interrupt(learn, tmp_path / "c.safetensors", after)
    found, state = learn(checkpoint=tmp_path / "c.safetensors")
    assert same(found, expected)
    assert curve(state) == curve(undisturbed)
    assert state.without_gradient == undisturbed.without_gradient
    assert state.sessions == 2


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
    found, state = learn(checkpoint=checkpoint)
    assert sessions > 6
    assert same(found, expected)
    assert curve(state) == curve(undisturbed)


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


def test_the_best_weights_survive_an_interruption(learn, at_every_update, tmp_path, monkeypatch):
    how = {"stages": one_stage(patience=3), "profile": replace(TINY, check_every=1)}
    scripted(monkeypatch, [3.0, 1.0, 2.0, 2.0, 2.0])
    best_of_two, _ = learn(**how)
    # The second update is the best. The third is lost in the interruption, and done again.
    scripted(monkeypatch, [3.0, 1.0, 2.0])
    interrupt(learn, tmp_path / "c.safetensors", 3, **how)
    scripted(monkeypatch, [2.0, 2.0, 2.0])
    found, state = learn(checkpoint=tmp_path / "c.safetensors", **how)
    assert [row["update"] for row in state.history] == [1, 2, 3, 4, 5]
    assert same(found, best_of_two)


def test_an_interruption_while_a_checkpoint_is_written_leaves_the_one_before(
    learn, at_every_update, tmp_path, monkeypatch
):
    expected, _ = learn()
    save_file, written = checkpoint_module.save_file, []

    def half(tensors, path, metadata):
        save_file(tensors, path, metadata)
        written.append(path)
        if len(written) == 6:
            path.write_bytes(path.read_bytes()[:100])
            raise Interrupted

    (tmp_path / "run").mkdir()
    checkpoint = tmp_path / "run" / "c.safetensors"
    monkeypatch.setattr(checkpoint_module, "save_file", half)
    with pytest.raises(Interrupted):
        learn(checkpoint=checkpoint)
    monkeypatch.setattr(checkpoint_module, "save_file", save_file)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["c.safetensors"]
    with safe_open(checkpoint, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["sessions"] == 1
    assert same(learn(checkpoint=checkpoint)[0], expected)


def test_a_finished_training_is_not_trained_again(learn, tmp_path, monkeypatch):
    checkpoint = tmp_path / "c.safetensors"
    expected, _ = learn(checkpoint=checkpoint)
    monkeypatch.setattr(SliceData, "finish", None)
    found, state = learn(checkpoint=checkpoint)
    assert same(found, expected)
    assert state.sessions == 1


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
    script = iter(losses)
    monkeypatch.setattr(
        training, "_validate", lambda *arguments: {"validation_loss": next(script), "validation_dsc": 0.5}
    )


def test_patience_ends_a_stage_and_keeps_the_best_weights(learn, monkeypatch):
    profile = replace(TINY, updates=20, check_every=2)
    scripted(monkeypatch, [3.0, 2.0, 1.0])
    best, _ = learn(stages=one_stage(), profile=replace(profile, updates=6))
    scripted(monkeypatch, [3.0, 2.0, 1.0, 1.5, 1.0, 0.5, 0.1])
    stopped, state = learn(stages=one_stage(patience=2), profile=profile)
    assert [row["update"] for row in state.history] == [2, 4, 6, 8, 10]
    assert same(stopped, best)


def test_without_patience_all_updates_are_used_and_the_last_weights_kept(learn, monkeypatch):
    scripted(monkeypatch, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    weights, state = learn(stages=one_stage())
    scripted(monkeypatch, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert len(state.history) == 6
    assert same(weights, learn(stages=one_stage())[0])


def test_the_best_weights_are_kept_when_all_updates_are_used(learn, monkeypatch):
    scripted(monkeypatch, [3.0, 2.0, 1.0])
    best, _ = learn(stages=one_stage(), profile=replace(TINY, updates=6))
    scripted(monkeypatch, [3.0, 2.0, 1.0, 4.0, 5.0, 6.0])
    kept, state = learn(stages=one_stage(keep_best=True))
    assert len(state.history) == 6
    assert same(kept, best)


def test_the_dsc_can_be_what_has_to_improve(learn, monkeypatch):
    def script(values):
        values = iter(values)
        row = lambda *arguments: {"validation_loss": math.nan, "validation_dsc": next(values)}  # noqa: E731
        monkeypatch.setattr(training, "_validate", row)

    script([0.1, 0.5])
    best, _ = learn(stages=one_stage(), profile=replace(TINY, updates=4))
    script([0.1, 0.5, 0.4, 0.5, 0.9, 0.9])
    kept, state = learn(stages=one_stage(monitor="validation_dsc", patience=2))
    assert len(state.history) == 4
    assert same(kept, best)


def test_the_rate_falls_whenever_checks_do_not_improve(learn, monkeypatch):
    scripted(monkeypatch, [3.0, 3.5, 3.0, 3.0, 3.0, 2.0])
    _, state = learn(stages=one_stage(plateau=2, decay=0.5))
    rates = [row["learning_rate"] / SGD.options["lr"] for row in state.history]
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])


def test_decays_are_spread_over_a_stage_of_any_length(learn):
    for updates in (6, 12):
        profile = replace(TINY, updates=updates, check_every=1)
        _, state = learn(stages=one_stage(decays=2, decay=0.5), profile=profile)
        rates = np.array([row["learning_rate"] for row in state.history]) / SGD.options["lr"]
        assert rates == pytest.approx(np.repeat([1, 0.5, 0.25], updates // 3))


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


def test_patience_starts_anew_in_each_stage(learn, monkeypatch):
    stages = (*one_stage(patience=2, share=0.5), *one_stage(name="second", patience=2, share=0.5))
    # The second stage is worse than the best of the first, and is not held against it.
    scripted(monkeypatch, [0.1, 0.2, 0.3, 9.0, 8.0, 7.0])
    _, state = learn(stages=stages)
    assert [(row["stage"], row["update"]) for row in state.history] == [
        ("all layers", 2), ("all layers", 4), ("all layers", 6), ("second", 2), ("second", 4), ("second", 6)
    ]  # fmt: skip


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_stage_may_keep_what_it_started_with(learn, monkeypatch, at_every_update, tmp_path, interrupted):
    first = one_stage(keep_best=True, share=0.5)
    values = [3.0, 1.0, 2.0, 9.0, 8.0, 7.0]
    scripted(monkeypatch, [3.0, 1.0])
    best, _ = learn(stages=one_stage(keep_best=True), profile=replace(TINY, updates=4))
    scripted(monkeypatch, values)
    checkpoint = tmp_path / "c.safetensors"
    stages = (*first, *one_stage(name="second", keep_best=True, share=0.5))
    if interrupted:
        interrupt(learn, checkpoint, 7, stages=stages)
    assert same(learn(stages=stages, checkpoint=checkpoint)[0], best)

    scripted(monkeypatch, [*values[:5], 0.5])
    assert not same(learn(stages=stages)[0], best)


@pytest.mark.parametrize(
    "other",
    [
        {"forward": {"output": "score_half"}},
        {
            "loss": replace(CROSS_ENTROPY, options={"reduction": "sum"}),
            "optimiser": replace(SGD, options={"lr": 1e-4}),
        },
        {"monitor": "validation_dsc"},
        {"activation": "identity"},
        {"keep_best": False},
    ],
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
    _, state = training.train(method, TINY, data, TRAIN, [], 0, fabric, tmp_path / "c.safetensors", lambda line: None)
    assert [row["update"] for row in state.history] == [2, 4, 6, 8, 10, 12]
    assert all(math.isnan(row["validation_loss"]) for row in state.history)


def test_a_loss_that_is_no_number_ends_the_training(learn, tmp_path):
    huge = Component("torch.optim:SGD", {"lr": 1e30, "momentum": 0.9})
    stages = (*one_stage(optimiser=huge, share=0.5), *one_stage(name="never", share=0.5))
    checkpoint = tmp_path / "c.safetensors"
    _, state = learn(stages=stages, checkpoint=checkpoint)
    assert state.diverged
    assert {row["stage"] for row in state.history} == {"all layers"}
    assert not math.isfinite(state.history[-1]["loss"])
    assert state.history[-1]["update"] < 6
    # And a later session knows it.
    _, later = learn(stages=stages, checkpoint=checkpoint)
    assert later.diverged
    assert curve(later) == curve(state)


def test_training_cases_without_any_structure_are_an_error(tmp_path, fabric):
    blank = CaseArrays("P0", "P0", np.ones((1, 3, 16, 16), np.int16), np.zeros((3, 16, 16), np.uint8), (1.0, 1.0, 1.0))
    prepared = prepare(write_tiny(tmp_path / "c", [blank]), tmp_path / "p")
    method = PAPER.method("stepwise")
    data = method.data.build(prepared, TINY.matrix, method.channels, method.structures)
    with pytest.raises(InputError, match=r"none of the 1 training cases shows GTVp at the matrix \(16, 16\)"):
        training.train(method, TINY, data, ["P0"], [], 0, fabric, tmp_path / "c.safetensors", print)


# Learning


def test_one_slice_can_be_learnt_by_heart(tmp_path, fabric):
    """The three steps with linear scores, on a disc in noise."""
    label = disc(32, (14, 18), 7).astype(np.uint8)[None]
    image = (np.where(label, 400, 0) + np.random.default_rng(0).integers(0, 100, label.shape))[None].astype(np.int16)
    prepared = prepare(write_tiny(tmp_path / "c", [CaseArrays("P0", "P0", image, label, (1.0, 1.0, 1.0))]), tmp_path)
    method = replace(PAPER.method("linear-scores"), augmentation=None)
    profile = replace(TINY, matrix=(32, 32), width=0.1, batch_size=1, updates=240, check_every=80)
    data = method.data.build(prepared, profile.matrix, method.channels, method.structures)
    cases = ["P0"], ["P0"]
    network, state = training.train(method, profile, data, *cases, 0, fabric, tmp_path / "c.safetensors", print)
    with torch.no_grad():
        found = network(data.finish(data.batch([("P0", 0)])[0]))[0, 0].numpy() >= 0
    dsc = 2 * (found & (label[0] > 0)).sum() / (found.sum() + label.sum())
    assert dsc > 0.9
    # The slice is its own validation here, so the curve ends in the same number.
    assert state.history[-1]["validation_dsc"] == pytest.approx(dsc)
    losses = {row["stage"]: row["loss"] for row in state.history}
    assert losses["score 1/1"] < 0.2


# Precision


@pytest.mark.parametrize(
    ("has", "precision"),
    [
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": False, "avx512_bf16": True}, "32-true"),  # whose weight gradients can be garbage
        ({"amx_bf16": False}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_bf16_only_where_the_processor_has_matrix_units_for_it(monkeypatch, has, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64"} | has)
    fabric = devices.make_fabric("cpu")
    assert fabric._precision.precision == precision
    assert fabric.device.type == "cpu"


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_without_a_gpu_the_cpu_is_taken(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.make_fabric(device).device.type == "cpu"


def test_cuda_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device 'cuda' was asked for, but torch sees no CUDA device"):
        devices.make_fabric("cuda")


def test_a_mistyped_device_is_an_error():
    with pytest.raises(InputError, match=r"unknown device 'cdua'; did you mean 'cuda'\? choices: auto, cpu, cuda"):
        devices.make_fabric("cdua")


def test_bf16_trains_too(tiny_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    method = PAPER.method("linear-scores")
    data = method.data.build(tiny_prepared, TINY.matrix, method.channels, method.structures)
    fabric = devices.make_fabric("cpu")
    network, state = training.train(method, TINY, data, TRAIN, VALIDATION, 0, fabric, tmp_path / "c", print)
    assert all(math.isfinite(row["validation_loss"]) for row in state.history)
    # Autocast computes in bf16 and keeps the weights in fp32.
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not state.diverged


@pytest.mark.parametrize(
    ("layer", "memory_format"),
    [
        (nn.Conv2d(8, 16, 1, stride=2), torch.contiguous_format),
        (nn.Conv2d(15, 16, 1, stride=(1, 2)), torch.contiguous_format),
        (nn.Conv2d(16, 16, 1, stride=2), torch.channels_last),
        (nn.Conv2d(8, 16, 1), torch.channels_last),
        (nn.Conv2d(8, 16, 3, stride=2), torch.channels_last),
    ],
)
def test_channels_are_last_but_where_the_processor_library_would_crash(layer, memory_format):
    assert devices.memory_format_of(nn.Sequential(nn.ReLU(), nn.Sequential(layer)), 2) == memory_format


def test_channels_of_volumes_are_last():
    assert devices.memory_format_of(nn.Conv3d(8, 16, 1, stride=2), 3) == torch.channels_last_3d


def test_a_small_network_with_strided_shortcuts_trains():
    """Channels last, it ends the process: the gradient of a shortcut of 8 channels writes past its memory."""
    code = (
        "import torch\n"
        "from npcrepro.models.baselines.nnunet import nnunet_unet\n"
        "from npcrepro.runs.training import memory_format_of\n"
        "network = nnunet_unet(1, 1, width=0.25)\n"
        "form = memory_format_of(network, 2)\n"
        "network.to(memory_format=form)\n"
        "image = torch.randn(4, 1, 96, 96).contiguous(memory_format=form)\n"
        "for _ in range(8):\n"
        "    network(image).square().mean().backward()\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_state_survives_json():
    state = checkpoint.State(stage=1, update=7, history=[{"loss": math.nan}], best=math.inf, without_gradient=["a"])
    again = checkpoint.State(**json.loads(json.dumps(asdict(state))))
    assert math.isnan(again.history[0].pop("loss"))
    state.history[0].pop("loss")
    assert again == state


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

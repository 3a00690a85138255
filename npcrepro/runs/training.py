"""The training loop, from top to bottom.

All randomness of an update comes from a generator seeded by (seed, stage, update), never from a running state. A run
that is killed and started again therefore draws what it would have drawn, and ends in the same weights. Several devices
share each batch: every process draws and augments all of it, takes its rows through the network, and the loss is that
of the whole batch. N devices therefore give the numbers of one, up to rounding.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from npcrepro.base.errors import InputError
from npcrepro.base.files import writing
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.base.progress import Passing, Report
from npcrepro.losses.targets import reduce_label
from npcrepro.models.outputs import decide, probabilities
from npcrepro.protocol.method import Method, Profile, Stage
from npcrepro.runs.checkpoint import State, load_checkpoint, save_checkpoint
from npcrepro.runs.devices import memory_format_of, of_all_devices, own_rows, with_shared_statistics
from npcrepro.sampling.samples import Data

CHECKPOINT_SECONDS = 10.0
REPORT_SECONDS = 1.0
HISTORY_COLUMNS = ["stage", "update", "learning_rate", "loss", "validation_loss", "validation_dsc"]


def generator_for(*keys) -> torch.Generator:
    """A generator on the CPU whose stream is a function of the keys alone."""
    digest = hashlib.sha256(json.dumps(keys).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def build_network(method: Method, profile: Profile, seed: int) -> nn.Module:
    """The method's network at the profile's width, with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(seed, "weights").initial_seed())
        return method.build(profile.width)


def train(
    method: Method,
    profile: Profile,
    data: Data,
    train_cases: list[str],
    validation_cases: list[str],
    seed: int,
    fabric: Fabric,
    checkpoint: Path,
    report: Report,
    initial: Mapping[str, Tensor] | None = None,
    log: Callable[..., None] = lambda event, **about: None,
) -> tuple[nn.Module, State]:
    """Train a method through all its stages, going on from ``checkpoint`` if it exists.

    Args:
        validation_cases: names; without any, nothing is stopped early.
        checkpoint: file that is replaced every few seconds; the caller removes it when the run is finished. One that
            cannot be read is reported, and the training starts from the beginning.
        report: called with a passing line of progress every second.
        initial: weights by name that take the place of random ones before the first stage.
        log: called with ``"check"`` and each row of the learning curve.

    Returns:
        The trained network in evaluation mode, and the state with the learning curve. A loss that is not finite ends
        the training: ``state.diverged`` is true, ``state.culprit`` names the update and its samples, and
        ``diverged.npz`` beside the checkpoint holds the batch as the network saw it.

    Raises:
        InputError: no training case shows a structure.
    """
    samples = data.samples(train_cases)
    if not samples:
        raise InputError(
            f"cohort {data.cohort.name}: none of the {len(train_cases)} training cases shows "
            f"{' or '.join(data.structures)} at the matrix {data.matrix}"
        )
    validation = data.samples(validation_cases)
    augment = method.augmentation.build() if method.augmentation else None

    network = build_network(method, profile, seed)
    network.load_state_dict({**network.state_dict(), **(initial or {})})
    memory_format = memory_format_of(network, len(profile.matrix))
    network = with_shared_statistics(network, fabric).to(fabric.device, memory_format=memory_format)
    state, best, optimiser_state = load_checkpoint(checkpoint, network, report)
    fabric.barrier()  # nobody writes the next checkpoint before all have read this one
    if state.stage < len(method.stages):
        state.sessions += 1
    clock = saved = reported = time.monotonic()

    while state.stage < len(method.stages) and not state.diverged:
        stage = method.stages[state.stage]
        updates = round(stage.share * method.budget * profile.updates)
        loss_function = stage.loss.build() if stage.loss else None
        trainable = _free(network, stage)
        module = fabric.setup_module(network)
        optimiser = stage.optimiser.build(list(trainable.values()))
        initial_rates = [group["lr"] for group in optimiser.param_groups]
        if optimiser_state:
            optimiser.load_state_dict(optimiser.state_dict() | {"state": optimiser_state})
        optimiser_state = {}
        stepper = fabric.setup_optimizers(optimiser)

        finished = state.update >= updates
        while not finished:
            for group, rate in zip(optimiser.param_groups, initial_rates, strict=True):
                group["lr"] = rate * _decay(stage, state, updates)
            generator = generator_for(seed, stage.name, state.update)
            picked = data.draw(samples, profile.batch_size, generator)
            image, label, *weight = fabric.to_device(data.batch(picked))
            if augment:
                image, label, *weight = augment(image, label, generator, *weight)
            image = data.finish(image).contiguous(memory_format=memory_format)
            own = own_rows(len(image), fabric)
            if loss_function:
                loss = loss_function(of_all_devices(module(image[own], **stage.forward), fabric), label, *weight)
            else:
                loss = module(image[own], label[own], **stage.forward)
            stepper.zero_grad()
            # Gradients are averaged over processes. Each has those of its own rows only, unless the network has made a
            # loss of them by itself.
            fabric.backward(loss * fabric.world_size if loss_function else loss)
            if state.update == 0:
                state.without_gradient += _without_gradient(stage, trainable)
            stepper.step()

            state.update += 1
            state.loss_sum += fabric.all_reduce(loss.detach(), reduce_op="mean").item()
            if not math.isfinite(state.loss_sum):
                state.diverged = True
                state.culprit = _culprit(state, stage, picked)
                if fabric.is_global_zero:
                    _save_batch(checkpoint.with_name("diverged.npz"), image, label, *weight)
            if state.diverged or state.update % profile.check_every == 0 or state.update == updates:
                row = _history_row(state, stage, optimiser)
                if validation and not state.diverged:
                    row |= _validate(method, profile, stage, module, data, validation, loss_function, fabric)
                state.history.append(row)
                log("check", **row)
                if validation:
                    value = row[stage.monitor] * (-1 if stage.monitor == "validation_dsc" else 1)
                    if value < state.best:
                        state.best, state.checks_since_best = value, 0
                    else:
                        state.checks_since_best += 1
                        if stage.plateau and state.checks_since_best % stage.plateau == 0:
                            state.rate_factor *= stage.decay
                    if stage.keeps_weights and value < state.kept:
                        state.kept = value
                        best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            stopped = stage.patience is not None and state.checks_since_best >= stage.patience
            finished = state.diverged or stopped or state.update >= updates

            now = time.monotonic()
            if now - reported > REPORT_SECONDS:
                reported = now
                report(_progress(state, updates, method))
            if fabric.is_global_zero and not finished and now - saved > CHECKPOINT_SECONDS:
                state.seconds += now - clock
                clock = now
                save_checkpoint(checkpoint, network, state, best, optimiser)
                saved = time.monotonic()

        if best and not state.diverged:
            network.load_state_dict(best)
        if not any(map(stage.comparable, method.stages[state.stage + 1 : state.stage + 2])):
            best, state.kept = {}, math.inf
        state.stage, state.update, state.loss_sum = state.stage + 1, 0, 0.0
        state.best, state.checks_since_best, state.rate_factor = math.inf, 0, 1.0
        state.seconds += time.monotonic() - clock
        clock = saved = time.monotonic()
        if fabric.is_global_zero:
            save_checkpoint(checkpoint, network, state, best, None)

    network.requires_grad_(True)
    return fabric.setup_module(network).eval(), state


def _culprit(state: State, stage: Stage, picked: Sequence) -> dict:
    """Where a training diverged, and with which samples; slices are pairs without names."""
    samples = [each._asdict() if hasattr(each, "_asdict") else dict(zip(("case", "z"), each)) for each in picked]
    return {"stage": stage.name, "update": state.update, "loss": str(state.loss_sum), "samples": samples}


def _save_batch(path: Path, *tensors: Tensor) -> None:
    arrays = {name: tensor.cpu().numpy() for name, tensor in zip(("image", "label", "weight"), tensors)}
    with writing(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _decay(stage: Stage, state: State, updates: int) -> float:
    """What the learning rate of this update is multiplied by."""
    times = state.update // stage.decay_every if stage.decay_every else 0
    times += state.update * (stage.decays + 1) // updates if stage.decays else 0
    fallen = (1 - state.update / updates) ** stage.power if stage.power else 1.0
    return stage.decay**times * fallen * state.rate_factor


def _free(network: nn.Module, stage: Stage) -> dict[str, nn.Parameter]:
    """Freeze all parameters but those of the stage, and return these by name."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not stage.trainable or name.startswith(tuple(f"{part}." for part in stage.trainable)))
    _training_mode(network)
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def _training_mode(network: nn.Module) -> None:
    """Training mode, but for layers whose parameters are all frozen: their running statistics stay as they are."""
    network.train()
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def _without_gradient(stage: Stage, trainable: dict[str, nn.Parameter]) -> list[str]:
    """Parameters that the first update of a stage does not reach, for instance behind a ReLU that is zero everywhere.

    Layers behind the inner output that a stage stops at have no gradient at all, on purpose; they are not named.
    """
    reached = {name: parameter.grad for name, parameter in trainable.items() if parameter.grad is not None}
    return [f"{stage.name}: {name}" for name, gradient in reached.items() if not gradient.any()]


def _history_row(state: State, stage: Stage, optimiser: torch.optim.Optimizer) -> dict:
    """A row of the learning curve, with the mean training loss since the row before."""
    same_stage = state.history and state.history[-1]["stage"] == stage.name
    since = state.update - (state.history[-1]["update"] if same_stage else 0)
    mean_loss, state.loss_sum = state.loss_sum / since, 0.0
    return {
        "stage": stage.name,
        "update": state.update,
        "learning_rate": optimiser.param_groups[0]["lr"],
        "loss": mean_loss,
        "validation_loss": math.nan,
        "validation_dsc": math.nan,
    }


@torch.no_grad()
def _validate(method, profile, stage, module, data, validation, loss_function, fabric) -> dict:
    """Loss and pooled DSC of the validation samples; several processes share the batches."""
    module.eval()
    loss, overlap, size = 0.0 if loss_function else math.nan, 0, 0
    own = range(fabric.global_rank * profile.batch_size, len(validation), fabric.world_size * profile.batch_size)
    for start in own:
        chunk = validation[start : start + profile.batch_size]
        image, label, *weight = fabric.to_device(data.batch(chunk))
        logits = module(data.finish(image), **stage.forward)
        if loss_function:
            loss += loss_function(logits, label, *weight).item() * len(chunk) / len(validation)
        # A stage that trains several outputs together is judged by the last of them.
        logits = (logits[-1] if isinstance(logits, tuple) else logits).float()
        probability = probabilities(logits, stage.activation or method.activation)
        structure = decide(probability, method.threshold)
        found = torch.stack([structure == s + 1 for s in range(probability.shape[1])], dim=1)
        known = (label != NOT_CONTOURED).flatten(2).all(dim=2)
        target = reduce_label(label * (label != NOT_CONTOURED), logits.shape[2:]) >= 0.5
        if target.shape[1] > found.shape[1]:
            # A stage with one score for several structures is trained on their union.
            target, known = target.any(dim=1, keepdim=True), known.all(dim=1, keepdim=True)
        found, target = found[known], target[known]
        overlap += 2 * int((found & target).sum())
        size += int(found.sum() + target.sum())
    _training_mode(module)
    sums = torch.tensor([loss, overlap, size], dtype=torch.float64, device=fabric.device)
    loss, overlap, size = fabric.all_reduce(sums, reduce_op="sum").tolist()
    return {"validation_loss": loss, "validation_dsc": overlap / size if size else math.nan}


def _progress(state: State, updates: int, method: Method) -> Passing:
    loss = f", loss {state.history[-1]['loss']:.4f}" if state.history else ""
    stages = [stage.share for stage in method.stages]
    done = sum(stages[: state.stage]) + stages[state.stage] * state.update / updates
    name = f"stage {method.stages[state.stage].name} ({state.stage + 1}/{len(stages)})"
    return Passing(f"{name}, update {state.update}/{updates}{loss}", min(done, 1.0))

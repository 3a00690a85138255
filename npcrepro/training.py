"""The training loop, from top to bottom.

All randomness of an update comes from a generator seeded by (seed, stage, update), never from a running state. A run
that is killed and started again therefore draws what it would have drawn, and ends in the same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from npcrepro.errors import InputError
from npcrepro.files import writing
from npcrepro.inference import decide, probabilities
from npcrepro.losses import NOT_CONTOURED, reduce_label
from npcrepro.preprocess import Data
from npcrepro.protocol import Method, Profile, Report, Stage

CHECKPOINT_SECONDS = 10.0
REPORT_SECONDS = 5.0
HISTORY_COLUMNS = ["stage", "update", "learning_rate", "loss", "validation_loss", "validation_dsc"]


@dataclass
class State:
    """Where a training is; together with the tensors of the checkpoint it is all that a resumed run needs."""

    stage: int = 0
    update: int = 0
    history: list[dict] = field(default_factory=list)
    loss_sum: float = 0.0
    best: float = math.inf
    checks_since_best: int = 0
    rate_factor: float = 1.0
    diverged: bool = False
    without_gradient: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sessions: int = 0


def make_fabric(device: str) -> Fabric:
    """Fabric on the device asked for, in the precision that is fast there.

    bf16 autocast (weights stay fp32) on GPUs and on processors with bf16 matrix units; on other processors it is
    emulated and several times slower than fp32.

    Raises:
        InputError: ``cuda`` asked for and not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' was asked for, but torch sees no CUDA device; use --device cpu or auto")
    accelerator = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if accelerator == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported()
    else:
        has_bf16 = torch.cpu.get_capabilities().get("amx_bf16", False)
    return Fabric(accelerator=accelerator, devices=1, precision="bf16-mixed" if has_bf16 else "32-true")


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
) -> tuple[nn.Module, State]:
    """Train a method through all its stages, going on from ``checkpoint`` if it exists.

    Args:
        train_cases, validation_cases: names; the validation cases may be empty, then nothing is stopped early.
        checkpoint: file that is replaced every few seconds; the caller removes it when the run is finished.
        report: called with a line of progress every few seconds.
        initial: weights by name that take the place of random ones before the first stage.

    Returns:
        The trained network in evaluation mode, and the state with the learning curve. A loss that is not finite ends
        the training with ``state.diverged``.

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
    memory_format = torch.channels_last if len(profile.matrix) == 2 else torch.channels_last_3d
    module = fabric.setup_module(network.to(memory_format=memory_format))
    state, best, optimiser_state = _load(checkpoint, network)
    state.sessions += 1
    clock = saved = reported = time.monotonic()

    while state.stage < len(method.stages) and not state.diverged:
        stage = method.stages[state.stage]
        updates = round(stage.share * method.budget * profile.updates)
        loss_function = stage.loss.build() if stage.loss else None
        trainable = _free(network, stage)
        optimiser = stage.optimiser.build(list(trainable.values()))
        initial_rates = [group["lr"] for group in optimiser.param_groups]
        if optimiser_state:
            optimiser.load_state_dict(
                {"state": optimiser_state, "param_groups": optimiser.state_dict()["param_groups"]}
            )
        optimiser_state = None
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
            if loss_function:
                loss = loss_function(module(image, **stage.forward), label, *weight)
            else:
                loss = module(image, label, **stage.forward)
            stepper.zero_grad()
            fabric.backward(loss)
            if state.update == 0:
                state.without_gradient += _without_gradient(stage, trainable)
            stepper.step()

            state.update += 1
            state.loss_sum += loss.item()
            if not math.isfinite(state.loss_sum):
                state.diverged = True
            if state.diverged or state.update % profile.check_every == 0 or state.update == updates:
                row = _history_row(state, stage, optimiser)
                if validation and not state.diverged:
                    row |= _validate(method, profile, stage, module, data, validation, loss_function, fabric)
                state.history.append(row)
                if validation and _improved(state, stage) and (stage.keep_best or stage.patience):
                    best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            stopped = stage.patience is not None and state.checks_since_best >= stage.patience
            finished = state.diverged or stopped or state.update >= updates

            now = time.monotonic()
            if now - reported > REPORT_SECONDS:
                reported = now
                report(_progress(state, stage, updates, method))
            if not finished and now - saved > CHECKPOINT_SECONDS:
                state.seconds += now - clock
                clock = now
                _save(checkpoint, network, state, best, optimiser)
                saved = time.monotonic()

        if best and not state.diverged:
            network.load_state_dict(best)
        best = {}
        state.stage, state.update, state.loss_sum = state.stage + 1, 0, 0.0
        state.best, state.checks_since_best, state.rate_factor = math.inf, 0, 1.0
        state.seconds += time.monotonic() - clock
        clock = saved = time.monotonic()
        _save(checkpoint, network, state, best, None)

    network.requires_grad_(True)
    return module.eval(), state


def _decay(stage: Stage, state: State, updates: int) -> float:
    """What the learning rate of this update is multiplied by."""
    times = state.update // stage.decay_every if stage.decay_every else 0
    times += state.update * (stage.decays + 1) // updates if stage.decays else 0
    return stage.decay**times * state.rate_factor


def _free(network: nn.Module, stage: Stage) -> dict[str, nn.Parameter]:
    """Let only the stage's parameters move, and return them by name."""
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

    A stage that stops at an inner output leaves the later layers without gradient on purpose; these are not named.
    """
    return [
        f"{stage.name}: {name}"
        for name, parameter in trainable.items()
        if parameter.grad is not None and not parameter.grad.any()
    ]


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
    """Loss and pooled DSC of the validation samples at the stage's output."""
    module.eval()
    loss, overlap, size = 0.0 if loss_function else math.nan, 0, 0
    for start in range(0, len(validation), profile.batch_size):
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
    return {"validation_loss": loss, "validation_dsc": overlap / size if size else math.nan}


def _improved(state: State, stage: Stage) -> bool:
    """Whether the last check is the best of the stage so far; lowers the learning rate on a plateau."""
    value = state.history[-1][stage.monitor] * (-1 if stage.monitor == "validation_dsc" else 1)
    if value < state.best:
        state.best, state.checks_since_best = value, 0
        return True
    state.checks_since_best += 1
    if stage.plateau and state.checks_since_best % stage.plateau == 0:
        state.rate_factor *= stage.decay
    return False


def _progress(state: State, stage: Stage, updates: int, method: Method) -> str:
    loss = state.history[-1]["loss"] if state.history else math.nan
    part = f"stage {stage.name} ({state.stage + 1}/{len(method.stages)}), update {state.update}/{updates}"
    return f"{part}, loss {loss:.4f}"


def _save(path: Path, network: nn.Module, state: State, best: dict, optimiser) -> None:
    """Everything in one file, so that weights, momentum and position can never disagree."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    scalars: dict[str, float] = {}
    moments = optimiser.state_dict()["state"] if optimiser else {}
    for index, values in moments.items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{key}"] = value
            elif value is not None:
                scalars[f"{index}.{key}"] = value
    metadata = {"state": json.dumps(asdict(state)), "scalars": json.dumps(scalars)}
    with writing(path) as temporary:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def _load(path: Path, network: nn.Module) -> tuple[State, dict, dict]:
    """State, best weights and optimiser state of a checkpoint; the weights go into the network."""
    if not path.exists():
        return State(), {}, {}
    groups: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimiser": {}}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118 (not a dictionary)
            group, rest = name.split(".", 1)
            groups[group][rest] = file.get_tensor(name)
    network.load_state_dict(groups["network"])
    moments: dict[int, dict] = {}
    for name, value in [*groups["optimiser"].items(), *json.loads(metadata["scalars"]).items()]:
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    return State(**json.loads(metadata["state"])), groups["best"], moments

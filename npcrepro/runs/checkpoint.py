"""The state of a training, saved and read back."""

import errno
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from npcrepro.base.files import writing
from npcrepro.base.progress import Report


@dataclass
class State:
    """Where a training is; together with the tensors of the checkpoint it is all that a resumed run needs."""

    stage: int = 0
    update: int = 0
    history: list[dict] = field(default_factory=list)
    loss_sum: float = 0.0
    best: float = math.inf  # of the stage; what patience and plateaus are held against
    kept: float = math.inf  # of the weights kept, which may be those of a stage before
    checks_since_best: int = 0
    rate_factor: float = 1.0
    diverged: bool = False
    culprit: dict = field(default_factory=dict)
    without_gradient: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sessions: int = 0


def save_checkpoint(path: Path, network: nn.Module, state: State, best: dict, optimiser) -> None:
    """Everything in one file, so that weights, momentum and position can never disagree."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    moments = optimiser.state_dict()["state"] if optimiser else {}
    values = {f"{index}.{key}": value for index, each in moments.items() for key, value in each.items()}
    tensors |= {f"optimiser.{name}": value for name, value in values.items() if isinstance(value, Tensor)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    scalars = {name: value for name, value in values.items() if not isinstance(value, Tensor) and value is not None}
    metadata = {"state": json.dumps(asdict(state)), "scalars": json.dumps(scalars), "checksum": _checksum(tensors)}
    write_tensors(path, tensors, metadata)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file in one piece.

    Raises:
        InputError: it cannot be written.
    """
    with writing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            # The library says so in words only.
            raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from error


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of all values: a file of the right form may still have lost what was in it."""
    found = 0
    for _, tensor in sorted(tensors.items()):
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), found)
    return f"{found:08x}"


def load_checkpoint(path: Path, network: nn.Module, report: Report) -> tuple[State, dict, dict]:
    """State, best weights and optimiser state of a checkpoint; the weights go into the network."""
    if not path.exists():
        return State(), {}, {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        if _checksum(tensors) != metadata["checksum"]:
            raise ValueError("its checksum is another one")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as problem:
        report(f"{path} is damaged ({problem}): the training starts from the beginning")
        return State(), {}, {}
    groups: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        group, rest = name.split(".", 1)
        groups[group][rest] = tensor
    network.load_state_dict(groups["network"])
    moments: dict[int, dict] = {}
    for name, value in [*groups["optimiser"].items(), *json.loads(metadata["scalars"]).items()]:
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    return State(**json.loads(metadata["state"])), groups["best"], moments

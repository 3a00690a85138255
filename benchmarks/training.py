"""One training step of every network of the five papers: ``python benchmarks/training.py [--only PAPER/METHOD]``.

Forward pass, loss, backward pass and optimiser as this project's loop has them (the precision and memory format that
are fast here) against the same network in plain PyTorch (contiguous, 32 bits): medians in turns, in one process. Peak
memory is that of a further process each, for two steps: resident with PyTorch itself, or on the graphics card. Sizes
are such that a processor core needs seconds.

"bf16 error" is how far gradients of weights in bf16 are from those in fp32: the largest over all convolutions and
linear layers, each with the same input and the same gradient of its output, relative to its size. Rounding makes less
than a hundredth. A network whose process is ended, or whose error is above `MOST_ERROR`, is named, and the others are
measured all the same; the exit status is then 1. It is nan on processors where trainings are in fp32.
"""

import argparse
import math
import sys
import time

from common import Table, in_child, in_turns, machine, peak_mb

from npcrepro.protocol import registry
from npcrepro.protocol.method import Profile

LARGEST_SIDE = {2: 160, 3: 128}  # of the matrix, by its dimensions
MOST_VOXELS = 2**19  # of a batch
CHECKED = {2: 224, 3: 64}, 2**17  # the same for gradients; FCN-8's 7 x 7 kernels need as large a map at a 32nd
MOST_ERROR = 0.05  # of gradients; what reads memory that nobody wrote is near 1, or no number


def networks() -> list[str]:
    """The first method of each paper with each of its networks."""
    found = {}
    for key in registry.KEYS:
        for method in registry.load(key).methods:
            found.setdefault((key, method.network.target), method.full_name)
    return list(found.values())


def size_of(profile: Profile, largest=LARGEST_SIDE, voxels: int = MOST_VOXELS) -> tuple[tuple[int, ...], int]:
    """The matrix and batch of a profile, cut so that a step takes a processor core seconds."""
    matrix = tuple(min(side, largest[len(profile.matrix)]) for side in profile.matrix)
    return matrix, min(profile.batch_size, max(1, voxels // math.prod(matrix)))


class Trainer:
    """A method's last stage: a network, its loss and its optimiser, as our loop has them or as plain PyTorch does."""

    def __init__(self, name: str, device: str, plain: bool, smoke: bool = False, precision: str | None = None):
        import torch
        from lightning_fabric import Fabric

        from npcrepro.runs.devices import make_fabric, memory_format_of

        self.plain = plain
        paper = registry.load(name.split("/")[0])
        method, profile = paper.method(name), paper.profile("smoke" if smoke else "paper")
        matrix, batch = size_of(profile, *(CHECKED if precision else ()))
        self.fabric = Fabric(accelerator=device, devices=1, precision=precision) if precision else make_fabric(device)
        self.stage = method.stages[-1]
        self.loss = self.stage.loss.build() if self.stage.loss else None
        torch.manual_seed(0)
        network = method.build(profile.width).to(self.fabric.device).train()
        self.parameters = sum(each.numel() for each in network.parameters())
        self.size = f"{batch} x {'x'.join(map(str, matrix))}"
        self.format, self.module = torch.contiguous_format, network
        self.optimiser = self.stage.optimiser.build(list(network.parameters()))
        if not plain:
            self.format = memory_format_of(network, len(matrix))
            self.module = self.fabric.setup_module(network.to(memory_format=self.format))
            self.optimiser = self.fabric.setup_optimizers(self.optimiser)
        self.image, *self.target = _batch(method, matrix, batch, self.fabric.device)

    def step(self) -> None:
        """One update."""
        image = self.image.contiguous(memory_format=self.format)
        if self.loss:
            loss = self.loss(self.module(image, **self.stage.forward), *self.target)
        else:
            loss = self.module(image, *self.target, **self.stage.forward)
        self.optimiser.zero_grad()
        loss.backward() if self.plain else self.fabric.backward(loss)
        self.optimiser.step()
        loss.item()  # waits for a graphics card


def _batch(method, matrix, batch, device):
    """Noise with a structure in the middle, and the weight of voxels where the loss asks for it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    image = torch.randn((batch, method.in_channels, *matrix), generator=generator)
    label = torch.zeros((batch, len(method.structures), *matrix), dtype=torch.uint8)
    label[:, :, *(slice(side // 4, 3 * side // 4) for side in matrix)] = 1
    tensors = [image, label]
    if method.data.options.get("distance_weight", "none") != "none":
        tensors.append(torch.ones(label.shape))
    return [tensor.to(device) for tensor in tensors]


def difference(trainer: Trainer) -> tuple[float, str]:
    """One update; the largest difference of a gradient from that of its layer alone in fp32, and the layer's name."""
    import torch

    alone, weights = {}, {}

    def watch(name, layer, inputs, output) -> None:
        if not output.requires_grad:
            return
        image = inputs[0].detach()

        def again(gradient) -> None:
            with torch.enable_grad(), torch.autocast(image.device.type, enabled=False):
                found = layer.forward(image.float())
                (expected,) = torch.autograd.grad(found, layer.weight, gradient.float())
            alone[name] = alone.get(name, 0.0) + expected  # a layer may be passed more than once

        output.register_hook(again)

    for name, layer in trainer.module.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.ndim > 1:
            weights[name] = weight
            layer.register_forward_hook(lambda *about, name=name: watch(name, *about))
    trainer.step()
    errors = {}
    for name, expected in alone.items():
        size, error = expected.norm().item(), (weights[name].grad - expected).norm().item()
        errors[name] = error / size if size else error
    return max((error if math.isfinite(error) else math.inf, name) for name, error in errors.items())


def child(name: str, device: str, turns: int, smoke: bool, plain: bool | None = None, bf16: bool = False) -> dict:
    """Times of both, or with ``plain`` the memory of one, or with ``bf16`` how well its gradients agree."""
    import torch

    if bf16:
        if device == "cpu" and not torch.cpu.get_capabilities().get("amx_bf16", False):
            # Trainings here are in fp32, see npcrepro.runs.devices: without AMX, oneDNN computes garbage with AVX-512,
            # in three dimensions even without its instructions for bf16.
            return {"error": math.nan, "layer": ""}
        error, layer = difference(Trainer(name, device, False, smoke, "bf16-mixed"))
        return {"error": error, "layer": layer}
    if plain is None:
        ours, other = (Trainer(name, device, plain, smoke) for plain in (False, True))
        about = f"{machine()}; ours in {ours.fabric._precision.precision}"
        seconds = in_turns([ours.step, other.step], turns)
        return {"seconds": seconds, "parameters": ours.parameters, "size": ours.size, "about": about}
    trainer = Trainer(name, device, plain, smoke)
    for _ in range(2):
        trainer.step()
    on_card = trainer.fabric.device.type == "cuda"
    return {"mb": torch.cuda.max_memory_allocated() / 1e6 if on_card else peak_mb()}


def main(arguments=None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PAPER/METHOD", help=f"by default: {', '.join(networks())}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--turns", type=int, default=3, help="steps of each, after one that warms up")
    parser.add_argument("--smoke", action="store_true", help="the tiny sizes of profile smoke, to see that all works")
    chosen = parser.parse_args(arguments)
    table, failed, start = None, [], time.monotonic()
    for name in chosen.only or networks():
        task = {"name": name, "device": chosen.device, "turns": chosen.turns, "smoke": chosen.smoke}
        try:
            agreed = in_child("training", **task, bf16=True)
            memory = [in_child("training", **task, plain=plain)["mb"] for plain in (False, True)]
            found = in_child("training", **task)
        except SystemExit as problem:
            failed.append(f"{name}: {problem}")
            print(failed[-1], flush=True)
            continue
        if not table:
            print(found["about"])
            columns = "M weights", "input", "ours ms", "plain ms", "ratio", "ours MB", "plain MB", "bf16 error"
            table = Table("network", *columns)
        ours, plain = found["seconds"]
        cells = found["parameters"] / 1e6, found["size"], ours * 1e3, plain * 1e3, plain / ours, *memory
        table.row(name, *cells, f"{agreed['error']:.4f}")
        if agreed["error"] > MOST_ERROR:
            failed.append(
                f"{name}: the gradient of {agreed['layer']} in bf16 is off by {agreed['error']:.2g} of its size"
            )
    print(f"{(time.monotonic() - start) / 60:.0f} min in all")
    if failed:
        sys.exit("\n".join(["failed:", *failed]))


if __name__ == "__main__":
    main()

"""One training step of every network of the five papers: ``python benchmarks/training.py [--only PAPER/METHOD]``.

Forward pass, loss, backward pass and optimiser as this project's loop has them (the precision and memory format that
are fast here) against the same network in plain PyTorch (contiguous, 32 bits): medians in turns, in one process. Peak
memory is that of a further process each, for two steps: resident with PyTorch itself, or on the graphics card. Sizes
are such that a processor core needs seconds.
"""

import argparse
import math

from common import Table, in_child, in_turns, machine, peak_mb

from npcrepro.protocol import registry
from npcrepro.protocol.method import Profile

LARGEST_SIDE = {2: 160, 3: 128}  # of the matrix, by its dimensions
MOST_VOXELS = 2**19  # of a batch


def networks() -> list[str]:
    """The first method of each paper with each of its networks."""
    found = {}
    for key in registry.KEYS:
        for method in registry.load(key).methods:
            found.setdefault((key, method.network.target), method.full_name)
    return list(found.values())


def size_of(profile: Profile) -> tuple[tuple[int, ...], int]:
    """The matrix and batch of a profile, cut so that a step takes a processor core seconds."""
    matrix = tuple(min(side, LARGEST_SIDE[len(profile.matrix)]) for side in profile.matrix)
    return matrix, min(profile.batch_size, max(1, MOST_VOXELS // math.prod(matrix)))


class Trainer:
    """A method's last stage: a network, its loss and its optimiser, as our loop has them or as plain PyTorch does."""

    def __init__(self, name: str, device: str, plain: bool, smoke: bool = False):
        import torch

        from npcrepro.runs.devices import make_fabric, memory_format_of

        self.plain = plain
        paper = registry.load(name.split("/")[0])
        method, profile = paper.method(name), paper.profile("smoke" if smoke else "paper")
        matrix, batch = size_of(profile)
        self.fabric = make_fabric(device)
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


def child(name: str, device: str, turns: int, smoke: bool, plain: bool | None = None) -> dict:
    """Times of both, or with ``plain`` the memory of one."""
    import torch

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
    table = None
    for name in chosen.only or networks():
        task = {"name": name, "device": chosen.device, "turns": chosen.turns, "smoke": chosen.smoke}
        memory = [in_child("training", **task, plain=plain)["mb"] for plain in (False, True)]
        found = in_child("training", **task)
        if not table:
            print(found["about"])
            table = Table("network", "M weights", "input", "ours ms", "plain ms", "ratio", "ours MB", "plain MB")
        ours, plain = found["seconds"]
        table.row(name, found["parameters"] / 1e6, found["size"], ours * 1e3, plain * 1e3, plain / ours, *memory)


if __name__ == "__main__":
    main()

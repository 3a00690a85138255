"""Speed and memory of the networks on blocks of volumes: ``python benchmarks/blocks.py [cpu|cuda]``.

Blocks a second of a training step (16 blocks of 8 x 24 x 24, paper width), in the memory format and precision of this
project's loop and in plain PyTorch (contiguous, 32 bits), in turns; what drawing the blocks costs beside it; and time
and peak memory of a process that predicts one volume of 103 x 198 x 160 by sliding window. The window of ACDNet takes
half an hour on a processor core and runs on a graphics card only.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from npcrepro.cohorts.phantom import write_phantom
from npcrepro.cohorts.prepared import prepare
from npcrepro.losses import DistanceFocalLoss
from npcrepro.models.guo2021 import ACDNet, BUNet
from npcrepro.training import make_fabric
from npcrepro.volume_blocks import BlockData

NETWORKS = {"BUNet": lambda: BUNet(1, 2), "ACDNet": lambda: ACDNet(1, 2)}
BLOCK, BATCH = (8, 24, 24), 16
# A field that holds the whole head, so that the volume is cut to its full size.
MATRIX, SPACING_MM = (56, 260, 220), (2.0, 0.9, 0.9)
TURNS = 3


def make_data(folder: Path) -> BlockData:
    """One patient of the phantom as blocks."""
    cohort = write_phantom(folder / "cohort", patients=1, matrix=MATRIX, spacing_mm=SPACING_MM, channels=("CET1",))
    prepared = prepare(cohort, folder / "prepared")
    return BlockData(prepared, BLOCK, ("CET1",), ("GTVp",), distance_weight="core")


class Trainer:
    """A network in training, as this project's loop has it or as plain PyTorch does by default."""

    def __init__(self, name: str, device: str, plain: bool):
        fabric = make_fabric(device)
        network = NETWORKS[name]().to(fabric.device)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
        self.plain, self.device = plain, fabric.device
        if not plain:
            network, optimiser = fabric.setup(network.to(memory_format=torch.channels_last_3d), optimiser)
        self.fabric, self.network, self.optimiser, self.loss = fabric, network, optimiser, DistanceFocalLoss()

    def seconds(self, batch: tuple[torch.Tensor, ...]) -> float:
        """Of one update."""
        image, label, weight = (tensor.to(self.device) for tensor in batch)
        if not self.plain:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        start = time.perf_counter()
        loss = self.loss(self.network(image), label, weight)
        self.optimiser.zero_grad()
        loss.backward() if self.plain else self.fabric.backward(loss)
        self.optimiser.step()
        loss.item()  # waits for a graphics card
        return time.perf_counter() - start


def compare(name: str, device: str, batch: tuple[torch.Tensor, ...], turns: int = TURNS) -> None:
    """Print blocks a second of both, medians over turns."""
    trainers = [Trainer(name, device, plain) for plain in (False, True)]
    times: list[list[float]] = [[], []]
    for turn in range(turns + 1):
        for trainer, kept in zip(trainers, times, strict=True):
            seconds = trainer.seconds(batch)
            if turn:  # the first one warms up
                kept.append(seconds)
    ours, plain = (BATCH / median(kept) for kept in times)
    print(f"{name:6s} training: {ours:7.1f} blocks/s, plain PyTorch {plain:7.1f}: {ours / plain:.2f} x", flush=True)


def drawing(data: BlockData, turns: int = 50) -> None:
    """Print how long it takes to draw and cut a batch."""
    samples = data.samples(data.cohort.cases)
    start = time.perf_counter()
    for seed in range(turns):
        data.batch(data.draw(samples, BATCH, torch.Generator().manual_seed(seed)))
    print(f"drawing and cutting: {turns * BATCH / (time.perf_counter() - start):.0f} blocks/s", flush=True)


def window(name: str, folder: Path, device: str) -> None:
    """Predict the volume in a process of its own and print time and peak memory."""
    code = f"""
import resource, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import blocks, torch
from npcrepro.cohorts.prepared import read_prepared
(folder,) = (Path({str(folder)!r}) / "prepared").glob("phantom-*")
data = blocks.BlockData(read_prepared(folder), blocks.BLOCK, ("CET1",), ("GTVp",), distance_weight="core")
(case,) = data.cohort.cases
network = blocks.NETWORKS[{name!r}]().eval().to({device!r})
start = time.perf_counter()
data.predict(network, case, activation="softmax", batch_size=blocks.BATCH, device={device!r})
seconds = time.perf_counter() - start
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, seconds, *data.grid(case).size)
if torch.cuda.is_available():
    print(torch.cuda.max_memory_allocated())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    first, *more = done.stdout.splitlines()
    peak, seconds, *size = first.split()
    peak_mb = int(peak) / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere
    card = f", {int(more[0]) / 1e6:.0f} MB on the card" if more else ""
    print(f"{name:6s} sliding window over {' x '.join(size)}: {float(seconds):.0f} s, peak {peak_mb:.0f} MB{card}")


def main(device: str = "cpu") -> None:
    """Print everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder)
        samples = data.samples(data.cohort.cases)
        batch = data.batch(data.draw(samples, BATCH, torch.Generator().manual_seed(0)))
        # First, because a process hands its own peak on to those that it starts.
        for network in NETWORKS if device == "cuda" else ["BUNet"]:
            window(network, folder, device)
        drawing(data)
        for network in NETWORKS:
            compare(network, device, batch)


if __name__ == "__main__":
    main(*sys.argv[1:])

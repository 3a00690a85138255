"""Speed and memory of the networks on blocks of volumes: ``python benchmarks/blocks.py [cpu|cuda]``.

At the paper's width, on one patient of the phantom whose volume has the paper's 103 x 198 x 160 voxels:

- peak memory and time of a process that predicts the volume by sliding window, blocks overlapping by half: BUNet, and
  CSCN, which is ACDNet on the image and on BUNet's map. CSCN takes several minutes of a processor core.
- training samples a second, with their distance weights: of drawing and cutting alone, and of an update with 16 blocks
  of 8 x 24 x 24, in the memory format and precision of this project's loop and in plain PyTorch (contiguous, 32 bits),
  in turns.

It stops where the peak of a process reaches 2 GB.
"""

import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from npcrepro.cohorts.phantom import write_phantom
from npcrepro.cohorts.prepared import PreparedCohort, prepare, read_prepared
from npcrepro.papers.guo2021.losses import DistanceFocalLoss
from npcrepro.papers.guo2021.network import ACDNet, BUNet
from npcrepro.runs.devices import make_fabric
from npcrepro.runs.records import quantised
from npcrepro.sampling.blocks import BlockData

NETWORKS = {"BUNet": lambda: BUNet(1, 2), "ACDNet": lambda: ACDNet(1, 2), "CSCN": lambda: ACDNet(2, 2)}
TRAINED = ("BUNet", "ACDNet")
LIMIT_MB = 2000
BLOCK, BATCH = (8, 24, 24), 16
# A field that holds the whole head, so that the volume is cut to its full size.
MATRIX, SPACING_MM = (56, 260, 220), (2.0, 0.9, 0.9)
TURNS = 3


def make_data(folder: Path) -> BlockData:
    """One patient of the phantom as blocks; says how long the volume and its weights take, which are made once."""
    cohort = write_phantom(folder / "cohort", patients=1, matrix=MATRIX, spacing_mm=SPACING_MM, channels=("CET1",))
    data = read_data(prepare(cohort, folder / "prepared"))
    (case,) = data.cohort.case_names
    start = time.perf_counter()
    data.weight(case)
    size = " x ".join(map(str, data.grid(case).size))
    print(f"volume of {size} and its weights, once: {time.perf_counter() - start:.1f} s", flush=True)
    return data


def read_data(cohort: PreparedCohort, maps: dict[str, Path] | None = None) -> BlockData:
    """Blocks of a prepared cohort."""
    return BlockData(cohort, BLOCK, ("CET1",), ("GTVp",), maps, distance_weight="core")


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
    """Print how many training samples are drawn and cut in a second."""
    samples = data.samples(data.cohort.case_names)
    start = time.perf_counter()
    for seed in range(turns):
        data.batch(data.draw(samples, BATCH, torch.Generator().manual_seed(seed)))
    rate = turns * BATCH / (time.perf_counter() - start)
    print(f"drawing and cutting, with distance weights: {rate:.0f} blocks/s", flush=True)


def window(name: str, prepared: Path, device: str) -> None:
    """Predict the volume in a process of its own and print time and peak memory.

    Raises:
        SystemExit: the peak is `LIMIT_MB` or more.
    """
    command = [sys.executable, __file__, "predict", name, str(prepared), device]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, blocks, peak, card_mb = map(float, done.stdout.split())
    card = f", {card_mb:.0f} MB on the card" if card_mb else ""
    print(f"{name:6s} sliding window, {blocks:.0f} blocks: {seconds:.0f} s, peak {peak:.0f} MB{card}", flush=True)
    if peak >= LIMIT_MB:
        raise SystemExit(f"{name}: peak of {peak:.0f} MB; the limit is {LIMIT_MB} MB")


def predict(name: str, prepared: str, device: str) -> None:
    """Predict, in the process that `window` starts; prints seconds, blocks, and peak of the process and of the card."""
    cohort = read_prepared(Path(prepared))
    (case,) = cohort.case_names
    coarse = Path(prepared) / "coarse.npz"
    data = read_data(cohort, maps={case: coarse} if name == "CSCN" else None)
    network = NETWORKS[name]().eval().to(device)
    start = time.perf_counter()
    found = data.predict(network, case, activation="softmax", batch_size=BATCH, device=device)
    seconds = time.perf_counter() - start
    peak, card = peak_mb(), torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
    if name == "BUNet":
        np.savez_compressed(coarse, probability=quantised(found))
    print(seconds, len(data.tested(case, "axial")), peak, card)


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # the other number below would be that of the process that started this one, if it is larger
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(device: str = "cpu") -> None:
    """Print everything."""
    with tempfile.TemporaryDirectory() as name:
        data = make_data(Path(name))
        samples = data.samples(data.cohort.case_names)
        batch = data.batch(data.draw(samples, BATCH, torch.Generator().manual_seed(0)))
        drawing(data)
        for network in TRAINED:
            compare(network, device, batch)
        for network in ("BUNet", "CSCN"):  # CSCN needs the map of BUNet
            window(network, data.cohort.folder, device)


if __name__ == "__main__":
    if sys.argv[1:2] == ["predict"]:
        predict(*sys.argv[2:])
    else:
        main(*sys.argv[1:])

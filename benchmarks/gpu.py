"""What a graphics card should reach at profile paper: ``python benchmarks/gpu.py [--only NAME] [--hours FILE]``.

* ``li``, ``xue``: the training loop as it is, on phantom patients at the paper's matrix, width and batch, for one and
  for two intervals between checks. The difference, times the intervals of the whole training, is its time; meanwhile
  ``nvidia-smi`` is asked how busy the device is. All layers move all the time, which is the most that a stage asks for.
* ``patient``: a patient, two windows, through MMFNet; network alone.
* ``slice``: a slice of 512 x 512 through DeepLabv3+, in batches; network alone.
* ``--hours FILE``: an update of each of ten methods, written as the table of hours that the book shows
  (``book/results/gpu/hours.csv``), with the minutes of the trainings above, where they ran.

The patients are fewer than the papers', so that the check of one validation patient is in the time, but not of all.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

from common import Table, machine

from npcrepro.protocol import registry

BUSY_PERCENT, POLL_S = 85, 0.2
# Method, minutes allowed for the whole training of a fold, patients of the phantom.
TRAININGS = {"li": ("li2018/stepwise", 15, 6), "xue": ("xue2020/deeplabv3plus", 20, 6)}
# Method, milliseconds allowed, images of a batch, and how many of them make one patient or slice.
PASSES = {"patient": ("chen2020/mmfnet", 200, 2, 2), "slice": ("xue2020/deeplabv3plus", 1, 64, 1)}
# The networks of the papers, and those that they are compared with, whose hours the book tells.
TOLD = {
    "li2018": ["stepwise"],
    "luo2020": ["two-stage", "unet"],
    "guo2021": ["bunet", "acdnet", "vnet"],
    "chen2020": ["mmfnet", "multi-encoder"],
    "xue2020": ["deeplabv3plus", "unet"],
}


@contextmanager
def watched(busy: list[int]):
    """Gather how busy the device is, in percent, while the block runs; nothing where there is no ``nvidia-smi``."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(POLL_S):
            try:
                busy.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            except (OSError, ValueError, subprocess.CalledProcessError):
                return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def whole_training(name: str, patients: int, device: str, smoke: bool, folder: Path) -> tuple[float, list[int]]:
    """Minutes of the whole training by the time between two checks, and how busy the device was."""
    from npcrepro.cohorts.phantom import write_phantom
    from npcrepro.cohorts.prepared import prepare
    from npcrepro.runs import devices, training

    key, _, method_name = name.partition("/")
    paper = registry.load(key)
    profile, method = paper.profile("smoke" if smoke else "paper"), paper.method(method_name)
    method = replace(method, stages=(replace(method.stages[-1], share=1.0, trainable=(), patience=None),))
    options = {**profile.phantom, "patients": patients}
    cohort = prepare(write_phantom(folder / key, **options), folder / "prepared")
    method = method.on(cohort.structures)
    data = method.data.build(cohort, profile.matrix, method.channels, method.structures)
    train, validation = cohort.case_names[:-1], cohort.case_names[-1:]
    data.samples(cohort.case_names)  # slices are made before, as they are for every fold but the first
    fabric, seconds, busy = devices.make_fabric(device), [], []
    # The first call is not counted: it also looks for the fastest kernels.
    for intervals in (1, 1, 2):  # the longest last: what is watched in it is told
        size = replace(profile, updates=intervals * profile.check_every)
        asked = [method, size, data, train, validation, 0, fabric, folder / f"{key}.safetensors", lambda line: None]
        busy.clear()
        start = time.perf_counter()
        with watched(busy):
            training.train(*asked)
        seconds.append(time.perf_counter() - start)
        (folder / f"{key}.safetensors").unlink(missing_ok=True)
    return (seconds[2] - seconds[1]) * profile.updates / profile.check_every / 60, busy


def one_pass(name: str, batch: int, device: str, smoke: bool, turns: int = 20) -> float:
    """Median milliseconds of an image of a batch through a network, at the matrix and width of the paper."""
    import torch

    from npcrepro.runs.devices import make_fabric

    key, _, method = name.partition("/")
    paper = registry.load(key)
    profile, method = paper.profile("smoke" if smoke else "paper"), paper.method(method)
    batch = min(batch, profile.batch_size) if smoke else batch
    fabric = make_fabric(device)
    form = torch.channels_last if len(profile.matrix) == 2 else torch.channels_last_3d
    network = fabric.setup_module(method.build(profile.width).to(memory_format=form)).eval()
    image = torch.randn(batch, method.in_channels, *profile.matrix, device=fabric.device).contiguous(memory_format=form)
    times = []
    for turn in range(turns + 3):
        start = time.perf_counter()
        with torch.inference_mode():
            network(image).flatten()[0].item()  # waits for the card
        if turn >= 3:
            times.append(time.perf_counter() - start)
    return median(times) * 1e3 / batch


def write_hours(path: Path, device: str, smoke: bool, minutes: dict[str, float]) -> None:
    """Time an update of each method of `TOLD` with the card to itself, and write the table that the book reads.

    Args:
        path: of the CSV file.
        device: cpu or cuda.
        smoke: at the smallest profile.
        minutes: of whole trainings, by method, where they were timed.
    """
    import pandas as pd
    import torch

    from npcrepro.runs import devices, timing

    rows, fabric = [], devices.make_fabric(device)
    shared = {"device": "cpu" if smoke else torch.cuda.get_device_name(), "precision": fabric._precision.precision}
    for key, methods in TOLD.items():
        size = "smoke" if smoke else "paper"
        paper = registry.load(key).at(size)
        for method in map(paper.method, methods):
            seconds, _ = timing.seconds_of_update(method, paper.profile(size), device)
            row = {"method": f"{key}/{method.name}", "milliseconds": round(seconds * 1e3, 1)}
            row |= {"updates": round(paper.profile(size).updates * method.budget)}
            row |= {"memory_gb": 0.0 if smoke else round(torch.cuda.max_memory_allocated() / 1e9, 1)}
            row |= {"loop_minutes": round(minutes.get(row["method"], math.nan), 2), **shared}
            rows.append(row | {"torch": torch.__version__.partition("+")[0]})
    pd.DataFrame(rows).to_csv(path, index=False)


def main(arguments=None) -> None:
    """Print the table; without a CUDA device one sentence, and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*TRAININGS, *PASSES])
    parser.add_argument("--hours", type=Path, metavar="FILE", help="also time updates, and write them as CSV")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the processor, to see that all works")
    chosen = parser.parse_args(arguments)
    import torch

    if not chosen.smoke and not torch.cuda.is_available():
        sys.exit("gpu.py measures a graphics card, and torch sees no CUDA device here: nothing was measured")
    device = "cpu" if chosen.smoke else "cuda"
    print(machine() if chosen.smoke else f"{torch.cuda.get_device_name()}; {machine()}")
    table, trained = Table("target", "measured", "allowed", "unit", "reached"), {}
    with tempfile.TemporaryDirectory() as folder:
        for target in chosen.only or [*TRAININGS, *PASSES]:
            if target in PASSES:
                name, allowed, batch, images = PASSES[target]
                found = images * one_pass(name, batch, device, chosen.smoke)
                table.row(f"{target}: {name}", found, allowed, "ms", _yes(found <= allowed))
                continue
            name, allowed, patients = TRAININGS[target]
            minutes, busy = whole_training(name, patients, device, chosen.smoke, Path(folder))
            trained[name] = minutes
            table.row(f"{target}: {name}", minutes, allowed, "min", _yes(minutes <= allowed))
            if busy:
                table.row("  device busy", mean(busy), BUSY_PERCENT, "%", _yes(mean(busy) >= BUSY_PERCENT))
    if chosen.hours:
        write_hours(chosen.hours, device, chosen.smoke, trained)


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


if __name__ == "__main__":
    main()

"""Seconds of an update of a training, of a forward pass and of a whole case, measured here and now."""

import time
from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.protocol.method import Method, Profile

MEASURED = 3  # updates or passes behind a first one, which pays for memory that the others use again


def seconds_of_update(method: Method, profile: Profile, device: str) -> tuple[float, str]:
    """Seconds of an update of a method on random images, each stage by its share, and the name of the device; of a GPU
    also the memory that it took.

    The real training runs for a few updates of each stage; the median of `MEASURED` of them counts. There is no
    reading, no augmentation and no check on validation patients, and the learning rate is 0: nothing is to be learnt
    of random images, at a rate that is meant for others, until the loss is no number and the training ends.

    Returns:
        ``nan`` with the reason where the loss is no number all the same, so that there are no updates to time.
    """
    from npcrepro.runs.devices import make_fabric
    from npcrepro.runs.training import train

    fabric, generator = make_fabric(device), torch.Generator().manual_seed(0)
    shape, batch_size = method.input_shape(profile), method.batch_size or profile.batch_size
    image = torch.rand(batch_size, *shape, generator=generator)
    # A box for each structure, as scattered voxels would be thousands of instances for Mask R-CNN.
    label = torch.zeros(batch_size, len(method.structures), *shape[1:], dtype=torch.uint8)
    label[(..., *(slice(side // 3, 2 * side // 3) for side in shape[1:]))] = 1
    begun: list[float] = []

    def draw(samples: list, count: int, generator: torch.Generator) -> list:
        begun.append(time.perf_counter())
        return samples * count

    # As npcrepro.sampling.samples.Data says; the training looks at nothing else.
    data: Any = SimpleNamespace(samples=list, draw=draw, batch=lambda drawn: (image, label), finish=lambda image: image)
    on_gpu = fabric.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(fabric.device)
    updates = MEASURED + 2  # the first is left out, and nobody tells the end of the last
    profile = replace(profile, matrix=shape[1:], batch_size=batch_size, updates=updates, check_every=updates)
    seconds = 0.0
    for stage in method.stages:
        still = replace(stage.optimiser, options={**stage.optimiser.options, "lr": 0.0})
        alone = replace(method, augmentation=None, budget=1.0, stages=(replace(stage, share=1.0, optimiser=still),))
        begun.clear()
        with TemporaryDirectory() as folder:
            train(alone, profile, data, ["random"], [], 0, fabric, Path(folder) / "checkpoint", lambda line: None)
        if len(begun) < updates:
            return nan, f"not timed: the loss of stage {stage.name} is no number on random images"
        seconds += stage.share * median(np.diff(begun)[1:].tolist())
    if not on_gpu:
        return seconds, "timed, cpu"
    peak = torch.cuda.max_memory_allocated(fabric.device) / 1e9
    return seconds, f"timed, {torch.cuda.get_device_name(fabric.device)}, {peak:.1f} GB"


def seconds_of_pass(method: Method, profile: Profile, passes: int = MEASURED) -> float:
    """Seconds of a forward pass of one empty image on this processor, at a profile's width and matrix."""
    network, image = method.build(profile.width).eval(), torch.zeros(1, *method.input_shape(profile))
    seconds = []
    with torch.no_grad():
        for _ in range(passes + 1):
            started = time.perf_counter()
            network(image)
            seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


class CaseTime(NamedTuple):
    """What segmenting one case takes.

    Attributes:
        reading: seconds to open and check its files, find its body and its region, resample, and cut windows.
        network: seconds in the network.
        merging: seconds for the rest: the mean over windows, and the way back to the grid of the case.
        windows: how many the network sees.
        device: where the network ran.
    """

    reading: float
    network: float
    merging: float
    windows: int
    device: str

    @property
    def seconds(self) -> float:
        """All three together."""
        return self.reading + self.network + self.merging


def time_case(cohort: Cohort, case: str, method: Method, profile: Profile, device: str = "auto") -> CaseTime:
    """Segment a case as if it had just come in, with random weights, which take as long as trained ones.

    Args:
        cohort: of images on disk.
        method: with :class:`npcrepro.sampling.windows.WindowData`.
        profile: for the matrix, the width, and how many windows go through the network at once.
        device: auto, cpu or cuda.

    Raises:
        InputError: a case that the cohort lacks, and what `prepare` refuses.
    """
    from npcrepro.runs.devices import make_fabric

    fabric, spent = make_fabric(device), {"reading": 0.0, "network": 0.0}

    def clocked(part: str, function: Callable) -> Callable:
        def timed(*arguments, **options):
            started = time.perf_counter()
            found = function(*arguments, **options)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize(fabric.device)
            spent[part] += time.perf_counter() - started
            return found

        return timed

    network, windows = fabric.setup_module(method.build(profile.width)).eval(), []
    network.register_forward_pre_hook(lambda network, inputs: windows.append(len(inputs[0])))
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        alone = replace(cohort, cases=tuple(each for each in cohort.cases if each.name == case))
        prepared = clocked("reading", prepare)(alone, folder)
        data = clocked("reading", method.data.build)(prepared, profile.matrix, method.channels, method.structures)
        clocked("reading", data.region)(case)
        data.batch = clocked("reading", data.batch)
        options = {"activation": method.activation, "batch_size": profile.batch_size, "device": fabric.device}
        data.predict(clocked("network", network), case, **options)
        merging = time.perf_counter() - started - sum(spent.values())
    return CaseTime(**spent, merging=merging, windows=sum(windows), device=str(fabric.device))

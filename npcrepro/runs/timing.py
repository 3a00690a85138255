"""Seconds of an update of a training, of a forward pass and of a whole case, measured here and now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from npcrepro.cohorts.layout import Cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.protocol.method import Method, Profile

MEASURED = 3  # updates or passes behind a first one, which pays for memory that the others use again


def seconds_of_update(method: Method, profile: Profile, device: str) -> tuple[float, str]:
    """Seconds of an update of a method on random images, each stage by its share, and the name of the device.

    The real training runs for a few updates of each stage; the median of `MEASURED` of them counts. There is no
    reading, no augmentation and no check on validation patients.
    """
    from npcrepro.runs.devices import make_fabric
    from npcrepro.runs.training import train

    fabric, data = make_fabric(device), _RandomImages(method, profile)
    updates = MEASURED + 2  # the first is left out, and of the last nobody tells the end
    profile = replace(profile, updates=updates, check_every=updates)
    method = replace(method, augmentation=None, budget=1.0)
    seconds = 0.0
    for stage in method.stages:
        alone = replace(method, stages=(replace(stage, share=1.0),))
        data.begun.clear()
        with TemporaryDirectory() as folder:
            train(alone, profile, data, ["random"], [], 0, fabric, Path(folder) / "checkpoint", lambda line: None)
        seconds += stage.share * median(np.diff(data.begun)[1:].tolist())
    return seconds, f"timed, {torch.cuda.get_device_name(fabric.device) if fabric.device.type == 'cuda' else 'cpu'}"


class _RandomImages:
    """One batch of random images in place of a cohort (see :class:`npcrepro.sampling.samples.Data`); when each update
    began."""

    def __init__(self, method: Method, profile: Profile):
        generator = torch.Generator().manual_seed(0)
        shape = method.input_shape(profile)
        self.image = torch.rand(profile.batch_size, *shape, generator=generator)
        label = torch.rand(profile.batch_size, len(method.structures), *shape[1:], generator=generator) > 0.9
        self.label = label.to(torch.uint8)
        self.begun: list[float] = []

    def samples(self, cases: list[str]) -> list[str]:
        return cases

    def draw(self, samples: Sequence[str], count: int, generator: torch.Generator) -> list[str]:
        self.begun.append(time.perf_counter())
        return [samples[0]] * count

    def batch(self, samples: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.image, self.label

    def finish(self, image: Tensor) -> Tensor:
        return image


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

    fabric = make_fabric(device)
    network = fabric.setup_module(method.build(profile.width)).eval()
    reading, passing = _Stopwatch(fabric.device), _Stopwatch(fabric.device)
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        alone = replace(cohort, cases=tuple(each for each in cohort.cases if each.name == case))
        prepared = reading(prepare)(alone, folder)
        data = reading(method.data.build)(prepared, profile.matrix, method.channels, method.structures)
        reading(data.region)(case)
        windows, cut = [], reading(data.batch)

        def batch(samples: Sequence):
            windows.extend(samples)
            return cut(samples)

        data.batch = batch
        options = {"activation": method.activation, "batch_size": profile.batch_size, "device": fabric.device}
        data.predict(passing(network), case, **options)
        seconds = time.perf_counter() - started
    merging = seconds - reading.seconds - passing.seconds
    return CaseTime(reading.seconds, passing.seconds, merging, len(windows), str(fabric.device))


class _Stopwatch:
    """Adds up how long the functions take that it is put on; work on a graphics card is waited for."""

    def __init__(self, device: torch.device):
        self.seconds, self.device = 0.0, device

    def __call__(self, function: Callable) -> Callable:
        def timed(*arguments, **options):
            started = time.perf_counter()
            found = function(*arguments, **options)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds += time.perf_counter() - started
            return found

        return timed

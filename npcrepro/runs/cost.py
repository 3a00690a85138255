"""What runs cost: seconds of an update, of a case and of a whole sweep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from npcrepro.base.wording import plural
from npcrepro.cohorts.layout import Cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.protocol.method import Method, Profile
from npcrepro.runs.records import find
from npcrepro.runs.sweep import Sweep, methods_of

MEASURED_UPDATES = 3


@dataclass(frozen=True)
class Estimate:
    """Time of all runs of a method in a sweep.

    Attributes:
        method: its full name.
        runs, serving: number of runs, and how many of them only serve others.
        updates: of one run, where no stage ends early.
        seconds: of an update; ``nan`` where it was not measured.
        source: where that comes from.
    """

    method: str
    runs: int
    serving: int
    updates: int
    seconds: float
    source: str

    @property
    def hours(self) -> float:
        """Of all its runs together."""
        return self.runs * self.updates * self.seconds / 3600


def estimate(sweep: Sweep, *, measure: bool = False, report=print) -> list[Estimate]:
    """Time of a sweep, method by method, by what an update takes.

    The seconds of an update are those of finished runs of the same method and profile in the folder of runs, with all
    that a training does. Where there is none, and ``measure`` asks for it, a few updates of the network on random
    images are timed on the device of the settings, without reading, augmentation and checks.
    """
    rows = []
    for name, (method, profile) in methods_of(sweep).items():
        runs = [run for run in sweep.runs.values() if run.configuration.method.full_name == name]
        settings = sweep.settings[method.paper]
        seconds, source = _seconds_of_records(method, profile, settings.runs)
        if not method.stages:
            seconds, source = 0.0, "trains nothing"
        elif math.isnan(seconds) and measure:
            seconds, source = seconds_per_update(method, profile, settings.device)
            report(f"{name}: {seconds:.3g} s an update ({source})")
        serving = sum(not run.wanted for run in runs)
        rows.append(Estimate(name, len(runs), serving, runs[0].updates, seconds, source))
    return rows


def estimate_table(rows: Iterable[Estimate]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows of the estimates."""
    cells = [
        (row.method, f"{row.runs}", f"{row.serving}", f"{row.updates:,}", *_figures(row), row.source or "not measured")
        for row in rows
    ]
    return ["method", "runs", "for others", "updates", "s an update", "hours", "measured by"], cells


def _figures(row: Estimate) -> tuple[str, str]:
    return ("", "") if math.isnan(row.seconds) else (f"{row.seconds:.3g}", f"{row.hours:.3g}")


def estimate_in_words(rows: Sequence[Estimate]) -> str:
    """The sums, and what is not in them."""
    known = [row for row in rows if row.seconds > 0]
    runs, serving = (sum(getattr(row, name) for row in rows) for name in ("runs", "serving"))
    said = f"{plural(runs, 'run')}, of which {serving} only serve others"
    if known:
        said += f"; {sum(row.hours for row in known):.3g} hours for {sum(row.runs for row in known)} of them"
    missing = sum(row.runs for row in rows if math.isnan(row.seconds))
    return said + (f"; {plural(missing, 'run')} without a measured update (--measure times them)" if missing else "")


def _seconds_of_records(method: Method, profile: Profile, runs: str) -> tuple[float, str]:
    found, devices = [], set()
    for record in find(runs, paper=method.paper, method=method.name, profile=profile.name):
        updates = record.history.groupby("stage")["update"].max().sum() if len(record.history) else 0
        if updates and record.provenance["status"] == "trained":
            found.append(record.provenance["seconds"]["train"] / updates)
            devices.add(record.provenance["device"])
    return (fmean(found), f"records, {', '.join(sorted(devices))}") if found else (math.nan, "")


def seconds_per_update(method: Method, profile: Profile, device: str) -> tuple[float, str]:
    """Seconds of an update of a method's network on random images, by stage and share, and the device's name.

    The median of `MEASURED_UPDATES` updates behind a first one, with loss, backward pass and optimiser, in the memory
    format and with the frozen layers of a training.
    """
    import torch

    from npcrepro.runs import devices, training

    fabric = devices.make_fabric(device)
    network = training.build_network(method, profile, seed=0)
    memory_format = devices.memory_format_of(network, len(profile.matrix))
    network = network.to(fabric.device, memory_format=memory_format)
    generator = torch.Generator().manual_seed(0)
    shape = method.input_shape(profile)
    image = fabric.to_device(torch.rand(profile.batch_size, *shape, generator=generator))
    image = image.contiguous(memory_format=memory_format)
    label = torch.rand(profile.batch_size, len(method.structures), *shape[1:], generator=generator) > 0.9
    label = fabric.to_device(label.to(torch.uint8))
    seconds = 0.0
    for stage in method.stages:
        loss_function = stage.loss.build() if stage.loss else None
        trainable = training._free(network, stage)
        module = fabric.setup_module(network)
        optimiser = fabric.setup_optimizers(stage.optimiser.build(list(trainable.values())))
        times = []
        for _ in range(1 + MEASURED_UPDATES):
            start = time.perf_counter()
            if loss_function:
                loss = loss_function(module(image, **stage.forward), label)
            else:
                loss = module(image, label, **stage.forward)
            optimiser.zero_grad()
            fabric.backward(loss)
            optimiser.step()
            loss.item()  # waits for the device
            times.append(time.perf_counter() - start)
        seconds += stage.share * median(times[1:])
    name = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else "cpu"
    return seconds, f"timed, {name}"


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
        case: its name.
        method: with `WindowData`.
        profile: for the matrix, the width, and how many windows go through the network at once.
        device: auto, cpu or cuda.

    Raises:
        InputError: a case that the cohort lacks, and what `prepare` refuses.
    """
    # What trains networks takes long to import, and nothing else here needs it.
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
        data.batch = reading(data.batch)
        options = {"activation": method.activation, "batch_size": profile.batch_size, "device": fabric.device}
        data.predict(passing(network), case, **options)
        seconds = time.perf_counter() - started
        windows = len(data._starts(data._depth(case)))
    merging = seconds - reading.seconds - passing.seconds
    return CaseTime(reading.seconds, passing.seconds, merging, windows, str(fabric.device))


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

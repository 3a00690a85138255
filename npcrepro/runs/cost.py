"""Hours of a sweep, from what an update took in finished runs or takes on this machine."""

from collections.abc import Iterable, Sequence
from math import isnan, nan
from statistics import fmean
from typing import NamedTuple

from npcrepro.base.wording import in_words, plural
from npcrepro.cohorts import public
from npcrepro.protocol.method import Method, Profile
from npcrepro.protocol.settings import Settings
from npcrepro.runs.records import find
from npcrepro.runs.sweep import RESOURCES, Sweep


class Estimate(NamedTuple):
    """Time of all runs of a method in a sweep.

    Attributes:
        method: its full name.
        runs, serving: number of runs, and how many of them only serve others.
        updates: of one run, where no stage ends early.
        seconds: of an update; ``nan`` where it was not measured.
        source: where that comes from, or why there is nothing.
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
    that a training does. Where there is none, and ``measure`` asks for it, they are measured on the device of the
    settings by :func:`npcrepro.runs.timing.seconds_of_update`.
    """
    rows = []
    for name, runs in sweep.methods.items():
        method, profile = runs[0].method, runs[0].profile
        settings = sweep.settings[method.paper]
        seconds, source = _seconds_of_records(method, profile, settings.runs)
        if not method.stages:
            seconds, source = 0.0, "trains nothing"
        elif isnan(seconds) and measure:
            from npcrepro.runs.timing import seconds_of_update

            seconds, source = seconds_of_update(method, profile, settings.device)
            report(f"{name}: {source if isnan(seconds) else f'{seconds:.3g} s an update ({source})'}")
        serving = sum(run.place not in sweep.wanted for run in runs)
        rows.append(Estimate(name, len(runs), serving, runs[0].updates, seconds, source))
    return rows


def _seconds_of_records(method: Method, profile: Profile, runs: str) -> tuple[float, str]:
    found, devices = [], set()
    for record in find(runs, paper=method.paper, method=method.name, profile=profile.name):
        if record.updates and record.provenance["status"] == "trained":
            found.append(record.provenance["seconds"]["all"] / record.updates)
            mib = record.provenance.get("peak_gpu_memory_mib")
            devices.add(record.provenance["device"] + (f", {mib * 2**20 / 1e9:.1f} GB" if mib else ""))
    return (fmean(found), f"records, {', '.join(sorted(devices))}") if found else (nan, "")


def estimate_table(rows: Iterable[Estimate]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows of the estimates."""
    cells = []
    for row in rows:
        known = ["" if isnan(number) else f"{number:.3g}" for number in (row.seconds, row.hours)]
        source = row.source or "not measured"
        cells.append((row.method, f"{row.runs}", f"{row.serving}", f"{row.updates:,}", *known, source))
    return ["method", "runs", "for others", "updates", "s an update", "hours", "measured by"], cells


def estimate_in_words(rows: Sequence[Estimate]) -> str:
    """The sums, and what is not in them."""
    known, missing = [row for row in rows if row.seconds > 0], sum(row.runs for row in rows if isnan(row.seconds))
    runs, serving = (sum(getattr(row, name) for row in rows) for name in ("runs", "serving"))
    said = f"{plural(runs, 'run')}, of which {serving} only serve others"
    if known:
        said += f"; {sum(row.hours for row in known):.3g} hours for {sum(row.runs for row in known)} of them"
    return said + (f"; {plural(missing, 'run')} without a measured update (--measure times them)" if missing else "")


def needs_in_words(settings: Settings) -> list[str]:
    """What a sweep needs beside hours: memory by its profile, and the disk for a public set that is not there yet."""
    memory_mb, minutes = RESOURCES[settings.profile]
    said = [
        f"memory: {memory_mb / 1000:.0f} GB for each run at a time; a job of a cluster has {minutes / 60:g} hours, "
        "after which it goes on in the next one"
    ]
    found = public.outlook(settings.cohort)
    if found:
        parts = {what: round(gigabytes) for what, gigabytes in found.gigabytes().items()}
        each = in_words([f"{what} {gigabytes} GB" for what, gigabytes in parts.items()])
        slices, rows, columns = found.shape
        said.append(
            f"disk: {sum(parts.values())} GB, if series have {slices} slices of {rows} x {columns}: {each}; weights, "
            "predictions and nnU-Net's arrays of each fold come on top"
        )
    return said

"""Time against patients, slices, folds and workers; memory against patients: ``python benchmarks/scaling.py``.

Runs of one small network (Li et al. 2018) on phantom cohorts, each from images to record: cohort checked and prepared,
slices cut, a fixed number of updates, the test patient predicted and scored. Imports are not in the times. Each row is
a process of its own with one thread; workers are several such processes that share a run folder, as on a cluster.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from common import Table, in_child, machine, peak_mb, result, start_child

THREADS = 1


def child(cohort: str, write: dict | None = None, **task) -> dict:
    """Write a phantom cohort with these options, or run folds of one."""
    if not write:
        return _run(cohort, **task)
    from npcrepro.cohorts.phantom import write_phantom

    write_phantom(cohort, **write, channels=("CET1",))
    return {}


def _run(cohort: str, runs: str, folds: list[int], updates: int, side: int) -> dict:
    """Import everything, say so, and run the folds once a line comes in."""
    from dataclasses import replace

    # None of them is to be in the time; the first two come with the first score and the first optimiser.
    import monai.metrics.utils  # noqa: F401
    import torch._dynamo  # noqa: F401

    import npcrepro.runs.evaluation
    import npcrepro.runs.training  # noqa: F401
    from npcrepro.protocol import registry
    from npcrepro.protocol.settings import Settings
    from npcrepro.runs import queue as queue_module

    queue_module.POLL_SECONDS = 0.1
    paper = registry.load("li2018")
    size = replace(paper.profile("smoke"), matrix=(side, side), updates=updates, check_every=updates)
    paper = replace(paper, profiles=(size,))
    asked = {"profile": "smoke", "methods": ("linear-one-shot",), "device": "cpu", "folds": tuple(folds)}
    about = machine()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    queue_module.run_paper(paper, Settings(cohort=cohort, runs=runs, **asked), report=lambda line: None)
    return {"seconds": time.perf_counter() - start, "mb": peak_mb(), "about": about}


def measure(workers: int = 1, **task) -> dict:
    """Wall seconds from the moment when all workers are ready to the end of the last, and the largest peak."""
    processes = [start_child("scaling", THREADS, **task) for _ in range(workers)]
    for process in processes:
        if process.stdout.readline() != "ready\n":
            raise SystemExit("a measuring process ended before its work")
    start = time.perf_counter()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [result(process) for process in processes]
    return {"seconds": time.perf_counter() - start, "mb": max(one["mb"] for one in found), "about": found[0]["about"]}


class Bench:
    """Cohorts and runs in one folder, each cohort made once."""

    def __init__(self, folder: Path, side: int, updates: int):
        self.folder, self.side, self.updates, self.number = folder, side, updates, 0

    def task(self, patients: int, slices: int, folds: tuple[int, ...] = (0,)) -> dict:
        """A run folder of its own, and what is to be run in it."""
        cohort = self.folder / f"cohort-{patients}-{slices}"
        if not cohort.exists():
            write = {"patients": patients, "matrix": (slices, self.side, self.side)}
            in_child("scaling", cohort=str(cohort), write=write)
        self.number += 1
        runs = str(self.folder / f"runs-{self.number}")
        return {"cohort": str(cohort), "runs": runs, "folds": folds, "updates": self.updates, "side": self.side}


def sizes(bench: Bench, patients: list[int], slices: list[int], folds: list[int]) -> None:
    """Rows that change one number each; the first of a kind is what the others are compared with."""
    kinds = {
        "patients": [(n, bench.task(n, slices[0])) for n in patients],
        "slices of a patient": [(n, bench.task(patients[0], n)) for n in slices],
        "folds": [(n, bench.task(patients[0], slices[0], tuple(range(n)))) for n in folds],
    }
    table = None
    for kind, tasks in kinds.items():
        first = None
        for number, task in tasks:
            found = measure(**task)
            first = first or (number, found["seconds"], found["mb"])
            if not table:
                print(found["about"])
                table = Table("changed", "number", "seconds", "x time", "x number", "peak MB", "x memory")
            times = found["seconds"] / first[1], number / first[0]
            table.row(kind, number, found["seconds"], *times, f"{found['mb']:.0f}", found["mb"] / first[2])


def workers(bench: Bench, folds: int, slices: int, counts: list[int]) -> None:
    """The same folds by one worker and by several; cohort and slices are there before, from another fold."""
    table = Table("workers", "folds", "seconds", "speed-up")
    first = None
    for count in counts:
        task = bench.task(folds + 1, slices)
        measure(**task)
        found = measure(count, **(task | {"folds": list(range(1, folds + 1))}))
        first = first or found["seconds"]
        table.row(count, folds, found["seconds"], first / found["seconds"])


def main(arguments=None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--slices", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="at most as many as there are cores")
    parser.add_argument("--shared", type=int, default=8, help="folds that the workers share")
    parser.add_argument("--side", type=int, default=96, help="pixels of a slice")
    parser.add_argument("--updates", type=int, default=300)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen.side, chosen.updates)
        sizes(bench, chosen.patients, chosen.slices, chosen.folds)
        workers(bench, chosen.shared, chosen.slices[0], chosen.workers)


if __name__ == "__main__":
    main()

"""What the benchmarks share: a line about the machine, tables, processes of their own, and medians."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median


def machine() -> str:
    """Processor, its instructions for bf16, and threads of PyTorch."""
    import torch

    has = torch.cpu.get_capabilities()
    bf16 = "AMX" if has.get("amx_bf16") else "AVX-512" if has.get("avx512_bf16") else "none"
    return f"{_processor()}, {os.cpu_count()} cores, bf16 instructions: {bf16}; torch {torch.__version__}, {_threads()}"


def _threads() -> str:
    import torch

    threads = torch.get_num_threads()
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def _processor() -> str:
    import platform

    known = Path("/proc/cpuinfo")
    if known.exists():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class Table:
    """Rows printed one by one below a header; the first column is text, the others stand to the right."""

    def __init__(self, *header: str, first: int = 28):
        self.widths = [first, *(max(9, len(name)) for name in header[1:])]
        self.row(*header)

    def row(self, *cells) -> None:
        texts = [format(cell, ".2f") if isinstance(cell, float) else str(cell) for cell in cells]
        padded = [texts[0].ljust(self.widths[0]), *(t.rjust(w) for t, w in zip(texts[1:], self.widths[1:]))]
        print("  ".join(padded), flush=True)


def in_turns(works, turns: int) -> list[float]:
    """Median seconds of each piece of work, done in turns so that a change of the machine meets all of them."""
    times = [[] for _ in works]
    for turn in range(turns + 1):
        for work, kept in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            if turn:  # the first one warms up
                kept.append(time.perf_counter() - start)
    return [median(kept) for kept in times]


def start_child(script: str, threads: int | None = None, **task) -> subprocess.Popen:
    """A process that calls ``child(**task)`` of a benchmark and prints what it returns as JSON."""
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    code = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {script};"
        f"print(json.dumps({script}.child(**json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(task)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=environment)


def result(process: subprocess.Popen):
    """What the child has returned; an error in it ends the benchmark, or a row of one that catches `SystemExit`."""
    out, _ = process.communicate()
    status = process.returncode
    if status:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise SystemExit(f"a measuring process {how}")
    return json.loads(out.splitlines()[-1])


def in_child(script: str, **task):
    return result(start_child(script, **task))


def peak_mb() -> float:
    """Largest resident memory of this process so far; one that starts it hands its own peak on, so keep that small."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere

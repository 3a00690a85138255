"""Time of MMFNet for a patient at the paper's size: ``python benchmarks/patient.py [FOLDER] [cpu|cuda]``.

Seconds from the files to the mask, and the shares of reading (files, body, region, windows), of the network and of
merging (mean over windows, back to the grid), window by window, for the first patients of a cohort in the nnU-Net raw
layout, with all of its series; without a folder, of the phantom in three series. Weights are random: they take as long
as trained ones. Chen 2020 prints about 9 s.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.phantom import write_phantom
from npcrepro.protocol import registry
from npcrepro.runs.timing import time_case

PATIENTS = 3
# About as many slices as a scan of the nasopharynx, in the paper's pixels.
MATRIX, SPACING_MM = (28, 448, 448), (4.0, 0.5, 0.5)


def measure(cohort: Cohort, device: str) -> None:
    """Print a line for each of the first patients, and the medians over them."""
    paper = registry.load("chen2020", cohort.channels)
    size = replace(paper.profile("paper"), batch_size=1)
    (method, *_), totals = paper.methods, []
    print(f"{method.title} on {', '.join(method.channels)}, windows of {' x '.join(map(str, size.matrix))}")
    for case in cohort.cases[:PATIENTS]:
        found = time_case(cohort, case.name, method, size, device)
        parts = {"reading": found.reading, "network": found.network, "merging": found.merging}
        shares = ", ".join(f"{name} {seconds:.2f} s ({seconds / found.seconds:.0%})" for name, seconds in parts.items())
        print(f"{case.name}: {found.seconds:.2f} s on {found.device}, {found.windows} windows: {shares}", flush=True)
        totals.append(found.seconds)
    print(f"median of {len(totals)} patients: {median(totals):.2f} s")


def main(*arguments: str) -> None:
    """Print everything."""
    device = next((each for each in arguments if each in ("cpu", "cuda")), "cpu")
    folders = [each for each in arguments if each != device]
    if folders:
        measure(read_cohort(folders[0]), device)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "phantom"
        measure(write_phantom(folder, patients=PATIENTS, matrix=MATRIX, spacing_mm=SPACING_MM), device)


if __name__ == "__main__":
    main(*sys.argv[1:])

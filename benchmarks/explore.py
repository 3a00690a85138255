"""Milliseconds for a step of the live explorer: ``python benchmarks/explore.py``.

A patient of the phantom and three methods, which are the reference blurred and moved. A step is what happens between
the move of a slider and the bytes that leave for the browser: the picture as a PNG, and the table with DSC and volume
of the whole case. HD95 is measured when a slider rests, and has a row of its own, for all three methods together.
"""

import argparse
import time
from dataclasses import replace
from itertools import cycle
from statistics import median

import numpy as np
from common import Table, machine
from npcrepro.book.explorer.studies import STEPS, CaseData, Found
from npcrepro.book.html.parts import data_uri
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

from npcrepro.book.explorer.picture import View, numbers, picture
from npcrepro.cohorts.phantom import make_patient

SIZE, SMOKE = (20, 256, 256), (8, 48, 48)
COLOURS = {"one": "#56B4E9", "two": "#009E73", "three": "#CC79A7"}
THRESHOLDS = np.linspace(0.02, 0.98, 49)


def make_case(matrix: tuple[int, int, int]) -> CaseData:
    """A patient whose tumour three methods have found, each a little beside it and with a soft edge."""
    patient = make_patient(0, matrix=matrix)
    reference = patient.masks["GTVp"]
    found = {}
    for number, name in enumerate(COLOURS):
        moved = shift(reference.astype(np.float32), (0, number, number), order=0)
        steps = np.rint(gaussian_filter(moved, (0.5, 2, 2)) * STEPS).astype(np.uint8)
        found[name] = Found(steps, reference, patient.spacing_mm)
    series = {"T1": patient.image[0].astype(np.float32)}
    return CaseData("phantom", series, reference, found, patient.spacing_mm)


def start(case: CaseData, plane: str, mode: str) -> View:
    """All methods on the largest slice."""
    names = tuple(COLOURS)
    return View(plane, case.largest(plane), "T1", *case.limits("T1"), mode, names, names[0], names[1])


def step_ms(case: CaseData, views: list[View], turns: int) -> tuple[float, float]:
    """Milliseconds of a step through these views: the median, and the slowest one of all."""
    times = []
    for _, view in zip(range(turns * len(views)), cycle(views), strict=False):
        start = time.perf_counter()
        data_uri(Image.fromarray(picture(case, view, COLOURS)).save, "png", compress_level=1)
        numbers(case, view, distances=False)
        times.append(time.perf_counter() - start)
    return 1000 * median(times), 1000 * max(times)


def hd95_ms(case: CaseData) -> tuple[float, float]:
    """Milliseconds to measure HD95 of all methods at a threshold: the median, and the slowest one of all."""
    case.found["one"].hd95_mm(0.005)  # reads the tables of surface elements
    times = []
    for threshold in THRESHOLDS:
        start = time.perf_counter()
        for found in case.found.values():
            found.hd95_mm(threshold)
        times.append(time.perf_counter() - start)
    return 1000 * median(times), 1000 * max(times)


def main(arguments=None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="through all thresholds, and through all slices")
    parser.add_argument("--smoke", action="store_true", help="a tiny patient, to see that all works")
    chosen = parser.parse_args(arguments)
    matrix = SMOKE if chosen.smoke else SIZE
    print(machine())
    case = make_case(matrix)
    print(f"{' x '.join(map(str, matrix))}, {len(case.found)} methods, tumour of {case.reference_ml:.0f} ml")
    table = Table("step", "median ms", "slowest ms", first=34)
    for plane, mode in (
        ("axial", "contours"),
        ("axial", "errors"),
        ("axial", "side by side"),
        ("sagittal", "contours"),
    ):
        view = start(case, plane, mode)
        moves = {
            "threshold": [replace(view, threshold=float(threshold)) for threshold in THRESHOLDS],
            "slice": [replace(view, slice=number) for number in range(case.slices(plane))],
        }
        for name, views in moves.items():
            table.row(f"{name}, {plane}, {mode}", *step_ms(case, views, chosen.turns))
    table.row("HD95, when a slider rests", *hd95_ms(case))


if __name__ == "__main__":
    main()

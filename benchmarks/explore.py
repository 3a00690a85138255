"""Milliseconds for a step of the live explorer: ``python benchmarks/explore.py``.

A patient of the phantom and three methods, which are the reference blurred and moved. A step is what happens between
the move of a slider and the bytes that leave for the browser: the picture as a PNG, and the table with DSC and volume
of the whole case. HD95 is measured once for each threshold, so that it is part of a step of the threshold alone.
"""

import argparse
import time
from dataclasses import replace
from itertools import cycle
from statistics import median

import numpy as np
from common import Table, machine
from scipy.ndimage import gaussian_filter, shift

from npcrepro.book.explorer.picture import CaseData, View, image_html, numbers_html
from npcrepro.book.figures.slices import PLANES, largest_slices
from npcrepro.book.html.volume_files import STEPS
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
        found[name] = np.rint(gaussian_filter(moved, (0.5, 2, 2)) * STEPS).astype(np.uint8)
    series, titles = {"T1": patient.image[0].astype(np.float32)}, {name: name for name in COLOURS}
    return CaseData("phantom", series, reference, found, patient.spacing_mm, False, titles, COLOURS)


def start(case: CaseData, plane: str, mode: str) -> View:
    """All methods on the largest slice."""
    low, high = (float(end) for end in np.percentile(case.series["T1"], (0.5, 99.5)))
    names, place = tuple(COLOURS), largest_slices(case.reference)[PLANES.index(plane)]
    return View(plane, place, "T1", (low + high) / 2, high - low, mode, names, names[0], names[1])


def step_ms(case: CaseData, views: list[View], turns: int) -> tuple[float, float]:
    """Milliseconds of a step through these views: the median, and the slowest one of all."""
    times = []
    for _, view in zip(range(turns * len(views)), cycle(views), strict=False):
        begun = time.perf_counter()
        image_html(case, view)
        numbers_html(case, view)
        times.append(time.perf_counter() - begun)
    return 1000 * median(times), 1000 * max(times)


def main(arguments=None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="through all slices; thresholds are gone through once")
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
        view, fresh = start(case, plane, mode), replace(case)
        gone_through = THRESHOLDS[::16] if chosen.smoke else THRESHOLDS
        thresholds = [replace(view, threshold=float(threshold)) for threshold in gone_through]
        table.row(f"threshold, {plane}, {mode}", *step_ms(fresh, thresholds, 1))
        slices = [replace(view, slice=number) for number in range(case.reference.shape[PLANES.index(plane)])]
        table.row(f"slice, {plane}, {mode}", *step_ms(fresh, slices, chosen.turns))


if __name__ == "__main__":
    main()

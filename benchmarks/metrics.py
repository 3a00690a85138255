"""Speed and memory of the metrics: ``python benchmarks/metrics.py [FOLDER]``.

The whole panel (overlap, and distances under both conventions) against MONAI's separate calls, and the distances of one
convention against SciPy's distance transforms: medians of processor time over turns. Then all organs of one CT on two
threads, and peak memory. FOLDER (see benchmarks/agreement.py) adds real pairs.
"""

import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from npcrepro.metrics.overlap import METRICS, count
from npcrepro.metrics.panel import measure
from npcrepro.metrics.surface import surface_distances

SPACING_MM = (3.0, 0.54, 0.54)
# Name: shape, radii of an ellipsoid in mm, offset of the other in mm.
SOLIDS = {
    "17 k of 24 x 320 x 320": ((24, 320, 320), (15.5, 14.0, 17.0), 3.4),
    "60 k of 120 x 512 x 512": ((120, 512, 512), (22.0, 22.0, 24.0), 4.0),
    "2.2 M of 120 x 512 x 512": ((120, 512, 512), (75.0, 75.0, 80.0), 7.0),
}
ORGANS, CT_SHAPE, CT_SPACING_MM = 45, (130, 512, 512), (3.0, 0.98, 0.98)
TURNS = 3


def ellipsoid(shape, spacing_mm, centre_mm, radii_mm):
    """True inside; lengths in mm from the first voxel."""
    squares = [
        ((np.arange(n) * s - c) / r) ** 2 for n, s, c, r in zip(shape, spacing_mm, centre_mm, radii_mm, strict=True)
    ]
    plane = squares[1][:, None] + squares[2]
    return np.stack([height + plane <= 1 for height in squares[0]])  # slice by slice, for the memory


def two_ellipsoids(shape, radii_mm, offset_mm):
    """Prediction and reference, in the middle of the image."""
    centre = np.array(shape) * SPACING_MM / 2
    moved = centre + np.array((3.0, offset_mm / 2, offset_mm / 2))
    return (
        ellipsoid(shape, SPACING_MM, centre, radii_mm),
        ellipsoid(shape, SPACING_MM, moved, np.array(radii_mm) * 1.03),
    )


def panel(prediction, reference, spacing_mm):
    """Everything that a row of cases.csv holds."""
    counts = count(prediction, reference)
    return {name: getattr(counts, name) for name in METRICS} | measure(prediction, reference, spacing_mm)


def panel_of_monai(prediction, reference, spacing_mm):
    """What MONAI has of it, each number by its own call: no area-weighted distances but NSD."""
    import torch
    from monai import metrics

    tensors = [torch.from_numpy(m)[None, None] for m in (prediction, reference)]
    given = {"include_background": True, "spacing": [float(s) for s in spacing_mm]}
    distance, surface_dice = metrics.compute_average_surface_distance, metrics.compute_surface_dice
    yield metrics.compute_dice(*(t.float() for t in tensors))
    yield metrics.compute_iou(*(t.float() for t in tensors))
    yield metrics.get_confusion_matrix(*(t.float() for t in tensors))
    yield metrics.compute_hausdorff_distance(*tensors, **given)
    yield metrics.compute_hausdorff_distance(*tensors, percentile=95, **given)
    yield distance(*tensors, symmetric=True, **given)
    yield distance(*tensors, **given)  # the mean of the two directed means takes both
    yield distance(*tensors[::-1], **given)
    for tolerance in (1.0, 2.0):
        yield surface_dice(*tensors, [tolerance], **given)
        yield surface_dice(*tensors, [tolerance], use_subvoxels=True, **given)


def distances_by_scipy(prediction, reference, spacing_mm):
    """Border distances both ways by two distance transforms, in the joint box."""
    either = np.nonzero(prediction | reference)
    box = tuple(slice(max(int(i.min()) - 1, 0), int(i.max()) + 2) for i in either)
    first, second = (mask[box] & ~binary_erosion(mask[box]) for mask in (prediction, reference))
    return (
        distance_transform_edt(~second, sampling=spacing_mm)[first],
        distance_transform_edt(~first, sampling=spacing_mm)[second],
    )


def seconds(work, *arguments):
    """Processor time of one call, to which other work on the machine adds little."""
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


WORKERS = {
    "panel": panel,
    "MONAI": lambda *pair: list(panel_of_monai(*pair)),
    "distances": surface_distances,
    "SciPy": distances_by_scipy,
}


def compare(name, pairs, turns=TURNS):
    """Print medians over turns, summed over pairs; turns of one pair follow each other closely."""
    times = []
    for pair in pairs:
        of_turns = [[seconds(work, *pair) for work in WORKERS.values()] for _ in range(turns)]
        times.append(np.median(of_turns, axis=0))
    times = np.array(times)
    ours, monai, distances, scipy = times.sum(axis=0)
    print(
        f"{name:26s} panel {ours * 1e3:7.1f} ms, MONAI {monai * 1e3:8.1f} ms: {monai / ours:5.1f} x;"
        f"  distances {distances * 1e3:7.1f} ms, SciPy {scipy * 1e3:8.1f} ms: {scipy / distances:5.1f} x",
        flush=True,
    )
    return times


def organs():
    """Two label maps with organs from the size of a lens to that of a brain, the second moved by a voxel or two."""
    rng = np.random.default_rng(0)
    labels = np.zeros((2, *CT_SHAPE), dtype=np.uint8)
    field = np.array(CT_SHAPE) * CT_SPACING_MM
    radii_mm = np.sort(np.append(rng.uniform(4, 25, ORGANS - 2), (60, 75)))[::-1]
    for organ, radius in enumerate(radii_mm, 1):
        centre = rng.uniform(0.3, 0.7, 3) * field
        for observer in range(2):
            moved = centre + observer * rng.normal(0, 1.5, 3)
            labels[observer][ellipsoid(CT_SHAPE, CT_SPACING_MM, moved, radius * np.array([1.1, 1.0, 0.9]))] = organ
    return labels


def all_organs(labels, threads=2):
    """The panel of every organ of two label maps."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda k: panel(labels[0] == k, labels[1] == k, CT_SPACING_MM), range(1, ORGANS + 1)))


def peak_memory_mb(work):
    """Largest resident memory of a process of its own, which imports, makes the masks and measures them."""
    code = (
        f"import sys, resource; sys.path.insert(0, {str(Path(__file__).parent)!r}); import metrics as m; {work};"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(result.stdout) / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere


def main(folder=None):
    """Print everything; real pairs only with a folder."""
    warnings.simplefilter("ignore")
    # First, because a process hands its own peak on to those that it starts.
    largest = 'm.panel(*m.two_ellipsoids(*m.SOLIDS["2.2 M of 120 x 512 x 512"]), m.SPACING_MM)'
    print(f"peak memory of the largest pair: {peak_memory_mb(largest):.0f} MB", flush=True)
    print(f"peak memory of all organs: {peak_memory_mb('m.all_organs(m.organs())'):.0f} MB", flush=True)
    list(panel_of_monai(*two_ellipsoids((4, 9, 9), (4.0, 1.0, 1.0), 0.5), SPACING_MM))  # imports are not timed
    for name, (shape, radii_mm, offset_mm) in SOLIDS.items():
        compare(name, [(*two_ellipsoids(shape, radii_mm, offset_mm), SPACING_MM)])
    labels = organs()
    start = time.perf_counter()
    processor = seconds(all_organs, labels)
    wall = time.perf_counter() - start
    print(f"{ORGANS} organs of a CT of {CT_SHAPE}, two threads: {wall:.2f} s, processor {processor:.2f} s", flush=True)
    if folder:
        from agreement import pairs

        real = [pair for _, *pair in pairs(Path(folder))]
        voxels = sorted(int(reference.sum()) for _, reference, _ in real)
        print(f"{len(real)} real pairs, {voxels[0]} to {voxels[-1]} voxels, median {voxels[len(voxels) // 2]}")
        times = compare("all real pairs", real, turns=1)
        ratios = times[:, 1] / times[:, 0]
        print(f"MONAI / panel of one pair: {min(ratios):.1f} to {max(ratios):.1f}, median {median(ratios):.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])

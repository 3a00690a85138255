"""Agreement of the metrics with MONAI and SciPy on real pairs: ``python benchmarks/agreement.py FOLDER``.

FOLDER holds the same structures drawn by two observers, ``<observer>/<case>/<structure>.nii.gz``. Prints the largest
difference of each number over all pairs, against MONAI's functions and against slow references of SciPy's distance
transform and MONAI's surface elements.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from monai.metrics import get_confusion_matrix as confusion_matrix
from monai.metrics.utils import get_mask_edges
from scipy.ndimage import distance_transform_edt

from npcrepro.cohorts.images import read_image
from npcrepro.metrics.overlap import count
from npcrepro.metrics.surface import surface_distances

TOLERANCES_MM = (1.0, 2.0, 3.0)


def pairs(folder: Path):
    """Name, two masks and spacing of every structure that both observers drew."""
    first, second = sorted(path for path in folder.iterdir() if path.is_dir())
    for path in sorted(first.glob("*/*.nii.gz")):
        name = path.relative_to(first)
        if (second / name).exists():
            (prediction, spacing_mm, _), (reference, _, _) = read_image(path), read_image(second / name)
            yield str(name), prediction > 0, reference > 0, spacing_mm


def directed(start, target, spacing_mm):
    """Distances by the distance transform of SciPy."""
    return distance_transform_edt(~target, sampling=spacing_mm)[start]


def first_that_holds(distances, sizes, share):
    order = np.argsort(distances, kind="stable")
    held = np.cumsum(sizes[order]) / sizes.sum()
    return distances[order][np.flatnonzero(held >= share - 1e-6)[0]]


def references(prediction, reference, spacing_mm):
    """Every number as others compute it: {name: value}."""
    tensors = [torch.from_numpy(m.astype(np.float32))[None, None] for m in (prediction, reference)]
    given = {"include_background": True, "spacing": list(spacing_mm)}
    numbers = dict(zip(("tp", "fp", "tn", "fn"), confusion_matrix(*tensors)[0, 0].tolist()))
    direct = (prediction & reference, prediction & ~reference, ~prediction & ~reference, ~prediction & reference)
    numbers |= {f"{name} direct": int(m.sum()) for name, m in zip(("tp", "fp", "tn", "fn"), direct)}
    numbers["voxel hd, MONAI"] = compute_hausdorff_distance(*tensors, **given).item()
    numbers["voxel hd95, MONAI (ranks in single precision)"] = compute_hausdorff_distance(
        *tensors, percentile=95, **given
    ).item()
    numbers["voxel assd, MONAI"] = compute_average_surface_distance(*tensors, symmetric=True, **given).item()
    numbers["voxel directed mean, MONAI"] = compute_average_surface_distance(*tensors, **given).item()
    for tolerance in TOLERANCES_MM:
        for convention in ("voxel", "surfel"):
            theirs = compute_surface_dice(*tensors, [tolerance], use_subvoxels=convention == "surfel", **given)
            numbers[f"{convention} nsd {tolerance:.0f} mm, MONAI"] = theirs.item()
    edges = get_mask_edges(prediction, reference)
    both = [directed(*edges, spacing_mm), directed(*edges[::-1], spacing_mm)]
    numbers["voxel hd, SciPy"] = max(d.max() for d in both)
    numbers["voxel hd95, SciPy"] = max(np.percentile(d, 95) for d in both)
    numbers["voxel hd95 pooled, SciPy"] = np.percentile(np.concatenate(both), 95)
    numbers["voxel assd, SciPy"] = np.concatenate(both).mean()
    numbers["voxel masd, SciPy"] = np.mean([d.mean() for d in both])
    *edges, first, second = (np.asarray(part) for part in get_mask_edges(prediction, reference, spacing=spacing_mm))
    sizes = [first[edges[0]].astype(float), second[edges[1]].astype(float)]
    both = [directed(*edges, spacing_mm), directed(*edges[::-1], spacing_mm)]
    means = [np.average(d, weights=s) for d, s in zip(both, sizes)]
    numbers["surfel hd95, SciPy"] = max(first_that_holds(d, s, 0.95) for d, s in zip(both, sizes))
    numbers["surfel masd, SciPy"] = np.mean(means)
    numbers["surfel assd, SciPy"] = np.average(means, weights=[s.sum() for s in sizes])
    return numbers


def ours(prediction, reference, spacing_mm):
    """The same names, computed here."""
    counts = count(prediction, reference)
    numbers = {
        f"{name}{direct}": getattr(counts, name) for name in ("tp", "fp", "tn", "fn") for direct in ("", " direct")
    }
    voxel, surfel = (surface_distances(prediction, reference, spacing_mm, c) for c in ("voxel", "surfel"))
    numbers["voxel directed mean, MONAI"] = voxel.to_reference.mean
    numbers["voxel hd95, MONAI (ranks in single precision)"] = voxel.hausdorff_95
    numbers["voxel hd95, SciPy"] = voxel.hausdorff_95
    numbers["voxel hd95 pooled, SciPy"] = voxel.percentile(95, "pooled")
    numbers["voxel masd, SciPy"] = voxel.masd
    for package in ("MONAI", "SciPy"):
        numbers[f"voxel hd, {package}"] = voxel.hausdorff
        numbers[f"voxel assd, {package}"] = voxel.assd
    for tolerance in TOLERANCES_MM:
        numbers[f"voxel nsd {tolerance:.0f} mm, MONAI"] = voxel.nsd(tolerance)
        numbers[f"surfel nsd {tolerance:.0f} mm, MONAI"] = surfel.nsd(tolerance)
    numbers["surfel hd95, SciPy"] = surfel.hausdorff_95
    numbers["surfel masd, SciPy"], numbers["surfel assd, SciPy"] = surfel.masd, surfel.assd
    return numbers


def main(folder: Path) -> None:
    """Compare all pairs and print a table."""
    warnings.simplefilter("ignore")
    largest, pair_count = {}, 0
    for name, *pair in pairs(folder):
        pair_count += 1
        theirs, here = references(*pair), ours(*pair)
        assert set(theirs) == set(here)
        for number, value in theirs.items():
            largest[number] = max(largest.get(number, (-1.0,)), (abs(here[number] - value), name))
    print(f"{pair_count} pairs; largest difference of each number")
    for number, (difference, name) in largest.items():
        print(f"  {number:48s} {difference:9.2e}  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Augmented samples for a second: ``python benchmarks/data.py [--only NAME]``.

Three kinds of samples as this project draws, cuts, augments and normalises them, against MONAI's transforms doing the
same work on the same arrays: slices (turned, zoomed, shifted, mirrored, z-score), windows of a whole head in three
series (turned in the plane, mirrored), and small blocks, half of them around a voxel of the tumour (cut, mirrored).
MONAI runs in this process and, as its users would, in a process for each core. Medians over turns.
"""

import argparse
import os
import tempfile
from math import radians
from pathlib import Path

import torch
from common import Table, in_turns, machine

from npcrepro.cohorts.phantom import write_phantom
from npcrepro.cohorts.prepared import prepare
from npcrepro.sampling.augment import Affine, VolumeAffine
from npcrepro.sampling.blocks import BlockData
from npcrepro.sampling.slices import SliceData
from npcrepro.sampling.windows import WindowData

SERIES = ("T1", "T2", "CET1")
# Rows and columns of a slice, of a window, of a block; and samples of an update.
SIZES = {"slices": ((256, 256), 8), "windows": ((16, 128, 128), 2), "blocks": ((8, 24, 24), 16)}
SMOKE = {"slices": ((32, 32), 2), "windows": ((8, 32, 32), 2), "blocks": ((4, 8, 8), 4)}
CLASSES = {"slices": SliceData, "windows": WindowData, "blocks": BlockData}
# Of each kind of sample: rotation to either side in degrees, zoom, shift as share of a side, probability of a mirror.
SLICES = {"degrees": 10.0, "zoom": (0.9, 1.1), "shift": 0.1, "flip": 0.5}
WINDOWS = {"degrees": 5.0, "flip": 0.5}


def make_data(name: str, matrix: tuple[int, ...], folder: Path, patients: int = 4):
    """Phantom patients as samples of this kind."""
    side = max(matrix[-1], 64)
    channels = ("CET1",) if name != "windows" else SERIES
    options = {"patients": patients, "matrix": (20, side, side), "channels": SERIES}
    cohort = write_phantom(folder / f"cohort-{name}", **options)
    return CLASSES[name](prepare(cohort, folder / "prepared"), matrix, channels, ("GTVp",))


def our_updates(name: str, data, batch: int, updates: int):
    """The batches of so many updates, as the training loop makes them."""
    augment = {"slices": Affine(**SLICES), "windows": VolumeAffine(**WINDOWS)}.get(name)
    samples = data.samples(data.cohort.case_names)
    for update in range(updates):
        generator = torch.Generator().manual_seed(update)
        image, label, *weight = data.batch(data.draw(samples, batch, generator))
        if augment:
            image, label, *weight = augment(image, label, generator, *weight)
        yield data.finish(image), label


def monais(name: str, data, batch: int, updates: int):
    """A MONAI data set with the same samples and work, and how many of its items an update takes."""
    from monai import transforms
    from monai.data import Dataset

    keys = ["image", "label"]
    samples = data.samples(data.cohort.case_names)
    mirror = transforms.RandFlipd(keys, prob=0.5, spatial_axis=-1)
    if name == "blocks":
        names = data.cohort.case_names
        whole = [{"image": data.image(case).copy(), "label": data.label(case).copy()} for case in names]
        # Where the tumour is, is found once, as by this project.
        whole = [transforms.FgBgToIndicesd("label")(case) for case in whole]
        indices = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"}
        cut = transforms.RandCropByPosNegLabeld(keys, "label", data.matrix, num_samples=1, **indices)
        chain = transforms.Compose([cut, mirror, transforms.SelectItemsd(keys)])
        drawn = [whole[i] for i in _with_replacement(len(whole), batch * updates)]
        return Dataset(drawn, chain)
    pairs = [tuple(tensor[0] for tensor in data.batch([sample])) for sample in samples]
    items = [{"image": image.float(), "label": label.float()} for image, label in pairs]
    drawn = [items[i] for i in _with_replacement(len(items), batch * updates)]
    options = {"prob": 1.0, "mode": ("bilinear", "nearest"), "padding_mode": "zeros"}
    if name == "slices":
        shift = [SLICES["shift"] * side for side in data.matrix]
        turn = radians(SLICES["degrees"])
        zoom = tuple(factor - 1 for factor in SLICES["zoom"])
        moved = transforms.RandAffined(
            keys, rotate_range=turn, scale_range=[zoom, zoom], translate_range=shift, **options
        )
        return Dataset(drawn, transforms.Compose([moved, mirror, transforms.NormalizeIntensityd("image")]))
    moved = transforms.RandAffined(keys, rotate_range=(radians(WINDOWS["degrees"]), 0, 0), **options)
    return Dataset(drawn, transforms.Compose([moved, mirror]))


def _with_replacement(among: int, count: int) -> list[int]:
    return torch.randint(among, (count,), generator=torch.Generator().manual_seed(0)).tolist()


def compare(name: str, table: Table, folder: Path, updates: int, turns: int, smoke: bool) -> None:
    """A row: samples for a second of all three, and the ratio to the faster one of MONAI's."""
    from monai.data import DataLoader
    from monai.data.utils import list_data_collate

    matrix, batch = (SMOKE if smoke else SIZES)[name]
    data = make_data(name, matrix, folder)
    dataset, workers = monais(name, data, batch, updates), os.cpu_count() or 1
    loaders = [
        DataLoader(dataset, num_workers=n, batch_size=batch, persistent_workers=n > 0, collate_fn=list_data_collate)
        for n in (0, workers)
    ]
    works = [lambda: list(our_updates(name, data, batch, updates)), *(lambda one=one: list(one) for one in loaders)]
    rates = [batch * updates / seconds for seconds in in_turns(works, turns)]
    size = f"{batch} x {'x'.join(map(str, matrix))}"
    table.row(name, size, *(f"{rate:.0f}" for rate in rates), rates[0] / max(rates[1:]))


def main(arguments=None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SIZES)
    parser.add_argument("--turns", type=int, default=3, help="of each, after one that warms up")
    parser.add_argument("--updates", type=int, default=20, help="batches of a turn")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that all works")
    chosen = parser.parse_args(arguments)
    print(machine())
    table = Table("samples for a second", "input", "ours", "MONAI", f"MONAI x {os.cpu_count()}", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.only or SIZES:
            compare(name, table, Path(folder), chosen.updates, chosen.turns, chosen.smoke)


if __name__ == "__main__":
    main()

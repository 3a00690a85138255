"""Windows of volumes for 3-D networks: a square region around the head, of the same size in mm, cut along z."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from npcrepro.base.code_hash import code_sha256
from npcrepro.base.errors import InputError
from npcrepro.base.files import read_json, sha256_of, write_json, writing
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.prepared import PreparedCase, PreparedCohort, missing_series
from npcrepro.cohorts.structures import mask_of
from npcrepro.models.outputs import probabilities
from npcrepro.sampling.head import bright, head_mask, zscore
from npcrepro.sampling.samples import OPEN_CASES, match_names, resize_in_plane

# PAPER: clipped to ranges chosen from the values in tumour regions (Chen 2020, Section IV-A).
# SILENT: Chen 2020, rescaling after clipping; none.
CLIP = {"T1": (-2.0, 1.0), "T2": (-3.0, 2.0), "CET1": (-2.0, 3.5)}
# DIFFERS: Chen 2020, other series than the paper's, which have no range there; between these percentiles of the body.
PERCENTILES = (1.0, 99.0)
PRINTED_MATRIX = (16, 256, 256)
CLOSING = 0.04  # of the side of the region: 5 mm of 128


def body_mask(image: np.ndarray, closing: int) -> np.ndarray:
    """Where a series shows the body: in each slice above half of its Otsu threshold, and closed in the plane.

    Args:
        image: ``(z, y, x)``, see :func:`npcrepro.sampling.head.bright`.
        closing: gaps of up to twice so many pixels are closed, air of the sinuses for instance.

    Returns:
        bool ``(z, y, x)``; a slice of one value has no body.

    Example:
        >>> body_mask(np.array([[[0, 0, 90, 0, 100, 0, 0]]]), closing=1).astype(int)
        array([[[0, 0, 1, 1, 1, 0, 0]]])
    """
    # PAPER: mean and sd inside the body, by citation of a network for colorectal tumours (Chen 2020, Section IV-A).
    # SILENT: Chen 2020, how the body is found; half of the Otsu threshold, closed, as in the public code of that group.
    mask = np.stack([bright(slice_) for slice_ in image])
    if not closing:
        return mask
    # Without the frame, what touches the edge of the image would be eroded there.
    framed = np.pad(mask, ((0, 0), (closing, closing), (closing, closing)))
    closed = ndimage.binary_closing(framed, np.ones((1, 3, 3)), iterations=closing)
    return closed[:, closing:-closing, closing:-closing]


def head_box(image: np.ndarray) -> tuple[slice, slice]:
    """Box ``(y, x)`` around the largest connected part of a series above its Otsu threshold; all of a flat image.

    Args:
        image: ``(z, y, x)``.
    """
    # PAPER: Otsu's threshold gives the box (Chen 2020, Section IV-A). SILENT: Chen 2020, of which part; the largest.
    return ndimage.find_objects(head_mask(image, share=1.0).astype(np.uint8))[0][1:]


@dataclass(frozen=True)
class Region:
    """Where the region lies in the slices of a case, once these are resampled.

    Attributes:
        size: ``(y, x)`` of the resampled slice.
        start: first pixel ``(y, x)`` of the region in it; negative where the region reaches beyond the slice.
        matrix: ``(y, x)`` of the region.
    """

    size: tuple[int, int]
    start: tuple[int, int]
    matrix: tuple[int, int]

    def cut(self, slices: Tensor, margin: Sequence[int], fill: float) -> Tensor:
        """The region and ``margin`` pixels around it from resampled slices ``(..., y, x)``; ``fill`` beyond them."""
        padding: list[int] = []
        for first, width, size, more in zip(self.start, self.matrix, self.size, margin, strict=True):
            # Negative padding cuts.
            padding = [more - first, first + width + more - size, *padding]
        return F.pad(slices, padding, value=fill)

    def paste(self, part: Tensor) -> Tensor:
        """Slices ``(..., y, x)`` with the region in its place and zero around it; the counterpart of `cut`."""
        padding: list[int] = []
        for first, width, size in zip(self.start, self.matrix, self.size, strict=True):
            padding = [first, size - first - width, *padding]
        return F.pad(part, padding)

    def covers(self, native: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """For the rows and columns of a slice ``(y, x)`` as it was acquired, whether their middle is in the region."""
        places = [(np.arange(n) + 0.5) * size / n for n, size in zip(native, self.size, strict=True)]
        ends = [(first, first + width) for first, width in zip(self.start, self.matrix, strict=True)]
        return tuple((first <= p) & (p < last) for p, (first, last) in zip(places, ends, strict=True))


class Sample(NamedTuple):
    """A window: case, first slice, and how far its middle is moved, in pixels of the region."""

    case: str
    z: int
    y: int = 0
    x: int = 0


class _Stored(NamedTuple):
    """A case on disk: for each channel ``(z, y, x)`` float32 and its darkest value, for each structure uint8."""

    images: list[np.ndarray]
    fills: list[float]
    labels: list[np.ndarray]
    region: Region


class WindowData:
    """Volumes as windows of a square region, for 3-D networks.

    Each series is normalised inside the body and clipped. Slices are resampled in the plane so that the region, around
    the middle of the head, has ``field_mm``; z is kept. Windows slide along z. The regions are kept as memory-mapped
    files beside the prepared cohort. Nothing but the images decides where the region lies: the first series of the
    cohort that a case has, whatever the channels of the method, so that all methods see the same region.

    Args:
        cohort: prepared. A series that a case lacks is zero, for the network's input too.
        matrix: ``(z, y, x)`` of a window.
        channels, structures: names wanted, in order; where exactly one is missing and the cohort has exactly one under
            another name, that one stands in.
        step: slices from one window to the next; the last one ends with the volume.
        shift: training moves the middle of a window by up to so many voxels ``(z, y, x)`` at the printed matrix of
            16 x 256 x 256; scaled to ``matrix``.
        clip: ranges after normalisation by name of the channel. Others are clipped to `PERCENTILES` of the body.
        field_mm: side of the region; where the spacing is not known, the region is the whole slice.

    Raises:
        InputError: a channel or structure that the cohort lacks.
    """

    def __init__(
        self,
        cohort: PreparedCohort,
        matrix: tuple[int, int, int],
        channels: tuple[str, ...],
        structures: tuple[str, ...],
        # PAPER: windows slide along z with step 4 (Chen 2020, Section IV-A).
        # SILENT: one region around the middle of the head in all three directions, or windows over all slices; windows.
        step: int = 4,
        # PAPER: the middle is moved from (-4, -32, -32) to (4, 32, 32) voxels (Chen 2020, Section IV-A).
        shift: tuple[int, int, int] = (4, 32, 32),
        clip: Mapping[str, tuple[float, float]] = CLIP,
        # PAPER: 256 x 256 pixels of 0.5 mm around the middle of the head's box (Chen 2020, Section IV-A).
        field_mm: float = 128.0,
    ):
        if len(matrix) != 3:
            raise InputError(f"matrix {tuple(matrix)} is not (z, y, x): windows of volumes have three sides")
        self.cohort, self.matrix, self.step = cohort, tuple(matrix), step
        self.shift = tuple(round(s * m / p) for s, m, p in zip(shift, matrix, PRINTED_MATRIX, strict=True))
        self.clip, self.field_mm = dict(clip), field_mm
        self.channels = match_names(channels, cohort.channels, cohort.name, "channel")
        self.structures = match_names(structures, tuple(cohort.structures), cohort.name, "structure")
        # Named after code and options: regions of an older version are never read.
        made = [self.shift[1:], self.clip, field_mm]
        made.append(code_sha256(["npcrepro.sampling.windows:WindowData"]))
        name = f"windows-{'x'.join(map(str, self.matrix[1:]))}-{sha256_of(made)[:8]}"
        self.folder = Path(cohort.folder) / name
        self._open: dict[str, _Stored] = {}

    def samples(self, cases: list[str]) -> list[Sample]:
        """All windows of the cases, in order; none where no case shows a structure."""
        chosen = [Sample(case, z) for case in cases for z in self._starts(self._depth(case))]
        return chosen if any(self._shows_structure(case) for case in cases) else []

    def draw(self, samples: Sequence[Sample], count: int, generator: torch.Generator) -> list[Sample]:
        """``count`` of the samples with replacement, each moved by a random shift of its own."""
        # SILENT: Chen 2020, which windows train; all alike, as 600 in an epoch are about one pass over all of them.
        places = torch.randint(len(samples), (count,), generator=generator).tolist()
        moves = [torch.randint(-s, s + 1, (count,), generator=generator).tolist() for s in self.shift]
        picked = (samples[place] for place in places)
        return [Sample(s.case, s.z + z, s.y + y, s.x + x) for s, z, y, x in zip(picked, *moves, strict=True)]

    def batch(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Image ``(B, C, z, y, x)`` float32 and label ``(B, S, z, y, x)`` uint8 of the windows.

        Beyond the volume the image has its lower clip value; a structure that was not contoured in a case is
        ``NOT_CONTOURED`` everywhere.
        """
        images, labels = [], []
        for sample in samples:
            stored = self._stored(sample.case)
            missing = self.cohort.case(sample.case).not_contoured
            images.append([self._window(sample, *pair) for pair in zip(stored.images, stored.fills, strict=True)])
            labels.append(
                [
                    self._window(sample, label, NOT_CONTOURED if name in missing else 0)
                    for name, label in zip(self.structures, stored.labels, strict=True)
                ]
            )
        return torch.from_numpy(np.array(images)), torch.from_numpy(np.array(labels))

    def finish(self, image: Tensor) -> Tensor:
        """The image as it is: regions are normalised when they are made."""
        return image

    @torch.no_grad()
    def predict(self, network, case: str, *, activation: str, batch_size: int, device) -> Tensor:
        """Probability of each structure ``(S, z, y, x)`` float32 on the grid of a case.

        The mean over all windows that see a voxel; 0 outside the region, ``nan`` where the network gave no number.

        Args:
            network: ``(B, C, z, y, x)`` to logits, in evaluation mode.
            activation: see :func:`npcrepro.models.outputs.probabilities`.
            batch_size: windows in one forward pass.
            device: of the network.
        """
        # SILENT: Chen 2020, merging of windows that overlap; mean of the probabilities.
        depth, starts = self._depth(case), self._starts(self._depth(case))
        total = torch.zeros(len(self.structures), depth, *self.matrix[1:])
        seen = torch.zeros(depth, 1, 1)
        for first in range(0, len(starts), batch_size):
            chunk = starts[first : first + batch_size]
            image, _ = self.batch([Sample(case, z) for z in chunk])
            found = probabilities(network(self.finish(image.to(device))), activation).cpu()
            for z, probability in zip(chunk, found, strict=True):
                end = min(z + self.matrix[0], depth)
                total[:, z:end] += probability[:, : end - z]
                seen[z:end] += 1
        region, native = self._stored(case).region, self.cohort.case(case).label.shape[1:]
        slices = [
            F.interpolate(region.paste(part)[None], size=native, mode="bilinear", align_corners=False)[0]
            for part in (total / seen).unbind(dim=1)
        ]
        return torch.stack(slices, dim=1)

    def region(self, case: str) -> Region:
        """Where the region of a case lies in its resampled slices."""
        return self._stored(case).region

    def share_outside(self, case: str) -> dict[str, float]:
        """For each structure the share of its reference voxels that lie outside the region and cannot be found.

        ``nan`` where the case shows none.
        """
        label, missing = np.asarray(self.cohort.case(case).label), self.cohort.case(case).not_contoured
        rows, columns = self.region(case).covers(label.shape[1:])
        inside = rows[:, None] & columns
        masks = {name: mask_of(label, self.cohort.structures, name) for name in self.structures if name not in missing}
        shares = {name: float((mask & ~inside).sum() / mask.sum()) for name, mask in masks.items() if mask.any()}
        return {name: shares.get(name, float("nan")) for name in self.structures}

    def _depth(self, case: str) -> int:
        return len(self._stored(case).labels[0])

    def _starts(self, depth: int) -> list[int]:
        """First slices of the windows of a volume."""
        # SILENT: Chen 2020, volumes that the step does not fit; the last window ends with the volume.
        last = max(0, depth - self.matrix[0])
        return sorted({*range(0, last, self.step), last})

    def _shows_structure(self, case: str) -> bool:
        y, x = self.shift[1:]
        ends = slice(y, y + self.matrix[1]), slice(x, x + self.matrix[2])
        return any((label[:, *ends] == 1).any() for label in self._stored(case).labels)

    def _window(self, sample: Sample, stored: np.ndarray, fill: float) -> np.ndarray:
        """The window of a stored region ``(z, y, x)``, with ``fill`` above and below the volume."""
        # DIFFERS: Chen 2020, volumes that are thinner than a window are not foreseen; the lower clip value, as air has
        # it, is put above them.
        window = np.full(self.matrix, fill, stored.dtype)
        first, last = max(0, sample.z), min(len(stored), sample.z + self.matrix[0])
        y, x = self.shift[1] + sample.y, self.shift[2] + sample.x
        inside = stored[first:last, y : y + self.matrix[1], x : x + self.matrix[2]]
        window[first - sample.z : first - sample.z + len(inside)] = inside
        return window

    # Files

    def _stored(self, case: str) -> _Stored:
        """A case from disk, memory-mapped; made where it is not there."""
        if case not in self._open:
            images = [self.folder / f"{case}.image.{name}.npy" for name in self.channels]
            labels = [self.folder / f"{case}.label.{name}.npy" for name in self.structures]
            if not all(path.exists() for path in (*images, *labels)):
                self._make(self.cohort.case(case), images, labels)
            region = {key: tuple(value) for key, value in read_json(self.folder / f"{case}.region.json").items()}
            # As many files as slices keep open, which have two for each case.
            if len(self._open) >= max(1, 2 * OPEN_CASES // len(images + labels)):
                del self._open[next(iter(self._open))]
            self._open[case] = _Stored(
                [np.load(path, mmap_mode="r") for path in images],
                [read_json(path.with_suffix(".json"))["fill"] for path in images],
                [np.load(path, mmap_mode="r") for path in labels],
                Region(**region),
            )
        return self._open[case]

    def _make(self, case: PreparedCase, images: Sequence[Path], labels: Sequence[Path]) -> None:
        missing = missing_series(self.cohort, case.name)
        there = [name for name in self.cohort.channels if name not in missing]
        # SILENT: Chen 2020, the series whose box counts; the first of the cohort, which the others are aligned to. One
        # series for all methods, or encoders would be taken over from networks that saw other regions.
        region, closing = self._find_region(self._series(case, there[0]), case.spacing_mm)
        write_json(self.folder / f"{case.name}.region.json", asdict(region))
        for name, path in zip(self.channels, images, strict=True):
            image, fill = self._series(case, name), 0.0
            if name in there:
                body = body_mask(image, closing)
                image = zscore(image, body)
                inside = image[body] if body.any() else image
                fill, high = self.clip.get(name) or np.percentile(inside, PERCENTILES).tolist()
                image = image.clip(fill, high)
            write_json(path.with_suffix(".json"), {"fill": fill})
            image = resize_in_plane(torch.from_numpy(image)[:, None], region.size)[:, 0]
            _save(path, region.cut(image, self.shift[1:], fill))
        for name, path in zip(self.structures, labels, strict=True):
            mask = torch.from_numpy(mask_of(np.asarray(case.label), self.cohort.structures, name))
            # SILENT: Chen 2020, interpolation; linear, labels from one half on.
            mask = (resize_in_plane(mask.float()[:, None], region.size)[:, 0] >= 0.5).to(torch.uint8)
            mask = region.cut(mask, self.shift[1:], 0)
            _save(path, torch.full_like(mask, NOT_CONTOURED) if name in case.not_contoured else mask)

    def _series(self, case: PreparedCase, name: str) -> np.ndarray:
        return np.array(case.image[self.cohort.channels.index(name)], np.float32)

    def _find_region(self, image: np.ndarray, spacing_mm: Sequence[float]) -> tuple[Region, int]:
        """The region of a case from one of its series, and the closing of the body in pixels of that series."""
        native, matrix = image.shape[1:], self.matrix[1:]
        if self.cohort.spacing_known:
            spacing, field, box = np.array(spacing_mm[1:]), self.field_mm, head_box(image)
        else:
            spacing, field, box = np.ones(2), float(max(native)), tuple(slice(0, size) for size in native)
        closing = round(CLOSING * field / spacing.min())
        middle = np.array([(side.start + side.stop) / 2 for side in box])
        size = np.maximum(1, np.rint(native * spacing / (field / np.array(matrix)))).astype(int)
        start = np.rint(middle * size / native - np.array(matrix) / 2).astype(int)
        return Region(tuple(size.tolist()), tuple(start.tolist()), matrix), closing


def _save(path: Path, array: Tensor) -> None:
    with writing(path) as temporary:
        np.save(temporary, array.numpy())

"""Windows of volumes for 3-D networks: a square region around the head, of the same size in mm, cut along z."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from npcrepro.base.errors import InputError
from npcrepro.cohorts.prepared import PreparedCase, PreparedCohort, missing_series
from npcrepro.sampling.head import bright, head_mask, zscore
from npcrepro.sampling.samples import Data, mean_of_overlaps, resize_in_plane
from npcrepro.sampling.store import Store

Triple = tuple[int, int, int]

# PAPER: Chen 2020, clipped to ranges chosen from the values in tumour regions (Section IV-A).
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
    # PAPER: Chen 2020, mean and sd inside the body, by citation of a network for colorectal tumours (Section IV-A).
    # SILENT: Chen 2020, how the body is found; half of the Otsu threshold, closed in the plane, in all slices. The
    # public code of that group takes ten central slices, closes in three dimensions, and rescales after clipping.
    mask = np.stack([bright(slice_) for slice_ in image])
    if not closing:
        return mask
    # Without the frame, what touches the edge of the image would be eroded there.
    framed = np.pad(mask, ((0, 0), (closing, closing), (closing, closing)))
    closed = ndimage.binary_closing(framed, np.ones((1, 3, 3)), iterations=closing)
    return closed[:, closing:-closing, closing:-closing]


def head_box(image: np.ndarray) -> tuple[slice, slice]:
    """Box ``(y, x)`` around the largest connected part of a series (z, y, x) above its Otsu threshold.

    All of an image of one value.
    """
    # PAPER: Chen 2020, Otsu's threshold gives the box (Section IV-A).
    # SILENT: Chen 2020, of which part above the threshold the box is; the largest.
    return ndimage.find_objects(head_mask(image, share=1.0).astype(np.uint8))[0][1:]


@dataclass(frozen=True)
class Region:
    """Where the region lies in the volume of a case, once its slices are resampled; all in voxels (z, y, x).

    Attributes:
        size: of the resampled volume.
        start: first voxel of the region; negative where the region reaches beyond the volume.
        matrix: of the region.
    """

    size: Triple
    start: Triple
    matrix: Triple

    def cut(self, volume: Tensor, margin: Triple, fill: float) -> Tensor:
        """The region and ``margin`` voxels around it from a resampled volume ``(z, y, x)``; ``fill`` beyond that."""
        return F.pad(volume, self._padding(margin), value=fill)

    def paste(self, part: Tensor) -> Tensor:
        """A volume ``(..., z, y, x)`` with the region in its place and zero around it; the counterpart of `cut`."""
        return F.pad(part, [-voxels for voxels in self._padding()])

    def _padding(self, margin: Triple = (0, 0, 0)) -> list[int]:
        """Voxels before and after each axis, x first, that turn the volume into the region; negative ones are cut."""
        axes = list(zip(self.start, self.matrix, self.size, margin, strict=True))[::-1]
        return [side for first, width, size, more in axes for side in (more - first, first + width + more - size)]

    def covers(self, native: tuple[int, int]) -> np.ndarray:
        """For the pixels of a slice ``(y, x)`` as it was acquired, whether their middle is in the region."""
        inside = []
        for pixels, first, width, size in zip(native, self.start[1:], self.matrix[1:], self.size[1:], strict=True):
            middle = (np.arange(pixels) + 0.5) * size / pixels
            inside.append((first <= middle) & (middle < first + width))
        return inside[0][:, None] & inside[1]


class Sample(NamedTuple):
    """A window: case, first slice, and how far its middle is moved, in pixels of the region."""

    case: str
    z: int
    y: int = 0
    x: int = 0


class WindowData(Data):
    """Volumes as windows of a square region, for 3-D networks.

    Each series is normalised inside the body and clipped, before or after its slices are resampled in the plane so that
    the region, around the middle of the head, has ``field_mm``; z is kept. Windows slide along z. Nothing but the
    images decides where the region lies: the first series of the cohort that a case has, whatever the channels of the
    method, so that all methods see the same region.

    Args:
        cohort: see :class:`npcrepro.sampling.samples.Data`. A series that a case lacks is zero in all windows.
        matrix: ``(z, y, x)`` of a window.
        channels, structures: see :class:`npcrepro.sampling.samples.Data`.
        step: slices from one window to the next, from 1 to the depth of a window (what lies between two windows would
            have the probability 0); the last one ends with the volume.
        shift: training moves the middle of a window by up to so many voxels ``(z, y, x)`` at the printed matrix of
            16 x 256 x 256; scaled to ``matrix``.
        clip: ranges after normalisation by name of the channel. Others are clipped to `PERCENTILES` of the body.
        field_mm: side of the region; where the spacing is not known, the region is the whole slice.
        resampled_first: normalise and clip slices that are already resampled, as Chen et al. 2020 do, and not slices as
            they were acquired.
    """

    def __init__(
        self,
        cohort: PreparedCohort,
        matrix: Triple,
        channels: tuple[str, ...],
        structures: tuple[str, ...],
        # PAPER: Chen 2020, windows slide along z with step 4 (Section IV-A).
        # SILENT: Chen 2020, one region around the middle of the head in all three directions, or windows over all
        # slices; windows.
        step: int = 4,
        # PAPER: Chen 2020, the middle is moved from (-4, -32, -32) to (4, 32, 32) voxels (Section IV-A).
        shift: Triple = (4, 32, 32),
        clip: Mapping[str, tuple[float, float]] = CLIP,
        # PAPER: Chen 2020, 256 x 256 pixels of 0.5 mm around the middle of the head's box (Section IV-A).
        field_mm: float = 128.0,
        resampled_first: bool = False,
    ):
        if len(matrix) != 3:
            raise InputError(f"matrix {tuple(matrix)} is not (z, y, x): windows of volumes have three sides")
        super().__init__(cohort, matrix, channels, structures)
        z, y, x = (round(s * m / p) for s, m, p in zip(shift, matrix, PRINTED_MATRIX, strict=True))
        self.step, self.shift, self.clip, self.field_mm = step, (z, y, x), dict(clip), field_mm
        self.resampled_first = resampled_first
        options = [self.matrix, self.shift, self.clip, field_mm, resampled_first]
        # Files for each channel and structure, which all methods on the same cohort share.
        self.store = Store(cohort.folder, "npcrepro.sampling.windows:WindowData", options)

    def samples(self, cases: list[str]) -> list[Sample]:
        """All windows of the cases, in order; none where no case shows a structure."""
        chosen = [Sample(case, z) for case in cases for z in self._starts(self._depth(case))]
        return chosen if any(self._shows_structure(case) for case in cases) else []

    def draw(self, samples: Sequence[Sample], count: int, generator: torch.Generator) -> list[Sample]:
        """``count`` of the samples with replacement, each moved by a random shift of its own."""
        # SILENT: Chen 2020, which windows train; all alike. The paper's 600 in an epoch are one pass if
        # a volume has about 39 slices, a number that it does not state.
        places = torch.randint(len(samples), (count,), generator=generator).tolist()
        moves = [torch.randint(-s, s + 1, (count,), generator=generator).tolist() for s in self.shift]
        picked = (samples[place] for place in places)
        return [Sample(s.case, s.z + z, s.y + y, s.x + x) for s, z, y, x in zip(picked, *moves, strict=True)]

    def batch(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Image ``(B, C, z, y, x)``, already normalised, and label ``(B, S, z, y, x)``.

        Beyond the volume the image has its lower clip value.
        """
        images = [self._window(self._image(s.case, name), s) for s in samples for name in self.channels]
        labels = [self._window(self._mask(s.case, name), s) for s in samples for name in self.structures]
        image, label = (torch.from_numpy(np.stack(windows)) for windows in (images, labels))
        return image.unflatten(0, (len(samples), -1)), label.unflatten(0, (len(samples), -1))

    @torch.no_grad()
    def predict(self, network, case: str, *, activation: str, batch_size: int, device) -> Tensor:
        """Probability of each structure, see :meth:`Data.predict`; 0 outside the region."""
        region, native = self.region(case), self.cohort.case(case).label.shape[1:]
        samples = [Sample(case, z) for z in self._starts(region.size[0])]

        def parts() -> Iterator[tuple[tuple[slice, ...], Tensor]]:
            for chunk, found in self._predicted(network, samples, activation, batch_size, device):
                for sample, probability in zip(chunk, found.cpu(), strict=True):
                    yield (slice(sample.z, sample.z + self.matrix[0]),), probability

        # SILENT: Chen 2020, merging of windows that overlap; mean of the probabilities.
        volume = region.paste(mean_of_overlaps((len(self.structures), *region.matrix), parts()))
        return F.interpolate(volume.transpose(0, 1), size=native, mode="bilinear", align_corners=False).transpose(0, 1)

    def share_outside(self, case: str) -> dict[str, float]:
        """For each structure the share of its voxels that lie outside the region; nan where the case shows none."""
        return self._share_outside(case, self.region(case).covers(self.cohort.case(case).label.shape[1:]))

    def _depth(self, case: str) -> int:
        return self.region(case).size[0]

    def _starts(self, depth: int) -> list[int]:
        """First slices of the windows of a volume."""
        # SILENT: Chen 2020, volumes that the step does not fit; the last window ends with the volume.
        last = max(0, depth - self.matrix[0])
        return sorted({*range(0, last, self.step), last})

    def _shows_structure(self, case: str) -> bool:
        ends = [slice(more, -more or None) for more in self.shift]
        return any((self._mask(case, name)[*ends] == 1).any() for name in self.structures)

    def _window(self, stored: np.ndarray, sample: Sample) -> np.ndarray:
        """A window of the region, which is stored with a margin as wide as the largest shift."""
        firsts = [place + more for place, more in zip(sample[1:], self.shift, strict=True)]
        return stored[*(slice(first, first + width) for first, width in zip(firsts, self.matrix, strict=True))]

    # What is stored

    def region(self, case: str) -> Region:
        """Where the region of a case lies in its resampled volume."""
        stored = self.store.get(case, "region", lambda: {"region": self._find_region(self.cohort.case(case))})
        return Region(*map(tuple, stored.tolist()))

    def _find_region(self, case: PreparedCase) -> np.ndarray:
        """The three triples of a region as rows."""
        missing = missing_series(self.cohort, case.name)
        # SILENT: Chen 2020, the series whose box counts; the first of the cohort, which the others are aligned to. One
        # series for all methods, or encoders would be taken over from networks that saw other regions.
        image = self._series(case, next(name for name in self.cohort.channels if name not in missing))
        depth, *native = image.shape
        box = head_box(image) if self.cohort.spacing_known else [slice(0, side) for side in native]
        middle = np.array([(side.start + side.stop) / 2 for side in box])
        spacing, field = self._scale(case)
        matrix = np.array(self.matrix[1:])
        size = np.maximum(1, np.rint(native * spacing / (field / matrix))).astype(int)
        start = np.rint(middle * size / native - matrix / 2).astype(int)
        # DIFFERS: Chen 2020, volumes that are thinner than a window are not foreseen; the lower clip value, as air has
        # it, is put above them.
        return np.array([(depth, *size), (0, *start), (max(depth, self.matrix[0]), *matrix)])

    def _scale(self, case: PreparedCase) -> tuple[np.ndarray, float]:
        """Pixel spacing ``(y, x)`` and side of the region, in mm, or in pixels where the spacing is not known."""
        if self.cohort.spacing_known:
            return np.array(case.spacing_mm[1:]), self.field_mm
        return np.ones(2), float(max(case.label.shape[1:]))

    def _series(self, case: PreparedCase, name: str) -> np.ndarray:
        return np.array(case.image[self.cohort.channels.index(name)], np.float32)

    def _image(self, case: str, name: str) -> np.ndarray:
        """A normalised channel of a region with its margin, float32."""
        file = f"image.{name}"
        return self.store.get(case, file, lambda: {file: self._normalised(self.cohort.case(case), name)})

    def _normalised(self, case: PreparedCase, name: str) -> np.ndarray:
        image, low = self._series(case, name), 0.0
        spacing, field = self._scale(case)
        side = field / spacing.min()  # of the region, in pixels of the image
        if self.resampled_first:
            image = self._resized(case, torch.from_numpy(image)).numpy()
            side = max(self.matrix[1:])
        if name not in missing_series(self.cohort, case.name):
            body = body_mask(image, round(CLOSING * side))
            image = zscore(image, body)
            low, high = self.clip.get(name) or np.percentile(image[body] if body.any() else image, PERCENTILES).tolist()
            image = image.clip(low, high)
        return self._cut(case, torch.from_numpy(image), low).numpy()

    def _mask(self, case: str, name: str) -> np.ndarray:
        """Label of a structure in a region with its margin, uint8."""
        file = f"label.{name}"
        return self.store.get(case, file, lambda: {file: self._resampled_label(self.cohort.case(case), name)})

    def _resampled_label(self, case: PreparedCase, name: str) -> np.ndarray:
        # SILENT: Chen 2020, interpolation; linear, labels from one half on.
        return self._label(case, name, lambda mask: self._cut(case, mask, 0.0))

    def _cut(self, case: PreparedCase, volume: Tensor, fill: float) -> Tensor:
        """A volume of a case resampled in the plane, unless it is, and the region of it with its margin."""
        return self.region(case.name).cut(self._resized(case, volume), self.shift, fill)

    def _resized(self, case: PreparedCase, volume: Tensor) -> Tensor:
        """A volume ``(z, y, x)`` of a case with its slices resampled to the pixels of the region."""
        return resize_in_plane(volume[:, None], self.region(case.name).size[1:])[:, 0]

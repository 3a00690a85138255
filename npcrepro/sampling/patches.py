"""Patches of images at the spacing, of the size and with the intensities that training patients ask for (nnU-Net)."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from npcrepro.base.errors import InputError
from npcrepro.cohorts.prepared import PreparedCohort, missing_series
from npcrepro.cohorts.structures import mask_of
from npcrepro.models.baselines.nnunet import plan_shape
from npcrepro.sampling.head import zscore
from npcrepro.sampling.samples import Data, resize_in_plane
from npcrepro.sampling.store import Store

Triple = tuple[int, int, int]
HOUNSFIELD = "CT"  # the channel whose intensities mean the same in all patients
PERCENTILES = (0.5, 99.5)
VOXELS_OF_A_CASE = 10_000  # of structures, from which the intensities are read


class Patch(NamedTuple):
    """A patch of a case: its first voxel (z, y, x), which may lie before the image."""

    case: str
    corner: Triple


class PatchData(Data):
    """Patches of slices or volumes, as nnU-Net draws and tests them.

    Images are brought to one spacing. CT is cut at percentiles of the structures of all training patients, and brought
    to their mean and standard deviation; another channel to mean 0 and standard deviation 1 of each image. A part of
    the patches holds a structure where its case shows one, each structure as likely as the others; the rest lie
    anywhere, also where nothing is to be found. In testing, patches overlap, and count the more the nearer to their
    middle.

    Args:
        cohort, channels, structures: see :class:`npcrepro.sampling.samples.Data`.
        matrix: ``(y, x)`` for networks of slices, or ``(z, y, x)``; as many voxels as a patch has at most.
        holding: share of the patches of a batch, rounded up, that hold a structure, if the case that is drawn shows
            one.
        overlap: share of a side by which neighbouring patches overlap in testing, in [0, 1).
        enlarge: whole factor on ``matrix``.
        windows: ranges of Hounsfield units in place of percentiles; each brings every channel from its range to -1 to 1
            as a channel of its own.
        found: what :meth:`plan` found in the training patients: ``"spacing_mm"``, ``"patch"`` and, for channels of CT,
            ``"intensities"`` (lowest, highest, mean, sd). Without it images keep their voxels, patches have the matrix,
            and CT is treated like the other channels.

    Raises:
        InputError: an option out of its range.
    """

    def __init__(
        self,
        cohort: PreparedCohort,
        matrix: Sequence[int],
        channels: tuple[str, ...],
        structures: tuple[str, ...],
        holding: float = 1 / 3,
        overlap: float = 0.5,
        enlarge: int = 1,
        windows: Sequence[tuple[float, float]] = (),
        found: Mapping[str, Any] | None = None,
    ):
        super().__init__(cohort, [enlarge * side for side in matrix], channels, structures)
        if not 0 <= holding <= 1:
            raise InputError(f"holding={holding:g} is a share of patches: from 0 to 1")
        if not 0 <= overlap < 1:
            raise InputError(f"overlap={overlap:g} is a share of a patch: at least 0, below 1")
        self.holding, self.overlap, self.found = holding, overlap, dict(found or {})
        self.windows = [tuple(window) for window in windows]
        self.flat = len(self.matrix) == 2
        y, x = (self.found.get("patch") or self.matrix)[-2:]
        self.patch: Triple = (1 if self.flat else (self.found.get("patch") or self.matrix)[0], y, x)
        options = [self.flat, self.channels, self.structures, self.windows, self.found]
        self.store = Store(cohort.folder, "npcrepro.sampling.patches:PatchData", options)
        self._voxels: dict[str, list[np.ndarray]] = {}

    # What the training patients decide

    def plan(self, cases: list[str]) -> dict[str, dict[str, Any]]:
        """Spacing, patch, depth of the network and intensities of CT; see `Data.plan` and `plan_shape`."""
        axes = slice(1 if self.flat else 0, 3)
        sizes = [self.cohort.case(case).label.shape[axes] for case in cases]
        shape = asdict(plan_shape(sizes, [self._spacing(case)[axes] for case in cases], math.prod(self.matrix)))
        network = {name: shape.pop(name) for name in ("strides", "kernels")}
        intensities = {
            name: self._intensities(cases, name) for name in self.channels if name == HOUNSFIELD and not self.windows
        }
        return {"network": network, "data": {"found": {**shape, "intensities": intensities}}}

    def _spacing(self, case: str) -> tuple[float, ...]:
        return self.cohort.case(case).spacing_mm if self.cohort.spacing_known else (1.0, 1.0, 1.0)

    def _intensities(self, cases: list[str], channel: str) -> list[float]:
        number, values = self.cohort.channels.index(channel), []
        for name in cases:
            case = self.cohort.case(name)
            masks = [mask_of(np.asarray(case.label), self.cohort.structures, each) for each in self.structures]
            inside = np.asarray(case.image[number])[np.any(masks, axis=0)].astype(np.float64)
            values.append(inside[:: max(1, len(inside) // VOXELS_OF_A_CASE)])
        all_values = np.concatenate(values)
        if not len(all_values) or all_values.min() == all_values.max():
            return []
        low, high = np.percentile(all_values, PERCENTILES).tolist()
        return [low, high, float(all_values.mean()), float(all_values.std())]

    # Arrays

    def image(self, case: str) -> np.ndarray:
        """Normalised image ``(C, z, y, x)`` float32 of a case at the spacing of the plan, memory-mapped."""
        return self.store.get(case, "image", lambda: {"image": self._normalised(case)})

    def label(self, case: str) -> np.ndarray:
        """Label ``(S, z, y, x)`` uint8 of a case, likewise."""
        return self.store.get(case, "label", lambda: {"label": self._resampled_label(case)})

    def _size(self, case: str) -> Triple:
        """Voxels of a case at the spacing of the plan; slices are resampled in their plane only."""
        native, target = self.cohort.case(case).label.shape, self.found.get("spacing_mm")
        if not target:
            return native
        scales = [own / wanted for own, wanted in zip(self._spacing(case)[-len(target) :], target, strict=True)]
        sides = [max(1, round(side * scale)) for side, scale in zip(native[-len(target) :], scales, strict=True)]
        z, y, x = (*native[: 3 - len(target)], *sides)
        return z, y, x

    def _normalised(self, name: str) -> np.ndarray:
        case, missing = self.cohort.case(name), missing_series(self.cohort, name)
        channels: list[np.ndarray] = []
        for channel in self.channels:
            image = np.asarray(case.image[self.cohort.channels.index(channel)], np.float32)
            if channel in missing:
                channels += [np.zeros_like(image)] * max(1, len(self.windows))
            elif self.windows:
                channels += [2 * (image.clip(low, high) - low) / (high - low) - 1 for low, high in self.windows]
            elif known := self.found.get("intensities", {}).get(channel):
                low, high, mean, deviation = known
                channels.append((image.clip(low, high) - mean) / deviation)
            else:
                channels.append(zscore(image, np.ones(image.shape, bool)))
        return resampled(torch.from_numpy(np.stack(channels).astype(np.float32)), self._size(name)).numpy()

    def _resampled_label(self, name: str) -> np.ndarray:
        case, size = self.cohort.case(name), self._size(name)
        return np.stack(
            [self._label(case, each, lambda mask: resampled(mask[None], size)[0]) for each in self.structures]
        )

    # Training

    def samples(self, cases: list[str]) -> list[Patch]:
        """Patches side by side over the cases; none where no case shows a structure."""
        shown = any(len(voxels) for case in cases for voxels in self._structure_voxels(case))
        return [patch for case in cases for patch in self._side_by_side(case, 0.0)] if shown else []

    def _side_by_side(self, case: str, overlap: float) -> list[Patch]:
        starts = []
        for side, patch in zip(self._size(case), self.patch, strict=True):
            steps = max(0, math.ceil((side - patch) / max(1, patch * (1 - overlap))))
            # An image that is smaller than a patch lies in its middle.
            starts.append(
                np.rint(np.linspace(0, side - patch, steps + 1) if steps else [(side - patch) // 2]).astype(int)
            )
        return [Patch(case, (int(z), int(y), int(x))) for z, y, x in itertools.product(*starts)]

    def draw(self, samples: Sequence[Patch], count: int, generator: torch.Generator) -> list[Patch]:
        """``count`` patches of random cases, the first of them around a random voxel of a random structure."""
        cases = list(dict.fromkeys(patch.case for patch in samples))
        drawn = torch.rand((count, 6), generator=generator, dtype=torch.float64).tolist()
        return [self._random(cases, number < math.ceil(self.holding * count), *row) for number, row in enumerate(drawn)]

    def _random(
        self, cases: list[str], holding: bool, which: float, structure: float, voxel: float, *place: float
    ) -> Patch:
        """A patch out of six numbers in [0, 1)."""
        case = cases[int(which * len(cases))]
        corner = []
        for share, side, patch in zip(place, self._size(case), self.patch, strict=True):
            corner.append((side - patch) // 2 if side < patch else int(share * (side - patch + 1)))
        there = [voxels for voxels in self._structure_voxels(case) if len(voxels)]
        if holding and there:
            voxels = there[int(structure * len(there))]
            middle = voxels[int(voxel * len(voxels))].tolist()
            limits = zip(middle, self._size(case), self.patch, corner, strict=True)
            corner = [
                first if side < patch else min(max(at - patch // 2, 0), side - patch)
                for at, side, patch, first in limits
            ]
        z, y, x = corner
        return Patch(case, (z, y, x))

    def _structure_voxels(self, case: str) -> list[np.ndarray]:
        """Voxels of each structure of a case."""
        if case not in self._voxels:
            self._voxels[case] = [np.argwhere(mask == 1).astype(np.int16) for mask in self.label(case)]
        return self._voxels[case]

    def batch(self, samples: Sequence[Patch]) -> tuple[Tensor, Tensor]:
        """Image ``(B, C, [z,] y, x)`` float32, already normalised, and label ``(B, S, [z,] y, x)`` uint8.

        Beyond the image there is its darkest value, and no structure.
        """
        label = np.stack([self._cut(self.label(patch.case), patch, lowest=False) for patch in samples])
        return self.inputs(samples), torch.from_numpy(label)

    def inputs(self, samples: Sequence[Patch]) -> Tensor:
        """The image of a batch; reads no label."""
        return torch.from_numpy(np.stack([self._cut(self.image(patch.case), patch) for patch in samples]))

    def _cut(self, volume: np.ndarray, patch: Patch, lowest: bool = True) -> np.ndarray:
        """A patch of a volume (C, z, y, x); a label of what was not contoured is the same beyond the image."""
        edges = list(zip(patch.corner, self.patch, volume.shape[1:], strict=True))
        part = np.asarray(volume[:, *(slice(max(0, c), c + side) for c, side, _ in edges)])
        beyond = [(max(0, -c), max(0, c + side - size)) for c, side, size in edges]
        if any(map(any, beyond)):
            padded = [np.pad(one, beyond, constant_values=one.min() if lowest or one.min() > 1 else 0) for one in part]
            part = np.stack(padded)
        return part[:, 0] if self.flat else part

    # Testing

    @torch.no_grad()
    def predict(self, network, case: str, *, activation: str, batch_size: int, device) -> Tensor:
        """Probability of each structure, see :meth:`Data.predict`."""
        size = self._size(case)
        total, weights = torch.zeros(len(self.structures), *size), torch.zeros(size)
        weight = self._bell()
        patches = self._side_by_side(case, self.overlap)
        for chunk, found in self._predicted(network, patches, activation, batch_size, device):
            for patch, probability in zip(chunk, found.cpu(), strict=True):
                whole = probability[:, None] if self.flat else probability
                edges = list(zip(patch.corner, self.patch, size, strict=True))
                place = tuple(slice(max(0, c), min(c + side, end)) for c, side, end in edges)
                inside = tuple(slice(max(0, -c), min(side, end - c)) for c, side, end in edges)
                total[:, *place] += (whole * weight)[:, *inside]
                weights[place] += weight[inside]
        # Means are rounded.
        return resampled(total / weights, self.cohort.case(case).label.shape).clamp(0, 1)

    def _bell(self) -> Tensor:
        """The weight of the voxels of a patch: a Gaussian with an eighth of the patch as its standard deviation."""
        weight = torch.ones(())
        for side in self.patch:
            away = (torch.arange(side) - (side - 1) / 2) / (side / 8)
            weight = weight[..., None] * torch.exp(-away.square() / 2)
        return weight.clamp_min(1e-4)


class VolumePatchData(PatchData):
    """Patches of volumes for a paper whose own networks see slices.

    Args:
        cohort, channels, structures, options: see :class:`PatchData`.
        matrix: ``(y, x)`` of the paper's slices.
        slices: a patch has at most as many voxels as so many of the paper's slices.
    """

    def __init__(
        self,
        cohort: PreparedCohort,
        matrix: Sequence[int],
        channels: tuple[str, ...],
        structures: tuple[str, ...],
        slices: int = 16,
        **options: Any,
    ):
        super().__init__(cohort, (slices, *matrix), channels, structures, **options)


def resampled(volume: Tensor, size: Sequence[int]) -> Tensor:
    """A volume ``(C, z, y, x)`` float in another matrix, linear along each axis, without aliasing.

    Example:
        >>> resampled(torch.tensor([[[[0.0, 4.0]]], [[[2.0, 2.0]]]]), (2, 1, 1)).flatten(1)
        tensor([[2., 2.],
                [2., 2.]])
    """
    volume = resize_in_plane(volume, tuple(size[1:]))
    if volume.shape[1] == size[0]:
        return volume
    columns = volume.flatten(2)[:, None]
    columns = F.interpolate(columns, (size[0], columns.shape[-1]), mode="bilinear", antialias=True)
    return columns[:, 0].unflatten(2, tuple(size[1:]))

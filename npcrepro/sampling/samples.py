"""From a prepared cohort to training samples and test inputs: what slices, windows and blocks have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from npcrepro.base.errors import InputError, pick
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.prepared import PreparedCase, PreparedCohort
from npcrepro.cohorts.structures import mask_of
from npcrepro.models.outputs import probabilities
from npcrepro.sampling.augment import stretch_contrast


class Data(ABC):
    """The cases of a cohort as a method sees them: slices, windows or blocks.

    A class for methods that use maps of another one also takes ``maps``: for each case the ``.npz`` files with the
    ``probability`` (S, z, y, x) in steps of 1/255, whose mean is taken. A class that cuts volumes also has
    ``share_outside(case)``: for each structure the share of its reference that was cut off, for the chapter.

    Args:
        matrix: size of the network's input, ``(y, x)`` or ``(z, y, x)``.
        channels, structures: names that the method wants, in order; see :func:`match_names`.

    Raises:
        InputError: a channel or structure that the cohort lacks.
    """

    def __init__(
        self, cohort: PreparedCohort, matrix: Sequence[int], channels: tuple[str, ...], structures: tuple[str, ...]
    ):
        self.cohort, self.matrix = cohort, tuple(matrix)
        self.channels = match_names(channels, cohort.channels, cohort.name, "channel")
        self.structures = match_names(structures, tuple(cohort.structures), cohort.name, "structure")

    def plan(self, cases: list[str]) -> dict[str, dict[str, Any]]:
        """Options of the ``"network"`` and of the ``"data"`` that the training cases decide, as plain data.

        A run keeps them in its record, so that a trained network never sees another plan. None by default.
        """
        return {}

    @abstractmethod
    def samples(self, cases: list[str]) -> Sequence[Any]:
        """What training draws from and validation goes through; empty where no case shows a structure."""

    @abstractmethod
    def draw(self, samples: Any, count: int, generator: torch.Generator) -> list[Any]:
        """The samples of one update."""

    @abstractmethod
    def batch(self, samples: Any) -> tuple[Tensor, ...]:
        """Image ``(B, C, ...)`` float32 and label ``(B, S, ...)`` uint8, before :meth:`finish`.

        A structure that was not contoured in a case is ``NOT_CONTOURED`` everywhere. A loss that weighs voxels asks for
        a third part: weight ``(B, S, ...)`` float32. The augmentation then takes it as its last argument, and returns
        it moved like the label.
        """

    def inputs(self, samples: Any) -> Tensor:
        """The images of a batch alone, for testing."""
        return self.batch(samples)[0]

    def finish(self, image: Tensor) -> Tensor:
        """The last step before the network, in training and testing alike."""
        return image

    @abstractmethod
    def predict(self, network, case: str, *, activation: str, batch_size: int, device) -> Tensor:
        """Probability of each structure in a case.

        Args:
            network: ``(B, C, ...)`` to logits, in evaluation mode.
            activation: see :func:`npcrepro.models.outputs.probabilities`.
            batch_size: samples in one forward pass.
            device: of the network.

        Returns:
            ``(S, z, y, x)`` float32 in [0, 1] on the grid of the case; ``nan`` where the network gave no number.
        """

    def _predicted(
        self, network, samples: Sequence[Any], activation: str, batch_size: int, device
    ) -> Iterator[tuple[Sequence[Any], Tensor]]:
        """Samples of one forward pass after another, with their probabilities ``(B, S, ...)`` on the device."""
        for start in range(0, len(samples), batch_size):
            chunk = samples[start : start + batch_size]
            image = self.finish(self.inputs(chunk).to(device))
            yield chunk, probabilities(network(image), activation)

    def _label(self, case: PreparedCase, structure: str, resampled: Callable[[Tensor], Any]) -> np.ndarray:
        """Label of a structure, uint8, from its mask (z, y, x) that was ``resampled``; one half of a voxel decides."""
        mask = torch.from_numpy(mask_of(np.asarray(case.label), self.cohort.structures, structure)).float()
        label = (np.asarray(resampled(mask)) >= 0.5).astype(np.uint8)
        if structure in case.not_contoured:
            label[:] = NOT_CONTOURED
        return label

    def _share_outside(self, case: str, inside: np.ndarray) -> dict[str, float]:
        """For each structure the share of its voxels that are not ``inside`` (z, y, x); nan where it has none."""
        label, missing = np.asarray(self.cohort.case(case).label), self.cohort.case(case).not_contoured
        masks = {name: mask_of(label, self.cohort.structures, name) for name in self.structures if name not in missing}
        shares = {name: float((mask & ~inside).sum() / mask.sum()) for name, mask in masks.items() if mask.any()}
        return {name: shares.get(name, float("nan")) for name in self.structures}


def match_names(wanted: tuple[str, ...], present: tuple[str, ...], cohort: str, what: str) -> tuple[str, ...]:
    """Names of the cohort for those wanted.

    Where exactly one is missing and the cohort has exactly one under another name, that one is taken in its place.

    Args:
        cohort, what: for the error; ``what`` is channel or structure.

    Raises:
        InputError: any other difference.

    Example:
        >>> match_names(("T1", "T2"), ("CET1", "T2"), "mine", "channel")
        ('CET1', 'T2')
    """
    missing = [name for name in wanted if name not in present]
    free = [name for name in present if name not in wanted]
    if not missing:
        return wanted
    if len(missing) == len(free) == 1:
        return tuple(free[0] if name in missing else name for name in wanted)
    raise InputError(
        f"cohort {cohort} has the {what}s {', '.join(present)}, the method needs {', '.join(wanted)}; "
        + ("name the cohort's in the paper's order (modalities), or " if what == "channel" else "")
        + "rename them in dataset.json"
    )


def read_probability(path: Path) -> np.ndarray:
    """The ``probability`` (S, z, y, x) of a file of predictions, uint8 in steps of 1/255."""
    with np.load(path) as arrays:
        probability: np.ndarray = arrays["probability"]
    return probability


def mean_of_overlaps(shape: Sequence[int], parts: Iterable[tuple[tuple[slice, ...], Tensor]]) -> Tensor:
    """Mean of probabilities that overlap; 0 where there are none.

    Args:
        shape: ``(S, z, y, x)`` of the whole.
        parts: the place of each part along z, y and x, and its probability ``(S, ...)``.

    Example:
        >>> parts = [((slice(0, 2),), torch.tensor([[0.5, 0.5]])), ((slice(1, 3),), torch.tensor([[1.0, 1.0]]))]
        >>> mean_of_overlaps((1, 4), parts)
        tensor([[0.5000, 0.7500, 1.0000, 0.0000]])
    """
    total, times = torch.zeros(*shape), torch.zeros(*shape[1:])
    for place, probability in parts:
        total[:, *place] += probability
        times[place] += 1
    return total / times.clamp_min(1)


def normalise(image: Tensor, how: str) -> Tensor:
    """Normalise each slice or volume of a batch by its own intensities, those of all channels unless said otherwise.

    Args:
        image: ``(B, C, ...)``.
        how: ``"zscore"`` (mean 0, sd 1), ``"mean"`` (what is above the minimum, divided by its mean), ``"percentiles"``
            (0 to 1 between the percentiles 1 and 99 of each channel, clipped) or ``"none"``. Images that vary by less
            than about 1e-7 come out too small: bring them to other units before.

    Returns:
        The same shape; a constant image becomes 0 under all but ``"none"``.

    Raises:
        InputError: unknown ``how``.

    Example:
        >>> normalise(torch.tensor([[[1.0, 3.0]]]), "zscore")
        tensor([[[-1.,  1.]]])
    """
    axes = tuple(range(1, image.ndim))
    tiny = torch.finfo(image.dtype).eps
    mean, floor = image.mean(dim=axes, keepdim=True), image.amin(dim=axes, keepdim=True)

    def between_percentiles() -> Tensor:
        each = image.reshape(image.shape[0] * image.shape[1], 1, 1, -1)
        one = torch.ones(len(each))
        return stretch_contrast(each, one, 0.01 * one).reshape(image.shape)

    ways = {
        # SILENT: Li 2018, the paper calls it z-score and describes a division by the mean (Section 2.1); z-score here,
        # "mean" as a variant, above the minimum, which augmented slices have at 0. Over the whole slice, background
        # included.
        "zscore": lambda: torch.where(
            image.amax(dim=axes, keepdim=True) > floor,
            (image - mean) / image.std(dim=axes, keepdim=True, correction=0).clamp_min(tiny),
            torch.zeros_like(image),
        ),
        "mean": lambda: (image - floor) / (mean - floor).clamp_min(tiny),
        "percentiles": between_percentiles,
        "none": lambda: image,
    }
    return pick(ways, how, "normalisation")()


def resize_in_plane(image: Tensor, matrix: tuple[int, ...]) -> Tensor:
    """``(B, C, y, x)`` float at another matrix, bilinear, without aliasing; the same where it has that matrix."""
    if tuple(image.shape[-2:]) == matrix:
        return image
    return F.interpolate(image, size=matrix, mode="bilinear", antialias=True, align_corners=False)


def fit_in_plane(image: Tensor, matrix: tuple[int, ...]) -> Tensor:
    """``(B, C, y, x)`` float in another matrix: an axis that is longer is resampled, one that is shorter is padded.

    The padding has the smallest value of the channel and is the same on both sides, or one larger behind.

    Example:
        >>> fit_in_plane(torch.tensor([[[[1.0, 3.0], [2.0, 1.0]]]]), (2, 4))[0, 0]
        tensor([[1., 1., 3., 1.],
                [1., 2., 1., 1.]])
    """
    floor = image.amin(dim=(0, 2, 3), keepdim=True)
    inside, (top, left) = _inside(tuple(image.shape[-2:]), matrix)
    margins = (left, matrix[1] - inside[1] - left, top, matrix[0] - inside[0] - top)
    return F.pad(resize_in_plane(image, inside) - floor, margins) + floor


def to_native_plane(image: Tensor, native: tuple[int, ...]) -> Tensor:
    """The way back from :func:`fit_in_plane`: ``(B, C, y, x)`` float without the padding, bilinear at ``native``.

    Example:
        >>> to_native_plane(torch.tensor([[[[0.0, 1.0, 3.0, 0.0]]]]), (1, 2))
        tensor([[[[1., 3.]]]])
    """
    (height, width), (top, left) = _inside(native, tuple(image.shape[-2:]))
    cropped = image[..., top : top + height, left : left + width]
    return F.interpolate(cropped, size=native, mode="bilinear", align_corners=False)


def _inside(native: tuple[int, ...], matrix: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Size and first (y, x) of what a slice covers of the matrix that it is put into."""
    size = tuple(min(pair) for pair in zip(native, matrix, strict=True))
    return size, tuple((m - s) // 2 for m, s in zip(matrix, size, strict=True))

"""From a prepared cohort to training samples and test inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from npcrepro.base.errors import InputError, pick
from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.sampling.augment import stretch_contrast

OPEN_CASES = 200  # each keeps two files open, of which systems allow a thousand or so


class Data(Protocol):
    """What training and testing ask of a cohort. Slices are one kind of it, blocks of volumes another.

    It is made with the prepared cohort and the method's matrix, channels and structures; where the method uses maps
    of another, also with ``maps``: for each case, the ``.npz`` of its ``probability`` (S, z, y, x) in steps of 1/255.

    One of volumes that are cut has one method more, for its chapter alone (`VolumeChapter.series`):
    ``share_outside(case)``, the share of each structure's reference that lies outside what is kept, ``nan`` where there
    is no reference, as a dictionary by structure.
    """

    cohort: PreparedCohort
    matrix: tuple[int, ...]
    channels: tuple[str, ...]
    structures: tuple[str, ...]

    def samples(self, cases: list[str]) -> Sequence[Any]:
        """What training draws from and validation goes through; a sample shows a structure."""

    def draw(self, samples: Sequence[Any], count: int, generator: torch.Generator) -> list[Any]:
        """The samples of one update."""

    def batch(self, samples: Sequence[Any]) -> tuple[Tensor, ...]:
        """Image ``(B, C, ...)`` float32 and label ``(B, S, ...)`` uint8, not yet normalised.

        A loss that weighs voxels asks for a third: weight ``(B, S, ...)`` float32. The augmentation then takes it too,
        as its last argument, and returns it moved like the label.
        """

    def finish(self, image: Tensor) -> Tensor:
        """The last step before the network, in training and testing alike."""

    def predict(self, network, case: str, *, activation: str, batch_size: int, device) -> Tensor:
        """Probability of each structure ``(S, z, y, x)`` on the grid of a case."""


def normalise(image: Tensor, how: str) -> Tensor:
    """Normalise each slice or volume of a batch by its own intensities, those of all channels unless said otherwise.

    Args:
        image: ``(B, C, ...)``.
        how: ``"zscore"`` (mean 0, sd 1), ``"mean"`` (what is above the minimum, divided by its mean), ``"percentiles"``
            (0 to 1 between the percentiles 1 and 99 of each channel, clipped) or ``"none"``.

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
        # SILENT: the paper calls it z-score and describes a division by the mean (Li 2018, Section 2.1); z-score here,
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


def resize_in_plane(image: Tensor, matrix: tuple[int, int]) -> Tensor:
    """``(B, C, y, x)`` float at another matrix, bilinear, without aliasing; the same where it has that matrix."""
    if tuple(image.shape[-2:]) == matrix:
        return image
    return F.interpolate(image, size=matrix, mode="bilinear", antialias=True, align_corners=False)


def fit_in_plane(image: Tensor, matrix: tuple[int, int]) -> Tensor:
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


def to_native_plane(image: Tensor, native: tuple[int, int]) -> Tensor:
    """The way back from :func:`fit_in_plane`: ``(B, C, y, x)`` float without the padding, bilinear at ``native``.

    Example:
        >>> to_native_plane(torch.tensor([[[[0.0, 1.0, 3.0, 0.0]]]]), (1, 2))
        tensor([[[[1., 3.]]]])
    """
    (height, width), (top, left) = _inside(native, tuple(image.shape[-2:]))
    cropped = image[..., top : top + height, left : left + width]
    return F.interpolate(cropped, size=native, mode="bilinear", align_corners=False)


def _inside(native: tuple[int, int], matrix: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size and first (y, x) of what a slice covers of the matrix that it is put into."""
    size = tuple(min(pair) for pair in zip(native, matrix, strict=True))
    return size, tuple((m - s) // 2 for m, s in zip(matrix, size, strict=True))


def match_names(wanted: tuple[str, ...], present: tuple[str, ...], cohort: str, what: str) -> tuple[str, ...]:
    """Names of the cohort for those wanted: the same, or where one lacks and one is left over, that one.

    ``what`` is channel or structure, for the InputError that any other difference raises.

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

"""Augmentation on the training device: one batch in, one batch of the same shape out."""

from collections.abc import Callable, Sequence
from math import prod, radians

import torch
import torch.nn.functional as F
from torch import Tensor

from npcrepro.base.errors import pick
from npcrepro.base.labels import NOT_CONTOURED


def rotate(image: Tensor, label: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate each slice about its centre; outside is filled with the image's minimum and with background.

    Args:
        image: ``(B, C, H, W)``.
        label: ``(B, S, H, W)``.
        degrees: ``(B,)``, counter-clockwise as displayed.

    Returns:
        Image and label (both bilinear) of the same shapes.
    """
    angle = degrees.to(image.device, torch.float32) * radians(1)
    matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1)
    moved, masks = _move(image, label, matrix, torch.zeros(len(image), 2, device=image.device))
    return moved, _decided(masks, label)


def _move(image: Tensor, masks: Tensor, matrix: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Each slice through ``matrix`` (B, 4), row by row and in pixels of equal size, after a shift (B, 2) as (x, y).

    The shift is in half widths and half heights of the slice.
    """
    ratio = image.shape[-2] / image.shape[-1]
    matrix = matrix * matrix.new_tensor([1.0, ratio, 1 / ratio, 1.0])
    theta = torch.cat([matrix.reshape(-1, 2, 2), shift.unsqueeze(2)], dim=2)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    floor = image.amin(dim=(1, 2, 3), keepdim=True)
    # SILENT: interpolation and filling of corners; bilinear, filled with the darkest value and with 0 around masks.
    moved = F.grid_sample(image - floor, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + floor
    return moved, F.grid_sample(masks.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _decided(masks: Tensor, label: Tensor) -> Tensor:
    """Masks between 0 and 1 as a label: half of a pixel decides, and what was not contoured stays unknown."""
    # Keeps thin structures smoother than the nearest pixel would.
    moved = (masks >= 0.5).to(label.dtype)
    moved[(label == NOT_CONTOURED).flatten(2).all(dim=2)] = NOT_CONTOURED
    return moved


def stretch_contrast(image: Tensor, gamma: Tensor, clipped: Tensor) -> Tensor:
    """Clip both tails of each slice's intensities, map the rest to [0, 1] and raise it to ``gamma``.

    Args:
        image: ``(B, C, H, W)``.
        gamma: ``(B,)``, > 0.
        clipped: ``(B,)``, share of pixels clipped at each end, in [0, 0.5).

    Returns:
        ``(B, C, H, W)`` in [0, 1]; a constant slice becomes 0.
    """
    values, _ = image.flatten(1).sort(dim=1)
    last = values.shape[1] - 1
    low_index = (clipped.to(image.device) * last).round().long()
    low = values.gather(1, low_index[:, None])[:, :, None, None]
    high = values.gather(1, last - low_index[:, None])[:, :, None, None]
    unit = ((image - low) / (high - low).clamp_min(torch.finfo(image.dtype).tiny)).clamp(0, 1)
    return unit ** gamma.to(image.device, image.dtype)[:, None, None, None]


class Affine:
    """Rotation, zoom, shift and mirroring of slices, each drawn uniformly for each sample.

    Args:
        degrees: rotation up to so many degrees to either side.
        zoom: smallest and largest factor; above 1 the structure becomes larger.
        shift: up to this share of width and height, to either side.
        flip: probability of mirroring left and right; not for structures of one side, which it would exchange.
        moved: probability that a sample is moved at all. Interpolation blurs, and test images are not blurred.

    Shape:
        image ``(B, C, H, W)``, label ``(B, S, H, W)``, both returned with their shapes. What comes in from outside is
        background, as dark as the darkest pixel.

    Example:
        >>> image, label = torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        >>> Affine()(image, label, torch.Generator().manual_seed(0))[0].shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        degrees: float = 10.0,
        zoom: tuple[float, float] = (0.9, 1.1),
        shift: float = 0.1,
        flip: float = 0.0,
        moved: float = 1.0,
    ):
        self.degrees, self.zoom, self.shift, self.flip, self.moved = degrees, zoom, shift, flip, moved

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        moved, masks = self.move(image, label, generator)
        return moved, _decided(masks, label)

    def move(self, image: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same with masks of any values, such as weights, interpolated and not yet decided."""
        drawn = torch.rand((5, len(image)), generator=generator).to(image.device)
        angle = (2 * drawn[0] - 1) * radians(self.degrees)
        zoom = self.zoom[0] + drawn[1] * (self.zoom[1] - self.zoom[0])
        mirror = torch.where(drawn[2] < self.flip, -1.0, 1.0)
        rows = [mirror * angle.cos(), -mirror * angle.sin(), angle.sin(), angle.cos()]
        shift = (2 * drawn[3:].T - 1) * 2 * self.shift
        moved, masks_moved = _move(image, masks, torch.stack(rows, dim=1) / zoom[:, None], shift)
        chosen = (torch.rand(len(image), generator=generator).to(image.device) < self.moved)[:, None, None, None]
        return torch.where(chosen, moved, image), torch.where(chosen, masks_moved, masks.float())


class VolumeAffine:
    """The same movement in the plane for all slices and series of a volume, drawn anew for each sample.

    Args:
        degrees, zoom, shift, flip: as in :class:`Affine`.
        flip_axis: ``"x"`` mirrors left and right, ``"y"`` front and back.

    Shape:
        image ``(B, C, D, H, W)``, label ``(B, S, D, H, W)`` and, where the loss weighs voxels, weight ``(B, S, D, H,
        W)``; all returned with their shapes. What comes in from outside is background of weight 0, as dark as the
        darkest voxel of its series.

    Raises:
        InputError: unknown axis.
    """

    # PAPER: Chen 2020, rotation in the plane from -5 to 5 degrees.
    # SILENT: Chen 2020, whether the series of a patient move together; they do.
    def __init__(
        self,
        degrees: float = 5.0,
        zoom: tuple[float, float] = (1.0, 1.0),
        shift: float = 0.0,
        flip: float = 0.0,
        flip_axis: str = "x",
    ):
        self.slices = Affine(degrees, zoom, shift, flip)
        self.across = pick({"x": False, "y": True}, flip_axis, "axis of a flip")

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator, *weight: Tensor) -> tuple[Tensor, ...]:
        floor = image.amin(dim=(2, 3, 4), keepdim=True)
        masks = torch.cat([label.float(), *weight], dim=1)
        # Slices as channels move together. Rows as columns are mirrored along y, all else being alike in both.
        slices, mask_slices = self._turned((image - floor).flatten(1, 2)), self._turned(masks.flatten(1, 2))
        moved, masks_moved = map(self._turned, self.slices.move(slices, mask_slices, generator))
        label_moved, *weight_moved = masks_moved.reshape(masks.shape).split(label.shape[1], dim=1)
        return moved.reshape(image.shape) + floor, _decided(label_moved, label), *weight_moved

    def _turned(self, slices: Tensor) -> Tensor:
        return slices.transpose(2, 3) if self.across else slices


class RotationContrastNoise:
    """The augmentation of Li et al. 2018 (Section 2.1), drawn on the fly instead of stored.

    The paper stores 11 rotations x 33 contrast settings x 2 noise settings = 726 images for each slice. Here each
    sample draws one of the 726 combinations with equal probability, which is the same distribution without the disk.

    Args:
        rotations: degrees.
        gammas, clipped: the contrast settings are all pairs of the two.
        noise_variances: of additive Gaussian noise on intensities in [0, 1]; 0 is the image without noise.

    Shape:
        image ``(B, C, H, W)``, label ``(B, S, H, W)``, both returned with their shapes; the image is in about [0, 1].

    Example:
        >>> RotationContrastNoise().combinations
        726
    """

    def __init__(
        self,
        # PAPER: Li 2018, -10 to +10 degrees in steps of 2, the unrotated slice included.
        rotations: Sequence[float] = tuple(range(-10, 11, 2)),
        # SILENT: Li 2018, the parameters of the 33 contrast settings; 11 gammas x 3 clip levels.
        gammas: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5),
        clipped: Sequence[float] = (0.0, 0.01, 0.02),
        # SILENT: Li 2018, what the "power" of the noise is; a variance on [0, 1].
        # DIFFERS: Li 2018, both of the paper's "additional" images may have noise; one of ours is the one without.
        noise_variances: Sequence[float] = (0.0, 1e-8),
    ):
        self.axes = [torch.tensor(axis, dtype=torch.float32) for axis in (rotations, gammas, clipped, noise_variances)]
        self.combinations = prod(map(len, self.axes))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Rotation, gamma, clipped share and noise variance of ``count`` samples, each of shape ``(count,)``."""
        index = torch.randint(self.combinations, (count,), generator=generator)
        places = torch.unravel_index(index, tuple(map(len, self.axes)))
        return tuple(axis[place] for axis, place in zip(self.axes, places, strict=True))

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        # PAPER: Li 2018, normalisation comes last.
        # SILENT: Li 2018, the order of the others; rotation, contrast, noise.
        degrees, gamma, clipped, variance = self.draw(len(image), generator)
        image, label = rotate(image, label, degrees)
        image = stretch_contrast(image, gamma, clipped)
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        return image + noise * variance.sqrt().to(image.device)[:, None, None, None], label


class StrongAugmentation:
    """The augmentation of nnU-Net, for slices and volumes: each step changes a random part of the batch.

    Rotation and scaling in the plane, each in a fifth of the samples; then noise (a tenth), blur (a fifth), brightness
    and contrast (a seventh each), low resolution (a quarter), gamma of the inverted image (a tenth) and of the image
    (three tenths); at last mirroring. Steps of intensities draw anew for each channel.

    Args:
        degrees: rotation up to so many degrees to either side.
        zoom: smallest and largest factor; above 1 the structure becomes larger.
        flip: probability of mirroring left and right; not for structures of one side, which it would exchange.
        often: factor on the shares of the samples that are changed, mirroring apart, from 0 (none) to 1. A training
            that sees each image a few times learns more from images as they are.

    Shape:
        image ``(B, C, [D,] H, W)`` of about mean 0 and sd 1, label ``(B, S, [D,] H, W)``, both returned with their
        shapes. What comes in from outside is background, as dark as the darkest voxel of its channel.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021;18:203-211, supplement. Differs: rotation by at most 30 degrees and
        in the plane only, as patients lie in one position; no mirroring of front and back or top and bottom; linear in
        place of cubic interpolation.

    Example:
        >>> image, label = torch.zeros(2, 1, 4, 8, 8), torch.zeros(2, 1, 4, 8, 8, dtype=torch.uint8)
        >>> StrongAugmentation()(image, label, torch.Generator().manual_seed(0))[0].shape
        torch.Size([2, 1, 4, 8, 8])
    """

    def __init__(
        self, degrees: float = 30.0, zoom: tuple[float, float] = (0.7, 1.4), flip: float = 0.0, often: float = 1.0
    ):
        self.degrees, self.zoom, self.flip, self.often = degrees, zoom, flip, often

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        image, label = self._move(image.clone(), label.clone(), generator)
        # Channels of a sample change apart from each other.
        rows = image.reshape(-1, 1, *image.shape[2:])
        steps = (
            (0.1, self._noise), (0.2, self._blur), (0.15, self._brightness), (0.15, self._contrast),
            (0.25, self._low_resolution), (0.1, self._inverted_gamma), (0.3, self._gamma),
        )  # fmt: skip
        for share, step in steps:
            if (chosen := self._chosen(len(rows), self.often * share, generator)) is not None:
                rows[chosen] = step(rows[chosen], generator)
        image = rows.reshape(image.shape)
        if (chosen := self._chosen(len(image), self.flip, generator)) is not None:
            image[chosen], label[chosen] = image[chosen].flip(-1), label[chosen].flip(-1)
        return image, label

    @staticmethod
    def _chosen(count: int, share: float, generator: torch.Generator) -> Tensor | None:
        chosen = torch.where(torch.rand(count, generator=generator) < share)[0]
        return chosen if len(chosen) else None

    def _move(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        count = len(image)
        drawn = torch.rand((4, count), generator=generator)
        turned, scaled = drawn[:2] < 0.2 * self.often
        angle = torch.where(turned, (2 * drawn[2] - 1) * radians(self.degrees), 0.0)
        low, high = self.zoom
        # As often smaller as larger.
        larger, share = drawn[3] < 0.5, (2 * drawn[3]) % 1
        factor = torch.where(larger, 1 + share * (high - 1), 1 - share * (1 - low))
        zoom = torch.where(scaled, factor, 1.0)
        moved = torch.where(turned | scaled)[0].to(image.device)
        if len(moved):
            matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1) / zoom[:, None]
            chosen, masks = image[moved], label[moved]
            floor = chosen.flatten(2).amin(dim=2).reshape(*chosen.shape[:2], *(1,) * (chosen.ndim - 2))
            # Slices of a volume move together.
            slices, mask_slices = ((chosen - floor).flatten(1, -3), masks.flatten(1, -3))
            matrix = matrix.to(image.device)[moved]
            shift = torch.zeros(len(moved), 2, device=image.device)
            slices, mask_slices = _move(slices, mask_slices, matrix, shift)
            image[moved] = slices.reshape(chosen.shape) + floor
            label[moved] = _decided(mask_slices.reshape(masks.shape), masks)
        return image, label

    @staticmethod
    def _uniform(rows: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
        drawn = low + torch.rand(len(rows), generator=generator) * (high - low)
        return drawn.to(rows.device).reshape(-1, *(1,) * (rows.ndim - 1))

    def _noise(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        variance = self._uniform(rows, 0.0, 0.1, generator)
        return rows + variance.sqrt() * torch.randn(rows.shape, generator=generator).to(rows.device)

    def _blur(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """In the plane, with a sigma from half a voxel to one."""
        sigma = self._uniform(rows, 0.5, 1.0, generator).reshape(-1, 1)
        kernel = torch.exp(-0.5 * (torch.arange(-3, 4, device=rows.device) / sigma) ** 2)
        kernel = kernel / kernel.sum(dim=1, keepdim=True)
        # Each row of the batch has a kernel of its own, so that rows become channels, and slices of volumes the batch.
        slices = rows.flatten(1, -3).transpose(0, 1)
        for size, pad in (((7, 1), (0, 0, 3, 3)), ((1, 7), (3, 3, 0, 0))):
            weight = kernel.reshape(-1, 1, *size)
            slices = F.conv2d(F.pad(slices, pad, mode="replicate"), weight, groups=len(rows))
        return slices.transpose(0, 1).reshape(rows.shape)

    def _brightness(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return rows * self._uniform(rows, 0.75, 1.25, generator)

    def _contrast(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Away from the mean or towards it, within the values that were there."""
        low, high, mean = _of_rows(rows, torch.amin), _of_rows(rows, torch.amax), _of_rows(rows, torch.mean)
        return ((rows - mean) * self._uniform(rows, 0.75, 1.25, generator) + mean).clamp(low, high)

    def _low_resolution(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """As if the pixels had been up to twice as wide."""
        factors = self._uniform(rows, 0.5, 1.0, generator).flatten().tolist()
        slices, size = rows.flatten(1, -3), tuple(rows.shape[-2:])
        coarse = (
            F.interpolate(one[None], [max(1, round(factor * side)) for side in size], mode="nearest-exact")
            for one, factor in zip(slices, factors, strict=True)
        )
        return torch.cat([F.interpolate(one, size, mode="bilinear") for one in coarse]).reshape(rows.shape)

    def _inverted_gamma(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return -self._gamma(-rows, generator)

    def _gamma(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The image between its extremes to a power from 0.7 to 1.5, with mean and standard deviation as before."""
        low, high, mean = _of_rows(rows, torch.amin), _of_rows(rows, torch.amax), _of_rows(rows, torch.mean)
        deviation, tiny = _of_rows(rows, torch.std), torch.finfo(rows.dtype).eps
        changed = ((rows - low) / (high - low).clamp_min(tiny)) ** self._uniform(rows, 0.7, 1.5, generator)
        spread = _of_rows(changed, torch.std).clamp_min(tiny)
        return (changed - _of_rows(changed, torch.mean)) / spread * deviation + mean


def _of_rows(rows: Tensor, how: Callable) -> Tensor:
    """One number for each row of a batch, with the axes of the batch."""
    return how(rows, dim=tuple(range(1, rows.ndim)), keepdim=True)

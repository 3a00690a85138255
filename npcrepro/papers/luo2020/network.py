"""The two-stage U-Net of Luo et al. 2020 (Computers, Materials & Continua 65(2):1771-1780).

A deep U-Net outlines the region of all structures. A shallow U-Net works on the image and on what the first one found.
Each has a block of average poolings at its coarsest level. The paper has no equation of the network.

Input: slices ``(B, 1, 512, 512)``. Output: one logit for each class and pixel. At width 1 the stages have 7,765,409
and 467,983 parameters for one image channel and 15 classes, besides the fusions of their pooling blocks.
"""

from typing import Any

import torch
from torch import Tensor, nn

from npcrepro.base.errors import one_of
from npcrepro.models.unet import UNet

OUTPUTS = ("fine", "coarse", "both")
STAGE_2_INPUTS = ("both", "map", "masked", "crop")
ACTIVATIONS = ("softmax", "sigmoid")
OUTSIDE_LOGIT = -20.0


class MultiScalePooling(nn.Module):
    """Average poolings of several kernels side by side, fused by a 1 x 1 convolution to the channels that came in.

    At the border, the average runs over the pixels that exist. Zeros would darken the border, more so for the larger
    kernels, and the border is most of the small map of a bottleneck.

    Args:
        kernels: odd sides; a kernel of 1 is the map itself.

    Shape:
        ``(B, channels, H, W)`` to the same, for any H and W.

    Raises:
        ValueError: an even kernel.

    Example:
        >>> MultiScalePooling(2)(torch.zeros(1, 2, 4, 4)).shape
        torch.Size([1, 2, 4, 4])
    """

    # PAPER: four average poolings with kernels 1, 3, 5 and 7, their outputs fused (Section 2.1.1).
    def __init__(self, channels: int, kernels: tuple[int, ...] = (1, 3, 5, 7)):
        super().__init__()
        if any(kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"pooling kernels have to be odd to keep the size, got {tuple(kernels)}")
        # SILENT: the stride; 1, without which the four outputs have different sizes.
        # SILENT: the border; the average of the pixels that exist.
        self.pools = nn.ModuleList(
            nn.AvgPool2d(kernel, stride=1, padding=kernel // 2, count_include_pad=False) for kernel in kernels
        )
        # SILENT: sum or concatenation; concatenation and a linear 1 x 1 convolution back to the channels.
        self.fuse = nn.Conv2d(channels * len(kernels), channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        # Section 2.1.1: average poolings with kernels 1, 3, 5 and 7 side by side, fused
        return self.fuse(torch.cat([pool(maps) for pool in self.pools], dim=1))


class MultiScaleUNet(UNet):
    """A U-Net with :class:`MultiScalePooling`.

    Args:
        multi_scale: where the pooling stands, ``"bottleneck"``, ``"input"`` or ``"skips"``, as ``block_at`` of
            :class:`UNet`; ``None`` for a U-Net without it.
        options: of :class:`UNet`.
    """

    def __init__(self, in_channels: int, out_channels: int, multi_scale: str | None = "bottleneck", **options: Any):
        super().__init__(in_channels, out_channels, block=MultiScalePooling, block_at=multi_scale, **options)


class TwoStageUNet(nn.Module):
    """A deep U-Net ``coarse`` and a shallow U-Net ``fine`` that works on the map of the first.

    Args:
        in_channels, out_channels: of images and of the final logits; with ``activation="softmax"`` the first of
            ``out_channels`` is background.
        width: factor on ``base``.
        base: channels of the finest level of both stages.
        coarse_levels, fine_levels: resolutions of the two stages.
        stage2_input: what the second stage receives: image and map (``"both"``), the map alone, the image times the
            map (``"masked"``), or the image inside the box of the map (``"crop"``).
        activation: of the final logits.
        multi_scale, enlarge: see :class:`MultiScaleUNet`; the same in both stages.

    The first stage gives one logit for the union of all structures. The second reads its probabilities, and its
    gradient runs back through them into the first unless that is frozen.

    With ``"crop"`` no gradient reaches the first stage. The box holds the pixels of probability 0.5 or more and a
    margin; without such pixels it is the whole image. Pixels outside the box are background. In evaluation each image
    has a box of its own, so that its result does not depend on the images beside it. In training one box holds those
    of the whole batch, so that batch normalisation runs over all images.

    Shape:
        ``(B, in_channels, H, W)``, H and W divisible by ``2 ** (levels - 1)`` of the deeper stage, to logits
        ``(B, out_channels, H, W)``. ``output="coarse"`` returns the first stage's logits, ``(B, 1, H, W)``, and
        does not run the second; ``"both"`` returns the pair (coarse, fine).

    Raises:
        ValueError: H or W not divisible, or an unknown output.
        InputError: an unknown option.

    Example:
        >>> TwoStageUNet(1, 15, width=0.1)(torch.zeros(2, 1, 32, 32), output="coarse").shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        base: int = 32,
        # PAPER: 5 convolutional and deconvolutional layers in the first stage (Sections 1 and 2.1), 3 in the second
        # (Section 1).
        # SILENT: whether layers are levels or single convolutions; resolution levels.
        coarse_levels: int = 5,
        fine_levels: int = 3,
        # SILENT: what the second stage receives besides being said to work on the first stage's map; image and map.
        stage2_input: str = "both",
        # SILENT: number of outputs; a softmax over background and structures.
        activation: str = "softmax",
        # SILENT: where the multi-scale block stands (Section 2.1.1 and Figure 2), and whether the second stage has one
        # too; behind the coarsest level of both.
        multi_scale: str | None = "bottleneck",
        enlarge: int = 1,
    ):
        super().__init__()
        self.stage2_input = one_of(STAGE_2_INPUTS, stage2_input, "input of stage 2")
        self.activation = one_of(ACTIVATIONS, activation, "activation")
        options: dict[str, Any] = {"width": width, "base": base, "multi_scale": multi_scale, "enlarge": enlarge}
        fine_channels = {"both": in_channels + 1, "map": 1}.get(stage2_input, in_channels)
        # SILENT: the target of the first stage; the union of all structures, as it is to outline the target area.
        self.coarse = MultiScaleUNet(in_channels, 1, levels=coarse_levels, **options)
        self.fine = MultiScaleUNet(fine_channels, out_channels, levels=fine_levels, **options)

    def forward(self, image: Tensor, output: str = "fine") -> Tensor | tuple[Tensor, Tensor]:
        if output not in OUTPUTS:
            raise ValueError(f"unknown output {output!r}; choices: {', '.join(OUTPUTS)}")
        # Section 2.1, stage 1: the noise reduction module outlines the region, the second stage refines it
        coarse = self.coarse(image)
        if output == "coarse":
            return coarse
        fine = self._refine(image, coarse)
        return fine if output == "fine" else (coarse, fine)

    def _refine(self, image: Tensor, coarse: Tensor) -> Tensor:
        # Section 2.1, stage 2: works on the map of stage 1, here with the image
        found = coarse.sigmoid()
        if self.stage2_input == "both":
            return self.fine(torch.cat([image, found], dim=1))

        if self.stage2_input == "map":
            return self.fine(found)
        if self.stage2_input == "masked":
            return self.fine(image * found)
        inside = found.detach() >= 0.5
        groups = [slice(None)] if self.training else [slice(i, i + 1) for i in range(len(image))]
        return torch.cat([self._refine_in_box(image[group], inside[group]) for group in groups])

    def _refine_in_box(self, image: Tensor, inside: Tensor) -> Tensor:
        rows, columns = self._box(inside.any(dim=3)), self._box(inside.any(dim=2))
        part = self.fine(image[:, :, rows, columns])
        logits = part.new_full((*part.shape[:2], *image.shape[2:]), OUTSIDE_LOGIT)
        if self.activation == "softmax":
            logits[:, 0] = 0.0
        logits[:, :, rows, columns] = part
        return logits

    def _box(self, inside: Tensor) -> slice:
        """Range of an axis around all of ``inside`` (B, 1, n), with a margin, in whole pixels of the coarsest level."""
        unit, length = self.fine.factor, inside.shape[-1]
        hits = inside.any(dim=0)[0].nonzero().flatten()
        if not len(hits):
            return slice(0, length)
        # SILENT: a margin, only for the method that crops to the box of the first map; a 32nd of the side, 16 of 512
        # pixels.
        margin = max(unit, length // 32)
        first, last = int(hits[0]) - margin, int(hits[-1]) + 1 + margin
        return slice(max(0, first // unit * unit), min(length, -(-last // unit) * unit))

"""DeepLabv3+ on a MobileNetV2 trunk, the network of Xue et al. 2020 (Journal of Image and Graphics 25(10):2151-2158).

A trunk of inverted residuals (Sandler et al. 2018) takes the slice down to a sixteenth of its size. A pyramid of
convolutions at several rates looks at the deepest maps, and a decoder brings in the maps at a quarter of the size (Chen
et al. 2018). The paper describes it in Section 1.2 and has no equation of the network.

Input: slices ``(B, 1, 512, 512)``. Output: one logit for each pixel. At width 1 the trunk has 1,811,136 parameters and
the network 2,714,097.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.models.blocks import initialise_he, scaled

# Expansion, channels, repeats, first stride of the seven stages of MobileNetV2.
# SILENT: Xue 2020, the stages of the improved MobileNetV2; the standard ones, whose four kinds of modules are those of
# stride 2, of stride 1 with and without identity, and with dilation.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
LOW_LEVEL_STAGE = 1
OUTPUT_STRIDES = (8, 16)


def convolution_unit(
    before: int, after: int, kernel: int = 1, activation: type[nn.Module] | None = nn.ReLU, **options
) -> list[nn.Module]:
    """Convolution without bias that keeps the size at stride 1, batch normalisation, activation."""
    padding = options.get("dilation", 1) * (kernel // 2)
    convolution = nn.Conv2d(before, after, kernel, padding=padding, bias=False, **options)
    return [convolution, nn.BatchNorm2d(after), *([activation()] if activation else [])]


def convolution_3x3(before: int, after: int, separable: bool, dilation: int = 1) -> nn.Sequential:
    """A 3 x 3 unit: full, or a depthwise and a 1 x 1 convolution, each with batch normalisation and ReLU."""
    # Section 1.2, atrous convolution: nine taps that lie `dilation` pixels apart
    if not separable:
        return nn.Sequential(*convolution_unit(before, after, 3, dilation=dilation))
    # PAPER: Xue 2020, batch normalisation and ReLU after each depthwise 3 x 3 convolution.
    depthwise = convolution_unit(before, before, 3, dilation=dilation, groups=before)
    return nn.Sequential(*depthwise, *convolution_unit(before, after))


class InvertedResidual(nn.Module):
    """1 x 1 expansion, 3 x 3 depthwise, linear 1 x 1 projection; the input is added where size and channels agree."""

    def __init__(self, before: int, after: int, expansion: int, stride: int, dilation: int):
        super().__init__()
        inner = before * expansion
        # Section 1.2, inverted residual: expand by 1 x 1, filter each channel by 3 x 3, project by 1 x 1
        # PAPER: Xue 2020, batch normalisation and ReLU after each depthwise 3 x 3 convolution (abstract).
        # DIFFERS: ReLU6 there and after the expansion, as in MobileNetV2, which the paper says it takes.
        expand = convolution_unit(before, inner, activation=nn.ReLU6) if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            *convolution_unit(inner, inner, 3, nn.ReLU6, stride=stride, dilation=dilation, groups=inner),
            *convolution_unit(inner, after, activation=None),
        )
        self.identity = stride == 1 and before == after

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.layers(maps) if self.identity else self.layers(maps)


class MobileNetV2Trunk(nn.Module):
    """Stem and the seven stages of MobileNetV2, with dilation in place of the last strides.

    Args:
        width: factor on all channel numbers.
        output_stride: 16, or 8 for maps twice as fine at more than twice the work.

    Shape:
        ``(B, in_channels, H, W)`` to a list of the seven stages' maps, sides at 1/2, 1/4, 1/8 and from there on at
        1/16 (or 1/8), rounded up.

    Raises:
        ValueError: another output stride.
    """

    def __init__(self, in_channels: int, width: float = 1.0, output_stride: int = 16):
        super().__init__()
        if output_stride not in OUTPUT_STRIDES:
            raise ValueError(f"output stride {output_stride}; choices: {', '.join(map(str, OUTPUT_STRIDES))}")
        before = scaled(32, width)
        self.stem = nn.Sequential(*convolution_unit(in_channels, before, 3, nn.ReLU6, stride=2))
        self.stages, self.channels = nn.ModuleList(), []
        reached, dilation = 2, 1
        for expansion, channels, repeats, stride in STAGES:
            # PAPER: Xue 2020, separable convolutions of several atrous rates in the trunk (Section 3).
            # DIFFERS: dilation in place of every stride beyond output_stride gives rate 2 at 16, and 2 and 4 at 8.
            # SILENT: which units; all from the stage whose stride is dropped, of which DeepLab's code leaves the first
            # at the rate before.
            if reached == output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            after = scaled(channels, width)
            modules = []
            for number in range(repeats):
                modules.append(InvertedResidual(before, after, expansion, stride if number == 0 else 1, dilation))
                before = after
            self.stages.append(nn.Sequential(*modules))
            self.channels.append(after)

    def forward(self, image: Tensor) -> list[Tensor]:
        found = [self.stem(image)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]


class AtrousPyramid(nn.Module):
    """A 1 x 1 convolution, 3 x 3 convolutions at several rates and the mean of the whole map, side by side and fused.

    Shape:
        ``(B, before, H, W)`` to ``(B, after, H, W)``.
    """

    def __init__(self, before: int, after: int, rates: tuple[int, ...], separable: bool):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*convolution_unit(before, after)),
                *(convolution_3x3(before, after, separable, rate) for rate in rates),
            ]
        )
        self.pooled = nn.Sequential(*convolution_unit(before, after))
        self.fuse = nn.Sequential(*convolution_unit(after * (len(self.branches) + 1), after))

    def forward(self, maps: Tensor) -> Tensor:
        # Section 1.2, pyramid: every rate looks at the same maps; what they find is concatenated and mixed by 1 x 1
        found = [branch(maps) for branch in self.branches]
        found.append(self.pooled(maps.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *maps.shape[2:]))
        return self.fuse(torch.cat(found, dim=1))


class DeepLabV3Plus(nn.Module):
    """MobileNetV2, atrous spatial pyramid, and a decoder that brings in the maps at a quarter of the size.

    Args:
        width: factor on all inner channel numbers.
        output_stride: 16, or 8 with all rates doubled.
        separable: depthwise separable 3 x 3 convolutions in pyramid and decoder, or full ones.
        rates: of the pyramid at output stride 16.
        pyramid: look at the deepest maps at several rates, or with one 1 x 1 convolution.

    Shape:
        ``(B, in_channels, H, W)`` of any size to logits ``(B, out_channels, H, W)``.

    Raises:
        ValueError: another output stride; with a pyramid, a training batch of one, where the batch normalisation behind
            the image pooling would have a single number per channel.

    Example:
        >>> DeepLabV3Plus(1, 1, width=0.1).eval()(torch.zeros(1, 1, 48, 64)).shape
        torch.Size([1, 1, 48, 64])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        # SILENT: Xue 2020, the output stride; the abstract's two upsamplings by 4 make it 16.
        output_stride: int = 16,
        # PAPER: Xue 2020, depthwise separable and atrous convolutions; a pyramid of several rates; a decoder.
        separable: bool = True,
        # SILENT: Xue 2020, rates, channels and image pooling of the pyramid; 6, 12, 18, 256 channels, with pooling.
        rates: tuple[int, ...] = (6, 12, 18),
        pyramid: bool = True,
    ):
        super().__init__()
        self.trunk = MobileNetV2Trunk(in_channels, width, output_stride)
        channels = scaled(256, width)
        # SILENT: Xue 2020, which maps are the low-level features and their reduced channels; the 24-channel stage, 48.
        reduced = scaled(48, width)
        rates = tuple(rate * 16 // output_stride for rate in rates)
        deepest = self.trunk.channels[-1]
        self.pyramid = (
            AtrousPyramid(deepest, channels, rates, separable)
            if pyramid
            else nn.Sequential(*convolution_unit(deepest, channels))
        )
        self.reduce = nn.Sequential(*convolution_unit(self.trunk.channels[LOW_LEVEL_STAGE], reduced))
        # SILENT: Xue 2020, the decoder's "several" 3 x 3 convolutions; two of 256 channels.
        self.decoder = nn.Sequential(
            convolution_3x3(channels + reduced, channels, separable), convolution_3x3(channels, channels, separable)
        )
        self.score = nn.Conv2d(channels, out_channels, 1)
        # SILENT: Xue 2020, the constants of batch normalisation; PyTorch's (0.9 and 1e-5; Keras, which is named, has
        # 0.99 and 1e-3).
        # SILENT: Xue 2020, initial weights and number of image channels; random (He), one channel.
        initialise_he(self)

    def forward(self, image: Tensor) -> Tensor:
        if self.training and len(image) == 1 and isinstance(self.pyramid, AtrousPyramid):
            raise ValueError(
                "image pooling with batch normalisation needs at least two images in a training batch, got 1"
            )
        # Section 1.2, decoder: bilinear upsampling by 4, concatenation with low-level features, 3 x 3 convolutions,
        # bilinear upsampling by 4
        stages = self.trunk(image)
        low = self.reduce(stages[LOW_LEVEL_STAGE])
        deep = _bilinear(self.pyramid(stages[-1]), low.shape[2:])
        return _bilinear(self.score(self.decoder(torch.cat([deep, low], dim=1))), image.shape[2:])


def _bilinear(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)

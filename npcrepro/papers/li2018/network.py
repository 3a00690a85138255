"""The two-phase 2-D network of Li et al. 2018 (BioMed Research International 2018:9128527; Table 1 and Figure 1).

A feature phase takes the slice down to a quarter of its size and ends in a one-channel score. A reconstruction phase
enlarges that score twice, and each time merges it with finer features by a 1 x 1 convolution. The layers have the names
of Table 1; the paper has no equation of the network.

Input: slices ``(B, 1, 144, 144)``. Output: one logit for each pixel. At width 1 it has 5,524,239 parameters, 88 % of
them in the 9 x 9 kernels of ``conv3``.

`SupportVectors` stands in for the classical methods that the paper compares itself with in Table 3.
"""

from contextlib import nullcontext
from math import ceil, pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.models.blocks import require_divisible, scaled

OUTPUTS = ("score_quarter", "score_half", "score_full")
SCALES = (1.0, 2.0, 4.0)  # standard deviations of Gaussians, in pixels
PLACE = 6.0  # half of a slice in units of the intensities, which have a standard deviation of 1


class Concatenate(nn.Module):
    """Stack feature maps of one size along the channels: ``(B, C1, H, W), (B, C2, H, W) -> (B, C1 + C2, H, W)``."""

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, dim=1)


class Li2018Network(nn.Module):
    """Table 1 of Li et al. 2018.

    Args:
        in_channels, out_channels: of the image and of every score; the paper has one of each.
        width: factor on all inner channel numbers; 1 is the paper's.
        fused: ``False`` leaves out Concat1 and Concat2, so that no fine features reach the score (the paper's Figure 4
            shows such a map without numbers).
        relu_on_scores: apply Relu6 and Relu7 to the one-channel scores before they are brought up, as printed.
        initialisation: ``"he"``, or the standard deviation of a normal distribution with mean 0 (the paper's is 1.0).

    Shape:
        ``(B, in_channels, H, W)`` with H and W divisible by 4 to logits ``(B, out_channels, H, W)``;
        ``output="score_half"`` and ``"score_quarter"`` stop earlier, at half and a quarter of the size.

    Raises:
        ValueError: H or W not divisible by 4, or an unknown output.

    Example:
        >>> Li2018Network(width=0.1)(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: float = 1.0,
        fused: bool = True,
        relu_on_scores: bool = True,
        initialisation: str | float = "he",
    ):
        super().__init__()
        self.fused = fused
        c1, c2, c3, c4, c5 = (max(1, round(width * channels)) for channels in (80, 120, 500, 300, 100))
        # PAPER: kernel, stride, padding and channels of Table 1; pooling layers have no padding.
        self.conv1 = nn.Conv2d(in_channels, c1, 5, padding=2)
        self.relu1 = nn.ReLU()
        # SILENT: the kind of pooling is not stated; maximum.
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(c2, c3, 9, padding=4)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(c3, c4, 1)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1)
        self.relu5 = nn.ReLU()
        self.conv6 = nn.Conv2d(c5, out_channels, 3, padding=1)
        self.relu6 = nn.ReLU() if relu_on_scores else nn.Identity()
        self.deconv1 = nn.ConvTranspose2d(out_channels, out_channels, 4, stride=2, padding=1)
        # SILENT: which maps are concatenated; Relu2 and Relu1 are the only ones of the right size and channel number.
        self.concat1 = Concatenate()
        self.conv7 = nn.Conv2d(out_channels + c2 * fused, out_channels, 1)
        self.relu7 = nn.ReLU() if relu_on_scores else nn.Identity()
        self.deconv2 = nn.ConvTranspose2d(out_channels, out_channels, 4, stride=2, padding=1)
        self.concat2 = Concatenate()
        self.conv8 = nn.Conv2d(out_channels + c1 * fused, out_channels, 1)
        self._initialise(initialisation)

    def _initialise(self, initialisation: str | float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # DIFFERS: He initialisation by default; with the printed sd of 1 the score of step 1 is of order 1e8 in
                # the first forward pass. Methods li2018/literal and literal-mean show what comes of it.
                if initialisation == "he":
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                else:
                    nn.init.normal_(module.weight, std=float(initialisation))
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.ConvTranspose2d):
                # SILENT: initial weights of the deconvolutions; bilinear interpolation, learnt from there, with bias.
                taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
                nn.init.zeros_(module.weight)
                module.weight.data.diagonal()[:] = (taps[:, None] * taps[None, :])[..., None]
                nn.init.zeros_(module.bias)
        if initialisation == "he":
            # DIFFERS: the first score starts near zero; with a score of order 1 the many background pixels of the first
            # updates push whole layers below their ReLU, and some seeds never come back. The later score layers read
            # one deep score beside many fine features and start from the score alone, so that the fine features come
            # in only as far as they help.
            with torch.no_grad():
                self.conv6.weight *= 0.01
                for layer in (self.conv7, self.conv8):
                    layer.weight *= 0.01
                    layer.weight[:, : layer.out_channels, 0, 0] = torch.eye(layer.out_channels)

    def forward(self, image: Tensor, output: str = "score_full") -> Tensor:
        if output not in OUTPUTS:
            raise ValueError(f"unknown output {output!r}; choices: {', '.join(OUTPUTS)}")
        require_divisible(image, 4)
        # Table 1, feature phase: Conv1 to Conv6, with Pool1 and Pool2 in between
        fine = self.relu1(self.conv1(image))
        middle = self.relu2(self.conv2(self.pool1(fine)))
        deep = self.relu3(self.conv3(self.pool2(middle)))
        score = self.conv6(self.relu5(self.conv5(self.relu4(self.conv4(deep)))))
        # DIFFERS: Table 1 ends steps 1 and 2 with Relu6 and Relu7; our loss of an inner step reads its score before the
        # ReLU, as after it the logistic function is never below 0.5 and background could not be learnt.
        if output == "score_quarter":
            return score
        # Table 1, reconstruction phase: Deconv1, Concat1 with Relu2, Conv7
        score = self.deconv1(self.relu6(score))
        score = self.conv7(self.concat1(score, middle) if self.fused else score)
        if output == "score_half":
            return score
        # Table 1, reconstruction phase: Deconv2, Concat2 with Relu1, Conv8
        score = self.deconv2(self.relu7(score))
        return self.conv8(self.concat2(score, fine) if self.fused else score)


class SupportVectors(nn.Module):
    """A linear classifier of pixels on fixed features; with the hinge loss, a support vector machine.

    The features of a pixel are its intensity as it is and under Gaussians (`SCALES`), the slope of the image under the
    same Gaussians, and its place in the slice. Cosines in random directions of these features (random Fourier features
    of Rahimi and Recht 2007) stand beside them, so that the linear classifier is, in expectation, one with a Gaussian
    kernel. Only the last layer is trained.

    Args:
        in_channels: of the image.
        out_channels: structures.
        width: factor on the 512 cosines.
        length: standard deviation of the Gaussian kernel, in units of the features.
        field: weight of the four neighbours in a random field over the found labels (Ising model, five steps of mean
            field); applied in prediction and not in training. 0 for none.

    Shape:
        ``(B, in_channels, H, W)`` to the signed distances from the border, ``(B, out_channels, H, W)``: above 0 is
        structure. The unit is the margin.

    Example:
        >>> SupportVectors(width=0.1)(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    frequencies: Tensor
    phases: Tensor
    bank: Tensor

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, width: float = 1.0, length: float = 2.0, field: float = 0.0
    ):
        super().__init__()
        self.field = field
        features, cosines = in_channels * (1 + 2 * len(SCALES)) + 2, scaled(512, width)
        self.register_buffer("bank", _gaussians())
        self.register_buffer("frequencies", torch.randn(cosines, features, 1, 1) / length)
        self.register_buffer("phases", 2 * pi * torch.rand(cosines))
        self.classifier = nn.Conv2d(features + cosines, out_channels, 1)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, image: Tensor) -> Tensor:
        # The meta device, on which layers are counted, has no autocast.
        in_fp32 = nullcontext() if image.is_meta else torch.autocast(image.device.type, enabled=False)
        with torch.no_grad(), in_fp32:
            features = self.features(image.float())
            cosines = F.conv2d(features, self.frequencies, self.phases).cos() * sqrt(2 / len(self.phases))
        distance = self.classifier(torch.cat([features, cosines], dim=1))
        return distance if self.training or not self.field else self._smoothed(distance)

    def features(self, image: Tensor) -> Tensor:
        """The fixed features of each pixel, ``(B, features, H, W)``."""
        count, _, height, width = image.shape
        margin = self.bank.shape[-1] // 2
        padded = F.pad(image.flatten(0, 1)[:, None], [margin] * 4, mode="replicate")
        smooth, down, right = F.conv2d(padded, self.bank).split(len(SCALES), dim=1)
        maps = torch.cat([smooth, torch.hypot(down, right)], dim=1).reshape(count, -1, height, width)
        y, x = (torch.linspace(-PLACE, PLACE, side, device=image.device) for side in (height, width))
        place = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(count, -1, -1, -1)
        return torch.cat([image, maps, place], dim=1)

    def _smoothed(self, distance: Tensor) -> Tensor:
        """The mean field of labels that like to be those of their neighbours."""
        cross = distance.new_tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).expand(distance.shape[1], 1, 3, 3)
        found = distance
        for _ in range(5):
            found = distance + self.field * F.conv2d(found.tanh(), cross, padding=1, groups=distance.shape[1])
        return found


def _gaussians() -> Tensor:
    """Kernels ``(3 x scales, 1, side, side)``: the Gaussians, then their slopes along y and along x.

    Slopes are in units of the scale, so that a blurred border is as steep under a wide Gaussian as a sharp one under a
    narrow one.
    """
    reach = ceil(3 * max(SCALES))
    place = torch.arange(-reach, reach + 1, dtype=torch.float32)
    smooth: list[Tensor] = []
    down: list[Tensor] = []
    right: list[Tensor] = []
    for scale in SCALES:
        line = (-(place**2) / (2 * scale**2)).exp()
        line = line / line.sum()
        slope = line * place / scale
        for kernels, along_y, along_x in ((smooth, line, line), (down, slope, line), (right, line, slope)):
            kernels.append(along_y[:, None] * along_x)
    return torch.stack([*smooth, *down, *right])[:, None]

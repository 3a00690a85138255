"""The two-phase 2-D network of Li et al. 2018 (BioMed Research International 2018:9128527; Table 1 and Figure 1).

A feature phase takes the slice down to a quarter of its size and ends in a one-channel score. A reconstruction phase
enlarges that score twice, and each time merges it with finer features by a 1 x 1 convolution. The layers have the names
of Table 1; the paper has no equation of the network.

Input: slices ``(B, 1, 144, 144)``. Output: one logit for each pixel. At width 1 it has 5,524,239 parameters, 88 % of
them in the 9 x 9 kernels of ``conv3``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from npcrepro.models.blocks import require_divisible

OUTPUTS = ("score_quarter", "score_half", "score_full")


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
                # DIFFERS: He initialisation by default; the printed sd of 1 gives scores of order 1e8 in the first
                # forward pass, which no usual loss can train (method li2018/literal shows it).
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
        # SILENT: the loss of an inner stage reads its score before the ReLU; after it, the logistic function is never
        # below 0.5 and background could not be learnt.
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

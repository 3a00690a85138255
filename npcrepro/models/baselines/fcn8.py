"""FCN-8s (Long, Shelhamer and Darrell 2015) on a VGG-16 trunk, a baseline of Luo et al. 2020.

At width 1 the trunk and its two fully convolutional layers have 134,260,544 parameters for three image channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.models.blocks import in_fp32, initialise_he, scaled

# Channels and number of the 3 x 3 convolutions of each block of VGG-16; a pooling follows each block.
VGG_16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
FULLY_CONNECTED = 4096


class BilinearUpsampling(nn.ConvTranspose2d):
    """Transposed convolution that starts as bilinear interpolation by ``factor`` of each channel, learnt from there.

    Shape:
        ``(B, channels, H, W)`` to ``(B, channels, factor * H, factor * W)``; ``factor`` has to be even.
    """

    def __init__(self, channels: int, factor: int):
        super().__init__(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
        taps = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor
        with torch.no_grad():
            self.weight.zero_()
            for channel in range(channels):
                self.weight[channel, channel] = taps[:, None] * taps[None, :]


class FCN8(nn.Module):
    """VGG-16 as a fully convolutional network; its logits are fused with logits of the third and fourth pooling.

    Args:
        width: factor on all inner channel numbers; 1 is VGG-16's.
        batch_norm: behind every convolution of the trunk and of ``fc6`` and ``fc7``, before the ReLU.

    Shape:
        ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``; inside, the lower and the right side are
        filled with zeros to multiples of 32. With batch normalisation, training needs more than one value per channel
        at a 32nd of the size.

    Example:
        >>> FCN8(1, 15, width=0.02)(torch.zeros(2, 1, 32, 64)).shape
        torch.Size([2, 15, 32, 64])
    """

    # SILENT: Luo 2020, the configuration of FCN-8; the published one, padded so that logits have the size of the image.
    # SILENT: Luo 2020, whether FCN-8 was pre-trained on natural images; random initial weights (He).
    # DIFFERS: Luo 2020, FCN-8 without the dropout of fc6 and fc7, so that all randomness of an update comes from its
    # own seed.
    # DIFFERS: Luo 2020, FCN-8 was published with score layers that start at zero and a last enlargement that stays
    # bilinear; here they start from He's distribution, and the enlargement is learnt.
    def __init__(self, in_channels: int, out_channels: int, width: float = 1.0, batch_norm: bool = False):
        super().__init__()
        self.batch_norm = batch_norm
        self.blocks = nn.ModuleList()
        before, sizes = in_channels, []
        for channels, convolutions in VGG_16:
            after = scaled(channels, width)
            layers: list[nn.Module] = []
            for number in range(convolutions):
                layers += self._unit(after if number else before, after, 3)
            self.blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
            before = after
            sizes.append(after)
        hidden = scaled(FULLY_CONNECTED, width)
        self.fc6 = nn.Sequential(*self._unit(before, hidden, 7))
        self.fc7 = nn.Sequential(*self._unit(hidden, hidden, 1))
        self.score_pool3 = nn.Conv2d(sizes[2], out_channels, 1)
        self.score_pool4 = nn.Conv2d(sizes[3], out_channels, 1)
        self.score_fc7 = nn.Conv2d(hidden, out_channels, 1)
        initialise_he(self)
        self.enlarge_fc7 = BilinearUpsampling(out_channels, 2)
        self.enlarge_pool4 = BilinearUpsampling(out_channels, 2)
        self.enlarge_pool3 = BilinearUpsampling(out_channels, 8)

    def _unit(self, before: int, after: int, kernel: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2)
        return [convolution, *([nn.BatchNorm2d(after)] if self.batch_norm else []), nn.ReLU()]

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        pooled, maps = [], F.pad(image, (0, -width % 32, 0, -height % 32))
        for block in self.blocks:
            maps = block(maps)
            pooled.append(maps)
        # In bf16 on processors with AMX, oneDNN 3.12 writes past its memory in the gradient of the weights of a 1 x 1
        # convolution with about 4,000 inputs or more, unless its outputs are a multiple of 16. fc7 has 4,096 outputs.
        score = in_fp32(self.score_fc7, self.fc7(self.fc6(maps)))
        score = self.enlarge_fc7(score) + self.score_pool4(pooled[3])
        score = self.enlarge_pool4(score) + self.score_pool3(pooled[2])
        return self.enlarge_pool3(score)[..., :height, :width]

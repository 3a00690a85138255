"""A network of patches that classifies the voxel in the middle."""

import torch.nn.functional as F
from torch import Tensor, nn

from npcrepro.models.blocks import IN_PLANE, IN_PLANE_STEP, Triple, scaled


class PatchNetwork(nn.Module):
    """A classifier of the pixel in the middle of a 32 x 32 patch of a slice, run on all patches of a volume at once.

    It has two 3 x 3 convolutions and a 2 x 2 maximum pooling, twice, two more convolutions, which leave one value of
    each channel, and two last layers. Dilated convolutions take the place of the reduced maps, so that one pass gives
    the same logits as the classifier would give for each patch alone.

    Several MRI sequences go through the same convolutions (Siamese network) and are joined in the last two layers.

    Args:
        width: factor on the channel numbers.

    Shape:
        ``(B, in_channels, D, H, W)``, any sizes, to logits ``(B, out_channels, D, H, W)``. The patch of pixel (y, x)
        has rows y - 16 to y + 15 and columns x - 16 to x + 15; beyond the border the border's value continues.

    Example:
        >>> import torch
        >>> PatchNetwork(3, 1, width=0.5)(torch.zeros(1, 3, 4, 20, 30)).shape
        torch.Size([1, 1, 4, 20, 30])
    """

    # DIFFERS: Chen 2020, the paper compares with its references 13 to 15 (Section IV-D), one of which joins three
    # views and refines by a graph cut (Section I); here patches of axial slices, 16 mm wide at 0.5 mm, and six
    # convolutions, which several series share.
    PATCH = 32
    CHANNELS = (16, 24, 32)
    HIDDEN = 128

    def __init__(self, in_channels: int, out_channels: int, width: float = 1.0):
        super().__init__()
        channels = [scaled(each, width) for each in self.CHANNELS]
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(zip([1, *channels], channels, strict=False)):
            if level:
                layers.append(nn.MaxPool3d(IN_PLANE_STEP, stride=1, dilation=_holes(level - 1)))
            for entering in (before, after):
                convolution = nn.Conv3d(entering, after, IN_PLANE, dilation=_holes(level))
                layers += [convolution, nn.BatchNorm3d(after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        hidden = scaled(self.HIDDEN, width)
        self.classify = nn.Sequential(
            nn.Conv3d(channels[-1] * in_channels, hidden, 1), nn.ReLU(), nn.Conv3d(hidden, out_channels, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        half = self.PATCH // 2
        # The MRI sequences are part of the batch, so that one normalisation holds for all.
        patches = F.pad(image.flatten(0, 1)[:, None], (half, half - 1, half, half - 1, 0, 0), mode="replicate")
        features = self.trunk(patches)
        return self.classify(features.reshape(len(image), -1, *features.shape[2:]))


def _holes(level: int) -> Triple:
    """Dilation in place of ``level`` poolings."""
    return (1, 2**level, 2**level)

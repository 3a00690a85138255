"""V-Net, for small blocks of volumes."""

from torch import Tensor, nn

from npcrepro.base.errors import pick
from npcrepro.models.blocks import AtrousConv3d, require_divisible, unit


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions around which the input is added, through a 1 x 1 x 1 one where shapes differ."""

    def __init__(self, before: int, after: int, stride: int = 1, rate: int = 1):
        super().__init__()
        self.convolutions = nn.Sequential(
            unit(before, after, rate=rate, stride=stride),
            AtrousConv3d(after, after, (3, 3, 3), (rate,) * 3),
            nn.BatchNorm3d(after),
        )
        same = before == after and stride == 1
        self.identity = (
            nn.Identity() if same else nn.Sequential(nn.Conv3d(before, after, 1, stride=stride), nn.BatchNorm3d(after))
        )

    def forward(self, maps: Tensor) -> Tensor:
        return (self.convolutions(maps) + self.identity(maps)).relu()


class VNet(nn.Module):
    """V-Net (Milletari et al. 2016), made of MONAI's parts so that it can have fewer halvings.

    With 4 halvings at width 1 it is MONAI's ``VNet`` without dropout, with 16 channels at the finest level.

    Args:
        width: factor on the channel numbers.
        halvings: from the finest to the coarsest level.
        act: ``"prelu"``, with a slope for each channel, as V-Net was published, or ``"elu"``, as in MONAI.

    Shape:
        ``(B, in_channels, D, H, W)``, each side divisible by ``2 ** halvings``, to logits ``(B, out_channels, D, H,
        W)``.

    Raises:
        InputError: another ``act``.
        ValueError: a side that is not divisible, more than 4 halvings.

    Example:
        >>> import torch
        >>> VNet(1, 2, width=0.1, halvings=3)(torch.zeros(2, 1, 8, 24, 24)).shape
        torch.Size([2, 2, 8, 24, 24])
    """

    CONVOLUTIONS_DOWN, CONVOLUTIONS_UP = (1, 2, 3, 2), (1, 1, 2, 2)

    # SILENT: Guo 2021, which V-Net; as published with PReLU, and with the batch normalisation of MONAI's, which the
    # published one has not.
    # DIFFERS: Guo 2021, V-Net without the dropout of MONAI's, so that all randomness of an update comes from its own
    # seed.
    # DIFFERS: Guo 2021, V-Net halves four times, which 8 voxels do not allow; three times on the blocks of the paper.
    # SILENT: Guo 2021, its initialisation; that of the library, where the other networks here have He's.
    def __init__(self, in_channels: int, out_channels: int, width: float = 1.0, halvings: int = 4, act: str = "prelu"):
        from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition

        super().__init__()
        if not 1 <= halvings <= len(self.CONVOLUTIONS_DOWN):
            raise ValueError(f"V-Net halves 1 to {len(self.CONVOLUTIONS_DOWN)} times, not {halvings}")
        self.factor = 2**halvings
        # The input is repeated until it has as many channels as the first level.
        finest = in_channels * max(1, round(16 * width / in_channels))
        channels = [finest * 2**level for level in range(halvings + 1)]
        options = {"act": pick({"prelu": "prelu", "elu": ("elu", {"inplace": True})}, act, "act")}
        self.first = InputTransition(3, in_channels, finest, **options)
        self.down = nn.ModuleList(
            DownTransition(3, before, convolutions, **options)
            for before, convolutions in zip(channels, self.CONVOLUTIONS_DOWN[:halvings])
        )
        self.up = nn.ModuleList(
            UpTransition(
                3,
                channels[min(level + 2, halvings)],
                channels[level + 1],
                self.CONVOLUTIONS_UP[level],
                dropout_prob=(None, 0.0),
                **options,
            )
            for level in range(halvings)
        )
        self.score = OutputTransition(3, channels[1], out_channels, **options)

    def forward(self, image: Tensor) -> Tensor:
        require_divisible(image, self.factor)
        maps, skips = self.first(image), []
        for down in self.down:
            skips.append(maps)
            maps = down(maps)
        for up, skip in reversed(list(zip(self.up, skips, strict=True))):
            maps = up(maps, skip)
        return self.score(maps)

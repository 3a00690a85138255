"""A network that needs no training to be right, for tests of what is done with predictions."""

from dataclasses import replace

import torch
from core_cases import tiny_paper
from torch import nn

from npcrepro.protocol.method import Component, Stage


class Brightness(nn.Module):
    """A voxel is in the structure if the sum of its channels is large; the loss moves one number."""

    def __init__(self, in_channels, out_channels, width):
        super().__init__()
        self.register_buffer("weight", torch.ones(in_channels, dtype=torch.float32) / 50)
        self.bias = nn.Parameter(torch.tensor(-6.0))

    def forward(self, image):
        return (image * self.weight[:, None, None]).sum(dim=1, keepdim=True) + self.bias


def bright_paper(*methods):
    """The tiny paper with the method ``simple``, and others by what they have otherwise."""
    paper = tiny_paper(updates=2, check_every=1)
    simple = replace(
        paper.methods[0],
        name="simple",
        network=Component("bright_network:Brightness"),
        data=Component("npcrepro.sampling.slices:SliceData", {"normalisation": "none"}),
        augmentation=None,
        stages=(Stage("all", Component("npcrepro.losses.dice:DiceLoss"), Component("torch.optim:SGD", {"lr": 1e-6})),),
    )
    return replace(paper, methods=(simple, *(replace(simple, **changes) for changes in methods)))

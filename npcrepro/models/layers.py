"""What a network is made of and what it sees: its layer table, and the voxels that one logit depends on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import prod

import torch
from torch import nn


@dataclass(frozen=True)
class Layer:
    """One row of a layer table.

    Attributes:
        name: attribute path in the network.
        kind: class of the layer.
        kernel, stride, padding: of a convolution or pooling layer, else empty.
        output: shape without the batch, ``(C, H, W)`` or ``(C, D, H, W)``.
        parameters: weights and biases.
        macs: multiply-accumulates of the weights for one sample; biases, pooling and activations count nothing.
    """

    name: str
    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int
    macs: int


def layer_table(network: nn.Module, input_shape: tuple[int, ...]) -> list[Layer]:
    """Rows of the leaf layers that one sample passes, in the order of the forward pass.

    Output sizes, parameters and multiply-accumulates are read off that pass.

    Args:
        network: on any device; a network built under ``torch.device("meta")`` costs neither memory nor time.
        input_shape: of one sample, ``(C, H, W)`` or ``(C, D, H, W)``.

    Example:
        >>> [layer] = layer_table(nn.Conv2d(1, 2, 3, padding=1), (1, 4, 4))
        >>> layer.output, layer.parameters, layer.macs
        ((2, 4, 4), 20, 288)
    """
    rows: list[Layer] = []

    def record(name: str):
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            shape = tuple(output.shape[1:])
            transposed = isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
            weight = getattr(module, "weight", None)
            positions = prod(inputs[0].shape[2:]) if transposed else prod(shape[1:])
            rows.append(
                Layer(
                    name=name,
                    kind=type(module).__name__,
                    kernel=_per_axis(module, "kernel_size", len(shape) - 1),
                    stride=_per_axis(module, "stride", len(shape) - 1),
                    padding=_per_axis(module, "padding", len(shape) - 1),
                    output=shape,
                    parameters=sum(p.numel() for p in module.parameters()),
                    macs=weight.numel() * positions if weight is not None and weight.ndim > 1 else 0,
                )
            )

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(record(name)) for name, module in leaves]
    training = network.training
    try:
        device = next(network.parameters()).device
        with torch.no_grad():
            network.eval()(torch.empty((1, *input_shape), device=device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return rows


def receptive_field(network: nn.Module, in_channels: int, size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Voxels along (z, y, x) that one logit in the middle of a block depends on, border of the block included.

    Counted by gradients, in a copy with positive weights and average in place of maximum pooling, so that each voxel in
    sight has one.

    Args:
        network: ``(B, in_channels, D, H, W)`` to logits ``(B, C, D, H, W)``; it is not changed.
        size: of the block; a field that reaches its borders is counted up to these.

    Example:
        >>> convolution = nn.Conv3d(1, 1, 3, padding=(1, 2, 3), dilation=(1, 2, 3))
        >>> receptive_field(convolution, 1, (15, 15, 15))
        (3, 5, 7)
    """
    positive = copy.deepcopy(network).eval().double()
    for name, module in list(positive.named_modules()):
        if isinstance(module, nn.MaxPool3d):
            average = nn.AvgPool3d(module.kernel_size, module.stride, module.padding)
            positive.set_submodule(name, average)
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.fill_(0.01)
    image = torch.ones(1, in_channels, *size, dtype=torch.float64, requires_grad=True)
    positive(image)[0, 0, size[0] // 2, size[1] // 2, size[2] // 2].backward()
    found = image.grad[0].any(dim=0).nonzero()
    return tuple((found.amax(dim=0) - found.amin(dim=0) + 1).tolist())


def _per_axis(module: nn.Module, name: str, axes: int) -> tuple[int, ...]:
    value = getattr(module, name, ())
    if isinstance(value, str):  # padding="same"
        return ()
    return (value,) * axes if isinstance(value, int) else tuple(value)

"""Layer table of a network: output sizes, parameters and multiply-accumulates, read off a forward pass."""

from __future__ import annotations

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

    Args:
        network: on any device; a network built under ``torch.device("meta")`` costs neither memory nor time.
        input_shape: of one sample, ``(C, H, W)`` or ``(C, D, H, W)``.
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


def _per_axis(module: nn.Module, name: str, axes: int) -> tuple[int, ...]:
    value = getattr(module, name, ())
    if isinstance(value, str):  # padding="same"
        return ()
    return (value,) * axes if isinstance(value, int) else tuple(value)

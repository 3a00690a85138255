"""The layers of a network with sizes and parameters, and the voxels that one logit depends on."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import nn


@dataclass(frozen=True)
class Layer:
    """One row of a layer table.

    Attributes:
        name: attribute path in the network, for instance ``"down.0.3"``.
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
    """Rows of the layers that one sample passes, in the order of the forward pass.

    Args:
        network: on any device. On the meta device, the pass costs neither memory nor time.
        input_shape: of one sample, ``(C, H, W)`` or ``(C, D, H, W)``.

    Example:
        >>> [layer] = layer_table(nn.Conv2d(1, 2, 3, padding=1), (1, 4, 4))
        >>> layer.output, layer.parameters, layer.macs
        ((2, 4, 4), 20, 288)
    """
    rows: list[Layer] = []

    def record(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
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

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(partial(record, name)) for name, module in leaves]
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


def count_layers(
    build: Callable[[], nn.Module], input_shape: tuple[int, ...]
) -> tuple[int, list[Layer] | None, int | None]:
    """Parameters, layer table and multiply-accumulates of a network that is built on the meta device.

    Args:
        build: makes the network.
        input_shape: of one sample, as in :func:`layer_table`.

    Returns:
        The number of parameters, the rows of :func:`layer_table`, and the sum of their multiply-accumulates. The last
        two are ``None`` where the layers that run depend on what is found in an image, as in Mask R-CNN.

    Example:
        >>> parameters, layers, macs = count_layers(lambda: nn.Conv2d(1, 2, 3, padding=1), (1, 4, 4))
        >>> parameters, len(layers), macs
        (20, 1, 288)
    """
    with torch.device("meta"):
        network = build()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    try:
        layers = layer_table(network, input_shape)
    except NotImplementedError:  # a tensor on the meta device has no values, which such a network asks for
        return parameters, None, None
    return parameters, layers, sum(layer.macs for layer in layers)


def receptive_field(network: nn.Module, in_channels: int, size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Extent along (z, y, x), in voxels, of the region that one logit in the middle of a block depends on.

    A copy of the network gets positive weights and average in place of maximum pooling. Each voxel on which the logit
    depends then has a gradient.

    Args:
        network: ``(B, in_channels, D, H, W)`` to logits ``(B, C, D, H, W)``; it is not changed. Its weights are
            fresh: running means of a training may switch units off. A maximum pooling with holes counts without them.
        size: of the block, ``(z, y, x)``. A field that reaches beyond the block is counted up to its border.

    Example:
        >>> convolution = nn.Conv3d(1, 1, 3, padding=(1, 2, 3), dilation=(1, 2, 3))
        >>> receptive_field(convolution, 1, (15, 15, 15))
        (3, 5, 7)
    """
    positive = copy.deepcopy(network).eval().double()
    for name, module in list(positive.named_modules()):
        if isinstance(module, nn.MaxPool3d):
            positive.set_submodule(name, nn.AvgPool3d(module.kernel_size, module.stride, module.padding))
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

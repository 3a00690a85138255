"""Processor or GPU, its precision and memory format, and a batch shared by several devices."""

import logging
import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from npcrepro.base.errors import InputError, one_of
from npcrepro.protocol.settings import DEVICES

# Lightning's notes on precision and processes are nothing that a reader of a log or a page asked for.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def make_fabric(device: str, devices: int = 1, deterministic: bool = False) -> Fabric:
    """Fabric on the device asked for, in the precision that is fast there.

    That is bf16 autocast (weights stay fp32) on GPUs and on processors with bf16 matrix units (AMX). Most other
    processors emulate it, several times slower than fp32.

    Args:
        device: one of `DEVICES`; auto is a GPU where there is one.
        devices: with several, Fabric starts a process for each.
        deterministic: GPUs use algorithms only that give the same bits each time; an operation that has none is an
            error. On processors all runs are of this kind.

    Raises:
        InputError: an unknown device, with the near miss; ``cuda`` asked for and not there, or not so often.
    """
    one_of(DEVICES, device, "device")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' was asked for, but torch sees no CUDA device; use --device cpu or auto")
    accelerator = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if accelerator == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported()
        if devices > torch.cuda.device_count():
            raise InputError(f"--devices {devices} was asked for, but torch sees {torch.cuda.device_count()} of them")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS in deterministic mode only
        torch.use_deterministic_algorithms(deterministic)
    else:
        # Not with AVX512_BF16 alone, though most steps take half the time there: in oneDNN 3.12 the gradient of weights
        # of a 3-D convolution over fewer slices than its kernel has reads memory that nobody wrote. Two slices and a
        # kernel of three give NaN, or worse, a number.
        has_bf16 = torch.cpu.get_capabilities().get("amx_bf16", False)
    # Parameters are unused in stages that stop at an inner output.
    several = DDPStrategy(start_method="spawn", find_unused_parameters=True, broadcast_buffers=False)
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        strategy=several if devices > 1 else "auto",
        # SILENT: precision; bf16 where the device is fast in it, which the GPU of Chen 2020 cannot do at all.
        precision="bf16-mixed" if has_bf16 else "32-true",
        plugins=[LightningEnvironment()],  # inside a job of SLURM, too, the processes are started here
    )


def memory_format_of(network: nn.Module, dimensions: int) -> torch.memory_format:
    """Channels last, in which networks of 2 or 3 ``dimensions`` train faster, but for two kinds of networks of slices.

    Instance normalisation of slices is computed with channels first, and turning them there and back takes longer than
    convolutions gain (a tenth of an update of the U-Net of nnU-Net). Small networks would crash:

    oneDNN, which computes convolutions on processors, writes past its memory in the gradient of the weights of strided
    1 x 1 convolutions with fewer than 16 channels that are last (seen in torch 2.13 with AVX-512, on large images).

    Example:
        >>> memory_format_of(nn.Conv2d(8, 16, 1, stride=2), 2), memory_format_of(nn.Conv2d(16, 16, 1, stride=2), 2)
        (torch.contiguous_format, torch.channels_last)
    """
    if any(isinstance(layer, nn.InstanceNorm2d) for layer in network.modules()):
        return torch.contiguous_format
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    if any(c.kernel_size == (1, 1) and c.stride != (1, 1) and c.in_channels < 16 for c in convolutions):
        return torch.contiguous_format
    return torch.channels_last if dimensions == 2 else torch.channels_last_3d


def with_shared_statistics(network: nn.Module, fabric: Fabric) -> nn.Module:
    """Batch norms of the whole batch. Processors have none: there each process normalises its rows by themselves."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network


def own_rows(count: int, fabric: Fabric) -> slice:
    """The part of a batch that this process takes through the network."""
    share = count // fabric.world_size
    return slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)


def of_all_devices(logits: Tensor | tuple, fabric: Fabric) -> Tensor | tuple:
    """Logits of the whole batch: those of other processes are added as constants.

    A Dice loss over the batch looks at all images together, and is not the mean of the losses of the processes.
    """
    if fabric.world_size == 1:
        return logits
    if isinstance(logits, tuple):
        return tuple(of_all_devices(each, fabric) for each in logits)
    parts = list(fabric.all_gather(logits.detach().contiguous()))
    parts[fabric.global_rank] = logits
    return torch.cat(parts)

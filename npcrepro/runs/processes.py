"""One training on several devices, a process for each."""

import multiprocessing
import os
import warnings
from functools import partial
from multiprocessing.connection import Connection
from threading import Thread

from lightning_fabric import Fabric

from npcrepro.base.errors import InputError
from npcrepro.base.progress import Report
from npcrepro.runs.devices import make_fabric
from npcrepro.runs.training import train


def train_in_processes(device: str, devices: int, deterministic: bool, report: Report, *arguments) -> None:
    """Train on several devices, a process for each, up to the last checkpoint; :func:`train` then finds nothing to do.

    Args:
        device, devices, deterministic: see :func:`npcrepro.runs.devices.make_fabric`.
        report: called with the first process's lines, from another thread.
        arguments: of :func:`npcrepro.runs.training.train`, without ``fabric`` and ``report``.

    Raises:
        InputError: a batch that cannot be shared equally, or devices that are not there.
    """
    method, profile, *_ = arguments
    if profile.batch_size % devices:
        raise InputError(
            f"{method.full_name} in profile {profile.name} has batches of {profile.batch_size}, which {devices} "
            "devices cannot share equally; give --devices a divisor of it"
        )
    fabric = make_fabric(device, devices, deterministic)
    lines, end = multiprocessing.Pipe(duplex=False)
    listener = Thread(target=_pass_on, args=(lines, report))
    listener.start()
    before = multiprocessing.active_children()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or each process warns that it looked for unused parameters
    try:
        # Bound here, as Fabric looks for networks inside of arguments and stumbles over frozen dataclasses.
        fabric.launch(partial(_train_one_share, end, arguments))
    finally:
        for child in set(multiprocessing.active_children()) - set(before):
            child.kill()
            child.join()
        end.close()  # the processes' own ends are closed, so that the listener comes to an end
        listener.join()
        os.environ.pop("MASTER_PORT", None)  # set by Fabric; the next run finds a free one for itself


def _train_one_share(lines: Connection, arguments: tuple, fabric: Fabric) -> None:
    """What each process does; the first one reports and writes for all."""
    warnings.filterwarnings("ignore", module="lightning_fabric")  # of names that torch will change
    *task, checkpoint, initial, log = arguments
    told = (lines.send, initial, log) if fabric.is_global_zero else (lambda line: None, initial)
    train(*(*task, fabric, checkpoint, *told))


def _pass_on(lines: Connection, report: Report) -> None:
    while True:
        try:
            report(lines.recv())
        except EOFError:
            return

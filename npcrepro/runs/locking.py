"""One process for each run, and one for each build of the book: the lock of its folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from npcrepro.base.errors import InputError


class Busy(InputError):
    """Another process is working in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder for this process; it is made where it is not there.

    Raises:
        Busy: another process has it.
        InputError: the folder cannot be made or written to, or its file system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115 (an error in the block below is none of the lock)
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another process is working on {folder}") from error
        except OSError as error:  # such as Lustre that was mounted without flock
            cause = "choose a folder on another file system (--runs, --output), or have this one mounted with flock"
            raise InputError(f"no file can be locked in {folder} ({error.strerror}): {cause}") from error
        yield


def in_use(folder: Path) -> bool:
    """Whether a process is working on the run in a folder."""
    try:
        with open(folder / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # no such file, or none that can be locked
    return False

"""Files and folders written in one piece: a kill at any moment leaves the old one or the new one, never half of one."""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from npcrepro.base.errors import InputError

NO_ROOM_BYTES = 2**20


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; what was written there is moved to ``path`` when the block ends well.

    Raises:
        InputError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = "the disk is full" if _is_full(error, path.parent) else error.strerror or error
        raise InputError(f"cannot write {path}: {reason}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` that becomes ``path`` when the block ends well; ``path`` has to be new or empty.

    Raises:
        InputError: no folder can be made there, or the disk is full.
    """
    target = Path(os.path.realpath(path))  # of a link, the folder that it leads to
    temporary = target.parent / f".{target.name}-{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        os.replace(temporary, target)
    except OSError as error:
        if _is_full(error, target.parent):
            raise InputError(f"cannot write {path}: the disk is full") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before hours of work that are for it.

    Raises:
        InputError: naming the file or folder that stands in the way.

    Example:
        >>> check_writable(Path("a/new/folder"))
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"cannot write {folder}: {there} is a file")
    if not os.access(there, os.W_OK):
        raise InputError(f"cannot write {folder}: {there} may not be written to")


def check_new(folder: Path) -> None:
    """Refuse a folder that is there and not empty, before work that would fill it.

    Raises:
        InputError: naming the folder.

    Example:
        >>> check_new(Path("a/new/folder"))
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: give a new folder, or remove it first")


def _is_full(error: OSError, folder: Path) -> bool:
    """Whether the disk is full. NumPy's error has no number then: it says only how many values were written."""
    if error.errno is None:
        return shutil.disk_usage(folder).free < NO_ROOM_BYTES
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one piece."""
    with writing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece: UTF-8, line ends as they are."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write plain data (dictionaries, lists, numbers, strings) as JSON in one piece."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote. A file that is missing or not JSON raises OSError or ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(value: object) -> str:
    """SHA-256 (hex) of plain data, blind to the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 (hex) of the content of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# Of a field of a dataclass: `as_data` leaves it out where it has its default, so that what was written before there was
# such a field stays the same.
UNSAID = {"unsaid": True}


def as_data(value: Any) -> Any:
    """Dataclasses, mappings and sequences as plain dictionaries and lists, ready for JSON.

    Example:
        >>> from npcrepro.protocol.method import Component
        >>> as_data(Component("torch.optim:Adam", {"betas": (0.9, 0.999)}))
        {'target': 'torch.optim:Adam', 'options': {'betas': [0.9, 0.999]}}
    """
    if dataclasses.is_dataclass(value):
        said = [f for f in dataclasses.fields(value) if f.metadata != UNSAID or getattr(value, f.name) != f.default]
        return {f.name: as_data(getattr(value, f.name)) for f in said}
    if isinstance(value, Mapping):
        return {str(key): as_data(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [as_data(item) for item in value]
    return value

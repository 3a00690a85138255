"""Archives unpacked in one piece, or refused where they are damaged or would write outside their folder."""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from npcrepro.base.errors import InputError
from npcrepro.base.files import writing_folder

DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a new folder.

    Raises InputError, with nothing left behind, for an archive that is damaged, asks for a password, names a path
    outside the folder, holds links or devices, or is larger than the room on the disk.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, folder)
        else:
            raise InputError(f"{archive} is no zip or tar archive: an interrupted download, or an error page")
    except DAMAGED as problem:
        raise InputError(f"{archive} cannot be unpacked ({problem}): damaged, or a format of another tool") from None


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for info in members:
            odd = stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
            what = "locked with a password (unpack it with 7z)" if info.flag_bits & 1 else "a link or a device" * odd
            # zipfile cuts a name at a NUL byte and takes '..' out of it: judge the name as it was written.
            info.filename = _checked(archive, info.orig_filename, what)
        _require_room(archive, folder, sum(info.file_size for info in members))
        with writing_folder(folder) as place:
            opened.extractall(place, members)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        for info in members:
            info.name = _checked(archive, info.name, "" if info.isfile() or info.isdir() else "a link or a device")
        _require_room(archive, folder, sum(info.size for info in members))
        with writing_folder(folder) as place:
            opened.extractall(place, members, filter="data")


def _checked(archive: Path, name: str, what: str) -> str:
    """The name of a member with slashes; ``what`` says what it is where it is neither a file nor a folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        what = "a path outside the folder: a broken or malicious archive"
        raise InputError(f"{archive} holds {name!r}, {what}; nothing was unpacked")
    if what:
        raise InputError(f"{archive} holds {name!r}, which is {what}; nothing was unpacked")
    return name.replace("\\", "/")


def _require_room(archive: Path, folder: Path, needed: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    require_room(folder.parent, needed, f"{archive.name}, unpacked,")


def require_room(folder: Path, needed: int, name: str) -> None:
    """Raise InputError where the disk of a folder has less room than the bytes needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{name} needs {amount(needed)} in {folder}, and {amount(free)} are free: make room first")


def amount(size: float) -> str:
    """Bytes in words: "1.25 GB" or "3.0 MB"."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"

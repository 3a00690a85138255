"""Download and unpack public sets. What was interrupted goes on; what is damaged or malicious is refused."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import ssl
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO

from npcrepro.base.errors import InputError
from npcrepro.base.files import writing_folder
from npcrepro.base.progress import Report
from npcrepro.cohorts.public.sets import Download, PublicSet

CHUNK = 1 << 20
TIMEOUT_S = 60
ATTEMPTS = 5
# Of a transfer; one line for each step.
PROGRESS_STEP = 0.05


def fetch(chosen: PublicSet, destination: str | Path, report: Report = print) -> list[Path]:
    """Download the files of a set to ``destination`` and unpack them beside; returns the folders (or files).

    An interrupted download is kept as ``NAME.part`` and goes on at the next call, where there is a sum to check that
    both halves are of one file; else it starts anew. Raises InputError for a set that
    has to be asked for, a file that is not there, a wrong sum (the file is removed), a disk without room, and an
    archive that would write outside its folder.
    """
    if not chosen.downloads:
        raise InputError(f"{chosen.title} cannot be fetched from here ({chosen.access}); then use 'data convert'")
    destination = Path(destination)
    report(f"{chosen.title}: licence {chosen.licence}; cite {chosen.reference}")
    with _writing_to(destination):
        destination.mkdir(parents=True, exist_ok=True)
        return [_fetch_one(file, destination, report) for file in chosen.downloads]


def _fetch_one(file: Download, destination: Path, report: Report) -> Path:
    archive = download(file, destination, report)
    if not file.unpack:
        report(f"{archive} asks for a password: unpack it with 7z")
        return archive
    folder = destination / archive.name.partition(".")[0]
    if folder.is_dir() and any(folder.iterdir()):
        report(f"{folder} is there already")
        return folder
    unpack(archive, folder)
    report(f"{folder} is ready; {archive.name} can be removed")
    return folder


# Download


def download(file: Download, destination: Path, report: Report) -> Path:
    """Download one file into a folder that exists; see `fetch`."""
    path = destination / file.name
    part = path.with_name(f"{path.name}.part")
    if path.is_file():
        _check_sum(path, file, report)
        return path
    if file.sha256 is None:
        # Without a sum nobody would notice that two versions of the file were glued together.
        part.unlink(missing_ok=True)
    before = -1
    for attempt in range(ATTEMPTS):
        try:
            if _transfer(file, part, report):
                break
        except urllib.error.HTTPError as problem:
            raise InputError(f"{file.url} answers {problem.code} {problem.reason}: {_cause(problem.code)}") from None
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as problem:
            reason = getattr(problem, "reason", None) or problem
            if attempt == ATTEMPTS - 1 or _size(part) <= before:
                raise InputError(_interrupted(file, part, str(reason))) from None
        before = max(before, _size(part))
        report(f"{file.name}: interrupted at {_amount(_size(part))}, going on")
    else:
        raise InputError(_interrupted(file, part, "the server ends the transfer early"))
    _check_sum(part, file, report)
    part.replace(path)
    return path


def _transfer(file: Download, part: Path, report: Report) -> bool:
    """Append what is missing; False where the server ended early."""
    start = _size(part)
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as problem:
        if problem.code != 416:
            raise
        # Nothing is left to send: all is there, or the file became shorter and the part is of another one.
        if problem.headers.get("Content-Range") == f"bytes */{start}":
            return True
        part.unlink()
        return _transfer(file, part, report)
    with response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if total is not None:
            _check_room(part.parent, total - start, file.name)
        with part.open("ab" if start else "wb") as target:
            _copy(response, target, start, total, _progress(file.name, report))
    return total is None or _size(part) == total


def _copy(
    response: HTTPResponse, target: IO[bytes], done: int, total: int | None, say: Callable[[int, int | None], None]
) -> None:
    while chunk := response.read(CHUNK):
        target.write(chunk)
        done += len(chunk)
        say(done, total)


def _progress(name: str, report: Report) -> Callable[[int, int | None], None]:
    last = -1

    def say(done: int, total: int | None) -> None:
        nonlocal last
        # Where the server does not say how long the file is, a line for each 100 MB.
        step = int(done / total / PROGRESS_STEP) if total else int(done / 1e8)
        if step > last:
            last = step
            report(f"{name}: {_amount(done)}" + (f" of {_amount(total)} ({done / total:.0%})" if total else ""))

    return say


def _check_sum(path: Path, file: Download, report: Report) -> None:
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if file.sha256 is None:
        report(f"{file.name}: sha256 {found}; the publisher gives none to compare with")
    elif found != file.sha256:
        path.unlink()
        cause = "a damaged transfer, or the publisher has replaced the file; it was removed"
        raise InputError(f"{path} has the sha256 {found} and not {file.sha256}: {cause}")


def _check_room(folder: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{name} needs {_amount(needed)} in {folder}, and {_amount(free)} are free: make room first")


def _interrupted(file: Download, part: Path, why: str) -> str:
    then = "goes on from there" if file.sha256 else "starts anew"
    return f"{file.url}: interrupted at {_amount(_size(part))} ({why}); the same command {then}"


def _cause(code: int) -> str:
    if code in (401, 403):
        return "the publisher asks for a registration now"
    return "the file was moved or withdrawn" if code in (404, 410) else "the server is not well, try again later"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _amount(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        cause = "the disk is full" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else problem.strerror or problem
        raise InputError(f"cannot write to {folder}: {cause}") from problem


# Unpacking


@dataclass(frozen=True)
class _Member:
    """One entry of an archive. ``odd`` says what it is where it is neither a file nor a folder."""

    name: str
    size: int
    is_folder: bool
    odd: str
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a new folder, in one piece.

    Raises InputError, with nothing left behind, for an archive that is damaged, asks for a password, names a path
    outside the folder, holds links or devices, or is larger than the room on the disk.
    """
    try:
        with _members(archive) as members:
            for member in members:
                _check_member(archive, member)
            folder.parent.mkdir(parents=True, exist_ok=True)
            _check_room(folder.parent, sum(member.size for member in members), f"{archive.name}, unpacked,")
            with writing_folder(folder) as place:
                for member in members:
                    _write_member(member, place)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as problem:
        raise InputError(f"{archive} cannot be unpacked ({problem}): damaged, or a format of another tool") from None


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield [_zip_member(opened, info) for info in opened.infolist()]
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened:
            yield [_tar_member(opened, info) for info in opened.getmembers()]
    else:
        raise InputError(f"{archive} is no zip or tar archive: an interrupted download, or an error page")


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    odd = "" if stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR) else "a link or a device"
    if info.flag_bits & 1:
        odd = "locked with a password (unpack it with 7z)"
    # zipfile cuts a name at a NUL byte and turns backslashes on Windows only: judge the name as it was written.
    return _Member(info.orig_filename, info.file_size, info.is_dir(), odd, lambda: archive.open(info))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    odd = "" if info.isfile() or info.isdir() else "a link or a device"
    return _Member(info.name, info.size, info.isdir(), odd, lambda: archive.extractfile(info))


def _check_member(archive: Path, member: _Member) -> None:
    path = PurePosixPath(member.name.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member.name) or "\0" in member.name
    if outside:
        cause = "a path outside the folder: a broken or malicious archive"
        raise InputError(f"{archive} holds {member.name!r}, {cause}; nothing was unpacked")
    if member.odd:
        raise InputError(f"{archive} holds {member.name!r}, which is {member.odd}; nothing was unpacked")


def _write_member(member: _Member, place: Path) -> None:
    path = place / member.name.replace("\\", "/")
    if member.is_folder:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as content, path.open("wb") as target:
        shutil.copyfileobj(content, target, CHUNK)

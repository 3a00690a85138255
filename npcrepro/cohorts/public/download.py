"""Download public sets, where a transfer that was interrupted goes on, and unpack them in one piece or not at all."""

import errno
import re
import shutil
import ssl
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from npcrepro.base.errors import InputError
from npcrepro.base.files import sha256_of_file, writing_folder
from npcrepro.base.progress import Report
from npcrepro.base.wording import percent
from npcrepro.cohorts.public.sets import Download, PublicSet

CHUNK = 1 << 20
TIMEOUT_S = 60
ATTEMPTS = 5
PROGRESS_STEPS = 20  # lines for a transfer; where the server does not say how long the file is, one for each 100 MB
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
CAUSES = dict.fromkeys((401, 403), "the publisher asks for a registration now")
CAUSES |= dict.fromkeys((404, 410), "the file was moved or withdrawn")
# What a connection may raise. Other errors of the operating system are about the disk.
BROKEN = (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def fetch(chosen: PublicSet, destination: str | Path, report: Report = print) -> list[Path]:
    """Download the files of a set to ``destination`` and unpack them beside; returns the folders (or files).

    An interrupted download is kept as ``NAME.part`` and goes on at the next call, where there is a sum to check that
    both halves are of one file; else it starts anew. A set that has to be asked for is found, where somebody has put it
    into ``destination``. Raises InputError for such a set that is not there, a file that is not there, a wrong sum (the
    file is removed), a disk without room, and an archive that `unpack` refuses.
    """
    destination = Path(destination)
    if not chosen.downloads:
        if destination.is_dir() and any(destination.iterdir()):
            report(f"{destination} is taken for {chosen.title}: licence {chosen.licence}; cite {chosen.reference}")
            return [destination]
        raise InputError(
            f"{chosen.title} cannot be fetched from here ({chosen.access}); put what you get, unpacked, into "
            f"{destination}, as {chosen.layout}, and give the command again, or use 'data convert'"
        )
    report(f"{chosen.title}: licence {chosen.licence}; cite {chosen.reference}")
    try:
        destination.mkdir(parents=True, exist_ok=True)
        return [_fetch_one(file, destination, report) for file in chosen.downloads]
    except OSError as problem:
        cause = "the disk is full" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else problem.strerror or problem
        raise InputError(f"cannot write to {destination}: {cause}") from problem


def _fetch_one(file: Download, destination: Path, report: Report) -> Path:
    archive = download(file, destination, report)
    folder = destination / archive.name.partition(".")[0]
    if not file.unpack:
        report(f"{archive} asks for a password: unpack it with 7z")
        return archive
    if folder.is_dir() and any(folder.iterdir()):
        report(f"{folder} is there already")
    else:
        unpack(archive, folder)
        report(f"{folder} is ready; {archive.name} can be removed")
    return folder


def download(file: Download, destination: Path, report: Report) -> Path:
    """Download one file into a folder that exists, and check its sum; see `fetch`."""
    path = destination / file.name
    if path.is_file():
        _check_sum(path, file, report)
        return path
    part = path.with_name(f"{path.name}.part")
    if file.sha256 is None:
        # Without a sum nobody would notice that two versions of the file were glued together.
        part.unlink(missing_ok=True)
    before = -1
    for attempt in range(1, ATTEMPTS + 1):
        why = "the server ends the transfer early"
        try:
            if _transfer(file, part, report):
                break
        except urllib.error.HTTPError as problem:
            cause = CAUSES.get(problem.code, "the server is not well, try again later")
            raise InputError(f"{file.url} answers {problem.code} {problem.reason}: {cause}") from None
        except BROKEN as problem:
            why = str(getattr(problem, "reason", None) or problem)
        done = _size(part)
        if attempt == ATTEMPTS or done == before:
            then = "goes on from there" if file.sha256 else "starts anew"
            raise InputError(f"{file.url}: interrupted at {amount(done)} ({why}); the same command {then}")
        before = done
        report(f"{file.name}: interrupted at {amount(done)}, going on")
    _check_sum(part, file, report)
    return part.replace(path)


def _transfer(file: Download, part: Path, report: Report) -> bool:
    """Append what is missing; False where the server ended early."""
    done = _size(part)
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as problem:
        if problem.code != 416:
            raise
        # Nothing is left to send: all is there, or the file became shorter and the part is of another one.
        if problem.headers.get("Content-Range") == f"bytes */{done}":
            return True
        part.unlink()
        return _transfer(file, part, report)
    with response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        if total is not None:
            require_room(part.parent, total - done, file.name)
        told = -1
        with part.open("ab" if done else "wb") as target:
            while chunk := response.read(CHUNK):
                target.write(chunk)
                done += len(chunk)
                step = int(done / total * PROGRESS_STEPS) if total else int(done / 1e8)
                if step > told:
                    told = step
                    of = f" of {amount(total)} ({percent(done / total)})" if total else ""
                    report(f"{file.name}: {amount(done)}{of}")
    return total is None or done == total


def _check_sum(path: Path, file: Download, report: Report) -> None:
    found = sha256_of_file(path)
    if file.sha256 is None:
        report(f"{file.name}: sha256 {found}; the publisher gives none to compare with")
    elif found != file.sha256:
        path.unlink()
        cause = "a damaged transfer, or the publisher has replaced the file; it was removed"
        raise InputError(f"{path} has the sha256 {found} and not {file.sha256}: {cause}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a new folder.

    Raises InputError, with nothing left behind, for an archive that is damaged, asks for a password, names a path
    outside the folder, holds links or devices, or is larger than the room on the disk.
    """
    if not zipfile.is_zipfile(archive):
        raise InputError(f"{archive} is no zip archive: an interrupted download, or an error page")
    try:
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                odd = stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
                locked = "locked with a password (unpack it with 7z)" if info.flag_bits & 1 else ""
                # zipfile cuts a name at a NUL byte and takes '..' out of it: judge the name as it was written.
                info.filename = _checked(archive, info.orig_filename, locked or "a link or a device" * odd)
            folder.parent.mkdir(parents=True, exist_ok=True)
            needed = sum(info.file_size for info in file.infolist())
            require_room(folder.parent, needed, f"{archive.name}, unpacked,")
            with writing_folder(folder) as place:
                file.extractall(place)
    except DAMAGED as problem:
        raise InputError(f"{archive} cannot be unpacked ({problem}): damaged, or a format of another tool") from None


def _checked(archive: Path, name: str, what: str) -> str:
    """The name of a member with slashes; ``what`` says what it is where it is neither a file nor a folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        what = "a path outside the folder: a broken or malicious archive"
        raise InputError(f"{archive} holds {name!r}, {what}; nothing was unpacked")
    if what:
        raise InputError(f"{archive} holds {name!r}, which is {what}; nothing was unpacked")
    return name.replace("\\", "/")


def require_room(folder: Path, needed: int, name: str) -> None:
    """Raise InputError where the disk of a folder has less room than the bytes needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{name} needs {amount(needed)} in {folder}, and {amount(free)} are free: make room first")


def amount(size: float) -> str:
    """Bytes in words: "1.25 GB" or "3.0 MB"."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"

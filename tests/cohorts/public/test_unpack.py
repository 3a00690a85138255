"""Archives: unpacked in one piece, or refused."""

import io
import os
import stat
import tarfile
import zipfile
from collections import namedtuple

import pytest
from public_sources import archive_of

from npcrepro.base.errors import InputError
from npcrepro.cohorts.public.unpack import unpack

Usage = namedtuple("Usage", "total used free")


def zip_of(path, name, kind=stat.S_IFREG, flags=0):
    """An archive with a harmless file and another one of this kind in the Unix mode."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fine.txt", "abc")
        info = zipfile.ZipInfo("x")
        info.filename = name
        info.external_attr = (kind | 0o644) << 16
        archive.writestr(info, "/etc/passwd")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= flags
    path.write_bytes(data)
    return path


def tar_of(path, name, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as archive:
        for each, type_ in (("fine.txt", tarfile.REGTYPE), (name, kind)):
            info = tarfile.TarInfo(each)
            info.type, info.size, info.linkname = type_, 3 if type_ == tarfile.REGTYPE else 0, "/etc/passwd"
            archive.addfile(info, io.BytesIO(b"abc"))
    return path


def nothing_unpacked(archive):
    with pytest.raises(InputError) as problem:
        unpack(archive, archive.parent / "there")
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    return str(problem.value)


@pytest.mark.parametrize("name", ["../a", "b/../../a", "/tmp/npcrepro-a", "C:\\a", "..\\a", "\\a", "c:a"])
@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_paths_outside_are_refused(make, name, tmp_path):
    assert "a path outside the folder" in nothing_unpacked(make(tmp_path / "a", name))


ODD = [(zip_of, kind) for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO)]
ODD += [(tar_of, kind) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)]


@pytest.mark.parametrize(("make", "kind"), ODD)
def test_links_and_devices_are_refused(make, kind, tmp_path):
    assert "'odd', which is a link or a device" in nothing_unpacked(make(tmp_path / "a", "odd", kind))


def test_zip_with_a_password_is_refused(tmp_path):
    assert "locked with a password (unpack it with 7z)" in nothing_unpacked(zip_of(tmp_path / "a.zip", "a", flags=1))


def test_damaged_archives_are_refused_and_leave_nothing(tmp_path):
    for content in (os.urandom(1000), bytes(range(256)) * 100):  # a wrong sum, and a stream that cannot be read
        data = bytearray(archive_of({"a.txt": content, "b.txt": "b"}))
        data[50:60] = b"\xff" * 10
        (tmp_path / "a").write_bytes(data)
        assert "cannot be unpacked" in nothing_unpacked(tmp_path / "a")
    (tmp_path / "a").write_bytes(tar_of(tmp_path / "a", "b").read_bytes()[:-20])
    assert "cannot be unpacked" in nothing_unpacked(tmp_path / "a")
    (tmp_path / "a").write_text("<html>log in</html>")
    assert "no zip or tar archive: an interrupted download, or an error page" in nothing_unpacked(tmp_path / "a")

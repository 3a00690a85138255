"""Downloads against a server on this machine; archives are unpacked in one piece, or refused."""

import hashlib
import os
import stat
import zipfile
from dataclasses import replace

import pytest
from public_sources import archive_of

from npcrepro.base.errors import InputError
from npcrepro.cohorts import public
from npcrepro.cohorts.public import download as download_module
from npcrepro.cohorts.public.download import download, fetch, unpack
from npcrepro.cohorts.public.sets import Download

pytest_plugins = ["public_server"]
CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(server):
    server.content = CONTENT
    return Download(server.url, "set.zip", SHA256)


@pytest.fixture
def lines():
    return []


def files_of(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_a_file_is_downloaded_once_with_progress(file, server, tmp_path, lines, monkeypatch):
    monkeypatch.setattr(download_module, "CHUNK", 1 << 16)
    for _ in range(2):
        assert download(file, tmp_path, lines.append).read_bytes() == CONTENT
    assert server.asked == [None]
    assert files_of(tmp_path) == {"set.zip": len(CONTENT)}
    assert (lines[0], lines[-1]) == ("set.zip: 0.1 MB of 5.1 MB (1 %)", "set.zip: 5.1 MB of 5.1 MB (100 %)")
    assert 18 <= len(lines) <= 21


def test_a_transfer_that_keeps_breaking_is_kept_for_the_next_call(file, server, tmp_path, lines):
    server.breaks = [1000] * download_module.ATTEMPTS
    with pytest.raises(InputError, match=r"set\.zip: interrupted at 0\.0 MB .*the same command goes on from there"):
        download(file, tmp_path, lines.append)
    assert files_of(tmp_path) == {"set.zip.part": 1000 * download_module.ATTEMPTS}
    assert download(file, tmp_path, lines.append).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={1000 * download_module.ATTEMPTS}-"


@pytest.mark.parametrize("there", [True, False])
def test_a_wrong_sum_removes_the_file(file, server, tmp_path, lines, there):
    server.content = b"an error page"
    if there:
        (tmp_path / "set.zip").write_bytes(server.content)
    found = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(InputError, match=f"has the sha256 {found} and not {SHA256}"):
        download(file, tmp_path, lines.append)
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize(
    ("status", "cause"), [(404, "moved or withdrawn"), (403, "asks for a registration"), (503, "try again later")]
)
def test_a_refusal_is_one_sentence(file, server, tmp_path, lines, status, cause):
    server.status = status
    with pytest.raises(InputError, match=rf"set\.zip answers {status} .*{cause}"):
        download(file, tmp_path, lines.append)
    assert files_of(tmp_path) == {}


def test_fetch_downloads_and_unpacks_once(server, tmp_path, lines):
    server.content = archive_of({"data/a.txt": "a" * 10_000, "data/empty/": ""})
    sha256 = hashlib.sha256(server.content).hexdigest()
    chosen = replace(public.find("openkbp"), downloads=(Download(server.url, "set.zip", sha256),))
    for _ in range(2):
        assert fetch(chosen, tmp_path / "new/place", lines.append) == [tmp_path / "new/place/set"]
    assert (tmp_path / "new/place/set/data/a.txt").read_text() == "a" * 10_000
    assert (tmp_path / "new/place/set/data/empty").is_dir()
    assert sorted(path.name for path in (tmp_path / "new/place").iterdir()) == ["set", "set.zip"]
    assert lines[0].startswith("OpenKBP: licence MIT; cite Babier")
    assert lines[-1].endswith("set is there already")
    assert len(server.asked) == 1


def test_sets_that_have_to_be_asked_for_say_where_to_put_them(tmp_path, lines):
    for chosen in public.SETS.values():
        if not chosen.downloads:
            with pytest.raises(InputError, match=r"put what you get, .*or use 'data convert'") as problem:
                fetch(chosen, tmp_path / "new", lines.append)
            assert chosen.access in str(problem.value)
    assert not (tmp_path / "new").exists()
    (tmp_path / "new" / "SegRap2023").mkdir(parents=True)
    assert fetch(public.find("segrap2023"), tmp_path / "new", lines.append) == [tmp_path / "new"]
    assert lines[-1].startswith(f"{tmp_path / 'new'} is taken for SegRap2023")


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


def nothing_unpacked(archive):
    with pytest.raises(InputError) as problem:
        unpack(archive, archive.parent / "there")
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    return str(problem.value)


@pytest.mark.parametrize("name", ["../a", "b/../../a", "/tmp/npcrepro-a", "C:\\a", "..\\a", "\\a", "c:a"])
def test_paths_outside_are_refused(name, tmp_path):
    assert "a path outside the folder" in nothing_unpacked(zip_of(tmp_path / "a", name))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(kind, tmp_path):
    assert "'odd', which is a link or a device" in nothing_unpacked(zip_of(tmp_path / "a", "odd", kind))


def test_zip_with_a_password_is_refused(tmp_path):
    assert "locked with a password (unpack it with 7z)" in nothing_unpacked(zip_of(tmp_path / "a.zip", "a", flags=1))


def test_damaged_archives_are_refused_and_leave_nothing(tmp_path):
    for content in (os.urandom(1000), bytes(range(256)) * 100):  # a wrong sum, and a stream that cannot be read
        data = bytearray(archive_of({"a.txt": content, "b.txt": "b"}))
        data[50:60] = b"\xff" * 10
        (tmp_path / "a").write_bytes(data)
        assert "cannot be unpacked" in nothing_unpacked(tmp_path / "a")
    (tmp_path / "a").write_text("<html>log in</html>")
    assert "no zip archive: an interrupted download, or an error page" in nothing_unpacked(tmp_path / "a")

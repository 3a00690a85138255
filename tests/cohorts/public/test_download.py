"""Downloads against a server on this machine."""

import hashlib
from dataclasses import replace

import pytest
from public_sources import archive_of

from npcrepro.base.errors import InputError
from npcrepro.cohorts import public
from npcrepro.cohorts.public import download as download_module
from npcrepro.cohorts.public.download import download, fetch
from npcrepro.cohorts.public.sets import Download

pytest_plugins = ["public_server"]
CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def served(server):
    server.content = CONTENT


@pytest.fixture
def file(server):
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
    assert (lines[0], lines[-1]) == ("set.zip: 0.1 MB of 5.1 MB (1%)", "set.zip: 5.1 MB of 5.1 MB (100%)")
    assert 18 <= len(lines) <= 21


def test_an_interrupted_transfer_goes_on_at_once(file, server, tmp_path, lines):
    server.breaks = [1_000_000, 2_000_000]
    assert download(file, tmp_path, lines.append).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=3000000-"]
    assert "set.zip: interrupted at 3.0 MB, going on" in lines


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


@pytest.fixture
def chosen(server):
    server.content = archive_of({"data/a.txt": "a" * 10_000, "data/empty/": ""})
    sha256 = hashlib.sha256(server.content).hexdigest()
    return replace(public.find("openkbp"), downloads=(Download(server.url, "set.zip", sha256),))


def test_fetch_downloads_and_unpacks_once(chosen, server, tmp_path, lines):
    for _ in range(2):
        assert fetch(chosen, tmp_path / "new/place", lines.append) == [tmp_path / "new/place/set"]
    assert (tmp_path / "new/place/set/data/a.txt").read_text() == "a" * 10_000
    assert (tmp_path / "new/place/set/data/empty").is_dir()
    assert sorted(path.name for path in (tmp_path / "new/place").iterdir()) == ["set", "set.zip"]
    assert lines[0].startswith("OpenKBP: licence MIT; cite Babier")
    assert lines[-1].endswith("set is there already")
    assert len(server.asked) == 1


def test_sets_that_have_to_be_asked_for(tmp_path, lines):
    for chosen in public.SETS.values():
        if not chosen.downloads:
            with pytest.raises(InputError, match="or use 'data convert'") as problem:
                fetch(chosen, tmp_path / "new", lines.append)
            assert chosen.access in str(problem.value)
    assert not (tmp_path / "new").exists()

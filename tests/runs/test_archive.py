"""Published runs in one file: packed, checked, added, and every fault refused with one sentence."""

import hashlib
import json
import shutil
import zipfile
from types import SimpleNamespace

import pytest
from core_cases import finish

from npcrepro.base.errors import InputError
from npcrepro.runs import archive as archives
from npcrepro.runs.archive import MANIFEST, check, pack
from npcrepro.runs.published import publish, read_published

NAME = "li2018-tiny-tiny"


@pytest.fixture(scope="module")
def made(tiny_root, tmp_path_factory):
    """Two finished runs, published weights of one of them, and the archive of it all."""
    folder = tmp_path_factory.mktemp("archive")
    records, _ = finish(tiny_root, folder / "runs", seeds=(0, 1))
    weights = folder / "weights"
    weights.mkdir()
    for name in ("config.json", "provenance.json"):
        shutil.copy(records[0].folder / name, weights)
    made = records[0].provenance["finished"][:10]
    (weights / "README.md").write_text(f"# Stepwise\n\nMade on {made}. Research only.\n")
    pack(folder / "results.zip", [folder / "runs", weights])
    return SimpleNamespace(folder=folder, records=records, archive=folder / "results.zip")


def files_of(archive):
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def write(path, files):
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return path


@pytest.fixture
def altered(made, tmp_path):
    """The archive with files changed by name, with sums that fit unless ``sums`` is false; None takes one out."""

    def altered(changes, sums=True):
        files = files_of(made.archive)
        for name, change in changes.items():
            content = change(files.get(name, b"").decode()) if callable(change) else change
            if content is None:
                del files[name]
            else:
                files[name] = content.encode() if isinstance(content, str) else content
        if sums:
            found = {n: hashlib.sha256(content).hexdigest() for n, content in files.items() if n != MANIFEST}
            files[MANIFEST] = json.dumps(json.loads(files[MANIFEST]) | {"files": found}).encode()
        return write(tmp_path / "altered.zip", files)

    return altered


def refused(archive, tmp_path):
    """The sentence with which an archive is refused; nothing has been written."""
    with pytest.raises(InputError) as problem:
        check(archive, tmp_path / "results")
    assert not (tmp_path / "results").exists()
    sentence = str(problem.value)
    assert str(archive) in sentence
    assert "\n" not in sentence
    return sentence


def of_json(change):
    """A change of runs.json as data."""

    def changed(text):
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return {f"{NAME}/runs.json": changed}


CASES = f"{NAME}/cases-stepwise.csv"


def test_an_archive_travels_into_a_book(made, tmp_path):
    (found,) = check(made.archive, tmp_path / "results")
    publish(made.records, tmp_path / "expected")
    names = {"runs.json", "history-stepwise.csv", "cases-stepwise.csv"}
    assert {path.name for path in found.folder.iterdir()} == {*names, "card-stepwise.md"}
    for name in names:
        assert (found.folder / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    assert len(read_published(tmp_path / "results" / NAME).runs) == 2
    assert check(made.archive, tmp_path / "results")[0].folder == found.folder


def test_the_same_runs_are_the_same_bytes(made, tmp_path):
    """From the folder of runs, from single runs, and from what is published."""
    found = read_published(check(made.archive, tmp_path)[0].folder).folder
    weights = made.folder / "weights"
    for name, sources in {"b": [*(r.folder for r in made.records), weights], "c": [found]}.items():
        pack(tmp_path / name, sources)
        assert (tmp_path / name).read_bytes() == made.archive.read_bytes()


def test_other_runs_under_the_same_name_stay(made, tmp_path):
    publish(made.records[:1], tmp_path / "results" / NAME)
    before = (tmp_path / "results" / NAME / "runs.json").read_bytes()
    with pytest.raises(InputError, match=f"{NAME} is there already and holds something else"):
        check(made.archive, tmp_path / "results")
    assert (tmp_path / "results" / NAME / "runs.json").read_bytes() == before


def insert(column, value):
    """A column more in every row of cases."""

    def inserted(text):
        first, *rest = text.splitlines()
        return "\n".join([f"{first},{column}", *(f"{line},{value}" for line in rest)])

    return {CASES: inserted}


CHANGED = "otherwise than its manifest says"  # the words of faults after which the sums do not fit
FAULTS = {
    "a number": ({CASES: lambda text: text.replace("all_slices,ok", "all_slices,both_empty")}, CHANGED),
    "a file more": ({f"{NAME}/patients.csv": "name\nx\n"}, CHANGED),
    "a file less": ({CASES: None}, CHANGED),
    "an image": ({f"{NAME}/image.nii.gz": "x"}, "which is no file of published runs"),
    "a path outside": ({"../evil.csv": "x"}, "a path outside the folder"),
    "another code": (of_json(lambda c: c["common"].update(code_sha256="a" * 64)), "other code than this version has"),
    "a setting": (of_json(lambda c: c["methods"]["stepwise"].update(budget=9.0)), "settings are not those of its hash"),
    "an unknown field": (of_json(lambda c: c["common"].update(physician="x")), "has the field 'physician'"),
    "a field of a field": (of_json(lambda c: c["common"]["versions"].update(host="x")), "has the field 'host'"),
    "a column of notes": (insert("remark", "x"), "has the column 'remark'"),
    "a person's name": ({CASES: lambda text: text.replace(",P0,P0,", ',P0,"Doe, Jane",')}, "'Doe, Jane', which is no"),
    "a name of DICOM": (of_json(lambda c: c["common"].update(processor="DOE^JANE")), "a name as DICOM writes it"),
    "a date of birth": ({CASES: lambda text: text.replace(",P0,P0,", ",P0,P19610423,")}, "looks like a date"),
    "a UID": (of_json(lambda c: c["common"].update(device="1.2.840.113619.2.55")), "an identifier of DICOM"),
    "free text": (of_json(lambda c: c["common"].update(device="long " * 100)), "free text, or not made by publish"),
    "a birthday on a model card": ({f"{NAME}/card-stepwise.md": "born 23.04.1961"}, "'23.04.1961', which looks like"),
    "a text for a number": ({CASES: lambda text: text.replace(",ok,", ",ok,x", 1)}, "has text in the column tp"),
    "rows of no run": ({CASES: lambda text: text.replace("tiny,0,1,", "tiny,0,7,")}, "seed 7, a run that runs.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_with_one_sentence(altered, tmp_path, fault):
    changes, words = FAULTS[fault]
    assert words in refused(altered(changes, sums=words != CHANGED), tmp_path)


def test_a_number_whose_sum_was_changed_with_it(altered, tmp_path):
    """The DSC has to be that of the counts."""

    def better(text):
        header, first, *rest = text.splitlines()
        cells = dict(zip(header.split(","), first.split(","), strict=True))
        cells |= {"dsc": "0.987", "tp": "10"}
        return "\n".join([header, ",".join(cells.values()), *rest])

    assert "has the DSC 0.987 for GTVp" in refused(altered({CASES: better}), tmp_path)


def test_no_zip_file_and_no_archive(tmp_path):
    (tmp_path / "page.zip").write_text("<html>")
    assert "is no zip archive" in refused(tmp_path / "page.zip", tmp_path)
    assert "has no manifest.json" in refused(write(tmp_path / "other.zip", {"a.txt": "a"}), tmp_path)
    assert "is not there" in refused(tmp_path / "nothing.zip", tmp_path)
    (tmp_path / "half.zip").write_bytes(write(tmp_path / "whole.zip", {"a.txt": "a" * 1000}).read_bytes()[:500])
    refused(tmp_path / "half.zip", tmp_path)


def test_what_cannot_be_packed_leaves_no_file(made, tmp_path):
    copied = tmp_path / "runs/li2018/stepwise/tiny/tiny/run"
    shutil.copytree(made.records[0].folder, copied)
    (copied / "provenance.json").write_text((copied / "provenance.json").read_text().replace('"cpu"', '"DOE^JANE"'))
    for sources, words in (
        ([tmp_path / "nothing"], "holds no finished run and no published runs"),
        ([made.folder / "runs/li2018"], "is a part of a folder of runs"),
        ([copied], "looks like a name as DICOM writes it"),
        ([made.folder / "weights"], "a model card of stepwise without its runs"),
    ):
        with pytest.raises(InputError, match=words):
            pack(tmp_path / "results.zip", sources)
        assert not (tmp_path / "results.zip").exists()


def test_a_full_disk_leaves_nothing(made, tmp_path, monkeypatch):
    def full(*given, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.shutil, "copytree", full)
    with pytest.raises(InputError, match="the disk is full"):
        check(made.archive, tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []
    monkeypatch.setattr(archives.zipfile.ZipFile, "writestr", full)
    with pytest.raises(InputError, match="the disk is full"):
        pack(tmp_path / "results.zip", [made.folder / "runs"])
    assert not (tmp_path / "results.zip").exists()


def test_the_command(made, tmp_path, call):
    status, out, err = call("publish", tmp_path / "out.zip", made.folder / "runs")
    assert (status, err) == (0, "")
    assert out.splitlines()[0].startswith(f"{NAME}: 2 runs of stepwise; ")
    # Patients of training and validation travel, too.
    fold = made.records[0].config["fold"]
    assert all(name in out.splitlines()[0] for part in ("train", "validation", "test") for name in fold[part])
    assert "no program can tell a pseudonym from a name" in out
    status, out, _ = call("publish", "--check", tmp_path / "out.zip", "--into", tmp_path / "results")
    assert (status, out.splitlines()[-1]) == (0, f"in {tmp_path / 'results'}: {NAME}")
    for arguments, words in (
        (["x.zip"], "needs the folder of runs"),
        (["x.zip", "runs", "--check"], "takes an archive alone"),
        (["x.zip", "runs", "--into", "r"], "--into r is for --check"),
    ):
        status, _, err = call("publish", *arguments)
        assert (status, err.count("\n")) == (1, 1)
        assert words in err

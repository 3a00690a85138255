"""Published runs in one file, so that whoever has the images can send back what came out of them.

The archive is a zip file with the same bytes for the same runs:

    manifest.json                      format, version of npcrepro, and the SHA-256 of every other file
    NAME/runs.json, cases-METHOD.csv, history-METHOD.csv        as :func:`npcrepro.runs.published.publish` writes them
    NAME/card-METHOD.md                the model card of published weights

There are no images, predictions or weights in it. What is packed has passed :func:`npcrepro.runs.vetting.vet`, and so
has what is taken out.
"""

import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from npcrepro import __version__
from npcrepro.base.errors import InputError
from npcrepro.base.files import read_json, sha256_of_file, write_json, writing, writing_folder
from npcrepro.cohorts.public.download import unpack
from npcrepro.runs.published import Published, publish
from npcrepro.runs.records import Record, find
from npcrepro.runs.vetting import vet

FORMAT = "npcrepro results 1"
MANIFEST, CARD = "manifest.json", "README.md"
# The only names that an archive may hold beside the manifest.
MEMBER = re.compile(r"[A-Za-z0-9][\w.+-]*/(runs\.json|(cases|history)-[\w.+-]+\.csv|card-[\w.+-]+\.md)")
LARGEST_BYTES = 500_000_000  # the records of this book together have less than a tenth of it
EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every member: the earliest that a zip file knows


def pack(archive: Path, sources: Iterable[Path]) -> list[Published]:
    """Write runs to an archive.

    Args:
        archive: file to write.
        sources: each a folder of runs, the folder of one finished run, a folder of published runs, or a folder of
            published weights, of which the model card is packed beside the runs of its method.

    Returns:
        The published runs that it holds, one for each paper, cohort and profile. Their folders are gone.

    Raises:
        InputError: a source without finished runs, two sources for one name, a card without runs, what
            :func:`npcrepro.runs.vetting.vet` refuses, and a file that cannot be written. There is no archive then, or
            the old one.
    """
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        records: dict[Path, list[Record]] = {}
        cards: list[Record] = []
        for source in sources:
            if (source / "runs.json").is_file():
                place = _new(root / source.resolve().name, source)
                for path in source.iterdir():
                    if MEMBER.fullmatch(f"{place.name}/{path.name}"):
                        shutil.copyfile(path, place / path.name)
            elif (source / CARD).is_file() and (source / "provenance.json").is_file():
                cards.append(Record(source))
            else:
                for record in _records(source):
                    records.setdefault(root / _name(record), []).append(record)
        for place, found in records.items():
            publish(found, _new(place, found[0].folder))
        for card in cards:
            method, place = card.config["method"]["name"], root / _name(card)
            if not (place / f"cases-{method}.csv").is_file():
                raise InputError(f"{card.folder} has a model card of {method} without its runs: name their folder, too")
            shutil.copyfile(card.folder / CARD, place / f"card-{method}.md")
        packed, files = _vetted(root, archive), _sums(root)
        write_json(root / MANIFEST, {"format": FORMAT, "npcrepro": __version__, "files": files})
        with writing(archive) as temporary_file, zipfile.ZipFile(temporary_file, "w") as opened:
            for name in (MANIFEST, *files):
                # Not compressed: another version of zlib would give other bytes.
                opened.writestr(zipfile.ZipInfo(name, EPOCH), (root / name).read_bytes())
    return packed


def _name(record: Record) -> str:
    """What published runs of this paper, cohort and profile are called; a blank in the cohort's name is no file's."""
    cohort = re.sub(r"[^A-Za-z0-9._+-]", "_", record.config["cohort"])
    return f"{record.config['paper']}-{cohort}-{record.config['profile']['name']}"


def _new(place: Path, source: Path) -> Path:
    if not MEMBER.fullmatch(f"{place.name}/runs.json"):
        raise InputError(
            f"{source} cannot be packed as {place.name!r}: rename it, with letters, digits and . _ + - alone"
        )
    if place.exists():
        raise InputError(f"{source} would be the second one called {place.name} in the archive: pack it by itself")
    place.mkdir()
    return place


def _records(source: Path) -> list[Record]:
    if (source / "provenance.json").is_file():
        return [Record(source)]
    found = find(source) if source.is_dir() else []
    if not found and any(source.rglob("provenance.json")):
        raise InputError(f"{source} is a part of a folder of runs: name the whole folder, or a single run")
    if not found:
        raise InputError(f"{source} holds no finished run and no published runs: a mistyped path, or nothing is done")
    return found


def _sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder but a manifest, by name."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: sha256_of_file(path) for name, path in sorted(paths.items()) if name != MANIFEST}


def check(archive: Path, into: Path | None = None) -> list[Published]:
    """Verify an archive, and add what it holds to published runs.

    Args:
        archive: as `pack` wrote it.
        into: folder of published runs, such as ``book/results``; each NAME becomes a folder there. One that is there
            with the same content stays.

    Returns:
        The published runs of the archive; their folders are those in ``into``, or gone.

    Raises:
        InputError: no archive of this format, a file that is not as the manifest says, what
            :func:`npcrepro.runs.vetting.vet` refuses, and a NAME that is taken. Nothing has been written then.
    """
    with _opened(archive) as root:
        packed = _vetted(root, archive)
        if into is None:
            return packed
        places = {found.folder: into / found.folder.name for found in packed}
        for folder, place in places.items():
            if place.exists() and not (place.is_dir() and _sums(folder) == _sums(place)):
                raise InputError(
                    f"{place} is there already and holds something else: move it away, or give another --into"
                )
        for folder, place in places.items():
            if not place.exists():
                with writing_folder(place) as new:
                    shutil.copytree(folder, new, dirs_exist_ok=True)
        return [Published(place) for place in places.values()]


@contextmanager
def _opened(archive: Path) -> Iterator[Path]:
    """A temporary folder with the files of an archive, which are those of its manifest."""
    if not archive.is_file():
        raise InputError(f"{archive} is not there: a mistyped path")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            size = sum(info.file_size for info in opened.infolist())
        if size > LARGEST_BYTES:
            raise InputError(f"{archive} holds {size / 1e9:.1f} GB, more than records can have: not made by publish")
    with TemporaryDirectory() as temporary:
        root = Path(temporary) / "archive"
        unpack(archive, root)
        try:
            manifest = read_json(root / MANIFEST)
            files, fits = dict(manifest["files"]), manifest["format"] == FORMAT
        except (OSError, ValueError, KeyError, TypeError):
            files, fits = {}, False
        if not fits:
            raise InputError(f"{archive} has no {MANIFEST} of the format {FORMAT!r}: not made by npcrepro publish")
        found = _sums(root)
        for name in sorted(found.keys() | files.keys()):
            if found.get(name) != files.get(name):
                raise InputError(
                    f"{archive} has {name!r} otherwise than its manifest says (another SHA-256, or missing in one of "
                    "the two): a number was changed, or the transfer was damaged"
                )
            if not MEMBER.fullmatch(name):
                raise InputError(f"{archive} holds {name!r}, which is no file of published runs: not made by publish")
        yield root


def _vetted(root: Path, archive: Path) -> list[Published]:
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in folders:
        vet(folder, f"{archive}: {folder.name}")
    found = [Published(folder) for folder in folders]
    for each in found:
        _ = each.runs, each.cases  # read now, as the folder goes
    return found

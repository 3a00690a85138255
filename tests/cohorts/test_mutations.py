"""Damaged files: whatever is in them, a cohort is written that can be used, or one sentence names the file."""

import gzip
import struct

import numpy as np
import pytest
from cohort_cases import save

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.cohorts.table import import_table

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
HTML = b"<html><body>404 Not Found</body></html>"
TEXT = {
    b"8 8 4": (b"-8 8 4", b"30000 30000 30000", b"0 8 4", b"8 8", b"8 8 4 1", b"nan 8 4"),
    b"1 1 3": (b"0 1 3", b"-1 1 3", b"nan 1 3", b"1e300 1 3", b"1e-30 1 3"),
    b"(1,0,0)": (b"(nan,0,0)", b"(0,0,0)", b"(1e300,0,0)", b"(-1,0,0)"),
    b"short": (b"string", b"double"),
    b"MET_SHORT": (b"MET_STRING", b"MET_DOUBLE"),
}


def truncated(data, rng):
    return data[: rng.integers(0, len(data))]


def other_bytes(data, rng):
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(0, min(len(data), 400))] = rng.integers(0, 256)
    start = rng.integers(0, len(data))
    return data[:start] + data[start + rng.integers(0, 64) :]


def other_file(data, rng):
    return bytearray([HTML, b"", b"PK\x03\x04" + b"\0" * 64, b"\xff" * 500][rng.integers(4)])


def nifti(layout, offset, choices):
    def change(data, rng):
        struct.pack_into(layout, data, offset, *rng.choice(choices, int(layout[1])).tolist())
        return data

    return change


def header_text(data, rng):
    present = [old for old in TEXT if old in data]
    old = present[rng.integers(len(present))]
    return bytearray(bytes(data).replace(old, TEXT[old][rng.integers(len(TEXT[old]))], 1))


ANY = (truncated, other_bytes, other_file)
NIFTI = (
    nifti("<8h", 40, [3, 0, -1, 1, 8, 32767, -32768, 4]),  # dimensions
    nifti("<8f", 76, [1, 0, -1, 1e30, np.nan, np.inf, 1e-30]),  # spacing
    nifti("<2h", 70, [2, 4, 16, 64, 128, 1, 0, -1, 8, 32]),  # number type
    nifti("<4f", 280, [1, 0, -1, 1e30, np.nan, np.inf]),  # affine
    lambda data, rng: data[:40] + data[40:348:][::-1] + data[348:],  # the header backwards
    lambda data, rng: data[:352] + np.full(256, np.nan, "<f4").tobytes(),  # a header of integers, NaN behind it
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    image = np.random.default_rng(0).integers(0, 999, (4, 8, 8)).astype(np.int16)
    label = np.zeros((4, 8, 8), np.int16)
    label[1:3, 2:5, 2:5] = 1
    files = {}
    for ending in ENDINGS:
        for kind, array in {"image": image, "mask": label}.items():
            save(array, folder / f"{kind}{ending}")
            files[kind, ending] = (folder / f"{kind}{ending}").read_bytes()
    return files


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_damaged_file_gives_a_cohort_or_a_sentence(tmp_path, originals, ending, kind):
    changes = [*ANY, *(NIFTI if ".nii" in ending else [header_text])]
    refused = 0
    for number in range(24):
        folder = tmp_path / str(number)
        folder.mkdir()
        rng = np.random.default_rng([number, ENDINGS.index(ending), kind == "mask"])
        data = originals[kind, ending]
        change = changes[number % len(changes)]
        if ending == ".nii.gz" and change is not truncated:
            data = gzip.compress(bytes(change(bytearray(gzip.decompress(data)), rng)), 1)
        else:
            data = bytes(change(bytearray(data), rng))
        for name in ("image", "mask"):
            (folder / f"{name}{ending}").write_bytes(data if name == kind else originals[name, ending])
        (folder / "table.csv").write_text(f"case,T1,mask:GTVp\nA,image{ending},mask{ending}\n")
        sentence = ""
        try:
            import_table(folder / "table.csv", folder / "cohort", report=lambda line: None)
            prepare(read_cohort(folder / "cohort"), folder / "prepared")
        except InputError as problem:
            sentence = str(problem)
        if sentence:
            refused += 1
            assert "\n" not in sentence
            assert ending in sentence or "case A" in sentence, sentence
            assert list(folder.glob("prepared/*/prepared.json")) == []
            assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
        else:
            assert [defect for defect in check(folder / "cohort") if defect.severity == "error"] == []
    assert refused >= 6

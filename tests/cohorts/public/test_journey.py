"""NPC MRI 277 from a server on this machine, which serves a small set of the same layout, to folds and runs."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import public_sources as sources
import pytest

from npcrepro.cohorts import public
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.public.sets import Download
from npcrepro.runs.published import read_published

pytest_plugins = ["public_server"]
PATIENTS = [f"{number:03d}" for number in range(1, 7)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Six patients in the layout of the set; 003 to 005 have no T2 and 006 no mask of the contrast-enhanced T1."""
    root = sources.npc_mri(tmp_path_factory.mktemp("small"), PATIENTS)
    for patient in PATIENTS[2:5]:
        shutil.rmtree(root / f"data/MRI-Segments/{patient}/T2WI")
    (root / "data/MRI-Segments/006/ROI-CE-T1.nii").unlink()
    archive = root.parent / "primary_data.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(root.rglob("*.*")):
            opened.write(path, path.relative_to(root))
    return archive.read_bytes()


@pytest.fixture
def download(small, server):
    server.content = small
    return Download(server.url, "primary_data.zip", hashlib.sha256(small).hexdigest())


@pytest.fixture
def served(download, monkeypatch):
    """The small set in the place of the real one."""
    monkeypatch.setitem(public.SETS, "npc-mri-277", replace(public.find("npc-mri-277"), downloads=(download,)))


def test_from_the_server_to_a_checked_cohort_and_its_folds(served, server, call, tmp_path):
    """The connection breaks twice on the way; four patients lack a series or a mask."""
    server.breaks = [100_000, 100_000]
    status, out, err = call("data", "fetch", "npc-mri-277", tmp_path / "published")
    assert (status, err) == (0, "")
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]
    assert "primary_data.zip: interrupted at 0.2 MB, going on" in out
    for variant, patients in {"CET1": PATIENTS[:2], "CET1-alone": PATIENTS[:5]}.items():
        cohort = tmp_path / variant
        status, out, err = call("data", "convert", "npc-mri-277", tmp_path / "published", cohort, "--variant", variant)
        assert (status, err) == (0, "")
        assert read_cohort(cohort).patients == tuple(f"NPC_{patient}" for patient in patients)
        assert "NPC_006 is skipped: primary_data/data/MRI-Segments/006/ROI-CE-T1.nii: no such file" in out
        assert ("NPC_003 is skipped" in out) == (variant == "CET1")
        assert call("data", "check", cohort)[0] == 0
        assert read_cohort(cohort).channels == public.outlook(f"npc-mri-277/{variant}").channels
    status, _, err = call("data", "splits", tmp_path / "CET1-alone", tmp_path / "splits.json", "--paper", "li2018")
    assert (status, err) == (0, "")
    assert [len(fold["val"]) for fold in json.loads((tmp_path / "splits.json").read_text())] == [1] * 5


def test_a_disk_that_fills_up_keeps_the_part(served, server, call, tmp_path, monkeypatch):
    """The same command goes on once there is room."""
    opened = Path.open

    def full(path, mode="r", *rest, **options):
        file = opened(path, mode, *rest, **options)

        def write(chunk):
            file.write(chunk[:200_000])
            raise OSError(errno.ENOSPC, "No space left on device")

        part = path.suffix == ".part" and mode in ("ab", "wb")
        return closing(SimpleNamespace(write=write, close=file.close)) if part else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        status, _, err = call("data", "fetch", "npc-mri-277", tmp_path / "published")
    assert (status, err) == (1, f"error: cannot write to {tmp_path / 'published'}: the disk is full\n")
    assert [path.name for path in (tmp_path / "published").iterdir()] == ["primary_data.zip.part"]
    assert call("data", "fetch", "npc-mri-277", tmp_path / "published")[0] == 0
    assert server.asked == [None, "bytes=200000-"]


@pytest.mark.parametrize(
    ("paper", "cohort", "count", "room"),
    [("guo2021", "npc-mri-277/CET1-alone", 65, "55 GB"), ("luo2020", "segrap2023/oars", 20, "276 GB")],
)
def test_what_a_set_needs_is_told_before_it_is_there(call, tmp_path, paper, cohort, count, room):
    status, out, err = call("plan", paper, "--cohort", cohort, "--runs", tmp_path / "runs")
    assert (status, err) == (0, "")
    *_, runs, memory, disk = out.splitlines()
    assert runs.startswith(f"{count} runs")
    assert memory.startswith("memory: 24 GB for each run")
    assert disk.startswith(f"disk: {room}, if")
    assert list(tmp_path.iterdir()) == []
    assert "did you mean 'CET1'" in call("plan", "--cohort", "npc-mri-277/CTE1")[2]


@pytest.mark.slow
def test_one_command_from_the_server_to_published_runs(repository, download, tmp_path):
    pytest.importorskip("snakemake", reason="extra: sweep")
    for name in ("notebooks", "book", "profiles", "_toc.yml", "_config.yml"):
        (tmp_path / name).symlink_to(repository / name)
    # Each job is a process of its own, which is told here of the server.
    (tmp_path / "sitecustomize.py").write_text(
        "import dataclasses\nfrom npcrepro.cohorts import public\n"
        f"file = public.{download!r}\n"
        'public.SETS["npc-mri-277"] = dataclasses.replace(public.SETS["npc-mri-277"], downloads=(file,))\n'
    )
    command = [sys.executable, "-m", "snakemake", "--snakefile", repository / "Snakefile", "--nocolor", "--cores", "2"]
    results = "_build/npc-mri-277/CET1-alone/results/li2018-NPC_MRI_277_CET1-smoke"
    settings = ["profile=smoke", "device=cpu", "methods=li2018/linear-scores"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{repository}"}
    made = [f"{results}/runs.json", "_build/npc-mri-277/CET1-alone/splits-li2018.json", "--config", *settings]

    def snakemake():
        done = subprocess.run([*command, *made], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "disk: 55 GB, if" in snakemake()
    assert len(read_published(tmp_path / results).runs) == 1
    # The job trained what `npcrepro run --publish` then asked for.
    (log,) = tmp_path.glob("_build/npc-mri-277/CET1-alone/logs/publish/*.log")
    assert "1 run, 0 trained now, 1 read back" in log.read_text()
    # A newer file, as after a second preparation, makes no finished run another one.
    (prepared,) = tmp_path.glob("runs/prepared/*/prepared.json")
    prepared.touch()
    assert "Nothing to be done" in snakemake()

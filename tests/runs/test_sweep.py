"""Sweeps: the list of runs, how far they are, and the Snakefile that spreads them."""

import fcntl
import json
import math
import re
import subprocess
import sys
from collections import Counter

import pytest
import yaml
from core_cases import finish

from npcrepro.base.errors import InputError
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs import cost, sweep
from npcrepro.runs.cost import Estimate, estimate
from npcrepro.runs.locking import Busy, locked
from npcrepro.runs.sweep import from_config, make_sweep, progress, time_left_s


def smoke(runs, **fields):
    return Settings(**{"profile": "smoke", "device": "cpu", "runs": str(runs)} | fields)


# Which runs


def test_a_sweep_lists_every_run_once_and_behind_what_it_needs(tmp_path):
    listed = make_sweep(["guo2021"], smoke(tmp_path, methods=("cscn", "bunet")), images=False)
    kinds = [folder.split("/")[1] + ("-inner" if "inner" in folder else "") for folder in listed.runs]
    assert Counter(kinds) == {"bunet": 1, "bunet-inner": 2, "cscn": 1}
    (cscn,) = (run for run in listed.runs.values() if run.method.name == "cscn")
    assert {needed.place for needed in cscn.needs} == set(listed.runs) - {cscn.place}
    assert listed.wanted == {folder for folder in listed.runs if "inner" not in folder}
    done = set()
    for folder, run in listed.runs.items():
        assert {needed.place for needed in run.needs} <= done
        done.add(folder)


def test_without_images_the_phantom_is_counted_and_not_made(tmp_path):
    listed = make_sweep([], smoke(tmp_path / "runs", seeds=(0, 1)), images=False)
    assert not (tmp_path / "runs").exists()
    assert list(listed.settings) == list(registry.KEYS)
    for key in registry.KEYS:
        wanted = [folder for folder in listed.wanted if folder.startswith(f"{key}/")]
        assert len(wanted) == 2 * len(registry.load(key).profile("smoke").methods)
    made = make_sweep(["li2018"], smoke(tmp_path / "runs"))
    counted = make_sweep(["li2018"], smoke(tmp_path / "other"), images=False)
    # The hash at the end covers the images.
    assert [folder[:-9] for folder in made.runs] == [folder[:-9] for folder in counted.runs]
    assert made.runs.keys() != counted.runs.keys()


def test_a_method_with_its_paper_leaves_the_other_papers_as_they_are(tmp_path):
    listed = make_sweep(["li2018", "xue2020"], smoke(tmp_path, methods=("li2018/unfused",)), images=False)
    assert len(listed.methods["li2018/unfused"]) == 1
    others = registry.load("xue2020").profile("smoke").methods
    assert listed.methods.keys() == {"li2018/unfused", *(f"xue2020/{name}" for name in others)}
    with pytest.raises(InputError, match="lou2020"):
        make_sweep(["li2018"], smoke(tmp_path, methods=("lou2020/unet",)), images=False)


def test_the_configuration_of_snakemake(tmp_path):
    config = {"papers": "li2018", "seeds": "0,1", "folds": 2, "profile": "smoke", "runs": str(tmp_path / "a b")}
    settings = Settings(profile="smoke", seeds=(0, 1), folds=(2,), runs=str(tmp_path / "a b"))
    assert from_config(config) == (("li2018",), settings)
    blanks = {"papers": " chen2020,", "seeds": "0, 1", "modalities": "T1, CT, PET", "methods": ""}
    settings = smoke(tmp_path, device="auto", seeds=(0, 1), modalities=("T1", "CT", "PET"))
    assert from_config(blanks | {"profile": "smoke", "runs": str(tmp_path)}) == (("chen2020",), settings)
    with pytest.raises(InputError, match="did you mean 'seeds'"):
        from_config({"seed": 0})
    with pytest.raises(InputError, match="folds=a,b has to be whole numbers"):
        from_config({"folds": "a,b"})


def test_settings_as_options_of_a_command_and_as_parameters_of_a_notebook(tmp_path, tiny_root):
    settings = smoke(tmp_path / "a b", methods=("unfused", "literal"), folds=(1,), seeds=(0, 3), modalities=("T1",))
    words = make_sweep(["li2018"], settings, images=False).options("li2018")
    assert words == (
        "li2018 --cohort phantom --profile smoke --methods unfused --methods literal --folds 1 --seeds 0 --seeds 3 "
        f"--device cpu --runs '{tmp_path / 'a b'}' --modalities T1"
    )
    both = {"profile": "smoke", "runs": "runs"}
    listed = make_sweep(["li2018"], Settings(profile="smoke", seeds=(0, 1)), images=False)
    assert listed.parameters("audit") == both
    assert listed.parameters("li2018") == both | {"seeds": [0, 1]}
    own = make_sweep(["li2018"], Settings(profile="smoke", cohort=str(tiny_root), runs=str(tmp_path)))
    there = {"profile": "smoke", "runs": str(tmp_path), "cohort": str(tiny_root), "private": False}
    assert own.parameters("audit") == own.parameters("li2018") == there


# How far, and how long


@pytest.fixture(scope="module")
def half_done(tiny_root, tmp_path_factory):
    """Settings of four runs, of which the first is finished and the others have what a failure or a kill leaves."""
    runs = tmp_path_factory.mktemp("half")
    settings = smoke(runs, cohort=str(tiny_root), methods=("linear-scores",), seeds=(0, 1, 2, 3))
    folders = [runs / folder for folder in make_sweep(["li2018"], settings).runs]
    only = str(folders[0].relative_to(runs))
    finish(tiny_root, runs, PAPER, profile="smoke", methods=settings.methods, seeds=settings.seeds, only=only)
    check = {"event": "check", "stage": "all layers", "update": 4}
    for folder, last in ((folders[1], {"event": "failed", "error": "no space left"}), (folders[2], None)):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        lines = [json.dumps(row) for row in (check, last) if row]
        (folder / "log.jsonl").write_text("\n".join([*lines, '{"event": "che']))
    return settings, folders


def options(settings):
    seeds = [word for seed in settings.seeds for word in ("--seeds", seed)]
    methods = ("--profile", "smoke", "--methods", "linear-scores")
    return ["--cohort", settings.cohort, *methods, *seeds, "--runs", settings.runs]


def test_states_of_a_half_done_sweep(half_done, tmp_path):
    settings, folders = half_done
    found = [progress(folder) for folder in folders]
    assert [each.state for each in found] == ["done", "failed", "stopped", "left"]
    assert [each.detail for each in found] == ["", "no space left", "stage all layers, update 4", ""]
    listed = make_sweep(["li2018"], settings)
    by_folder = dict(zip(listed.runs, found, strict=True))
    assert time_left_s(listed, by_folder) == pytest.approx(3 * found[0].seconds)
    assert math.isnan(time_left_s(listed, dict.fromkeys(listed.runs, found[3])))
    provenance = {"status": "diverged", "seconds": {"all": 3.0}}
    (tmp_path / "provenance.json").write_text(json.dumps(provenance))
    assert (progress(tmp_path).state, progress(tmp_path).seconds) == ("diverged", 3.0)


def test_a_run_that_a_process_holds_is_running_and_looking_at_it_holds_nothing(half_done):
    folder = half_done[1][2]
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert progress(folder).state == "running"
        with pytest.raises(Busy), locked(folder):
            pass
    assert progress(folder).state == "stopped"
    with locked(folder):
        pass


def test_status_and_plan_of_a_half_done_sweep(half_done, call):
    settings, folders = half_done
    code, out, err = call("status", "li2018", *options(settings))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["method", "runs", *sweep.STATES]
    assert lines[1].split() == ["li2018/linear-scores", "4", "1", "0", "0", "1", "1", "1"]
    shown = [folder.relative_to(settings.runs) for folder in folders]
    assert lines[2] == f"failed: {shown[1]}: no space left"
    assert lines[3] == f"stopped: {shown[2]}: stage all layers, update 4"
    assert re.fullmatch(r"1 of 4 runs finished; about .* left, one run after the other", lines[4])
    rows = json.loads(call("status", "li2018", *options(settings), "--json")[1])
    assert [(row["run"], row["state"]) for row in rows] == [
        (str(folder), state) for folder, state in zip(shown, ("done", "failed", "stopped", "left"))
    ]
    (row,) = estimate(make_sweep(["li2018"], settings))
    provenance = json.loads((folders[0] / "provenance.json").read_text())
    updates = PAPER.profile("smoke").updates
    assert (row.runs, row.serving, row.updates, row.source) == (4, 0, updates, "records, cpu")
    assert row.seconds == pytest.approx(provenance["seconds"]["all"] / updates)
    out = call("plan", "li2018", *options(settings))[1]
    assert out.splitlines()[-2].startswith("4 runs, of which 0 only serve others; ")
    assert out.splitlines()[-1].startswith("memory: 2 GB for each run at a time")


def test_hours_that_nobody_measured_are_not_guessed(tmp_path):
    rows = estimate(make_sweep(["guo2021"], smoke(tmp_path), images=False))
    trained = [row for row in rows if row.source != "trains nothing"]
    assert all(math.isnan(row.seconds) for row in trained)
    assert sum(row.serving for row in rows) == 2
    rows = [Estimate("a", 2, 1, 1800, 2.0, "records, cpu"), Estimate("b", 3, 0, 10, math.nan, "")]
    assert rows[0].hours == 2.0
    words = "5 runs, of which 1 only serve others; 2 hours for 2 of them; 3 runs without a measured update"
    assert cost.estimate_in_words(rows) == f"{words} (--measure times them)"


# Snakemake


def jobs(output):
    """Number of jobs by rule."""
    table = re.search(r"^Job stats:\n.*\n-.*\n((?:\w+ +\d+\n)+)", output, re.MULTILINE)
    return {name: int(number) for name, number in (line.split() for line in table[1].splitlines())}


def test_dry_run_of_the_book_has_every_run_and_edge_and_makes_nothing(repository, tmp_path, monkeypatch):
    """In a folder of its own that shares the sources. Real jobs are in tests/cohorts/public/test_journey.py."""
    pytest.importorskip("snakemake", reason="extra: sweep")
    for name in ("notebooks", "book", "profiles", "_toc.yml", "_config.yml"):
        (tmp_path / name).symlink_to(repository / name)
    command = [sys.executable, "-m", "snakemake", "--snakefile", repository / "Snakefile", "--nocolor", "--dry-run"]
    command += ["--profile", "profiles/laptop", "book", "--config", "profile=smoke", "seeds=0,1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert not (tmp_path / "runs").exists()

    monkeypatch.chdir(tmp_path)
    planned = make_sweep([], Settings(profile="smoke", seeds=(0, 1)), images=False)
    chapters = len(re.findall("file: notebooks/", (repository / "_toc.yml").read_text()))
    expected = {"record": len(planned.runs), "prepare": len({cohort.folder for cohort in planned.cohorts.values()})}
    expected |= {"publish": len(registry.KEYS), "notebook": chapters, "pages": 1, "book": 1}
    assert jobs(output) == expected | {"total": sum(expected.values())}
    run = r"runs/(\S+)/provenance\.json"
    edges = {
        made: set(re.findall(run, needs))
        for needs, made in re.findall(rf"rule record:\n    input: (.*)\n    output: {run} \(update\)", output)
    }
    assert edges == {folder: {needed.place for needed in run.needs} for folder, run in planned.runs.items()}
    # Self-transfer of three sequences; maps of one network and two parts.
    assert sum(map(len, edges.values())) == 2 * (3 + 3)


def test_profiles_are_yaml_and_ask_for_what_the_extra_brings(repository):
    read = {path.parent.name: yaml.safe_load(path.read_text()) for path in repository.glob("profiles/*/config.yaml")}
    assert set(read) == {"default", "laptop", "slurm"}
    assert read["slurm"]["executor"] == "slurm"
    assert read["default"]["rerun-incomplete"] is True
    assert "snakemake-executor-plugin-slurm" in (repository / "pyproject.toml").read_text()

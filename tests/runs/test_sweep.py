"""Sweeps: the list of runs, how far they are, how long they take, and the Snakefile that spreads them."""

import fcntl
import json
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
import yaml

from npcrepro.base.errors import InputError
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs import cost, sweep, training
from npcrepro.runs.cost import Estimate, estimate
from npcrepro.runs.locking import Busy, locked
from npcrepro.runs.queue import run_paper
from npcrepro.runs.sweep import from_config, make_sweep, progress, time_left_s
from npcrepro.runs.timing import seconds_of_update

pytest_plugins = ["core_fixtures"]


def smoke(runs, **fields):
    return Settings(**{"profile": "smoke", "device": "cpu", "runs": str(runs)} | fields)


# Which runs


def test_a_sweep_lists_every_run_once_and_behind_what_it_needs(tmp_path):
    listed = make_sweep(["guo2021"], smoke(tmp_path, methods=("cscn", "bunet")), images=False)
    kinds = [folder.split("/")[1] + ("-inner" if "inner" in folder else "") for folder in listed.runs]
    assert Counter(kinds) == {"bunet": 1, "bunet-inner": 2, "cscn": 1}
    (cscn,) = (run for folder, run in listed.runs.items() if "/cscn/" in f"/{folder}")
    assert set(cscn.needs) == set(listed.runs) - {cscn.folder}
    assert [run.folder for run in listed.runs.values() if not run.wanted] == [f for f in listed.runs if "inner" in f]
    done = set()
    for folder, run in listed.runs.items():
        assert set(run.needs) <= done
        done.add(folder)


def test_without_images_the_phantom_is_counted_and_not_made(tmp_path):
    listed = make_sweep([], smoke(tmp_path / "runs", seeds=(0, 1)), images=False)
    assert not (tmp_path / "runs").exists()
    assert list(listed.settings) == list(registry.KEYS)
    for key in registry.KEYS:
        wanted = [run for run in listed.of(key) if run.wanted]
        assert len(wanted) == 2 * len(registry.load(key).profile("smoke").methods)
    made = make_sweep(["li2018"], smoke(tmp_path / "runs"))
    counted = make_sweep(["li2018"], smoke(tmp_path / "other"), images=False)
    # The hash at the end covers the images.
    assert [f[:-9] for f in made.runs] == [f[:-9] for f in counted.runs]
    assert made.runs.keys() != counted.runs.keys()


def test_a_method_with_its_paper_leaves_the_other_papers_as_they_are(tmp_path):
    listed = make_sweep(["li2018", "xue2020"], smoke(tmp_path, methods=("li2018/unfused",)), images=False)
    assert [run.configuration.method.name for run in listed.of("li2018")] == ["unfused"]
    assert len(listed.of("xue2020")) == len(registry.load("xue2020").profile("smoke").methods)
    with pytest.raises(InputError, match="lou2020"):
        make_sweep(["li2018"], smoke(tmp_path, methods=("lou2020/unet",)), images=False)


def test_the_configuration_of_snakemake(tmp_path):
    config = {"papers": "li2018", "seeds": "0,1", "folds": 2, "profile": "smoke", "runs": str(tmp_path / "a b")}
    settings = from_config(config, images=False).settings
    assert settings == {"li2018": Settings(profile="smoke", seeds=(0, 1), folds=(2,), runs=str(tmp_path / "a b"))}
    blanks = {"papers": " chen2020,", "seeds": "0, 1", "modalities": "T1, CT, PET", "methods": ""}
    settings = from_config(blanks | {"profile": "smoke", "runs": str(tmp_path)}, images=False).settings
    assert settings["chen2020"] == smoke(tmp_path, device="auto", seeds=(0, 1), modalities=("T1", "CT", "PET"))
    with pytest.raises(InputError, match="did you mean 'seeds'"):
        from_config({"seed": 0})
    with pytest.raises(InputError, match="folds=a,b has to be whole numbers"):
        from_config({"folds": "a,b"})


def test_options_are_those_of_npcrepro_run(tmp_path):
    settings = smoke(tmp_path / "a b", methods=("unfused", "literal"), folds=(1,), seeds=(0, 3), modalities=("T1",))
    words = make_sweep(["li2018"], settings, images=False).options("li2018")
    assert words == (
        "li2018 --cohort phantom --profile smoke --methods unfused --methods literal --folds 1 --seeds 0 --seeds 3 "
        f"--device cpu --runs '{tmp_path / 'a b'}' --modalities T1"
    )


def test_parameters_of_notebooks(tmp_path, tiny_root):
    both = {"profile": "smoke", "runs": "runs"}
    listed = make_sweep(["li2018"], Settings(profile="smoke", seeds=(0, 1)), images=False)
    assert listed.parameters("audit") == both
    assert listed.parameters("li2018") == both | {"seeds": [0, 1]}
    own = make_sweep(["li2018"], Settings(profile="smoke", cohort=str(tiny_root), runs=str(tmp_path)))
    there = {"profile": "smoke", "runs": str(tmp_path), "cohort": str(tiny_root), "private": False}
    assert own.parameters("audit") == own.parameters("li2018") == there


# One of them


def test_only_one_run_is_made_and_only_behind_what_it_needs(tiny_root, tmp_path):
    settings = smoke(tmp_path, cohort=str(tiny_root), methods=("stepwise", "unfused"), folds=(1,))
    first, second = make_sweep(["li2018"], settings).runs
    (record,) = run_paper(PAPER, settings, only=second, report=lambda line: None)
    assert record.folder == tmp_path / second
    assert not (tmp_path / first).exists()
    with pytest.raises(InputError, match="none of those asked for"):
        run_paper(PAPER, settings, only=second[:-1], report=lambda line: None)


# How far


@pytest.fixture(scope="module")
def half_done(tiny_root, tmp_path_factory):
    """Settings of four runs, of which the first is finished and the others have what a failure or a kill leaves."""
    runs = tmp_path_factory.mktemp("half")
    settings = smoke(runs, cohort=str(tiny_root), methods=("linear-scores",), seeds=(0, 1, 2, 3))
    folders = [runs / folder for folder in make_sweep(["li2018"], settings).runs]
    run_paper(PAPER, settings, only=str(folders[0].relative_to(runs)), report=lambda line: None)
    check = {"event": "check", "stage": "all layers", "update": 4}
    for folder, last in ((folders[1], {"event": "failed", "error": "no space left"}), (folders[2], None)):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        lines = [json.dumps(row) for row in (check, last) if row]
        (folder / "log.jsonl").write_text("\n".join([*lines, '{"event": "che']))
    return settings, folders


def test_states_of_a_half_done_sweep(half_done):
    _, folders = half_done
    found = [progress(folder) for folder in folders]
    assert [each.state for each in found] == ["done", "failed", "stopped", "left"]
    assert [each.detail for each in found] == ["", "no space left", "stage all layers, update 4", ""]
    assert found[0].seconds > 0


def test_a_run_that_a_process_holds_is_running(half_done):
    _, folders = half_done
    with open(folders[2] / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert progress(folders[2]).state == "running"
    assert progress(folders[2]).state == "stopped"


def test_looking_at_a_run_does_not_hold_it(half_done):
    _, folders = half_done
    with locked(folders[2]), pytest.raises(Busy), locked(folders[2]):
        pass
    progress(folders[2])
    with locked(folders[2]):
        pass


def test_a_diverged_run_is_finished(half_done, tmp_path):
    provenance = {"status": "diverged", "seconds": {"all": 3.0}}
    (tmp_path / "provenance.json").write_text(json.dumps(provenance))
    assert (progress(tmp_path).state, progress(tmp_path).seconds) == ("diverged", 3.0)


def test_time_left_is_that_of_the_runs_which_are_not_done(half_done):
    settings, folders = half_done
    listed = make_sweep(["li2018"], settings)
    found = {folder: progress(path) for folder, path in zip(listed.runs, folders)}
    assert time_left_s(listed, found) == pytest.approx(3 * found[next(iter(found))].seconds)
    nothing = {folder: progress(folders[3]) for folder in listed.runs}
    assert math.isnan(time_left_s(listed, nothing))


def options(settings):
    seeds = [word for seed in settings.seeds for word in ("--seeds", seed)]
    return [
        "--cohort",
        settings.cohort,
        "--profile",
        "smoke",
        "--methods",
        "linear-scores",
        *seeds,
        "--runs",
        settings.runs,
    ]


def test_status(half_done, call):
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


def test_status_of_what_has_not_begun_writes_nothing(tmp_path, tiny_root, call):
    for key, cohort in (("xue2020", "phantom"), ("li2018", tiny_root)):
        options = ("--profile", "smoke", "--cohort", cohort, "--runs", tmp_path / "runs")
        code, out, err = call("status", key, *options)
        assert (code, err) == (0, "")
        n = len(registry.load(key).profile("smoke").methods)
        assert out.splitlines()[-1] == f"0 of {n} runs finished"
        assert not (tmp_path / "runs").exists()


# How long


def test_hours_by_finished_runs(half_done, call):
    settings, folders = half_done
    (row,) = estimate(make_sweep(["li2018"], settings))
    provenance = json.loads((folders[0] / "provenance.json").read_text())
    updates = PAPER.profile("smoke").updates
    assert (row.runs, row.serving, row.updates, row.source) == (4, 0, updates, "records, cpu")
    assert row.seconds == pytest.approx(provenance["seconds"]["train"] / updates)
    assert row.hours == pytest.approx(4 * updates * row.seconds / 3600)
    out = call("plan", "li2018", *options(settings))[1]
    assert out.splitlines()[-1].startswith("4 runs, of which 0 only serve others; ")


def test_hours_that_nobody_measured_are_not_guessed(tmp_path):
    rows = estimate(make_sweep(["guo2021"], smoke(tmp_path), images=False))
    trained = [row for row in rows if row.source != "trains nothing"]
    assert all(math.isnan(row.seconds) for row in trained)
    runs, serving = sum(row.runs for row in rows), sum(row.serving for row in rows)
    assert serving == 2
    assert cost.estimate_in_words(trained) == (
        f"{sum(row.runs for row in trained)} runs, of which 2 only serve others; "
        f"{sum(row.runs for row in trained)} runs without a measured update (--measure times them)"
    )
    assert runs == sum(row.runs for row in trained) + sum(row.runs for row in rows if row not in trained)


def test_sums_of_estimates():
    rows = [Estimate("a", 2, 1, 1800, 2.0, "records, cpu"), Estimate("b", 3, 0, 10, math.nan, "")]
    assert rows[0].hours == 2.0
    words = "5 runs, of which 1 only serve others; 2 hours for 2 of them; 3 runs without a measured update"
    assert cost.estimate_in_words(rows) == f"{words} (--measure times them)"


@pytest.mark.parametrize("name", ["luo2020/mask-rcnn", "chen2020/mmfnet"])
def test_updates_are_timed(name):
    paper, method = registry.find_method(name)
    seconds, source = seconds_of_update(method, paper.profile("smoke"), "cpu")
    assert seconds > 0
    assert source == "timed, cpu"


def test_timed_updates_leave_frozen_layers_as_a_training_does(monkeypatch):
    paper, method = registry.find_method("luo2020/unet")
    (stage,) = method.stages
    method = replace(method, stages=(replace(stage, trainable=("score",)),))
    profile = paper.profile("smoke")
    before, network = (training.build_network(method, profile, seed=0) for _ in range(2))
    monkeypatch.setattr(training, "build_network", lambda *arguments, **more: network)
    seconds_of_update(method, profile, "cpu")
    assert network.down[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    other = network.state_dict()
    changed = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, other[name])}
    assert changed == {"score.weight", "score.bias"}  # and no running mean of a frozen norm


# Snakemake

snakemake_is_there = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import snakemake"], capture_output=True).returncode != 0,
    reason="snakemake is not installed (extra: sweep)",
)


def snakemake(repository, tmp_path, *arguments, **config):
    """Run the Snakefile in a folder of its own that shares the sources, and return the output."""
    for name in ("notebooks", "book", "profiles", "_toc.yml", "_config.yml"):
        if not (tmp_path / name).exists():
            (tmp_path / name).symlink_to(repository / name)
    settings = [f"{key}={value}" for key, value in config.items()]
    command = [sys.executable, "-m", "snakemake", "--snakefile", repository / "Snakefile", "--nocolor", *arguments]
    done = subprocess.run([*command, "--config", *settings], cwd=tmp_path, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def jobs(output):
    """Number of jobs by rule."""
    table = re.search(r"^Job stats:\n.*\n-.*\n((?:\w+ +\d+\n)+)", output, re.MULTILINE)
    return {name: int(number) for name, number in (line.split() for line in table[1].splitlines())}


@snakemake_is_there
def test_dry_run_of_the_book_has_every_run_and_edge_and_makes_nothing(repository, tmp_path, monkeypatch):
    code, output = snakemake(
        repository, tmp_path, "--dry-run", "--profile", "profiles/laptop", "book", profile="smoke", seeds="0,1"
    )
    assert code == 0, output
    assert not (tmp_path / "runs").exists()

    monkeypatch.chdir(tmp_path)
    planned = make_sweep([], Settings(profile="smoke", seeds=(0, 1)), images=False)
    chapters = len(re.findall("file: notebooks/", (repository / "_toc.yml").read_text()))
    expected = {"record": len(planned.runs), "prepare": len({cohort.folder for cohort in planned.cohorts.values()})}
    expected |= {"publish": len(registry.KEYS), "notebook": chapters, "book": 1}
    assert jobs(output) == expected | {"total": sum(expected.values())}
    run = r"runs/(\S+)/provenance\.json"
    edges = {
        made: set(re.findall(run, needs))
        for needs, made in re.findall(rf"rule record:\n    input: (.*)\n    output: {run} \(update\)", output)
    }
    assert edges == {folder: set(run.needs) for folder, run in planned.runs.items()}
    assert sum(map(len, edges.values())) == 2 * (
        3 + 3
    )  # self-transfer of three series, maps of one network and two parts


@snakemake_is_there
def test_runs_through_snakemake_are_those_of_npcrepro_run(repository, tmp_path, monkeypatch):
    config = {"papers": "li2018", "profile": "smoke", "device": "cpu"}
    code, output = snakemake(repository, tmp_path, "--cores", "2", "records", **config)
    assert code == 0, output
    n = len(PAPER.profile("smoke").methods)
    assert jobs(output) == {"record": n, "prepare": 1, "records": 1, "total": n + 2}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", None)
    lines = []
    found = run_paper(PAPER, smoke("runs"), report=lines.append)
    assert lines[-1] == f"{n} runs, 0 trained now, {n} read back from runs"
    assert {progress(record.folder).state for record in found} == {"done"}
    # A newer file, as after a second preparation, makes no finished run another one.
    (prepared,) = tmp_path.glob("runs/prepared/*/prepared.json")
    prepared.touch()
    code, output = snakemake(repository, tmp_path, "--cores", "2", "records", **config)
    assert code == 0, output
    assert "Nothing to be done" in output


def test_profiles_are_yaml_and_ask_for_what_the_extra_brings(repository):
    read = {path.parent.name: yaml.safe_load(path.read_text()) for path in repository.glob("profiles/*/config.yaml")}
    assert set(read) == {"default", "laptop", "slurm"}
    assert read["slurm"]["executor"] == "slurm"
    assert read["default"]["rerun-incomplete"] is True
    assert "snakemake-executor-plugin-slurm" in (repository / "pyproject.toml").read_text()

"""Pages that are partly made of the code, and the tutorial, whose code runs here as it stands on the page."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from published_cases import cases, publish

from npcrepro.base.errors import InputError
from npcrepro.book.build import evidence, pages
from npcrepro.cohorts.cohort import Case, Cohort
from npcrepro.cohorts.folds import split_patients
from npcrepro.cohorts.phantom import KINDS
from npcrepro.findings.claims import ledger
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs.published import read_published, write_by_method

BLOCK = re.compile(r"^```\{code-block\} (\w+)\n:caption: (.+?)\n\n(.+?)^```$", re.MULTILINE | re.DOTALL)


def page(repository: Path, name: str) -> str:
    return (repository / "book" / f"{name}.md").read_text("utf-8")


# --- Parts -------------------------------------------------------------------------------------------------------


def test_mark_is_replaced_and_the_rest_stays(tmp_path, monkeypatch):
    monkeypatch.setitem(pages.PARTS, "The answer", lambda root: f"42 in {root.name}")
    text = "Before\n\n% The answer is inserted here when the book is built.\n\nAfter\n"
    assert pages.fill(text, tmp_path) == f"Before\n\n42 in {tmp_path.name}\n\nAfter\n"


def test_unknown_mark_names_the_near_miss(tmp_path):
    with pytest.raises(InputError, match="did you mean 'The citation'"):
        pages.fill("% The citatoin is inserted here when the book is built.\n", tmp_path)


def test_every_part_is_used(repository):
    """The test of the book fills every page."""
    texts = [path.read_text("utf-8") for path in (repository / "book").glob("*.md")]
    marks = [mark["name"] for text in texts for mark in pages.MARK.finditer(pages.MODULES.sub("", text))]
    assert sorted(marks) == sorted(pages.PARTS)


def test_parameters_have_type_default_and_effect(repository):
    rows = pages.parameters(repository).splitlines()
    assert len(rows) == 2 + len(dataclasses.fields(Settings))
    assert '| `cohort` | str | `"phantom"` |' in rows[2]
    assert "| `seeds` | list of int | `[0]` | one run for each. |" in rows
    assert any(row.startswith("| `private` | bool | `false` | show images") for row in rows)


def test_published_runs_have_sizes_methods_and_machines(tmp_path):
    folder = tmp_path / "book" / "results" / "mine"
    folder.mkdir(parents=True)
    write_by_method(folder, "cases", cases({"a": [[1, 0.5]], "b": [[0.25]]}), "ab")
    head = "method,fold,seed,stage,update,validation_dsc\n"
    checks = "a,0,0,first,9,0.9\na,0,0,last,10,0.2\na,0,0,last,20,0.1\na,0,1,last,10,0.1\na,0,1,last,20,0.2\n"
    (folder / "history-a.csv").write_text(head + checks)
    (folder / "history-b.csv").write_text(f"{head}b,0,0,last,1,\n")
    size = {"name": "quick", "matrix": [8, 24, 24], "width": 0.25, "updates": 600}
    common = {"paper": "p", "cohort": "c", "profile": size, "device": "a card", "finished": "2026-01-02T00:00:00"}
    own = [
        {"method": "a", "fold": 0, "seed": 0, "seconds": {"all": 60.0}, "git_commit": "0123456789"},
        {"method": "a", "fold": 0, "seed": 1, "seconds": {"all": 120.0}, "git_commit": "abcdefghij-dirty"},
        {"method": "b", "fold": 0, "seed": 0, "seconds": {"all": 30.0}, "git_commit": "0123456789"},
        {"method": "c", "fold": 0, "seed": 0, "seconds": {"all": 6.0}, "git_commit": "0123456789"},
    ]
    folds = {"0": {"train": ["B", "C", "D"], "validation": ["E"], "test": ["A"]}}
    folds["1"] = {"train": ["A", "C"], "validation": ["D"], "test": ["B", "E"]}
    stage = {"name": "all"}
    methods = {"a": {"stages": [stage]}, "b": {"stages": [stage]}, "c": {"stages": []}}
    content = {"common": common, "methods": methods, "folds": folds, "runs": own}
    (folder / "runs.json").write_text(json.dumps(content))
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in evidence.published_runs(tmp_path).splitlines()]
    assert ["`mine`", "c", "quick", "8 x 24 x 24", "0.25", "1", "2 to 3", "1", "1 to 2"] in rows
    assert ["`mine`", "`a`", "20 to 29", "75 %", "1", "2", "0.750", "1.5", "a card"] in rows
    assert ["`mine`", "`b`", "1", "–", "1", "1", "0.250", "0.5", "a card"] in rows
    assert ["`mine`", "`c`", "0", "–", "0", "1", "–", "0.1", "a card"] in rows
    assert rows[-1] == ["`mine`", "–", "–", "–", "–", "–", "`0123456`, `abcdefg` (changed)", "2026‑01‑02"]


def test_a_repeated_run_stands_beside_the_published_one(tmp_path):
    results = tmp_path / "book" / "results"
    old = {"processor": "old", "precision": "32", "device": "cpu"}
    publish(results / "mine", cases({"a": [[1, 0], [1, 0]]}), **old)
    again, new = results / "repeated" / "why" / "mine", cases({"a": [[1], [0.5], [0]]})
    machine = {"processor": "new", "precision": "bf16", "device": "cpu"}
    publish(again, new.assign(suspect=new.patient == "P02"), **machine)

    def rows():
        told = evidence.repeated(tmp_path).partition("\n\n")[0]
        return [[cell.strip() for cell in row.split("|")[1:-1]] for row in told.splitlines()][2:]

    place = ["`mine`", "`a`", "1", "old, 32", "new, bf16"]
    assert rows() == [[*place, "1.000", "0.750", "0.250", "0.250", "1.000", "0.500"]]
    # Two seeds, 1 and 0 when published, 0.75 and 0.5 now; on a card, whose name tells more than that of its processor.
    shutil.rmtree(again)
    publish(again, cases({"a": [[1, 0.5], [0.5, 0.5]]}), **machine | {"device": "a card"})
    place = ["`mine`", "`a`", "2", "old, 32", "a card, bf16"]
    assert rows() == [[*place, "0.500", "0.625", "0.375", "0.500", "1.000", "0.500"]]
    assert evidence.repeated(tmp_path).endswith("In 0 of 1 row the two distances are within a factor of two.")
    shutil.rmtree(again)
    with pytest.raises(InputError, match="repeated holds no runs that were made again"):
        evidence.repeated(tmp_path)
    publish(again, new.assign(seed=2), **machine)
    with pytest.raises(InputError, match="method a, fold 0, seed 2 is no run of"):
        evidence.repeated(tmp_path)


def test_hours_on_a_gpu_are_those_of_all_updates(tmp_path):
    folder = tmp_path / "book" / "results" / "gpu"
    folder.mkdir(parents=True)
    names = "method,milliseconds,updates,memory_gb,loop_minutes,device,precision,torch"
    lines = [names, "a/b,36.0,100000,0.25,90,card,bf16,9", "a/c,72.0,50000,2,,card,bf16,9"]
    (folder / "hours.csv").write_text("\n".join(lines))
    *table, _, told = evidence.gpu_hours(tmp_path).splitlines()
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table]
    assert rows[2:] == [["`a/b`", "36.0", "100,000", "1.00", "0.2 GB"], ["`a/c`", "72.0", "50,000", "1.00", "2.0 GB"]]
    loop = "`a/b` 90.0 minutes, 60.0 of them for the updates"
    assert told == f"One card, bf16, torch 9. With reading, augmentation and checks: {loop}."


def test_every_cohort_of_real_images_is_told(repository):
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in evidence.cohorts(repository).splitlines()[2:]]
    assert [row[0] for row in rows] == list(evidence.COHORTS)
    measured = {path.stem.partition("_")[2] for path in (repository / "book" / "results" / "cohorts").glob("*.csv")}
    assert set(evidence.COHORTS) == measured
    assert rows[-1][1:4] == ["23", "21", "4"]


def test_costs_are_those_of_the_record_that_stands_for_a_paper(repository):
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in evidence.costs(repository).splitlines()]
    guo = next(row for row in rows if row[:1] == ["Guo 2021"])
    runs = read_published(repository / "book" / "results" / "guo2021-sts").runs
    runs = [run for run in runs if (run["method"], run["device"]) == ("cscn", "cpu")]  # others were made on a card
    minutes = [run["seconds"]["train"] / 60 for run in runs]
    assert guo[1:4] == ["IBSI_STS", "600", f"{sum(minutes) / len(minutes):.1f}"]
    assert "24 GB at `paper`" in evidence.costs(repository)


def test_citation_is_the_one_of_the_file(repository):
    told = pages.citation(repository)
    assert "The npcrepro authors (2026)." in told
    assert "version = {0.1.0}" in told
    assert told.count("{") == told.count("}")


def test_versions_hold_the_pins(repository):
    torch = next(line for line in pages.versions(repository).splitlines() if line.startswith("| torch |"))
    assert re.search(r"^\| Python \| >=3\.\d+ \| 3\.\d+ \|$", pages.versions(repository), re.MULTILINE)
    pin = next(line for line in (repository / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    assert torch == f"| torch | >=2.9 | {pin.removeprefix('torch==')} |"


def test_every_module_has_its_place_in_the_reference(repository):
    text = "".join(
        pages.fill(page(repository, path.stem), repository) for path in (repository / "book").glob("api-*.md")
    )
    named = re.findall(r"automodule:: (\S+)", text)
    assert len(named) == len(set(named)) > 100
    paths = [path for path in (repository / "npcrepro").rglob("[!_]*.py") if path.parent.name != "cli"]
    modules = {".".join(path.relative_to(repository).with_suffix("").parts) for path in paths}
    # What the face of a folder hands on is described there.
    assert {name for name in modules if not {name, name.rpartition(".")[0]} & set(named)} == set()


# --- The tutorial ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory, repository) -> Path:
    """A copy of the package with the toy paper of the tutorial added, as its page says."""
    folder = tmp_path_factory.mktemp("clone")
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository / "npcrepro", folder / "npcrepro", ignore=leave_out)
    (folder / "notebooks").mkdir()
    shutil.copyfile(repository / "notebooks" / "xue2020.ipynb", folder / "notebooks" / "xue2020.ipynb")
    for _, caption, code in BLOCK.findall(page(repository, "add-a-paper")):
        name = caption.replace("\\", "").partition(", ")[0]
        if name != "in the clone":
            path = folder / name
            assert not path.exists(), name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, "utf-8")
    subprocess.run([sys.executable, "new_chapter.py"], cwd=folder, check=True)
    return folder


def test_claims_of_the_tutorial_follow_those_of_the_book(repository):
    last = sum(len(ledger.claims(key)) for key in registry.KEYS)
    code = next(code for _, caption, code in BLOCK.findall(page(repository, "add-a-paper")) if ".yaml" in caption)
    keys = [claim["key"] for claim in yaml.safe_load(code)["claims"]]
    assert keys == [f"toy2026-{last + number}" for number in range(1, len(keys) + 1)]


def test_split_of_the_tutorial_for_a_paper_with_one(repository):
    text = page(repository, "add-a-paper")
    split = json.loads(re.search(r'`(\{"kind": .+?\})`', text)[1])
    patients = tuple(Case(f"P{number:02d}", f"P{number:02d}", (), Path()) for number in range(50))
    cohort = Cohort("mine", ("T1",), {"GTVp": (1,)}, patients)
    first = split_patients(cohort, **split).folds[0]
    assert (len(first.train), len(first.validation), len(first.test)) == (30, 10, 10)
    # The kinds of phantom that it lists are all there are.
    told = re.search(r"Its kinds are (.+?)\.\n", text, re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", told)) - {"channels"} == set(KINDS)


def test_a_paper_takes_seven_files_at_most(clone, repository):
    """The toy's folder and its notebook; the line of _toc.yml is one more, and the script goes."""
    added = [
        path.relative_to(clone).as_posix()
        for path in clone.rglob("*")
        if path.is_file() and not (repository / path.relative_to(clone)).exists() and "__pycache__" not in path.parts
    ]
    kept = sorted(set(added) - {"new_chapter.py", "toy.ipynb"})
    assert len(kept) + 1 <= 7, kept
    assert {path.split("/")[-2] for path in kept} <= {"toy2026", "notebooks"}


def test_code_of_the_tutorial_passes_lint_and_has_every_profile(clone, repository):
    toy = clone / "npcrepro" / "papers" / "toy2026"
    ruff, settings = [sys.executable, "-m", "ruff"], ["--config", str(repository / "pyproject.toml"), str(toy)]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([*ruff, *command, *settings], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    profiles = re.findall(r'_profile\("(\w+)", .+\),', (toy / "protocol.py").read_text("utf-8"))
    assert profiles == [profile.name for profile in registry.load("xue2020").profiles]


@pytest.mark.slow
def test_commands_of_the_tutorial_work_on_its_code(clone, repository):
    """The toy is listed, trained, and told in its own chapter with the frame that all chapters have."""
    commands = [
        line
        for kind, caption, code in BLOCK.findall(page(repository, "add-a-paper"))
        if caption == "in the clone"
        for line in code.splitlines()
        if line
    ]
    assert [command.split()[0] for command in commands] == ["npcrepro", "npcrepro", "papermill"]
    printed = [run(clone, command) for command in commands]
    assert "toy2026/no-norm" in printed[0]
    assert "toy2026/toy" in printed[1]
    text = (clone / "toy.ipynb").read_text("utf-8")
    for word in ("What was difficult", "A batch norm helps", "no evidence yet", "1 SILENT", "The intensity window"):
        assert word in text, word


def run(folder: Path, command: str) -> str:
    """Run a command of the page with the package of the copy."""
    name, *arguments = command.split()
    module = {"npcrepro": "npcrepro.cli.commands", "papermill": "papermill"}[name]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout

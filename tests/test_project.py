"""The project's own files agree with each other."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import npcrepro
from npcrepro.protocol import registry

EXTRAS = ("book", "sweep", "test")
IMAGES = (
    *(".nii", ".nii.gz", ".dcm", ".mha", ".mhd", ".nrrd", ".npy", ".npz", ".h5"),
    *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".pdf"),
    *(".pt", ".pth", ".safetensors", ".ckpt"),
)
ALLOWED_IMAGES = {"book/_static/favicon.png"}


@pytest.fixture(scope="session")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="session")
def requirements(project):
    return project["dependencies"] + [r for extra in EXTRAS for r in project["optional-dependencies"][extra]]


@pytest.fixture(scope="session")
def pins(repository):
    lines = (repository / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="session")
def tracked(repository):
    """Files that belong to the repository: committed, or about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [repository / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.fixture(scope="session")
def notebooks(repository):
    paths = sorted((repository / "notebooks").glob("*.ipynb"))
    return {path.name: json.loads(path.read_text("utf-8")) for path in paths}


def test_conda_environment_lists_the_same_requirements(repository, requirements, project):
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    assert environment["dependencies"][-1]["pip"] == requirements
    assert environment["dependencies"][0].split("=")[1] in SpecifierSet(project["requires-python"])


def test_every_requirement_is_pinned_within_its_range(requirements, pins):
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in map(Requirement, requirements):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_hooks_use_the_pinned_versions_and_strip_what_make_strips(repository, pins):
    text = (repository / ".pre-commit-config.yaml").read_text()
    hooks = yaml.safe_load(text)["repos"][0]["hooks"]
    used = dict(d.split("==") for hook in hooks for d in hook["additional_dependencies"])
    assert all(used[name] == pins[name] for name in ("ruff", "nbstripout"))
    keys = re.compile(r'--extra-keys "([^"]+)"')
    assert keys.search((repository / "Makefile").read_text())[1] == keys.search(text)[1]


def test_version_and_licence_are_the_same_everywhere(repository, project):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    changelog = re.search(r"^## (\d\S*)", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert {project["version"], citation["version"], changelog} == {npcrepro.__version__}
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in (repository / "LICENSE").read_text()


def test_browser_libraries_are_locked_as_asked(repository):
    asked = json.loads((repository / "package.json").read_text())["dependencies"]
    text = (repository / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in asked} == asked
    # A download address would bind everybody to the registry of whoever wrote the lock.
    assert '"resolved"' not in text


def test_pages_of_the_contents_exist_and_notebooks_are_in_order(repository, notebooks):
    toc = (repository / "_toc.yml").read_text()
    for name in re.findall(r"(?:root|file): (\S+)", toc):
        assert any((repository / f"{name}{suffix}").exists() for suffix in (".md", ".ipynb")), name
    for name, notebook in notebooks.items():
        assert f"notebooks/{name.removesuffix('.ipynb')}\n" in toc
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in code), name
        assert not {"papermill", "widgets"} & set(notebook["metadata"]), name
        tags = [cell["metadata"].get("tags", []) for cell in notebook["cells"]]
        assert sum("parameters" in tag for tag in tags) == 1, name
        assert notebook["cells"][0]["source"][0].startswith("# "), f"{name} does not begin with a title"
        assert notebook["metadata"]["kernelspec"]["name"] == "python3", name


def test_no_file_is_large_and_no_images_and_weights_are_committed(tracked, repository):
    """Apart from the sample cohorts, which may be shown, and the published weights, which another test weighs."""
    weights = re.compile(r"npcrepro/papers/\w+/weights/.+\.safetensors")
    others = {path.relative_to(repository).as_posix(): path for path in tracked}
    others = {name: path for name, path in others.items() if not weights.fullmatch(name)}
    assert [name for name, path in others.items() if path.stat().st_size > 1_000_000] == []
    samples = "npcrepro/cohorts/samples/"
    images = {name for name in others if name.lower().endswith(IMAGES) and not name.startswith(samples)}
    assert images == ALLOWED_IMAGES
    assert sum(path.stat().st_size for path in (repository / samples).rglob("*") if path.is_file()) < 6e6


def test_pages_and_styles_name_no_content_network(tracked):
    asked = re.compile(r"(?:src|url\(|import|@import)[^\n]{0,20}https?://")
    pages = [path for path in tracked if path.suffix in {".md", ".css", ".js", ".ipynb"}]
    assert [path.name for path in pages if asked.search(path.read_text("utf-8"))] == []


def test_continuous_integration(repository, project):
    """The oldest Python and a newer one; scripts that are there; pages are deployed after all else."""
    assert re.search(r"\bmake lint && make test\b", (repository / ".ci" / "run").read_text())
    jobs = yaml.safe_load((repository / ".github/workflows/book.yml").read_text())["jobs"]
    for job in ("test", "wheel"):
        first, *newer = jobs[job]["strategy"]["matrix"]["python"]
        assert (first, len(newer)) == (project["requires-python"].removeprefix(">="), 1)
        assert all(Version(version) in SpecifierSet(project["requires-python"]) for version in newer)
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    scripts = [command for command in commands if command.startswith(".ci/")]
    assert scripts == [".ci/run", ".ci/wheel"]
    assert all((repository / script).stat().st_mode & 0o111 for script in scripts)
    assert jobs["deploy"]["needs"] == [name for name in jobs if name != "deploy"]


def test_binder_uses_the_one_environment(repository):
    assert (repository / "binder" / "environment.yml").resolve() == (repository / "environment.yml").resolve()
    assert (repository / "binder" / "postBuild").stat().st_mode & 0o100


@pytest.mark.slow
def test_wheel_has_papers_samples_and_weights_and_no_tests(repository, tmp_path):
    """The build writes into its folder, so that it gets a copy, with a file in the place of weights."""
    source = tmp_path / "source"
    shutil.copytree(repository / "npcrepro", source / "npcrepro", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    weights = "npcrepro/papers/li2018/weights/invented/makers/0/model.safetensors"
    (source / weights).parent.mkdir(parents=True)
    (source / weights).write_bytes(b"weights")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        inside = {name for name in opened.namelist() if ".dist-info/" not in name}
    tracked = {path.relative_to(source).as_posix() for path in (source / "npcrepro").rglob("*") if path.is_file()}
    assert inside == tracked
    assert weights in inside
    assert {f"npcrepro/papers/{key}/paper.yaml" for key in registry.KEYS} < inside
    assert "npcrepro/cohorts/samples/ct/labelsTr/KBP_017.nii.gz" in inside


# Threads that wait

# Runs the first words of a program, and tells what threads are told at the moment at which torch is looked for.
AT_TORCH = """
import os, runpy, sys
class Watch:
    def find_spec(name, *rest):
        if name == "torch":
            print("at torch:", os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch)
"""


def told_at_torch(repository, program, **environment):
    """What the variable holds when a fresh process imports torch, the environment of this one aside."""
    clean = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", AT_TORCH + program]
    environment = clean | {"PYTHONPATH": str(repository)} | environment
    done = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("at torch: ")


def test_waiting_threads_are_told_before_torch_is_there(repository):
    command = 'sys.argv = ["npcrepro", "run", "li2018", "--profile", "smoke"]\n'
    command += 'runpy.run_module("npcrepro.cli.commands", run_name="__main__")'
    assert told_at_torch(repository, command) == "5000"
    short = "import npcrepro, torch"
    assert told_at_torch(repository, short, GOMP_SPINCOUNT="7") == "7"
    assert told_at_torch(repository, short, OMP_WAIT_POLICY="PASSIVE") == "None"


def test_every_entrance_comes_by_the_package_before_torch(repository, notebooks, project):
    starts = {
        name: "".join("".join(cell["source"]) + "\n" for cell in n["cells"] if cell["cell_type"] == "code")
        for name, n in notebooks.items()
    }
    starts["Snakefile"] = (repository / "Snakefile").read_text()
    for name, text in starts.items():
        imported = re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE)
        foreign = [module for module in imported if module not in sys.stdlib_module_names]
        assert foreign[0] == "npcrepro", name
    # Jobs of Snakemake and SLURM are the command line again.
    assert project["scripts"] == {"npcrepro": "npcrepro.cli.commands:main"}
    assert 'NPCREPRO = f"{sys.executable} -m npcrepro.cli.commands"' in starts["Snakefile"]

"""Runs on disk: what was asked for, what came out, and what is needed to believe it.

A run folder holds

    config.json          what was asked for; the hash of what decides the numbers is the run's identity
    checkpoint.safetensors   only while training
    log.jsonl            what happened, with times: started, checks, finished or failed
    history.csv          learning curve
    cases.csv            one row for each case, structure and region, with raw counts
    predictions/         one .npz for each test case: label, and probability in steps of 1/255
    model.safetensors    weights
    diverged.npz         only where the loss was no number: the batch that it was so on
    provenance.json      written last: a run with it is finished

Every file is written under a temporary name and moved into place, so that a kill at any moment leaves either the old
file or the new one.
"""

from __future__ import annotations

import glob
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from npcrepro.errors import InputError
from npcrepro.files import read_json, sha256_of, write_json, write_text
from npcrepro.protocol import Method, Profile, as_data, pick
from npcrepro.sources import PACKAGE, code_sha256, without_address

RESULTS = PACKAGE.parent / "book" / "results"  # records published with the book
# What decides a run's weights and predictions, beside the components that its method names.
TRAINING_CODE = (
    # Read otherwise, the same files are other images; the fingerprint of a cohort knows the files alone.
    "npcrepro.cohorts.prepared:_prepare_case",
    "npcrepro.protocol:Method.build",
    "npcrepro.protocol:Method.in_channels",
    "npcrepro.runs:_taken_over",
    "npcrepro.runs:_data",
    "npcrepro.training:train",
    "npcrepro.inference:decide",
    "npcrepro.records:quantised",
)
# What a configuration says and a run does not depend on: words, and which folds, methods and phantom come by default.
NO_IDENTITY = {"method": ("title", "summary"), "profile": ("folds", "methods", "phantom")}
# What makes cases.csv from predictions; they are scored again when it changes.
SCORING_CODE = ("npcrepro.evaluation:score_case",)
PACKAGES = ("npcrepro", "torch", "lightning-fabric", "numpy", "scipy", "pandas", "SimpleITK", "safetensors")
FLOAT = "%.10g"  # of published tables, which are committed: smaller, and far beyond what is measured
IDENTITY = ["paper", "method", "cohort", "profile", "fold", "seed"]
# Columns of names: text, also where all of them are numbers, as the cohort 007.
NAMES = ["paper", "method", "cohort", "profile", "case", "patient", "structure", "region", "status", "stage"]
PLACE = ["method", "fold", "seed"]  # what names a run among those of one published folder
# What those have in common.
KIND = {
    "paper": lambda run: run["paper"],
    "cohort": lambda run: run["cohort"],
    "images": lambda run: run.get("data_sha256"),
    "split": lambda run: run.get("split_sha256"),
    "profile": lambda run: {k: v for k, v in run["profile"].items() if k not in NO_IDENTITY["profile"]},
}


@dataclass(frozen=True)
class Configuration:
    """What a run is asked to do. Two runs with the same hash are the same run.

    Attributes:
        method, profile: from the paper's module.
        cohort: name of the cohort.
        data_sha256: content of the cohort.
        split_sha256: the split that the fold belongs to.
        fold: ``{"number", "train", "validation", "test"}`` with patient names, and ``"inner"`` where the patients of
            an outer fold are split again.
        seed: of weights, batches and augmentation.
        used: for each method that this one uses, the run on the same fold, and behind it those on inner folds.
    """

    method: Method
    profile: Profile
    cohort: str
    data_sha256: str
    split_sha256: str
    fold: dict
    seed: int
    used: Mapping[str, tuple[Configuration, ...]] = field(default_factory=dict)

    @cached_property
    def data(self) -> dict:
        """The content of ``config.json``."""
        return as_data(
            {
                "paper": self.method.paper,
                "method": self.method,
                "profile": self.profile,
                "cohort": self.cohort,
                "data_sha256": self.data_sha256,
                "split_sha256": self.split_sha256,
                "fold": self.fold,
                "seed": self.seed,
                "used": {method: [each.sha256 for each in runs] for method, runs in self.used.items()},
                "code_sha256": _code_of(self.method.targets),
            }
        )

    @cached_property
    def sha256(self) -> str:
        """Identity of the run: no words, no defaults, and no addresses of the package's own code, which may move."""
        deciding = {
            part: {name: value for name, value in self.data[part].items() if name not in left_out}
            for part, left_out in NO_IDENTITY.items()
        }
        return sha256_of(_without_addresses(self.data | deciding))

    @property
    def identity(self) -> dict:
        """The columns that name the run in every table."""
        values = (self.method.paper, self.method.name, self.cohort, self.profile.name, self.fold["number"], self.seed)
        return dict(zip(IDENTITY, values, strict=True))

    def folder(self, runs: Path) -> Path:
        """Where the run lies: ``RUNS/paper/method/cohort/profile/fold-03_seed-0_1a2b3c4d``; ``all_...`` if nobody is
        tested."""
        fold = f"fold-{self.fold['number']:02d}" if self.fold["test"] else "all"
        inner = f"-inner-{self.fold['inner']}" if "inner" in self.fold else ""
        name = f"{fold}{inner}_seed-{self.seed}_{self.sha256[:8]}"
        return runs / self.method.paper / self.method.name / self.cohort / self.profile.name / name


def _without_addresses(value):
    """Plain data in which ``"npcrepro.module:Name"`` is ``"Name"``; what stands behind a name is in ``code_sha256``."""
    if isinstance(value, dict):
        return {key: _without_addresses(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_addresses(item) for item in value]
    return without_address(value) if isinstance(value, str) else value


@cache
def _code_of(targets: tuple[str, ...]) -> str:
    """Hash of the code of a run, by what its method is made of: a sweep has many runs of each method."""
    return code_sha256((*TRAINING_CODE, *targets))


@dataclass(frozen=True)
class Record:
    """A finished run, read from its folder."""

    folder: Path

    @cached_property
    def cases(self):
        """One row for each case, structure and region, as a data frame."""
        return _read_csv(self.folder / "cases.csv")

    @cached_property
    def history(self):
        """The learning curve, with the columns that name the run, as a data frame."""
        return _read_csv(self.folder / "history.csv")

    @cached_property
    def config(self) -> dict:
        """What was asked for."""
        return read_json(self.folder / "config.json")

    @cached_property
    def provenance(self) -> dict:
        """Versions, machine, times, hashes; ``status`` is ``trained`` or ``diverged``."""
        return read_json(self.folder / "provenance.json")

    @cached_property
    def used(self) -> dict[str, list[Record]]:
        """Runs that this one was built on, by method: the one on the same fold first, then those on inner folds."""
        used = self.provenance.get("used", {})
        above = self.folder.parents[4:5]
        if used and not above:
            raise InputError(
                f"{self.folder} uses {next(iter(used.values()))[0]}, but lies in no folder of runs (five above it): it "
                f"was probably copied by itself; copy the folder of runs as a whole"
            )
        return {name: [Record(above[0] / folder) for folder in folders] for name, folders in used.items()}

    def prediction(self, case: str):
        """Label ``(z, y, x)`` uint8 and probability ``(S, z, y, x)`` float32 in [0, 1] of a test case."""
        import numpy as np

        with np.load(self.folder / "predictions" / f"{case}.npz") as arrays:
            return arrays["label"], arrays["probability"].astype("float32") / 255


def quantised(probability):
    """Probabilities as they are kept, and as they go into a network that takes in maps.

    Args:
        probability: tensor in [0, 1]; ``nan`` counts as 0.

    Returns:
        A NumPy array of the same shape, uint8, in steps of 1/255.

    Example:
        >>> import torch
        >>> quantised(torch.tensor([0.0, 0.5, 1.0, torch.nan]))
        array([  0, 128, 255,   0], dtype=uint8)
    """
    return (probability.nan_to_num() * 255).round().byte().numpy()


def find(runs: Path | str, **wanted) -> list[Record]:
    """Finished runs under ``runs`` whose identity columns equal ``wanted``, in order of method, fold and seed.

    Runs on inner folds serve other runs only, runs that test nobody have nothing to tell: they are not among them.

    Raises:
        InputError: a name in ``wanted`` that is no identity column.

    Example:
        ``find("runs", paper="li2018", method="stepwise", cohort="phantom")``
    """
    for column in wanted:
        pick(dict.fromkeys(IDENTITY), column, "identity column")
    pattern = "/".join(glob.escape(str(wanted[column])) if column in wanted else "*" for column in IDENTITY[:4])
    records = [Record(path.parent) for path in Path(runs).glob(f"{pattern}/*/provenance.json")]
    for column, key in {"fold": lambda c: c["fold"]["number"], "seed": lambda c: c["seed"]}.items():
        if column in wanted:
            records = [record for record in records if key(record.config) == wanted[column]]
    records = [record for record in records if "inner" not in (fold := record.config["fold"]) and fold["test"]]
    return sorted(records, key=lambda r: (r.config["method"]["name"], r.config["fold"]["number"], r.config["seed"]))


def case_table(records: Iterable[Record]):
    """All rows of ``cases.csv`` of several runs as one data frame."""
    return _concatenate(record.cases for record in records)


def history_table(records: Iterable[Record]):
    """All rows of ``history.csv`` of several runs as one data frame."""
    return _concatenate(record.history for record in records)


def publish(records: list[Record], folder: Path) -> list[dict]:
    """Write the numbers of several runs into one folder: ``runs.json``, ``history.csv`` and the rows of cases.

    No weights, no predictions, no images; ten significant digits. ``runs.json`` says once what all runs share, and for
    each run what is its own. Rows of cases have a file for each method, ``cases-METHOD.csv``, so that a method that
    comes in later leaves the files of the others as they are, and none grows large. The folder can be committed and
    read back with :func:`read_published`.

    Runs that were published there before stay, so that methods and seeds can come from several machines. A run of the
    same method, fold and seed is replaced; where a method is defined otherwise by now, all its runs are. If this is
    stopped halfway, the same call mends the folder.

    Returns:
        What was published of the runs that went because their method is defined otherwise and nothing took their place.

    Raises:
        InputError: no runs given, or runs that differ, from each other or from those in the folder, in their paper,
            cohort, split or profile.
    """
    if not records:
        raise InputError(f"there is no finished run to publish into {folder}")
    methods = {record.config["method"]["name"]: record.config["method"] for record in records}
    folds = {str(record.config["fold"]["number"]): record.config["fold"] for record in records}
    rows = [
        record.config
        | record.provenance
        | {"method": record.config["method"]["name"], "fold": record.config["fold"]["number"]}
        for record in records
    ]
    old = Published(folder) if (folder / "runs.json").exists() else None
    everything = rows + (old.runs if old else [])
    differ = [part for part, kind in KIND.items() if len({sha256_of(kind(row)) for row in everything}) > 1]
    if differ:
        raise InputError(
            f"{folder} can hold one paper, cohort, split and profile, but these runs, with those that are published "
            f"there, differ in {' and '.join(differ)}; publish them into another folder"
        )
    cases, history, gone = case_table(records), history_table(records), []
    if old:
        replaced = {_place(row) for row in rows}
        changed = {name for name in methods if name in old.methods and not _same(old.methods[name], methods[name])}
        others = [row for row in old.runs if _place(row) not in replaced]
        kept, gone = ([row for row in others if (row["method"] in changed) is went] for went in (False, True))
        rows = kept + rows
        methods, folds = old.methods | methods, old.folds | folds
        cases, history = _of(kept, old.cases, cases), _of(kept, old.history, history)
    write_cases(folder, cases)
    write_text(folder / "history.csv", _text(history))
    common = {key: value for key, value in rows[0].items() if all(row.get(key) == value for row in rows)}
    own = [{key: value for key, value in row.items() if key not in common} for row in rows]
    write_json(folder / "runs.json", {"common": common, "methods": methods, "folds": folds, "runs": own})
    for path in folder.glob("cases-*.csv"):
        if path.stem.removeprefix("cases-") not in methods:
            path.unlink()
    return gone


def _place(row: Mapping) -> tuple:
    return tuple(row[column] for column in PLACE)


def _same(old: dict, new: dict) -> bool:
    """Whether two definitions of a method, as ``runs.json`` has them, differ in words at most."""
    return all(old.get(key) == new.get(key) for key in old | new if key not in NO_IDENTITY["method"])


def _of(kept: list[dict], old, new):
    """The rows of an old table that belong to the runs kept, and all of a new one."""
    places = {_place(row) for row in kept}
    mask = [place in places for place in old[PLACE].itertuples(index=False, name=None)]
    return _concatenate([old[mask], new])


def write_cases(folder: Path, cases) -> None:
    """Write rows of cases as published runs have them: ``cases-METHOD.csv`` for each method, ten significant digits."""
    for method, rows in cases.groupby("method", sort=False):
        write_text(folder / f"cases-{method}.csv", _text(rows))


def _text(table) -> str:
    return table.to_csv(index=False, lineterminator="\n", float_format=FLOAT)


@dataclass(frozen=True)
class Published:
    """Runs published under ``book/results``."""

    folder: Path

    @cached_property
    def cases(self):
        """One row for each case, structure and region of every run, as a data frame."""
        paths = sorted(self.folder.glob("cases-*.csv"))
        if not paths:
            raise InputError(f"{self.folder} has a runs.json, but no table cases-METHOD.csv; copy the whole folder")
        return _concatenate(map(_read_csv, paths))

    @cached_property
    def history(self):
        """The learning curves, with the columns that name the run, as a data frame."""
        return _read_csv(self.folder / "history.csv")

    @cached_property
    def runs(self) -> list[dict]:
        """Configuration and provenance of each run; ``method`` and ``fold`` are name and number."""
        return [self._content["common"] | run for run in self._content["runs"]]

    @property
    def methods(self) -> dict[str, dict]:
        """How each method was defined."""
        return self._content["methods"]

    @property
    def folds(self) -> dict[str, dict]:
        """The patients of each fold, by its number; none where scores alone were recorded."""
        return self._content.get("folds", {})

    @cached_property
    def _content(self) -> dict:
        return read_json(self.folder / "runs.json")


def published_folders(results: Path | str = RESULTS) -> list[Path]:
    """The folders below another one that hold published runs, by name.

    Example:
        >>> published_folders("no-such-folder")
        []
    """
    return sorted(path.parent for path in Path(results).glob("*/runs.json"))


def read_published(folder: Path | str) -> Published:
    """Published runs.

    Raises:
        InputError: nothing is published there.

    Example:
        >>> published = read_published(RESULTS / "luo2020-openkbp")
        >>> published.cases.paper.unique().tolist(), published.runs[0]["cohort"]
        (['luo2020'], 'OpenKBP_OAR')
    """
    if not (Path(folder) / "runs.json").exists():
        raise InputError(f"{folder} holds no published runs (no runs.json)")
    return Published(Path(folder))


def write_csv(path: Path, rows: list[dict], columns: list[str]) -> None:
    """Write rows in one piece; floats with all their digits, ``nan`` as an empty field."""
    import pandas as pd

    write_text(path, pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n"))


def environment() -> dict:
    """Versions, machine and commit, for ``provenance.json``."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _git_commit() -> str | None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", str(PACKAGE)) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _read_csv(path: Path):
    import pandas as pd

    return pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])


def _concatenate(tables: Iterable):
    import pandas as pd

    tables = list(tables)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

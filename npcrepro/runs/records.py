"""Runs on disk: what was asked for, what came out, and what is needed to believe it.

The page on the architecture lists the files of a run; ``provenance.json`` is written last, so that a run with it is
finished. Beside them there may be ``checkpoint.safetensors``, only while training, and ``diverged.npz``, the batch on
which the loss was no number. Every file is written under a temporary name and moved into place, so that a kill at any
moment leaves either the old file or the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

from npcrepro.base.code_hash import code_sha256, without_address
from npcrepro.base.errors import InputError, one_of
from npcrepro.base.files import as_data, read_json, sha256_of, write_text
from npcrepro.protocol.method import Method, Profile

# What decides a run's weights and predictions, beside the components that its method names.
TRAINING_CODE = (
    # Read otherwise, the same files are other images; the fingerprint of a cohort knows the files alone.
    "npcrepro.cohorts.prepared:_prepare_case",
    "npcrepro.protocol.method:Method.build",
    "npcrepro.protocol.method:Method.in_channels",
    "npcrepro.runs.run:weights_taken_over",
    "npcrepro.runs.run:build_data",
    "npcrepro.runs.training:train",
    "npcrepro.models.outputs:decide",
    "npcrepro.runs.records:quantised",
)
# A change of the thresholds that are tried (npcrepro.runs.validated) renames no run: older ones keep what they chose.
# What decides beside it where the largest piece of a structure may stay alone.
KEEPING_CODE = ("npcrepro.runs.validated:validate", "npcrepro.runs.validated:keep_largest")
# What a configuration says and a run does not depend on: words, and which folds, methods and phantom come by default.
NO_IDENTITY = {"method": ("title", "summary"), "profile": ("folds", "methods", "phantom")}
# Fields of a method that came later: where they are off, the method is the one that it was without them.
LATER = ("largest_component",)
# What makes cases.csv from predictions; they are scored again when it changes.
SCORING_CODE = ("npcrepro.runs.evaluation:score_case",)
# How the weights of a run are chosen, as provenance.json has it. A record without this entry that was finished before
# the day on which the rule came in is of the older one: each stage by itself, the last one deciding.
CHOOSING = "the best check of all stages that can be compared"
CHOOSING_SINCE = "2026-11-22"
IDENTITY = ["paper", "method", "cohort", "profile", "fold", "seed"]
# Columns of names: text, also where all of them are numbers, as the cohort 007.
NAMES = ["paper", "method", "cohort", "profile", "case", "patient", "structure", "region", "status", "stage"]


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
        parts = ("method", "profile", "cohort", "data_sha256", "split_sha256", "fold", "seed")
        return as_data(
            {"paper": self.method.paper}
            | {name: getattr(self, name) for name in parts}
            | {"used": {method: [each.sha256 for each in runs] for method, runs in self.used.items()}}
            | {"code_sha256": code_of(self.method)}
        )

    @cached_property
    def sha256(self) -> str:
        """Identity of the run: no words, no defaults, and no addresses of the package's own code, which may move."""
        deciding = {part: defining(self.data[part], part) for part in NO_IDENTITY}
        return sha256_of(without_addresses(self.data | deciding))

    @property
    def identity(self) -> dict:
        """The columns that name the run in every table."""
        values = (self.method.paper, self.method.name, self.cohort, self.profile.name, self.fold["number"], self.seed)
        return dict(zip(IDENTITY, values, strict=True))

    @property
    def title(self) -> str:
        """The run in a line of progress."""
        part = f"fold {self.fold['number']}" if self.fold["test"] else "all patients"
        part += f", part {self.fold['inner']}" if "inner" in self.fold else ""
        return f"{self.method.full_name} on {self.cohort}, {self.profile.name}, {part}, seed {self.seed}"

    @property
    def place(self) -> str:
        """Its folder below the folder of runs, ``paper/method/cohort/profile/fold-03_seed-0_1a2b3c4d``; ``all_...``
        where nobody is tested."""
        fold = f"fold-{self.fold['number']:02d}" if self.fold["test"] else "all"
        inner = f"-inner-{self.fold['inner']}" if "inner" in self.fold else ""
        name = f"{fold}{inner}_seed-{self.seed}_{self.sha256[:8]}"
        return "/".join((self.method.paper, self.method.name, self.cohort, self.profile.name, name))

    def folder(self, runs: Path) -> Path:
        """Where the run lies."""
        return runs / self.place

    @property
    def needs(self) -> tuple[Configuration, ...]:
        """The runs that this one uses itself."""
        return tuple(chain.from_iterable(self.used.values()))

    @property
    def updates(self) -> int:
        """Updates of training, where no stage ends early."""
        return sum(round(stage.share * self.method.budget * self.profile.updates) for stage in self.method.stages)


def defining(data: Mapping, part: str = "method") -> dict:
    """What a method (or the other ``part``, a profile) is, as a configuration has it: without its words and defaults.

    Example:
        >>> defining({"name": "unet", "title": "U-Net", "largest_component": False})
        {'name': 'unet'}
    """
    off = {name for name in LATER if not data.get(name)}
    return {name: value for name, value in data.items() if name not in off.union(NO_IDENTITY[part])}


def without_addresses(value):
    """Plain data in which ``"npcrepro.module:Name"`` is ``"Name"``; what stands behind a name is in ``code_sha256``."""
    if isinstance(value, dict):
        return {key: without_addresses(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_addresses(item) for item in value]
    return without_address(value) if isinstance(value, str) else value


def code_of(method: Method) -> str:
    """Hash of the code that decides the runs of a method: their ``code_sha256``, as this version makes it.

    Raises:
        InputError: the method names a class or function, or a module, that there is not.
    """
    try:
        return _code_of((*TRAINING_CODE, *method.targets, *(KEEPING_CODE * method.largest_component)))
    except (KeyError, FileNotFoundError, ValueError) as error:
        targets, missing = ", ".join(method.targets), getattr(error, "filename", None) or error.args[0]
        raise InputError(
            f"{method.full_name}: one of {targets} is no module:name of this package ({missing})"
        ) from None


@cache
def _code_of(targets: tuple[str, ...]) -> str:
    """A list of runs asks for the same hashes over and over."""
    return code_sha256(targets)


@dataclass(frozen=True)
class Record:
    """A run, read from its folder."""

    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end; a diverged one has."""
        return (self.folder / "provenance.json").exists()

    @cached_property
    def cases(self):
        """One row for each case, structure and region, as a data frame."""
        return read_csv(self.folder / "cases.csv")

    @cached_property
    def history(self):
        """The learning curve, with the columns that name the run, as a data frame."""
        return read_csv(self.folder / "history.csv")

    @property
    def updates(self) -> int:
        """Updates that were made, of all stages."""
        return int(self.history.groupby("stage")["update"].max().sum()) if len(self.history) else 0

    @cached_property
    def config(self) -> dict:
        """What was asked for."""
        return read_json(self.folder / "config.json")

    @cached_property
    def method(self) -> Method:
        """The method as it was trained, with what its training patients decided (``plan.json``)."""
        path = self.folder / "plan.json"
        method = Method.from_data(self.config["method"])
        return method.planned(read_json(path)) if path.exists() else method

    @cached_property
    def provenance(self) -> dict:
        """Versions, machine, times, hashes; ``status`` is ``trained`` or ``diverged``."""
        return read_json(self.folder / "provenance.json")

    @cached_property
    def used(self) -> dict[str, list[Record]]:
        """Runs that this one was built on, by method: the one on the same fold first, then those on inner folds."""
        used, above = self.provenance.get("used", {}), self.folder.parents[4:5]
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
    """Probabilities as they are kept, and as they go into a network that takes in maps: a NumPy array of uint8, in
    steps of 1/255. ``nan`` counts as 0.

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
        one_of(IDENTITY, column, "identity column")
    found = []
    for path in Path(runs).glob("*/*/*/*/*/provenance.json"):
        identity = dict(zip(IDENTITY, path.relative_to(runs).parts))
        if any(identity[column] != wanted.get(column, identity[column]) for column in IDENTITY[:4]):
            continue  # told by its folder, before any file is read
        record = Record(path.parent)
        fold, seed = record.config["fold"], record.config["seed"]
        identity |= {"fold": fold["number"], "seed": seed}
        if wanted.items() <= identity.items() and "inner" not in fold and fold["test"]:
            found.append(((identity["method"], fold["number"], seed), record))
    return [record for _, record in sorted(found, key=lambda each: each[0])]


def write_csv(path: Path, rows: list[dict], columns: list[str]) -> None:
    """Write rows in one piece; floats with all their digits, ``nan`` as an empty field."""
    import pandas as pd

    write_text(path, pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n"))


def read_csv(path: Path):
    import pandas as pd

    return pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])


def concatenate(tables: Iterable):
    """The rows of several tables as one data frame, for instance ``record.cases`` of several runs."""
    import pandas as pd

    tables = list(tables)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

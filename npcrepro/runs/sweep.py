"""Runs of several papers as one list, for whoever spreads them over processes or machines, and how far they are.

The list is that of :func:`npcrepro.runs.queue.run_paper`, made by the same functions, so that the Snakefile,
``npcrepro run`` and ``npcrepro status`` cannot disagree about what a run is, where it lies and what it waits for.
"""

import json
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from npcrepro.base.errors import InputError, one_of, pick
from npcrepro.base.files import as_data, sha256_of
from npcrepro.base.progress import seconds_left
from npcrepro.cohorts.cohort import Case, Cohort
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.structures import Structures
from npcrepro.protocol import registry
from npcrepro.protocol.method import Profile
from npcrepro.protocol.settings import Settings
from npcrepro.runs import fit
from npcrepro.runs.locking import in_use
from npcrepro.runs.plan import in_order, open_cohort, outline, phantom_folder, plan
from npcrepro.runs.records import Configuration, Record

# Of one run, by profile: memory in MB, and minutes after which a cluster may end it. It then goes on where it was.
RESOURCES = {
    "smoke": (2000, 15),
    "quick": (3000, 60),
    "bench": (6000, 480),
    "long": (8000, 720),
    "paper": (24000, 1440),
}
STATES = ("done", "diverged", "running", "failed", "stopped", "left")
DEFAULT = Settings()


@dataclass
class Sweep:
    """Runs of several papers with the same settings.

    Attributes:
        settings: of each paper.
        cohorts: the cohort of each paper; its folder is there once the cohort is prepared.
        sources: where the cohort comes from.
        runs: by folder below the folder of runs, each behind those that it needs.
        wanted: folders of the runs that the settings name; the others are there because these use them.
    """

    settings: dict[str, Settings] = field(default_factory=dict)
    cohorts: dict[str, Cohort] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    runs: dict[str, Configuration] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)

    @property
    def methods(self) -> dict[str, list[Configuration]]:
        """The runs of each method, by its full name."""
        found: dict[str, list[Configuration]] = {}
        for run in self.runs.values():
            found.setdefault(run.method.full_name, []).append(run)
        return found

    def options(self, paper: str) -> str:
        """Paper and settings as ``npcrepro run`` takes them, for a shell."""
        settings = self.settings[paper]
        words = [paper]
        for name, value in vars(settings).items():
            if name == "modalities" and value:
                words += ["--modalities", ",".join(value)]
            elif isinstance(value, tuple):
                words += [word for item in value for word in (f"--{name}", str(item))]
            elif name != "private":  # that is for pages
                words += [f"--{name}", value]
        return shlex.join(words)

    def parameters(self, notebook: str) -> dict[str, Any]:
        """Parameters of a notebook as :func:`npcrepro.book.build.book.build` gives them; of a chapter also those of
        its runs."""
        settings = next(iter(self.settings.values()))
        kept: dict[str, Any] = {"profile": settings.profile, "runs": settings.runs}
        if settings.cohort != DEFAULT.cohort:
            kept |= {"cohort": str(Path(settings.cohort).resolve()), "private": settings.private}
        given, default = as_data(self.settings.get(fit.paper_of(notebook), DEFAULT)), as_data(DEFAULT)
        # What is as it always is stays out: `npcrepro book` then finds the notebook executed.
        return {name: value for name, value in given.items() if value != default[name]} | kept


def make_sweep(keys: Iterable[str], settings: Settings, *, images: bool = True) -> Sweep:
    """The runs of papers and all that they use.

    Args:
        keys: of the papers; empty means all that can be run on the cohort.
        settings: what the user asked for. Methods may be named ``paper/method``; a paper of which none is named runs
            those of the profile.
        images: write the embedded phantom where it is not there yet. If not, its patients are only counted, and so are
            those of a public set that is named ``SET/VARIANT`` in place of a folder: the number of runs and what they
            use are right, the names of their folders are not.

    Raises:
        InputError: an unknown paper, method, profile or fold, or a cohort that cannot be used.
    """
    keys = tuple(keys) or registry.KEYS
    planned = None if images or settings.cohort == DEFAULT.cohort else _public_to_be(settings.cohort)
    if settings.cohort != DEFAULT.cohort and keys == registry.KEYS:
        unfit = fit.untold(keys, planned or settings.cohort, settings.profile)
        keys = tuple(key for key in keys if key not in unfit)
        if not keys:
            why = "; ".join(f"{key}: {reason}" for key, reason in unfit.items())
            raise InputError(f"no paper can be run on {settings.cohort}: {why}")
    for name in settings.methods:
        if "/" in name:
            one_of(keys, name.split("/")[0], "paper of this sweep")
    prepared = Path(settings.runs) / "prepared"
    sweep = Sweep()
    for key in keys:
        paper = registry.load(key, settings.modalities)
        methods = [name for name in settings.methods if "/" not in name or name.startswith(f"{key}/")]
        own = sweep.settings[key] = replace(settings, methods=tuple(methods))
        embedded = settings.cohort == DEFAULT.cohort
        source = sweep.sources[key] = phantom_folder(paper, settings) if embedded else Path(settings.cohort)
        if embedded and not images and not (source / "dataset.json").exists():
            cohort = _phantom_to_be(paper.profile(settings.profile), prepared / source.name)
        elif planned:
            cohort = replace(planned, folder=prepared / planned.name)
        else:
            cohort = outline(open_cohort(paper, own) if images else read_cohort(source), prepared)
        sweep.cohorts[key] = cohort
        named = plan(paper, own, cohort)
        sweep.wanted |= {run.place for run in named}
        sweep.runs |= {run.place: run for run in in_order(named)}
    return sweep


def _phantom_to_be(profile: Profile, folder: Path) -> Cohort:
    """The patients of the embedded phantom before they are made."""
    from npcrepro.cohorts.phantom import KINDS

    options = profile.phantom
    kind = KINDS[options["kind"]]
    name = "phantom" if options["kind"] == "mri" else f"phantom-{options['kind']}"
    names = [f"PHANTOM_{number:03d}" for number in range(options["patients"])]
    counted = _counted(name, names, options.get("channels", kind.channels), kind.structures, options)
    return replace(counted, folder=folder)


def _public_to_be(name: str) -> Cohort | None:
    """The patients of a public set before it is downloaded; None where the name is that of a folder, or of no set."""
    from npcrepro.cohorts import public

    found = None if Path(name).exists() else public.outlook(name)
    if found is None:
        return None
    names = [f"{found.name}_{number:03d}" for number in range(found.patients)]
    return _counted(found.name, names, found.channels, found.structures, found)


def _counted(name: str, names: list[str], channels: Iterable[str], structures: Iterable[str], made_of: Any) -> Cohort:
    """A cohort of which the images are not there."""
    codes: Structures = {structure: (code,) for code, structure in enumerate(structures, 1)}
    cases = tuple(Case(each, each) for each in names)
    return Cohort(name, tuple(channels), codes, cases, fingerprint=sha256_of(as_data(made_of)))


def from_config(config: Mapping[str, Any]) -> tuple[tuple[str, ...], Settings]:
    """Papers and settings that the configuration of Snakemake asks for, with names as in
    :class:`npcrepro.protocol.settings.Settings`; no papers means all.

    Args:
        config: besides ``papers``; lists may be texts such as ``0,1,2``.

    Raises:
        InputError: an entry that is none of them, with the near miss.

    Example:
        >>> from_config({"papers": "li2018,xue2020", "profile": "smoke", "seeds": "0,1"})[1].seeds
        (0, 1)
    """
    numbers = {"folds", "seeds"}
    defaults = {"papers": ()} | vars(DEFAULT)
    given: dict[str, Any] = {}
    for name, value in config.items():
        default = pick(defaults, name, "entry of --config")
        if isinstance(default, tuple):
            parts = value if isinstance(value, list) else [part.strip() for part in str(value).split(",")]
            try:
                value = tuple(int(part) if name in numbers else str(part) for part in parts if part != "")
            except ValueError:
                raise InputError(f"--config {name}={value} has to be whole numbers, for instance {name}=0,1") from None
        given[name] = str(value) if isinstance(default, str) else value
    return given.pop("papers", ()), Settings(**given)


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        state: one of `STATES`: ``stopped`` has begun and goes on where it was, ``left`` has not begun.
        detail: of a run that is not done: the last thing that its log tells.
        seconds: of a run that is done, of training and prediction.
    """

    state: str
    detail: str = ""
    seconds: float = math.nan


def progress(folder: Path) -> Progress:
    """Where the run in a folder is, from its files.

    A run counts as running while a process holds its lock; on a file system without locks across machines, a run of
    another machine counts as stopped.
    """
    record = Record(folder)
    if record.finished:
        state = "diverged" if record.provenance["status"] == "diverged" else "done"
        return Progress(state, seconds=record.provenance["seconds"]["all"])
    last, detail = {}, ""
    log = folder / "log.jsonl"
    for line in log.read_text("utf-8", "replace").splitlines() if log.exists() else ():
        try:
            last = json.loads(line)
        except ValueError:
            continue  # a kill cut this line short
        if "update" in last:
            detail = f"stage {last.get('stage')}, update {last['update']}"
    failed = last.get("event") == "failed"
    detail = str(last.get("error", "")) if failed else detail
    if in_use(folder):
        return Progress("running", detail)
    if failed:
        return Progress("failed", detail)
    return Progress("stopped", detail) if (folder / "config.json").exists() else Progress("left")


def time_left_s(sweep: Sweep, found: Mapping[str, Progress]) -> float:
    """Seconds that the runs which are not done take, one after the other, by those that are; ``nan`` without any."""
    work = {folder: (run.method.full_name, run.updates) for folder, run in sweep.runs.items()}
    return seconds_left(work, {folder: each.seconds for folder, each in found.items() if each.seconds >= 0})


def status_table(sweep: Sweep, found: Mapping[str, Progress]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows: for each method the number of its runs in each state."""
    rows = []
    for name, runs in sweep.methods.items():
        states = [found[run.place].state for run in runs]
        rows.append((name, str(len(states)), *(str(states.count(state)) for state in STATES)))
    return ["method", "runs", *STATES], rows

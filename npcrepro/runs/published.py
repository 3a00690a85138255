"""Runs published with the book: written to, and read from, ``book/results``."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError
from npcrepro.base.files import as_data, read_json, write_json, write_text
from npcrepro.protocol.method import Method, Paper, Stage
from npcrepro.runs.records import (
    CHOOSING,
    CHOOSING_SINCE,
    NO_IDENTITY,
    Record,
    concatenate,
    defining,
    read_csv,
    without_addresses,
)

RESULTS = PACKAGE.parent / "book" / "results"  # records published with the book
FLOAT = "%.10g"  # of published tables, which are committed: smaller, and far beyond what is measured
ABSENT = "absent"
SHARED = ["paper", "cohort", "profile"]  # columns of learning curves that say the same in all rows of a folder
PLACE = ["method", "fold", "seed"]  # what names a run among those of one published folder


def publish(records: list[Record], folder: Path) -> list[dict]:
    """Write the numbers of several runs into one folder: ``runs.json``, rows of cases and learning curves.

    No weights, no predictions, no images; ten significant digits. ``runs.json`` says once what all runs share, and for
    each run what is its own. Each method has a file of its own, ``cases-METHOD.csv`` and ``history-METHOD.csv``, so
    that a method that comes in later leaves the files of the others as they are, and none grows large; learning curves
    do not repeat paper, cohort and profile. The folder can be committed and read back with :func:`read_published`.

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
    for record in records:
        if "inner" in record.config["fold"] or not record.config["fold"]["test"]:
            raise InputError(
                f"{record.folder} tests no patient of its own, as it only serves other runs: name the run itself"
            )
    configs = [record.config for record in records]
    methods = {config["method"]["name"]: config["method"] for config in configs}
    folds = {str(config["fold"]["number"]): config["fold"] for config in configs}
    rows = [
        config | record.provenance | {"method": config["method"]["name"], "fold": config["fold"]["number"]}
        for config, record in zip(configs, records, strict=True)
    ]
    old = Published(folder) if (folder / "runs.json").exists() else None
    before = old.runs if old else []
    kinds = [_kind(row) for row in rows + before]
    differ = [part for part in kinds[0] if any(kind[part] != kinds[0][part] for kind in kinds)]
    if differ:
        raise InputError(
            f"{folder} can hold one paper, cohort, split and profile, but these runs, with those that are published "
            f"there, differ in {' and '.join(differ)}; publish them into another folder"
        )
    cases, history = (concatenate(getattr(each, name) for each in records) for name in ("cases", "history"))
    kept: list[dict] = []
    gone: list[dict] = []
    if old:
        changed = {name for name in methods if _defining(old.methods.get(name, {})) != _defining(methods[name])}
        replaced = {_place(row) for row in rows}
        for row in before:
            if _place(row) not in replaced:
                (gone if row["method"] in changed else kept).append(row)
        cases, history = _of(kept, old.cases, cases), _of(kept, old.history, history)
    # The tables of another method stay as they are: columns that came later would be empty in them.
    write_by_method(folder, "cases", cases, methods)
    write_by_method(folder, "history", history.drop(columns=SHARED), methods)
    if old:
        methods, folds, rows = old.methods | methods, old.folds | folds, kept + rows
    common = {key: value for key, value in rows[0].items() if all(row.get(key) == value for row in rows)}
    own = [{key: value for key, value in row.items() if key not in common} for row in rows]
    write_json(folder / "runs.json", {"common": common, "methods": methods, "folds": folds, "runs": own})
    for path in (*folder.glob("cases-*.csv"), *folder.glob("history-*.csv")):
        if path.stem.partition("-")[2] not in methods:
            path.unlink()
    return gone


def _kind(run: Mapping) -> dict:
    """What the runs of a published folder have in common."""
    profile = defining(run["profile"], "profile")
    images, split = run.get("data_sha256"), run.get("split_sha256")
    return {"paper": run["paper"], "cohort": run["cohort"], "images": images, "split": split, "profile": profile}


def _place(run: Mapping) -> tuple:
    return tuple(run[column] for column in PLACE)


def _defining(method: dict) -> dict:
    """What a method is, without its words, as this version writes it: an option that came later has its default."""
    with suppress(KeyError, TypeError):  # of one that cannot be read any more, and so is none of today
        method = as_data(Method.from_data(method))
    return defining(method)


def _of(kept: list[dict], old, new):
    """The rows of an old table that belong to the runs kept, and all of a new one."""
    places = {_place(row) for row in kept}
    mask = [place in places for place in old[PLACE].itertuples(index=False, name=None)]
    return concatenate([old[mask], new])


def write_by_method(folder: Path, name: str, table, methods: Iterable[str]) -> None:
    """Write a table as published runs have it: ``NAME-METHOD.csv`` for each method, ten significant digits.

    Args:
        name: ``cases`` or ``history``.
        table: a data frame with the column ``method``.
        methods: of which to write; one without rows has the header alone.
    """
    for method in methods:
        rows = table[table.method == method]
        write_text(folder / f"{name}-{method}.csv", rows.to_csv(index=False, lineterminator="\n", float_format=FLOAT))


@dataclass(frozen=True)
class Published:
    """Runs published under ``book/results``."""

    folder: Path

    @cached_property
    def cases(self):
        """One row for each case, structure and region of every run, as a data frame."""
        return self._rows("cases")

    @cached_property
    def history(self):
        """The learning curves, with the columns that name the run, as a data frame."""
        shared = {"paper": self.runs[0]["paper"], "cohort": self.runs[0]["cohort"]}
        return self._rows("history").assign(**shared, profile=self.runs[0]["profile"]["name"])

    def _rows(self, name: str):
        paths = sorted(self.folder.glob(f"{name}-*.csv"))
        if not paths:
            raise InputError(f"{self.folder} has a runs.json, but no table {name}-METHOD.csv; copy the whole folder")
        tables = [read_csv(path) for path in paths]
        return concatenate([table for table in tables if len(table)] or tables[:1])

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

    def outdated(self, paper: Paper) -> dict[str, str]:
        """Methods of the record that would be another one if they were run now, each with a sentence that says why.

        A method is outdated if the paper defines it otherwise at the profile of the record or has it no more, if its
        weights were chosen by an older rule, or if it builds on a method that is outdated. Words, and channels and
        structures that stand in for those of the paper, are no difference.

        Args:
            paper: that the record is of, with all its profiles.
        """
        profile = self.runs[0]["profile"]["name"]
        if profile not in {one.name for one in paper.profiles}:
            return dict.fromkeys(self.methods, f"{self.folder.name} is of a profile that there is no more, {profile}.")
        now = {method.name: method for method in paper.at(profile).methods}
        found = {name: why for name in self.methods if (why := self._otherwise(name, now.get(name)))}
        for name in [name for name in self.methods if name not in found]:
            if below := [use.method for use in now[name].uses if use.method in found]:
                found[name] = f"{name} in {self.folder.name} builds on {below[0]}, which is outdated. {found[below[0]]}"
        return found

    def _otherwise(self, name: str, now: Method | None) -> str:
        """Why runs of a method are outdated by themselves; empty if they are not."""
        try:
            then = Method.from_data(self.methods[name])
        except (KeyError, TypeError):
            return f"The definition of {name} in {self.folder.name} cannot be read any more."
        if now is None:
            return f"The paper has no method {name} any more, of which {self.folder.name} has runs."
        if differ := list(_differences(_deciding(then), _deciding(now))):
            more = f", and {len(differ) - 2} more" if len(differ) > 2 else ""
            return f"{name} is defined otherwise by now than in {self.folder.name}: {'; '.join(differ[:2])}{more}."
        goes_on = any(map(Stage.comparable, then.stages, then.stages[1:]))
        if goes_on and any(choosing(run) != CHOOSING for run in self.runs if run["method"] == name):
            return f"The weights of {name} in {self.folder.name} were chosen by an older rule, not by {CHOOSING}."
        return ""


def choosing(run: Mapping) -> str:
    """The rule by which the weights of a run were chosen; empty for that of before records named it."""
    old = run.get("finished", "") < CHOOSING_SINCE
    return str(run.get("choosing", "" if old else CHOOSING))


def _deciding(method: Method) -> dict:
    """What decides the runs of a method, whatever cohort it is on, without addresses of the package's own code."""
    words = (*NO_IDENTITY["method"], "channels", "structures")
    return {name: value for name, value in without_addresses(as_data(method)).items() if name not in words}


def _differences(then: Any, now: Any, where: str = "") -> Iterator[str]:
    """``"network.options.norm was absent and is True"`` for each entry of plain data that differs."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in [*then, *(key for key in now if key not in then)]:
            yield from _differences(then.get(key, ABSENT), now.get(key, ABSENT), f"{where}.{key}".removeprefix("."))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, pair in enumerate(zip(then, now, strict=True)):
            yield from _differences(*pair, f"{where}.{number}")
    elif then != now:
        yield f"{where} was {then} and is {now}"


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
        InputError: nothing is published there, or its ``runs.json`` is cut off or lists no run.

    Example:
        >>> published = read_published(RESULTS / "luo2020-openkbp")
        >>> published.cases.paper.unique().tolist(), published.runs[0]["cohort"]
        (['luo2020'], 'OpenKBP_OAR')
    """
    if not (Path(folder) / "runs.json").exists():
        raise InputError(f"{folder} holds no published runs (no runs.json)")
    found = Published(Path(folder))
    try:
        complete = bool(found.runs)
    except (KeyError, TypeError, ValueError):
        complete = False
    if not complete:
        raise InputError(f"{folder}/runs.json is damaged: cut off, or edited by hand; copy the folder again")
    return found

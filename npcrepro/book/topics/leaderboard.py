"""Every published method on the patients that it shares with others: what the page "Leaderboard" shows.

A board is a set of patients and structures with all the methods that were tested on the whole of it. Whoever was tested
on more stands on the smaller board too, with the patients of that board alone, so that every number of a board is of
the same patients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd

from npcrepro import statistics
from npcrepro.base.wording import DASH, plural
from npcrepro.book import tables
from npcrepro.findings import leakage, observers
from npcrepro.protocol import registry
from npcrepro.protocol.method import Method, Profile
from npcrepro.runs.per_patient import OVER_STRUCTURES, by_patient, over_seeds, over_structures
from npcrepro.runs.published import RESULTS, Published, published_folders, read_published

LEAST_PATIENTS = 2  # patients of a board: the mean over one is none
# Friedman's test takes the ranks of so many patients to be many.
RANKABLE = 10
# Share of a board's cases that are called hard where every method has them among its worst.
HARD = 0.1
WORST = 3  # cases of each method that are listed as its failures
TOLERANCE_MM = 2
METRICS = {"dsc": "DSC", "surfel_hd95_mm": "HD95 (mm)", f"surfel_nsd_{TOLERANCE_MM}mm": f"NSD at {TOLERANCE_MM} mm"}
PEOPLE = "two people, other scans"
ADDED = "added here"


@dataclass(frozen=True)
class Entry:
    """A method of published runs.

    Attributes:
        folder: of the record, by name.
        paper, profile: as the record has them.
        name, title: as the record has them; on a board both are a title that no other entry has.
        cases: rows of ``cases.csv`` in all slices.
        runs: configuration and provenance of each run.
        method: content of the configuration; without a network where it was made elsewhere.
    """

    folder: str
    paper: str
    name: str
    profile: str
    title: str
    cases: pd.DataFrame
    runs: tuple[dict, ...]
    method: dict

    @property
    def channels(self) -> str:
        """Series that go in, as in ``"T1 + CT + PET"``; a dash where nobody knows."""
        return " + ".join(self.method.get("channels", ())) or DASH

    @property
    def tested(self) -> frozenset[tuple[str, str]]:
        """Patients without doubtful labels, with each of their structures."""
        sure = self.cases[~self.cases.suspect]
        return frozenset(zip(sure.patient, sure.structure, strict=True))

    @cached_property
    def size(self) -> tuple[int | None, int | None]:
        """Parameters, and multiply-accumulates for one input; None where nobody knows.

        Of a network whose layers depend on what is in an image there is no number of multiply-accumulates.
        """
        from npcrepro.models.layers import count_layers

        if "network" not in self.method:
            return None, None
        # Records of other systems say no more of their profile than its name and matrix.
        profile = cast(Profile, SimpleNamespace(**self.runs[0]["profile"]))
        method = Method.from_data(self.method)
        parameters, _, macs = count_layers(lambda: method.build(profile.width), method.input_shape(profile))
        return parameters, macs


@dataclass(frozen=True)
class Board:
    """Methods on the same patients and structures, the best mean DSC first.

    Attributes:
        cohort: its name.
        structures: in the order of the records.
        methods: entries, by the title that they have on this board.
        cases: rows of ``cases.csv`` of all entries, doubtful labels left out; ``method`` is the title.
        patients: the same by patient, see :func:`npcrepro.runs.per_patient.by_patient`.
    """

    cohort: str
    structures: tuple[str, ...]
    methods: tuple[Entry, ...]
    cases: pd.DataFrame
    patients: pd.DataFrame

    @cached_property
    def whole(self) -> pd.DataFrame:
        """One row for each patient, method and seed: the mean over structures."""
        return over_structures(self.patients)

    @property
    def n(self) -> int:
        """Number of patients."""
        return self.patients.patient.nunique()

    @property
    def titles(self) -> list[str]:
        """Of the methods, the best first."""
        return [entry.title for entry in self.methods]

    @property
    def title(self) -> str:
        """Cohort, number of patients and profiles, in a few words."""
        profiles = ", ".join(sorted({entry.profile for entry in self.methods}))
        return f"{self.cohort}, {plural(self.n, 'patient')}, {profiles}"

    @property
    def about(self) -> str:
        """The title with structures, folds, devices and the date of the last run, for a caption.

        A fold that tests nobody but patients with doubtful labels was run and is not shown.
        """
        runs = list(chain.from_iterable(entry.runs for entry in self.methods))
        shown, made = self.cases.fold.nunique(), len({run["fold"] for run in runs})
        folds = plural(shown, "fold") if shown == made else f"{shown} of {plural(made, 'fold')}"
        devices = ", ".join(sorted({run["device"] for run in runs if "device" in run})) or "device unknown"
        last = max(run["finished"] for run in runs)[:10]
        return f"{self.title}; {', '.join(self.structures)}; {folds}, {devices}, made until {last}"

    @property
    def tolerance_note(self) -> str:
        """A sentence where the tolerance of the NSD is below every side of every voxel; empty elsewhere."""
        smallest = self.cases[[f"spacing_{axis}_mm" for axis in "zyx"]].min(axis=None)
        if not smallest > TOLERANCE_MM:
            return ""
        return (
            f"*Voxels are {smallest:.1f} mm or more on every side, so that the NSD at {TOLERANCE_MM} mm counts the "
            f"surface that is right to the voxel. It is not to be held against one of finer images.*"
        )

    def values(self, structure: str = OVER_STRUCTURES, metric: str = "dsc") -> pd.DataFrame:
        """Patients down, methods across, seeds averaged: of a structure, or of the mean over structures."""
        rows = self.whole if structure == OVER_STRUCTURES else self.patients[self.patients.structure == structure]
        return over_seeds(rows).pivot(index="patient", columns="method", values=metric).reindex(columns=self.titles)

    def standings(self) -> pd.DataFrame:
        """A row for each method: mean over structures and patients with its 95 % interval, spread of seeds, misses.

        Channels have a column where the methods differ in them. A structure counts as missed where the reference shows
        it and the prediction does not, with any seed; distances are of patients with none of these.
        """
        spread, differ = tables.spread_of_means(self.whole, "dsc"), len({one.channels for one in self.methods}) > 1
        rows = []
        for place, entry in enumerate(self.methods, 1):
            title = entry.title
            mine = self.patients[self.patients.method == title]
            row = {"": place, "method": title} | ({"channels": entry.channels} if differ else {})
            row["seeds"] = mine.seed.nunique()
            for metric, name in METRICS.items():
                row[name] = tables.mean_and_interval(statistics.summarise(self.values(metric=metric)[title]), self.n)
            row["sd over seeds"] = DASH if np.isnan(spread[title]) else f"{spread[title]:.3f}"
            shown = mine[~mine.status.isin(("both_empty", "ref_empty"))]
            row["missed"] = f"{(shown.status == 'pred_empty').sum()} of {len(shown)}"
            rows.append(row)
        return pd.DataFrame(rows)

    def by_structure(self, metric: str = "dsc") -> pd.DataFrame:
        """Methods down, structures across, see :func:`npcrepro.book.tables.by_method`; two people in the last row."""
        frame = tables.by_method(self.patients, self.methods, metric).astype(object)
        people = human(self.structures)
        if len(people):
            numbers = {name: f"{row[metric]:.2f} (n = {row.n:.0f})" for name, row in people.iterrows()}
            frame.loc[len(frame)] = {"method": PEOPLE, "n": DASH} | numbers
        return frame

    def cost(self) -> pd.DataFrame:
        """What each method takes: size of the network, and time and memory of a run as recorded.

        A column that nobody has a value for is left out.
        """
        frame = pd.DataFrame([_cost(entry) for entry in self.methods])
        return frame.loc[:, (frame != DASH).any()]

    def friedman(self) -> statistics.Friedman | None:
        """Ranks of the methods in each patient, by DSC; None for fewer than three methods or `RANKABLE` patients."""
        values = self.values().dropna()
        enough = len(self.methods) >= 3 and len(values) >= RANKABLE
        return statistics.friedman(dict(values.items())) if enough else None

    def stability(self) -> statistics.RankStability | None:
        """How the ranks by mean DSC move when patients are drawn anew; None for fewer than two methods or three
        patients."""
        values = self.values().dropna()
        enough = len(self.methods) >= 2 and len(values) >= 3
        return statistics.rank_stability(dict(values.items())) if enough else None

    def volumes(self, structure: str, title: str) -> pd.DataFrame:
        """Columns ``reference_ml`` and ``predicted_ml`` of each patient, seeds averaged; empty without a spacing."""
        rows = self.patients[(self.patients.structure == structure) & (self.patients.method == title)]
        return over_seeds(rows).set_index("patient")[["reference_ml", "predicted_ml"]].dropna()

    def agreement(self, structure: str, title: str) -> statistics.Agreement:
        """Predicted against reference volumes in ml, see :func:`npcrepro.statistics.bland_altman`."""
        volumes = self.volumes(structure, title)
        return statistics.bland_altman(volumes.predicted_ml, volumes.reference_ml)

    def volume_agreement(self) -> pd.DataFrame:
        """Methods down, structures with their mean volume across: bias (limits of agreement) in ml.

        No rows where no volume is known.
        """
        lines = [{"method": title} for title in self.titles]
        for structure, line in product(self.structures, lines):
            volumes, found = self.volumes(structure, line["method"]), self.agreement(structure, line["method"])
            if found.n > 1:
                heading = f"{structure} ({volumes.reference_ml.mean():.0f} ml)"
                line[heading] = f"{found.bias:+z.1f} ({found.low:+z.1f} to {found.high:+z.1f})"
        return pd.DataFrame([line for line in lines if len(line) > 1])

    def failures(self) -> pd.DataFrame:
        """The `WORST` structures of each method, case by case, by DSC; seeds averaged. Volumes are texts."""
        columns = ["dsc", "surfel_hd95_mm", "reference_ml", "predicted_ml"]
        shown = self.cases[self.cases.status != "both_empty"]
        means = shown.groupby(["method", "case", "structure"])[columns].mean(skipna=False).reset_index()
        means = means.sort_values(["dsc", "case", "structure"])
        found = pd.concat(means[means.method == title].head(WORST) for title in self.titles).astype(
            {"reference_ml": object, "predicted_ml": object}
        )
        found[columns[2:]] = found[columns[2:]].map(tables.millilitres)
        return found.set_axis([*found.columns[:3], "DSC", "HD95 (mm)", "reference (ml)", "predicted (ml)"], axis=1)

    def hard(self) -> list[str]:
        """Cases that are among the worst tenth of every method, by the mean DSC over their structures."""
        shown = self.cases[self.cases.status != "both_empty"]
        means = shown.groupby(["method", "case"]).dsc.mean()
        count = max(1, round(HARD * shown.case.nunique()))
        worst = [set(means[title].nsmallest(count).index) for title in self.titles]
        return sorted(set.intersection(*worst))


def boards(results: Path | str = RESULTS) -> list[Board]:
    """The boards of everything that is published under a folder, most patients first.

    Cohorts of single slices, which show what a split by slice does, are left out, and so are boards of fewer than
    `LEAST_PATIENTS` patients.
    """
    entries = list(chain.from_iterable(_entries(read_published(folder)) for folder in published_folders(results)))
    groups: dict[tuple, list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.runs[0]["cohort"], entry.runs[0].get("data_sha256")), []).append(entry)
    found = []
    for (cohort, _), members in groups.items():
        for tested in dict.fromkeys(entry.tested for entry in members if entry.tested):
            if len({patient for patient, _ in tested}) >= LEAST_PATIENTS:
                found.append(_board(cohort, tested, [entry for entry in members if tested <= entry.tested]))
    return sorted(found, key=lambda board: (-board.n, board.cohort, -len(board.methods)))


def human(structures: Iterable[str]) -> pd.DataFrame:
    """Agreement of two people (:func:`npcrepro.findings.observers.agreement`) on those of the structures that both
    drew."""
    return observers.agreement().reindex(list(structures)).dropna(how="all")


def _entries(published: Published) -> list[Entry]:
    first = published.runs[0]
    if first["cohort"].endswith(tuple(leakage.SPLITS)):
        return []
    cases = published.cases[published.cases.region == "all_slices"]
    about = {"folder": published.folder.name, "paper": first["paper"], "profile": first["profile"]["name"]}
    found = []
    for name, method in published.methods.items():
        runs = tuple(run for run in published.runs if run["method"] == name)
        own = {"cases": cases[cases.method == name], "runs": runs, "method": method}
        found.append(Entry(name=name, title=method["title"], **about, **own))
    return found


def _board(cohort: str, tested: frozenset[tuple[str, str]], entries: Sequence[Entry]) -> Board:
    entries = [replace(entry, name=title, title=title) for entry, title in zip(entries, _titles(entries), strict=True)]
    cases = pd.concat([entry.cases.assign(method=entry.title) for entry in entries], ignore_index=True)
    pairs = pd.MultiIndex.from_frame(cases[["patient", "structure"]])
    cases = cases[pairs.isin(list(tested)) & ~cases.suspect]
    structures = list(dict.fromkeys(cases.structure))
    patients = by_patient(cases)
    patients = patients.iloc[patients.structure.map(structures.index).argsort(kind="stable")]
    means = over_seeds(over_structures(patients)).groupby("method").dsc.mean()
    ranked = sorted(entries, key=lambda entry: -means.get(entry.title, 0.0))
    return Board(cohort, tuple(structures), tuple(ranked), cases, patients)


def _titles(entries: Sequence[Entry]) -> list[str]:
    """A title for each entry, with its paper and whether this book added it there; with profile or folder as well where
    others are called alike, and with all of these and the name where that is not enough."""

    def told(entry: Entry) -> list[str]:
        paper = registry.PAPERS[entry.paper].short if entry.paper in registry.PAPERS else entry.paper
        if entry.paper in registry.PAPERS and entry.name in registry.load(entry.paper).added:
            paper += f", {ADDED}"
        more: list[list[str]] = [[], [entry.profile], [entry.folder]]
        more.append([entry.profile, f"{entry.folder}/{entry.name}"])
        return [f"{entry.title} ({', '.join((paper, *parts))})" for parts in more]

    choices = list(zip(*map(told, entries), strict=True))
    return [next(each[i] for each in choices if each.count(each[i]) == 1) for i in range(len(entries))]


def _cost(entry: Entry) -> dict[str, str | int]:
    parameters, macs = entry.size
    matrix = entry.runs[0]["profile"].get("matrix", ())
    known = [run for run in entry.runs if "seconds" in run]
    seconds = {name: np.mean([run["seconds"][name] for run in known]) for name in ("train", "predict") if known}
    cases = entry.cases.groupby(["fold", "seed"]).case.nunique().mean()
    memory = [run.get("peak_gpu_memory_mib") or 0 for run in entry.runs]
    used = dict.fromkeys(chain.from_iterable(run.get("used") or () for run in entry.runs))
    return {
        "method": entry.title,
        "runs": len(entry.runs),
        "input": " x ".join(map(str, matrix)) or DASH,
        "parameters": _number(parameters, ",.0f"),
        "MAC (billions)": _number(macs, ".2g", 1e-9),
        "minutes to train": _number(seconds.get("train"), ".1f", 1 / 60),
        "seconds to predict a case": _number(seconds.get("predict"), ".2g", 1 / cases),
        "GPU memory (MiB)": _number(max(memory) or None, ",.0f"),
        "built on": ", ".join(used) or DASH,
    }


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return DASH if value is None else format(value * factor, form)

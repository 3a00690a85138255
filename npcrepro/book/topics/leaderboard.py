"""Every published method beside the others that were tested on the same patients: the page "Leaderboard".

A board is a set of patients and structures with all the methods that were tested on the whole of it. Whoever was tested
on more stands on the smaller board too, with the patients of that board alone, so that every number of a board is of
the same patients. A page has one table for each cohort, with a row for each board, structure and method.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd

from npcrepro import statistics
from npcrepro.base.wording import DASH, percent, plural
from npcrepro.book import tables
from npcrepro.findings import leakage, observers
from npcrepro.findings.claims.source import PHANTOM
from npcrepro.protocol import registry
from npcrepro.protocol.method import Method, Profile
from npcrepro.runs.per_patient import OVER_STRUCTURES, by_patient, over_seeds, over_structures
from npcrepro.runs.published import RESULTS, published_folders, read_published

LEAST_PATIENTS = 2  # patients of a board: the mean over one is none
TOLERANCE_MM = 2
METRICS = {"dsc": "DSC", "surfel_nsd_2mm": f"NSD at {TOLERANCE_MM} mm", "surfel_hd95_mm": "HD95 (mm)"}
PEOPLE = "two people (other scans)"
CUT_OUT = RESULTS / "cut-out" / "shares.csv"
SHARE = 0.05  # of a structure's voxels in slices that are blank but for it: more of them, and it counts as cut out
BY = ("tested on", "structure", "paper")  # what a reader chooses by
SHOWN = ("method", "structure", "tested on", *METRICS.values(), "place")  # the other columns are unfolded


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
    profile: str
    name: str
    title: str
    cases: pd.DataFrame
    runs: tuple[dict, ...]
    method: dict

    @property
    def short(self) -> str:
        """Name of the paper, or of whoever made the segmentations elsewhere."""
        return registry.PAPERS[self.paper].short if self.paper in registry.PAPERS else self.paper

    @property
    def tested(self) -> frozenset[tuple[str, str]]:
        """Patients without doubtful labels, with each of their structures."""
        sure = self.cases[~self.cases.suspect]
        return frozenset(zip(sure.patient, sure.structure, strict=True))

    @cached_property
    def size(self) -> tuple[tuple[int, ...], int | None, int | None]:
        """Sides of one input, parameters, and multiply-accumulates for one input; None where nobody knows, or they
        depend on the image."""
        from npcrepro.models.layers import count_layers

        if "network" not in self.method:
            return tuple(self.runs[0]["profile"].get("matrix", ())), None, None
        # Records of other systems say no more of their profile than its name and matrix.
        profile = cast(Profile, SimpleNamespace(**self.runs[0]["profile"]))
        method = Method.from_data(self.method)
        shape = method.input_shape(profile)
        parameters, _, macs = count_layers(lambda: method.build(profile.width), shape)
        return shape[1:], parameters, macs

    @cached_property
    def about(self) -> dict[str, str]:
        """What a reader unfolds: images, network, training and cost of one run, as far as they are recorded."""
        sides, parameters, macs = self.size
        cases = self.cases.groupby(["fold", "seed"]).case.nunique().mean()
        memory = max((run.get("peak_gpu_memory_mib") or 0 for run in self.runs), default=0)
        used = dict.fromkeys(chain.from_iterable(run.get("used") or () for run in self.runs))
        folds, seeds = ({run[part] for run in self.runs} for part in ("fold", "seed"))
        told = {
            "paper": self.short,
            "added": "by this book; the paper reports no number of it" * self.added,
            "images": " + ".join(self.method.get("channels", ())),
            "input": " x ".join(map(str, sides)),
            "profile": self.profile,
            "runs": f"{plural(len(folds), 'fold')}, {plural(len(seeds), 'seed')}",
            "parameters": _number(parameters, ",.0f"),
            "multiply-accumulates for one input": _number(macs, ".2g", 1e-9, " billion"),
            "time to train one run": self._seconds("train", ".1f", 1 / 60, " min"),
            "time to predict one case": self._seconds("predict", ".2g", 1 / cases, " s"),
            "GPU memory": _number(memory or None, ",.0f", 1, " MiB"),
            "built on": ", ".join(used),
            "record": self.folder,
        }
        return {name: text for name, text in told.items() if text}

    def _seconds(self, part: str, form: str, factor: float, unit: str) -> str:
        """Mean time of a part of the runs on each device, in words; a mean over devices would be the time of none."""
        taken = defaultdict(list)
        for run in self.runs:
            if "seconds" in run:
                taken[run.get("device", DASH)].append(run["seconds"][part])
        return ", ".join(f"{_number(np.mean(each), form, factor, unit)} ({device})" for device, each in taken.items())

    @property
    def added(self) -> bool:
        """Whether this book added the method to those of its paper."""
        return self.paper in registry.PAPERS and self.name in registry.load(self.paper).added


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

    def of(self, structure: str) -> pd.DataFrame:
        """Rows of a structure, or of the mean over structures: one for each patient, method and seed."""
        return self.whole if structure == OVER_STRUCTURES else self.patients[self.patients.structure == structure]

    def values(self, structure: str = OVER_STRUCTURES, metric: str = "dsc") -> pd.DataFrame:
        """Patients down, methods across, seeds averaged: of a structure, or of the mean over structures."""
        rows = over_seeds(self.of(structure))
        return rows.pivot(index="patient", columns="method", values=metric).reindex(columns=self.titles)

    def rows(self, structure: str) -> list[dict[str, str]]:
        """A row of text for each method: means over patients with their 95 % interval, and what is unfolded.

        The place is by mean DSC; behind it stand the places between which it lies in 95 % of 10,000 draws of the
        patients. Distances are of patients of whom nothing was missed. A structure counts as missed where the reference
        shows it and the prediction does not, with any seed.
        """
        values = {metric: self.values(structure, metric) for metric in METRICS}
        spread, places = tables.spread_of_means(self.of(structure), "dsc"), _places(values["dsc"])
        found = []
        for entry in sorted(self.methods, key=lambda entry: places[entry.title]):
            title = entry.title
            row = {"tested on": plural(self.n, "patient"), "structure": structure, "method": title, "paper": ""}
            for metric, name in METRICS.items():
                row[name] = tables.mean_and_interval(statistics.summarise(values[metric][title]), self.n)
            row["place"] = places[title][1]
            row |= entry.about
            row["standard deviation over seeds"] = "" if np.isnan(spread[title]) else f"{spread[title]:.3f}"
            found.append(row | self._misses(structure, title))
        return found

    def _misses(self, structure: str, title: str) -> dict[str, str]:
        """How often a method missed a structure, the case with its lowest DSC, and how far volumes are off."""
        mine = self.patients[self.patients.method == title]
        cases = self.cases[(self.cases.method == title) & (self.cases.status != "both_empty")]
        if structure != OVER_STRUCTURES:
            mine, cases = (rows[rows.structure == structure] for rows in (mine, cases))
        shown = mine[~mine.status.isin(("both_empty", "ref_empty"))]
        told = {"missed": f"{(shown.status == 'pred_empty').sum()} of {len(shown)}"}
        lowest = cases.groupby(["case", "structure"]).dsc.mean().sort_values(kind="stable")
        if len(lowest):
            case, name = lowest.index[0]
            told["lowest DSC"] = f"{lowest.iloc[0]:.2f} ({case}{f', {name}' if structure == OVER_STRUCTURES else ''})"
        volumes = over_seeds(mine)[["predicted_ml", "reference_ml"]].dropna()
        if structure != OVER_STRUCTURES and len(volumes):
            off, mean = (volumes.predicted_ml - volumes.reference_ml).mean(), volumes.reference_ml.mean()
            told["volume"] = f"{off:+z.1f} ml on average; the reference has {tables.millilitres(mean)} ml"
        return told


def table(boards: Sequence[Board]) -> pd.DataFrame:
    """All boards of a cohort as one table of text: a row for each board, structure and method, empty cells as ``""``.

    Patients, structures and images have a column where they differ.
    Structures that two people have drawn (:mod:`npcrepro.findings.observers`) have a row for these.
    """
    rows, people = [], observers.agreement()
    for board in boards:
        several = [OVER_STRUCTURES] if len(board.structures) > 1 else []
        for structure in (*several, *board.structures):
            rows += board.rows(structure)
            if structure in people.index:
                one = people.loc[structure]
                numbers = {name: f"{one[metric]:.2f} (n = {one.n:.0f})" for metric, name in METRICS.items()}
                about = {"tested on": plural(board.n, "patient"), "structure": structure, "method": PEOPLE}
                rows.append(dict.fromkeys(rows[-1], "") | about | {"paper": "people"} | numbers)
    frame = pd.DataFrame(rows).fillna("")
    methods = frame[frame.method != PEOPLE]
    alike = [name for name in ("structure", "tested on", "images") if methods[name].nunique() == 1]
    return frame[[*SHOWN, *(name for name in frame if name not in SHOWN)]].drop(columns=alike)


def notes(boards: Sequence[Board]) -> str:
    """What a reader of `table` has to know: patients and structures of the largest board, coarse voxels, `cut_out`."""
    board = boards[0]
    fewer = ", or on fewer where the table says so" if len(boards) > 1 else ""
    tested = f"Tested on {plural(board.n, 'patient')}{fewer}; {', '.join(board.structures)}."
    smallest = board.cases[[f"spacing_{axis}_mm" for axis in "zyx"]].min(axis=None)
    coarse = (
        f"Voxels are {smallest:.1f} mm or more on every side, so that the NSD at {TOLERANCE_MM} mm counts the surface "
        "that is right to the voxel."
    )
    return " ".join(filter(None, (tested, coarse if smallest > TOLERANCE_MM else "", cut_out(board))))


def cut_out(board: Board, path: Path = CUT_OUT) -> str:
    """In how many cases of a board a structure lies in slices of the CT that are blank but for drawn organs; empty
    where that holds for none, and for a cohort that was not measured.

    There the image is a cut-out of the reference, so that a network can read the answer off it.
    """
    shares = pd.read_csv(path, dtype={"case": str})
    tested = board.cases[["case", "structure"]].drop_duplicates().assign(cohort=board.cohort)
    rows = tested.merge(shares, on=["cohort", "case", "structure"])
    if rows.empty:
        return ""
    counts = (rows.share > SHARE).groupby(rows.structure, sort=False).agg(["sum", "size"])
    many = ", ".join(f"{row.Index} in {row.sum} of {row.size} cases" for row in counts.itertuples() if row.sum)
    return many and (
        "Some slices near the ends of these CT scans are blank but for drawn organs. That holds for more than "
        f"{percent(SHARE)} of {many}; there the DSC may be too high."
    )


def by_cohort(boards: Sequence[Board]) -> dict[str, list[Board]]:
    """The boards of each cohort of real images, most patients first."""
    real = [board for board in boards if not board.cohort.startswith(PHANTOM)]
    return {name: [board for board in real if board.cohort == name] for name in dict.fromkeys(b.cohort for b in real)}


def boards(results: Path | str = RESULTS) -> list[Board]:
    """The boards of everything that is published under a folder, most patients first.

    Cohorts of single slices, which show what a split by slice does, are left out, and so are boards of fewer than
    `LEAST_PATIENTS` patients.
    """
    groups: dict[tuple, list[Entry]] = defaultdict(list)
    for published in map(read_published, published_folders(results)):
        first = published.runs[0]
        if first["cohort"].endswith(tuple(leakage.SPLITS)):
            continue
        cases = published.cases[published.cases.region == "all_slices"]
        about = published.folder.name, first["paper"], first["profile"]["name"]
        paper = first["paper"]
        methods = registry.load(paper).methods if paper in registry.PAPERS else ()
        titles = {method.name: method.title for method in methods}
        for name, method in published.methods.items():
            runs = tuple(run for run in published.runs if run["method"] == name)
            title = titles.get(name, method["title"])  # as the chapters call it
            entry = Entry(*about, name, title, cases[cases.method == name], runs, method)
            groups[runs[0]["cohort"], runs[0].get("data_sha256")].append(entry)
    found = []
    for (cohort, _), members in groups.items():
        for tested in dict.fromkeys(entry.tested for entry in members if entry.tested):
            if len({patient for patient, _ in tested}) >= LEAST_PATIENTS:
                found.append(_board(cohort, tested, [entry for entry in members if tested <= entry.tested]))
    return sorted(found, key=lambda board: (-board.n, board.cohort, -len(board.methods)))


def _board(cohort: str, tested: frozenset[tuple[str, str]], entries: Sequence[Entry]) -> Board:
    entries = [replace(entry, title=title) for entry, title in zip(entries, _titles(entries), strict=True)]
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
    """A title for each entry, with its paper; with profile or folder as well where others are called alike, and with
    all of these and the name where that is not enough."""

    def told(entry: Entry) -> list[str]:
        more: list[list[str]] = [[], [entry.profile], [entry.folder]]
        more.append([entry.profile, f"{entry.folder}/{entry.name}"])
        return [f"{entry.title} ({', '.join((entry.short, *parts))})" for parts in more]

    choices = list(zip(*map(told, entries), strict=True))
    return [next(each[i] for each in choices if each.count(each[i]) == 1) for i in range(len(entries))]


def _places(values: pd.DataFrame) -> dict[str, tuple[float, str]]:
    """For each method a number to sort by and its place in words; ties and missing values come by their order."""
    means = values.mean()
    order = (-means).rank(method="first", na_option="bottom")
    kept = values.dropna()
    # Fewer methods or patients have places and no draws.
    drawn = statistics.rank_stability(dict(kept.items())) if len(kept.columns) > 1 and len(kept) > 2 else ()
    ends = {rank.method: f" ({rank.low} to {rank.high})" for rank in drawn if rank.low != rank.high}
    return {name: (place, f"{place:.0f}{ends.get(name, '')}") for name, place in order.items()}


def _number(value: float | None, form: str, factor: float = 1, unit: str = "") -> str:
    return "" if value is None else format(value * factor, form) + unit

"""What the chapters of the book share: a paper, the cohort of the settings, its runs, and the usual tables and figures.

A chapter is a notebook. It tells the story; what every story needs is here, so that the chapters cannot drift apart.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from npcrepro import evaluation, figures, papers, records, statistics, tables
from npcrepro.cohorts.layout import Cohort
from npcrepro.cohorts.prepared import PreparedCohort, prepare
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.overlap import count
from npcrepro.protocol import Method, Paper, Profile, Settings
from npcrepro.records import Published, Record
from npcrepro.runs import open_cohort, run_paper


class Chapter:
    """A paper on the cohort of the settings.

    Args:
        key: of the paper, ``"li2018"``.
        settings: of the notebook.

    Attributes:
        paper, reported, size: protocol, printed content and profile.
        source, prepared: the cohort, and its checked copy.
        chosen: the methods to run, with the structures that the cohort has.
    """

    def __init__(self, key: str, settings: Settings):
        self.settings = settings
        self.paper: Paper = papers.load(key, settings.modalities)
        self.reported = papers.reported(key)
        self.size: Profile = self.paper.profile(settings.profile)
        self.source: Cohort = open_cohort(self.paper, settings)
        self.prepared: PreparedCohort = prepare(self.source, f"{settings.runs}/prepared")
        names = settings.methods or self.size.methods
        self.chosen: list[Method] = [self.paper.method(name).on(self.source.structures) for name in names]
        self.data = self.chosen[0].data.build(
            self.prepared, self.size.matrix, self.chosen[0].channels, self.chosen[0].structures
        )
        self.structures: tuple[str, ...] = self.data.structures

    # What it is about

    def gaps(self):
        """What the paper leaves open, and what is done here."""
        return tables.show(pd.DataFrame(self.reported["gaps"]), "What the paper leaves open, and what is done here")

    def images(self, count: int = 4, limits: tuple[float, float] | None = None) -> Markdown:
        """One slice of each of the first cases with the contours of the structures, and a line on the cohort."""
        shown = {}
        for name in self.prepared.cases[:count]:
            masks = self.masks(name)
            z = int(sum(mask.sum(axis=(1, 2)) for mask in masks.values()).argmax())
            drawn = {structure: mask[z] for structure, mask in masks.items() if mask[z].any()}
            shown[f"{name}, slice {z}"] = (self._image(name)[z], drawn)
        figures.show_images(self.source, self.settings, figures.sheet, {"": shown}, limits)
        samples = len(self.data.samples(self.prepared.cases))
        return Markdown(
            f"*{len(self.prepared.patients)} patients, {len(self.prepared.cases)} cases, {samples} slices with "
            f"{' or '.join(self.structures[:3])}{' ...' if len(self.structures) > 3 else ''}; channel "
            f"{', '.join(self.data.channels)}; network input {' x '.join(map(str, self.size.matrix))}. "
            f"Images: {self.source.reference} Licence: {self.source.licence}.*"
        )

    def masks(self, case: str) -> dict[str, np.ndarray]:
        """Reference masks ``(z, y, x)`` of a case by structure."""
        label = np.asarray(self.prepared.case(case).label)
        return {name: mask_of(label, self.prepared.structures, name) for name in self.structures}

    def _image(self, case: str) -> np.ndarray:
        return np.asarray(self.prepared.case(case).image[self.prepared.channels.index(self.data.channels[0])])

    def layers(self, name: str = "") -> Markdown:
        """The layer table of a method (the proposed one) as printed in the paper, and its size in this profile."""
        method = self.paper.method(name) if name else self.paper.methods[0]
        rows, here = tables.layers(method, self.paper.profile("paper")), tables.layers(method, self.size)
        display(tables.show(rows))
        return Markdown(
            f"{rows['parameters'].sum():,} parameters, {rows['MAC (millions)'].sum() / 1000:.2f} billion "
            f"multiply-accumulates for a slice. At profile `{self.settings.profile}` the matrix is "
            f"{' x '.join(map(str, self.size.matrix))} and channel numbers are multiplied by {self.size.width:g}: "
            f"{here['parameters'].sum():,} parameters."
        )

    def methods(self):
        """The methods of this page."""
        rows = [(m.full_name, m.title, m.summary) for m in self.chosen]
        return tables.show(pd.DataFrame(rows, columns=["method", "legend", "what it is"]))

    # Runs

    @cached_property
    def found(self) -> list[Record]:
        """The runs of the page, trained now or read back."""
        return run_paper(self.paper, self.settings)

    def more(self, *methods: str) -> list[Record]:
        """Runs of further methods on the first fold and with the first seed of this page."""
        first = self.found[0].config["fold"]["number"]
        settings = replace(self.settings, methods=methods, folds=(first,), seeds=self.settings.seeds[:1])
        return run_paper(self.paper, settings, report=_silent)

    @cached_property
    def made(self) -> str:
        """What a caption says: profile, cohort, seeds, device and date."""
        provenance = self.found[0].provenance
        return (
            f"profile {self.settings.profile}, cohort {self.prepared.name}, seeds {list(self.settings.seeds)}, "
            f"{provenance['device']}, {provenance['finished'][:10]}"
        )

    @cached_property
    def patients(self) -> pd.DataFrame:
        """One row for each patient, method, seed, structure and region."""
        return evaluation.by_patient(records.case_table(self.found))

    def time(self) -> Markdown:
        """How many runs there were, and how long they took."""
        seconds = sum(record.provenance["seconds"]["all"] for record in self.found)
        return Markdown(f"{len(self.found)} runs ({self.made}), {seconds:.0f} s of training and prediction in all.")

    def learning_curves(self) -> Markdown:
        """Training and validation loss."""
        figures.learning_curves(records.history_table(self.found), self.paper)
        plt.show()
        return Markdown(
            f"*Loss of the score that is trained in each step: one thin line for each fold, thick lines are means "
            f"({self.made}).*"
        )

    # Results

    def scores(self, region: str = "all_slices", structure: str = "") -> pd.DataFrame:
        """Rows of `patients` of one structure (the first) in one region."""
        return evaluation.select(self.patients, structure or self.structures[0], region)

    def first_seed(self, region: str = "all_slices", structure: str = "") -> pd.DataFrame:
        """The same, of the first seed alone."""
        rows = self.scores(region, structure)
        return rows[rows.seed == self.settings.seeds[0]]

    def ranked(self, region: str = "all_slices", structure: str = "") -> tuple[str, pd.DataFrame]:
        """The method with the best mean DSC (first seed), and its patients from best to worst."""
        rows = self.first_seed(region, structure)
        leader = rows.groupby("method").dsc.mean().idxmax()
        mine = rows[rows.method == leader].sort_values(["dsc", "patient"], ascending=[False, True])
        return leader, mine.reset_index(drop=True)

    def examples(self, region: str = "all_slices", structure: str = "") -> Markdown:
        """Best, median and worst patient of the leading method, with the contours of all methods."""
        structure = structure or self.structures[0]
        leader, ranked = self.ranked(region, structure)
        number = self.structures.index(structure) + 1
        places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
        rows = {}
        for line, (word, place) in enumerate(places.items()):
            if len(ranked) <= line:
                continue
            patient = ranked.patient[place]
            case = self.prepared.cases_of([patient])[0]
            truth = self.masks(case)[structure]
            z = int(truth.sum(axis=(1, 2)).argmax())
            drawn = {
                record.config["method"]["name"]: record.prediction(case)[0][z] == number
                for record in self.found
                if patient in record.config["fold"]["test"] and record.config["seed"] == self.settings.seeds[0]
            }
            rows[f"{word}: {patient}"] = (self._image(case)[z], truth[z], drawn)
        figures.show_images(self.source, self.settings, figures.contours, rows, self.paper)
        return Markdown(f"*{structure}, ranked by the DSC of {figures.titles(self.paper)[leader]} ({self.made}).*")

    def table(self, metrics: dict[str, str], region: str = "all_slices", structure: str = ""):
        """Mean and standard deviation of each method over its patients; n in a cell with fewer of them."""
        structure = structure or self.structures[0]
        frame = tables.scores(self.scores(region, structure), self.paper, metrics)
        for title in metrics.values():
            frame[title] = [summary.mean_and_sd for summary in frame[title]]
        return tables.show(frame, f"{structure}, {region.replace('_', ' ')}, mean ± sd ({self.made})")

    def compare(self, metric: str = "dsc", region: str = "all_slices", structure: str = "", printed=None) -> Markdown:
        """Dots for each patient, and the paired differences between methods."""
        rows = self.scores(region, structure)
        figures.by_patient(evaluation.over_seeds(rows), self.paper, metric, printed)
        plt.show()
        display(tables.show(tables.differences(rows, self.paper, metric)))
        what = f"{figures.METRIC_TITLES[metric]}, {structure or self.structures[0]}, {region.replace('_', ' ')}"
        return Markdown(f"*{what} ({self.made}). With few patients these tests can detect only large differences.*")

    def by_slice(self, *methods: str, structure: str = "") -> pd.DataFrame:
        """DSC of each slice that shows the structure: columns patient, slice, method, dsc; first seed."""
        structure = structure or self.structures[0]
        number = self.structures.index(structure) + 1
        rows = []
        for record in self.found:
            name = record.config["method"]["name"]
            if name not in methods or record.config["seed"] != self.settings.seeds[0]:
                continue
            for case in self.prepared.cases_of(record.config["fold"]["test"], include_suspect=False):
                truth, label = self.masks(case)[structure], record.prediction(case)[0] == number
                patient = self.prepared.case(case).patient
                for z in np.flatnonzero(truth.any(axis=(1, 2))):
                    rows.append((patient, f"{case} {z}", name, count(label[z], truth[z]).dsc))
        return pd.DataFrame(rows, columns=["patient", "slice", "method", "dsc"])

    def by_structure(self, metric: str = "dsc", region: str = "all_slices"):
        """Mean of each method for each structure over patients; a cell with fewer than ``n`` values says how many."""
        rows = evaluation.over_seeds(self.patients[(self.patients.region == region) & ~self.patients.suspect])
        lines = []
        for structure in self.structures:
            mine = rows[rows.structure == structure]
            line = {"structure": structure, "n": int(mine.groupby("method")[metric].count().max() or 0)}
            for method in self.chosen:
                summary = statistics.summarise(mine[mine.method == method.name][metric])
                fewer = f" (n = {summary.n})" if summary.n < line["n"] else ""
                line[method.title] = f"{summary.mean:.2f}{fewer}" if summary.n else "–"
            lines.append(line)
        caption = f"{figures.METRIC_TITLES[metric]}, {region.replace('_', ' ')}, mean over patients ({self.made})"
        return tables.show(pd.DataFrame(lines), caption)


def published_line(published: Published) -> str:
    """What a caption says of published runs."""
    first = published.runs[0]
    hours = sum(run["seconds"]["all"] for run in published.runs) / 3600
    folds, seeds = (len({run[key] for run in published.runs}) for key in ("fold", "seed"))
    return (
        f"cohort {first['cohort']}, profile {first['profile']['name']}, {folds} fold{'s' * (folds > 1)}, "
        f"{seeds} seed{'s' * (seeds > 1)}, "
        f"{first['device']}, {len(published.runs)} runs, {hours:.1f} h in all, made {first['finished'][:10]}"
    )


def _silent(line: str) -> None:
    pass

"""What the chapters of the book share: a paper, the cohort of the settings, its runs, and the usual tables and figures.

A chapter is a notebook. It tells the story; what every story needs is here, so that the chapters cannot drift apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from npcrepro import evaluation, figures, leakage, observers, papers, records, slice_browser, statistics, tables
from npcrepro.cohorts.layout import Cohort
from npcrepro.cohorts.prepared import PreparedCohort, prepare
from npcrepro.cohorts.structures import mask_of
from npcrepro.files import read_json
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
            shown[f"{name}, slice {z + 1}"] = (self.image(name)[z], drawn)
        figures.show_images(self.source, self.settings, figures.sheet, {"": shown}, limits)
        samples = len(self.data.samples(self.prepared.cases))
        kind = "slice" if len(self.size.matrix) == 2 else "sample"
        return Markdown(
            f"*{self.counts()}, {plural(samples, kind)} with "
            f"{' or '.join(self.structures[:3])}{' ...' if len(self.structures) > 3 else ''}; channel "
            f"{', '.join(self.data.channels)}; network input {' x '.join(map(str, self.size.matrix))}. "
            f"Images: {self.source.reference} Licence: {self.source.licence}.*"
        )

    def counts(self) -> str:
        """``"6 patients, 6 cases"``: what the cohort has."""
        return f"{plural(len(self.prepared.patients), 'patient')}, {plural(len(self.prepared.cases), 'case')}"

    def masks(self, case: str) -> dict[str, np.ndarray]:
        """Reference masks ``(z, y, x)`` of a case by structure."""
        label = np.asarray(self.prepared.case(case).label)
        return {name: mask_of(label, self.prepared.structures, name) for name in self.structures}

    def image(self, case: str) -> np.ndarray:
        """Image ``(z, y, x)`` of a case, of the first channel of the proposed method."""
        return np.asarray(self.prepared.case(case).image[self.prepared.channels.index(self.data.channels[0])])

    def spacing_mm(self, case: str) -> Sequence[float]:
        """Spacing ``(z, y, x)`` of a case; ``nan`` where the cohort's is not known."""
        return self.prepared.case(case).spacing_mm if self.prepared.spacing_known else evaluation.UNKNOWN_SPACING

    def layers(self, name: str = "") -> Markdown:
        """The layer table of a method (the proposed one) as printed in the paper, and its size in this profile."""
        method = self.paper.method(name) if name else self.paper.methods[0]
        rows, here = tables.layers(method, self.paper.profile("paper")), tables.layers(method, self.size)
        display(tables.show(rows))
        return Markdown(
            f"{rows['parameters'].sum():,} parameters, {rows['MAC (millions)'].sum() / 1000:.2f} billion "
            f"multiply-accumulates for one input. At profile `{self.settings.profile}` the matrix is "
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
            f"profile {self.settings.profile}, cohort {self.prepared.name}, {seeds_line(self.settings.seeds)}, "
            f"{provenance['device']}, {provenance['finished'][:10]}"
        )

    @cached_property
    def patients(self) -> pd.DataFrame:
        """One row for each patient, method, seed, structure and region."""
        return evaluation.by_patient(records.case_table(self.found))

    @cached_property
    def every_run(self) -> list[Record]:
        """The runs of the page, and those that they were built on; each once."""
        used = chain.from_iterable(chain.from_iterable(record.used.values()) for record in self.found)
        return list({record.folder: record for record in (*self.found, *used)}.values())

    @property
    def seconds(self) -> float:
        """What all of `every_run` took, training and prediction."""
        return sum(record.provenance["seconds"]["all"] for record in self.every_run)

    def time(self) -> Markdown:
        """How many runs there were, and how long they took."""
        more = len(self.every_run) - len(self.found)
        others = f", {more} of them for other runs" if more else ""
        runs = plural(len(self.every_run), "run")
        return Markdown(f"{runs}{others} ({self.made}), {self.seconds:.0f} s of training and prediction in all.")

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
        """The method with the best mean DSC (first seed), and its patients from best to worst; without one last."""
        rows = self.first_seed(region, structure)
        # Of a structure that no patient has, and no method marks, there is no DSC at all.
        leader = rows.groupby("method").dsc.mean().fillna(-1).idxmax()
        mine = rows[rows.method == leader].sort_values(["dsc", "patient"], ascending=[False, True])
        return leader, mine.reset_index(drop=True)

    def examples(self, region: str = "all_slices", structure: str = "") -> Markdown:
        """Best, middle and worst patient of the leading method, with the contours of all methods."""
        structure = structure or self.structures[0]
        leader, ranked = self.ranked(region, structure)
        number = self.structures.index(structure) + 1
        last = len(ranked) - 1
        places = {0: "best", (last + 1) // 2: "middle", last: "worst"} if last else {0: "only patient"}
        rows = {}
        for place, word in places.items():
            patient = ranked.patient[place]
            case = self.prepared.cases_of([patient])[0]
            truth = self.masks(case)[structure]
            z = int(truth.sum(axis=(1, 2)).argmax())
            drawn = {
                record.config["method"]["name"]: record.prediction(case)[0][z] == number
                for record in self.found
                if patient in record.config["fold"]["test"] and record.config["seed"] == self.settings.seeds[0]
            }
            rows[f"{word}: {patient}"] = (self.image(case)[z], truth[z], drawn)
        figures.show_images(self.source, self.settings, figures.contours, rows, self.paper)
        by = f"ranked by the DSC of {figures.titles(self.paper)[leader]} in {region.replace('_', ' ')}"
        return Markdown(f"*{structure}, {by} ({self.made}).*")

    def samples(self, count: int = 3) -> Markdown:
        """Slices of tested patients, evenly spaced over those that show a structure: reference and each method."""
        made = list(self.first_fold().values())
        cases = self.prepared.cases_of(made[0].config["fold"]["test"], include_suspect=False)
        shown = {case: np.flatnonzero(np.any([m.any(axis=(1, 2)) for m in self.masks(case).values()], axis=0))
                 for case in cases}  # fmt: skip
        places = [(case, z) for case, slices in shown.items() for z in slices]
        rows = {}
        for part in range(count):
            case, z = places[int((part + 0.5) * len(places) / count)]
            image, truth = self.image(case)[z], self.masks(case)
            row = {"Reference": (image, {name: mask[z] for name, mask in truth.items() if mask[z].any()})}
            for record in made:
                label = record.prediction(case)[0][z]
                found = {name: label == i for i, name in enumerate(self.structures, 1) if (label == i).any()}
                row[figures.titles(self.paper)[record.config["method"]["name"]]] = (image, found)
            rows[f"{case}\nslice {z + 1}"] = row
        figures.show_images(self.source, self.settings, figures.sheet, rows)
        networks = plural(len(made), "network")
        return Markdown(f"*Reference and {networks} on {plural(count, 'slice')} of test patients ({self.made}).*")

    def ranked_of_first_fold(self) -> list[str]:
        """Patients that the first fold tests, from best to worst by the DSC of the leading method."""
        _, ranked = self.ranked()
        return ranked.patient[ranked.patient.isin(self.found[0].config["fold"]["test"])].tolist()

    def first_fold(self) -> dict[str, Record]:
        """The record of each method on the first fold, with the first seed."""
        fold, seed = self.found[0].config["fold"], self.settings.seeds[0]
        made = [record for record in self.found if record.config["fold"] == fold and record.config["seed"] == seed]
        return {record.config["method"]["name"]: record for record in made}

    def browse(self, *methods: str, limits: tuple[float, float] | None = None) -> Markdown:
        """All slices of one tested patient, to move through on the page: the middle one of the leading method.

        Args:
            methods: names, by default all; those that were not run are left out. With one structure each has a panel
                with the reference and its own outline, with several the reference has a panel of its own.
            limits: intensities shown as black and white.
        """
        leader, tested = self.ranked()[0], self.ranked_of_first_fold()
        case = self.prepared.cases_of([tested[len(tested) // 2]])[0]
        truth, titles = self.masks(case), figures.titles(self.paper)
        labels = {n: r.prediction(case)[0] for n, r in self.first_fold().items() if not methods or n in methods}
        if len(truth) > 1:
            colours = dict(zip(truth, figures.structure_colours(list(truth)), strict=True))
            panels = {"Reference": truth}
            panels |= {titles[n]: {s: label == i for i, s in enumerate(truth, 1)} for n, label in labels.items()}
        else:
            colours = figures.colours(self.paper, list(labels))
            colours = {"Reference": figures.REFERENCE} | {titles[name]: colours[name] for name in labels}
            (reference,) = truth.values()
            panels = {titles[n]: {"Reference": reference, titles[n]: label == 1} for n, label in labels.items()}
        given = (self.image(case), panels, colours, self.spacing_mm(case), limits)
        figures.show_images(self.source, self.settings, slice_browser.show, *given)
        return Markdown(f"*{case}, {middle(len(tested), titles[leader])} ({self.made}).*")

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
        display(tables.show_differences(tables.differences(rows, self.paper, metric)))
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


class Results:
    """Published runs of a paper on one cohort: the tables and figures of a section on them.

    Doubtful labels are left out, and seeds are averaged within a patient.

    Args:
        paper: whose methods these are.
        folder: of the record, see :func:`npcrepro.records.publish`.
        region: where voxels count; false positives do so outside the reference's slices in ``"all_slices"`` alone.

    Attributes:
        published: the record.
        patients: one row for each patient, method, seed and structure.
        structures, methods: names, in the order of the record and of the paper.

    Raises:
        InputError: nothing is published there.
    """

    def __init__(self, paper: Paper, folder: Path | str, region: str = "all_slices"):
        self.paper = paper
        self.published: Published = records.read_published(folder)
        everyone = evaluation.by_patient(self.published.cases)
        structures = list(dict.fromkeys(self.published.cases.structure))
        everyone = everyone[(everyone.region == region) & ~everyone.suspect]
        order = everyone.structure.map(structures.index)
        self.patients: pd.DataFrame = everyone.iloc[order.argsort(kind="stable")]
        self.structures: tuple[str, ...] = tuple(structures)
        self.methods: tuple[str, ...] = tuple(m.name for m in paper.methods if m.name in set(everyone.method))

    @property
    def made(self) -> str:
        """What a caption says: patients tested, cohort, profile, folds and seeds."""
        return f"{plural(self.patients.patient.nunique(), 'patient')}, {_origin(self.published)}"

    def about(self) -> Markdown:
        """Patients, voxels and structures; size of networks and of training; and where the runs were made."""
        cases = self.published.cases
        spacing = [f"{cases[f'spacing_{axis}_mm'].median():.1f}" for axis in "zyx"]
        known = f"voxels of {' x '.join(spacing)} mm" if "nan" not in spacing else "voxels of unknown size"
        doubtful = cases[cases.suspect].patient.nunique()
        verb = "is" if doubtful == 1 else "are"
        apart = f"; {doubtful} more with doubtful labels {verb} in no number" if doubtful else ""
        made = published_line(self.published)
        return Markdown(
            f"{plural(self.patients.patient.nunique(), 'patient')} tested{apart}, {known}, "
            f"{', '.join(self.structures)}. {training_line(self.published)} {made[0].upper()}{made[1:]}."
        )

    def runs(self):
        """Runs of each method, the minutes that one trained and the seconds in which it predicted all its patients."""
        lines = []
        for name in self.methods:
            mine = [run for run in self.published.runs if run["method"] == name]
            train, predict = (np.mean([run["seconds"][part] for run in mine]) for part in ("train", "predict"))
            row = {"method": self.paper.method(name).title, "runs": len(mine), "seeds": len({r["seed"] for r in mine})}
            row |= {"minutes to train": train / 60, "seconds to predict all": predict}
            lines.append(row | {"device": ", ".join(sorted({run["device"] for run in mine}))})
        return tables.show(pd.DataFrame(lines), "A run is one fold with one seed", precision=1)

    def table(self, metric: str = "dsc"):
        """Methods down, structures across: mean over patients with its 95 % interval; two people in the last row.

        The two people (:mod:`npcrepro.observers`) drew on other scans. Structures that nobody drew twice have a dash.
        """
        frame = tables.by_method(self.patients, self.paper, metric).astype(object)
        people = observers.agreement()
        if metric in people and set(people.index) & set(self.structures):
            known = people[people.index.isin(self.structures)]
            numbers = {name: f"{row[metric]:.2f} (n = {row.n:.0f})" for name, row in known.iterrows()}
            frame.loc[len(frame)] = {"method": "two people, median, other scans", "n": "–", **numbers}
        caption = f"{figures.METRIC_TITLES[metric]}, mean over n patients (95 % interval). {self.made}"
        return tables.show(frame, caption)

    def boxes(self, metrics: dict[str, str]) -> Markdown:
        """Boxes of each method over patients, for the mean over structures."""
        figures.boxes(self._whole(), self.paper, metrics)
        plt.show()
        return Markdown(
            f"*{self._over()} ({self.made}). Boxes: quartiles; whiskers: 10th and 90th percentile; dots: patients.*"
        )

    def boxes_by_structure(self, metric: str = "dsc") -> Markdown:
        """Boxes of each method over patients, structure by structure."""
        figures.boxes_by_structure(self.patients, self.paper, metric)
        plt.show()
        return Markdown(
            f"*Boxes: quartiles; whiskers: 10th and 90th percentile; dots: patients beyond them ({self.made}).*"
        )

    def by_fold(self, metrics: dict[str, str]) -> Markdown:
        """A line for each method through the folds: means over the patients tested, of the mean over structures."""
        folds = self.published.cases.drop_duplicates("patient").set_index("patient").fold
        rows = self._whole()
        means = rows.assign(fold=rows.patient.map(folds)).groupby(["method", "fold"])[list(metrics)].mean()
        if folds.nunique() == 1:
            return Markdown("*The published runs are of one fold, so that there is no curve over folds.*")
        figures.by_fold(means.reset_index(), self.paper, metrics)
        plt.show()
        spread = means[next(iter(metrics))].groupby("method").std()
        titles = figures.titles(self.paper)
        said = ", ".join(f"{titles[name]} {spread[name]:.3f}" for name in self.methods if spread[name] >= 0)
        first = next(iter(metrics.values()))
        spreads = f" Standard deviation of the fold means, {first}: {said}." if said else ""
        return Markdown(f"*{self._over()} ({self.made}).{spreads}*")

    def learning_curves(self) -> Markdown:
        """Training and validation loss of the published runs."""
        figures.learning_curves(self.published.history, self.paper)
        plt.show()
        return Markdown(
            f"*Loss of the score that is trained in each stage: thin lines are runs, thick lines means ({self.made}).*"
        )

    def differences(self, *pairs: tuple[str, str], metric: str = "dsc"):
        """The first of each pair minus the second on the same patients: tested for the mean over structures.

        With several structures a second table has the difference and interval of each, untested: the question is one.
        """
        title = f"{figures.METRIC_TITLES[metric]}, paired differences"
        tested = tables.differences(self._whole(), self.paper, metric, pairs)
        shown = tables.show_differences(tested, f"{title}. {self._over()} ({self.made})")
        if len(self.structures) == 1:
            return shown
        display(shown)
        each = tested[["comparison"]].copy()
        for structure in self.structures:
            rows = self.patients[self.patients.structure == structure]
            rows = tables.differences(rows, self.paper, metric, pairs).set_index("comparison")
            each[structure] = each.comparison.map(rows["mean difference"] + " (" + rows["95 % interval"] + ")")
        return tables.show(each, f"{title} by structure (95 % interval), not tested ({self.made})")

    def mean(self, method: str, metric: str = "dsc", structure: str = "") -> statistics.Summary:
        """Over patients: of a structure, or of the mean over structures."""
        rows = self._rows(structure)
        return statistics.summarise(rows[rows.method == method][metric])

    def means_by_seed(self, method: str, metric: str = "dsc") -> list[float]:
        """Mean over patients of the mean over structures, one for each seed."""
        rows = evaluation.over_structures(self.patients[self.patients.method == method])
        return rows.groupby("seed")[metric].mean().tolist()

    def difference(
        self, first: str, second: str, metric: str = "dsc", structure: str = ""
    ) -> statistics.PairedTest:  # fmt: skip
        """The first method minus the second on the same patients, see :func:`npcrepro.statistics.paired`."""
        wide = self._rows(structure).pivot(index="patient", columns="method", values=metric)
        return statistics.paired(wide[first], wide[second])

    def said(self, first: str, second: str, metric: str = "dsc", structure: str = "") -> str:
        """The same in words: the difference and its interval."""
        found = self.difference(first, second, metric, structure).difference
        if np.isnan(found.low):
            return f"{found.mean:+z.3f} (too few patients for an interval)"
        return f"{found.mean:+z.3f} (95 % interval {found.low:+z.3f} to {found.high:+z.3f})"

    def caution(self, *methods: str) -> str:
        """What the intervals of these methods (all) do not show: few patients, and chance of a single training.

        Markdown, a sentence each; empty where there are six patients or more and several seeds of each method.
        """
        shown = [name for name in methods or self.methods if name in self.methods]
        once = [f"*{self.paper.method(name).title}*" for name in shown if len(self.means_by_seed(name)) == 1]
        said = []
        if self.patients.patient.nunique() < tables.TESTABLE:
            said.append("Intervals of so few patients are easily too narrow, and no test could confirm them.")
        if once:
            who = "Each method has" if len(once) == len(shown) else f"Of {in_words(once)} there is"
            said.append(f"{who} one seed only, so that chance of training is not in these intervals.")
        return " ".join(said)

    def _rows(self, structure: str) -> pd.DataFrame:
        one = self.patients[self.patients.structure == structure]
        return evaluation.over_seeds(one) if structure else self._whole()

    def _whole(self) -> pd.DataFrame:
        return evaluation.over_seeds(evaluation.over_structures(self.patients))

    def _over(self) -> str:
        return f"Mean over {len(self.structures)} structures" if len(self.structures) > 1 else self.structures[0]


def show_leakage(paper: Paper, by_slice: Published, by_patient: Published) -> Markdown:
    """How much higher slices score where a split separates the slices of a patient (:mod:`npcrepro.leakage`)."""
    titles, found = figures.titles(paper), leakage.inflation(by_slice.cases, by_patient.cases)
    ends = zip(found.inflation, found.low, found.high, strict=True)
    frame = pd.DataFrame(
        {
            "method": found.method.map(titles),
            "structure": found.structure,
            "patients": found.patients,
            "slices": found.slices,
            "DSC, split by slice": found.by_slice,
            "DSC, split by patient": found.by_patient,
            "inflation (95 % interval)": [f"{mean:+z.3f} ({low:+z.3f} to {high:+z.3f})" for mean, low, high in ends],
        }
    )
    caption = f"Mean over the slices of each patient, then over patients ({_origin(by_patient)})"
    display(tables.show(frame, caption, precision=3))
    rows = leakage.differences(by_slice.cases, by_patient.cases)
    means = rows[rows.structure == leakage.ALL].groupby(["method", "patient"]).difference.mean()
    names = [m.name for m in paper.methods if m.name in set(found.method)]
    figures.strips({titles[name]: means[name] for name in names}, "DSC split by slice minus split by patient")
    plt.show()
    return Markdown(f"*Dots: patients, mean over slices. By patient: {published_line(by_patient)}.*")


def published_line(published: Published) -> str:
    """Where published runs come from, on what machine they were made and how long they took."""
    hours = sum(run["seconds"]["all"] for run in published.runs) / 3600
    runs, last = plural(len(published.runs), "run"), max(run["finished"] for run in published.runs)
    return f"{_origin(published)}, {published.runs[0]['device']}, {runs}, {hours:.1f} h in all, made {last[:10]}"


def training_line(published: Published) -> str:
    """Size of the networks of published runs and of their training, and how many patients each fold has for what."""
    size = published.runs[0]["profile"]
    folds = read_json(published.folder / "runs.json")["folds"].values()
    parts = {part: _span([len(fold[part]) for fold in folds]) for part in ("train", "validation", "test")}
    matrix = " x ".join(map(str, size["matrix"]))
    return (
        f"Networks have {size['width']:g} times the paper's channels, a matrix of {matrix} and {size['updates']:,} "
        f"updates. A fold has {parts['train']} patients to train, {parts['validation']} to "
        f"validate and {parts['test']} to test."
    )


def seeds_line(seeds: Sequence[int]) -> str:
    """Seeds in a caption.

    Example:
        >>> seeds_line([0]), seeds_line([0, 1, 2])
        ('seed 0', 'seeds 0, 1, 2')
    """
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def plural(number: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> plural(1, "run"), plural(1200, "run")
        ('1 run', '1,200 runs')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def in_words(names: Sequence[str]) -> str:
    """``A, B and C``.

    Example:
        >>> in_words(["A", "B", "C"]), in_words(["A"])
        ('A, B and C', 'A')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def middle(count: int, leader: str) -> str:
    """Which patient stands halfway down the order by the DSC of a method.

    Example:
        >>> middle(2, "U-Net"), middle(5, "U-Net")
        ('the worse of 2 patients by the DSC of U-Net', 'in the middle of 5 patients by the DSC of U-Net')
    """
    if count == 1:
        return "the only patient that the first fold tests"
    place = "the worse of 2 patients" if count == 2 else f"in the middle of {count} patients"
    return f"{place} by the DSC of {leader}"


def _origin(published: Published) -> str:
    """Cohort, profile, folds and seeds of published runs; how many methods have which seeds, where they differ."""
    first, methods = published.runs[0], {}
    for run in published.runs:
        methods.setdefault(run["method"], set()).add(run["seed"])
    number = Counter(tuple(sorted(seeds)) for seeds in methods.values())
    seeds = [
        seeds_line(each) + (f" of {plural(number[each], 'method')}" if len(number) > 1 else "")
        for each in sorted(number, key=len, reverse=True)
    ]
    folds = plural(len({run["fold"] for run in published.runs}), "fold")
    return f"cohort {first['cohort']}, profile {first['profile']['name']}, {folds}, {in_words(seeds)}"


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _silent(line: str) -> None:
    pass

"""Runs of a paper as tables, figures and captions: those that a page has just made, or published ones."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Self

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

from npcrepro import statistics
from npcrepro.base.errors import one_of
from npcrepro.base.wording import DASH, in_words, plural, seeds_line, signed
from npcrepro.book import tables
from npcrepro.book.figures import charts, style
from npcrepro.protocol import registry
from npcrepro.protocol.method import Paper
from npcrepro.runs import per_patient

UNSTEADY = 0.1  # mean DSC between the seeds of a method: with more of it, a mean over them says little
QUARTILES = "Boxes: quartiles; whiskers: 10th and 90th percentile; dots: patients"


class Results:
    """Runs of a paper on one cohort: means, paired differences and learning curves, each with a caption.

    Doubtful labels are left out. Seeds are averaged within a patient, and so are structures, unless a table has a
    column for each. :attr:`npcrepro.book.chapter.Chapter.results` has the runs of a page,
    :class:`npcrepro.book.published.PublishedResults` those of a record.

    Where a method takes names of methods, none stands for all.

    Args:
        paper: whose methods these are.
        cases: rows of ``cases.csv`` of all runs.
        history: rows of ``history.csv`` of all runs.
        origin: what a caption says of the runs after the number of patients: cohort, profile and seeds.
        region: where voxels count; false positives do so outside the reference's slices in ``"all_slices"`` alone.

    Attributes:
        regions: of the records, this one first.
        cases: the rows that count: of this region and these structures, without doubtful labels.
        patients: one row for each patient, method, seed and structure.
        over_structures: one row for each patient, method and seed: the mean over the structures.
        averaged: one row for each patient and method: the mean over structures and seeds.
        structures, methods: names, in the order of the rows and of the paper.
    """

    def __init__(
        self, paper: Paper, cases: pd.DataFrame, history: pd.DataFrame, origin: str, region: str = "all_slices"
    ):
        self.paper, self.history, self.origin, self._every_case = paper, history, origin, cases
        self._narrow(region, dict.fromkeys(cases.structure))

    def _narrow(self, region: str, structures: Iterable[str]) -> None:
        self.region, self.structures = region, tuple(structures)
        cases = self._every_case
        one_of(dict.fromkeys(cases.region), region, "region of these records (older runs were not scored there)")
        self.regions: tuple[str, ...] = tuple(dict.fromkeys([region, *cases.region]))
        self.cases: pd.DataFrame = cases[
            (cases.region == region) & cases.structure.isin(self.structures) & ~cases.suspect
        ]
        patients = per_patient.by_patient(self.cases)
        self.patients: pd.DataFrame = patients.sort_values(
            "structure", key=lambda names: names.map(self.structures.index), kind="stable"
        )
        self.over_structures: pd.DataFrame = per_patient.over_structures(self.patients)
        self.averaged: pd.DataFrame = per_patient.over_seeds(self.over_structures)
        self.methods: tuple[str, ...] = tuple(style.methods_of(patients, self.paper))

    def only(self, region: str = "", structure: str = "") -> Self:
        """The same runs in another region, or of one structure."""
        narrowed = copy(self)
        narrowed._narrow(region or self.region, (structure,) if structure else self.structures)
        return narrowed

    @property
    def made(self) -> str:
        """What a caption says: patients tested, slices if not all of them, and the origin of the runs."""
        where = f"{style.REGION_TITLES[self.region]}, " if self.region != "all_slices" else ""
        return f"{plural(self.patients.patient.nunique(), 'patient')}, {where}{self.origin}"

    def _of(self, methods: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows.method.isin(methods or self.methods)]

    def _caption(self, told: str) -> Markdown:
        """Show the figure that was drawn last; its caption."""
        plt.show()
        return Markdown(f"*{told}*")

    def _over(self) -> str:
        return f"Mean over {len(self.structures)} structures" if len(self.structures) > 1 else self.structures[0]

    # Tables; those of every score are in `npcrepro.book.score_tables`

    def mean_and_sd(self, metrics: Mapping[str, str]):
        """Methods down, metrics across: mean and standard deviation over patients; a cell with fewer says n."""
        frame = tables.scores(self.over_structures, self.paper, metrics)
        for title in metrics.values():
            frame[title] = [summary.mean_and_sd for summary in frame[title]]
        return tables.show(frame, f"{self._over()}, mean ± sd ({self.made})")

    def beside(self, printed: Sequence[Mapping], metrics: Mapping[str, str], also: Sequence[str] = ()):
        """Rows of a printed table beside ours, without a difference, for the patients are others.

        Args:
            printed: rows with ``model``, which is the title of a method, and numbers, ``None`` where none is printed.
            metrics: column of the rows to column of `averaged`.
            also: further regions, in columns behind ours.
        """
        found = {"ours": self.averaged}
        found |= {f"ours, {style.REGION_TITLES[region]}": self.only(region).averaged for region in also}
        decimals, titles = registry.reported(self.paper.key)["decimals"], style.titles(self.paper)
        lines = []
        for row in printed:
            mine = {whose: rows[rows.method.map(titles) == row["model"]] for whose, rows in found.items()}
            seeds = self.over_structures.seed[self.over_structures.method.map(titles) == row["model"]].nunique()
            line: dict = {"method": row["model"], "n": len(mine["ours"]) or DASH, "seeds": seeds or DASH}
            for column, metric in metrics.items():
                name, theirs = style.METRIC_TITLES[metric], row.get(column)
                line[f"{name} reported"] = DASH if theirs is None else f"{theirs:.{decimals[column]}f}"
                for whose, rows in mine.items():
                    # Some metrics are measured in all slices alone.
                    if whose == "ours" or found[whose][metric].notna().any():
                        ours = statistics.summarise(rows[metric])
                        interval = "" if np.isnan(ours.low) else f" ({ours.interval})"
                        line[f"{name} {whose}"] = f"{ours.mean:.3f}{interval}" if ours.n else DASH
            lines.append(line)
        frame = pd.DataFrame(lines)
        alike = len({*frame.n} - {DASH}) <= 1  # as the caption has it
        frame, n = (frame.drop(columns="n"), "") if alike else (frame, "; n: our patients")
        # Too few patients leave means without an interval.
        known = " with 95 % interval" if frame.filter(like=" ours").map(lambda cell: "(" in cell).any(axis=None) else ""
        return tables.show(frame, f"Reported means (sd not stated); ours{known}{n} ({self.made})")

    def differences(
        self,
        pairs: Mapping[str, tuple[str, str]] | Sequence[tuple[str, str]],
        reported: Mapping[str, float] | None = None,
    ):
        """A table of differences of the DSC, the first of each pair minus the second: over patients, and the least and
        the largest of a seed.

        Args:
            pairs: two methods each; under the name of what changes between them, or of both titles.
            reported: title of a method to its reported mean; adds a column.
        """
        named = pairs if isinstance(pairs, Mapping) else {tables.minus(self.paper, *pair): pair for pair in pairs}
        frame = tables.differences(self.over_structures, self.paper, "dsc", list(named.values()), reported)
        frame["comparison"], frame["seeds"] = list(named), [self.by_seed(*pair).shape[1] for pair in named.values()]
        frame["seed by seed"] = [self.ends_by_seed(*pair) for pair in named.values()]
        frame.loc[frame.seeds == 1, "seed by seed"] = DASH
        columns = ["comparison", "mean difference", "95 % interval", "seeds", "seed by seed", "reported"]
        told = f"Differences of the DSC on the same patients and seeds ({self.made})"
        return tables.show(frame[[name for name in columns if name in frame]], told)

    # Single numbers

    def mean(self, method: str) -> statistics.Summary:
        """DSC over patients."""
        return statistics.summarise(self._of((method,), self.averaged).dsc)

    def means_by_seed(self, method: str) -> list[float]:
        """Mean DSC over patients, one for each seed."""
        return self._of((method,), self.over_structures).groupby("seed").dsc.mean().tolist()

    def empty(self, method: str) -> tuple[int, int]:
        """Predictions of a method without a voxel where there is something to find, and all, of every fold and seed."""
        status = self._of((method,), self.cases).status
        return int((status == "pred_empty").sum()), len(status)

    def volume_ratios(self) -> dict[str, float]:
        """Volume found over volume of the reference, median over patients, by title of the method."""
        rows = self.averaged
        ratios = (rows.predicted_ml / rows.reference_ml).groupby(rows.method).median()
        return {self.paper.method(name).title: float(ratios[name]) for name in self.methods}

    # Differences

    def difference(self, first: str, second: str, metric: str = "dsc") -> statistics.PairedTest:
        """A metric of the first method minus the second on the same patients, from the seeds that both have; see
        :func:`npcrepro.statistics.paired`."""
        wide = per_patient.side_by_side(self.over_structures, (first, second), metric)
        return statistics.paired(wide[first], wide[second])

    def difference_text(self, first: str, second: str, metric: str = "dsc") -> str:
        """`difference` in words: the mean and its interval, and the seeds where one method has more of them."""
        found = self.difference(first, second, metric).difference
        interval = f"95 % interval {signed(found.low)} to {signed(found.high)}"
        if np.isnan(found.low):
            interval = "too few patients for an interval"
        seeds = [set(self.patients.seed[self.patients.method == name]) for name in (first, second)]
        shared = "" if seeds[0] == seeds[1] else f"; {seeds_line(sorted(seeds[0] & seeds[1]))}, shared"
        return f"{signed(found.mean)} ({interval}{shared}{self.all_seeds_text(first, second, metric)})"

    def of_all_seeds(self, first: str, second: str, metric: str = "dsc") -> float:
        """A metric of one method minus another, both as means over all their seeds."""
        means = self._of((first, second), self.over_structures)
        means = means.pivot_table(index="patient", columns="method", values=metric)
        return float((means[first] - means[second]).mean())

    def all_seeds_text(self, first: str, second: str, metric: str = "dsc") -> str:
        """`of_all_seeds` in words, behind a semicolon; empty if both methods have the same seeds."""
        seeds = self._of((first, second), self.patients).groupby("method").seed.agg(frozenset)
        told = f"; {signed(self.of_all_seeds(first, second, metric))} over all seeds of both methods"
        return told if seeds.nunique() > 1 else ""

    def by_seed(self, first: str, second: str, metric: str = "dsc") -> pd.DataFrame:
        """A metric of one method minus another: a row for each patient, a column for each seed that both have."""
        wide = self.over_structures.pivot(index=["patient", "seed"], columns="method", values=metric)
        return (wide[first] - wide[second]).dropna().unstack("seed")

    def seed_by_seed(self, first: str, second: str, metric: str = "dsc") -> str:
        """`ends_by_seed` in words."""
        return f"seed by seed {self.ends_by_seed(first, second, metric)}"

    def ends_by_seed(self, first: str, second: str, metric: str = "dsc") -> str:
        """The least and the largest mean difference of a seed."""
        means = self.by_seed(first, second, metric).mean()
        return f"{means.min():+z.3f} to {means.max():+z.3f}"

    def ranking_text(self, method: str, others: Sequence[str]) -> str:
        """``above that of CNN; not told apart from those of V-Net and BUNet``: the DSC, by intervals that exclude zero
        where p, adjusted for the number of ``others``, supports them."""
        titles, words = style.titles(self.paper), {1: "above", -1: "below", 0: "not told apart from"}
        found = {other: self.difference(method, other) for other in others if other in self.methods}
        sides: dict[str, list[str]] = {word: [] for word in words.values()}
        for (other, test), p in zip(found.items(), tables.adjusted(list(found.values())), strict=True):
            sides[words[tables.side(test.difference) if p <= tables.ALPHA else 0]].append(titles[other])
        return "; ".join(
            f"{side} {'those' if names[1:] else 'that'} of {in_words(names)}" for side, names in sides.items() if names
        )

    def caution(self, *methods: str) -> str:
        """What the intervals of these methods do not show, in a sentence each: few patients, the chance of a single
        training, and trainings that end far apart; empty where there is none of it."""
        shown = [name for name in dict.fromkeys(methods or self.methods) if name in self.methods]
        once = [f"*{self.paper.method(name).title}*" for name in shown if len(self.means_by_seed(name)) == 1]
        sentences = []
        if self.patients.patient.nunique() < tables.TESTABLE:
            sentences.append("Intervals of so few patients tend to be too narrow, and no test could confirm them.")
        if once:
            who = "Each method has" if len(once) == len(shown) else f"Of {in_words(once)} there is"
            sentences.append(f"{who} one seed only, so seed noise is not in these intervals.")
        ends = {name: self.means_by_seed(name) for name in shown}
        ends = {name: means for name, means in ends.items() if max(means) - min(means) > UNSTEADY}
        for name, means in ends.items():
            span, title = f"{min(means):.2f} and {max(means):.2f}", self.paper.method(name).title
            sentences.append(f"The {len(means)} trainings of *{title}* end between a DSC of {span}.")
        if ends:
            sentences.append("The seed decides much there, and a mean over seeds says little.")
        return " ".join(sentences)

    def forest(self, pairs: Sequence[tuple[str, str]], metric: str = "dsc", printed: Mapping[str, float] | None = None):
        """Paired differences as a figure; those of printed means, by title of the method, are crosses."""
        pairs = [pair for pair in pairs if set(pair) <= set(self.methods)]
        if not pairs:
            return Markdown("*Both methods of no pair were run.*")
        found = {tables.minus(self.paper, *pair): self.difference(*pair, metric).difference for pair in pairs}
        theirs = [tables.printed_difference(self.paper, pair, printed or {}) for pair in pairs]
        crosses = {name: value for name, value in zip(found, theirs, strict=True) if value is not None}
        charts.forest(found, f"difference of the {style.METRIC_TITLES[metric]}", crosses)
        return self._caption(f"Paired differences over patients, mean with 95 % bootstrap interval ({self.made}).")

    # Figures

    def by_patient(self, metric: str, *methods: str, printed: float | None = None) -> Markdown:
        """A dot for each patient, joined through these methods; means as bars, and a printed mean as a line."""
        charts.by_patient(self._of(methods, self.averaged), self.paper, metric, printed)
        return self._caption(f"{self._over()}: dots are patients, joined by lines; bars are means ({self.made}).")

    def boxes(self, metrics: dict[str, str], *methods: str) -> Markdown:
        """Boxes of each method over patients, for each metric (to its title)."""
        charts.boxes(self._of(methods, self.averaged), self.paper, metrics)
        return self._caption(f"{self._over()} ({self.made}). {QUARTILES}.")

    def boxes_by_structure(self, metric: str = "dsc", *methods: str) -> Markdown:
        """Boxes of each method over patients, structure by structure."""
        charts.boxes_by_structure(self._of(methods, self.patients), self.paper, metric)
        return self._caption(f"{QUARTILES} beyond them ({self.made}).")

    def learning_curves(self, *methods: str) -> Markdown:
        """Training and validation loss."""
        charts.learning_curves(self._of(methods, self.history), self.paper)
        of = "Loss of the score that is trained in each stage"
        return self._caption(f"{of}: thin lines are runs, thick lines means ({self.made}).")

    def validation(self, *methods: str, metric: str = "validation_loss") -> Markdown:
        """Validation loss of these methods on one axis, or another column of their history."""
        charts.validation_curves(self._of(methods, self.history), self.paper, metric)
        return self._caption(f"Thin lines: folds and seeds; thick lines: means. Dots end a stage ({self.made}).")

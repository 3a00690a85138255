"""What a chapter says of published runs: the tables and figures of a section on a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from npcrepro import statistics
from npcrepro.base.wording import DASH, in_words, plural, seeds_line, span
from npcrepro.book import tables
from npcrepro.book.figures import charts, style
from npcrepro.findings import leakage, observers
from npcrepro.protocol.method import Paper
from npcrepro.runs import per_patient, published
from npcrepro.runs.published import Published


class Results:
    """Published runs of a paper on one cohort: the tables and figures of a section on them.

    Doubtful labels are left out, and seeds are averaged within a patient.

    Args:
        paper: whose methods these are.
        folder: of the record, see :func:`npcrepro.runs.published.publish`.
        region: where voxels count; false positives do so outside the reference's slices in ``"all_slices"`` alone.

    Attributes:
        published: the record.
        patients: one row for each patient, method, seed and structure.
        structures, methods: names, in the order of the record and of the paper.

    Raises:
        InputError: nothing is published there.
    """

    def __init__(self, paper: Paper, folder: Path | str, region: str = "all_slices"):
        self.paper, self.region = paper, region
        self.published: Published = published.read_published(folder)
        everyone = per_patient.by_patient(self.published.cases)
        structures = list(dict.fromkeys(self.published.cases.structure))
        everyone = everyone[(everyone.region == region) & ~everyone.suspect]
        order = everyone.structure.map(structures.index)
        self.patients: pd.DataFrame = everyone.iloc[order.argsort(kind="stable")]
        self.structures: tuple[str, ...] = tuple(structures)
        self.methods: tuple[str, ...] = tuple(m.name for m in paper.methods if m.name in set(everyone.method))

    @property
    def made(self) -> str:
        """What a caption says: patients tested, slices if not all of them, cohort, profile, folds and seeds."""
        where = "slices that show the structure, " if self.region == "reference_slices" else ""
        return f"{plural(self.patients.patient.nunique(), 'patient')}, {where}{_origin(self.published)}"

    def about(self) -> Markdown:
        """Patients, voxels and structures; size of networks and of training; and where the runs were made."""
        cases = self.published.cases
        spacing = [cases[f"spacing_{axis}_mm"] for axis in "zyx"]
        ends = ((f"{side.min():.1f}", f"{side.max():.1f}") for side in spacing)
        sides = " x ".join(DASH.join(dict.fromkeys(pair)) for pair in ends)
        known = "voxels of unknown size" if "nan" in sides else f"voxels of {sides} mm"
        doubtful = cases[cases.suspect].patient.nunique()
        verb = "is" if doubtful == 1 else "are"
        apart = f"; {doubtful} more with doubtful labels {verb} in no mean" if doubtful else ""
        made = published_line(self.published)
        return Markdown(
            f"{plural(self.patients.patient.nunique(), 'patient')} tested{apart}, {known}, "
            f"{', '.join(self.structures)}. {training_line(self.published)} {made[0].upper()}{made[1:]}."
        )

    def runs(self):
        """Runs of each method, the minutes that one trained and the seconds in which it predicted all its patients.

        The caption names runs that diverged.
        """
        lines = []
        for name in self.methods:
            mine = [run for run in self.published.runs if run["method"] == name]
            train, predict = (np.mean([run["seconds"][part] for run in mine]) for part in ("train", "predict"))
            row = {"method": self.paper.method(name).title, "runs": len(mine), "seeds": len({r["seed"] for r in mine})}
            row |= {"minutes to train": train / 60, "seconds to predict all": predict}
            lines.append(row | {"device": ", ".join(sorted({run["device"] for run in mine}))})
        ended = [run for run in self.published.runs if run.get("status") == "diverged"]
        places = [f"{self.paper.method(run['method']).title}, fold {run['fold']}, seed {run['seed']}" for run in ended]
        caption = "A run is one fold with one seed"
        if ended:
            caption += f". The loss became no number, and the network is scored as it then was: {'; '.join(places)}"
        return tables.show(pd.DataFrame(lines), caption, precision=1)

    def table(self, metric: str = "dsc"):
        """Methods down, structures across: mean over patients with its 95 % interval; two people in the last row.

        The two people (:mod:`npcrepro.findings.observers`) drew on other scans. Structures that nobody drew twice have
        a dash.
        """
        frame = tables.by_method(self.patients, self.paper.methods, metric).astype(object)
        missed = (frame == DASH).any(axis=None)
        people = observers.agreement()
        if metric in people and set(people.index) & set(self.structures):
            known = people[people.index.isin(self.structures)]
            numbers = {name: f"{row[metric]:.2f} (n = {row.n:.0f})" for name, row in known.iterrows()}
            frame.loc[len(frame)] = {"method": "two people, median, other scans", "n": DASH, **numbers}
        caption = f"{style.METRIC_TITLES[metric]}, mean over n patients (95 % interval). {self.made}"
        if missed:
            caption += f". {DASH}: no patient has one, as with some seed the structure was not found"
        return tables.show(frame, caption)

    def boxes(self, metrics: dict[str, str], leave_out: Sequence[str] = ()) -> Markdown:
        """Boxes of each method over patients, for the mean over structures; without the methods left out."""
        rows = self._whole()
        charts.boxes(rows[~rows.method.isin(leave_out)], self.paper, metrics)
        plt.show()
        return Markdown(
            f"*{self._over()} ({self.made}). Boxes: quartiles; whiskers: 10th and 90th percentile; dots: patients.*"
        )

    def boxes_by_structure(self, metric: str = "dsc", leave_out: Sequence[str] = ()) -> Markdown:
        """Boxes of each method over patients, structure by structure; without the methods left out."""
        charts.boxes_by_structure(self.patients[~self.patients.method.isin(leave_out)], self.paper, metric)
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
        charts.by_fold(means.reset_index(), self.paper, metrics)
        plt.show()
        spread = means[next(iter(metrics))].groupby("method").std()
        titles = style.titles(self.paper)
        said = ", ".join(f"{titles[name]} {spread[name]:.3f}" for name in self.methods if spread[name] >= 0)
        first = next(iter(metrics.values()))
        spreads = f" Standard deviation of the fold means, {first}: {said}." if said else ""
        return Markdown(f"*{self._over()} ({self.made}).{spreads}*")

    def learning_curves(self, *methods: str) -> Markdown:
        """Training and validation loss of the published runs of these methods (all)."""
        history = self.published.history
        charts.learning_curves(history[history.method.isin(methods or self.methods)], self.paper)
        plt.show()
        return Markdown(
            f"*Loss of the score that is trained in each stage: thin lines are runs, thick lines means ({self.made}).*"
        )

    def differences(self, *pairs: tuple[str, str], metric: str = "dsc"):
        """The first of each pair minus the second on the same patients, from the seeds that both have: tested for the
        mean over structures.

        With several structures a second table has the difference and interval of each, untested: the question is one.
        """
        title = f"{style.METRIC_TITLES[metric]}, paired differences"
        tested = tables.differences(per_patient.over_structures(self.patients), self.paper, metric, pairs)
        compared = self.patients[self.patients.method.isin({name for pair in pairs for name in pair})]
        seeds = set(compared.groupby("method").seed.agg(frozenset))
        shared = ". Where two methods have different seeds, only those that both have count" if len(seeds) > 1 else ""
        shown = tables.show_differences(tested, f"{title}. {self._over()} ({self.made}){shared}")
        if len(self.structures) == 1:
            return shown
        display(shown)
        each = tested[["comparison"]].copy()
        for structure in self.structures:
            rows = self.patients[self.patients.structure == structure]
            rows = tables.differences(rows, self.paper, metric, pairs).set_index("comparison")
            each[structure] = each.comparison.map(rows["mean difference"] + " (" + rows["95 % interval"] + ")")
        return tables.show(each, f"{title} by structure (95 % interval), not tested ({self.made})")

    def mean(self, method: str) -> statistics.Summary:
        """DSC over patients, of the mean over structures."""
        rows = self._whole()
        return statistics.summarise(rows[rows.method == method].dsc)

    def means_by_seed(self, method: str) -> list[float]:
        """Mean DSC over patients, of the mean over structures, one for each seed."""
        rows = per_patient.over_structures(self.patients[self.patients.method == method])
        return rows.groupby("seed").dsc.mean().tolist()

    def by_seed(self, first: str, second: str) -> pd.DataFrame:
        """DSC of one method minus another, of the mean over structures: a row for each patient, a column for each seed
        that both have."""
        rows = per_patient.over_structures(self.patients)
        wide = rows.pivot(index=["patient", "seed"], columns="method", values="dsc")
        return (wide[first] - wide[second]).dropna().unstack("seed")

    def seed_by_seed(self, first: str, second: str) -> str:
        """The least and the largest mean difference of a seed, in words."""
        means = self.by_seed(first, second).mean()
        return f"seed by seed {means.min():+z.3f} to {means.max():+z.3f}"

    def difference(self, first: str, second: str, metric: str = "dsc") -> statistics.PairedTest:
        """A metric of the first method minus the second on the same patients, from the seeds that both have; see
        :func:`npcrepro.statistics.paired`."""
        rows = per_patient.over_structures(self.patients)
        wide = per_patient.side_by_side(rows, (first, second), metric)
        return statistics.paired(wide[first], wide[second])

    def said(self, first: str, second: str, metric: str = "dsc") -> str:
        """The same in words: the difference and its interval, and the seeds where one has more of them."""
        found = self.difference(first, second, metric).difference
        interval = f"95 % interval {found.low:+z.3f} to {found.high:+z.3f}"
        if np.isnan(found.low):
            interval = "too few patients for an interval"
        seeds = [set(self.patients.seed[self.patients.method == name]) for name in (first, second)]
        shared = "" if seeds[0] == seeds[1] else f"; {seeds_line(sorted(seeds[0] & seeds[1]))}, which both have"
        return f"{found.mean:+z.3f} ({interval}{shared})"

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

    def _whole(self) -> pd.DataFrame:
        return per_patient.over_seeds(per_patient.over_structures(self.patients))

    def _over(self) -> str:
        return f"Mean over {len(self.structures)} structures" if len(self.structures) > 1 else self.structures[0]


def show_leakage(paper: Paper, by_slice: Published, by_patient: Published) -> Markdown:
    """How much higher slices score where a split separates the slices of a patient
    (:mod:`npcrepro.findings.leakage`)."""
    titles, found = style.titles(paper), leakage.inflation(by_slice.cases, by_patient.cases)
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
    charts.strips({titles[name]: means[name] for name in names}, "DSC split by slice minus split by patient")
    plt.show()
    made = f"By slice: {published_line(by_slice)}. By patient: {published_line(by_patient)}"
    return Markdown(f"*Dots: patients, mean over slices; bar: their median. {made}.*")


def on_both(phantom: Results, patients: Results, *pairs: tuple[str, str]):
    """The first of each pair minus the second, on a phantom and on patients, side by side: DSC and its 95 % interval.

    Nothing is tested. A pair that one of the two records lacks has a dash there.
    """
    rows = []
    for pair in pairs:
        row = {"comparison": tables.minus(patients.paper, *pair)}
        for one, where in ((phantom, "phantom"), (patients, "patients")):
            known = set(pair) <= set(one.methods)
            row[f"{where}, n = {one.patients.patient.nunique()}"] = (
                one.said(*pair).replace("95 % interval ", "") if known else DASH  # the caption says it once
            )
        rows.append(row)
    caption = f"DSC, paired differences (95 % interval), not tested. Phantom: {phantom.made}. Patients: {patients.made}"
    return tables.show(pd.DataFrame(rows), caption)


def published_line(published: Published) -> str:
    """Where published runs come from, on what machine they were made and how long they took."""
    hours = sum(run["seconds"]["all"] for run in published.runs) / 3600
    runs, last = plural(len(published.runs), "run"), max(run["finished"] for run in published.runs)
    return f"{_origin(published)}, {published.runs[0]['device']}, {runs}, {hours:.1f} h in all, made {last[:10]}"


def training_line(published: Published) -> str:
    """Size of the networks of published runs and of their training, and how many patients each fold has for what."""
    size = published.runs[0]["profile"]
    folds = published.folds.values()
    parts = {part: span([len(fold[part]) for fold in folds]) for part in ("train", "validation", "test")}
    matrix = " x ".join(map(str, size["matrix"]))
    return (
        f"Networks have {size['width']:g} times the channels of profile `paper`, a matrix of {matrix} and "
        f"{size['updates']:,} updates. A fold has {parts['train']} patients to train, {parts['validation']} to "
        f"validate and {parts['test']} to test."
    )


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

"""What a chapter says of published runs: `Results` of a record, and comparisons of two records."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

from npcrepro.base.wording import DASH, in_words, plural, seeds_line, signed, span
from npcrepro.book import tables
from npcrepro.book.figures import charts, style
from npcrepro.book.html.filter_table import filter_table
from npcrepro.book.results import Results
from npcrepro.findings import leakage
from npcrepro.protocol.method import Paper
from npcrepro.runs.published import Published, read_published

TIMES = {"train": 60, "predict": 1}  # part of a run to the seconds of its unit


class PublishedResults(Results):
    """Published runs of a paper on one cohort, with what is known of their making.

    Args:
        paper: whose methods these are.
        folder: of the record, see :func:`npcrepro.runs.published.publish`.
        region: see `Results`.

    Attributes:
        published: the record.

    Raises:
        InputError: nothing is published there.
    """

    def __init__(self, paper: Paper, folder: Path | str, region: str = "all_slices"):
        self.published: Published = read_published(folder)
        super().__init__(paper, self.published.cases, self.published.history, _origin(self.published), region)

    @property
    def sides_of_voxels(self) -> str:
        """``"3.0 x 0.9–1.2 x 0.9–1.2 mm"``, along z, y and x; empty where nobody knows."""
        sides = (self.published.cases[f"spacing_{axis}_mm"] for axis in "zyx")
        ends = [dict.fromkeys((f"{side.min():.1f}", f"{side.max():.1f}")) for side in sides]
        return "" if any("nan" in pair for pair in ends) else f"{' x '.join(map(DASH.join, ends))} mm"

    def about(self) -> Markdown:
        """Patients, voxels and structures; size of networks and of training; and where the runs were made."""
        cases, known = self.published.cases, f"voxels of {self.sides_of_voxels or 'unknown size'}"
        doubtful = cases[cases.suspect].patient.nunique()
        verb = "is" if doubtful == 1 else "are"
        apart = f"; {doubtful} more with doubtful labels {verb} in no mean" if doubtful else ""
        made, size, folds = published_line(self.published), self.published.runs[0]["profile"], self.published.folds
        parts = ("train", "validation", "test")
        train, validation, test = (span([len(fold[part]) for fold in folds.values()]) for part in parts)
        matrix = " x ".join(map(str, size["matrix"]))
        return Markdown(
            f"{plural(self.patients.patient.nunique(), 'patient')} tested{apart}, {known}, "
            f"{', '.join(self.structures)}. Networks have {size['width']:g} times the channels of profile `paper`, a "
            f"matrix of {matrix} and {size['updates']:,} updates. A fold has {train} patients to train, "
            f"{validation} to validate and {test} to test. {made[0].upper()}{made[1:]}."
        )

    def by_fold(self, metrics: dict[str, str]) -> Markdown:
        """A line for each method through the folds: means over the patients tested, of the mean over structures."""
        folds = self.cases.drop_duplicates("patient").set_index("patient").fold
        rows = self.averaged
        means = rows.assign(fold=rows.patient.map(folds)).groupby(["method", "fold"])[list(metrics)].mean()
        if folds.nunique() == 1:
            return Markdown("*The published runs are of one fold, so that there is no curve over folds.*")
        charts.by_fold(means.reset_index(), self.paper, metrics)
        plt.show()
        spread = means[next(iter(metrics))].groupby("method").std()
        titles, first = style.titles(self.paper), next(iter(metrics.values()))
        known = ", ".join(f"{titles[name]} {spread[name]:.3f}" for name in self.methods if spread[name] >= 0)
        spreads = f" Standard deviation of the fold means, {first}: {known}." if known else ""
        return Markdown(f"*{self._over()} ({self.made}).{spreads}*")


def show_leakage(paper: Paper, by_slice: Published, by_patient: Published) -> Markdown:
    """How much higher slices score where a split separates the slices of a patient
    (:mod:`npcrepro.findings.leakage`)."""
    titles, found = style.titles(paper), leakage.inflation(by_slice.cases, by_patient.cases)
    ends = zip(found.inflation, found.low, found.high, strict=True)
    frame = found[["structure", "patients", "slices"]].copy()
    frame.insert(0, "method", found.method.map(titles))
    frame["DSC, split by slice"], frame["DSC, split by patient"] = found.by_slice, found.by_patient
    frame["inflation (95 % interval)"] = [
        f"{signed(mean)} ({signed(low)} to {signed(high)})" for mean, low, high in ends
    ]
    caption = f"Mean over the slices of each patient, then over patients ({_origin(by_patient)})"
    display(tables.show(frame, caption, precision=3))
    rows = leakage.differences(by_slice.cases, by_patient.cases)
    means = rows[rows.structure == leakage.ALL].groupby(["method", "patient"]).difference.mean()
    charts.strips(
        {titles[name]: means[name] for name in style.methods_of(found, paper)},
        "DSC split by slice minus split by patient",
    )
    plt.show()
    made = f"By slice: {published_line(by_slice)}. By patient: {published_line(by_patient)}"
    return Markdown(f"*Dots: patients, mean over slices; bar: their median. {made}.*")


def training_times(records: Mapping[str, PublishedResults]) -> HTML:
    """Runs of each method of each record, the minutes that one trained and the seconds in which it predicted all its
    patients, to be unfolded; runs that diverged are named above.
    """
    lines, ended = [], []
    for record, one in records.items():
        title = {name: one.paper.method(name).title for name in one.methods}
        for name in one.methods:
            mine = [run for run in one.published.runs if run["method"] == name]
            took = [f"{np.mean([run['seconds'][part] for run in mine]) / unit:,.1f}" for part, unit in TIMES.items()]
            seeds, devices = ({run[part] for run in mine} for part in ("seed", "device"))
            lines.append((title[name], record, len(mine), len(seeds), *took, ", ".join(sorted(devices))))
        diverged = (run for run in one.published.runs if run.get("status") == "diverged")
        ended += [f"{record}, {title[run['method']]}, fold {run['fold']}, seed {run['seed']}" for run in diverged]
    names = ["method", "record", "runs", "seeds", "minutes to train", "seconds to predict all", "device"]
    frame = pd.DataFrame(lines, columns=names)
    caption, start = "A run is one fold with one seed", {"record": frame.record[0]}
    table = filter_table(frame, by=["record"], start=start, caption=caption)
    told = f"<p>Training diverged (NaN), and the network was scored anyway: {'; '.join(ended)}.</p>" if ended else ""
    return HTML(f"{told}<details><summary>Runs, and how long they took</summary>{table}</details>")


def published_line(published: Published) -> str:
    """Where published runs come from, on what machine they were made and how long they took."""
    hours = sum(run["seconds"]["all"] for run in published.runs) / 3600
    runs, last = plural(len(published.runs), "run"), max(run["finished"] for run in published.runs)
    devices = Counter(run["device"] for run in published.runs)
    several = [f"{number} on {device}" for device, number in devices.items()]
    where = ", ".join(several if len(devices) > 1 else devices)
    return f"{_origin(published)}, {runs}, {where}, {hours:.1f} h in all, made {last[:10]}"


def _origin(published: Published) -> str:
    """Cohort, profile, folds and seeds of published runs; how many methods have which seeds, where they differ."""
    first, methods, folds = published.runs[0], defaultdict(set), defaultdict(set)
    for run in published.runs:
        methods[run["method"]].add(run["seed"])
        folds[run["method"]].add(run["fold"])
    counts = Counter(tuple(sorted(seeds)) for seeds in methods.values())
    seeds = [
        seeds_line(each) + (f" of {plural(counts[each], 'method')}" if len(counts) > 1 else "")
        for each in sorted(counts, key=len, reverse=True)
    ]
    if len(counts) > 3:
        seeds = [f"{_span_of(methods.values(), 'seed')} of {plural(len(methods), 'method')}"]
    tested = _span_of(folds.values(), "fold")
    return f"cohort {first['cohort']}, profile {first['profile']['name']}, {tested}, {in_words(seeds)}"


def _span_of(groups: Iterable[Collection], noun: str) -> str:
    """``"1 fold"`` or ``"1 to 5 folds"``: how many each group has."""
    counts = span([len(group) for group in groups])
    return f"{counts} {noun}{'s' * (counts != '1')}"

"""What the chapters on volumes share beyond `chapter`: one patient in three planes, errors, surfaces, tables.

What one of these chapters alone shows is in a module named for its paper, such as `chapter_chen2020`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from npcrepro import statistics
from npcrepro.base.wording import DASH, in_words, middle, plural
from npcrepro.book import tables
from npcrepro.book.chapter import Chapter
from npcrepro.book.figures import charts, slices, style, surfaces, volumes
from npcrepro.book.published import Results
from npcrepro.models.layers import receptive_field
from npcrepro.protocol.method import Paper
from npcrepro.runs import per_patient
from npcrepro.runs.records import Record

FEW_PATIENTS = "With few patients such tests can detect only large differences; with fewer than six there is no test."
SLIM = 0.05  # width of networks of which only the shape matters


class Shown(NamedTuple):
    """A patient as the methods see it: image and masks ``(z, y, x)``, and its spacing, ``nan`` where not known."""

    case: str
    image: np.ndarray
    reference: np.ndarray
    predictions: dict[str, np.ndarray]
    spacing_mm: Sequence[float]


class VolumeChapter(Chapter):
    """A paper with 3-D networks on the cohort of the settings; see `Chapter`."""

    def series(self, count: int = 3) -> Markdown:
        """One slice of the first cases in all series of the proposed method, and how the windows lie."""
        rows = {}
        for name in self.prepared.case_names[:count]:
            case, masks = self.prepared.case(name), self.masks(name)
            z = int(sum(mask.sum(axis=(1, 2)) for mask in masks.values()).argmax())
            drawn = {structure: mask[z] for structure, mask in masks.items() if mask[z].any()}
            channels = {series: self.prepared.channels.index(series) for series in self.data.channels}
            rows[f"{name}, slice {z + 1}"] = {
                series: (np.asarray(case.image[number, z]), drawn) for series, number in channels.items()
            }
        slices.show_images(self.source, self.settings, slices.sheet, rows)
        outside = [share for name in self.prepared.case_names for share in self.data.share_outside(name).values()]
        largest = f"at most {np.nanmax(outside):.1%}" if not np.isnan(outside).all() else "nothing"
        windows = plural(len(self.data.samples(self.prepared.case_names)), "window")
        return Markdown(
            f"*{self.counts()}, {windows} of "
            f"{' x '.join(map(str, self.size.matrix))} voxels; {largest} of a case's reference lies outside its region "
            f"and cannot be found. Images: {self.source.reference} Licence: {self.source.licence}.*"
        )

    def sizes(self) -> pd.DataFrame:
        """Parameters and multiply-accumulates of one input for each method that is trained, at the paper's size."""
        rows = []
        for method in (method for method in self.chosen if method.stages):
            layers = tables.layers(method, self.paper.profile("paper"))
            macs = layers["MAC (millions)"].sum() / 1000
            rows.append((method.title, len(method.channels), layers["parameters"].sum(), macs))
        return pd.DataFrame(rows, columns=["network", "series", "parameters", "billion multiply-accumulates"])

    @cached_property
    def shown(self) -> Shown:
        """The patient of the first fold in the middle by the DSC of the leading method, with the masks of all."""
        patients = self.ranked_of_first_fold()
        return self._shown(patients[len(patients) // 2])

    def _shown(self, patient: str) -> Shown:
        case = self.prepared.cases_of([patient])[0]
        masks = {name: record.prediction(case)[0] == 1 for name, record in self.first_fold().items()}
        return Shown(case, self.image(case), self.masks(case)[self.structures[0]], masks, self.spacing_mm(case))

    def patients_shown(self, count: int = 3) -> list[Shown]:
        """Patients that the first fold tests, evenly spaced from best to worst; fewer where it tests fewer."""
        patients = self.ranked_of_first_fold()
        places = np.linspace(0, len(patients) - 1, min(count, len(patients))).round().astype(int)
        return [self._shown(patients[place]) for place in places]

    def planes(self, *methods: str) -> Markdown:
        """The patient of `shown` in three planes, with the contours of these methods."""
        _, image, reference, predictions, spacing = self.shown
        there = [name for name in methods if name in predictions]
        colours, titles = style.colours(self.paper, there), style.titles(self.paper)
        outlines = {"Reference": (reference, style.REFERENCE)}
        outlines |= {titles[name]: (predictions[name], colours[name]) for name in there}
        slices.show_images(self.source, self.settings, slices.planes, image, outlines, spacing)
        return self.about_shown()

    def errors(self) -> Markdown:
        """The slice of the same patient with the largest reference, and the errors of every method."""
        _, image, reference, predictions, _ = self.shown
        z = int(reference.sum(axis=(1, 2)).argmax())
        flat = {name: mask[z] for name, mask in predictions.items()}
        slices.show_images(self.source, self.settings, slices.errors, image[z], reference[z], flat, self.paper)
        return self.about_shown()

    def errors_of_patients(self, *planes: str, count: int = 3) -> Markdown:
        """Slices of several patients through the largest areas of the reference, and the errors of every method.

        Args:
            planes: of ``"axial"``, ``"coronal"`` and ``"sagittal"``; one row for each patient and plane.
            count: patients, see `patients_shown`.
        """
        shown = self.patients_shown(count)
        volumes = {one.case: one[1:] for one in shown}
        slices.show_images(self.source, self.settings, slices.errors_of_patients, volumes, planes, self.paper)
        patients = plural(len(shown), "patient")
        which = "all" if len(shown) < count else "from best to worst of those"
        return Markdown(
            f"*{self.structures[0]}, {patients}, {which} that the first fold tests. Numbers: DSC of the "
            f"slice ({self.made}).*"
        )

    def receptive_fields(self, *methods: str, side: int = 144) -> pd.DataFrame:
        """Voxels along an axis that one logit depends on, counted up to ``side``.

        Args:
            methods: names; without any, those of the page that are trained.
        """
        chosen = [self.paper.method(name) for name in methods] or [method for method in self.chosen if method.stages]
        rows = []
        for method in chosen:
            # The field does not depend on the width. A row along one axis shows as much of it as a cube.
            seen, *_ = receptive_field(method.build(SLIM), method.in_channels, (side, 8, 8))
            rows.append((method.title, f"{seen}" if seen < side else "all"))
        return pd.DataFrame(rows, columns=["network", "voxels in sight along an axis"])

    def surfaces(self, *methods: str) -> Markdown:
        """Surfaces of the reference and of these methods in the same patient."""
        case, _, reference, predictions, spacing = self.shown
        chosen = {name: predictions[name] for name in methods if name in predictions}
        surfaces.surfaces({case: (reference, chosen)}, {case: spacing}, self.paper)
        plt.show()
        return self.about_shown()

    def beside(self, printed: Sequence[Mapping], metrics: Mapping[str, str], numbers: pd.DataFrame | None = None):
        """Rows of a printed table beside ours: mean over patients with its 95 % interval.

        The patients are others, so that no difference of the two is shown.

        Args:
            printed: rows with ``model``, which is the title of a method, and numbers, ``None`` where none is printed.
            metrics: column of the rows to column of ``numbers``.
            numbers: one row for each patient and method; where not given, the scores, averaged over seeds.
        """
        numbers = per_patient.over_seeds(self.scores()) if numbers is None else numbers
        lines = []
        for row in printed:
            mine = numbers[numbers.method.map(style.titles(self.paper)) == row["model"]]
            line: dict = {"method": row["model"], "n": len(mine) or DASH}
            for column, metric in metrics.items():
                name = style.METRIC_TITLES.get(metric, metric)
                ours, said = statistics.summarise(mine[metric]), row.get(column)
                line[f"{name} printed"] = DASH if said is None else f"{said:.{self.reported['decimals'][column]}f}"
                interval = "" if np.isnan(ours.low) else f" ({ours.interval})"
                line[f"{name} ours"] = f"{ours.mean:.3f}{interval}" if ours.n else DASH
            lines.append(line)
        frame = pd.DataFrame(lines)
        # Too few patients leave means without an interval.
        known = " with 95 % interval" if frame.filter(like=" ours").map(lambda cell: "(" in cell).any(axis=None) else ""
        caption = f"Printed means (sd not stated); ours{known}; n: our patients ({self.made})"
        return tables.show(frame, caption)

    def ablation(self, printed: Sequence[Mapping]) -> Markdown:
        """DSC of each method minus that of its partner in `Paper.comparisons`, with the difference of printed means.

        Args:
            printed: rows with ``model``, which is the title of a method, and ``dsc``.
        """
        scores = self.scores()
        pairs = tables.partners(scores, self.paper)
        if not pairs:
            return Markdown("*Both methods of no pair were run.*")
        show_differences(scores, self.paper, "dsc", pairs, {row["model"]: row["dsc"] for row in printed})
        return Markdown(
            f"*Paired differences over patients, mean with 95 % bootstrap interval ({self.made}). {FEW_PATIENTS}*"
        )

    def against_proposed(self, printed: Sequence[Mapping]):
        """DSC of the proposed method minus that of each other row of a printed table, see `ablation`."""
        proposed, means = self.paper.methods[0], {row["model"]: row["dsc"] for row in printed}
        pairs = [(proposed.name, other.name) for other in self.paper.methods[1:] if other.title in means]
        frame = with_printed(self.scores(), self.paper, "dsc", pairs, means)
        return tables.show_differences(frame, f"DSC, paired differences over patients ({self.made})")

    def validation(self, *methods: str, metric: str = "validation_loss") -> Markdown:
        """Validation loss of these methods on one axis, or another column of their history."""
        history = pd.concat([record.history for record in self.found if record.config["method"]["name"] in methods])
        volumes.validation_curves(history, self.paper, metric)
        plt.show()
        return Markdown(f"*Thin lines: folds and seeds; thick lines: means. Dots end a stage ({self.made}).*")

    def seconds_for_a_patient(self) -> pd.DataFrame:
        """Time to predict one patient, mean over the patients of the first fold, with the number of windows."""
        rows = []
        for record in (r for r in self.found if self.first(r)):
            cases = self.prepared.cases_of(record.config["fold"]["test"])
            windows = len(self.data.samples(cases)) / len(cases)
            seconds = record.provenance["seconds"]["predict"] / len(cases)
            rows.append((record.config["method"]["title"], len(cases), windows, seconds, record.provenance["device"]))
        columns = ["method", "cases", "windows of a case", "seconds for a case", "device"]
        frame = pd.DataFrame(rows, columns=columns)
        groups = frame.groupby(["method", "device"], sort=False)
        means = groups[columns[1:4]].mean().reset_index()[columns]
        whole = {"cases": int} | ({"windows of a case": int} if (means["windows of a case"] % 1 == 0).all() else {})
        return means.astype(whole)

    def first(self, record: Record) -> bool:
        """Whether a run is of the first seed."""
        return record.config["seed"] == self.settings.seeds[0]

    def about_shown(self) -> Markdown:
        """What a caption says of the patient of `shown`."""
        place = middle(len(self.ranked_of_first_fold()), style.titles(self.paper)[self.ranked()[0]])
        return Markdown(f"*{self.shown.case}, {self.structures[0]}; {place} ({self.made}).*")


class VolumeResults(Results):
    """Published runs of a paper with 3-D networks on a cohort of one structure; see `Results`."""

    def overview(self, metrics: Mapping[str, str], *methods: str):
        """One row for each of these methods (all): mean over patients with its 95 % interval, and predictions without a
        voxel.

        Args:
            metrics: metric to column title.
        """
        rows = self.patients[self.patients.method.isin(methods or self.methods)]
        frame = tables.scores(rows, self.paper, metrics)
        for title in metrics.values():
            cells = zip(frame[title], frame.patients, strict=True)
            frame[title] = [tables.mean_and_interval(summary, n) for summary, n in cells]
        names = style.titles(self.paper)
        empty = {names[name]: f"{self.empty(name)} of {self.tested(name)}" for name in self.methods}
        frame["empty predictions"] = frame.method.map(empty)
        return tables.show(frame, f"{self.structures[0]}, mean over patients (95 % interval). {self.made}")

    def empty(self, method: str) -> int:
        """Predictions of a method without a voxel where there is something to find, over all folds and seeds."""
        return int((self._scored(method).status == "pred_empty").sum())

    def tested(self, method: str) -> int:
        """Predictions of a method, over all folds and seeds."""
        return len(self._scored(method))

    def volume_ratios(self) -> dict[str, float]:
        """Volume found over volume of the reference, median over patients, by title of the method."""
        rows = self._whole()
        ratios = (rows.predicted_ml / rows.reference_ml).groupby(rows.method).median()
        return {self.paper.method(name).title: float(ratios[name]) for name in self.methods}

    def _scored(self, method: str) -> pd.DataFrame:
        cases = self.published.cases
        return cases[(cases.method == method) & (cases.region == "all_slices") & ~cases.suspect]

    def by_patient(self, metric: str, *methods: str) -> Markdown:
        """A dot for each patient, joined through these methods; means as bars."""
        rows = self._whole()
        charts.by_patient(rows[rows.method.isin(methods)], self.paper, metric)
        plt.show()
        return Markdown(f"*{self._over()}: dots are patients, joined by lines; bars are means ({self.made}).*")

    def against(self, method: str, others: Sequence[str], metric: str, printed: Mapping[str, float]) -> Markdown:
        """A method minus each of the others on the same patients, see `show_differences`."""
        pairs = [(method, other) for other in others]
        show_differences(per_patient.over_structures(self.patients), self.paper, metric, pairs, printed)
        return Markdown(
            f"*Paired differences over patients, mean with 95 % bootstrap interval ({self.made}). {FEW_PATIENTS}*"
        )

    def standing(self, method: str, others: Sequence[str]) -> str:
        """``above that of CNN; not told apart from those of V-Net and BUNet``: the DSC, by intervals and tests.

        An interval that excludes zero counts where p supports it, adjusted for the number of ``others``. A difference
        without an interval or a test, as of fewer than `tables.TESTABLE` patients, tells nothing apart.
        """
        titles, words = style.titles(self.paper), {1: "above", -1: "below", 0: "not told apart from"}
        found = {other: self.difference(method, other) for other in others if other in self.methods}
        sides: dict[str, list[str]] = {word: [] for word in words.values()}
        for (other, test), p in zip(found.items(), tables.adjusted(list(found.values())), strict=True):
            sides[words[tables.side(test.difference) if p <= tables.ALPHA else 0]].append(titles[other])
        told = {side: names for side, names in sides.items() if names}
        return "; ".join(
            f"{side} {'those' if names[1:] else 'that'} of {in_words(names)}" for side, names in told.items()
        )


# Differences


def show_differences(
    patients: pd.DataFrame, paper: Paper, metric: str, pairs: Sequence[tuple[str, str]], printed: Mapping[str, float]
) -> None:
    """A forest of paired differences with the printed ones as crosses, and the same as a table with tests.

    Args:
        patients: from :func:`npcrepro.runs.per_patient.select`.
        pairs: of methods, the first minus the second; those that have no rows are left out.
        printed: title of a method to its printed mean.
    """
    found, pairs = {}, [pair for pair in pairs if set(pair) <= set(patients.method)]
    for pair in pairs:
        wide = per_patient.side_by_side(patients, pair, metric)
        found[tables.minus(paper, *pair)] = statistics.paired(*(wide[name] for name in pair)).difference
    title = f"difference of the {style.METRIC_TITLES[metric]}"
    volumes.forest(found, title, printed_differences(paper, pairs, printed))
    plt.show()
    run = patients.iloc[0]
    caption = f"{style.METRIC_TITLES[metric]}, paired differences (cohort {run.cohort}, profile {run.profile})"
    display(tables.show_differences(with_printed(patients, paper, metric, pairs, printed), caption))


def with_printed(
    patients: pd.DataFrame, paper: Paper, metric: str, pairs: Sequence[tuple[str, str]], printed: Mapping[str, float]
) -> pd.DataFrame:
    """Rows of `tables.differences` with a column of the differences of the printed means, unless none is given."""
    frame, said = tables.differences(patients, paper, metric, pairs), printed_differences(paper, pairs, printed)
    if not printed:
        return frame
    return frame.assign(printed=[f"{said[name]:+z.3f}" if name in said else DASH for name in frame.comparison])


def printed_differences(
    paper: Paper, pairs: Sequence[tuple[str, str]], printed: Mapping[str, float]
) -> dict[str, float]:  # fmt: skip
    """Name of a comparison to the difference of the printed means; pairs of which both are printed."""
    titles = style.titles(paper)
    return {
        tables.minus(paper, first, second): printed[titles[first]] - printed[titles[second]]
        for first, second in pairs
        if {titles[first], titles[second]} <= printed.keys()
    }

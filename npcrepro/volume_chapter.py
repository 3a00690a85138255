"""What the chapters on volumes share beyond `chapter`: one patient in three planes, errors, surfaces, tables.

Behind it are functions that one of these chapters needs, and which take the chapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from npcrepro import evaluation, figures, statistics, tables, volume_figures
from npcrepro.chapter import Chapter
from npcrepro.cohorts.phantom import second_observer
from npcrepro.metrics import overlap
from npcrepro.records import Record
from npcrepro.runs import load_data, load_network

MISSING = "–"


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
        for name in self.prepared.cases[:count]:
            case, masks = self.prepared.case(name), self.masks(name)
            z = int(sum(mask.sum(axis=(1, 2)) for mask in masks.values()).argmax())
            drawn = {structure: mask[z] for structure, mask in masks.items() if mask[z].any()}
            channels = {series: self.prepared.channels.index(series) for series in self.data.channels}
            rows[f"{name}, slice {z}"] = {
                series: (np.asarray(case.image[number, z]), drawn) for series, number in channels.items()
            }
        figures.show_images(self.source, self.settings, figures.sheet, rows)
        outside = [share for name in self.prepared.cases for share in self.data.share_outside(name).values()]
        largest = f"at most {np.nanmax(outside):.1%}" if not np.isnan(outside).all() else "nothing"
        windows = len(self.data.samples(self.prepared.cases))
        return Markdown(
            f"*{len(self.prepared.patients)} patients, {len(self.prepared.cases)} cases, {windows} windows of "
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
        """The patient of the first fold with the median DSC of the leading method, with the masks of all methods."""
        _, ranked = self.ranked()
        first = [r for r in self.found if r.config["fold"] == self.found[0].config["fold"] and self.first(r)]
        ranked = ranked[ranked.patient.isin(first[0].config["fold"]["test"])]
        case = self.prepared.cases_of([ranked.patient.iloc[len(ranked) // 2]])[0]
        masks = {record.config["method"]["name"]: record.prediction(case)[0] == 1 for record in first}
        about = self.prepared.case(case)
        spacing = about.spacing_mm if self.prepared.spacing_known else evaluation.UNKNOWN_SPACING
        return Shown(case, self.image(case), self.masks(case)[self.structures[0]], masks, spacing)

    def planes(self, *methods: str) -> Markdown:
        """The patient of `shown` in three planes, with the contours of these methods."""
        _, image, reference, predictions, spacing = self.shown
        chosen = {name: predictions[name] for name in methods if name in predictions}
        figures.show_images(
            self.source, self.settings, volume_figures.planes, image, reference, chosen, spacing, self.paper
        )
        return self.about_shown()

    def errors(self) -> Markdown:
        """The slice of the same patient with the largest reference, and the errors of every method."""
        _, image, reference, predictions, _ = self.shown
        z = int(reference.sum(axis=(1, 2)).argmax())
        flat = {name: mask[z] for name, mask in predictions.items()}
        figures.show_images(self.source, self.settings, volume_figures.errors, image[z], reference[z], flat, self.paper)
        return self.about_shown()

    def surfaces(self, *methods: str) -> Markdown:
        """Surfaces of the reference and of these methods in the same patient."""
        case, _, reference, predictions, spacing = self.shown
        chosen = {name: predictions[name] for name in methods if name in predictions}
        volume_figures.surfaces({case: (reference, chosen)}, {case: spacing}, self.paper)
        plt.show()
        return self.about_shown()

    def beside(self, printed: Sequence[Mapping], metrics: Mapping[str, str], numbers: pd.DataFrame | None = None):
        """Rows of a printed table beside ours: mean over patients, its 95 % interval, and ours minus printed.

        Args:
            printed: rows with ``model``, which is the title of a method, and numbers, ``None`` where none is printed.
            metrics: column of the rows to column of ``numbers``.
            numbers: one row for each patient and method; where not given, the scores, averaged over seeds.
        """
        numbers = evaluation.over_seeds(self.scores()) if numbers is None else numbers
        lines = []
        for row in printed:
            mine = numbers[numbers.method.map(figures.titles(self.paper)) == row["model"]]
            line: dict = {"method": row["model"], "n": len(mine) or MISSING}
            for column, metric in metrics.items():
                name = figures.METRIC_TITLES.get(metric, metric)
                ours, said = statistics.summarise(mine[metric]), row.get(column)
                line[f"{name} printed"] = MISSING if said is None else f"{said:.{self.reported['decimals'][column]}f}"
                line[f"{name} ours"] = f"{ours.mean:.3f} ({ours.interval})" if ours.n else MISSING
                both = ours.n and said is not None
                line[f"{name} ours - printed"] = f"{ours.mean - said:+.3f}" if both else MISSING
            lines.append(line)
        caption = f"Printed means (sd not stated) and ours with 95 % interval; n: our patients ({self.made})"
        return tables.show(pd.DataFrame(lines), caption)

    def ablation(self, printed: Sequence[Mapping], metric: str = "dsc") -> Markdown:
        """Each method minus the one it is compared with, with intervals, and the difference of the printed means.

        The figure has the pairs of `Paper.comparisons`. The table below it has all methods; those without a partner of
        their own stand there against the proposed one.
        """
        titles, means = figures.titles(self.paper), {row["model"]: row[metric] for row in printed}
        wide = evaluation.over_seeds(self.scores()).pivot(index="patient", columns="method", values=metric)
        ours, theirs = {}, {}
        for name in (method.name for method in self.paper.methods):
            base = self.paper.comparisons.get(name)
            if name in wide and base in wide:
                label = f"{titles[name]} minus {titles[base]}"
                ours[label] = statistics.paired(wide[name], wide[base]).difference
                if {titles[name], titles[base]} <= set(means):
                    theirs[label] = means[titles[name]] - means[titles[base]]
        volume_figures.forest(ours, f"difference of the {figures.METRIC_TITLES[metric]}", theirs)
        plt.show()
        display(tables.show(tables.differences(self.scores(), self.paper, metric)))
        return Markdown(
            f"*Paired differences over patients, mean with 95 % bootstrap interval ({self.made}). With few patients "
            f"these tests can detect only large differences.*"
        )

    def validation(self, *methods: str, metric: str = "validation_loss") -> Markdown:
        """Validation loss of these methods on one axis, or another column of their history."""
        history = pd.concat([record.history for record in self.found if record.config["method"]["name"] in methods])
        volume_figures.validation_curves(history, self.paper, metric)
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
        means = frame.groupby(["method", "device"], sort=False)
        return means[columns[1:4]].mean().reset_index()[columns]

    def first(self, record: Record) -> bool:
        """Whether a run is of the first seed."""
        return record.config["seed"] == self.settings.seeds[0]

    def about_shown(self) -> Markdown:
        """What a caption says of the patient of `shown`."""
        return Markdown(f"*{self.shown.case}, {self.structures[0]} ({self.made}).*")


# Chen 2020


def attention(chapter: VolumeChapter, method: str) -> Markdown:
    """Weights of channels by series and level, and of voxels on a slice, for the patient of `VolumeChapter.shown`."""
    record = next(r for r in chapter.found if r.config["method"]["name"] == method and chapter.first(r))
    data, network = load_data(record, chapter.prepared), load_network(record)
    windows = data.samples([chapter.shown.case]) or data.samples(chapter.prepared.cases)[:1]
    labelled = [int((data.batch([window])[1] == 1).sum()) for window in windows]
    image, label = data.batch([windows[int(np.argmax(labelled))]])
    pairs = network.attention(data.finish(image))
    names = [f"level {number} ({c.shape[1] // len(data.channels)} a series)" for number, (c, _) in enumerate(pairs, 1)]
    weights = {
        name: dict(zip(data.channels, channels[0].reshape(len(data.channels), -1).numpy(), strict=True))
        for name, (channels, _) in zip(names, pairs, strict=True)
    }
    volume_figures.channel_weights(weights)
    plt.show()
    z = int((label[0, 0] == 1).sum(dim=(1, 2)).argmax())
    maps = {
        name: voxels[0, 0, z * voxels.shape[2] // image.shape[2]].numpy()
        for name, (_, voxels) in zip(names, pairs, strict=True)
    }
    seen, reference = image[0, 0, z].numpy(), (label[0, 0, z] == 1).numpy()
    figures.show_images(chapter.source, chapter.settings, volume_figures.voxel_weights, seen, reference, maps)
    return chapter.about_shown()


def with_soft_dice(chapter: Chapter) -> pd.DataFrame:
    """The scores of each patient and method, averaged over seeds, with a column ``Loss_dice`` (see `soft_dice`)."""
    return evaluation.over_seeds(chapter.scores()).merge(soft_dice(chapter), on=["patient", "method"])


def soft_dice(chapter: Chapter) -> pd.DataFrame:
    """``Loss_dice`` of each patient and method, on merged probabilities on the grid of the patient.

    ``1 - (2 sum p g + 1) / (sum p + sum g + 1)``, mean over seeds; the sums go over all cases of a patient.

    Returns:
        Columns ``patient``, ``method`` and ``Loss_dice``, for the first structure, doubtful labels left out.
    """
    # SILENT: Chen 2020, Loss_dice of Table I for a patient or a window; a patient, on merged probabilities.
    # DIFFERS: Chen 2020, the smoothing stands outside the factor 2, as in training.
    structure, sums = chapter.structures[0], []
    for record in chapter.found:
        for name in chapter.prepared.cases_of(record.config["fold"]["test"], include_suspect=False):
            case = chapter.prepared.case(name)
            if structure not in case.not_contoured:
                parts = overlap_sums(record.prediction(name)[1][0], chapter.masks(name)[structure])
                sums.append((case.patient, record.config["method"]["name"], record.config["seed"], *parts))
    columns = ["patient", "method", "seed", "both", "either"]
    totals = pd.DataFrame(sums, columns=columns).groupby(columns[:3])[columns[3:]].sum()
    loss = 1 - (2 * totals.both + 1) / (totals.either + 1)
    return loss.groupby(["patient", "method"]).mean().rename("Loss_dice").reset_index()


def overlap_sums(probability: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Sum of the probability inside a mask, and sum of both."""
    return float(probability[mask].sum(dtype=float)), float(probability.sum(dtype=float) + mask.sum())


# Guo 2021


def maps_of_training_patients(chapter: VolumeChapter, coarse: str, refined: str, count: int = 4) -> Markdown:
    """Maps that a network makes of patients it was trained on, and maps by networks that were not, of the same.

    A table over the first ``count`` training cases of the first fold, and the first of them as a picture.

    Args:
        coarse: the method that makes the maps.
        refined: the method that uses them.
    """
    second, first = chapter.more(refined, coarse)
    kept, network = load_data(second, chapter.prepared).maps, load_network(first)
    data, device = load_data(first, chapter.prepared), next(network.parameters()).device
    activation, structure = chapter.paper.method(coarse).activation, chapter.structures[0]
    rows, shown = [], {}
    for case in chapter.prepared.cases_of(second.config["fold"]["train"], include_suspect=False)[:count]:
        own = data.predict(network, case, activation=activation, batch_size=16, device=device)[0].numpy()
        with np.load(kept[case]) as arrays:
            other = arrays["probability"][0] / 255
        truth = chapter.masks(case)[structure]
        means = [one[truth].mean() if truth.any() else np.nan for one in (own, other)]
        rows.append((case, *(overlap.count(one > 0.5, truth).dsc for one in (own, other)), *means))
        z = int(truth.sum(axis=(1, 2)).argmax())
        maps = {"image": chapter.image(case)[z], "trained on it": own[z], "not trained on it": other[z]}
        shown = shown or {"maps": maps, "truth": truth[z]}
    title = chapter.paper.method(coarse).title
    names = ["case", "DSC, trained on it", "DSC, not trained on it", "mean probability in it, trained", "not trained"]
    caption = f"{title} on training patients of one fold ({chapter.made})"
    display(tables.show(pd.DataFrame(rows, columns=names), caption))
    maps, drawn = shown["maps"], tuple(shown["maps"])[1:]
    figures.show_images(chapter.source, chapter.settings, figures.maps, maps, shown["truth"], drawn)
    return Markdown(f"*{rows[0][0]}, {structure} ({chapter.made}).*")


def against_two_observers(chapter: VolumeChapter, agreement: float) -> pd.DataFrame:
    """Mean DSC of each method against the reference, and against a second observer, who is simulated.

    Args:
        agreement: DSC of that observer with the reference, above 0 and below 1.

    Returns:
        Columns ``method`` (title), ``cases``, ``reference``, ``second`` and ``observers`` (the two with each other),
        for the first structure and the first seed, doubtful labels left out.
    """
    structure, rows, others = chapter.structures[0], [], {}
    for record in filter(chapter.first, chapter.found):
        for case in chapter.prepared.cases_of(record.config["fold"]["test"], include_suspect=False):
            truth = chapter.masks(case)[structure]
            if case not in others:
                random = np.random.default_rng(len(others))
                spacing = chapter.prepared.case(case).spacing_mm
                others[case] = second_observer(truth, spacing, random, agreement)
            mask, other = record.prediction(case)[0] == 1, others[case]
            scores = [overlap.count(*pair).dsc for pair in ((mask, truth), (mask, other), (truth, other))]
            rows.append((record.config["method"]["title"], case, *scores))
    frame = pd.DataFrame(rows, columns=["method", "case", "reference", "second", "observers"])
    means = frame.groupby("method", sort=False)[["reference", "second", "observers"]].mean()
    means.insert(0, "cases", frame.groupby("method", sort=False).size())
    return means.reset_index()

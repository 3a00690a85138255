"""A paper's page as a lesson: the parts that all five have in common, so that a notebook holds the story alone.

A paper gives what only it knows: under ``lesson`` and ``equations`` in its ``paper.yaml``, and in its ``chapter.py``
a function for its inner maps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Markdown
from markupsafe import Markup

from npcrepro.base.wording import in_words, plural, span
from npcrepro.book import tables
from npcrepro.book.chapter import Chapter
from npcrepro.book.figures import charts, slices, style
from npcrepro.book.figures.style import Picture
from npcrepro.book.html import viewer, volume_files
from npcrepro.book.lesson import result
from npcrepro.book.lesson.architecture import architecture, blocks_of
from npcrepro.book.lesson.diagram import Diagram, drawing
from npcrepro.book.parts import frame
from npcrepro.book.published import PublishedResults, published_line
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.findings import audit
from npcrepro.protocol import registry
from npcrepro.protocol.method import Method, Stage
from npcrepro.protocol.settings import Settings
from npcrepro.runs.predict import read_run
from npcrepro.runs.published import RESULTS
from npcrepro.runs.weights import published_weights
from npcrepro.statistics import Summary, summarise

# Rows of the box of a summary, in this order: key in ``paper.yaml`` to the word on the page.
BOX = {
    "target": "what is outlined",
    "images": "images",
    "voxels": "voxels",
    "patients": "patients",
    "matrix": "network input",
    "width": "channels of the network",
    "updates": "updates of training",
}
WORDS = Markup(
    '<p>Fold, seed, profile, record, p and other words are <a href="../book/words.html">explained here</a>.</p>'
)
# Said of differences whose interval excludes 0.
AGREE = "These 95 % intervals over patients exclude 0, and all seeds agree in sign:"
DISAGREE = "These 95 % intervals over patients exclude 0, but seeds disagree in sign, so nothing is decided:"
ONE_SEED = "These 95 % intervals over patients exclude 0, but rest on one seed:"
TEST_DISAGREES = (
    "These 95 % intervals over patients exclude 0, but p, corrected for the number of differences (Holm), is above "
    f"{tables.ALPHA:g}:"
)
SHARED_SEEDS = (
    "A difference uses only the seeds that both methods have, so it can differ from the difference of the means above. "
    "If it is much smaller over all seeds, it depends on which seeds are shared."
)


class Lesson:
    """The lesson on the paper of a chapter.

    Args:
        chapter: the paper on the cohort of the settings, which the last section trains.

    Attributes:
        about: the entry ``lesson`` of ``paper.yaml``: ``sample`` (a sample cohort), ``structures`` (of it, in the
            paper's order, where names differ), ``channels`` (of it and of the record, likewise), ``method`` (whose
            published weights the pictures are of; until there are some, its run for this page stands in), ``box`` (see
            `BOX`), ``idea`` (a drawing) and ``blocks`` (method to the modules that are drawn).
        paper: with these channels.
        published: the record that the page compares with the paper: that of the entry ``lessons``, in its ``region``.
    """

    def __init__(self, chapter: Chapter):
        self.chapter, self.settings = chapter, chapter.settings
        self.about = chapter.reported["lesson"]
        # With the channels of the sample and of the record, whatever the settings name.
        self.paper = registry.load(chapter.paper.key, self.about.get("channels", ())).at(self.settings.profile)
        usual = chapter.reported["lessons"]
        self.published = PublishedResults(self.paper, RESULTS / usual["record"], usual["region"])

    # Summary

    def box(self) -> HTML:
        """What the paper had and what the published runs had, side by side."""
        theirs, record = self.about["box"], self.published.published
        run, folds, sides = record.runs[0], record.folds.values(), self.published.sides_of_voxels
        size, first = run["profile"], record.methods[self.published.methods[0]]
        channels = in_words(run["substituted"].get(name, name) for name in first["channels"])
        tested = self.published.patients.patient.nunique()
        full = "our full size" if theirs["width"].startswith("not stated") else "the paper's"
        ours = {
            "target": in_words(self.published.structures),
            "images": f"{channels} (cohort {run['cohort']})",
            "voxels": f"{sides.replace(' x ', ' × ')} (z, y, x)" if sides else "size unknown",
            "patients": f"{tested} tested in {plural(len(folds), 'fold')}; "
            f"{span([len(fold['train']) for fold in folds])} in each training set",
            "matrix": " × ".join(map(str, size["matrix"])),
            "width": f"{size['width']:g} of {full}",
            "updates": f"{size['updates']:,}, each on {size['batch_size']} samples"
            + "; the stages of a network share them" * (len(first["stages"]) > 1),
        }
        rows = [(word, str(theirs[key]), ours[key]) for key, word in BOX.items()]
        box = frame(rows, ("", "the paper", "here"), "The paper and the runs behind this page") + WORDS
        if self.settings.cohort == Settings.cohort:
            return HTML(box)
        mine, others = escape(self.chapter.prepared.name), escape(run["cohort"])
        told = f"You gave the cohort <strong>{mine}</strong>. Its numbers are at the end of this page. "
        told += f"All other numbers are of published runs on {others}."
        return HTML(f"<p>{told}</p>{box}")

    def score(self, method: str, metric: str = "dsc") -> str:
        """``0.27 (0.21 to 0.33)``: mean of a metric over the patients of the record with its 95 % interval."""
        rows = self.published.averaged
        return tables.mean_and_interval(summarise(rows[rows.method == method][metric]))

    def beside(self, reported: Mapping[str, Mapping[str, float]], methods: Sequence[str]):
        """Reported numbers beside ours: a row for each metric, a column for the paper and for each of our methods.

        Args:
            reported: metric as records call it to ``{"title": word, "mean": number, "sd": number}``.
        """
        rows = []
        for metric, told in reported.items():
            row = {"metric": told["title"], "reported": f"{told['mean']:.2f} ± {told['sd']:.2f}"}
            rows.append(row | {style.titles(self.paper)[name]: self.score(name, metric) for name in methods})
        made = self.published.made
        caption = f"Mean over patients; ours with a 95 % interval. Other patients than the paper's ({made})"
        return tables.show(pd.DataFrame(rows), caption)

    # Network and training

    def drawing(self, name: str = "idea") -> Diagram:
        """The idea of the paper, or another drawing of its ``paper.yaml``."""
        return drawing(self.about[name])

    def architecture(self, method: str = "", title: str = "") -> Diagram:
        """The network at the paper's matrix and width; the proposed method's if none is named."""
        paper = self.chapter.paper
        chosen = paper.method(method) if method else paper.methods[0]
        return architecture(chosen, paper.profile("paper"), blocks_of(paper.key, chosen.name), title)

    def parts(self, method: str = "", stage: int = -1) -> tuple[Any, Method, Stage]:
        """What ten lines of PyTorch need to train: the samples, the method and its stage (the last).

        The samples are those of the sample cohort at the matrix of the profile: ``data.samples(cases)``,
        ``data.draw(samples, count, generator)``, ``data.batch(drawn)`` and ``data.finish(image)``; see
        :class:`npcrepro.sampling.samples.Data`.
        """
        prepared = prepare(read_cohort(self.about["sample"]), f"{self.settings.runs}/prepared")
        chosen = (self.paper.method(method) if method else self.paper.methods[0]).on(prepared.structures)
        structures = tuple(self.about.get("structures", chosen.structures))
        data = chosen.data.build(prepared, self.chapter.size.matrix, chosen.channels, structures)
        return data, chosen, chosen.stages[stage]

    # A result

    @cached_property
    def trained(self) -> result.Trained:
        """The published weights on the sample cohort; until there are some, the first run of the page."""
        key, wanted = self.paper.key, self.about.get("method")
        weights = {name: folder for name, folder in published_weights().items() if name.startswith(f"{key}/")}
        if weights:
            folder = weights.get(f"{key}/{wanted}") or next(iter(weights.values()))
            return result.on_samples(read_run(folder), self.about["sample"], self.settings.runs)
        found = self.chapter.found
        mine = [record for record in found if record.config["method"]["name"] == wanted]
        return result.of_page((mine or found)[0], self.chapter.prepared, self.settings.profile)

    def patients(self, **options) -> HTML | Markdown:
        """Best, median and worst patient; see :func:`npcrepro.book.lesson.result.patients`."""
        return self._shown(result.patients, **options)

    def inner_maps(self, maps: Callable, **options) -> HTML | Markdown:
        """The maps that are the idea; see :func:`npcrepro.book.lesson.result.inner_maps`."""
        return self._shown(result.inner_maps, maps=maps, **options)

    def browse(self, limits: tuple[float, float] | None = None) -> None:
        """The same patients to look around in, with the threshold to move; see `npcrepro.book.html.viewer`."""
        trained, title = self.trained, self.trained.record.method.title
        patients, several = [], len(trained.structures) > 1
        for place, case in trained.places.items():
            found = {title: trained.probabilities[case]}
            one = volume_files.patient_of(trained.cohort, case, found, trained.structures, limits=limits)
            mean = {f"DSC, mean of {len(trained.structures)} structures": f"{trained.dsc(case):.2f}"} if several else {}
            patients.append(replace(one, about={"place": place} | mean))
        colours = {volume_files.REFERENCE: style.REFERENCE, title: result.PREDICTION}
        thresholds = {title: trained.record.method.threshold}
        slices.show_images(trained.cohort, self.settings, viewer.show, patients, colours, thresholds)

    def _shown(self, draw: Callable[..., str], **options) -> HTML | Markdown:
        cohort = self.trained.cohort
        if not (cohort.publishable or self.settings.private):
            return Markdown(slices.withheld(f"{cohort.name} may not be published"))
        credit = f"Images: {cohort.reference} ({cohort.licence})" if cohort.licence else ""
        line = f"{self.trained.record.method.title}, {self.trained.where}. {credit}"
        return HTML(f'{draw(self.trained, **options)}<p class="npc-caption"><em>{escape(line)}</em></p>')

    # Charts

    def by_patient(self, *methods: str, reported: float | None = None) -> Picture:
        """A dot for each patient of the record with these methods, and the reported mean as a line."""
        rows = self.published.averaged
        rows = rows[rows.method.isin(methods or self.published.methods)]
        figure = charts.by_patient(rows, self.paper, printed=reported)
        titles, means = style.titles(self.paper), rows.groupby("method").dsc.mean()
        told = "; ".join(f"{titles[name]} {means[name]:.2f}" for name in style.methods_of(rows, self.paper))
        line = f" The dotted line is the reported mean of the proposed network, {reported}." * (reported is not None)
        return style.narrow(figure, f"DSC of {rows.patient.nunique()} patients, a dot each. Means: {told}.{line}")

    def differences(self, *pairs: tuple[str, str]) -> Picture:
        """The first of each pair minus the second on the same patients of the record, with 95 % intervals."""
        found = {tables.minus(self.paper, *pair): self.published.difference(*pair).difference for pair in pairs}
        told = "; ".join(f"{pair} {_interval(one)}" for pair, one in found.items())
        figure = charts.forest(found, "difference of the DSC", {})
        return style.narrow(figure, f"Differences of the DSC on the same patients with 95 % intervals: {told}.")

    @staticmethod
    def loop_text(losses: Sequence[torch.Tensor]) -> str:
        """What the loss did in a short training of ten updates or more: single batches differ, so five are averaged."""
        begin, end = (sum(loss.item() for loss in part) / 5 for part in (losses[:5], losses[-5:]))
        return (
            f"The mean loss of the first five updates is {begin:.3f}, that of the last five {end:.3f} "
            f"({len(losses)} updates)."
        )

    def differences_text(self, *pairs: tuple[str, str]) -> str:
        """Which of these differences of the DSC have an interval without 0, and whether test and seeds support it."""
        tests = {pair: self.published.difference(*pair) for pair in pairs}
        found = {pair: test.difference for pair, test in tests.items()}
        p_values = dict(zip(tests, tables.adjusted(list(tests.values())), strict=True))
        seeds = self.published.patients.groupby("method").seed.agg(frozenset)
        note = SHARED_SEEDS * any(seeds[first] != seeds[second] for first, second in pairs)
        clear = [pair for pair, one in found.items() if tables.side(one)]
        if not clear:
            who = "The interval holds 0" if len(pairs) == 1 else f"All {len(pairs)} intervals hold 0"
            return f"{who}: on these patients no difference is clear. {note}"
        ends = [end for pair in clear for end in (found[pair].low, found[pair].high)]
        # An end that is not 0 does not look like it.
        digits = next((digits for digits in (3, 4) if all(round(end, digits) for end in ends)), 5)
        told: dict[str, list[str]] = {AGREE: [], DISAGREE: [], ONE_SEED: [], TEST_DISAGREES: []}
        for pair in clear:
            signs = np.sign(self.published.by_seed(*pair).mean())
            kind = ONE_SEED if len(signs) == 1 else AGREE if signs.nunique() == 1 else DISAGREE
            kind = TEST_DISAGREES if p_values[pair] > tables.ALPHA else kind
            more = f"; {self.published.seed_by_seed(*pair)}" * (kind == DISAGREE)
            more += self.published.all_seeds_text(*pair)
            told[kind].append(f"* *{tables.minus(self.paper, *pair)}* {_interval(found[pair], digits)}{more}")
        lists = [f"{kind}\n\n{line}" for kind, lines in told.items() if (line := "\n".join(lines))]
        rest = len(pairs) - len(clear)
        left = "The other interval holds" if rest == 1 else f"The other {rest} intervals hold"
        others = f"{left} 0, so we cannot say which method is better. " if rest else ""
        return "\n\n".join([*lists, others + note])

    def learning_curves(self, *methods: str) -> Picture:
        """Training and validation loss of the runs of the page."""
        rows = self.chapter.results.history
        rows = rows[rows.method.isin(methods or list(rows.method))]
        names = in_words(style.titles(self.chapter.paper)[name] for name in style.methods_of(rows, self.chapter.paper))
        figure = charts.learning_curves(rows, self.chapter.paper)
        return style.narrow(figure, f"Training and validation loss over the updates, stage by stage, of {names}.")

    def folded(self, *parts) -> HTML:
        """Tables and charts of the runs of the page; to be unfolded where they only show that everything runs."""
        kind, title = "details", "Check that it runs: a few updates on synthetic images"
        if self.settings.cohort != Settings.cohort:
            kind, what = "details open", "Scores and losses" if len(parts) > 1 else "Scores"
            title = f"{what} on {escape(self.chapter.prepared.name)}"
        shown = "".join(part._repr_html_() for part in parts)
        return HTML(f"<{kind}><summary>{title}</summary>{shown}</details>")

    # Audit and provenance

    def audited(self, *keys: str):
        """Checks of the paper's own numbers as a table: what is reported, and what follows from it."""
        rows = [
            (one.check.key, one.check.claim, one.finding.verdict, one.finding.computed[0]) for one in audit.audit(keys)
        ]
        return tables.show(pd.DataFrame(rows, columns=["check", "reported", "verdict", "what the numbers say"]))

    def provenance(self) -> HTML:
        """Where the numbers come from, to be unfolded: the record, the weights and the runs of the page."""
        lines = [
            f"Published runs: {published_line(self.published.published)}.",
            f"Pictures: {self.trained.record.method.title}, {self.trained.where}.",
            f"Runs of this page: {self.chapter.made}, {self.chapter.seconds:.0f} s.",
            f"PyTorch {torch.__version__}, NumPy {np.__version__}, pandas {pd.__version__}.",
        ]
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        return HTML(f"<details><summary>Where the numbers of this page come from</summary><ul>{items}</ul></details>")


def _interval(found: Summary, digits: int = 2) -> str:
    return f"{found.mean:+z.{digits}f} ({found.low:+z.{digits}f} to {found.high:+z.{digits}f})"

"""What the chapters of the book share: a paper, the cohort of the settings, its runs, and the usual tables and figures.

A chapter is a notebook. It tells the story; what every story needs is here, so that the chapters cannot drift apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

from npcrepro.base.errors import InputError
from npcrepro.base.wording import middle, plural, seeds_line
from npcrepro.book import tables
from npcrepro.book.figures import slices, style
from npcrepro.book.html import viewer, volume_files
from npcrepro.book.html.filter_table import filter_table
from npcrepro.book.results import Results
from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.prepared import PreparedCohort, prepare
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.overlap import count
from npcrepro.protocol import registry
from npcrepro.protocol.method import Method, Paper, Profile
from npcrepro.protocol.settings import Settings
from npcrepro.runs import evaluation, records
from npcrepro.runs.plan import open_cohort
from npcrepro.runs.queue import run_paper
from npcrepro.runs.records import Record


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
        self.paper: Paper = registry.load(key, settings.modalities).at(settings.profile)
        self.reported = registry.reported(key)
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

    def gaps(self) -> HTML:
        """What the paper leaves open, and what is done here, to be unfolded."""
        rows = pd.DataFrame(self.reported["gaps"])
        title = f"{plural(len(rows), 'gap')}, and what is done here"
        return HTML(f"<details><summary>{title}</summary>{filter_table(rows, under='gap')}</details>")

    def images(self, count: int = 4, limits: tuple[float, float] | None = None) -> Markdown:
        """One slice of each of the first cases with the contours of the structures, and a line on the cohort."""
        shown = {}
        for name in self.prepared.case_names[:count]:
            z = self.largest_slice(name)
            shown[f"{name}, slice {z + 1}"] = (self.image(name)[z], self.drawn(name, z))
        slices.show_images(self.source, self.settings, slices.sheet, {"": shown}, limits, self.colours)
        samples = len(self.data.samples(self.prepared.case_names))
        kind = "slice" if len(self.size.matrix) == 2 else "sample"
        more = " ..." if len(self.structures) > 3 else ""
        return self.about_images(
            f"{plural(samples, kind)} with {' or '.join(self.structures[:3])}{more}; channel "
            f"{', '.join(self.data.channels)}; network input {' x '.join(map(str, self.size.matrix))}."
        )

    def about_images(self, told: str) -> Markdown:
        """A caption with what the cohort has and where its images come from."""
        counts = f"{plural(len(self.prepared.patients), 'patient')}, {plural(len(self.prepared.case_names), 'case')}"
        images = f"Images: {self.source.reference or 'no reference'} Licence: {self.source.licence or 'not stated'}."
        return Markdown(f"*{counts}, {told} {images}*")

    def masks(self, case: str) -> dict[str, np.ndarray]:
        """Reference masks ``(z, y, x)`` of a case by structure."""
        label = np.asarray(self.prepared.case(case).label)
        return {name: mask_of(label, self.prepared.structures, name) for name in self.structures}

    def drawn(self, case: str, z: np.integer | int) -> dict[str, np.ndarray]:
        """Reference masks ``(y, x)`` of the structures that a slice shows."""
        return {name: mask[z] for name, mask in self.masks(case).items() if mask[z].any()}

    @property
    def colours(self) -> dict[str, str]:
        """Colour of each structure, in all figures of the page."""
        return dict(zip(self.structures, style.structure_colours(self.structures), strict=True))

    def largest_slice(self, case: str) -> int:
        """Number of the slice with the most voxels of structures."""
        return int(sum(mask.sum(axis=(1, 2)) for mask in self.masks(case).values()).argmax())

    def image(self, case: str) -> np.ndarray:
        """Image ``(z, y, x)`` of a case, of the first channel of the proposed method."""
        return np.asarray(self.prepared.case(case).image[self.prepared.channels.index(self.data.channels[0])])

    def spacing_mm(self, case: str) -> Sequence[float]:
        """Spacing ``(z, y, x)`` of a case; ``nan`` where the cohort's is not known."""
        return self.prepared.case(case).spacing_mm if self.prepared.spacing_known else evaluation.UNKNOWN_SPACING

    def layers(self) -> Markdown:
        """The layers of the proposed method at the size of the paper, to be unfolded, and its size in this profile."""
        rows, here = (tables.layers(self.paper.methods[0], size) for size in (self.paper.profile("paper"), self.size))
        display(HTML(f"<details><summary>Layer by layer</summary>{tables.show(rows).to_html()}</details>"))
        return Markdown(
            f"{rows['parameters'].sum():,} parameters, {rows['MAC (millions)'].sum() / 1000:.2f} billion "
            f"multiply-accumulates for one input. At profile `{self.settings.profile}` the matrix is "
            f"{' x '.join(map(str, self.size.matrix))} and channel numbers are multiplied by {self.size.width:g}: "
            f"{here['parameters'].sum():,} parameters."
        )

    def methods(self, more: pd.DataFrame | None = None):
        """The methods of this page, with what ``more`` says of each; its first column has their titles."""
        rows = [(m.title, m.full_name, m.summary) for m in self.chosen]
        frame = pd.DataFrame(rows, columns=["legend", "method", "what it is"])
        if more is not None:
            frame = frame.merge(more.astype(object).rename(columns={more.columns[0]: "legend"}), how="left")
        return tables.show(frame)

    # Runs

    @cached_property
    def found(self) -> list[Record]:
        """The runs of the page, trained now or read back."""
        return run_paper(self.paper, self.settings)

    def more(self, *methods: str) -> list[Record]:
        """Runs of further methods on the first fold and with the first seed of this page."""
        first = self.found[0].config["fold"]["number"]
        settings = replace(self.settings, methods=methods, folds=(first,), seeds=self.settings.seeds[:1])
        return run_paper(self.paper, settings, report=lambda line: None)

    def first(self, record: Record) -> bool:
        """Whether a run is of the first seed."""
        return record.config["seed"] == self.settings.seeds[0]

    def first_fold(self) -> dict[str, Record]:
        """The record of each method on the first fold, with the first seed."""
        fold = self.found[0].config["fold"]
        return {r.config["method"]["name"]: r for r in self.found if r.config["fold"] == fold and self.first(r)}

    @cached_property
    def made(self) -> str:
        """What a caption says: profile, cohort, seeds, device and date."""
        provenance = self.found[0].provenance
        return (
            f"profile {self.settings.profile}, cohort {self.prepared.name}, {seeds_line(self.settings.seeds)}, "
            f"{provenance['device']}, {provenance['finished'][:10]}"
        )

    @cached_property
    def results(self) -> Results:
        """The scores and learning curves of the runs of the page, as tables and figures."""
        cases = records.concatenate(each.cases for each in self.found)
        history = records.concatenate(each.history for each in self.found)
        return Results(self.paper, cases, history, self.made)

    @property
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
        others = f", {more} of which others build on" if more else ""
        runs = plural(len(self.every_run), "run")
        return Markdown(f"{runs}{others} ({self.made}), {self.seconds:.0f} s of training and prediction in all.")

    # Patients

    def first_seed(self, region: str = "all_slices", structure: str = "") -> pd.DataFrame:
        """Rows of `Results.patients` of one structure (the first) in one region and with the first seed."""
        rows = self.results.only(region, structure or self.structures[0]).patients
        return rows[rows.seed == self.settings.seeds[0]]

    def ranked(self, region: str = "all_slices", structure: str = "") -> tuple[str, pd.DataFrame]:
        """The method with the best mean DSC (first seed), and its patients from best to worst; without one last."""
        rows = self.first_seed(region, structure)
        # Of a structure that no patient has, and no method marks, there is no DSC at all.
        leader = rows.groupby("method").dsc.mean().fillna(-1).idxmax()
        mine = rows[rows.method == leader].sort_values(["dsc", "patient"], ascending=[False, True])
        return leader, mine.reset_index(drop=True)

    def ranked_of_first_fold(self) -> list[str]:
        """Patients that the first fold tests, from best to worst by the DSC of the leading method."""
        _, ranked = self.ranked()
        return ranked.patient[ranked.patient.isin(self.found[0].config["fold"]["test"])].tolist()

    def middle_case(self) -> tuple[str, str]:
        """A case of the patient in the middle of `ranked_of_first_fold`, and where that patient stands, in words."""
        tested = self.ranked_of_first_fold()
        if not tested:
            raise InputError(f"{self.source.name}: no patient that the first fold tests has a structure that is scored")
        case = self.prepared.cases_of([tested[len(tested) // 2]])[0]
        return case, middle(len(tested), style.titles(self.paper)[self.ranked()[0]])

    def examples(self, region: str = "all_slices", structure: str = "") -> Markdown:
        """Best, middle and worst patient of the leading method, with the contours of all methods."""
        structure = structure or self.structures[0]
        leader, ranked, titles = *self.ranked(region, structure), style.titles(self.paper)
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
                if patient in record.config["fold"]["test"] and self.first(record)
            }
            box = slices.box_around([truth[z], slices.middle_half(truth[z].shape)])
            image = self.image(case)[z][box]
            rows[f"{word}: {patient}"] = {
                titles[name]: (image, {"Reference": truth[z][box], titles[name]: mask[box]})
                for name, mask in drawn.items()
            }
        colours = {"Reference": style.REFERENCE} | style.key(self.paper, list(drawn))
        slices.show_images(self.source, self.settings, slices.sheet, rows, colours=colours)
        by = f"ranked by the DSC of {titles[leader]} in {style.REGION_TITLES[region]}"
        return Markdown(f"*{structure}, {by} ({self.made}).*")

    def samples(self, count: int = 3) -> Markdown:
        """Slices of tested patients, evenly spaced over those that show a structure: reference and each method."""
        titles = style.titles(self.paper)
        cases = self.prepared.cases_of(self.found[0].config["fold"]["test"], include_suspect=False)
        places = [
            (case, z) for case in cases for z in np.flatnonzero(np.any([*self.masks(case).values()], axis=(0, 2, 3)))
        ]
        if not places:
            raise InputError(f"{self.source.name}: no patient that the first fold tests has a structure to show")
        rows = {}
        for part in range(count):
            case, z = places[int((part + 0.5) * len(places) / count)]
            row = {"Reference": (self.image(case)[z], self.drawn(case, z))}
            for method, label in self.labels(case).items():
                found = {name: label[z] == i for i, name in enumerate(self.structures, 1) if (label[z] == i).any()}
                row[titles[method]] = (self.image(case)[z], found)
            rows[f"{case}\nslice {z + 1}"] = row
        slices.show_images(self.source, self.settings, slices.sheet, rows, colours=self.colours)
        networks = plural(len(self.first_fold()), "network")
        return Markdown(f"*Reference and {networks} on {plural(count, 'slice')} of test patients ({self.made}).*")

    def labels(self, case: str) -> dict[str, np.ndarray]:
        """Label maps ``(z, y, x)`` of a case that the first fold tests, by method; structures count from 1."""
        return {name: record.prediction(case)[0] for name, record in self.first_fold().items()}

    def cases_shown(self, count: int = 3) -> list[str]:
        """Cases that the first fold tests, evenly spaced from best to worst by the DSC of the leading method; fewer
        where it tests fewer patients."""
        patients = self.ranked_of_first_fold()
        places = np.linspace(0, len(patients) - 1, min(count, len(patients))).round().astype(int)
        return [self.prepared.cases_of([patients[place]])[0] for place in places]

    def browse(self, *methods: str, count: int = 3, limits: tuple[float, float] | None = None) -> Markdown:
        """Tested patients (see `cases_shown`) to look around in on the page, see `npcrepro.book.html.viewer`.

        Args:
            methods: names, shown beside the leading method; without any, the first ones of the page. Those that were
                not run are left out.
            limits: intensities shown as black and white.
        """
        leader, runs, titles = self.ranked()[0], self.first_fold(), style.titles(self.paper)
        wanted = dict.fromkeys((leader, *(methods or runs)))
        names = [name for name in wanted if name in runs][: volume_files.MOST_OUTLINES - 1]
        patients = []
        for case in self.cases_shown(count):
            maps = {titles[name]: runs[name].prediction(case)[1] for name in names}
            given = self.structures, self.data.channels, limits
            patients.append(volume_files.patient_of(self.prepared, case, maps, *given))
        colours = {volume_files.REFERENCE: style.REFERENCE} | style.key(self.paper, names)
        thresholds = {titles[name]: self.paper.method(name).threshold for name in names}
        slices.show_images(self.source, self.settings, viewer.show, patients, colours, thresholds)
        which = "all" if len(patients) < count else "from best to worst of those"
        return Markdown(f"*{plural(len(patients), 'patient')}, {which} that the first fold tests ({self.made}).*")

    def by_slice(self, *methods: str) -> pd.DataFrame:
        """DSC of each slice that shows the first structure: columns patient, slice, method, dsc; first seed."""
        rows = []
        for name, case, label in self.predictions():
            truth, patient = self.masks(case)[self.structures[0]], self.prepared.case(case).patient
            for z in np.flatnonzero(truth.any(axis=(1, 2))) if name in methods else ():
                rows.append((patient, f"{case} {z}", name, count(label[z] == 1, truth[z]).dsc))
        return pd.DataFrame(rows, columns=["patient", "slice", "method", "dsc"])

    def predictions(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """Method, case and label map ``(z, y, x)`` of all tests with the first seed, doubtful labels left out."""
        for record in filter(self.first, self.found):
            for case in self.prepared.cases_of(record.config["fold"]["test"], include_suspect=False):
                yield record.config["method"]["name"], case, record.prediction(case)[0]

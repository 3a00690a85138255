"""What the chapters on volumes share beyond `chapter`: one patient in three planes, errors, surfaces."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

from npcrepro.base.wording import percent, plural
from npcrepro.book import tables
from npcrepro.book.chapter import Chapter
from npcrepro.book.figures import slices, style, surfaces
from npcrepro.models.layers import receptive_field

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
        """One slice of the first cases in all MRI sequences of the proposed method, and how the windows lie."""
        channels = {name: self.prepared.channels.index(name) for name in self.data.channels}
        rows = {}
        for case in self.prepared.case_names[:count]:
            z, image = self.largest_slice(case), self.prepared.case(case).image
            rows[f"{case}, slice {z + 1}"] = {
                name: (np.asarray(image[number, z]), self.drawn(case, z)) for name, number in channels.items()
            }
        slices.show_images(self.source, self.settings, slices.sheet, rows, colours=self.colours)
        outside = [share for name in self.prepared.case_names for share in self.data.share_outside(name).values()]
        largest = f"at most {percent(np.nanmax(outside), 1)}" if not np.isnan(outside).all() else "nothing"
        windows = plural(len(self.data.samples(self.prepared.case_names)), "window")
        return self.about_images(
            f"{windows} of {' x '.join(map(str, self.size.matrix))} voxels; {largest} of a case's reference lies "
            "outside its region and cannot be found."
        )

    def sizes(self) -> pd.DataFrame:
        """Parameters and multiply-accumulates of one input for each method that is trained, at the paper's size."""
        rows = []
        for method in (method for method in self.chosen if method.stages):
            layers = tables.layers(method, self.paper.profile("paper"))
            macs = layers["MAC (millions)"].sum() / 1000
            rows.append((method.title, len(method.channels), layers["parameters"].sum(), macs))
        return pd.DataFrame(rows, columns=["network", "series", "parameters", "billion multiply-accumulates"])

    def receptive_fields(self, *methods: str, side: int = 144) -> pd.DataFrame:
        """Voxels along an axis that one logit of each method (those of the page that are trained) depends on, counted
        up to ``side``."""
        chosen = [self.paper.method(name) for name in methods] or [method for method in self.chosen if method.stages]
        rows = []
        for method in chosen:
            # The field does not depend on the width. A row along one axis shows as much of it as a cube.
            seen, *_ = receptive_field(method.build(SLIM), method.in_channels, (side, 8, 8))
            rows.append((method.title, f"{seen}" if seen < side else "all"))
        return pd.DataFrame(rows, columns=["network", "voxels in sight along an axis"])

    def seconds_for_a_patient(self) -> pd.DataFrame:
        """Time to predict one patient, mean over the patients of its fold, with the number of windows."""
        rows = []
        for record in filter(self.first, self.found):
            cases = self.prepared.cases_of(record.config["fold"]["test"])
            windows = len(self.data.samples(cases)) / len(cases)
            seconds = record.provenance["seconds"]["predict"] / len(cases)
            rows.append((record.config["method"]["title"], len(cases), windows, seconds, record.provenance["device"]))
        columns = ["method", "cases", "windows of a case", "seconds for a case", "device"]
        groups = pd.DataFrame(rows, columns=columns).groupby(["method", "device"], sort=False)
        means = groups[columns[1:4]].mean().reset_index()[columns]
        whole = {"cases": int} | ({"windows of a case": int} if (means["windows of a case"] % 1 == 0).all() else {})
        return means.astype(whole)

    @cached_property
    def shown(self) -> Shown:
        """The patient of the first fold in the middle by the DSC of the leading method, with the masks of all."""
        return self._shown(self.middle_case()[0])

    def _shown(self, case: str) -> Shown:
        masks = {name: label == 1 for name, label in self.labels(case).items()}
        return Shown(case, self.image(case), self.masks(case)[self.structures[0]], masks, self.spacing_mm(case))

    def about_shown(self) -> Markdown:
        """What a caption says of the patient of `shown`."""
        return Markdown(f"*{self.shown.case}, {self.structures[0]}; {self.middle_case()[1]} ({self.made}).*")

    def planes(self, *methods: str) -> Markdown:
        """The patient of `shown` in three planes, with the contours of these methods."""
        _, image, reference, predictions, spacing = self.shown
        there = [name for name in methods if name in predictions]
        colours, titles = style.colours(self.paper, there), style.titles(self.paper)
        outlines = {"Reference": (reference, style.REFERENCE)}
        outlines |= {titles[name]: (predictions[name], colours[name]) for name in there}
        slices.show_images(self.source, self.settings, slices.planes, image, outlines, spacing)
        return self.about_shown()

    def surfaces(self, *methods: str) -> Markdown:
        """Surfaces of the reference and of these methods in the same patient."""
        case, _, reference, predictions, spacing = self.shown
        chosen = {name: predictions[name] for name in methods if name in predictions}
        surfaces.surfaces(case, reference, chosen, spacing, self.paper)
        plt.show()
        return self.about_shown()

    def errors(self) -> Markdown:
        """The slice of the same patient with the largest reference, and the errors of every method."""
        slices.show_images(
            self.source, self.settings, slices.errors, {self.shown.case: self.shown[1:]}, ["axial"], self.paper
        )
        return self.about_shown()

    def errors_of_patients(self, *planes: str, count: int = 3) -> Markdown:
        """Slices of the patients of `cases_shown` through the largest areas of the reference, in these planes (axial,
        coronal, sagittal), and the errors of every method."""
        volumes = {case: self._shown(case)[1:] for case in self.cases_shown(count)}
        slices.show_images(self.source, self.settings, slices.errors, volumes, planes, self.paper)
        patients = plural(len(volumes), "patient")
        which = "all" if len(volumes) < count else "from best to worst of those"
        told = f"{self.structures[0]}, {patients}, {which} that the first fold tests. Numbers: DSC of the slice"
        return Markdown(f"*{told} ({self.made}).*")

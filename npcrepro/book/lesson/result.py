"""One trained network on patients that a reader may see: best, median and worst, its errors, and its inner maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from npcrepro.base.colours import METHODS
from npcrepro.base.wording import in_words
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import ERRORS, box_around, cubes, grey, largest_slices, middle_half
from npcrepro.book.parts import colour_key, data_uri, outline, panel
from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import PreparedCohort, prepare
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.overlap import count
from npcrepro.models.outputs import decide
from npcrepro.runs import predict
from npcrepro.runs.evaluation import UNKNOWN_SPACING
from npcrepro.runs.records import Record
from npcrepro.runs.run import load_data, load_network
from npcrepro.runs.validated import keep_largest, read_choices

PREDICTION = METHODS[2]  # outline beside that of the reference; no colour of an error
LARGEST = 320  # pixels of the longer side of a panel
STYLE = """
.npc-result { display: grid; gap: 0.4rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.npc-result { margin-bottom: 1rem; }
.npc-result figure { margin: 0; max-width: 22rem; }
.npc-result svg { background: #000; display: block; width: 100%; }
.npc-result figure figcaption { color: inherit; font-size: 0.85rem; line-height: 1.25; text-align: left; }
"""
# Image (y, x), reference (y, x), and title to map (y', x') in [0, 1], which may be coarser.
Maps = tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with the patients that it is shown on.

    Attributes:
        record: of the run; for maps of another run, with the runs that it uses.
        cohort: prepared, with references.
        cases: to choose from.
        where: the weights and the patients, in words, for captions.
        stored: read the predictions of the record; else they are computed.
    """

    record: Record
    cohort: PreparedCohort
    cases: tuple[str, ...]
    where: str
    stored: bool = False

    @cached_property
    def network(self):
        """The network in evaluation mode on the CPU."""
        return load_network(self.record)

    @cached_property
    def data(self):
        """The cases as the network sees them; on a sample cohort without the maps of other runs (see `makers`)."""
        if self.stored:
            return load_data(self.record, self.cohort)
        return predict.data_of(self.record, self.cohort)

    @cached_property
    def makers(self) -> list[Trained]:
        """The networks whose maps this one takes in, on the same cases; empty for most."""
        return [replace(self, record=maker, stored=False) for maker in predict.makers_of(self.record)]

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """Names in the order of the network's outputs."""
        return predict.method_of(self.record).structures

    @cached_property
    def probabilities(self) -> dict[str, np.ndarray]:
        """Case to the probability of each structure, ``(S, z, y, x)`` float32 in [0, 1]."""
        if self.stored:
            return {case: self.record.prediction(case)[1] for case in self.cases}
        from npcrepro.runs.devices import make_fabric

        with TemporaryDirectory() as work:
            found = predict.probabilities_of(self.record, self.cohort, Path(work), make_fabric("cpu"))
            return {case: probability.numpy() for case, probability in found if case in self.cases}

    def label(self, case: str) -> np.ndarray:
        """What the network marks, ``(z, y, x)``: 0 for background, structures count from 1."""
        import torch

        decided = decide(torch.from_numpy(self.probabilities[case][None]), self.record.method.threshold)[0].numpy()
        choices = read_choices(self.record.folder / "validated.json")
        return keep_largest(decided.astype(np.uint8), choices, self.structures)

    def reference(self, case: str) -> dict[str, np.ndarray]:
        """Mask ``(z, y, x)`` of each structure."""
        label = np.asarray(self.cohort.case(case).label)
        return {name: mask_of(label, self.cohort.structures, name) for name in self.structures}

    def dsc(self, case: str) -> float:
        """Mean over the structures that the reference or the network has; ``nan`` without any."""
        label = self.label(case)
        return _dsc([(label == n, mask) for n, mask in enumerate(self.reference(case).values(), 1)])

    @cached_property
    def places(self) -> dict[str, str]:
        """``"Best"``, ``"Median"`` and ``"Worst"`` to the case, by `dsc`; with fewer than three cases as many."""
        ranked = sorted(self.cases, key=lambda case: (-np.nan_to_num(self.dsc(case), nan=-1.0), case))
        if len(ranked) < 2:
            return {"Only case": ranked[0]}
        middle = {"Median": ranked[len(ranked) // 2]} if len(ranked) > 2 else {}
        return {"Best": ranked[0], **middle, "Worst": ranked[-1]}

    def slice_of(self, case: str) -> int:
        """The slice with the largest area of all structures."""
        return largest_slices(np.any([*self.reference(case).values()], axis=0))[0]


def on_samples(record: Record, sample: str, runs: str | Path) -> Trained:
    """A network on all patients of a sample cohort.

    Args:
        record: of a run, or published weights.
        sample: ``"sample-t2"``, ``"sample-ct"`` or ``"sample-sarcoma"``.
        runs: folder of runs; the prepared cohort is put there.
    """
    cohort: Cohort = read_cohort(Path(sample))
    prepared = prepare(cohort, Path(runs) / "prepared")
    fold = record.config["fold"]
    seen = sorted(set(prepared.patients) & {*fold["train"], *fold["validation"]})
    told = f"{in_words(seen)} trained it, so that its Dice there is too good" if seen else "none of whom trained it"
    where = f"published weights on the patients of {sample}, {told}"
    return Trained(record, prepared, tuple(prepared.case_names), where)


def of_page(record: Record, cohort: PreparedCohort, profile: str) -> Trained:
    """A network on the patients that its own run tests."""
    cases = cohort.cases_of(record.config["fold"]["test"])
    where = f"trained for this page at profile {profile} on {cohort.name}: too briefly to judge the method by it"
    return Trained(record, cohort, tuple(cases), where, stored=True)


def _dsc(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean DSC of pairs of masks, without those that are both empty."""
    known = [value for pair in pairs if not np.isnan(value := count(*pair).dsc)]
    return float(np.mean(known)) if known else float("nan")


# --- Panels --------------------------------------------------------------------------------------------------------


def patients(trained: Trained, limits: tuple[float, float] | None = None, channel: int | str = 0) -> str:
    """HTML with best, median and worst patient: the reference, what the network marks, its errors and its probability.

    Args:
        limits: intensities shown as black and white; by default the tails of the slice.
        channel: of the image, by number or name.
    """
    colours = dict(zip(trained.structures, style.structure_colours(trained.structures), strict=True))
    one = len(colours) == 1
    of_network = dict.fromkeys(colours, PREDICTION) if one else colours
    number = channel if isinstance(channel, int) else trained.cohort.channels.index(channel)
    parts = []
    for place, case in trained.places.items():
        z, about, label = trained.slice_of(case), trained.cohort.case(case), trained.label(case)
        image, truth = about.image[number][z], {name: mask[z] for name, mask in trained.reference(case).items()}
        box = _square(box_around([*truth.values(), label[z] > 0, middle_half(image.shape)]), image.shape)
        spacing = cubes(about.spacing_mm if trained.cohort.spacing_known else UNKNOWN_SPACING)[1:]
        truth = {name: mask[box] for name, mask in truth.items()}
        found = {name: label[z][box] == n for n, name in enumerate(truth, 1)}
        probability = trained.probabilities[case][:, z].max(axis=0)[box]
        ground = grey(image[box], limits)
        score = f"Dice of the slice {_dsc((found[name], mask) for name, mask in truth.items()):.2f}"
        outlines, drawn = (
            [(masks[name], of[name]) for name in masks] for masks, of in ((truth, colours), (found, of_network))
        )
        panels = [
            _panel(ground, outlines, "Reference", f"reference of {case}", spacing),
            _panel(ground, drawn, f"Network; {score}", f"what the network marks in {case}, {score}", spacing),
            _panel(_with_errors(ground, truth, found), [], "Errors", f"errors of the network in {case}", spacing),
            _panel(_viridis(probability), outlines, "Probability", f"probability map of {case}", spacing),
        ]
        whole = f"slice {z + 1} of {len(label)}, Dice of the volume {trained.dsc(case):.2f}"
        words = f"<strong>{place}</strong>: {escape(case)}, {whole if len(label) > 1 else 'a single slice'}"
        parts.append(f"<p>{words}</p>{_beside(panels)}")
    # Two lists: with many structures an outline and an error may share a colour.
    outlined = colour_key({"reference": style.REFERENCE, "network": PREDICTION} if one else colours)
    errors = f"<p>Errors: {colour_key(ERRORS)}, {_bar('probability', ('0', '1'))}</p>"
    return f"<style>{STYLE}</style>{''.join(parts)}<p>Outlines: {outlined}</p>{errors}"


def inner_maps(
    trained: Trained,
    maps: Callable[..., Maps],
    what: str = "probability",
    ends: tuple[str, str] = ("0", "1"),
) -> str:
    """HTML with the maps inside a network that are the idea of its paper, on one slice.

    Args:
        maps: called with ``(trained, case, z)``; returns image, reference and maps.
        what, ends: what the colours of the maps mean, and what 0 and 1 are, for the key.
    """
    case = next(iter(trained.places.values()))  # the best
    z = trained.slice_of(case)
    image, reference, found = maps(trained, case, z)
    return side_by_side({"Image": image}, found, reference, what, ends, f", slice {z + 1} of {case}")


def side_by_side(
    images: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray] | None = None,
    reference: np.ndarray | None = None,
    what: str = "probability",
    ends: tuple[str, str] = ("0", "1"),
    about: str = "",
) -> str:
    """HTML with images ``(y, x)`` of one slice, such as MRI sequences, and maps beside them.

    Args:
        maps: title to values in [0, 1], which may be coarser.
        reference: ``(y, x)``, drawn on all of them.
        what, ends: what the colours of the maps mean, and what 0 and 1 are, for the key.
        about: the slice, for the alternative texts.
    """
    shape = next(iter(images.values())).shape
    outlines = [] if reference is None else [(reference, style.REFERENCE)]
    shown = {title: grey(one) for title, one in images.items()} | {t: _viridis(m) for t, m in (maps or {}).items()}
    panels = [_panel(one, outlines, title, title + about, np.ones(2), shape) for title, one in shown.items()]
    key = [colour_key({"reference": style.REFERENCE})] * len(outlines) + ([_bar(what, ends)] if maps else [])
    return f"<style>{STYLE}</style>{_beside(panels)}<p>{', '.join(key)}</p>"


def _beside(panels: Iterable[str]) -> str:
    return f'<div class="npc-result">{"".join(panels)}</div>'


def _panel(
    pixels: np.ndarray,
    outlines: Iterable[tuple[np.ndarray, str]],
    title: str,
    alt: str,
    spacing_mm: Any,
    shape: tuple[int, ...] = (),
) -> str:
    """A picture with outlines, each a mask and its colour; the picture fills ``shape`` where it is coarser."""
    picture = Image.fromarray(pixels)
    rows, columns = shape or (picture.height, picture.width)
    picture.thumbnail((LARGEST, LARGEST))
    # Of a coarse map every pixel is seen, and a small picture is small anyhow.
    data = data_uri(picture.save, "webp", quality=85, lossless=max(picture.size) <= LARGEST // 2)
    paths = "".join(
        f'<path d="{outline(mask)}" stroke="{colour}" vector-effect="non-scaling-stroke"/>'
        for mask, colour in outlines
        if mask.any()
    )
    drawing = (
        f'<image width="{columns}" height="{rows}" preserveAspectRatio="none" style="image-rendering: pixelated" '
        f'href="{data}"/><g fill="none" stroke-width="1.8" transform="scale(.5)">{paths}</g>'
    )
    return panel(escape(title), alt, (rows, columns), spacing_mm, drawing)


def _viridis(values: np.ndarray) -> np.ndarray:
    return (255 * colormaps["viridis"](np.clip(values, 0, 1))[..., :3]).astype(np.uint8)


def _with_errors(ground: np.ndarray, truth: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> np.ndarray:
    """The slice with what was found, marked wrongly and missed; a voxel with another structure is marked wrongly."""
    pixels = np.stack([ground.astype(np.float32)] * 3, axis=-1)
    hit = np.any([truth[name] & mask for name, mask in found.items()], axis=0)
    marked, wanted = np.any([*found.values()], axis=0), np.any([*truth.values()], axis=0)
    for where, colour in zip((hit, marked & ~hit, wanted & ~marked), ERRORS.values(), strict=True):
        pixels[where] = 0.35 * pixels[where] + 0.65 * 255 * np.array(to_rgb(colour))
    return pixels.astype(np.uint8)


def _square(box: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A box made as long along each axis as along the longer one, as far as the image goes."""
    side = max(each.stop - each.start for each in box)
    starts = [
        max(0, min((each.start + each.stop - side) // 2, size - side)) for each, size in zip(box, shape, strict=True)
    ]
    return tuple(slice(start, min(size, start + side)) for start, size in zip(starts, shape, strict=True))


def _bar(what: str, ends: tuple[str, str]) -> str:
    """A bar with the colours of maps from one end to the other."""
    stops = ", ".join(to_hex(colormaps["viridis"](step / 4)) for step in range(5))
    bar = f"display: inline-block; width: 6rem; height: .7em; background: linear-gradient(90deg, {stops})"
    low, high = map(escape, ends)
    colours = f'{low} <span aria-hidden="true" style="{bar}"></span> {high}'
    return f'<span style="white-space: nowrap">{escape(what)} {colours}</span>'

"""One trained network on patients that a reader may see: best, median and worst, its errors, and its inner maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from npcrepro.book.figures.slices import ERRORS, box_around, largest_slices
from npcrepro.book.html.parts import data_uri, outline, panel, swatch
from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import PreparedCohort, prepare
from npcrepro.cohorts.structures import mask_of
from npcrepro.metrics.overlap import count
from npcrepro.models.outputs import decide
from npcrepro.runs import predict
from npcrepro.runs.records import Record
from npcrepro.runs.run import load_data, load_network

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
        method = predict.method_of(self.record)
        return method.data.build(self.cohort, self.record.config["profile"]["matrix"], method.channels, self.structures)

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

        threshold = self.record.method.threshold
        return decide(torch.from_numpy(self.probabilities[case][None]), threshold)[0].numpy().astype(np.uint8)

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
    number = channel if isinstance(channel, int) else trained.cohort.channels.index(channel)
    parts = []
    for place, case in trained.places.items():
        z = trained.slice_of(case)
        about = trained.cohort.case(case)
        image = np.asarray(about.image[number][z], np.float32)
        truth = {name: mask[z] for name, mask in trained.reference(case).items()}
        label = trained.label(case)[z]
        found = {name: label == n for n, name in enumerate(truth, 1)}
        box = _square(box_around([*truth.values(), label > 0, _middle(label.shape)]), label.shape)
        spacing = np.nan_to_num(about.spacing_mm[1:] if trained.cohort.spacing_known else (np.nan, np.nan), nan=1.0)
        cut = {name: mask[box] for name, mask in truth.items()}
        drawn = {name: mask[box] for name, mask in found.items()}
        probability = trained.probabilities[case][:, z].max(axis=0)[box]
        grey = _grey(image[box], limits)
        one = len(truth) == 1
        second = dict.fromkeys(drawn, PREDICTION) if one else colours
        score = f"Dice of the slice {_dsc([(found[name], mask) for name, mask in truth.items()]):.2f}"
        panels = [
            _panel(grey, [(cut, colours)], spacing, "Reference", f"reference of {case}"),
            _panel(grey, [(drawn, second)], spacing, f"Network; {score}", f"what the network marks in {case}, {score}"),
            _panel(_with_errors(grey, cut, drawn), [], spacing, "Errors", f"errors of the network in {case}"),
            _panel(_viridis(probability), [(cut, colours)], spacing, "Probability", f"probability map of {case}"),
        ]
        depth = len(trained.label(case))
        whole = f"slice {z + 1} of {depth}, Dice of the volume {trained.dsc(case):.2f}"
        words = f"<strong>{place}</strong>: {escape(case)}, {whole if depth > 1 else 'a single slice'}"
        parts.append(f'<p>{words}</p><div class="npc-result">{"".join(panels)}</div>')
    # Two lists: with many structures an outline and an error may share a colour.
    outlines = _key({"reference": style.REFERENCE, "network": PREDICTION} if one else colours, before="Outlines: ")
    errors = _key(ERRORS, "probability", before="Errors: ")
    return f"<style>{STYLE}</style>{''.join(parts)}{outlines}{errors}"


def inner_maps(
    trained: Trained,
    maps: Callable[..., Maps],
    place: str = "Best",
    what: str = "probability",
    ends: tuple[str, str] = ("0", "1"),
) -> str:
    """HTML with the maps inside a network that are the idea of its paper, on one slice.

    Args:
        maps: called with ``(trained, case, z)``; returns image, reference and maps.
        place: of `Trained.places`; the first one if that is not there.
        what, ends: what the colours of the maps mean, and what 0 and 1 are, for the key.
    """
    case = trained.places.get(place) or next(iter(trained.places.values()))
    z = trained.slice_of(case)
    image, reference, found = maps(trained, case, z)
    outlines = ({"reference": reference}, {"reference": style.REFERENCE})
    panels = [_panel(_grey(image, None), [outlines], np.ones(2), "Image", f"slice {z + 1} of {case}")]
    for title, one in found.items():
        alt = f"{title}, a map of {case}"
        panels.append(_panel(_viridis(one), [outlines], np.ones(2), title, alt, reference.shape))
    key = _key({"reference": style.REFERENCE}, what, ends)
    return f'<style>{STYLE}</style><div class="npc-result">{"".join(panels)}</div>{key}'


def images(shown: Mapping[str, np.ndarray], reference: np.ndarray) -> str:
    """HTML with images ``(y, x)`` of one slice side by side, such as MRI sequences, and the reference on each."""
    outlines = [({"reference": reference}, {"reference": style.REFERENCE})]
    panels = [_panel(_grey(one, None), outlines, np.ones(2), title, title) for title, one in shown.items()]
    key = _key({"reference": style.REFERENCE})
    return f'<style>{STYLE}</style><div class="npc-result">{"".join(panels)}</div>{key}'


def targets(image: np.ndarray, maps: Mapping[str, np.ndarray], what: str = "share of tumour") -> str:
    """HTML with an image ``(y, x)`` and maps ``(y', x')`` in [0, 1] beside it, such as what a network is taught.

    Args:
        what: the values of the maps, for the key.
    """
    panels = [_panel(_grey(image, None), [], np.ones(2), "Image", "image")]
    panels += [_panel(_viridis(one), [], np.ones(2), title, title, image.shape) for title, one in maps.items()]
    key = _key({}, what)
    return f'<style>{STYLE}</style><div class="npc-result">{"".join(panels)}</div>{key}'


def _panel(
    picture: Image.Image,
    outlines: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, str]]],
    spacing_mm: Any,
    title: str,
    alt: str,
    shape: tuple[int, ...] = (),
) -> str:
    """A picture with outlines; the picture fills ``shape`` where it is coarser."""
    rows, columns = shape or (picture.height, picture.width)
    if max(picture.size) > LARGEST:
        picture = picture.copy()
        picture.thumbnail((LARGEST, LARGEST))
    # Of a coarse map every pixel is seen, and a small picture is small anyhow.
    data = data_uri(picture.save, "webp", quality=85, lossless=max(picture.size) <= LARGEST // 2)
    drawing = (
        f'<image width="{columns}" height="{rows}" preserveAspectRatio="none" style="image-rendering: pixelated" '
        f'href="{data}"/>'
    )
    for masks, colours in outlines:
        paths = "".join(
            f'<path d="{outline(mask)}" stroke="{colours[name]}" vector-effect="non-scaling-stroke"/>'
            for name, mask in masks.items()
            if mask.any()
        )
        drawing += f'<g fill="none" stroke-width="1.8" transform="scale(.5)">{paths}</g>'
    return panel(escape(title), alt, (rows, columns), spacing_mm, drawing)


def _grey(image: np.ndarray, limits: tuple[float, float] | None) -> Image.Image:
    low, high = limits or np.percentile(image, (0.5, 99.5))
    return Image.fromarray(np.clip((image - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8))


def _viridis(values: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * colormaps["viridis"](np.clip(values, 0, 1))[..., :3]).astype(np.uint8))


def _with_errors(grey: Image.Image, truth: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> Image.Image:
    """The slice with what was found, marked wrongly and missed; a voxel with another structure is marked wrongly."""
    pixels = np.stack([np.asarray(grey, np.float32)] * 3, axis=-1)
    hit = np.any([truth[name] & mask for name, mask in found.items()], axis=0)
    marked, wanted = np.any([*found.values()], axis=0), np.any([*truth.values()], axis=0)
    for where, colour in zip((hit, marked & ~hit, wanted & ~marked), ERRORS.values(), strict=True):
        pixels[where] = 0.35 * pixels[where] + 0.65 * 255 * np.array(to_rgb(colour))
    return Image.fromarray(pixels.astype(np.uint8))


def _middle(shape: tuple[int, ...]) -> np.ndarray:
    """The middle half of a slice, which is shown in any case."""
    middle = np.zeros(shape, bool)
    middle[tuple(slice(size // 4, size - size // 4) for size in shape)] = True
    return middle


def _square(box: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A box made as long along each axis as along the longer one, as far as the image goes."""
    side = max(each.stop - each.start for each in box)
    starts = [
        max(0, min((each.start + each.stop - side) // 2, size - side)) for each, size in zip(box, shape, strict=True)
    ]
    return tuple(slice(start, min(size, start + side)) for start, size in zip(starts, shape, strict=True))


def _key(entries: Mapping[str, str], maps: str = "", ends: tuple[str, str] = ("0", "1"), before: str = "") -> str:
    """What colours of outlines mean, and where there are maps a bar with their colours from one end to the other."""
    words = [f'<span style="white-space: nowrap">{swatch(of)} {escape(name)}</span>' for name, of in entries.items()]
    if maps:
        stops = ", ".join(to_hex(colormaps["viridis"](step / 4)) for step in range(5))
        bar = f"display: inline-block; width: 6rem; height: .7em; background: linear-gradient(90deg, {stops})"
        low, high = map(escape, ends)
        colours = f'{low} <span aria-hidden="true" style="{bar}"></span> {high}'
        words.append(f'<span style="white-space: nowrap">{escape(maps)} {colours}</span>')
    return f"<p>{before}{', '.join(words)}</p>"

"""What only the pages on Guo et al. 2021 show: blocks, the pyramid, the weight of the loss and the two maps; in the
appendix maps of training patients, how far networks came, and a second observer."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from npcrepro.base.wording import in_words, percent, plural
from npcrepro.book import tables
from npcrepro.book.figures import charts, slices, style
from npcrepro.book.figures.style import BLUE, FORBIDDEN, GREEN, NARROW_IN, VERMILION, Picture, axes, narrow
from npcrepro.book.lesson.result import Maps, Trained
from npcrepro.book.published import PublishedResults
from npcrepro.book.volume_chapter import VolumeChapter
from npcrepro.cohorts.phantom import second_observer
from npcrepro.findings.audit.checks import Reported
from npcrepro.losses.distance_weight import distance_weight
from npcrepro.metrics import overlap
from npcrepro.papers.guo2021 import audit
from npcrepro.runs.predict import data_of, method_of
from npcrepro.runs.records import quantised
from npcrepro.runs.run import load_data, load_network
from npcrepro.sampling.blocks import BlockData

AROUND = 8  # voxels that are shown around a tumour


def block_in_slice(data: BlockData, case: str) -> Picture:
    """A slice with the place of one block, and that block: all that a network sees at once."""
    generator = torch.Generator().manual_seed(0)
    z, y, x = data.draw(data.samples([case]), 1, generator)[0].corner
    depth, rows, columns = data.matrix
    z += depth // 2
    image, mask = data.image(case)[0][z], data.label(case)[0][z] == 1
    figure, (left, right) = axes(2.9, 2)
    limits = tuple(np.percentile(image, (0.5, 99.5)))
    slices.show_slice(left, image, [(style.REFERENCE, mask)], limits)
    left.add_patch(Rectangle((x - 0.5, y - 0.5), columns, rows, fill=False, edgecolor=VERMILION, linewidth=1.8))
    left.set_title(f"slice of {image.shape[1]} × {image.shape[0]} voxels", fontsize=9)
    inside = slice(y, y + rows), slice(x, x + columns)
    slices.show_slice(right, image[inside], [(style.REFERENCE, mask[inside])], limits)
    right.set_title(f"block of {columns} × {rows} × {depth} voxels", fontsize=9)
    for axis in (left, right):
        axis.set(xticks=[], yticks=[])
    side = data.grid(case).spacing_mm
    alt = (
        f"Left: an MRI slice of {case} with the outline of the tumour and a square of {columns} voxels "
        f"({columns * side:.0f} mm). Right: the square, enlarged. The network sees nothing else of the slice."
    )
    return narrow(figure, alt)


def taps(*rates: Sequence[int], block: Sequence[int] = (8, 24)) -> Picture:
    """Which voxels of a block (z, x) the kernels of each pyramid, of up to three rates, reach from its middle."""
    depth, width = block
    colours = (BLUE, GREEN, VERMILION)
    heights = [max(depth, 2 * max(pyramid)) for pyramid in rates]
    figure = Figure(figsize=(NARROW_IN, 0.5 * len(rates) + 0.085 * sum(heights)), layout="constrained")
    told = []
    for axis, pyramid in zip(figure.subplots(len(rates), 1, height_ratios=heights), rates, strict=True):
        axis.add_patch(Rectangle((-0.5, -0.5), width, depth, facecolor="0.93", edgecolor="0.3"))
        for rate, colour in zip(pyramid, colours, strict=False):
            steps = [(z, x) for z in (-rate, 0, rate) for x in (-rate, 0, rate)]
            places = np.array([(depth // 2 + z, width // 2 + x) for z, x in steps if z or x])
            inside = ((places >= 0) & (places < (depth, width))).all(axis=1)
            axis.scatter(*places[inside].T[::-1], color=colour, s=16, marker="s", label=f"rate {rate}")
            axis.scatter(*places[~inside].T[::-1], color=colour, s=16, marker="x")
            told.append(f"rate {rate}: {inside.sum()} of {inside.size} inside the block")
        axis.plot(width // 2, depth // 2, "ok", markersize=5)
        reach = max(depth // 2, max(pyramid)) + 1
        axis.set(xlim=(-7.5, width + 7.5), ylim=(depth // 2 + reach, depth // 2 - reach), aspect="equal")
        axis.set_axis_off()
        axis.legend(**charts.ABOVE, ncols=len(pyramid))
    alt = f"A block of {width} by {depth} voxels from the side, with taps of kernels in its middle. {'; '.join(told)}."
    return narrow(figure, alt)


def weights(data: BlockData, case: str) -> Picture:
    """The weight of the loss on the largest slice of a tumour, as reported and reversed."""
    mask, side = data.label(case)[0] == 1, data.grid(case).spacing_mm
    z = int(mask.sum(axis=(1, 2)).argmax())
    forms = {"as reported": "core", "reversed": "boundary"}
    volume = {title: distance_weight(mask, (side,) * 3, form) for title, form in forms.items()}
    ends = [np.flatnonzero(mask[z].any(axis=axis)) for axis in (1, 0)]
    box = tuple(slice(max(0, end[0] - AROUND), end[-1] + AROUND + 1) for end in ends)
    shown = {title: weight[z][box] for title, weight in volume.items()}
    figure = slices.voxel_weights(data.image(case)[0][z][box], mask[z][box], shown)
    figure.set_size_inches(NARROW_IN, 1.9)
    told = "; ".join(f"{title} at most {weight.max():.0f}" for title, weight in shown.items())
    alt = f"A tumour of {case} and two maps of weights, large in its core or, reversed, at its border: {told}."
    return narrow(figure, alt)


def maps(trained: Trained, case: str, z: int) -> Maps:
    """The maps of a slice, from first to last: coarse, fine, and fused; its own map alone for a network
    that uses no coarse one."""
    method = method_of(trained.record)
    channel = trained.cohort.channels.index(method.channels[0])
    image = np.asarray(trained.cohort.case(case).image[channel][z])
    reference = trained.reference(case)[trained.structures[0]][z]
    result = trained.probabilities[case][0, z]
    if not trained.makers:
        return image, reference, {method.title: result}
    coarse, profile = trained.makers[0].probabilities[case], trained.record.config["profile"]
    with TemporaryDirectory() as work:
        path = Path(work) / f"{case}.npz"
        np.savez(path, probability=quantised(torch.from_numpy(coarse)))
        data = data_of(trained.record, trained.cohort, maps={case: [path]}, fusion="fine")
        about = {"activation": method.activation, "batch_size": profile["batch_size"], "device": "cpu"}
        fine = data.predict(trained.network, case, **about).numpy()
    return image, reference, {"Coarse (BUNet)": coarse[0, z], "Fine (ACDNet)": fine[0, z], "Fused": result}


def maps_of_training_patients(chapter: VolumeChapter, coarse: str, refined: str, count: int = 4) -> Markdown:
    """Maps that a network (``coarse``) makes of patients it was trained on, and maps by networks that were not, which
    train the one that uses them (``refined``): a table of training cases of the first fold, and a picture of one."""
    second, first = chapter.more(refined, coarse)
    kept, network = load_data(second, chapter.prepared).maps, load_network(first)
    data, device = load_data(first, chapter.prepared), next(network.parameters()).device
    activation, structure = chapter.paper.method(coarse).activation, chapter.structures[0]
    rows: list[tuple] = []
    shown: dict[str, Any] = {}
    for case in chapter.prepared.cases_of(second.config["fold"]["train"], include_suspect=False)[:count]:
        own = data.predict(network, case, activation=activation, batch_size=16, device=device)[0].numpy()
        with np.load(kept[case][0]) as arrays:
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
    slices.show_images(chapter.source, chapter.settings, slices.maps, maps, shown["truth"], drawn)
    return Markdown(f"*{rows[0][0]}, {structure} ({chapter.made}).*")


def against_two_observers(chapter: VolumeChapter, agreement: float) -> pd.DataFrame:
    """Mean DSC of each method against the reference, against a second observer, who is simulated, and of the two with
    each other (``agreement``), for the first structure and seed; columns ``reference``, ``second``, ``observers``."""
    rows: list[tuple] = []
    others: dict[str, np.ndarray] = {}
    for name, case, label in chapter.predictions():
        truth, mask = chapter.masks(case)[chapter.structures[0]], label == 1
        if case not in others:
            random = np.random.default_rng(len(others))
            others[case] = second_observer(truth, chapter.prepared.case(case).spacing_mm, random, agreement)
        scores = [overlap.count(*pair).dsc for pair in ((mask, truth), (mask, others[case]), (truth, others[case]))]
        rows.append((chapter.paper.method(name).title, case, *scores))
    frame = pd.DataFrame(rows, columns=["method", "case", "reference", "second", "observers"])
    means = frame.groupby("method", sort=False)[["reference", "second", "observers"]].mean()
    means.insert(0, "cases", frame.groupby("method", sort=False).size())
    return means.reset_index()


def learning_state(results: PublishedResults) -> str:
    """How far the networks of a record came in their training, in words."""
    here, printed = results.published.runs[0]["profile"], results.paper.profile("paper")
    seen = here["updates"] * here["batch_size"] / (printed.updates * printed.batch_size)
    rows = results.history.sort_values("update")
    best = [run.validation_dsc.argmax() >= len(run) - 2 for _, run in rows.groupby(["method", "fold", "seed"])]
    more = ", so longer training might have helped them" if any(best) else ""
    return (
        f"Our networks have {here['width'] / printed.width:g} times the channels and saw {percent(seen, 1)} of the "
        f"blocks of the paper's training, as we read it (longer trainings saw more). {sum(best)} of {len(best)} "
        f"trainings were best at one of their last two checks{more}."
    )


def at_printed_size(printed: PublishedResults, short: PublishedResults, name: str, longer: str) -> str:
    """What a method reached at profile ``paper``, beside short trainings of it and ``longer`` ones on the patients that
    were tested there; and when its validation DSC was highest, with the learning rate and the loss of then and later.
    """
    tested = printed.published.cases.case.unique()
    same = short.over_structures[short.over_structures.patient.isin(tested)]
    ends = same.groupby(["method", "seed"]).dsc.mean()
    (low, high), (least, most) = ((ends[method].min(), ends[method].max()) for method in (name, longer))
    curve = printed.history[printed.history.method == name].set_index("update")
    best, half = curve.validation_dsc.idxmax(), curve.index[len(curve) // 2]
    (fold,) = printed.published.folds.values()
    validated = plural(len(fold["validation"]), "validation patient")
    title, times = printed.paper.method(name).title, printed.paper.method(longer).budget
    return (
        f"{title} reaches {printed.mean(name).mean:.2f}. On the same {len(tested)} patients short trainings of the "
        f"narrow {title} reach {low:.2f} to {high:.2f}. {plural(len(ends[longer]), 'training')} with {times:g} times "
        f"the updates reach {least:.2f} to {most:.2f}. The DSC of the {validated} is highest after {best:,} updates. "
        f"After {half:,} the learning rate has fallen to "
        f"{percent(curve.learning_rate[half] / curve.learning_rate.iloc[0], 1)} of its start, and the loss "
        f"of training falls only from {curve.loss[half]:.4f} to {curve.loss.iloc[-1]:.4f} in the rest."
    )


def f1_against_dsc(reported: Reported) -> Picture:
    """Guo: F1 against DSC; of the same masks they are equal."""
    rows = audit.rows(reported)
    figure, axis = axes(4.2)
    low, high = min(row["dsc"] for row in rows) - 0.02, max(row["f1"] for row in rows) + 0.02
    line = np.array([low, high])
    # The three networks in the middle are close together.
    places, words = {"CNN": (-30, -3), "ACDNet": (-46, 0)}, {"textcoords": "offset points", "fontsize": 9}
    axis.fill_between(line, low, line, label="no F1 of mean precision and recall", **FORBIDDEN)
    axis.plot(line, line, color="black", label="the same masks: F1 = DSC")
    for row in rows:
        axis.plot([row["dsc"]] * 2, [row["dsc"], row["f1"]], color=BLUE, linewidth=1.2)
        axis.annotate(row["model"], (row["dsc"], row["f1"]), places.get(row["model"], (8, -3)), **words)
    axis.plot([r["dsc"] for r in rows], [r["f1"] for r in rows], "o", color=VERMILION, markersize=7, label="reported")
    axis.set(xlabel="DSC (no unit)", ylabel="F1 (no unit)", xlim=(low, high), ylim=(low, high))
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    gaps = in_words([f"{row['model']} {row['f1'] - row['dsc']:+z.3f}" for row in rows])
    alt = (
        f"F1 against DSC. All rows lie above the diagonal on which F1 equals DSC, by {gaps}. An F1 made of the mean "
        "precision and the mean recall lies there."
    )
    return narrow(figure, alt)

"""What only the pages on Chen et al. 2020 show: its drawings, attention weights, the time for a patient, the soft Dice
loss, and what its published records lack."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from npcrepro.base.wording import in_words, percent, plural
from npcrepro.book.figures import charts
from npcrepro.book.figures.style import BLUE, GREEN, VERMILION, Picture, axes, narrow
from npcrepro.book.lesson import result
from npcrepro.book.lesson.result import Maps, Trained
from npcrepro.book.published import PublishedResults
from npcrepro.book.results import Results
from npcrepro.book.volume_chapter import VolumeChapter
from npcrepro.findings.audit.checks import Reported
from npcrepro.papers.chen2020 import audit
from npcrepro.papers.chen2020.network import FusionBlock
from npcrepro.papers.chen2020.protocol import SERIES
from npcrepro.runs.published import Published, choosing
from npcrepro.runs.records import CHOOSING
from npcrepro.runs.timing import time_case
from npcrepro.sampling.windows import WindowData

NO_BLOCKS = "*The network of this page has no fusion blocks.*"
# SILENT: Chen 2020, Loss_dice of Table I for a patient or a window; a patient, on merged probabilities.
# DIFFERS: Chen 2020, no smoothing in the number that is reported, where it would be one voxel among thousands.
SOFT_LOSS = "soft_dice_loss"  # column of records; those made before it was kept lack it


def series(data: WindowData, case: str) -> HTML:
    """The slice of a case with most tumour in each series, as the network sees it."""
    window = max(data.samples([case]), key=lambda sample: data.batch([sample])[1].eq(1).sum())
    image, label = (each[0].numpy() for each in data.batch([window]))
    z = int((label[0] == 1).sum(axis=(1, 2)).argmax())
    return HTML(result.side_by_side(dict(zip(data.channels, image[:, z], strict=True)), reference=label[0, z] == 1))


def fuses(trained: Trained) -> bool:
    """Whether a network has fusion blocks."""
    return any(isinstance(part, FusionBlock) for part in trained.network.modules())


def voxel_weights(trained: Trained, case: str, z: int) -> Maps:
    """Attention over voxels at each level on a slice, each map stretched from its lowest to its highest weight."""
    image, reference, pairs, place = _attention(trained, case, z)
    maps = {}
    for number, (_, voxels) in enumerate(pairs, 1):
        one = voxels[0, 0, place * voxels.shape[2] // image.shape[1]].numpy()
        low, high = float(one.min()), float(one.max())
        maps[f"Level {number}, {low:.3f} to {high:.3f}"] = (one - low) / max(high - low, 1e-6)
    return image[0, place], reference[place], maps


def channel_weights(trained: Trained) -> Picture:
    """Attention over the channels of each series at each level, of the case that has the best place."""
    case = next(iter(trained.places.values()))
    _, _, pairs, _ = _attention(trained, case, trained.slice_of(case))
    names = trained.data.channels
    weights = {
        f"level {number}": dict(zip(names, channels[0].reshape(len(names), -1).numpy(), strict=True))
        for number, (channels, _) in enumerate(pairs, 1)
    }
    means = "; ".join(
        f"{level}: {', '.join(f'{name} {values.mean():.2f}' for name, values in each.items())}"
        for level, each in weights.items()
    )
    return narrow(charts.channel_weights(weights), f"Weights of channels in {case}. Means, {means}.")


def _attention(trained: Trained, case: str, z: int):
    """Image ``(C, z, y, x)`` and reference ``(z, y, x)`` of the window around a slice, its weights of each level as
    :meth:`MMFNet.attention` gives them, and the place of the slice in the window."""
    depth = trained.data.matrix[0]
    window = min(trained.data.samples([case]), key=lambda sample: abs(sample.z + depth // 2 - z))
    image, label = trained.data.batch([window])
    place = min(max(z - window.z, 0), depth - 1)
    return image[0].numpy(), label[0, 0].numpy() == 1, trained.network.attention(trained.data.finish(image)), place


def steps(reported: Reported) -> Picture:
    """Chen: mean DSC as the fusion block grows, with and without self-transfer, as reported."""
    table = audit.rows(reported, "table2")
    parts = {
        audit.MULTI: "maps\nconcatenated",
        "Base MMFNet": "fusion\nblock",
        "MMFNet+multi-MLP": "+ MLP for\neach statistic",
        "MMFNet+multi-MLP+stdPool": "+ standard\ndeviation",
    }
    lines = {"encoders start at random": "", "with self-transfer": "+self-transfer"}
    figure, axis = axes(3.2)
    told = []
    for (label, ending), mark, colour in zip(lines.items(), "os", (BLUE, VERMILION), strict=True):
        found = {place: table[name + ending]["dsc"] for place, name in enumerate(parts) if name + ending in table}
        axis.plot(list(found), list(found.values()), f"{mark}-", color=colour, label=label)
        told.append(f"{label} {in_words([f'{dsc:.4f}' for dsc in found.values()])}")
    axis.set_xticks(range(len(parts)), list(parts.values()), fontsize=8)
    axis.set(ylabel="mean DSC, as reported (no unit)", xlim=(-0.4, len(parts) - 0.6))
    axis.legend(fontsize=8, frameon=False)
    return narrow(figure, f"Reported mean DSC from concatenation to the full fusion block: {'; '.join(told)}.")


def empty_window() -> Picture:
    """Chen: the loss of a window without tumour, over the voxels that are marked there by mistake."""
    marked = np.arange(0, 31)
    figure, axis = axes(3.0)
    printed, outside = (
        np.array([audit.printed_dice(0, n, 0, 1.0, factor) for n in marked.tolist()]) for factor in (2, 1)
    )
    axis.plot(marked, printed, color=VERMILION, label="as the paper has it")
    axis.plot(marked, outside, color=BLUE, label="ε outside the factor 2")
    axis.axhline(0, color="0.5", linestyle=":", label="a tumour found exactly")
    axis.set(xlabel="voxels marked in a window without tumour", ylabel="loss (no unit)")
    axis.legend(fontsize=8, frameon=False)
    alt = (
        f"Loss of a window without tumour. As the paper has it, it is {printed[0]:.0f} if no voxel is marked and "
        f"{printed[-1]:.2f} at {marked[-1]} voxels. With the smoothing outside the factor 2 it rises from "
        f"{outside[0]:.0f} to {outside[-1]:.2f}. A tumour that is found exactly has a loss of about 0."
    )
    return narrow(figure, alt)


def time_by_part(chapter: VolumeChapter, printed_seconds: float) -> Markdown:
    """Time of the proposed network for one case at the paper's size (at profile ``smoke`` at its own), by what it goes
    into, beside the printed one."""
    name = chapter.settings.profile
    size = replace(chapter.paper.profile(name if name == "smoke" else "paper"), batch_size=1)
    case, method = chapter.prepared.case_names[0], chapter.paper.methods[0]
    found = time_case(chapter.source, case, method, size, chapter.settings.device)
    parts = {"reading": found.reading, "the network": found.network, "merging": found.merging}
    told = in_words([f"{name} {took:.2f} s ({percent(took / found.seconds)})" for name, took in parts.items()])
    matrix, most = " x ".join(map(str, size.matrix)), max(parts, key=lambda name: parts[name])
    return Markdown(
        f"The proposed network takes {found.seconds:.2f} s for {case} ({plural(found.windows, 'window')} of {matrix}, "
        f"{found.device}, at {size.width:g} times the paper's width): {told}. Most of it goes into {most}. The paper "
        f"reports about {printed_seconds} s for a patient; the number of windows, and whether reading the images is "
        f"part of it, are not stated."
    )


def weights_line(results: PublishedResults) -> Markdown:
    """Which networks of two stages were tested with weights that today's rule, the best check of both stages, does not
    choose: older runs have those of the best check of their second stage."""
    history = results.published.history.set_index(["method", "fold", "seed"]).sort_index()
    changed = {}
    for run in results.published.runs:
        if len(results.published.methods[run["method"]]["stages"]) == 2 and choosing(run) != CHOOSING:
            checks = history.loc[[(run["method"], run["fold"], run["seed"])]]
            best = checks.groupby("stage", sort=False).validation_loss.min()
            if best.iloc[0] < best.iloc[1]:
                changed[f"*{results.paper.method(run['method']).title}*"] = True
    were, they, their = ("was", "it", "its") if len(changed) == 1 else ("were", "they", "their")
    told = f"{in_words(changed)} {were} trained under an older rule: {they} kept the best weights of {their} second "
    told += f"stage, although a check in the first was better. Read {their} differences with caution."
    return Markdown(told if changed else "All weights are those that the present rule chooses.")


SEEDS_OF_DEVICE = 5  # of a method on a device, from which on its means on two devices are compared
PRECISIONS = {"32-true": "fp32", "bf16-mixed": "mixed bf16"}


def machines(results: PublishedResults) -> Markdown:
    """Devices and precisions of the runs of a record, and how many took over encoders whose own runs are not in it.

    Methods with `SEEDS_OF_DEVICE` seeds or more on each of two devices show how far their means lie apart.
    """
    runs = results.published.runs
    told = in_words([f"{count} on {place}" for place, count in Counter(map(_place, runs)).most_common()])
    own = {run["config_sha256"][:8] for run in runs}
    others = sum(
        any(source.rsplit("_", 1)[1] not in own for used in run["used"].values() for source in used) for run in runs
    )
    encoders = f" {plural(others, 'run')} took over encoders from runs that are not in this record." if others else ""
    device_of = pd.DataFrame(runs)[["method", "seed", "device"]].drop_duplicates()
    rows = results.over_structures.merge(device_of)
    means = rows.groupby(["method", "device", "seed"]).dsc.mean().groupby(["method", "device"]).agg(["mean", "size"])
    wide = means[means["size"] >= SEEDS_OF_DEVICE]["mean"].unstack().dropna()
    if wide.empty or len(wide.columns) < 2:
        return Markdown(f"Runs: {told}.{encoders}")
    first, second, *_ = wide.columns
    apart, names = wide[first] - wide[second], [f"*{results.paper.method(one).title}*" for one in wide.index]
    verb, means_of = ("have", "Their mean") if names[1:] else ("has", "The mean")
    ends = " to ".join(dict.fromkeys(f"{end:+z.3f}" for end in (apart.min(), apart.max())))
    return Markdown(
        f"Runs: {told}.{encoders} Two arms of a comparison may differ in device and precision. {in_words(names)} "
        f"{verb} {SEEDS_OF_DEVICE} seeds or more on each. {means_of} DSC on {first} minus that on {second} is {ends}. "
        f"The seeds differ, so this is device and seed noise together."
    )


def _place(run: Mapping) -> str:
    return f"{run['device']} in {PRECISIONS.get(run['precision'], run['precision'])}"


# Small networks of the channel attention, in the order of `FusionBlock.mlps` with one for each statistic.
STATISTICS = ("average", "maximum", "standard deviation")


def silent_mlps(shown: Published, *others: Published) -> Markdown:
    """In how many trainings with the network and the images of MMFNet an MLP of the channel attention got no gradient
    when a stage began, and which did in the training of the weights that the page shows."""
    without = [
        {name.split(": ")[1] for name in run["without_gradient"] if ".mlps." in name}
        for record in (shown, *others)
        for run in record.runs
        if all(record.methods[run["method"]][key] == record.methods["mmfnet"][key] for key in ("network", "channels"))
    ]
    places = sorted({tuple(map(int, re.findall(r"\d+", name)[:2])) for name in without[0]})
    mine = in_words(f"the {STATISTICS[mlp]} at level {level + 1}" for level, mlp in places)
    return Markdown(
        f"* In {sum(map(bool, without))} of {len(without)} published trainings with the full block and three images, "
        f"at least one of the small networks (MLPs) of the channel attention got no gradient when a stage began: all "
        f"of its few hidden values were cut to 0 by their ReLU. Such an MLP adds the same constant for every image. "
        f"In the training of this page's weights, this holds for the MLPs of {mine}. The paper's r = 12 leaves 2 to "
        f"16 hidden values. Their activation and their start are our choice."
    )


def without_record(printed_tables: Mapping[str, Sequence[Mapping]], *records: Results) -> Markdown:
    """How many rows of each reported table have a published record, how many of these on the series of the paper, and
    which have none. Methods count by their titles."""
    titles = [{record.paper.method(name).title for name in record.methods} for record in records]
    found = set().union(*titles)
    own = set().union(*(t for t, r in zip(titles, records, strict=True) if r.paper.methods[0].channels == SERIES))
    lines = []
    for name, rows in printed_tables.items():
        printed = dict.fromkeys(row["model"] for row in rows)
        missing = [title for title in printed if title not in found]
        there = f"{len(printed) - len(missing)} of {len(printed)} reported rows have a record"
        on_series = f"{len(own & set(printed))} of these on {in_words(SERIES)}"
        lines.append(f"* {name}: {there}, {on_series}. Without a record: {', '.join(missing) or 'none'}.")
    return Markdown("\n".join(lines))


def gains(reported: Reported) -> Picture:
    """Chen: the nine gains of the text against Table I, and what self-transfer adds in each configuration."""
    found, printed = audit.recomputed_gains(reported), audit.printed_gains(reported)
    figure, (left, right) = axes(3.4, 2)
    marks = {"dsc": ("o", BLUE), "ap": ("s", GREEN), "loss_dice": ("^", VERMILION)}
    factor = {"dsc": 1, "ap": 1, "loss_dice": 100}
    for name, (mark, colour) in marks.items():
        x = [factor[name] * found[key][name] for key in found]
        y = [factor[name] * printed[key][name] for key in found]
        left.plot(x, y, mark, color=colour, label=audit.TITLES[name] + (" x 100" if name == "loss_dice" else ""))
    left.axline((0, 0), slope=1, color="0.5", linewidth=1, zorder=0)
    left.set(xlabel="from Table I (points)", ylabel="in the text (points)", title="Nine gains, reported twice")
    left.legend(fontsize=8, frameon=False)
    transfer = {name: 100 * gain for name, gain in audit.transfer_gains(reported).items()}
    right.bar(range(len(transfer)), transfer.values(), color=BLUE, width=0.6)
    for place, gain in enumerate(transfer.values()):
        right.annotate(f"{gain:.2f}", (place, gain), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    names = [name.removeprefix("MMFNet").lstrip("+").replace("+", "\n+ ") for name in transfer]
    right.set_xticks(range(len(names)), names, fontsize=8)
    right.margins(y=0.12)
    right.set(ylabel="gain of the DSC (points)", title="What self-transfer adds")
    shown = in_words([f"{name} {gain:.2f}" for name, gain in transfer.items()])
    alt = (
        "Left, nine gains of the text against the same recomputed from Table I: all lie on the diagonal. Right, the "
        f"gain from self-transfer in points of the DSC: {shown}."
    )
    return narrow(figure, alt)

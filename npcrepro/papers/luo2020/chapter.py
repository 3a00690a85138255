"""What only the chapter on Luo et al. 2020 shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import HTML
from torch.nn.functional import adaptive_avg_pool2d

from npcrepro import statistics
from npcrepro.base.wording import in_words, plural, signed, span
from npcrepro.book import tables
from npcrepro.book.figures import charts, style
from npcrepro.book.figures.style import FORBIDDEN, GREEN, VERMILION, Picture, axes, narrow
from npcrepro.book.lesson import result
from npcrepro.book.lesson.result import Maps, Trained
from npcrepro.book.published import PublishedResults
from npcrepro.book.results import Results
from npcrepro.findings import leakage
from npcrepro.findings.audit.checks import Reported, jsc_of
from npcrepro.papers.luo2020.audit import printed_dice
from npcrepro.papers.luo2020.network import MultiScalePooling
from npcrepro.protocol import registry
from npcrepro.protocol.method import Paper, Profile
from npcrepro.runs.published import RESULTS, Published
from npcrepro.sampling.slices import SliceData


def jsc_above_dsc(reported: Reported) -> Picture:
    """Luo: JSC against DSC with the region that no set of masks reaches."""
    table = reported["tables"]["table1"]
    dsc, jsc = (np.array([row[name] for row in table]) for name in ("dsc", "jsc"))
    figure, axis = axes(4.6)
    line = np.linspace(0.55, 0.95, 100)
    axis.fill_between(line, line, 1, label="no average of masks lies here", **FORBIDDEN)
    axis.fill_between(line, jsc_of(line), line, color=GREEN, alpha=0.35, linewidth=0, label="where averages can lie")
    axis.plot(line, jsc_of(line), color=GREEN, label="a single mask: J = D / (2 - D)")
    axis.plot(dsc, jsc, "o", color=VERMILION, markersize=7, label="Table 1")
    for row in table:
        axis.annotate(row["model"], (row["dsc"], row["jsc"]), (6, 4), textcoords="offset points", fontsize=9)
    axis.set(xlabel="DSC (no unit)", ylabel="JSC (no unit)", xlim=(0.62, 0.9), ylim=(0.45, 0.95))
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    points = in_words([f"{row['model']} DSC {row['dsc']:.4f} and JSC {row['jsc']:.4f}" for row in table])
    alt = (
        f"JSC against DSC of the four networks of Table 1: {points}. All lie above the diagonal, in the hatched region "
        "that no average of masks can reach."
    )
    return narrow(figure, alt)


def window_share(side: int, reach: int = 3) -> float:
    """Share of a map of ``side`` x ``side`` pixels that a window covers, ``reach`` pixels on each side of its middle;
    mean over the pixels that it is centred on.

    Example:
        >>> window_share(2), window_share(1)
        (1.0, 1.0)
    """
    places = np.arange(side)
    covered = np.minimum(places + reach, side - 1) - np.maximum(places - reach, 0) + 1
    return float((covered.mean() / side) ** 2)


GRID = 32  # pixels along a side of the coarsest map of stage 1, in the paper


def pooled(data: SliceData, case: str, z: int) -> HTML:
    """A slice on as many pixels as the coarsest map of stage 1 has, averaged by each window of the pooling block."""
    image = data.finish(data.inputs([(case, z)]))[:, :1]
    coarse = adaptive_avg_pool2d(image, GRID)
    maps = {
        f"Window of {pool.kernel_size} × {pool.kernel_size}": pool(coarse)[0, 0].numpy()
        for pool in MultiScalePooling(1).pools
    }
    return HTML(result.side_by_side({"Image": image[0, 0].numpy()}, maps, what="average"))


def two_maps(trained: Trained, case: str, z: int) -> Maps:
    """What stage 1 hands to stage 2 on a slice, and what stage 2 makes of it: the probability of any structure."""
    image, label = trained.data.batch([(case, z)])
    image = trained.data.finish(image)
    with torch.no_grad():
        coarse, fine = trained.network(image, output="both")
    maps = {"Stage 1: any structure": coarse.sigmoid(), "Stage 2: any structure": 1 - fine.softmax(dim=1)[:, :1]}
    reference = (label[0] == 1).any(dim=0).numpy()
    return image[0, 0].numpy(), reference, {title: one[0, 0].numpy() for title, one in maps.items()}


def cliff(side: int, epsilons: tuple[float, ...] = (1.0, 1e-5)) -> Picture:
    """Luo: the loss of equation 1, with each epsilon, in a square slice without the structure, over the probability
    that all its pixels have."""
    figure, axis = axes(3.6)
    probability = np.logspace(-1, -11, 1001)
    told = []
    for epsilon, colour, line in zip(epsilons, (GREEN, VERMILION), ("--", "-"), strict=True):
        loss = np.array([printed_dice(0, p * side**2, 0, side**2, epsilon=epsilon) for p in probability])
        axis.plot(probability, loss, line, color=colour, linewidth=2, label=f"epsilon {epsilon:g}")
        half = probability[np.argmax(loss < 0)]
        told.append(f"with epsilon {epsilon:g} it crosses 0 at a probability of {half:.0e}")
    axis.set(xscale="log", xlabel="probability of each pixel (no unit)", ylabel="loss (no unit)", xlim=(0.1, 1e-11))
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.legend(fontsize=9, frameon=False)
    alt = (
        f"Loss of an absent structure on a slice of {side} x {side} pixels against the probability of each pixel, "
        f"which falls from left to right. It goes from 0.5 to -0.5: {'; '.join(told)}."
    )
    return narrow(figure, alt)


def leakage_of_slices(paper: Paper) -> tuple[Picture, str]:
    """How much higher slices score that were split by slice: patients as dots, and a sentence with the intervals."""
    ((by_slice, by_patient),) = leakage.pairs(RESULTS, "luo2020")
    rows = leakage.differences(by_slice.cases, by_patient.cases).query("structure == @leakage.ALL")
    found = leakage.inflation(by_slice.cases, by_patient.cases).query("structure == @leakage.ALL")
    titles, means = style.titles(paper), rows.groupby(["method", "patient"]).difference.mean()
    groups = {titles[name]: means[name] for name in found.method}
    told = "; ".join(
        f"{titles[row.method]} {row.inflation:+z.3f} (95 % interval {row.low:+z.3f} to {row.high:+z.3f}, from "
        f"{row.by_patient:.3f} to {row.by_slice:.3f}, {row.patients} patients)"
        for row in found.itertuples()
    )
    text = f"Dice split by slice minus Dice split by patient, on the same slices: {told}."
    seeds = rows.seed.nunique()
    text += f" Trained with {plural(seeds, 'seed')}{', so that seed noise is not in the interval' * (seeds == 1)}."
    figure = charts.strips(groups, "DSC split by slice minus by patient")
    plt.close(figure)  # pyplot would show it once more
    return narrow(figure, f"A dot for each patient. {text}"), text


def older_mask_rcnn(published: Published) -> str:
    """What is wrong with Mask R-CNN on enlarged slices in a record from before it was mended; empty for others."""
    if "mask-rcnn-enlarged" not in published.outdated(registry.load("luo2020")):
        return ""
    return (
        "**Mask R-CNN on enlarged slices needs new runs.** It was set up for slices of 512 x 512, but saw smaller "
        "ones. Pieces under nine pixels were background, and its smallest anchor had eight pixels. In *Mask R-CNN*, "
        "which was trained again, both shrink with the slice."
    )


def share_without_instance(data: SliceData, cases: list[str]) -> pd.DataFrame:
    """Share of the slices with a structure in which Mask R-CNN has no instance of it to learn from, if the smallest has
    nine pixels whatever the slice, and if it has nine pixels of a slice of 512 x 512."""
    from npcrepro.models.baselines.mask_rcnn import find_instances

    label = torch.cat([torch.from_numpy(np.array(data.arrays(case)[1])) for case in cases])
    shown, shares = (label == 1).flatten(2).any(dim=2), {}
    for title, scale in (("nine pixels", 1.0), ("nine pixels of 512 x 512", max(data.matrix) / 512)):
        instances = find_instances(label, 9 * scale**2)
        real = instances.boxes.any(dim=2)
        has = torch.stack([((instances.structure == s) & real).any(dim=1) for s in range(label.shape[1])], dim=1)
        shares[title] = ((shown & ~has).sum(dim=0) / shown.sum(dim=0)).tolist()
    return pd.DataFrame({"structure": data.structures, "slices": shown.sum(dim=0).tolist(), **shares})


def of_fold(record: PublishedResults, fold: int = 0) -> Results:
    """The runs of a record that test one fold, where only some methods have the others."""
    cases, history, first = record.published.cases, record.history, record.published.runs[0]
    origin = f"cohort {first['cohort']}, profile {first['profile']['name']}, fold {fold}"
    return Results(record.paper, cases[cases.fold == fold], history[history.fold == fold], origin, record.region)


def trained_for_longer(results: Results, profile: Profile):
    """A table of runs of one fold: mean DSC, seeds, updates made and allowed, and images of an update."""
    done, rows = results.history.groupby(["method", "seed", "stage"])["update"].max(), []
    done = done.groupby(["method", "seed"]).sum()
    for method in map(results.paper.method, results.methods):
        row: dict[str, Any] = {"method": method.title, "mean DSC": tables.mean_and_interval(results.mean(method.name))}
        row |= {"seeds": len(done[method.name]), "updates": span(list(done[method.name]))}
        row["at most"] = f"{method.budget * profile.updates:,.0f}"
        rows.append(row | {"images an update": method.batch_size or profile.batch_size})
    return tables.show(pd.DataFrame(rows), f"Means over patients (95 % interval); {results.made}")


def one_change(records: Mapping[str, Results], pairs: Sequence[tuple[str, str]]):
    """A table of differences of the DSC, two columns for each record: over patients, and seed by seed."""
    rows = []
    for pair in pairs:
        row = {"difference": tables.minus(registry.load("luo2020"), *pair)}
        for title, results in records.items():
            found, seeds = results.difference(*pair).difference, results.by_seed(*pair).shape[1]
            row[title] = f"{signed(found.mean)} ({signed(found.low)} to {signed(found.high)})"
            row[f"{title}: seed by seed"] = f"{results.ends_by_seed(*pair)} ({plural(seeds, 'seed')})"
        rows.append(row)
    return tables.show(pd.DataFrame(rows), "Differences of the DSC (95 % interval over patients), of the shared seeds")


def by_organ(columns: Mapping[str, tuple[Results, str]]):
    """A table of methods, each in two columns: mean DSC and HD95 of each structure, and the mean over them.

    Args:
        columns: title to runs and one of their methods.
    """
    parts = {}
    for title, (results, method) in columns.items():
        rows = results.patients[results.patients.method == method]
        mean = rows.groupby("patient")[["dsc", "surfel_hd95_mm"]].mean().assign(structure="mean")
        groups = pd.concat([rows, mean.reset_index()]).groupby("structure", sort=False)
        for metric, word, form in (("dsc", "DSC", ".3f"), ("surfel_hd95_mm", "HD95 (mm)", ".1f")):
            found = {name: statistics.summarise(group[metric]) for name, group in groups}
            cells = {name: f"{one.mean:{form}} ({one.low:{form}} to {one.high:{form}})" for name, one in found.items()}
            parts[f"{title}: {word}"] = cells
    frame = pd.DataFrame(parts).rename_axis("structure").reset_index()
    return tables.show(frame, "Means over patients (95 % interval), one seed")


def slow_start(results: Results, method: str) -> str:
    """How the trainings of a network went that marks nothing for a while, in sentences: validation patients, early
    ends, the loss at the end, and masks without a voxel."""
    rows = results.history[results.history.method == method]
    scores, loss = (rows.pivot(index="update", columns="seed", values=one) for one in ("validation_dsc", "loss"))
    last, least = scores.apply(pd.Series.last_valid_index), scores.idxmin()
    later = [scores.loc[least[seed] :, seed].max() for seed in scores]
    early, end = last[last < last.max()].index, last.max()
    falls = [loss.loc[end, seed] < loss.loc[: 0.8 * end, seed].iloc[-1] for seed in last.index.difference(early)]
    empty, masks = results.empty(method)
    told = f"In each of its {plural(len(last), 'training')} the DSC on validation patients is {scores.min().max():.3f} "
    told += f"at some check, and {min(later):.2f} or more at a later one. "
    if len(early):
        told += f"{len(early)} of them ended early, after {span(list(last[early]))} updates. Their weights are of "
        told += f"update {span(list(scores.idxmax()[early]))}. "
    told += f"In {sum(falls)} of the other {len(falls)} the training loss still falls in the last fifth. "
    return f"{told}Of its {masks:,} masks on the patients for testing, {empty:,} have no voxel."

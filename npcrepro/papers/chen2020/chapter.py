"""What only the chapter on Chen et al. 2020 shows: attention weights, the time for a patient, the soft Dice loss, and
what its published records lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from npcrepro.base.wording import in_words, plural
from npcrepro.book import tables
from npcrepro.book.chapter import Chapter
from npcrepro.book.figures import slices, volumes
from npcrepro.book.figures.printed import BLUE, GREEN, VERMILION, Picture, axes
from npcrepro.book.published import PublishedResults
from npcrepro.book.results import Results
from npcrepro.book.volume_chapter import VolumeChapter
from npcrepro.findings.audit.checks import Reported
from npcrepro.metrics.curves import BYTE_LEVELS, ScoreCounts, count_scores
from npcrepro.papers.chen2020 import audit
from npcrepro.papers.chen2020.protocol import SERIES
from npcrepro.runs.run import load_data, load_network
from npcrepro.runs.timing import time_case

SOFT_LOSS = "soft_dice_loss"  # column of records; those made before it was kept lack it
# Runs finished earlier end with the best check of their second stage, later ones with the best check of both.
BOTH_STAGES_SINCE = "2026-11-22"


def attention(chapter: VolumeChapter, method: str) -> Markdown:
    """Weights of channels by series and level, and of voxels on a slice, for the patient of `VolumeChapter.shown`."""
    record = next(r for r in chapter.found if r.config["method"]["name"] == method and chapter.first(r))
    data, network = load_data(record, chapter.prepared), load_network(record)
    windows = data.samples([chapter.shown.case]) or data.samples(chapter.prepared.case_names)[:1]
    labelled = [int((data.batch([window])[1] == 1).sum()) for window in windows]
    image, label = data.batch([windows[int(np.argmax(labelled))]])
    pairs = network.attention(data.finish(image))
    names = [f"level {number} ({c.shape[1] // len(data.channels)} a series)" for number, (c, _) in enumerate(pairs, 1)]
    weights = {
        name: dict(zip(data.channels, channels[0].reshape(len(data.channels), -1).numpy(), strict=True))
        for name, (channels, _) in zip(names, pairs, strict=True)
    }
    volumes.channel_weights(weights)
    plt.show()
    z = int((label[0, 0] == 1).sum(dim=(1, 2)).argmax())
    maps = {
        name: voxels[0, 0, z * voxels.shape[2] // image.shape[2]].numpy()
        for name, (_, voxels) in zip(names, pairs, strict=True)
    }
    seen, reference = image[0, 0, z].numpy(), (label[0, 0, z] == 1).numpy()
    slices.show_images(chapter.source, chapter.settings, volumes.voxel_weights, seen, reference, maps)
    return chapter.about_shown()


def time_by_part(chapter: VolumeChapter, printed_seconds: float) -> Markdown:
    """Time of the proposed network for one case at the paper's size, by what it goes into, beside the printed one.

    At profile ``smoke`` the network has that profile's size.
    """
    name = chapter.settings.profile
    size = replace(chapter.paper.profile(name if name == "smoke" else "paper"), batch_size=1)
    case, method = chapter.prepared.case_names[0], chapter.paper.methods[0]
    found = time_case(chapter.source, case, method, size, chapter.settings.device)
    parts = {"reading": found.reading, "the network": found.network, "merging": found.merging, "all": found.seconds}
    rows = [(name, seconds, f"{seconds / found.seconds:.0%}") for name, seconds in parts.items()]
    matrix = " x ".join(map(str, size.matrix))
    windows = f"{plural(found.windows, 'window')} of {matrix}"
    caption = f"{case}, {windows}, {found.device}, at {size.width:g} times the paper's width"
    display(tables.show(pd.DataFrame(rows, columns=["part", "seconds", "share"]), caption))
    most = max(list(parts)[:3], key=lambda name: parts[name])
    return Markdown(
        f"Most of the time goes into {most}. The paper prints about {printed_seconds} s for a patient; the number of "
        f"windows, and whether reading the images is part of it, are not stated."
    )


def with_soft_dice(chapter: Chapter) -> pd.DataFrame:
    """`Results.averaged` with a column ``Loss_dice``: of the records, or of their predictions where they lack it."""
    averaged = chapter.results.averaged
    if _has_soft_loss(chapter.results):
        return averaged.assign(Loss_dice=averaged[SOFT_LOSS])
    return averaged.merge(soft_dice(chapter), on=["patient", "method"])


def show_overlap(results: Results, more: Mapping[str, str] | None = None) -> Markdown:
    """DSC, AP and, where the record has it, Loss_dice of each method as a table; says where the record has none.

    Args:
        more: further metrics to their titles.
    """
    known = _has_soft_loss(results)
    loss = {SOFT_LOSS: "Loss_dice"} if known else {}
    display(results.overview({"dsc": "DSC", "average_precision": "AP", **loss, **(more or {})}))
    told = (
        "" if known else "Loss_dice, the third column of the paper's tables, is not in this record: it needs new runs."
    )
    return Markdown(told)


def _has_soft_loss(results: Results) -> bool:
    averaged = results.averaged
    return SOFT_LOSS in averaged and bool(averaged[SOFT_LOSS].notna().all())


def weights_line(results: PublishedResults) -> Markdown:
    """Which rule chose the weights of published runs of two stages, and in how many the other rule chooses others."""
    titles = {method.name: method.title for method in results.paper.methods}
    two = [run for run in results.published.runs if len(results.published.methods[run["method"]]["stages"]) == 2]
    old = [run for run in two if run["finished"] < BOTH_STAGES_SINCE]
    if not old:
        return Markdown("Weights are those of the best check of both stages." if two else "")
    history = results.published.history.set_index(["method", "fold", "seed"]).sort_index()
    changed = []
    for run in old:
        checks = history.loc[[(run["method"], run["fold"], run["seed"])]]
        best = checks.groupby("stage", sort=False).validation_loss.min()
        if best.iloc[0] < best.iloc[1]:
            changed.append(titles[run["method"]])
    newer = {titles[run["method"]] for run in two} - {titles[run["method"]] for run in old}
    others = f"; {' and '.join(sorted(newer))} has those of the best check of both" if newer else ""
    if changed:
        told = f"{len(changed)} would have been tested with other weights: {', '.join(dict.fromkeys(changed))}. "
        told += "Differences from these wait for new runs"
    else:
        told = "none would have been tested with other weights, so that no number here depends on the rule"
    return Markdown(
        f"**{'Two rules' if newer else 'An older rule'} of choosing weights.** {plural(len(old), 'run')} of two stages "
        f"have the weights of the best check of their second stage{others}. By the second rule, which holds today, "
        f"{told}. Networks of one stage are the same by both."
    )


def without_record(printed_tables: Mapping[str, Sequence[Mapping]], *records: Results) -> pd.DataFrame:
    """Rows of the printed tables that no published record has, on any cohort that has their series.

    Args:
        printed_tables: name of a printed table to its rows.
        records: whose methods count by their titles.

    Returns:
        Columns ``table``, ``printed rows``, ``with a record``, how many of these on the series of the paper, and
        ``without a record``.
    """
    titles = [{record.paper.method(name).title for name in record.methods} for record in records]
    found = set().union(*titles)
    own = set().union(*(t for t, r in zip(titles, records, strict=True) if r.paper.methods[0].channels == SERIES))
    lines = []
    for name, rows in printed_tables.items():
        printed = list(dict.fromkeys(row["model"] for row in rows))
        missing = [title for title in printed if title not in found]
        counts = len(printed), len(printed) - len(missing), len(own & set(printed))
        lines.append((name, *counts, ", ".join(missing) or "none"))
    columns = ["table", "printed rows", "with a record", f"of these on {in_words(SERIES)}", "without a record"]
    return pd.DataFrame(lines, columns=columns)


def soft_dice(chapter: Chapter) -> pd.DataFrame:
    """``Loss_dice`` of each patient and method: 1 minus the soft Dice of merged probabilities, mean over seeds.

    Counts of all cases of a patient are added first (see `ScoreCounts.soft_dice`).

    Returns:
        Columns ``patient``, ``method`` and ``Loss_dice``, for the first structure, doubtful labels left out.
    """
    # SILENT: Chen 2020, Loss_dice of Table I for a patient or a window; a patient, on merged probabilities.
    # DIFFERS: Chen 2020, no smoothing in the number that is reported, where it would be one voxel among thousands.
    structure = chapter.structures[0]
    pooled: dict[tuple[str, str, int], ScoreCounts] = {}
    for record in chapter.found:
        for name in chapter.prepared.cases_of(record.config["fold"]["test"], include_suspect=False):
            case = chapter.prepared.case(name)
            if structure not in case.not_contoured:
                probability, mask = record.prediction(name)[1][0], chapter.masks(name)[structure]
                counts = count_scores(probability, mask, BYTE_LEVELS)
                key = case.patient, record.config["method"]["name"], record.config["seed"]
                pooled[key] = pooled[key] + counts if key in pooled else counts
    rows = [(patient, method, 1 - counts.soft_dice) for (patient, method, _), counts in pooled.items()]
    frame = pd.DataFrame(rows, columns=["patient", "method", "Loss_dice"])
    return frame.groupby(["patient", "method"]).mean().reset_index()


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
    left.set(xlabel="from Table I (points)", ylabel="in the text (points)", title="Nine gains, printed twice")
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
    return Picture(figure, alt)

"""The worst cases of the published records, and what a vision-language model saw in them: the page "Errors".

A reading belongs to a case, a structure and the series that the network saw, not to a run: where new runs on these
series lead, cases that are still among the worst keep theirs. ``book/results/worst-cases`` holds numbers and words
alone, no image; benchmarks/worst_cases.py writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, nan
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.ndimage import distance_transform_edt

from npcrepro.base.colours import METHODS, NNUNET, REFERENCE, YELLOW
from npcrepro.base.errors import InputError
from npcrepro.book.figures import style
from npcrepro.book.topics.leaderboard import Board
from npcrepro.findings.claims.source import PHANTOM
from npcrepro.runs.per_patient import by_patient, over_seeds
from npcrepro.runs.published import RESULTS

READINGS = RESULTS / "worst-cases" / "cases.csv"
EACH = 3
AT_LEAST = 8
RULE = (
    f"of each cohort of real images, the method that leads its board; of each structure, the {EACH} cases with its "
    f"lowest DSC; of a cohort with few structures, as many of each as make {AT_LEAST} in all"
)
KEY = ["cohort", "case", "structure"]
SEEN = [*KEY, "channels"]  # what a reading is of; `channels` as on the leaderboard
FAULT, EARLY, CUT_OFF, METAL, SMALL = "label fault", "label ends early", "scan cut off", "metal", "small structure"
CAUSES = {
    FAULT: "the reference seems wrong: it crosses visible borders, has holes, or lies beside what it should outline",
    EARLY: "the reference stops where the structure visibly goes on",
    CUT_OFF: "the image ends, or is blank, at the structure",
    METAL: "streaks of metal or dental work cross the structure",
    SMALL: "so few voxels that a ring of one more doubles it, or that it is easily overlooked",
    "low contrast": "the border is hardly visible in the series that the method sees",
    "tumour": "a tumour or node distorts the structure or lies against it",
    "not in the image": "how far the target reaches is a decision that the image does not show",
    "series do not match": "the series do not lie on each other",
    "network": "the border is plain to see and the network misses it, leaks, or takes a neighbour",
    "no cause seen": "nothing unusual to see",
}
# One hue for labels, one for images, one for what is left.
COLOURS = (METHODS[3], REFERENCE, METHODS[4], METHODS[0], METHODS[1], YELLOW, METHODS[2], "black", NNUNET, "0.5", "0.8")
DARK = ("black", METHODS[4], NNUNET, METHODS[3], "0.5")  # numbers on these are white
# An axial slice of a neck or a head has more body than this.
BODY_CM2 = 30.0
AIR_HU, METAL_HU, NEAR_MM = -900.0, 2000.0, 20.0
# What is measured of a cause: column, and how it is called.
MEASURES = {
    EARLY: ("beyond", "share of wrong voxels above and below the reference"),
    CUT_OFF: ("gap", "slices from the reference to the end of the image"),
    METAL: ("bright", f"voxels of at least {METAL_HU:.0f} HU within {NEAR_MM:.0f} mm"),
    SMALL: ("place", "place by size, from 0 (smallest in the cohort) to 1"),
}
COLUMNS = [*SEEN, "cause", "note", "method_seen", "dsc_seen", "beyond", "gap", "bright"]


def worst(boards: Sequence[Board]) -> pd.DataFrame:
    """The cases to look at, by `RULE`, which was written down before any image was opened.

    Seeds are averaged. Cases with a doubtful label count too, since a label may be the cause. Where DSC are equal,
    names decide.

    Args:
        boards: from :func:`npcrepro.book.topics.leaderboard.boards`, most patients first.

    Returns:
        A row for each, cohort by cohort and structure by structure, from the lowest DSC up: ``cohort``, ``case``,
        ``structure``, ``method`` (title), its ``channels``, ``dsc``, ``suspect``, ``empty`` (nothing was predicted
        there with any seed), ``size`` (voxels of the reference), ``size_rank`` of ``of`` cases, 1 the smallest;
        ``alike``, the cases with this very DSC. No rows without boards.
    """
    rows = [_worst_of(board) for board in largest(boards)]
    columns = [*SEEN, "method", "dsc", "suspect", "empty", "size", "size_rank", "of", "alike"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def readings(path: Path = READINGS) -> pd.DataFrame:
    """What was read, a row for each case, structure and series, with the columns `COLUMNS`.

    Raises:
        InputError: the record is not there, lacks a column, names a cause that is not one of `CAUSES`, or tells of a
            structure of a case twice from the same series.
    """
    table = record(path)
    if missing := [column for column in COLUMNS if column not in table]:
        raise InputError(f"{path} has no column {missing[0]!r}: is it the record of the readings?")
    if unknown := sorted(set(table.cause) - set(CAUSES)):
        raise InputError(f"{path} names the cause {unknown[0]!r}: one of {', '.join(CAUSES)}")
    if (twice := table[table.duplicated(SEEN)]).size:
        raise InputError(f"{path} tells twice of {_named(twice.iloc[0])}: leave one reading")
    return table[COLUMNS]


def reviewed(cases: pd.DataFrame, read: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`worst` that were read, with cause, note and what was measured."""
    rows = cases.merge(read, on=SEEN, how="inner")
    return rows.assign(place=(rows.size_rank - 1) / (rows["of"] - 1).clip(lower=1))


def unread(cases: pd.DataFrame, read: pd.DataFrame) -> str:
    """One sentence: which of the worst cases nobody has looked at yet.

    Example:
        >>> cases = pd.DataFrame({"cohort": "A", "case": ["P1", "P2"], "structure": "GTV", "channels": "CT"})
        >>> unread(cases, cases[:1])
        '1 of the 2 worst cases by the rule was not read yet: P2 GTV (A).'
    """
    there = cases.merge(read[SEEN], on=SEEN, how="left", indicator=True)
    left = there[there._merge == "left_only"]
    if left.empty:
        return f"All {len(cases)} worst cases by the rule were read."
    verb = "was" if len(left) == 1 else "were"
    named = "; ".join(_named(row) for _, row in left.iterrows())
    return f"{len(left)} of the {len(cases)} worst cases by the rule {verb} not read yet: {named}."


def ties(cases: pd.DataFrame) -> str:
    """One sentence: where the rule had to choose by name among cases with the same DSC; empty where nowhere.

    Args:
        cases: from :func:`worst`.
    """
    groups = cases.groupby(["cohort", "structure", "dsc", "alike"], sort=False).size().items()
    told = [
        f"{n} of {alike} with a DSC of {dsc:.2f} ({structure}, {cohort})"
        for (cohort, structure, dsc, alike), n in groups
        if n < alike
    ]
    return f"Names decided which cases are on the list: {'; '.join(told)}." if told else ""


def held_against(rows: pd.DataFrame) -> pd.DataFrame:
    """The reader's verdict against what is measured: medians of the cases with a cause and of all others.

    Args:
        rows: from :func:`reviewed`. A measure that a case does not have (slices above a single slice, HU of MRI) is
            left out, so n may be smaller than the number of cases with a cause.
    """
    lines = []
    for cause, (column, name) in MEASURES.items():
        mine, others = (rows.loc[chosen, column].dropna() for chosen in (rows.cause == cause, rows.cause != cause))
        lines.append(
            {"cause": cause, "measured": name, "n": len(mine), "median": mine.median()}
            | {"n of others": len(others), "median of others": others.median()}
        )
    return pd.DataFrame(lines)


def without_doubtful(boards: Sequence[Board], read: pd.DataFrame) -> pd.DataFrame:
    """Mean DSC over patients of each method and structure: with all cases, without `suspect` ones, and without these
    and the label faults that the reading found.

    The last is no fair mean: labels were looked at only where DSC is low, so that leaving faults out tends to raise it.

    Args:
        boards: as for :func:`worst`.
        read: from :func:`readings`.

    Returns:
        A row for each method and structure of cohorts where a case is left out: ``cohort``, ``structure``, ``method``;
        ``n`` patients and the mean ``all``; ``n_sure`` and ``sure``; ``n_read`` and ``read``; ``change`` is ``sure``
        minus ``all``, ``change_read`` is ``read`` minus ``sure``.
    """
    faults = pd.MultiIndex.from_frame(read.loc[read.cause.isin((FAULT, EARLY)), KEY])
    found = []
    for board in largest(boards):
        for entry in board.methods:
            cases = entry.cases.assign(cohort=board.cohort)
            at_fault = pd.MultiIndex.from_frame(cases[KEY]).isin(faults)
            kept = {"all": cases, "sure": cases[~cases.suspect], "read": cases[~cases.suspect & ~at_fault]}
            if len(kept["read"]) == len(cases):
                continue
            means = {}
            for name, rows in kept.items():
                of_structure = over_seeds(by_patient(rows)).groupby("structure").dsc
                means["n" if name == "all" else f"n_{name}"] = of_structure.count()
                means[name] = of_structure.mean()
            lines = pd.DataFrame(means).reindex(cases.structure.unique()).rename_axis("structure").reset_index()
            found.append(lines.assign(cohort=board.cohort, method=entry.title))
    columns = ["cohort", "structure", "method", "n", "all", "n_sure", "sure", "n_read", "read"]
    effect = pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)
    counts = {name: effect[name].fillna(0).astype(int) for name in ("n", "n_sure", "n_read")}
    return effect.assign(**counts, change=effect["sure"] - effect["all"], change_read=effect["read"] - effect["sure"])


def effect_told(effect: pd.DataFrame) -> str:
    """What leaving out doubtful labels does to the means and to the order of the methods, in two sentences.

    Args:
        effect: from :func:`without_doubtful`.
    """
    marked = effect[effect.n_sure < effect.n]
    if marked.empty:
        return "No published record has a case that is marked as doubtful."
    most = marked.loc[marked.change.abs().idxmax()]
    orders = [
        group.sort_values("all").method.tolist() == group.sort_values("sure").method.tolist()
        for _, group in marked.groupby(["cohort", "structure"])
    ]
    same = f"in {sum(orders)} of {len(orders)} structures the order of the methods stays as it is"
    return (
        f"Marked labels move a mean by {most.change:+.3f} at most ({most.structure}, {most.method}, n = {most.n} and "
        f"{most.n_sure}); by {marked.change.abs().median():.3f} in the median of the rows; {same}. Label faults "
        f"that were read move one by up to {effect.change_read.max():+.3f}."
    )


def measure(image, reference, predicted, spacing_mm: Sequence[float], ct: bool) -> dict[str, float]:
    """What can be measured of a cause.

    Args:
        image: ``(z, y, x)``, in HU where ``ct``.
        reference, predicted: masks of the same shape; the reference is not empty.
        spacing_mm: ``(z, y, x)``.
        ct: whether the image is a CT, where a slice with less body than `BODY_CM2` counts as blank.

    Returns:
        ``beyond``: share of the wrong voxels in slices above and below the reference; ``gap``: slices between the
        reference and the nearer end of the image, 0 where it reaches the end; both ``nan`` for a single slice.
        ``bright``: voxels of metal near the reference, ``nan`` but for CT.
    """
    image, reference, predicted = (np.asarray(array) for array in (image, reference, predicted))
    shown = np.flatnonzero(reference.any(axis=(1, 2)))
    wrong = (reference != predicted).sum(axis=(1, 2))
    inside = wrong[shown[0] : shown[-1] + 1].sum()
    there = np.flatnonzero(~blank(image, spacing_mm)) if ct else np.arange(len(image))
    gap = max(0, min(shown[0] - there[0], there[-1] - shown[-1])) if len(there) else 0
    single = len(image) == 1
    distance_mm = distance_transform_edt(~reference, sampling=spacing_mm)
    return {
        "beyond": nan if single or not wrong.sum() else 1 - inside / wrong.sum(),
        "gap": nan if single else float(gap),
        "bright": float(((distance_mm <= NEAR_MM) & (image >= METAL_HU)).sum()) if ct else nan,
    }


def blank(image, spacing_mm: Sequence[float]) -> np.ndarray:
    """Slices of a CT ``(z, y, x)`` in HU with less body than `BODY_CM2`: bool, one for each."""
    return (np.asarray(image) > AIR_HU).sum(axis=(1, 2)) * spacing_mm[1] * spacing_mm[2] / 100 < BODY_CM2


def bars(rows: pd.DataFrame) -> Figure:
    """Cases by cause, a bar for each cohort; numbers stand in the bars.

    Args:
        rows: from :func:`reviewed`.
    """
    counts = pd.crosstab(rows.cohort, rows.cause).loc[rows.cohort.unique()]
    colours = {cause: colour for cause, colour in zip(CAUSES, COLOURS, strict=True) if cause in counts}
    figure, (axis,) = style.panels(1, 1, 1.4 + 0.5 * len(counts))
    look = {"stacked": True, "width": 0.8, "edgecolor": "white", "legend": False}
    counts[list(colours)].plot.barh(ax=axis, color=colours, **look)
    for drawn, colour in zip(axis.containers, colours.values(), strict=True):
        ink = "white" if colour in DARK else "black"
        axis.bar_label(drawn, fmt=lambda n: f"{n:.0f}" if n else "", label_type="center", fontsize=8, color=ink)
    axis.invert_yaxis()
    axis.set(xlabel="cases", ylabel="")
    axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`reviewed` as text for :func:`npcrepro.book.html.filter_table.filter_table`."""

    def text(values: pd.Series, spec: str) -> pd.Series:
        return values.map(lambda value: "" if np.isnan(value) else format(value, spec))

    shown = {"cohort": rows.cohort, "case": rows.case, "structure": rows.structure, "cause": rows.cause}
    shown |= {"DSC": text(rows.dsc, ".2f"), "what was seen": rows.note, "looked at": rows.method_seen}
    shown["its DSC"] = text(rows.dsc_seen, ".2f")
    shown["size, 1 is the smallest"] = rows.size_rank.map("{:.0f}".format) + " of " + rows["of"].astype(str)
    shown["marked as doubtful before"] = rows.suspect.map({True: "yes", False: ""})
    for column, name in MEASURES.values():
        if column != "place":
            shown[name] = text(rows[column], ".2g" if column == "beyond" else ".0f")
    return pd.DataFrame(shown)


def summary_text(rows: pd.DataFrame) -> str:
    """What the causes say together, in a few sentences with their numbers."""
    counts = rows.cause.value_counts()
    first = ", ".join(f"{cause} ({count})" for cause, count in counts.head(3).items())
    labels = rows[rows.cause.isin((FAULT, EARLY))]
    empty = labels["empty"].sum()
    own = f"; {empty} of them have an empty prediction, so that another label would not have helped" if empty else ""
    return (
        f"Of {len(rows)} worst cases, the most frequent causes are {first}. In {len(labels)} the label limits the "
        f"score: in {counts.get(FAULT, 0)} it seems wrong, in {counts.get(EARLY, 0)} it stops where the structure goes "
        f"on, which may be on purpose; {labels.suspect.sum()} of them had been marked as doubtful before{own}. "
        f"{counts.get('network', 0)} look as if a better network would have had them right, and "
        f"{counts.get('no cause seen', 0)} show nothing unusual."
    )


def largest(boards: Sequence[Board]) -> list[Board]:
    """The first board of each cohort of real images."""
    real = [board for board in boards if not board.cohort.startswith(PHANTOM)]
    names = [board.cohort for board in real]
    return [board for place, board in enumerate(real) if board.cohort not in names[:place]]


def _worst_of(board: Board) -> pd.DataFrame:
    # The board's own rows leave doubtful labels out.
    entry = board.methods[0]
    rows = entry.cases[(entry.cases.status != "both_empty") & entry.cases.structure.isin(board.structures)]
    rows = rows.assign(size=rows.tp + rows.fn, found=rows.tp + rows.fp)
    groups = rows.groupby(["structure", "case"])
    means = groups.agg(dsc=("dsc", "mean"), suspect=("suspect", "any"), size=("size", "mean"), found=("found", "max"))
    means = means.reset_index().assign(cohort=board.cohort, method=entry.title, channels=entry.channels)
    means["empty"] = means.found == 0
    ranked = means.groupby("structure")["size"]
    alike = means.groupby(["structure", "dsc"])["size"].transform("size")
    means = means.assign(size_rank=ranked.rank(method="min"), of=ranked.transform("size"), alike=alike)
    means = means.sort_values(["dsc", "case"])
    each = max(EACH, ceil(AT_LEAST / len(board.structures)))
    return pd.concat([means[means.structure == structure].head(each) for structure in board.structures])


def _named(row: pd.Series) -> str:
    return f"{row.case} {row.structure} ({row.cohort})"


def record(path: Path) -> pd.DataFrame:
    """A table of ``book/results/worst-cases``.

    Raises:
        InputError: it is not there.
    """
    if not path.exists():
        raise InputError(f"{path} is missing: it comes with a clone of the repository, not with the package alone")
    return pd.read_csv(path, dtype={"case": str, "note": str}, keep_default_na=False, na_values=[""])

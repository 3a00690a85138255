"""The worst cases of the published records, each looked at: what the page "Errors" shows.

Rule, written down before any image was opened (:func:`worst`): of each cohort of real images, the method with the best
mean DSC on its largest board; of each structure the `EACH` cases with its lowest DSC, seeds averaged, and of a cohort
with few structures as many as make `AT_LEAST`. Cases with a doubtful label count too, since a label may be the cause.
Where DSC are equal, names decide.

Reading: a vision-language model that saw rendered slices, once, not blinded, with image, reference and prediction side
by side in three planes; one main cause out of `CAUSES` and one sentence. No person has checked it, and a radiologist
would judge some cases otherwise. What can be measured of a cause is measured (:func:`measure`) and kept beside the
verdict. ``book/results/worst-cases`` holds numbers and words alone, no image. benchmarks/worst_cases.py adds what is
measured to what was read.

A reading belongs to a case, a structure and the series that the network saw, not to a run: where new runs on these
series lead, cases that are still among the worst keep theirs, and the page names those that nobody has read yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, nan
from pathlib import Path

import numpy as np
import pandas as pd

from npcrepro.base.errors import InputError
from npcrepro.book.topics import leaderboard
from npcrepro.book.topics.leaderboard import Board
from npcrepro.findings.claims.ledger import PHANTOM
from npcrepro.runs.per_patient import by_patient, over_seeds
from npcrepro.runs.published import RESULTS

READINGS = RESULTS / "worst-cases" / "cases.csv"
CUT_OUT = RESULTS / "worst-cases" / "cut_out.csv"
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
# Okabe and Ito's colours and greys: one hue for labels, one for images, one for what is left.
COLOURS = (
    "#D55E00",
    "#E69F00",
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#CC79A7",
    "black",
    "#882255",
    "0.5",
    "0.8",
)
# An axial slice of a neck or a head has more body than this.
BODY_CM2 = 30.0
AIR_HU, METAL_HU, NEAR_MM = -900.0, 2000.0, 20.0
CUT_OUT_SHARE = 0.05  # of a structure's voxels in blank slices: more of them, and it counts as cut out
# What is measured of a cause: column, and how it is called.
MEASURES = {
    EARLY: ("beyond", "share of wrong voxels above and below the reference"),
    CUT_OFF: ("gap", "slices from the reference to the end of the image"),
    METAL: ("bright", f"voxels of at least {METAL_HU:.0f} HU within {NEAR_MM:.0f} mm"),
    SMALL: ("place", "place by size, from 0 (smallest in the cohort) to 1"),
}
COLUMNS = [*SEEN, "cause", "note", "method_seen", "dsc_seen", "beyond", "gap", "bright"]


def worst(boards: Sequence[Board] | None = None) -> pd.DataFrame:
    """The cases to look at, by the rule above.

    Args:
        boards: from :func:`npcrepro.book.topics.leaderboard.boards`, which is the default, most patients first.

    Returns:
        A row for each, cohort by cohort and structure by structure, from the lowest DSC up: ``cohort``, ``case``,
        ``structure``, ``method`` (title), its ``channels``, ``dsc``, ``suspect``, ``empty`` (nothing was predicted
        there with any seed), ``size`` (voxels of the reference), ``size_rank`` of ``of`` cases, 1 the smallest;
        ``alike``, the cases with this very DSC. No rows without boards.
    """
    rows = [_worst_of(board) for board in _largest(boards)]
    columns = [*SEEN, "method", "dsc", "suspect", "empty", "size", "size_rank", "of", "alike"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def readings(path: Path = READINGS) -> pd.DataFrame:
    """What was read, a row for each case, structure and series, with the columns `COLUMNS`.

    Raises:
        InputError: the record is not there, lacks a column, names a cause that is not one of `CAUSES`, or tells of a
            structure of a case twice from the same series.
    """
    table = _record(path)
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
    known = set(read[SEEN].itertuples(index=False, name=None))
    left = [row for _, row in cases.iterrows() if tuple(row[SEEN]) not in known]
    if not left:
        return f"All {len(cases)} worst cases by the rule were read."
    verb = "was" if len(left) == 1 else "were"
    named = "; ".join(map(_named, left))
    return f"{len(left)} of the {len(cases)} worst cases by the rule {verb} not read yet: {named}."


def ties(cases: pd.DataFrame) -> str:
    """One sentence: where the rule had to choose by name among cases with the same DSC; empty where nowhere.

    Args:
        cases: from :func:`worst`.
    """
    groups = cases.groupby([*KEY[::2], "dsc"], sort=False)
    chosen = [(key, len(group), group.alike.iloc[0]) for key, group in groups if len(group) < group.alike.iloc[0]]
    told = [
        f"{n} of {of} with a DSC of {dsc:.2f} ({structure}, {cohort})" for (cohort, structure, dsc), n, of in chosen
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


def without_doubtful(boards: Sequence[Board] | None = None, read: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean DSC over patients of each method and structure: with all cases, without `suspect` ones, and without these
    and the label faults that the reading found.

    The last is no fair mean: labels were looked at only where DSC is low, so that leaving faults out tends to raise it.

    Args:
        boards: as for :func:`worst`.
        read: from :func:`readings`; by default nothing was read.

    Returns:
        A row for each method and structure of cohorts where a case is left out: ``cohort``, ``structure``, ``method``;
        ``n`` patients and the mean ``all``; ``n_sure`` and ``sure``; ``n_read`` and ``read``; ``change`` is ``sure``
        minus ``all``, ``change_read`` is ``read`` minus ``sure``.
    """
    wrong = pd.DataFrame(columns=KEY) if read is None else read[read.cause.isin((FAULT, EARLY))]
    faults = set(wrong[KEY].itertuples(index=False, name=None))
    found = []
    for board in _largest(boards):
        for entry in board.methods:
            found += _means(board.cohort, entry.title, entry.cases, faults)
    columns = ["cohort", "structure", "method", "n", "all", "n_sure", "sure", "n_read", "read", "change", "change_read"]
    return pd.DataFrame(found, columns=columns)


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


def cut_out(path: Path = CUT_OUT) -> pd.DataFrame:
    """How much of each tested structure lies in slices that are blank but for it: ``cohort``, ``case``, ``structure``,
    ``share`` of the voxels of the reference.

    Raises:
        InputError: the record is not there.
    """
    return _record(path)


def dsc_by_cut_out(shares: pd.DataFrame, boards: Sequence[Board] | None = None) -> pd.DataFrame:
    """Mean DSC of the best method in cases whose structure is cut out (`CUT_OUT_SHARE`) and in all others.

    Returns:
        A row for each structure that is cut out in some case: ``cohort``, ``structure``, ``n_cut`` and ``cut``,
        ``n_whole`` and ``whole``.
    """
    found = []
    for board in _largest(boards):
        best = board.cases[board.cases.method == board.titles[0]]
        rows = best.groupby(["case", "structure"]).dsc.mean().reset_index().assign(cohort=board.cohort)
        for structure, group in rows.merge(shares, on=KEY).groupby("structure", sort=False):
            cut = group.share > CUT_OUT_SHARE
            if cut.any():
                numbers = (cut.sum(), group.dsc[cut].mean(), (~cut).sum(), group.dsc[~cut].mean())
                found.append((board.cohort, structure, *numbers))
    return pd.DataFrame(found, columns=["cohort", "structure", "n_cut", "cut", "n_whole", "whole"])


def cut_out_told(cut: pd.DataFrame) -> str:
    """What :func:`dsc_by_cut_out` found, in a few words."""
    if cut.empty:
        return "No structure of a published record is cut out in more than a few voxels."
    told = "; ".join(
        f"{row.structure}: {row.cut:.2f} in {row.n_cut} patients with it, {row.whole:.2f} in {row.n_whole} without"
        for row in cut.itertuples()
    )
    return f"Mean DSC with and without such slices: {told}. The patients are not the same, so part may be chance."


def cut_out_note(shares: pd.DataFrame, board: Board) -> str:
    """What such slices mean for a board, as Markdown; empty for a cohort that was not measured.

    Args:
        shares: from :func:`cut_out`.
        board: cases with doubtful labels are not on it and do not count.
    """
    tested = board.cases[["case", "structure"]].drop_duplicates().assign(cohort=board.cohort)
    rows = tested.merge(shares, on=KEY)
    if rows.empty:
        return ""
    names, most = " or ".join(rows.structure.unique()), 100 * rows.share.max()
    many = []
    for structure, group in rows.groupby("structure", sort=False):
        if count := (group.share > CUT_OUT_SHARE).sum():
            many.append(f"of {structure} in {count} of {len(group)} cases")
    told = (
        f"More than {100 * CUT_OUT_SHARE:.0f} % {', '.join(many)} lies in such slices, so that the DSC may be too high."
        if many
        else f"{f'At most {most:.1f} %' if most else 'Nothing'} of {names} lies in such slices in the "
        f"{rows.case.nunique()} cases tested; whether other slices show the label was not measured."
    )
    head = "Slices near the ends of some of these CT scans are blank but for drawn organs ([Errors](errors.html))."
    return f"{head} {told}"


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
    return {
        "beyond": nan if single or not wrong.sum() else 1 - inside / wrong.sum(),
        "gap": nan if single else float(gap),
        "bright": float((_near(reference, spacing_mm) & (image >= METAL_HU)).sum()) if ct else nan,
    }


def blank(image, spacing_mm: Sequence[float]) -> np.ndarray:
    """Slices of a CT ``(z, y, x)`` in HU with less body than `BODY_CM2`: bool, one for each."""
    return (np.asarray(image) > AIR_HU).sum(axis=(1, 2)) * spacing_mm[1] * spacing_mm[2] / 100 < BODY_CM2


def bars(rows: pd.DataFrame):
    """Cases by cause, a bar for each cohort, as a figure; numbers stand in the bars.

    Args:
        rows: from :func:`reviewed`.
    """
    import matplotlib.pyplot as plt

    from npcrepro.book.figures.style import WIDTH_IN

    counts = pd.crosstab(rows.cohort, rows.cause).reindex(
        index=rows.cohort.unique(), columns=list(CAUSES), fill_value=0
    )
    figure, axis = plt.subplots(figsize=(WIDTH_IN, 1.4 + 0.5 * len(counts)), layout="constrained")
    left = np.zeros(len(counts))
    for cause, colour in zip(CAUSES, COLOURS, strict=True):
        width = counts[cause].to_numpy()
        if width.any():
            drawn = axis.barh(counts.index, width, left=left, color=colour, edgecolor="white", label=cause)
            dark = colour in ("black", "#0072B2", "#882255", "#D55E00", "0.5")
            texts = [str(number) if number else "" for number in width]
            axis.bar_label(drawn, texts, label_type="center", fontsize=8, color="white" if dark else "black")
            left = left + width
    axis.invert_yaxis()
    axis.set_xlabel("cases")
    axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`reviewed` as text for :func:`npcrepro.book.html.filter_table.filter_table`."""

    def number(values: pd.Series, spec: str) -> list[str]:
        return ["" if np.isnan(value) else format(value, spec) for value in values]

    rank = [f"{row.size_rank:.0f} of {row.of}" for row in rows.itertuples()]
    measured = {name: number(rows[column], ".2g" if column == "beyond" else ".0f")
                for column, name in MEASURES.values() if column != "place"}  # fmt: skip
    return pd.DataFrame(
        {"cohort": rows.cohort, "case": rows.case, "structure": rows.structure, "cause": rows.cause}
        | {"DSC": number(rows.dsc, ".2f"), "what was seen": rows.note}
        | {"looked at": rows.method_seen, "its DSC": number(rows.dsc_seen, ".2f"), "size, 1 is the smallest": rank}
        | {"marked as doubtful before": np.where(rows.suspect, "yes", "")}
        | measured
    )


def summary_text(rows: pd.DataFrame) -> str:
    """What the causes say together, in a few sentences with their numbers."""
    counts = rows.cause.value_counts()
    first = ", ".join(f"{cause} ({count})" for cause, count in counts.head(3).items())
    labels = rows[rows.cause.isin((FAULT, EARLY))]
    empty = labels["empty"].sum()
    marked = f"{labels.suspect.sum()} of them had been marked as doubtful before"
    own = f"{empty} of them have an empty prediction, so that another label would not have helped" if empty else ""
    rest = counts.get("network", 0)
    return (
        f"Of {len(rows)} worst cases, the most frequent causes are {first}. In {len(labels)} the label limits the "
        f"score: in {counts.get(FAULT, 0)} it seems wrong, in {counts.get(EARLY, 0)} it stops where the structure goes "
        f"on, which may be on purpose; {'; '.join(filter(None, (marked, own)))}. {rest} look as if a better network "
        f"would have had them right, and {counts.get('no cause seen', 0)} show nothing unusual."
    )


def _largest(boards: Sequence[Board] | None) -> list[Board]:
    """The first board of each cohort of real images."""
    found: dict[str, Board] = {}
    for board in leaderboard.boards() if boards is None else boards:
        if not board.cohort.startswith(PHANTOM):
            found.setdefault(board.cohort, board)
    return list(found.values())


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


def _means(cohort: str, title: str, cases: pd.DataFrame, faults: set[tuple]) -> list[dict]:
    at_fault = [(cohort, row.case, row.structure) in faults for row in cases.itertuples()]
    kept = {"all": cases, "sure": cases[~cases.suspect], "read": cases[~cases.suspect & ~np.array(at_fault, bool)]}
    if len(kept["read"]) == len(cases):
        return []
    lines = []
    for structure in cases.structure.unique():
        line = {"cohort": cohort, "structure": structure, "method": title}
        for name, rows in kept.items():
            rows = rows[rows.structure == structure]
            values = over_seeds(by_patient(rows)).dsc if len(rows) else pd.Series(dtype=float)
            line |= {"n" if name == "all" else f"n_{name}": values.count(), name: values.mean()}
        lines.append(line | {"change": line["sure"] - line["all"], "change_read": line["read"] - line["sure"]})
    return lines


def _near(mask, spacing_mm: Sequence[float]) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask, sampling=spacing_mm) <= NEAR_MM


def _named(row: pd.Series) -> str:
    return f"{row.case} {row.structure} ({row.cohort})"


def _record(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"{path} is missing: it comes with a clone of the repository, not with the package alone")
    return pd.read_csv(path, dtype={"case": str, "note": str}, keep_default_na=False, na_values=[""])

"""Every score of one or several records: a table of means and one of differences that a reader narrows down.

All rows are on the page. It opens with the first record, the mean over its structures, and its first region.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from IPython.display import HTML

from npcrepro.base.wording import DASH, in_words, plural
from npcrepro.book import tables
from npcrepro.book.figures import style
from npcrepro.book.html.filter_table import filter_table
from npcrepro.book.results import Results
from npcrepro.findings import observers
from npcrepro.runs.evaluation import REGIONS, WHOLE
from npcrepro.runs.per_patient import OVER_STRUCTURES

Pair = tuple[str, str]
PEOPLE = "two people, median, other scans"
CHOSEN = ("question", "record", "metric", "structure", "slices")  # columns to choose from, if they have several values
SURFACES = {"voxel_": "border voxels", "surfel_": "surface elements"}  # first part of a metric's name
EMPTY = "missed"  # the reference shows the structure and the prediction has no voxel
FEW_PATIENTS = "With few patients such tests can detect only large differences; with fewer than six there is no test"
ALL, _, LABELLED = REGIONS  # all slices; those that show the structure; those that show any structure


def means(records: Mapping[str, Results], metrics: Mapping[str, str], sd: bool = False) -> HTML:
    """Methods, structures (their mean first) and regions down, metrics across: means over patients.

    A cell has the 95 % interval, and n where it is not that of its row; the number of seeds is followed by the standard
    deviation over them of the mean of the first metric. Of structures that two people drew on other scans
    (:mod:`npcrepro.findings.observers`) there are their medians.

    Args:
        records: name to runs.
        metrics: name to title. One that no patient has is left out, and the caption says so.
        sd: cells have the standard deviation over patients, too.
    """
    several = len({region for one in records.values() for region in one.regions}) > 1
    metrics = {name: f"{title}, all slices" if several and name in WHOLE else title for name, title in metrics.items()}
    first, *_ = metrics.values()
    frame = pd.concat([mean_rows(one, metrics, sd).assign(record=name) for name, one in records.items()])
    lacking = [title for title in metrics.values() if frame[title].eq(DASH).all()]
    about = ["method", "record", "structure", "slices", "patients", f"seeds (sd of {first})"]
    shown = [title for title in metrics.values() if title not in lacking]
    # A cell breaks before its interval alone.
    frame[shown] = frame[shown].map(
        lambda cell: cell.replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}(", " (")
    )
    frame = frame[[*about, *shown, EMPTY]]
    told = f"Means {'± sd ' * sd}over patients (95 % interval)"
    if OVER_STRUCTURES in set(frame.structure):
        told += f"; structure “{OVER_STRUCTURES}”: over the structures of a patient"
    counted = "the prediction has no voxel of a structure that the reference shows, over cases, seeds and structures"
    told += f". {EMPTY.capitalize()}: how often {counted}"
    surfaces = [
        f"{in_words(titles)} between {what}"
        for kind, what in SURFACES.items()
        if (titles := [title.split(" (")[0] for name, title in metrics.items() if name.startswith(kind)])
    ]
    if surfaces:
        told += f". Surfaces: {'; '.join(surfaces)}"
    if frame.eq(DASH).any(axis=None):
        told += f". {DASH}: not measured, or no patient has one, as with some seed the structure was not found"
    if lacking:
        told += f". In no record of this table: {in_words(lacking)}"
    return _table(frame, f"{told}. {_made(records)}")


def differences(
    questions: Mapping[str, tuple[Results, Sequence[Pair]]],
    metrics: Mapping[str, str],
    printed: Mapping[str, float] | None = None,
) -> HTML:
    """Comparisons, structures, regions and metrics down: paired differences over patients, see
    :func:`npcrepro.book.tables.differences`.

    The mean over the structures is tested, with p adjusted within a question, metric and region; single structures are
    not: the question is one.

    Args:
        questions: title to runs and pairs of methods, the first minus the second; no pairs: those of the protocol.
        metrics: name to title.
        printed: title of a method to its printed mean of the first metric; adds the differences of these.
    """
    asked = [
        difference_rows(runs, pairs, metrics, printed).assign(question=title)
        for title, (runs, pairs) in questions.items()
    ]
    frame = pd.concat(asked)
    about = ["comparison", *CHOSEN[:1], *CHOSEN[2:], "patients", "mean difference", "95 % interval", tables.P]
    frame = frame[[*about, *(["reported"] if printed and frame.reported.ne(DASH).any() else [])]]
    kinds = {"question": "question", "metric": "metric", "slices": "kind of slices"}
    within = in_words([words for name, words in kinds.items() if frame[name].nunique() > 1])
    told = "Paired differences over patients (95 % interval)"
    told += "" if within == "none" else f"; p is adjusted within each {within}"
    if OVER_STRUCTURES in set(frame.structure):
        told += f". Only the mean over the structures (“{OVER_STRUCTURES}”) is tested"
    if any(runs.cases.groupby("method").seed.agg(frozenset).nunique() > 1 for runs, _ in questions.values()):
        told += ". Where two methods have different seeds, only those that both have count"
    if frame[tables.P].str.endswith(tables.UNSUPPORTED).any():
        told += f". {tables.UNSUPPORTED} the interval excludes 0, but p does not support it"
    return _table(frame, f"{told}. {FEW_PATIENTS}. {_made({title: runs for title, (runs, _) in questions.items()})}")


def mean_rows(results: Results, metrics: Mapping[str, str], sd: bool = False) -> pd.DataFrame:
    """The rows of `means` of one record, as text; metrics that are measured in all slices alone are in all its rows."""
    lines, first = [], next(iter(metrics))
    whole = {name: title for name, title in metrics.items() if name in WHOLE and ALL in results.regions}
    parts = _parts(results.only(ALL), (ALL,)) if whole else ()
    everywhere = {part: tables.scores(rows, results.paper, whole).to_dict("records") for _, part, _, rows in parts}
    narrow = {name: title for name, title in metrics.items() if name not in whole}
    for region, structure, here, patients in _parts(results, results.regions):
        spread = tables.spread_of_means(patients, first)
        status = here.cases[here.cases.structure.eq(structure) | (structure == OVER_STRUCTURES)]
        status = status[status.status.isin(["ok", "pred_empty"])]
        empty = status.status.eq("pred_empty").groupby(status.method).agg(["sum", "size"])
        scores = tables.scores(patients, results.paper, narrow).to_dict("records")
        rest = {row["method"]: row for row in everywhere.get(structure, ())}
        for name, row in zip(style.methods_of(patients, results.paper), scores, strict=True):
            found, n = rest.get(row["method"], {}) | row, row["patients"]
            among = "" if np.isnan(spread[name]) else f" ({spread[name]:.3f})"
            about = {"method": row["method"], "structure": structure, "slices": region, "patients": n}
            about[f"seeds (sd of {metrics[first]})"] = f"{row['seeds']}{among}"
            cells = {title: tables.mean_and_interval(found[title], n, sd) for title in metrics.values()}
            lines.append(about | cells | {EMPTY: "{} of {}".format(*empty.loc[name]) if name in empty.index else DASH})
    people = observers.agreement()
    people = people[people.index.isin(results.structures)]
    known = {metric: title for metric, title in metrics.items() if metric in people}
    for structure, row in people.iterrows() if known and ALL in results.regions else ():
        about = {"method": PEOPLE, "structure": structure, "slices": style.REGION_TITLES[ALL], "patients": int(row.n)}
        lines.append(about | {title: f"{row[name]:.2f}" for name, title in known.items()})
    return pd.DataFrame(lines).fillna(DASH)


def difference_rows(
    results: Results,
    pairs: Sequence[Pair],
    metrics: Mapping[str, str],
    printed: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """The rows of `differences` of one record, as text."""
    found = []
    for region, structure, _, patients in _parts(results, results.regions):
        whole = structure == OVER_STRUCTURES or len(results.structures) == 1
        for number, (metric, title) in enumerate(metrics.items()):
            beside = (printed or {}) if whole and not number else {}
            rows = tables.differences(patients, results.paper, metric, pairs, beside)
            if not whole:
                rows[tables.P] = DASH
            found.append(rows[rows.patients > 0].assign(structure=structure, slices=region, metric=title))
    columns = ["comparison", "patients", "mean difference", "95 % interval", tables.P, "reported"]
    return pd.concat(found).reindex(columns=[*columns, "structure", "slices", "metric"]).astype(object).fillna(DASH)


def _parts(results: Results, regions: Sequence[str]):
    """Title of the region, structure, the runs there, and their rows of patients: for each region the mean over
    structures, if there are several, and each of these."""
    for region in regions:
        if region == LABELLED and len(results.structures) == 1:
            continue  # with one structure, the slices with any structure are those that show it
        here, title = results.only(region), style.REGION_TITLES[region]
        if len(here.structures) > 1:
            yield title, OVER_STRUCTURES, here, here.over_structures
        for structure in here.structures:
            yield title, structure, here, here.patients[here.patients.structure == structure]


def _table(frame: pd.DataFrame, caption: str) -> HTML:
    """A table with a list for each column of `CHOSEN` in which a record has several values; the others are left out.

    The page opens with the first record, and with the first value of a list that all of them have.
    """
    lead, *others = [name for name in CHOSEN if name in frame]
    values = frame.groupby(lead, sort=False)
    by = [lead] * (len(values) > 1) + [name for name in others if values[name].nunique().max() > 1]
    first = {name: frame[name].iloc[0] for name in by}
    shared = [name for name in by if values[name].agg(lambda found, name=name: first[name] in set(found)).all()]
    start = {name: first[name] for name in by if name in (lead, *shared)}
    frame = frame.drop(columns={lead, *others} - {*by})
    return HTML(filter_table(frame, by=[*by, *frame.columns[:1]] if by else [], start=start, caption=caption))


def _made(records: Mapping[str, Results]) -> str:
    """How many patients and which runs, said once for all names of a record."""
    names: dict[str, list[str]] = {}
    for name, one in records.items():
        only = f", {one.structures[0]}" if len(one.structures) == 1 else ""
        told = f"{plural(one.patients.patient.nunique(), 'patient')}{only}, {one.origin}"
        names.setdefault(told, []).append(name)
    return ". ".join(f"{in_words(titles)}: {told}" if any(titles) else told for told, titles in names.items())

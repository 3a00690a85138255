"""From rows of cases to one row for each patient: means over cases, seeds and structures."""

from collections.abc import Sequence

from npcrepro.metrics.overlap import Counts
from npcrepro.runs.evaluation import ADDED, AVERAGED, COUNTS, METRICS, VALIDATED_COUNTS, score_counts

RUN = ["paper", "method", "cohort", "profile"]
OVER_STRUCTURES = "mean"  # in place of a structure's name
# The status of a mean: first what says why a distance in it has no value, last that there is nothing to average.
EXPLAINING = ("pred_empty", "ref_empty", "ok", "both_empty")


def by_patient(cases):
    """One row for each patient: counts, volumes, areas and pieces are added over its cases and the overlap is computed
    from the sums; the other numbers, which cannot be added, are averaged, ``nan`` if any of them is.

    Args:
        cases: data frame of ``cases.csv`` rows of any number of runs.

    Returns:
        Data frame with one row for each (paper, method, cohort, profile, seed, patient, suspect, structure, region).
    """
    import pandas as pd

    keys = [*RUN, "seed", "patient", "suspect", "structure", "region"]
    # Records that were published before a metric was added do not have its column.
    cases = cases.reindex(columns=[*dict.fromkeys([*cases.columns, *ADDED, *AVERAGED, *VALIDATED_COUNTS])])
    # SILENT: how the slices of a patient are joined; their pixels are pooled (the paper's values are for each patient).
    groups = cases.groupby(keys, sort=True)
    totals = groups[[*COUNTS, *ADDED, *VALIDATED_COUNTS]].sum(min_count=1)
    # A case in which neither mask shows the structure has no distance; it leaves that of the other cases as it is.
    shown = cases[cases[["tp", "fp", "fn"]].any(axis=1)].groupby(keys, sort=True)
    totals = totals.join(_mean(shown, AVERAGED)).reset_index()
    metrics = [score_counts(Counts(*(int(n) for n in row))) for row in totals[COUNTS].itertuples(index=False)]
    found, wrong = (totals[name] for name in VALIDATED_COUNTS)
    # 0 / 0 is not a number, as the DSC of two empty masks is none.
    totals["dsc_validated"] = 2 * found / (found + wrong + totals.tp + totals.fn)
    totals = totals.drop(columns=[*COUNTS, *VALIDATED_COUNTS])
    return totals.join(pd.DataFrame(metrics, index=totals.index))


def select(patients, structure: str, region: str):
    """Rows of one structure in one region, doubtful labels left out: what tables, tests and figures are made of."""
    return patients[(patients.structure == structure) & (patients.region == region) & ~patients.suspect]


def over_seeds(patients):
    """Average each patient's metrics over seeds, so that a patient counts once in every mean and test.

    A metric that is undefined with one seed is undefined: leaving that seed out would hide it.
    """
    keys = [*RUN, "patient", "suspect", "structure", "region"]
    columns = [name for name in (*METRICS, *ADDED) if name in patients]
    return _mean(patients.groupby(keys, sort=True), columns).reset_index()


def side_by_side(patients, methods: Sequence[str], metric: str):
    """A metric with one column for each method and one row for each patient, for paired differences.

    Averaged over the seeds that all of these methods have, so that chance of another start is not taken for theirs;
    ``nan`` where they have none in common.
    """
    mine = patients[patients.method.isin(methods)]
    common = set.intersection(*(set(mine.seed[mine.method == name]) for name in methods))
    means = over_seeds(mine[mine.seed.isin(common)])
    return means.pivot(index="patient", columns="method", values=metric).reindex(columns=list(dict.fromkeys(methods)))


def over_structures(patients, columns: Sequence[str] = METRICS):
    """One row for each patient, method and seed: the mean over the structures that either mask shows.

    A structure that neither mask shows does not count; a patient with no other has ``nan`` and ``"both_empty"``. One
    whose metric is undefined for another reason (a distance to a structure that was missed) leaves the mean undefined:
    leaving it out would hide it.

    Args:
        patients: from :func:`by_patient`.
        columns: that are averaged; volumes, areas and pieces are added.

    Returns:
        Rows like those of :func:`by_patient`, with `OVER_STRUCTURES` as the structure; the status is the first of
        `EXPLAINING` that a structure has.
    """
    keys = [*RUN, "seed", "patient", "suspect", "region"]
    rows = patients.groupby(keys)[[name for name in ADDED if name in patients]].sum(min_count=1)
    means = _mean(patients[patients.status != "both_empty"].groupby(keys), columns)
    status = patients.assign(rank=patients.status.map(EXPLAINING.index)).groupby(keys)["rank"].min()
    rows = rows.join(means).assign(structure=OVER_STRUCTURES, status=status.map(EXPLAINING.__getitem__))
    return rows.reset_index()


def _mean(groups, columns: Sequence[str]):
    """Means of the columns, ``nan`` where any value is."""
    return groups[list(columns)].mean(skipna=False)

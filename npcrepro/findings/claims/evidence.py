"""From the rows of records to the numbers that decide a claim."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from math import nan

import numpy as np

from npcrepro import statistics
from npcrepro.base.errors import InputError
from npcrepro.findings.claims.claim import Claim
from npcrepro.statistics import Interval


@dataclass(frozen=True)
class Evidence:
    """Numbers that decide, on the scale of the test."""

    patients: int
    seeds: int
    estimate: float
    interval: Interval
    p: float = nan
    equivalent: bool = False  # 90 % inside the margin that refutes a difference, or that an equivalence claims
    p_alike: float = nan  # of the test of likeness that refutes a difference
    equivalent_wider: bool = False
    seed_sd: float = nan
    with_seeds: Interval = field(default_factory=lambda: Interval(nan, nan))  # 95 %, other patients and other seeds
    detectable: float = nan
    failed: int = 0  # patients left out because a method found nothing in them, or something where nothing is
    rule: str = ""  # what undefined values count as, if there were any
    numbers: dict[str, float] = field(default_factory=dict)


def weigh(claim: Claim, patients, seed: int) -> Evidence | str:
    """Evidence, or why there is none."""
    arms = _arms(claim, patients)
    if isinstance(arms, str):
        return arms
    values, rule, counted, failures = arms
    known = ~np.isnan(values).any(axis=(0, 2))
    kept = values[:, known]
    if not known.any():
        return f"No patient has a value in every arm ({len(known)} left out)."
    if claim.form == "spread":
        evidence = _weigh_spread(claim, kept, seed)
    else:
        weigh_form = {"difference": _weigh_difference, "equivalence": _weigh_equivalence, "value": _weigh_value}
        contrast = np.tensordot([arm.weight for arm in claim.arms], kept, axes=1)
        evidence = weigh_form.get(claim.form, _weigh_share)(claim, contrast, seed)
    left_out = int((~known).sum())
    cohort = {"patients": kept.shape[1], "left out": left_out, "seeds": kept.shape[2], "undefined counted": counted}
    numbers = cohort | {"detectable": evidence.detectable} | evidence.numbers
    failed = int(failures.sum())
    return dataclasses.replace(evidence, numbers=numbers, failed=failed, rule=rule if counted or left_out else "")


def _arms(claim: Claim, patients) -> tuple[np.ndarray, str, int, np.ndarray] | str:
    """Values ``(arms, patients, seeds)``, the rule in words, how many undefined values count as a number, and which
    patients are left out for a failure.
    """
    rows = patients[patients.paper == claim.paper]
    tables = []
    for arm, metric in zip(claim.arms, claim.metrics, strict=True):
        if metric not in rows:
            raise InputError(f"claim {claim.key}: the rows have no column {metric!r}; a metric is probably misspelt")
        mine = rows[rows.method == arm.method]
        if arm.cohort:
            mine = mine[mine.cohort.str.endswith(arm.cohort)]
        if mine.empty:
            return f"There is no run of {claim.paper}/{arm.method}."
        if mine.duplicated(["patient", "seed"]).any():
            raise InputError(f"claim {claim.key}: a patient stands there twice; select one structure and one region")
        tables.append(mine.set_index(["patient", "seed"])[[metric, "status"]].set_axis(["value", "status"], axis=1))
    common = set.intersection(*(set(table.index.get_level_values("seed")) for table in tables))
    tables = [table[table.index.isin(common, level="seed")] for table in tables]
    index, seeds = tables[0].index, len(common)
    if (
        index.empty
        or len(index) != index.get_level_values("patient").nunique() * seeds
        or any(set(table.index) != set(index) for table in tables)
    ):
        sizes = ", ".join(f"{arm.method} {len(table)}" for arm, table in zip(claim.arms, tables, strict=True))
        return f"The arms were not run on the same patients with the same seeds (rows: {sizes})."
    tables = [table.sort_index() for table in tables]
    filled = [_filled(claim, metric, table) for metric, table in zip(claim.metrics, tables, strict=True)]
    values = np.array([one.values.reshape(-1, seeds) for one in filled])
    empty = np.array([table.status.isin(("pred_empty", "ref_empty")).to_numpy().reshape(-1, seeds) for table in tables])
    failures, counted = (np.isnan(values) & empty).any(axis=(0, 2)), sum(one.counted for one in filled)
    return (np.log(values) if claim.scale == "log" else values), filled[0].rule, counted, failures


def _filled(claim: Claim, metric: str, table) -> statistics.Filled:
    values = table.value.to_numpy(dtype=float)
    if claim.scale == "log":
        values = np.where(values > 0, values, nan)
    return statistics.fill(values, claim.rule, table.status.tolist(), claim.worst_of(metric))


def _weigh_value(claim: Claim, contrast: np.ndarray, seed: int) -> Evidence:
    """One number for each patient: its mean, and what varies."""
    summary, crossed = statistics.summarise(contrast.mean(axis=1), seed), statistics.crossed(contrast)
    seed_sd = statistics.seed_spread(contrast)
    return Evidence(
        patients=summary.n,
        seeds=contrast.shape[1],
        estimate=summary.mean,
        interval=Interval(summary.low, summary.high),
        seed_sd=seed_sd,
        with_seeds=crossed,
        detectable=statistics.detectable(summary.n, summary.sd),
        numbers={
            "mean": summary.mean,
            "sd": summary.sd,
            "low": summary.low,
            "high": summary.high,
            "low with seeds": crossed.low,
            "high with seeds": crossed.high,
            "sd between seeds": seed_sd,
        },
    )


def _weigh_difference(claim: Claim, contrast: np.ndarray, seed: int) -> Evidence:
    """A difference, or a difference of differences."""
    evidence, test = _weigh_value(claim, contrast, seed), statistics.one_sample(contrast.mean(axis=1), seed)
    numbers = evidence.numbers | {"reported": claim.effect, "p": test.p, "p of Wilcoxon": test.wilcoxon_p}
    numbers |= {"effect size": test.effect_size, "rank-biserial": test.rank_biserial}
    numbers |= {"above": test.above, "equal": test.equal, "below": test.below}
    evidence = dataclasses.replace(evidence, p=test.p, numbers=numbers)
    if claim.refuting_margin is None:
        return evidence
    alike = statistics.equivalence(contrast.mean(axis=1), claim.refuting_margin, seed)
    return dataclasses.replace(
        evidence, equivalent=alike.inside, p_alike=alike.p, numbers=numbers | _equivalence_numbers(alike)
    )


def _weigh_equivalence(claim: Claim, contrast: np.ndarray, seed: int) -> Evidence:
    contrast = contrast - claim.value
    evidence, by_patient = _weigh_value(claim, contrast, seed), contrast.mean(axis=1)
    alike = statistics.equivalence(by_patient, claim.margin, seed)
    wider = claim.wider_margin is not None and statistics.equivalence(by_patient, claim.wider_margin, seed).shown
    return dataclasses.replace(
        evidence,
        p=alike.p,
        equivalent=alike.inside,
        equivalent_wider=wider,
        detectable=statistics.detectable_margin(evidence.patients, evidence.numbers["sd"]),
        numbers=evidence.numbers | _equivalence_numbers(alike),
    )


def _equivalence_numbers(test: statistics.Equivalence) -> dict[str, float]:
    ends = {"low 90 %": test.interval.low, "high 90 %": test.interval.high}
    return ends | {"p of equivalence": test.p, "margin": test.margin}


def _weigh_spread(claim: Claim, values: np.ndarray, seed: int) -> Evidence:
    test = statistics.compare_spread(*values.mean(axis=2), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_seed = np.log(values[0].std(axis=0, ddof=1) / values[1].std(axis=0, ddof=1))
        estimate, interval = float(np.log(test.ratio)), Interval(*np.log(test.interval).tolist())
        narrow = Interval(*np.log(test.interval_90).tolist())
    margin, inside, p_alike = claim.refuting_margin, False, nan
    if margin is not None:
        inside = -margin < narrow.low and narrow.high < margin
        p_alike = statistics.spread_equivalence(*values.mean(axis=2), float(np.exp(margin)))
    limit = statistics.detectable_spread(test.n, test.correlation)
    seed_sd = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else nan
    return Evidence(
        patients=test.n,
        seeds=values.shape[2],
        estimate=estimate,
        interval=interval,
        p=test.p,
        equivalent=inside,
        p_alike=p_alike,
        seed_sd=seed_sd,
        detectable=limit if claim.direction == "more" else 1 / limit,
        numbers={
            "ratio": test.ratio,
            "low": test.interval.low,
            "high": test.interval.high,
            "low 90 %": test.interval_90.low,
            "high 90 %": test.interval_90.high,
            "p": test.p,
            "p of equivalence": p_alike,
            "correlation": test.correlation,
            "sd of the log ratio between seeds": seed_sd,
            "reported": nan if claim.reported is None else claim.reported,
        },
    )


def _weigh_share(claim: Claim, values: np.ndarray, _seed: int) -> Evidence:
    units = values.mean(axis=1 if claim.unit == "patient" else 0)
    count = int((units < claim.threshold).sum() if claim.beyond == "below" else (units > claim.threshold).sum())
    found = statistics.share(count, len(units))
    return Evidence(
        patients=len(values),
        seeds=values.shape[1],
        estimate=count / len(units),
        interval=Interval(found.at_least, found.at_most),
        numbers={
            "count": count,
            "units": len(units),
            "low": found.interval.low,
            "high": found.interval.high,
            "at least": found.at_least,
            "at most": found.at_most,
        },
    )

"""From the rows of records to the numbers that decide a claim."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, hypot, isnan, nan, sqrt

import numpy as np
import pandas as pd
from scipy import stats

from npcrepro import statistics
from npcrepro.base.errors import InputError
from npcrepro.base.wording import in_words
from npcrepro.findings.claims.claim import Claim
from npcrepro.metrics.panel import PLANE_DSC
from npcrepro.statistics import UNKNOWN, Interval

# Overlap of a mask that is cut at one fixed threshold.
OVERLAPS = ("dsc", "jsc", "corresponding_ratio", "sensitivity", "precision", *PLANE_DSC)
# What stands beside them, the first that the records have: at the threshold that the validation patients choose, or at
# all thresholds together. A Jaccard index is compared with its own kind, because a margin has its unit.
BESIDE = {
    "jsc_validated": "Jaccard index at the validated threshold",
    "dsc_validated": "DSC at the validated threshold",
    "average_precision": "AP",
}


@dataclass(frozen=True)
class Evidence:
    """Numbers that decide a claim, on the scale of its test (for a spread, the logarithm of the ratio)."""

    patients: int
    seeds: int
    estimate: float
    interval: Interval  # 95 %
    p: float = nan  # of a side of 0, or of an equivalence; allows for other patients and for other trainings, too
    interval_90: Interval = UNKNOWN
    alike: bool = False  # the 90 % interval lies inside the margin of an equivalence
    small: bool = False  # the 90 % interval of a difference ends below the effect that matters
    p_small: float = nan  # that the difference is smaller than the effect that matters; allows for both, too
    alike_wider: bool = False  # an equivalence is shown inside its wider margin
    seed_sd: float = nan
    with_seeds: Interval = UNKNOWN  # 95 %, over other patients and other trainings
    with_seeds_90: Interval = UNKNOWN
    of_all_seeds: float = nan  # the estimate from all seeds of each arm, where the arms do not share them all
    beside: tuple[str, Evidence] | None = None  # by a number that is not of one fixed threshold, and its name
    silent: str = ""  # trainings of a rival that found nothing of a structure in any patient, in words
    detectable: float = nan
    failed: int = 0  # patients left out because a method found nothing in them, or something where nothing is
    rule: str = ""  # what undefined values count as, if there were any
    numbers: Mapping[str, float] = field(default_factory=dict)  # what a decision reports


def weigh(claim: Claim, patients: pd.DataFrame) -> Evidence | str:
    """The evidence on a claim, or a sentence that says why there is none."""
    arms = _arms(claim, patients)
    tables = arms if isinstance(arms, str) else _shared(claim, arms)
    if isinstance(tables, str):
        return tables
    seeds = tables[0].index.get_level_values("seed").nunique()
    folds = tables[0].fold.to_numpy().reshape(-1, seeds)[:, 0] if "fold" in tables[0] else None
    filled = [_filled(claim, metric, table) for metric, table in zip(claim.metrics, tables, strict=True)]
    values = np.array([one.values.reshape(-1, seeds) for one in filled])
    empty = np.array([table.status.isin(("pred_empty", "ref_empty")).to_numpy().reshape(-1, seeds) for table in tables])
    failed = int((np.isnan(values) & empty).any(axis=(0, 2)).sum())
    counted = sum(one.counted for one in filled)
    if claim.scale == "log":
        values = np.log(values)
    known = ~np.isnan(values).any(axis=(0, 2))
    left_out = int((~known).sum())
    if not known.any():
        return f"No patient has a value in every arm ({left_out} left out)."
    kept = values[:, known]
    contrast = np.tensordot([arm.weight for arm in claim.arms], kept, axes=1)
    if claim.form == "spread":
        evidence = _weigh_spread(claim, kept)
    elif claim.form == "share":
        evidence = _weigh_share(claim, contrast)
    else:
        evidence = _weigh_contrast(claim, contrast, None if folds is None else folds[known])
        tested = tables[0].index.get_level_values("patient").unique()[known]
        evidence = dataclasses.replace(evidence, of_all_seeds=_of_all_seeds(claim, arms, tested, seeds))
    about = {"patients": int(known.sum()), "left out": left_out, "seeds": seeds, "undefined counted": counted}
    return dataclasses.replace(
        evidence,
        failed=failed,
        beside=_beside(claim, patients),
        silent=_silent(claim, arms),
        rule=filled[0].rule if counted or left_out else "",
        numbers={**about, "detectable": evidence.detectable, **evidence.numbers},
    )


def _arms(claim: Claim, patients: pd.DataFrame) -> list[pd.DataFrame] | str:
    """Value and status of each arm by patient and seed; else why there are none."""
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
        table = mine.set_index(["patient", "seed"])
        # The fold in which a patient was tested, where it is the same in all seeds.
        about = ["status", *(["fold"] if "fold" in table and table.fold.notna().all() else [])]
        about += ["silent"] if "silent" in table else []
        tables.append(table[about].assign(value=table[metric]))
    return tables


def _shared(claim: Claim, tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame] | str:
    """The rows of the seeds that all arms have; a sentence if their patients differ."""
    common = set.intersection(*(set(table.index.get_level_values("seed")) for table in tables))
    tables = [table[table.index.isin(common, level="seed")].sort_index() for table in tables]
    index = tables[0].index
    complete = len(index) == index.get_level_values("patient").nunique() * len(common) > 0
    if not complete or any(not table.index.equals(index) for table in tables):
        sizes = ", ".join(f"{arm.method} {len(table)}" for arm, table in zip(claim.arms, tables, strict=True))
        return f"The arms were not run on the same patients with the same seeds (rows: {sizes})."
    return tables


def _silent(claim: Claim, arms: Sequence[pd.DataFrame]) -> str:
    """Structures of which an arm that is to be beaten, or to be matched, found nothing in any patient with a seed."""
    if len({arm.method for arm in claim.arms}) == 1:
        return ""
    more_is_better = claim.metric in (*OVERLAPS, *BESIDE) or "_nsd_" in claim.metric
    told = {}
    for number, (arm, table) in enumerate(zip(claim.arms, arms, strict=True)):
        beaten = claim.towards(arm.weight) * (1 if more_is_better else -1) < 0
        rival = number == 1 if claim.form == "spread" else beaten or claim.form == "equivalence"
        found = table.silent.groupby("seed").first() if rival and "silent" in table else ()
        counts = Counter(name for names in found for name in names)
        if counts:
            missed = in_words([f"{name} in {count}" for name, count in counts.items()])
            told[arm.method] = f"{arm.method} found nothing of {missed} of {len(found)} seeds"
    return "; ".join(told.values())


def _of_all_seeds(claim: Claim, arms: Sequence[pd.DataFrame], tested: pd.Index, shared: int) -> float:
    """The contrast of the means over all seeds of each arm; ``nan`` where the arms have the same seeds."""
    if all(table.index.get_level_values("seed").nunique() == shared for table in arms):
        return nan
    total = 0.0
    for arm, metric, table in zip(claim.arms, claim.metrics, arms, strict=True):
        values = pd.Series(_filled(claim, metric, table).values, table.index)
        values = np.log(values) if claim.scale == "log" else values
        total += arm.weight * values.groupby("patient").mean()[tested].mean()
    return float(total)


def is_distance(metric: str) -> bool:
    """Whether a column holds distances of boundaries, of which less is better."""
    return metric.endswith("_mm")


def compared(claim: Claim) -> bool:
    """Whether two networks are compared by masks that are cut at one fixed threshold: their overlap or boundaries."""
    fixed = all(metric in OVERLAPS or is_distance(metric) or "_nsd_" in metric for metric in claim.metrics)
    return fixed and not any(arm.metric for arm in claim.arms) and len({arm.method for arm in claim.arms}) > 1


def besides(claim: Claim) -> list[str]:
    """What may stand beside the metric of a claim, the best first."""
    return [name for name in BESIDE if name != ("dsc_validated" if claim.metric == "jsc" else "jsc_validated")]


def _beside(claim: Claim, patients: pd.DataFrame) -> tuple[str, Evidence] | None:
    """The same comparison by a number that is not of one fixed threshold; ``None`` if not all arms have one."""
    mine = patients[patients.method.isin([arm.method for arm in claim.arms])]
    known = (name for name in besides(claim) if name in mine and mine[name].notna().groupby(mine.method).any().all())
    name = next(known, None)
    if name is None or not compared(claim):
        return None
    form = "spread" if claim.form == "spread" else "difference"
    margin = claim.refuting_margin if form == "difference" and claim.metric in OVERLAPS else None
    other = Claim(
        claim.key, claim.paper, claim.text, claim.where, form, name, claim.arms, rule="leave_out", margin=margin
    )
    found = weigh(other, patients)
    return None if isinstance(found, str) else (name, found)


def _filled(claim: Claim, metric: str, table: pd.DataFrame) -> statistics.Filled:
    values = table.value.to_numpy(dtype=float)
    if claim.scale == "log":
        values = np.where(values > 0, values, nan)
    return statistics.fill(values, claim.rule, table.status.tolist(), claim.worst_of(metric))


def _weigh_contrast(claim: Claim, contrast: np.ndarray, folds: np.ndarray | None) -> Evidence:
    """A difference, an equivalence or a value, from ``(patients, seeds)`` and the fold of each patient."""
    if claim.form == "equivalence":
        contrast = contrast - claim.value
    by_patient, margin = contrast.mean(axis=1), claim.refuting_margin
    summary, with_seeds = statistics.summarise(by_patient), statistics.crossed(contrast, folds)
    seed_sd, p, p_small, alike, wider = statistics.seed_spread(contrast), nan, nan, None, claim.wider_margin
    numbers = {name: getattr(summary, name) for name in ("mean", "sd", "low", "high")}
    numbers |= {"low with seeds": with_seeds.low, "high with seeds": with_seeds.high, "sd between seeds": seed_sd}
    if claim.form == "difference":
        test = statistics.one_sample(by_patient)
        p = _larger(test.p, statistics.crossed_p(contrast, folds))
        numbers |= {"reported": claim.effect, "p": test.p, "p with seeds": p, "p of Wilcoxon": test.wilcoxon_p}
        numbers |= {"effect size": test.effect_size, "rank-biserial": test.rank_biserial}
        numbers |= {"above": test.above, "equal": test.equal, "below": test.below}
    if claim.form != "value" and margin is not None:
        alike = statistics.equivalence(by_patient, margin)
        above = _larger(alike.above, statistics.crossed_p(contrast, folds, -margin, "greater"))
        below = _larger(alike.below, statistics.crossed_p(contrast, folds, margin, "less"))
        if claim.form == "equivalence":
            p = max(above, below)
        else:
            p_small = below if claim.direction == "more" else above
        numbers |= {"low 90 %": alike.interval.low, "high 90 %": alike.interval.high, "margin": margin}
        numbers |= {"p of equivalence": p} if claim.form == "equivalence" else {"p of a small effect": p_small}
    return Evidence(
        patients=summary.n,
        seeds=contrast.shape[1],
        estimate=summary.mean,
        interval=Interval(summary.low, summary.high),
        p=p,
        interval_90=alike.interval if alike else UNKNOWN,
        alike=alike is not None and alike.inside,
        small=alike is not None and _small(claim, alike.interval),
        p_small=p_small,
        alike_wider=wider is not None and statistics.equivalence(by_patient, wider).shown,
        seed_sd=seed_sd,
        with_seeds=with_seeds,
        with_seeds_90=statistics.crossed(contrast, folds, level=0.9),
        detectable=statistics.detectable(summary.n, summary.sd, equivalence=claim.form == "equivalence"),
        numbers=numbers,
    )


def _weigh_spread(claim: Claim, values: np.ndarray) -> Evidence:
    """The logarithm of the ratio of two standard deviations, from ``(2, patients, seeds)``."""
    first, second = values.mean(axis=2)
    margin = claim.refuting_margin
    test = statistics.compare_spread(first, second, margin=None if margin is None else exp(margin))
    with np.errstate(divide="ignore", invalid="ignore"):
        by_seed = np.log(values[0].std(axis=0, ddof=1) / values[1].std(axis=0, ddof=1))
        estimate = float(np.log(test.ratio))
        interval, interval_90 = (Interval(*np.log(ends).tolist()) for ends in (test.interval, test.interval_90))
    limit = statistics.detectable_spread(test.n, test.correlation)
    seed_sd = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else nan
    with_seeds = _widened(interval, estimate, seed_sd, len(by_seed), 0.95)
    error, free = _error_with_seeds(interval, seed_sd, test.n, len(by_seed))
    p = _larger(test.p, 2 * float(stats.t.sf(abs(estimate) / error, free)))
    p_small, beyond = test.below if claim.direction == "more" else test.above, claim.towards(estimate) - (margin or nan)
    p_small = _larger(p_small, float(stats.t.cdf(beyond / error, free)))
    return Evidence(
        patients=test.n,
        seeds=values.shape[2],
        estimate=estimate,
        interval=interval,
        p=p,
        interval_90=interval_90,
        small=margin is not None and _small(claim, interval_90),
        p_small=p_small,
        seed_sd=seed_sd,
        with_seeds=with_seeds,
        with_seeds_90=_widened(interval_90, estimate, seed_sd, len(by_seed), 0.9),
        detectable=limit if claim.direction == "more" else 1 / limit,
        numbers={
            "ratio": test.ratio,
            "low": test.interval.low,
            "high": test.interval.high,
            "low 90 %": test.interval_90.low,
            "high 90 %": test.interval_90.high,
            "p": test.p,
            "p with seeds": p,
            "p of a small effect": p_small,
            "correlation": test.correlation,
            "sd of the log ratio between seeds": seed_sd,
            "low with seeds": exp(with_seeds.low),
            "high with seeds": exp(with_seeds.high),
            "reported": nan if claim.reported is None else claim.reported,
        },
    )


def _error_with_seeds(interval: Interval, seed_sd: float, patients: int, seeds: int) -> tuple[float, float]:
    """Error of an estimate over patients and trainings, which add up as independent ones do, and its degrees of freedom
    (Satterthwaite); ``nan`` of one seed."""
    over_patients = (interval.high - interval.low) / 2 / float(stats.norm.ppf(0.975))
    parts = np.array([over_patients**2, seed_sd**2 / seeds])
    if not parts.sum() > 0:
        return nan, nan
    return sqrt(parts.sum()), float(parts.sum() ** 2 / (parts**2 / (patients - 1, seeds - 1)).sum())


def _larger(over_patients: float, with_seeds: float) -> float:
    """The p that allows for more; of one seed there is none that allows for others."""
    return over_patients if isnan(with_seeds) else max(over_patients, with_seeds)


def _small(claim: Claim, interval: Interval) -> bool:
    """Whether the claimed side of an interval ends below the effect that matters."""
    return max(claim.towards(end) for end in interval) < (claim.refuting_margin or 0.0)


def _widened(interval: Interval, estimate: float, sd: float, seeds: int, level: float) -> Interval:
    """An interval over patients, widened by the chance of training: the two add up as independent errors do."""
    if seeds < 2:
        return UNKNOWN
    half = float(stats.t.ppf(0.5 + level / 2, seeds - 1)) * sd / sqrt(seeds)
    low, high = (hypot(end - estimate, half) for end in interval)
    return Interval(estimate - low, estimate + high)


def _weigh_share(claim: Claim, contrast: np.ndarray) -> Evidence:
    units = contrast.mean(axis=1 if claim.unit == "patient" else 0)
    count = int((units < claim.threshold).sum() if claim.beyond == "below" else (units > claim.threshold).sum())
    found = statistics.share(count, len(units))
    ends = {"low": found.interval.low, "high": found.interval.high}
    return Evidence(
        patients=len(contrast),
        seeds=contrast.shape[1],
        estimate=count / len(units),
        interval=Interval(found.at_least, found.at_most),
        numbers={"count": count, "units": len(units), **ends, "at least": found.at_least, "at most": found.at_most},
    )

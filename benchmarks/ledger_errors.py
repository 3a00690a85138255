"""How often the ledger would decide a claim of a paper wrongly if no method of it differed from another.

For each paper, differences of 0 are drawn for its claims as they vary in the records: between patients and between
seeds, independent between claims, all with one fold. A paper has an error if a claim of it has p <= 0.05 after Holm's
correction and the interval that allows for other seeds excludes 0. Two p are compared: over patients alone, which the
ledger had before, and the larger one over patients and trainings, which it has now. Minutes on one core.

    .venv/bin/python benchmarks/ledger_errors.py
"""

import numpy as np
from scipy import stats

from npcrepro import statistics
from npcrepro.findings.claims import ledger
from npcrepro.findings.claims.family import Family, claims
from npcrepro.protocol import registry

DRAWS = 300


def spreads(paper: str, found: list) -> list[tuple[int, int, float, float]]:
    """Patients, seeds, and the standard deviations over both of each difference with at least three seeds."""
    family = Family(claims(paper), found)
    tested = [part.key for claim in family.asked.values() for part in claim.tested if part.form == "difference"]
    known = [family.weighed[key].numbers for key in tested if hasattr(family.weighed.get(key), "numbers")]
    names = ("patients", "seeds", "sd", "sd between seeds")
    return [tuple(each[name] for name in names) for each in known if each["seeds"] >= 3]


def errors(each: list[tuple[int, int, float, float]]) -> tuple[float, float]:
    """Share of draws with an error: with p over patients, and with the p of the ledger."""
    random, wrong = np.random.default_rng(0), np.zeros(2)
    for _ in range(DRAWS):
        tables = [random.normal(0, a, (n, 1)) + random.normal(0, b, (1, k)) for n, k, a, b in each]
        over_patients = [stats.ttest_1samp(table.mean(axis=1), 0).pvalue for table in tables]
        with_seeds = [statistics.crossed_p(table) for table in tables]
        both = [max(pair) for pair in zip(over_patients, with_seeds, strict=True)]
        excludes = np.array(with_seeds) <= 0.05
        wrong += [(excludes & (np.array(statistics.holm(p)) <= 0.05)).any() for p in (over_patients, both)]
    return tuple(wrong / DRAWS)


if __name__ == "__main__":
    found = ledger.sources()
    for paper in registry.KEYS:
        each = spreads(paper, found)
        before, now = errors(each)
        print(f"{paper}: {len(each)} differences, an error in {before:.0%} of draws by p over patients, {now:.0%} now")

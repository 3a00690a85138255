"""Means, intervals and tests over patients. SciPy computes them; this package fixes which ones are used, and how.

The unit is the patient: average over seeds first (:func:`npcrepro.runs.per_patient.over_seeds`), and do not pool slices
or voxels. Lists of values of the same patients that differ in length are a ValueError. What is random takes a ``seed``
and gives the same numbers with the same seed.

| question | function |
|---|---|
| what is the mean, and what became of undefined values? | :func:`summarise`, :func:`fill` |
| is A better than B on the same patients? | :func:`paired`, :func:`one_sample` |
| are A and B alike? | :func:`equivalence` |
| does A vary less than B? | :func:`compare_spread` |
| how many patients are beyond a bound? | :func:`share` |
| what could these patients have shown at all? | :func:`detectable`, :func:`patients_needed` |
| how much is chance of the training run? | :func:`seed_spread`, :func:`crossed`, :func:`crossed_p` |
| would the ranking stand with other patients? | :func:`rank_stability` |
| how many tests were there? | :func:`holm` |
"""

from npcrepro.statistics.aggregation import RULES, Filled, Summary, fill, summarise
from npcrepro.statistics.intervals import RESAMPLES, UNKNOWN, Interval, Share, bootstrap, share
from npcrepro.statistics.pairs import (
    Equivalence,
    PairedTest,
    SpreadTest,
    compare_spread,
    equivalence,
    holm,
    one_sample,
    paired,
)
from npcrepro.statistics.power import detectable, detectable_spread, patients_needed
from npcrepro.statistics.ranks import Rank, rank_stability
from npcrepro.statistics.seeds import crossed, crossed_p, seed_spread

__all__ = ["RESAMPLES", "UNKNOWN", "Interval", "Share", "bootstrap", "share"]
__all__ += ["RULES", "Filled", "Summary", "fill", "summarise"]
__all__ += ["Equivalence", "PairedTest", "SpreadTest"]
__all__ += ["compare_spread", "equivalence", "holm", "one_sample", "paired"]
__all__ += ["detectable", "detectable_spread", "patients_needed"]
__all__ += ["Rank", "rank_stability"]
__all__ += ["crossed", "crossed_p", "seed_spread"]

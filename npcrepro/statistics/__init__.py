"""Means, intervals and tests over patients. SciPy does the computing; this package fixes the protocol.

The unit is the patient: average over seeds first (:func:`npcrepro.evaluation.over_seeds`), never pool slices or voxels.
Everything random takes a ``seed`` and is repeated exactly with it.

| question | function |
|---|---|
| what is the mean, and what became of undefined values? | :func:`summarise`, :func:`fill` |
| is A better than B on the same patients? | :func:`paired`, :func:`one_sample` |
| are A and B alike? | :func:`equivalence` |
| does A vary less than B? | :func:`compare_spread` |
| how many times B is A? | :func:`mean_ratio` |
| do other patients score otherwise? | :func:`unpaired` |
| how many patients are beyond a bound? | :func:`share` |
| what could these patients have shown at all? | :func:`detectable`, :func:`patients_needed` |
| how much is chance of the training run? | :func:`seed_spread`, :func:`crossed` |
| would the ranking stand with other patients, or in each fold? | :func:`rank_stability`, :func:`concordance` |
| do the volumes agree? | :func:`bland_altman` |
| how many tests were there? | :func:`holm` |
"""

from npcrepro.statistics.aggregation import RULES, Filled, Summary, fill, summarise
from npcrepro.statistics.agreement import Agreement, bland_altman
from npcrepro.statistics.intervals import RESAMPLES, Interval, Share, bootstrap, share
from npcrepro.statistics.pairs import (
    Equivalence,
    MeanRatio,
    PairedTest,
    SpreadTest,
    UnpairedDifference,
    compare_spread,
    equivalence,
    holm,
    mean_ratio,
    one_sample,
    paired,
    unpaired,
)
from npcrepro.statistics.power import (
    detectable,
    detectable_margin,
    detectable_spread,
    patients_needed,
    smallest_paired_p,
)
from npcrepro.statistics.ranks import Concordance, Rank, RankStability, concordance, rank_stability
from npcrepro.statistics.seeds import CrossedMean, crossed, seed_spread

__all__ = [
    "RESAMPLES",
    "RULES",
    "Agreement",
    "Concordance",
    "CrossedMean",
    "Equivalence",
    "Filled",
    "Interval",
    "MeanRatio",
    "PairedTest",
    "Rank",
    "RankStability",
    "Share",
    "SpreadTest",
    "Summary",
    "UnpairedDifference",
    "bland_altman",
    "bootstrap",
    "compare_spread",
    "concordance",
    "crossed",
    "detectable",
    "detectable_margin",
    "detectable_spread",
    "equivalence",
    "fill",
    "holm",
    "mean_ratio",
    "one_sample",
    "paired",
    "patients_needed",
    "rank_stability",
    "seed_spread",
    "share",
    "smallest_paired_p",
    "summarise",
    "unpaired",
]

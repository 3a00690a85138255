"""Comparative claims of the papers, decided from records: confirmed, weakened, refuted or undecided.

A claim is plain data (:class:`Claim`); a decision is plain data too, and its reason is built from numbers. The claims
of a paper are listed in its YAML file; :mod:`npcrepro.findings.claims.ledger` holds them against everything that is
published with the book. A claim that records can decide has one of five forms:

``difference``: the contrast of the arms lies on one side of 0 (A better than B; with four arms a difference of
differences).

* confirmed: the interval lies on the claimed side and reaches the reported effect or lies beyond it
* weakened: it lies on the claimed side, but wholly short of the reported effect
* refuted: it lies on the other side, or a test of equivalence passes with a margin of half the reported effect; where
  no effect is printed, also if it lies on the claimed side and inside the margin that the claim names

``spread``: the first arm varies less (or more) over patients than the second. Decided likewise, on the logarithm of the
ratio of the two standard deviations; they are alike if the 90 % interval and two one-sided Pitman-Morgan tests say so.

``equivalence``: the contrast equals ``value`` within a margin.

* confirmed: shown inside the margin
* weakened: shown inside the wider margin only
* refuted: the interval lies wholly beyond the margin

``value``: the mean reaches ``value``; of several arms, their contrast (no worse than).

* confirmed: the interval reaches the value and does not go below it by more than the margin
* weakened: it stays short of the value, but not wholly by more than the margin
* refuted: it stays short wholly by more than the margin

``share``: more (or less) than a share ``value`` of the units is beyond a threshold. Confirmed or refuted by the side of
``value`` on which the exact one-sided 95 % bound lies.

Two further forms are not tested by themselves: ``all`` holds if all of its parts do, or as many as it says, and
``elsewhere`` is decided by something that is not in records.

Everything else is undecided, with the effect that these patients could have shown. Four rules stand above the forms:

* A side of a difference or a spread, and a confirmed equivalence, also need ``p <= 0.05`` after Holm's correction for
  all claims decided together (those of one paper); so does a likeness that refutes, among the tests of likeness. A
  claim that repeats another by a metric that follows from its own (the Jaccard index after the DSC) is corrected in the
  other's place and adds nothing to the count. Everything else rests on its interval and is not counted.
* With fewer seeds than the claim asks for, fewer than twenty patients, patients left out for a failure (an empty mask
  has no distance), or a spread between seeds above half of the effect, a claim is undecided whatever p is. The effect
  is the observed difference, or where a verdict rests on a margin or a value, what is left to it. The 0 of a
  difference, and the number that decides on a value, also have to lie outside the interval that allows for other seeds
  as well as for other patients (:func:`npcrepro.statistics.crossed`); a spread has no such interval.
* The arms have to be run on the same patients; seeds that not all of them have are left out.
* A value or a share of patients, which grow with training, are decided at the profile of the paper's size only
  (:mod:`npcrepro.findings.claims.ledger`).
"""

from npcrepro.findings.claims.claim import Arm, Claim
from npcrepro.findings.claims.decision import Decision, Verdict, all_of, decide_together

__all__ = ["Arm", "Claim", "Decision", "Verdict", "all_of", "decide_together"]

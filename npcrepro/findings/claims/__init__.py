"""Comparative claims of the papers, decided from records: confirmed, weakened, refuted, mixed or undecided.

The claims of a paper are listed in its YAML file and read as :class:`Claim`. The module
:mod:`npcrepro.findings.claims.ledger` decides them on everything that is published with the book. A claim that records
can decide has one of five forms:

``difference``: the contrast of the arms lies on one side of 0 (A better than B; with four arms a difference of
differences).

* confirmed: the interval lies on the claimed side and reaches the reported effect or lies beyond it
* weakened: it lies on the claimed side and does not reach the reported effect
* refuted: on the claimed side it does not reach the least effect that matters, which is half the reported one, or the
  margin of the claim; the interval of 90 % and a one-sided test say so. If no effect is printed, lying on the claimed
  side does not help. Without a margin, it has to lie on the other side.

``spread``: the first arm varies less (or more) over patients than the second. It is decided in the same way, by the
logarithm of the ratio of the two standard deviations, with Pitman-Morgan tests.

``equivalence``: the contrast equals ``value`` within a margin.

* confirmed: shown inside the margin
* weakened: shown inside the wider margin only
* refuted: the interval lies wholly beyond the margin

``value``: the mean reaches ``value``; of several arms, their contrast (no worse than).

* confirmed: the interval reaches the value and does not go below it by more than the margin
* weakened: it stays short of the value, but not wholly by more than the margin
* refuted: it stays short wholly by more than the margin

``share``: more (or less) than a share ``value`` of the units is beyond a threshold. The side of ``value`` on which the
exact one-sided 95 % bound lies confirms or refutes it.

Two further forms are not tested by themselves: ``all`` holds if all of its parts do, or as many as it says, and
``elsewhere`` is decided by something that is not in records. If so many parts are refuted that too few can hold, the
claim is refuted, or mixed if other parts are borne out.

Everything else is undecided. These rules hold for all forms:

* Differences, spreads and confirmed equivalences also need ``p <= 0.05`` after Holm's correction for all claims of the
  paper; tests that refute are a family of their own. p is the larger of that over patients (sign-flip) and that over
  patients and trainings (:func:`npcrepro.statistics.crossed_p`). A claim that repeats another by a metric that follows
  from its own (the Jaccard index after the DSC) takes the other's place in the correction and adds nothing to the
  count. Other verdicts rest on their intervals and are not counted.
* A network beats another one, or is as good, only if the other learnt: with no seed it misses a structure in all
  patients.
* A test is undecided, whatever p is, with fewer seeds than it asks for, with fewer than twenty patients, or if
  patients are left out for a failure (an empty mask has no distance). The number that decides (the 0 of a difference,
  the end of a margin, a value) also has to lie outside the interval over other patients and other trainings
  (:func:`npcrepro.statistics.crossed`), where each fold with each seed is a training.
* Networks that are compared by overlap or distance at one fixed threshold are also compared by the DSC at the threshold
  that the validation patients choose, or by AP. Where that says the opposite, the claim is mixed. Where that cannot
  tell, or records hold neither, it is undecided: a network that marks more and a network that finds more look alike
  at one threshold.
* The arms have to be run on the same patients. Seeds that not all of them have are left out, and a claim is undecided
  if the contrast of all seeds of each arm lies outside the interval over other patients and other trainings.
* A number of one method by itself, which grows with training, is decided at the profile of the paper's size only.

What these verdicts are called in the ledger depends on the runs (:mod:`npcrepro.findings.claims.family`): on other
images, by smaller networks, after a tenth of the samples or less, and where one patient or one convention of distance
turns a verdict, a claim is "seen here" or "not seen here". It is "not decidable here" if it takes more patients than
the cohorts with records have, and "needs new runs" if its records are of methods that are defined otherwise by now.

**The test of a claim is frozen** when it is written down, before its first run. To freeze one, write ``frozen: new``
under its test; the message that follows names its fingerprint, which takes the place of ``new``. A test that is changed
later no longer has this fingerprint, and reading it is an error. A stronger test that is thought of later stands
beside it as ``control`` and has a verdict of its own.
"""

from npcrepro.findings.claims.claim import Arm, Claim
from npcrepro.findings.claims.decision import Decision, Verdict, all_of, decide_together

__all__ = ["Arm", "Claim", "Decision", "Verdict", "all_of", "decide_together"]

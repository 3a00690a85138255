"""A comparative claim of a paper, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan, log, nan
from typing import Any

from npcrepro import statistics
from npcrepro.base.errors import InputError, one_of, pick
from npcrepro.base.files import sha256_of
from npcrepro.metrics.panel import PLANE_DSC
from npcrepro.runs.evaluation import REGIONS

# Of which 0 is the worst.
SHARES = ("dsc", "dsc_validated", "jsc", "sensitivity", "precision", "specificity", *PLANE_DSC)
# What may be put in other words, or is decided elsewhere, without changing the test.
WORDING = ("key", "paper", "text", "where", "printed", "by", "needs", "limits", "frozen", "control", "arms", "parts")
TESTED = ("difference", "spread", "equivalence", "value", "share")
FORMS = (*TESTED, "all", "elsewhere")


@dataclass(frozen=True)
class Arm:
    """One side of a contrast.

    Attributes:
        method: name of the method without the paper.
        weight: 1 and -1 for a difference; 1, -1, -1, 1 for a difference of differences.
        metric: column, if it is not the metric of the claim (automatic against reference volume).
        cohort: end of the name of its cohort, if the arms have different ones (slices split by patient and by slice).
    """

    method: str
    weight: float = 1.0
    metric: str = ""
    cohort: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim as data. A contrast is the sum of weight times metric over the arms.

    Attributes:
        key, paper: ``"chen2020-45"`` and ``"chen2020"``.
        text: the claim in our words.
        where: place in the paper.
        form: see the list in :mod:`npcrepro.findings.claims`.
        printed: what the paper prints for it, in words.
        test: what decides it, in words.
        metric: column of :func:`npcrepro.runs.per_patient.by_patient`, or one of
            ``npcrepro.findings.claims.source.DERIVED``.
        arms: see :class:`Arm`; for a spread the first is compared with the second.
        direction: claimed side: ``"more"`` or ``"less"`` (for a distance, better is less).
        reported: the contrast as printed, with its sign; for a spread the ratio. ``None`` if nothing is printed.
        margin: of an equivalence, or how far a value may be missed; for a difference or a spread (there a ratio, 1.1
            for 10 %) the margin of refutation, by default half of the reported effect.
        wider_margin: an equivalence shown only inside this one is weakened.
        value: what an equivalence, a value or a share is compared with.
        threshold, beyond: a share counts units whose metric is ``"below"`` or ``"above"`` the threshold.
        unit: of a share: ``"patient"`` (averaged over seeds) or ``"seed"`` (averaged over patients).
        scale: ``"plain"``, or ``"log"`` for ratios: the contrast of logarithms, undefined for values not above 0.
        rule: what undefined values count as (:func:`npcrepro.statistics.fill`); the worst value is known for shares of
            overlap, the rule of other metrics is ``leave_out``.
        seeds: how many the protocol asks for: 3, or 5 for an ablation below 0.02 DSC.
        region: of ``npcrepro.runs.evaluation.REGIONS``.
        parts, needed: of the form ``"all"``, and how many of them have to hold; 0 for all.
        repeats: key of a claim of the same paper that this one repeats by a metric that follows from its own; Holm's
            correction counts the two as one.
        needs: of the form ``"elsewhere"``: what would decide the claim and is not in records.
        by: ``"paper"``, or ``"book"`` for a statement of this book or its audit, which is counted apart.
        own_series: only records with the paper's own series can decide it (PET in the place of an MRI cannot).
        frozen: :attr:`fingerprint` of the test, written down before the first run that it is decided on.
        control: a stronger test that was added when results of the first were known. It has a verdict of its own and
            takes the place of nothing.
        limits: a sentence on what the networks of this book leave out of the test; every verdict needs it.
    """

    key: str
    paper: str
    text: str
    where: str
    form: str
    metric: str = ""
    arms: tuple[Arm, ...] = ()
    direction: str = "more"
    reported: float | None = None
    margin: float | None = None
    wider_margin: float | None = None
    value: float = 0.0
    threshold: float | None = None
    beyond: str = "below"
    unit: str = "patient"
    scale: str = "plain"
    rule: str = "worst"
    seeds: int = 3
    printed: str = ""
    test: str = ""
    region: str = "all_slices"
    parts: tuple[Claim, ...] = ()
    needed: int = 0
    repeats: str = ""
    needs: str = ""
    by: str = "paper"
    own_series: bool = False
    frozen: str = ""
    control: Claim | None = None
    limits: str = ""

    def __post_init__(self) -> None:
        choices = {
            "form": FORMS,
            "direction": ("more", "less"),
            "beyond": ("below", "above"),
            "unit": ("patient", "seed"),
            "by": ("paper", "book"),
            "scale": ("plain", "log"),
            "rule": statistics.RULES,
            "region": REGIONS,
        }
        for name, names in choices.items():
            one_of(names, getattr(self, name), f"{name} of claim {self.key}")
        for problem in self._problems():
            raise InputError(f"claim {self.key}: {problem}")

    def _problems(self) -> Iterator[str]:
        if self.form not in TESTED and self.arms:
            yield f"the form {self.form} compares no arms by itself"
        if self.form == "all" and not all(part.form in TESTED for part in self.parts or (self,)):
            yield "the form all needs parts that can be tested by themselves"
        if self.form == "elsewhere" and not self.needs:
            yield "the form elsewhere needs a word on what would decide the claim"
        if self.control and (self.control.key != self.key or self.control.control):
            yield "a control is another test of this claim, under the same key, and has no control of its own"
        if any(part.control for part in self.parts):
            yield "a control belongs to the claim, not to a part of it"
        if self.form != "all" and self.parts:
            yield f"parts belong to the form all, not to {self.form}"
        if self.form not in TESTED:
            return
        if not self.metric:
            yield "metric is empty, so there is nothing to compare by"
        if not self.arms:
            yield "arms is empty, so there is nothing to compare"
        if self.form == "difference" and abs(sum(arm.weight for arm in self.arms)) > 1e-9:
            yield "the weights of a difference add up to 0; a sign is probably missing"
        if self.form == "spread" and len(self.arms) != 2:
            yield f"a spread compares two arms, got {len(self.arms)}"
        if self.form == "equivalence" and self.margin is None:
            yield "an equivalence needs a margin"
        if self.form == "share" and self.threshold is None:
            yield "a share needs a threshold"
        if self.form == "spread" and min(self.reported or 1, self.margin or 1) <= 0:
            yield f"a spread is a ratio above 0, got reported {self.reported} and margin {self.margin}"
        if self.reported is not None and self.form in ("difference", "spread") and not self.towards(self.effect) > 0:
            yield f"the reported {self.reported:g} does not lie on the claimed side (direction: {self.direction})"
        if self.margin is not None and not (self.refuting_margin or 0) > 0:
            yield f"margin {self.margin:g} leaves no room; a spread takes a factor above 1, others a size above 0"
        if self.wider_margin is not None and not self.wider_margin > (self.margin or 0):
            yield f"wider_margin {self.wider_margin:g} is not wider than margin {self.margin:g}"
        unknown = [metric for metric in self.metrics if self.worst_of(metric) is None]
        if self.rule == "worst" and unknown:
            yield f"the worst value of {unknown[0]} is not known; a slip in its name, or its rule has to be leave_out"

    @classmethod
    def from_data(cls, data: Mapping) -> Claim:
        """The claim written as a mapping, for instance in YAML.

        ``form`` is ``"all"`` of a claim with parts, ``"elsewhere"`` of one that says what it ``needs``, and
        ``"difference"`` of the others, and ``metric`` is the DSC, where nothing else is said.

        Raises:
            InputError: unknown, missing or contradictory entries.
        """
        known = {f.name: None for f in dataclasses.fields(cls)}
        for name in data:
            pick(known, name, f"entry of claim {data.get('key', '')}".rstrip())
        # A part says what is its own; the rest it has from the whole.
        passed_on = ("paper", "where", "region", "own_series")
        shared = {name: data[name] for name in passed_on if name in data}
        form = "all" if "parts" in data else "elsewhere" if "needs" in data else "difference"
        made: dict[str, Any] = {"form": data.get("form", form)}
        made |= {"metric": data.get("metric", "dsc")} if made["form"] in TESTED else {}
        try:
            made["arms"] = tuple(Arm(**arm) for arm in data.get("arms", ()))
            made["parts"] = tuple(cls.from_data(shared | part) for part in data.get("parts", ()))
            if "control" in data:
                about = {name: data[name] for name in ("key", "text", "printed", "by") if name in data}
                made["control"] = cls.from_data(shared | about | data["control"])
            return cls(**{**data, **made})
        except TypeError as error:
            raise InputError(f"claim {data.get('key', '?')} cannot be read: {error}") from None

    @property
    def fingerprint(self) -> str:
        """Ten digits that stand for the test, its words and its numbers, but not for how the claim itself is worded.

        What has its default value does not count, so that a new option of claims leaves the fingerprints as they are.
        """
        return sha256_of(self._asked())[:10]

    def _asked(self) -> dict[str, Any]:
        own = {name: value for name, value in _not_default(self).items() if name not in WORDING}
        own |= {"test": " ".join(self.test.split()), "arms": [_not_default(arm) for arm in self.arms]}
        return own | {"parts": [part._asked() for part in self.parts]}

    @property
    def tested(self) -> tuple[Claim, ...]:
        """What is tested: the claim itself, or its parts; nothing if records cannot decide it."""
        return self.parts if self.form == "all" else (self,) * (self.form in TESTED)

    @property
    def effect(self) -> float:
        """The reported effect on the scale on which it is tested; ``nan`` if nothing is printed."""
        if self.reported is None:
            return nan
        return log(self.reported) if self.form == "spread" else self.reported

    @property
    def refuting_margin(self) -> float | None:
        """The least effect that matters, on the scale of the test: below it, a difference counts as none."""
        if self.margin is not None:
            return log(self.margin) if self.form == "spread" else self.margin
        return None if isnan(self.effect) else abs(self.effect) / 2

    @property
    def metrics(self) -> list[str]:
        """Column of each arm."""
        return [arm.metric or self.metric for arm in self.arms]

    def worst_of(self, metric: str) -> float | None:
        """What a failure counts as; ``None`` if it is not known. The 0 of an overlap has no logarithm."""
        return 0.0 if metric in SHARES and self.scale == "plain" and self.rule != "leave_out" else None

    def towards(self, number: float) -> float:
        """The number, positive on the claimed side."""
        return number if self.direction == "more" else -number


def _not_default(given: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults; whole numbers as 1.0."""
    values = {each.name: getattr(given, each.name) for each in dataclasses.fields(given)}
    defaults = {each.name: each.default for each in dataclasses.fields(given)}
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    return {name: float(value) if isinstance(value, int) else value for name, value in changed.items()}

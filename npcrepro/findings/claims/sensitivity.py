"""How sensitive a verdict is: the same claim, decided again with one choice made otherwise.

None of the choices is an error. A verdict that turns with one of them says as much about the choice as about the claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import pandas as pd

from npcrepro.base.wording import in_words
from npcrepro.findings.claims.claim import Claim
from npcrepro.findings.claims.decision import judge_together, weigh_all
from npcrepro.findings.claims.ledger import DECIDED, Line, claims, line_of
from npcrepro.findings.claims.source import Pairs, Source, best, rows_of
from npcrepro.findings.tally import text_table
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import WHOLE

# Another convention for the same distance, with its words.
OTHER_DISTANCE = {
    "voxel_masd_mm": ("voxel_assd_mm", "ASSD in place of MASD"),
    "surfel_masd_mm": ("surfel_assd_mm", "ASSD in place of MASD"),
    "voxel_hd95_mm": ("surfel_hd95_mm", "HD95 of surfaces in place of voxels"),
    "surfel_hd95_mm": ("voxel_hd95_mm", "HD95 of voxels in place of surfaces"),
}
SLICES = "each structure in the slices that show it"
FIRST = "as it was first asked: {}"
WITHOUT = "one patient left out: {}"


@dataclass(frozen=True)
class Otherwise:
    """A claim decided with one choice made otherwise.

    Attributes:
        before: its line in the ledger.
        choice: in words.
        after: the line that it would have.
    """

    before: Line
    choice: str
    after: Line

    @property
    def turns(self) -> bool:
        """Whether the verdict is another one."""
        return self.before.verdict != self.after.verdict


class Summary(NamedTuple):
    """Numbers of claims that have records."""

    verdicts: int  # decided
    turned: int  # decided, and another verdict by some choice
    undecided: int
    settled: int  # undecided, and a verdict by some choice
    unsettled: int  # undecided, and no verdict by any choice that there is


def otherwise(found: Sequence[Source], keys: Iterable[str] = ()) -> list[Otherwise]:
    """Every claim that has records, with each choice that can be made otherwise.

    The other claims of its paper stay as they are, for Holm's correction. A claim that is decided is decided once more
    without each patient in turn; those without whom it has another verdict are one entry for each such verdict.

    Args:
        found: from :func:`npcrepro.findings.claims.source.sources`.
        keys: of papers; all if empty.
    """
    return list(chain.from_iterable(_of_paper(found, paper) for paper in keys or registry.KEYS))


def table(entries: Iterable[Otherwise]) -> pd.DataFrame:
    """The choices that turn a verdict, as a data frame of text."""
    columns = {
        "claim": lambda one: one.before.claim.key.split("-")[-1],
        "paper": lambda one: one.before.claim.paper,
        "change": lambda one: f"{one.before.verdict} to {one.after.verdict}",
        "what is claimed": lambda one: one.before.claim.text,
        "choice made otherwise": lambda one: one.choice,
        "reason then": lambda one: one.after.reason,
    }
    return text_table((one for one in entries if one.turns), columns)


def summarise(lines: Iterable[Line], entries: Sequence[Otherwise]) -> Summary:
    """Counts of the claims, which is what the page says of them."""
    having = [line for line in lines if line.parts]
    decided = {line.claim.key for line in having if line.verdict in DECIDED}
    undecided = {line.claim.key for line in having} - decided
    tried = {one.before.claim.key for one in entries}
    turned = {one.before.claim.key for one in entries if one.turns}
    settled = turned & undecided
    return Summary(len(decided), len(turned & decided), len(undecided), len(settled), len(tried & undecided - settled))


def _of_paper(found: Sequence[Source], paper: str) -> Iterator[Otherwise]:
    asked = [(claim, source) for claim in claims(paper) if (source := best(found, claim))]
    family = {claim.key: rows_of(claim, source) for claim, source in asked}
    known = weigh_all(_all(family))

    def again(claim: Claim, source: Source, pairs: Pairs) -> Line:
        """The line of a claim with other rows or another test, beside the other claims as they are."""
        parts = [part for part, _ in _all(family | {claim.key: pairs})]
        weighed = known | (weigh_all(pairs) if pairs is not family[claim.key] else {})
        return line_of(claim, source, {one.claim: one for one in judge_together(parts, weighed)})

    for claim, source in asked:
        before = again(claim, source, family[claim.key])
        for choice, other in _choices(claim):
            if pairs := rows_of(other, source):
                yield Otherwise(before, choice, again(other, source, pairs))
        if before.verdict in DECIDED:
            yield from _without(before, source, family[claim.key], again)


def _all(family: Mapping[str, Pairs]) -> Pairs:
    return list(chain.from_iterable(family.values()))


def _choices(claim: Claim) -> Iterator[tuple[str, Claim]]:
    """A choice in words, and the claim by it."""
    if claim.first:
        yield FIRST.format(claim.first.test), claim.first
    # Distances and losses are of whole volumes alone.
    whole = {*WHOLE, "loss_fall"}
    inside = _changed(claim, lambda part: {"region": "reference_slices"} if whole.isdisjoint(part.metrics) else {})
    if inside != claim:
        yield SLICES, inside
    others = {part.metric: OTHER_DISTANCE[part.metric] for part in claim.tested if part.metric in OTHER_DISTANCE}
    if others:
        distance = _changed(claim, lambda part: {"metric": others[part.metric][0]} if part.metric in others else {})
        yield f"by {in_words(words for _, words in others.values())}", distance


def _changed(claim: Claim, change: Callable[[Claim], dict[str, Any]]) -> Claim:
    """The claim after a change of each part that is tested."""
    if claim.form == "all":
        return replace(claim, parts=tuple(replace(part, **change(part)) for part in claim.parts))
    return replace(claim, **change(claim))


def _without(before: Line, source: Source, pairs: Pairs, again: Callable[..., Line]) -> Iterator[Otherwise]:
    """Each other verdict that the claim has without one of the patients."""
    patients = list(dict.fromkeys(name for _, rows in pairs for name in rows.patient))
    turned: dict[str, list[tuple[str, Line]]] = {}
    for name in patients:
        after = again(before.claim, source, [(part, rows[rows.patient != name]) for part, rows in pairs])
        if after.verdict != before.verdict:
            turned.setdefault(after.verdict, []).append((name, after))
    for found in turned.values():
        *others, last = [name for name, _ in found]
        names = f"{', '.join(others)} or {last}" if others else last
        if len(found) == len(patients):
            names = f"any of the {len(patients)}"
        yield Otherwise(before, WITHOUT.format(names), found[0][1])

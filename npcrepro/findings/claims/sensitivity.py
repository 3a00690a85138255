"""How sensitive a verdict is: the same claim, decided again with one choice made otherwise.

None of the choices is an error. A verdict that turns with one of them says as much about the choice as about the claim.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import pandas as pd

from npcrepro.base.wording import in_words
from npcrepro.findings.claims.claim import Claim
from npcrepro.findings.claims.family import DECIDED, Family, Line, claims
from npcrepro.findings.claims.source import Source, rows_of
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
CONTROL = "the stronger control: {}"
WITHOUT = "one patient left out: {}"


@dataclass(frozen=True)
class Otherwise:
    """A claim decided with one choice made otherwise.

    Attributes:
        before: its line in the ledger.
        choice: in words.
        after: the line that it would have.
        shakes: whether a verdict that turns with it is none on the paper: one patient, one convention of distance.
    """

    before: Line
    choice: str
    after: Line
    shakes: bool = False

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
    families = (Family(claims(paper), found) for paper in keys or registry.KEYS)
    return list(chain.from_iterable(of_claim(family, line) for family in families for line in family.lines()))


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
    settled = {one.before.claim.key for one in entries if one.after.verdict in DECIDED} & undecided
    return Summary(len(decided), len(turned & decided), len(undecided), len(settled), len(tried & undecided - settled))


def of_claim(family: Family, before: Line) -> Iterator[Otherwise]:
    """A claim of a family with each choice that can be made otherwise; nothing if it has no records."""
    claim = before.claim
    if source := family.sources[claim.key]:
        for choice, other, shakes in _choices(claim):
            if pairs := rows_of(other, source):
                yield Otherwise(before, choice, family.again(other, source, pairs), shakes)
        if before.verdict in DECIDED:
            yield from _without(family, before, source)


def _choices(claim: Claim) -> Iterator[tuple[str, Claim, bool]]:
    """A choice in words, the claim by it, and whether it shakes a verdict."""
    if claim.control:
        yield CONTROL.format(claim.control.test), claim.control, False
    # Distances and losses are of whole volumes alone.
    whole = {*WHOLE, "loss_fall"}
    inside = _changed(claim, lambda part: {"region": "reference_slices"} if whole.isdisjoint(part.metrics) else {})
    if inside != claim:
        yield SLICES, inside, False
    others = {part.metric: OTHER_DISTANCE[part.metric] for part in claim.tested if part.metric in OTHER_DISTANCE}
    if others:
        distance = _changed(claim, lambda part: {"metric": others[part.metric][0]} if part.metric in others else {})
        yield f"by {in_words(words for _, words in others.values())}", distance, True


def _changed(claim: Claim, change: Callable[[Claim], dict[str, Any]]) -> Claim:
    """The claim after a change of each part that is tested."""
    if claim.form == "all":
        return replace(claim, parts=tuple(replace(part, **change(part)) for part in claim.parts))
    return replace(claim, **change(claim))


def _without(family: Family, before: Line, source: Source) -> Iterator[Otherwise]:
    """Each other verdict that the claim has without one of the patients."""
    pairs = family.rows[before.claim.key]
    patients = list(dict.fromkeys(name for part, rows in pairs if part.unit == "patient" for name in rows.patient))
    turned: dict[str, list[tuple[str, Line]]] = {}
    for name in patients:
        after = family.again(before.claim, source, [(part, rows[rows.patient != name]) for part, rows in pairs], 1)
        if after.verdict != before.verdict:
            turned.setdefault(after.verdict, []).append((name, after))
    for found in turned.values():
        *others, last = [name for name, _ in found]
        names = f"{', '.join(others)} or {last}" if others else last
        if len(found) == len(patients):
            names = f"any of the {len(patients)}"
        yield Otherwise(before, WITHOUT.format(names), found[0][1], shakes=True)

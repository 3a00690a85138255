"""What a verdict hangs on: the same claim, decided again with one choice made otherwise.

Nobody made these choices wrongly. A verdict that turns with one of them says more about the choice than about the
claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from npcrepro import papers
from npcrepro.claims.claim import Claim
from npcrepro.claims.decision import decide_together, weigh_all
from npcrepro.claims.ledger import DECIDED, Line, Source, best, claims, line_of, rows_of
from npcrepro.words import in_words, plural

# Another convention for the same distance, with its words.
OTHER_DISTANCE = {
    "voxel_masd_mm": ("voxel_assd_mm", "ASSD in place of MASD"),
    "surfel_masd_mm": ("surfel_assd_mm", "ASSD in place of MASD"),
    "voxel_hd95_mm": ("surfel_hd95_mm", "HD95 of surfaces in place of voxels"),
    "surfel_hd95_mm": ("voxel_hd95_mm", "HD95 of voxels in place of surfaces"),
}
SLICES = "in the slices that show the structure"
FIRST = "as it was first asked: {}"
WITHOUT = "without {}"
SHOWN = 4  # names of patients


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


def otherwise(found: Sequence[Source], keys: Iterable[str] = ()) -> list[Otherwise]:
    """Every claim that has records, with each choice that can be made otherwise.

    The other claims of its paper stay as they are, for Holm's correction. Where a claim is decided it is decided once
    more without each patient; those without whom the verdict turns are one entry for each verdict, and nobody is none.

    Args:
        found: from :func:`npcrepro.claims.ledger.sources`.
        keys: of papers; all if empty.
    """
    entries = []
    for paper in keys or papers.KEYS:
        asked = [(claim, source) for claim in claims(paper) if (source := best(found, claim))]
        family = {claim.key: rows_of(claim, source) for claim, source in asked}
        known = weigh_all([pair for pairs in family.values() for pair in pairs])

        def decided(claim: Claim, source: Source, pairs, family=family, known=known) -> Line:
            changed = family | {claim.key: pairs}
            others = {key: evidence for key, evidence in known.items() if key not in _parts(family[claim.key])}
            decisions = decide_together([pair for each in changed.values() for pair in each], known=others)
            return line_of(claim, source, {decision.claim: decision for decision in decisions})

        for claim, source in asked:
            before = decided(claim, source, family[claim.key])
            for choice, other, pairs in _choices(claim, source):
                entries.append(Otherwise(before, choice, decided(other, source, pairs)))
            if before.verdict in DECIDED:
                entries += _without(before, lambda pairs, c=claim, s=source: decided(c, s, pairs), family[claim.key])
    return entries


def table(entries: Sequence[Otherwise]):
    """The choices that turn a verdict, as a data frame of text."""
    import pandas as pd

    rows = [
        {
            "claim": one.before.claim.key.split("-")[-1],
            "paper": one.before.claim.paper,
            "what is claimed": one.before.claim.text,
            "verdict": one.before.verdict,
            "with one choice made otherwise": one.choice,
            "verdict then": one.after.verdict,
        }
        for one in entries
        if one.turns
    ]
    return pd.DataFrame(rows)


def _choices(claim: Claim, source: Source) -> Iterator[tuple[str, Claim, list]]:
    """A choice in words, the claim by it, and what is tested then, with its rows."""
    if claim.first and (pairs := rows_of(claim.first, source)):
        yield FIRST.format(claim.first.test), claim.first, pairs
    slices = _changed(claim, lambda part: {} if part.metric == "loss_fall" else {"region": "reference_slices"})
    # Distances are taken in whole volumes alone.
    if slices != claim and all(rows[part.metric].notna().any() for part, rows in rows_of(slices, source)):
        yield SLICES, slices, rows_of(slices, source)
    distance = _changed(claim, lambda part: {"metric": OTHER_DISTANCE.get(part.metric, (part.metric,))[0]})
    if distance != claim:
        words = dict.fromkeys(OTHER_DISTANCE[part.metric][1] for part in claim.tested if part.metric in OTHER_DISTANCE)
        yield f"by {in_words(words)}", distance, rows_of(distance, source)


def _changed(claim: Claim, change: Callable[[Claim], dict]) -> Claim:
    if claim.form == "all":
        return replace(claim, parts=tuple(replace(part, **change(part)) for part in claim.parts))
    return replace(claim, **change(claim))


def _without(before: Line, decided: Callable[[list], Line], pairs: list) -> list[Otherwise]:
    patients = dict.fromkeys(name for _, rows in pairs for name in rows.patient)
    turned: dict[str, list[tuple[str, Line]]] = {}
    for name in patients:
        after = decided([(part, rows[rows.patient != name]) for part, rows in pairs])
        if after.verdict != before.verdict:
            turned.setdefault(after.verdict, []).append((name, after))
    return [
        Otherwise(before, WITHOUT.format(_any_of([name for name, _ in found])), found[0][1])
        for found in turned.values()
    ]


def _any_of(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    more = f" and {plural(len(names) - SHOWN, 'other')}" if len(names) > SHOWN else ""
    return f"any one of {', '.join(names[:SHOWN])}{more}"


def _parts(pairs: list) -> set[str]:
    return {part.key for part, _ in pairs}

"""What a reader of scores should know: sentences on cases and structures that are missing or not scored."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.cohorts.structures import Structures
from npcrepro.scoring.sides import Files, is_bare, listed


def on_cases(
    references: Files, wrong: Sequence[str], suspect: Sequence[str], spacing_mm: Sequence[float] | None
) -> list[str]:
    """Cases that are not scored or in no mean, and cases without distances."""
    notes = []
    if wrong:
        notes.append(f"wrong labels by dataset.json, so not scored: {listed(wrong, 'case')}")
    suspect = [case for case in references if case in suspect]
    if suspect:
        notes.append(
            f"doubtful labels by dataset.json, so in the rows of cases but in no mean: {listed(suspect, 'case')}"
        )
    bare = [case for case, files in references.items() if is_bare(files)]
    if spacing_mm is None and bare:
        notes.append(f"no distances, because PNG and TIFF hold no spacing: give --spacing ({listed(bare, 'case')})")
    return notes


def on_structures(names: Sequence[str], drawn: Mapping[str, Sequence[str]], left: Sequence[str]) -> list[str]:
    """Structures that are not scored, in all cases or in some."""
    notes = [f"in the references and not in --labels, so not scored: {listed(left)}"] if left else []
    lacking = {name: [case for case, found in drawn.items() if name not in found] for name in names}
    lines = [f"{name} ({listed(cases, 'case')})" for name, cases in lacking.items() if cases]
    return notes + ([f"not drawn in the reference, so not scored: {listed(lines)}"] if lines else [])


def on_own_names(name: str, beside: bool, own: Iterable[str] | None, names: Sequence[str]) -> list[str]:
    """Structures that a prediction does not have by the ``dataset.json`` beside it, or why that file does not count."""
    if own is None:
        cause = "its labels cannot be read, or have none of the names of the reference"
        return [f"{name}: its own dataset.json does not count, as {cause}"] if beside else []
    lacking = [structure for structure in names if structure not in own]
    return [f"{name}: not in its own dataset.json, so not scored: {listed(lacking)}"] if lacking else []


def on_prediction(
    name: str,
    path: Path,
    files: Files,
    drawn: Mapping[str, Sequence[str]],
    names: Sequence[str],
    codes: Structures,
) -> list[str]:
    """What a prediction has too much or too little of, compared with the reference."""
    missing, extra = [case for case in drawn if case not in files], [case for case in files if case not in drawn]
    notes = [f"{name}: no prediction, which counts as the worst: {listed(missing, 'case')}"] if missing else []
    notes += [f"{name}: no reference, so not scored: {listed(extra, 'case')}"] if extra else []
    masks = {case: set(each) for case in drawn if isinstance(each := files.get(case), dict)}
    if not masks:
        if not codes:
            cause = "name the structures of the label images in --labels"
            raise InputError(f"{path} holds label images and the reference a folder of masks for each case: {cause}")
        return notes
    found = {structure for mine in masks.values() for structure in mine}
    if not found & set(names):
        mine, theirs = listed(sorted(found)), listed(names)
        raise InputError(f"{path} has no structure of the reference: {mine} against {theirs}; names have to agree")
    unknown = sorted(found - set(names))
    for structure in names:
        cases = [case for case, mine in masks.items() if structure in drawn[case] and structure not in mine]
        if cases:
            near = difflib.get_close_matches(structure, unknown, n=1)
            hint = f"; is it {near[0]!r} there?" if near else ""
            notes.append(f"{name}: no mask of {structure}, which counts as the worst: {listed(cases, 'case')}{hint}")
    if unknown:
        notes.append(f"{name}: not in the references or not in --labels, so not scored: {listed(unknown, 'structure')}")
    return notes

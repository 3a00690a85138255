"""Rules drafted for an export whose series or structures fit no rule, for the user to decide on."""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import yaml

from npcrepro.base.files import write_text
from npcrepro.base.progress import Report
from npcrepro.base.wording import plural
from npcrepro.cohorts.dicom.find import Series
from npcrepro.cohorts.dicom.names import TARGET_KINDS, near_miss
from npcrepro.cohorts.dicom.rules import ChannelRule, Rules
from npcrepro.cohorts.dicom.structures import Patient

# What words in descriptions of MR series mostly stand for. None of them is sure.
SEQUENCES = {
    **dict.fromkeys(("mprage", "vibe", "spgr", "fspgr", "bravo", "flash"), "T1"),
    **dict.fromkeys(("stir", "tirm"), "T2"),
    **dict.fromkeys(("dwi", "diffusion"), "DWI"),
    **{"flair": "FLAIR", "adc": "ADC"},
}
HEAD = """\
# Rules drafted from {source} ({patients}). This applies them:
#   {command}
# A line without "#" is applied. A line with "#" is a guess or an offer: take the "#" away where it is right, or write
# another name before the colon. Series and structures without a line of their own are left out.
# Names and descriptions are those of the export. They may name a patient: look at them before you pass this file on.
"""
CHANNELS = "\nchannels:  # a series takes the first line whose modality and description fit"
REGISTER = "# register: true  # aligns series of another frame of reference"
STRUCTURES = "\nstructures:  # a contoured structure takes the first line whose pattern fits"


def accept_only_ones(rules: Rules, patients: Sequence[Patient], report: Report) -> Rules:
    """Rules by which the only series of every patient is the channel, called by its modality, and the only structure
    keeps its name, where they fit no rule; ``report`` is told so."""
    series = [one for patient in patients for one in patient.series]
    modalities = {one.modality for one in series}
    alone = all(len(patient.series) == 1 for patient in patients) and len(modalities) == 1
    if alone and modalities != {""} and not rules.channels_of(series):
        (name,) = modalities
        report(f"the only series of each patient is channel {name}")
        rules = replace(rules, channels=(ChannelRule(name, name, re.compile("")),))
    drawn = {name.strip().casefold(): name.strip() for patient in patients for name in patient.names}
    if len(drawn) == 1 and not any(map(rules.structure_of, drawn.values())):
        (name,) = drawn.values()
        report(f"the only structure keeps its name, {name!r}")
        rules = replace(rules, structures={name: re.compile(exactly([name]), re.IGNORECASE)})
    return rules


def open_questions(rules: Rules, patients: Sequence[Patient]) -> list[str]:
    """What the rules leave open: each as half a sentence, none where they fit."""
    questions = []
    channels = [rules.channels_of(patient.series) for patient in patients]
    common = [rule.name for rule in rules.channels if all(rule.name in each for each in channels)]
    if not common:
        found = sorted(f"{one.modality} {one.description!r}" for patient in patients for one in patient.series)
        questions.append(f"no channel that all {plural(len(patients), 'patient')} have ({listed(found)})")
    for name in common:
        several = [one.description for each in channels if len(each[name]) > 1 for one in each[name]]
        if several:
            questions.append(f"several series of one patient fit channel {name} ({listed(map(repr, sorted(several)))})")
    bare: set[str] = set()
    missed: set[str] = set()
    for patient in patients:
        known = {rules.structure_of(name) for name in patient.names}
        if known == {None}:
            bare |= patient.names
            continue
        for name in patient.names:
            near = None if rules.structure_of(name) else near_miss(name)
            if near and near.structure not in known:
                missed.add(f"{name!r} may be {near.structure}")
    if bare:
        questions.append(
            f"patients whose structures all have names that are not known ({listed(map(repr, sorted(bare)))})"
        )
    if missed:
        questions.append(f"structures that nearly fit a rule ({listed(sorted(missed))})")
    return questions


def draft_rules(source: str | Path, destination: str | Path, rules: Rules, patients: Sequence[Patient]) -> str:
    """Write ``rules-draft.yaml`` beside ``destination``; returns a sentence with the command that goes on with it.

    Every series and every contoured structure has a line. What fits ``rules`` in all patients stands there as it is;
    near misses, and names like no other, are comments. A draft that is there already is kept.

    Raises InputError where the file cannot be written.
    """
    path = Path(destination).resolve().parent / "rules-draft.yaml"
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    command = shlex.join(["npcrepro", "data", "import", str(source), str(destination), "--rules", str(path)])
    head = HEAD.format(source=source, patients=plural(len(patients), "patient"), command=command)
    lines = [head.rstrip(), *_channel_lines(rules, patients), *_structure_lines(rules, patients)]
    text = "\n".join(lines) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        return f"{path} is there from before and was kept; remove it for a new draft, or go on with it: {command}"
    write_text(path, text)
    return f"{path} has a line for each of them; take away the # of those that are right, then: {command}"


def exactly(names: Iterable[str]) -> str:
    """A pattern that fits these names and no other."""
    escaped = [re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", name) for name in names]
    return f"^{escaped[0]}$" if len(escaped) == 1 else f"^({'|'.join(escaped)})$"


def listed(found: Iterable[str]) -> str:
    """The first ten, each once."""
    unique = [*dict.fromkeys(found)]
    return ", ".join(unique[:10]) + (f" and {len(unique) - 10} more" if len(unique) > 10 else "")


def _channel_lines(rules: Rules, patients: Sequence[Patient]) -> list[str]:
    of_patients = [rules.channels_of(patient.series) for patient in patients]
    lines, common = [CHANNELS], []
    for rule in rules.channels:
        found = [each[rule.name] for each in of_patients if rule.name in each]
        in_all = len(found) == len(patients)
        common += [rule.name] if in_all else []
        if any(len(series) > 1 for series in found):
            for one in _unique(one for series in found for one in series):
                lines.append(_channel_line(rule.name, [one], patients, "choose one of them", sure=False))
        elif found:
            about = "" if in_all else "the others would be skipped"
            lines.append(
                _channel_line(rule.name, [one for each in found for one in each], patients, about, sure=in_all)
            )
    known = {one.uid for each in of_patients for series in each.values() for one in series}
    rest = [one for patient in patients for one in patient.series if one.uid not in known]
    for one in _unique(rest):
        name, about = _guess_channel(one)
        lines.append(_channel_line(name, [one], patients, about, sure=False))
    if common:
        several = any(len(patient.drawings) > 1 for patient in patients)
        about = "the channel whose grid all others take" + ("; the RTSTRUCT drawn on it is imported" if several else "")
        lines.append(f"reference: {_as_yaml(rules.reference_of(tuple(common)))}  # {about}")
    return [*lines, REGISTER]


def _channel_line(
    name: str, series: Sequence[Series], patients: Sequence[Patient], about: str, *, sure: bool
) -> str:  # fmt: skip
    modality, descriptions = series[0].modality, {one.description for one in series}
    count = drawn_on = 0
    for patient in patients:
        fit = {one.uid for one in patient.series if one.modality == modality and one.description in descriptions}
        count += bool(fit)
        drawn_on += any(fit & drawing.series for drawing in patient.drawings)
    rule = {"modality": modality, "description": exactly(sorted(descriptions))}
    notes = [about, f"contours are drawn on it in {drawn_on}" if drawn_on else ""]
    return _line(name, rule, count, len(patients), "; ".join(filter(None, notes)), sure=sure)


def _unique(series: Iterable[Series]) -> Iterable[Series]:
    """One series of each modality and description."""
    return {(one.modality, one.description): one for one in series}.values()


def _guess_channel(series: Series) -> tuple[str, str]:
    """Name of a channel for a series that fits none, and why."""
    if series.modality == "PT":
        return "PET", ""
    for word in re.findall("[a-z]+[0-9]*", series.description.lower()):
        for near in get_close_matches(word, SEQUENCES, n=1, cutoff=0.8) if series.modality == "MR" else ():
            return SEQUENCES[near], f"{near.upper()} is mostly {SEQUENCES[near]}"
    return series.modality, "no sequence that is known: give the channel a name"


def _structure_lines(rules: Rules, patients: Sequence[Patient]) -> list[str]:
    drawn = sorted({name.strip() for patient in patients for name in patient.names})
    known: dict[str, list[str]] = {}
    near: dict[str, list[tuple[str, str]]] = {}
    rest = []
    several = any(len(patient.drawings) > 1 for patient in patients)
    if not drawn:
        return []
    for name in drawn:
        structure, miss = rules.structure_of(name), near_miss(name)
        if structure:
            known.setdefault(structure, []).append(name)
        elif miss:
            near.setdefault(miss.structure, []).append((name, miss.why))
        else:
            rest.append(name)

    def line(structure: str, names: list[str], about: str = "", *, sure: bool = False) -> str:
        count = sum(any(name.strip() in names for name in patient.names) for patient in patients)
        notes = [about, f"drawn on {_drawn_on(names, patients)}" if several else ""]
        return _line(structure, exactly(names), count, len(patients), "; ".join(filter(None, notes)), sure=sure)

    lines = [STRUCTURES]
    for structure in rules.structures:
        names = known.get(structure, [])
        if names:
            lines.append(line(structure, names, sure=True))
        for name, why in near.get(structure, []):
            about = (
                f"in place of the line above, if {name!r} is {structure} too: {why}" if names else f"near miss: {why}"
            )
            lines.append(line(structure, [*names, name], about))
    return [*lines, *(line(name, [name], _kind_of(name)) for name in rest)]


def _kind_of(name: str) -> str:
    """What the first letters of a name tell that is like no other, by AAPM TG-263."""
    for letters, kind in TARGET_KINDS.items():
        if re.match(rf"{letters}(?![a-z])", name, re.IGNORECASE):
            return f"by its first letters {'an' if kind[0] == 'i' else 'a'} {kind}: keeps its own name"
    return "like no name of the field: keeps its own"


def _drawn_on(names: list[str], patients: Sequence[Patient]) -> str:
    """The series on which structures were drawn, of which an import takes those of one series alone."""
    found = set()
    for patient in patients:
        for drawing in patient.drawings:
            if any(name.strip() in names for name in drawing.names):
                found |= {f"{one.modality} {one.description!r}" for one in patient.series if one.uid in drawing.series}
    return listed(sorted(found)) or "series that are not there"


def _line(name: str, rule: object, count: int, total: int, about: str, *, sure: bool) -> str:
    rule = f"{_as_yaml(name)}: {_as_yaml(rule)}"
    return f"  {'' if sure else '# '}{rule}  # {count} of {plural(total, 'patient')}{about and f'; {about}'}"


def _as_yaml(value: object) -> str:
    """A value in one line of YAML, within quotes where it needs them."""
    written = yaml.safe_dump([value], allow_unicode=True, width=10_000, default_flow_style=True, sort_keys=False)
    return written.strip()[1:-1]

"""Which series becomes which channel, and which drawn structure which structure of the cohort.

A small YAML file says it where the default tables do not fit::

    channels:                # a series takes the first channel whose modality and description fit
      CT: {modality: CT}
      T1: {modality: MR, description: "t1(?!.*(gd|[+]c))"}
    reference: CT            # the grid of the cohort; by default the first channel
    structures:              # a drawn structure takes the first name that fits
      GTVp: "^gtv.?(p|t|primary)?$"
    register: true           # align series of other frames of reference (off by default)

Descriptions and names are searched with regular expressions, in which case makes no difference.
"""

import re
from collections.abc import ItemsView, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from npcrepro.base.errors import InputError
from npcrepro.cohorts.defects import likely_cause
from npcrepro.cohorts.dicom.find import Series
from npcrepro.cohorts.dicom.names import patterns

# Words for contrast agent in the descriptions of MR series, and words for a series without.
CONTRAST = r"((?<![a-z])(gd|gad\w*|ce|post|km|contrast\w*|enh\w*)(?![a-z])|[+] ?c(?![a-z])|(?<![a-z])c[+])"
NATIVE = r"(?<![a-z])(no|non|pre|without|w/?o|native?|ohne)(?![a-z])"
CHANNELS = {
    "CT": ("CT", ""),
    "CET1": ("MR", rf"^(?!.*{NATIVE}).*(t1(gd|ce|c)(?![a-z])|t1.*{CONTRAST}|{CONTRAST}.*t1|thrive)"),
    "T1": ("MR", "t1"),
    "T2": ("MR", "t2(?!.*flair)"),
}
# The grid of the cohort, where the rules do not name it: planning is done on CT.
REFERENCES = ("CT", "T1", "CET1", "T2")


@dataclass(frozen=True)
class ChannelRule:
    """What makes a series channel ``name``."""

    name: str
    modality: str
    description: re.Pattern[str]

    def fits(self, series: Series) -> bool:
        """Whether modality and description are those of the channel."""
        return self.modality == series.modality and bool(self.description.search(series.description))


@dataclass(frozen=True)
class Rules:
    """Rules for the import. ``own_channels``: they were asked for by name, so that every patient must have them; the
    table of the package is only an offer."""

    channels: tuple[ChannelRule, ...]
    structures: Mapping[str, re.Pattern[str]]
    reference: str | None = None
    register: bool = False
    own_channels: bool = False

    def channel_of(self, series: Series) -> str | None:
        """Channel that a series becomes, or None."""
        if not series.is_image:
            return None
        return next((rule.name for rule in self.channels if rule.fits(series)), None)

    def channels_of(self, series: Iterable[Series]) -> dict[str, list[Series]]:
        """The series that fit each channel; a channel that none fits is left out."""
        found: dict[str, list[Series]] = {}
        for one in series:
            name = self.channel_of(one)
            if name:
                found.setdefault(name, []).append(one)
        return found

    def structure_of(self, name: str) -> str | None:
        """Structure that a drawn structure becomes, or None."""
        return next((key for key, pattern in self.structures.items() if pattern.search(name.strip())), None)

    def reference_of(self, channels: tuple[str, ...]) -> str:
        """Channel whose grid the cohort takes. One that is not among the ``channels`` is an InputError."""
        if self.reference and self.reference not in channels:
            raise InputError(f"reference {self.reference}: not all patients have it; take one of {', '.join(channels)}")
        if self.reference or self.own_channels:
            return self.reference or channels[0]
        return next((name for name in REFERENCES if name in channels), channels[0])


def default_rules() -> Rules:
    """What needs no file: the channels of this module and the structures of the module `names`."""
    return Rules(
        channels=tuple(
            ChannelRule(name, modality, re.compile(description, re.IGNORECASE))
            for name, (modality, description) in CHANNELS.items()
        ),
        structures=patterns(),
    )


def read_rules(path: str | Path | None) -> Rules:
    """Rules of a YAML file (see the module); what it does not say is as in `default_rules`.

    Raises InputError for a file that cannot be read, unknown fields, and patterns that are not regular expressions.
    """
    rules = default_rules()
    if path is None:
        return rules
    fields = _fields(Path(path))
    channels, structures = rules.channels, rules.structures
    if "channels" in fields:
        channels = tuple(_channel(path, name, rule) for name, rule in _mapping(path, fields, "channels"))
    if "structures" in fields:
        named = _mapping(path, fields, "structures")
        structures = {_text(path, "structures", name): _pattern(path, name, pattern) for name, pattern in named}
    reference, register = fields.get("reference"), fields.get("register", False)
    names = [rule.name for rule in channels]
    if reference is not None and reference not in names:
        raise InputError(f"{path}: reference {reference!r} is not one of the channels {', '.join(names)}")
    if not isinstance(register, bool):
        raise InputError(f"{path}: register is {register!r}; it is true or false")
    return Rules(channels, structures, reference, register, "channels" in fields)


def _fields(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: a mistyped path") from None
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
    except (OSError, ValueError, yaml.YAMLError) as problem:
        reason = " ".join(str(problem).split())
        raise InputError(f"{path}: not a YAML file that can be read ({reason}): check indentation and quotes") from None
    known = ("channels", "reference", "structures", "register")
    if not isinstance(fields, dict):
        raise InputError(f"{path}: rules are fields ({', '.join(known)}), each with a colon")
    for key in fields:
        if key not in known:
            cause = likely_cause(str(key), known, "known are " + ", ".join(known))
            raise InputError(f"{path}: unknown field {key!r}: {cause}")
    return fields


class _Loader(yaml.SafeLoader):
    """Refuses a name that is there twice, of which YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(
                    f"line {key.start_mark.line + 1} has a list in place of a name: take the brackets away"
                )
            if key.value in names:
                cause = f"write one line for both, such as {key.value}: '^(one|other)$'"
                raise InputError(f"line {key.start_mark.line + 1} names {key.value!r} a second time: {cause}")
            names.add(key.value)
        return super().construct_mapping(node, deep)


def _mapping(path: str | Path, fields: dict[str, Any], key: str) -> ItemsView[Any, Any]:
    value = fields[key]
    if value is None:
        raise InputError(f"{path}: no line below {key}: lines that begin with # do not count; decide for one")
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: {key} is {value!r}; it looks like 'NAME: rule', one a line")
    return value.items()


def _channel(path: str | Path, name: object, rule: object) -> ChannelRule:
    if not isinstance(rule, dict) or "modality" not in rule or not set(rule) <= {"modality", "description"}:
        raise InputError(f"{path}: channel {name!r} is {rule!r}; it looks like {{modality: MR, description: t1}}")
    modality = _text(path, f"modality of {name}", rule["modality"])
    return ChannelRule(
        _text(path, "channels", name), modality.upper(), _pattern(path, name, rule.get("description", ""))
    )


def _text(path: str | Path, what: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{path}: {what}: {value!r} is not text; put it in quotes")
    return value


def _pattern(path: str | Path, name: object, pattern: Any) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except (re.error, TypeError, RecursionError, OverflowError) as problem:
        cause = "put the pattern in quotes, and a backslash before ( + . where they stand for themselves"
        raise InputError(
            f"{path}: pattern {pattern!r} of {name} is not a regular expression ({problem}): {cause}"
        ) from None

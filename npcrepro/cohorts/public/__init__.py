"""Public data sets: how to get them, and how they become a cohort.

Example:
    >>> from npcrepro.cohorts import public
    >>> public.find("npc-mri-277").licence
    'CC BY 4.0'
"""

from pathlib import Path

import yaml

from npcrepro.base.errors import pick
from npcrepro.cohorts.public import converters, npc_mri
from npcrepro.cohorts.public.download import fetch
from npcrepro.cohorts.public.sets import Conversion, Download, Outlook, PublicSet, Variant, convert

__all__ = ["SETS", "Conversion", "Download", "Outlook", "PublicSet", "Variant"]
__all__ += ["convert", "fetch", "find", "outlook"]
CONVERTERS = {
    "npc-mri-277": npc_mri.npc_mri,
    "segrap2023": converters.segrap,
    "structseg2019": converters.structseg,
    "han-seg": converters.hanseg,
    "lnctvseg": converters.lnctv,
    "hnts-mrg-2024": converters.hnts,
    "openkbp": converters.openkbp,
    "deepmind-tcia": converters.deepmind,
}


def _sets() -> dict[str, PublicSet]:
    entries = yaml.safe_load((Path(__file__).parent / "sets.yaml").read_text(encoding="utf-8"))
    found = {}
    for key, entry in entries.items():
        entry["downloads"] = tuple(Download(**file) for file in entry.get("downloads", ()))
        entry["shape"] = tuple(entry.get("shape", (0, 0, 0)))
        variants = {name: dict(each, channels=tuple(each["channels"])) for name, each in entry["variants"].items()}
        entry["variants"] = {name: Variant(**each) for name, each in variants.items()}
        found[key] = PublicSet(key=key, convert=CONVERTERS[key], **entry)
    return found


SETS = _sets()


def find(key: str) -> PublicSet:
    """The set of this key; an unknown one is an InputError that names the near miss."""
    return pick(SETS, key, "public set")


def outlook(name: str) -> Outlook | None:
    """What the cohort ``SET/VARIANT`` will be; None for a text that names no set of which that is known.

    Raises InputError for an unknown variant of a set.

    Example:
        >>> outlook("npc-mri-277/CET1").patients, outlook("folder/of/mine")
        (277, None)
    """
    key, _, variant = name.partition("/")
    found = SETS[key].outlooks if key in SETS else {}
    return pick(found, variant or next(iter(found)), f"variant of {key}") if found else None

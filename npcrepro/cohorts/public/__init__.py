"""Public data sets: how to get them, and how they become a cohort.

Example:
    >>> from npcrepro.cohorts import public
    >>> public.find("npc-mri-277").licence
    'CC BY 4.0'
"""

from npcrepro.base.errors import pick
from npcrepro.cohorts.public.conversion import convert
from npcrepro.cohorts.public.download import fetch
from npcrepro.cohorts.public.nodes import HNTS_MRG, LNCTVSEG
from npcrepro.cohorts.public.npc_mri import NPC_MRI
from npcrepro.cohorts.public.openkbp import OPENKBP
from npcrepro.cohorts.public.organs import DEEPMIND, HAN_SEG
from npcrepro.cohorts.public.segrap import SEGRAP2023, STRUCTSEG2019
from npcrepro.cohorts.public.sets import Conversion, ConversionLog, Download, Outlook, PublicSet

__all__ = [
    "SETS",
    "Conversion",
    "ConversionLog",
    "Download",
    "Outlook",
    "PublicSet",
    "convert",
    "fetch",
    "find",
    "outlook",
]

SETS: dict[str, PublicSet] = {
    each.key: each for each in (NPC_MRI, SEGRAP2023, STRUCTSEG2019, HAN_SEG, LNCTVSEG, HNTS_MRG, OPENKBP, DEEPMIND)
}


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

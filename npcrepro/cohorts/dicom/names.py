"""How the field names structures, and which of these names a drawn one is nearest to.

Spellings in clinical use, those of AAPM TG-263 among them, in English, German and French.
"""

import re
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher

# What may stand between two words of a name.
GAP = r"[ _.,-]*"
SIDES = {
    "L": ("l", "lt", "left", "li", "links", "gauche"),
    "R": ("r", "rt", "right", "re", "rechts", "droite", "droit"),
}
NODES = [f"{word}{place}" for word in ("n", "nd", "ln", "node", "nodes", "nodal") for place in ("", " #", " SIDE")]
# Words of a spelling may be written as one; "#" stands for a number and "SIDE" for a side.
TARGETS = {
    "GTVp": ["gtv", *(f"gtv {part}" for part in ("p", "t", "nx", "prim", "primary", "tumor", "tumour", "nasopharynx"))],
    "GTVnd": [f"gtv {node}" for node in NODES],
    "CTVnd": [f"ctv {node}" for node in NODES],
    "CTV1": ["ctv 1", "ctv p1"],
    "CTV2": ["ctv 2", "ctv p2"],
}
# First letters of target volumes; what follows them is up to the clinic.
TARGET_KINDS = {
    "GTV": "gross tumour volume",
    "CTV": "clinical target volume",
    "ITV": "internal target volume",
    "PTV": "planning target volume",
}
MANDIBLE = ["mandible", "bone mandible", "mandibula", "unter kiefer", "mandibule"]
ORGANS = {
    "BrainStem": ["brain stem", "hirn stamm", "stamm hirn", "tronc cérébral"],
    "SpinalCord": ["spinal cord", "cord", "rücken mark", "myelon", "moelle", "moelle épinière"],
    "OpticChiasm": ["chiasm", "chiasma", "optic chiasm", "optic chiasma", "chiasma opticum", "chiasma optique"],
    "Pituitary": ["pituitary", "pituitary gland", "glnd pituitary", "hypophysis", "hypophyse"],
    "Mandible": MANDIBLE,
    "Larynx": ["larynx", "kehl kopf"],
    "OralCavity": ["oral cavity", "cavity oral", "mund höhle", "cavité buccale"],
    "Thyroid": ["thyroid", "thyroid gland", "glnd thyroid", "schild drüse", "thyroïde"],
    "Brain": ["brain", "gehirn", "hirn", "cerveau"],
}
SIDED_ORGANS = {
    "Parotid": ["parotid", "parotid gland", "glnd parotid", "parotis", "ohr speichel drüse", "parotide"],
    "Submandibular": [
        *("submandibular", "submand", "submandibular gland", "submand gland", "glnd submandibular", "glnd submand"),
        *("submandibularis", "unter kiefer speichel drüse"),
    ],
    "Mandible": MANDIBLE,
    "TemporalLobe": ["temporal lobe", "lobe temporal", "temp lobe", "temporal lappen", "schläfen lappen"],
    "OpticNerve": ["optic nerve", "optic nrv", "seh nerv", "nerf optique"],
    "Eye": ["eye", "eye ball", "globe", "auge", "oeil"],
    "Lens": ["lens", "linse", "cristallin"],
    "Cochlea": ["cochlea", "cochlée"],
    "InnerEar": ["inner ear", "innen ohr", "oreille interne"],
    "TMjoint": ["tmj", "tm joint", "joint tm", "kiefer gelenk"],
}
# Organs of other names that look like one of these.
OTHER_ORGANS = ["carotid", "pharynx"]
# Words that mark what planning makes of a structure: a margin, a ring, an aid to optimisation.
HELP = {"prv", "opt", "ring", "help", "minus", "avoid", "dummy", "mm", "z", "zz"}
# Share of letters that two names have in common, from which on one is offered for the other.
NEAR = 0.8


@dataclass(frozen=True)
class NearMiss:
    """A ``structure`` that a drawn name may stand for, and ``why`` one may think so."""

    structure: str
    why: str


def patterns() -> dict[str, re.Pattern[str]]:
    """A regular expression for each structure; it fits its spellings, whatever their case and gaps."""
    found = {name: "|".join(map(_pattern, spellings)) for name, spellings in {**TARGETS, **ORGANS}.items()}
    for organ, spellings in SIDED_ORGANS.items():
        words = "|".join(map(_pattern, spellings))
        for side, sides in SIDES.items():
            sides = "|".join(sides)
            found[f"{organ}_{side}"] = f"({words}){GAP}({sides})|({sides}){GAP}({words})"
    return {name: re.compile(f"^({pattern}){GAP}$", re.IGNORECASE) for name, pattern in found.items()}


def near_miss(name: str) -> NearMiss | None:
    """The structure whose spelling is nearest to a name that fits none; None where nothing is near.

    A side is never taken for the other one, a number or a kind of target volume never for another.

    Example:
        >>> near_miss("Hirnstam")
        NearMiss(structure='BrainStem', why="94 % like 'hirn stamm'")
        >>> near_miss("Parotis")
        NearMiss(structure='Parotid_L', why="100 % like 'parotis', without a side: Parotid_L or Parotid_R")
        >>> near_miss("Couch")
    """
    words = re.findall("[a-z]+|[0-9]+", _plain(re.sub("([a-z])([A-Z])", r"\1 \2", name)))
    if not words or words[0] in HELP or {*words[1:]} & (HELP | {"gtv", "ctv", "ptv"}):
        return None
    sides = [side for side, spellings in SIDES.items() if {*words} & {*spellings}]
    bare = "".join(word for word in words if not any(word in spellings for spellings in SIDES.values()))
    whole = "".join(words)
    unsided = {"": OTHER_ORGANS, **TARGETS, **ORGANS}
    found = [(_alike(whole, spelling), structure, spelling, False) for structure, spelling in _each(unsided)]
    found += [(_alike(bare, spelling), organ, spelling, True) for organ, spelling in _each(SIDED_ORGANS)]
    share, structure, spelling, sided = max(found, key=lambda each: each[0])
    if share < NEAR or not structure:
        return None
    why = f"{100 * share:.0f} % like {spelling!r}"
    if not sided:
        return NearMiss(structure, why)
    if len(sides) == 1:
        return NearMiss(f"{structure}_{sides[0]}", why)
    return NearMiss(f"{structure}_L", f"{why}, without a side: {structure}_L or {structure}_R")


def _each(spellings: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(structure, spelling) for structure, each in spellings.items() for spelling in each]


def _alike(name: str, spelling: str) -> float:
    """Share of common letters; 0 for target volumes of other kinds or numbers."""
    spelling = _plain(spelling).replace(" ", "")
    if "#" in spelling or "side" in spelling:
        return 0.0
    kinds = [word[:3] if word[:3] in ("gtv", "ctv", "ptv") else "" for word in (name, spelling)]
    if kinds[0] != kinds[1] or (kinds[0] and re.findall("[0-9]", name) != re.findall("[0-9]", spelling)):
        return 0.0
    return SequenceMatcher(None, name, spelling).ratio()


def _plain(name: str) -> str:
    """Small letters without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", name.lower()) if not unicodedata.combining(c))


def _pattern(spelling: str) -> str:
    sides = "|".join(side for spellings in SIDES.values() for side in spellings)
    written = {"#": "[0-9]+", "SIDE": f"({sides})"}
    return GAP.join(written.get(word) or "".join(map(_letter, word)) for word in spelling.split())


def _letter(letter: str) -> str:
    """A letter with an accent may be written without it, with an e in its place, or as two characters."""
    base, *marks = unicodedata.normalize("NFD", letter)
    return f"({letter}|{base}{marks[0]}?e?)" if marks else letter

"""What the command line gives as text: paths, labels, tolerances."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.cohorts.defects import Refused
from npcrepro.cohorts.listing import scan
from npcrepro.cohorts.structures import Structures

NSD_TOLERANCE_MM = 2.0


@dataclass(frozen=True)
class Labels:
    """What the values of label images mean, and what else ``dataset.json`` says of the cases.

    Attributes:
        structures: codes by name; None for every value that the references hold, as ``label_1`` and so on.
        patients: case to patient, where it is not a patient of its own. Cases of a patient are averaged.
        wrong: cases that are not scored.
        suspect: cases that are scored and left out of every mean and test.
        not_contoured: case to structures that nobody drew there, which are not scored.
        spacing_known: whether the spacing in the headers is that of the scanner.
    """

    structures: Structures | None = None
    patients: Mapping[str, str] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    suspect: tuple[str, ...] = ()
    not_contoured: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spacing_known: bool = True


def parse_paths(paths: Sequence[Path], named: Sequence[str]) -> tuple[dict[str, Path], Path]:
    """Predictions by name, and the reference, from ``PRED REF`` or from texts ``NAME=PATH`` and ``REF``.

    Raises:
        InputError: too many or too few paths, a text without a name, a name with a slash, or a name given twice.
    """
    if len(paths) != (1 if named else 2):
        asked = "REF alone beside --pred" if named else "PRED and REF, or --pred NAME=PATH and REF"
        raise InputError(f"give {asked}, not {' '.join(map(str, paths))}")
    if not named:
        return {paths[0].resolve().name: paths[0]}, paths[1]
    predictions: dict[str, Path] = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise InputError(f"--pred {text!r} has no name: it looks like unet=FOLDER")
        if "/" in name or "\\" in name:
            raise InputError(f"--pred names {name!r}: names become names of files, so they have no slash")
        if name in predictions:
            raise InputError(f"--pred names {name!r} twice: every prediction needs a name of its own")
        predictions[name] = Path(path)
    return predictions, paths[0]


def parse_labels(text: str) -> Labels:
    """Labels from ``GTVp=1,GTVnd=2`` (``GTVp=1,3`` where a structure has several codes) or from a ``dataset.json``.

    Raises:
        InputError: neither of them, a defect in the file, or the code 0.
    """
    if "=" not in text or Path(text).name == "dataset.json":
        return _read_labels(Path(text))
    from npcrepro.cohorts.dicom import parse_structures

    pairs = [pair.strip() for pair in re.split(r",(?=[^,]*=)", text)]
    structures = parse_structures(pairs)
    if len(structures) < len(pairs):
        raise InputError(f"--labels {text!r} names a structure twice: several codes look like GTVp=1,3")
    for name, codes in structures.items():
        if 0 in codes:
            raise InputError(f"--labels {text!r} gives the code 0, which is the background, to {name}")
    return Labels(structures)


def _read_labels(path: Path) -> Labels:
    if path.name != "dataset.json" or not path.is_file():
        problem = "is no such file" if not path.exists() else "is not called dataset.json"
        raise InputError(f"--labels {path} {problem}: give a dataset.json of nnU-Net, or names as in GTVp=1,GTVnd=2")
    listing = scan(path.parent)
    for defect in listing.defects:
        # That images lie elsewhere, or nowhere, is none of a scorer's business.
        if defect.severity == "error" and defect.file == "dataset.json":
            raise Refused(replace(defect, file=str(path)))
    header = listing.header
    return Labels(
        structures=listing.structures,
        patients=header.get("groups", {}),
        wrong=tuple(header.get("wrong_labels", ())),
        suspect=tuple(header.get("suspect_labels", ())),
        not_contoured=header.get("not_contoured", {}),
        spacing_known=header.get("spacing_known", True),
    )


def parse_tolerances(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Tolerances in mm of the NSD from texts such as ``2`` (for every structure) and ``GTVp=1.5``.

    Returns:
        Structure to its tolerances; under the empty name those of all others, 2 mm by default.

    Raises:
        InputError: a text that is not a number of mm from 0 on.
    """
    found: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            tolerance = float(number)
        except ValueError:
            tolerance = nan
        if not (isfinite(tolerance) and tolerance >= 0):
            raise InputError(f"--nsd-tolerance {text!r} is not a number of mm: it looks like 2, or GTVp=1.5")
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), tolerance)))
    return {"": (NSD_TOLERANCE_MM,)} | found

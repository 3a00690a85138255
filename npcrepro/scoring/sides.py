"""The files of one side, and the masks in them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.defects import Refused
from npcrepro.cohorts.images import IMAGE_ENDINGS, LABEL_TOLERANCE, read_image, to_mask
from npcrepro.cohorts.structures import Structures, mask_of

MOST_NAMED = 5

Files = dict[str, "Path | dict[str, Path]"]


def find_cases(path: Path) -> Files:
    """Cases of one side: name to label image, or to masks by structure; a single file is one case.

    Raises:
        InputError: nothing there, no images, or the same case under two endings.
    """
    if path.is_file():
        single = _by_name([path])
        if not single:
            raise InputError(f"{path} is no image by its name: give one that ends with {', '.join(IMAGE_ENDINGS)}")
        return dict(single)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder: a mistyped path, or data that are not mounted here")
    found: Files = dict(_by_name(path.iterdir()))
    if found:
        return found
    if (path / "labelsTr").is_dir():
        raise InputError(f"{path} is a whole cohort: give the folder of its labels, {path / 'labelsTr'}")
    folders = sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")
    found = {folder.name: masks for folder in folders if (masks := _by_name(folder.iterdir()))}
    if not found:
        cause = "give label images or a folder of masks for each case; 'npcrepro data import' converts DICOM"
        raise InputError(f"{path} holds no image ({', '.join(IMAGE_ENDINGS)}): {cause}")
    return found


def _by_name(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(paths):
        # "._CASE.nii.gz" is left behind by macOS.
        ending = next((ending for ending in IMAGE_ENDINGS if path.name.endswith(ending)), None)
        if ending is None or path.name[0] == "." or not path.is_file():
            continue
        name = path.name.removesuffix(ending)
        if name in found:
            raise InputError(f"{path} and {found[name].name} are the same case: one was converted and not removed")
        found[name] = path
    return found


@dataclass(frozen=True)
class Mask:
    """A mask (z, y, x), and the file and grid it comes from."""

    file: Path
    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    geometry: dict[str, list[float]]


Masks = Callable[[str], Mask | None]


def open_case(
    files: Path | dict[str, Path] | None, structures: Structures, known: set[int], where: str = "--labels"
) -> Masks:
    """The masks of a case by the name of the structure, each ``None`` if there is none.

    Args:
        files: a label image, or a mask for each structure, which is read when it is asked for; ``None`` for no file.
        structures: codes of the structures in label images.
        known: codes that a label image may hold; any other one is an `InputError`.
        where: what names them.
    """
    if isinstance(files, Path):
        label = read_mask(files)
        unknown = sorted(set(np.unique(label.array).tolist()) - known - {0})
        if unknown:
            cause = f"another numbering (255 for 1 is usual), or a structure without a name: name it in {where}"
            if where == "--labels" and (files.parent / "dataset.json").is_file():
                cause += "; or other names of structures than in its own dataset.json: give them the same names"
            values = listed([str(value) for value in unknown], "value")
            place = "in no reference and not in --labels" if where == "--labels" else f"not in {where}"
            raise InputError(f"{files}: {values} {place}; likely cause: {cause}")

    def mask(structure: str) -> Mask | None:
        if isinstance(files, Path):
            if structure not in structures:
                return None
            return replace(label, array=mask_of(label.array, structures, structure))
        return _single_mask(files[structure]) if files and structure in files else None

    return mask


def _single_mask(file: Path) -> Mask:
    label = read_mask(file)
    values = np.unique(label.array[label.array != 0]).tolist()
    if len(values) > 1:
        told = listed([str(value) for value in values], "value")
        raise InputError(f"{file}: {told} in the mask of one structure: a label image in a folder of masks")
    return replace(label, array=label.array != 0)


def read_mask(file: Path) -> Mask:
    """A label image with all its codes; raises InputError for a probability map and what else is no label."""
    array, spacing_mm, geometry = read_image(file)
    with np.errstate(invalid="ignore"):  # infinite values are named below
        fractions = array.dtype.kind == "f" and (np.abs(array - np.rint(array)) > LABEL_TOLERANCE).any()
    if fractions and array.min() >= 0 and array.max() <= 1:
        raise InputError(f"{file}: a probability map (fractions from 0 to 1): threshold it first, usually at 0.5")
    label, defects = to_mask(array, None, str(file))
    if label is None:
        raise Refused(defects[0])
    return Mask(file, label, spacing_mm, geometry)


def is_bare(files: Path | dict[str, Path]) -> bool:
    """Whether the files of a case hold no spacing that could be trusted."""
    first = files if isinstance(files, Path) else next(iter(files.values()))
    return first.name.endswith((".png", ".tif", ".tiff"))


def listed(names: Sequence[str], what: str = "") -> str:
    """``a, b and 3 more``, after the word for them."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    word = f"{what}{'s' if len(names) > 1 else ''} " if what else ""
    return word + ", ".join(names[:MOST_NAMED]) + more

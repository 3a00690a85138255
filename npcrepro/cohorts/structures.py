"""Structures and the codes that stand for them in a label image.

A label image holds one code a voxel. Structures may overlap (a tumour in its target volume, a hippocampus in a temporal
lobe): then every combination that occurs has a code of its own, and a structure is the union of its codes. nnU-Net
calls these regions.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from npcrepro.base.errors import InputError

Structures = dict[str, tuple[int, ...]]

LARGEST_CODE = 65_535


def smallest_type(largest_code: int) -> type:
    """uint8 where the codes fit, else uint16."""
    return np.uint8 if largest_code <= 255 else np.uint16


def as_codes(value: int | Sequence[int]) -> tuple[int, ...]:
    """The codes of a structure, given as one or several."""
    return (int(value),) if isinstance(value, int | np.integer) else tuple(int(v) for v in value)


def mask_of(label: np.ndarray, structures: Structures, name: str) -> np.ndarray:
    """Where ``label`` shows the structure: bool, of the shape of ``label``.

    Example:
        >>> mask_of(np.array([0, 1, 2]), {"GTVp": (1, 2), "GTVnd": (2,)}, "GTVnd").tolist()
        [False, False, True]
    """
    codes = structures[name]
    return label == codes[0] if len(codes) == 1 else np.isin(label, codes)


def is_target(structure: str) -> bool:
    """Whether a structure is a target volume, which a patient may rightly not have; every patient has the organs."""
    return structure.upper().startswith(("GTV", "CTV", "ITV", "PTV"))


class Coding:
    """Codes for masks that may overlap, given out as combinations of structures turn up.

    Alone, the structures have the codes 1, 2, ... in the order of ``names``.

    Example:
        >>> coding = Coding(["GTVp", "CTV2"])
        >>> coding.encode({"GTVp": np.array([1, 0, 0]), "CTV2": np.array([1, 1, 0])})
        array([3, 2, 0], dtype=uint8)
        >>> coding.structures
        {'GTVp': (1, 3), 'CTV2': (2, 3)}
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._codes: dict[frozenset[int], int] = {frozenset([i]): i + 1 for i in range(len(self.names))}

    @property
    def structures(self) -> Structures:
        """Codes of each structure, so far."""
        pairs = list(self._codes.items())
        return {name: tuple(code for members, code in pairs if i in members) for i, name in enumerate(self.names)}

    def encode(self, masks: Mapping[str, np.ndarray]) -> np.ndarray:
        """Label image uint8 (uint16 where it needs that) of masks of one shape, bool or 0 and not 0.

        A structure without a mask is empty. Raises InputError for an unknown name, masks of different shapes, no masks,
        and more than 65,535 combinations.
        """
        unknown = sorted(set(masks) - set(self.names))
        if unknown:
            raise InputError(f"mask of {unknown[0]!r}, which is not one of the structures {', '.join(self.names)}")
        shapes = {name: np.shape(mask) for name, mask in masks.items()}
        if len(set(shapes.values())) != 1:
            raise InputError(f"masks of the shapes {shapes or 'of no structure'}: masks of a case share one grid")
        label = np.zeros(next(iter(shapes.values())), np.uint16)
        members: dict[int, frozenset[int]] = {0: frozenset()}
        members |= {code: combination for combination, code in self._codes.items()}
        for index, name in enumerate(self.names):
            if name not in masks:
                continue
            inside = np.asarray(masks[name]) != 0
            codes = np.arange(LARGEST_CODE + 1, dtype=np.uint16)
            for code in np.unique(label[inside]).tolist():
                combination = members[code] | {index}
                if combination not in self._codes:
                    if len(self._codes) == LARGEST_CODE:
                        cause = "more structures overlap than a label image can hold; leave some of them out"
                        raise InputError(
                            f"more than {LARGEST_CODE} combinations of {len(self.names)} structures: {cause}"
                        )
                    self._codes[combination] = len(self._codes) + 1
                    members[self._codes[combination]] = combination
                codes[code] = self._codes[combination]
            label[inside] = codes[label[inside]]
        return label.astype(smallest_type(int(label.max(initial=0))))

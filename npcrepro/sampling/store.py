"""Arrays that are made once from a prepared cohort, kept beside it, and read as far as they are needed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from npcrepro.base.code_hash import code_sha256
from npcrepro.base.files import sha256_of, writing

OPEN_FILES = 400  # systems allow a thousand or so for each process


class Store:
    """Arrays of cases as memory-mapped files: nothing is computed twice, and nothing has to fit into memory.

    The name of the folder holds a hash of the code and of the options that make the arrays. What an older version of
    the code made is therefore never read.

    Args:
        folder: of the prepared cohort.
        code: the class that makes the arrays, as ``"npcrepro.module:Name"``.
        options: plain data that the arrays depend on.
    """

    def __init__(self, folder: Path, code: str, options: object):
        digest = sha256_of([code_sha256([code]), options])
        self.folder = folder / f"{code.split(':')[1]}-{digest[:8]}"
        self._open: dict[tuple[str, str], np.ndarray] = {}

    def get(self, case: str, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> np.ndarray:
        """An array of a case, read-only.

        Args:
            make: called where the file is missing; returns the array by its name, and others that are made with it.
        """
        if (case, name) not in self._open:
            path = self._path(case, name)
            if not path.exists():
                for each, array in make().items():
                    with writing(self._path(case, each)) as temporary:
                        np.save(temporary, array)
            if len(self._open) == OPEN_FILES:
                del self._open[next(iter(self._open))]
            self._open[case, name] = np.load(path, mmap_mode="r")
        return self._open[case, name]

    def _path(self, case: str, name: str) -> Path:
        return self.folder / f"{case}.{name}.npy"

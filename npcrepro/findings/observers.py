"""How well two people agree on the same organs, for comparison with a model.

An oncologist and a radiographer drew 21 organs on seven head-and-neck CT scans (Nikolov et al. 2018, arXiv:1809.04430,
masks under CC BY 4.0). By the description of the data set, the oncologist's are a reference that several people drew
and corrected. The numbers are published with the book; benchmarks/observers.py makes them from the masks.

On one scan several organs are the same in both drawings voxel by voxel, among them a lung of 230,000 voxels: one was
made from the other. That scan is marked ``suspect`` and is in no median.
"""

from pathlib import Path

import pandas as pd

from npcrepro.base.errors import InputError
from npcrepro.runs.published import RESULTS

CASES = RESULTS / "observers" / "cases.csv"
SOURCE = "Nikolov et al. 2018, arXiv:1809.04430; masks under CC BY 4.0, drawn on scans of The Cancer Imaging Archive"
MEDIANS = ("reference_ml", "dsc", "surfel_hd95_mm", "surfel_nsd_1mm", "surfel_nsd_2mm", "voxel_hd95_mm")


def pairs(path: Path = CASES) -> pd.DataFrame:
    """One row for each scan and structure that both people drew, with the columns of ``cases.csv``.

    The oncologist is the reference, the radiographer the prediction. Structures have the names of this project
    (``BrainStem``, ``Parotid_L``).

    Raises:
        InputError: the record is not there.
    """
    if not path.exists():
        raise InputError(f"{path} is missing: it comes with a clone of the repository, not with the package alone")
    return pd.read_csv(path, dtype={"case": str, "patient": str})


def agreement(table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Medians over the scans, one row for each structure, from the best DSC down.

    Args:
        table: from :func:`pairs`, which is the default; rows marked ``suspect`` are left out.

    Returns:
        Data frame with the structure as index, ``n`` scans, and the columns `MEDIANS`; a structure that is not there
        was not drawn by both.

    Example:
        >>> int(agreement().loc["BrainStem", "n"])
        6
    """
    table = pairs() if table is None else table
    groups = table[~table.suspect].groupby("structure")
    medians = groups[list(MEDIANS)].median()
    medians.insert(0, "n", groups.size())
    return medians.sort_values("dsc", ascending=False, kind="stable")

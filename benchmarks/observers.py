"""Agreement of two observers: ``python benchmarks/observers.py FOLDER`` writes book/results/observers/cases.csv.

FOLDER holds the same structures drawn by two observers, ``<observer>/<case>/<structure>.nii.gz``: here the oncologist
and the radiographer of the set ``deepmind-tcia`` (``npcrepro data fetch``). Numbers only, no image. The first observer
by name, the oncologist, is the reference. A scan in which a structure is the same voxel for voxel in both is doubtful
as a whole (``suspect``): one drawing was made from the other there.
"""

import sys
from pathlib import Path

from agreement import pairs

from npcrepro.cohorts import public
from npcrepro.findings.observers import CASES
from npcrepro.runs.evaluation import CASE_COLUMNS, OF_PROBABILITY, VALIDATED, VALIDATED_COUNTS, score_masks
from npcrepro.runs.records import write_csv

PUBLISHED = public.find("deepmind-tcia").variants["oncologist"].structures  # by their name here
ORGANS = {file: structure for structure, file in PUBLISHED.items()}
OTHERS = (*OF_PROBABILITY, *VALIDATED, *VALIDATED_COUNTS)  # these need probabilities
COLUMNS = [name for name in CASE_COLUMNS if name not in OTHERS]


def row_of(name: str, oncologist, radiographer, spacing_mm) -> dict:
    """One structure of one scan; ``name`` is ``<case>/<structure>.nii.gz``."""
    case, file = name.split("/")
    structure = ORGANS[file.removesuffix(".nii.gz").replace("_", "-")]
    about = {"case": case, "patient": case, "suspect": False, "structure": structure, "region": "all_slices"}
    about |= {f"spacing_{axis}_mm": round(spacing, 4) for axis, spacing in zip("zyx", spacing_mm, strict=True)}
    scores = score_masks(radiographer, oncologist, spacing_mm)
    return about | {key: round(value, 6) if isinstance(value, float) else value for key, value in scores.items()}


if __name__ == "__main__":
    rows = [row_of(*pair) for pair in pairs(Path(sys.argv[1]))]
    copied = {row["case"] for row in rows if row["fp"] + row["fn"] == 0}
    rows = [row | {"suspect": row["case"] in copied} for row in rows]
    CASES.parent.mkdir(parents=True, exist_ok=True)
    write_csv(CASES, sorted(rows, key=lambda row: (row["case"], row["structure"])), COLUMNS)
    print(f"{len(rows)} pairs in {CASES}")

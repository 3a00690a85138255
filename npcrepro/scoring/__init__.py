"""Scores of predictions against references, from files alone: what ``npcrepro score`` does.

A side (a prediction or the reference) is one image file, a folder of label images ``CASE.nii.gz``, or a folder with a
folder for each case that holds one mask for each structure (``CASE/Parotid_L.nii.gz``), as exports of RTSTRUCTs are.
Cases belong together by their names; endings may differ. In a folder that holds images, sub-folders are not read.

What cannot be scored is refused in one sentence: grids that differ, values that no reference knows, a probability map.
What can be scored but should be known is a note: a case without prediction (it counts as the worst), a prediction
without reference, a structure that only one side has.

Rules for values that are not defined, because a mask is empty:

``worst``
    They count as the worst value: 0 for DSC and NSD, the diagonal of the image for a distance. Where both masks are
    empty nothing was missed, and the case is left out.
``leave-out``
    They are left out.
``one``
    As ``worst``, but both masks empty counts as 1 for DSC and NSD.

A case or a structure without a prediction is the worst under every rule.
"""

from npcrepro.scoring.given import Labels, parse_labels, parse_paths, parse_tolerances
from npcrepro.scoring.record import check_record, fold_cases, write_record
from npcrepro.scoring.report import (
    RULES,
    as_data,
    check_out,
    compare,
    comparison_table,
    rank,
    summarise,
    summary_table,
    words,
    write,
)
from npcrepro.scoring.scores import Scores, score

__all__ = [
    "RULES",
    "Labels",
    "Scores",
    "as_data",
    "check_out",
    "check_record",
    "compare",
    "comparison_table",
    "fold_cases",
    "parse_labels",
    "parse_paths",
    "parse_tolerances",
    "rank",
    "score",
    "summarise",
    "summary_table",
    "words",
    "write",
    "write_record",
]

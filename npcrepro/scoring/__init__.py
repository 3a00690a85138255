"""Scores of predictions against references, from files alone: what ``npcrepro score`` does.

A side (a prediction or the reference) is one image file, a folder of label images ``CASE.nii.gz``, or a folder with a
folder for each case that holds one mask for each structure (``CASE/Parotid_L.nii.gz``), as exports of RTSTRUCTs are.
Cases belong together by their names; endings may differ. In a folder that holds images, sub-folders are not read.

What cannot be scored is an error: grids that differ, values that no reference has, a probability map. What a reader
should know is a note: a case without prediction (it counts as the worst), a prediction without reference, a structure
that only one side has.

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
from npcrepro.scoring.record import fold_cases, write_record
from npcrepro.scoring.report import as_data, check_out, comparison_table, summary_table, words, write
from npcrepro.scoring.scores import Scores, score
from npcrepro.scoring.summary import RULES, compare, rank, summarise

__all__ = ["Labels", "parse_labels", "parse_paths", "parse_tolerances"]
__all__ += ["Scores", "score"]
__all__ += ["RULES", "compare", "rank", "summarise"]
__all__ += ["as_data", "check_out", "comparison_table", "summary_table", "words", "write"]
__all__ += ["fold_cases", "write_record"]

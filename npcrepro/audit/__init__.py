"""Do the printed numbers of the papers fit together? Checks on what is printed, without any image.

Each check takes the content of a paper's YAML file, computes, and gives a verdict (:data:`VERDICTS`). It names the
reading that saves the paper first, and what follows for a reproduction. A misprint is no verdict on a method: a table
can be wrong and the network right.
"""

from npcrepro.audit import chen2020, guo2021, li2018, luo2020, xue2020  # noqa: F401 (each adds its checks)
from npcrepro.audit.frame import CHECKS, VERDICTS, Check, Finding, Result, audit, counts, table

__all__ = ["CHECKS", "VERDICTS", "Check", "Finding", "Result", "audit", "counts", "table"]

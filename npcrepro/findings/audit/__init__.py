"""Do the printed numbers of the papers fit together? Checks on what is printed, without any image.

Each check takes the content of a paper's YAML file, computes, and gives a verdict (:data:`VERDICTS`). It names the
reading that saves the paper first, and what follows for a reproduction. A misprint is no verdict on a method: a table
can be wrong and the network right.
"""

import importlib

from npcrepro.findings.audit.checks import CHECKS, PAPERS, VERDICTS, Check, Finding, Result, audit, counts, table

for _key in PAPERS.values():
    importlib.import_module(f"npcrepro.papers.{_key}.audit")  # adds its checks

__all__ = ["CHECKS", "VERDICTS", "Check", "Finding", "Result", "audit", "counts", "table"]

"""Do the printed numbers of the papers fit together? Checks on what is printed, without any image.

Each check takes the content of a paper's YAML file, computes, and gives a verdict (:data:`VERDICTS`). It names the
reading under which the paper is right, and what follows for a reproduction. A misprint is no verdict on a method: a
table can be wrong and the network right. The checks of a paper are in its ``audit.py``; a paper without one has none.
"""

import importlib

from npcrepro.findings.audit.checks import CHECKS, VERDICTS, Check, Finding, Result, audit, counts, table
from npcrepro.protocol import registry

for _key in registry.KEYS:
    if (registry.FOLDERS / _key / "audit.py").exists():
        importlib.import_module(f"{registry.PACKAGE}.{_key}.audit")  # adds its checks

__all__ = ["CHECKS", "VERDICTS", "Check", "Finding", "Result", "audit", "counts", "table"]

"""How a protocol is written down: the proposed method, and one row for each method that differs from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from npcrepro.protocol.method import Component, Method

Row = tuple[str, str, str, dict[str, Any]]
"""Name, title and summary of a method, and the attributes in which it differs from the proposed one."""


def methods_of(proposed: Method, rows: Iterable[Row]) -> tuple[Method, ...]:
    """The proposed method, then one method for each row.

    Example:
        >>> from npcrepro.protocol.registry import find_method
        >>> _, proposed = find_method("xue2020")
        >>> _, unaugmented = methods_of(proposed, [("plain", "Plain", "Without augmentation", {"augmentation": None})])
        >>> unaugmented.full_name, unaugmented.network == proposed.network
        ('xue2020/plain', True)
    """
    named = (replace(proposed, name=name, title=title, summary=summary, **changes)
             for name, title, summary, changes in rows)  # fmt: skip
    return proposed, *named


def network(target: str, **options: Any) -> dict[str, Any]:
    """The attribute of a row that names another network or other options."""
    return {"network": Component(target, options)}


def phantom(kind: str, patients: int, matrix: tuple[int, int, int], **options: Any) -> dict[str, Any]:
    """Options of :func:`npcrepro.cohorts.phantom.write_phantom` for a profile."""
    return {"kind": kind, "patients": patients, "matrix": matrix, **options}

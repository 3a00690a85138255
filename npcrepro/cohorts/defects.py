"""What can be wrong with a cohort, and how it is said."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from npcrepro.base.errors import InputError


@dataclass(frozen=True)
class Defect:
    """One thing wrong with a cohort. ``file`` is relative to the cohort where it can be."""

    severity: Literal["error", "warning"]
    file: str
    problem: str
    value: str
    cause: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem} ({self.value}); likely cause: {self.cause}"


class Defects(list[Defect]):
    """What has been found so far."""

    def error(self, file: str, problem: str, value: object, cause: str) -> None:
        self.append(Defect("error", file, problem, str(value), cause))

    def header(self, problem: str, value: object, cause: str) -> None:
        self.error("dataset.json", problem, value, cause)

    def warning(self, file: str, problem: str, value: object, cause: str) -> None:
        self.append(Defect("warning", file, problem, str(value), cause))


class Refused(InputError):
    """An InputError that still carries the defect, so that `check` can collect it."""

    def __init__(self, defect: Defect, case: str | None = None):
        super().__init__(f"case {case}: {defect}" if case else str(defect))
        self.defect = defect


def likely_cause(word: str, options: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """The likely cause of an unknown word: a typing slip for an option that resembles it, or else ``otherwise``."""
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=cutoff)
    return f"a typing slip for {near[0]!r}" if near else otherwise

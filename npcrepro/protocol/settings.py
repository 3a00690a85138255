"""The settings that a user gives: the parameters of every notebook and of ``npcrepro run``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from npcrepro.base.errors import InputError, one_of

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Settings:
    """What a user may set.

    Attributes:
        cohort: a folder in the nnU-Net raw layout, or ``"phantom"`` for the embedded one.
        profile: smoke, quick, bench, long or paper.
        methods: method names; empty means the profile's choice.
        folds: fold numbers; empty means the profile's choice.
        seeds: one run for each.
        device: auto, cpu or cuda.
        runs: folder of the runs.
        modalities: names of the cohort's channels to take in place of the paper's, in the paper's order; empty means
            the paper's.
        private: show images that may not be published; the book is then for your own eyes.
    """

    cohort: str = "phantom"
    profile: str = "quick"
    methods: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0,)
    device: str = "auto"
    runs: str = "runs"
    modalities: tuple[str, ...] = ()
    private: bool = False

    def __post_init__(self) -> None:
        for name, kind in {"methods": str, "folds": int, "seeds": int, "modalities": str}.items():
            value = getattr(self, name)
            # To Python, True is a whole number.
            if not isinstance(value, list | tuple) or not all(type(item) is kind for item in value):
                raise InputError(f"parameter {name}={value!r} has to be a list of {kind.__name__} values")
            # A seed given twice is one run, which would be published twice.
            object.__setattr__(self, name, tuple(dict.fromkeys(value)))
        for name in ("cohort", "runs"):
            value = getattr(self, name)
            if not isinstance(value, str | os.PathLike):
                cause = "a folder whose name is a number needs ./ before it"
                raise InputError(f"parameter {name}={value!r} is not the path of a folder: {cause}")
            # No shell has seen what stands in a notebook, and "~" would become a folder's name.
            object.__setattr__(self, name, os.path.expanduser(value))
        if not self.seeds:
            raise InputError("parameter seeds=[] names no seed; one run is made for each seed, so give at least one")
        if not isinstance(self.private, bool):
            raise InputError(f"parameter private={self.private!r} is neither true nor false")
        for name in ("profile", "device"):
            if not isinstance(value := getattr(self, name), str):
                raise InputError(f"parameter {name}={value!r} has to be one name in quotes, without brackets")
        one_of(DEVICES, self.device, "device")

    @classmethod
    def from_notebook(cls, variables: Mapping[str, Any]) -> Settings:
        """The parameters of a running notebook, from its ``globals()`` in the first cell after the parameters.

        Raises:
            InputError: a variable that is no parameter. papermill accepts a misspelt parameter without complaint.
        """
        plain = (str, int, float, bool, list, tuple, dict, type(None))
        fields = [field.name for field in dataclasses.fields(cls)]
        given: dict[str, Any] = {
            name: value
            for name, value in variables.items()
            # A parameter counts whatever it is: a range of seeds is refused, not left out.
            if name in fields or (isinstance(value, plain) and not name.startswith("_") and name not in ("In", "Out"))
        }
        for name in given:
            one_of(fields, name, "parameter")
        return cls(**given)

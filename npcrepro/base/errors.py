"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Choice = TypeVar("Choice")


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message is one sentence that names the file or value and the likely cause. The command line prints it without a
    traceback and ends with exit status 1. In a notebook it is the last line of the error.
    """


def pick(choices: Mapping[str, Choice], name: str, what: str) -> Choice:
    """``choices[name]``; an unknown name is an :class:`InputError` with the nearest choice and all of them.

    Example:
        >>> pick({"dice": 1, "focal": 2}, "dice", "loss")
        1
    """
    if name in choices:
        return choices[name]
    alike = {str(choice).lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(name).lower(), list(alike), n=1, cutoff=0.5)
    hint = f"did you mean {alike[near[0]]!r}? " if near else ""
    raise InputError(f"unknown {what} {name!r}; {hint}choices: {', '.join(choices)}")


def one_of(choices: Iterable[str], name: str, what: str) -> str:
    """``name``, if it is one of the choices; otherwise an :class:`InputError`, as from :func:`pick`.

    Example:
        >>> one_of(("mean", "sum"), "sum", "reduction")
        'sum'
    """
    return pick(dict.fromkeys(choices, name), name, what)

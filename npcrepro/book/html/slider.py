"""A slider for a page: works in plain HTML, without a kernel and without a library.

Every state is on the page from the start; a few lines of JavaScript show one of them. Without JavaScript the first
chosen state stays, and no slider is shown that could not be moved.
"""

from collections.abc import Mapping

from npcrepro.book.parts import fill


def slider(states: Mapping[str, str], label: str, start: str) -> str:
    """HTML with a slider that shows one of several states.

    Args:
        states: title of each state to its HTML, in order; a title is plain text.
        label: what the slider moves.
        start: title of the state that is shown first.

    Raises:
        ValueError: ``start`` is no state.
    """
    if start not in states:
        raise ValueError(f"start {start!r} is none of the states {list(states)}")
    return fill("slider", states=dict(states), label=label, place=list(states).index(start))

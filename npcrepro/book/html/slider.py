"""A slider for a page: works in plain HTML, without a kernel and without a library.

Every state is on the page from the start; a few lines of JavaScript show one of them. Without JavaScript the first
chosen state stays, and no slider is shown that could not be moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from npcrepro.book.html.parts import unique_name

STYLE = """
.npc-slider label { display: block; font-weight: 600; }
.npc-slider input { width: 100%; max-width: 36rem; height: 2rem; accent-color: #1f7fb8; }
.npc-slider .npc-moves { display: flex; gap: 0.5rem; align-items: center; }
.npc-slider button { min-width: 2.5rem; height: 2.5rem; font-size: 1.2rem; cursor: pointer; }
.npc-slider .npc-state-title { margin: 0.4rem 0; font-variant-numeric: tabular-nums; }
.npc-slider table { margin-bottom: 1rem; }
.npc-slider table.dataframe :is(th, td) { text-align: left; }
.npc-panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.5rem; }
.npc-panels figure { margin: 0; max-width: 20rem; }
.npc-panels svg { display: block; width: 100%; background: #000; }
.npc-slider .npc-panels figure figcaption { color: inherit; font-size: 0.8rem; line-height: 1.2; text-align: left; }
"""
# Moved by its buttons, and by arrow keys, Home and End as every range input; a screen reader says the title instead of
# the number.
SCRIPT = """
(() => {
  const root = document.getElementById("ID");
  const input = root.querySelector("input");
  const states = [...root.querySelectorAll(".npc-state")];
  const show = () => {
    states.forEach((state, number) => { state.hidden = number !== input.valueAsNumber; });
    input.setAttribute("aria-valuetext", states[input.valueAsNumber].dataset.title);
  };
  input.addEventListener("input", show);
  root.querySelectorAll("button").forEach(button => button.addEventListener("click", () => {
    input.stepUp(Number(button.value));
    show();
  }));
  input.closest("[hidden]").hidden = false;
  show();
})();
"""


def slider(states: Mapping[str, str], label: str, start: str) -> str:
    """HTML with a slider that shows one of several states.

    Args:
        states: title of each state to its HTML, in order; a title is plain text.
        label: what the slider moves.
        start: title of the state that is shown first.

    Raises:
        ValueError: ``start`` is no state.
    """
    titles = list(states)
    if start not in titles:
        raise ValueError(f"start {start!r} is none of the states {titles}")
    name = unique_name("slider", label, start, *titles, *states.values())
    control = (
        f'<div hidden><label for="{name}-input">{escape(label)}</label><div class="npc-moves">'
        f'<button type="button" value="-1" aria-label="back">&#9664;</button>'
        f'<input id="{name}-input" type="range" min="0" max="{len(titles) - 1}" value="{titles.index(start)}">'
        f'<button type="button" value="1" aria-label="forward">&#9654;</button></div></div>'
    )
    frames = "".join(
        f'<div class="npc-state" data-title="{escape(title)}"{"" if title == start else " hidden"}>'
        f'<p class="npc-state-title">{escape(title)}</p>{content}</div>'
        for title, content in states.items()
    )
    script = SCRIPT.replace("ID", name)
    return f'<div class="npc-slider" id="{name}"><style>{STYLE}</style>{control}{frames}</div><script>{script}</script>'

"""A long table for a page that a reader can narrow down: plain HTML, without a kernel and without a library.

All rows are on the page from the start; a few lines of JavaScript hide some of them. Without JavaScript every row
stays, and no list is shown that would do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from npcrepro.book.html.parts import unique_name
from npcrepro.book.tables import together

LONG = 30  # letters of a cell that gets room
STYLE = """
.npc-filter .npc-choices label { display: inline-block; margin: 0 1.2rem 0.5rem 0; font-weight: 600; }
.npc-filter select { max-width: 100%; padding: 0.2rem; }
.npc-filter .npc-table { overflow-x: auto; }
.npc-filter table.dataframe :is(th, td) { text-align: left; }
.npc-filter dl { margin: 0.4rem 0; }
.npc-filter dt { font-weight: 600; }
.npc-filter dd { margin: 0 0 0.4rem 0; }
.npc-filter summary { cursor: pointer; }
.npc-filter .npc-wide { min-width: 12.5rem; overflow-wrap: anywhere; }
.npc-filter .npc-long { min-width: 9.5rem; }
"""
SCRIPT = """
(() => {
  const root = document.getElementById("ID");
  const lists = [...root.querySelectorAll("select")];
  const rows = [...root.querySelectorAll("tbody tr")];
  const told = root.querySelector("output");
  const narrow = () => {
    rows.forEach(row => {
      row.hidden = lists.some(list => list.value && row.dataset[list.name] !== list.value);
    });
    told.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} shown`;
  };
  lists.forEach(list => list.addEventListener("change", narrow));
  root.querySelector(".npc-choices").hidden = false;
  narrow();
})();
"""


def filter_table(
    frame: pd.DataFrame,
    by: Sequence[str] = (),
    folded: Sequence[str] = (),
    under: str = "",
    caption: str = "",
    start: Mapping[str, str] | None = None,
) -> str:
    """HTML of a table with a list of choices for some of its columns.

    Args:
        frame: cells are shown as text.
        by: columns to choose from; a reader sees rows that meet all choices. Without any there is no list.
        folded: columns that a reader unfolds; empty cells are left out.
        under: column below whose text they unfold.
        caption: what stands above the table.
        start: column of ``by`` to the value that is chosen when the page opens.

    Raises:
        KeyError: a column that is not there.

    Example:
        >>> html = filter_table(pd.DataFrame({"paper": ["a", "b"], "n": [1, 2]}), by=["paper"])
        >>> html.count("<tr data-"), html.count("<option")
        (2, 3)
    """
    shown = [column for column in frame if column not in folded]
    body = "".join(_row(row, shown, by, folded, under) for row in frame.astype(str).to_dict("records"))
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in shown)
    chosen = start or {}
    lists = "".join(_choice(column, frame[column], number, chosen.get(column)) for number, column in enumerate(by))
    name = unique_name("filter", head, lists, body)
    choices = f'<div class="npc-choices" hidden>{lists}<output aria-live="polite"></output></div>' if by else ""
    # A wide table scrolls in its box; without a place in the order of the keys only a mouse could move it.
    box = f'<div class="npc-table" tabindex="0" role="region" aria-label="{escape(caption or "Table", quote=True)}">'
    caption = f"<caption>{escape(caption)}</caption>" if caption else ""
    table = f'<table class="dataframe">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="npc-filter" id="{name}"><style>{STYLE}</style>{choices}{box}{table}</div></div>' + (
        f"<script>{SCRIPT.replace('ID', name)}</script>" if by else ""
    )


def _choice(title: str, column: pd.Series, number: int, chosen: str | None) -> str:
    options = "".join(
        f"<option{' selected' if value == chosen else ''}>{escape(str(value))}</option>" for value in column.unique()
    )
    return f'<label>{escape(title)} <select name="by{number}"><option value="">all</option>{options}</select></label>'


def _row(row: dict[str, str], shown: Sequence[str], by: Sequence[str], folded: Sequence[str], under: str) -> str:
    values = "".join(f' data-by{number}="{escape(row[column], quote=True)}"' for number, column in enumerate(by))
    cells = {column: escape(together(row[column])) for column in shown}
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(row[name])}</dd>" for name in folded if row[name])
    if told:
        cells[under] += f"<details><summary>details</summary><dl>{told}</dl></details>"
    wide = {name: ' class="npc-long"' if len(row[name]) > LONG else "" for name in cells}
    wide |= {under: ' class="npc-wide"'} if under else {}
    # The name of its column goes with each cell: on a phone a row is a card without a head above it.
    tagged = "".join(f'<td data-name="{escape(name)}"{wide[name]}>{cell}</td>' for name, cell in cells.items())
    return f"<tr{values}>{tagged}</tr>"

"""A long table for a page that a reader can narrow down: plain HTML, without a kernel and without a library.

All rows are on the page from the start; a few lines of JavaScript hide some of them. Without JavaScript every row
stays, and no list is shown that would do nothing.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from npcrepro.book.parts import fill


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
        by: columns to choose from; a reader sees rows that meet all choices, and no column of which one value is
            chosen. Without any there is no list.
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
    text = frame.astype(str)
    choices = {column: (list(text[column].unique()), (start or {}).get(column)) for column in by}
    shown = [column for column in frame if column not in folded]
    rows = [(row, {key: row[key] for key in folded if row[key]}) for row in text.to_dict("records")]
    return fill("filter_table", rows=rows, by=choices, shown=shown, under=under, caption=caption)

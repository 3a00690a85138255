"""Tables of what was found: a row for each finding, and how many findings have each verdict."""

from collections.abc import Callable, Iterable, Mapping

import pandas as pd


def text_table(items: Iterable, columns: Mapping[str, Callable]) -> pd.DataFrame:
    """One row for each item; ``columns`` gives the cell of each column from the item."""
    return pd.DataFrame([{name: of(item) for name, of in columns.items()} for item in items], columns=list(columns))


def tally(frame: pd.DataFrame, by: str, of: str, order: Iterable[str]) -> pd.DataFrame:
    """How many rows have each value, with sums in the last row and column.

    Args:
        frame: rows to count.
        by: column whose values become rows, in the order in which they appear.
        of: column that is counted.
        order: its values, which become columns.

    Example:
        >>> frame = pd.DataFrame({"paper": ["a", "b", "b"], "verdict": ["good", "good", "bad"]})
        >>> tally(frame, by="paper", of="verdict", order=["bad", "good"]).to_numpy().tolist()
        [['a', 0, 1, 1], ['b', 1, 1, 2], ['all', 1, 2, 3]]
    """
    found = pd.crosstab(frame[by], frame[of]).reindex(index=frame[by].unique(), columns=list(order))
    found = found.fillna(0).astype(int)
    found["all"] = found.sum(axis=1)
    found.loc["all"] = found.sum()
    return found.rename_axis(index=by, columns=None).reset_index()

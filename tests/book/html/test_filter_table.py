"""Tables that a reader narrows down."""

import pandas as pd
import pytest

from npcrepro.book.html.filter_table import filter_table

FRAME = pd.DataFrame(
    {"paper": ["a", "b", "b"], "verdict": ["good", "good", "b<d"], "n": [1, 2, 3], "why": ["x & y", "", 'he said "no"']}
)


def test_every_row_and_choice_is_on_the_page():
    html = filter_table(FRAME, by=["paper", "verdict"])
    assert html.count("<tr data-") == 3
    assert html.count("<select") == 2
    assert html.count("<option") == 2 + 2 + 2  # with "all" in each list
    assert '<tr data-by0="b" data-by1="b&lt;d">' in html
    assert "x\N{NO-BREAK SPACE}&amp;\N{NO-BREAK SPACE}y" in html  # a short cell stays on one line
    assert "b<d" not in html
    assert "http" not in html


def test_a_page_may_open_with_a_choice():
    html = filter_table(FRAME, by=["paper"], start={"paper": "b"})
    assert "<option>a</option><option selected>b</option>" in html
    assert html.count("<tr data-") == 3


def test_a_missing_column_is_an_error():
    with pytest.raises(KeyError, match="verdct"):
        filter_table(FRAME, by=["verdct"])

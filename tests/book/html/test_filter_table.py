"""Tables that a reader narrows down."""

import pandas as pd
import pytest

from npcrepro.book.html.filter_table import filter_table

FRAME = pd.DataFrame(
    {
        "paper": ["a", "b", "b"],
        "verdict": ["good", "good", "b<d"],
        "n": [1, 2, 3],
        "why": ["x & y", "", 'he said "no"'],
    }
)


def test_every_row_and_choice_is_on_the_page():
    html = filter_table(FRAME, by=["paper", "verdict"])
    assert html.count("<tr data-") == 3
    assert html.count("<select") == 2
    assert html.count("<option") == 2 + 2 + 2  # with "all" in each list
    assert '<tr data-by0="b" data-by1="b&lt;d">' in html
    assert "x\N{NO-BREAK SPACE}&amp;\N{NO-BREAK SPACE}y" in html
    assert "b<d" not in html


def test_folded_columns_lie_below_a_cell_and_empty_ones_are_left_out():
    html = filter_table(FRAME, by=["paper"], folded=["why"], under="verdict")
    assert '<th scope="col">why' not in html
    assert (
        html.count('<td data-name="verdict" class="npc-wide">good<details><summary>details</summary><dl><dt>why</dt>')
        == 1
    )
    assert html.count("<details>") == 2
    assert '<td data-name="verdict" class="npc-wide">good</td>' in html


def test_without_choices_there_is_no_list_and_no_script():
    html = filter_table(FRAME, folded=["why"], under="verdict", caption="a & b")
    assert html.count("<tr>") == 1 + 3
    assert html.count("<details>") == 2
    assert "<caption>a &amp; b</caption>" in html
    for absent in ("<select", "<script", "<output", "data-by"):
        assert absent not in html


def test_a_short_cell_stays_on_one_line_and_is_chosen_by_its_text():
    html = filter_table(pd.DataFrame({"paper": ["Luo 2020"]}), by=["paper"])
    assert '<tr data-by0="Luo 2020"><td data-name="paper">Luo\N{NO-BREAK SPACE}2020</td>' in html
    assert "<option>Luo 2020</option>" in html


def test_two_tables_of_a_page_have_names_of_their_own_and_a_build_repeats_them():
    one, other = filter_table(FRAME, by=["paper"]), filter_table(FRAME, by=["verdict"])
    assert one == filter_table(FRAME, by=["paper"])
    assert one.split('id="')[1][:15] != other.split('id="')[1][:15]


def test_no_other_host_is_asked():
    assert "http" not in filter_table(FRAME, by=["paper"])


def test_a_missing_column_is_an_error():
    with pytest.raises(KeyError, match="verdct"):
        filter_table(FRAME, by=["verdct"])

"""Departures, gathered from comments."""

import re

from npcrepro.base.files import write_text
from npcrepro.book import departures


def test_departures_are_gathered_with_paper_kind_text_and_line(tmp_path):
    package = tmp_path / "package"
    write_text(
        package / "papers" / "li2018" / "network.py",
        '"""Says # PAPER: in a string only."""\n'
        "RATE = 1e-7  # PAPER: printed as 1e-7\n"
        "\n"
        "# SILENT: how long a stage lasts;\n"
        "#   we stop when the loss settles\n"
        "# DIFFERS: mean loss, not the sum\n"
        "STEPS = 4  # an ordinary comment\n",
    )
    write_text(package / "losses.py", "def loss():\n    # SILENT: epsilon\n    # is ours.\n    return 0\n")
    network, settles = "package/papers/li2018/network.py", "how long a stage lasts; we stop when the loss settles"
    assert departures.departures(package) == [
        departures.Departure("li2018", "PAPER", "printed as 1e-7", network, 2),
        departures.Departure("li2018", "SILENT", settles, network, 4),
        departures.Departure("li2018", "DIFFERS", "mean loss, not the sum", network, 6),
        departures.Departure("shared", "SILENT", "epsilon is ours.", "package/losses.py", 2),
    ]


def test_departures_page_links_to_the_line_and_escapes_markup():
    entry = departures.Departure(
        "li2018", "SILENT", "a|b * c_d, see `x|y --z`, --all", "npcrepro/papers/li2018/network.py", 7
    )
    page = departures.page([entry], "https://example.org/r")
    assert "## Li et al. 2018" in page
    assert ":::{dropdown} 1 line SILENT" in page
    assert r"| a\|b \* c\_d, see `x\|y --z`, \-\-all |" in page
    assert "(https://example.org/r/blob/main/npcrepro/papers/li2018/network.py#L7)" in page
    assert "Shared" not in page


def test_what_differs_stands_open_before_the_lines_to_unfold():
    made = [departures.Departure("li2018", kind, kind.lower(), "a.py", 1) for kind in ("PAPER", "DIFFERS", "SILENT")]
    page = departures.page(made, "R")
    assert page.index("| differs |") < page.index(":::{dropdown} 1 line SILENT") < page.index("| silent |")
    assert "{dropdown} 1 line DIFFERS" not in page


def test_table_of_kinds_on_the_page_is_the_one_of_the_code(repository):
    page = (repository / "book" / "departures.md").read_text("utf-8")
    assert re.findall(r"^\| `([A-Z]+)`", page, re.MULTILINE) == list(departures.KINDS)


def test_a_comment_has_one_tag():
    kinds = "|".join(departures.KINDS)
    assert [entry for entry in departures.departures() if re.search(rf"({kinds}): ", entry.what)] == []

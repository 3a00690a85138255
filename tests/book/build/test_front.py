"""The front page: picture, findings and table, and the copies in README.md."""

import re

from npcrepro.book.build import front
from npcrepro.book.topics import lessons
from npcrepro.protocol import registry


def test_the_reported_dsc_is_that_of_the_proposed_method():
    reported = {"li2018": 0.89, "luo2020": 0.8251, "guo2021": 0.741, "chen2020": 0.7191, "xue2020": 0.76}
    assert {key: front.reported_dsc(key) for key in registry.KEYS} == reported


def test_every_paper_has_a_row_with_both_numbers(repository):
    rows = front.papers(repository).splitlines()[2:]
    assert len(rows) == len(registry.KEYS)
    cells = [cell.strip() for cell in rows[1].split("|")]
    assert cells[1] == "[Luo\N{NO-BREAK SPACE}2020](../notebooks/luo2020.ipynb)"
    assert cells[2] == "0.83, 124 patients"
    mean = lessons.results("luo2020").mean("two-stage")
    assert (
        cells[3]
        == f"{mean.mean:.2f} ({mean.interval})".replace(" ", "\N{NO-BREAK SPACE}") + ", 5\N{NO-BREAK SPACE}seeds"
    )
    assert cells[5] == "22 patients, planning CT of cancers of the head and neck"
    assert cells[6].endswith(", 1\N{NO-BREAK SPACE}seed")
    # The scores of Xue's paper are of its test patients alone; images of several kinds are named.
    chen, xue = (next(row for row in rows if name in row) for name in ("chen2020.ipynb", "xue2020.ipynb"))
    assert "| 0.76, 15 patients |" in xue
    assert "soft-tissue sarcomas in T1, CT and PET |" in chen


def test_findings_hold_and_have_their_numbers(repository):
    first, second, third = front.findings(repository).splitlines()
    words = r"In (\d+) of (\d+) checks .+ breaks .+ In (\d+) more"
    broken, checks, failed = map(int, re.search(words, first).groups())
    assert 0 < broken < failed < checks
    words = r"raised the Dice of a U-Net by (\S+)\*\* .+ interval (\S+) to (\S+)\)"
    gain, low, high = map(float, re.search(words, second).groups())
    assert 0 < low <= gain <= high
    ideas, large = map(int, re.search(r"Of (\d+) ideas of the papers, (\d+) gains? more", third).groups())
    assert 2 * large < ideas  # "most"
    assert re.search(r"\*absent structures count .+\* \(\+\S+ on shared seeds; \+\S+ over all seeds\)", third)
    assert re.search(r"too, the intervals? of .*\*absent structures count .+\* include 0\.", third)


def test_readme_has_the_table_and_the_picture_of_the_records(repository):
    """`python -m npcrepro.book.build.front` brings both up to date."""
    readme = (repository / "README.md").read_text("utf-8")
    assert front.with_table(readme, repository) == readme
    assert "](notebooks/li2018.ipynb)" in readme
    assert f"({front.PICTURE})" in readme
    committed = (repository / front.PICTURE).read_text("utf-8")
    assert lessons.alt_text(front._moved()) in committed
    assert len(committed) < 200_000

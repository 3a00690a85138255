"""Formulas beside their code."""

import textwrap

import pytest
import yaml

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError
from npcrepro.book.lesson import equations as module
from npcrepro.book.lesson.equations import equations
from npcrepro.protocol import registry


@pytest.mark.parametrize("key", registry.KEYS)
def test_every_formula_has_its_line(key):
    told = registry.reported(key).get("equations", [])
    found = equations(key)
    assert [each.name for each in found] == [entry["line"] for entry in told]
    for each in found:
        lines = (PACKAGE.parent / each.path).read_text("utf-8").splitlines()[each.start - 1 : each.end]
        assert [line.strip() for line in lines] == [line.strip() for line in each.code.splitlines()]
        assert any(not line.startswith("#") for line in each.code.splitlines()), each


def test_the_address_of_the_repository_is_that_of_the_book():
    book = yaml.safe_load((PACKAGE.parent / "_config.yml").read_text("utf-8"))["repository"]
    assert f"{book['url']}/blob/{book['branch']}" == module.REPOSITORY


CODE = """
def loss(p, y):
    # SILENT: the base; e.
    # eq. 1: L = -log p
    one = -p.log()
    # SILENT: the mean; over pixels.
    one = one.mean()
    # PAPER: as reported.
    # eq. 2: M = L + y
    return (
        one + y
    )


def other():
    # eq. 2: again
    return 1
"""


@pytest.fixture
def paper(tmp_path, monkeypatch):
    folder = tmp_path / "npcrepro" / "papers" / "mine"
    folder.mkdir(parents=True)
    (folder / "losses.py").write_text(textwrap.dedent(CODE))
    told = {"equations": []}
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "npcrepro")
    monkeypatch.setattr(registry, "reported", lambda key: told)

    def find(line):
        told["equations"] = [{"line": line, "what": "loss", "latex": "L"}]
        return equations("mine")[0].code

    return find


def test_the_code_has_its_comments_and_ends_at_the_next_formula(paper):
    assert paper("eq. 1").splitlines() == [
        "# SILENT: the base; e.",
        "# eq. 1: L = -log p",
        "one = -p.log()",
        "# SILENT: the mean; over pixels.",
        "one = one.mean()",
    ]


def test_a_note_is_of_this_paper_and_stands_beside_one_formula():
    found = equations("luo2020")
    first, second = (find(found, f"Section 2.1, stage {stage}") for stage in (1, 2))
    assert {note.paper for note in first.notes} == {"luo2020"}
    assert not set(first.notes) & set(second.notes)
    assert not find(found, "Luo 2020, eq. 1, a fraction").notes  # Xue's


def find(found, name):
    return next(each for each in found if each.name == name)


def test_no_line_or_two_lines_for_a_formula_are_an_error(paper):
    with pytest.raises(InputError, match=r"no comment begins with 'eq. 3'"):
        paper("eq. 3")
    with pytest.raises(InputError, match=r"several comments begin with 'eq. 2' \(losses.py:9, losses.py:16\)"):
        paper("eq. 2")

"""What publishes the book: the workflow, Binder, and the PDF."""

import re

import pytest

from npcrepro.base.errors import InputError
from npcrepro.book.build import pdf


def test_printing_without_a_book_says_what_comes_first(tmp_path):
    with pytest.raises(InputError, match="build it first"):
        pdf.print_book(tmp_path)


def test_failed_step_names_its_log_and_leaves_no_pdf(tmp_path, monkeypatch):
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "_toc.yml").touch()
    page = tmp_path / "all.html"
    page.write_text("<p>one page</p>")
    monkeypatch.setattr(pdf, "_one_page", lambda output: page)
    monkeypatch.setattr(pdf, "BROWSERS", ("false",))
    with pytest.raises(InputError, match=r"false ended with 1 \(log: .*pdf\.log\)"):
        pdf.print_book(tmp_path)
    assert list((tmp_path / "pdf").glob("*")) == []


@pytest.mark.browser
@pytest.mark.slow
def test_one_page_becomes_a_pdf(tmp_path, monkeypatch, chromium_path):
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "_toc.yml").touch()
    page = tmp_path / "all.html"
    page.write_text("<p>first</p><p style='break-before: page'>second</p>")
    monkeypatch.setattr(pdf, "_one_page", lambda output: page)
    content = pdf.print_book(tmp_path).read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type ?/Page\b", content)) == 2

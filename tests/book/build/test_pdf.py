"""What publishes the book: the workflow, Binder, and the PDF."""

import re
import stat

import pytest
import yaml

from npcrepro.base.errors import InputError
from npcrepro.book.build import pdf


@pytest.fixture
def workflow(repository):
    return yaml.safe_load((repository / ".github" / "workflows" / "book.yml").read_text("utf-8"))


def test_workflow_tests_and_builds_before_it_deploys(workflow):
    jobs = workflow["jobs"]
    assert set(jobs["deploy"]["needs"]) == {"test", "build", "wheel"} == set(jobs) - {"deploy"}
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands["test"] == [".ci/run"]
    assert commands["build"][0].startswith("make book ")


def test_workflow_uses_the_publishers_own_actions_by_version(workflow):
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"actions/[\w-]+@v\d+", name)] == []
    assert any(name.startswith("actions/deploy-pages@") for name in used)


def test_binder_uses_the_one_environment(repository):
    environment = repository / "binder" / "environment.yml"
    assert environment.is_symlink()
    assert environment.resolve() == (repository / "environment.yml").resolve()
    assert (repository / "binder" / "postBuild").stat().st_mode & stat.S_IXUSR


def test_printing_without_a_book_says_what_comes_first(tmp_path):
    with pytest.raises(InputError, match="build it first"):
        pdf.print_book(tmp_path)


def test_printing_without_a_browser_names_it(tmp_path, monkeypatch):
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "_toc.yml").touch()
    monkeypatch.setattr(pdf, "BROWSERS", ("no-such-browser",))
    with pytest.raises(InputError, match="Chromium, which is not installed"):
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

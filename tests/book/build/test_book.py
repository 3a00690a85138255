"""The book: the build, and the built pages in a real browser."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag

import pytest

from npcrepro.base.errors import InputError
from npcrepro.base.files import write_text
from npcrepro.book import departures
from npcrepro.book.build import book, pdf
from npcrepro.runs.locking import locked

# --- The build ---------------------------------------------------------------------------------------------------


def test_folder_without_a_book_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(book, "PACKAGE", tmp_path / "site-packages" / "npcrepro")
    with pytest.raises(InputError, match=r"where _toc\.yml lies"):
        book.build()


def test_second_build_in_the_same_folder_is_refused(tmp_path, repository, monkeypatch):
    monkeypatch.chdir(repository)
    with locked(tmp_path), pytest.raises(InputError, match="another process is working on"):
        book.build(output=tmp_path)


def test_warning_of_a_page_fails_the_build_again_and_again(tmp_path, repository):
    stage = tmp_path / "_build" / "stage"
    shutil.copytree(repository / "book" / "_static", stage / "book" / "_static")
    shutil.copyfile(repository / "_config.yml", stage / "_config.yml")
    write_text(stage / "_toc.yml", "format: jb-book\nroot: book/intro\n")
    write_text(stage / "book" / "references.bib", "")
    write_text(stage / "book" / "intro.md", "# One\n\n[](nowhere.md)\n")
    (tmp_path / "_build" / "logs").mkdir()
    for _ in range(2):
        with pytest.raises(InputError, match=r"The pages were not built: book/intro\.md:3: WARNING.*nowhere"):
            book._html(stage, tmp_path / "_build")


# --- The pages in a browser --------------------------------------------------------------------------------------

PAGE_BUDGET_BYTES = 3_000_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def html(tmp_path_factory, repository) -> Path:
    """The whole book, built at profile smoke."""
    folder = tmp_path_factory.mktemp("book")
    before = Path.cwd()
    os.chdir(repository)
    try:
        return book.build(profile="smoke", output=folder / "_build", runs=folder / "runs").parent
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def site(html, tmp_path_factory):
    """Address of the book on a host that has other things, too: it lies at ``/npc/``, and nothing elsewhere."""
    host = tmp_path_factory.mktemp("host")
    (host / "npc").symlink_to(html, target_is_directory=True)
    with pdf.served(host) as address:
        yield f"{address}/npc"


@pytest.fixture(scope="module")  # a second one cannot start while it runs, so it ends with this file
def chromium(chromium_path):
    """A running Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reader(chromium):
    """One reader of all pages, whose browser keeps what they share."""
    context = chromium.new_context(viewport=WIDE, color_scheme="light")
    yield context
    context.close()


WIDTHS = (1280, 400)  # of a desk and of a phone
WIDE = {"width": WIDTHS[0], "height": 900}
SET = "window.MathJax?.startup?.promise?.then(() => true)"  # once all formulas are set
FADED = "Promise.all(document.getAnimations().map(one => one.finished)).then(() => true)"

# Of the theme's own buttons: an icon that counts as a letter, and the keys that are shown behind the word "Search".
OF_THE_THEME = {"label-content-name-mismatch": ".theme-switch-button, .search-button-field"}
FIND = """
([known, rules]) => axe.run({resultTypes: ["violations"], elementRef: true, ...(rules && {runOnly: rules})}).then(
  found => found.violations.filter(rule => ["serious", "critical"].includes(rule.impact)).flatMap(rule => rule.nodes
  .filter(node => !(rule.id in known && node.element.matches(known[rule.id])))
  .map(node => [rule.id, node.target.join(" ")])))
"""
# The themes of the book, and the rules that are asked in each; None stands for all. Nothing but colours differs.
THEMES = {"light": None, "dark": ["color-contrast", "link-in-text-block"]}


def visit(context, site: str, name: str, axe: str = "") -> SimpleNamespace:
    """Open a page, wait until its formulas are set, write down what happened, and narrow the window.

    With the code of axe, what would keep somebody from reading the page is looked for in each theme, all unfolded.
    """
    result = SimpleNamespace(page=name, foreign=[], failed=[], errors=[])
    result.overflow_px, result.serious = {}, {}  # by the width of the window; rule and place, by theme
    page = context.new_page()

    def on_request(request):
        if not request.url.startswith((site, "data:", "blob:")):
            result.foreign.append(request.url)

    def on_failure(request):
        # Aborted: the page that only forwards was left before its icon had come.
        if request.failure != "net::ERR_ABORTED":
            result.failed.append(f"{request.failure} {request.url}")

    def on_response(response):
        if response.status >= 400:
            result.failed.append(f"{response.status} {response.url}")

    page.on("request", on_request)
    page.on("response", on_response)
    page.on("requestfailed", on_failure)
    page.on("console", lambda message: result.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: result.errors.append(str(error)))
    page.goto(f"{site}/{name}", wait_until="networkidle")
    page.evaluate(SET)
    result.title = page.title()
    result.text = page.inner_text("body")
    result.links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    result.ids = set(page.eval_on_selector_all("[id]", "all => all.map(e => e.id)"))
    result.formulas = page.locator("mjx-container").count()
    # What Sphinx wrote as a formula but MathJax has not set.
    result.raw_formulas = page.locator(".math:not(:has(mjx-container))").count()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        sizes = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        result.overflow_px[width] = page.evaluate(sizes)
    # A narrow window has a front picture of its own, which takes a moment to come.
    page.wait_for_function("[...document.images].every(image => image.complete)")
    result.broken_images = page.eval_on_selector_all("img", "all => all.filter(i => !i.naturalWidth).map(i => i.src)")
    if axe:
        page.set_viewport_size(WIDE)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        page.evaluate(axe)
        for theme, rules in THEMES.items():
            page.emulate_media(color_scheme=theme)
            page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
            page.evaluate(FADED)  # what is unfolded or changes its colour fades in
            result.serious[theme] = [tuple(found) for found in page.evaluate(FIND, [OF_THE_THEME, rules])]
    page.close()
    return result


def names(html: Path) -> list[str]:
    """Every page of the built book, as its address below the book's."""
    return sorted(path.relative_to(html).as_posix() for path in html.rglob("*.html") if "_static" not in path.parts)


@pytest.fixture(scope="session")
def axe(html) -> str:
    """The checker, which npm installs beside the libraries of the book."""
    return (html.parent / "npm" / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="module")
def visits(html, site, reader, axe) -> dict[str, SimpleNamespace]:
    """Every page of the book."""
    # A page that forwards has left before it is checked. The reference is long, and Sphinx writes all of it.
    moved = {"index.html", *(f"{name}.html" for name in book.MOVED)}
    unchecked = {name for name in names(html) if name in moved or "/api-" in name}
    return {name: visit(reader, site, name, "" if name in unchecked else axe) for name in names(html)}


@pytest.fixture(scope="module")
def every_visit(visits) -> list[SimpleNamespace]:
    return list(visits.values())


@pytest.mark.browser
@pytest.mark.slow
class TestPages:
    def test_every_page_of_the_contents_is_there(self, visits, repository):
        listed = re.findall(r"(?:root|file): (\S+)", (repository / "_toc.yml").read_text())
        assert {f"{name}.html" for name in listed} <= set(visits)

    @pytest.mark.parametrize("found", ["foreign", "failed", "errors", "raw_formulas", "broken_images"])
    def test_no_page_asks_another_host_fails_or_leaves_a_formula_or_an_image_out(self, every_visit, found):
        assert {one.page: getattr(one, found) for one in every_visit if getattr(one, found)} == {}

    def test_titles_name_the_page_and_the_book(self, every_visit):
        untitled = [one.page for one in every_visit if "Reproducing NPC Segmentation" not in one.title]
        assert untitled == []

    def test_no_output_is_the_name_of_an_object(self, every_visit):
        assert [one.page for one in every_visit if re.search(r"<IPython\.|<Figure size| object at 0x", one.text)] == []

    def test_the_glossary_has_its_formulas(self, visits):
        assert visits["book/words.html"].formulas >= 10

    def test_nothing_sticks_out_at_either_width(self, every_visit):
        assert {one.page: one.overflow_px for one in every_visit if max(one.overflow_px.values()) > 0} == {}

    def test_links_inside_the_book_lead_somewhere(self, visits, html, site):
        dead, host = [], site.removesuffix("npc")
        for name, one in visits.items():
            for link in one.links:
                address, fragment = urldefrag(link)
                if not address.startswith(host):
                    continue
                # What leaves the folder of the book keeps its whole address, and is no file of the book.
                target = unquote(address.partition("?")[0].removeprefix(f"{site}/")) or "index.html"
                known = visits[target].ids | {""} if target in visits else {unquote(fragment)}
                if not (html / target).is_file() or unquote(fragment) not in known:
                    dead.append((name, link))
        assert dead == []

    def test_pages_stay_small(self, html):
        sizes = {path.relative_to(html).as_posix(): path.stat().st_size for path in html.rglob("*.html")}
        assert {name: size for name, size in sizes.items() if size > PAGE_BUDGET_BYTES} == {}

    def test_page_of_departures_shows_the_tags_of_the_code(self, visits):
        page, entries = visits["book/departures.html"], departures.departures()
        # Most rows are folded, but the page has the link of each.
        assert {link.rsplit("/npcrepro/")[-1] for link in page.links} >= {
            f"{entry.path.removeprefix('npcrepro/')}#L{entry.line}" for entry in entries
        }
        assert "inserted here when the book is built" not in page.text

    def test_search_finds_a_word_of_the_glossary(self, chromium, site):
        page = chromium.new_page()
        page.goto(f"{site}/search.html?q=phantom")
        # Sphinx shows one result after the other; it waits for this one, or fails.
        page.wait_for_selector('#search-results li a[href*="words.html"]')
        page.close()

    @pytest.mark.parametrize("width", WIDTHS)
    def test_a_choice_leaves_the_rows_that_meet_it(self, chromium, site, width):
        """On a phone rows are cards, which must not bring those back that are hidden."""
        page = chromium.new_page(viewport={"width": width, "height": 900})
        page.goto(f"{site}/notebooks/claims.html")
        claims = page.locator(".npc-filter").first
        claims.get_by_label("as first listed").select_option("undecided")
        shown = claims.locator("tbody tr:visible")
        assert 0 < shown.count() < claims.locator("tbody tr").count()
        assert set(shown.locator("[data-name='as first listed']").all_inner_texts()) == {"undecided"}
        assert claims.locator("output").inner_text().startswith(f"{shown.count()} of ")
        page.close()

    def test_download_of_the_chapter_names_no_folder_of_this_machine(self, html, repository):
        source = next((html / "_sources" / "notebooks").glob("li2018.ipynb*")).read_text("utf-8")
        assert str(repository) not in source
        assert json.loads(source)["metadata"]["papermill"]["input_path"] == "notebooks/li2018.ipynb"


@pytest.mark.browser
@pytest.mark.slow
class TestAccessibility:
    def test_checker_finds_a_picture_without_words(self, tmp_path, reader, axe):
        follow = "matchMedia('(prefers-color-scheme: dark)').onchange = () => { now.dataset.theme = 'dark' }"
        (tmp_path / "bad.html").write_text(
            '<!doctype html><html lang="en" data-theme="light"><title>t</title><main><img src="data:,"></main>'
            f"<script>const now = document.documentElement; {follow}</script>"
        )
        with pdf.served(tmp_path) as address:
            assert visit(reader, address, "bad.html", axe).serious["light"] == [("image-alt", "img")]

    @pytest.mark.parametrize("theme", THEMES)
    def test_no_serious_finding(self, every_visit, theme):
        assert {one.page: one.serious[theme] for one in every_visit if one.serious.get(theme)} == {}

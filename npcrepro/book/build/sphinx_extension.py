"""What Sphinx reads of the package, docstrings with tables, and what it writes: accessible, light pages."""

import re
from pathlib import Path

# A megabyte each. Icons come from the theme's fonts as well; pages without formulas need no engine for them.
ICONS = re.compile(r'<script defer src="[^"]*scripts/fontawesome\.js[^"]*"></script>\n?')
FORMULAS = re.compile(r'<script defer="defer" src="[^"]*mathjax[^"]*"></script>\n?')
# The arrow that unfolds the pages below a page, in the list of pages.
TOGGLE = re.compile(r'>([^<>]+)</a>(<details[^>]*>)<summary>(?=<span class="toctree-toggle")')


def setup(app) -> None:
    """Sphinx extension: docstrings with tables as in Markdown or of properties, and what screen readers trip over."""
    # After the extension that reads sections of docstrings, which has 500.
    app.connect(
        "autodoc-process-docstring",
        lambda app, what, name, thing, options, lines: as_sentence(what, lines),
        priority=600,
    )
    app.connect("autodoc-process-docstring", lambda app, what, name, thing, options, lines: as_rst_tables(lines))
    app.connect("doctree-resolved", lambda app, doctree, name: describe(doctree))
    app.connect("html-page-context", lambda app, name, template, context, doctree: _accessible(context))
    app.connect("build-finished", lambda app, error: None if error else _finish(Path(app.outdir)))


def _accessible(context: dict) -> None:
    """Mend what MyST-NB and docutils write: a label that hides the words it stands for, and a list without items."""
    if "body" in context:
        body = context["body"].replace('<summary aria-label="Toggle hidden content">', "<summary>")
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def describe(doctree) -> None:
    """Give figures without a text alternative, in place, the words that stand with them: the title of the section and
    the caption behind the figure in its cell. Sphinx would write the name of a file.

    Example:
        >>> from docutils import nodes
        >>> picture, caption = nodes.image(uri="a.png"), nodes.paragraph("", "A dot is a patient.")
        >>> cell = nodes.container("", picture, caption, classes=["cell"])
        >>> describe(nodes.section("", nodes.title("", "Volumes"), cell))
        >>> picture["alt"]
        'Figure, Volumes: A dot is a patient.'
    """
    from docutils import nodes

    for image in doctree.findall(nodes.image):
        if not image.get("alt"):
            above = [image]
            while above[-1].parent is not None:
                above.append(above[-1].parent)
            cell = next((node for node in above if "cell" in node.get("classes", ())), image)
            inside = list(cell.findall())
            behind = inside[next(place for place, node in enumerate(inside) if node is image) :]
            caption = next((node.astext() for node in behind if isinstance(node, nodes.paragraph)), "")
            titles = (child.astext() for node in above for child in node.children if isinstance(child, nodes.title))
            image["alt"] = f"Figure, {next(titles, 'without a title')}{f': {caption}' if caption else ''}"


def _finish(folder: Path) -> None:
    for path in folder.rglob("*.html"):
        text = path.read_text("utf-8")
        if (finished := with_named_arrows(without_engines(text))) != text:
            path.write_text(finished, "utf-8")


def with_named_arrows(page: str) -> str:
    """A page whose arrows of the list of pages say what they unfold, for readers who hear the page.

    Example:
        >>> with_named_arrows('<a>API</a><details><summary><span class="toctree-toggle">')
        '<a>API</a><details><summary aria-label="Pages below API"><span class="toctree-toggle">'
    """
    return TOGGLE.sub(r'>\1</a>\2<summary aria-label="Pages below \1">', page)


def without_engines(page: str) -> str:
    """A page without the script of icons, and without that of formulas if it has none.

    Example:
        >>> without_engines('<script defer="defer" src="mathjax/tex.js"></script><p class="math">')
        '<script defer="defer" src="mathjax/tex.js"></script><p class="math">'
        >>> without_engines('<script defer="defer" src="mathjax/tex.js"></script><p>')
        '<p>'
    """
    page = ICONS.sub("", page)
    return page if re.search(r'class="[^"]*\bmath\b', page) else FORMULAS.sub("", page)


def as_sentence(what: str, lines: list[str]) -> None:
    """Put the first line of a property's docstring together again, in place: Sphinx takes what is before a colon for
    the type.

    Example:
        >>> lines = ["of images and maps.", "", ":type: Channels of the input"]
        >>> as_sentence("property", lines)
        >>> lines
        ['Channels of the input: of images and maps.']
    """
    place = next((number for number, line in enumerate(lines) if line.startswith(":type: ")), None)
    if what == "property" and place:
        lines[0] = f"{lines[place].removeprefix(':type: ')}: {lines[0]}"
        del lines[place - 1 : place + 1]


def as_rst_tables(lines: list[str]) -> None:
    """Replace the Markdown tables among the lines of a docstring by reStructuredText ones, in place.

    Example:
        >>> lines = ["| one | two |", "|---|---|", "| a | b |", "", "after"]
        >>> as_rst_tables(lines)
        >>> lines
        ['.. list-table::', '   :header-rows: 1', '', '   * - one', '     - two', '   * - a', '     - b', '', 'after']
    """
    start = next((i for i, line in enumerate(lines) if re.fullmatch(r"\|(-+\|)+", line)), None)
    if start is None:
        return
    end = start + 1
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    rows = [line.strip("| ").split(" | ") for line in (lines[start - 1], *lines[start + 1 : end])]
    cells = [f"   {'  ' if column else '* '}- {cell.strip()}" for row in rows for column, cell in enumerate(row)]
    lines[start - 1 : end] = [".. list-table::", "   :header-rows: 1", "", *cells]
    as_rst_tables(lines)

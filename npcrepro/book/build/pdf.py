"""The book as one PDF: Sphinx's single page, printed by a headless Chromium."""

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.base.files import write_text, writing
from npcrepro.book.build.notebooks import shown

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Time of the page's own clock for formulas and fonts; it passes as quickly as the machine can.
BUDGET_MS = 60_000
LIMIT_S = 600


def print_book(output: Path | str) -> Path:
    """Print the book that lies staged in an output folder, and return the path of the PDF.

    Args:
        output: of :func:`npcrepro.book.build.book.build`, which has to come first.

    Raises:
        InputError: the book is not built, there is no Chromium, or one of the two steps fails; the message names the
            log.
    """
    output = Path(output).resolve()
    if not (output / "stage" / "_toc.yml").exists():
        raise InputError(f"{shown(output)} holds no book to print; build it first (make book).")
    browser = find_browser()
    if not browser:
        raise InputError("Printing needs Chromium, which is not installed (Debian: apt-get install chromium).")
    page = _one_page(output)
    target = output / "pdf" / "book.pdf"
    with served(page.parent) as address, writing(target) as temporary:
        _run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
             f"--virtual-time-budget={BUDGET_MS}", f"--print-to-pdf={temporary}", f"{address}/{page.name}"],
            output / "logs" / "pdf.log",
        )  # fmt: skip
        if not temporary.exists() or not temporary.read_bytes().startswith(b"%PDF"):
            raise InputError(f"Chromium wrote no PDF (log: {shown(output / 'logs' / 'pdf.log')}).")
    print(f"Printed {shown(target)}")
    return target


def _one_page(output: Path) -> Path:
    """All pages as one, beside the files that it shows."""
    parent = output.parent if output.name == "_build" else output
    arguments = ["build", str(output / "stage"), "--path-output", str(parent), "--builder", "singlehtml"]
    print("Building the one page", flush=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", *arguments]
    _run(command, output / "logs" / "singlehtml.log")
    folder = parent / "_build" / "singlehtml"
    source = folder / "book" / "intro.html"
    if not source.exists():
        raise InputError(f"Sphinx wrote no single page (log: {shown(output / 'logs' / 'singlehtml.log')}).")
    page = folder / "all.html"
    # The first page lies in a folder, what it shows lies above: one level up, all addresses are right.
    text = re.sub(r'(["(=])\.\./(_\w+/)', r"\1\2", source.read_text("utf-8"))
    # What a reader of the pages unfolds: rows, and outputs of cells; book.css leaves out the folded code.
    write_text(page, re.sub(r'<details(?=>| class="admonition hide below-input")', "<details open", text))
    return page


def find_browser() -> str | None:
    """Path of Chromium, or of Chrome; ``None`` where neither is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *arguments):
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of a folder on this machine; modules and fonts do not load from files."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _run(command: list[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as stream:
        try:
            subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=True)
            return
        except subprocess.TimeoutExpired:
            ended = f"no end after {LIMIT_S} s"
        except subprocess.CalledProcessError as error:
            ended = str(error.returncode)
    raise InputError(f"The book could not be printed: {Path(command[0]).name} ended with {ended} (log: {shown(log)}).")

"""What the tests share."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from npcrepro.book.build import pdf

pytest_plugins = ["core_fixtures"]

# How long an example takes says nothing on a machine that does other things.
hypothesis.settings.register_profile("npcrepro", deadline=None)
hypothesis.settings.load_profile("npcrepro")

# A shell ignores Ctrl-C for what it starts in the background, and so would these tests, some of which press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is."""
    found = pdf.find_browser()
    if not found:
        # A skipped test says nothing on a server that nobody watches.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium; on Debian: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository that the tests belong to."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def few_resamples(monkeypatch):
    """1,000 resamples in place of 10,000, for effects that are far from every limit."""
    for module in ("intervals", "pairs"):
        monkeypatch.setattr(f"npcrepro.statistics.{module}.RESAMPLES", 1000)


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that no worker is left with one of them while the others have ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)

"""What the tests share."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from npcrepro.book.build import pdf

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

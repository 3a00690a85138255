"""What the tests share."""

import signal
from pathlib import Path

import pytest

# A shell ignores Ctrl-C for what it starts in the background, and so would these tests, some of which press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository that the tests belong to."""
    return Path(__file__).resolve().parents[1]

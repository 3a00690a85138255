"""What the tests of findings share."""

import pytest


@pytest.fixture
def few_resamples(monkeypatch):
    """1,000 resamples in place of 10,000, for effects that are far from every limit."""
    for module in ("intervals", "pairs"):
        monkeypatch.setattr(f"npcrepro.statistics.{module}.RESAMPLES", 1000)

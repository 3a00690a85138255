"""Chapters with runs of 3-D networks, made once for all tests that look at them."""

import pytest
from core_cases import case_arrays, write_tiny

from npcrepro.book.volume_chapter import VolumeChapter
from npcrepro.protocol.settings import Settings


@pytest.fixture(scope="session")
def chapter(tmp_path_factory):
    """Two networks on five patients, four updates each, two folds."""
    folder = tmp_path_factory.mktemp("chapter")
    cases = [case_arrays(f"P{n}", n, size=24, depth=18, channels=3, spacing_mm=(4.0, 5.0, 5.0)) for n in range(5)]
    write_tiny(folder / "cohort", cases, channels=("T1", "T2", "CET1"), publishable=True)
    settings = Settings(
        cohort=str(folder / "cohort"),
        profile="smoke",
        methods=("multi-encoder", "mmfnet-no-transfer"),
        folds=(0, 1),
        device="cpu",
        runs=str(folder / "runs"),
    )
    chapter = VolumeChapter("chen2020", settings)
    assert len(chapter.found) == 4
    return chapter


@pytest.fixture(scope="session")
def cascade(tmp_path_factory):
    """BUNet and CSCN on the smallest phantom."""
    folder = tmp_path_factory.mktemp("cascade")
    settings = Settings(profile="smoke", methods=("bunet", "cscn"), device="cpu", runs=str(folder))
    return VolumeChapter("guo2021", settings)

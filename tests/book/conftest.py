"""What the tests of the book share."""

from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import pytest
from core_cases import case_arrays, tiny_paper, write_tiny

from npcrepro.book.chapter import Chapter
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    """No figure is left behind."""
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def two_methods(tmp_path_factory):
    """A chapter with runs of two methods on five tiny patients, three of them tested in the first fold."""
    root = tmp_path_factory.mktemp("two-methods")
    write_tiny(root / "c", [case_arrays(f"P{i}", i) for i in range(5)], publishable=True)
    paper = replace(tiny_paper(updates=3), split={"kind": "k-fold", "folds": 2, "validation": 1})
    methods = ("stepwise", "linear-scores")
    settings = Settings(cohort=str(root / "c"), profile="tiny", methods=methods, device="cpu", runs=str(root / "r"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda key, modalities=(): paper)
        made = Chapter("li2018", settings)
    assert len(made.found[0].config["fold"]["test"]) == 3
    return made

"""What the chapters say of their own runs."""

from dataclasses import replace

import numpy as np
import pytest
from core_cases import case_arrays, tiny_paper, write_tiny

from npcrepro.book.chapter import Chapter
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A chapter of five tiny patients, three of them tested in the first fold."""
    root = tmp_path_factory.mktemp("page")
    write_tiny(root / "c", [case_arrays(f"P{i}", i) for i in range(5)])
    paper = replace(tiny_paper(updates=3), split={"kind": "k-fold", "folds": 2, "validation": 1})
    settings = Settings(cohort=str(root / "c"), profile="tiny", device="cpu", runs=str(root / "runs"), private=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda key, modalities=(): paper)
        made = Chapter("li2018", settings)
    assert len(made.found[0].config["fold"]["test"]) == 3
    return made


def test_slices_that_show_the_structure_have_a_dsc_each(page):
    slices = page.by_slice("stepwise")
    tested = page.found[0].config["fold"]["test"]
    shown = {f"{p} {z}" for p in tested for z in np.flatnonzero(page.masks(p)["GTVp"].any(axis=(1, 2)))}
    assert (set(slices.slice), set(slices.patient)) == (shown, set(tested))
    case, z = slices.slice[0].split()
    mine, truth = page.found[0].prediction(case)[0][int(z)] == 1, page.masks(case)["GTVp"][int(z)]
    assert slices.dsc[0] == pytest.approx(2 * (mine & truth).sum() / (mine.sum() + truth.sum()))
    assert page.by_slice("unet").empty

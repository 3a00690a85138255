"""The notebooks as people run them with papermill; the test of the book runs all of them at profile smoke."""

import ast
import dataclasses
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest

from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.layout import write_cohort
from npcrepro.protocol.settings import Settings
from npcrepro.runs.fit import paper_of

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_parameters_are_the_settings_and_are_read_first_and_cells_of_a_chapter_are_short(path):
    parameters, following, *_ = cells(path)
    assert "parameters" in parameters.metadata["tags"]
    given = {one.targets[0].id: ast.literal_eval(one.value) for one in ast.parse(parameters.source).body}
    assert list(given) == [field.name for field in dataclasses.fields(Settings)]
    assert Settings(**given) == Settings()
    assert "settings = Settings.from_notebook(globals())" in following.source
    if paper_of(path.stem):
        assert [cell.id for cell in cells(path) if len(cell.source.splitlines()) > 10] == []


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Another channel, an unknown spacing, single slices, a doubtful label; and where its runs go."""
    folder, random = tmp_path_factory.mktemp("mine"), np.random.default_rng(0)
    label = np.zeros((1, 32, 32), np.uint8)
    label[0, 10:20, 12:22] = 1
    cases = [
        CaseArrays(f"P{i}", f"P{i}", random.integers(0, 99, (1, 1, 32, 32)).astype(np.int16), label, (1, 1, 1), i == 3)
        for i in range(5)
    ]
    write_cohort(folder / "mine", cases, name="mine", channels=["T2"], structures={"GTVp": 1}, spacing_known=False)
    return {"cohort": str(folder / "mine"), "runs": str(folder / "runs")}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "withheld", "shown"), [("li2018-appendix", 4, 5), ("li2018", 0, 4)])
def test_a_cohort_of_the_user_is_told_from_start_to_end(tmp_path, mine, name, withheld, shown):
    """Images that must not be shown are withheld."""
    chosen = {**mine, "profile": "smoke", "folds": [0, 3], "methods": ["linear-scores"]}
    path = NOTEBOOKS[0].parent / f"{name}.ipynb"
    told = papermill.execute_notebook(path, tmp_path / "out.ipynb", chosen, progress_bar=False, kernel_name="python3")
    outputs = [output.get("data", {}) for cell in told.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "\n".join(str(data.get(kind, "")) for data in outputs for kind in ("text/markdown", "text/html"))
    assert "cohort mine" in text
    assert text.count("may not be published") == withheld
    if name == "li2018-appendix":
        assert "5 patients, 5 cases" in text
        # Curves, patients and volumes of the page; patients and curves of the record.
        assert len([data for data in outputs if "image/png" in data]) == shown
    else:
        # What the steps are taught, on a sample slice; then the patients of the cohort and the maps inside.
        assert text.count('class="npc-result"') == shown

"""The notebooks as people run them with papermill; test_book.py runs all of them at profile smoke."""

import ast
import dataclasses
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest

from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.layout import write_cohort
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_the_parameters_are_the_settings_with_their_defaults(notebook):
    source = next(cell.source for cell in cells(notebook) if "parameters" in cell.metadata.get("tags", []))
    assignments = ast.parse(source).body
    given = {one.targets[0].id: ast.literal_eval(one.value) for one in assignments}
    assert list(given) == [field.name for field in dataclasses.fields(Settings)]
    assert Settings(**given) == Settings()


@pytest.mark.parametrize("key", registry.KEYS)
def test_cells_of_a_chapter_are_short(key):
    sources = {cell.id: cell.source for cell in cells(NOTEBOOKS[0].parent / f"{key}.ipynb")}
    assert [name for name, source in sources.items() if len(source.splitlines()) > 10] == []


def test_a_misspelt_parameter_ends_with_its_near_miss(notebook, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'profile'"):
        run(notebook, tmp_path, profil="smoke")


def test_a_cohort_of_the_user_is_told_from_start_to_end(tmp_path):
    """Another channel, an unknown spacing, single slices, a doubtful label, and images that must not be shown."""
    random = np.random.default_rng(0)
    label = np.zeros((1, 32, 32), np.uint8)
    label[0, 10:20, 12:22] = 1
    cases = [
        CaseArrays(f"P{i}", f"P{i}", random.integers(0, 99, (1, 1, 32, 32)).astype(np.int16), label, (1, 1, 1), i == 3)
        for i in range(5)
    ]
    write_cohort(tmp_path / "mine", cases, name="mine", channels=["T2"], structures={"GTVp": 1}, spacing_known=False)
    path = NOTEBOOKS[0].parent / "li2018.ipynb"
    chosen = {"cohort": str(tmp_path / "mine"), "profile": "smoke", "folds": [0, 3], "methods": ["linear-scores"]}
    # Curves and charts only: learning curves, patients, volumes, patients and learning curves of the record; then
    # slices, too.
    for private, pictures in ((False, 5), (True, 8)):
        told = run(path, tmp_path, **chosen, private=private)
        outputs = [output for cell in told.cells if cell.cell_type == "code" for output in cell.outputs]
        text = "\n".join(str(output.get("data", {}).get("text/markdown", "")) for output in outputs)
        assert "5 patients, 5 cases" in text
        assert "cohort mine" in text
        assert text.count("may not be published (its dataset.json names no licence)") == (0 if private else 4)
        assert len([output for output in outputs if "image/png" in output.get("data", {})]) == pictures


def run(path: Path, folder: Path, **parameters):
    return papermill.execute_notebook(
        str(path),
        str(folder / "out.ipynb"),
        parameters={"runs": str(folder / "runs"), **parameters},
        progress_bar=False,
        kernel_name="python3",
    )

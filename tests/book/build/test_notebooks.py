"""Execution of notebooks: several at a time, again only after a change, nothing left behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.errors import InputError
from npcrepro.base.files import write_text
from npcrepro.book.build import book, notebooks

PARAMETERS = {"profile": "smoke", "runs": "runs"}
SOON_S = 300  # on a busy machine


@pytest.fixture
def small_book(tmp_path, monkeypatch, repository):
    """A repository with one page and, when called with the source of their last cells, the notebooks of these names."""

    def make(**last_cells: str) -> Path:
        root = tmp_path / "clone"
        shutil.copytree(repository / "book" / "_static", root / "book" / "_static")
        for name in ("_config.yml", "package.json", "package-lock.json"):
            shutil.copyfile(repository / name, root / name)
        chapters = "".join(f"- file: notebooks/{name}\n" for name in last_cells)
        write_text(root / "_toc.yml", f"format: jb-book\nroot: book/intro\nchapters:\n{chapters}")
        write_text(root / "book" / "intro.md", "# One\n")
        write_text(root / "book" / "references.bib", "")
        for name, last_cell in last_cells.items():
            cells = [nbformat.v4.new_markdown_cell("# Title")]
            cells.append(nbformat.v4.new_code_cell("profile = 'quick'\nruns = 'runs'"))
            cells[1].metadata["tags"] = ["parameters"]
            notebook = nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell(last_cell)])
            notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
            write_text(root / "notebooks" / f"{name}.ipynb", nbformat.writes(notebook))
        monkeypatch.chdir(root)
        return root

    return make


def execute(root: Path, *names: str) -> notebooks.Done:
    return notebooks.execute(root, list(names or ["one"]), PARAMETERS, root / "_build", at_once=2)


def hidden(root: Path) -> list[Path]:
    return [path for path in (root / "_build").rglob(".*") if path.is_file()]


def test_notebook_runs_once_until_something_changes_and_keeps_no_widget_that_nobody_answers(small_book, capfd):
    widget = "import ipywidgets\ndisplay(ipywidgets.IntSlider(description='dead'))"
    root = small_book(one=f"import os; assert os.path.exists('_toc.yml'); print('ran', profile)\n{widget}")
    assert set(execute(root).seconds) == {"one"}
    out = capfd.readouterr().out
    assert re.search(r"^one: \d+ s \(1 of 1\)$", out, re.MULTILINE)
    assert "ran smoke" in (root / "_build" / "logs" / "one.log").read_text()
    executed = root / "_build" / "executed" / "one.ipynb"
    assert str(root) not in executed.read_text()
    notebook = nbformat.read(executed, as_version=4)
    assert "widgets" not in notebook.metadata
    assert [output.output_type for output in notebook.cells[-1].outputs] == ["stream"]
    first = executed.stat().st_mtime_ns
    assert execute(root) == notebooks.Done({}, 0, kept=1)
    assert "nothing changed" in capfd.readouterr().out
    assert executed.stat().st_mtime_ns == first
    write_text(root / "book" / "results" / "table.csv", "a\n1\n")
    execute(root)
    assert executed.stat().st_mtime_ns != first
    assert hidden(root) == []


MEETING = """
import os, time
open("{mine}.here", "w").close()
end = time.monotonic() + 300
while not os.path.exists("{other}.here"):
    assert time.monotonic() < end
    time.sleep(0.05)
print("threads", os.environ["OMP_NUM_THREADS"])
"""


def test_two_notebooks_run_at_the_same_time_and_share_the_cores(small_book, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(notebooks, "_cores", lambda: 6)
    root = small_book(one=MEETING.format(mine="a", other="b"), two=MEETING.format(mine="b", other="a"))
    done = execute(root, "one", "two")
    assert (set(done.seconds), done.at_once) == ({"one", "two"}, 2)
    assert "threads 3" in (root / "_build" / "logs" / "two.log").read_text()


def test_failing_notebook_is_one_sentence_and_the_others_go_on(small_book, capfd):
    root = small_book(
        one="raise ValueError('no such patient')", two="import os; os.kill(os.getpid(), 9)", three="print(1)"
    )
    with pytest.raises(InputError, match=r"Notebook one stopped in cell \d+ with ValueError: no such patient") as error:
        book.build(profile="smoke")
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(" two failed, too.")
    log = root / re.search(r"log: (\S+);", str(error.value))[1]
    assert "no such patient" in log.read_text()
    assert {path.name for path in (root / "_build" / "executed").iterdir()} == {"three.ipynb", "three.key"}
    out = capfd.readouterr().out
    assert re.search(r"^two: failed The kernel of notebook two was killed, for instance for lack of", out, re.M)


WAITING = """
import os, time
with open("kernel.part", "w") as file:
    file.write(str(os.getpid()))
os.replace("kernel.part", "kernel")
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_goes_on_and_nothing_is_left_behind(small_book, number):
    root = small_book(one=WAITING)
    code = "from npcrepro.cli import commands as cli; import sys; sys.argv = ['npcrepro', 'book']; cli.main()"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    build = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True, env=environment)
    try:
        kernel = wait_for(lambda: (root / "kernel").exists() and int((root / "kernel").read_text()))
        build.send_signal(number)
        out, err = build.communicate(timeout=SOON_S)
    finally:
        build.kill()
    assert build.returncode != 0
    wait_for(lambda: not alive(kernel))
    wait_for(lambda: not [path for path in hidden(root) if path.name != ".lock"] or number == signal.SIGKILL)
    assert not (root / "_build" / "executed" / "one.ipynb").exists()
    if number == signal.SIGINT:
        assert re.search(r"^Stopping; to be executed again: .*one", out, re.MULTILINE)
        assert "Traceback" not in err


def wait_for(condition):
    end = time.monotonic() + SOON_S
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended stays in the table until its parent asks for its status.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return not state.startswith("Z") and bool(state)


def test_changed_images_under_the_same_path_make_a_notebook_stale(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "one.ipynb").write_text("{}")
    image = tmp_path / "cohort" / "imagesTr" / "A_0000.nii.gz"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"first")
    settings = {"cohort": str(tmp_path / "cohort")}
    before = notebooks._key(tmp_path, "one", settings)
    assert notebooks._key(tmp_path, "one", settings) == before
    image.write_bytes(b"longer")
    assert notebooks._key(tmp_path, "one", settings) != before


def test_new_weights_make_a_notebook_stale(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "one.ipynb").write_text("{}")
    monkeypatch.setattr(notebooks, "PACKAGE", tmp_path)
    before = notebooks._key(tmp_path, "one", {})
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert notebooks._key(tmp_path, "one", {}) != before

import shutil

import pytest

from npcrepro.base import code_hash
from npcrepro.protocol.registry import load
from npcrepro.runs.records import SCORING_CODE, TRAINING_CODE

PAPER = load("li2018")
TRAINED = {"stepwise", "euclidean", "unaugmented"}


def forget():
    """What was read of the package."""
    code_hash._definition.cache_clear()
    code_hash._names.cache_clear()


@pytest.fixture
def hashes(tmp_path, monkeypatch):
    """A copy of the package's code; returns a function that edits one of its files and gives the hashes."""
    copy = tmp_path / "npcrepro"
    shutil.copytree(code_hash.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_hash, "PACKAGE", copy)

    def edited(name="cli/commands.py", old=None, new=None, after=""):
        text = (copy / name).read_text()
        assert old is None or text.count(old) >= 1
        (copy / name).write_text((text.replace(old, new, 1) if old else text) + after)
        forget()
        code = {name: TRAINING_CODE + PAPER.method(name).targets for name in sorted(TRAINED)}
        return {name: code_hash.code_sha256(roots) for name, roots in (code | {"scores": SCORING_CODE}).items()}

    yield edited
    forget()


def test_comments_docstrings_and_layout_change_nothing(hashes):
    before = hashes()
    assert before == hashes("losses/targets.py", after="\n\n# One more remark.\n")
    assert before == hashes("losses/targets.py", '"""Bring a label to the size', '"""Take a label to the size')
    assert before == hashes("runs/training.py", '"""The training loop,', '"""The loop,')
    assert before == hashes("losses/targets.py", "label = label.float()", "label = (\n        label.float()\n    )")


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("papers/li2018/losses.py", "half_square = (logits", "half_square = (2 * logits", {"euclidean"}),
        ("papers/li2018/network.py", "9, padding=4", "7, padding=3", TRAINED),
        ("sampling/augment.py", "range(-10, 11, 2)", "range(-10, 11, 5)", {"stepwise", "euclidean"}),
        ("runs/training.py", "stepper.step()", "pass", TRAINED),
        ("protocol/method.py", 'self.activation == "softmax"', "False", TRAINED),
        ("protocol/method.py", "set(self.structures) <= set", "set(self.structures) < set", set()),
        ("metrics/panel.py", "distances.nsd(2)", "distances.nsd(3)", {"scores"}),
        ("cli/papers.py", "def list_methods", "def list_all", set()),
    ],
)
def test_a_change_reaches_those_who_use_the_code(hashes, name, old, new, changed):
    before, after = hashes(name), hashes(name, old, new)
    assert {key for key in before if before[key] != after[key]} == changed


def test_code_that_moves_to_another_file_is_the_same_code(hashes):
    before, copy = hashes()["stepwise"], code_hash.PACKAGE
    moved = {
        "npcrepro.losses.cross_entropy": "npcrepro.elsewhere.functions",
        "npcrepro.papers.li2018.network": "npcrepro.elsewhere.network",
    }
    (copy / "elsewhere").mkdir()
    for old, new in moved.items():
        there, here = (copy.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in (old, new))
        there.rename(here)
        for path in copy.rglob("*.py"):
            path.write_text(path.read_text().replace(f"from {old} import", f"from {new} import"))
    forget()
    targets = PAPER.method("stepwise").targets
    assert {target.split(":")[0] for target in targets} >= moved.keys()
    targets = [f"{moved.get(module, module)}:{name}" for module, name in (target.split(":") for target in targets)]
    assert code_hash.code_sha256((*TRAINING_CODE, *targets)) == before


def test_a_root_that_is_not_there_is_an_error():
    for root in ("npcrepro.losses.targets:nothing", "npcrepro.protocol.method:Method.nothing"):
        with pytest.raises(KeyError, match="nothing"):
            code_hash.code_sha256([root])


def test_every_version_of_python_finds_the_same_hash():
    """Made by 3.11 and 3.13, whose syntax trees differ in fields that are empty."""
    found = code_hash.code_sha256(["npcrepro.base.code_hash:without_address"])
    assert found.startswith("6f8ecca75650b7a6")

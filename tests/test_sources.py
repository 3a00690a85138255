import shutil
from dataclasses import replace

import pytest

from npcrepro import sources
from npcrepro.papers import load
from npcrepro.protocol import Component
from npcrepro.records import SCORING_CODE, TRAINING_CODE

PAPER = load("li2018")


@pytest.fixture
def hashes(tmp_path, monkeypatch):
    """A copy of the package's code; returns a function that edits one of its files and gives the hashes."""
    copy = tmp_path / "npcrepro"
    shutil.copytree(sources.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "PACKAGE", copy)

    def forget():
        sources._definition.cache_clear()
        sources._names.cache_clear()

    def edited(name="cli.py", old=None, new=None, after=""):
        text = (copy / name).read_text()
        assert old is None or text.count(old) >= 1
        (copy / name).write_text((text.replace(old, new, 1) if old else text) + after)
        forget()
        return {
            "stepwise": sources.code_sha256((*TRAINING_CODE, *PAPER.method("stepwise").targets)),
            "euclidean": sources.code_sha256((*TRAINING_CODE, *PAPER.method("euclidean").targets)),
            "unaugmented": sources.code_sha256((*TRAINING_CODE, *PAPER.method("unaugmented").targets)),
            "scores": sources.code_sha256(SCORING_CODE),
        }

    yield edited
    forget()


def test_comments_docstrings_and_layout_change_nothing(hashes):
    before = hashes()
    assert before == hashes("losses.py", after="\n\n# One more remark.\n")
    assert before == hashes("losses.py", '"""Bring a label to the size', '"""Take a label to the size')
    assert before == hashes("training.py", '"""The training loop,', '"""The loop,')
    assert before == hashes("losses.py", "label = label.float()", "label = (\n        label.float()\n    )")


def test_annotations_change_nothing_and_lead_nowhere(hashes):
    before = hashes()
    assert before == hashes("training.py", "generator_for(*keys) -> torch.Generator", "generator_for(*keys)")
    assert before == hashes("training.py", "def _decay(stage: Stage, state: State", "def _decay(stage, state: dict")
    assert before == hashes("training.py", "rate_factor: float = 1.0", "rate_factor: int = 1.0")
    assert before == hashes("protocol.py", "Report = Callable[[str], None]", "Report = Callable[[str], object]")
    assert before == hashes("protocol.py", "def from_data(cls, data", "def from_json(cls, data")
    assert before != hashes("training.py", "rate_factor: int = 1.0", "rate_factor: int = 2.0")


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("losses.py", "half_square = (logits", "half_square = (2 * logits", {"euclidean"}),
        ("losses.py", "label = label.float()", "label = label.double()", {"stepwise", "euclidean", "unaugmented"}),
        ("augment.py", "range(-10, 11, 2)", "range(-10, 11, 5)", {"stepwise", "euclidean"}),
        ("augment.py", "radians(1)", "radians(2)", {"stepwise", "euclidean"}),
        ("training.py", "stepper.step()", "pass", {"stepwise", "euclidean", "unaugmented"}),
        ("training.py", "network.train()", "network.eval()", {"stepwise", "euclidean", "unaugmented"}),
        ("preprocess.py", "correction=0", "correction=1", {"stepwise", "euclidean", "unaugmented"}),
        (
            "preprocess.py",
            'size=native, mode="bilinear"',
            'size=native, mode="area"',
            {"stepwise", "euclidean", "unaugmented"},
        ),
        ("runs.py", "here + name.removeprefix(there)", "name", {"stepwise", "euclidean", "unaugmented"}),
        ("runs.py", '{"maps": maps} if maps', '{"masks": maps} if maps', {"stepwise", "euclidean", "unaugmented"}),
        ("records.py", "* 255).round()", "* 255).floor()", {"stepwise", "euclidean", "unaugmented"}),
        ("protocol.py", "len(self.channels) + maps", "len(self.channels)", {"stepwise", "euclidean", "unaugmented"}),
        ("protocol.py", 'self.activation == "softmax"', "False", {"stepwise", "euclidean", "unaugmented"}),
        ("protocol.py", "set(self.structures) <= set", "set(self.structures) < set", set()),
        ("models/li2018.py", "9, padding=4", "7, padding=3", {"stepwise", "euclidean", "unaugmented"}),
        ("cohorts/prepared.py", "= image\n", "= image / 2\n", {"stepwise", "euclidean", "unaugmented"}),
        ("cohorts/images.py", "COMPRESSION = 1100", "COMPRESSION = 1000", {"stepwise", "euclidean", "unaugmented"}),
        ("cohorts/check.py", "OBLIQUE_TOLERANCE_DEG = ", "OBLIQUE_TOLERANCE_DEG = 2 * ", set()),
        ("metrics/surface.py", "distances.nsd(2)", "distances.nsd(3)", {"scores"}),
        ("metrics/overlap.py", "2 * self.tp,", "3 * self.tp,", {"scores"}),
        ("cli.py", "def list_methods", "def list_all", set()),
    ],
)
def test_a_change_reaches_those_who_use_the_code(hashes, name, old, new, changed):
    before, after = hashes(name), hashes(name, old, new)
    assert {key for key in before if before[key] != after[key]} == changed


def test_a_loss_for_the_next_paper_changes_nothing(hashes):
    assert hashes() == hashes("losses.py", after="\n\nclass FocalLoss(CrossEntropyLoss):\n    gamma = 2\n")


def test_code_that_moves_to_another_file_is_the_same_code(hashes):
    before, copy = hashes()["stepwise"], sources.PACKAGE
    moved = {"npcrepro.losses": "npcrepro.elsewhere.functions", "npcrepro.models.li2018": "npcrepro.elsewhere.network"}
    (copy / "elsewhere").mkdir()
    for old, new in moved.items():
        there, here = (copy.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in (old, new))
        there.rename(here)
        for path in copy.rglob("*.py"):
            path.write_text(path.read_text().replace(f"from {old} import", f"from {new} import"))
    sources._definition.cache_clear()
    sources._names.cache_clear()
    targets = PAPER.method("stepwise").targets
    assert {target.split(":")[0] for target in targets} >= moved.keys()
    targets = [f"{moved.get(module, module)}:{name}" for module, name in (target.split(":") for target in targets)]
    assert sources.code_sha256((*TRAINING_CODE, *targets)) == before


def test_a_root_that_is_not_there_is_an_error():
    for root in ("npcrepro.losses:nothing", "npcrepro.protocol:Method.nothing"):
        with pytest.raises(KeyError, match="nothing"):
            sources.code_sha256([root])


def test_an_optimiser_of_this_package_is_part_of_a_method():
    (stage, *others) = PAPER.method("stepwise").stages
    own = replace(stage, optimiser=Component("npcrepro.augment:Affine"))
    method = replace(PAPER.method("stepwise"), augmentation=None, stages=(own, *others))
    assert "npcrepro.augment:Affine" in method.targets

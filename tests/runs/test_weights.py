"""Published weights: packed from runs, found by name, and as good as the runs that they come from."""

import shutil
import socket
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from core_cases import TINY, case_arrays, finish, tiny_paper, write_tiny
from safetensors.torch import load_file

from npcrepro.base.errors import InputError
from npcrepro.base.files import read_json, write_json
from npcrepro.cohorts.images import read_image
from npcrepro.papers.guo2021.protocol import PAPER as GUO
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs import weights as weights_module
from npcrepro.runs.model_card import model_card
from npcrepro.runs.predict import predict, read_run, train_on_all
from npcrepro.runs.published import published_folders, read_published
from npcrepro.runs.records import CHOOSING, Record
from npcrepro.runs.run import load_network
from npcrepro.runs.weights import LARGEST_HALF, PACKED, pack, published_weights, scores_of, weights_of

COMMITTED = published_weights()


def silent(line):
    pass


@pytest.fixture(scope="module", autouse=True)
def fp32():
    """fp32, whatever the machine is good at: in bf16, weights in half precision change a label here and there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict)
        yield


@pytest.fixture(scope="module")
def record(tiny_root, tmp_path_factory):
    """A run of Li's network on a fold of the tiny cohort."""
    (record,), _ = finish(tiny_root, tmp_path_factory.mktemp("runs"), tiny_paper(updates=60))
    return record


@pytest.fixture(scope="module")
def packed(record, tmp_path_factory):
    """Its weights, as they would be published. Nobody writes to them."""
    folder = tmp_path_factory.mktemp("weights") / "stepwise"
    pack(record, folder, "cpu")
    return folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def label(folder, case):
    return read_image(folder / f"{case}.nii.gz")[0]


# Packed


def test_weights_predict_as_their_run(record, packed, tiny_root, tmp_path):
    for name, folder in (("run", record.folder), ("weights", packed)):
        assert predict(folder, tiny_root, tmp_path / name, "cpu", silent) == 4
    for case in ("P0", "P1", "P2", "P3"):
        assert label(tmp_path / "run", case).any()
        np.testing.assert_array_equal(label(tmp_path / "weights", case), label(tmp_path / "run", case))
    assert read_json(tmp_path / "weights" / "dataset.json")["reference"] == "predicted by li2018/stepwise, stepwise"


def test_parameters_are_halved_and_nothing_of_the_machine_or_the_images_goes_along(record, packed):
    assert names(packed) == ["README.md", "config.json", "model.safetensors", "provenance.json", "validated.json"]
    before, after = (load_file(folder / "model.safetensors") for folder in (record.folder, packed))
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        assert tensor.dtype == (torch.float16 if before[name].is_floating_point() else before[name].dtype), name
    text = "".join(path.read_text() for path in packed.iterdir() if path.suffix in (".md", ".json"))
    for word in (str(record.folder.parents[4]), socket.gethostname(), str(packed.parent)):
        assert word not in text
    assert "used" not in read_json(packed / "provenance.json")


def test_numbers_beyond_half_precision_and_integers_are_kept():
    large, whole = torch.tensor([1.0, 2 * LARGEST_HALF]), torch.tensor([3, 100_000])
    assert torch.equal(weights_module._half(large), large)
    assert torch.equal(weights_module._half(whole), whole)
    assert weights_module._half(torch.tensor([0.1, LARGEST_HALF])).tolist() == [0.0999755859375, LARGEST_HALF]


def test_the_card_says_what_the_record_says(record, packed):
    card = (packed / "README.md").read_text()
    assert card == model_card(packed)
    dsc = record.cases.dsc[record.cases.region == "all_slices"].item()
    assert f"| GTVp | 1 | {dsc:.3f} | – |" in card
    for line in (
        "| image | CET1 |",
        "| trained on | 2 patients of tiny; 1 other for validation |",
        "| tested on | 1 patient of fold 0 |",
        "| network | width 0.05, input of 16 x 16 voxels |",
        "| seed | 0 |",
        "* Not for treatment, diagnosis or planning.",
        "npcrepro predict --weights li2018/stepwise --cohort FOLDER --out DIR",
    ):
        assert line in card
    images = registry.load("li2018").profile("paper")
    assert f"60 updates of 2 images (profile tiny), {12000 / images.updates / images.batch_size:.1f} % of" in card


def test_weights_of_all_patients_have_no_scores(tiny_root, tmp_path):
    settings = Settings(cohort=str(tiny_root), profile="tiny", device="cpu", runs=str(tmp_path / "runs"))
    (record,) = train_on_all(tiny_paper(updates=60), settings, silent)
    pack(record, tmp_path / "w", "cpu")
    card = (tmp_path / "w" / "README.md").read_text()
    assert "| tested on | nobody |" in card
    assert "so that there are no scores" in card


def test_a_card_names_what_a_cohort_is_not(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "w")
    write_json(tmp_path / "w" / "config.json", read_json(packed / "config.json") | {"cohort": "IBSI_STS"})
    about = read_json(packed / "provenance.json") | {"substituted": {"GTVp": "GTV"}}
    write_json(tmp_path / "w" / "provenance.json", about)
    card = model_card(tmp_path / "w")
    assert "* The tumours are soft-tissue sarcomas. They are no nasopharyngeal carcinoma" in card
    assert "* The structure GTV stands in for GTVp of the paper." in card
    assert "| segments | GTV |" in card


def test_scores_are_of_patients_in_all_slices_without_doubtful_labels(record):
    cases = record.cases
    other = cases.assign(patient="Q", case="Q", tp=0, fp=0, fn=10)
    doubtful = cases.assign(patient="R", case="R", suspect=True)
    ((structure, found),) = scores_of(pd.concat([cases, other, doubtful])).items()
    dsc = cases.dsc[cases.region == "all_slices"].item()
    assert (structure, found["patients"], found["dsc"]) == ("GTVp", 2, pytest.approx(dsc / 2, abs=5e-5))
    assert scores_of(cases[:0]) == {}


def test_networks_whose_maps_go_in_are_packed_too(tmp_path):
    profile = replace(TINY, matrix=(8, 8, 8), updates=16)
    paper = replace(GUO, profiles=(*GUO.profiles, profile), split={"kind": "leave-one-out"})
    write_tiny(tmp_path / "c", [case_arrays(f"P{n}", n, depth=8) for n in range(4)], channels=("THRIVE",))
    for name, makers in (("cscn", 1), ("cscn-averaged", 2)):
        (record,), _ = finish(tmp_path / "c", tmp_path / "runs", paper, methods=(name,))
        pack(record, tmp_path / name, "cpu")
        provenance = read_json(tmp_path / name / "provenance.json")
        assert provenance[PACKED]["makers"] == [f"makers/{number}" for number in range(makers)]
        for kind, folder in (("run", record.folder), ("weights", tmp_path / name)):
            predict(folder, tmp_path / "c", tmp_path / f"{name}-{kind}", "cpu", silent)
        for case in ("P0", "P3"):
            one, other = (label(tmp_path / f"{name}-{kind}", case) for kind in ("run", "weights"))
            assert one.any()
            assert (one != other).mean() < 0.001
    assert f"with {makers} networks whose maps it takes in" in (tmp_path / name / "README.md").read_text()
    shutil.rmtree(tmp_path / "cscn" / "makers")
    with pytest.raises(InputError, match="makers/0 is not the folder of a finished run"):
        predict(tmp_path / "cscn", tmp_path / "c", tmp_path / "other", "cpu", silent)


def test_half_precision_that_changes_labels_is_refused(record, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "_half", lambda tensor: -tensor if tensor.is_floating_point() else tensor)
    with pytest.raises(InputError, match=r"half precision changes the label of .* voxels in .*, where .* have one"):
        pack(record, tmp_path / "w", "cpu")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_replaced_and_nothing_else_is(record, packed, tmp_path):
    shutil.copytree(packed, tmp_path / "w")
    (tmp_path / "w" / "plan.json").write_text("{}")
    pack(record, tmp_path / "w", "cpu")
    assert names(tmp_path / "w") == names(packed)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="mine holds something else than published weights"):
        pack(record, tmp_path / "mine", "cpu")
    assert names(tmp_path / "mine") == ["notes.txt"]


def test_a_run_without_its_cohort_is_not_packed(record, tmp_path):
    place = record.folder.relative_to(record.folder.parents[4])
    shutil.copytree(record.folder, tmp_path / "runs" / place)
    with pytest.raises(InputError, match=r"cannot be packed without the cohort .*/runs/prepared/tiny-.*: missing"):
        pack(Record(tmp_path / "runs" / place), tmp_path / "w", "cpu")
    assert not (tmp_path / "w").exists()


# Found by name, on the command line too


@pytest.fixture
def shelf(packed, tmp_path, monkeypatch):
    """A package with the packed weights and no others."""
    monkeypatch.setattr(registry, "FOLDERS", tmp_path / "papers")
    shutil.copytree(packed, tmp_path / "papers" / "li2018" / "weights" / "stepwise")
    return tmp_path / "papers"


def test_weights_go_by_paper_and_method(shelf, monkeypatch):
    folder = shelf / "li2018" / "weights" / "stepwise"
    assert published_weights() == {"li2018/stepwise": folder}
    assert weights_of("li2018/stepwise") == weights_of("li2018") == folder
    with pytest.raises(InputError, match="did you mean 'li2018/stepwise'"):
        weights_of("li2018/stepwize")
    with pytest.raises(InputError, match=r"unknown weights 'luo2020/two-stage'; .*choices: li2018/stepwise"):
        weights_of("luo2020")
    monkeypatch.setattr(registry, "FOLDERS", shelf / "none")
    with pytest.raises(InputError, match="this copy of the package has none"):
        weights_of("luo2020")


def test_predict_takes_a_run_or_weights_and_not_both(shelf, call, record, tiny_root, tmp_path):
    where = ["--cohort", tiny_root, "--out", tmp_path / "out", "--device", "cpu"]
    code, _, err = call("predict", *where, "--run", record.folder, "--weights", "li2018")
    assert (code, err.count("\n"), "name two networks" in err) == (1, 1, True)
    code, _, err = call("predict", *where)
    assert (code, err.count("\n"), "no network is named" in err) == (1, 1, True)
    code, _, err = call("predict", *where, "--weights", "li2018/stepwize")
    assert (code, err.count("\n"), "did you mean 'li2018/stepwise'" in err) == (1, 1, True)
    assert not (tmp_path / "out").exists()
    code, out, _ = call("predict", *where, "--weights", "li2018")
    assert (code, out.splitlines()[-1]) == (0, f"4 cases in {tmp_path / 'out'}")


def test_weights_are_listed_and_published(shelf, call, record, packed):
    shutil.rmtree(shelf)
    assert call("weights")[:2] == (0, "this copy of the package has no weights\n")
    code, out, err = call("weights", "--publish", record.folder, "--device", "cpu")
    assert (code, err) == (0, "")
    folder = shelf / "li2018" / "weights" / "stepwise"
    packed_in, header, row, *told = out.splitlines()
    assert packed_in == f"{record.folder} packed in {folder}"
    assert header.split() == ["name", "segments", "image", "trained", "on", "DSC", "MB"]
    dsc = record.cases.dsc[record.cases.region == "all_slices"].item()
    assert row.split()[:-1] == f"li2018/stepwise GTVp CET1 tiny (n = 2) {dsc:.3f} (n = 1)".split()
    assert told[-1] == "to use one: npcrepro predict --weights NAME --cohort FOLDER --out OUT"
    assert names(folder) == names(packed)


# Damaged, or for other images


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("model.safetensors", lambda content: content[: len(content) // 2], "damaged file"),
        ("model.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1]), "has another checksum"),
        ("config.json", lambda content: content[:-100], "damaged file"),
        ("config.json", lambda content: b"{}", "names no method"),
        ("provenance.json", lambda content: content[:-100], "damaged file"),
    ],
)
def test_damaged_weights_are_refused_before_an_image_is_read(packed, tmp_path, name, damage, words):
    shutil.copytree(packed, tmp_path / "w")
    path = tmp_path / "w" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=words) as error:
        predict(tmp_path / "w", tmp_path / "no-images", tmp_path / "out", "cpu", silent)
    assert str(tmp_path / "w") in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


# What is committed


def test_committed_weights_are_small_and_safetensors_only():
    files = [path for folder in COMMITTED.values() for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}
    assert sum(path.stat().st_size for path in files) < 60e6


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_weights_are_those_of_a_published_run(name):
    folder = COMMITTED[name]
    record = read_run(folder)
    assert (record.method.full_name, record.provenance["choosing"]) == (name, CHOOSING)
    load_network(record)
    assert (folder / "README.md").read_text() == model_card(folder)
    identity = record.provenance["config_sha256"]
    for published in map(read_published, published_folders()):
        run = next((run for run in published.runs if run.get("config_sha256") == identity), None)
        if run:
            cases = published.cases
            for column in ("method", "fold", "seed"):
                cases = cases[cases[column] == run[column]]
            assert record.provenance[PACKED]["scores"] == scores_of(cases)
            return
    assert not record.config["fold"]["test"], f"the run of {name} is not published in book/results"

"""Networks in use: trained on all patients, applied to the images of another folder."""

import json
import shutil
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from bright_network import bright_paper
from cohort_cases import edit
from core_cases import case_arrays, finish, write_tiny

from npcrepro.base.errors import InputError
from npcrepro.base.files import read_json
from npcrepro.cohorts.dicom import structures_of
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.protocol.method import Component, Use
from npcrepro.protocol.settings import Settings
from npcrepro.runs.predict import data_of, predict, train_on_all
from npcrepro.runs.records import find
from npcrepro.sampling.slices import SliceData


def silent(line):
    pass


class WithMaps(SliceData):
    """The maps of another run, times 1,000, as further channels beside an image that shows nothing."""

    def __init__(self, *arguments, maps, **options):
        super().__init__(*arguments, **options)
        self.maps = maps

    def batch(self, slices):
        image, label = super().batch(slices)
        maps = [
            np.mean([np.load(path)["probability"] for path in self.maps[case]], axis=0)[:, z] / 0.255
            for case, z in slices
        ]
        return torch.cat([0 * image, torch.from_numpy(np.stack(maps)).float()], dim=1), label


class Asked(SliceData):
    """Keeps the names of the structures that it was asked for."""

    names: ClassVar[list] = []

    def __init__(self, cohort, matrix, channels, structures, **options):
        self.names.append(structures)
        super().__init__(cohort, matrix, channels, structures, **options)


USER = {
    "name": "user",
    "data": Component(f"{__name__}:WithMaps", {"normalisation": "none"}),
    "uses": (Use("simple", maps=2),),
}


def train(root, runs, name="simple", paper=None, report=silent):
    settings = Settings(cohort=str(root), profile="tiny", methods=(name,), device="cpu", runs=str(runs))
    (record,) = train_on_all(paper or bright_paper(), settings, report)
    return record


@pytest.fixture(scope="module")
def trained(tiny_root, tmp_path_factory):
    """The record of a run on all patients of the tiny cohort."""
    return train(tiny_root, tmp_path_factory.mktemp("runs"))


def images_only(folder, cases=("A", "B")):
    """A folder with imagesTs and nothing else, and the cases that are in it."""
    cases = [case_arrays(name, number) if isinstance(name, str) else name for number, name in enumerate(cases)]
    write_tiny(folder, cases)
    (folder / "imagesTr").rename(folder / "imagesTs")
    shutil.rmtree(folder / "labelsTr")
    (folder / "dataset.json").unlink()
    return {case.name: case for case in cases}


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# Trained on all


def test_all_patients_train_or_choose_and_nobody_is_tested(trained, tiny_root, tmp_path):
    fold, runs = trained.config["fold"], trained.folder.parents[4]
    assert fold["test"] == []
    assert len(fold["validation"]) == 1
    assert sorted(fold["train"] + fold["validation"]) == ["P0", "P1", "P2", "P3"]
    assert trained.folder.name.startswith("all_seed-0_")
    assert (len(trained.cases), len(trained.history) > 0) == (0, True)
    # It is no result, and not trained again.
    assert find(runs) == []
    lines = []
    assert train(tiny_root, runs, report=lines.append).folder == trained.folder
    assert lines == [f"1 run, 0 trained now, 1 read back from {runs}"]
    # The paper's share of patients for validation chooses the weights.
    paper = replace(bright_paper(), split={"kind": "k-fold", "folds": 2, "validation": 0.5})
    fold = train(tiny_root, tmp_path, paper=paper).config["fold"]
    assert [len(fold[part]) for part in ("train", "validation", "test")] == [2, 2, 0]


# Predictions


def test_the_images_alone_are_enough(trained, tmp_path):
    placed = {"origin": [10.0, -20.0, 30.0], "direction": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]}
    turned = case_arrays("A", 3, spacing_mm=(2.0, 1.5, 1.25), geometry=placed)
    cases = images_only(tmp_path / "images", [turned, case_arrays("B", 1)])
    lines = []
    assert predict(trained.folder, tmp_path / "images", tmp_path / "out", "cpu", lines.append) == 2
    assert lines == ["[1/2] A, axes turned for the network and back", "[2/2] B"]
    assert left(tmp_path / "out") == ["A.nii.gz", "B.nii.gz", "dataset.json"]
    for name, case in cases.items():
        label, *grid = read_image(tmp_path / "out" / f"{name}.nii.gz")
        _, *there = read_image(tmp_path / "images" / "imagesTs" / f"{name}_0000.nii.gz")
        assert grid == there
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, case.label)
    assert structures_of(tmp_path / "out" / "A.nii.gz") == {"GTVp": (1,)}
    assert left(tmp_path) == ["images", "out"]


def test_structures_that_stood_in_have_the_names_of_the_training(tmp_path):
    """Guo's blocks are cut about a GTVp; a sarcoma's GTV is not cut in training, nor in a prediction."""
    write_tiny(tmp_path / "limbs", [case_arrays(f"P{i}", i) for i in range(4)], structures={"GTV": 1})
    paper = bright_paper({"name": "asked", "data": Component(f"{__name__}:Asked", {"normalisation": "none"})})
    record = train(tmp_path / "limbs", tmp_path / "runs", "asked", paper)
    images_only(tmp_path / "images", ["A"])
    predict(record.folder, tmp_path / "images", tmp_path / "out", "cpu", silent)
    assert set(Asked.names) == {("GTVp",)}
    assert structures_of(tmp_path / "out" / "A.nii.gz") == {"GTV": (1,)}
    # A lesson shows it on patients who have other structures, too.
    more = prepare(read_cohort(tmp_path / "limbs"), tmp_path / "runs" / "prepared")
    data = data_of(record, replace(more, structures={"Cord": (2,), "GTV": (1,), "Jaw": (3,)}))
    assert data.structures == ("GTV",)


@pytest.mark.parametrize("axes", ["RAS", "SLP"])
def test_images_with_other_axes_are_segmented_as_those_of_the_training(trained, tmp_path, axes):
    """The same anatomy, stored otherwise: the label is the same in space, and on the grid of its image."""
    assert trained.provenance["axes"] == "LPS"
    images_only(tmp_path / "a", [case_arrays("A", 1)])
    path = tmp_path / "b" / "imagesTs" / "A_0000.nii.gz"
    path.parent.mkdir(parents=True)
    image = sitk.ReadImage(str(tmp_path / "a" / "imagesTs" / "A_0000.nii.gz"))
    sitk.WriteImage(sitk.DICOMOrient(image, axes), str(path))
    lines = []
    for name in "ab":
        predict(trained.folder, tmp_path / name, tmp_path / f"out-{name}", "cpu", lines.append)
    assert lines == ["[1/1] A", "[1/1] A, axes turned for the network and back"]
    as_trained, label = (sitk.ReadImage(str(tmp_path / f"out-{name}" / "A.nii.gz")) for name in "ab")
    stored = sitk.ReadImage(str(path))
    for part in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(label, part)() == getattr(stored, part)()
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(label, "LPS"))
    assert back.any()
    np.testing.assert_array_equal(back, sitk.GetArrayFromImage(as_trained))


def test_the_prediction_is_that_of_the_run_whatever_the_labels(tiny_root, tmp_path):
    (record,), _ = finish(tiny_root, tmp_path / "runs", bright_paper(), methods=("simple",))
    shutil.copytree(tiny_root, tmp_path / "c")
    for label in (tmp_path / "c" / "labelsTr").iterdir():
        label.write_bytes(b"no label")
    predict(record.folder, tmp_path / "c", tmp_path / "out", "cpu", silent)
    label, _ = record.prediction("P0")
    assert label.any()
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "P0.nii.gz")[0], label)
    assert len(left(tmp_path / "out")) == 5


def test_what_the_training_patients_decided_is_kept_for_other_images(tmp_path):
    """One image alone would have another spacing and other intensities than those that the network knows."""
    cases = [case_arrays(f"P{n}", n, spacing_mm=(3.0, 1.0 + n / 4, 1.0 + n / 4)) for n in range(4)]
    write_tiny(tmp_path / "c", cases, channels=("CT",))
    (record,), _ = finish(tmp_path / "c", tmp_path / "runs", methods=("nnunet-2d",))
    assert read_json(record.folder / "plan.json")["data"]["found"]["spacing_mm"] != [1.0, 1.0]
    shutil.rmtree(tmp_path / "c" / "labelsTr")
    for path in (tmp_path / "c" / "imagesTr").iterdir():
        if not path.name.startswith("P0"):
            path.unlink()
    predict(record.folder, tmp_path / "c", tmp_path / "out", "cpu", silent)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "P0.nii.gz")[0], record.prediction("P0")[0])


@pytest.mark.parametrize(
    ("known", "code"),
    [
        ({"GTVnd": 1, "GTVp": 7}, 7),
        ({"GTVnd": 1}, 2),
        ({"GTVp": [1, 2], "CTV": [2, 3]}, 1),
        ({"A": 1, "B": 2, "GTVp": [1, 2]}, 3),
    ],
)
def test_a_structure_keeps_a_code_that_is_its_own_in_the_cohort(trained, tmp_path, known, code):
    case = case_arrays("A")
    write_tiny(tmp_path / "c", [case])
    edit(tmp_path / "c", labels={"background": 0, **known})
    predict(trained.folder, tmp_path / "c", tmp_path / "out", "cpu", silent)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "A.nii.gz")[0], code * case.label)
    assert structures_of(tmp_path / "out" / "A.nii.gz") == {"GTVp": (code,)}


def test_channels_go_by_name(trained, tmp_path):
    case = case_arrays("A", channels=2)
    dark = replace(case, image=np.stack([case.image[0], np.zeros_like(case.image[0])]))
    write_tiny(tmp_path / "c", [replace(dark, image=dark.image[::-1])], channels=("T2", "CET1"))
    predict(trained.folder, tmp_path / "c", tmp_path / "out", "cpu", silent)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "A.nii.gz")[0], case.label)


def test_a_channel_that_stood_in_is_asked_for_by_its_own_name(tmp_path):
    write_tiny(tmp_path / "c", channels=("T2",))
    record = train(tmp_path / "c", tmp_path / "runs")
    assert record.provenance["substituted"] == {"CET1": "T2"}
    assert predict(record.folder, tmp_path / "c", tmp_path / "out", "cpu", silent) == 4
    write_tiny(tmp_path / "d", channels=("CET1",))
    with pytest.raises(InputError, match="d has CET1, but li2018/simple needs T2"):
        predict(record.folder, tmp_path / "d", tmp_path / "other", "cpu", silent)


def test_files_that_dataset_json_lists(trained, tmp_path):
    write_tiny(tmp_path / "c", ["A"])
    (tmp_path / "c" / "imagesTr" / "A_0000.nii.gz").rename(tmp_path / "c" / "mine.nii.gz")
    edit(tmp_path / "c", dataset={"A": {"images": ["mine.nii.gz"], "label": "labelsTr/A.nii.gz"}})
    assert predict(trained.folder, tmp_path / "c", tmp_path / "out", "cpu", silent) == 1


def test_a_series_that_may_become_zeros(tmp_path):
    paper = bright_paper({"name": "two", "channels": ("CET1", "T2")})
    cases = [case_arrays(f"P{i}", i, channels=2) for i in range(4)]
    # The second channel alone takes a voxel above the threshold.
    cases = [replace(case, image=np.stack([case.image[0] // 100, case.image[0]])) for case in cases]
    write_tiny(tmp_path / "c", cases, channels=("CET1", "T2"))
    record = train(tmp_path / "c", tmp_path / "runs", "two", paper)
    (tmp_path / "c" / "imagesTr" / "P1_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"P1 has no image _0001 \(T2\), but li2018/two needs CET1 and T2"):
        predict(record.folder, tmp_path / "c", tmp_path / "out", "cpu", silent)
    edit(tmp_path / "c", missing_series="zero")
    assert predict(record.folder, tmp_path / "c", tmp_path / "out", "cpu", silent) == 4
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "P0.nii.gz")[0], cases[0].label)
    assert not read_image(tmp_path / "out" / "P1.nii.gz")[0].any()
    (tmp_path / "c" / "dataset.json").unlink()
    with pytest.raises(InputError, match="c names no channels, but li2018/two needs CET1 and T2"):
        predict(record.folder, tmp_path / "c", tmp_path / "other", "cpu", silent)


@pytest.mark.parametrize("averaged", [False, True])
def test_runs_whose_maps_go_in_predict_first(tiny_root, tmp_path, averaged):
    paper = bright_paper(USER, {**USER, "name": "second", "uses": (Use("user", maps=2, averaged=averaged),)})
    record = train(tiny_root, tmp_path / "runs", "second", paper)
    cases = images_only(tmp_path / "images", ["A"])
    predict(record.folder, tmp_path / "images", tmp_path / "out", "cpu", silent)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "A.nii.gz")[0], cases["A"].label)
    assert left(tmp_path) == ["images", "out", "runs"]
    used = record.provenance["used"]["user"][2 if averaged else 0]
    (tmp_path / "runs" / used / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"{used} is not the folder of a finished run"):
        predict(record.folder, tmp_path / "images", tmp_path / "other", "cpu", silent)


# What cannot be predicted


def test_nothing_is_overwritten_and_a_mistyped_device_is_told_before_anything_is_read(trained, tiny_root, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        predict(trained.folder, tiny_root, tmp_path / "out", "cpu", silent)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="unknown device 'cdua'; did you mean 'cuda'"):
        predict(trained.folder, tmp_path / "no-images", tmp_path / "other", "cdua", silent)
    assert left(tmp_path) == ["out"]


def test_folders_that_do_not_fit(trained, tiny_root, tmp_path):
    def refused(root, words, run=trained.folder):
        with pytest.raises(InputError, match=words) as error:
            predict(run, root, tmp_path / "out", "cpu", silent)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()

    refused(tmp_path / "nowhere", "nowhere: no such folder")
    refused(tiny_root, "is not the folder of a finished run .no config.json.", trained.folder.parent)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty has no images: neither imagesTr nor imagesTs holds a CASE_0000.nii.gz")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "dataset.json").write_text("{")
    refused(tmp_path / "bad", "bad/dataset.json: not valid JSON")
    write_tiny(tmp_path / "two", [case_arrays("A", channels=2)], channels=("T1", "T2"))
    refused(tmp_path / "two", "two has T1 and T2, but li2018/simple needs CET1")
    write_tiny(tmp_path / "gap", [case_arrays("A", channels=2)], channels=("T1", "CET1"))
    (tmp_path / "gap" / "imagesTr" / "A_0001.nii.gz").unlink()
    refused(tmp_path / "gap", r"case A has no image _0001 \(CET1\)")
    write_tiny(tmp_path / "twice", ["A"])
    shutil.copytree(tmp_path / "twice" / "imagesTr", tmp_path / "twice" / "imagesTs")
    refused(tmp_path / "twice", "both imagesTr and imagesTs hold A_0000.nii.gz")
    shutil.copytree(trained.folder, tmp_path / "run")
    (tmp_path / "run" / "provenance.json").write_text(json.dumps(trained.provenance | {"status": "diverged"}))
    refused(tiny_root, "diverged: its network predicts nothing of use", tmp_path / "run")


# The command line


def test_train_predict_and_score_by_command(call, tmp_path):
    assert call("data", "phantom", tmp_path / "c", "--kind", "ct", "--n", 3, "--matrix", "6x32x32")[0] == 0
    arguments = ["--cohort", tmp_path / "c", "--profile", "smoke", "--device", "cpu", "--runs", tmp_path / "runs"]
    code, out, _ = call("train", "xue2020/deeplabv3plus", *arguments)
    assert code == 0
    folder, counts = out.splitlines()[-1].split(": ")
    assert counts == "2 patients for training, 1 for validation"
    code, out, _ = call("predict", "--run", folder, "--cohort", tmp_path / "c", "--out", tmp_path / "out")
    assert (code, out.splitlines()[-1]) == (0, f"3 cases in {tmp_path / 'out'}")
    assert read_cohort(tmp_path / "c").structures["GTVp"][0] == 1
    code, out, _ = call("score", tmp_path / "out", tmp_path / "c" / "labelsTr", "--labels", tmp_path / "c/dataset.json")
    assert code == 0
    assert out.splitlines()[1].startswith("GTVp")
    assert call("predict", "--run", folder, "--cohort", tmp_path / "c", "--out", tmp_path / "out")[0] == 1
    assert call("train", "xue2020/deeplab", *arguments)[2].count("did you mean 'deeplabv3plus'") == 1

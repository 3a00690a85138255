"""Methods that build on runs of others, end to end: weights taken over, and maps of patients not trained on."""

import re
import shutil
from dataclasses import replace

import core_cases
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.base.files import write_json
from npcrepro.cohorts.folds import Fold, inner_folds
from npcrepro.cohorts.prepared import read_prepared
from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage, Use
from npcrepro.runs import training
from npcrepro.runs.plan import configure, in_order
from npcrepro.runs.published import publish
from npcrepro.runs.records import Record, find
from npcrepro.runs.run import Hardware, Unusable, load_data, load_network, run


class Toy(nn.Module):
    """A body and a score; of the body there may be a second one under another name."""

    def __init__(self, in_channels, out_channels, width, body="body"):
        super().__init__()
        self.add_module(body, nn.Conv3d(in_channels, 2, 3, padding=1))
        self.body_name = body
        self.score = nn.Conv3d(2, out_channels, 1)

    def forward(self, image):
        return self.score(self.get_submodule(self.body_name)(image).relu())


def stage(rate):
    loss = Component("npcrepro.losses.cross_entropy:CrossEntropyLoss")
    return (Stage("all layers", loss, Component("torch.optim:SGD", {"lr": rate})),)


FIRST = Method(
    paper="toy",
    name="first",
    title="First",
    summary="Trained by itself",
    channels=("CET1",),
    structures=("GTVp",),
    network=Component(f"{__name__}:Toy"),
    data=Component("npcrepro.sampling.blocks:BlockData"),
    stages=stage(0.1),
)


def variant(name, *uses, **changes):
    return replace(FIRST, name=name, uses=uses, **changes)


METHODS = (
    FIRST,
    variant("second", Use("first", maps=3)),
    variant("warm", Use("first", weights={"body.": "body."}), stages=stage(0.0)),
    variant(
        "renamed",
        Use("first", weights={"body.": "trunk.", "score.bias": "score.bias"}),
        network=Component(f"{__name__}:Toy", {"body": "trunk"}),
        stages=stage(0.0),
    ),
    variant("still", Use("first", weights={"": ""}), stages=()),
    variant("third", Use("second", weights={"": ""}), Use("first", maps=3), stages=()),
    variant("fourth", Use("second", maps=2)),
    variant("both", Use("first", weights={"score.": "score."}, maps=3), stages=stage(0.0)),
    variant("own", Use("first", maps=1)),
    variant("averaged", Use("second", weights={"": ""}), Use("first", maps=3, averaged=True), stages=()),
)
PROFILE = Profile(
    name="tiny", matrix=(4, 8, 8), width=1.0, batch_size=2, updates=2, check_every=2, folds=1, methods=("second",),
    phantom={},
)  # fmt: skip
PAPER = Paper("toy", "A toy", METHODS, (PROFILE,), {"kind": "leave-one-out"})


def with_method(method):
    """The paper with another version of one of its methods."""
    return replace(PAPER, methods=tuple(method if m.name == method.name else m for m in METHODS))


def finish(root, runs, *methods, paper=PAPER, lines=None, **fields):
    return core_cases.finish(root, runs, paper, lines, methods=methods, **fields)


@pytest.fixture(scope="module")
def finished(tiny_root, tmp_path_factory):
    """Records by method of the toy paper, and their folder. Nobody writes to it but to read it back."""
    runs = tmp_path_factory.mktemp("runs")
    records, _ = finish(
        tiny_root, runs, "second", "first", "warm", "renamed", "still", "third", "both", "own", "averaged"
    )
    return {record.config["method"]["name"]: record for record in records}, runs


def weights(record):
    return load_file(record.folder / "model.safetensors")


def prepared_in(runs):
    (folder,) = (runs / "prepared").glob("tiny-*")
    return read_prepared(folder)


def all_records(runs):
    """All finished runs, those on inner folds too."""
    return [Record(path.parent) for path in sorted(runs.glob("toy/*/*/*/*/provenance.json"))]


@pytest.fixture
def plan(tiny_prepared):
    """The configurations that a method stands for on the first fold."""

    def plan(name, paper=PAPER, seed=0):
        fold = Fold(0, ("P1", "P2", "P3", "P4", "P5", "P6", "P7"), ("P8",), ("P0",))
        method = paper.method(name).on(tiny_prepared.structures)
        return configure(paper, method, PROFILE, tiny_prepared, "split", fold, seed)

    return plan


# Weights


def test_weights_of_the_prefix_arrive_and_others_stay_as_they_were(finished):
    records, _ = finished
    first, warm, renamed, both = (weights(records[name]) for name in ("first", "warm", "renamed", "both"))
    # A rate of 0 keeps what a stage starts from.
    start = training.build_network(PAPER.method("warm"), PROFILE, 0).state_dict()
    for name in ("body.weight", "body.bias"):
        assert torch.equal(warm[name], first[name])
        assert not torch.equal(warm[name], start[name])
    for name in ("score.weight", "score.bias"):
        assert torch.equal(warm[name], start[name])
        assert not torch.equal(warm[name], first[name])
    # In another network they have another name.
    assert set(renamed) == {"trunk.weight", "trunk.bias", "score.weight", "score.bias"}
    assert torch.equal(renamed["trunk.weight"], first["body.weight"])
    assert torch.equal(renamed["score.bias"], first["score.bias"])
    assert not torch.equal(renamed["score.weight"], first["score.weight"])
    # They come from the same fold where maps come from others too.
    assert torch.equal(both["score.weight"], first["score.weight"])
    assert both["body.weight"].shape[1] == 2


def test_a_method_without_stages_predicts_as_the_one_whose_weights_it_takes(finished):
    records, _ = finished
    for user, used in (("still", "first"), ("third", "second")):
        for array, other in zip(records[user].prediction("P0"), records[used].prediction("P0"), strict=True):
            assert np.array_equal(array, other)
    still = records["still"]
    assert len(np.unique(still.prediction("P0")[1])) > 3
    assert still.cases.dsc.equals(records["first"].cases.dsc)
    assert len(still.history) == 0
    assert still.provenance["status"] == "trained"
    assert set(records["third"].provenance["used"]) == {"first", "second"}


def test_what_is_used_is_of_the_same_seed_and_fold(tiny_root, tmp_path):
    records, lines = finish(tiny_root, tmp_path, "still", seeds=(1, 2), folds=(1, 2))
    # Each is trained once, whoever uses it.
    assert lines[-1].startswith("8 runs, 8 trained now")
    for record in records:
        (used,) = record.used["first"]
        assert used.config["fold"] == record.config["fold"]
        assert used.config["seed"] == record.config["seed"]
        assert torch.equal(weights(record)["body.weight"], weights(used)["body.weight"])
    assert not torch.equal(weights(records[0])["body.weight"], weights(records[2])["body.weight"])


@pytest.mark.parametrize(
    ("prefixes", "error", "message"),
    [
        ({"nose.": "body."}, ValueError, "toy/warm takes over 'nose.' of first, which has no such weights"),
        ({"body.": "nose."}, RuntimeError, "nose.weight"),
        ({"score.": "body."}, RuntimeError, "size mismatch for body.weight"),
    ],
)
def test_a_wrong_prefix_is_an_error(finished, tiny_root, prefixes, error, message):
    _, runs = finished
    paper = with_method(variant("warm", Use("first", weights=prefixes)))
    before = len(all_records(runs))
    with pytest.raises(InputError, match=f"^1 of 2 runs failed: toy/warm on .*: {error.__name__}: .*{message}"):
        finish(tiny_root, runs, "warm", paper=paper)
    assert len(all_records(runs)) == before


# Maps


def test_maps_of_other_structures_are_refused(plan):
    paper = with_method(replace(FIRST, structures=("GTVp", "GTVnd")))
    words = r"toy/second \(GTVp\) takes in maps of toy/first \(GTVp, GTVnd\): their structures have to be the same"
    with pytest.raises(InputError, match=words):
        plan("second", paper)
    assert plan("still", paper).used


def test_every_map_is_from_a_run_that_did_not_see_the_patient(finished):
    records, runs = finished
    record = records["second"]
    fold, data = record.config["fold"], load_data(record, prepared_in(runs))
    assert set(data.maps) == {"P0", "P1", "P2", "P3"}
    makers = {patient: Record(path.parents[1]) for patient, (path,) in data.maps.items()}
    assert makers["P0"].folder == records["first"].folder
    for patient, maker in makers.items():
        made = maker.config["fold"]
        assert patient in made["test"]
        assert patient not in made["train"] + made["validation"]
        if patient in fold["train"] + fold["validation"]:
            # Nobody who is tested here was seen by a run whose maps train or choose this one.
            assert not set(fold["test"]) & {*made["train"], *made["validation"], *made["test"]}
            assert "inner" in made
    used = [each.config["fold"]["test"] for each in record.used["first"]]
    assert sorted(used) == [["P0"], ["P1"], ["P2"], ["P3"]]


def test_maps_of_a_runs_own_training_patients(finished):
    records, runs = finished
    first, own = records["first"], records["own"]
    outer, again = own.used["first"]
    assert outer.folder == first.folder
    fold = first.config["fold"]
    assert again.config["fold"] == fold | {"test": ["P1", "P2", "P3"], "inner": "0"}
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(first).items())
    maps = load_data(own, prepared_in(runs)).maps
    makers = {patient: [path.parents[1] for path in paths] for patient, paths in maps.items()}
    assert makers == {"P0": [first.folder], **{patient: [again.folder] for patient in ("P1", "P2", "P3")}}


def test_a_run_that_only_makes_maps_is_not_published_as_a_test(finished, tmp_path):
    _, again = finished[0]["own"].used["first"]
    with pytest.raises(InputError, match="tests no patient of its own"):
        publish([again], tmp_path / "results")


def test_maps_of_tested_patients_can_be_the_mean_of_what_the_parts_make(finished):
    records, runs = finished
    record, prepared = records["averaged"], prepared_in(runs)
    first, *parts = record.used["first"]
    data = load_data(record, prepared)
    assert data.maps["P0"] == [part.folder / "predictions" / "P0.npz" for part in parts]
    assert first.folder not in {path.parents[1] for paths in data.maps.values() for path in paths}
    for patient in ("P1", "P2", "P3"):
        ((path,), there) = data.maps[patient], load_data(records["second"], prepared).maps[patient][0]
        assert np.array_equal(np.load(path)["probability"], np.load(there)["probability"])


def test_maps_are_the_probabilities_of_the_run_that_is_named(finished):
    records, runs = finished
    record = records["second"]
    data, network = load_data(record, prepared_in(runs)), load_network(record)
    with np.load(data.maps["P0"][0]) as arrays:
        probability = arrays["probability"].astype(np.float32) / 255
    assert np.array_equal(probability, records["first"].prediction("P0")[1])
    image, _ = data.batch(data.samples(["P0"]))
    assert image.shape[1] == network.body.in_channels == 2
    found = data.predict(network, "P0", activation="sigmoid", batch_size=2, device="cpu")
    tolerance = 0.51 / 255 if record.provenance["precision"] == "32-true" else 0.02
    np.testing.assert_allclose(found, record.prediction("P0")[1], atol=tolerance)


def test_parts_of_a_fold_test_each_patient_once():
    fold = Fold(4, ("A", "B", "C", "D", "E"), ("F", "G"), ("H",))
    for count in (2, 3, 7):
        parts = inner_folds(fold, count)
        assert len(parts) == count
        assert sorted(patient for part in parts for patient in part.test) == list("ABCDEFG")
        for part in parts:
            assert (part.number, part.validation) == (4, ())
            assert sorted(part.train + part.test) == list("ABCDEFG")
        assert max(len(part.test) for part in parts) - min(len(part.test) for part in parts) <= 1
        assert inner_folds(fold, count) == parts
    for count in (1, 8):
        with pytest.raises(InputError, match=f"fold 4 has 7 patients to split again, in {count} parts: give 2 to 7"):
            inner_folds(fold, count)


# Which runs


def test_each_run_comes_once_and_behind_what_it_uses(plan):
    wanted = [plan("fourth"), plan("third"), plan("second"), plan("first"), plan("first", seed=1), plan("second")]
    order = in_order(wanted)
    names = [configuration.sha256 for configuration in order]
    assert len(set(names)) == len(names)
    assert {configuration.sha256 for configuration in wanted} <= set(names)
    for configuration in order:
        for needed in configuration.needs:
            assert names.index(needed.sha256) < names.index(configuration.sha256)


def test_maps_of_a_method_that_uses_maps_itself(plan, tmp_path):
    """Nothing that serves another run is taken for a run of its own, however deep it lies."""
    for configuration in in_order([plan("fourth")]):
        fold = configuration.fold
        assert not set(fold["test"]) & {*fold["train"], *fold["validation"]}
        assert ("inner" in fold) == (fold["test"] != ["P0"])
        for needed in configuration.used.get("first", ())[1:] + configuration.used.get("second", ())[1:]:
            assert not set(needed.fold["test"]) & set(fold["test"])
            assert set(needed.fold["train"]) < {*fold["train"], *fold["validation"]}
    folders = [configuration.folder(tmp_path) for configuration in in_order([plan("fourth")])]
    assert len(set(folders)) == len(folders)
    names = {folder.name.split("_")[0] for folder in folders}
    parts = ("0", "1", "2", *(f"{half}.{third}" for half in (0, 1) for third in (0, 1, 2)))
    assert names == {"fold-00", *(f"fold-00-inner-{part}" for part in parts)}


def test_another_version_of_what_is_used_is_another_run(plan):
    longer = with_method(replace(FIRST, stages=stage(0.2)))
    for name in ("first", "second", "warm", "still", "third", "fourth"):
        assert plan(name).sha256 != plan(name, longer).sha256
        assert plan(name).sha256 == plan(name).sha256
    parts = with_method(variant("second", Use("first", maps=2)))
    assert plan("second").sha256 != plan("second", parts).sha256
    assert plan("third").sha256 != plan("third", parts).sha256
    assert plan("first").sha256 == plan("first", parts).sha256
    assert plan("warm").sha256 == plan("warm", parts).sha256


def test_a_used_method_is_that_for_the_structures_of_the_cohort(plan, tiny_prepared):
    anything = tuple(replace(method, structures=("BrainStem",), any_structures=True) for method in METHODS)
    paper = replace(PAPER, methods=anything)
    (first, *parts) = plan("second", paper).used["first"]
    assert {configuration.method.structures for configuration in (first, *parts)} == {tuple(tiny_prepared.structures)}


def test_what_builds_on_a_run_that_diverged_is_left_out(tiny_root, tmp_path):
    paper, lines = with_method(replace(FIRST, stages=stage(1e30))), []
    paper = replace(paper, methods=(*paper.methods, variant("alone")))
    with pytest.raises(InputError, match=r"^3 of \d runs were skipped, as a run that they build on diverged") as ended:
        finish(tiny_root, tmp_path, "third", "still", "alone", paper=paper, lines=lines)
    assert sorted(re.findall(r"toy/(\w+) on tiny", str(ended.value))) == ["second", "still", "third"]
    found = {record.config["method"]["name"]: record for record in find(tmp_path)}
    assert {name: record.provenance["status"] for name, record in found.items()} == {
        "first": "diverged", "alone": "trained"
    }  # fmt: skip
    skipped = "\n".join(line for line in lines if ": skipped, " in line)
    assert f"skipped, toy/still builds on {found['first'].folder}, whose training diverged" in skipped
    assert re.search("toy/third builds on .*, which is not finished", skipped)
    assert skipped.count("\n") == 2
    assert not list(tmp_path.glob("toy/still/*/*/*"))


def test_a_run_alone_needs_what_it_uses(plan, tiny_prepared, tmp_path):
    asked = plan("still")
    (first,) = asked.needs
    with pytest.raises(Unusable, match=f"toy/still builds on {first.folder(tmp_path)}, which is not finished"):
        run(asked, tiny_prepared, tmp_path, print, Hardware("cpu"))
    assert list(tmp_path.iterdir()) == []


def test_runs_that_build_on_others_are_scored_again_by_newer_code(finished, tiny_root, tmp_path, monkeypatch):
    before, runs = finished
    shutil.copytree(runs, tmp_path / "runs")
    for record in all_records(tmp_path / "runs"):
        write_json(record.folder / "provenance.json", record.provenance | {"scoring_sha256": "older"})
        (record.folder / "cases.csv").write_text("scored by older code\n")
    monkeypatch.setattr(training, "train", None)
    records, lines = finish(tiny_root, tmp_path / "runs", "second", "third", "both", "still")
    assert lines[-1].startswith("8 runs, 0 trained now, 8 read back")
    for record in records:
        assert record.cases.equals(before[record.config["method"]["name"]].cases)
        assert record.provenance["scoring_sha256"] != "older"

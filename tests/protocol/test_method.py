import dataclasses
import json
from dataclasses import replace
from fractions import Fraction

import pytest

from npcrepro.base.errors import InputError, pick
from npcrepro.base.files import as_data
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol.method import Component, Method, Stage, Use
from npcrepro.protocol.settings import Settings

METHOD = PAPER.method("stepwise")


def test_a_component_is_called_with_its_options_and_more():
    half = Component("fractions:Fraction", {"numerator": 1, "denominator": 3})
    assert half.build(denominator=2) == Fraction(1, 2)
    assert Component("builtins:dict").build([("a", 1)], b=2) == {"a": 1, "b": 2}


def test_settings_are_the_parameters_of_every_notebook():
    names = [f.name for f in dataclasses.fields(Settings)]
    assert names == ["cohort", "profile", "methods", "folds", "seeds", "device", "runs", "modalities", "private"]
    assert Settings() == Settings("phantom", "quick", (), (), (0,), "auto", "runs", (), False)


def test_lists_from_a_notebook_become_tuples():
    settings = Settings(methods=["stepwise"], folds=[0, 1], seeds=[2])
    assert (settings.methods, settings.folds, settings.seeds) == (("stepwise",), (0, 1), (2,))
    assert settings == Settings(methods=("stepwise",), folds=(0, 1), seeds=(2,))


def test_a_tilde_is_the_home_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    settings = Settings(cohort="~/mine", runs="~/runs")
    assert (settings.cohort, settings.runs) == ("/home/me/mine", "/home/me/runs")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"methods": "stepwise"}, r"parameter methods='stepwise' has to be a list of str values"),
        ({"methods": [1]}, r"parameter methods=\[1\] has to be a list of str values"),
        ({"seeds": ["0"]}, r"parameter seeds=\['0'\] has to be a list of int values"),
        ({"folds": [0.5]}, r"parameter folds=\[0.5\] has to be a list of int values"),
        ({"seeds": 0}, r"parameter seeds=0 has to be a list of int values"),
        ({"folds": None}, r"parameter folds=None has to be a list of int values"),
        ({"seeds": []}, r"names no seed"),
        ({"cohort": 2024}, r"parameter cohort=2024 is not the path of a folder: .* needs ./ before it"),
        ({"private": "yes"}, r"parameter private=.yes. is neither true nor false"),
        ({"device": "gpu"}, r"unknown device 'gpu'; did you mean 'cpu'\?"),
    ],
)
def test_settings_that_cannot_be_used(fields, words):
    with pytest.raises(InputError, match=words):
        Settings(**fields)


def test_the_variables_of_a_notebook():
    variables = {
        "__name__": "__main__", "_i1": "profile = 'smoke'", "In": ["", "x"], "Out": {}, "json": json, "exit": exit,
        "profile": "smoke", "seeds": [0, 1], "methods": [],
    }  # fmt: skip
    assert Settings.from_notebook(variables) == Settings(profile="smoke", seeds=(0, 1))


@pytest.mark.parametrize(("slip", "meant"), [("profil", "profile"), ("seed", "seeds"), ("cohrot", "cohort")])
def test_a_misspelt_parameter_names_the_near_miss(slip, meant):
    with pytest.raises(InputError, match=f"unknown parameter '{slip}'; did you mean '{meant}'\\?"):
        Settings.from_notebook({"profile": "smoke", slip: "x"})


def test_pick():
    assert pick({"a": 1}, "a", "thing") == 1
    with pytest.raises(InputError, match=r"^unknown thing 'stepwize'; did you mean 'stepwise'\? choices: stepwise, z$"):
        pick({"stepwise": 1, "z": 2}, "stepwize", "thing")
    with pytest.raises(InputError, match=r"^unknown thing 'l04'; did you mean 'L04'\?"):
        pick({"X04": 1, "L04": 2}, "l04", "thing")
    with pytest.raises(InputError, match=r"^unknown thing 'xyz'; choices: stepwise$"):
        pick({"stepwise": 1}, "xyz", "thing")


def test_methods_and_profiles_are_found_by_name():
    assert PAPER.method("unfused") is PAPER.method("li2018/unfused")
    assert PAPER.method("unfused").full_name == "li2018/unfused"
    assert PAPER.profile("smoke").name == "smoke"
    with pytest.raises(InputError, match="unknown method of li2018 'stepwize'; did you mean 'stepwise'"):
        PAPER.method("stepwize")
    with pytest.raises(InputError, match="unknown profile 'smok'; did you mean 'smoke'"):
        PAPER.profile("smok")


def test_as_data_is_plain():
    stage = Stage("one", Component("a:b", {"c": (1, 2)}), Component("d:e"), trainable=("conv1",))
    data = as_data({"stage": stage, 3: [None, True, 0.5]})
    assert data["stage"]["loss"] == {"target": "a:b", "options": {"c": [1, 2]}}
    assert data["stage"]["trainable"] == ["conv1"]
    assert data["3"] == [None, True, 0.5]
    assert json.loads(json.dumps(data)) == data


@pytest.mark.parametrize("method", PAPER.methods, ids=lambda method: method.name)
def test_a_method_comes_back_from_its_own_json(method):
    data = json.loads(json.dumps(as_data(method)))
    assert as_data(Method.from_data(data)) == data


def test_the_targets_of_a_method_are_what_it_is_made_of():
    assert set(PAPER.method("unaugmented").targets) == {
        "npcrepro.papers.li2018.network:Li2018Network",
        "npcrepro.sampling.slices:SliceData",
        "npcrepro.losses.cross_entropy:CrossEntropyLoss",
        "torch.optim:SGD",
    }


def test_shares_of_the_stages_add_up_to_one():
    stages = tuple(replace(stage, share=0.4) for stage in METHOD.stages)
    with pytest.raises(InputError, match=r"li2018/stepwise: the shares of its stages add up to 1.2, not to 1"):
        replace(METHOD, stages=stages)


def test_a_method_takes_in_maps_of_one_other():
    one, other = Use("unfused", maps=2), Use("euclidean", maps=3)
    assert replace(METHOD, uses=(one, replace(other, maps=0))).in_channels == 2
    with pytest.raises(InputError, match="li2018/stepwise uses maps of unfused and euclidean"):
        replace(METHOD, uses=(one, other))
    with pytest.raises(InputError, match="uses the same method twice"):
        replace(METHOD, uses=(one, one))


def test_images_are_not_mirrored_where_structures_have_a_side():
    flipped = Component("npcrepro.sampling.augment:Affine", {"flip": 0.5})
    replace(METHOD, augmentation=flipped)
    with pytest.raises(InputError, match="mirrored images would exchange Parotid_L with that of the other side"):
        replace(METHOD, structures=("Parotid_L", "Parotid_R"), augmentation=flipped)


def test_a_method_for_any_structures_takes_those_of_the_cohort():
    organs = replace(METHOD, structures=("BrainStem", "Eye_L"), any_structures=True)
    assert organs.on(["Eye_L", "BrainStem", "GTVp"]) is organs
    assert organs.on(["BrainStem", "Mandible"]).structures == ("BrainStem", "Mandible")
    assert METHOD.on(["BrainStem", "Mandible"]) is METHOD


def test_the_network_is_built_with_the_channels_of_the_method():
    echo = replace(METHOD, network=Component("builtins:dict"), structures=("GTVp", "GTVnd"))
    assert echo.build(0.5) == {"in_channels": 1, "out_channels": 2, "width": 0.5}
    assert replace(echo, activation="softmax").build(1)["out_channels"] == 3
    assert replace(echo, network=Component("builtins:dict", {"in_channels": 2})).build(1)["in_channels"] == 2

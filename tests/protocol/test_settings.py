import dataclasses
import json

import pytest

from npcrepro.base.errors import InputError
from npcrepro.protocol.settings import Settings


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
        ({"seeds": ["0"]}, r"parameter seeds=\['0'\] has to be a list of int values"),
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


def test_a_misspelt_parameter_names_the_near_miss():
    with pytest.raises(InputError, match=r"unknown parameter 'seed'; did you mean 'seeds'\?"):
        Settings.from_notebook({"profile": "smoke", "seed": 1})

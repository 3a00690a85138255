import json
from pathlib import Path

import pytest

from npcrepro.base.errors import InputError
from npcrepro.protocol.settings import Settings


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"methods": "stepwise"}, r"parameter methods='stepwise' has to be a list of str values"),
        ({"seeds": []}, r"names no seed"),
        ({"seeds": [True]}, r"parameter seeds=.True. has to be a list of int values"),
        ({"cohort": 2024}, r"parameter cohort=2024 is not the path of a folder: .* needs ./ before it"),
        ({"device": ["cpu"]}, r"parameter device=\['cpu'\] has to be one name"),
        ({"private": "yes"}, r"parameter private=.yes. is neither true nor false"),
    ],
)
def test_settings_that_cannot_be_used(fields, words):
    with pytest.raises(InputError, match=words):
        Settings(**fields)


def test_what_is_given_twice_is_taken_once():
    """Or the plan would hold a run twice, and a record its rows."""
    settings = Settings(seeds=(1, 0, 1), folds=[2, 2], methods=["unet", "unet"])
    assert (settings.seeds, settings.folds, settings.methods) == ((1, 0), (2,), ("unet",))


def test_the_variables_of_a_notebook():
    variables = {"__name__": "__main__", "_i1": "profile = 'smoke'", "In": ["", "x"], "Out": {}, "json": json}
    chosen = {"exit": exit, "profile": "smoke", "seeds": [0, 1], "methods": []}
    assert Settings.from_notebook(variables | chosen) == Settings(profile="smoke", seeds=(0, 1))
    # No parameter is left out for its type: the default would run in its place.
    assert Settings.from_notebook({"cohort": Path("mine")}).cohort == "mine"
    with pytest.raises(InputError, match="seeds=range"):
        Settings.from_notebook({"seeds": range(3)})
    with pytest.raises(InputError, match=r"unknown parameter 'seed'; did you mean 'seeds'\?"):
        Settings.from_notebook({"profile": "smoke", "seed": 1})

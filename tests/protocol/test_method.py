from dataclasses import replace

import pytest

from npcrepro.base.errors import InputError
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol import registry
from npcrepro.protocol.method import Component, Use

METHOD = PAPER.method("stepwise")


def test_shares_of_the_stages_add_up_to_one_and_maps_come_from_one_other_method():
    stages = tuple(replace(stage, share=0.4) for stage in METHOD.stages)
    with pytest.raises(InputError, match=r"li2018/stepwise: the shares of its stages add up to 1.2, not to 1"):
        replace(METHOD, stages=stages)
    with pytest.raises(InputError, match=r"channels='T1' is one text; a comma is missing: \('T1',\)"):
        replace(METHOD, channels=("T1"))
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


def test_structures_of_the_cohort_and_the_channels_with_which_the_network_is_built():
    organs = replace(METHOD, structures=("BrainStem", "Eye_L"), any_structures=True)
    assert organs.on(["Eye_L", "BrainStem", "GTVp"]) is organs
    assert organs.on(["BrainStem", "Mandible"]).structures == ("BrainStem", "Mandible")
    assert METHOD.on(["BrainStem", "Mandible"]) is METHOD
    echo = replace(METHOD, network=Component("builtins:dict"), structures=("GTVp", "GTVnd"))
    assert echo.build(0.5) == {"in_channels": 1, "out_channels": 2, "width": 0.5}
    assert replace(echo, activation="softmax").build(1)["out_channels"] == 3
    assert replace(echo, network=Component("builtins:dict", {"in_channels": 2})).build(1)["in_channels"] == 2


def test_smaller_profiles_train_a_shortened_method_and_paper_trains_the_printed_one():
    paper = registry.load("guo2021")
    short = replace(paper.method("cscn"), title="short")
    adapted = replace(paper, shortened={"cscn": short})
    assert adapted.at("bench").method("cscn") is short
    assert adapted.at("bench").method("acdnet") is paper.method("acdnet")
    assert adapted.at("paper").method("cscn") is paper.method("cscn")

"""Guo 2021: what its protocol says."""

from dataclasses import replace

import pytest
import torch

from npcrepro.base.files import as_data
from npcrepro.cohorts.folds import Fold
from npcrepro.findings.claims.ledger import claims
from npcrepro.papers.guo2021.protocol import COMPARED
from npcrepro.protocol import registry
from npcrepro.runs.plan import configure
from npcrepro.sampling.blocks import FUSIONS

GUO, PRINTED = registry.load("guo2021"), registry.reported("guo2021")
SHORT = GUO.at("bench")
CSCN = GUO.methods[0]
OTHER_FUSIONS = ("cascade-unfused", "fusion-product", "fusion-maximum")


def differences(name, other, paper=GUO):
    """Names of what differs between two methods, besides their names."""
    one, two = (as_data(paper.method(method)) for method in (name, other))
    return {part for part in one if one[part] != two[part]} - {"name", "title", "summary"}


def test_the_rows_of_table_1_are_methods_and_so_is_the_one_that_it_lacks():
    printed = {row["model"] for row in PRINTED["tables"]["table1"]}
    assert {GUO.method(name).title for name in ("cscn", "cnn", "acdnet", "deeplab", "vnet")} == printed
    for profile in GUO.profiles:
        assert set(profile.methods) >= {"cscn", "cnn", "acdnet", "deeplab", "vnet", "bunet"}


CHANGED = {
    "network": {
        *("map-only", "acdnet-pyramids-as-layers", "acdnet-no-rates", "acdnet-1x1-branch", "acdnet-rate-0"),
        *("acdnet-blocks-in-sequence", "acdnet-blocks-as-layers", "acdnet-large-rates", "bunet-wide"),
        *("deeplab-stride-4", "vnet-large-blocks"),
    },
    "data": {
        *(
            "bunet-three-views",
            "bunet-boundary-weight",
            "bunet-exponential-weight",
            "bunet-unweighted",
            "bunet-large-blocks",
        )
    },
    "uses": {"cscn-four-parts", "cscn-in-sample"},
    "network uses data": {"joint"},
    "stages uses": {"cscn-averaged"},
    "data stages uses": set(OTHER_FUSIONS),
    "data uses": {"three-views"},
}


@pytest.mark.parametrize("parts", CHANGED)
def test_each_variant_changes_one_thing(parts):
    for name in CHANGED[parts]:
        for paper in (GUO, SHORT):
            assert differences(name, GUO.comparisons.get(name, "cscn"), paper) == set(parts.split()), name


def test_definitions_say_that_blocks_are_dense_and_cohorts_of_another_tumour_stay_whole():
    """Section 3.2, said in each method, so that a record of blocks in sequence is known as one."""
    built = {m.name: m.network for m in SHORT.methods if m.network.target.endswith((":ACDNet", ":JointCascade"))}
    connections = {name: network.options["connections"] for name, network in built.items()}
    assert connections.pop("acdnet-blocks-in-sequence") == "sequence"
    assert set(connections.values()) == {"dense"}
    assert {"cscn", "acdnet", "map-only", "joint", *OTHER_FUSIONS} <= set(connections)
    blocks = {method.name: method for method in SHORT.methods if method.data.target.endswith(":BlockData")}
    assert {"cscn", "bunet", "vnet"} <= set(blocks)
    assert {method.data.options["cut"] for method in blocks.values()} == {"own structures"}


def test_a_control_has_the_updates_of_both_networks_of_the_cascade():
    assert differences("acdnet-long", "acdnet", SHORT) == differences("acdnet-long", "acdnet") == {"budget"}
    assert GUO.method("acdnet-long").budget == GUO.method("bunet").budget + CSCN.budget
    assert differences("bunet-long", "bunet", SHORT) == differences("bunet-long", "bunet") == {"budget"}
    assert "acdnet-long" in COMPARED
    assert all(set(COMPARED) <= set(GUO.profile(name).methods) for name in ("bench", "paper"))


def test_schedule_and_folds_are_as_printed():
    text, patients = PRINTED["text"], PRINTED["paper"]["patients"]
    profile = GUO.profile("paper")
    assert profile.updates == text["iterations"]
    assert profile.matrix == tuple(text["block"][::-1])
    for stage in (stage for method in GUO.methods if method.name != "nnunet-3d" for stage in method.stages):
        assert (stage.monitor, stage.keep_best) == ("validation_dsc", True)
        assert stage.optimiser.options == {"lr": text["learning_rate"]}
        assert stage.decay == text["decay"]
        # 99 falls part the training into 100 pieces of one rate.
        assert profile.updates / (stage.decays + 1) == text["decay_every_iterations"]
    assert patients / GUO.split["folds"] == text["split"]["test"]
    validation = GUO.split["validation"] * (patients - text["split"]["test"])
    assert validation == pytest.approx(text["split"]["validation"])


def test_smaller_profiles_end_at_a_tenth_of_the_rate_and_differ_in_that_alone():
    adam = {m.name for m in GUO.methods if m.stages and m.stages[0].optimiser.target == "torch.optim:Adam"}
    assert adam - set(GUO.shortened) == {"bunet-printed-decay"}
    for method in (SHORT.method(name) for name in adam):
        printed = GUO.method(method.name)
        for short, stage in zip(method.stages, printed.stages, strict=True):
            assert replace(short, decays=stage.decays) == stage
            if method.name == "bunet-printed-decay":
                assert short.decays == 99
            else:
                assert short.decay**short.decays == pytest.approx(0.1, abs=0.01)
        assert replace(method, stages=printed.stages) == printed
    assert differences("bunet-printed-decay", "bunet", SHORT) == {"stages"}
    assert {method.channels for method in registry.load("guo2021", ["T1"]).at("bench").methods} == {("T1",)}


@pytest.mark.parametrize(("key", "other"), [("guo2021-24", "ACDNet"), ("guo2021-25", "Deeplab"), ("guo2021-26", "CNN")])
def test_printed_effects_are_differences_of_the_table(key, other):
    rows = {row["model"]: row for row in PRINTED["tables"]["table1"]}
    (claim,) = [claim for claim in claims("guo2021") if claim.key == key]
    for dsc, distance in zip(claim.parts[::2], claim.parts[1::2], strict=True):
        assert dsc.reported == pytest.approx(rows["CSCN"]["dsc"] - rows[other]["dsc"])
        assert distance.reported == pytest.approx(rows["CSCN"]["assd_mm"] - rows[other]["assd_mm"])
        titles = [GUO.method(arm.method).title for arm in dsc.arms]
        assert titles[0] == "CSCN"
        assert titles[1].startswith(other)  # of DeepLab there are two


def test_the_shift_of_the_maps_can_be_told_from_the_cascade(tiny_prepared):
    """With less of it, with none in the patients, and with none in the networks."""
    fold = Fold(0, tuple("ABCDEFG"), ("H",), ("T",))

    def makers(name):
        asked = configure(SHORT, SHORT.method(name), SHORT.profile("bench"), tiny_prepared, "split", fold, 0)
        return [(len(run.fold["train"]), "".join(run.fold["test"])) for run in asked.used["bunet"]]

    everybody, everyone = (7, "T"), "ABCDEFGH"
    for name, parts, trained in (("cscn", 2, 4), ("cscn-four-parts", 4, 6)):
        first, *others = makers(name)
        assert first == everybody
        assert [count for count, _ in others] == [trained] * parts
        assert "".join(sorted("".join(test for _, test in others))) == everyone
    assert makers("cscn-in-sample") == [everybody, (7, everyone)]
    assert makers("cscn-averaged") == [everybody, *((4, f"{test}T") for _, test in makers("cscn")[1:])]


def test_the_product_of_the_odds_is_no_choice_that_could_move_a_mask():
    """On the grid of the blocks it marks what the mean marks; voxels of a case lie in between and differ a little."""
    coarse, fine = torch.rand(2, 10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, product = (FUSIONS[name](coarse, fine) for name in ("mean", "product"))
    assert torch.equal(mean > 0.5, product > 0.5)
    assert not torch.allclose(mean, product)
    contrasts = [one for group in PRINTED["lessons"].values() if isinstance(group, list) for one in group]
    assert contrasts
    assert not any("fusion-product" in (one["first"], one["second"]) for one in contrasts)

"""What holds for every paper and every method."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from network_cases import on_meta

from npcrepro.base.errors import InputError
from npcrepro.base.files import as_data
from npcrepro.models.outputs import probabilities
from npcrepro.protocol import registry
from npcrepro.protocol.method import Method

METHODS = [(key, method.name) for key in registry.KEYS for method in registry.load(key).methods]


@pytest.fixture(params=METHODS, ids="/".join)
def method(request):
    key, name = request.param
    return registry.load(key).method(name)


def test_other_modalities_have_to_be_as_many(monkeypatch):
    with pytest.raises(InputError, match=r"li2018 takes \S+, so modalities=\['T1', 'T2'\] has to be one name$"):
        registry.load("li2018", ["T1", "T2"])
    paper = registry.load("li2018")
    two = replace(paper, methods=tuple(replace(method, channels=("CT", "PET")) for method in paper.methods))
    monkeypatch.setattr("npcrepro.papers.li2018.protocol.PAPER", two)
    with pytest.raises(InputError, match=r"takes CT and PET, so modalities=\['T1'\] has to be 2 names$"):
        registry.load("li2018", ["T1"])
    assert registry.load("li2018", ["T1", "T2"]).methods[0].channels == ("T1", "T2")


# None may get lost; a new paper need not stand here.
GAPS = {"li2018": 49, "luo2020": 47, "guo2021": 54, "chen2020": 68, "xue2020": 44}


@pytest.mark.parametrize("key", registry.KEYS)
def test_every_paper_has_its_profiles_comparisons_and_gaps(key):
    paper, reported = registry.load(key), registry.reported(key)
    assert paper.key == reported["paper"]["key"] == key
    assert [profile.name for profile in paper.profiles] == ["smoke", "quick", "bench", "long", "paper"]
    assert paper.profile("paper").width == 1
    names, titles = ([getattr(method, word) for method in paper.methods] for word in ("name", "title"))
    assert len(set(names)) == len(set(titles)) == len(names)
    named = [*paper.comparisons, *paper.comparisons.values(), *paper.added]
    assert {*named, *(name for profile in paper.profiles for name in profile.methods)} <= set(names)
    assert [gap["id"] for gap in reported["gaps"]] == list(range(1, GAPS.get(key, len(reported["gaps"])) + 1))
    assert all(gap["gap"].strip() and gap["choice"].strip() for gap in reported["gaps"])


def test_every_method_builds_and_takes_its_loss_at_smoke(method):
    profile = registry.load(method.paper).profile("smoke")
    torch.manual_seed(0)
    network = method.build(profile.width)
    maps = len(method.structures) if any(use.maps for use in method.uses) else 0
    size = method.input_shape(profile)[1:]
    image = torch.randn(2, method.network.options.get("in_channels", len(method.channels) + maps), *size)
    label = (torch.rand(2, len(method.structures), *size) > 0.5).to(torch.uint8)
    if method.augmentation:
        image, label = method.augmentation.build()(image, label, torch.Generator().manual_seed(0))
    for stage in method.stages:
        losses = [
            stage.loss.build()(same(image, **stage.forward), label) if stage.loss else same(image, label)
            for same in (network, deepcopy(network))
        ]
        assert losses[0].shape == ()
        assert losses[0].isfinite()
        # Dropout, or anything else that draws without a generator, would make runs that nobody can repeat.
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)
        moving = [p for n, p in network.named_parameters() if n.startswith(stage.trainable or "")]
        assert stage.optimiser.build(moving).param_groups[0]["lr"] > 0
    scores = network.eval()(image, **(method.stages[-1].forward if method.stages else {}))
    last = scores[-1] if isinstance(scores, tuple) else scores
    assert probabilities(last, method.activation).shape == label.shape


def test_a_method_is_plain_data_and_every_layer_is_trained_in_some_stage_and_has_weights_of_its_own(method):
    data = as_data(method)
    assert json.loads(json.dumps(data)) == data == as_data(Method.from_data(data))
    assert len({stage.name for stage in method.stages}) == len(method.stages)
    network = on_meta(method.build, 0.25)
    names = {name for name, _ in network.named_parameters()}
    layers = {name.split(".")[0] for name in names}
    assert {layer for stage in method.stages for layer in stage.trainable} <= layers
    trained = {n for n in names for s in method.stages if not s.trainable or n.split(".")[0] in s.trainable}
    taken_over = {n for n in names for use in method.uses for here in use.weights.values() if n.startswith(here)}
    assert trained | taken_over == names
    weights = network.state_dict(keep_vars=True).values()
    assert len({id(weight) for weight in weights}) == len(weights)


def test_no_two_methods_are_the_same():
    """In the smaller profiles; in `paper` a variant that is printed is the method that it is a variant of."""
    methods = [registry.load(key).at("bench").method(name) for key, name in METHODS]
    seen = [json.dumps(as_data(replace(method, name="", title="", summary=""))) for method in methods]
    assert len(set(seen)) == len(seen)


def test_a_profile_with_patience_ends_stages_that_keep_their_best_check():
    paper = registry.load("xue2020").at("long")
    assert [paper.method(name).stages[0].patience for name in ("deeplabv3plus", "nnunet-2d")] == [15, None]
    assert registry.load("xue2020").at("bench").method("deeplabv3plus").stages[0].patience is None
    # The paper has a patience of its own.
    assert registry.load("chen2020").at("long").method("mmfnet").stages[0].patience == 10


@pytest.mark.parametrize("key", registry.KEYS)
def test_short_trainings_of_the_reference_draw_a_third_of_its_augmentation(key):
    for profile, often in (("bench", 0.33), ("paper", None)):
        for name in {"nnunet-2d", "nnunet-3d"} & {method.name for method in registry.load(key).methods}:
            assert registry.load(key).at(profile).method(name).augmentation.options.get("often") == often

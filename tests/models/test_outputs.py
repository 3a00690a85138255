import numpy as np
import pytest
import torch
import torch.nn.functional as F
from core_cases import case_arrays

from npcrepro.base.errors import InputError
from npcrepro.models.outputs import decide, probabilities
from npcrepro.sampling.slices import SliceData


def predict(prepared, network, matrix, batch_size):
    data = SliceData(prepared, matrix, ("CET1",), ("GTVp",), "mean")
    return data.predict(network, "P0", batch_size=batch_size, activation="sigmoid", device="cpu")


def test_probabilities_of_all_slices_on_the_grid_of_the_case(tiny_prepared):
    batches = []

    def network(image):
        batches.append(len(image))
        return image

    found = predict(tiny_prepared, network, (16, 16), 3)
    image = torch.from_numpy(case_arrays("P0", 0).image[0].astype(np.float32))
    image -= image.amin(dim=(1, 2), keepdim=True)
    expected = (image / image.mean(dim=(1, 2), keepdim=True)).sigmoid()
    torch.testing.assert_close(found, expected[None])
    assert batches == [3, 1]


def test_probabilities_and_not_scores_are_brought_to_the_grid_of_the_case(tiny_prepared):
    def one_saturated(image):
        scores = torch.full_like(image, -3.0)
        scores[..., 4, 4] = 1e6
        return scores

    found = predict(tiny_prepared, one_saturated, (8, 8), 4)
    expected = F.interpolate(one_saturated(torch.zeros(1, 1, 8, 8)).sigmoid(), size=(16, 16), mode="bilinear")
    torch.testing.assert_close(found, expected.expand(1, 4, -1, -1))
    # Scores brought to the grid first would say 1 in 16 voxels.
    assert (found[0, 0] > 0.5).sum() == 4


def test_the_most_probable_structure_wins_where_it_reaches_the_threshold():
    first = [0.9, 0.6, 0.2, 0.6, torch.nan, torch.nan]
    second = [0.1, 0.8, 0.3, 0.6, 0.7, torch.nan]
    # A tie goes to the first.
    assert decide(torch.tensor([[first, second]]), 0.5).flatten().tolist() == [1, 2, 0, 1, 2, 0]


def test_softmax_decides_against_background_as_argmax_does():
    logits = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    probability = probabilities(logits, "softmax")
    assert probability.shape == (2, 3, 5, 5)
    assert torch.equal(decide(probability, None), logits.argmax(dim=1))


def test_activations_on_literal_logits():
    logits = torch.tensor([[[0.0, 2.0, -1.0]]])
    assert probabilities(logits, "identity").flatten().tolist() == [0, 1, 0]
    assert probabilities(logits, "sigmoid").flatten().tolist() == pytest.approx([0.5, 0.880797, 0.268941], abs=1e-6)
    with pytest.raises(InputError, match="did you mean 'sigmoid'"):
        probabilities(logits, "sigmoidal")

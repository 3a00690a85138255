import pytest
import torch

from npcrepro.base.errors import InputError
from npcrepro.losses.targets import reduce_label

LABEL = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.uint8)[None, None]


def test_reduction_of_a_literal_label_and_of_a_volume_with_another_factor_for_each_axis():
    for how, expected in (("area", [[1.0, 0.25], [0.25, 0.0]]), ("nearest", [[1.0, 0.0], [0.0, 0.0]])):
        reduced = reduce_label(LABEL, (2, 2), how)
        assert reduced.dtype == torch.float32
        assert reduced[0, 0].tolist() == expected
        assert torch.equal(reduce_label(LABEL, (4, 4), how), LABEL.float())
    label = torch.arange(8.0).reshape(1, 1, 2, 2, 2) / 8
    assert reduce_label(label, (2, 1, 2), "area").flatten().tolist() == [1 / 8, 2 / 8, 5 / 8, 6 / 8]
    assert reduce_label(label, (1, 2, 2), "area").flatten().tolist() == [2 / 8, 3 / 8, 4 / 8, 5 / 8]


def test_what_cannot_be_reduced():
    for size in ((3, 2), (8, 8)):
        with pytest.raises(ValueError, match="the sizes do not divide"):
            reduce_label(LABEL, size)
    with pytest.raises(InputError, match="did you mean 'nearest'"):
        reduce_label(LABEL, (2, 2), "neares")

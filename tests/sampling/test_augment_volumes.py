from dataclasses import replace

import pytest
import torch

from npcrepro.base.errors import InputError
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.papers.luo2020.protocol import TWO_STAGE
from npcrepro.protocol.method import Component
from npcrepro.sampling.augment import Affine, VolumeAffine

STILL = {"degrees": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def counting(*shape):
    """1, 2, 3, ... in a tensor of this shape."""
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)


def pair(batch=2, channels=3, depth=4, height=10, width=10):
    image = torch.rand(batch, channels, depth, height, width, generator=generator())
    label = torch.zeros(batch, 2, depth, height, width, dtype=torch.uint8)
    label[:, 0, 1:3, 2:6, 3:9] = 1
    return image, label


def test_nothing_drawn_changes_nothing():
    image, label = pair()
    moved, label_moved = VolumeAffine(**STILL)(image, label, generator())
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=0)
    assert torch.equal(label_moved, label)
    assert label_moved.dtype == torch.uint8


@pytest.mark.parametrize(("axis", "dimension"), [("x", 4), ("y", 3)])
def test_a_mirrored_volume(axis, dimension):
    image, label = counting(1, 2, 3, 4, 6), (counting(1, 1, 3, 4, 6) % 5 == 0).to(torch.uint8)
    moved, label_moved = VolumeAffine(**STILL, flip=1.0, flip_axis=axis)(image, label, generator())
    torch.testing.assert_close(moved, image.flip(dimension), atol=1e-3, rtol=0)
    assert torch.equal(label_moved, label.flip(dimension))


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_quarter_turn_is_that_of_every_slice_of_every_series(axis):
    image, label = counting(1, 2, 3, 6, 6), (counting(1, 1, 3, 6, 6) % 5 == 0).to(torch.uint8)
    directions = set()
    for seed in range(6):
        drawn = 2 * torch.rand((5, 1), generator=generator(seed))[0].item() - 1
        turn = VolumeAffine(degrees=90.0 / abs(drawn), flip_axis=axis)
        moved, label_moved = turn(image, label, generator(seed))
        quarters = 1 if torch.allclose(moved, torch.rot90(image, 1, (3, 4)), atol=1e-2) else -1
        torch.testing.assert_close(moved, torch.rot90(image, quarters, (3, 4)), atol=1e-2, rtol=0)
        assert torch.equal(label_moved, torch.rot90(label, quarters, (3, 4)))
        directions.add(quarters)
    assert directions == {1, -1}


def test_every_slice_moves_as_a_slice_alone_would():
    image, label = pair()
    image[..., 0, 0] = 0.0  # the darkest value of every slice
    options = {"degrees": 20.0, "zoom": (0.8, 1.2), "shift": 0.2, "flip": 0.5}
    moved, label_moved = VolumeAffine(**options)(image, label, generator(3))
    alone = Affine(**options)
    for channel in range(3):
        for z in range(4):
            slices, masks = alone(image[:, channel, z, None], label[:, :, z], generator(3))
            torch.testing.assert_close(slices[:, 0], moved[:, channel, z])
            assert torch.equal(masks, label_moved[:, :, z])


def test_samples_of_a_batch_move_each_in_its_own_way():
    image, label = pair(1)
    image, label = image.repeat(8, 1, 1, 1, 1), label.repeat(8, 1, 1, 1, 1)
    moved, _ = VolumeAffine(degrees=20.0)(image, label, generator())
    assert len({round(one.sum().item(), 4) for one in moved}) == 8
    mirrored, _ = VolumeAffine(**STILL, flip=0.5)(image, label, generator())
    turned = [torch.allclose(one, image[0].flip(3), atol=1e-4) for one in mirrored]
    assert 0 < sum(turned) < 8


def test_what_comes_in_has_the_darkest_value_of_its_series():
    image, label = pair()
    image[:, 0, 0, 0, 0], image[:, 1, 2, 3, 4] = -2.0, -3.0
    moved, _ = VolumeAffine(degrees=45.0)(image, label, generator(1))
    assert moved[:, 0, :, 0, 0].unique().tolist() == pytest.approx([-2.0])
    assert moved[:, 1, :, 0, 0].unique().tolist() == pytest.approx([-3.0])
    torch.testing.assert_close(moved[0, 2, :, 0, 0], image[0, 2].min().expand(4))


def test_a_structure_that_was_not_contoured_stays_unknown():
    image, label = pair()
    label[1, 1] = NOT_CONTOURED
    _, moved = VolumeAffine(degrees=45.0, shift=0.3)(image, label, generator())
    assert (moved[1, 1] == NOT_CONTOURED).all()
    assert not (moved[0] == NOT_CONTOURED).any()
    assert not (moved[1, 0] == NOT_CONTOURED).any()


def test_weights_move_with_the_label():
    image, label = pair()
    weight = label * 2.5 + 0.5
    moved, label_moved, weight_moved = VolumeAffine(degrees=30.0, flip=1.0)(image, label, generator(), weight)
    assert weight_moved.dtype == torch.float32
    assert weight_moved.shape == weight.shape
    assert weight_moved.max().item() == pytest.approx(3.0)
    assert weight_moved.min().item() == 0.0  # in the corners
    inner = slice(2, 8)  # no corner reaches here
    centre, weight_centre = label_moved[..., inner, inner], weight_moved[..., inner, inner]
    # Both move by the same share of a voxel, and half of a voxel decides the label.
    assert torch.equal(weight_centre >= 1.75 - 1e-4, centre == 1)
    alone, label_alone = VolumeAffine(degrees=30.0, flip=1.0)(image, label, generator())
    assert torch.equal(alone, moved)
    assert torch.equal(label_alone, label_moved)


def test_a_misspelt_axis_and_flips_of_structures_with_sides_are_refused():
    with pytest.raises(InputError, match="unknown axis of a flip 'z'"):
        VolumeAffine(flip_axis="z")
    # Whoever mirrors has to say so in the options, where a method looks for it.
    assert VolumeAffine().slices.flip == 0
    with pytest.raises(InputError, match="mirrored images would exchange"):
        replace(TWO_STAGE, augmentation=Component("npcrepro.sampling.augment:VolumeAffine", {"flip": 0.5}))

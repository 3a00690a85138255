from collections import Counter
from itertools import product

import pytest
import torch
from scipy import stats

from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.sampling.augment import (
    Affine,
    RotationContrastNoise,
    StrongAugmentation,
    VolumeAffine,
    rotate,
    stretch_contrast,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def counting(*shape):
    """1, 2, 3, ... in a tensor of this shape."""
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)


def test_draws_are_distributed_as_the_stored_set():
    gammas = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    stored = set(product(range(-10, 11, 2), gammas, [0.0, 0.01, 0.02], [0.0, 1e-8]))
    augmentation = RotationContrastNoise()
    assert augmentation.combinations == 11 * 33 * 2 == len(stored) == 726
    degrees, gamma, clipped, variance = (axis.tolist() for axis in augmentation.draw(726 * 100, generator()))
    drawn = Counter(
        (int(d), round(g, 3), round(c, 3), 1e-8 if v > 0 else 0.0)
        for d, g, c, v in zip(degrees, gamma, clipped, variance)
    )
    assert set(drawn) == stored
    assert max(variance) == pytest.approx(1e-8)
    # Each of the 726 is as likely as any other.
    assert stats.chisquare(list(drawn.values())).pvalue > 0.001


def test_quarter_turns_are_counter_clockwise_as_displayed_and_keep_lengths():
    image = counting(1, 1, 4, 4)
    label = (image > 11).to(torch.uint8)
    for degrees, quarters in ((0.0, 0), (90.0, 1), (-90.0, -1)):
        turned, label_turned = rotate(image, label, torch.tensor([degrees]))
        torch.testing.assert_close(turned, torch.rot90(image, quarters, (2, 3)), atol=1e-4, rtol=0)
        assert torch.equal(label_turned, torch.rot90(label, quarters, (2, 3)))
    label, expected = torch.zeros(2, 1, 1, 10, 16, dtype=torch.uint8)  # no square
    label[..., 4:6, 5:11] = 1  # 2 rows high, 6 columns wide, about the centre
    expected[..., 2:8, 7:9] = 1
    assert torch.equal(rotate(label.float(), label, torch.tensor([90.0]))[1], expected)


def test_contrast_of_a_literal_slice():
    image = torch.tensor([[10.0, 20.0, 30.0, 40.0, 50.0]])[None].repeat(3, 1, 1, 1)
    stretched = stretch_contrast(image, torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 0.0, 0.25]))
    # A quarter of the pixels at each end is clipped: 10 and 50 go to the values of 20 and 40.
    expected = [[0, 0.25, 0.5, 0.75, 1], [0, 0.0625, 0.25, 0.5625, 1], [0, 0, 0.5**0.5, 1, 1]]
    torch.testing.assert_close(stretched.flatten(1), torch.tensor(expected))
    assert not stretch_contrast(torch.full((1, 1, 4, 4), 7.3), torch.tensor([1.5]), torch.tensor([0.01])).any()


def test_noise_has_the_variance_asked_for():
    image, label = 100 * torch.rand(1, 1, 128, 128, generator=generator(1)), torch.zeros(1, 1, 128, 128)
    still = {"rotations": (0,), "gammas": (1.0,), "clipped": (0.0,)}
    clean, label_clean = RotationContrastNoise(**still, noise_variances=(0.0,))(image, label, generator())
    torch.testing.assert_close(clean, (image - image.min()) / (image.max() - image.min()), atol=1e-5, rtol=0)
    assert torch.equal(label_clean, label)
    noise = RotationContrastNoise(**still, noise_variances=(0.04,))(image, label, generator())[0] - clean
    assert noise.std().item() == pytest.approx(0.2, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize(
    ("augmentation", "size"),
    [
        *((RotationContrastNoise(), (16, 24)), (Affine(), (16, 24)), (VolumeAffine(20.0), (5, 16, 24))),
        *((StrongAugmentation(flip=0.5), (20, 24)), (StrongAugmentation(flip=0.5), (5, 20, 24))),
    ],
)
def test_the_generator_alone_decides_the_input_stays_and_labels_are_whole(augmentation, size):
    image = torch.rand(64, 1, *size, generator=generator(1))
    label = torch.cat([(image > 0.5).to(torch.uint8), torch.full(image.shape, NOT_CONTOURED, dtype=torch.uint8)], dim=1)
    before = image.clone(), label.clone()
    found, again = (augmentation(image, label, generator(7)) for _ in range(2))
    assert all(map(torch.equal, found, again))
    assert all(map(torch.equal, before, (image, label)))
    assert not torch.equal(found[0], augmentation(image, label, generator(8))[0])
    assert (found[0].shape, found[1].shape, found[1].dtype) == (image.shape, label.shape, torch.uint8)
    assert found[0].isfinite().all()
    assert set(found[1][:, 0].unique().tolist()) == {0, 1}
    assert (found[1][:, 1] == NOT_CONTOURED).all()
    if isinstance(augmentation, StrongAugmentation):  # most samples are changed, some are not
        assert 0 < (found[0] == image).flatten(1).all(dim=1).sum() < 32
    else:
        assert -0.001 < found[0].min() < found[0].max() < 1.001


def square(size=(32, 48), at=(8, 12), side=6):
    label = torch.zeros(1, 1, *size, dtype=torch.uint8)
    label[0, 0, at[0] : at[0] + side, at[1] : at[1] + side] = 1
    return 100.0 * label, label


def place(mask):
    """Centre (y, x) in pixels and area."""
    points = torch.nonzero(mask).float()
    return (points.mean(0) + 0.5).tolist(), len(points)


def moved(count=1, image_and_label=None, **options):
    """Image, label, and the centres of the squares, by an augmentation that only does what is asked for."""
    image, label = (each.expand(count, -1, -1, -1) for each in image_and_label or square())
    affine = Affine(**{"degrees": 0, "zoom": (1, 1), "shift": 0, "flip": 0.0} | options)
    image, label = affine(image, label, generator(1))
    return image, label, torch.tensor([place(mask[0])[0] for mask in label])


def test_a_flip_mirrors_left_and_right_and_no_more():
    image, label = square()
    for flip, expected in ((0.0, (image, label)), (1.0, (image.flip(3), label.flip(3)))):
        found, found_label, _ = moved(flip=flip)
        torch.testing.assert_close(found, expected[0], atol=1e-3, rtol=0)
        assert torch.equal(found_label, expected[1])
    assert (moved(2000, flip=0.25)[2][:, 1] > 24).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_zoom_is_a_factor_on_lengths_about_the_centre_and_shift_a_share_of_width_and_height():
    for zoom in (0.5, 2.0):
        centre, area = place(moved(image_and_label=square(at=(13, 21)), zoom=(zoom, zoom))[1][0, 0])
        assert area == pytest.approx(36 * zoom**2, rel=0.15)
        assert centre == pytest.approx([16, 24], abs=0.6)
    offsets = moved(400, shift=0.1)[2] - torch.tensor([11.0, 15.0])
    assert offsets.abs().amax(0).tolist() == pytest.approx([3.2, 4.8], abs=0.6)
    assert offsets.mean(0).tolist() == pytest.approx([0, 0], abs=0.4)


def test_image_and_label_move_together_and_darkness_comes_in():
    image, label = (each.expand(20, -1, -1, -1) for each in square())
    image, found = Affine(20, (0.8, 1.2), 0.2)(image - 1000, label, generator(3))
    assert image.min() == pytest.approx(-1000, abs=0.01)
    assert ((image > -950) == (found == 1)).float().mean() > 0.99


def test_samples_that_are_not_moved_stay_as_they_are():
    image = torch.rand(200, 1, 6, 6, generator=generator())
    label = (image > 0.5).to(torch.uint8)
    moved_image, moved_label = Affine(moved=0.25)(image, label, generator())
    same = (moved_image == image).flatten(1).all(dim=1)
    assert torch.equal(moved_label[same], label[same])
    assert 0.65 < same.float().mean() < 0.85


def pair(batch=2, channels=3, depth=4, side=10):
    image = torch.rand(batch, channels, depth, side, side, generator=generator())
    label = torch.zeros(batch, 2, depth, side, side, dtype=torch.uint8)
    label[:, 0, 1:3, 2:6, 3:9] = 1
    return image, label


@pytest.mark.parametrize(("axis", "dimension"), [("x", 4), ("y", 3)])
def test_a_mirrored_volume(axis, dimension):
    image = counting(1, 2, 3, 4, 6)
    label = (image[:, :1] % 5 == 0).to(torch.uint8)
    found, label_moved = VolumeAffine(degrees=0.0, flip=1.0, flip_axis=axis)(image, label, generator())
    torch.testing.assert_close(found, image.flip(dimension), atol=1e-3, rtol=0)
    assert torch.equal(label_moved, label.flip(dimension))


def test_every_slice_of_every_series_moves_as_a_slice_alone_would():
    image, label = pair()
    image[..., 0, 0] = 0.0  # the darkest value of every slice
    options = {"degrees": 20.0, "zoom": (0.8, 1.2), "shift": 0.2, "flip": 0.5}
    volumes, label_moved = VolumeAffine(**options)(image, label, generator(3))
    for channel, z in product(range(3), range(4)):
        slices, masks = Affine(**options)(image[:, channel, z, None], label[:, :, z], generator(3))
        torch.testing.assert_close(slices[:, 0], volumes[:, channel, z])
        assert torch.equal(masks, label_moved[:, :, z])
    assert not torch.equal(label_moved[0], label_moved[1])  # the samples of a batch move each in its own way


def test_weights_move_with_the_label():
    image, label = pair()
    *both, weight = VolumeAffine(30.0, flip=1.0)(image, label, generator(), label * 2.5 + 0.5)
    assert (weight.dtype, weight.shape) == (torch.float32, label.shape)
    assert (weight.max().item(), weight.min().item()) == pytest.approx((3.0, 0.0))  # 0 in the corners
    inner = slice(2, 8)  # no corner reaches here
    # Both move by the same share of a voxel, and half of a voxel decides the label.
    weight, label_moved = weight[..., inner, inner], both[1][..., inner, inner]
    decided = (weight - 1.75).abs() > 1e-3
    assert torch.equal(weight[decided] > 1.75, label_moved[decided] == 1)
    without = VolumeAffine(30.0, flip=1.0)(image, label, generator())
    assert all(map(torch.equal, without, both))


def test_image_and_label_move_together_and_sides_stay():
    label = torch.zeros(200, 1, 4, 32, 32, dtype=torch.uint8)
    label[..., 6:20, 4:14] = 1
    augmentation = StrongAugmentation()
    for step in ("_noise", "_blur", "_brightness", "_contrast", "_low_resolution", "_gamma", "_inverted_gamma"):
        setattr(augmentation, step, lambda rows, generator: rows)
    image, found = augmentation(label.float(), label, generator())
    assert ((image > 0.5) == (found == 1)).float().mean() > 0.999
    assert (found != label).flatten(1).any(dim=1).float().mean() == pytest.approx(1 - 0.8**2, abs=0.1)
    assert (found[:, :, :1] == found).all()  # all slices of a volume alike
    assert (found[..., :16].sum(dim=(1, 2, 3, 4)) > found[..., 16:].sum(dim=(1, 2, 3, 4))).all()


def test_steps_of_the_strong_augmentation_by_what_they_keep():
    rows = torch.rand(6, 1, 24, 24, generator=generator()) ** 2
    strong = StrongAugmentation()
    for step in (strong._gamma, strong._inverted_gamma):
        changed = step(rows, generator(1))
        torch.testing.assert_close(changed.mean(dim=(2, 3)), rows.mean(dim=(2, 3)))
        torch.testing.assert_close(changed.std(dim=(2, 3)), rows.std(dim=(2, 3)))
        assert not torch.allclose(changed, rows)
    flat = torch.full((3, 1, 2, 8, 8), 7.0)
    for step in (strong._blur, strong._low_resolution, strong._contrast, strong._gamma):
        torch.testing.assert_close(step(flat, generator(1)), flat)
    for step in (strong._blur, strong._low_resolution):
        assert (step(rows, generator(1)).std(dim=(2, 3)) < rows.std(dim=(2, 3))).all()
    ratio = strong._brightness(rows, generator(1)) / rows
    assert torch.allclose(ratio, ratio[..., :1, :1])
    assert ((ratio > 0.749) & (ratio < 1.251)).all()

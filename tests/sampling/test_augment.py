from collections import Counter
from itertools import product

import pytest
import torch
from scipy import stats

from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.sampling.augment import Affine, RotationContrastNoise, rotate, stretch_contrast


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def counting(height, width=None):
    """A 1 x 1 x H x W image of 1, 2, 3, ..."""
    width = width or height
    return torch.arange(1.0, 1 + height * width).reshape(1, 1, height, width)


def no_change(**options):
    """The augmentation with one setting on each axis but the one given."""
    alone = {"rotations": (0,), "gammas": (1.0,), "clipped": (0.0,), "noise_variances": (0.0,)}
    return RotationContrastNoise(**alone | options)


STORED = set(
    product(range(-10, 11, 2), [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5], [0.0, 0.01, 0.02], [0.0, 1e-8])
)


def test_draws_are_distributed_as_the_stored_set():
    augmentation, count = RotationContrastNoise(), 726 * 100
    assert augmentation.combinations == 11 * 33 * 2 == len(STORED) == 726
    degrees, gamma, clipped, variance = augmentation.draw(count, generator())
    drawn = Counter(
        (int(d), round(g, 3), round(c, 3), 1e-8 if v > 0 else 0.0)
        for d, g, c, v in zip(degrees.tolist(), gamma.tolist(), clipped.tolist(), variance.tolist())
    )
    assert set(drawn) == STORED
    assert variance.max().item() == pytest.approx(1e-8)
    # Each of the 726 is as likely as any other.
    assert stats.chisquare(list(drawn.values())).pvalue > 0.001


def test_rotation_by_nothing():
    image, label = torch.rand(2, 1, 8, 8, generator=generator()), (counting(8) % 3 == 0).repeat(2, 1, 1, 1)
    turned, label_turned = rotate(image, label, torch.zeros(2))
    torch.testing.assert_close(turned, image, atol=1e-5, rtol=0)
    assert torch.equal(label_turned, label)
    assert label_turned.dtype == label.dtype


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (-90, -1), (180, 2)])
def test_quarter_turns_are_counter_clockwise_as_displayed(degrees, quarters):
    image, label = counting(4), (counting(4) > 11).to(torch.uint8)
    turned, label_turned = rotate(image, label, torch.tensor([float(degrees)]))
    torch.testing.assert_close(turned, torch.rot90(image, quarters, (2, 3)), atol=1e-4, rtol=0)
    assert torch.equal(label_turned, torch.rot90(label, quarters, (2, 3)))


def test_a_quarter_turn_of_a_slice_that_is_no_square_keeps_lengths():
    label = torch.zeros(1, 1, 10, 16, dtype=torch.uint8)
    label[..., 4:6, 5:11] = 1  # 2 rows high, 6 columns wide, about the centre
    _, turned = rotate(label.float(), label, torch.tensor([90.0]))
    expected = torch.zeros_like(label)
    expected[..., 2:8, 7:9] = 1
    assert torch.equal(turned, expected)


def test_a_small_turn_moves_a_point_where_geometry_says():
    """10 degrees counter-clockwise take a point on the right of the centre up."""
    label = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    label[..., 31:34, 61:64] = 1  # 30 to the right of the centre (32, 32)
    _, turned = rotate(label.float(), label, torch.tensor([10.0]))
    y, x = turned[0, 0].nonzero().float().mean(dim=0).tolist()
    assert (y, x) == pytest.approx((32 - 30 * 0.1736, 32 + 30 * 0.9848), abs=0.5)


def test_corners_are_filled_with_the_darkest_value_and_background():
    image = torch.full((1, 1, 9, 9), 5.0)
    image[..., 4, 4] = 3.0
    turned, label = rotate(image, torch.ones(1, 1, 9, 9, dtype=torch.uint8), torch.tensor([45.0]))
    assert turned[..., 0, 0].item() == pytest.approx(3.0)
    assert turned.min().item() == pytest.approx(3.0)
    assert label[..., 0, 0].item() == 0
    assert label[..., 4, 4].item() == 1


def test_labels_stay_binary_and_slices_turn_on_their_own():
    label = (torch.rand(3, 2, 16, 16, generator=generator()) > 0.5).to(torch.uint8)
    degrees = torch.tensor([0.0, 7.0, -10.0])
    image = torch.rand(3, 1, 16, 16, generator=generator(1))
    turned, label_turned = rotate(image, label, degrees)
    assert set(label_turned.unique().tolist()) == {0, 1}
    for i in range(3):
        alone, label_alone = rotate(image[i : i + 1], label[i : i + 1], degrees[i : i + 1])
        torch.testing.assert_close(turned[i : i + 1], alone)
        assert torch.equal(label_turned[i : i + 1], label_alone)


def test_contrast_of_a_literal_slice():
    image = torch.tensor([[10.0, 20.0, 30.0, 40.0, 50.0]])[None].repeat(3, 1, 1, 1)
    stretched = stretch_contrast(image, torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 0.0, 0.25]))
    torch.testing.assert_close(stretched[0].flatten(), torch.tensor([0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(stretched[1].flatten(), torch.tensor([0, 0.0625, 0.25, 0.5625, 1.0]))
    # A quarter of the pixels at each end is clipped: 10 and 50 go to the values of 20 and 40.
    torch.testing.assert_close(stretched[2].flatten(), torch.tensor([0, 0, 0.5**0.5, 1.0, 1.0]))


def test_two_per_cent_clipped_of_101_pixels():
    image = torch.arange(101.0).reshape(1, 1, 1, 101)
    stretched = stretch_contrast(image, torch.ones(1), torch.tensor([0.02])).flatten()
    assert stretched[[2, 50, 98]].tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert (stretched[:3] == 0).all()
    assert (stretched[98:] == 1).all()
    assert (stretched[3:98] > 0).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_a_constant_slice_becomes_zero(gamma):
    assert not stretch_contrast(torch.full((1, 1, 4, 4), 7.3), torch.tensor([gamma]), torch.tensor([0.01])).any()


def test_noise_has_the_variance_asked_for():
    image = torch.rand(1, 1, 128, 128, generator=generator(1))
    label = torch.zeros(1, 1, 128, 128)
    clean, _ = no_change()(image, label, generator())
    noisy, _ = no_change(noise_variances=(0.04,))(image, label, generator())
    assert (noisy - clean).std().item() == pytest.approx(0.2, rel=0.02)
    assert (noisy - clean).mean().item() == pytest.approx(0, abs=0.005)


def test_without_anything_to_draw_only_the_range_changes():
    image, label = 100 * torch.rand(2, 1, 8, 8, generator=generator()), torch.ones(2, 1, 8, 8)
    changed, label_changed = no_change()(image, label, generator())
    low, high = image.amin(dim=(2, 3), keepdim=True), image.amax(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(changed, (image - low) / (high - low), atol=1e-5, rtol=0)
    assert torch.equal(label_changed, label)


def test_the_generator_alone_decides():
    image, label = torch.rand(4, 1, 16, 16, generator=generator(1)), torch.ones(4, 1, 16, 16, dtype=torch.uint8)
    augmentation = RotationContrastNoise()
    torch.manual_seed(1)
    first = augmentation(image, label, generator(7))
    torch.manual_seed(2)
    again = augmentation(image, label, generator(7))
    other = augmentation(image, label, generator(8))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])


def test_an_augmented_batch_keeps_shapes_range_and_its_input():
    image, label = torch.rand(4, 1, 16, 24, generator=generator(1)), torch.ones(4, 1, 16, 24, dtype=torch.uint8)
    before = image.clone()
    changed, label_changed = RotationContrastNoise()(image, label, generator())
    assert changed.shape == image.shape
    assert label_changed.shape == label.shape
    assert label_changed.dtype == torch.uint8
    assert -0.001 < changed.min() < changed.max() < 1.001
    assert torch.equal(image, before)


# Affine


def square(size=(32, 48), at=(8, 12), side=6):
    image, label = torch.zeros(1, 1, *size), torch.zeros(1, 1, *size, dtype=torch.uint8)
    label[0, 0, at[0] : at[0] + side, at[1] : at[1] + side] = 1
    return image + 100.0 * label, label


def place(mask):
    """Centre (y, x) in pixels and area."""
    points = torch.nonzero(mask).float()
    return (points.mean(0) + 0.5).tolist(), len(points)


def many(count, image, label):
    return image.expand(count, -1, -1, -1), label.expand(count, -1, -1, -1)


def test_nothing_drawn_is_nothing_done():
    image, label = square()
    still = Affine(degrees=0, zoom=(1, 1), shift=0)
    moved, moved_label = still(image, label, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved, image, atol=1e-3, rtol=0)
    assert torch.equal(moved_label, label)


def test_a_flip_mirrors_left_and_right_and_no_more():
    image, label = square()
    moved, moved_label = Affine(degrees=0, zoom=(1, 1), shift=0, flip=1.0)(image, label, torch.Generator())
    torch.testing.assert_close(moved, image.flip(3), atol=1e-3, rtol=0)
    assert torch.equal(moved_label, label.flip(3))
    flipped = Affine(degrees=0, zoom=(1, 1), shift=0, flip=0.25)(*many(2000, image, label), torch.Generator())[1]
    assert (flipped[:, 0, 10, 14] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_zoom_is_a_factor_on_lengths_about_the_centre():
    image, label = square(at=(13, 21))
    for zoom in (0.5, 2.0):
        moved = Affine(degrees=0, zoom=(zoom, zoom), shift=0)(image, label, torch.Generator())[1]
        centre, area = place(moved[0, 0])
        assert area == pytest.approx(36 * zoom**2, rel=0.15)
        assert centre == pytest.approx([16, 24], abs=0.6)


def test_shift_is_a_share_of_width_and_height():
    image, label = square()
    moved = Affine(degrees=0, zoom=(1, 1), shift=0.1)(*many(400, image, label), torch.Generator().manual_seed(1))[1]
    offsets = torch.tensor([place(mask[0])[0] for mask in moved]) - torch.tensor([11.0, 15.0])
    assert offsets.abs().amax(0).tolist() == pytest.approx([3.2, 4.8], abs=0.6)
    assert offsets.mean(0).tolist() == pytest.approx([0, 0], abs=0.4)


def test_rotation_is_that_of_pixels_of_equal_size():
    image, label = square(size=(64, 96), at=(29, 60), side=8)
    generator = torch.Generator().manual_seed(0)
    moved = Affine(degrees=30, zoom=(1, 1), shift=0)(*many(200, image, label), generator)[1]
    offsets = torch.tensor([place(mask[0])[0] for mask in moved]) - torch.tensor([32.0, 48.0])
    assert offsets.norm(dim=1).tolist() == pytest.approx([offsets.norm(dim=1)[0].item()] * 200, abs=0.7)
    assert torch.atan2(offsets[:, 0], offsets[:, 1]).rad2deg().abs().max().item() == pytest.approx(30, abs=5)


def test_image_and_label_move_together_and_darkness_comes_in():
    image, label = square()
    moved, moved_label = Affine(20, (0.8, 1.2), 0.2)(*many(20, image - 1000, label), torch.Generator().manual_seed(3))
    assert moved.min() == pytest.approx(-1000, abs=0.01)
    agree = ((moved > -950) == (moved_label == 1)).float().mean()
    assert agree > 0.99


def test_what_nobody_drew_stays_unknown_everywhere():
    image, label = square()
    label = torch.cat([label, torch.full_like(label, NOT_CONTOURED)], dim=1)
    moved = Affine(20, (0.5, 0.6), 0.2)(image, label, torch.Generator().manual_seed(0))[1]
    assert (moved[:, 1] == NOT_CONTOURED).all()
    assert set(moved[:, 0].unique().tolist()) == {0, 1}


def test_samples_that_are_not_moved_stay_as_they_are():
    image, label = torch.rand(200, 1, 6, 6), (torch.rand(200, 2, 6, 6) > 0.5).to(torch.uint8)
    moved_image, moved_label = Affine(moved=0.25)(image, label, torch.Generator().manual_seed(0))
    same = (moved_image == image).flatten(1).all(dim=1)
    assert torch.equal(moved_label[same], label[same])
    assert 0.65 < same.float().mean() < 0.85
    assert not (Affine()(image, label, torch.Generator().manual_seed(0))[0] == image).flatten(1).all(dim=1).any()

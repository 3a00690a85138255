import pytest
import torch
from torch.nn.functional import avg_pool1d

from npcrepro.base.errors import InputError
from npcrepro.sampling.samples import (
    fit_in_plane,
    match_names,
    mean_of_overlaps,
    normalise,
    resize_in_plane,
    to_native_plane,
)


def test_zscore_division_by_the_mean_and_percentiles_of_literal_slices():
    image = torch.tensor([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).reshape(1, 1, 2, 4)  # mean 5, sd 2
    expected = [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]
    assert normalise(image, "zscore").flatten().tolist() == pytest.approx(expected)
    image = torch.tensor([0.0, 2.0, 4.0, 6.0]).reshape(1, 1, 2, 2)
    assert normalise(image, "mean").flatten().tolist() == pytest.approx([0, 2 / 3, 4 / 3, 2.0])
    # A training slice is stretched from its minimum on before this, a test slice is not.
    torch.testing.assert_close(normalise(image * 7 + 30, "mean"), normalise(image, "mean"))
    ramp = torch.arange(101.0).reshape(1, 1, 1, 101)
    image = torch.cat([torch.cat([ramp, 9 - 4 * ramp], dim=1), torch.cat([ramp + 5, ramp * 0 + 8], dim=1)])
    rising = ((ramp.flatten() - 1) / 98).clamp(0, 1)
    expected = torch.stack([rising, rising.flip(0), rising, rising * 0]).reshape(2, 2, 1, 101)
    torch.testing.assert_close(normalise(image, "percentiles"), expected)
    for how in ("zscore", "mean", "percentiles"):
        for value in (0.0, 0.1, 1000.1):
            assert not normalise(torch.full((2, 1, 48, 48), value), how).any()


def test_the_one_name_that_is_left_over_stands_in_and_no_other():
    assert match_names(("T1", "CET1", "T2"), ("T2", "T1", "T1C"), "c", "channel") == ("T1", "T1C", "T2")
    with pytest.raises(InputError, match="c has the channels T2, T1, T1C, the method needs T1, CET1, FLAIR; name"):
        match_names(("T1", "CET1", "FLAIR"), ("T2", "T1", "T1C"), "c", "channel")
    with pytest.raises(InputError, match="cohort c has the structures GTVp, the method needs GTVp, OAR; rename"):
        match_names(("GTVp", "OAR"), ("GTVp",), "c", "structure")


def test_a_slice_is_padded_where_it_is_shorter_and_resampled_where_it_is_longer():
    image = torch.arange(24.0).view(1, 1, 4, 6) + 5
    fitted = fit_in_plane(image, (7, 3))
    assert fitted.shape == (1, 1, 7, 3)
    torch.testing.assert_close(fitted[:, :, 1:5], resize_in_plane(image, (4, 3)))
    assert (fitted[:, :, [0, 5, 6]] == 5).all()
    torch.testing.assert_close(to_native_plane(fit_in_plane(image, (9, 11)), (4, 6)), image)


def test_overlaps_are_averaged_and_what_is_no_number_stays_where_it_is():
    values = torch.rand(1, 8, generator=torch.Generator().manual_seed(0))
    starts = range(0, 7)
    parts = [((slice(z, z + 2),), values[:, z : z + 2].mean() * torch.ones(1, 2)) for z in starts]
    expected = avg_pool1d(avg_pool1d(values, 2, 1), 2, 1)  # each voxel inside lies in two parts
    torch.testing.assert_close(mean_of_overlaps((1, 9), parts)[:, 1:7], expected)
    parts.append(((slice(3, 4),), torch.tensor([[torch.nan]])))
    assert mean_of_overlaps((1, 9), parts).isnan().nonzero().tolist() == [[0, 3]]

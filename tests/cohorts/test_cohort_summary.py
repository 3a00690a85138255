"""What a cohort holds, in numbers."""

import numpy as np
import pytest

from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.layout import write_cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.cohorts.summary import summarise_cohort


def summary(tmp_path, image, label, **fields):
    case = CaseArrays("A", "A", image, label, (3.0, 2.0, 1.0))
    names = {"name": "c", "channels": ["T1", "CT"][: len(image)], "structures": {"GTVp": 1, "GTVnd": 2}}
    return summarise_cohort(prepare(write_cohort(tmp_path / "c", [case], **names | fields), tmp_path / "p"))


@pytest.fixture
def bright():
    """A box of 2 x 4 x 4 voxels, brighter by 100 in the first channel, the same in the second but for noise."""
    label = np.zeros((6, 20, 20), np.uint8)
    label[2:4, 8:12, 8:12] = 1
    noise = np.random.default_rng(0).normal(500, 30, (2, 6, 20, 20))
    noise[0] += 100 * label
    return noise.astype(np.float32), label


def test_volume_and_slices_and_separability(tmp_path, bright):
    table = summary(tmp_path, *bright).set_index(["structure", "channel"])
    row = table.loc["GTVp", "T1"]
    assert (row.volume_ml, row.slices) == (pytest.approx(32 * 6 / 1000), 2)
    assert row.mean_inside == pytest.approx(bright[0][0][bright[1] == 1].mean())
    assert row.mean_inside - row.mean_around == pytest.approx(100, abs=20)
    assert row.separability > 0.95
    assert table.loc["GTVp", "CT"].separability == pytest.approx(0.5, abs=0.2)


def test_the_shell_has_the_volume_of_the_structure_and_lies_next_to_it(tmp_path, bright):
    """Around the box 6 x 6 x 6 voxels hold the shell whatever the order: values tell where it was taken from."""
    _, label = bright
    place = np.full((1, *label.shape), 1000, np.int16)
    place[0, 0:6, 6:14, 4:16] = 1
    row = summary(tmp_path, place, label).iloc[0]
    assert row.mean_around == 1


def test_ties_count_half_in_the_separability(tmp_path):
    label = np.zeros((1, 1, 12), np.uint8)
    label[0, 0, 4:7] = 1
    image = np.array([[[[9, 9, 2, 3, 3, 1, 4, 2, 3, 9, 9, 9]]]], np.int16)
    row = summary(tmp_path, image, label).iloc[0]
    # 3, 1 and 4 inside, 3, 2 and 2 around: 2.5, 0 and 3 are brighter.
    assert row.separability == pytest.approx(5.5 / 9)


def test_what_is_not_there_or_not_known_is_nan(tmp_path, bright):
    table = summary(tmp_path, *bright, spacing_known=False).set_index(["structure", "channel"])
    assert np.isnan(table.loc["GTVp", "T1"].volume_ml)
    empty = table.loc["GTVnd", "T1"]
    assert empty.slices == 0
    assert empty[["mean_inside", "mean_around", "separability"]].isna().all()

import numpy as np
import pytest
import torch
from core_cases import case_arrays, write_tiny
from PIL import Image

from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.sampling.samples import normalise
from npcrepro.sampling.slices import SliceData


def slices(prepared, matrix=(16, 16), channels=("CET1",), structures=("GTVp",), **options):
    return SliceData(prepared, matrix, channels, structures, **options)


@pytest.mark.parametrize("matrix", [(8, 12), (11, 13)])
def test_resampling_agrees_with_pillow(tiny_prepared, matrix):
    image, label = slices(tiny_prepared, matrix).arrays("P0")
    expected = case_arrays("P0", 0)
    for z in range(4):
        small = Image.fromarray(expected.image[0, z].astype(np.float32)).resize(matrix[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(image[z, 0], np.asarray(small), rtol=1e-5)
        mask = Image.fromarray(expected.label[z].astype(np.float32)).resize(matrix[::-1], Image.Resampling.BILINEAR)
        sure = np.abs(np.asarray(mask) - 0.5) > 1e-4
        assert np.array_equal(label[z, 0][sure], (np.asarray(mask) >= 0.5)[sure])


def test_a_tumour_lost_in_resampling_is_no_training_slice_and_three_are_the_largest_and_its_neighbours(tmp_path):
    label = np.zeros((6, 16, 16), np.uint8)
    label[0, 3, 3] = 1
    for z, side in enumerate((2, 2, 3, 8, 2), start=1):
        label[z, :side, :side] = 1
    case = CaseArrays("A", "A", label[None].astype(np.int16), label, (1.0, 1.0, 1.0))
    prepared = prepare(write_tiny(tmp_path / "c", [case]), tmp_path / "p")
    assert slices(prepared).samples(["A"]) == [("A", z) for z in range(6)]
    assert slices(prepared, (4, 4)).samples(["A"]) == [("A", 4)]
    assert [z for _, z in slices(prepared, slices_per_case=3).samples(["A"])] == [3, 4, 5]


def test_a_share_of_the_slices_drawn_shows_nothing(tiny_prepared):
    data = slices(tiny_prepared, background_share=0.25)
    samples = data.samples(["P0", "P2"])
    drawn = data.draw(samples, 2000, torch.Generator().manual_seed(0))
    empty = [(case, z) for case, z in drawn if not data.arrays(case)[1][z].any()]
    assert len(empty) / 2000 == pytest.approx(0.25, abs=0.03)
    assert set(empty) == {("P0", 0), ("P0", 3), ("P2", 0), ("P2", 3)}
    assert set(drawn) - set(empty) == set(samples) == {("P0", 1), ("P0", 2), ("P2", 1), ("P2", 2)}
    assert drawn == data.draw(samples, 2000, torch.Generator().manual_seed(0))


def test_channels_and_structures_are_chosen_by_name_and_in_the_order_asked_for(tmp_path):
    case = case_arrays("A", channels=2)
    case.image[1] += 5000
    case.label[1, :2, :2] = 2
    fields = {"channels": ("T1", "CET1"), "structures": {"GTVp": 1, "GTVnd": 2}}
    prepared = prepare(write_tiny(tmp_path / "c", [case], **fields), tmp_path / "p")
    image, label = slices(prepared, channels=("CET1",), structures=("GTVnd", "GTVp")).arrays("A")
    assert image.shape[1] == 1
    assert image.min() >= 5000
    assert label[:, 0].sum() == 4
    assert np.array_equal(label[:, 1], np.asarray(prepared.case("A").label) == 1)
    both, _ = slices(prepared, channels=("CET1", "T1")).arrays("A")
    assert both[:, 0].min() >= 5000 > both[:, 1].max()


def test_intensity_windows_become_channels_between_0_and_1_before_the_normalisation(tiny_prepared):
    image = torch.tensor([-1000.0, -160.0, 40.0, 240.0, 1000.0]).reshape(1, 1, 1, 5)
    options = {"windows": ((-160, 240), (0, 1000))}
    found = slices(tiny_prepared, normalisation="none", **options).finish(image)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([[0, 0, 0.5, 1, 1], [0, 0, 0.04, 0.24, 1]]))
    assert torch.equal(slices(tiny_prepared, **options).finish(image), normalise(found, "zscore"))


def test_a_structure_that_nobody_drew_is_marked_in_the_label_and_draws_no_slices(tmp_path):
    label = np.zeros((3, 8, 8), np.uint8)
    label[1, 2:5, 2:5], label[2, 5:7, 5:7] = 1, 2
    image = np.zeros((1, 3, 8, 8), np.int16)
    cases = [
        CaseArrays("A", "A", image, label, (3.0, 1.0, 1.0)),
        CaseArrays("B", "B", image + 1, label * (label == 1), (3.0, 1.0, 1.0), not_contoured=("GTVnd",)),
    ]
    cohort = prepare(write_tiny(tmp_path / "c", cases, structures={"GTVp": 1, "GTVnd": 2}), tmp_path / "p")
    data = slices(cohort, (8, 8), structures=("GTVp", "GTVnd"))
    assert data.samples(["A", "B"]) == [("A", 1), ("A", 2), ("B", 1)]
    drawn = data.batch([("B", 1)])[1][0]
    assert (drawn[1] == NOT_CONTOURED).all()
    assert torch.equal(drawn[0], torch.from_numpy((label[1] == 1).astype(np.uint8)))


def test_a_mask_of_a_small_slice_comes_back_as_it_was(tiny_prepared):
    data = slices(tiny_prepared, (24, 20), normalisation="none")
    found = data.predict(torch.nn.Identity(), "P0", activation="identity", batch_size=3, device="cpu")
    np.testing.assert_array_equal(found[0], tiny_prepared.case("P0").image[0].clip(0, 1))

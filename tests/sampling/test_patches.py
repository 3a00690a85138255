"""Patches as nnU-Net draws and tests them."""

import math

import numpy as np
import pytest
import torch
from core_cases import case_arrays, write_tiny

from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.sampling.patches import PatchData, VolumePatchData, resampled


def patches(prepared, matrix=(16, 16), structures=("GTVp",), **options):
    return PatchData(prepared, matrix, prepared.channels[:1], structures, **options)


def drawn_from(data, cases, count=300):
    return data.draw(data.samples(cases), count, torch.Generator().manual_seed(0))


def test_the_plan_is_that_of_the_training_patients(tmp_path):
    pixels = {"A": 1.0, "B": 2.0, "C": 2.0}
    cases = [case_arrays(name, n, spacing_mm=(3.0, mm, mm)) for n, (name, mm) in enumerate(pixels.items())]
    prepared = prepare(write_tiny(tmp_path / "c", cases, channels=("CT",)), tmp_path / "p")
    plan = patches(prepared, (32, 32)).plan(["A", "B"])
    found = plan["data"]["found"]
    assert found["spacing_mm"] == [1.5, 1.5]
    inside = [case.image[0][case.label == 1].astype(float) for case in cases[:2]]
    values = np.concatenate(inside)
    low, high = np.percentile(values, (0.5, 99.5))
    assert found["intensities"]["CT"] == pytest.approx([low, high, values.mean(), values.std()])
    # 16 pixels of 1 and of 2 mm are 11 and 21 of 1.5 mm.
    data = patches(prepared, (32, 32), found=found)
    assert data.image("A").shape == (1, 4, 11, 11)
    assert data.label("B").shape == (1, 4, 21, 21)
    expected = (cases[0].image.astype(float).clip(low, high) - values.mean()) / values.std()
    expected = resampled(torch.from_numpy(expected).float(), (4, 11, 11))
    np.testing.assert_allclose(data.image("A"), expected, atol=1e-4)


def test_windows_are_channels_and_take_the_place_of_percentiles(tmp_path):
    case = case_arrays("A")
    prepared = prepare(write_tiny(tmp_path / "c", [case], channels=("CT",)), tmp_path / "p")
    data = patches(prepared, windows=((100.0, 300.0), (0.0, 1000.0)))
    assert data.plan(["A"])["data"]["found"]["intensities"] == {}
    soft, wide = data.image("A")
    np.testing.assert_allclose(soft, (case.image[0].clip(100, 300) - 200) / 100, atol=1e-5)
    np.testing.assert_allclose(wide, case.image[0] / 500 - 1, atol=1e-5)


def test_patches_hold_structures_and_nothing_too(tmp_path):
    label = np.zeros((12, 24, 24), np.uint8)
    label[3:9, 2:8, 2:8] = 1
    label[5, 20, 20] = 2
    case = CaseArrays("A", "A", label[None].astype(np.int16), label, (1.0, 1.0, 1.0))
    prepared = prepare(write_tiny(tmp_path / "c", [case], structures={"large": 1, "small": 2}), tmp_path / "p")
    for matrix in ((8, 8), (4, 8, 8)):
        data = patches(prepared, matrix, ("large", "small"))
        drawn = drawn_from(data, ["A"])
        _, labels = data.batch(drawn)
        shown = (labels == 1).flatten(2).any(dim=2)
        held = shown[: len(drawn) // 3]
        assert held.any(dim=1).all()
        # A single voxel is as likely to be held as the large structure.
        assert 0.35 < held[:, 1].float().mean() < 0.65
        assert 0.3 < (~shown[len(drawn) // 3 :].any(dim=1)).float().mean() < 0.95


def test_slices_without_structures_are_trained_and_judged(tiny_prepared):
    data = patches(tiny_prepared)
    assert {patch.corner[0] for patch in data.samples(["P0"])} == {0, 1, 2, 3}
    _, labels = data.batch(drawn_from(data, ["P0", "P1"]))
    # Two of four slices show a disc; a third of the patches holds one for certain.
    assert (labels == 1).flatten(1).any(dim=1).float().mean() == pytest.approx(1 / 3 + 2 / 3 / 2, abs=0.06)


def copy(image):
    """The label that the image shows, as certain logits of background and structure."""
    inside = 40.0 * (image > 0.5) - 20.0
    return torch.cat([-inside, inside], dim=1)


@pytest.mark.parametrize("matrix", [(8, 8), (32, 40), (4, 8, 8), (8, 24, 12)])
def test_a_network_that_copies_gives_the_label_back(tmp_path, matrix):
    """Whether patches are smaller or larger than the image, and whether they fit."""
    cases = [case_arrays("A", 0, size=19, depth=6)]
    prepared = prepare(write_tiny(tmp_path / "c", cases), tmp_path / "p")
    data = patches(prepared, matrix)
    found = data.predict(copy, "A", activation="softmax", batch_size=3, device="cpu")
    assert found.shape == (1, 6, 19, 19)
    assert torch.equal(found[0] > 0.5, torch.from_numpy(cases[0].label == 1))


def test_patches_count_the_more_the_nearer_to_their_middle(tiny_prepared):
    """Of two patches that disagree, the one whose middle is nearer wins."""

    def numbered(image):
        first = torch.arange(len(image)) % 2 == 0
        return torch.where(first, 20.0, -20.0)[:, None, None, None].expand_as(image)

    data = patches(tiny_prepared, (16, 12))
    row = data.predict(numbered, "P0", activation="sigmoid", batch_size=2, device="cpu")[0, 0, 8]
    assert len(data._side_by_side("P0", 0.5)) == 2 * 4
    assert (row[:4] > 0.999).all()
    assert (row[-4:] < 0.001).all()
    assert row[7] > 0.5 > row[8]
    assert (row.diff() <= 1e-6).all()


def test_what_was_not_contoured_is_so_beyond_the_image_too(tmp_path):
    case = case_arrays("A", 0, size=10, not_contoured=("other",))
    structures = {"GTVp": 1, "other": 2}
    prepared = prepare(write_tiny(tmp_path / "c", [case], structures=structures), tmp_path / "p")
    data = patches(prepared, (16, 16), ("GTVp", "other"))
    image, label = data.batch(data.samples(["A"])[:1])
    assert (label[0, 1] == NOT_CONTOURED).all()
    assert not label[0, 0, :3].any()
    assert (image[0, 0, :3] == image.min()).all()


def test_volumes_are_resampled_along_all_axes():
    ramp = torch.linspace(0, 1, 24).reshape(1, 24, 1, 1).expand(1, 24, 6, 8)
    found = resampled(ramp, (12, 3, 16))
    assert found.shape == (1, 12, 3, 16)
    assert found[0, :, 1, 5].diff()[1:-1].tolist() == pytest.approx([2 / 23] * 9, rel=1e-4)
    assert math.isclose(found.mean().item(), 0.5, abs_tol=1e-5)


def test_a_paper_of_slices_has_patches_of_volumes_for_its_reference(tmp_path):
    case = case_arrays("A")  # 4 slices of 16 x 16
    prepared = prepare(write_tiny(tmp_path / "c", [case]), tmp_path / "p")
    data = VolumePatchData(prepared, (8, 8), prepared.channels[:1], ("GTVp",), slices=3)
    assert data.matrix == (3, 8, 8)
    patch = data.plan(["A"])["data"]["found"]["patch"]
    assert len(patch) == 3
    assert math.prod(patch) <= 3 * 8 * 8
    image, label = data.batch(drawn_from(data, ["A"], 2))
    assert image.shape == label.shape == (2, 1, 3, 8, 8)

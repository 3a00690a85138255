from dataclasses import replace

import numpy as np
import pytest
import torch
from core_cases import case_arrays, write_tiny
from PIL import Image

from npcrepro.base.errors import InputError
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.layout import CaseArrays, write_cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.sampling import slices as slices_module
from npcrepro.sampling.samples import fit_in_plane, normalise, resize_in_plane, to_native_plane
from npcrepro.sampling.slices import SliceData

pytest_plugins = ["core_fixtures"]

CHANNELS, STRUCTURES = ("CET1",), ("GTVp",)


def slices(prepared, matrix=(16, 16), channels=CHANNELS, structures=STRUCTURES, **options):
    return SliceData(prepared, matrix, channels, structures, **options)


@pytest.fixture
def prepared(tmp_path):
    """A cohort of its own, for tests that write into its folder."""
    return prepare(write_tiny(tmp_path / "cohort"), tmp_path / "prepared")


def test_zscore_of_a_literal_slice():
    image = torch.tensor([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).reshape(1, 1, 2, 4)  # mean 5, sd 2
    expected = [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]
    assert normalise(image, "zscore").flatten().tolist() == pytest.approx(expected)


def test_division_by_the_mean_of_a_literal_slice():
    image = torch.tensor([0.0, 2.0, 4.0, 6.0]).reshape(1, 1, 2, 2)
    assert normalise(image, "mean").flatten().tolist() == pytest.approx([0, 2 / 3, 4 / 3, 2.0])
    # A training slice is stretched from its minimum on before this, a test slice is not.
    torch.testing.assert_close(normalise(image * 7 + 30, "mean"), normalise(image, "mean"))


def test_percentiles_of_each_channel_and_slice():
    ramp = torch.arange(101.0).reshape(1, 1, 1, 101)
    image = torch.cat([torch.cat([ramp, 9 - 4 * ramp], dim=1), torch.cat([ramp + 5, ramp * 0 + 8], dim=1)])
    found = normalise(image, "percentiles")[:, :, 0]
    rising = ((ramp.flatten() - 1) / 98).clamp(0, 1)
    torch.testing.assert_close(found, torch.stack([rising, rising.flip(0), rising, rising * 0]).reshape(2, 2, 101))


def test_each_image_of_a_batch_is_normalised_by_itself():
    image = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 50 + 300
    image[1] *= 10
    normal = normalise(image, "zscore")
    torch.testing.assert_close(normal.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std(dim=(1, 2, 3), correction=0), torch.ones(3))
    torch.testing.assert_close(normalise(image, "mean").mean(dim=(1, 2, 3)), torch.ones(3))
    assert torch.equal(normalise(image, "none"), image)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 3.3, 1000.1])
@pytest.mark.parametrize("how", ["zscore", "mean", "percentiles"])
def test_a_constant_image_becomes_zero(value, how):
    assert not normalise(torch.full((2, 1, 48, 48), value), how).any()


def test_a_misspelt_normalisation_names_the_near_miss():
    with pytest.raises(InputError, match="did you mean 'zscore'"):
        normalise(torch.zeros(1, 1, 2, 2), "z-score")


def test_slices_at_the_cohorts_own_matrix_are_the_cohorts_voxels(tiny_prepared):
    image, label = slices(tiny_prepared).arrays("P1")
    expected = case_arrays("P1", 1)
    assert (image.dtype, image.shape, label.dtype) == (np.float32, (4, 1, 16, 16), np.uint8)
    assert np.array_equal(image[:, 0], expected.image[0])
    assert np.array_equal(label[:, 0], expected.label)


@pytest.mark.parametrize("matrix", [(8, 12), (11, 13), (16, 9)])
def test_resampling_agrees_with_pillow(prepared, matrix):
    image, label = slices(prepared, matrix).arrays("P0")
    expected = case_arrays("P0", 0)
    for z in range(4):
        small = Image.fromarray(expected.image[0, z].astype(np.float32)).resize(matrix[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(image[z, 0], np.asarray(small), rtol=1e-5)
        mask = Image.fromarray(expected.label[z].astype(np.float32)).resize(matrix[::-1], Image.Resampling.BILINEAR)
        sure = np.abs(np.asarray(mask) - 0.5) > 1e-4
        assert np.array_equal(label[z, 0][sure], (np.asarray(mask) >= 0.5)[sure])


def test_a_half_plane_keeps_its_edge_when_resampled(tmp_path):
    label = np.zeros((1, 8, 8), np.uint8)
    label[:, :, 4:] = 1
    case = CaseArrays("A", "A", label[None].astype(np.int16), label, (1.0, 1.0, 1.0))
    prepared = prepare(write_tiny(tmp_path / "c", [case]), tmp_path / "p")
    for size in (2, 4):
        _, resampled = slices(prepared, (size, size)).arrays("A")
        assert (resampled[0, 0, :, : size // 2] == 0).all()
        assert (resampled[0, 0, :, size // 2 :] == 1).all()


def test_training_uses_only_slices_with_tumour(tiny_prepared):
    assert slices(tiny_prepared).samples(["P0", "P2"]) == [("P0", 1), ("P0", 2), ("P2", 1), ("P2", 2)]


def test_a_tumour_lost_in_resampling_is_no_training_slice(tmp_path):
    case = case_arrays("A")
    case.label[:] = 0
    case.label[0, 3, 3] = 1
    case.label[2, :8, :8] = 1
    prepared = prepare(write_tiny(tmp_path / "c", [case]), tmp_path / "p")
    assert slices(prepared).samples(["A"]) == [("A", 0), ("A", 2)]
    assert slices(prepared, (4, 4)).samples(["A"]) == [("A", 2)]


def test_a_batch_is_the_slices_named_in_their_order(tiny_prepared):
    data = slices(tiny_prepared)
    image, label = data.batch([("P2", 1), ("P0", 3)])
    assert (image.shape, image.dtype, label.dtype) == ((2, 1, 16, 16), torch.float32, torch.uint8)
    assert np.array_equal(image[0, 0], case_arrays("P2", 2).image[0, 1])
    assert np.array_equal(image[1, 0], case_arrays("P0", 0).image[0, 3])
    assert label.flatten(1).any(dim=1).tolist() == [True, False]


def test_finish_normalises_as_asked(tiny_prepared):
    image, _ = slices(tiny_prepared).batch([("P0", 1)])
    for how in ("zscore", "mean", "percentiles", "none"):
        assert torch.equal(slices(tiny_prepared, normalisation=how).finish(image), normalise(image, how))


@pytest.fixture(scope="module")
def two_of_each(tmp_path_factory):
    """Channels T1 and CET1, structures GTVp and GTVnd."""
    folder = tmp_path_factory.mktemp("two")
    case = case_arrays("A", channels=2)
    case.image[1] += 5000
    case.label[1, :2, :2] = 2
    fields = {"channels": ("T1", "CET1"), "structures": {"GTVp": 1, "GTVnd": 2}}
    return prepare(write_tiny(folder / "c", [case], **fields), folder / "p")


def test_channels_and_structures_are_chosen_by_name_and_in_the_order_asked_for(two_of_each):
    image, label = slices(two_of_each, channels=("CET1",), structures=("GTVnd", "GTVp")).arrays("A")
    assert image.shape[1] == 1
    assert image.min() >= 5000
    assert label[:, 0].sum() == 4
    assert np.array_equal(label[:, 1], np.asarray(two_of_each.case("A").label) == 1)
    both, _ = slices(two_of_each, channels=("CET1", "T1")).arrays("A")
    assert both[:, 0].min() >= 5000 > both[:, 1].max()


def test_thirty_organs_fit_into_the_name_of_a_file(tmp_path):
    organs = {f"Organ_at_risk_{number:02d}": number for number in range(1, 31)}
    cohort = prepare(write_tiny(tmp_path / "c", ["A"], structures=organs), tmp_path / "p")
    _, label = slices(cohort, structures=tuple(organs)).arrays("A")
    assert label.any(axis=(0, 2, 3)).tolist() == [True] + 29 * [False]


def test_each_choice_has_files_of_its_own(two_of_each):
    first, _ = slices(two_of_each, channels=("T1",)).arrays("A")
    second, _ = slices(two_of_each, channels=("CET1",)).arrays("A")
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"channels": ("CT",)}, "cohort tiny has the channels T1, CET1, the method needs CT"),
        (
            {"structures": ("GTVp", "GTVnd", "OAR")},
            "cohort tiny has the structures GTVp, GTVnd, the method needs GTVp, ",
        ),
    ],
)
def test_a_missing_channel_or_structure_is_an_error(two_of_each, fields, words):
    with pytest.raises(InputError, match=words):
        slices(two_of_each, **fields)


def test_the_one_channel_under_another_name_stands_in(tiny_prepared):
    data = slices(tiny_prepared, channels=("T2",), structures=("Tumour",))
    assert (data.channels, data.structures) == (("CET1",), ("GTVp",))
    assert data.samples(["P0"]) == [("P0", 1), ("P0", 2)]


def test_resampled_files_are_written_once_and_read_back(prepared, monkeypatch):
    first = slices(prepared, (8, 8)).arrays("P0")
    files = sorted(path.name for path in prepared.folder.glob("slices-8x8-*/*"))
    assert len(files) == 2

    def never(*arguments):
        raise AssertionError("resampled again")

    monkeypatch.setattr(slices_module, "fit_in_plane", never)
    again = slices(prepared, (8, 8)).arrays("P0")
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert sorted(path.name for path in prepared.folder.glob("slices-8x8-*/*")) == files


def test_resampled_files_of_other_code_are_not_read(prepared, monkeypatch):
    before = slices(prepared, (8, 8)).folder
    monkeypatch.setattr(slices_module, "code_sha256", lambda roots: "0" * 64)
    assert slices(prepared, (8, 8)).folder != before


def test_resampled_files_are_memory_mapped_and_read_only(prepared):
    image, label = slices(prepared, (8, 8)).arrays("P0")
    for array in (image, label):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_a_resampling_that_was_interrupted_is_done_again(prepared, monkeypatch):
    save = np.save

    def interrupted(path, array):
        if ".label." in path.name:
            raise KeyboardInterrupt
        save(path, array)

    monkeypatch.setattr(slices_module.np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        slices(prepared, (8, 8)).arrays("P0")
    monkeypatch.undo()
    assert slices(prepared, (8, 8)).arrays("P0")[1].any()


def test_a_full_size_matrix_costs_no_resampling_of_other_cases(prepared):
    data = slices(prepared)
    data.arrays("P0")
    assert {path.name.split(".")[0] for path in data.folder.iterdir()} == {"P0"}


def test_an_unknown_case_is_an_error(tiny_prepared):
    with pytest.raises(InputError, match="no case 'P9'"):
        slices(replace(tiny_prepared)).arrays("P9")


def test_three_slices_are_the_largest_and_its_neighbours(tmp_path):
    label = np.zeros((6, 8, 8), np.uint8)
    for z, side in enumerate((0, 2, 2, 3, 4, 2)):
        label[z, :side, :side] = 1
    case = CaseArrays("A", "A", np.zeros((1, 6, 8, 8), np.int16), label, (1.0, 1.0, 1.0))
    root = tmp_path / "c"
    cohort = write_cohort(root, [case], name="c", channels=["CET1"], structures={"GTVp": 1})
    prepared = prepare(cohort, tmp_path / "p")
    options = {"matrix": (8, 8), "channels": ("CET1",), "structures": ("GTVp",)}
    assert [z for _, z in SliceData(prepared, **options).samples(["A"])] == [1, 2, 3, 4, 5]
    assert [z for _, z in SliceData(prepared, **options, slices_per_case=3).samples(["A"])] == [3, 4, 5]


def test_channels_that_could_be_swapped_do_not_stand_in(tmp_path):
    label = np.ones((1, 8, 8), np.uint8)
    case = CaseArrays("A", "A", np.zeros((3, 1, 8, 8), np.int16), label, (1.0, 1.0, 1.0))
    fields = {"name": "c", "channels": ["T2", "T1", "T1C"], "structures": {"GTVp": 1}}
    prepared = prepare(write_cohort(tmp_path / "c", [case], **fields), tmp_path / "p")
    assert slices(prepared, (8, 8), channels=("T1", "CET1", "T2")).channels == ("T1", "T1C", "T2")
    with pytest.raises(InputError, match="needs T1, CET1, FLAIR"):
        slices(prepared, (8, 8), channels=("T1", "CET1", "FLAIR"))


def test_windows_become_channels_between_0_and_1(prepared):
    image = torch.tensor([-1000.0, -160.0, 40.0, 240.0, 1000.0]).reshape(1, 1, 1, 5)
    data = slices(prepared, normalisation="none", windows=((-160, 240), (0, 1000)))
    found = data.finish(image)
    assert found.shape == (1, 2, 1, 5)
    assert found[0, 0, 0].tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert found[0, 1, 0].tolist() == pytest.approx([0, 0, 0.04, 0.24, 1])


def test_a_share_of_the_slices_drawn_shows_nothing(tiny_prepared):
    data = slices(tiny_prepared, background_share=0.25)
    samples = data.samples(["P0", "P2"])
    drawn = data.draw(samples, 2000, torch.Generator().manual_seed(0))
    empty = [(case, z) for case, z in drawn if not data.arrays(case)[1][z].any()]
    assert len(empty) / 2000 == pytest.approx(0.25, abs=0.03)
    assert set(empty) == {("P0", 0), ("P0", 3), ("P2", 0), ("P2", 3)}
    assert set(drawn) - set(empty) == set(samples)
    assert drawn == data.draw(samples, 2000, torch.Generator().manual_seed(0))


def test_a_structure_that_nobody_drew_is_marked_in_the_label_and_draws_no_slices(tmp_path):
    label = np.zeros((3, 8, 8), np.uint8)
    label[1, 2:5, 2:5], label[2, 5:7, 5:7] = 1, 2
    image = np.zeros((1, 3, 8, 8), np.int16)
    cases = [
        CaseArrays("A", "A", image, label, (3.0, 1.0, 1.0)),
        CaseArrays("B", "B", image + 1, label * (label == 1), (3.0, 1.0, 1.0), not_contoured=("GTVnd",)),
    ]
    names = {"name": "c", "channels": ["CET1"], "structures": {"GTVp": 1, "GTVnd": 2}}
    cohort = prepare(write_cohort(tmp_path / "c", cases, **names), tmp_path / "p")
    assert cohort.case("B").not_contoured == ("GTVnd",)
    data = slices(cohort, (8, 8), structures=("GTVp", "GTVnd"))
    assert data.samples(["A", "B"]) == [("A", 1), ("A", 2), ("B", 1)]
    drawn = data.batch([("B", 1)])[1][0]
    assert (drawn[1] == NOT_CONTOURED).all()
    assert torch.equal(drawn[0], torch.from_numpy((label[1] == 1).astype(np.uint8)))


def test_a_slice_is_padded_where_it_is_shorter_and_resampled_where_it_is_longer():
    image = torch.arange(24.0).view(1, 1, 4, 6) + 5
    fitted = fit_in_plane(image, (7, 3))
    assert fitted.shape == (1, 1, 7, 3)
    torch.testing.assert_close(fitted[:, :, 1:5], resize_in_plane(image, (4, 3)))
    assert (fitted[:, :, [0, 5, 6]] == 5).all()
    torch.testing.assert_close(to_native_plane(fit_in_plane(image, (9, 11)), (4, 6)), image)


def test_a_mask_of_a_small_slice_comes_back_as_it_was(tiny_prepared):
    network = torch.nn.Identity()
    slices = SliceData(tiny_prepared, (24, 20), ("CET1",), ("GTVp",), normalisation="none")
    found = slices.predict(network, "P0", activation="identity", batch_size=4, device="cpu")
    np.testing.assert_array_equal(found[0], tiny_prepared.case("P0").image[0].clip(0, 1))

import itertools
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from core_cases import write_tiny
from monai.inferers import sliding_window_inference
from scipy.ndimage import distance_transform_edt
from torch import nn

from npcrepro.base.errors import InputError
from npcrepro.base.files import sha256_of
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.layout import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.sampling import blocks as blocks_module
from npcrepro.sampling.blocks import FUSIONS, BlockData
from npcrepro.sampling.grid import resample_to

pytest_plugins = ["core_fixtures"]

MATRIX = (4, 8, 8)
HEAD = (slice(2, 18), slice(3, 27), slice(4, 24))  # 16 x 24 x 20 voxels
TUMOUR = (slice(8, 13), slice(10, 17), slice(9, 14))
SPACING_MM = (1.0, 1.0, 1.0)


def box(shape, *boxes):
    mask = np.zeros(shape, np.uint8)
    for one in boxes:
        mask[one] = 1
    return mask


def case(name="A", seed=0, shape=(20, 30, 28), head=HEAD, tumour=TUMOUR, spacing_mm=SPACING_MM, **fields):
    """A bright, speckled head in a dark room, with a brighter tumour."""
    label = box(shape, tumour)
    image = 300 * box(shape, head).astype(np.int16) + 200 * label
    image += np.random.default_rng(seed).integers(0, 40, shape).astype(np.int16)
    return CaseArrays(name, **{"patient": name} | fields, image=image[None], label=label, spacing_mm=spacing_mm)


def l_shaped():
    """A quarter of the head's box is air."""
    head, tumour = (slice(0, 8), slice(0, 32), slice(0, 32)), (slice(2, 4), slice(2, 6), slice(2, 6))
    arrays = case(shape=(8, 40, 40), head=head, tumour=tumour)
    arrays.image[0, :, 16:, 16:] = 0
    return arrays


@pytest.fixture
def blocks(tmp_path):
    """Make `BlockData` of cases, on a cohort of its own."""
    numbers = itertools.count()

    def blocks(*cases, matrix=MATRIX, structures=("GTVp",), cohort=None, **options):
        number = next(numbers)
        write = {"structures": dict(zip(structures, range(1, 9))), **(cohort or {})}
        prepared = prepare(write_tiny(tmp_path / f"c{number}", cases or [case()], **write), tmp_path / f"p{number}")
        return BlockData(prepared, matrix, ("CET1",), structures, **options)

    return blocks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Channel(nn.Module):
    """A channel of the image as the probability."""

    def __init__(self, number=0):
        super().__init__()
        self.number = number

    def forward(self, image):
        return image[:, self.number : self.number + 1]


class Local(nn.Module):
    """A convolution, whose result at a voxel depends on the block around it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv3d(1, 1, 3, padding=1)
        self.batches = []

    def forward(self, image):
        self.batches.append(tuple(image.shape))
        return self.convolution(image)


def predict(data, network, case="A", activation="identity", batch_size=5):
    return data.predict(network, case, activation=activation, batch_size=batch_size, device="cpu")


# The volume


@pytest.mark.parametrize("first", [(-2.0, 0.0, 0.25), (0.3, -0.5, 3.0), (-0.4, -1.2, -0.6)])
@pytest.mark.parametrize("step", [(1.0, 1.0, 1.0), (0.5, 0.5, 1 / 3), (2.0, 1.7, 1.3)])
def test_another_grid_agrees_with_simpleitk(first, step):
    array = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    reference = sitk.Image((9, 11, 8), sitk.sitkFloat32)
    reference.SetOrigin(first[::-1])
    reference.SetSpacing(step[::-1])
    expected = sitk.Resample(sitk.GetImageFromArray(array), reference, sitk.Transform(), sitk.sitkLinear, -9.0)
    found = resample_to(array, first, step, (8, 11, 9), outside=-9.0)
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(expected), atol=1e-5)


def test_the_volume_is_the_box_of_the_head(blocks):
    data = blocks()
    grid, original = data.grid("A"), case()
    assert (grid.size, grid.origin_mm, grid.spacing_mm) == ((16, 24, 20), (2.0, 3.0, 4.0), 1.0)
    assert data.head("A").all()
    assert np.array_equal(data.label("A")[0], original.label[HEAD])
    inside = original.image[0][HEAD].astype(float)
    np.testing.assert_allclose(data.image("A")[0], (inside - inside.mean()) / inside.std(), atol=1e-5)


def test_intensities_outside_the_head_count_in_no_mean(blocks):
    shape, head = (20, 30, 28), (slice(2, 18), slice(3, 27), slice(4, 24))
    corner = box(shape, (slice(2, 8), slice(3, 9), slice(4, 10)))
    arrays = case()
    arrays.image[0][corner > 0] = 5  # a bite out of the head, still inside its box
    data = blocks(arrays)
    bitten = box(shape, head) - corner
    assert np.array_equal(data.head("A"), bitten[HEAD])
    of_head = data.image("A")[0][data.head("A")]
    assert of_head.mean() == pytest.approx(0, abs=1e-5)
    assert of_head.std() == pytest.approx(1, abs=1e-5)


def test_other_voxels_become_cubes(blocks):
    """Slices of 3 mm and pixels of 0.5 mm, to 1 mm; a ramp stays a ramp."""
    shape, head = (10, 40, 40), (slice(2, 8), slice(8, 32), slice(8, 32))
    arrays = case(
        shape=shape, head=head, tumour=(slice(4, 6), slice(12, 24), slice(16, 24)), spacing_mm=(3.0, 0.5, 0.5)
    )
    arrays.image[0] = box(shape, head) * (1000 + 10 * np.arange(40, dtype=np.int16))
    data = blocks(arrays)
    assert (data.grid("A").size, data.grid("A").spacing_mm) == ((18, 12, 12), 1.0)
    steps = np.diff(data.image("A")[0, 6:12, 2:-2, 2:-2], axis=2)
    np.testing.assert_allclose(steps, steps.mean(), atol=1e-5)
    # 2 x 3 mm, 12 x 0.5 mm and 8 x 0.5 mm
    assert int(data.label("A").sum()) == 6 * 6 * 4


def test_the_edge_of_the_head_lies_halfway_between_thick_slices(blocks):
    shape, head = (10, 40, 40), (slice(2, 8), slice(8, 32), slice(8, 32))
    tumour = (slice(3, 4), slice(12, 16), slice(16, 24))
    arrays = case(shape=shape, head=head, tumour=tumour, spacing_mm=(3.0, 0.5, 0.5))
    arrays.image[0, 5:8, 8:20] = 0  # half of the slices of half of the head
    assert blocks(arrays).head("A").sum() == 18 * 12 * 12 - 9 * 6 * 12


def test_large_voxels_are_not_made_smaller(blocks):
    data = blocks(case(spacing_mm=(3.0, 2.0, 2.0)))
    assert data.grid("A").spacing_mm == 2.0
    assert data.grid("A").size == (24, 24, 20)


def test_a_cohort_of_unknown_spacing_keeps_its_voxels(blocks):
    data = blocks(
        case(spacing_mm=(3.0, 0.5, 0.5)), cohort={"spacing_known": False}, distance_weight="core", spacing_mm=2.0
    )
    assert (data.grid("A").size, data.grid("A").spacing_mm) == ((16, 24, 20), 1.0)
    assert data.weight("A").max() == 3.0  # the tumour is five voxels across


def test_a_large_head_is_cut_about_its_middle_whatever_the_label_shows(blocks):
    far = (slice(2, 6), slice(3, 9), slice(4, 9))
    data = blocks(case("A"), case("B", tumour=far), size_mm=(8, 24, 10))
    for name in "AB":
        assert (data.grid(name).size, data.grid(name).origin_mm) == ((8, 24, 10), (6.0, 3.0, 9.0))
    assert data.share_outside("A")["GTVp"] == 0
    assert data.share_outside("B")["GTVp"] == 1
    cut = blocks(case(), size_mm=(4, 24, 20))
    # Slices 8 to 11 are left of the tumour's slices 8 to 12.
    assert cut.share_outside("A")["GTVp"] == pytest.approx(1 / 5)
    # Small voxels at the edge lie within large ones whose middles they do not reach.
    assert blocks(case(tumour=HEAD, spacing_mm=(0.5, 0.5, 0.5))).share_outside("A")["GTVp"] == 0


def test_a_volume_smaller_than_a_block_is_padded_with_its_darkest_value(blocks, tmp_path):
    shape, head = (3, 12, 12), (slice(0, 3), slice(2, 10), slice(3, 9))
    arrays = case(shape=shape, head=head, tumour=(1, slice(4, 8), slice(5, 8)))
    arrays.image[:] = 100.0 * box(shape, head) + 200.0 * arrays.label - 1000.0  # as CT has it
    coarse = write_map(tmp_path / "A.npz", np.ones((1, *shape)))
    data = blocks(arrays, maps={"A": coarse})
    assert data.grid("A").size == (4, 8, 8)
    assert np.array_equal(np.unique(data._map("A")[0], return_counts=True), [[0, 255], [64, 3 * 64]])
    assert data.head("A").sum() == 3 * 8 * 6
    outside = data.image("A")[0][data.head("A") == 0]
    assert (outside == outside[0]).all()
    assert outside[0] < data.image("A")[0][data.head("A")].min()
    assert int(data.label("A").sum()) == 12
    assert data.batch(data.samples(["A"]))[0].shape == (1, 2, 4, 8, 8)
    assert predict(data, Channel()).shape == (1, 3, 12, 12)


def test_an_image_of_one_intensity_is_an_error(blocks):
    arrays = case()
    arrays.image[:] = 70
    with pytest.raises(InputError, match="case A: all voxels of CET1 are 70, so no head"):
        blocks(arrays).image("A")


def test_a_series_that_a_case_lacks_is_zero(blocks, monkeypatch):
    arrays = case()
    arrays.image[:] = 0
    monkeypatch.setattr(blocks_module, "missing_series", lambda cohort, name: ("CET1",))
    data = blocks(arrays)
    assert data.head("A").all()
    assert not data.image("A").any()


def test_what_lies_in_blocks_that_are_passed_over_counts_as_outside(blocks):
    """Half of the tumour lies in the air beside an L-shaped head, further than a block from it."""
    arrays = l_shaped()
    arrays.label[:] = 0
    arrays.label[2:4, 2:6, 2:6] = 1
    arrays.label[2:4, 26:30, 26:30] = 1
    data = blocks(arrays)
    assert data.grid("A").size == (8, 32, 32)
    assert data.share_outside("A") == {"GTVp": 0.5}
    assert not predict(data, Channel(), activation="sigmoid")[0, 2:4, 26:30, 26:30].any()


def test_few_files_are_kept_open(blocks, monkeypatch):
    monkeypatch.setattr(blocks_module, "OPEN_CASES", 1)
    data = blocks(case("A"), case("B"))
    first = data.image("A").copy()
    data.label("A"), data.label("B")
    label = f"label-{sha256_of(['GTVp'])[:8]}"
    assert list(data._open) == [f"A.{label}", f"B.{label}"]
    assert np.array_equal(data.image("A"), first)


def test_volumes_are_made_once_and_mapped(blocks, monkeypatch):
    data = blocks(distance_weight="core")
    first = data.batch(data.samples(["A"]))
    names, drawn = sorted(path.name for path in data.folder.iterdir()), sha256_of(["GTVp"])[:8]
    assert names == [f"A.core-{drawn}.npy", "A.grid.json", "A.head.npy", "A.image.npy", f"A.label-{drawn}.npy"]
    again = BlockData(data.cohort, MATRIX, ("CET1",), ("GTVp",), distance_weight="core")
    monkeypatch.setattr(BlockData, "_save", None)
    for tensor, other in zip(first, again.batch(again.samples(["A"])), strict=True):
        assert torch.equal(tensor, other)
    assert isinstance(again.image("A"), np.memmap)
    assert BlockData(data.cohort, MATRIX, ("CET1",), ("GTVp",), spacing_mm=2.0).folder != data.folder


def test_thirty_organs_fit_into_the_name_of_a_file(blocks):
    organs = {f"Organ_at_risk_{number:02d}": number for number in range(1, 31)}
    data = blocks(structures=tuple(organs), cohort={"structures": organs}, distance_weight="core")
    assert data.weight("A").shape[0] == data.label("A").shape[0] == 30


def test_a_structure_that_nobody_drew_is_not_empty(blocks):
    label = np.zeros((20, 30, 28), np.uint8)
    label[TUMOUR] = 1
    data = blocks(replace(case(), label=label, not_contoured=("GTVnd",)), structures=("GTVp", "GTVnd"))
    assert (data.label("A")[1] == NOT_CONTOURED).all()
    assert data.label("A")[0].max() == 1
    samples = data.samples(["A"])
    assert len(samples) < len(list(data._corners("A", "axial", 0.0)))
    _, label = data.batch(data.draw(samples, 20, generator()))
    assert (label[:10, 0] == 1).flatten(1).any(dim=1).all()


# Weights


def test_the_weight_of_a_case_is_that_of_its_resampled_label(blocks):
    data = blocks(case(spacing_mm=(3.0, 2.0, 2.0)), distance_weight="core")
    mask = data.label("A")[0] == 1
    expected = np.where(mask, distance_transform_edt(mask, sampling=(2.0, 2.0, 2.0)) - 2 + 1, 1)
    np.testing.assert_allclose(data.weight("A")[0], expected, rtol=1e-6)
    assert expected.max() > 3
    drawn = data.draw(data.samples(["A"]), 6, generator())
    _, label, weight = data.batch(drawn)
    assert weight.shape == label.shape == (6, 1, *MATRIX)
    assert (weight[label == 0] == 1).all()
    assert (weight > 1).any()


def test_no_weight_where_none_is_asked_for(blocks):
    data = blocks()
    assert len(data.batch(data.samples(["A"]))) == 2


# Blocks


def test_samples_cover_the_tumour_and_as_much_of_the_head(blocks):
    data = blocks()
    samples = data.samples(["A"])
    _, label = data.batch(samples)
    holding = label.flatten(1).any(dim=1)
    assert holding.sum() == len(samples) / 2
    assert int(label.sum()) >= int(data.label("A").sum())
    assert len(set(samples)) == len(samples)
    assert data.samples(["A"]) == samples
    alone = blocks(tumour_share=1.0)
    assert alone.batch(alone.samples(["A"]))[1].flatten(1).any(dim=1).all()


def test_no_sample_lies_in_the_air(blocks):
    data = blocks(l_shaped())
    samples = data.samples(["A"])
    assert all(data.head("A")[data._slices(block)].any() for block in samples)
    assert len(samples) < len(list(data._corners("A", "axial", 0.0)))
    few = blocks(l_shaped(), tumour_share=0.01)
    assert all(few.head("A")[few._slices(block)].any() for block in few.samples(["A"]))


def test_a_case_without_tumour_gives_no_samples(blocks):
    healthy = case("B")
    healthy.label[:] = 0
    data = blocks(case("A"), healthy)
    assert data.samples(["B"]) == []
    assert {block.case for block in data.samples(["A", "B"])} == {"A"}


@pytest.mark.parametrize("views", ["axial", "three"])
def test_draws_depend_on_the_generator_alone(blocks, views):
    data = blocks(views=views)
    samples = data.samples(["A"])
    first = data.draw(samples, 12, generator(1))
    data.draw(samples, 5, generator(2))
    assert data.draw(samples, 12, generator(1)) == first
    assert data.draw(samples, 12, generator(2)) != first


@pytest.mark.parametrize(("count", "share", "holding"), [(16, 0.5, 8), (1, 0.5, 1), (8, 0.25, 2), (8, 1.0, 8)])
def test_so_many_of_the_blocks_hold_tumour(blocks, count, share, holding):
    """A single tumour voxel, so that hardly another block holds it by chance."""
    arrays = case(tumour=(slice(10, 11), slice(20, 21), slice(9, 10)))
    data = blocks(arrays, tumour_share=share)
    counts, places = [], set()
    for seed in range(20):
        _, label = data.batch(data.draw(data.samples(["A"]), count, generator(seed)))
        counts.append(int(label.flatten(1).any(dim=1).sum()))
        assert label[:holding].flatten(1).any(dim=1).all()
        places |= {tuple(index.tolist()[2:]) for index in label.nonzero()}
    assert min(counts) == holding
    assert len(places) > 10 if holding > 1 else True


def test_blocks_at_random_reach_every_corner_and_none_lies_outside(blocks):
    data = blocks(size_mm=(6, 10, 10))
    drawn = data.draw(data.samples(["A"]), 4000, generator())
    corners = {block.corner for block in drawn[2000:]}
    assert corners == set(itertools.product(range(3), range(3), range(3)))


def test_each_case_is_drawn_as_often_as_the_others(blocks):
    small = case("B", tumour=(slice(8, 9), slice(10, 11), slice(9, 10)))
    data = blocks(case("A"), small)
    samples = data.samples(["A", "B"])
    drawn = [block.case for block in data.draw(samples, 400, generator())]
    assert 160 < drawn.count("B") < 240


def test_half_of_the_blocks_are_mirrored_left_and_right(blocks):
    data = blocks(distance_weight="core")
    samples = data.samples(["A"])
    drawn = data.draw(samples, 400, generator())
    assert 160 < sum(block.mirrored for block in drawn) < 240
    assert not any(block.mirrored for block in samples)
    assert not any(block.mirrored for block in blocks(flip=0.0).draw(samples, 50, generator()))
    straight = [replaced(block, mirrored=False) for block in drawn[:20]]
    mirrored = [replaced(block, mirrored=True) for block in straight]
    for part, other in zip(data.batch(straight), data.batch(mirrored), strict=True):
        assert torch.equal(part, other.flip(-1))
        assert not torch.equal(part, other)


def replaced(block, **fields):
    return block._replace(**fields)


def test_structures_of_a_side_are_not_mirrored(blocks):
    with pytest.raises(InputError, match="would exchange Parotid_L"):
        blocks(structures=("Parotid_L",))
    blocks(structures=("Parotid_L",), flip=0.0)


def test_blocks_of_three_views_have_one_shape_and_their_short_side_along_the_normal(blocks):
    data = blocks(views="three", distance_weight="core")
    samples = data.samples(["A"])
    assert {block.view for block in samples} == {"axial", "coronal", "sagittal"}
    image, label, weight = data.batch(samples)
    assert image.shape == label.shape == weight.shape == (len(samples), 1, *MATRIX)
    volume = data.image("A")[0]
    z, y, x = 3, 6, 5
    for view, expected in {
        "axial": volume[z : z + 4, y : y + 8, x : x + 8],
        "coronal": volume[z : z + 8, y : y + 4, x : x + 8].transpose(1, 0, 2),
        "sagittal": volume[z : z + 8, y : y + 8, x : x + 4].transpose(2, 0, 1),
    }.items():
        block = replaced(samples[0], view=view, corner=(z, y, x))
        assert np.array_equal(data.batch([block])[0][0, 0], expected)
        mirrored = data.batch([replaced(block, mirrored=True)])[0][0, 0]
        assert np.array_equal(mirrored, np.flip(expected, 0 if view == "sagittal" else 2))


def test_blocks_of_twice_the_side(blocks):
    data = blocks(matrix=(2, 4, 4), enlarge=2)
    assert data.matrix == MATRIX
    assert data.batch(data.samples(["A"]))[0].shape[1:] == (1, *MATRIX)


def test_views_are_drawn_alike(blocks):
    data = blocks(views="three")
    views = [block.view for block in data.draw(data.samples(["A"]), 600, generator())]
    assert min(views.count(view) for view in ("axial", "coronal", "sagittal")) > 150


# Testing


@pytest.mark.parametrize("views", ["axial", "three"])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_sliding_window_of_an_identity_returns_the_volume(blocks, views, overlap):
    """Every block comes back to its place, whatever its view: the image itself is the probability."""
    arrays = case()
    data = blocks(arrays, views=views, overlap=overlap)
    found = predict(data, Channel())
    expected = np.zeros(arrays.label.shape, np.float32)
    expected[HEAD] = data.image("A")[0].clip(0, 1)
    assert found.shape == (1, 20, 30, 28)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    assert 0.1 < found[0][HEAD].mean() < 0.9


@pytest.mark.parametrize("batch_size", [1, 5])
def test_overlapping_blocks_are_averaged_as_monai_does(blocks, batch_size):
    data, network = blocks(), Local()
    volume = torch.from_numpy(data.image("A").copy())[None]
    with torch.no_grad():
        expected = sliding_window_inference(volume, MATRIX, 4, lambda image: network(image).sigmoid(), overlap=0.5)
    found = predict(data, network, activation="sigmoid", batch_size=batch_size)
    torch.testing.assert_close(found[0][HEAD], expected[0, 0], atol=1e-5, rtol=0)


def test_softmax_and_several_structures(blocks):
    class Three(nn.Module):
        def forward(self, image):
            return torch.cat([torch.zeros_like(image), torch.ones_like(image), 2 * torch.ones_like(image)], dim=1)

    data = blocks(structures=("GTVp", "GTVnd"))
    found = predict(data, Three(), activation="softmax")
    expected = torch.tensor([0.0, 1.0, 2.0]).softmax(dim=0)[1:]
    torch.testing.assert_close(found[(slice(None), *HEAD)].amin(dim=(1, 2, 3)), expected)


def test_blocks_outside_the_head_are_passed_over(blocks):
    data, network = blocks(l_shaped(), overlap=0.0), Local()
    found = predict(data, network, activation="sigmoid", batch_size=100)
    assert network.batches == [(2 * (16 - 4), 1, *MATRIX)]
    assert not found[0, :, 16:, 16:].any()
    assert (found[0, :, :16, :16] > 0).all()


def test_probabilities_come_back_to_the_grid_of_the_case(blocks):
    shape, head = (10, 40, 44), (slice(2, 8), slice(8, 32), slice(8, 36))
    arrays = case(
        shape=shape, head=head, tumour=(slice(4, 6), slice(12, 24), slice(16, 24)), spacing_mm=(3.0, 0.5, 0.5)
    )
    arrays.image[0] = 100 * box(shape, head) + 900 * arrays.label.astype(np.int16)
    data = blocks(arrays)
    found = predict(data, Channel())
    assert found.shape == (1, *shape)
    inner = found[0] >= 0.5
    both = (inner & torch.from_numpy(arrays.label > 0)).sum()
    assert 2 * both / (inner.sum() + arrays.label.sum()) > 0.9


def test_nothing_reads_the_label_in_testing(blocks):
    healthy = case()
    healthy.label[:] = 0
    with_label, without = blocks(), blocks(healthy)
    expected = predict(with_label, Local())
    assert torch.equal(predict(without, Local()), expected)
    assert not list(without.folder.glob("*label*"))


# Coarse maps


def write_map(path, probability):
    np.savez_compressed(path, label=np.zeros(3), probability=np.round(255 * probability).astype(np.uint8))
    return path


@pytest.fixture
def coarse(tmp_path):
    """A map (1, z, y, x) in steps of 1/255 on the case's own grid, and the file that holds it."""
    probability = np.random.default_rng(1).integers(0, 256, (1, 20, 30, 28)).astype(np.float32) / 255
    return probability, write_map(tmp_path / "A.npz", probability)


def test_maps_are_the_last_channels(blocks, coarse):
    probability, path = coarse
    data = blocks(maps={"A": path}, views="three")
    drawn = data.draw(data.samples(["A"]), 6, generator())
    with_map = data.batch(drawn)[0]
    data.maps = None
    assert torch.equal(with_map[:, :1], data.batch(drawn)[0])
    assert with_map.shape == (6, 2, *MATRIX)
    data.maps = {"A": path}
    np.testing.assert_allclose(data._map("A") / 255, probability[(slice(None), *HEAD)], atol=1e-6)
    data.fuse = FUSIONS["fine"]
    np.testing.assert_allclose(predict(data, Channel(1))[0][HEAD], probability[0][HEAD], atol=1e-6)


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [("mean", (0.2 + 0.8) / 2), ("product", 0.5), ("maximum", 0.8), ("fine", 0.2)],
)
def test_fusion_of_two_probabilities(blocks, tmp_path, fusion, expected):
    path = write_map(tmp_path / "A.npz", np.full((1, 20, 30, 28), 0.8, np.float32))
    data = blocks(maps={"A": path}, fusion=fusion)

    class Constant(nn.Module):
        def forward(self, image):
            return torch.full_like(image[:, :1], 0.2)

    found = predict(data, Constant())[0]
    torch.testing.assert_close(found[HEAD], torch.full_like(found[HEAD], expected))


def test_the_product_of_certainties_is_no_division_by_zero():
    sure, never, perhaps = (torch.tensor([p]) for p in (1.0, 0.0, 0.3))
    product = FUSIONS["product"]
    assert product(sure, perhaps).item() == 1
    assert product(never, perhaps).item() == 0
    assert product(torch.tensor([0.9]), perhaps).item() == pytest.approx(0.27 / (0.27 + 0.07))
    assert product(sure, never).item() == 0


def test_a_case_without_its_map_is_an_error(blocks, coarse):
    data = blocks(maps={"B": coarse[1]})
    with pytest.raises(InputError, match="no coarse map of case A"):
        data.batch(data.samples(["A"]))


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "axail"}, "did you mean 'axial'"),
        ({"fusion": "avarage"}, "unknown fusion 'avarage'"),
        ({"distance_weight": "boundry"}, "did you mean 'boundary'"),
        ({"tumour_share": 0.0}, "tumour_share=0 is a share"),
        ({"tumour_share": 1.5}, "tumour_share=1.5 is a share"),
        ({"overlap": 1.0}, "overlap=1 is a share"),
    ],
)
def test_options_out_of_their_range(blocks, options, message):
    with pytest.raises(InputError, match=message):
        blocks(**options)


def test_a_structure_that_the_cohort_lacks(blocks):
    data = blocks(structures=("GTVp", "GTVnd"))
    with pytest.raises(InputError, match="has the structures GTVp, GTVnd, the method needs BrainStem"):
        BlockData(data.cohort, MATRIX, ("CET1",), ("BrainStem",))
